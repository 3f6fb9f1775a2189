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
    layers: list[Layer] = []
    first = waiting = Affine(np.ones(columns), np.zeros(columns))
    waits = False
    width = columns

    def identity() -> None:
        """Put in a layer that does nothing but what waits."""
        nonlocal waiting, waits
        if width > MAX_IDENTITY:
            raise InvalidInputError(f"an activation follows another one at a width of {width}; up to {MAX_IDENTITY} is run")
        factor, summand = np.ones(width), np.zeros(width)
        if waits:
            factor, summand = _wide(waiting.factor, width), _wide(waiting.summand, width)
        layers.append(Layer(np.diag(factor), summand, LINEAR))
        waits = False

    for step in steps:
        if isinstance(step, Linear):
            if step.weight.shape[0] != width:
                raise InvalidInputError(f"a layer takes {step.weight.shape[0]} inputs, but gets {width}")
            weight, bias = step.weight, step.bias
            if waits:
                bias = bias + _wide(waiting.summand, width) @ weight
                weight = _wide(waiting.factor, width)[:, None] * weight
                waits = False
            layers.append(Layer(weight, bias, LINEAR))
            width = weight.shape[1]
        elif isinstance(step, Activated):
            if not layers or waits or layers[-1].activation.name != "linear":
                identity()
            layers[-1].activation = step
        elif not layers:
            first = _then(first, step)
        elif layers[-1].activation.name == "linear":
            last = layers[-1]
            last.weight = last.weight * step.factor
            last.bias = last.bias * step.factor + step.summand
        else:
            waiting = _then(waiting, step) if waits else step
            waits = True
    if not layers:
        identity()
    factor, summand = _wide(first.factor, columns), _wide(first.summand, columns)
    still = factor == 0  # a column that counts for nothing: what is added to it goes into the bias
    layers[0].bias = layers[0].bias + np.where(still, summand, 0) @ layers[0].weight
    shift = np.where(still, 0, -summand / np.where(still, 1, factor)) + 0.0
    target = Affine(_wide(waiting.factor, width), _wide(waiting.summand, width)) if waits else None
    return Chain(shift, factor, layers, target)


LINEAR = Activated("linear")


def _then(first: Affine, second: Affine) -> Affine:
    return Affine(first.factor * second.factor, first.summand * second.factor + second.summand)


def _wide(values: Float64, width: int) -> Float64:
    if values.size not in (1, width):
        raise InvalidInputError(f"{values.size} values are applied to a width of {width}")
    return np.broadcast_to(values.reshape(-1), (width,))
