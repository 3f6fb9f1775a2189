"""The border to C: the only package that imports the extensions, and the only place that knows cffi.

``dense`` runs networks, ``trie`` looks up indexes, ``rows`` reads numbers out of requests. Above this package
nobody sees a pointer; below it nobody sees an array.

``calls`` makes quick calls of some that ``lib`` has: each takes the ordinary call and answers it as ``lib`` would, bit for
bit; to any other it answers None, and the caller goes the way through ``lib``. It is None where it is not built (PyPy, an
interpreter without its lock): then all go that way (docs/adr/0012-calls-without-cffi.md).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mariana._kernel import ffi, lib
from mariana.errors import KernelError

try:
    from mariana import _calls as calls
except ImportError:
    calls = None  # type: ignore[assignment] # whoever uses it asks

__all__ = ["address", "aligned", "calls", "check", "choose_isa", "ffi", "isa_names", "lib", "usable_isas"]


def check(status: int, doing: str) -> None:
    """Raise KernelError for a status that is not success.

    Args:
        status: what a C function returned.
        doing: what was tried, for the message: "open the network".
    """
    if status != 0:
        name = ffi.string(lib.mrn_status_name(status)).decode()
        message = ffi.string(lib.mrn_status_message(status)).decode()
        raise KernelError(f"cannot {doing}: {message}", status=name)


def isa_names() -> list[str]:
    """Return the instruction sets that this build knows, weakest first."""
    return [ffi.string(lib.mrn_isa_name(i)).decode() for i in range(lib.mrn_isa_count())]


def usable_isas() -> list[str]:
    """Return the instruction sets that this machine can run, weakest first."""
    return [name for i, name in enumerate(isa_names()) if lib.mrn_isa_usable(i)]


def choose_isa(highest: str | None = None) -> int:
    """Return the number of the best usable instruction set that is not above ``highest``.

    Raises:
        KernelError: ``highest`` names no instruction set.
    """
    chosen = ffi.new("size_t *")
    status = lib.mrn_isa_choose(ffi.NULL if highest is None else highest.encode(errors="replace"), chosen)
    if status != 0:
        raise KernelError(
            f"unknown instruction set {highest!r}; known here: {', '.join(isa_names())}", status="E_ISA"
        )
    return int(chosen[0])


def address(pointer: Any) -> int:
    """Return where a pointer of cffi points to, or where a function of C begins."""
    return int(ffi.cast("uintptr_t", pointer))


def aligned(size: int) -> Any:
    """Return ``size`` bytes as a pointer that keeps them alive; untouched pages cost no memory."""
    alignment = int(lib.MRN_BLOCK_ALIGN)
    block = np.empty(size + alignment, np.uint8)
    start = -int(ffi.cast("uintptr_t", ffi.from_buffer(block))) % alignment
    return ffi.from_buffer(block[start : start + size])
