"""Metrics: what people read while a network learns.

A metric adds up batches in one float64 vector, ``state``, and makes a number of it at the end of the epoch. So what it
has seen so far can be kept in a checkpoint, and results do not depend on the batch size.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mariana.errors import InvalidInputError

from . import checks
from .buffers import Array, Buffers
from .losses import Kind
from .registry import get as _get

Vector = NDArray[np.float64]


class Metric:
    """A number about outputs and targets; derive from it and write ``size``, ``update`` and ``result``.

    Attributes:
        name: in the logs.
        better: whether more of it, or less, is better.
        kinds: of targets that it fits; empty: all.
        state: what was added up so far.
    """

    name = ""
    better: Literal["more", "less"] = "more"
    kinds: frozenset[Kind] = frozenset()
    state: Vector

    def build(self, kind: Kind, units: int) -> None:
        """Take the kind of the targets and the number of outputs, and begin at nothing.

        Raises:
            InvalidInputError: it does not fit these targets.
        """
        if self.kinds and kind not in self.kinds:
            meaning = {
                "sparse": "class indices",
                "categorical": "one-hot rows",
                "binary": "0 or 1",
                "multilabel": "several labels",
                "margin": "-1 or 1",
                "values": "numbers",
            }[kind]
            raise InvalidInputError(f"metric {self.name!r} does not fit targets of {meaning}; use 'accuracy'")
        self.kind, self.units = kind, units
        self.state = np.zeros(self.size(units))

    def size(self, units: int) -> int:
        """Return the length of the state."""
        del units
        return 2

    def reset(self) -> None:
        """Forget what was added up."""
        self.state = np.zeros(self.size(self.units))

    def update(self, outputs: Array, targets: Array, weights: Array | None, buffers: Buffers) -> None:
        """Add a batch.

        Args:
            outputs: (batch, units), the network's outputs (probabilities or values).
            targets: rows of what the loss's ``targets`` returned.
            weights: (batch, 1), one a row; None: all are 1.
            buffers: of the batch.
        """
        raise NotImplementedError

    def result(self) -> float:
        """Return the number; NaN where it is not defined, as the precision is if nothing was predicted."""
        raise NotImplementedError


class _Mean(Metric):
    """A weighted mean over the rows."""

    def rows(self, outputs: Array, targets: Array, values: Array, buffers: Buffers) -> None:
        """Write the number of each row into ``values``, (batch,)."""
        raise NotImplementedError

    def update(self, outputs: Array, targets: Array, weights: Array | None, buffers: Buffers) -> None:
        """Add the sum of the rows' numbers, and that of the weights."""
        values = buffers.get("metric_rows")
        self.rows(outputs, targets, values, buffers)
        if weights is None:
            self.state[0] += float(np.sum(values))
            self.state[1] += len(values)
        else:
            self.state[0] += float(np.dot(values, weights[:, 0]))
            self.state[1] += float(np.sum(weights))

    def result(self) -> float:
        """Return the mean."""
        return float(self.state[0] / self.state[1]) if self.state[1] else math.nan


class SparseCategoricalAccuracy(_Mean):
    """Share of the rows whose most probable class is the right one; targets are class indices (batch, 1)."""

    name = "sparse_categorical_accuracy"
    kinds = frozenset(("sparse",))

    def rows(self, outputs: Array, targets: Array, values: Array, buffers: Buffers) -> None:
        """1 for a hit; of equal outputs the first counts."""
        best = buffers.get("metric_best", dtype=np.int64)
        np.argmax(outputs, axis=1, out=best)
        np.equal(best, targets[:, 0], out=values)


class CategoricalAccuracy(_Mean):
    """Share of the rows whose most probable class is the right one; targets are one-hot (batch, units)."""

    name = "categorical_accuracy"
    kinds = frozenset(("categorical",))

    def rows(self, outputs: Array, targets: Array, values: Array, buffers: Buffers) -> None:
        """1 for a hit; of equal outputs the first counts."""
        best = buffers.get("metric_best", dtype=np.int64)
        right = buffers.get("metric_right", dtype=np.int64)
        np.argmax(outputs, axis=1, out=best)
        np.argmax(targets, axis=1, out=right)
        np.equal(best, right, out=values)


