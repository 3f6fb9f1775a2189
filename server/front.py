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
import logging
import re
import secrets
import zlib
from asyncio import sleep
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from time import perf_counter
from typing import Any, NamedTuple

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from mariana._binding import http
from mariana.settings import Settings

from .bodies import JSON, OCTETS
from .errors import Problem
from .limits import BUSY, Gate
from .observe import AccessLog
from .state import State
from .telemetry import HotTelemetry

Pairs = Iterable[tuple[bytes, bytes]]

_log = logging.getLogger("mariana.server")


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


DECLINED = "mariana.declined"
"""A key of a request's scope: its quick way has let it in, counted it, and declined it."""


class Head(NamedTuple):
    """What the quick ways want to know of a request's headers; empty where one is not there."""

    kind: str
    """JSON or OCTETS; empty: none is given"""
    accept: bytes = b""
    """Accept-Encoding"""
    etag: bytes = b""
    """If-None-Match"""
    identity: bytes = b""
    """X-Request-Id"""
    trace: bytes = b""
    """traceparent"""
    timing: bool = False
    """whether Server-Timing is wanted"""
    header_length: int | None = None
    """Inference-Header-Content-Length"""


_PLAIN = {http.UNTOLD: Head(""), http.JSON: Head(JSON), http.OCTETS: Head(OCTETS)}
"""The heads of requests with nothing more, by what C calls their kind."""


def head_of(request: http.Request) -> Head:
    """Return the head of a request that C has read."""
    kind, fields = request.kind, request.fields
    if fields is None:
        return _PLAIN[kind]
    if fields.identity or fields.trace or fields.etag or fields.accept:
        return Head(_PLAIN[kind].kind, *fields)
    return _head(kind, fields)


@lru_cache(256)
def _head(kind: int, fields: http.Fields) -> Head:
    return Head(_PLAIN[kind].kind, *fields)


class Hot(NamedTuple):
    """A frequent request's quick way."""

    method: str
    endpoint: str
    """what it is called in the metrics"""
    call: Callable[[Head, bytes, bytes], Reply | None]
    """of the head, the query and the body"""
    path: str
    """of its requests"""


_DECLINED = frozenset({b"content-encoding", b"transfer-encoding", b"expect", b"upgrade", b"origin"})
"""Not for the quick ways; origin, because the full way knows CORS."""

_INTEREST = _DECLINED | {
    b"content-type",
    b"content-length",
    b"inference-header-content-length",
    b"accept-encoding",
    b"if-none-match",
    b"x-request-id",
    b"traceparent",
    b"x-server-timing",
}
_KINDS = {b"": "", JSON.encode(): JSON, OCTETS.encode(): OCTETS, b"application/json; charset=utf-8": JSON}
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:/+=-]{1,128}")


def read_head(headers: Iterable[tuple[bytes, bytes]]) -> tuple[Head, int] | None:
    """Return what the quick ways want to know of headers, and the body's length; None: it is nothing for them.

    Args:
        headers: with names in lower case.
    """
    found: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in _INTEREST:
            if name in _DECLINED or name in found:
                return None
            found[name] = value
    get = found.get
    kind = _KINDS.get(get(b"content-type", b""))
    length = _number(get(b"content-length", b"0"))
    header_length = get(b"inference-header-content-length")
    binary = None if header_length is None else _number(header_length)
    if kind is None or length < 0 or (binary is not None and binary < 0):
        return None
    head = Head(
        kind,
        get(b"accept-encoding", b""),
        get(b"if-none-match", b""),
        get(b"x-request-id", b""),
        get(b"traceparent", b""),
        b"x-server-timing" in found,
        binary,
    )
    return head, length


def _number(text: bytes) -> int:
    """Return a number of bytes; -1 when it is none."""
    return int(text) if text.isdigit() and len(text) <= 12 else -1


STARTS_KEPT = 64
"""Beginnings of answers that are put together once a second; a few constants have them, and some refusals."""

COMPRESS_FROM = 1024
"""Bytes of an answer from which it is compressed for whoever takes that; below it costs more than it saves."""

_ENCODINGS = {b"gzip": 31, b"deflate": 15}
_REFUSED = re.compile(rb";\s*[qQ]=0(?:\.0*)?\s*(?:,|$)")
"""A weight of 0; whoever takes the trouble to refuse something gets it plain."""


