"""How good predictions are: what the training record holds and what ``mariana evaluate`` prints."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray


def classification_scores(probabilities: NDArray[np.floating], y: NDArray[np.int64]) -> dict[str, float]:
    """Return accuracy and log-loss.

    Args:
        probabilities: (rows, classes), or (rows, 1): of the second of two classes.
        y: (rows,) class indices.

    Returns:
        ``accuracy``: share of rows whose most probable class is right. ``log_loss``: mean of ``-log(probability of
        the right class)``, which is taken as at least the smallest step of float32, 1.2e-7.
    """
    p = probabilities.astype(np.float64)
    if p.shape[1] == 1:
        p = np.hstack([1 - p, p])
    right = np.maximum(p[np.arange(len(y)), y], np.finfo(np.float32).eps)
    return {
        "accuracy": float(np.mean(p.argmax(axis=1) == y)),
        "log_loss": float(-np.mean(np.log(right))),
    }


def regression_scores(
    values: NDArray[np.floating], y: NDArray[np.floating], weights: NDArray[np.float64] | None = None
) -> dict[str, float]:
    """Return mean absolute error, root mean squared error and R² of values against y, both (rows,).

    ``weights`` (rows,) say how much each row counts; None: the same.

    R² is the share of the variance that is explained: 1 is perfect, 0 no better than the mean; for constant y it is 0.
    """
    error = values.astype(np.float64) - y
    spread = float(np.average((y - np.average(y, weights=weights)) ** 2, weights=weights))
    squared = float(np.average(error**2, weights=weights))
    return {
        "mae": float(np.average(np.abs(error), weights=weights)),
        "rmse": math.sqrt(squared),
        "r2": 1 - squared / spread if spread else 0.0,
    }
