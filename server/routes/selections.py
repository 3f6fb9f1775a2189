"""Learning from what people choose."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request

from mariana.errors import NotFoundError
from mariana.settings import Settings

from ..documents import body_schemas, read_document, request_body
from ..errors import Fault, Problem
from ..limits import client_at
from ..schemas import ReceiptAnswer, Selection, problems
from ..state import Served
from .entries import opened, written

SCHEMAS: dict[str, Any] = body_schemas(Selection)
"""What the routes' descriptions refer to."""

BODY_MAX = 16 << 10


def make_router(settings: Settings) -> APIRouter:
    """Return the route; it learns only where ``settings.learn`` says so."""
    router = APIRouter(prefix="/v1/indexes/{name}/selections", tags=["indexes"])

    @router.post(
        "",
        operation_id="select_entry",
        responses=problems(400, 403, 404, 413, 415, 422, 503, 507),
        openapi_extra=request_body(Selection, Selection.examples()),
    )
    async def select(name: str, request: Request, state: Served) -> ReceiptAnswer:
        """Learn that a person chose an entry: it ranks higher from now on, less so as time goes by.

        To be called when an entry is chosen, not at each keystroke. A client counts once a day for each entry;
        ``count`` says whether this one did.
        """
        if not settings.learn:
            raise Problem(403, "learning is off; set MARIANA_LEARN=on on the server to allow it")
        index = opened(state, name)
        document = await read_document(request, Selection, BODY_MAX)
        try:
            return await written(lambda: index.select(document.text, client=client_of(request)), "text")
        except NotFoundError:
            raise Problem(
                404,
                "/text: no such entry in the index",
                errors=[Fault("/text", "no such entry in the index")],
            ) from None

    return router


def client_of(request: Request) -> str:
    """Return who sends a request."""
    return client_at(request.client.host if request.client is not None else "unknown")
