"""Live updates of an index."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Request

from mariana.autocomplete import Index
from mariana.errors import InvalidInputError, NotFoundError
from mariana.live.state import Receipt

from ..auth import SECURITY, AdminOnly
from ..documents import body_schemas, read_document, request_body
from ..schemas import Deletions, Insertions, ReceiptAnswer, problems
from ..state import Served, State

SCHEMAS: dict[str, Any] = body_schemas(Insertions, Deletions)
"""What the routes' descriptions refer to."""

_PROBLEMS = problems(400, 401, 403, 404, 413, 415, 422, 503, 507)


router = APIRouter(prefix="/v1/indexes/{name}/entries", tags=["indexes"])


@router.post(
    "",
    operation_id="insert_entries",
    responses=_PROBLEMS,
    openapi_extra={"security": SECURITY, **request_body(Insertions, Insertions.examples())},
)
async def insert(name: str, request: Request, state: Served, _admin: AdminOnly) -> ReceiptAnswer:
    """Insert entries, or replace whole those of the same text: all of them or none.

    The answer means that they are on the disk and that this process completes them; other processes do within
    0.1 s.
    """
    index = opened(state, name)
    document = await read_document(request, Insertions, state.limits.max_body)
    entries = [entry.model_dump() for entry in document.entries]
    return await written(lambda: index.insert(entries), "entries")


@router.delete(
    "",
    operation_id="delete_entries",
    responses=_PROBLEMS,
    openapi_extra={"security": SECURITY, **request_body(Deletions, Deletions.examples())},
)
async def delete(name: str, request: Request, state: Served, _admin: AdminOnly) -> ReceiptAnswer:
    """Delete entries by their texts, or by the ids of their documents: all of them or none.

    ``count`` is the number of those that were there.
    """
    index = opened(state, name)
    document = await read_document(request, Deletions, state.limits.max_body)
    return await written(lambda: index.delete(document.texts, ids=document.ids), "texts")


def opened(state: State, name: str) -> Index:
    """Return an index; NotFoundError when there is none, or it could not be opened."""
    index = state.index(name).index
    if index is None:
        raise NotFoundError("the index could not be opened")
    return index


async def written(write: Callable[[], Receipt], member: str) -> ReceiptAnswer:
    """Write in a thread, since it waits for the disk.

    Args:
        write: does it.
        member: of the body, whose items an error points to.
    """
    try:
        receipt = await asyncio.to_thread(write)
    except InvalidInputError as error:
        error.pointer = f"/{member}{error.pointer}"
        error.faults = tuple((f"/{member}{where}", reason) for where, reason in error.faults)
        raise
    return ReceiptAnswer(sequence=receipt.sequence, count=receipt.count)
