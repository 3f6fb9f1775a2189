"""Metrics: what people read while a network learns. Each is a mean over rows, summed batch by batch."""

from __future__ import annotations

import numpy as np

from mariana.errors import InvalidInputError

from .buffers import Array, Buffers
from .registry import get as _get


class Metric:
    """A mean over rows; ``total`` returns the sum over a batch."""

    name = ""

    def total(self, outputs: Array, targets: Array, buffers: Buffers) -> float:
        """Return the sum of the metric over the rows.

        Args:
            outputs: (batch, units), the network's outputs (probabilities or values).
            targets: rows of what the loss's ``targets`` returned.
            buffers: of the batch.
        """
        raise NotImplementedError


class SparseCategoricalAccuracy(Metric):
    """Share of the rows whose most probable class is the right one; targets are class indices (batch, 1)."""

    name = "sparse_categorical_accuracy"

    def total(self, outputs: Array, targets: Array, buffers: Buffers) -> float:
        """Count the hits; of equal outputs the first counts."""
        best = buffers.get("metric_best", dtype=np.int64)
        hit = buffers.get("metric_hit", dtype=np.bool_)
        np.argmax(outputs, axis=1, out=best)
        np.equal(best, targets[:, 0], out=hit)
        return float(np.count_nonzero(hit))


class CategoricalAccuracy(Metric):
    """Share of the rows whose most probable class is the right one; targets are one-hot (batch, units)."""

    name = "categorical_accuracy"

    def total(self, outputs: Array, targets: Array, buffers: Buffers) -> float:
        """Count the hits; of equal outputs the first counts."""
        best = buffers.get("metric_best", dtype=np.int64)
        right = buffers.get("metric_right", dtype=np.int64)
        hit = buffers.get("metric_hit", dtype=np.bool_)
        np.argmax(outputs, axis=1, out=best)
        np.argmax(targets, axis=1, out=right)
        np.equal(best, right, out=hit)
        return float(np.count_nonzero(hit))


class BinaryAccuracy(Metric):
    """Share of the outputs that lie on the target's side of 0.5."""

    name = "binary_accuracy"

    def total(self, outputs: Array, targets: Array, buffers: Buffers) -> float:
        """Count the hits."""
        hit = buffers.get("metric_above", *outputs.shape[1:], dtype=np.bool_)
        positive = buffers.get("metric_positive", *outputs.shape[1:], dtype=np.bool_)
        np.greater(outputs, 0.5, out=hit)
        np.greater(targets, 0.5, out=positive)
        np.equal(hit, positive, out=hit)
        return float(np.count_nonzero(hit)) / int(outputs.shape[1])


class MeanAbsoluteError(Metric):
    """Mean of ``|output - target|``."""

    name = "mean_absolute_error"

    def total(self, outputs: Array, targets: Array, buffers: Buffers) -> float:
        """Sum the absolute errors."""
        error = buffers.get("metric_error", *outputs.shape[1:])
        np.subtract(outputs, targets, out=error)
        np.abs(error, out=error)
        return float(np.sum(error)) / int(outputs.shape[1])


class MeanSquaredError(Metric):
    """Mean of ``(output - target) ** 2``."""

    name = "mean_squared_error"

    def total(self, outputs: Array, targets: Array, buffers: Buffers) -> float:
        """Sum the squared errors."""
        error = buffers.get("metric_error", *outputs.shape[1:])
        np.subtract(outputs, targets, out=error)
        np.multiply(error, error, out=error)
        return float(np.sum(error)) / int(outputs.shape[1])


_ALL: tuple[type[Metric], ...] = (
    SparseCategoricalAccuracy,
    CategoricalAccuracy,
    BinaryAccuracy,
    MeanAbsoluteError,
    MeanSquaredError,
)
METRICS = {cls.name: cls for cls in _ALL} | {"mae": MeanAbsoluteError, "mse": MeanSquaredError}
"""The metrics by name; ``accuracy`` is the one of the first three that fits the targets."""


def get(value: str | Metric, targets: Array, units: int) -> Metric:
    """Return the metric of that name; ``accuracy`` picks the one that fits, as Keras does.

    Args:
        value: a name or an instance.
        targets: what the loss's ``targets`` returned.
        units: outputs of the network.
    """
    if value in ("accuracy", "acc"):
        if units == 1:
            return BinaryAccuracy()
        return SparseCategoricalAccuracy() if targets.shape[1] == 1 else CategoricalAccuracy()
    metric = _get("metric", {"accuracy": Metric} | METRICS, value, Metric)
    sparse = units > 1 and targets.shape[1] == 1
    if sparse != isinstance(metric, SparseCategoricalAccuracy):
        kind = "class indices" if sparse else "one column an output"
        raise InvalidInputError(f"metric {metric.name!r} does not fit targets of {kind}; use 'accuracy'")
    return metric