class BinaryAccuracy(_Mean):
    """Share of the outputs that lie on the target's side of 0.5, or of 0 for targets -1 and 1."""

    name = "binary_accuracy"
    kinds = frozenset(("binary", "multilabel", "margin", "values"))

    def rows(self, outputs: Array, targets: Array, values: Array, buffers: Buffers) -> None:
        """The share of the hits in each row."""
        hit = buffers.get("metric_above", *outputs.shape[1:], dtype=np.bool_)
        positive = buffers.get("metric_positive", *outputs.shape[1:], dtype=np.bool_)
        cut = 0.0 if self.kind == "margin" else 0.5
        np.greater(outputs, cut, out=hit)
        np.greater(targets, cut, out=positive)
        np.equal(hit, positive, out=hit)
        np.mean(hit, axis=1, out=values)


class TopKAccuracy(_Mean):
    """Share of the rows whose right class is among the ``k`` most probable.

    Args:
        k: how many classes may be named.
    """

    name = "top_k_accuracy"
    kinds = frozenset(("sparse", "categorical"))

    def __init__(self, k: int = 5) -> None:
        self.k = checks.whole_number("k", k)

    def rows(self, outputs: Array, targets: Array, values: Array, buffers: Buffers) -> None:
        """1 if fewer than k classes are more probable than the right one; of equal outputs the first counts."""
        del buffers
        right = targets if self.kind == "sparse" else targets.argmax(axis=1, keepdims=True)
        own = np.take_along_axis(outputs, right, axis=1)
        ahead = (outputs > own) | ((outputs == own) & (np.arange(outputs.shape[1]) < right))
        np.less(np.count_nonzero(ahead, axis=1), self.k, out=values)


class LogLoss(_Mean):
    """Mean of ``-log(probability of the right class)``; at least the smallest step of the dtype is taken for it."""

    name = "log_loss"
    better = "less"
    kinds = frozenset(("binary", "multilabel", "sparse", "categorical"))

    def rows(self, outputs: Array, targets: Array, values: Array, buffers: Buffers) -> None:
        """The log-loss of each row; of several labels the mean."""
        del buffers
        least = np.finfo(outputs.dtype).eps
        if self.kind == "sparse":
            own = np.take_along_axis(outputs, targets, axis=1)[:, 0]
            values[...] = -np.log(np.maximum(own, least))
            return
        logs = np.log(np.clip(outputs, least, None))
        if self.kind == "categorical":
            values[...] = -(targets * logs).sum(axis=1)
        else:
            others = np.log(np.clip(1 - outputs, least, None))
            values[...] = -(targets * logs + (1 - targets) * others).mean(axis=1)


class MeanAbsoluteError(_Mean):
    """Mean of ``|output - target|``."""

    name = "mean_absolute_error"
    better = "less"
    kinds = frozenset(("values", "binary", "multilabel", "categorical", "margin"))

    def rows(self, outputs: Array, targets: Array, values: Array, buffers: Buffers) -> None:
        """The mean over a row's outputs."""
        error = buffers.get("metric_error", *outputs.shape[1:])
        np.subtract(outputs, targets, out=error)
        np.abs(error, out=error)
        np.mean(error, axis=1, out=values)


class MeanSquaredError(_Mean):
    """Mean of ``(output - target) ** 2``."""

    name = "mean_squared_error"
    better = "less"
    kinds = MeanAbsoluteError.kinds

    def rows(self, outputs: Array, targets: Array, values: Array, buffers: Buffers) -> None:
        """The mean over a row's outputs."""
        error = buffers.get("metric_error", *outputs.shape[1:])
        np.subtract(outputs, targets, out=error)
        np.multiply(error, error, out=error)
        np.mean(error, axis=1, out=values)


class RootMeanSquaredError(MeanSquaredError):
    """Square root of the mean of ``(output - target) ** 2``: in the unit of the target."""

    name = "root_mean_squared_error"

    def result(self) -> float:
        """Return the root of the mean."""
        return math.sqrt(super().result())


