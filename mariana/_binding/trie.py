"""Index segments: building one in memory, checking one, looking it up."""

from __future__ import annotations

import heapq
import mmap
import struct
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic_core import from_json, to_json

from mariana._binding import check, ffi, lib
from mariana.errors import FileFormatError, InvalidInputError, OutOfRangeError

FORMAT_VERSION = int(lib.MRN_INDEX_VERSION)
FOLD_VERSION = int(lib.MRN_FOLD_VERSION)
MERGED = int(lib.MRN_MERGED)
TEXT_MAX = int(lib.MRN_TEXT_MAX)
KEY_MAX = int(lib.MRN_KEY_MAX)
PAYLOAD_MAX = int(lib.MRN_PAYLOAD_MAX)
QUERY_MAX = int(lib.MRN_QUERY_MAX)
LIMIT_MAX = int(lib.MRN_LIMIT_MAX)
EDITS_AUTO = int(lib.MRN_EDITS_AUTO)

_COMPLETION = struct.Struct("@dQQIIII")  # mrn_completion
_OPEN_FAULTS = frozenset({"E_FORMAT", "E_VERSION", "E_CHECKSUM", "E_TOO_LARGE"})


class Entry(NamedTuple):
    """One entry of a segment."""

    text: bytes
    """UTF-8, as shown."""
    score: float = 1.0
    payload: bytes = b""
    """JSON, or empty for none."""


class Hit(NamedTuple):
    """One completion as C gives it: bytes are UTF-8."""

    text: bytes
    score: float
    payload: bytes
    highlights: tuple[tuple[int, int], ...]
    """(start, end) in code points of the text."""
    edits: int


