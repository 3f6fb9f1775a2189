"""Where a process counts: rows of numbers under a name and labels, in memory that other processes may read.

A row is announced by a line behind those before it, and only then by the length of all lines; its numbers are written
by its process alone. So a reader needs no lock, and whoever takes the memory over, after a worker has died, counts on
from where that one was.
"""

from __future__ import annotations

import json
import logging
import mmap
import threading
from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]
Key = tuple[str, tuple[tuple[str, str], ...]]
"""Name and labels of a row."""

_HEAD_BYTES, _LINES_BYTES, _VALUES_BYTES = 64, 1 << 21, 1 << 21
CELLS_BYTES = _HEAD_BYTES + _LINES_BYTES + _VALUES_BYTES
"""Of memory; what is not used costs nothing. About 2,000 versions of models, those too that are gone by then."""

_log = logging.getLogger("mariana.server")


class Cells:
    """Rows of numbers.

    Args:
        memory: ``CELLS_BYTES``, zeros at first; None: memory of its own.
    """

    def __init__(self, memory: memoryview | None = None) -> None:
        if memory is None:
            memory = memoryview(mmap.mmap(-1, CELLS_BYTES))  # page by page; an array so large takes huge ones
        self._used = memory[:8].cast("Q")
        self._lines = memory[_HEAD_BYTES : _HEAD_BYTES + _LINES_BYTES]
        self._values = np.frombuffer(memory[_HEAD_BYTES + _LINES_BYTES :], np.float64)
        self._read = self._taken = 0
        self._rows: dict[Key, Values] = {}
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
        return found

    def _read_lines(self) -> None:
        """Take note of the rows that have come."""
        end = min(self._used[0], _LINES_BYTES)
        if end > self._read:
            for line in bytes(self._lines[self._read : end]).splitlines():
                name, labels, width = json.loads(line)
                key = (name, tuple((label, value) for label, value in labels))
                self._rows[key] = self._values[self._taken : self._taken + width]
                self._taken += width
            self._read = end

    def _add(self, key: Key, width: int) -> Values:
        line = json.dumps([*key, width]).encode() + b"\n"
        begin, end = self._used[0], self._used[0] + len(line)
        if end > _LINES_BYTES or self._taken + width > len(self._values):
            if not self._full:
                self._full = True
                _log.warning("too many models and versions: what some do is not counted")
            return np.zeros(width)
        self._lines[begin:end] = line
        self._used[0] = self._read = end
        self._taken += width
        return self._values[self._taken - width : self._taken]

    def __iter__(self) -> Iterator[tuple[Key, Values]]:
        """Give every row that there is by now."""
        with self._lock:
            self._read_lines()
            return iter(list(self._rows.items()))
