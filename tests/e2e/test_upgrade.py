"""A request that asks for another protocol is answered as the request of HTTP/1.1 that it is (RFC 9110 section 7.8)."""

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

BODY = b'{"instances": [[1, 2, 3, 4]]}'
PREDICT = b"POST /v1/models/tiny/predict HTTP/1.1\r\n"
LIVE = b"GET /v2/health/live HTTP/1.1\r\n"
JAVA = (
    b"Connection: Upgrade, HTTP2-Settings\r\nContent-Length: %d\r\nHost: x\r\nHTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABk\r\n"
    b"Upgrade: h2c\r\nUser-Agent: Java-http-client/17.0.9\r\nContent-Type: application/json\r\n\r\n"
)
"""The headers of Java's HttpClient, which asks for HTTP/2 unless it is told not to."""
H2C = b"Host: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n"
CHUNKED = H2C + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.fixture(scope="module")
def url(serving, tiny_store: Path) -> Iterator[str]:
    with serving(tiny_store, idle_timeout=0.1) as url:
        yield url


def answers(url: str, *parts: bytes, pause: float = 0.0) -> list[tuple[int, bytes]]:
    """Send parts and return status and body of every answer, until the server has waited for more."""
    host, port = url.removeprefix("http://").split(":")
    received = b""
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            for part in parts:
                connection.sendall(part)
                time.sleep(pause)
            while data := connection.recv(65536):
                received += data
        except ConnectionError:
            pass
    found = []
    while received:
        head, _, received = received.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"\r\ncontent-length: ")[2].partition(b"\r\n")[0])
        found.append((int(head[9:12]), received[:length]))
        received = received[length:]
    return found


@pytest.fixture(scope="module")
def predicted(url: str) -> bytes:
    ((status, body),) = answers(url, PREDICT + b"Host: x\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY)
    assert status == 200
    return body


@pytest.mark.parametrize(
    "request_",
    [
        PREDICT + JAVA % len(BODY) + BODY,
        PREDICT + CHUNKED + b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY),
        PREDICT + H2C + b"Upgrade: TLS/1.2\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY,
        PREDICT + H2C.replace(b"h2c", b"h2c, \t foo/2") + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY,
    ],
    ids=["java", "chunked", "two", "list"],
)
def test_the_answer_is_that_of_a_plain_request(url: str, predicted: bytes, request_: bytes) -> None:
    assert answers(url, request_) == [(200, predicted)]
    assert answers(url, request_ * 3) == [(200, predicted)] * 3  # and the connection goes on
    assert answers(url, *(bytes([byte]) for byte in request_), pause=0.0002) == [(200, predicted)]
    assert answers(url, request_[: request_.index(b"\r\n\r\n") + 4], request_.partition(b"\r\n\r\n")[2], pause=0.05) == [
        (200, predicted)
    ]  # fmt: skip


def test_a_body_is_framed_as_ever(url: str) -> None:
    hidden = LIVE + b"Host: x\r\n\r\n"
    live = b'{"live":true}'
    for method in (LIVE, PREDICT):
        found = answers(url, method + JAVA % len(hidden), hidden, pause=0.05)  # the body looks like a request
        assert len(found) == 1
        assert (found[0][1] == live) == (method == LIVE)
        chunked = b"%x\r\n%b\r\n0\r\n\r\n" % (len(hidden), hidden)
        assert len(answers(url, method + CHUNKED + chunked)) == 1
        assert len(answers(url, method + CHUNKED + chunked + hidden)) == 2
    assert [status for status, _ in answers(url, LIVE + H2C + b"\r\n" + hidden * 2)] == [200] * 3


def test_a_long_body_and_many_requests(url: str, predicted: bytes) -> None:
    padded = BODY + b" " * 500_000
    assert answers(url, PREDICT + JAVA % len(padded) + padded) == [(200, predicted)]
    many = (LIVE + H2C + b"\r\n") * 200
    assert [status for status, _ in answers(url, many)] == [200] * 200


@pytest.mark.parametrize(
    "head",
    [
        LIVE + b"Host: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        PREDICT + b"Host: x\r\nConnection: Upgrade\r\nUpgrade: h2c, WebSocket\r\nContent-Length: 40\r\n\r\n",
        b"CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"CONNECT /v2/health/live HTTP/1.1\r\nHost: x\r\nContent-Length: 40\r\n\r\n",
    ],
)
def test_sockets_and_tunnels_are_refused(url: str, head: bytes) -> None:
    for parts in ((head, LIVE + b"Host: x\r\n\r\n"), (head + LIVE + b"Host: x\r\n\r\n",)):
        ((status, body),) = answers(url, *parts, pause=0.05)
        assert status == 400
        assert "WebSockets" in json.loads(body)["detail"]


def test_a_connection_whose_body_comes_behind_the_answer_does_not_stay(url: str) -> None:
    body = LIVE + b"Host: x\r\nContent-Length: 4\r\n\r\n", b"late"
    assert answers(url, *body, pause=0.05) == [(200, b'{"live":true}')]


def test_curl_that_asks_for_http_2(url: str, predicted: bytes) -> None:
    curl = shutil.which("curl")
    if (
        curl is None
        or b"HTTP2" not in subprocess.run([curl, "--version"], capture_output=True, check=True).stdout
    ):
        pytest.skip("no curl with HTTP/2 (Debian: apt-get install curl)")
    predict, live = f"{url}/v1/models/tiny/predict", f"{url}/v2/health/live"
    told = ["-w", " %{http_version} %{response_code}\n"]
    done = subprocess.run(
        [curl, "-s", "--http2", "-m", "30", predict, "-d", BODY.decode(), *told, "--next", "-s", "--http2", live, *told],
        capture_output=True,
        check=True,
    )  # fmt: skip
    assert done.stdout == b'%b 1.1 200\n{"live":true} 1.1 200\n' % predicted
