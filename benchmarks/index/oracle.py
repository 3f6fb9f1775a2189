"""Brute force that shares nothing with the index: every text is looked at, array by array."""

from __future__ import annotations

import bisect

import numpy as np
from numpy.typing import NDArray

from benchmarks.index.data import DataSet
from mariana.autocomplete import ERROR_FACTORS
from mariana.reference import fold

LIMIT = 10
FAR = 100
"""More errors than anybody asks for, and few enough to count on from in 8 bits."""


class Oracle:
    """Answers by the rules of docs/matching.md for an index of texts that are found by their beginning only."""

    def __init__(self, data: DataSet) -> None:
        self._ranked = data.ranked
        self._sorted = sorted(data.ranked)
        place = {text: at for at, text in enumerate(data.ranked)}
        self._places = np.array([place[text] for text in self._sorted])
        scores = np.array([data.entries[text] for text in data.ranked])
        self._better = (
            np.searchsorted(-scores, -scores, "left") + 1
        )  # the rank; texts of the same score share it
        self._points: NDArray[np.uint32] | None = None

    def complete(self, typed: str) -> list[str]:
        """Return the best texts that begin with what was typed."""
        typed = fold(typed)
        low, high = (
            bisect.bisect_left(self._sorted, typed),
            bisect.bisect_left(self._sorted, typed + "\U0010ffff"),
        )
        found = np.append(self._places[low:high], self._whole(typed))
        return [self._ranked[at] for at in np.sort(found)[:LIMIT]]

    def _whole(self, typed: str) -> NDArray[np.int64]:
        """Return the place of the text that a space at the end says is complete; none where there is no such text."""
        text = typed[:-1] if typed.endswith(" ") else ""
        at = bisect.bisect_left(self._sorted, text)
        there = text != "" and at < len(self._sorted) and self._sorted[at] == text
        return self._places[at : at + there]

    def forgive(self, typed: str, edits: int) -> list[str]:
        """Return the best texts with so many typing errors at most; they make the rank worse by ``ERROR_FACTORS``."""
        needed = self._edits(fold(typed), edits)
        needed[self._whole(fold(typed))] = 0
        places = np.flatnonzero(needed <= edits)
        weights = self._better[places] * np.array(ERROR_FACTORS)[needed[places]]
        best = places[np.lexsort((places, weights))[:LIMIT]]
        return [self._ranked[at] for at in best]

    def _edits(self, typed: str, edits: int) -> NDArray[np.int64]:
        """Return how many errors lie between what was typed and the nearest beginning of each text.

        The optimal string alignment distance (Boytsov 2011, section 2.1), one row a letter of all texts at a time.
        """
        width = len(typed) + edits  # longer beginnings need more errors
        points = self._letters(width)
        column = np.arange(len(typed) + 1, dtype=np.int64)
        before = previous = np.repeat(column[:, None], len(self._ranked), axis=1).astype(np.int8)
        least = previous[-1].copy()
        for i in range(1, width + 1):
            letters = points[i - 1]
            row = np.empty_like(previous)
            row[0] = i
            for j, wanted in enumerate(map(ord, typed), 1):
                np.minimum(previous[j - 1] + (letters != wanted), previous[j] + 1, out=row[j])
                np.minimum(row[j], row[j - 1] + 1, out=row[j])
                if i > 1 and j > 1:
                    swapped = (letters == ord(typed[j - 2])) & (points[i - 2] == wanted)
                    np.minimum(row[j], np.where(swapped, before[j - 2] + 1, FAR), out=row[j])
            row[:, letters == 0] = FAR  # the text has ended
            np.minimum(least, row[-1], out=least)
            before, previous = previous, row
        return least.astype(np.int64)

    def _letters(self, width: int) -> NDArray[np.uint32]:
        """Return the code points of all texts, letter by letter, 0 after the end."""
        if self._points is None or len(self._points) < width:
            texts = np.array(self._ranked, dtype=f"U{width}")
            self._points = np.ascontiguousarray(texts.view(np.uint32).reshape(len(texts), -1).T)
        return self._points
