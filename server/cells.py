"""Where a process counts: rows of numbers under a name and labels, in memory that other processes may read.

The rows are told by lines: name, labels, where the numbers are. A row is announced by a line behind those before it, and
only then by the length of all lines; its numbers are written by its process alone. So a reader needs no lock, and whoever
takes the memory over, after a worker has died, counts on from where that one was.

Rows that are not needed any more are dropped by writing the lines of all others to a second place, and then, in one
store, making that place the one that counts. Numbers stay where they are, and what is free between them is used again.
"""

from __future__ import annotations

import json
import logging
import mmap
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]
Key = tuple[str, tuple[tuple[str, str], ...]]
"""Name and labels of a row."""

_HEAD_BYTES, _LINES_BYTES, _VALUES_BYTES = 64, 1 << 21, 1 << 21
CELLS_BYTES = _HEAD_BYTES + 2 * _LINES_BYTES + _VALUES_BYTES
"""Of memory; what is not used costs nothing. About 2,000 versions of models at a time."""

_DROPS = 0
"""The word of the head that says how often rows were dropped; two more are the lengths of the two places' lines."""

SCARCE = 0.75
"""Share of the memory from which it is time to drop something."""

_log = logging.getLogger("mariana.server")


class _Row(NamedTuple):
    values: Values
    begin: int
    line: bytes


class Cells:
    """Rows of numbers.

    Args:
        memory: ``CELLS_BYTES``, zeros at first; None: memory of its own.
    """

    def __init__(self, memory: memoryview | None = None) -> None:
        if memory is None:
            memory = memoryview(mmap.mmap(-1, CELLS_BYTES))  # page by page; an array so large takes huge ones
        self._head = memory[:_HEAD_BYTES].cast("Q")
        ends = (_HEAD_BYTES, _HEAD_BYTES + _LINES_BYTES, _HEAD_BYTES + 2 * _LINES_BYTES)
        self._lines = (memory[ends[0] : ends[1]], memory[ends[1] : ends[2]])
        self._values = np.frombuffer(memory[ends[2] :], np.float64)
        self._drops = self._read = 0
        self._rows: dict[Key, _Row] = {}
        self._free: list[tuple[int, int]] | None = None
        """Numbers of no row, as how many and where they begin; None: it has to be found out."""
        self._full = False
        self._lock = threading.Lock()  # models are loaded beside the event loop

    def row(self, name: str, labels: Mapping[str, str], width: int = 1) -> Values:
        """Return the row of a name and labels; a new one holds zeros.

        Args:
            name: of the metric.
            labels: by name.
            width: numbers in it.
        """
        key = (name, tuple(labels.items()))
        found = self._rows.get(key)
        if found is None:
            with self._lock:
                self._read_lines()
                found = self._rows.get(key)
                if found is None:
                    found = self._rows[key] = self._add(key, width)
        return found.values

    @property
    def scarce(self) -> bool:
        """Whether there is not much room for more."""
        with self._lock:
            free = sum(width for width, _ in self._pieces())
            return max(self._read / _LINES_BYTES, 1 - free / len(self._values)) >= SCARCE

    def drop(self, unneeded: Callable[[str, Mapping[str, str]], bool]) -> None:
        """Drop rows: nobody may count in them any more.

        Args:
            unneeded: says of a name and labels whether their row is to go.
        """
        with self._lock:
            self._read_lines()
            kept = {key: row for key, row in self._rows.items() if not unneeded(key[0], dict(key[1]))}
            text = b"".join([row.line for row in kept.values()])  # those that found no room have no line
            drops = self._drops + 1
            self._lines[drops & 1][: len(text)] = text
            self._head[1 + (drops & 1)] = len(text)
            self._head[_DROPS] = self._drops = drops
            self._read = len(text)
            self._rows = kept
            self._full = False
            self._free = None

    def _pieces(self) -> list[tuple[int, int]]:
        """Return what is free."""
        if self._free is None:
            self._free, end = [], 0
            for row in sorted((row for row in self._rows.values() if row.line), key=lambda row: row.begin):
                if row.begin > end:
                    self._free.append((row.begin - end, end))
                end = row.begin + len(row.values)
            self._free.append((len(self._values) - end, end))
        return self._free

    def _room(self, width: int) -> int | None:
        """Take the smallest free piece that holds so many numbers; None: there is none."""
        pieces = self._pieces()
        fits = min((piece for piece in pieces if piece[0] >= width), default=None)
        if fits is None:
            return None
        pieces.remove(fits)
        if fits[0] > width:
            pieces.append((fits[0] - width, fits[1] + width))
        return fits[1]

    def _read_lines(self) -> None:
        """Take note of the rows that have come, and gone."""
        while True:
            drops = self._head[_DROPS]
            if drops != self._drops:
                self._drops, self._read, self._rows = drops, 0, {}
            end = min(self._head[1 + (drops & 1)], _LINES_BYTES)
            if end == self._read:
                return
            text = bytes(self._lines[drops & 1][self._read : end])
            if self._head[_DROPS] != drops:
                continue  # it may be another one's by now
            for line in text.splitlines(keepends=True):
                name, labels, begin, width = json.loads(line)
                key = (name, tuple((label, value) for label, value in labels))
                self._rows[key] = _Row(self._values[begin : begin + width], begin, line)
            self._read = end
            self._free = None

    def _add(self, key: Key, width: int) -> _Row:
        begin, place = self._room(width), self._drops & 1
        line = json.dumps([*key, begin, width]).encode() + b"\n"
        end = self._read + len(line)
        if begin is None or end > _LINES_BYTES:
            if not self._full:
                self._full = True
                _log.warning("too many models and versions: what some do is not counted")
            return _Row(np.zeros(width), 0, b"")
        values = self._values[begin : begin + width]
        values[:] = 0
        self._lines[place][self._read : end] = line
        self._head[1 + place] = self._read = end
        return _Row(values, begin, line)

    def __iter__(self) -> Iterator[tuple[Key, Values]]:
        """Give every row that there is by now."""
        with self._lock:
            self._read_lines()
            return iter([(key, row.values) for key, row in self._rows.items()])
