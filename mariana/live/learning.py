"""How selections become score: forward decay.

Each selection at time t weighs 2^(t / half-life), so that weights only ever grow: a selection raises one entry and
time moves nothing (G. Cormode, V. Shkapenyuk, D. Srivastava, B. Xu, "Forward Decay: A Practical Time Decay Model for
Streaming Systems", ICDE 2009). What is kept of an entry is the base-2 logarithm of the sum of its weights. A *landmark*
is the time as of which weights are counted: moving it lets all learnt parts fade by one factor, and keeps their order.

Times are days since 1970, half-lives are days.
"""

from __future__ import annotations

import math
import sys
import time

DAY = 86400.0
LEAST_SCORE = 1e-9
"""A learnt part is a multiple of the entry's own score; of this where that is 0."""

FORGOTTEN = 1 / 64
"""Selections below which an entry counts as never chosen: one, six half-lives ago."""

STEPS_PER_HALF_LIFE = 8
"""Times that the landmark moves in a half-life: between two moves a new selection counts up to 2^(1/8) = 1.09."""


TICKS_PER_HALF_LIFE = 1024
"""Time is told in such ticks, so that a selection just made counts as 1, and not as 1.0000012."""


def tick(time: float, half_life: float) -> float:
    """Return the last tick before a time, both in days."""
    return math.floor(time / half_life * TICKS_PER_HALF_LIFE) / TICKS_PER_HALF_LIFE * half_life


class Clock:
    """The time to go by, which never goes back and takes no part in jumps of the machine's clock.

    It starts from the machine's clock, but not before the time gone by last, and at most one half-life behind it; from
    then on it counts what has passed. A clock that is wrong when a process starts thus costs at most a factor of two of
    what was learnt.

    Args:
        last: the time gone by last, days since 1970.
        half_life: days.
    """

    def __init__(self, last: float, half_life: float) -> None:
        self._start = min(max(time.time() / DAY, last), last + half_life) - _passed()
        self._half_life = half_life

    def now(self, last: float) -> float:
        """Return the time, not before ``last``, which another process may have gone by."""
        return max(tick(self._start + _passed(), self._half_life), last)


def _passed() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME) / DAY


def add_selection(weight: float, clock: float, half_life: float) -> float:
    """Return log2(2^weight + 2^(clock / half_life)), the weight with one selection more; -inf is none so far."""
    one = clock / half_life
    low, high = sorted((weight, one))
    return high + math.log2(1 + 2 ** (low - high))


def selections(weight: float, landmark: float, half_life: float) -> float:
    """Return how many selections as of the landmark a weight stands for."""
    return float(2 ** min(weight - landmark / half_life, 1000.0))


def reweigh(weight: float, clock: float, half_life: float, other: float) -> float:
    """Return the weight under another half-life that stands for as many selections as of now."""
    return weight - clock / half_life + clock / other


def learned_part(score: float, count: float) -> float:
    """Return what ``count`` selections add to a score: as many times the score again, to nine digits.

    The sum stays finite, and what is added grows with the count.
    """
    part = min(float(f"{count * max(score, LEAST_SCORE):.9g}"), sys.float_info.max)
    return min(part, sys.float_info.max - score)
