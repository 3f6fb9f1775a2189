"""Entries of an index as callers give them, read into what a segment and a journal take.

:func:`mariana.build_index` and :meth:`mariana.Index.insert` take the same entries and refuse the same ones.
"""

from __future__ import annotations

import json
import numbers
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from pydantic_core import from_json

from mariana._binding import build, trie
from mariana.errors import InvalidInputError
from mariana.live.journal import Item

Entry = tuple[str, float] | Mapping[str, Any]

TEXT_MAX = trie.TEXT_MAX
"""The longest text of an entry, in bytes of UTF-8."""

ID_MAX = trie.ID_MAX
"""The longest id of a document, in bytes of UTF-8."""

DEFAULT_SCORE = 1.0
"""The score of an entry that has none."""

_to_json = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
_FIELDS = ("text", "score", "payload", "contexts", "id")


def read_entry(entry: object, there: set[str]) -> tuple[bytes, float, bytes, tuple[str, ...], bytes]:
    """Return text, score, payload (JSON), contexts and id of an entry; empty for those it has not.

    Whether the text is clean and the score in its range, the builder says.

    Args:
        entry: as it was given; an InvalidInputError stands for one that its reader could not make sense of.
        there: the contexts of its index so far; those of the entry are added.

    Raises:
        InvalidInputError: a field is wrong; ``pointer`` says which.
    """
    payload: object = None
    contexts: tuple[str, ...] = ()
    id_ = b""
    if isinstance(entry, InvalidInputError):
        raise entry
    if isinstance(entry, tuple | list) and len(entry) == 2:
        text, score = entry
    elif isinstance(entry, Mapping):
        unknown = next((name for name in entry if name not in _FIELDS), None)
        if unknown is not None:
            raise InvalidInputError(f"unknown field {str(unknown)[:64]!r}; there are: {', '.join(_FIELDS)}")
        text, score, payload = entry.get("text"), entry.get("score", DEFAULT_SCORE), entry.get("payload")
        if entry.get("contexts") is not None:
            contexts = _read_contexts(entry["contexts"])
        if entry.get("id") is not None:
            id_ = _read_id(entry["id"])
    else:
        raise InvalidInputError(
            "an entry is (text, score), or a mapping with text, score, payload, contexts and id"
        )
    if not isinstance(text, str):
        raise InvalidInputError(f"text must be a string, got {type(text).__name__}", pointer="/text")
    raw = text.encode("utf-8", "surrogatepass")
    read = raw, _read_score(score), _read_payload(payload), contexts, id_
    if contexts:
        if len(there.union(contexts)) > trie.TAGS_MAX:
            raise InvalidInputError(
                f"that makes more than {trie.TAGS_MAX} different contexts", pointer="/contexts"
            )
        there.update(contexts)
    return read


def check_entries(entries: Iterable[Entry], there: Collection[str]) -> list[tuple[bytes, Item]]:
    """Return entries as the journal takes them, each of them one that a segment takes.

    Args:
        entries: as they were given.
        there: the contexts that the index has.

    Raises:
        InvalidInputError: some are refused; ``faults`` has each of them.
    """
    texts: list[bytes] = []
    items: list[Item] = []
    positions: list[int] = []
    faults: list[tuple[str, str]] = []
    contexts = set(there)
    for position, entry in enumerate(entries):
        try:
            text, score, payload, names, id_ = read_entry(entry, contexts)
        except InvalidInputError as error:
            faults.append((f"/{position}{error.pointer}", str(error)))
            continue
        texts.append(text)
        items.append(Item(score, payload, _to_json(names).encode() if names else b"", id_))
        positions.append(position)
    scores, payloads = [item.score for item in items], [item.payload for item in items]
    _, verdicts = build.build_segment(texts, scores, payloads)  # which knows what it takes
    faults += [
        (f"/{positions[row]}", build.verdict_message(int(verdicts[row])))
        for row in (verdicts < 0).nonzero()[0].tolist()
    ]
    if faults:
        faults.sort(key=lambda fault: int(fault[0].split("/")[1]))
        where, reason = faults[0]
        raise InvalidInputError(f"entry {where.split('/')[1]}: {reason}", pointer=where, faults=faults)
    return list(zip(texts, items, strict=True))


def read_text(text: object, pointer: str) -> bytes:
    """Return a text or id by which entries are named, in UTF-8; ``pointer`` is of the error that it raises."""
    if not isinstance(text, str):
        raise InvalidInputError(f"expected a string, got {type(text).__name__}", pointer=pointer)
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise InvalidInputError("the text holds half of a surrogate pair", pointer=pointer) from None


def parse_payload(raw: bytes) -> Any:
    """Return the value of a payload; ValueError if it is no JSON."""
    return from_json(raw, allow_inf_nan=False)


def _read_id(given: object) -> bytes:
    if not isinstance(given, str):
        raise InvalidInputError(f"id must be a string, got {type(given).__name__}", pointer="/id")
    try:
        build.check_id(given)
    except InvalidInputError as error:
        raise InvalidInputError(str(error), pointer="/id") from None
    return given.encode()


def _read_contexts(given: object) -> tuple[str, ...]:
    names = [given] if isinstance(given, str) else given
    if not isinstance(names, Collection) or not all(isinstance(name, str) for name in names):
        raise InvalidInputError("contexts must be names: strings", pointer="/contexts")
    for name in names:
        try:
            build.check_context(name)
        except InvalidInputError as error:
            raise InvalidInputError(str(error), pointer="/contexts") from None
    return tuple(sorted({*names}))


def _read_score(score: object) -> float:
    if type(score) is float or (type(score) is int and abs(score) <= 1 << 53):
        return float(score)  # nearly all are; the checks below take longer than all the rest of an entry
    if not isinstance(score, numbers.Real) or isinstance(score, bool):
        raise InvalidInputError(f"score must be a number, got {type(score).__name__}", pointer="/score")
    try:
        return float(score)
    except OverflowError:
        raise InvalidInputError("score is too large", pointer="/score") from None


def _read_payload(payload: object) -> bytes:
    if payload is None:
        return b""
    try:
        raw = _to_json(payload).encode("utf-8", "surrogatepass")
        parse_payload(raw)  # it nests less deeply than Python does
    except (TypeError, ValueError, RecursionError):
        raise InvalidInputError(
            "payload is not a JSON value, or is nested more than 200 deep", pointer="/payload"
        ) from None
    return raw
