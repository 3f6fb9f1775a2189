"""Autocomplete: build an index from texts with scores, and complete prefixes from it.

An index is a folder that holds one segment, ``segment-00000001.mrx``; a rebuild publishes the next number whole
and removes the older ones. Readers that have an older one open go on with it. Segments are mapped, not read, so
nothing but :func:`build_index` may write in that folder: a file that is cut short while it is mapped ends the
process that reads it.
"""

from __future__ import annotations

import fcntl
import json
import mmap
import numbers
import os
import re
import stat
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from pydantic_core import from_json
from tqdm import tqdm

from mariana._binding import trie
from mariana.errors import FileFormatError, InvalidInputError, NotFoundError, OutOfRangeError
from mariana.store import make_folder, store_errors, write_whole

Fuzzy = Literal["auto", 0, 1, 2]
Entry = tuple[str, float] | Mapping[str, Any]

LIMIT_MAX = trie.LIMIT_MAX
"""The most completions that one call gives."""

QUERY_MAX = trie.QUERY_MAX
"""The longest query, in bytes of UTF-8, before and after folding."""

DEFAULT_SCORE = 1.0
"""The score of an entry that has none."""

_SEGMENT = re.compile(r"segment-([0-9]{8})\.mrx")
_FILE_MAX = (1 << 32) + 4096
_to_json = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
_FIELDS = ("text", "score", "payload", "contexts")


@dataclass(frozen=True, slots=True)
class Completion:
    """One answer.

    Attributes:
        text: the entry as it was given.
        score: as it was given.
        edits: typing errors between the prefix and the text; 0 is an exact match of the folded forms.
        highlights: what the prefix covers, as (start, end) in code points of ``text``.
        payload: the JSON value that was given with the entry, or None.
    """

    text: str
    score: float
    edits: int
    highlights: tuple[tuple[int, int], ...]
    payload: Any


@dataclass(frozen=True, slots=True)
class IndexInfo:
    """What an index is.

    Attributes:
        path: the segment file.
        entries: texts in it.
        bytes: its size.
        format_version: of the file's layout.
        fold_version: of the table that the texts were folded with.
    """

    path: Path
    entries: int
    bytes: int
    format_version: int
    fold_version: int


@dataclass(frozen=True, slots=True)
class BuildReport(os.PathLike[str]):
    """What :func:`build_index` did; stands for the index's folder wherever a path is wanted.

    Attributes:
        path: the index's folder.
        entries: texts in the index.
        merged: entries whose text was there again with a higher score (or the same one, earlier).
        skipped: entries that were refused and left out.
        bytes: size of the segment.
    """

    path: Path
    entries: int
    merged: int
    skipped: int
    bytes: int

    def __fspath__(self) -> str:
        return str(self.path)


