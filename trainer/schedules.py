"""Learning rates that change from step to step; give one to an optimizer as its ``learning_rate``.

Names and formulas are those of Keras 3, but for ``StepDecay``, ``OneCycle`` and ``WarmUp``, which Keras lacks; its
``warmup_steps`` of the cosine are a ``WarmUp`` around it, and there is no ``cycle`` of the polynomial. The rate that falls
when a number no longer improves is a callback: ``ReduceLROnPlateau``.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from mariana.errors import InvalidInputError

from . import checks


class Schedule:
    """A learning rate for each step.

    Args:
        initial_learning_rate: where it begins; positive.
        decay_steps: steps of the optimizer (not epochs) in which it falls; at least 1.
    """

    name = ""

    def __init__(self, initial_learning_rate: float, decay_steps: int) -> None:
        self.initial_learning_rate = checks.number(
            "initial_learning_rate", initial_learning_rate, 0, above=True
        )
        self.decay_steps = checks.whole_number("decay_steps", decay_steps)

    def __call__(self, step: int) -> float:
        """Return the rate of a step; they count from 0."""
        raise NotImplementedError

    def config(self) -> dict[str, Any]:
        """Return the arguments that make the same schedule, and its name."""
        return {"name": self.name} | vars(self)


class ExponentialDecay(Schedule):
    """``initial * decay_rate ** (step / decay_steps)``.

    Args:
        initial_learning_rate: where it begins; positive.
        decay_steps: steps in which it falls to ``decay_rate`` of itself; at least 1.
        decay_rate: factor; above 0 and at most 1.
        staircase: whether it falls once every ``decay_steps``, not a little in each step.
    """

    name = "exponential_decay"

    def __init__(
        self, initial_learning_rate: float, decay_steps: int, decay_rate: float, staircase: bool = False
    ) -> None:
        super().__init__(initial_learning_rate, decay_steps)
        self.decay_rate = checks.number("decay_rate", decay_rate, 0, math.nextafter(1, 2), above=True)
        self.staircase = staircase

    def __call__(self, step: int) -> float:
        """Return the rate of a step; they count from 0."""
        power = step // self.decay_steps if self.staircase else step / self.decay_steps
        return self.initial_learning_rate * self.decay_rate**power


class StepDecay(Schedule):
    """A tenth after so many steps, a hundredth after twice as many; or a tenth more at each of some boundaries.

    ``initial * decay_rate ** floor(step / decay_steps)``, or ``initial * decay_rate ** (boundaries reached)``: with
    ``n`` steps an epoch ``StepDecay(0.1, [30 * n, 60 * n, 90 * n])`` is the recipe of residual networks (He et al.,
    2016).

    Args:
        initial_learning_rate: where it begins; positive.
        decay_steps: steps between two falls, at least 1; or the rising steps from which on the rate is lower.
        decay_rate: factor of each fall; above 0 and at most 1.
    """

    name = "step_decay"

    def __init__(
        self, initial_learning_rate: float, decay_steps: int | Sequence[int], decay_rate: float = 0.1
    ) -> None:
        every = decay_steps if not isinstance(decay_steps, Sequence) else 1
        super().__init__(initial_learning_rate, every)
        self.boundaries: tuple[int, ...] = ()
        if isinstance(decay_steps, Sequence):
            self.boundaries = _boundaries("decay_steps", decay_steps)
        self.decay_rate = checks.number("decay_rate", decay_rate, 0, math.nextafter(1, 2), above=True)

    def __call__(self, step: int) -> float:
        """Return the rate of a step; they count from 0."""
        falls = bisect_right(self.boundaries, step) if self.boundaries else step // self.decay_steps
        return self.initial_learning_rate * self.decay_rate**falls

    def config(self) -> dict[str, Any]:
        """Return the arguments that make the same schedule, and its name."""
        return {
            "name": self.name,
            "initial_learning_rate": self.initial_learning_rate,
            "decay_steps": list(self.boundaries) or self.decay_steps,
            "decay_rate": self.decay_rate,
        }


class PiecewiseConstantDecay(Schedule):
    """One rate up to each boundary, and a last one after it.

    Args:
        boundaries: rising steps; the rate up to and with a boundary is the one before it, as in Keras.
        values: the rates, one more than there are boundaries; positive.
    """

    name = "piecewise_constant_decay"

    def __init__(self, boundaries: Sequence[int], values: Sequence[float]) -> None:
        self.boundaries = _boundaries("boundaries", boundaries)
        self.values = tuple(checks.number("each of values", value, 0, above=True) for value in values)
        if len(self.values) != len(self.boundaries) + 1:
            raise InvalidInputError(
                f"{len(self.boundaries)} boundaries need {len(self.boundaries) + 1} values, found {len(self.values)}"
            )

    def __call__(self, step: int) -> float:
        """Return the rate of a step; they count from 0."""
        return self.values[bisect_left(self.boundaries, step)]

    def config(self) -> dict[str, Any]:
        """Return the arguments that make the same schedule, and its name."""
        return {"name": self.name, "boundaries": list(self.boundaries), "values": list(self.values)}


class InverseTimeDecay(ExponentialDecay):
    """``initial / (1 + decay_rate * step / decay_steps)``.

    Args:
        initial_learning_rate: where it begins; positive.
        decay_steps: steps in which the denominator grows by ``decay_rate``; at least 1.
        decay_rate: how fast it falls; positive.
        staircase: whether it falls once every ``decay_steps``, not a little in each step.
    """

    name = "inverse_time_decay"

    def __init__(
        self, initial_learning_rate: float, decay_steps: int, decay_rate: float, staircase: bool = False
    ) -> None:
        super().__init__(initial_learning_rate, decay_steps, 1, staircase)
        self.decay_rate = checks.number("decay_rate", decay_rate, 0, above=True)

    def __call__(self, step: int) -> float:
        """Return the rate of a step; they count from 0."""
        time = step // self.decay_steps if self.staircase else step / self.decay_steps
        return self.initial_learning_rate / (1 + self.decay_rate * time)


class CosineDecay(Schedule):
    """Half a cosine from ``initial`` to ``alpha * initial`` (Loshchilov and Hutter, 2017), then it stays there.

    Args:
        initial_learning_rate: where it begins; positive.
        decay_steps: steps in which it falls; at least 1.
        alpha: share of the initial rate that is left; 0 to below 1.
    """

    name = "cosine_decay"

    def __init__(self, initial_learning_rate: float, decay_steps: int, alpha: float = 0.0) -> None:
        super().__init__(initial_learning_rate, decay_steps)
        self.alpha = checks.number("alpha", alpha, 0, 1)

    def __call__(self, step: int) -> float:
        """Return the rate of a step; they count from 0."""
        cosine = (1 + math.cos(math.pi * min(step / self.decay_steps, 1))) / 2
        return self.initial_learning_rate * ((1 - self.alpha) * cosine + self.alpha)


class CosineDecayRestarts(Schedule):
    """The cosine again and again (SGDR: Loshchilov and Hutter, 2017): each restart leaves a minimum that is too narrow.

    Args:
        initial_learning_rate: where it begins; positive.
        first_decay_steps: steps of the first period; at least 1.
        t_mul: each period is so many times as long as the one before; at least 1.
        m_mul: each period begins at so many times the rate of the one before; above 0.
        alpha: share of the initial rate that is left at the end of a period; 0 to below 1.
    """

    name = "cosine_decay_restarts"

    def __init__(
        self,
        initial_learning_rate: float,
        first_decay_steps: int,
        t_mul: float = 2.0,
        m_mul: float = 1.0,
        alpha: float = 0.0,
    ) -> None:
        super().__init__(initial_learning_rate, first_decay_steps)
        self.t_mul = checks.number("t_mul", t_mul, 1)
        self.m_mul = checks.number("m_mul", m_mul, 0, above=True)
        self.alpha = checks.number("alpha", alpha, 0, 1)

    def __call__(self, step: int) -> float:
        """Return the rate of a step; they count from 0."""
        done = step / self.decay_steps
        if self.t_mul == 1:
            period = math.floor(done)
            share = done - period
        else:
            period = math.floor(math.log(1 - done * (1 - self.t_mul), self.t_mul) + 1e-9)
            begin = (1 - self.t_mul**period) / (1 - self.t_mul)
            share = (done - begin) / self.t_mul**period
        cosine = self.m_mul**period * (1 + math.cos(math.pi * share)) / 2
        return self.initial_learning_rate * ((1 - self.alpha) * cosine + self.alpha)

    def config(self) -> dict[str, Any]:
        """Return the arguments that make the same schedule, and its name."""
        config = super().config()
        config["first_decay_steps"] = config.pop("decay_steps")
        return config


class OneCycle(Schedule):
    """Up to a high rate and down to almost nothing, along half cosines (Smith and Topin, 2018): fast, in few epochs.

    ``torch.optim.lr_scheduler.OneCycleLR`` without its change of the momentum.

    Args:
        max_learning_rate: the highest rate; positive.
        total_steps: of the training; at least 2.
        pct_start: share of the steps in which it rises; above 0 and below 1.
        div_factor: it begins at the highest rate divided by this; at least 1.
        final_div_factor: it ends at the first rate divided by this; at least 1.
    """

    name = "one_cycle"

    def __init__(
        self,
        max_learning_rate: float,
        total_steps: int,
        pct_start: float = 0.3,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
    ) -> None:
        self.max_learning_rate = checks.number("max_learning_rate", max_learning_rate, 0, above=True)
        self.total_steps = checks.whole_number("total_steps", total_steps, 2)
        self.pct_start = checks.number("pct_start", pct_start, 0, 1, above=True)
        self.div_factor = checks.number("div_factor", div_factor, 1)
        self.final_div_factor = checks.number("final_div_factor", final_div_factor, 1)

    def __call__(self, step: int) -> float:
        """Return the rate of a step; they count from 0, and it stays at the last one."""
        top, last = self.pct_start * self.total_steps - 1, self.total_steps - 1
        first = self.max_learning_rate / self.div_factor
        if step < top:
            return _along_cosine(first, self.max_learning_rate, step / top)
        share = min((step - top) / (last - top), 1)
        return _along_cosine(self.max_learning_rate, first / self.final_div_factor, share)


def _along_cosine(begin: float, end: float, share: float) -> float:
    return end + (begin - end) / 2 * (1 + math.cos(math.pi * share))


def _boundaries(name: str, steps: Sequence[int]) -> tuple[int, ...]:
    found = tuple(checks.whole_number(f"each of {name}", step) for step in steps)
    if not found or any(a >= b for a, b in pairwise(found)):
        raise InvalidInputError(f"{name} is {list(found)}: the steps must rise")
    return found


class PolynomialDecay(Schedule):
    """``(initial - end) * (1 - step / decay_steps) ** power + end``, then it stays there.

    Args:
        initial_learning_rate: where it begins; positive.
        decay_steps: steps in which it falls; at least 1.
        end_learning_rate: where it ends; 0 or more.
        power: 1 is a straight line; positive.
    """

    name = "polynomial_decay"

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: int,
        end_learning_rate: float = 0.0001,
        power: float = 1.0,
    ) -> None:
        super().__init__(initial_learning_rate, decay_steps)
        self.end_learning_rate = checks.number("end_learning_rate", end_learning_rate, 0)
        self.power = checks.number("power", power, 0, above=True)

    def __call__(self, step: int) -> float:
        """Return the rate of a step; they count from 0."""
        left = 1 - min(step / self.decay_steps, 1)
        span = self.initial_learning_rate - self.end_learning_rate
        return span * math.pow(left, self.power) + self.end_learning_rate


class WarmUp(Schedule):
    """Rises in a straight line to where another schedule begins, then goes on with that one from its step 0.

    Args:
        schedule: a schedule, or the rate that is kept after the rise.
        steps: of the rise; the last of them has the full rate; at least 1.
    """

    name = "warm_up"

    def __init__(self, schedule: float | Schedule, steps: int) -> None:
        self.schedule = (
            schedule if isinstance(schedule, Schedule) else checks.number("schedule", schedule, 0, above=True)
        )
        self.steps = checks.whole_number("steps", steps)

    def __call__(self, step: int) -> float:
        """Return the rate of a step; they count from 0."""
        following = self._following(max(step - self.steps, 0))
        return following * min((step + 1) / self.steps, 1)

    def _following(self, step: int) -> float:
        return self.schedule(step) if isinstance(self.schedule, Schedule) else self.schedule

    def config(self) -> dict[str, Any]:
        """Return the arguments that make the same schedule, and its name."""
        inner = self.schedule.config() if isinstance(self.schedule, Schedule) else self.schedule
        return {"name": self.name, "schedule": inner, "steps": self.steps}
