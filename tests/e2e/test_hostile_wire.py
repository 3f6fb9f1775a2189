"""Bytes that no client of good will sends, and what they must not do; that each is refused is in test_hostile.py."""

import socket
import time
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path

import pytest
from hostile_cases import BODY, CHUNKED, length, post


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


def test_what_comes_behind_a_body_is_no_header(url: str) -> None:
    chunks = b"1d\r\n" + BODY + b"\r\n0\r\n"
    received, _ = talk(
        url, post(CHUNKED + b"Connection: close\r\n", chunks + b"Content-Encoding: gzip\r\n\r\n")
    )
    assert received.startswith(b"HTTP/1.1 200 ")
    for endless in (b"x: y\r\n" * 100_000, b"x: " + b"y" * 500_000):
        received, seconds = talk(url, post(CHUNKED, chunks + endless))
        assert received == b"" or received.startswith((b"HTTP/1.1 431 ", b"HTTP/1.1 4"))
        assert seconds < 2


def test_nothing_is_served_behind_a_last_answer(serving, tiny_store: Path) -> None:
    with serving(tiny_store) as url:
        refused = post(length(29) + b"x: y\r\n" * 100)
        received, _ = talk(url, refused + post(length(29)) * 3)
        assert received.count(b"HTTP/1.1 ") <= 1
        with urllib.request.urlopen(url + "/metrics", timeout=5) as answer:
            assert b'mariana_requests_total{endpoint="POST /v1/models/{name}/predict"' not in answer.read()


ROWS = 60_000
LARGE = post(length(16 * ROWS) + b"Content-Type: application/octet-stream\r\n", b"\0" * 16 * ROWS)


def test_who_takes_no_answer_holds_nothing(serving, tiny_store: Path) -> None:
    with serving(tiny_store, answer_timeout=0.3, idle_timeout=0.3, max_inflight=2) as url:
        host, port = url.removeprefix("http://").split(":")
        connections = []
        for _ in range(4):
            connection = socket.socket()
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect((host, int(port)))
            connection.settimeout(5)
            connection.sendall(LARGE)
            connections.append(connection)
        deadline = time.monotonic() + 10
        metrics = ""
        while time.monotonic() < deadline and 'reason="stalled"} ' not in metrics:
            time.sleep(0.1)
            with (
                suppress(urllib.error.HTTPError),
                urllib.request.urlopen(url + "/metrics", timeout=5) as answer,
            ):
                metrics = answer.read().decode()  # else it is busy, as it says
        assert 'reason="stalled"} ' in metrics
        time.sleep(1)
        with urllib.request.urlopen(url + "/metrics", timeout=5) as answer:
            metrics = answer.read().decode()
        assert "mariana_inflight_requests 1\n" in metrics
        assert (
            int(metrics.partition("\nmariana_connections ")[2].partition("\n")[0]) <= 1
        )  # that of this question
        for connection in connections:
            connection.close()


def test_who_takes_an_answer_slowly_gets_all_of_it(serving, tiny_store: Path) -> None:
    with serving(tiny_store, answer_timeout=0.5, idle_timeout=0.5) as url:
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=5) as connection:
            connection.sendall(LARGE)
            received = connection.recv(1 << 16)
            wanted = int(received.partition(b"content-length: ")[2].partition(b"\r\n")[0])
            wanted += received.index(b"\r\n\r\n") + 4
            size = len(received)
            while size < wanted:
                time.sleep(0.05)
                size += len(connection.recv(1 << 18, socket.MSG_WAITALL))
            assert size == wanted
