"""How many threads NumPy's BLAS may use while a network learns."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from functools import cache

from threadpoolctl import ThreadpoolController

from . import checks

_ONE_THREAD_BELOW = 1_000_000
"""Parameters. A step of a smaller network is over before a second thread has woken up: on two busy cores the digits
network (17,226 parameters) took 7 times the time with two threads. One thread also makes the sums of a matrix product
come in one order, so that the result does not depend on the number of cores."""

_chosen: ContextVar[int | None] = ContextVar("threads", default=None)


@contextmanager
def use_threads(count: int | None) -> Iterator[None]:
    """Let networks of any size learn and predict on so many BLAS threads within the ``with`` block.

    More threads add up the products in another order: for the same bits, take the same number of threads.

    Args:
        count: from 1; None: one for networks of fewer than a million parameters, else as many as BLAS takes by itself.

    Raises:
        InvalidInputError: not a whole number from 1.
    """
    token = _chosen.set(None if count is None else checks.whole_number("threads", count))
    try:
        yield
    finally:
        _chosen.reset(token)


@cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController()  # type: ignore[no-untyped-call]  # threadpoolctl has no types


def blas_threads(parameters: int) -> AbstractContextManager[object]:
    """Return a context in which BLAS uses the threads chosen; else one, for a network too small to gain from more."""
    count = _chosen.get()
    if count is None and parameters >= _ONE_THREAD_BELOW:
        return nullcontext()
    context: AbstractContextManager[object] = _controller().limit(limits=count or 1, user_api="blas")
    return context
