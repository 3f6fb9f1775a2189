"""The arrays of one batch size: made when they are first asked for, then used again in every step."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

Array = NDArray[Any]
"""An array of the network's dtype: float32, or float64 to check gradients."""


class Buffers:
    """Arrays by name, each with ``rows`` rows.

    Args:
        rows: rows of a batch.
        dtype: of the arrays for which nothing else is asked.

    Example:
        >>> buffers = Buffers(32, "float32")
        >>> buffers.get("output", 10) is buffers.get("output", 10)
        True
    """

    def __init__(self, rows: int, dtype: DTypeLike) -> None:
        self.rows = rows
        self._dtype = np.dtype(dtype)
        self._arrays: dict[str, Array] = {}

    def get(self, name: str, *shape: int, dtype: DTypeLike | None = None) -> Array:
        """Return the array ``(rows, *shape)`` of that name; what it holds is left from the last use."""
        array = self._arrays.get(name)
        if array is None:
            array = np.empty((self.rows, *shape), self._dtype if dtype is None else dtype)
            self._arrays[name] = array
        return array