def compressed(body: bytes, accept: bytes) -> tuple[bytes, tuple[tuple[bytes, bytes], ...]]:
    """Return a body as a header Accept-Encoding wants it, and the headers that say so.

    A short body is compressed only for a client that names one encoding alone: it has asked for it on purpose, as
    tritonclient does. Others name what they know with every request.
    """
    if not accept:
        return body, ()
    wanted = accept if accept in _ENCODINGS else b""
    if not wanted and len(body) >= COMPRESS_FROM and not _REFUSED.search(accept):
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
        settings: of the access log.
        state: what serves, and its limits.
    """

    def __init__(self, app: ASGIApp, settings: Settings, state: State) -> None:
        self._app = app
        self.state = state
        self.limits = limits = state.limits
        self.gate = Gate(limits, state.metrics, state.clients)
        self.metrics = state.metrics
        self.log = AccessLog(settings)
        self.telemetry: HotTelemetry | None = None
        self.table: Mapping[str, Hot] = {}
        """The frequent requests by path."""
        self.raw: Mapping[bytes, Hot] = {}
        """The same, by method and path as they stand in a request; none where a proxy says who the client is, for that
        is known only further on."""
        self._behind_proxy = bool(settings.trusted_proxies)
        self.connections: set[Any] = set()
        """Of ``protocol``."""
        self.resting: list[Any] = []
        """Those of them that are not read from for a moment."""
        self.now = 0.0
        """The event loop's time, a quarter of a second late at most."""
        self._prefix = secrets.token_hex(4).encode()
        self._joined: tuple[object, bytes] = (None, b"")
        self._starts: dict[Headers, bytes] = {}
        self._numbers = itertools.count(1)

    def publish(self, table: Mapping[str, Hot]) -> None:
        """Put other frequent requests in place, between two requests."""
        self.table = table
        if not self._behind_proxy:
            self.raw = {f"{hot.method} {path}".encode(): hot for path, hot in table.items()}

    def identity(self, given: bytes) -> bytes:
        """Return the id of a request: the one that it brought, if it is one, or a new one."""
        if given and _REQUEST_ID.fullmatch(given):
            return given
        return b"%b-%x" % (self._prefix, next(self._numbers))

    def start(self, pairs: list[tuple[bytes, bytes]], headers: Headers, status: int) -> bytes:
        """Return an answer's status line and headers as they go over the wire, but for those of its own.

        Args:
            pairs: headers that change once a second, and then are another list.
            headers: of the answer.
            status: of the answer.
        """
        if pairs is not self._joined[0]:
            self._joined = (pairs, join(pairs))
            self._starts.clear()
        if status != 200:
            return b"%b%b%b" % (STATUS_LINE[status], self._joined[1], headers.raw)
        found = self._starts.get(headers)
        if found is None:
            found = b"%b%b%b" % (STATUS_LINE[200], self._joined[1], headers.raw)
            if len(self._starts) < STARTS_KEPT:
                self._starts[headers] = found
        return found

    def longest(self, head: Head) -> int:
        """Return how long a body may be."""
        binary = head.kind == OCTETS or head.header_length is not None
        return self.limits.max_binary_body if binary else self.limits.max_body

    def quick(
        self, hot: Hot, head: Head, query: bytes, body: bytes, client: str
    ) -> tuple[Reply, bytes] | None:
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
        try:
            reply = refused(refusal) if refusal is not None else hot.call(head, query, body)
        except Exception:  # noqa: BLE001 - not left to the parser of a server, which would blame the client
            _log.exception("%s: the quick way failed; the full way is tried", hot.endpoint)
            return None
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
        if self.telemetry is not None:
            self.telemetry.tell(hot.endpoint, hot.path, reply.status, seconds, head.trace)
        return reply, own

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        hot = None
        if DECLINED not in scope:
            hot = self.table.get(scope["path"].removeprefix(scope.get("root_path", "")))
        if hot is not None and hot.method == scope["method"]:
            read = read_head(scope["headers"])
            if read is not None and read[1] <= self.longest(read[0]):
                head, length = read
                body, rest = await _body(receive, length)
                if rest is None:
                    found = self.quick(hot, head, scope["query_string"], body, _client(scope))
                    if found is not None:
                        await _send(send, *found, closing=not self.state.ready)
                        return
                    scope[DECLINED] = True
                receive = _replayed(body, rest, receive)
        await self.watched(scope, receive, send)

    async def watched(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request through FastAPI: let in, counted, timed, logged."""
        visit = _Visit(self, scope, receive, send)
        try:
            refusal = None if visit.bodied else visit.enter()
            if refusal is None:
                await self._app(scope, visit.receive, visit.send)
            else:
                await _send(visit.send, refused(refusal), b"")
        finally:
            visit.leave()

    def finish(self) -> None:
        """Count and log what was noted since the last time."""
        self.metrics.fold()
        self.log.flush()

    async def sweep(self) -> None:
        """Keep the time, and end connections that dawdle, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            self.now = loop.time()
            try:
                self.metrics.connections = len(self.connections)
                for connection in [c for c in self.connections if min(c.deadline, c.stalled) < self.now]:
                    connection.expire()
                resting, self.resting = self.resting, []
                for connection in resting:
                    connection.wake()
                self.finish()
            except Exception:  # noqa: BLE001 - a full disk under the log must not end all deadlines
                _log.exception("cannot look after the connections")
            await sleep(0.25)


class _Visit:
    """One request on the full way."""

    def __init__(self, front: Front, scope: Scope, receive: Receive, send: Send) -> None:
        self._front = front
        self._scope = scope
        self._receive = receive
        self._send = send
        self._start = perf_counter()
        self._given = dict(scope["headers"])
        self._identity = front.identity(self._given.get(b"x-request-id", b""))
        self._client = _client(scope)
        self._status = 500
        self._inside = False
        self.bodied = self._given.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in self._given
        """Whether a body comes: then the request is let in when it is there."""
        scope.setdefault("state", {})["request_id"] = self._identity.decode()

    def enter(self) -> Problem | None:
        """Let the request in, or return why not."""
        refusal = None if DECLINED in self._scope else self._front.gate.refusal(self._client)
        if refusal is None:
            self._inside = True
            self._front.metrics.inflight += 1
        return refusal

    async def receive(self) -> Message:
        """Return a part of the body; with the last one the request is let in."""
        message = await self._receive()
        if not self._inside and message["type"] == "http.request" and not message.get("more_body", False):
            refusal = self.enter()
            if refusal is not None:
                raise refusal.with_traceback(
                    None
                )  # BUSY is raised again and again, and would keep all of them
        return message

    async def send(self, message: Message) -> None:
        """Send a part of the answer."""
        if message["type"] == "http.response.start":
            self._status = message["status"]
            headers = [*message.get("headers", ()), NOSNIFF, (b"x-request-id", self._identity)]
            if b"x-server-timing" in self._given:
                milliseconds = (perf_counter() - self._start) * 1e3
                headers.append((b"server-timing", b"total;dur=%.3f" % milliseconds))
            if not self._front.state.ready:
                headers.append((b"connection", b"close"))
            message["headers"] = headers
        await self._send(message)

    def leave(self) -> None:
        """Count and log the request."""
        front = self._front
        if self._inside:
            front.metrics.inflight -= 1
        endpoint = _endpoint(self._scope)
        seconds = perf_counter() - self._start
        front.metrics.answered(endpoint, self._status, seconds)
        if front.log.on:
            trace = self._given.get(b"traceparent", b"")
            method = self._scope["method"]
            front.log.write(method, endpoint, self._status, seconds, self._client, self._identity, trace)


def refused(problem: Problem) -> Reply:
    """Return the answer that tells a problem."""
    return _BUSY if problem is BUSY else _refused(problem)


def _refused(problem: Problem) -> Reply:
    response = problem.response()
    skipped = (b"content-length",)
    pairs = [pair for pair in response.raw_headers if pair[0] not in skipped]
    return Reply(bytes(response.body), Headers(*pairs, NOSNIFF), (), response.status_code)


_BUSY = _refused(BUSY)  # made beforehand: a busy server has no time for it


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
    headers = [*reply.headers.pairs, *reply.extra]
    if reply.status != 304:
        headers.append((b"content-length", b"%d" % len(reply.body)))
    for line in own.split(b"\r\n")[:-1]:
        name, _, value = line.partition(b": ")
        headers.append((name, value))
    if closing:
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": reply.body})
