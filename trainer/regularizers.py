"""What keeps weights small: penalties that are added to the loss, and constraints that hold after each step.

Small weights make smooth functions, which do better on rows that were not learned from. Start with L2 of 1e-4 on the
kernels; L1 also sets weights to about 0, which tells the inputs that matter. Names and formulas are those of Keras 3.
``L2(w / 2)`` on all weights is the coupled weight decay of ``torch.optim``; the decoupled one is an optimizer's
``weight_decay``.
"""

from __future__ import annotations

import numpy as np

from . import checks
from .buffers import Array
from .registry import get as _get


class Regularizer:
    """Adds ``l1 * sum |w| + l2 * sum w²`` to the loss: elastic net (Zou and Hastie, 2005) if both are positive.

    Args:
        l1: factor of the sum of absolute weights; 0 or more.
        l2: factor of the sum of squared weights; 0 or more.
    """

    def __init__(self, l1: float = 0.0, l2: float = 0.0) -> None:
        self.l1 = checks.number("l1", l1, 0)
        self.l2 = checks.number("l2", l2, 0)

    def penalty(self, weight: Array, gradient: Array | None, scratch: Array) -> float:
        """Return what is added to the loss, and add its gradient.

        Args:
            weight: an array of weights.
            gradient: gets ``l1 * sign(w) + 2 * l2 * w`` added; None: not wanted.
            scratch: of the same shape; overwritten.
        """
        total = 0.0
        if self.l1:
            np.abs(weight, out=scratch)
            total += self.l1 * float(np.sum(scratch))
            if gradient is not None:
                np.sign(weight, out=scratch)
                np.multiply(scratch, self.l1, out=scratch)
                np.add(gradient, scratch, out=gradient)
        if self.l2:
            flat = weight.reshape(-1)
            total += self.l2 * float(np.dot(flat, flat))
            if gradient is not None:
                np.multiply(weight, 2 * self.l2, out=scratch)
                np.add(gradient, scratch, out=gradient)
        return total


class L1(Regularizer):
    """``l1 * sum |w|`` (Tibshirani, 1996)."""

    def __init__(self, l1: float = 0.01) -> None:
        super().__init__(l1=l1)


class L2(Regularizer):
    """``l2 * sum w²``: ridge."""

    def __init__(self, l2: float = 0.01) -> None:
        super().__init__(l2=l2)


class L1L2(Regularizer):
    """``l1 * sum |w| + l2 * sum w²``: elastic net."""

    def __init__(self, l1: float = 0.01, l2: float = 0.01) -> None:
        super().__init__(l1, l2)


class MaxNorm:
    """Shortens the weights of a unit to a length of at most ``max_value`` after each step (Srivastava et al., 2014).

    With dropout it allows high learning rates.

    Args:
        max_value: the longest a column of the kernel may be; positive.
    """

    def __init__(self, max_value: float = 2.0) -> None:
        self.max_value = checks.number("max_value", max_value, 0, above=True)

    def apply(self, weight: Array, scratch: Array) -> None:
        """Shorten the columns of ``weight``, (inputs, units), in place; ``scratch`` has the same shape."""
        np.multiply(weight, weight, out=scratch)
        length = np.sqrt(np.sum(scratch, axis=0))
        if (length > self.max_value).any():
            np.multiply(weight, self.max_value / np.maximum(length, self.max_value), out=weight)


REGULARIZERS: dict[str, type[Regularizer]] = {"l1": L1, "l2": L2, "l1_l2": L1L2}
"""The regularizers by name, each with its default of 0.01."""

CONSTRAINTS = {"max_norm": MaxNorm}
"""The constraints by name."""


def get(value: str | Regularizer | None) -> Regularizer | None:
    """Return the regularizer of that name; None means none."""
    return None if value is None else _get("regularizer", REGULARIZERS, value, Regularizer)


def get_constraint(value: str | MaxNorm | None) -> MaxNorm | None:
    """Return the constraint of that name; None means none."""
    return None if value is None else _get("constraint", CONSTRAINTS, value, MaxNorm)
