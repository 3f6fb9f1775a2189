"""The classifier: classes that exclude each other, or labels that go together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mariana.errors import InvalidInputError
from mariana.format import Label

from ..calibration import apply_temperature, find_temperature, logits
from .base import Estimator
from .inputs import Float64, checked_targets


@dataclass(eq=False, repr=False, kw_only=True)
class DNNClassifier(Estimator):
    """A dense network that predicts classes, or labels that go together.

    Args:
        class_weight: how much the rows of each class count: a mapping, or ``balanced``: as if all classes were equally
            frequent. None: as they are.
        label_smoothing: how far the targets are moved from 0 and 1 towards each other; 0 to below 1.
        calibrate: whether probabilities are calibrated on the rows put aside, where there are such.
        arguments: those of :class:`~mariana.trainer.estimators.arguments.Arguments`.

    Attributes:
        classes_: the classes, sorted; for several labels (rows, labels) their numbers.
        committee_: the members, each a :class:`Sequential`.
        network_: the :class:`Sequential` that they make together, which answers.
        features_: how each column becomes what the network sees.
        left_out_: columns that are not learned from, with the reason.
        n_features_in_, feature_names_in_, n_iter_, loss_curve_, validation_loss_curve_, best_loss_, loss_: as scikit-learn.
        temperature_: what the logits were divided by to calibrate; 1 where nothing was.

    Example:
        >>> from mariana.datasets import load_iris
        >>> x, y = load_iris()
        >>> classifier = DNNClassifier(random_state=0).fit(x, y)
        >>> bool(classifier.score(x, y) > 0.9)
        True
    """

    _estimator_type = "classifier"

    class_weight: Mapping[Any, float] | Literal["balanced"] | None = None
    label_smoothing: float = 0.0
    calibrate: bool = True

    def partial_fit(
        self,
        X: Any,
        y: Any,
        classes: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> Self:
        """Learn from these rows once, going on from the last call.

        The first call decides how columns are encoded. With ``early_stopping=True`` a share of each call's rows is not
        learned from; when their loss has not fallen for ``n_iter_no_change`` calls, the best weights come back and later
        calls change nothing.

        Args:
            X: (rows, columns).
            y: (rows,) classes, or (rows, labels).
            classes: all classes that will ever come; needed in the first call.
            sample_weight: (rows,).
        """
        if not self.__sklearn_is_fitted__():
            if classes is None:
                raise InvalidInputError("classes must be passed on the first call to partial_fit.")
            self.classes_ = np.unique(np.asarray(classes))
            self._multilabel = np.ndim(y) == 2 and np.shape(y)[1] > 1
        elif classes is not None and not np.array_equal(np.unique(np.asarray(classes)), self.classes_):
            raise InvalidInputError(f"`classes={classes}` is not the same as on last call to partial_fit")
        return self._partial_fit(X, y, sample_weight)

    def predict(self, X: Any) -> NDArray[Any]:
        """Return the most probable class of each row (rows,); for labels 0 or 1 of each (rows, labels)."""
        p = self._raw_outputs(X)
        if self._multilabel:
            return (p > 0.5).astype(int)
        best = (p[:, 0] > 0.5).astype(int) if p.shape[1] == 1 else p.argmax(axis=1)
        return np.asarray(self.classes_[best])

    def predict_proba(self, X: Any) -> Float64:
        """Return probabilities (rows, classes); for labels that of each (rows, labels)."""
        p = self._raw_outputs(X)
        if self._multilabel:
            return p
        return np.hstack([1 - p, p]) if p.shape[1] == 1 else p / p.sum(axis=1, keepdims=True)

    def predict_log_proba(self, X: Any) -> Float64:
        """Return the logarithm of the probabilities."""
        with np.errstate(divide="ignore"):
            return np.asarray(np.log(self.predict_proba(X)))

    def score(self, X: Any, y: Any, sample_weight: ArrayLike | None = None) -> float:
        """Return the share of rows that are right; of several labels, all of them."""
        right = np.asarray(self.predict(X)) == np.asarray(y)
        if right.ndim == 2:
            right = right.all(axis=1)
        return float(np.average(right, weights=None if sample_weight is None else np.asarray(sample_weight)))

    def _targets(self, y: Any, rows: int) -> NDArray[Any]:
        targets = checked_targets(self, y, rows)
        if targets.dtype.kind == "f" and (targets != np.floor(targets)).any():
            raise InvalidInputError(
                "Unknown label type: continuous. Maybe you are trying to fit a classifier, which expects discrete classes "
                "on a regression target with continuous values."
            )
        return targets

    def _class_weighted(self, targets: NDArray[Any], weights: Float64 | None) -> Float64 | None:
        if self.class_weight is None or targets.ndim == 2:
            return weights
        weights = np.ones(len(targets)) if weights is None else weights
        classes, place = np.unique(targets, return_inverse=True)
        if isinstance(self.class_weight, str):
            if self.class_weight != "balanced":
                raise InvalidInputError(
                    f"class_weight is {self.class_weight!r}: use 'balanced', a mapping or None"
                )
            counts = np.bincount(place, weights)
            return np.asarray(weights * (weights.sum() / len(classes) / np.maximum(counts, 1e-300))[place])
        found = np.array([float(self.class_weight.get(label, 1)) for label in classes.tolist()])
        return np.asarray(weights * found[place])

    def _indices(self, targets: NDArray[Any], *, again: bool) -> NDArray[Any]:
        if not again:
            self._multilabel = targets.ndim == 2
            self.classes_ = np.arange(targets.shape[1]) if self._multilabel else np.unique(targets)
        if self._multilabel:
            if targets.ndim != 2 or not np.isin(targets, (0, 1)).all():
                raise InvalidInputError("several labels (rows, labels) must be 0 or 1 each")
            self._outputs = ("labels", targets.shape[1])
            return targets.astype(np.float64)
        if len(self.classes_) < 2:
            raise InvalidInputError(
                f"a classifier needs at least two classes, but all rows with a weight are of one class: {self.classes_!r}"
            )
        self._outputs = ("binary", 1) if len(self.classes_) == 2 else ("classes", len(self.classes_))
        places = np.searchsorted(self.classes_, targets).clip(max=len(self.classes_) - 1)
        if (self.classes_[places] != targets).any():
            unknown = targets[self.classes_[places] != targets][0]
            raise InvalidInputError(
                f"`y` has classes not in `self.classes_`: {unknown!r} is none of {self.classes_!r}"
            )
        return np.asarray(places, np.int64)

    def _prepare_targets(self, indices: NDArray[Any], weights: Float64 | None) -> None:
        del indices, weights
        self.temperature_ = 1.0

    def _network_targets(self, indices: NDArray[Any]) -> NDArray[Any]:
        return indices

    def _calibrate(self, raw: Float64, indices: NDArray[Any], weights: Float64 | None) -> None:
        if not self.calibrate or not len(raw) or self._multilabel:
            return
        z = logits(self.network_.predict(self._encode(raw)))
        found = find_temperature(z, indices, weights)
        apply_temperature(self.network_, found)
        self.temperature_ = found

    def _export_arguments(self) -> dict[str, Any]:
        if self._multilabel:
            return {"targets": [f"label{label}" for label in self.classes_], "task": "regression"}
        labels: list[Label] = [
            str(label) if not isinstance(label, int) else label for label in _plain(self.classes_)
        ]
        return {"labels": labels, "targets": ["class"]}


def _plain(labels: NDArray[Any]) -> list[Any]:
    """Return labels as Python's; whole floats and booleans as integers."""
    if labels.dtype.kind in "bf":
        labels = labels.astype(np.int64)
    return list(labels.tolist())
