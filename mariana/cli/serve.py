"""``mariana serve``: the HTTP service."""

from __future__ import annotations

import logging
import math
import signal
import socket
import sys
import time
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import click
import uvicorn
from uvicorn.supervisors import Multiprocess

from mariana._binding import choose_isa
from mariana.cli.options import settings as settings_of
from mariana.cli.options import store_option
from mariana.errors import InvalidInputError, MarianaError
from mariana.server import create_app
from mariana.server.observe import JsonFormatter
from mariana.server.protocol import Protocol
from mariana.settings import Settings


@click.command()
@store_option
@click.option("--host", help="Address to listen on.  [default: $MARIANA_HOST or 127.0.0.1]")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    help="Port to listen on; 0 takes a free one.  [default: $MARIANA_PORT or 8080]",
)
@click.option(
    "--workers",
    type=click.IntRange(1, 256),
    help="Processes that serve.  [default: $MARIANA_WORKERS or 1]",
)
@click.option(
    "--reload-store/--no-reload-store",
    default=None,
    help="Notice new versions and indexes while serving.  [default: $MARIANA_RELOAD_STORE or on]",
)
def serve(
    store: Path | None, host: str | None, port: int | None, workers: int | None, reload_store: bool | None
) -> None:
    """Serve the models and indexes of a store over HTTP, with a console at /.

    SIGTERM and Ctrl-C let the requests that are under way finish.

    \b
    Example:
      mariana serve
      mariana serve --store models --host 0.0.0.0 --port 9000 --workers 2
    """
    settings = settings_of(store=store, host=host, port=port, workers=workers, reload_store=reload_store)
    choose_isa(settings.isa)  # a name that is none ends it here, not at each model
    listener = _listen(settings)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _stop)  # uvicorn raises the signal again when it has shut down
    address, bound_port = listener.getsockname()[:2]
    host_shown = f"[{address}]" if ":" in address else address
    config = uvicorn.Config(
        partial(create_app, settings),
        factory=True,
        loop="auto",
        http=Protocol,
        ws="none",
        workers=settings.workers,
        log_config=_logging(settings),
        access_log=False,
        server_header=False,
        timeout_keep_alive=math.ceil(settings.idle_timeout),
        timeout_graceful_shutdown=10,
    )
    ready = f"Console: http://{host_shown}:{bound_port}/"
    if settings.workers > 1:
        click.echo(ready)  # the socket listens: whoever comes before the workers are ready waits a moment
        Multiprocess(config, sockets=[listener]).run()
    else:
        _Server(config, ready, settings.drain_seconds).run(sockets=[listener])


class _Server(uvicorn.Server):
    """Tells where it is as soon as it answers."""

    def __init__(self, config: uvicorn.Config, ready: str, drain_seconds: float) -> None:
        super().__init__(config)
        self._ready = ready
        self._drain_seconds = drain_seconds
        self._stopping: float | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to stop: not ready any more, connections are told to close; the second signal stops at once."""
        state = self.lifespan.state.get("served") if self.started else None
        if state is None or self._stopping is not None or self._drain_seconds == 0:
            super().handle_exit(sig, frame)
            return
        state.ready = False
        self._stopping = time.monotonic()
        self._captured_signals.append(sig)

    async def on_tick(self, counter: int) -> bool:
        """Stop when the time for that has come."""
        if self._stopping is not None and time.monotonic() - self._stopping >= self._drain_seconds:
            self.should_exit = True
        return await super().on_tick(counter)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            click.echo(self._ready)


def _stop(_number: int, _frame: FrameType | None) -> None:
    sys.exit(0)


def _listen(settings: Settings) -> socket.socket:
    """Return a listening socket.

    Raises:
        InvalidInputError: the address is none of this machine's.
        MarianaError: the port is taken, or forbidden.
    """
    host, port = settings.host, settings.port
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a host name"
        raise InvalidInputError(f"cannot listen on host {host!r}: {reason}; try --host 127.0.0.1") from None
    family, _, _, _, address = found[0]
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(2048)
    except OSError as error:
        listener.close()
        raise MarianaError(
            f"cannot listen on {host} port {port}: {error.strerror}; another --port may be free (0 takes any)"
        ) from None
    listener.set_inheritable(True)
    return listener


def _logging(settings: Settings) -> dict[str, Any]:
    level = settings.log_level.upper()
    quiet = logging.getLevelName(max(logging.getLevelName(level), logging.WARNING))
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "text": {"format": "%(asctime)s %(levelname)s %(message)s"},
            "json": {"()": JsonFormatter},
        },
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": settings.log_format}},
        "loggers": {
            "mariana": {"handlers": ["stderr"], "level": level, "propagate": False},
            "uvicorn": {
                "handlers": ["stderr"],
                "level": level if settings.log_level == "debug" else quiet,
                "propagate": False,
            },
        },
    }
