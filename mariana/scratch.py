"""Arrays larger than memory: above a size they lie in a file without a name, which the system reads and writes as needed.

The file is removed from its folder at once, so that nothing is left behind, however the process ends.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike, NDArray

SPILL_BYTES = 1 << 28
"""Arrays of fewer bytes stay in memory."""

CHUNK_ROWS = 16_384
"""Rows that are read, encoded and written at once."""

_folder: ContextVar[Path | None] = ContextVar("scratch", default=None)


@contextmanager
def spill_to(folder: Path | None) -> Iterator[None]:
    """Let large arrays that :func:`empty` makes within the ``with`` block lie in files of that folder; None: in memory."""
    token = _folder.set(folder)
    try:
        yield
    finally:
        _folder.reset(token)


def empty(shape: tuple[int, ...], dtype: DTypeLike = np.float64) -> NDArray:  # type: ignore[type-arg]  # any dtype
    """Return an array, its contents undefined or 0: in memory, or in a file within :func:`spill_to` if it is large.

    Raises:
        OSError: the file cannot be made; the disk is full.
    """
    folder = _folder.get()
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if folder is None or size < max(SPILL_BYTES, 1):
        return np.empty(shape, dtype)
    with tempfile.TemporaryFile(dir=folder) as file:
        reserve(file.fileno(), size)
        return np.memmap(file, dtype, "w+", shape=shape)


def reserve(file: int, size: int) -> None:
    """Take the disk's room for an open file now: a mapped file that finds the disk full later would end the process.

    Raises:
        OSError: the disk is full.
    """
    if hasattr(os, "posix_fallocate") and size:
        os.posix_fallocate(file, 0, size)
