"""HTTP/1.1 as ``mariana serve`` speaks it: uvicorn's protocol, with a short way, deadlines, and errors of ours.

A frequent request is answered straight from the parser's callbacks, without a task, a scope or a queue: what a request
costs in uvicorn and FastAPI is paid only by those that need it. Everything else, and whatever the short way declines,
takes uvicorn's way, unchanged.

A connection has a deadline: for the head of a request, for its body, between two requests, and for a client that takes
nothing of its answer. All of them are looked at together, four times a second (:meth:`Front.sweep`), so a deadline costs
a request one assignment.
"""

from __future__ import annotations

import asyncio
import math
from typing import Any

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from mariana._binding.http import HEAD_MAX, HEADERS_MAX, RequestReader

from .errors import Problem
from .front import DECLINED, Front, Head, Hot, Reply, head_of, join, read_head, refused
from .limits import BUSY, FULL

_MALFORMED = Problem(400, "this is not a request of HTTP/1.1")
_LATE = Problem(408, "the request did not arrive in time")
_LONG = Problem(431, f"the head of a request has at most {HEAD_MAX} bytes and {HEADERS_MAX} headers")
_UPGRADE = Problem(400, "neither WebSockets nor tunnels are offered: send plain requests of HTTP/1.1")
_REFUSALS = frozenset({429, 503})
_read = RequestReader().read  # the event loop's alone


