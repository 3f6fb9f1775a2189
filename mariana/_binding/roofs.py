"""What this machine can do at most, measured by ``csrc/bench/roofs.c``."""

from __future__ import annotations

from time import thread_time
from typing import Any

import numpy as np

from mariana._roofs import ffi, lib


def roof_names() -> list[str]:
    """Return the instructions whose limit can be measured, by number."""
    return [ffi.string(lib.mrn_roof_name(i)).decode() for i in range(lib.mrn_roof_count())]


def roof_usable(roof: int) -> bool:
    """Return whether this machine has the instructions of a roof."""
    return bool(lib.mrn_roof_usable(roof))


def operations_per_second(roof: int, repeats: int) -> float:
    """Run a usable roof once; a multiply-add counts as two operations."""
    start = thread_time()
    work = lib.mrn_roof_run(roof, repeats)
    return float(work) / (thread_time() - start)


class Reads:
    """Memory to read from.

    Args:
        size: bytes; a multiple of 4096.
    """

    def __init__(self, size: int) -> None:
        block = np.ones(size + 64, np.uint8)  # written, so that every page is there
        start = -block.ctypes.data % 64
        self.size = size
        self._memory: Any = ffi.from_buffer(block[start : start + size])

    def bytes_per_second(self, repeats: int) -> float:
        """Read all of it some times."""
        start = thread_time()
        lib.mrn_roof_read(self._memory, self.size, repeats)
        return self.size * repeats / (thread_time() - start)
