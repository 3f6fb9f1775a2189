"""Optimizers: each updates one flat parameter vector from one flat gradient vector, in place.

Formulas and defaults are those of Keras 3.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from mariana.errors import InvalidInputError

from . import checks
from .buffers import Array
from .registry import get as _get


class Optimizer:
    """Makes the loss smaller, step by step.

    Args:
        learning_rate: length of a step; positive.
    """

    name = ""

    def __init__(self, learning_rate: float) -> None:
        self.learning_rate = checks.number("learning_rate", learning_rate, 0, above=True)
        self.iterations = 0

    def config(self) -> dict[str, Any]:
        """Return the arguments that make the same optimizer."""
        return {"name": self.name, "learning_rate": self.learning_rate}

    def build(self, parameters: Array) -> None:
        """Forget all steps and make the state for a flat vector of parameters."""
        del parameters
        self.iterations = 0

    def update(self, parameters: Array, gradients: Array) -> None:
        """Do one step in place; both are flat vectors of the same length; the gradients are used up."""
        raise NotImplementedError


class SGD(Optimizer):
    """Stochastic gradient descent: ``p -= learning_rate * g``; with momentum ``v = momentum * v - learning_rate * g``.

    Then ``p += v``, or with Nesterov's look-ahead ``p += momentum * v - learning_rate * g``.

    Args:
        learning_rate: length of a step; positive.
        momentum: share of the last step that is kept; 0 to below 1.
        nesterov: whether to look ahead; needs momentum.
    """

    name = "sgd"

    def __init__(self, learning_rate: float = 0.01, momentum: float = 0.0, nesterov: bool = False) -> None:
        super().__init__(learning_rate)
        self.momentum = checks.number("momentum", momentum, 0, 1)
        self.nesterov = nesterov
        if nesterov and not momentum:
            raise InvalidInputError("nesterov needs a momentum above 0, for example momentum=0.9")

    def config(self) -> dict[str, Any]:
        """Return the arguments that make the same optimizer."""
        return super().config() | {"momentum": self.momentum, "nesterov": self.nesterov}

    def build(self, parameters: Array) -> None:
        """Make the velocity, if there is momentum."""
        super().build(parameters)
        self._velocity = np.zeros_like(parameters) if self.momentum else None

    def update(self, parameters: Array, gradients: Array) -> None:
        """Do one step."""
        self.iterations += 1
        np.multiply(gradients, self.learning_rate, out=gradients)
        if self._velocity is None:
            np.subtract(parameters, gradients, out=parameters)
            return
        velocity = self._velocity
        np.multiply(velocity, self.momentum, out=velocity)
        np.subtract(velocity, gradients, out=velocity)
        if self.nesterov:
            np.subtract(parameters, gradients, out=parameters)
            np.multiply(velocity, self.momentum, out=gradients)
            np.add(parameters, gradients, out=parameters)
        else:
            np.add(parameters, velocity, out=parameters)


class Adam(Optimizer):
    """Adam (Kingma and Ba, 2015): steps scaled by running means of the gradient and of its square.

    ``m += (g - m) (1 - beta_1)``, ``v += (g² - v) (1 - beta_2)``,
    ``p -= learning_rate * sqrt(1 - beta_2^t) / (1 - beta_1^t) * m / (sqrt(v) + epsilon)``.

    Args:
        learning_rate: length of a step; positive.
        beta_1: memory of the mean of the gradient; 0 to below 1.
        beta_2: memory of the mean of its square; 0 to below 1.
        epsilon: keeps the division tame; positive.
    """

    name = "adam"

    def __init__(
        self,
        learning_rate: float = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
    ) -> None:
        super().__init__(learning_rate)
        self.beta_1 = checks.number("beta_1", beta_1, 0, 1)
        self.beta_2 = checks.number("beta_2", beta_2, 0, 1)
        self.epsilon = checks.number("epsilon", epsilon, 0, above=True)

    def config(self) -> dict[str, Any]:
        """Return the arguments that make the same optimizer."""
        return super().config() | {"beta_1": self.beta_1, "beta_2": self.beta_2, "epsilon": self.epsilon}

    def build(self, parameters: Array) -> None:
        """Make both running means."""
        super().build(parameters)
        self._mean = np.zeros_like(parameters)
        self._square = np.zeros_like(parameters)
        self._scratch = np.empty_like(parameters)

    def update(self, parameters: Array, gradients: Array) -> None:
        """Do one step."""
        self.iterations += 1
        t = self.iterations
        rate = self.learning_rate * math.sqrt(1 - self.beta_2**t) / (1 - self.beta_1**t)
        mean, square, scratch = self._mean, self._square, self._scratch
        np.subtract(gradients, mean, out=scratch)
        np.multiply(scratch, 1 - self.beta_1, out=scratch)
        np.add(mean, scratch, out=mean)
        np.multiply(gradients, gradients, out=gradients)
        np.subtract(gradients, square, out=gradients)
        np.multiply(gradients, 1 - self.beta_2, out=gradients)
        np.add(square, gradients, out=square)
        np.sqrt(square, out=scratch)
        np.add(scratch, self.epsilon, out=scratch)
        np.divide(mean, scratch, out=scratch)
        np.multiply(scratch, rate, out=scratch)
        np.subtract(parameters, scratch, out=parameters)


OPTIMIZERS: dict[str, Callable[[], Optimizer]] = {"sgd": SGD, "adam": Adam}
"""The optimizers by name."""


def get(value: str | Optimizer) -> Optimizer:
    """Return the optimizer of that name, with its defaults."""
    return _get("optimizer", OPTIMIZERS, value, Optimizer)
