"""Bytes that no client of good will sends: answered with a small 4xx or closed, at once, while good requests go on."""

import socket
import time
import urllib.request
from pathlib import Path

import pytest

BODY = b'{"instances": [[1, 2, 3, 4]]}'
PATH = b"/v1/models/tiny/predict"
LONG = b"a" * 3000


def post(
    headers: bytes, body: bytes = BODY, path: bytes = PATH, method: bytes = b"POST", version: bytes = b"1.1"
) -> bytes:
    return method + b" " + path + b" HTTP/" + version + b"\r\nHost: x\r\n" + headers + b"\r\n" + body


def length(value: object) -> bytes:
    return b"Content-Length: %b\r\n" % str(value).encode("latin-1")


CHUNKED = b"Transfer-Encoding: chunked\r\n"
REFUSED = [
    # lengths that are none, or two
    *(post(length(value)) for value in ("-1", "+29", "29.0", "0x1d", "1e2", " ", "29 29", "29,29", "9" * 40, "\xb2", "2_9")),
    post(length(29) + length(30)),
    post(length(29) + CHUNKED),
    post(CHUNKED + length(29)),
    post(b"Transfer-Encoding: identity\r\n" + length(29)),
    post(b"Transfer-Encoding: gzip, chunked\r\n", b"0\r\n\r\n"),
    post(b"Transfer-Encoding: chunked, chunked\r\n", b"0\r\n\r\n"),
    post(b"Transfer-Encoding : chunked\r\n", b"0\r\n\r\n"),
    post(b"Transfer-Encoding:\tchunked\x0b\r\n", b"0\r\n\r\n"),
    # chunks that are none
    *(post(CHUNKED, size + b"\r\n" + BODY + b"\r\n0\r\n\r\n") for size in (b"x", b"-1", b"0x1d", b"1" * 40, b"", b" ", b"1d;" + b"\0")),
    post(CHUNKED, b"1d\r\n" + BODY + b"0\r\n\r\n"),
    # what a body means
    post(length(1 << 30), b""),
    post(length(2), b"{}"),
    post(CHUNKED, b"2\r\n{}\r\n0\r\n\r\n"),
    post(CHUNKED, b"1\r\n \r\n" * 3000 + b"0\r\n\r\n"),
    # request lines
    *(post(length(29), method=method) for method in (b"", b"post", b"P\0ST", b"POST POST", b"\xff\xfe", b"TRACE", b"A" * 100)),
    *(post(length(29), path=path) for path in (b"", b"x", b"/\0", b"//etc/passwd", b"/v1/models/..%2f..%2fetc/predict", b"/%", b"/%zz",
                                                b"/v1/models/%00/predict", b"/" + LONG, b"/v1/models/tiny/predict/", b"/V1/models/tiny/predict")),
    *(post(length(29), version=version) for version in (b"", b"0.9", b"9.9", b"x", b"1.1 ", b"2.0")),
    b"GET /\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"\0" * 1000,
    b"\xff" * 1000,
    b"SSH-2.0-x\r\n",
    # headers
    *(post(length(29) + header) for header in (b"\0: x\r\n", b"x\r\n", b": x\r\n", b"a b: x\r\n", b"x: \0\r\n", b"x: a\rb\r\n", b"(x): y\r\n")),
    post(length(29) + b"x: y\r\n" * 200),
    post(length(29) + b"x: " + LONG * 10 + b"\r\n"),
    post(length(29) + b"Content-Type: application/xml\r\n"),
    post(length(29) + b"Content-Encoding: x\r\n"),
    post(length(29) + b"Inference-Header-Content-Length: -5\r\n", path=b"/v2/models/tiny/infer"),
]  # fmt: skip


@pytest.fixture(scope="module")
def url(serving, tiny_store: Path):
    with serving(tiny_store, head_timeout=0.5, body_timeout=0.5, idle_timeout=0.5) as url:
        yield url


def talk(url: str, raw: bytes) -> tuple[bytes, float]:
    host, port = url.removeprefix("http://").split(":")
    start = time.monotonic()
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        received = b""
        try:
            connection.sendall(raw)
            while data := connection.recv(65536):
                received += data
        except ConnectionError:
            pass
    return received, time.monotonic() - start


def test_each_is_refused_and_harms_nobody(url: str) -> None:
    assert len(REFUSED) > 70
    for raw in REFUSED:
        received, _ = talk(url, raw)
        if received:
            head, _, body = received.partition(b"\r\n\r\n")
            assert head[:10] == b"HTTP/1.1 4", (raw[:200], head)
            assert len(body) < 1000, (raw[:200], body)
            assert b"Traceback" not in body
        with urllib.request.urlopen(url + PATH.decode(), BODY, timeout=5) as answer:
            assert answer.status == 200


def test_a_smuggled_request_is_not_served(url: str) -> None:
    hidden = b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n"
    for headers in (
        length(29) + CHUNKED,
        length(29) + length(0),
        b"Transfer-Encoding: chunked\r\n" + length(4),
    ):
        received, _ = talk(url, post(headers, b"0\r\n\r\n" + hidden))
        assert b'"live":true' not in received, headers


def test_many_small_chunks_are_taken(url: str) -> None:
    body = BODY + b" " * 20_000
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"
    received, _ = talk(url, post(CHUNKED + b"Connection: close\r\n", chunks))
    assert received.startswith(b"HTTP/1.1 200 ")
