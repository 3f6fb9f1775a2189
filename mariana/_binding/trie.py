"""Index segments: building one in memory, checking one; readers that complete several as one."""

from __future__ import annotations

import mmap
import struct
from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mariana._binding import address, calls, check, ffi, lib
from mariana.errors import FileFormatError, InvalidInputError, OutOfRangeError

FORMAT_VERSION = int(lib.MRN_INDEX_VERSION)
FOLD_VERSION = int(lib.MRN_FOLD_VERSION)
TEXT_MAX = int(lib.MRN_TEXT_MAX)
KEY_MAX = int(lib.MRN_KEY_MAX)
PAYLOAD_MAX = int(lib.MRN_PAYLOAD_MAX)
QUERY_MAX = int(lib.MRN_QUERY_MAX)
LIMIT_MAX = int(lib.MRN_LIMIT_MAX)
EDITS_AUTO = int(lib.MRN_EDITS_AUTO)
TAGS_MAX = int(lib.MRN_TAGS_MAX)
TAG_MAX = int(lib.MRN_TAG_MAX)
ID_MAX = int(lib.MRN_ID_MAX)
SEGMENTS_MAX = int(lib.MRN_SEGMENTS_MAX)

_COMPLETION = struct.Struct("@dQQIII4xIIII16H")  # mrn_completion, but for its entry
_COMPLETION_BYTES = int(ffi.sizeof("mrn_completion"))
_OPEN_FAULTS = frozenset({"E_FORMAT", "E_VERSION", "E_CHECKSUM", "E_TOO_LARGE"})
_MEMORY = -4
EDITS: dict[str | int, int] = {"auto": EDITS_AUTO, 0: 0, 1: 1, 2: 2}
"""What is said of typing errors -> how many to forgive, as C takes it."""


class Entry(NamedTuple):
    """One entry of a segment."""

    text: bytes
    """UTF-8, as shown."""
    score: float = 1.0
    payload: bytes = b""
    """JSON, or empty for none."""
    contexts: Collection[str] = ()
    """Names; a segment holds at most ``TAGS_MAX`` different ones."""
    id: bytes = b""
    """Of the document that this is a name of, UTF-8; empty for none."""


class Hit(NamedTuple):
    """One completion as C gives it: bytes are UTF-8."""

    text: bytes
    score: float
    payload: bytes
    highlights: tuple[tuple[int, int], ...]
    """(start, end) in code points of the text."""
    edits: int
    id: bytes = b""


