"""Losses: what training makes small. Each is the mean over the rows of a batch.

The cross-entropies are fused with the activation that belongs to them: they take what goes into softmax or sigmoid
(the logits), so that neither a probability of 0 nor a huge logit gives infinity, and the gradient with respect to the
logits is simply ``probability - target``.

| you predict | loss |
|---|---|
| one of several classes | ``sparse_categorical_crossentropy`` (class indices), ``categorical_crossentropy`` (one-hot) |
| one of two classes, or several labels that may go together | ``binary_crossentropy`` |
| numbers | ``mse``; ``huber`` or ``mae`` when some are far off and should not decide |
| counts | ``poisson``, with ``softplus`` as the last activation |
| which of two sides, with a margin | ``hinge``, with a linear output |
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from mariana.errors import InvalidInputError

from . import checks
from .activations import Sigmoid, Softmax
from .buffers import Array, Buffers
from .registry import get as _get

_SIGMOID = Sigmoid()

Kind = Literal["binary", "multilabel", "sparse", "categorical", "margin", "values"]
"""What targets are: 0 or 1; several of them; a class index; a column a class; -1 or 1; numbers."""


Pair = tuple[Callable[[Array, Array], Array], Callable[[Array, Array], Array]]
"""The loss of each row and its gradient, as functions of outputs and targets: a custom loss."""


class Loss:
    """A loss; derive from it and write ``rows``.

    Attributes:
        name: in the registry and in the training record.
        fuses: the activation whose input it takes; empty when it takes the outputs.
        task: what the network is then good for: ``classification`` or ``regression``.
    """

    name = ""
    fuses = ""
    task = "regression"

    def kind(self, units: int) -> Kind:
        """Return what the targets of a network with that many outputs are."""
        del units
        return "values"

    def targets(self, y: Array, units: int, dtype: DTypeLike) -> Array:
        """Check the targets of a data set and return them as the step wants them, a row each.

        Raises:
            InvalidInputError: they do not fit a network with that many outputs.
        """
        return _float_targets(y, units, dtype)

    def check_training(self, targets: Array) -> None:
        """Raise InvalidInputError if nothing can be learned from these targets."""

    def dense(self) -> Loss:
        """Return the loss for targets of one column an output, such as mixup makes; itself unless it takes indices."""
        return self

    def rows(
        self, outputs: Array, targets: Array, losses: Array, gradient: Array | None, buffers: Buffers
    ) -> None:
        """Compute the loss of each row of a batch.

        Args:
            outputs: (batch, units): the network's outputs or, where an activation is fused, its logits, which are
                replaced by their activation.
            targets: rows of what ``targets`` returned.
            losses: (batch,), gets the loss of each row.
            gradient: (batch, units), gets the gradient of a row's loss with respect to what was given in ``outputs``;
                None: not wanted.
            buffers: of the batch.
        """
        raise NotImplementedError

    def step(
        self,
        outputs: Array,
        targets: Array,
        gradient: Array | None,
        buffers: Buffers,
        weights: Array | None = None,
    ) -> float:
        """Return the loss of a batch: the sum of weight times loss over the rows, divided by their number.

        Args:
            outputs: as in ``rows``; likewise ``targets`` and ``buffers``.
            targets: of the rows.
            gradient: (batch, units), gets the gradient of that mean; None: not wanted.
            buffers: of the batch; its ``losses`` (batch,) holds the weighted loss of each row afterwards.
            weights: (batch, 1), one a row; None: all are 1.
        """
        losses = buffers.get("losses")
        self.rows(outputs, targets, losses, gradient, buffers)
        if weights is not None:
            np.multiply(losses, weights[:, 0], out=losses)
            if gradient is not None:
                np.multiply(gradient, weights, out=gradient)
        if gradient is not None:
            np.multiply(gradient, 1 / len(losses), out=gradient)
        return float(np.sum(losses)) / len(losses)

    def __call__(self, y_true: ArrayLike, y_pred: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
        """Return the loss of predictions (batch, units) as ``predict`` gives them."""
        outputs = np.atleast_2d(np.asarray(y_pred, np.float64)).copy()
        targets = self.targets(np.asarray(y_true), outputs.shape[1], np.float64)
        if len(targets) != len(outputs):
            raise InvalidInputError(f"y_true has {len(targets)} rows, but y_pred has {len(outputs)}")
        weights = None
        if sample_weight is not None:
            weights = np.asarray(sample_weight, np.float64).reshape(-1, 1)
            if len(weights) != len(outputs):
                raise InvalidInputError(
                    f"sample_weight has {len(weights)} rows, but y_pred has {len(outputs)}"
                )
        return self.step(self._unfused(outputs), targets, None, Buffers(len(outputs), np.float64), weights)

    def _unfused(self, outputs: Array) -> Array:
        """Return what ``step`` takes for these predictions."""
        return outputs


class _OfDifference(Loss):
    """The mean over the outputs of a function of ``output - target``."""

    def rows(
        self, outputs: Array, targets: Array, losses: Array, gradient: Array | None, buffers: Buffers
    ) -> None:
        """The gradient is that of the function, divided by the number of outputs."""
        error = buffers.get("loss_error", *outputs.shape[1:])
        np.subtract(outputs, targets, out=error)
        self._of(error, gradient, buffers)
        if gradient is not None and outputs.shape[1] > 1:
            np.multiply(gradient, 1 / outputs.shape[1], out=gradient)
        np.mean(error, axis=1, out=losses)

    def _of(self, error: Array, gradient: Array | None, buffers: Buffers) -> None:
        """Replace ``error`` by the function of it, and put its derivative into ``gradient``."""
        raise NotImplementedError


class MeanSquaredError(_OfDifference):
    """Mean of ``(output - target) ** 2``: for regression; a few targets far off count much."""

    name = "mean_squared_error"

    def _of(self, error: Array, gradient: Array | None, buffers: Buffers) -> None:
        del buffers
        if gradient is not None:
            np.multiply(error, 2, out=gradient)
        np.multiply(error, error, out=error)


class MeanAbsoluteError(_OfDifference):
    """Mean of ``|output - target|``: for the median, which targets far off do not move."""

    name = "mean_absolute_error"

    def _of(self, error: Array, gradient: Array | None, buffers: Buffers) -> None:
        del buffers
        if gradient is not None:
            np.sign(error, out=gradient)
        np.abs(error, out=error)


class Huber(_OfDifference):
    """Half of the square of errors up to ``delta``, beyond it a straight line (Huber, 1964).

    As smooth as the squared error near 0 and as patient with targets far off as the absolute one.

    Args:
        delta: where it goes over, in the unit of the targets; positive.
    """

    name = "huber"

    def __init__(self, delta: float = 1.0) -> None:
        self.delta = checks.number("delta", delta, 0, above=True)

    def _of(self, error: Array, gradient: Array | None, buffers: Buffers) -> None:
        """With ``c = clip(e, -delta, delta)`` it is ``c (e - c / 2)``, and the derivative is ``c``."""
        clipped = buffers.get("loss_clipped", *error.shape[1:]) if gradient is None else gradient
        half = buffers.get("loss_half", *error.shape[1:])
        np.clip(error, -self.delta, self.delta, out=clipped)
        np.multiply(clipped, 0.5, out=half)
        np.subtract(error, half, out=error)
        np.multiply(error, clipped, out=error)


_EPSILON = 1e-7
"""Added to an output where a logarithm is taken, as Keras does."""


class Poisson(Loss):
    """``output - target * log(output + 1e-7)``: for counts; the outputs are rates, so end in ``softplus``."""

    name = "poisson"

    def targets(self, y: Array, units: int, dtype: DTypeLike) -> Array:
        """Counts: numbers of at least 0."""
        targets = _float_targets(y, units, dtype)
        if (targets < 0).any():
            raise InvalidInputError(f"{self.name} takes counts of at least 0, found {targets.min():g} in y")
        return targets

    def rows(
        self, outputs: Array, targets: Array, losses: Array, gradient: Array | None, buffers: Buffers
    ) -> None:
        """The gradient is ``(1 - target / (output + 1e-7)) / units``."""
        part = buffers.get("loss_part", *outputs.shape[1:])
        np.add(outputs, _EPSILON, out=part)
        if gradient is not None:
            np.divide(targets, part, out=gradient)
            np.subtract(1, gradient, out=gradient)
            np.multiply(gradient, 1 / outputs.shape[1], out=gradient)
        np.log(part, out=part)
        np.multiply(part, targets, out=part)
        np.subtract(outputs, part, out=part)
        np.mean(part, axis=1, out=losses)


class Hinge(Loss):
    """``max(0, 1 - target * output)`` with targets -1 and 1 (or 0 and 1): a margin instead of a probability."""

    name = "hinge"

    def kind(self, units: int) -> Kind:
        """Return margin."""
        del units
        return "margin"

    def targets(self, y: Array, units: int, dtype: DTypeLike) -> Array:
        """-1 or 1 for each output; 0 and 1 are read as -1 and 1."""
        targets = _float_targets(y, units, dtype)
        if not np.isin(targets, (-1, 0, 1)).all() or ((targets == 0).any() and (targets == -1).any()):
            raise InvalidInputError(f"{self.name} takes targets -1 and 1, or 0 and 1; found others in y")
        return np.where(targets > 0, 1, -1).astype(dtype)

    def rows(
        self, outputs: Array, targets: Array, losses: Array, gradient: Array | None, buffers: Buffers
    ) -> None:
        """The gradient is ``-target / units`` where the loss is positive."""
        part = buffers.get("loss_part", *outputs.shape[1:])
        missed = buffers.get("loss_missed", *outputs.shape[1:], dtype=np.bool_)
        np.multiply(outputs, targets, out=part)
        np.subtract(1, part, out=part)
        np.maximum(part, 0, out=part)
        np.mean(part, axis=1, out=losses)
        if gradient is not None:
            np.greater(part, 0, out=missed)
            np.multiply(targets, -1 / outputs.shape[1], out=gradient)
            np.multiply(gradient, missed, out=gradient)


class _Crossentropy(Loss):
    """A cross-entropy.

    Args:
        from_logits: the network ends in linear and its outputs are logits.
        label_smoothing: share of the target that is spread over all classes (Szegedy et al., 2016); 0 to below 1. It
            keeps a network from being too sure of itself.
    """

    task = "classification"

    def __init__(self, from_logits: bool = False, label_smoothing: float = 0.0) -> None:
        self.from_logits = from_logits
        self.label_smoothing = checks.number("label_smoothing", label_smoothing, 0, 1)

    def _unfused(self, outputs: Array) -> Array:
        if self.from_logits:
            return outputs
        if not ((outputs >= 0) & (outputs <= 1)).all():
            raise InvalidInputError(f"{self.name} takes probabilities from 0 to 1; found others in y_pred")
        return self._logits(outputs)

    def _logits(self, probabilities: Array) -> Array:
        raise NotImplementedError

    def _smoothed(self, targets: Array, even: float, buffers: Buffers) -> Array:
        """Return ``targets * (1 - label_smoothing) + label_smoothing * even``."""
        if not self.label_smoothing:
            return targets
        smoothed = buffers.get("loss_smoothed", *targets.shape[1:])
        np.multiply(targets, 1 - self.label_smoothing, out=smoothed)
        np.add(smoothed, self.label_smoothing * even, out=smoothed)
        return smoothed


_SMALLEST = 1e-300
"""Stands for a probability of 0 where a logarithm is taken, so that a loss is large instead of infinite."""


class CategoricalCrossentropy(_Crossentropy):
    """``-sum_i target_i * log(probability_i)``: classes that exclude each other, targets one-hot (or probabilities).

    Args:
        from_logits: the network ends in linear and its outputs are logits.
        label_smoothing: share of the target that is spread evenly over all classes; 0 to below 1.
    """

    name = "categorical_crossentropy"
    fuses = Softmax.name

    def kind(self, units: int) -> Kind:
        """Return categorical."""
        del units
        return "categorical"

    def targets(self, y: Array, units: int, dtype: DTypeLike) -> Array:
        """One row of ``units`` probabilities for each row; they sum to 1."""
        if y.ndim < 2 and units > 1:
            raise InvalidInputError(
                f"{self.name} takes one-hot targets (rows, {units}), found shape {y.shape}; "
                "for class indices use sparse_categorical_crossentropy"
            )
        targets = _float_targets(y, units, dtype)
        if units < 2:
            raise InvalidInputError(f"{self.name} needs at least 2 outputs; for one use binary_crossentropy")
        if (targets < 0).any() or (np.abs(targets.sum(axis=1) - 1) > 1e-3).any():
            raise InvalidInputError(
                f"{self.name} takes rows of probabilities that sum to 1; found others in y"
            )
        return targets

    def check_training(self, targets: Array) -> None:
        """Refuse targets of one class only."""
        if not np.ptp(targets, axis=0).any():
            raise InvalidInputError("all rows have the same class: a classifier needs at least two")

    def rows(
        self, outputs: Array, targets: Array, losses: Array, gradient: Array | None, buffers: Buffers
    ) -> None:
        """The gradient with respect to the logits is ``softmax - target``."""
        row = buffers.get("loss_row", 1)
        product = buffers.get("loss_product", *outputs.shape[1:])
        targets = self._smoothed(targets, 1 / outputs.shape[1], buffers)
        np.max(outputs, axis=1, keepdims=True, out=row)
        np.subtract(outputs, row, out=outputs)
        np.multiply(outputs, targets, out=product)
        np.sum(product, axis=1, out=losses)
        np.exp(outputs, out=outputs)
        np.sum(outputs, axis=1, keepdims=True, out=row)
        np.divide(outputs, row, out=outputs)
        np.log(row, out=row)
        np.subtract(row[:, 0], losses, out=losses)
        if gradient is not None:
            np.subtract(outputs, targets, out=gradient)

    def _logits(self, probabilities: Array) -> Array:
        logits: Array = np.log(np.maximum(probabilities, _SMALLEST))
        return logits


class SparseCategoricalCrossentropy(CategoricalCrossentropy):
    """The categorical cross-entropy with class indices 0, 1, ... as targets.

    Args:
        from_logits: the network ends in linear and its outputs are logits.
        label_smoothing: share of the target that is spread evenly over all classes; 0 to below 1.
    """

    name = "sparse_categorical_crossentropy"

    def kind(self, units: int) -> Kind:
        """Return sparse."""
        del units
        return "sparse"

    def dense(self) -> Loss:
        """Return the categorical cross-entropy."""
        return CategoricalCrossentropy(self.from_logits, self.label_smoothing)

    def targets(self, y: Array, units: int, dtype: DTypeLike) -> Array:
        """One class index for each row, (rows, 1) int64."""
        del dtype
        if units < 2:
            raise InvalidInputError(
                f"{self.name} needs an output a class; for one output use binary_crossentropy"
            )
        y = _one_column(y, f"{self.name} takes class indices (rows,)")
        if y.dtype.kind not in "iu":
            raise InvalidInputError(
                f"{self.name} takes class indices as whole numbers, found {y.dtype}; use y.astype(int), "
                "or number the classes with numpy.unique(y, return_inverse=True)"
            )
        if len(y) and (int(y.min()) < 0 or int(y.max()) >= units):
            worst = int(y.min()) if int(y.min()) < 0 else int(y.max())
            raise InvalidInputError(
                f"class index {worst} is out of range: the network has {units} outputs, so classes are 0 to {units - 1}"
            )
        return y.astype(np.int64)

    def check_training(self, targets: Array) -> None:
        """Refuse targets of one class only."""
        if (targets == targets[0]).all():
            raise InvalidInputError(
                f"all rows are of class {int(targets[0, 0])}: a classifier needs at least two classes"
            )

    def rows(
        self, outputs: Array, targets: Array, losses: Array, gradient: Array | None, buffers: Buffers
    ) -> None:
        """Write the class indices as one-hot rows, then do as the categorical cross-entropy."""
        dense = buffers.get("loss_one_hot", outputs.shape[1])
        one_hot(targets, dense)
        super().rows(outputs, dense, losses, gradient, buffers)


class BinaryCrossentropy(_Crossentropy):
    """``-(t * log(p) + (1 - t) * log(1 - p))``, mean over the outputs: two classes, or labels that may go together.

    Args:
        from_logits: the network ends in linear and its outputs are logits.
        label_smoothing: how far targets are moved towards 1/2: ``t (1 - s) + s / 2``; 0 to below 1.
    """

    name = "binary_crossentropy"
    fuses = Sigmoid.name

    def kind(self, units: int) -> Kind:
        """Return binary, or multilabel if there are several outputs."""
        return "binary" if units == 1 else "multilabel"

    def targets(self, y: Array, units: int, dtype: DTypeLike) -> Array:
        """0 or 1 (or a probability) for each output."""
        targets = _float_targets(y, units, dtype)
        if ((targets < 0) | (targets > 1)).any():
            raise InvalidInputError(
                f"{self.name} takes targets from 0 to 1, found {targets.min():g} to {targets.max():g}; "
                "for more than two classes use sparse_categorical_crossentropy with an output a class"
            )
        return targets

    def check_training(self, targets: Array) -> None:
        """Refuse targets of one class only."""
        if targets.shape[1] == 1 and not np.ptp(targets):
            raise InvalidInputError(
                f"all rows are of class {targets[0, 0]:g}: a classifier needs at least two classes"
            )

    def rows(
        self, outputs: Array, targets: Array, losses: Array, gradient: Array | None, buffers: Buffers
    ) -> None:
        """The loss is ``max(z, 0) - z t + log(1 + exp(-|z|))``, its gradient ``(sigmoid(z) - t) / units``."""
        total = buffers.get("loss_total", *outputs.shape[1:])
        part = buffers.get("loss_part", *outputs.shape[1:])
        targets = self._smoothed(targets, 0.5, buffers)
        np.abs(outputs, out=total)
        np.negative(total, out=total)
        np.exp(total, out=total)
        np.log1p(total, out=total)
        np.maximum(outputs, 0, out=part)
        np.add(total, part, out=total)
        np.multiply(outputs, targets, out=part)
        np.subtract(total, part, out=total)
        np.mean(total, axis=1, out=losses)
        _SIGMOID.forward(outputs, buffers)
        if gradient is not None:
            np.subtract(outputs, targets, out=gradient)
            if outputs.shape[1] > 1:
                np.multiply(gradient, 1 / outputs.shape[1], out=gradient)

    def _logits(self, probabilities: Array) -> Array:
        other = np.maximum(1 - probabilities, _SMALLEST)
        logits: Array = np.log(np.maximum(probabilities, _SMALLEST)) - np.log(other)
        return logits


class CustomLoss(Loss):
    """Your own loss, by a pair of functions on arrays; what the network predicts is exported as for ``mse``.

    Args:
        function: outputs (batch, units), targets (batch, units) -> the loss of each row, (batch,).
        gradient: the same arguments -> the gradient of a row's loss with respect to the outputs, (batch, units).
        name: in the training record.

    Example:
        >>> from mariana.trainer import CustomLoss
        >>> quartic = CustomLoss(
        ...     lambda o, t: ((o - t) ** 4).sum(axis=1), lambda o, t: 4 * (o - t) ** 3, "quartic"
        ... )
        >>> quartic([1.0, 2.0], [[1.0], [4.0]])
        8.0
    """

    def __init__(
        self,
        function: Callable[[Array, Array], Array],
        gradient: Callable[[Array, Array], Array],
        name: str = "custom",
    ) -> None:
        pair: tuple[object, ...] = (function, gradient)
        if not all(map(callable, pair)):
            raise InvalidInputError("CustomLoss takes two functions: the loss of each row, and its gradient")
        self.function, self.gradient, self.name = function, gradient, name

    def rows(
        self, outputs: Array, targets: Array, losses: Array, gradient: Array | None, buffers: Buffers
    ) -> None:
        """Call the two functions."""
        del buffers
        found = self.function(outputs, targets)
        if np.shape(found) != losses.shape:
            raise InvalidInputError(
                f"loss {self.name!r}: expected a loss a row, {losses.shape}; its function gave {np.shape(found)}"
            )
        losses[...] = found
        if gradient is not None:
            slope = self.gradient(outputs, targets)
            if np.shape(slope) != outputs.shape:
                raise InvalidInputError(
                    f"loss {self.name!r}: expected a gradient {outputs.shape}; its function gave {np.shape(slope)}"
                )
            gradient[...] = slope


class _Classes:
    """0, 1, 2, ... as one array that grows."""

    def __init__(self) -> None:
        self._array = np.arange(16)

    def upto(self, units: int) -> Array:
        if units > len(self._array):
            self._array = np.arange(units)
        return self._array[:units]


_CLASSES = _Classes()


def one_hot(indices: Array, out: Array) -> None:
    """Write class indices (rows, 1) as rows of 0 and 1 into ``out``, (rows, units)."""
    np.equal(indices, _CLASSES.upto(out.shape[1]), out=out)


_ALL: tuple[type[Loss], ...] = (
    CategoricalCrossentropy,
    SparseCategoricalCrossentropy,
    BinaryCrossentropy,
    MeanSquaredError,
    MeanAbsoluteError,
    Huber,
    Poisson,
    Hinge,
)
LOSSES: dict[str, type[Loss]] = {cls.name: cls for cls in _ALL} | {
    "mse": MeanSquaredError,
    "mae": MeanAbsoluteError,
}
"""The losses by name."""


def get(value: Any) -> Loss:
    """Return the loss of that name; a pair of functions is a ``CustomLoss``."""
    if isinstance(value, tuple) and len(value) == 2 and all(map(callable, value)):
        return CustomLoss(*value)
    return _get("loss", LOSSES, value, Loss)


def _one_column(y: Array, expected: str) -> Array:
    """Return (rows,) or (rows, 1) as (rows, 1)."""
    if y.ndim == 1 or (y.ndim == 2 and y.shape[1] == 1):
        return y.reshape(len(y), 1)
    raise InvalidInputError(f"{expected}, found shape {y.shape}")


def _float_targets(y: Array, units: int, dtype: DTypeLike) -> Array:
    if y.dtype.kind not in "biuf":
        raise InvalidInputError(f"targets must be numbers, found {y.dtype}; number the classes first")
    y = _one_column(y, "the network has 1 output, so y is (rows,)") if units == 1 else y
    if y.ndim != 2 or y.shape[1] != units:
        raise InvalidInputError(
            f"the network has {units} outputs, so y is (rows, {units}); found shape {y.shape}"
        )
    with np.errstate(over="ignore"):
        targets = np.ascontiguousarray(y, dtype)
    if not np.isfinite(targets).all():
        row, column = (int(i) for i in np.argwhere(~np.isfinite(targets))[0])
        raise InvalidInputError(f"y[{row}, {column}] is {y[row, column]}: targets must be finite")
    return targets
