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


def advance(clock: float, half_life: float, now: float | None = None) -> float:
    """Return the time to go by: the machine's, but never back, and at most one half-life on at once.

    A clock that was wrong for a while thus costs at most a factor of two of what was learnt, and stops no decay for
    longer than it was ahead.

    Args:
        clock: the time gone by last, days.
        half_life: days.
        now: days since 1970; None asks the machine.
    """
    now = time.time() / DAY if now is None else now
    return min(max(now, clock), clock + half_life)


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
    """Return what ``count`` selections add to a score: as many times the score again.

    The sum stays finite, and what is added grows with the count.
    """
    part = min(count * max(score, LEAST_SCORE), sys.float_info.max)
    return min(part, sys.float_info.max - score)