class Segment:
    """A segment file that has been checked; any number of threads may use it at a time.

    Args:
        file: its bytes; they are not copied and must not change.
        name: what messages call it.

    Raises:
        FileFormatError: the bytes break the format; the message says where first.
    """

    __slots__ = (
        "_documents",
        "_file",
        "_index",
        "_pinned",
        "_reader",
        "any_word",
        "camel_case",
        "entries",
        "nbytes",
        "tags",
    )

    def __init__(self, file: bytes | mmap.mmap, name: str) -> None:
        self._file = file
        self._pinned = ffi.from_buffer(file)
        self._index = ffi.new("mrn_index *")
        self.nbytes = len(file)
        fault = ffi.new("mrn_fault *")
        scratch_bytes = lib.mrn_index_scratch_bytes(self.nbytes)
        scratch = np.empty(scratch_bytes // 8 + 1, np.uint64)
        status = lib.mrn_index_open(
            self._pinned, self.nbytes, ffi.from_buffer(scratch), scratch_bytes, self._index, fault
        )
        if status_name(status) in _OPEN_FAULTS:
            raise FileFormatError(
                f"{name}: not a usable index segment: {ffi.string(fault.what).decode()} (at byte {fault.at}); "
                f"this version reads format {FORMAT_VERSION}; build the index again"
            )
        check(status, f"open {name}")
        self.entries = int(self._index.entries)
        self.any_word = bool(self._index.flags & lib.MRN_INDEX_WORDS)
        self.camel_case = bool(self._index.flags & lib.MRN_INDEX_CAMEL)
        self.tags = tuple(self._tags())
        self._reader: Reader | None = None
        self._documents: tuple[NDArray[np.uint64], NDArray[np.uint32]] | None = None  # by hash of their ids

    def complete(self, prefix: bytes, limit: int, edits: int) -> tuple[list[Hit], bool]:
        """Complete in this segment alone; see :meth:`Reader.complete`."""
        if self._reader is None:
            self._reader = Reader((self,))
        return self._reader.complete(prefix, limit, edits)

    def find(self, text: bytes) -> int | None:
        """Return the place of the entry that is shown as exactly this text, or None.

        A place is the entry's rank in this segment, from 0; it names the entry for the dead of a :class:`Reader`.
        """
        spare = _take()
        status = lib.mrn_index_find(self._index, text, len(text), spare.workspace, spare.entry)
        place = int(spare.entry[0])
        _spares.append(spare)
        return place if status == 0 else None

    def get(self, text: bytes) -> Entry | None:
        """Return the entry that is shown as exactly this text, or None."""
        place = self.find(text)
        return None if place is None else next(self._read(ffi.NULL, place, place + 1))._replace(text=text)

    def __iter__(self) -> Iterator[Entry]:
        """Yield all entries, best first, as they were given to :func:`build`."""
        yield from self._read(ffi.from_buffer("uint64_t[]", self.parents()), 0, self.entries)

    @property
    def handle(self) -> Any:
        """The segment as C knows it, as long as this one lives."""
        return self._index

    def parents(self) -> NDArray[np.uint64]:
        """Return where the key of each entry leaves another one; C spells texts by that."""
        parents = np.empty(self.entries, np.uint64)
        check(lib.mrn_index_parents(self._index, ffi.from_buffer("uint64_t[]", parents)), "read the entries")
        return parents

    def names_of(self, ids: Collection[bytes]) -> list[int]:
        """Return the places of the entries that are names of some documents, ascending."""
        if self._documents is None:
            hashes = np.empty(self.entries, np.uint64)
            check(lib.mrn_index_id_hashes(self._index, ffi.from_buffer("uint64_t[]", hashes)), "read the ids")
            order = np.argsort(hashes, kind="stable").astype(np.uint32)
            self._documents = hashes[order], order
        hashes, order = self._documents
        places = []
        for id_ in ids:
            wanted = np.uint64(lib.mrn_id_hash(id_, len(id_)))
            start, end = np.searchsorted(hashes, wanted), np.searchsorted(hashes, wanted, "right")
            places += [place for place in order[start:end].tolist() if self._id(place) == id_]
        return sorted(places)

    def texts(self, places: Collection[int]) -> list[bytes]:
        """Return the texts of some entries."""
        parents = ffi.from_buffer("uint64_t[]", self.parents()) if places else ffi.NULL
        return [next(self._read(parents, place, place + 1)).text for place in places]

    def _id(self, place: int) -> bytes:
        at, length = ffi.new("uint64_t *"), ffi.new("size_t *")
        check(lib.mrn_index_id(self._index, place, at, length), "read an id")
        return bytes(self._file[at[0] : at[0] + length[0]])

    def _read(self, parents: Any, start: int, end: int) -> Iterator[Entry]:
        text, score = ffi.new("char[]", TEXT_MAX), ffi.new("double *")
        text_bytes, payload_bytes = ffi.new("size_t *"), ffi.new("size_t *")
        payload, contexts = ffi.new("uint64_t *"), ffi.new("uint64_t *")
        for place in range(start, end):
            status = lib.mrn_index_entry(
                self._index, parents, place, text, text_bytes, score, payload, payload_bytes, contexts
            )
            check(status, "read an entry")
            mask = contexts[0]
            yield Entry(
                ffi.unpack(text, text_bytes[0]),
                score[0],
                self._file[payload[0] : payload[0] + payload_bytes[0]],
                tuple(tag for bit, tag in enumerate(self.tags) if mask >> bit & 1),
                self._id(place),
            )

    def _tags(self) -> Iterator[str]:
        place, length = ffi.new("uint64_t *"), ffi.new("size_t *")
        for tag in range(TAGS_MAX):
            if lib.mrn_index_tag(self._index, tag, place, length) != 0:
                return
            yield self._file[place[0] : place[0] + length[0]].decode()


class Reader:
    """Several segments that are completed as if their living entries were in one; immutable.

    Any number of threads may use it at a time. An update makes a new one, which shares the segments.

    Args:
        segments: at most ``SEGMENTS_MAX``.
        dead: for each segment, the places (see :meth:`Segment.find`) of the entries that no longer count. No two
            living entries may have the same text.
        settled: a reader of the first of these segments that stands on no other one; where it is given, making this
            one costs as much as what came since: segments, and dead in those it has.

    Attributes:
        quick: ``json`` and ``complete`` of an ordinary call in a fraction of its time; None for everything else.

    Raises:
        InvalidInputError: too many segments, or a place that a segment does not have.
    """

    __slots__ = ("_block", "_reader", "_segments", "_settled", "entries", "nbytes", "quick", "tags")

    def __init__(
        self,
        segments: Sequence[Segment],
        dead: Sequence[Collection[int] | NDArray[np.uint32]] = (),
        settled: Reader | None = None,
    ) -> None:
        if len(segments) > SEGMENTS_MAX:
            raise InvalidInputError(f"{len(segments)} segments are more than {SEGMENTS_MAX}")
        self._segments = tuple(segments)
        places = [_ranks(some) for some in dead] or [_NONE_DEAD] * len(segments)
        if len(places) != len(segments):
            raise InvalidInputError("say for each segment which of its entries are dead")
        self.entries = sum(segment.entries for segment in segments) - sum(map(len, places))
        self.nbytes = sum(segment.nbytes for segment in segments)
        self.tags = tuple(sorted({tag for segment in segments for tag in segment.tags}))
        described = ffi.new("mrn_segments *")
        described.count = len(segments)
        keep_alive = [
            ffi.new("mrn_index *[]", [segment._index for segment in segments] or 1),  # noqa: SLF001
            pointers := [ffi.from_buffer("uint32_t[]", array) for array in places],
            ffi.new("uint32_t *[]", pointers or 1),
            ffi.new("size_t[]", [len(array) for array in places] or 1),
        ]
        described.indexes = ffi.cast("mrn_index * *", keep_alive[0])
        described.dead = ffi.cast("uint32_t * *", keep_alive[2])
        described.dead_counts = keep_alive[3]
        self._settled = settled  # its tables are used
        if settled is not None:
            described.settled = settled._reader  # noqa: SLF001 - another one of these
        size = ffi.new("size_t *")
        check(lib.mrn_reader_plan(described, size), "plan a reader")
        self._block = np.empty(size[0] // 8 + 1, np.uint64)
        reader = ffi.new("mrn_reader **")
        status = lib.mrn_reader_open(described, ffi.from_buffer(self._block), size[0], reader)
        if status != 0:
            raise InvalidInputError("a dead entry is not in its segment")
        self._reader: Any = reader[0]
        self.quick = self._quick()

    def _quick(self) -> calls.Reader | _Declines:
        if calls is None:
            return _Declines()
        return calls.Reader(
            json=address(ffi.addressof(lib, "mrn_reader_complete_json")),
            complete=address(ffi.addressof(lib, "mrn_reader_complete")),
            reader=address(self._reader),
            alive=(self._block, self._segments, self._settled),
            files=tuple(segment._file for segment in self._segments),  # noqa: SLF001
            edits=EDITS,
        )

    def complete(
        self,
        prefix: bytes,
        limit: int,
        edits: int,
        contexts: Collection[str] = (),
        prefer: Collection[str] = (),
    ) -> tuple[list[Hit], bool]:
        """Return the best living entries that match the query, best first; docs/matching.md has the rules.

        Args:
            prefix: UTF-8.
            limit: at most so many, 1 to ``LIMIT_MAX``.
            edits: at most so many typing errors, 0 to 2, or ``EDITS_AUTO``.
            contexts: only entries with one of these; none means all entries.
            prefer: entries with none of these come later.

        Returns:
            The entries, and whether the search was cut short, so that a better one may be missing.

        Raises:
            InvalidInputError: the prefix is not clean UTF-8 or too long.
        """
        spare = _take()
        options, _names = _options(limit, edits, contexts, prefer)
        status = lib.mrn_reader_complete(
            self._reader,
            prefix,
            len(prefix),
            options,
            spare.workspace,
            spare.completions,
            spare.count,
            spare.out,
            spare.capacity,
            spare.partial,
        )
        if status != 0:
            _spares.append(spare)
            raise _query_error(status)
        count, texts = spare.count[0], ffi.buffer(spare.out)
        hits = []
        rows = ffi.buffer(spare.completions, count * _COMPLETION_BYTES)
        for (
            score,
            at,
            id_at,
            bytes_,
            id_bytes,
            segment,
            text,
            text_bytes,
            cost,
            ranges,
            *ends,
        ) in _COMPLETION.iter_unpack(rows):
            file = self._segments[segment]._file  # noqa: SLF001
            hits.append(
                Hit(
                    texts[text : text + text_bytes],
                    score,
                    file[at : at + bytes_] if bytes_ else b"",
                    tuple(zip(ends[: 2 * ranges : 2], ends[1 : 2 * ranges : 2], strict=True)),
                    cost,
                    file[id_at : id_at + id_bytes] if id_bytes else b"",
                )
            )
        partial = spare.partial[0] != 0
        _spares.append(spare)
        return hits, partial

    def complete_json(
        self,
        prefix: bytes,
        limit: int,
        edits: int,
        contexts: Collection[str] = (),
        prefer: Collection[str] = (),
    ) -> bytes:
        """Return the same as :meth:`complete` as the JSON body that HTTP answers with, UTF-8: one call into C."""
        spare = _take()
        options, _names = _options(limit, edits, contexts, prefer)
        status = _MEMORY
        while status == _MEMORY:
            status = lib.mrn_reader_complete_json(
                self._reader,
                prefix,
                len(prefix),
                options,
                spare.workspace,
                spare.out,
                spare.capacity,
                spare.count,
            )
            if status == _MEMORY:
                spare.grow()
        body = b"" if status != 0 else bytes(ffi.buffer(spare.out, spare.count[0]))
        _spares.append(spare)
        if status != 0:
            raise _query_error(status)
        return body


_NONE_DEAD = np.empty(0, np.uint32)


class _Declines:
    """In place of the extension: takes no call."""

    @staticmethod
    def json(*_: object) -> None:
        pass

    complete = json


class _Spare:
    """What one call at a time writes."""

    def __init__(self) -> None:
        self.workspace = ffi.new("mrn_workspace *")
        self.completions = ffi.new("mrn_completion[]", LIMIT_MAX)
        self.count = ffi.new("size_t *")
        self.partial = ffi.new("int *")
        self.entry = ffi.new("uint32_t *")
        self.capacity = LIMIT_MAX * TEXT_MAX
        self.out = ffi.new("char[]", self.capacity)

    def grow(self) -> None:
        self.capacity *= 4
        self.out = ffi.new("char[]", self.capacity)


_spares: list[_Spare] = []
"""Of all readers, so that a new one after an update needs none of its own."""


def _take() -> _Spare:
    try:
        return _spares.pop()
    except IndexError:
        return _Spare()


def _options(limit: int, edits: int, contexts: Collection[str], prefer: Collection[str]) -> tuple[Any, Any]:
    """Return what is asked for as C reads it, and what has to live as long."""
    names = [ffi.from_buffer(_names(some)) for some in (contexts, prefer)]
    options = ffi.new("mrn_options *", {"limit": limit, "edits": edits})
    options.contexts, options.prefer = names
    options.contexts_bytes, options.prefer_bytes = map(len, names)
    return options, names


def _names(names: Collection[str]) -> bytes:
    # A line feed, which no context has, ends a name; a NUL, which none has either, stands in for one that was asked for.
    return b"".join(name.encode("utf-8", "surrogatepass").replace(b"\n", b"\0") + b"\n" for name in names)


def _ranks(places: Collection[int] | NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Return places ascending, each once."""
    if not isinstance(places, np.ndarray):
        places = np.fromiter(places, np.uint32, len(places))
    return places if (places[1:] > places[:-1]).all() else np.unique(places)


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


def status_name(status: int) -> str:
    """Return what a status of C is called."""
    return str(ffi.string(lib.mrn_status_name(status)).decode())


def _query_error(status: int) -> Exception:
    name = status_name(status)
    if name == "E_TEXT":
        return InvalidInputError(
            "the text is not UTF-8, or holds a control character or a mark of writing direction: leave it out"
        )
    if name == "E_TOO_LARGE":
        return OutOfRangeError(
            f"the query has more than {QUERY_MAX} bytes before or after folding: shorten it"
        )
    return OutOfRangeError(f"limit is not in 1 to {LIMIT_MAX}")
