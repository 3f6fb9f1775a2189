"""What is checked of the rows, targets and weights that an estimator is given, in scikit-learn's words."""

from __future__ import annotations

import sys
import warnings
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mariana.errors import InvalidInputError
from mariana.tables import Table

Float64 = NDArray[np.float64]
Rows = NDArray[np.int64]


def check_width(estimator: Any, table: Table) -> None:
    """Compare the number of columns with that of ``fit``."""
    if len(table.columns) != estimator.n_features_in_:
        raise InvalidInputError(
            f"X has {len(table.columns)} features, but {type(estimator).__name__} is expecting {estimator.n_features_in_} "
            "features as input"
        )


def check_columns(estimator: Any, X: Any) -> None:
    """Compare the names of the columns with those of ``fit``."""
    known = getattr(estimator, "feature_names_in_", None)
    names = getattr(X, "columns", None)
    if names is not None and not all(isinstance(name, str) for name in names):
        names = None
    who = type(estimator).__name__
    if known is None and names is not None:
        warnings.warn(f"X has feature names, but {who} was fitted without feature names", stacklevel=4)
    if known is not None and names is None:
        warnings.warn(
            f"X does not have valid feature names, but {who} was fitted with feature names", stacklevel=4
        )
    if known is None or names is None or list(names) == list(known):
        return
    message = "The feature names should match those that were passed during fit.\n"
    unseen, missing = sorted(set(names) - set(known)), sorted(set(known) - set(names))
    for title, listed in (("unseen at fit time", unseen), ("seen at fit time, yet now missing", missing)):
        if listed:
            more = ["- ...", ""] if len(listed) > 5 else [""]
            message += f"Feature names {title}:\n" + "\n".join([f"- {name}" for name in listed[:5]] + more)
    if not unseen and not missing:
        message += "Feature names must be in the same order as they were in fit.\n"
    raise InvalidInputError(message)


def at(weights: Float64 | None, rows: Rows) -> Float64 | None:
    """Return the weights of these rows."""
    return None if weights is None else weights[rows]


def checked_weights(sample_weight: ArrayLike | None, rows: int) -> Float64 | None:
    """Check weights; None stays None."""
    if sample_weight is None:
        return None
    if isinstance(sample_weight, int | float):
        return np.full(rows, float(sample_weight))
    weights = np.asarray(sample_weight, np.float64)
    if weights.ndim != 1:
        raise InvalidInputError(f"Sample weights must be 1D array or scalar, found shape {weights.shape}")
    if len(weights) != rows:
        raise InvalidInputError(f"sample_weight.shape == {weights.shape}, expected ({rows},)!")
    if not np.isfinite(weights).all() or (weights < 0).any() or not weights.any():
        raise InvalidInputError("sample_weight must be finite, not negative, and not all zero")
    return weights


def checked_targets(estimator: object, y: Any, rows: int) -> NDArray[Any]:
    """Return y as an array (rows,) or (rows, outputs) without missing values."""
    if y is None:
        raise InvalidInputError(
            f"{type(estimator).__name__} requires y to be passed, but the target y is None"
        )
    targets = np.asarray(y)
    if targets.dtype.kind == "c":
        raise InvalidInputError("Complex data not supported: y must be real numbers or classes")
    if targets.ndim == 2 and targets.shape[1] == 1:
        _warn_column_vector()
        targets = targets[:, 0]
    if targets.ndim not in (1, 2) or len(targets) != rows:
        raise InvalidInputError(
            f"Found input variables with inconsistent numbers of samples: X has {rows} rows, y has shape {targets.shape}"
        )
    if targets.dtype.kind == "f" and not np.isfinite(targets).all():
        raise InvalidInputError("Input y contains NaN or infinity: each row needs its target")
    if targets.dtype.kind == "O":
        if any(value is None or value != value for value in targets.ravel()):  # noqa: PLR0124 - NaN is not itself
            raise InvalidInputError("Input y contains NaN: each row needs its target")
        numbers = all(isinstance(value, bool | int | float | np.generic) for value in targets.ravel())
        targets = np.array(targets.tolist()) if numbers else targets.astype(str)
    return targets


def _warn_column_vector() -> None:
    """Warn as scikit-learn does, with its class of warning where that is loaded."""
    exceptions = sys.modules.get("sklearn.exceptions")
    category = UserWarning if exceptions is None else exceptions.DataConversionWarning
    message = "A column-vector y was passed when a 1d array was expected. Please change the shape of y to (n_samples,)"
    warnings.warn(message, category, stacklevel=5)
