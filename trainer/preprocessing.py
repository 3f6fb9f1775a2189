"""From raw rows to what a network sees, exactly as the model file says it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mariana.errors import InvalidInputError
from mariana.format import Feature


def encode(features: Sequence[Feature], raw: NDArray[np.float64]) -> NDArray[np.float64]:
    """Fill, scale and one-hot encode raw rows.

    Args:
        features: one a column.
        raw: (rows, features): a number, 0 or 1, or the index of a category; NaN is missing.

    Returns:
        (rows, encoded columns) float64.

    Raises:
        InvalidInputError: a value is missing where the feature has no fill, or is no index of a category.
    """
    parts = []
    for feature, column in zip(features, raw.T, strict=True):
        missing = np.isnan(column)
        if missing.any():
            if feature.fill is None:
                raise InvalidInputError(
                    f"feature {feature.name!r} is missing in row {int(np.argmax(missing))}, and has no fill"
                )
            fill = (
                feature.categories.index(feature.fill)
                if feature.kind == "categorical"
                else float(feature.fill)
            )
            column = np.where(missing, fill, column)  # noqa: PLW2901 - the same column, filled
        if feature.kind == "categorical":
            index = column.astype(np.int64)
            if len(index) and (
                index.min() < 0 or index.max() >= len(feature.categories) or (index != column).any()
            ):
                raise InvalidInputError(
                    f"feature {feature.name!r} holds a number that is no index of its {len(feature.categories)} categories"
                )
            parts.append(np.equal(index[:, None], np.arange(len(feature.categories))).astype(np.float64))
        else:
            parts.append(((column - feature.shift) * feature.scale)[:, None])
    return np.concatenate(parts, axis=1)