class R2Score(Metric):
    """Share of the variance that is explained, mean over the outputs: 1 is perfect, 0 no better than the mean.

    For constant targets it is 1 if all errors are 0, else 0.
    """

    name = "r2_score"
    kinds = frozenset(("values",))

    def size(self, units: int) -> int:
        """Weight, mean and sum of squares about the mean of the targets, sum of squared errors, for each output."""
        return 4 * units

    def update(self, outputs: Array, targets: Array, weights: Array | None, buffers: Buffers) -> None:
        """Merge the batch (Chan et al., 1979), which stays exact where sums of squares would cancel."""
        del buffers
        count, mean, square, error = self.state.reshape(4, self.units)
        y = targets.astype(np.float64)
        w = np.ones((len(y), 1)) if weights is None else weights.astype(np.float64)
        total = float(w.sum())
        if not total:
            return
        here = (w * y).sum(axis=0) / total
        delta = here - mean
        square += (w * (y - here) ** 2).sum(axis=0) + delta**2 * count * total / (count + total)
        mean += delta * total / (count + total)
        count += total
        error += (w * (outputs - y) ** 2).sum(axis=0)

    def result(self) -> float:
        """Return the mean of ``1 - errors / variance`` over the outputs."""
        _, _, square, error = self.state.reshape(4, self.units)
        flat = square == 0
        shares = np.where(flat, error == 0, 1 - error / np.where(flat, 1, square))
        return float(shares.mean())


class _Counts(Metric):
    """Counts of true positives, false positives and false negatives, for each class.

    Two classes: those of class 1. Several classes or labels: the mean over them (macro).

    Args:
        threshold: from which probability on a label is predicted; of several classes the most probable one is.
    """

    kinds = frozenset(("binary", "multilabel", "sparse", "categorical", "margin"))

    def __init__(self, threshold: float = 0.5) -> None:
        self.threshold = checks.number("threshold", threshold, 0, 1)

    def size(self, units: int) -> int:
        """Three counts an output."""
        return 3 * units

    def update(self, outputs: Array, targets: Array, weights: Array | None, buffers: Buffers) -> None:
        """Count."""
        del buffers
        if self.kind in ("sparse", "categorical"):
            classes = np.arange(self.units)
            predicted = outputs.argmax(axis=1, keepdims=True) == classes
            actual = (targets if self.kind == "sparse" else targets.argmax(axis=1, keepdims=True)) == classes
        elif self.kind == "margin":
            predicted, actual = outputs > 0, targets > 0
        else:
            predicted, actual = outputs > self.threshold, targets > 0.5
        w = np.ones((len(outputs), 1)) if weights is None else weights.astype(np.float64)
        hits, wrong, missed = self.state.reshape(3, self.units)
        hits += ((predicted & actual) * w).sum(axis=0)
        wrong += ((predicted & ~actual) * w).sum(axis=0)
        missed += ((~predicted & actual) * w).sum(axis=0)

    def share(self, hits: Vector, wrong: Vector, missed: Vector) -> tuple[Vector, Vector]:
        """Return numerator and denominator for each class."""
        raise NotImplementedError

    def result(self) -> float:
        """Return the mean over the classes; where the denominator is 0 a class counts as 0."""
        above, below = self.share(*self.state.reshape(3, self.units))
        return float(np.mean(np.where(below > 0, above / np.where(below > 0, below, 1), 0.0)))


class Precision(_Counts):
    """Share of what was predicted that is right: ``hits / (hits + wrong)``."""

    name = "precision"

    def share(self, hits: Vector, wrong: Vector, missed: Vector) -> tuple[Vector, Vector]:
        """Hits of all predicted."""
        del missed
        return hits, hits + wrong


class Recall(_Counts):
    """Share of what is there that was found: ``hits / (hits + missed)``."""

    name = "recall"

    def share(self, hits: Vector, wrong: Vector, missed: Vector) -> tuple[Vector, Vector]:
        """Hits of all that are there."""
        del wrong
        return hits, hits + missed


class F1Score(_Counts):
    """The harmonic mean of precision and recall: ``2 hits / (2 hits + wrong + missed)``."""

    name = "f1_score"

    def share(self, hits: Vector, wrong: Vector, missed: Vector) -> tuple[Vector, Vector]:
        """Twice the hits of them and all errors."""
        return 2 * hits, 2 * hits + wrong + missed


