"""Activations: each forward pass is in place, and each gradient is computed from the output alone.

That is why a layer keeps one array of outputs and no copy of what went into the activation.
"""

from __future__ import annotations

import numpy as np

from .buffers import Array, Buffers
from .registry import get as _get


class ActivationFunction:
    """A function on each row of ``(batch, units)``; the name is the one that the model file knows."""

    name = ""

    def forward(self, y: Array, buffers: Buffers) -> None:
        """Replace ``y``, (batch, units), by its activation."""
        raise NotImplementedError

    def backward(self, y: Array, dy: Array, buffers: Buffers) -> None:
        """Replace ``dy``, the gradient with respect to the output ``y``, by that with respect to the input."""
        raise NotImplementedError


class Linear(ActivationFunction):
    """``x``: the output of a regression."""

    name = "linear"

    def forward(self, y: Array, buffers: Buffers) -> None:
        """Leave ``y`` as it is."""

    def backward(self, y: Array, dy: Array, buffers: Buffers) -> None:
        """Leave ``dy`` as it is."""


class ReLU(ActivationFunction):
    """``max(x, 0)``: the default for hidden layers; use He initialisation with it.

    A unit that is negative on all data gets no gradient and stays dead; a lower learning rate prevents it.
    """

    name = "relu"

    def forward(self, y: Array, buffers: Buffers) -> None:
        """Replace negative numbers by 0."""
        del buffers
        np.maximum(y, 0, out=y)

    def backward(self, y: Array, dy: Array, buffers: Buffers) -> None:
        """``dy * (y > 0)``; the gradient at 0 is taken as 0."""
        positive = buffers.get("positive", *y.shape[1:], dtype=np.bool_)
        np.greater(y, 0, out=positive)
        np.multiply(dy, positive, out=dy)


class Sigmoid(ActivationFunction):
    """``1 / (1 + exp(-x))``: the output for two classes, or for labels that do not exclude each other.

    In hidden layers it saturates: its gradient is at most 1/4, so that deep stacks learn slowly. Prefer ReLU there.
    """

    name = "sigmoid"

    def forward(self, y: Array, buffers: Buffers) -> None:
        """Compute the sigmoid without overflow: below -log(largest number) it is 0 for all that can be told."""
        del buffers
        np.maximum(y, -np.log(np.finfo(y.dtype).max), out=y)
        np.negative(y, out=y)
        np.exp(y, out=y)
        np.add(y, 1, out=y)
        np.reciprocal(y, out=y)

    def backward(self, y: Array, dy: Array, buffers: Buffers) -> None:
        """``dy * y * (1 - y)``."""
        slope = buffers.get("slope", *y.shape[1:])
        np.subtract(1, y, out=slope)
        np.multiply(slope, y, out=slope)
        np.multiply(dy, slope, out=dy)


class Tanh(ActivationFunction):
    """The hyperbolic tangent: like the sigmoid, but centred on 0; use Glorot initialisation with it."""

    name = "tanh"

    def forward(self, y: Array, buffers: Buffers) -> None:
        """Compute tanh."""
        del buffers
        np.tanh(y, out=y)

    def backward(self, y: Array, dy: Array, buffers: Buffers) -> None:
        """``dy * (1 - y * y)``."""
        slope = buffers.get("slope", *y.shape[1:])
        np.multiply(y, y, out=slope)
        np.subtract(1, slope, out=slope)
        np.multiply(dy, slope, out=dy)


class Softmax(ActivationFunction):
    """``exp(x_i) / sum_j exp(x_j)`` along the row: probabilities of classes that exclude each other."""

    name = "softmax"

    def forward(self, y: Array, buffers: Buffers) -> None:
        """Compute softmax; the row's maximum is subtracted first, so that nothing overflows."""
        row = buffers.get("row", 1)
        np.max(y, axis=1, keepdims=True, out=row)
        np.subtract(y, row, out=y)
        np.exp(y, out=y)
        np.sum(y, axis=1, keepdims=True, out=row)
        np.divide(y, row, out=y)

    def backward(self, y: Array, dy: Array, buffers: Buffers) -> None:
        """``y * (dy - sum_j dy_j y_j)``."""
        product = buffers.get("product", *y.shape[1:])
        row = buffers.get("row", 1)
        np.multiply(dy, y, out=product)
        np.sum(product, axis=1, keepdims=True, out=row)
        np.subtract(dy, row, out=dy)
        np.multiply(dy, y, out=dy)


ACTIVATIONS: dict[str, type[ActivationFunction]] = {
    cls.name: cls for cls in (Linear, ReLU, Sigmoid, Tanh, Softmax)
}
"""The activations by name; the list of ``csrc/activations.def`` is the same."""


def get(value: str | ActivationFunction | None) -> ActivationFunction:
    """Return the activation of that name; None means linear.

    Example:
        >>> get("relu").name
        'relu'
    """
    return _get("activation", ACTIVATIONS, "linear" if value is None else value, ActivationFunction)