class Index:
    """An open index; any number of threads may use it at a time.

    Made by :func:`open_index`. A context manager: leaving it closes the index.
    """

    def __init__(self, segment: trie.Segment, path: Path) -> None:
        self._segment: trie.Segment | None = segment
        self.info = IndexInfo(path, segment.entries, segment.nbytes, trie.FORMAT_VERSION, trie.FOLD_VERSION)

    def __len__(self) -> int:
        return self.info.entries

    def __repr__(self) -> str:
        return f"<Index of {len(self)} entries: {self.info.path}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file; calls that are running finish first. Closing twice does nothing."""
        self._segment = None  # the last user's reference unmaps it

    @property
    def nbytes(self) -> int:
        """Bytes of the segment file, all of them mapped."""
        return self.info.bytes

    def complete(self, prefix: str, limit: int = 10, fuzzy: Fuzzy = "auto") -> list[Completion]:
        """Return the best entries that begin with a prefix, best first.

        Case, accents and compatibility forms do not count, in the prefix and in the entries. Best means: by
        score, descending; then by the code points of the text, ascending; then by its UTF-8 bytes. A typing error
        costs a factor of 64 in rank: an entry with one error comes where one of 64 times its rank would.

        Args:
            prefix: what was typed; empty gives the best of all. At most 256 bytes before and after folding.
            limit: at most so many, 1 to 100.
            fuzzy: typing errors to forgive: a character left out, added, exchanged, or swapped with its neighbour,
                the first one like any other. "auto" means 0 below 4 characters of the folded prefix, 1 from 4 and
                2 from 8. Prefixes of more than 64 characters are taken as typed right.

        Raises:
            OutOfRangeError: the limit is not in 1 to 100, or the prefix is too long.
            InvalidInputError: anything else is wrong with an argument, or the index is closed.

        Example:
            >>> index = open_index("store/indexes/cities")  # doctest: +SKIP
            >>> [c.text for c in index.complete("dus", limit=2)]  # doctest: +SKIP
            ['Dushanbe', 'Düsseldorf']
        """
        segment = self._segment
        if segment is None:
            raise InvalidInputError("the index is closed")
        if not isinstance(prefix, str):
            raise InvalidInputError(f"the prefix must be a string, got {type(prefix).__name__}")
        _check_limit(limit)
        _check_fuzzy(fuzzy)
        # No string is longer in code points than in bytes, so that a huge one is not even encoded.
        raw = prefix[: QUERY_MAX + 1].encode("utf-8", "surrogatepass")
        hits, _ = segment.complete(raw, limit, trie.EDITS_AUTO if fuzzy == "auto" else fuzzy)
        return [
            Completion(
                text.decode(),
                score,
                edits,
                highlights,
                self._payload(payload) if payload else None,
            )
            for text, score, payload, highlights, edits in hits
        ]

    def _payload(self, raw: bytes) -> Any:
        try:
            return _parse_payload(raw)
        except ValueError as error:
            raise FileFormatError(
                f"{self.info.path}: a payload is not JSON; build the index again"
            ) from error


def open_index(path: str | os.PathLike[str]) -> Index:
    """Open an index and check all of it.

    Args:
        path: the index's folder (its newest segment is opened), or one ``*.mrx`` file.

    Raises:
        NotFoundError: there is no index.
        FileFormatError: the file is damaged, newer than this version, or no segment.
        StoreError: the file cannot be read.
    """
    path = Path(path)
    with store_errors(f"read the index {path}"):
        for _ in range(16):  # a publisher may remove the segment between the listing and the opening
            segment = path
            if path.is_dir():
                numbers_there = _segment_numbers(path)
                if not numbers_there:
                    raise NotFoundError(
                        f"no index in {path}: it holds no segment-*.mrx; build one with build_index"
                    )
                segment = _segment_path(path, numbers_there[-1])
            try:
                return Index(trie.Segment(_map(segment), str(segment)), segment)
            except FileNotFoundError:
                if segment is path:
                    break
    raise NotFoundError(f"no index at {path}")


def build_index(
    path: str | os.PathLike[str],
    entries: Iterable[Entry],
    *,
    progress: bool = False,
    on_invalid: Callable[[int, str], None] | None = None,
    allow_empty: bool = True,
) -> BuildReport:
    """Build an index and publish it whole: readers see the old one or the new one, never a part.

    The same entries give the same bytes. A text that comes twice is kept once, with its highest score.

    Args:
        path: the index's folder; made when it is not there.
        entries: ``(text, score)``, or mappings with ``text`` and, if wanted, ``score`` (default 1) and
            ``payload`` (a JSON value). A score is a finite number >= 0; integers up to 2**53 come back exactly.
            A text has at most 1,024 bytes of UTF-8, before and after folding; a payload 65,536 as JSON, nested 200
            deep at most.
        progress: show a progress bar when stderr is a terminal.
        on_invalid: called with the position and the reason for each entry that is refused, which is then left
            out; None raises for the first one.
        allow_empty: False refuses to publish an index without any entry.

    Raises:
        InvalidInputError: an entry is refused (``pointer`` says which), or none is there and one must be.
        StoreError: the disk is full or read-only.
    """
    path = Path(path)
    texts: list[bytes] = []
    scores: list[float] = []
    payloads: list[bytes] = []
    positions: list[int] = []
    refused = 0

    def refuse(position: int, reason: str, field: str = "") -> None:
        nonlocal refused
        refused += 1
        if on_invalid is None:
            raise InvalidInputError(f"entry {position}: {reason}", pointer=f"/{position}{field}")
        on_invalid(position, reason)

    shown = tqdm(entries, unit=" entries", unit_scale=True, disable=None if progress else True)
    for position, entry in enumerate(shown):
        try:
            text, score, payload = _read_entry(entry)
        except InvalidInputError as error:
            refuse(position, str(error), error.pointer)
            continue
        texts.append(text)
        scores.append(score)
        payloads.append(payload)
        positions.append(position)
    file, verdicts = trie.build_segment(texts, scores, payloads)
    for row in (verdicts < 0).nonzero()[0].tolist():
        refuse(positions[row], trie.verdict_message(int(verdicts[row])))
    kept, merged = (int((verdicts == verdict).sum()) for verdict in (0, trie.MERGED))
    if kept == 0 and not allow_empty:
        raise InvalidInputError("there is no usable entry")
    _publish(path, file)
    return BuildReport(path, kept, merged, refused, len(file))


