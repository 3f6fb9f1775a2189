"""Each hostile request is answered within a second by a 4xx below 1 kB, while good requests go on.

A machine that is busy may be late with anything. So a case that was late is tried again: one that makes the server work, or
wait, for long is late each time.
"""

import http.client
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

import pytest
from hostile_cases import BODY, CASES, CHUNKED, GOOD_BYTES, MARK, REFUSED, Case, length, post

SECONDS = 1.0
TRIES = 5

GOOD = [
    ("POST", "/v1/models/tiny/predict", BODY),
    ("POST", "/v2/models/tiny/infer", GOOD_BYTES),
    ("GET", "/v1/indexes/towns/complete?q=sai", None),
    ("GET", "/v2/health/ready", None),
]

UNFINISHED = [
    b"P",
    b"POST /v1/models/tiny/predict HTTP/1.1\r\n",
    post(length(29))[:-29][:-2],
    post(b"x: y\r\n" * 10)[:-40],
    post(length(29), b""),
    post(length(29), BODY[:-1]),
    post(length(1 << 19), b"[" * 1000),
    post(length(29) + b"Content-Type: application/octet-stream\r\n", b"abc"),
    post(length(29) + b"Content-Encoding: gzip\r\n", b"\x1f\x8b"),
    post(length(29), b"", b"/v2/models/tiny/infer"),
    post(length(29), b"", b"/v1/models/none/predict"),
    post(b"Connection: Upgrade\r\nUpgrade: h2c\r\n" + length(29), b""),
    *(
        post(CHUNKED, chunks)
        for chunks in (b"", b"1", b"1d\r\n", b"1d\r\n" + BODY, b"1d\r\n" + BODY + b"\r\n0\r\n")
    ),
]
"""Requests whose end does not come."""


@contextmanager
def running(store: Path, **environment: str) -> Iterator[int]:
    """Serve a store by the command; gives the port."""
    process = subprocess.Popen(
        [sys.executable, "-m", "mariana", "serve", "--store", str(store), "--port", "0"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )
    try:
        yield int(process.stdout.readline().rstrip("/\n").rpartition(":")[2])
        assert process.poll() is None, "the server has ended"
    finally:
        process.terminate()
        status = process.wait(60)
        process.stdout.close()
    assert status == 0


class GoodClient:
    """Sends good requests, one after the other, and knows whether one has failed."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._answered = threading.Condition()
        self._stopping = False
        self._last = (0.0, 0.0)
        self.failure = ""
        self.count = 0
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping = True
        self._thread.join()

    def served_since(self, when: float) -> float:
        """Return how long a request took that was begun after a moment of ``time.monotonic``."""
        with self._answered:
            assert self._answered.wait_for(lambda: self.failure or self._last[0] > when, 60), (
                "no good request is answered"
            )
            assert not self.failure, self.failure
            return self._last[1]

    def _run(self) -> None:
        expected: dict[str, bytes] = {}
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        while not self._stopping and not self.failure:
            for method, path, body in GOOD:
                begun, failure = time.monotonic(), ""
                try:
                    connection.request(method, path, body)
                    answer = connection.getresponse()
                    text = answer.read()
                    if answer.status != 200 or text != expected.setdefault(path, text):
                        failure = f"{path}: {answer.status} {text[:200]!r}"
                except (OSError, http.client.HTTPException) as error:
                    failure = f"{path}: {error!r}"
                with self._answered:
                    self.failure = failure
                    self.count += 1
                    self._last = (begun, time.monotonic() - begun)
                    self._answered.notify_all()
                if failure:
                    break
        connection.close()


def ask(port: int, raw: bytes) -> tuple[bytes, bytes, float]:
    """Send bytes; return the first answer's head and body, and the seconds from the last byte there to the last one back."""
    received = b""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        with suppress(ConnectionError):  # it may be answered before all of it is there
            connection.sendall(raw)
        sent = time.monotonic()
        try:
            while data := connection.recv(65536):
                received += data
                head, end, body = received.partition(b"\r\n\r\n")
                if end and len(body) >= int(
                    head.lower().partition(b"\r\ncontent-length: ")[2].partition(b"\r\n")[0]
                ):
                    break
        except ConnectionError:
            pass
        seconds = time.monotonic() - sent
    head, _, body = received.partition(b"\r\n\r\n")
    return head, body, seconds


def raw_of(case: Case) -> bytes:
    """Return a case as it goes over the wire."""
    path, body, headers = case
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return post(lines.encode("latin-1") + length(len(body)), body, path.encode())


def check(port: int, good: GoodClient, raw: bytes) -> None:
    """Send bytes and see that they are refused as promised, and that a good request is answered meanwhile."""
    late = []
    for _ in range(TRIES):
        begun = time.monotonic()
        head, body, seconds = ask(port, raw)
        others = good.served_since(begun)
        told = (raw[:300], head, body)
        if (
            head
        ):  # else the answer was lost with what had not been read of the request: the next try will tell
            assert head.startswith(b"HTTP/1.1 4"), told
            assert b"\r\ncontent-type: application/problem+json" in head, told
            assert len(body) < 1000, told
            assert MARK.encode() not in body, told
            assert json.loads(body)["status"] == int(head[9:12]), told
            if max(seconds, others) <= SECONDS:
                return
        late.append((seconds, others))
    raise AssertionError((raw[:300], late))


def check_all(store: Path, requests: list[bytes], **environment: str) -> None:
    with running(store, **environment) as port, GoodClient(port) as good:
        for raw in requests:
            check(port, good, raw)
        assert good.count >= len(requests)


def test_there_are_many() -> None:
    assert len(REFUSED) > 70
    assert len(CASES) >= 300
    assert len(REFUSED) + len(CASES) + len(UNFINISHED) >= 400


def test_no_request_of_http(tiny_store: Path) -> None:
    check_all(tiny_store, REFUSED)


@pytest.mark.parametrize("half", [0, 1])
def test_no_request_for_a_prediction(tiny_store: Path, half: int) -> None:
    check_all(tiny_store, [raw_of(case) for case in CASES[half::2]])


def test_no_end_of_a_request(tiny_store: Path) -> None:
    deadlines = {f"MARIANA_{part}_TIMEOUT": "0.2" for part in ("HEAD", "BODY")}
    check_all(tiny_store, UNFINISHED, **deadlines)
