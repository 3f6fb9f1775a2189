"""Completions: the body of an answer, its ETag, and the quick way from a query string to both."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from time import perf_counter
from typing import Literal
from urllib.parse import unquote_to_bytes

from mariana.autocomplete import LIMIT_MAX
from mariana.errors import InvalidInputError

from .front import NOSNIFF, Head, Headers, Hot, Reply
from .state import ServedIndex, State

Fuzzy = Literal["auto", 0, 1, 2]

CACHE_CONTROL = "public, max-age=60"
"""A browser may answer what was typed a minute ago from its own memory; after that it asks with the ETag."""

LIVE_CACHE_CONTROL = "public, no-cache"
"""Of an index that changes while it is served: it asks with the ETag each time."""

FUZZY: dict[str, Fuzzy] = {"auto": "auto", "0": 0, "1": 1, "2": 2}

_PLAIN, _LIVE = (
    (
        Headers((b"content-type", b"application/json"), NOSNIFF, (b"cache-control", control.encode())),
        Headers(NOSNIFF, (b"cache-control", control.encode())),
    )
    for control in (CACHE_CONTROL, LIVE_CACHE_CONTROL)
)
_QUICK_FUZZY = {key.encode(): value for key, value in FUZZY.items()}
ENDPOINT = "GET /v1/indexes/{name}/complete"


def answer(
    served: ServedIndex,
    query: str,
    limit: int,
    fuzzy: Fuzzy,
    context: Sequence[str] = (),
    prefer: Sequence[str] = (),
) -> tuple[bytes, str]:
    """Return the body of an answer, and its ETag.

    Raises:
        InvalidInputError: the query is not clean, too long, or the index is closed.
    """
    start = perf_counter()
    index = served.index
    if index is None:
        raise InvalidInputError("the index is closed")
    body = index.complete_json(query, limit, fuzzy, context=context, prefer=prefer)
    etag = f'"{hashlib.blake2b(body, digest_size=12).hexdigest()}"'
    served.stats.complete.observe(perf_counter() - start)
    return body, etag


def etag_matches(if_none_match: str, etag: str) -> bool:
    """Whether a header If-None-Match names an ETag (RFC 9110 section 13.1.2: weakly compared)."""
    given = (tag.strip().removeprefix("W/") for tag in if_none_match.split(","))
    return any(tag in (etag, "*") for tag in given)


def publish(state: State) -> dict[str, Hot]:
    """Return the quick ways of the indexes as they are now."""
    return {
        f"/v1/indexes/{name}/complete": Hot(
            "GET", ENDPOINT, _Quick(served).call, f"/v1/indexes/{name}/complete"
        )
        for name, served in state.indexes.items()
        if served.index is not None
    }


class _Quick:
    def __init__(self, served: ServedIndex) -> None:
        self._served = served

    def call(self, head: Head, query: bytes, _body: bytes) -> Reply | None:
        parsed = parse_query(query)
        if parsed is None:
            return None
        try:
            body, etag = answer(self._served, *parsed)
        except InvalidInputError:
            return None
        extra = ((b"etag", etag.encode()),)
        index = self._served.index
        found, not_modified = _LIVE if index is not None and index.live else _PLAIN
        if head.etag and etag_matches(head.etag.decode("latin-1"), etag):
            return Reply(b"", not_modified, extra, 304)
        return Reply(body, found, extra)


def parse_query(query: bytes) -> tuple[str, int, Fuzzy] | None:
    """Return query, limit and fuzzy of a query string that is plainly right; None for the full way to decide."""
    given: dict[bytes, bytes] = {}
    for part in query.split(b"&"):
        name, equals, value = part.partition(b"=")
        if not equals or name in given or name not in _PARAMETERS:
            return None
        given[name] = value
    text = _text(given[b"q"]) if b"q" in given else None
    limit, fuzzy = given.get(b"limit", b"10"), _QUICK_FUZZY.get(given.get(b"fuzzy", b"auto"))
    plain = limit.isdigit() and len(limit) <= 3 and 1 <= int(limit) <= LIMIT_MAX and limit[:1] != b"0"
    return (text, int(limit), fuzzy) if text is not None and plain and fuzzy is not None else None


def check_utf8(query: bytes) -> None:
    """Refuse a query string that is no UTF-8, instead of completing what stands in for its bytes.

    Raises:
        InvalidInputError: it is none, such as half a surrogate pair.
    """
    try:
        unquote_to_bytes(query).decode()
    except UnicodeDecodeError:
        raise InvalidInputError("the query string is not UTF-8: encode each character whole") from None


_PARAMETERS = frozenset({b"q", b"limit", b"fuzzy"})


def _text(value: bytes) -> str | None:
    if b"+" in value:
        value = value.replace(b"+", b" ")
    if b"%" in value:
        value = unquote_to_bytes(value)
    try:
        return value.decode()
    except UnicodeDecodeError:
        return None
