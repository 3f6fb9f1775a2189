"""The application: everything that it needs comes in through its settings."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypedDict

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mariana import __version__
from mariana.settings import Settings, load_settings

from . import errors
from .auth import Admin
from .follow import Follower
from .routes import complete, entries, health, models, pages, predict, selections
from .schemas import error_schemas
from .state import State, load_state

DESCRIPTION = "Neural networks and autocomplete indexes of one store. Errors are RFC 9457 problem details."


class _Lifespan(TypedDict):
    served: State
    admin: Admin


def create_app(settings: Settings | None = None) -> Application:
    """Return the application. Its lifespan loads the store; what cannot be loaded is told, and stops nothing else.

    Args:
        settings: None reads them from the environment.
    """
    settings = load_settings() if settings is None else settings

    @asynccontextmanager
    async def lifespan(app: Application) -> AsyncIterator[_Lifespan]:
        state = load_state(settings)
        predictions = predict.PredictRoute(state, settings)
        app.router.routes.insert(0, predictions)  # first, so that a prediction waits for no other look-up
        writing = (entries.make_router(settings), selections.make_router(settings))
        for part in (complete.router, *writing, models.router, health.router, pages.make_router()):
            app.include_router(part)
        app.paths = predictions.paths
        app.schemas = predictions.schemas | entries.SCHEMAS | selections.SCHEMAS | error_schemas()
        follower = Follower(state.open_indexes)
        follower.start()
        try:
            yield {"served": state, "admin": Admin(settings)}
        finally:
            follower.stop()
            state.close()

    app = Application(
        title="Mariana",
        description=DESCRIPTION,
        version=__version__,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    errors.install(app)
    app.add_middleware(NoSniff)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["DELETE", "GET", "POST"],
            allow_headers=["Authorization", "Content-Type", "If-None-Match"],
            expose_headers=["ETag"],
        )
    return app


class Application(FastAPI):
    """FastAPI, with what no signature tells in its OpenAPI document: the loaded models, and the errors."""

    paths: dict[str, Any]
    schemas: dict[str, Any]

    def openapi(self) -> dict[str, Any]:
        """Return the OpenAPI document."""
        document = super().openapi()
        document["paths"].update(self.paths)
        document["components"]["schemas"].update(self.schemas)
        document["components"]["securitySchemes"] = {"admin": {"type": "http", "scheme": "bearer"}}
        return document


class NoSniff:
    """Tells browsers with each answer to take its Content-Type as it is."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_with_header(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"x-content-type-options", b"nosniff")]
            await send(message)

        await self.app(scope, receive, send_with_header)