class AUC(Metric):
    """Area under the ROC curve: how often a positive row gets a higher score than a negative one; ties count half.

    Exact, from all scores, which it keeps until the end of the epoch. Several classes (each against the rest) or labels:
    the mean over those that have positive and negative rows.
    """

    name = "auc"
    kinds = frozenset(("binary", "multilabel", "sparse", "categorical", "margin"))

    def size(self, units: int) -> int:
        """Nothing yet: it grows by the rows of each batch."""
        del units
        return 0

    def build(self, kind: Kind, units: int) -> None:
        """Begin without rows."""
        super().build(kind, units)
        self._parts: list[Vector] = []

    def reset(self) -> None:
        """Forget all rows."""
        super().reset()
        self._parts = []

    def update(self, outputs: Array, targets: Array, weights: Array | None, buffers: Buffers) -> None:
        """Keep scores, targets and weights: (rows, 2 units + 1)."""
        del buffers
        if self.kind == "sparse":
            actual = targets == np.arange(self.units)
        elif self.kind == "categorical":
            actual = targets.argmax(axis=1, keepdims=True) == np.arange(self.units)
        else:
            actual = targets > (0 if self.kind == "margin" else 0.5)
        w = np.ones((len(outputs), 1)) if weights is None else weights
        self._parts.append(np.hstack([outputs, actual, w]).astype(np.float64).ravel())

    @property
    def state(self) -> Vector:
        """All rows so far, flat."""
        if len(self._parts) > 1:
            self._parts = [np.concatenate(self._parts)]
        return self._parts[0] if self._parts else np.empty(0)

    @state.setter
    def state(self, value: Vector) -> None:
        self._parts = [value] if len(value) else []

    def result(self) -> float:
        """Return the area."""
        rows = self.state.reshape(-1, 2 * self.units + 1)
        areas = [_area(rows[:, i], rows[:, self.units + i] > 0.5, rows[:, -1]) for i in range(self.units)]
        known = [area for area in areas if not math.isnan(area)]
        return float(np.mean(known)) if known else math.nan


def _area(scores: Vector, actual: NDArray[np.bool_], weights: Vector) -> float:
    """Return the weighted share of (positive, negative) pairs in the right order; NaN if there are none."""
    order = np.argsort(scores, kind="stable")
    scores, actual, weights = scores[order], actual[order], weights[order]
    ends = np.flatnonzero(np.append(np.diff(scores) > 0, True))  # the last row of each run of equal scores
    positive = np.diff(np.cumsum(weights * actual)[ends], prepend=0)
    negative = np.diff(np.cumsum(weights * ~actual)[ends], prepend=0)
    pairs = positive.sum() * negative.sum()
    below = np.cumsum(negative) - negative
    return float((positive * (below + negative / 2)).sum() / pairs) if pairs else math.nan


_ALL: tuple[type[Metric], ...] = (
    SparseCategoricalAccuracy,
    CategoricalAccuracy,
    BinaryAccuracy,
    TopKAccuracy,
    Precision,
    Recall,
    F1Score,
    AUC,
    LogLoss,
    MeanAbsoluteError,
    MeanSquaredError,
    RootMeanSquaredError,
    R2Score,
)
METRICS: dict[str, type[Metric]] = {cls.name: cls for cls in _ALL} | {
    "top_k": TopKAccuracy,
    "f1": F1Score,
    "mae": MeanAbsoluteError,
    "mse": MeanSquaredError,
    "rmse": RootMeanSquaredError,
    "r2": R2Score,
}
"""The metrics by name; ``accuracy`` is the one of the first three that fits the targets."""


def get(value: str | Metric, kind: Kind, units: int) -> Metric:
    """Return the metric of that name, ready for targets of that kind; ``accuracy`` picks the one that fits.

    Args:
        value: a name or an instance.
        kind: of the targets, as the loss says.
        units: outputs of the network.
    """
    known: dict[str, Callable[[], Metric]] = {"accuracy": lambda: _accuracy(kind), **METRICS}
    known["acc"] = known["accuracy"]
    metric = _get("metric", known, value, Metric)
    metric.build(kind, units)
    return metric


def _accuracy(kind: Kind) -> Metric:
    if kind == "sparse":
        return SparseCategoricalAccuracy()
    return CategoricalAccuracy() if kind == "categorical" else BinaryAccuracy()


def more_is_better(name: str) -> bool:
    """Return whether more of a logged number is better, by its name: ``val_`` does not matter, and losses want less."""
    name = name.removeprefix("val_").removeprefix("weighted_")
    known = METRICS.get(name)
    return known.better == "more" if known is not None else "acc" in name
