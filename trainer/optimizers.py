"""Optimizers: each updates one flat parameter vector from one flat gradient vector, in place.

Formulas and defaults are those of Keras 3. What they share is in ``optimizer.py``; ``csrc/train_template.h`` holds the same
steps, each fused into one pass.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, Unpack

import numpy as np

from mariana.errors import InvalidInputError

from . import checks
from .average import follow
from .buffers import Array
from .optimizer import Common, Optimizer
from .registry import get as _get
from .schedules import Schedule

__all__ = [
    "OPTIMIZERS",
    "SGD",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "Common",
    "Nadam",
    "Optimizer",
    "RMSprop",
    "get",
]


class SGD(Optimizer):
    """Stochastic gradient descent: ``p -= learning_rate * g``; with momentum ``v = momentum * v - learning_rate * g``.

    Then ``p += v``, or with Nesterov's look-ahead ``p += momentum * v - learning_rate * g``.

    Args:
        learning_rate: length of a step; positive, or a schedule.
        momentum: share of the last step that is kept; 0 to below 1.
        nesterov: whether to look ahead; needs momentum.
    """

    name = "sgd"

    def __init__(
        self,
        learning_rate: float | Schedule = 0.01,
        momentum: float = 0.0,
        nesterov: bool = False,
        **common: Unpack[Common],
    ) -> None:
        super().__init__(learning_rate, **common)
        self.momentum = checks.number("momentum", momentum, 0, 1)
        self.nesterov = nesterov
        if nesterov and not momentum:
            raise InvalidInputError("nesterov needs a momentum above 0, for example momentum=0.9")

    def config(self) -> dict[str, Any]:
        """Return the arguments that make the same optimizer."""
        return super().config() | {"momentum": self.momentum, "nesterov": self.nesterov}

    @property
    def rule(self) -> str:
        """The name of the fused step."""
        return "nesterov" if self.nesterov else "momentum" if self.momentum else self.name

    def coefficients(self, rate: float) -> dict[str, float]:
        """Return rate and momentum."""
        return {"rate": rate, "momentum": self.momentum}

    def slot_values(self) -> dict[str, float]:
        """The velocity, if there is momentum."""
        return {"velocity": 0} if self.momentum else {}

    def step(self, parameters: Array, gradients: Array, numbers: Mapping[str, float]) -> None:
        """Do one step."""
        np.multiply(gradients, numbers["rate"], out=gradients)
        velocity = self.slots.get("velocity")
        if velocity is None:
            np.subtract(parameters, gradients, out=parameters)
            return
        np.multiply(velocity, self.momentum, out=velocity)
        np.subtract(velocity, gradients, out=velocity)
        if self.nesterov:
            np.subtract(parameters, gradients, out=parameters)
            np.multiply(velocity, self.momentum, out=gradients)
            np.add(parameters, gradients, out=parameters)
        else:
            np.add(parameters, velocity, out=parameters)


class RMSprop(Optimizer):
    """RMSprop (Hinton, 2012): the gradient divided by the root of a running mean of its square.

    ``v = rho v + (1 - rho) g²``, ``p -= learning_rate * g / sqrt(v + epsilon)``; centred, ``v`` is taken less the square
    of the running mean of ``g``; with momentum the steps add up: ``u = momentum u + step``, ``p -= u``.

    Args:
        learning_rate: length of a step; positive, or a schedule.
        rho: memory of the running means; 0 to below 1.
        momentum: share of the last step that is kept; 0 to below 1.
        epsilon: keeps the division tame; positive.
        centered: whether to divide by the deviation from the mean gradient.
    """

    name = "rmsprop"

    def __init__(
        self,
        learning_rate: float | Schedule = 0.001,
        rho: float = 0.9,
        momentum: float = 0.0,
        epsilon: float = 1e-7,
        centered: bool = False,
        **common: Unpack[Common],
    ) -> None:
        super().__init__(learning_rate, **common)
        self.rho = checks.number("rho", rho, 0, 1)
        self.momentum = checks.number("momentum", momentum, 0, 1)
        self.epsilon = checks.number("epsilon", epsilon, 0, above=True)
        self.centered = centered

    def config(self) -> dict[str, Any]:
        """Return the arguments that make the same optimizer."""
        return super().config() | {
            "rho": self.rho,
            "momentum": self.momentum,
            "epsilon": self.epsilon,
            "centered": self.centered,
        }

    @property
    def rule(self) -> str:
        """The name of the fused step."""
        return self.name + "_centered" * self.centered + "_momentum" * bool(self.momentum)

    def coefficients(self, rate: float) -> dict[str, float]:
        """Return rate, memories and epsilon."""
        return {"rate": rate, "share_2": 1 - self.rho, "momentum": self.momentum, "epsilon": self.epsilon}

    def slot_values(self) -> dict[str, float]:
        """The running means, and the velocity if there is momentum."""
        wanted = {"square": True, "mean": self.centered, "velocity": self.momentum}
        return {name: 0 for name, there in wanted.items() if there}

    def step(self, parameters: Array, gradients: Array, numbers: Mapping[str, float]) -> None:
        """Do one step."""
        scratch, square = self._scratch, self.slots["square"]
        mean, velocity = self.slots.get("mean"), self.slots.get("velocity")
        np.multiply(gradients, gradients, out=scratch)
        follow(square, scratch, 1 - self.rho, scratch)
        if mean is None:
            np.add(square, self.epsilon, out=scratch)
        else:
            follow(mean, gradients, 1 - self.rho, scratch)
            np.multiply(mean, mean, out=scratch)
            np.subtract(square, scratch, out=scratch)
            np.add(scratch, self.epsilon, out=scratch)
        np.sqrt(scratch, out=scratch)
        np.divide(gradients, scratch, out=gradients)
        np.multiply(gradients, numbers["rate"], out=gradients)
        if velocity is not None:
            np.multiply(velocity, self.momentum, out=velocity)
            np.add(velocity, gradients, out=velocity)
            np.copyto(gradients, velocity)
        np.subtract(parameters, gradients, out=parameters)


class Adagrad(Optimizer):
    """Adagrad (Duchi et al., 2011): the gradient divided by the root of the sum of all its squares.

    ``a += g²``, ``p -= learning_rate * g / sqrt(a + epsilon)``: for sparse inputs; its steps only become shorter.

    Args:
        learning_rate: length of a step; positive, or a schedule.
        initial_accumulator_value: the sum at the beginning; 0 or more.
        epsilon: keeps the division tame; positive.
    """

    name = "adagrad"

    def __init__(
        self,
        learning_rate: float | Schedule = 0.001,
        initial_accumulator_value: float = 0.1,
        epsilon: float = 1e-7,
        **common: Unpack[Common],
    ) -> None:
        super().__init__(learning_rate, **common)
        self.initial = checks.number("initial_accumulator_value", initial_accumulator_value, 0)
        self.epsilon = checks.number("epsilon", epsilon, 0, above=True)

    def config(self) -> dict[str, Any]:
        """Return the arguments that make the same optimizer."""
        return super().config() | {"initial_accumulator_value": self.initial, "epsilon": self.epsilon}

    def coefficients(self, rate: float) -> dict[str, float]:
        """Return rate and epsilon."""
        return {"rate": rate, "epsilon": self.epsilon}

    def slot_values(self) -> dict[str, float]:
        """The sum of squares."""
        return {"sum": self.initial}

    def step(self, parameters: Array, gradients: Array, numbers: Mapping[str, float]) -> None:
        """Do one step."""
        scratch, total = self._scratch, self.slots["sum"]
        np.multiply(gradients, gradients, out=scratch)
        np.add(total, scratch, out=total)
        np.add(total, self.epsilon, out=scratch)
        np.sqrt(scratch, out=scratch)
        np.divide(gradients, scratch, out=gradients)
        np.multiply(gradients, numbers["rate"], out=gradients)
        np.subtract(parameters, gradients, out=parameters)


class _Adaptive(Optimizer):
    """What the kin of Adam share: running means of the gradient and of its size.

    Args:
        learning_rate: length of a step; positive, or a schedule.
        beta_1: memory of the mean of the gradient; 0 to below 1.
        beta_2: memory of its size; 0 to below 1.
        epsilon: keeps the division tame; positive.
    """

    def __init__(
        self,
        learning_rate: float | Schedule = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        **common: Unpack[Common],
    ) -> None:
        super().__init__(learning_rate, **common)
        self.beta_1 = checks.number("beta_1", beta_1, 0, 1)
        self.beta_2 = checks.number("beta_2", beta_2, 0, 1)
        self.epsilon = checks.number("epsilon", epsilon, 0, above=True)

    def config(self) -> dict[str, Any]:
        """Return the arguments that make the same optimizer."""
        return super().config() | {"beta_1": self.beta_1, "beta_2": self.beta_2, "epsilon": self.epsilon}

    def coefficients(self, rate: float) -> dict[str, float]:
        """Return rate, memories and epsilon."""
        return {
            "rate": rate,
            "share_1": 1 - self.beta_1,
            "share_2": 1 - self.beta_2,
            "epsilon": self.epsilon,
        }

    def slot_values(self) -> dict[str, float]:
        """Both running means."""
        return {"mean": 0, "square": 0}


class Adam(_Adaptive):
    """Adam (Kingma and Ba, 2015): steps scaled by running means of the gradient and of its square.

    ``m += (g - m) (1 - beta_1)``, ``v += (g² - v) (1 - beta_2)``,
    ``p -= learning_rate * sqrt(1 - beta_2^t) / (1 - beta_1^t) * m / (sqrt(v) + epsilon)``.

    Args:
        learning_rate: length of a step; positive, or a schedule.
        beta_1: memory of the mean of the gradient; 0 to below 1.
        beta_2: memory of the mean of its square; 0 to below 1.
        epsilon: keeps the division tame; positive.
        amsgrad: whether to divide by the largest ``v`` so far (Reddi et al., 2018).
    """

    name = "adam"

    def __init__(
        self,
        learning_rate: float | Schedule = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        amsgrad: bool = False,
        **common: Unpack[Common],
    ) -> None:
        super().__init__(learning_rate, beta_1, beta_2, epsilon, **common)
        self.amsgrad = amsgrad

    def config(self) -> dict[str, Any]:
        """Return the arguments that make the same optimizer."""
        return super().config() | {"amsgrad": self.amsgrad}

    @property
    def rule(self) -> str:
        """The name of the fused step."""
        return "amsgrad" if self.amsgrad else "adam"

    def coefficients(self, rate: float) -> dict[str, float]:
        """Return the numbers for slots that hold ``m / (1 - beta_1)`` and ``v / (1 - beta_2)``, which saves two passes."""
        t, root = self.iterations, math.sqrt(1 - self.beta_2)
        rate *= math.sqrt(1 - self.beta_2**t) / (1 - self.beta_1**t) * (1 - self.beta_1) / root
        return super().coefficients(rate) | {"epsilon": self.epsilon / root}

    def slot_values(self) -> dict[str, float]:
        """Both running means, and their maximum if it is wanted."""
        return super().slot_values() | ({"largest": 0} if self.amsgrad else {})

    def step(self, parameters: Array, gradients: Array, numbers: Mapping[str, float]) -> None:
        """Do one step."""
        scratch = self._scratch
        mean, square = self.slots["mean"], self.slots["square"]
        np.multiply(mean, self.beta_1, out=mean)
        np.add(mean, gradients, out=mean)
        np.multiply(gradients, gradients, out=gradients)
        np.multiply(square, self.beta_2, out=square)
        np.add(square, gradients, out=square)
        if self.amsgrad:
            largest = self.slots["largest"]
            np.maximum(largest, square, out=largest)
            square = largest
        np.sqrt(square, out=scratch)
        np.add(scratch, numbers["epsilon"], out=scratch)
        np.divide(mean, scratch, out=scratch)
        np.multiply(scratch, numbers["rate"], out=scratch)
        np.subtract(parameters, scratch, out=parameters)


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2019): ``p -= learning_rate * weight_decay * p`` first.

    Args:
        learning_rate: length of a step; positive, or a schedule.
        weight_decay: how strongly the parameters shrink, biases too; 0 or more.
        beta_1: memory of the mean of the gradient; 0 to below 1.
        beta_2: memory of the mean of its square; 0 to below 1.
        epsilon: keeps the division tame; positive.
        amsgrad: whether to divide by the largest ``v`` so far.
    """

    name = "adamw"

    def __init__(
        self,
        learning_rate: float | Schedule = 0.001,
        weight_decay: float = 0.004,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        amsgrad: bool = False,
        *,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        use_ema: bool = False,
        ema_momentum: float | None = None,
    ) -> None:
        super().__init__(
            learning_rate,
            beta_1,
            beta_2,
            epsilon,
            amsgrad,
            weight_decay=weight_decay,
            clipnorm=clipnorm,
            clipvalue=clipvalue,
            global_clipnorm=global_clipnorm,
            use_ema=use_ema,
            ema_momentum=ema_momentum,
        )


