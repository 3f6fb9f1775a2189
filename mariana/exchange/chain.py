"""A plain chain of steps, as an importer finds it, made into the layers of a model file.

Steps are ``Affine``, ``Linear`` and ``Activated``, in any order. Layers are dense with an activation each: an affine
step is folded into its neighbour, in float64; before the first layer it becomes the scaling of the features, after
the last one the scaling of the targets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mariana.errors import InvalidInputError

Float64 = NDArray[np.float64]

MAX_IDENTITY = 4096
"""Widest identity that is put in where two activations follow each other."""


@dataclass(frozen=True, slots=True, eq=False)
class Affine:
    """``x * factor + summand``, column by column; scalars or (width,)."""

    factor: Float64
    summand: Float64


@dataclass(frozen=True, slots=True, eq=False)
class Linear:
    """``x @ weight + bias``; (inputs, units) and (units,)."""

    weight: Float64
    bias: Float64


@dataclass(frozen=True, slots=True, eq=False)
class Activated:
    """An activation by the name that the model file has for it; its slopes are a scalar or (width,)."""

    name: str
    slope: Float64 | None = None


Step = Affine | Linear | Activated


@dataclass(slots=True, eq=False)
class Layer:
    """A dense layer in the making."""

    weight: Float64
    bias: Float64
    activation: Activated


@dataclass(frozen=True, slots=True)
class Chain:
    """What a model file needs: scaling of the features, layers, scaling of the outputs (None: there is none)."""

    shift: Float64
    scale: Float64
    layers: list[Layer]
    target: Affine | None


def fold(steps: Sequence[Step], columns: int) -> Chain:
    """Return the layers of a chain.

    Args:
        steps: in order.
        columns: that the first step gets.

    Raises:
        InvalidInputError: two steps cannot stand side by side, or their widths do not fit.
    """
    folding = _Folding(columns)
    for step in steps:
        if isinstance(step, Linear):
            folding.linear(step)
        elif isinstance(step, Activated):
            folding.activated(step)
        else:
            folding.affine(step)
    return folding.chain()


class _Folding:
    """The layers so far, the affine step before them, and the one that waits behind them."""

    def __init__(self, columns: int) -> None:
        self.columns = self.width = columns
        self.layers: list[Layer] = []
        self.first = NOTHING
        self.waiting: Affine | None = None

    def linear(self, step: Linear) -> None:
        """Append a layer; what waits is applied to its inputs: ``(x * a + c) @ w = x @ (a * w) + c @ w``."""
        if step.weight.shape[0] != self.width:
            raise InvalidInputError(f"a layer takes {step.weight.shape[0]} inputs, but gets {self.width}")
        weight, bias = step.weight, step.bias
        if self.waiting is not None:
            bias = bias + _wide(self.waiting.summand, self.width) @ weight
            weight = _wide(self.waiting.factor, self.width)[:, None] * weight
            self.waiting = None
        self.layers.append(Layer(weight, bias, LINEAR))
        self.width = weight.shape[1]

    def activated(self, step: Activated) -> None:
        """Give it to the layer before it, or to one that does nothing else."""
        if not self.layers or self.waiting is not None or self.layers[-1].activation.name != "linear":
            self.identity()
        self.layers[-1].activation = step

    def affine(self, step: Affine) -> None:
        """Apply it to a linear layer before it; else it waits."""
        if not self.layers:
            self.first = _then(self.first, step)
        elif self.layers[-1].activation.name == "linear":
            last = self.layers[-1]
            last.weight = last.weight * step.factor
            last.bias = last.bias * step.factor + step.summand
        else:
            self.waiting = step if self.waiting is None else _then(self.waiting, step)

    def identity(self) -> None:
        """Append a layer that does nothing but what waits."""
        if self.width > MAX_IDENTITY:
            raise InvalidInputError(
                f"two activations follow each other, {self.width} wide; up to {MAX_IDENTITY} are run"
            )
        step = self.waiting or NOTHING
        weight, bias = np.diag(_wide(step.factor, self.width)), _wide(step.summand, self.width)
        self.layers.append(Layer(weight, bias, LINEAR))
        self.waiting = None

    def chain(self) -> Chain:
        """Return what was folded."""
        if not self.layers:
            self.identity()
        factor, summand = _wide(self.first.factor, self.columns), _wide(self.first.summand, self.columns)
        still = factor == 0  # a column that counts for nothing: what is added to it goes into the bias
        start = self.layers[0]
        start.bias = start.bias + np.where(still, summand, 0) @ start.weight
        shift = np.where(still, 0, -summand / np.where(still, 1, factor)) + 0.0  # no -0
        target = None
        if self.waiting is not None:
            target = Affine(_wide(self.waiting.factor, self.width), _wide(self.waiting.summand, self.width))
        return Chain(shift, factor, self.layers, target)


LINEAR = Activated("linear")
NOTHING = Affine(np.ones(()), np.zeros(()))


def _then(first: Affine, second: Affine) -> Affine:
    return Affine(first.factor * second.factor, first.summand * second.factor + second.summand)


def _wide(values: Float64, width: int) -> Float64:
    if values.size not in (1, width):
        raise InvalidInputError(f"{values.size} values are applied to a width of {width}")
    return np.broadcast_to(values.reshape(-1), (width,))
