"""Calls of a microsecond, without the price of cffi: what ``mariana._calls`` does, where it is built.

What is made here takes the ordinary call and answers it as the rest of the binding does, bit for bit; to any other it
answers None, and the caller goes the way through cffi. So no rule and no message is here; docs/adr/0012.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mariana._binding import ffi, lib

try:
    from mariana import _calls
except ImportError:  # PyPy, or an interpreter without its lock
    _calls = None  # type: ignore[assignment] # None is asked for below

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Predict = Callable[[object], NDArray[np.float32] | None]

BUILT = _calls is not None
"""Whether the extension is here."""

_SHORT_WORK = 1 << 16
"""Multiplications, of some microseconds: a call of no more keeps the interpreter's lock. To let go of it takes longer than
a small network, and where another thread takes it meanwhile, it is back after 5 ms."""


def not_here(_: object) -> None:
    """Take no call."""


def predict(model: Any, alive: Any, columns: int, outputs: int, scratch_bytes: int, work: int) -> Predict:
    """Return what runs rows through a packed network.

    Args:
        model: the network, as C knows it.
        alive: the memory that it is in.
        columns: of a row.
        outputs: of a row.
        scratch_bytes: that a call needs.
        work: multiplications a row.

    Returns:
        A call that takes a C-contiguous float32 array (batch, columns), and answers None to anything else.
    """
    if not BUILT:
        return not_here
    return _calls.Network(
        run=_address(ffi.addressof(lib, "mrn_model_predict")),
        model=_address(model),
        alive=alive,
        columns=columns,
        outputs=outputs,
        scratch_bytes=scratch_bytes,
        short_rows=_SHORT_WORK // max(work, 1),
        array=np.ndarray,
        empty=np.empty,
        dtype=np.dtype(np.float32),
    ).predict


def _address(pointer: Any) -> int:
    return int(ffi.cast("uintptr_t", pointer))
