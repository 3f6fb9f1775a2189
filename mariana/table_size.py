"""How much memory learning a table takes, estimated from the file's head, and how much there is."""

from __future__ import annotations

import gzip
import importlib
import math
import os
import zipfile
import zlib
from contextlib import suppress
from pathlib import Path
from typing import IO

import numpy as np

SHARE = 0.5
"""A table that takes more than this share of the memory is learned through a cache."""

_HEAD = 1 << 18
"""Bytes of a text file that tell how long its lines are."""

_TEXT_CELL, _PARQUET_CELL, _ARRAY_CELL = 150, 90, 16
"""Bytes that reading takes for each cell: Python's texts, Arrow's and Python's objects, arrays; measured."""

_ENCODED, _MOST_ENCODED = 49, 4096
"""Columns that a network sees of a number, at most, and of all of them: see ``trainer/preprocessing.py``."""


def memory_bytes() -> int:
    """Return the bytes of memory that this process may use: of the machine, or of its container if that has fewer."""
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with suppress(OSError, ValueError):
            found.append(int(Path(limit).read_text(encoding="ascii")))
    return min(found)


def learning_bytes(path: Path) -> int:
    """Return about how many bytes of memory reading and learning a table takes; 0 if the file tells nothing.

    The figure is of numbers; texts of many categories take more. What is wrong with a file is for its reader to say.

    Args:
        path: a file ``.csv``, ``.tsv`` (both also with ``.gz``), ``.parquet`` or ``.npz``.
    """
    suffix = path.suffix if path.suffix != ".gz" else Path(path.stem).suffix
    sizes = {".csv": _text, ".tsv": _text, ".parquet": _parquet, ".npz": _archive}
    measure = sizes.get(suffix.lower())
    if measure is None or not path.is_file():  # a pipe would keep who opens it waiting
        return 0
    with suppress(OSError, ValueError, EOFError, KeyError, zlib.error, zipfile.BadZipFile, ImportError):
        return measure(path)
    return 0


def _text(path: Path) -> int:
    size = path.stat().st_size
    if path.suffix == ".gz":
        with path.open("rb") as packed, gzip.open(packed) as file:
            head = file.read(_HEAD)
            read = max(packed.tell(), 1)  # a buffer ahead: the estimate is low rather than high
        size = len(head) * size // read if size > read else len(head)
    else:
        with path.open("rb") as file:
            head = file.read(_HEAD)
    lines = max(head.count(b"\n"), 1)
    first = head[: head.find(b"\n")] if b"\n" in head else head
    columns = max(map(first.count, (b",", b";", b"\t"))) + 1
    return _learning(size * lines // max(len(head), 1), columns, _TEXT_CELL)


def _parquet(path: Path) -> int:
    metadata = importlib.import_module("pyarrow.parquet").read_metadata(path)
    return _learning(metadata.num_rows, metadata.num_columns, _PARQUET_CELL)


def _archive(path: Path) -> int:
    with zipfile.ZipFile(path) as archive, archive.open("x.npy") as file:
        shape, _, _ = array_header(file)
    if len(shape) > 2:  # an image: standardised, one column a number
        return math.prod(shape) * (_ARRAY_CELL + np.dtype(np.float32).itemsize)
    return _learning(shape[0], shape[1], _ARRAY_CELL) if len(shape) == 2 else 0


def array_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[np.generic]]:
    """Return shape, whether it is in Fortran's order, and dtype of an array in an archive; its data follow.

    Raises:
        ValueError: it is no array.
    """
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(file)
    return shape, fortran, dtype


def _learning(rows: int, columns: int, cell: int) -> int:
    encoded = min(_ENCODED * columns, _MOST_ENCODED + columns) * np.dtype(np.float32).itemsize
    return int(rows) * (columns * cell + encoded)
