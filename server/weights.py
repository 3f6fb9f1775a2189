"""Packed weights that the workers of one server hold once: a range of addresses that is the same in all of them.

A packed network points into itself and to the kernels, so it can be used by another process only where it lies at the
same address. The workers are forked from one process that has reserved the range and loaded the kernels, so it does.
Whoever needs a network that nobody has packed yet packs it; the others wait for that, and then only look at it: its
pages cannot be written any more. It goes when the last worker that uses it lets go of it, or dies.
"""

from __future__ import annotations

import ctypes
import logging
import mmap
import time
import weakref
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .board import PACKED_BYTES, VACANT, Board

KEY_BYTES = 32
SLOTS_MAX = 576
"""Slots of a board: for as many workers as there may be, and those that come before others go."""
RANGE_BYTES = (1 << 38, 1 << 34, 1 << 31)
"""Of addresses, not of memory: the first of these that the system gives."""

_NORESERVE = 0x4000
_PAGE = mmap.PAGESIZE
_ENTRY = np.dtype(
    [
        ("key", f"V{KEY_BYTES}"),
        ("at", "u8"),
        ("size", "u8"),  # 0: the entry is free
        ("packer", "u4"),  # the slot of whoever packs it
        ("ready", "u4"),
        ("users", "u1", (SLOTS_MAX // 8,)),  # a bit a slot
    ]
)

_log = logging.getLogger("mariana.server")


class Weights:
    """The range, as the supervisor and then each worker sees it.

    Args:
        board: of the same server; says what is in the range.

    Raises:
        OSError: the system gives no such range.
    """

    def __init__(self, board: Board) -> None:
        self._board = board
        self._entries = np.frombuffer(board.packed, _ENTRY, PACKED_BYTES // _ENTRY.itemsize)
        self._range = _reserve()
        self._bytes = np.frombuffer(self._range, np.uint8)
        self._slot = -1
        self._uses: Counter[bytes] = Counter()
        self._left: list[bytes] = []
        libc = ctypes.CDLL(None, use_errno=True)
        self._mprotect = libc.mprotect
        self._mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]

    def join(self, slot: int) -> None:
        """Use it as the worker of a slot; what another worker has left there is let go of."""
        self._slot = slot
        with self._board.lock():
            for entry in self._entries[self._entries["size"] > 0]:
                self._use(entry["key"].tobytes(), used=False)
            self._sweep()

    def take(
        self, key: bytes, size: int, fill: Callable[[NDArray[np.uint8]], None]
    ) -> NDArray[np.uint8] | None:
        """Return a block with what ``fill`` writes; it is filled by whoever comes first with its key.

        Args:
            key: tells blocks apart, 32 bytes.
            size: of the block.
            fill: writes the block; raises what this raises.

        Returns:
            (size,) at the start of a page, not writable; it is let go of with the last reference to it. None: there is
            no room.
        """
        while True:
            with self._board.lock():
                self._sweep()
                entry = self._find(key)
                if entry is None:
                    entry = self._place(key, size)
                    if entry is None:
                        return None
                elif not entry["ready"] and self._gone(int(entry["packer"])):
                    entry["packer"] = self._slot
                mine = not entry["ready"] and entry["packer"] == self._slot
                if entry["ready"] or mine:
                    self._uses[key] += 1
                    self._use(key, used=True)
                    break
            time.sleep(0.002)
        at = int(entry["at"])
        block = self._bytes[at : at + size]
        weakref.finalize(block, self._let_go, key).atexit = False
        if mine:
            self._protect(at, size, writable=True)
            try:
                fill(block)
            except BaseException:
                entry["packer"] = SLOTS_MAX  # nobody: whoever waits tries for himself
                raise
            entry["ready"] = 1
        self._protect(at, size, writable=False)
        block.flags.writeable = False
        return block

    def in_use(self) -> int:
        """Return the bytes that are taken."""
        return int(self._entries["size"].sum())

    def _find(self, key: bytes) -> Any:
        found = np.flatnonzero((self._entries["size"] > 0) & (self._entries["key"] == np.void(key)))
        return self._entries[found[0]] if len(found) else None

    def _place(self, key: bytes, size: int) -> Any:
        """Give a new entry the first gap that is large enough."""
        entries = self._entries
        free = np.flatnonzero(entries["size"] == 0)
        taken = np.sort(entries[entries["size"] > 0], order="at")
        at = 0
        for entry in taken:
            if at + size <= int(entry["at"]):
                break
            at = -(-int(entry["at"] + entry["size"]) // _PAGE) * _PAGE
        if not len(free) or at + size > len(self._bytes):
            _log.warning("no room is left for weights that workers share: this worker has its own")
            return None
        entry = entries[free[0]]
        entry["key"], entry["at"], entry["packer"], entry["ready"] = np.void(key), at, self._slot, 0
        entry["users"] = 0
        entry["size"] = size
        return entry

    def _use(self, key: bytes, *, used: bool) -> None:
        entry = self._find(key)
        if entry is not None:
            byte, bit = divmod(self._slot, 8)
            if used:
                entry["users"][byte] |= 1 << bit
            else:
                entry["users"][byte] &= 0xFF ^ (1 << bit)
                if entry["packer"] == self._slot and not entry["ready"]:
                    entry["packer"] = SLOTS_MAX  # nobody

    def _gone(self, slot: int) -> bool:
        return slot >= len(self._board.slots) or self._board.slots[slot].state == VACANT

    def _sweep(self) -> None:
        """Give back what nobody uses."""
        left, self._left = self._left, []
        for key in left:
            self._uses[key] -= 1
            if self._uses[key] <= 0:
                del self._uses[key]
                self._use(key, used=False)
        there = np.zeros(SLOTS_MAX, np.uint8)
        there[: len(self._board.slots)] = [slot.state != VACANT for slot in self._board.slots]
        mask = np.packbits(there, bitorder="little")
        for number in np.flatnonzero(self._entries["size"] > 0):
            entry = self._entries[number]
            entry["users"] &= mask
            if not entry["users"].any():
                at, size = int(entry["at"]), -(-int(entry["size"]) // _PAGE) * _PAGE
                self._protect(at, size, writable=True)
                self._range.madvise(mmap.MADV_REMOVE, at, size)
                entry["size"] = 0

    def _let_go(self, key: bytes) -> None:
        """Let go of a block; where the lock is taken, whoever takes it here next does it."""
        self._left.append(key)
        with self._board.lock(wait=False) as locked:
            if locked:
                self._sweep()

    def _protect(self, at: int, size: int, *, writable: bool) -> None:
        mode = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
        if self._mprotect(self._bytes.ctypes.data + at, -(-size // _PAGE) * _PAGE, mode) != 0:
            raise OSError(ctypes.get_errno(), "cannot protect the weights that workers share")


def _reserve() -> mmap.mmap:
    for size in RANGE_BYTES:
        try:
            found = mmap.mmap(-1, size, flags=mmap.MAP_SHARED | mmap.MAP_ANONYMOUS | _NORESERVE)
        except OSError as error:
            refused = error
        else:
            found.madvise(mmap.MADV_DONTDUMP)
            return found
    raise refused
