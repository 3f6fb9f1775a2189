"""Prove the gradients of a network: compare them with central finite differences, in float64."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from mariana.errors import InvalidInputError

from .sequential import Sequential

_STENCIL = ((8, 1), (-8, -1), (-1, 2), (1, -2))
"""Weights and distances of the points of the five-point formula, but for its zero in the middle."""


def gradcheck(
    net: Sequential,
    x: ArrayLike,
    y: ArrayLike,
    *,
    step: float = 1e-4,
    sample: int | None = None,
    sample_weight: ArrayLike | None = None,
) -> float:
    """Return the largest relative difference between the gradients and central finite differences.

    For parameter p: ``|g - d| / max(1, |g|, |d|)`` with the five-point formula
    ``d = (8 (loss(p + h) - loss(p - h)) - (loss(p + 2h) - loss(p - 2h))) / (12 h)``, whose own error is about h⁴ plus
    1e-16 / h: below 1e-9 says that the gradients are right. A kink (ReLU at 0) within 2h gives a large difference without
    being wrong; then choose other rows or a smaller step.

    Args:
        net: a compiled network of dtype float64.
        x: (rows, columns) a small batch.
        y: its targets.
        step: the distance h of neighbouring points.
        sample: number of parameters that are looked at, spread evenly; None: all.
        sample_weight: (rows,) weights of the rows.

    Raises:
        InvalidInputError: the network is not of dtype float64.

    Example:
        >>> import numpy as np
        >>> from mariana.trainer import Dense, Sequential, gradcheck
        >>> net = Sequential([Dense(5, "tanh"), Dense(3, "softmax")], seed=0, dtype="float64")
        >>> net.compile("sgd", "sparse_categorical_crossentropy")
        >>> gradcheck(net, np.random.default_rng(0).normal(size=(6, 4)), np.array([0, 1, 2, 0, 1, 2])) < 1e-9
        True
    """
    if net.dtype != np.float64:
        raise InvalidInputError(f"gradcheck needs a network of dtype float64, found {net.dtype}")
    net.loss_and_gradients(x, y, sample_weight)
    gradients = net.gradients.copy()
    parameters = net.parameters
    chosen = np.arange(parameters.size)
    if sample is not None and sample < parameters.size:
        chosen = np.linspace(0, parameters.size - 1, sample).astype(np.int64)
    worst = 0.0
    for i in chosen:
        value = parameters[i]
        total = 0.0
        for weight, distance in _STENCIL:
            parameters[i] = value + distance * step
            total += weight * net.loss_and_gradients(x, y, sample_weight)
        parameters[i] = value
        difference = total / (12 * step)
        scale = max(1.0, abs(float(gradients[i])), abs(difference))
        worst = max(worst, abs(float(gradients[i]) - difference) / scale)
    net.gradients[:] = gradients
    return worst
