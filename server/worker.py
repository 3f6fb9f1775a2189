"""One process that serves: uvicorn's server, which can be told to stop, and to make way for another one."""

from __future__ import annotations

import gc
import signal
import socket
import time
from collections.abc import Callable
from types import FrameType

import uvicorn

from .board import LEAVING, SERVING, Team
from .state import State

RETIRE = signal.SIGUSR1
"""Tells a worker that another one has taken over: it accepts no more connections, and ends when it has none."""

GARBAGE = 10_000
"""Objects by which there may be more before a collection looks at them. With Python's 700 each wave of requests under way
makes for some, which find nothing: 8 % of the time of a server that has more to do than it can."""


class Server(uvicorn.Server):
    """Serves until it is told to stop.

    SIGTERM, and where there is no supervisor SIGINT: it is not ready any more, connections are told to close, and after
    ``drain_seconds`` it stops; requests under way finish. A second signal stops it at once.

    Args:
        config: of uvicorn.
        drain_seconds: between being told to stop and stopping.
        idle_timeout: seconds after which connections that nobody uses are closed anyway.
        ready: called when it answers.
        team: the other workers; None: this process is the only one.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        *,
        drain_seconds: float,
        idle_timeout: float,
        ready: Callable[[], None] | None = None,
        team: Team | None = None,
    ) -> None:
        super().__init__(config)
        self._drain_seconds = drain_seconds
        self._idle_timeout = idle_timeout
        self._ready = ready
        self._team = team
        self._stop_at: float | None = None
        self._retiring = False

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve; a signal is noted from here on, as an exception in the middle of making the loop would leave it broken."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self.handle_exit)
        super().run(sockets)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Load, then listen."""
        if self._team is not None:
            signal.signal(RETIRE, self._retire)
        await super().startup(sockets)
        if self.started:
            gc.freeze()  # what there is now stays: no collection looks through it again, or copies its shared pages
            gc.set_threshold(GARBAGE, 10, 10)
            gc.enable()
            if self._team is not None:
                self._team.slot.live()
                self._team.slot.state = SERVING
            if self._ready is not None:
                self._ready()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to stop; the second signal stops at once."""
        del frame
        if sig == signal.SIGINT and self._team is not None:
            return  # a terminal sends it to all: the supervisor tells what it means
        if self._stop_at is not None and not self._retiring:
            self.force_exit = self.should_exit = True
            return
        self._retiring = False
        state = self._leave()
        if state is None or self._drain_seconds == 0:
            self.should_exit = True
        self._stop_at = time.monotonic() + self._drain_seconds

    def _retire(self, _sig: int, _frame: FrameType | None) -> None:
        state = self._leave()
        if state is None:
            self.should_exit = True
        elif self._stop_at is None:
            state.replaced = self._retiring = True
            self._stop_at = time.monotonic() + max(self._drain_seconds, self._idle_timeout)

    def _leave(self) -> State | None:
        """Tell connections to close, from now on; return the state, if it has come to that."""
        state: State | None = self.lifespan.state.get("served") if self.started else None
        if state is not None:
            state.ready = False
            if self._team is not None:
                self._team.slot.state = LEAVING
        return state

    async def on_tick(self, counter: int) -> bool:
        """Show that it lives, ten times a second, and stop when the time for that has come."""
        team = self._team
        if team is not None:
            team.slot.live()
            if team.orphaned and self._stop_at is None:
                self.handle_exit(signal.SIGTERM, None)
        if self._retiring:
            for server in self.servers:
                server.close()  # others accept what comes
        if self._stop_at is not None and (
            time.monotonic() >= self._stop_at or (self._retiring and not self.server_state.connections)
        ):
            self.should_exit = True
        return await super().on_tick(counter)
