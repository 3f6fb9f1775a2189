"""What stands before FastAPI: looks the frequent requests up and answers them at once; watches over all the others.

FastAPI's own way from a request to a function costs more than a prediction. So the paths of predictions and
completions are looked up here first, and answered by the quick ways of ``versions`` and ``completions``. Whatever they
decline goes through FastAPI with its schemas, which gives the same answer, and words the errors.

:meth:`Front.quick` is the one entry for both kinds of server: ``protocol`` calls it straight from the parser of
``mariana serve``; :meth:`Front.__call__` is an ASGI application for any other server, and for tests.
"""

from __future__ import annotations

import asyncio
import itertools
import re
import secrets
import zlib
from collections.abc import Callable, Iterable, Mapping
from time import perf_counter
from typing import Any, NamedTuple

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mariana.settings import Settings

from .bodies import JSON, OCTETS
from .errors import Problem
from .limits import Gate
from .observe import AccessLog
from .state import State

Pairs = Iterable[tuple[bytes, bytes]]


class Headers:
    """Headers of answers that are always the same: as pairs, and as they go over the wire."""

    __slots__ = ("pairs", "raw")

    def __init__(self, *pairs: tuple[bytes, bytes]) -> None:
        self.pairs = pairs
        self.raw = join(pairs)


def join(pairs: Pairs) -> bytes:
    """Return headers as they go over the wire."""
    return b"".join([b"%b: %b\r\n" % pair for pair in pairs])


NOSNIFF = (b"x-content-type-options", b"nosniff")
JSON_HEADERS = Headers((b"content-type", b"application/json"), NOSNIFF)
OCTETS_HEADERS = Headers((b"content-type", b"application/octet-stream"), NOSNIFF)


class Reply(NamedTuple):
    """An answer."""

    body: bytes
    headers: Headers = JSON_HEADERS
    extra: tuple[tuple[bytes, bytes], ...] = ()
    status: int = 200


class Head(NamedTuple):
    """What the quick ways want to know of a request's headers."""

    kind: str
    """JSON or OCTETS; empty: none is given"""
    length: int
    """of the body"""
    header_length: int | None
    """Inference-Header-Content-Length"""
    accept: bytes
    """Accept-Encoding"""
    etag: bytes
    """If-None-Match"""
    identity: bytes
    """X-Request-Id"""
    trace: bytes
    """traceparent"""
    timing: bool
    """whether Server-Timing is wanted"""


class Hot(NamedTuple):
    """A frequent request's quick way."""

    method: str
    endpoint: str
    """what it is called in the metrics"""
    call: Callable[[Head, bytes, bytes], Reply | None]
    """of the head, the query and the body"""


_KIND, _LENGTH, _HEADER_LENGTH, _ACCEPT, _ETAG, _IDENTITY, _TRACE, _TIMING, _DECLINE = range(1, 10)
_INTEREST = {
    b"content-type": _KIND,
    b"content-length": _LENGTH,
    b"inference-header-content-length": _HEADER_LENGTH,
    b"accept-encoding": _ACCEPT,
    b"if-none-match": _ETAG,
    b"x-request-id": _IDENTITY,
    b"traceparent": _TRACE,
    b"x-server-timing": _TIMING,
    b"content-encoding": _DECLINE,
    b"transfer-encoding": _DECLINE,
    b"expect": _DECLINE,
    b"upgrade": _DECLINE,
    b"origin": _DECLINE,  # the full way knows CORS
}
_KINDS = {JSON.encode(): JSON, OCTETS.encode(): OCTETS, b"application/json; charset=utf-8": JSON}
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:/+=-]{1,128}")
_HEADERS_MAX = 64


def read_head(headers: Iterable[tuple[bytes, bytes]]) -> Head | None:
    """Return what the quick ways want to know of headers (names in lower case); None: it is nothing for them."""
    kind = ""
    length = 0
    header_length = None
    accept = etag = identity = trace = b""
    timing = False
    for name, value in headers:
        interest = _INTEREST.get(name)
        if interest is None:
            continue
        if interest == _KIND:
            kind = _KINDS.get(value, "?") if not kind else "?"
            if kind == "?":
                return None
        elif interest == _LENGTH:
            if not value.isdigit() or len(value) > 12:
                return None
            length = int(value)
        elif interest == _ACCEPT:
            accept = value
        elif interest == _HEADER_LENGTH:
            if header_length is not None or not value.isdigit() or len(value) > 12:
                return None
            header_length = int(value)
        elif interest == _ETAG:
            etag = value
        elif interest == _IDENTITY:
            identity = value
        elif interest == _TRACE:
            trace = value
        elif interest == _TIMING:
            timing = True
        else:
            return None
    return Head(kind, length, header_length, accept, etag, identity, trace, timing)


