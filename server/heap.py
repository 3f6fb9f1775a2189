"""Giving memory back to the system after something large was loaded."""

from __future__ import annotations

import ctypes
import sys
from contextlib import suppress
from pathlib import Path

_DONTNEED = 4
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None
_trim = getattr(_libc, "malloc_trim", None)
"""Of glibc; other C libraries have none."""


def give_back() -> None:
    """Give what is free back to the system: a model's file is read, checked and packed, and only the packing stays."""
    if _trim is not None:
        _trim(0)


def give_back_code() -> None:
    """Let go the pages of code that only the start needed: the system maps again, from its cache, what is used.

    Only pages that run and are never written are taken, so nothing can be lost.
    """
    if _libc is None:
        return
    with suppress(OSError):  # /proc is not there
        for line in Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace").splitlines():
            place, rights, _, _, _, *path = line.split(maxsplit=5)
            if rights == "r-xp" and path and path[0].startswith("/"):
                begin, end = (int(side, 16) for side in place.split("-"))
                _libc.madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), _DONTNEED)
