"""``mariana serve``: the HTTP service."""

from __future__ import annotations

import logging
import logging.config
import math
import os
import signal
import socket
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import click
import uvicorn

from mariana._binding import choose_isa
from mariana.cli.options import settings as settings_of
from mariana.cli.options import store_option
from mariana.errors import InvalidInputError, MarianaError
from mariana.server import create_app
from mariana.server.app import Application, check_settings
from mariana.server.board import Board, Slot, Team
from mariana.server.observe import JsonFormatter
from mariana.server.protocol import Protocol
from mariana.server.supervisor import Plan, Supervisor
from mariana.server.weights import Weights
from mariana.server.worker import Server
from mariana.settings import Settings, unknown_variables

GRACE_SECONDS = 10
"""In which requests that are under way finish, once it stops."""

_log = logging.getLogger("mariana.server")


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

    SIGTERM and Ctrl-C let the requests that are under way finish. With several workers, SIGHUP reads the settings
    again and replaces the workers one by one.

    \b
    Example:
      mariana serve
      mariana serve --store models --host 0.0.0.0 --port 9000 --workers 2
    """
    options = {
        "store": store,
        "host": host,
        "port": port,
        "workers": workers,
        "reload_store": reload_store,
    }
    settings = settings_of(**options)
    choose_isa(settings.isa)  # a name that is none ends it here, not at each model
    logging.config.dictConfig(_logging(settings))
    for sentence in unknown_variables():
        _log.warning("%s", sentence)
    listener = _listen(settings)
    address, bound_port = listener.getsockname()[:2]
    host_shown = f"[{address}]" if ":" in address else address
    ready = partial(click.echo, f"Console: http://{host_shown}:{bound_port}/")
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _stop)  # until it serves
    if settings.workers > 1:
        _supervise(listener, options, settings.workers, ready)
    else:
        _server(create_app(settings, reread=partial(settings_of, **options)), settings, ready=ready).run(
            sockets=[listener]
        )


def _supervise(
    listener: socket.socket, options: dict[str, Any], workers: int, ready: Callable[[], None]
) -> None:
    supervisor = os.getpid()
    try:
        board = Board(2 * workers + 16)
    except OSError as error:
        raise MarianaError(
            f"cannot make the memory that workers share: {error.strerror}; mariana serve --workers 1 needs none"
        ) from None
    try:
        weights = Weights(board)
    except OSError as error:
        _log.warning("each worker has weights of its own: %s", error.strerror)
        weights = None

    def make_plan() -> Plan:
        settings = settings_of(**options)
        choose_isa(settings.isa)
        check_settings(settings)
        logging.config.dictConfig(_logging(settings))

        def work(slot: Slot) -> int:
            if weights is not None:
                weights.join(slot.number)
            app = create_app(settings, reread=partial(settings_of, **options))  # here: telemetry has threads
            app.team = Team(board, slot, supervisor, weights)
            _server(app, settings, team=app.team).run(sockets=[listener])
            return 0

        patience = max(settings.drain_seconds, settings.idle_timeout) + GRACE_SECONDS + 5
        return Plan(settings.workers, work, settings.worker_timeout, patience)

    Supervisor(listener, board.slots, make_plan, ready).run()


def _server(
    app: Application, settings: Settings, ready: Callable[[], None] | None = None, team: Team | None = None
) -> Server:
    config = uvicorn.Config(
        app,
        loop="auto",
        http=Protocol,
        ws="none",
        log_config=_logging(settings),
        access_log=False,
        server_header=False,
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=list(settings.trusted_proxies),
        timeout_keep_alive=math.ceil(settings.idle_timeout),
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    return Server(
        config,
        drain_seconds=settings.drain_seconds,
        idle_timeout=settings.idle_timeout,
        ready=ready,
        team=team,
    )


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