class Adamax(_Adaptive):
    """Adam with the largest gradient in place of its mean square (Kingma and Ba, 2015, section 7.1).

    ``m += (g - m) (1 - beta_1)``, ``u = max(beta_2 u, |g|)``, ``p -= learning_rate / (1 - beta_1^t) * m / (u + epsilon)``.
    """

    name = "adamax"

    def coefficients(self, rate: float) -> dict[str, float]:
        """Return the numbers of a step, the bias of the mean corrected by the rate."""
        return super().coefficients(rate / (1 - self.beta_1**self.iterations))

    def step(self, parameters: Array, gradients: Array, numbers: Mapping[str, float]) -> None:
        """Do one step."""
        scratch, mean, largest = self._scratch, self.slots["mean"], self.slots["square"]
        follow(mean, gradients, 1 - self.beta_1, scratch)
        np.abs(gradients, out=gradients)
        np.multiply(largest, self.beta_2, out=largest)
        np.maximum(largest, gradients, out=largest)
        np.add(largest, self.epsilon, out=scratch)
        np.divide(mean, scratch, out=scratch)
        np.multiply(scratch, numbers["rate"], out=scratch)
        np.subtract(parameters, scratch, out=parameters)


class Nadam(_Adaptive):
    """Adam with Nesterov's look-ahead (Dozat, 2016), whose first memory grows: ``b_t = beta_1 (1 - 0.96^t / 2)``.

    ``p -= learning_rate * (b_{t+1} m / (1 - b_1 ... b_{t+1}) + (1 - b_t) g / (1 - b_1 ... b_t)) / (sqrt(v') + epsilon)``
    with ``m`` and ``v`` of Adam and ``v' = v / (1 - beta_2^t)``.
    """

    name = "nadam"

    def build(self, parameters: Array, sizes: Mapping[str, int] | Iterable[int] = ()) -> None:
        """Forget all steps and make the state."""
        super().build(parameters, sizes)
        self._product = 1.0

    def coefficients(self, rate: float) -> dict[str, float]:
        """Return the numbers of a step: ``rate`` is its length along the gradient, ``ahead`` along the mean."""
        t = self.iterations
        now, following = (self.beta_1 * (1 - 0.5 * 0.96**s) for s in (t, t + 1))
        self._product *= now
        return super().coefficients(rate * (1 - now) / (1 - self._product)) | {
            "ahead": rate * following / (1 - self._product * following),
            "correction": 1 / (1 - self.beta_2**t),
        }

    def step(self, parameters: Array, gradients: Array, numbers: Mapping[str, float]) -> None:
        """Do one step."""
        scratch, mean, square = self._scratch, self.slots["mean"], self.slots["square"]
        follow(mean, gradients, 1 - self.beta_1, scratch)
        np.multiply(gradients, gradients, out=scratch)
        follow(square, scratch, 1 - self.beta_2, scratch)
        np.multiply(gradients, numbers["rate"], out=gradients)
        np.multiply(mean, numbers["ahead"], out=scratch)
        np.add(gradients, scratch, out=gradients)
        np.multiply(square, numbers["correction"], out=scratch)
        np.sqrt(scratch, out=scratch)
        np.add(scratch, self.epsilon, out=scratch)
        np.divide(gradients, scratch, out=gradients)
        np.subtract(parameters, gradients, out=parameters)

    def state(self) -> tuple[dict[str, float], dict[str, Array]]:
        """Return numbers and arrays that make the next step what it would have been."""
        numbers, arrays = super().state()
        return numbers | {"product": self._product}, arrays

    def restore(self, numbers: Mapping[str, float], arrays: Mapping[str, Array]) -> None:
        """Take what ``state`` returned."""
        super().restore(numbers, arrays)
        self._product = numbers["product"]


OPTIMIZERS: dict[str, type[Optimizer]] = {
    cls.name: cls for cls in (SGD, Adam, AdamW, RMSprop, Adagrad, Adamax, Nadam)
}
"""The optimizers by name."""


def get(value: str | Optimizer) -> Optimizer:
    """Return the optimizer of that name, with its defaults."""
    return _get("optimizer", OPTIMIZERS, value, Optimizer)
