"""Autocomplete, and what indexes are loaded."""

from __future__ import annotations

import hashlib
from typing import Annotated, Literal

from fastapi import APIRouter, Header, Query, Response

from mariana.autocomplete import LIMIT_MAX
from mariana.errors import NotFoundError

from ..schemas import CompleteAnswer, IndexInfo, IndexList, problems
from ..state import Served, ServedIndex

router = APIRouter(prefix="/v1/indexes", tags=["indexes"])

CACHE_CONTROL = "public, max-age=60"
"""A browser may answer what was typed a minute ago from its own memory; after that it asks with the ETag."""

LIVE_CACHE_CONTROL = "public, no-cache"
"""Of an index that changes while it is served: it asks with the ETag each time."""


@router.get("", operation_id="list_indexes")
async def list_indexes(state: Served) -> IndexList:
    """List the indexes of the store, with those that could not be opened and why."""
    return IndexList(indexes=[_info(served) for served in state.indexes.values()])


@router.get("/{name}", operation_id="get_index", responses=problems(404))
async def get_index(name: str, state: Served) -> IndexInfo:
    """Tell of one index."""
    return _info(state.index(name))


@router.get(
    "/{name}/complete",
    operation_id="complete",
    response_model=CompleteAnswer,
    responses={304: {"description": "The answer is the one with this ETag"}, **problems(400, 404, 422)},
)
async def complete(
    *,
    name: str,
    state: Served,
    q: Annotated[str, Query(description="what was typed; at most 256 bytes", examples=["sai"])],
    limit: Annotated[int, Query(ge=1, le=LIMIT_MAX, description="at most so many")] = 10,
    fuzzy: Annotated[
        Literal["auto", "0", "1", "2"],
        Query(description="typing errors to forgive; auto: by the query's length"),
    ] = "auto",
    context: Annotated[
        list[str],
        Query(max_length=64, description="only entries with this context; several: with one of them"),
    ] = [],  # noqa: B006 - FastAPI copies it
    prefer: Annotated[
        list[str],
        Query(max_length=64, description="entries without this context, or any of these, come later"),
    ] = [],  # noqa: B006
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    """Complete what was typed, best first. Offsets count Unicode code points."""
    index = state.index(name).index
    if index is None:
        raise NotFoundError("the index could not be opened")
    body = index.complete_json(q, limit, _FUZZY[fuzzy], context=context, prefer=prefer)
    etag = f'"{hashlib.blake2b(body, digest_size=12).hexdigest()}"'
    headers = {"ETag": etag, "Cache-Control": LIVE_CACHE_CONTROL if index.live else CACHE_CONTROL}
    if if_none_match is not None and etag_matches(if_none_match, etag):
        return Response(status_code=304, headers=headers)
    return Response(body, headers=headers, media_type="application/json")


_FUZZY: dict[str, Literal["auto", 0, 1, 2]] = {"auto": "auto", "0": 0, "1": 1, "2": 2}


def etag_matches(if_none_match: str, etag: str) -> bool:
    """Whether a header If-None-Match names an ETag (RFC 9110 section 13.1.2: weakly compared)."""
    given = (tag.strip().removeprefix("W/") for tag in if_none_match.split(","))
    return any(tag in (etag, "*") for tag in given)


def _info(served: ServedIndex) -> IndexInfo:
    if served.index is None:
        return IndexInfo(name=served.name, state="END", error=served.failure)
    return IndexInfo(
        name=served.name, state="AVAILABLE", entries=len(served.index), nbytes=served.index.nbytes
    )
