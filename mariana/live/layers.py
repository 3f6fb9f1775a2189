"""A segment and the changes on top of it, searched as one.

The changes lie in a few small segments in memory, newest last. A batch is merged with the newest of them and built
anew in microseconds; a bigger one is merged only when what comes after it has grown to an eighth of it (the
logarithmic method: J. Bentley, J. Saxe, "Decomposable searching problems", 1980; tiers as in log-structured merge
trees), so that a change costs little however many there are. An entry that was replaced or deleted is marked dead
where it lies; deletions leave nothing else behind.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping

from mariana._binding.trie import Entry, Reader, Segment, build
from mariana.live.journal import Item

SMALL = 1024
"""Entries that a layer has before another one is laid on top of it."""

RATIO = 8
"""A layer is merged with those above it when they have one RATIO-th of its entries."""


class Layer:
    """Some changes, as a segment: ``segment`` of ``items``, and how many of these still ``live`` here."""

    __slots__ = ("dead", "items", "live", "segment")

    def __init__(self, items: dict[bytes, Item], base: Segment) -> None:
        self.items = items
        self.live = len(items)
        self.segment = Segment(_build(_entries(items), base), "live changes")
        self.dead: set[int] = set()


class Layers:
    """A segment and changes.

    One thread at a time may change it. ``reader`` is replaced at each change and never changed, so that whoever
    searches takes it once and sees all of a change or nothing.

    Attributes:
        base: the segment.
        reader: searches all of it.
    """

    def __init__(self, base: Segment) -> None:
        self.base = base
        self._dead: set[int] = set()
        self._layers: list[Layer] = []
        self._home: dict[bytes, Layer] = {}
        self.reader = self._make_reader()

    def __len__(self) -> int:
        """Return the number of entries."""
        return self.base.entries - len(self._dead) + len(self._home)

    @property
    def changed(self) -> int:
        """Entries above the segment, and marks on it."""
        return len(self._home) + len(self._dead)

    def find_in_base(self, text: bytes) -> Item | None:
        """Return what an entry of the segment is, dead or not; None when it has none of this text."""
        entry = self.base.get(text)
        return None if entry is None else _item(entry)

    def build_base(self, changes: Mapping[bytes, Item | None]) -> bytes:
        """Return a segment file of what is in the segment, with some entries replaced, inserted, or deleted."""
        kept = (entry for entry in self.base if entry.text not in changes)
        return _build(itertools.chain(kept, _entries(changes)), self.base)

    def apply(self, changes: Mapping[bytes, Item | None]) -> None:
        """Replace, insert or (None) delete entries.

        Args:
            changes: by text; texts, scores and payloads that a segment takes.
        """
        if not changes:
            return
        size = len(changes)
        merged: list[Layer] = []
        while self._layers and self._layers[-1].live < max(SMALL, RATIO * size):
            merged.append(self._layers.pop())
            size += merged[-1].live
        for text in changes:
            self._bury(text)
        home = self._home
        items = {
            text: item
            for layer in reversed(merged)
            for text, item in layer.items.items()
            if home.get(text) is layer
        }
        items.update((text, item) for text, item in changes.items() if item is not None)
        if items:
            layer = Layer(items, self.base)
            self._layers.append(layer)
            home.update(dict.fromkeys(items, layer))
        self.reader = self._make_reader()

    def _bury(self, text: bytes) -> None:
        """Mark what an entry was until now as dead."""
        home = self._home.pop(text, None)
        segment, dead = (self.base, self._dead) if home is None else (home.segment, home.dead)
        place = segment.find(text)
        if place is not None:
            dead.add(place)
        if home is not None:
            home.live -= 1

    def _make_reader(self) -> Reader:
        return Reader(
            [self.base, *(layer.segment for layer in self._layers)],
            [self._dead, *(layer.dead for layer in self._layers)],
        )


def _build(entries: Iterable[Entry], like: Segment) -> bytes:
    """Return a segment file that is matched in the way of another segment."""
    return build(entries, any_word=like.any_word, camel_case=like.camel_case)


def _entries(items: Mapping[bytes, Item | None]) -> Iterator[Entry]:
    return (
        Entry(text, item.score, item.payload, tuple(json.loads(item.contexts)) if item.contexts else ())
        for text, item in items.items()
        if item is not None
    )


def _item(entry: Entry) -> Item:
    contexts = json.dumps(entry.contexts, ensure_ascii=False).encode() if entry.contexts else b""
    return Item(entry.score, entry.payload, contexts)
