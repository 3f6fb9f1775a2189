"""The application: everything that it needs comes in through its settings."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any, TypedDict

from fastapi import FastAPI
from fastapi.telemetry import TelemetryConfig
from pydantic_core import to_json
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from mariana import __version__
from mariana.settings import Settings, load_settings

from . import completions, errors, openapi, sandbox
from .auth import Admin
from .board import Team
from .follow import Follower
from .front import Front
from .lifecycle import Lifecycle
from .limits import Limits
from .metrics import Metrics
from .routes import (
    complete,
    entries,
    health,
    infer,
    models,
    operate,
    pages,
    predict,
    repository,
    selections,
    tensorflow,
)
from .settings_file import SettingsFile
from .state import State
from .telemetry import HotTelemetry, configure

_log = logging.getLogger("mariana.server")

DESCRIPTION = "Neural networks and autocomplete indexes of one store. Errors are RFC 9457 problem details."


class _Lifespan(TypedDict):
    served: State
    admin: Admin
    lifecycle: Lifecycle
    front: Front


def check_settings(settings: Settings) -> TelemetryConfig:
    """Return what is to be told to OpenTelemetry.

    Raises:
        MarianaError: the settings ask for a sandbox, or for telemetry, that is not to be had here.
    """
    sandbox.check(settings)
    return configure(settings)


@asynccontextmanager
async def _lifespan(
    settings: Settings, told: TelemetryConfig, reread: Callable[[], Settings] | None, app: Application
) -> AsyncIterator[_Lifespan]:
    """Load the store and serve it, until that ends."""
    team = app.team
    limits = Limits.of(settings)
    metrics = Metrics() if team is None else Metrics(team.cells, team.counted)
    state = State(limits, metrics=metrics, team=team)
    lifecycle = Lifecycle(settings, state)
    lifecycle.start()
    caged = sandbox.enter(settings)  # before the first helper thread starts
    if caged is not None:
        _log.info("sandbox: %s", caged)
    predictions = predict.PredictRoute(state)
    app.router.routes.insert(0, predictions)  # first, so that a prediction waits for no other look-up
    front = Front(super(Application, app).__call__, settings, state)
    front.telemetry = HotTelemetry.make(told)
    document = openapi.Description(super(Application, app).openapi, predictions, state)

    def publish() -> None:
        state.fit()
        front.publish({**predictions.publish(), **infer.publish(state), **completions.publish(state)})
        document.change()

    state.on_change.append(publish)
    publish()
    follower = Follower(state.open_indexes)
    state.trouble = follower.told
    follower.start()
    app.document, app.front = document, front
    tasks = [asyncio.create_task(front.sweep())]
    if settings.reload_store:
        tasks.append(asyncio.create_task(lifecycle.watch()))
    if reread is not None:
        tasks.append(asyncio.create_task(SettingsFile(settings, reread, limits, state.fit).follow()))
    if team is not None:
        tasks.append(asyncio.create_task(team.attend(partial(operate.tally, state), lifecycle.follow)))
    try:
        yield {"served": state, "admin": Admin(settings), "lifecycle": lifecycle, "front": front}
    finally:
        for task in tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        front.finish()
        follower.stop()
        app.router.routes.remove(predictions)
        app.document = app.front = None
        state.close()


def create_app(
    settings: Settings | None = None,
    telemetry: TelemetryConfig | None = None,
    reread: Callable[[], Settings] | None = None,
) -> Application:
    """Return the application. Its lifespan loads the store; what cannot be loaded is told, and stops nothing else.

    Args:
        settings: None reads them from the environment and the settings file.
        telemetry: what FastAPI tells OpenTelemetry, and to whom; None: what the settings say.
        reread: reads the settings anew when their file has changed, for the limits; None: where ``settings`` are given,
            their limits stay.

    Raises:
        MarianaError: the settings ask for a sandbox, or for telemetry, that is not to be had here.
    """
    if settings is None:
        settings, reread = load_settings(), reread or load_settings
    found = check_settings(settings)
    told = found if telemetry is None else telemetry

    app = Application(
        title="Mariana",
        description=DESCRIPTION,
        version=__version__,
        lifespan=partial(_lifespan, settings, told, reread),
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
        telemetry=told,
    )
    for part in (
        complete.router,
        entries.router,
        selections.make_router(settings),
        tensorflow.router,
        models.router,
        health.router,
        infer.router,
        repository.router,
        operate.router,
        pages.make_router(),
    ):
        app.include_router(part)
    app.add_route("/openapi.json", app.describe, include_in_schema=False)
    errors.install(app)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["DELETE", "GET", "POST"],
            allow_headers=["Authorization", "Content-Type", "If-None-Match"],
            expose_headers=["ETag", "X-Request-Id"],
        )
    return app


class Application(FastAPI):
    """FastAPI behind its :class:`Front`, with what no signature tells in its OpenAPI document: models and errors."""

    front: Front | None = None
    team: Team | None = None
    """The other workers; set before it starts."""
    document: openapi.Description | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if self.front is None:
            await super().__call__(scope, receive, send)
        else:
            await self.front(scope, receive, send)

    def openapi(self) -> dict[str, Any]:
        """Return the OpenAPI document; of the models as they are now."""
        return super().openapi() if self.document is None else self.document.make()

    async def describe(self, request: Request) -> Response:
        """Answer with the OpenAPI document."""
        root = request.scope.get("root_path", "").rstrip("/")
        if root or self.document is None:
            body = to_json(self.openapi() | ({"servers": [{"url": root}]} if root else {}))
        else:
            body = await self.document.body()
        return Response(body, media_type="application/json")
