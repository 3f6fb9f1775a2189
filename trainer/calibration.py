"""Calibration: making a probability of 0.8 mean that eight of ten such answers are right.

Networks that fit well are often too sure of themselves. Dividing all logits by one number, the temperature, mends most of
that and changes no decision (Guo et al., "On Calibration of Modern Neural Networks", 2017, arXiv 1706.04599). The
division is folded into the last layer, so that a served model has nothing more to do.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from mariana.errors import InvalidInputError

from .layers import Dense
from .sequential import Sequential

Float64 = NDArray[np.float64]

_LEAST, _MOST = 0.05, 20.0
_GOLDEN = (math.sqrt(5) - 1) / 2


def logits(probabilities: NDArray[np.floating]) -> Float64:
    """Return what goes into the softmax, or into the sigmoid when there is one column; up to a number a row.

    Args:
        probabilities: (rows, classes), or (rows, 1): of the second of two classes.
    """
    p = np.clip(probabilities.astype(np.float64), 1e-15, 1)
    if p.shape[1] > 1:
        return np.asarray(np.log(p))
    return np.asarray(np.log(p) - np.log(np.clip(1 - probabilities.astype(np.float64), 1e-15, 1)))


def log_loss(
    z: Float64, y: NDArray[np.int64], weights: Float64 | None = None, *, doubt: float = 0.0
) -> float:
    """Return the mean of ``-log(probability of the right class)``.

    Args:
        z: logits (rows, classes), or (rows, 1) for the second of two classes.
        y: (rows,) class indices.
        weights: (rows,) how much each row counts; None: the same.
        doubt: share of each row's target that is spread over the other classes, from 0 to 1.
    """
    if z.shape[1] == 1:
        margin = np.where(y == 1, z[:, 0], -z[:, 0])
        losses = np.logaddexp(0, -margin) + doubt * margin
    else:
        highest = z.max(axis=1, keepdims=True)
        total = np.log(np.exp(z - highest).sum(axis=1)) + highest[:, 0]
        right = z[np.arange(len(y)), y]
        others = (z.sum(axis=1) - right) / (z.shape[1] - 1)
        losses = total - right + doubt * (right - others)
    return float(np.average(losses, weights=weights))


def find_temperature(z: Float64, y: NDArray[np.int64], weights: Float64 | None = None) -> float:
    """Return the temperature from 0.05 to 20 that gives rows not learned from the least log-loss, with a doubt.

    A few rows that are all right would ask for infinite certainty. So targets are softened as Platt softens his
    ("Probabilistic Outputs for Support Vector Machines", 1999), by one more row that belongs to each class alike (Perks'
    prior, 1947): of n rows, a row's target is 1 - (1 - 1 / classes) / (n + 1) for its own class, the rest is shared by
    the others. Many rows drown that.

    The loss is convex in 1 / temperature, so that a golden-section search over its logarithm ends at the one minimum.

    Args:
        z: logits as :func:`log_loss` takes them.
        y: (rows,) class indices.
        weights: (rows,) how much each row counts; None: the same.

    Example:
        >>> import numpy as np
        >>> z = np.array([[4.0], [4.0], [4.0], [4.0]])  # 98 % sure, and right three times of four
        >>> temperature = find_temperature(z, np.array([1, 1, 1, 0]))
        >>> round(float(1 / (1 + np.exp(-4 / temperature))), 3)  # (3 + 1 / 2) / (4 + 1)
        0.7
    """
    classes = max(2, z.shape[1])
    rows = len(y) if weights is None else np.count_nonzero(weights)
    doubt = (1 - 1 / classes) / (rows + 1)
    low, high = math.log(_LEAST), math.log(_MOST)
    for _ in range(60):
        left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
        at_left, at_right = (log_loss(z / math.exp(t), y, weights, doubt=doubt) for t in (left, right))
        if at_left <= at_right:
            high = right
        else:
            low = left
    return math.exp((low + high) / 2)


def apply_temperature(net: Sequential, temperature: float) -> None:
    """Divide what goes into the last activation by the temperature, in the weights of the last layer.

    Raises:
        InvalidInputError: the temperature is not positive, or the network does not end in a Dense.
    """
    if not 0 < temperature < math.inf:
        raise InvalidInputError(f"temperature is {temperature}: it must be positive and finite")
    last = net.layers[-1]
    if not isinstance(last, Dense):
        raise InvalidInputError("the network must end in a Dense layer with its activation to be calibrated")
    for parameter in last.parameters.values():
        np.multiply(parameter, 1 / temperature, out=parameter)


def expected_calibration_error(
    probabilities: NDArray[np.floating], y: NDArray[np.int64], bins: int = 15
) -> float:
    """Return how far, on average, the probability of the predicted class is from the share that is right.

    The rows are put into bins of equal width by that probability; the gaps of the bins are averaged by their rows.

    Args:
        probabilities: (rows, classes), or (rows, 1): of the second of two classes.
        y: (rows,) class indices.
        bins: number of bins.
    """
    p = probabilities.astype(np.float64)
    p = np.hstack([1 - p, p]) if p.shape[1] == 1 else p
    sure, right = p.max(axis=1), p.argmax(axis=1) == y
    place = np.minimum((sure * bins).astype(int), bins - 1)
    gaps = np.bincount(place, sure - right, bins)
    return float(np.abs(gaps).sum() / len(y))
