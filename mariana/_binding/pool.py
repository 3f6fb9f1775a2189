"""Helper threads: one pool for each number of threads that somebody asked for, shared by all models."""

from __future__ import annotations

from functools import cache
from typing import Any

from mariana._binding import aligned, check, ffi, lib

MAX_THREADS = int(lib.MRN_MAX_THREADS)


class Pool:
    """Threads that share the work of a prediction; idle ones cost no time.

    Args:
        threads: with the caller's own, 1 to ``MAX_THREADS``.

    Raises:
        KernelError: the number is out of its range, or the system starts no more threads.
    """

    __slots__ = ("__weakref__", "_block", "handle")

    def __init__(self, threads: int) -> None:
        size = int(lib.mrn_pool_bytes())
        self._block = aligned(size)
        pool = ffi.new("mrn_pool **")
        check(lib.mrn_pool_open(threads, self._block, size, pool), f"start a pool of {threads} threads")
        self.handle: Any = ffi.gc(pool[0], lib.mrn_pool_close)

    def keep(self, block: Any) -> Any:
        """Return ``block`` as a pointer that waits for late helpers before its memory is given back."""

        def let_go(_: object, pool: Pool = self) -> None:
            lib.mrn_pool_settle(pool.handle)

        return ffi.gc(block, let_go)


@cache
def pool_of(threads: int) -> Pool:
    """Return this process's pool of so many threads; it starts with the first call."""
    return Pool(threads)
