"""Prove the gradients of a network: compare them with central finite differences, in float64."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from mariana.errors import InvalidInputError

from .sequential import Sequential


def gradcheck(
    net: Sequential, x: ArrayLike, y: ArrayLike, *, step: float = 1e-5, sample: int | None = None
) -> float:
    """Return the largest relative difference between the gradients and central finite differences.

    For parameter p: ``|g - d| / max(1, |g|, |d|)`` with ``d = (loss(p + step) - loss(p - step)) / (2 step)``,
    whose own error is about step² plus 1e-16 / step: below 1e-7 says that the gradients are right.
    A kink (ReLU at 0) within ``step`` gives a large difference without being wrong.

    Args:
        net: a compiled network of dtype float64.
        x: (rows, columns) a small batch.
        y: its targets.
        step: distance of the two points.
        sample: number of parameters that are looked at, spread evenly; None: all.

    Raises:
        InvalidInputError: the network is not of dtype float64.

    Example:
        >>> import numpy as np
        >>> from mariana.trainer import Dense, Sequential, gradcheck
        >>> net = Sequential([Dense(5, "tanh"), Dense(3, "softmax")], seed=0, dtype="float64")
        >>> net.compile("sgd", "sparse_categorical_crossentropy")
        >>> gradcheck(net, np.random.default_rng(0).normal(size=(6, 4)), np.array([0, 1, 2, 0, 1, 2])) < 1e-7
        True
    """
    if net.dtype != np.float64:
        raise InvalidInputError(f"gradcheck needs a network of dtype float64, found {net.dtype}")
    net.loss_and_gradients(x, y)
    gradients = net.gradients.copy()
    parameters = net.parameters
    chosen = np.arange(parameters.size)
    if sample is not None and sample < parameters.size:
        chosen = np.linspace(0, parameters.size - 1, sample).astype(np.int64)
    worst = 0.0
    for i in chosen:
        value = parameters[i]
        parameters[i] = value + step
        above = net.loss_and_gradients(x, y)
        parameters[i] = value - step
        below = net.loss_and_gradients(x, y)
        parameters[i] = value
        difference = (above - below) / (2 * step)
        scale = max(1.0, abs(float(gradients[i])), abs(difference))
        worst = max(worst, abs(float(gradients[i]) - difference) / scale)
    net.gradients[:] = gradients
    return worst