class Segment:
    """A segment file that has been checked.

    Args:
        file: its bytes; they are not copied and must not change.
        name: what messages call it.

    Raises:
        FileFormatError: the bytes break the format; the message says where first.
    """

    __slots__ = ("_file", "_index", "_pinned", "_spare", "entries", "nbytes")

    def __init__(self, file: bytes | mmap.mmap, name: str) -> None:
        self._file = file
        self._pinned = ffi.from_buffer(file)
        self._index = ffi.new("mrn_index *")
        self._spare: list[tuple[Any, Any, Any, Any]] = []
        self.nbytes = len(file)
        fault = ffi.new("mrn_fault *")
        scratch_bytes = lib.mrn_index_scratch_bytes(self.nbytes)
        scratch = ffi.new("uint64_t[]", scratch_bytes // 8 + 1)
        status = lib.mrn_index_open(self._pinned, self.nbytes, scratch, scratch_bytes, self._index, fault)
        if _status_name(status) in _OPEN_FAULTS:
            raise FileFormatError(
                f"{name}: not a usable index segment: {ffi.string(fault.what).decode()} (at byte {fault.at}); "
                f"this version reads format {FORMAT_VERSION}; build the index again"
            )
        check(status, f"open {name}")
        self.entries = int(self._index.entries)

    def complete(self, prefix: bytes, limit: int, edits: int) -> tuple[list[Hit], bool]:
        """Return the best entries whose folded text begins with about the folded prefix, best first.

        Args:
            prefix: UTF-8.
            limit: at most so many, 1 to ``LIMIT_MAX``.
            edits: at most so many typing errors, 0 to 2, or ``EDITS_AUTO``.

        Returns:
            The entries, and whether the search was cut short, so that a better one with an edit may be missing.

        Raises:
            InvalidInputError: the prefix is not clean UTF-8 or too long.
        """
        hits, cut_short = self._complete(prefix, limit, edits)
        return [hit for _, hit in hits], cut_short

    def _complete(self, prefix: bytes, limit: int, edits: int) -> tuple[list[tuple[int, Hit]], bool]:
        try:
            spare = self._spare.pop()  # one call at a time owns what it writes
        except IndexError:
            spare = (
                ffi.new("mrn_workspace *"),
                ffi.new("mrn_completion[]", LIMIT_MAX),
                ffi.new("size_t *"),
                ffi.new("int *"),
            )
        workspace, completions, count, partial = spare
        status = lib.mrn_index_complete_typed(
            self._index, prefix, len(prefix), limit, edits, workspace, completions, count, partial
        )
        if status != 0:
            self._spare.append(spare)
            raise _query_error(status)
        file = self._file
        found = ffi.buffer(completions, count[0] * _COMPLETION.size)
        hits = [
            (
                int(text),
                Hit(
                    file[text : text + text_bytes],
                    score,
                    file[payload : payload + payload_bytes],
                    ((0, highlight),) if highlight else (),
                    edits,
                ),
            )
            for score, text, payload, text_bytes, payload_bytes, highlight, edits in _COMPLETION.iter_unpack(
                found
            )
        ]
        cut_short = bool(partial[0])
        self._spare.append(spare)
        return hits, cut_short

    def find(self, text: bytes) -> int | None:
        """Return the place of the entry that is shown as exactly this text, or None.

        A place names the entry in this segment, for the dead of a :class:`Reader`.
        """
        if len(text) > TEXT_MAX:
            return None
        try:
            hits, _ = self._complete(text, LIMIT_MAX, 0)
        except (InvalidInputError, OutOfRangeError):
            return None
        return next((place for place, hit in hits if hit.text == text), None)

    def get(self, text: bytes) -> Entry | None:
        """Return the entry that is shown as exactly this text, or None."""
        if len(text) > TEXT_MAX:
            return None
        try:
            hits, _ = self._complete(text, LIMIT_MAX, 0)
        except (InvalidInputError, OutOfRangeError):
            return None
        return next((Entry(*hit[:3]) for _, hit in hits if hit.text == text), None)

    def __iter__(self) -> Iterator[Entry]:
        """Yield all entries, best first, as they were given to :func:`build`."""
        file = memoryview(self._file)
        at = int(self._index.records)
        width = int(self._index.width)
        for _ in range(self.entries):
            flags = file[at]
            wide = 2 if flags & lib.MRN_RECORD_WIDE else 1
            at += 1 + wide + int.from_bytes(file[at + 1 : at + 1 + wide], "little")
            if flags & lib.MRN_RECORD_BRANCHES:
                branches, at = _varint(file, at)
                at += branches * (wide + 1 + width)
            if flags & lib.MRN_RECORD_FLOAT:
                (score,) = struct.unpack_from("<d", file, at)
                at += 8
            else:
                whole, at = _varint(file, at)
                score = float(whole)
            length, at = _varint(file, at)
            text = bytes(file[at : at + length])
            at += length
            payload = b""
            if flags & lib.MRN_RECORD_PAYLOAD:
                length, at = _varint(file, at)
                payload = bytes(file[at : at + length])
                at += length
            yield Entry(text, score, payload)


def _varint(file: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = file[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7


class Reader:
    """Several segments that are completed as if their living entries were in one; immutable.

    Any number of threads may use it at a time. An update makes a new one, which shares the segments.

    Args:
        segments: any number.
        dead: for each segment, the places (see :meth:`Segment.find`) of the entries that no longer count. No two
            living entries may have the same text.
    """

    __slots__ = ("_dead", "_segments", "entries", "nbytes")

    def __init__(self, segments: Sequence[Segment], dead: Sequence[Collection[int]] = ()) -> None:
        self._segments = tuple(segments)
        self._dead = tuple(frozenset(places) for places in dead) or (frozenset(),) * len(self._segments)
        self.entries = sum(segment.entries for segment in segments) - sum(map(len, self._dead))
        self.nbytes = sum(segment.nbytes for segment in segments)

    def complete(self, prefix: bytes, limit: int, edits: int) -> tuple[list[Hit], bool]:
        """Return the best living entries; see :meth:`Segment.complete`."""
        found: list[list[Hit]] = []
        cut_short = False
        for segment, dead in zip(self._segments, self._dead, strict=True):
            hits, cut = segment._complete(prefix, min(limit + len(dead), LIMIT_MAX), edits)  # noqa: SLF001
            cut_short |= cut
            found.append([hit for place, hit in hits if place not in dead])
        if len(found) == 1:
            return found[0][:limit], cut_short
        merged = heapq.merge(
            *found, key=lambda hit: (hit.edits, -hit.score, len(hit.text.decode()), hit.text)
        )
        return list(merged)[:limit], cut_short

    def complete_json(self, prefix: bytes, limit: int, edits: int) -> bytes:
        """Return the same as the JSON body that HTTP answers with, UTF-8."""
        hits, _ = self.complete(prefix, limit, edits)
        completions = [
            {
                "text": hit.text.decode(),
                "score": hit.score,
                "edits": hit.edits,
                "highlights": hit.highlights,
                "payload": from_json(hit.payload) if hit.payload else None,
            }
            for hit in hits
        ]
        return to_json({"query": prefix.decode(), "completions": completions})


def build(entries: Iterable[Entry]) -> bytes:
    """Build a segment file in memory.

    Raises:
        InvalidInputError: an entry is refused; ``pointer`` says which.
    """
    listed = list(entries)
    file, verdicts = build_segment(
        [entry.text for entry in listed],
        [entry.score for entry in listed],
        [entry.payload for entry in listed],
    )
    for row in (verdicts < 0).nonzero()[0][:1].tolist():
        raise InvalidInputError(f"entry {row}: {verdict_message(int(verdicts[row]))}", pointer=f"/{row}")
    return bytes(file)


def build_segment(
    texts: Sequence[bytes], scores: Sequence[float], payloads: Sequence[bytes]
) -> tuple[Any, NDArray[np.int8]]:
    """Build a segment file in memory.

    Args:
        texts: UTF-8 as shown.
        scores: as many.
        payloads: as many JSON texts; empty ones mean none.

    Returns:
        The file as a buffer, and a verdict for each entry: 0 kept, ``MERGED`` dropped in favour of an entry
        with the same text and a higher score, negative (see :func:`verdict_message`) refused.
    """
    text_blob, payload_blob = b"".join(texts), b"".join(payloads)
    text_ends, payload_ends = _ends(texts), _ends(payloads)
    score_array = np.asarray(scores, dtype=np.float64)
    verdicts = np.zeros(len(texts), dtype=np.int8)
    entries = ffi.new("mrn_entries *")
    keep_alive = [ffi.from_buffer(blob) for blob in (text_blob, payload_blob)]
    entries.count = len(texts)
    entries.texts, entries.payloads = keep_alive
    entries.text_ends = ffi.from_buffer("uint64_t[]", text_ends)
    entries.payload_ends = ffi.from_buffer("uint64_t[]", payload_ends)
    entries.scores = ffi.from_buffer("double[]", score_array)
    file, file_bytes = ffi.new("char **"), ffi.new("size_t *")
    out = ffi.from_buffer("signed char[]", verdicts, require_writable=True)
    check(lib.mrn_index_build(entries, out, file, file_bytes), "build the index")
    return ffi.buffer(ffi.gc(file[0], lib.mrn_free), file_bytes[0]), verdicts


def verdict_message(verdict: int) -> str:
    """Say why an entry was refused."""
    reasons = {
        "E_TEXT": (
            "text or payload is not UTF-8, holds a control character or a mark of writing direction, "
            "or has nothing that could be typed"
        ),
        "E_RANGE": "score is negative or not finite",
        "E_TOO_LARGE": (
            f"longer than {TEXT_MAX} bytes of text, {KEY_MAX} of folded text or {PAYLOAD_MAX} of payload"
        ),
    }
    return reasons[_status_name(verdict)]


def fold(text: str) -> str:
    """Return what a text is compared by: without case, accents and compatibility forms.

    Raises:
        InvalidInputError: the text is not clean.
    """
    raw = text.encode("utf-8", "surrogatepass")
    capacity = 11 * len(raw)  # U+FDFA, the worst, goes from 3 bytes to 33
    key, key_bytes = ffi.new("char[]", capacity + 1), ffi.new("size_t *")
    status = lib.mrn_fold(raw, len(raw), key, capacity, key_bytes)
    if status != 0:
        raise _query_error(status)
    return bytes(ffi.buffer(key, key_bytes[0])).decode()


def _ends(parts: Sequence[bytes]) -> NDArray[np.uint64]:
    return np.cumsum(np.fromiter(map(len, parts), np.uint64, len(parts)), dtype=np.uint64)


def _status_name(status: int) -> str:
    return str(ffi.string(lib.mrn_status_name(status)).decode())


def _query_error(status: int) -> Exception:
    name = _status_name(status)
    if name == "E_TEXT":
        return InvalidInputError(
            "the text is not UTF-8, or holds a control character or a mark of writing direction: leave it out"
        )
    if name == "E_TOO_LARGE":
        return OutOfRangeError(
            f"the query has more than {QUERY_MAX} bytes before or after folding: shorten it"
        )
    return OutOfRangeError(f"limit is not in 1 to {LIMIT_MAX}")
