"""Running means, and the moving average of a network's parameters."""

from __future__ import annotations

import numpy as np

from .buffers import Array


def follow(average: Array, value: Array, share: float, out: Array) -> None:
    """Move an average by a share of the way to a value; ``out`` is scratch, and may be ``value``."""
    np.subtract(value, average, out=out)
    np.multiply(out, share, out=out)
    np.add(average, out, out=average)


class Average:
    """An exponential moving average of the parameters, free of the bias towards where it began (Polyak; Adam's way).

    ``sum += (p - sum) (1 - momentum)`` from 0, and the average is ``sum / (1 - momentum^steps)``.

    Args:
        parameters: the flat vector.
        momentum: memory; 0 to below 1.

    Attributes:
        sum: not corrected for the bias yet.
        steps: parameters seen.
    """

    def __init__(self, parameters: Array, momentum: float) -> None:
        self.momentum = momentum
        self.steps = 0
        self.sum = np.zeros_like(parameters)
        self._raw = np.empty_like(parameters)
        self._scratch = np.empty_like(parameters)
        self.shown = False

    def follow(self, parameters: Array) -> None:
        """See the parameters after a step."""
        self.steps += 1
        follow(self.sum, parameters, 1 - self.momentum, self._scratch)

    def show(self, parameters: Array) -> None:
        """Put the average in the place of the parameters, which are kept."""
        if self.steps and not self.shown:
            np.copyto(self._raw, parameters)
            np.divide(self.sum, 1 - self.momentum**self.steps, out=parameters)
            self.shown = True

    def hide(self, parameters: Array) -> None:
        """Give the parameters back, so that learning can go on."""
        if self.shown:
            np.copyto(parameters, self._raw)
            self.shown = False

    def raw(self, parameters: Array) -> Array:
        """Return the parameters that learning goes on with, whether the average is shown or not."""
        return self._raw if self.shown else parameters

    def begin_anew(self) -> None:
        """Forget all: the parameters have been set from outside."""
        self.steps, self.shown = 0, False
        self.sum[...] = 0