class Protocol(HttpToolsProtocol):
    """One connection."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        front: Front | None = app_state.get("front")
        if front is None:
            raise RuntimeError("this protocol serves Mariana's own application only")
        self._front = front
        self._limits = front.limits
        self._hot: Hot | None = None
        self._head: Head | None = None
        self._query = b""
        self._chunks: list[bytes] = []
        self._client = ""
        self._taken = 0
        self._chunk = 0
        self._in_head = False
        self._in_fields = False
        self._between = True
        self._declined = False
        self._refuse = False
        self._again = b""
        self._unsent = math.inf
        self.deadline = math.inf
        """When it has been waited for long enough, by the event loop's clock."""
        self.stalled = math.inf
        """The same for the client to take something of what it asked for."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin."""
        super().connection_made(transport)
        front = self._front
        self._client = self.client[0] if self.client else ""
        if len(front.connections) >= self._limits.max_connections:
            front.metrics.reject("connections")
            self._end(FULL)
            return
        front.connections.add(self)
        self.deadline = self.loop.time() + self._limits.head_timeout

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self._front.connections.discard(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take bytes."""
        if self.transport.is_closing():
            return
        if self._between and self._take_whole(data):
            return
        if self.timeout_keep_alive_task is not None:
            self._unset_keepalive_if_required()
        try:
            self._parse(data)
        except httptools.HttpParserError:
            self.send_400_response("")
        self._declined = False
        if self._in_fields:  # of a head, or behind a chunked body: they must end, and soon
            self._taken += len(data)
            if self._taken > HEAD_MAX:
                self._in_head = self._in_fields = False
                self._give_up(_LONG)

    def _take_whole(self, data: bytes) -> bool:
        """Answer a frequent request that has come whole; False when it is for the parser."""
        if self.pipeline or self.flow.write_paused or not self._answered():
            return False
        request = _read(data)
        if request is None:
            return False
        front = self._front
        hot = front.raw.get(request.route)
        if hot is None:
            return False
        head = head_of(request)
        body = request.body
        if len(body) > front.longest(head):
            return False
        found = front.quick(hot, head, request.query, body, self._client)
        if found is None:
            self._declined = True
            return False
        if self.timeout_keep_alive_task is not None:
            self._unset_keepalive_if_required()
        self._count()
        self._write(*found, closing=not front.state.ready)
        return True

    def _parse(self, data: bytes) -> None:
        """Have the parser take bytes.

        It stops behind a head that asks for another protocol, and would skip the body. None is offered, so the request
        means what it means without asking (RFC 9110 section 7.8): its head is given to the parser again without that.
        """
        self._chunk = len(data)
        rest = memoryview(data)
        while True:
            try:
                self.parser.feed_data(rest)
            except httptools.HttpParserUpgrade as stopped:
                if not self._again:
                    return  # refused
                rest = rest[stopped.args[0] :]
            else:
                return
            head, self._again = self._again, b""
            self._chunk = len(head)
            self.parser = httptools.HttpRequestParser(self)
            self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as in uvicorn
            self.parser.feed_data(head)

    def _plain_head(self) -> bytes:
        """Return the head that was read, without the header Upgrade."""
        line = (self.parser.get_method(), self.url, self.parser.get_http_version().encode())
        return b"%b %b HTTP/%b\r\n%b\r\n" % (
            *line,
            join(pair for pair in self.headers if pair[0] != b"upgrade"),
        )

    def on_message_begin(self) -> None:
        """Begin a request; what uvicorn makes for one is made when it is needed."""
        self.url = b""
        self.headers = []
        self.expect_100_continue = False
        self._hot = None
        self._between = False
        self._refuse = self.transport.is_closing()  # the client has been told, and will ask again elsewhere
        self._taken = 0
        self._in_head = self._in_fields = True
        self.deadline = self._front.now + self._limits.head_timeout + 0.25

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; what comes behind a body is none (RFC 9110 section 6.5.1), and means nothing here."""
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Choose a way."""
        self._in_head = self._in_fields = False
        if self._refuse:
            return
        self.deadline = self._front.now + self._limits.body_timeout + 0.25
        if self.parser.should_upgrade():
            if not self._ask_plainly():
                self._refuse = True
                self._end(_UPGRADE)
            return
        if self._declined:  # let in, counted, and not for the short way
            self._declined = False
            self._full_way(declined=True)
            return
        headers = self.headers
        path, _, query = self.url.partition(b"?")
        hot = self._front.raw.get(b"%b %b" % (self.parser.get_method(), path))
        fits = len(headers) <= HEADERS_MAX and (self._taken + self._chunk <= HEAD_MAX or not self._is_long())
        if hot is not None and fits and self._answered():
            read = read_head(headers)
            if (
                read is not None
                and read[1] <= self._front.longest(read[0])
                and not self.flow.write_paused
                and not self.pipeline
                and self.parser.should_keep_alive()
                and self.parser.get_http_version() == "1.1"
            ):
                self._hot, self._head, self._query = hot, read[0], query
                self._chunks = []
                return
        self._full_way()

    def _ask_plainly(self) -> bool:
        """Have a request for another protocol read again without that; False when it has to be refused."""
        asked = b",".join(value for name, value in self.headers if name == b"upgrade").lower()
        if self.parser.get_method() == b"CONNECT" or b"websocket" in asked:
            return False
        self._again = self._plain_head()
        return True

    def _is_long(self) -> bool:
        return len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers) > HEAD_MAX

    def _answered(self) -> bool:
        """Whether nothing that took uvicorn's way is under way."""
        cycle: RequestResponseCycle | None = self.cycle  # None until the first one comes
        return cycle is None or cycle.response_complete

    def _full_way(self, *, declined: bool = False) -> None:
        headers = self.headers
        if self.parser.get_http_version() not in ("1.0", "1.1"):
            self._refuse = True
            self._end(_MALFORMED)
            return
        if len(headers) > HEADERS_MAX or self._is_long():
            self._refuse = True
            self._end(_LONG)
            return
        front = self._front
        if front.gate.full:  # now, and not when a thousand tasks have been made
            front.metrics.reject("busy")
            self._refuse = True
            self._end(BUSY)
            return
        self._count()
        url, expect = self.url, self.expect_100_continue
        super().on_message_begin()
        self.url, self.headers, self.expect_100_continue = url, headers, expect
        self.scope["headers"] = headers
        if declined:
            self.scope[DECLINED] = True  # type: ignore[literal-required] # a key of our own
        super().on_headers_complete()

    def on_chunk_header(self) -> None:
        """Expect a part of a body, or what comes behind the last one."""
        self._taken = 0
        self._in_fields = True

    def on_body(self, body: bytes) -> None:
        """Take a part of a body."""
        self._in_fields = False
        if self._hot is not None:
            self._chunks.append(body)
        elif not self._refuse:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Answer the short way, or let uvicorn."""
        self._in_fields = False
        self._between = True
        if self._refuse or self._again:
            return
        hot = self._hot
        if hot is None:
            if self._answered():  # before all of it had come
                self._idle()
            else:
                self.deadline = math.inf
            super().on_message_complete()
            return
        self.deadline = math.inf
        self._hot = None
        chunks = self._chunks
        body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        front = self._front
        assert self._head is not None  # noqa: S101 - for the type checker: set with _hot
        found = front.quick(hot, self._head, self._query, body, self._client)
        if found is not None:
            self._count()
            self._write(*found, closing=not front.state.ready)
            return
        self._full_way(declined=True)
        if body and not self._refuse:
            super().on_body(body)
        if not self._refuse:
            super().on_message_complete()

    def _count(self) -> None:
        gate = self._front.gate
        if gate.passing == 0:
            self.loop.call_soon(self._passed)
        gate.passing += 1

    def _passed(self) -> None:
        self._front.gate.passing = 0

    def _write(self, reply: Reply, own: bytes, *, closing: bool) -> None:
        status, body = reply.status, reply.body
        if reply.extra:
            own += join(reply.extra)
        if closing:
            own += b"connection: close\r\n"
        if status != 304:
            own += b"content-length: %d\r\n" % len(body)
        start = self._front.start(self.server_state.default_headers, reply.headers, status)
        self.transport.write(b"%b%b\r\n%b" % (start, own, body))
        self.server_state.total_requests += 1
        if closing:
            self._close()
            return
        if status in _REFUSALS:
            self._rest()
        self._idle()

    def _idle(self) -> None:
        self.deadline = self._front.now + self._limits.idle_timeout + 0.25

    def _rest(self) -> None:
        """Read nothing more until the next sweep: who comes again before Retry-After costs nothing until then.

        A refusal costs about as much as a small prediction. At five times the capacity, refusing as fast as clients ask
        would take half of the time from those who were let in.
        """
        self.flow.pause_reading()
        self._front.resting.append(self)

    def wake(self) -> None:
        """Read on."""
        if not self.transport.is_closing():
            self.flow.resume_reading()

    def _close(self) -> None:
        """Close when everything is sent; a client that does not take it is not waited for."""
        self.transport.close()
        self.deadline = math.inf
        self.stalled = self._front.now + self._limits.answer_timeout + 0.25

    def pause_writing(self) -> None:
        """Note that the client does not take its answers as quickly as it asks for them."""
        super().pause_writing()
        self._unsent = self.transport.get_write_buffer_size()
        self.stalled = self._front.now + self._limits.answer_timeout + 0.25

    def resume_writing(self) -> None:
        """Note that it has taken them."""
        super().resume_writing()
        if not self.transport.is_closing():
            self.stalled = math.inf

    def on_response_complete(self) -> None:
        """Wait for the next request, or begin the one that waits."""
        super().on_response_complete()
        if not self.pipeline and self._between:
            self._idle()

    def expire(self) -> None:
        """End a connection whose deadline has passed; tell it when a request had begun."""
        now = self._front.now
        if self.stalled < now or self.transport.is_closing():
            unsent = self.transport.get_write_buffer_size()
            if unsent < self._unsent:  # slow, but it goes on
                self._unsent = unsent
                self.deadline = math.inf
                self.stalled = now + self._limits.answer_timeout
            else:
                self._front.metrics.reject("stalled")
                self.transport.abort()
            return
        self.deadline = math.inf
        if self._in_head or self._hot is not None or not self._answered():
            self._front.metrics.reject("late")
            self._give_up(_LATE)
        else:
            self._close()

    def _give_up(self, problem: Problem) -> None:
        """End the request that is being read."""
        self._hot = None
        self._refuse = True
        if not self._answered():
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self._end(problem)

    def send_400_response(self, msg: str) -> None:
        """Answer bytes that are no request, then close."""
        del msg  # plain text
        self._in_head = False
        self._end(_MALFORMED)

    def _end(self, problem: Problem) -> None:
        """Tell a problem, and close."""
        if not self.transport.is_closing():
            reply = refused(problem)
            self._write(reply, b"", closing=True)
