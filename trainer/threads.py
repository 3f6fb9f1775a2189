"""How many threads NumPy's BLAS may use while a network learns."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import cache

from threadpoolctl import ThreadpoolController

_ONE_THREAD_BELOW = 1_000_000
"""Parameters. A step of a smaller network is over before a second thread has woken up: on two busy cores the digits
network (17,226 parameters) took 7 times the time with two threads. One thread also makes the sums of a matrix product
come in one order, so that the result does not depend on the number of cores."""


@cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController()  # type: ignore[no-untyped-call]  # threadpoolctl has no types


def blas_threads(parameters: int) -> AbstractContextManager[object]:
    """Return a context in which BLAS uses one thread, for a network too small to gain from more."""
    if parameters >= _ONE_THREAD_BELOW:
        return nullcontext()
    context: AbstractContextManager[object] = _controller().limit(limits=1, user_api="blas")
    return context
