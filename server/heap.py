"""Giving memory back to the system after something large was loaded."""

from __future__ import annotations

import ctypes
import sys

_trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
"""Of glibc; other C libraries have none."""


def give_back() -> None:
    """Give what is free back to the system: a model's file is read, checked and packed, and only the packing stays."""
    if _trim is not None:
        _trim(0)
