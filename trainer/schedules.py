"""Learning rates that change from step to step; give one to an optimizer as its ``learning_rate``.

Names and formulas are those of Keras 3, but for ``StepDecay`` and ``WarmUp``, which Keras lacks; its ``warmup_steps`` of
the cosine are a ``WarmUp`` around it, and there is no ``cycle`` of the polynomial.
"""

from __future__ import annotations

import math
from typing import Any

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


class StepDecay(ExponentialDecay):
    """``initial * decay_rate ** floor(step / decay_steps)``: a tenth after so many steps, a hundredth after twice as many.

    Args:
        initial_learning_rate: where it begins; positive.
        decay_steps: steps between two falls; at least 1.
        decay_rate: factor; above 0 and at most 1.
    """

    name = "step_decay"

    def __init__(self, initial_learning_rate: float, decay_steps: int, decay_rate: float = 0.1) -> None:
        super().__init__(initial_learning_rate, decay_steps, decay_rate, staircase=True)

    def config(self) -> dict[str, Any]:
        """Return the arguments that make the same schedule, and its name."""
        return {name: value for name, value in super().config().items() if name != "staircase"}


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
