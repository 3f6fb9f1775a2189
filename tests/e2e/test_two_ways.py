"""A request that comes whole is read in C, one that comes in parts by uvicorn's parser: the answers are the same."""

import json
import re
import socket
import time
from pathlib import Path

import numpy as np
import pytest

X = np.array([[0.5, -1, 2e-3, 4]], dtype="<f4")
ROW = b'{"instances": [[0.5, -1, 2e-3, 4]]}'
TENSOR = {"name": "input", "shape": [1, 4], "datatype": "FP32"}
INFER = json.dumps({"id": "7", "inputs": [{**TENSOR, "data": X[0].tolist()}]}).encode()
HEAD = json.dumps({"inputs": [{**TENSOR, "parameters": {"binary_data_size": 16}}]}).encode()
PREDICT, INFER_PATH = b"/v1/models/tiny/predict", b"/v2/models/tiny/infer"
COMPLETE = b"/v1/indexes/towns/complete"
JSON, OCTETS = b"Content-Type: application/json\r\n", b"Content-Type: application/octet-stream\r\n"


def post(path: bytes, body: bytes, headers: bytes = JSON) -> bytes:
    length = b"Content-Length: %d\r\n" % len(body)
    return b"POST %b HTTP/1.1\r\nHost: x\r\n%b%b\r\n%b" % (path, headers, length, body)


def get(path: bytes, headers: bytes = b"") -> bytes:
    return b"GET %b HTTP/1.1\r\nHost: x\r\n%b\r\n" % (path, headers)


BLOB = HEAD + X.tobytes()
BINARY = OCTETS + b"Inference-Header-Content-Length: %d\r\n" % len(HEAD)
REQUESTS = [
    post(PREDICT, ROW),
    post(PREDICT, ROW, b""),
    post(PREDICT, ROW, b"Content-Type: text/plain\r\n"),
    post(PREDICT, ROW, b"Content-Type: image/png\r\n"),
    post(PREDICT, ROW, JSON + b"Accept-Encoding: gzip\r\n"),
    post(PREDICT, ROW, JSON + b"X-Server-Timing: 1\r\n"),
    post(PREDICT, ROW, JSON + b"Origin: http://x\r\n"),
    post(PREDICT, ROW, JSON + b"Content-Encoding: gzip\r\n"),
    post(PREDICT + b"?a", ROW),
    post(PREDICT, X.tobytes(), OCTETS),
    post(PREDICT, X.tobytes()[:-1], OCTETS),
    post(PREDICT, b'{"instances": [[1, 2, 3]]}'),
    post(PREDICT, b'{"instances": [[1, 2, 3, null]]}'),
    post(PREDICT, b'{"instances": [{"x0": 1, "x1": 2, "x2": 3, "x3": 4}]}'),
    post(PREDICT, b'{"instances": [[1e39, 2, 3, 4]]}'),
    post(PREDICT, b'{"instances": [[3e38, 3e38, 3e38, 3e38]]}'),
    post(PREDICT, b'{"instances": [' + b",".join([b"[1, 2, 3, 4]"] * 50) + b"]}"),
    post(PREDICT, b""),
    post(b"/v1/models/price/predict", b'{"instances": [[1, 1, 0, null]]}'),
    post(b"/v1/models/tiny/versions/1/predict", ROW),
    post(b"/v1/models/none/predict", ROW),
    get(PREDICT),
    post(INFER_PATH, INFER),
    post(INFER_PATH, INFER, b""),
    post(INFER_PATH, INFER.replace(b"[1, 4]", b"[1, 5]")),
    post(INFER_PATH, BLOB, BINARY),
    post(INFER_PATH, BLOB[:-4], BINARY),
    post(INFER_PATH, X.tobytes(), OCTETS + b"Inference-Header-Content-Length: 0\r\n"),
    post(INFER_PATH, b"".join([HEAD.replace(b"[1, 4]", b"[2, 4]"), X.tobytes()]), BINARY),
    get(COMPLETE + b"?q=sa"),
    get(COMPLETE + b"?q=sa&limit=1&fuzzy=0"),
    get(COMPLETE + b"?q=%C3%A9"),
    get(COMPLETE + b"?q=%ff"),
    get(COMPLETE),
    get(COMPLETE + b"?q=a&limit=0"),
    get(COMPLETE + b"?q=sa", b"If-None-Match: *\r\n"),
    get(b"/v1/models"),
]
CHANGING = re.compile(rb"(?im)^(date|x-request-id|server-timing):[^\r]*\r\n")


def receive(connection: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        data += connection.recv(65536)
    head, _, body = data.partition(b"\r\n\r\n")
    length = re.search(rb"(?im)^content-length: (\d+)", head)
    while length is not None and len(body) < int(length[1]):
        body += connection.recv(65536)
    lines = sorted(CHANGING.sub(b"", head + b"\r\n").split(b"\r\n"))
    return b"\r\n".join(lines) + body


@pytest.fixture(scope="module")
def connection(serving, tiny_store: Path):
    with serving(tiny_store) as url:
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=20) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            yield connection


@pytest.mark.parametrize("number", range(len(REQUESTS)))
def test_whole_and_in_parts(connection: socket.socket, number: int) -> None:
    request = REQUESTS[number]
    connection.sendall(request)
    whole = receive(connection)
    assert b"HTTP/1.1 " in whole
    end = request.index(b"\r\n\r\n") + 4
    for cut in {1, end - 1, end, (len(request) + end) // 2} - {len(request)}:
        connection.sendall(request[:cut])
        time.sleep(0.005)
        connection.sendall(request[cut:])
        assert receive(connection) == whole
