"""A segment and the changes on top of it, searched as one.

The changes lie in a few small segments in memory, newest last. A batch is merged with the newest of them and built
anew in microseconds; a bigger one is merged only when what comes after it has grown to an eighth of it (the
logarithmic method: J. Bentley, J. Saxe, "Decomposable searching problems", 1980; tiers as in log-structured merge
trees), so that a change costs little however many there are. An entry that was replaced or deleted is marked dead
where it lies; deletions leave nothing else behind.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from mariana._binding.build import build
from mariana._binding.trie import Entry, Reader, Segment
from mariana.live.journal import Item

SMALL = 1024
"""Entries that a layer has before another one is laid on top of it."""

RATIO = 8
"""A layer is merged with those above it when they have one RATIO-th of its entries."""


class Layer:
    """A segment, with marks on the entries that were replaced or deleted since.

    Attributes:
        segment: some entries.
        items: the same by text, but for the lowest layer, which knows its segment only.
        dead: places in the segment, ascending.
    """

    __slots__ = ("dead", "items", "segment")

    def __init__(self, segment: Segment, items: Mapping[bytes, Item]) -> None:
        self.segment = segment
        self.items = items
        self.dead: NDArray[np.uint32] = np.zeros(0, np.uint32)

    @property
    def live(self) -> int:
        """Entries that are not dead."""
        return self.segment.entries - len(self.dead)

    def bury(self, places: list[int]) -> None:
        """Mark entries as dead."""
        self.dead = np.union1d(self.dead, np.array(places, np.uint32))


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
        self._lowest = Layer(base, {})
        self._layers: list[Layer] = []
        self._home: dict[bytes, Layer] = {}  # the layer above the lowest that an entry lives in
        self.reader = self._make_reader()

    def find_in_base(self, text: bytes) -> Item | None:
        """Return what an entry of the segment is, dead or not; None when it has none of this text."""
        entry = self.base.get(text)
        return None if entry is None else _item(entry)

    def build_base(self, changes: Mapping[bytes, Item | None]) -> bytes:
        """Return a segment file of what is in the segment, with some entries replaced, inserted, or deleted."""
        found = (self.base.find(text) for text in changes)
        return _build(_entries(changes), self.base, [place for place in found if place is not None])

    def names_in_base(self, ids: Iterable[bytes]) -> list[bytes]:
        """Return the texts of the entries of the segment, dead or not, that are names of some documents."""
        return self.base.texts(self.base.names_of({*ids}))

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
        self._bury(changes)
        home = self._home
        items = {
            text: item
            for layer in reversed(merged)
            for text, item in layer.items.items()
            if home.get(text) is layer
        }
        items.update((text, item) for text, item in changes.items() if item is not None)
        if items:
            layer = Layer(Segment(_build(_entries(items), self.base), "live changes"), items)
            self._layers.append(layer)
            home.update(dict.fromkeys(items, layer))
        self.reader = self._make_reader()

    def _bury(self, texts: Iterable[bytes]) -> None:
        """Mark what entries were until now as dead."""
        buried: dict[Layer, list[int]] = {}
        for text in texts:
            layer = self._home.pop(text, self._lowest)
            place = layer.segment.find(text)
            if place is not None:
                buried.setdefault(layer, []).append(place)
        for layer, places in buried.items():
            layer.bury(places)

    def _make_reader(self) -> Reader:
        layers = [self._lowest, *self._layers]
        return Reader([layer.segment for layer in layers], [layer.dead for layer in layers])


def _build(entries: Iterable[Entry], like: Segment, without: Collection[int] | None = None) -> bytes:
    """Return a segment file that is matched in the way of another segment.

    Args:
        entries: that are in it.
        like: the other segment.
        without: given, the entries of that are in it too, but for those at these places.
    """
    base = None if without is None else (like, without)
    return build(entries, base=base, any_word=like.any_word, camel_case=like.camel_case)


def _entries(items: Mapping[bytes, Item | None]) -> Iterator[Entry]:
    return (
        Entry(
            text, item.score, item.payload, tuple(json.loads(item.contexts)) if item.contexts else (), item.id
        )
        for text, item in items.items()
        if item is not None
    )


def _item(entry: Entry) -> Item:
    contexts = json.dumps(entry.contexts, ensure_ascii=False).encode() if entry.contexts else b""
    return Item(entry.score, entry.payload, contexts, entry.id)
