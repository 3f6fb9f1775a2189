"""A segment and the changes on top of it, searched as one.

The changes lie in a few small segments in memory, newest last. A batch is merged with the newest of them and built
anew in microseconds; a bigger one is merged only when what comes after it has grown to an eighth of it (the
logarithmic method: J. Bentley, J. Saxe, "Decomposable searching problems", 1980; tiers as in log-structured merge
trees), so that a change costs little however many there are. An entry that was replaced or deleted is marked dead
where it lies; deletions leave nothing else behind.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from mariana._binding.build import build
from mariana._binding.trie import Entry, Reader, Segment
from mariana.live.journal import Item

SMALL = 256
"""Entries that a layer has before another one is laid on top of it."""

RATIO = 8
"""A layer is merged with those above it when they have one RATIO-th of its entries."""

_NO_PLACE = np.uint32(0xFFFFFFFF)


class Layer:
    """A segment, with marks on the entries that were replaced or deleted since.

    Attributes:
        segment: some entries.
        dead: places in the segment, ascending.
    """

    __slots__ = ("dead", "segment")

    def __init__(self, segment: Segment) -> None:
        self.segment = segment
        self.dead: NDArray[np.uint32] = np.zeros(0, np.uint32)

    @property
    def live(self) -> int:
        """Entries that are not dead."""
        return self.segment.entries - len(self.dead)

    def bury(self, texts: Iterable[bytes]) -> None:
        """Mark the entries of these texts as dead, if they are there."""
        places = [place for text in texts if (place := self.segment.find(text)) is not None]
        if not places:
            return
        found = np.array(sorted(places), np.uint32)
        at = np.searchsorted(self.dead, found)  # not union1d, which sorts all of them
        new = np.append(self.dead, _NO_PLACE)[at] != found
        self.dead = np.insert(self.dead, at[new], found[new])


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
        self._layers = [Layer(base)]
        self._settled: tuple[list[Layer], Reader] | None = None
        self.reader = self._make_reader()

    def find_in_base(self, text: bytes) -> Item | None:
        """Return what an entry of the segment is, dead or not; None when it has none of this text."""
        entry = self.base.get(text)
        return None if entry is None else _item(entry)

    def names_in_base(self, ids: Iterable[bytes]) -> list[bytes]:
        """Return the texts of the entries of the segment, dead or not, that are names of some documents."""
        return self.base.texts(self.base.names_of({*ids}))

    def build_base(self, changes: Mapping[bytes, Item | None]) -> bytes:
        """Return a segment file of what is in the segment, with some entries replaced, inserted, or deleted."""
        base = Layer(self.base)
        base.bury(changes)
        return _build(changes, [base], self.base)

    def apply(self, changes: Mapping[bytes, Item | None]) -> None:
        """Replace, insert or (None) delete entries.

        Args:
            changes: by text; texts, scores and payloads that a segment takes.
        """
        if not changes:
            return
        for layer in self._layers:
            layer.bury(changes)
        size = sum(item is not None for item in changes.values())
        merged: list[Layer] = []
        while len(self._layers) > 1 and self._layers[-1].live < max(SMALL, RATIO * size):
            merged.append(self._layers.pop())
            size += merged[-1].live
        if size:
            self._layers.append(Layer(Segment(_build(changes, merged, self.base), "live changes")))
        self.reader = self._make_reader()

    def _make_reader(self) -> Reader:
        """Return a reader of all layers, on top of one that is kept for the older ones while little comes to them."""
        layers = self._layers
        if self._settled is None or not _stand_on(layers, *self._settled):
            last_is_small = len(layers) > 1 and layers[-1].segment.entries < SMALL
            older = layers[:-1] if last_is_small else layers[:]
            self._settled = older, _reader(older, None)
            if older == layers:
                return self._settled[1]
        return _reader(layers, self._settled[1])


def _reader(layers: list[Layer], settled: Reader | None) -> Reader:
    return Reader([layer.segment for layer in layers], [layer.dead for layer in layers], settled)


def _stand_on(layers: list[Layer], older: list[Layer], settled: Reader) -> bool:
    """Whether a reader of some layers is a good one to stand on for all of them as they are now."""
    died = settled.entries - sum(layer.live for layer in older)
    return (
        layers[: len(older)] == older
        and died + sum(layer.segment.entries for layer in layers[len(older) :]) <= 4 * SMALL
    )


def _build(changes: Mapping[bytes, Item | None], layers: Iterable[Layer], like: Segment) -> bytes:
    """Return a segment file of changes and what is alive in some layers, matched in the way of a segment."""
    entries = (
        Entry(
            text, item.score, item.payload, tuple(json.loads(item.contexts)) if item.contexts else (), item.id
        )
        for text, item in changes.items()
        if item is not None
    )
    bases = [(layer.segment, layer.dead) for layer in layers]
    return build(entries, bases=bases, any_word=like.any_word, camel_case=like.camel_case)


def _item(entry: Entry) -> Item:
    contexts = json.dumps(entry.contexts, ensure_ascii=False).encode() if entry.contexts else b""
    return Item(entry.score, entry.payload, contexts, entry.id)
