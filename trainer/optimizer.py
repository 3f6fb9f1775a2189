"""What all optimizers share: the learning rate, clipping, weight decay, the average of the weights, and their state."""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterable, Mapping
from itertools import accumulate, pairwise
from typing import Any, TypedDict, Unpack

import numpy as np

from mariana.errors import InvalidInputError

from . import checks
from .average import Average
from .buffers import Array
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
        common: what was given of ``Common``.
        parts: where each weight array lies in the flat vector.
        decayed: the parts that weight decay shrinks.
    """

    name = ""

    @property
    def rule(self) -> str:
        """The name of the fused step in ``csrc/optimizers.def``."""
        return self.name

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
        self.common: dict[str, float] = {}
        for name, value in common.items():
            if value is None or value is False:
                continue
            if name == "use_ema":
                self.common[name] = True
            elif name == "ema_momentum":
                self.common[name] = checks.number(name, value, 0, 1)
            else:
                self.common[name] = checks.number(name, value, 0, above=name != "weight_decay")
        clips = [name for name in self.common if "clip" in name]
        if len(clips) > 1:
            raise InvalidInputError(f"{' and '.join(clips)} exclude each other: choose one")
        if "ema_momentum" in self.common and "use_ema" not in self.common:
            raise InvalidInputError("ema_momentum needs use_ema=True")
        self._spared: tuple[str, ...] = ()
        self._average: Average | None = None
        self._built_for: weakref.ref[Array] | None = None
        self.parts: list[slice] = []
        self.decayed: list[slice] = []

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
        return {"name": self.name, "learning_rate": rate} | self.common

    def build(self, parameters: Array, sizes: Mapping[str, int] | Iterable[int] = ()) -> None:
        """Forget all steps and make the state for a flat vector of parameters.

        Args:
            parameters: the flat vector.
            sizes: numbers of parameters of the weight arrays in it, with or without their names; empty: it is one.
        """
        self.iterations = 0
        self._built_for = weakref.ref(parameters)
        named = dict(sizes) if isinstance(sizes, Mapping) else {str(i): size for i, size in enumerate(sizes)}
        ends = list(accumulate(named.values())) or [parameters.size]
        self.parts = [slice(start, end) for start, end in pairwise([0, *ends])]
        self.decayed = [slice(0, parameters.size)]
        if self._spared:
            self.decayed = [
                part
                for name, part in zip(named, self.parts, strict=True)
                if not any(spared in name for spared in self._spared)
            ]
        self.slots = {name: np.full_like(parameters, value) for name, value in self.slot_values().items()}
        self._scratch = np.empty_like(parameters)
        if "use_ema" in self.common:
            self._average = Average(parameters, self.common.get("ema_momentum", 0.99))

    def is_built_for(self, parameters: Array) -> bool:
        """Return whether the state is that of this vector."""
        return self._built_for is not None and self._built_for() is parameters

    def check_built_for(self, parameters: Array) -> None:
        """See to it that the state is that of this vector: the very array, because others may be as long.

        Raises:
            InvalidInputError: another network was compiled with this optimizer after this one.
        """
        if not self.is_built_for(parameters):
            raise InvalidInputError(
                f"the optimizer {self.name} keeps the state of another network, which was compiled with it later: compile each "
                "network with an optimizer of its own"
            )

    def __getstate__(self) -> dict[str, Any]:
        """A copy belongs to nobody's parameters, until it is given to some (:meth:`belong_to`)."""
        return {**vars(self), "_built_for": None}

    def belong_to(self, parameters: Array) -> None:
        """Keep the state that is there as that of this vector, as long as the one that it was made for."""
        self._built_for = weakref.ref(parameters)

    def slot_values(self) -> dict[str, float]:
        """Return what each array of the state begins with, by its name."""
        return {}

    def update(self, parameters: Array, gradients: Array) -> None:
        """Do one step in place; both are flat vectors of the same length; the gradients are used up."""
        rate = self.begin_step()
        self._clip(gradients)
        if "weight_decay" in self.common:
            for part in self.decayed:
                np.multiply(parameters[part], 1 - rate * self.common["weight_decay"], out=parameters[part])
        self.step(parameters, gradients, self.coefficients(rate))

    def begin_step(self) -> float:
        """Count a step and return its learning rate."""
        rate = self.learning_rate
        self.iterations += 1
        return rate

    def coefficients(self, rate: float) -> dict[str, float]:
        """Return the numbers of step ``iterations`` with that learning rate, by their names in ``mrn_update`` (``csrc/mrn.h``).

        It is asked once a step, by whoever does it: ``step``, or a kernel.
        """
        return {"rate": rate}

    def step(self, parameters: Array, gradients: Array, numbers: Mapping[str, float]) -> None:
        """Do step number ``iterations`` (from 1) with the numbers of ``coefficients``; the gradients are used up."""
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
        if (value := self.common.get("clipvalue")) is not None:
            np.clip(gradients, -value, value, out=gradients)
        if (longest := self.common.get("clipnorm")) is not None:
            for part in self.parts:
                _shorten(gradients[part], longest)
        if (longest := self.common.get("global_clipnorm")) is not None:
            _shorten(gradients, longest)


def _shorten(gradient: Array, longest: float) -> None:
    """Scale a gradient to that Euclidean norm if it is longer; summed in float64, so that it cannot overflow."""
    norm = math.sqrt(np.einsum("i,i", gradient, gradient, dtype=np.float64))
    if norm > longest:
        np.multiply(gradient, longest / norm, out=gradient)
