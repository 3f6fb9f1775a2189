"""Building an index: entries in, one segment file published whole."""

from __future__ import annotations

import itertools
import operator
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from mariana._binding import build
from mariana.entries import Entry, read_entry
from mariana.errors import InvalidInputError
from mariana.live import folder

_READ_AT_ONCE = 1024
"""Entries that are looked at together, which is quicker where they are alike."""


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


def build_index(
    path: str | os.PathLike[str],
    entries: Iterable[Entry | InvalidInputError],
    *,
    progress: bool = False,
    on_invalid: Callable[[int, str], None] | None = None,
    allow_empty: bool = True,
    any_word: bool = True,
    camel_case: bool = False,
) -> BuildReport:
    """Build an index and publish it whole: readers see the old one or the new one, never a part.

    The same entries give the same bytes. A text that comes twice is kept once, with its highest score. The entries
    stand for all that the index is: changes that were made to an older one before this call are gone. Those made while
    it runs stay on top of it, and so does what was learnt from selections.

    Args:
        path: the index's folder; made when it is not there.
        entries: ``(text, score)``, or mappings with ``text`` and, if wanted, ``score`` (default 1), ``payload`` (a
            JSON value), ``contexts`` (names; 64 different ones in an index) and ``id`` (of the document that the
            entry is a name of: an answer shows a document once, by its best name). A score is a finite number >= 0;
            integers up to 2**53 come back exactly. A text has at most 1,024 bytes of UTF-8, before and after folding;
            a payload 65,536 as JSON, nested 200 deep at most; a context 64, an id 256. An InvalidInputError in place
            of an entry is refused with its words.
        progress: show a progress bar when stderr is a terminal.
        on_invalid: called with the position and the reason for each entry that is refused, which is then left
            out; None raises for the first one, and reads no more than it has to.
        allow_empty: False refuses to publish an index without any entry.
        any_word: entries are found by each of their words, and by several in any order; False makes the file about
            half as large, and only beginnings are found.
        camel_case: words also begin at capitals, as in camelCase and HTMLParser.

    Raises:
        InvalidInputError: an entry is refused (``pointer`` says which), or none is there and one must be.
        StoreError: the disk is full or read-only.
    """
    path = Path(path)
    upto = folder.sequence_of(path)
    builder = build.SegmentBuilder()
    rows: list[Sequence[int]] = []  # the positions of what became entries
    contexts: set[str] = set()
    refused = _Refused(on_invalid)

    def read_each(positions: range, some: list[Entry | InvalidInputError]) -> list[int]:
        read = []
        for position, entry in zip(positions, some, strict=True):
            try:
                read.append((position, read_entry(entry, contexts)))
            except InvalidInputError as error:
                refused.add(position, str(error), error.pointer)
        if read:
            builder.add(*zip(*(entry for _, entry in read), strict=True))
        return [position for position, _ in read]

    for positions, some in _batches(entries, progress=progress):
        rows.append(positions if _add_pairs(builder, some) else read_each(positions, some))
        if refused.stops:
            break
    file, verdicts = builder.build(any_word=any_word, camel_case=camel_case)
    wrong = (verdicts < 0).nonzero()[0].tolist()
    position_of = list(itertools.chain.from_iterable(rows)) if wrong else []
    for row in wrong:
        refused.add(position_of[row], build.verdict_message(int(verdicts[row])))
    if refused.stops:
        raise refused.first()
    kept, merged = (int((verdicts == verdict).sum()) for verdict in (0, build.MERGED))
    if kept == 0 and not allow_empty:
        raise InvalidInputError("there is no usable entry")
    folder.publish(path, file, upto)
    return BuildReport(path, kept, merged, refused.count, len(file))


class _Refused:
    """The entries that are refused. Some are when they are read, and some only when all are there."""

    def __init__(self, tell: Callable[[int, str], None] | None) -> None:
        self.count = 0
        self._tell = tell
        self._first = (sys.maxsize, "", "")

    def add(self, position: int, reason: str, field: str = "") -> None:
        """Refuse one; ``field`` is a pointer within it."""
        self.count += 1
        self._first = min(self._first, (position, reason, field))
        if self._tell is not None:
            self._tell(position, reason)

    @property
    def stops(self) -> bool:
        """Whether that is the end: what was not read yet cannot hold the first of them."""
        return self._tell is None and self.count > 0

    def first(self) -> InvalidInputError:
        """Return the error for the one that comes before all others."""
        position, reason, field = self._first
        where = f"/{position}{field}"
        return InvalidInputError(f"entry {position}: {reason}", pointer=where, faults=[(where, reason)])


def _batches(
    entries: Iterable[Entry | InvalidInputError], *, progress: bool
) -> Iterator[tuple[range, list[Entry | InvalidInputError]]]:
    """Yield entries some at a time, with their positions, and show how many there were so far."""
    total = operator.length_hint(entries) or None
    from tqdm import tqdm  # noqa: PLC0415 - whoever looks up does not wait for it

    silent = None if progress else True  # None: where stderr is no terminal
    with tqdm(total=total, unit=" entries", unit_scale=True, disable=silent) as shown:
        given, start = iter(entries), 0
        while some := list(itertools.islice(given, _READ_AT_ONCE)):
            yield range(start, start + len(some)), some
            start += len(some)
            shown.update(len(some))


def _add_pairs(builder: build.SegmentBuilder, entries: Sequence[object]) -> bool:
    """Add entries that are all a text and a score, and say whether they were."""
    if not set(map(type, entries)) <= {tuple, list}:
        return False
    pairs = cast("Sequence[tuple[str, float]]", entries)
    if set(map(len, pairs)) != {2}:
        return False
    # not zip(*pairs): its iterators, one a pair, wake the collector
    return builder.add_plain([text for text, _ in pairs], [score for _, score in pairs])
