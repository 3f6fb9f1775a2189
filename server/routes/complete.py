"""Autocomplete, and what indexes are loaded."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Header, Query, Request, Response

from mariana.autocomplete import LIMIT_MAX
from mariana.errors import NotFoundError

from ..completions import CACHE_CONTROL, FUZZY, LIVE_CACHE_CONTROL, answer, check_utf8, etag_matches
from ..schemas import CompleteAnswer, IndexInfo, IndexList, problems
from ..state import Served, ServedIndex

router = APIRouter(prefix="/v1/indexes", tags=["indexes"])


@router.get("", operation_id="list_indexes")
async def list_indexes(state: Served) -> IndexList:
    """List the indexes of the store, with those that could not be opened and why."""
    return IndexList(indexes=[_info(served, state.trouble_of(served)) for served in state.indexes.values()])


@router.get("/{name}", operation_id="get_index", responses=problems(404))
async def get_index(name: str, state: Served) -> IndexInfo:
    """Tell of one index."""
    served = state.index(name)
    return _info(served, state.trouble_of(served))


@router.get(
    "/{name}/complete",
    operation_id="complete",
    response_model=CompleteAnswer,
    responses={304: {"description": "The answer is the one with this ETag"}, **problems(400, 404, 422)},
)
async def complete(
    request: Request,
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
    check_utf8(request.scope["query_string"])
    served = state.index(name)
    if served.index is None:
        raise NotFoundError("the index could not be opened")
    body, etag = answer(served, q, limit, FUZZY[fuzzy], context, prefer)
    control = LIVE_CACHE_CONTROL if served.index.live else CACHE_CONTROL
    headers = {"ETag": etag, "Cache-Control": control}
    if if_none_match is not None and etag_matches(if_none_match, etag):
        return Response(status_code=304, headers=headers)
    return Response(body, headers=headers, media_type="application/json")


def _info(served: ServedIndex, trouble: str | None) -> IndexInfo:
    if served.index is None:
        return IndexInfo(name=served.name, state="END", error=served.failure)
    return IndexInfo(
        name=served.name,
        state="AVAILABLE",
        entries=len(served.index),
        nbytes=served.index.nbytes,
        error=trouble,
    )
