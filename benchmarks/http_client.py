"""A client of many connections in one thread: as fast as the server answers, or as fast as it is told to send."""

from __future__ import annotations

import os
import selectors
import socket
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field


@dataclass
class Answers:
    """What came back."""

    seconds: list[float] = field(default_factory=list)
    """of good answers, each from when its request was due"""
    refused: int = 0
    """503 or 429 with Retry-After"""
    refused_seconds: list[float] = field(default_factory=list)
    wrong: int = 0
    """other answers, and connections that broke"""
    unsent: int = 0
    """requests for which there was no connection"""


class _Connection:
    """One connection, with a request under way or not."""

    def __init__(self, address: tuple[str, int], selector: selectors.BaseSelector) -> None:
        self.socket = socket.create_connection(address, timeout=30)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.received = b""
        self.due = 0.0
        selector.register(self.socket, selectors.EVENT_READ, self)

    def send(self, request: bytes, due: float) -> bool:
        """Send a request; False: the connection is closed."""
        self.due = due
        try:
            self.socket.sendall(request)
        except OSError:
            return False
        return True

    def receive(self) -> tuple[int, bool, bool] | None:
        """Return status, whether Retry-After is there, and whether it goes on; None: there is more to come."""
        try:
            data = self.socket.recv(65536)
        except OSError:
            data = b""
        if not data:
            return 0, False, False
        self.received += data
        head, found, body = self.received.partition(b"\r\n\r\n")
        if not found:
            return None
        head = head.lower()
        length = head.partition(b"content-length:")[2].split(b"\r\n", 1)[0]
        if len(body) < int(length or 0):
            return None
        self.received = b""
        return int(head[9:12]), b"\r\nretry-after:" in head, b"\r\nconnection: close" not in head


@contextmanager
def client_core() -> Iterator[int]:
    """Put this process on the first core; give the last, for a server: the system's own work is mostly on the first."""
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[0]})
    with suppress(
        OSError
    ):  # before all else there, where the system allows it: a client that waits measures itself
        os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(1))
    try:
        yield cores[-1]
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        os.sched_setaffinity(0, cores)


def closed_loop(address: tuple[str, int], request: bytes, connections: int, seconds: float) -> Answers:
    """Keep a request under way on each connection for some seconds."""
    return _run(address, request, connections, seconds, None)


def open_loop(
    address: tuple[str, int], request: bytes, connections: int, seconds: float, rate: float
) -> Answers:
    """Send so many requests a second whatever the server does, each on a connection that waits for nothing."""
    return _run(address, request, connections, seconds, rate)


def _run(
    address: tuple[str, int], request: bytes, connections: int, seconds: float, rate: float | None
) -> Answers:
    with selectors.DefaultSelector() as selector:
        load = _Load(address, request, selector, connections)
        begun = time.perf_counter()
        while (now := time.perf_counter() - begun) < seconds:
            if rate is None:
                load.send([begun + now] * len(load.idle))
            else:
                load.send([begun + i / rate for i in range(load.sent, int(now * rate))])
            for key, _ in selector.select(0.0005):
                load.take(key.data)
        for key in list(selector.get_map().values()):
            key.data.socket.close()
    return load.answers


class _Load:
    """Some connections, and what came back on them."""

    def __init__(
        self, address: tuple[str, int], request: bytes, selector: selectors.BaseSelector, connections: int
    ) -> None:
        self.answers = Answers()
        self.sent = 0
        self.idle = deque(_Connection(address, selector) for _ in range(connections))
        self._address = address
        self._request = request
        self._selector = selector

    def send(self, due: list[float]) -> None:
        """Send a request for each moment at which one was due, as far as there are connections."""
        self.sent += len(due)
        for i, moment in enumerate(due):
            if not self.idle:
                self.answers.unsent += len(due) - i
                return
            connection = self.idle.popleft()
            if not connection.send(self._request, moment):
                self.answers.wrong += 1
                self._put_back(connection, alive=False)

    def take(self, connection: _Connection) -> None:
        """Take what has come on a connection."""
        found = connection.receive()
        if found is None:
            return
        status, retry, alive = found
        took = time.perf_counter() - connection.due
        if status == 200:
            self.answers.seconds.append(took)
        elif status in (429, 503) and retry:
            self.answers.refused += 1
            self.answers.refused_seconds.append(took)
        else:
            self.answers.wrong += 1
        self._put_back(connection, alive=alive)

    def _put_back(self, connection: _Connection, *, alive: bool) -> None:
        if not alive:
            self._selector.unregister(connection.socket)
            connection.socket.close()
            connection = _Connection(self._address, self._selector)
        self.idle.append(connection)
