"""Optimizers: each updates one flat parameter vector from one flat gradient vector, in place.

Formulas and defaults are those of Keras 3.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from itertools import accumulate, pairwise
from typing import Any, TypedDict, Unpack

import numpy as np

from mariana.errors import InvalidInputError

from . import checks
from .buffers import Array
from .registry import get as _get
from .schedules import Schedule


class Common(TypedDict, total=False):
    """The arguments that all optimizers share; None or absent: not done.

    Attributes:
        weight_decay: each step first shrinks the parameters by ``learning_rate * weight_decay`` of themselves (decoupled
            decay); for the coupled kind, where the decay goes through the gradient, give the layers an ``L2``.
        clipnorm: the longest gradient of a single weight array; a longer one is shortened.
        clipvalue: the largest number of a gradient; larger ones are cut to it.
        global_clipnorm: the longest gradient of the whole network; a longer one is shortened.
        use_ema: whether a moving average of the parameters is kept; it is what validates, predicts and is exported,
            while learning goes on with the parameters themselves.
        ema_momentum: memory of that average; 0 to below 1; 0.99 if it is not given.
    """

    weight_decay: float | None
    clipnorm: float | None
    clipvalue: float | None
    global_clipnorm: float | None
    use_ema: bool
    ema_momentum: float | None


class Optimizer:
    """Makes the loss smaller, step by step.

    Args:
        learning_rate: length of a step; positive, or a schedule.
        common: see ``Common``; at most one of the three ways to clip.

    Attributes:
        iterations: steps so far.
        slots: arrays that a step needs to know of those before, by name, each as long as the parameters.
    """

    name = ""

    def __init__(self, learning_rate: float | Schedule = 0.001, **common: Unpack[Common]) -> None:
        self.iterations = 0
        self.slots: dict[str, Array] = {}
        self._schedule = learning_rate if isinstance(learning_rate, Schedule) else None
        if not isinstance(learning_rate, Schedule):
            self.learning_rate = learning_rate
        unknown = set(common) - set(Common.__annotations__)
        if unknown:
            raise InvalidInputError(
                f"{type(self).__name__} has no argument {min(unknown)!r}; all optimizers have "
                + ", ".join(Common.__annotations__)
            )
        self._common: dict[str, float] = {}
        for name, value in common.items():
            if value is None or value is False:
                continue
            if name == "use_ema":
                self._common[name] = True
            elif name == "ema_momentum":
                self._common[name] = checks.number(name, value, 0, 1)
            else:
                self._common[name] = checks.number(name, value, 0, above=name != "weight_decay")
        clips = [name for name in self._common if "clip" in name]
        if len(clips) > 1:
            raise InvalidInputError(f"{' and '.join(clips)} exclude each other: choose one")
        if "ema_momentum" in self._common and "use_ema" not in self._common:
            raise InvalidInputError("ema_momentum needs use_ema=True")
        self._spared: tuple[str, ...] = ()
        self._average: Average | None = None
        self._parts: list[slice] = []
        self._decayed: list[slice] = []

    @property
    def learning_rate(self) -> float:
        """The rate of the next step; it can be set unless a schedule gives it."""
        return self._rate if self._schedule is None else self._schedule(self.iterations)

    @learning_rate.setter
    def learning_rate(self, value: float) -> None:
        if self._schedule is not None:
            raise InvalidInputError(
                f"the learning rate follows a {type(self._schedule).__name__}: give the optimizer a number to set it"
            )
        self._rate = checks.number("learning_rate", value, 0, above=True)

    @property
    def average(self) -> Average | None:
        """The moving average of the parameters; None unless ``use_ema`` was given and the network is built."""
        return self._average

    def exclude_from_weight_decay(self, var_names: Iterable[str]) -> None:
        """Spare the weight arrays in whose name (``dense_1/bias``) one of these texts occurs; before building.

        Biases and the gamma and beta of batch normalisations are commonly spared: ``["bias", "gamma", "beta"]``.
        """
        self._spared = tuple(var_names)

    def config(self) -> dict[str, Any]:
        """Return the arguments that make the same optimizer; a schedule is its own config."""
        rate = self._rate if self._schedule is None else self._schedule.config()
        return {"name": self.name, "learning_rate": rate} | self._common

    def build(self, parameters: Array, sizes: Mapping[str, int] | Iterable[int] = ()) -> None:
        """Forget all steps and make the state for a flat vector of parameters.

        Args:
            parameters: the flat vector.
            sizes: numbers of parameters of the weight arrays in it, with or without their names; empty: it is one.
        """
        self.iterations = 0
        named = dict(sizes) if isinstance(sizes, Mapping) else {str(i): size for i, size in enumerate(sizes)}
        ends = list(accumulate(named.values())) or [parameters.size]
        self._parts = [slice(start, end) for start, end in pairwise([0, *ends])]
        self._decayed = [slice(0, parameters.size)]
        if self._spared:
            self._decayed = [
                part
                for name, part in zip(named, self._parts, strict=True)
                if not any(spared in name for spared in self._spared)
            ]
        self.slots = {name: np.full_like(parameters, value) for name, value in self.slot_values().items()}
        self._scratch = np.empty_like(parameters)
        if "use_ema" in self._common:
            self._average = Average(parameters, self._common.get("ema_momentum", 0.99))

    def slot_values(self) -> dict[str, float]:
        """Return what each array of the state begins with, by its name."""
        return {}

    def update(self, parameters: Array, gradients: Array) -> None:
        """Do one step in place; both are flat vectors of the same length; the gradients are used up."""
        rate = self.learning_rate
        self.iterations += 1
        self._clip(gradients)
        if "weight_decay" in self._common:
            for part in self._decayed:
                np.multiply(parameters[part], 1 - rate * self._common["weight_decay"], out=parameters[part])
        self.step(parameters, gradients, rate)

    def step(self, parameters: Array, gradients: Array, rate: float) -> None:
        """Do step number ``iterations`` (from 1) with that learning rate; the gradients are used up."""
        raise NotImplementedError

    def state(self) -> tuple[dict[str, float], dict[str, Array]]:
        """Return numbers and arrays that, given to ``restore``, make the next step what it would have been."""
        numbers: dict[str, float] = {"iterations": self.iterations}
        if self._schedule is None:
            numbers["learning_rate"] = self._rate
        arrays = dict(self.slots)
        if self._average is not None:
            numbers["averaged"] = self._average.steps
            arrays["average"] = self._average.sum
        return numbers, arrays

    def restore(self, numbers: Mapping[str, float], arrays: Mapping[str, Array]) -> None:
        """Take what ``state`` returned."""
        self.iterations = int(numbers["iterations"])
        if self._schedule is None:
            self._rate = numbers["learning_rate"]
        for name, slot in self.slots.items():
            np.copyto(slot, arrays[name])
        if self._average is not None:
            np.copyto(self._average.sum, arrays["average"])
            self._average.steps = int(numbers["averaged"])
            self._average.shown = False

    def _clip(self, gradients: Array) -> None:
        if (value := self._common.get("clipvalue")) is not None:
            np.clip(gradients, -value, value, out=gradients)
        if (longest := self._common.get("clipnorm")) is not None:
            for part in self._parts:
                _shorten(gradients[part], longest)
        if (longest := self._common.get("global_clipnorm")) is not None:
            _shorten(gradients, longest)


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
        _follow(self.sum, parameters, 1 - self.momentum, self._scratch)

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


def _shorten(gradient: Array, longest: float) -> None:
    """Scale a gradient to that Euclidean norm if it is longer; summed in float64, so that it cannot overflow."""
    norm = math.sqrt(np.einsum("i,i", gradient, gradient, dtype=np.float64))
    if norm > longest:
        np.multiply(gradient, longest / norm, out=gradient)


def _follow(average: Array, value: Array, share: float, out: Array) -> None:
    """Move an average by a share of the way to a value; ``out`` is scratch, and may be ``value``."""
    np.subtract(value, average, out=out)
    np.multiply(out, share, out=out)
    np.add(average, out, out=average)


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

    def slot_values(self) -> dict[str, float]:
        """The velocity, if there is momentum."""
        return {"velocity": 0} if self.momentum else {}

    def step(self, parameters: Array, gradients: Array, rate: float) -> None:
        """Do one step."""
        np.multiply(gradients, rate, out=gradients)
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

    def slot_values(self) -> dict[str, float]:
        """The running means, and the velocity if there is momentum."""
        wanted = {"square": True, "mean": self.centered, "velocity": self.momentum}
        return {name: 0 for name, there in wanted.items() if there}

    def step(self, parameters: Array, gradients: Array, rate: float) -> None:
        """Do one step."""
        scratch, square = self._scratch, self.slots["square"]
        mean, velocity = self.slots.get("mean"), self.slots.get("velocity")
        np.multiply(gradients, gradients, out=scratch)
        _follow(square, scratch, 1 - self.rho, scratch)
        if mean is None:
            np.add(square, self.epsilon, out=scratch)
        else:
            _follow(mean, gradients, 1 - self.rho, scratch)
            np.multiply(mean, mean, out=scratch)
            np.subtract(square, scratch, out=scratch)
            np.add(scratch, self.epsilon, out=scratch)
        np.sqrt(scratch, out=scratch)
        np.divide(gradients, scratch, out=gradients)
        np.multiply(gradients, rate, out=gradients)
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

    def slot_values(self) -> dict[str, float]:
        """The sum of squares."""
        return {"sum": self.initial}

    def step(self, parameters: Array, gradients: Array, rate: float) -> None:
        """Do one step."""
        scratch, total = self._scratch, self.slots["sum"]
        np.multiply(gradients, gradients, out=scratch)
        np.add(total, scratch, out=total)
        np.add(total, self.epsilon, out=scratch)
        np.sqrt(scratch, out=scratch)
        np.divide(gradients, scratch, out=gradients)
        np.multiply(gradients, rate, out=gradients)
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

    def slot_values(self) -> dict[str, float]:
        """Both running means, and their maximum if it is wanted."""
        return super().slot_values() | ({"largest": 0} if self.amsgrad else {})

    def step(self, parameters: Array, gradients: Array, rate: float) -> None:
        """Do one step. The slots hold ``m / (1 - beta_1)`` and ``v / (1 - beta_2)``, which saves two passes."""
        t, scratch = self.iterations, self._scratch
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
        root = math.sqrt(1 - self.beta_2)
        rate *= math.sqrt(1 - self.beta_2**t) / (1 - self.beta_1**t) * (1 - self.beta_1) / root
        np.sqrt(square, out=scratch)
        np.add(scratch, self.epsilon / root, out=scratch)
        np.divide(mean, scratch, out=scratch)
        np.multiply(scratch, rate, out=scratch)
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

    def step(self, parameters: Array, gradients: Array, rate: float) -> None:
        """Do one step."""
        scratch, mean, largest = self._scratch, self.slots["mean"], self.slots["square"]
        _follow(mean, gradients, 1 - self.beta_1, scratch)
        np.abs(gradients, out=gradients)
        np.multiply(largest, self.beta_2, out=largest)
        np.maximum(largest, gradients, out=largest)
        np.add(largest, self.epsilon, out=scratch)
        np.divide(mean, scratch, out=scratch)
        np.multiply(scratch, rate / (1 - self.beta_1**self.iterations), out=scratch)
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

    def step(self, parameters: Array, gradients: Array, rate: float) -> None:
        """Do one step."""
        t, scratch, mean, square = self.iterations, self._scratch, self.slots["mean"], self.slots["square"]
        now, following = (self.beta_1 * (1 - 0.5 * 0.96**s) for s in (t, t + 1))
        self._product *= now
        _follow(mean, gradients, 1 - self.beta_1, scratch)
        np.multiply(gradients, gradients, out=scratch)
        _follow(square, scratch, 1 - self.beta_2, scratch)
        np.multiply(gradients, rate * (1 - now) / (1 - self._product), out=gradients)
        np.multiply(mean, rate * following / (1 - self._product * following), out=scratch)
        np.add(gradients, scratch, out=gradients)
        np.divide(square, 1 - self.beta_2**t, out=scratch)
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