def _check_limit(limit: object) -> None:
    if not isinstance(limit, int) or isinstance(limit, bool):
        raise InvalidInputError(f"limit must be an integer, got {type(limit).__name__}")
    if not 1 <= limit <= LIMIT_MAX:
        raise OutOfRangeError(f"limit must be 1 to {LIMIT_MAX}")


def _check_fuzzy(fuzzy: object) -> None:
    if fuzzy == "auto" or (type(fuzzy) is int and fuzzy in (0, 1, 2)):
        return
    raise InvalidInputError("fuzzy must be 'auto', 0, 1 or 2")


def _read_entry(entry: object) -> tuple[bytes, float, bytes]:
    payload: object = None
    if isinstance(entry, tuple | list) and len(entry) == 2:
        text, score = entry
    elif isinstance(entry, Mapping):
        unknown = next((name for name in entry if name not in _FIELDS), None)
        if unknown is not None:
            raise InvalidInputError(f"unknown field {str(unknown)[:64]!r}; there are: {', '.join(_FIELDS)}")
        if entry.get("contexts"):
            raise InvalidInputError("contexts are not in this version: leave them out", pointer="/contexts")
        text, score, payload = entry.get("text"), entry.get("score", DEFAULT_SCORE), entry.get("payload")
    else:
        raise InvalidInputError("an entry is (text, score), or a mapping with text, score and payload")
    if not isinstance(text, str):
        raise InvalidInputError(f"text must be a string, got {type(text).__name__}", pointer="/text")
    return text.encode("utf-8", "surrogatepass"), _read_score(score), _read_payload(payload)


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
        _parse_payload(raw)  # it nests less deeply than Python does
    except (TypeError, ValueError, RecursionError):
        raise InvalidInputError(
            "payload is not a JSON value, or is nested more than 200 deep", pointer="/payload"
        ) from None
    return raw


def _parse_payload(raw: bytes) -> Any:
    return from_json(raw, allow_inf_nan=False)


def _segment_numbers(folder: Path) -> list[int]:
    return sorted(
        int(match[1]) for match in (_SEGMENT.fullmatch(entry.name) for entry in folder.iterdir()) if match
    )


def _segment_path(folder: Path, number: int) -> Path:
    return folder / f"segment-{number:08}.mrx"


def _map(path: Path) -> mmap.mmap:
    # O_NONBLOCK: opening a FIFO must not wait for a writer.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise FileFormatError(f"{path}: not a regular file; an index segment is named segment-*.mrx")
        if status.st_size == 0:
            raise FileFormatError(f"{path}: the file is empty; build the index again")
        if status.st_size > _FILE_MAX:
            raise FileFormatError(f"{path}: {status.st_size} bytes are more than a segment can have")
        return mmap.mmap(descriptor, status.st_size, access=mmap.ACCESS_READ)
    finally:
        os.close(descriptor)


def _publish(folder: Path, file: Any) -> None:
    with store_errors(f"publish the index {folder}"):
        make_folder(folder)
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)  # two publishers at once get two numbers; the later one stays
            older = _segment_numbers(folder)
            write_whole(_segment_path(folder, older[-1] + 1 if older else 1), file)
            for number in older:
                _segment_path(folder, number).unlink(missing_ok=True)
        finally:
            os.close(lock)
