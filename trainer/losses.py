"""Losses: what training makes small. Each is the mean over the batch.

The cross-entropies are fused with the activation that belongs to them: they take what goes into softmax or sigmoid
(the logits), so that neither a probability of 0 nor a huge logit gives infinity, and the gradient with respect to the
logits is simply ``probability - target``.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from mariana.errors import InvalidInputError

from .activations import Sigmoid, Softmax
from .buffers import Array, Buffers
from .registry import get as _get

_SIGMOID = Sigmoid()


class Loss:
    """A loss.

    Attributes:
        name: in the registry and in the training record.
        fuses: the activation whose input it takes; empty when it takes the outputs.
        task: what the network is then good for: ``classification`` or ``regression``.
    """

    name = ""
    fuses = ""
    task = "regression"

    def targets(self, y: Array, units: int, dtype: DTypeLike) -> Array:
        """Check the targets of a data set and return them as the step wants them, a row each.

        Raises:
            InvalidInputError: they do not fit a network with that many outputs.
        """
        return _float_targets(y, units, dtype)

    def check_training(self, targets: Array) -> None:
        """Raise InvalidInputError if nothing can be learned from these targets."""

    def step(self, outputs: Array, targets: Array, gradient: Array | None, buffers: Buffers) -> float:
        """Return the loss of a batch, the mean over its rows.

        Args:
            outputs: (batch, units): the network's outputs or, where an activation is fused, its logits, which are
                replaced by their activation.
            targets: rows of what ``targets`` returned.
            gradient: (batch, units), gets the gradient with respect to what was given in ``outputs``; None: not wanted.
            buffers: of the batch.
        """
        raise NotImplementedError

    def __call__(self, y_true: ArrayLike, y_pred: ArrayLike) -> float:
        """Return the loss of predictions (batch, units) as ``predict`` gives them."""
        outputs = np.atleast_2d(np.asarray(y_pred, np.float64)).copy()
        targets = self.targets(np.asarray(y_true), outputs.shape[1], np.float64)
        if len(targets) != len(outputs):
            raise InvalidInputError(f"y_true has {len(targets)} rows, but y_pred has {len(outputs)}")
        return self.step(self._unfused(outputs), targets, None, Buffers(len(outputs), np.float64))

    def _unfused(self, outputs: Array) -> Array:
        """Return what ``step`` takes for these predictions."""
        return outputs


class MeanSquaredError(Loss):
    """Mean of ``(output - target) ** 2`` over rows and outputs: for regression."""

    name = "mean_squared_error"

    def step(self, outputs: Array, targets: Array, gradient: Array | None, buffers: Buffers) -> float:
        """The gradient is ``2 * (output - target) / (rows * units)``."""
        error = buffers.get("loss_error", *outputs.shape[1:])
        np.subtract(outputs, targets, out=error)
        if gradient is not None:
            np.multiply(error, 2 / error.size, out=gradient)
        np.multiply(error, error, out=error)
        return float(np.sum(error)) / error.size


class _Crossentropy(Loss):
    task = "classification"

    def __init__(self, from_logits: bool = False) -> None:
        """Make the loss.

        Args:
            from_logits: the network ends in linear and its outputs are logits.
        """
        self.from_logits = from_logits

    def _unfused(self, outputs: Array) -> Array:
        if self.from_logits:
            return outputs
        if not ((outputs >= 0) & (outputs <= 1)).all():
            raise InvalidInputError(f"{self.name} takes probabilities from 0 to 1; found others in y_pred")
        return self._logits(outputs)

    def _logits(self, probabilities: Array) -> Array:
        raise NotImplementedError


_SMALLEST = 1e-300
"""Stands for a probability of 0 where a logarithm is taken, so that a loss is large instead of infinite."""


class CategoricalCrossentropy(_Crossentropy):
    """``-sum_i target_i * log(probability_i)``: classes that exclude each other, targets one-hot (or probabilities)."""

    name = "categorical_crossentropy"
    fuses = Softmax.name

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

    def step(self, outputs: Array, targets: Array, gradient: Array | None, buffers: Buffers) -> float:
        """The gradient with respect to the logits is ``(softmax - target) / rows``."""
        rows = len(outputs)
        row = buffers.get("loss_row", 1)
        product = buffers.get("loss_product", *outputs.shape[1:])
        np.max(outputs, axis=1, keepdims=True, out=row)
        np.subtract(outputs, row, out=outputs)
        np.multiply(outputs, targets, out=product)
        hit = float(np.sum(product))
        np.exp(outputs, out=outputs)
        np.sum(outputs, axis=1, keepdims=True, out=row)
        np.divide(outputs, row, out=outputs)
        np.log(row, out=row)
        if gradient is not None:
            np.subtract(outputs, targets, out=gradient)
            np.multiply(gradient, 1 / rows, out=gradient)
        return (float(np.sum(row)) - hit) / rows

    def _logits(self, probabilities: Array) -> Array:
        logits: Array = np.log(np.maximum(probabilities, _SMALLEST))
        return logits


class SparseCategoricalCrossentropy(CategoricalCrossentropy):
    """The categorical cross-entropy with class indices 0, 1, ... as targets."""

    name = "sparse_categorical_crossentropy"

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

    def step(self, outputs: Array, targets: Array, gradient: Array | None, buffers: Buffers) -> float:
        """Write the class indices as one-hot rows, then do as the categorical cross-entropy."""
        units = outputs.shape[1]
        one_hot = buffers.get("loss_one_hot", units)
        np.equal(targets, _CLASSES.upto(units), out=one_hot)
        return super().step(outputs, one_hot, gradient, buffers)


class _Classes:
    """0, 1, 2, ... as one array that grows."""

    def __init__(self) -> None:
        self._array = np.arange(16)

    def upto(self, units: int) -> Array:
        if units > len(self._array):
            self._array = np.arange(units)
        return self._array[:units]


_CLASSES = _Classes()


class BinaryCrossentropy(_Crossentropy):
    """``-(t * log(p) + (1 - t) * log(1 - p))``, mean over the outputs: two classes, or labels that may go together."""

    name = "binary_crossentropy"
    fuses = Sigmoid.name

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

    def step(self, outputs: Array, targets: Array, gradient: Array | None, buffers: Buffers) -> float:
        """The loss is ``max(z, 0) - z t + log(1 + exp(-|z|))``, its gradient ``(sigmoid(z) - t) / (rows * units)``."""
        part = buffers.get("loss_part", *outputs.shape[1:])
        np.abs(outputs, out=part)
        np.negative(part, out=part)
        np.exp(part, out=part)
        np.log1p(part, out=part)
        total = float(np.sum(part))
        np.maximum(outputs, 0, out=part)
        total += float(np.sum(part))
        np.multiply(outputs, targets, out=part)
        total -= float(np.sum(part))
        _SIGMOID.forward(outputs, buffers)
        if gradient is not None:
            np.subtract(outputs, targets, out=gradient)
            np.multiply(gradient, 1 / gradient.size, out=gradient)
        return total / outputs.size

    def _logits(self, probabilities: Array) -> Array:
        other = np.maximum(1 - probabilities, _SMALLEST)
        logits: Array = np.log(np.maximum(probabilities, _SMALLEST)) - np.log(other)
        return logits


_ALL: tuple[type[Loss], ...] = (
    CategoricalCrossentropy,
    SparseCategoricalCrossentropy,
    BinaryCrossentropy,
    MeanSquaredError,
)
LOSSES = {cls.name: cls for cls in _ALL} | {"mse": MeanSquaredError}
"""The losses by name."""


def get(value: str | Loss) -> Loss:
    """Return the loss of that name."""
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
