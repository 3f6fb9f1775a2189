"""Building index segments in memory: entries as columns, handed to C whole."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mariana._binding import check, ffi, lib
from mariana._binding.trie import (
    ID_MAX,
    KEY_MAX,
    PAYLOAD_MAX,
    TAG_MAX,
    TAGS_MAX,
    TEXT_MAX,
    Entry,
    Segment,
    fold,
    status_name,
)
from mariana.errors import InvalidInputError

MERGED = int(lib.MRN_MERGED)

Places = Sequence[int] | NDArray[np.uint32]
"""Of entries in a segment."""

_Ends = NDArray[np.uint64]
_CHUNK = 1 << 16
"""Entries that are read out of a segment at a time."""
_CHUNK_BYTES = 1 << 23


class Blobs:
    """Byte strings one after the other, and how long each is."""

    __slots__ = ("_lengths", "_parts")

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._lengths: list[_Ends] = []

    def add(self, parts: Sequence[bytes]) -> None:
        """Append some."""
        self.add_joined(b"".join(parts), np.fromiter(map(len, parts), np.uint64, len(parts)))

    def add_joined(self, joined: bytes, lengths: _Ends) -> None:
        """Append some that are joined already."""
        self._parts.append(joined)
        self._lengths.append(lengths)

    def joined(self) -> tuple[bytes, _Ends]:
        """Return all of them, and where each ends."""
        lengths = np.concatenate(self._lengths) if self._lengths else np.zeros(0, np.uint64)
        return b"".join(self._parts), np.cumsum(lengths, dtype=np.uint64)


class SegmentBuilder:
    """Entries, column by column, as the builder in C reads them.

    Attributes:
        count: entries so far.
    """

    __slots__ = ("_contexts", "_ids", "_masks", "_payloads", "_scores", "_texts", "count")

    def __init__(self) -> None:
        self.count = 0
        self._texts, self._payloads, self._ids = Blobs(), Blobs(), Blobs()
        self._scores: list[NDArray[np.float64]] = []
        self._contexts: dict[int, Collection[str]] = {}  # by entry, where there are any
        self._masks: list[tuple[int, NDArray[np.uint64], tuple[str, ...]]] = []  # of entries from a number on

    def add(
        self,
        texts: Sequence[bytes],
        scores: Sequence[float],
        payloads: Sequence[bytes] = (),
        contexts: Sequence[Collection[str]] = (),
        ids: Sequence[bytes] = (),
    ) -> None:
        """Append entries: texts in UTF-8; payloads, contexts and ids of each, or none at all."""
        count = len(texts)
        self._texts.add(texts)
        for blobs, given in ((self._payloads, payloads), (self._ids, ids)):
            if any(given):
                blobs.add(given)
            else:
                blobs.add_joined(b"", np.zeros(count, np.uint64))
        self._scores.append(np.asarray(scores, np.float64))
        if any(contexts):
            self._contexts.update((self.count + row, names) for row, names in enumerate(contexts) if names)
        self.count += count

    def add_plain(self, texts: Sequence[str], scores: Sequence[float]) -> bool:
        """Append entries of which nothing but text and score is known; False, and nothing, if these are not such."""
        if not set(map(type, texts)) <= {str} or not set(map(type, scores)) <= {int, float}:
            return False
        count = len(texts)
        try:
            figures = np.fromiter(scores, np.float64, count)
        except OverflowError:
            return False
        joined = "".join(texts)
        lengths = np.fromiter(map(len, texts), np.uint64, count)
        if not joined.isascii():
            for row, text in enumerate(texts):
                if not text.isascii():
                    lengths[row] = len(text.encode("utf-8", "surrogatepass"))
        self._texts.add_joined(joined.encode("utf-8", "surrogatepass"), lengths)
        for blobs in (self._payloads, self._ids):
            blobs.add_joined(b"", np.zeros(count, np.uint64))
        self._scores.append(figures)
        self.count += count
        return True

    def add_segment(self, segment: Segment, without: Places = ()) -> None:
        """Append the entries of a segment but for some, which are named by their places."""
        skip = np.zeros(segment.entries, np.uint8)
        skip[np.asarray(without, np.int64)] = 1
        for texts, scores, payloads, masks, ids in _read_columns(segment, skip):
            self._texts.add_joined(*texts)
            self._payloads.add_joined(*payloads)
            self._ids.add_joined(*ids)
            self._scores.append(scores)
            if segment.tags:
                self._masks.append((self.count, masks, segment.tags))
            self.count += len(scores)

    def build(self, *, any_word: bool = True, camel_case: bool = False) -> tuple[Any, NDArray[np.int8]]:
        """Build a segment file; the same entries give the same bytes, whatever their order.

        Args:
            any_word: entries are found by each of their words, not only by their beginning.
            camel_case: words also begin at the capitals of camelCase.

        Returns:
            The file as a buffer, and a verdict for each entry: 0 kept, ``MERGED`` dropped in favour of an entry
            with the same text and a higher score, negative (see :func:`verdict_message`) refused.

        Raises:
            InvalidInputError: the contexts have more than ``TAGS_MAX`` different names, or one that is empty, too
                long or not clean.
        """
        verdicts = np.zeros(self.count, dtype=np.int8)
        scores = np.concatenate(self._scores) if self._scores else np.zeros(0)
        entries = ffi.new("mrn_entries *")
        entries.count = self.count
        entries.flags = (lib.MRN_INDEX_WORDS if any_word else 0) | (
            lib.MRN_INDEX_CAMEL if any_word and camel_case else 0
        )
        alive: list[Any] = [scores]

        def point(blobs: Blobs) -> tuple[Any, Any]:
            blob, ends = blobs.joined()
            alive.extend((blob, ends))
            return ffi.from_buffer(blob), ffi.from_buffer("uint64_t[]", ends)

        entries.texts, entries.text_ends = point(self._texts)
        entries.payloads, entries.payload_ends = point(self._payloads)
        entries.ids, entries.id_ends = point(self._ids)
        entries.scores = ffi.from_buffer("double[]", scores)
        tags, masks = self._tagged()
        if tags:
            names = Blobs()
            names.add([tag.encode() for tag in tags])
            entries.tags, entries.tag_ends = point(names)
            entries.tag_count = len(tags)
            entries.contexts = ffi.from_buffer("uint64_t[]", masks)
        file, file_bytes = ffi.new("char **"), ffi.new("size_t *")
        out = ffi.from_buffer("signed char[]", verdicts, require_writable=True)
        check(lib.mrn_index_build(entries, out, file, file_bytes), "build the index")
        return ffi.buffer(ffi.gc(file[0], lib.mrn_free), file_bytes[0]), verdicts

    def _tagged(self) -> tuple[list[str], NDArray[np.uint64]]:
        """Return the names of the contexts, in order, and a bit mask for each entry."""
        used = {name for some in self._contexts.values() for name in some}
        for _, masks, names in self._masks:
            everywhere = int(np.bitwise_or.reduce(masks, initial=np.uint64(0)))
            used.update(name for bit, name in enumerate(names) if everywhere >> bit & 1)
        tags = sorted(used)
        if len(tags) > TAGS_MAX:
            raise InvalidInputError(f"{len(tags)} different contexts; an index has at most {TAGS_MAX}")
        for name in tags:
            check_context(name)
        bits = {name: 1 << bit for bit, name in enumerate(tags)}
        all_masks = np.zeros(self.count, np.uint64)
        for entry, some in self._contexts.items():
            all_masks[entry] = sum(bits[name] for name in {*some})
        for start, masks, names in self._masks:
            for bit, name in enumerate(names):
                has = masks >> np.uint64(bit) & np.uint64(1)
                all_masks[start : start + len(masks)] |= has * np.uint64(bits.get(name, 0))
        return tags, all_masks


_Joined = tuple[bytes, _Ends]


def _read_columns(
    segment: Segment, skip: NDArray[np.uint8]
) -> Iterator[tuple[_Joined, NDArray[np.float64], _Joined, NDArray[np.uint64], _Joined]]:
    """Yield texts, scores, payloads, masks and ids of a segment, some entries at a time."""
    parents = segment.parents()
    rows = min(_CHUNK, segment.entries)
    # No more than the entries can have, and room for the longest one.
    sizes = (TEXT_MAX * (rows + 1), PAYLOAD_MAX + segment.nbytes, ID_MAX + segment.nbytes)
    blobs = [np.empty(min(_CHUNK_BYTES, size), np.uint8) for size in sizes]
    ends = [np.empty(rows, np.uint64) for _ in range(3)]
    scores, masks = np.empty(rows), np.empty(rows, np.uint64)
    texts, payloads, ids = (ffi.from_buffer("char[]", blob) for blob in blobs)
    text_ends, payload_ends, id_ends = (ffi.from_buffer("uint64_t[]", some) for some in ends)
    columns = ffi.new("mrn_entry_columns *")
    columns.rows = rows
    columns.text_bytes, columns.payload_bytes, columns.id_bytes = map(len, blobs)
    columns.texts, columns.payloads, columns.ids = texts, payloads, ids
    columns.text_ends, columns.payload_ends, columns.id_ends = text_ends, payload_ends, id_ends
    columns.scores, columns.contexts = (
        ffi.from_buffer("double[]", scores),
        ffi.from_buffer("uint64_t[]", masks),
    )
    following, count = ffi.new("uint32_t *"), ffi.new("size_t *")
    while following[0] < segment.entries:
        check(
            lib.mrn_index_columns(
                segment.handle,
                ffi.from_buffer("uint64_t[]", parents),
                ffi.from_buffer("uint8_t[]", skip),
                following,
                columns,
                count,
            ),
            "read the entries",
        )
        found = count[0]
        joined = [
            (
                blob[: int(some[found - 1]) if found else 0].tobytes(),
                np.diff(some[:found], prepend=np.uint64(0)),
            )
            for blob, some in zip(blobs, ends, strict=True)
        ]
        yield joined[0], scores[:found].copy(), joined[1], masks[:found].copy(), joined[2]


def build_segment(
    texts: Sequence[bytes],
    scores: Sequence[float],
    payloads: Sequence[bytes] = (),
    contexts: Sequence[Collection[str]] = (),
    ids: Sequence[bytes] = (),
    *,
    any_word: bool = True,
    camel_case: bool = False,
) -> tuple[Any, NDArray[np.int8]]:
    """Build a segment file in memory: :meth:`SegmentBuilder.add` and :meth:`SegmentBuilder.build` in one."""
    builder = SegmentBuilder()
    builder.add(texts, scores, payloads, contexts, ids)
    return builder.build(any_word=any_word, camel_case=camel_case)


def build(
    entries: Iterable[Entry],
    *,
    bases: Iterable[tuple[Segment, Places]] = (),
    any_word: bool = True,
    camel_case: bool = False,
) -> bytes:
    """Build a segment file in memory.

    Args:
        entries: all of them, or those that come to ``bases``.
        bases: segments, and for each the places of those of its entries that are left out.
        any_word: as :meth:`SegmentBuilder.build`.
        camel_case: likewise.

    Raises:
        InvalidInputError: an entry is refused; ``pointer`` says which.
    """
    listed = list(entries)
    builder = SegmentBuilder()
    builder.add(*zip(*listed, strict=True)) if listed else None
    for segment, without in bases:
        builder.add_segment(segment, without)
    file, verdicts = builder.build(any_word=any_word, camel_case=camel_case)
    for row in (verdicts < 0).nonzero()[0][:1].tolist():
        raise InvalidInputError(f"entry {row}: {verdict_message(int(verdicts[row]))}", pointer=f"/{row}")
    return bytes(file)


def check_context(name: str) -> None:
    """Raise InvalidInputError for a name that no context can have."""
    if not _is_name(name, TAG_MAX):
        raise InvalidInputError(
            f"a context is 1 to {TAG_MAX} bytes of UTF-8 without control characters and marks of writing direction"
        )


def check_id(name: str) -> None:
    """Raise InvalidInputError for what cannot be the id of a document."""
    if not _is_name(name, ID_MAX):
        raise InvalidInputError(
            f"an id is 1 to {ID_MAX} bytes of UTF-8 without control characters and marks of writing direction"
        )


def _is_name(name: str, most: int) -> bool:
    try:
        fold(name)
        return 1 <= len(name.encode()) <= most
    except (InvalidInputError, UnicodeEncodeError):
        return False


def verdict_message(verdict: int) -> str:
    """Say why an entry was refused."""
    reasons: dict[str, str] = {
        "E_TEXT": (
            "the text is not UTF-8, holds a control character or a mark of writing direction, "
            "or has nothing that could be typed"
        ),
        "E_PAYLOAD": "the payload is not JSON in UTF-8, or nests more than 200 deep",
        "E_RANGE": "score is negative or not finite",
        "E_ID": f"the id has more than {ID_MAX} bytes, or is not clean",
        "E_TOO_LARGE": (
            f"longer than {TEXT_MAX} bytes of text, {KEY_MAX} of folded text or {PAYLOAD_MAX} of payload"
        ),
    }
    return reasons[status_name(verdict)]
