"""What a process holds of an index: a segment, and the journal's rows on top of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from operator import itemgetter
from pathlib import Path
from typing import TypeVar

from mariana._binding.trie import Segment
from mariana.live import folder, learning
from mariana.live.journal import Head, Item, Journal
from mariana.live.layers import Layers

Pause = Callable[[float], None]
"""What a thread that nobody waits for does between two portions of its work, told the seconds that the last one took."""

PORTION = 1024
"""Rows that such a thread takes at once: whoever writes needs the interpreter again and again, and would wait each time."""

_FIXED = itemgetter(*map(Head._fields.index, ("landmark", "half_life")))
"""Of a head: as long as these stay, the scores do that are held."""

_T = TypeVar("_T")


class Holding:
    """What is held of an index: the segment, the journal's rows, and both as layers."""

    def __init__(
        self,
        path: Path,
        journal: Journal | None,
        head: Head | None,
        known: Holding | None,
        pause: Pause | None = None,
    ) -> None:
        """Take all of it; ``journal`` is in a transaction. FileNotFoundError: a publisher was quicker."""
        self.head = head
        self.number = folder.current_segment(path, head)
        self.segment = folder.segment_path(path, self.number)
        self.file = identity(self.segment)
        base = (
            known.base if known is not None and known.file == self.file else folder.open_segment(self.segment)
        )
        self.base: Segment = base
        self.items: dict[bytes, Item | None] = {}
        self.learned: dict[bytes, float] = {}
        self.layers = Layers(base)
        if journal is not None and head is not None:
            self.take(journal, head, after=0, pause=pause)

    @property
    def sequence(self) -> int:
        """The number of the last change that is held; 0 when there never was one."""
        return 0 if self.head is None else self.head.sequence

    @property
    def behind(self) -> bool:
        """Whether this is right, but on top of a segment that another one has taken the place of."""
        return self.head is not None and self.head.base != self.number

    def goes_on(self, head: Head) -> bool:
        """Whether what the journal has from here on is all that this lacks."""
        known = self.head
        return (
            known is not None
            and _FIXED(known) == _FIXED(head)
            and (self.number == head.base or known.sequence >= head.merged)
        )

    def take(self, journal: Journal, head: Head, after: int, pause: Pause | None = None) -> None:
        """Take what was written after a sequence number; in portions with a pause after each, if one is given."""
        items = {text: item for some in _portions(journal.items(after), pause) for text, item in some}
        learned = {text: weight for some in _portions(journal.learned(after), pause) for text, weight in some}
        self.items.update(items)
        self.learned.update(learned)
        self.head = head
        try:
            for texts in _portions({**items, **learned}, pause):
                self.layers.apply({text: self.effective(text) for text in texts})
        except BaseException:
            self.head = None  # so that all is taken anew
            raise

    def given(self, text: bytes) -> Item | None:
        """Return an entry as it was given; None when there is none of this text."""
        return self.items[text] if text in self.items else self.layers.find_in_base(text)

    def names_of(self, ids: set[bytes]) -> list[bytes]:
        """Return the texts of entries that are names of some documents, but for those that the journal has."""
        names = [text for text in self.layers.names_in_base(ids) if text not in self.items]
        if self.behind:  # the journal does not have all any more that was changed
            names += [text for text, item in self.items.items() if item is not None and item.id in ids]
        return names

    def learnt(self, text: bytes, score: float) -> tuple[float, float]:
        """Return an entry's selections, and what they add to its score."""
        weight = self.learned.get(text)
        if weight is None or self.head is None:
            return 0.0, 0.0
        count = learning.selections(weight, self.head.landmark, self.head.half_life)
        return count, learning.learned_part(score, count)

    def effective(self, text: bytes) -> Item | None:
        """Return an entry with the score it is ranked by."""
        item = self.given(text)
        return None if item is None else item._replace(score=item.score + self.learnt(text, item.score)[1])


def identity(path: Path) -> tuple[int, ...]:
    """Return what tells a file from all others that have had its name."""
    status = path.stat()
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size


def _portions(rows: Iterable[_T], pause: Pause | None) -> Iterator[list[_T]]:
    """Give rows all at once, or in portions with a pause after each."""
    rest, begun = iter(rows), time.perf_counter()
    while portion := list(islice(rest, None if pause is None else PORTION)):
        yield portion
        if pause is not None:
            pause(time.perf_counter() - begun)
            begun = time.perf_counter()