COMPRESS_FROM = 1024
"""Bytes of an answer from which it is compressed for whoever takes that; below it costs more than it saves."""

_ENCODINGS = {b"gzip": 31, b"deflate": 15}


def compressed(body: bytes, accept: bytes) -> tuple[bytes, tuple[tuple[bytes, bytes], ...]]:
    """Return a body as a header Accept-Encoding wants it, and the headers that say so.

    A short body is compressed only for a client that names one encoding alone: it has asked for it on purpose, as
    tritonclient does. Others name what they know with every request.
    """
    if not accept:
        return body, ()
    wanted = accept if accept in _ENCODINGS else b""
    if not wanted and len(body) >= COMPRESS_FROM and b"q=0" not in accept:
        listed = {part.partition(b";")[0].strip() for part in accept.lower().split(b",")}
        wanted = next((name for name in _ENCODINGS if name in listed), b"")
    if not wanted:
        return body, ()
    writer = zlib.compressobj(1, zlib.DEFLATED, _ENCODINGS[wanted])
    data = writer.compress(body) + writer.flush()
    return data, ((b"content-encoding", wanted), (b"vary", b"accept-encoding"))


class Front:
    """The ASGI application around FastAPI.

    Args:
        app: FastAPI.
        settings: the limits.
        state: what serves.
    """

    def __init__(self, app: ASGIApp, settings: Settings, state: State) -> None:
        self._app = app
        self._max_json = settings.max_body
        self._max_binary = settings.max_binary_body
        self.state = state
        self.settings = settings
        self.gate = Gate(settings, state.metrics)
        self.metrics = state.metrics
        self.log = AccessLog(settings)
        self.table: Mapping[str, Hot] = {}
        """The frequent requests by path."""
        self.raw: Mapping[bytes, Hot] = {}
        """The same, by the bytes of a request line."""
        self.connections: set[Any] = set()
        """Of ``protocol``."""
        self.now = 0.0
        """The event loop's time, a quarter of a second late at most."""
        self._prefix = secrets.token_hex(4)
        self._numbers = itertools.count(1)

    def publish(self, table: Mapping[str, Hot]) -> None:
        """Put other frequent requests in place, between two requests."""
        self.table = table
        self.raw = {path.encode(): hot for path, hot in table.items()}

    def identity(self, given: bytes) -> bytes:
        """Return the id of a request: the one that it brought, if it is one, or a new one."""
        if given and _REQUEST_ID.fullmatch(given):
            return given
        return b"%b-%x" % (self._prefix.encode(), next(self._numbers))

    def longest(self, head: Head) -> int:
        """Return how long a body may be."""
        binary = head.kind == OCTETS or head.header_length is not None
        return self._max_binary if binary else self._max_json

    def quick(self, hot: Hot, head: Head, query: bytes, body: bytes, client: str) -> tuple[Reply, bytes] | None:
        """Return the answer to a frequent request, and the headers of its own; None when it is declined.

        Args:
            hot: its quick way.
            head: of :func:`read_head`.
            query: of its URL.
            body: all of it.
            client: its address.
        """
        start = perf_counter()
        refusal = self.gate.refusal(client)
        reply = refused(refusal) if refusal is not None else hot.call(head, query, body)
        if reply is None:
            return None
        identity = self.identity(head.identity)
        own = b"x-request-id: %b\r\n" % identity
        seconds = perf_counter() - start
        if head.timing:
            own += b"server-timing: total;dur=%.3f\r\n" % (seconds * 1e3)
        self.metrics.answered(hot.endpoint, reply.status, seconds)
        if self.log.on:
            self.log.write(hot.method, hot.endpoint, reply.status, seconds, client, identity, head.trace)
        return reply, own

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = scope["path"]
        hot = self.table.get(path.removeprefix(scope.get("root_path", "")))
        if hot is not None and hot.method == scope["method"]:
            head = read_head(scope["headers"])
            if head is not None and head.length <= self.longest(head):
                body, rest = await _body(receive, head.length)
                if rest is None:
                    found = self.quick(hot, head, scope["query_string"], body, _client(scope))
                    if found is not None:
                        await _send(send, *found, closing=not self.state.ready)
                        return
                receive = _replayed(body, rest, receive)
        await self.watched(scope, receive, send)

    async def watched(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request through FastAPI: let in, counted, timed, logged."""
        start = perf_counter()
        given = dict(scope["headers"])
        identity = self.identity(given.get(b"x-request-id", b""))
        scope.setdefault("state", {})["request_id"] = identity.decode()
        client = _client(scope)
        metrics = self.metrics
        status = 500
        inside = False
        bodied = given.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in given

        async def guarded_receive() -> Message:
            nonlocal inside
            message = await receive()
            if not inside and message["type"] == "http.request" and not message.get("more_body", False):
                refusal = self.gate.refusal(client)
                if refusal is not None:
                    raise refusal
                inside = True
                metrics.inflight += 1
            return message

        async def finished_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = [*message.get("headers", ()), NOSNIFF, (b"x-request-id", identity)]
                if b"x-server-timing" in given:
                    milliseconds = (perf_counter() - start) * 1e3
                    headers.append((b"server-timing", b"total;dur=%.3f" % milliseconds))
                if not self.state.ready:
                    headers.append((b"connection", b"close"))
                message["headers"] = headers
            await send(message)

        try:
            if not bodied:
                refusal = self.gate.refusal(client)
                if refusal is not None:
                    await _send(finished_send, refused(refusal), b"")
                    return
                inside = True
                metrics.inflight += 1
            await self._app(scope, guarded_receive, finished_send)
        finally:
            if inside:
                metrics.inflight -= 1
            endpoint = _endpoint(scope)
            seconds = perf_counter() - start
            metrics.answered(endpoint, status, seconds)
            if self.log.on:
                trace = given.get(b"traceparent", b"")
                self.log.write(scope["method"], endpoint, status, seconds, client, identity, trace)

    async def sweep(self) -> None:
        """Keep the time, and end connections that dawdle, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            self.now = loop.time()
            self.metrics.connections = len(self.connections)
            for connection in [c for c in self.connections if c.deadline < self.now]:
                connection.expire()
            self.log.flush()
            await asyncio.sleep(0.25)


def refused(problem: Problem) -> Reply:
    """Return the answer that tells a problem."""
    response = problem.response()
    skipped = (b"content-length",)
    pairs = [pair for pair in response.raw_headers if pair[0] not in skipped]
    return Reply(bytes(response.body), Headers(*pairs, NOSNIFF), (), response.status_code)


def _endpoint(scope: Scope) -> str:
    """Return what a request is called in the metrics: the template of its route, so that names cannot flood them."""
    route = scope.get("route")
    path = getattr(route, "path", None)
    if isinstance(path, str):
        return f"{scope['method']} {path}" if scope["method"] in _METHODS else path
    return str(scope.get("endpoint_name", "other"))


_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE"})


def _client(scope: Scope) -> str:
    client = scope.get("client")
    return str(client[0]) if client else ""


async def _body(receive: Receive, length: int) -> tuple[bytes, Message | None]:
    """Return a body of an announced length; and the message that is none of it, where one comes."""
    chunks: list[bytes] = []
    total = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return b"".join(chunks), message
        chunk = message.get("body", b"")
        total += len(chunk)
        chunks.append(chunk)
        if not message.get("more_body", False):
            return b"".join(chunks), None
        if total > length:  # another server than ours may believe both
            return b"".join(chunks), {"type": "http.request", "body": b"", "more_body": True}


def _replayed(body: bytes, rest: Message | None, receive: Receive) -> Receive:
    """Return a ``receive`` that gives again what has been taken."""
    pending: list[Message] = [{"type": "http.request", "body": body, "more_body": rest is not None}]
    if rest is not None:
        pending.append(rest)

    async def replayed() -> Message:
        return pending.pop(0) if pending else await receive()

    return replayed


async def _send(send: Send, reply: Reply, own: bytes, *, closing: bool = False) -> None:
    headers = [*reply.headers.pairs, *reply.extra, (b"content-length", b"%d" % len(reply.body))]
    for line in own.split(b"\r\n")[:-1]:
        name, _, value = line.partition(b": ")
        headers.append((name, value))
    if closing:
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": reply.body})
