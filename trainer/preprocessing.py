"""From the columns of a table to what a network sees, exactly as the model file says it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from mariana.errors import InvalidInputError
from mariana.format import BooleanFeature, CategoricalFeature, Feature, Form, NumericFeature, TargetScaling
from mariana.tables import Column, read_number

MAX_CATEGORIES = 1000
"""More different texts than this are no category, but names or prose."""

MAX_CLASSES = 10_000

Task = Literal["classification", "regression"]


def encode(
    features: Sequence[Feature], raw: NDArray[np.float64], dtype: DTypeLike = np.float64
) -> NDArray[Any]:
    """Fill, scale and one-hot encode raw rows as a loaded model does: every number is rounded to float32 first.

    Args:
        features: one a column.
        raw: (rows, features): a number, 0 or 1, or the index of a category; NaN is missing.
        dtype: of the result; all is computed in float64.

    Returns:
        (rows, encoded columns) of that dtype.

    Raises:
        InvalidInputError: a value is missing where the feature has no fill, or is no index of a category.
    """
    widths = [feature.width for feature in features]
    encoded = np.zeros((len(raw), sum(widths)), dtype)
    rows, end = np.arange(len(raw)), 0
    for feature, width, column in zip(features, widths, _rounded(raw).T, strict=True):
        start, end = end, end + width
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
            encoded[rows, start + index] = 1
        else:
            for place, (form, shift, scale) in enumerate(feature.encoding, start):
                value = missing if form == "missing" else column
                encoded[:, place] = _shaped(form, (value - _rounded(shift)) * _rounded(scale))
    return encoded


def _shaped(form: Form, v: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return what becomes of a shifted and scaled column; see :data:`mariana.format.Form`."""
    if form == "ramp":
        return np.clip(v, 0, 1)
    if form == "soft":
        bounded = np.clip(v, -4096, 4096)  # beyond it, all is 1 in float32
        return np.asarray(bounded / np.sqrt(1 + bounded**2))
    return v


@dataclass(frozen=True, slots=True)
class Target:
    """What is to be predicted.

    Attributes:
        task: classification or regression.
        y: (rows,) class indices, or numbers.
        labels: of the classes.
    """

    task: Task
    y: NDArray[Any]
    labels: tuple[int | str, ...] = ()


def infer_target(column: Column, task: Literal["auto", "classification", "regression"] = "auto") -> Target:
    """Read the column that is to be predicted; none of its cells is missing.

    ``auto`` takes texts, booleans and up to 20 different whole numbers as classes, other numbers as values. Labels are
    texts, or whole numbers where all are written as such, sorted.

    Raises:
        InvalidInputError: fewer than two classes, or texts where numbers are wanted.
    """
    guessed = task == "auto"
    if task == "auto":
        task = (
            "regression"
            if column.kind == "numeric" and not _few_whole(column.numbers("numeric"))
            else "classification"
        )
    if task == "regression":
        if column.kind != "numeric":
            raise InvalidInputError(
                f"column {column.name!r} cannot be the target of a regression{_example(column)}"
            )
        y = column.numbers("numeric")
        if np.abs(y).max() > 1e37 or not _deviation(y):
            raise InvalidInputError(
                f"column {column.name!r} must hold at least two numbers that float32 tells apart, none above 1e37"
            )
        return Target("regression", y)
    texts = [text for text in column.texts() if text is not None]
    known = set(texts)
    if len(known) > MAX_CLASSES or (guessed and _too_many(known, texts, MAX_CLASSES)):
        raise InvalidInputError(
            f"column {column.name!r} holds {len(known)} different values in {len(texts)} rows{_example(column)}: that is "
            f"no set of classes; --task says what it is (regression, or classification: at most {MAX_CLASSES} classes)"
        )
    labels: list[int | str] = sorted(known)
    if all(_is_whole(text) for text in known):
        labels = sorted(int(text) for text in known)
    if len(labels) < 2:
        raise InvalidInputError(
            f"column {column.name!r} holds only {', '.join(known)[:60]!r}: a classifier needs at least two classes"
        )
    index = {str(label): i for i, label in enumerate(labels)}
    return Target("classification", np.array([index[text] for text in texts], np.int64), tuple(labels))


def infer_features(
    columns: Iterable[Column], learn: NDArray[np.int64]
) -> tuple[list[Feature], list[tuple[str, str]]]:
    """Choose how each column becomes what a network sees.

    Numbers and booleans are standardised to mean 0 and variance 1, texts become one column a category. A column that
    misses a value somewhere gets a substitute: the median, or the most frequent value. Means, medians and the like
    are those of the rows that are learned from.

    Args:
        columns: of the table, without the target.
        learn: numbers of the rows that are learned from.

    Returns:
        The features, and the columns left out with the reason.
    """
    features: list[Feature] = []
    left_out = []
    for column in columns:
        if column.kind == "categorical":
            texts = column.texts()
            counts = Counter(text for text in (texts[i] for i in learn) if text is not None)
            known = {text for text in texts if text is not None}
            if _too_many(known, texts, MAX_CATEGORIES):
                reason = f"{len(known)} different texts are no categories{_example(column)}"
                left_out.append((column.name, reason))
            elif not counts:
                left_out.append((column.name, "no value in the rows to learn from"))
            else:
                most = min(counts, key=lambda text: (-counts[text], text))
                fill = most if None in texts else None
                features.append(
                    CategoricalFeature(name=column.name, categories=tuple(sorted(known)), fill=fill)
                )
            continue
        values = column.numbers(column.kind)
        seen = values[learn]
        seen = seen[~np.isnan(seen)]
        if not len(seen):
            left_out.append((column.name, "no value in the rows to learn from"))
            continue
        middle = float(np.median(seen))
        filled = np.where(np.isnan(values[learn]), middle, values[learn])
        shift, scale = _standardisation(filled)
        missing = bool(np.isnan(values).any())
        if column.kind == "boolean":
            fill_boolean = middle >= 0.5 if missing else None
            features.append(BooleanFeature(name=column.name, fill=fill_boolean, shift=shift, scale=scale))
        else:
            fill_number = middle if missing else None
            features.append(NumericFeature(name=column.name, fill=fill_number, shift=shift, scale=scale))
    return features, left_out


def _too_many(known: set[str], texts: Sequence[str | None], most: int) -> bool:
    """Whether so many different texts are no categories, but names, numbers or prose."""
    return len(known) > most or (len(known) > 20 and len(known) > len(texts) / 2)


def _example(column: Column) -> str:
    """Name a cell that is no number: it tells what is wrong where numbers were meant, such as a decimal comma."""
    for place, text in zip(column.places, column.texts(), strict=True):
        if text is not None and read_number(text) is None:
            return f"; {column.unit} {place} holds {text[:40]!r}, which is no number"
    return ""


def target_scaling(y: NDArray[np.float64]) -> TargetScaling:
    """Return the scaling with which a network learns ``(y - mean) / standard deviation``."""
    return TargetScaling(shift=(float(_rounded(np.mean(y))),), scale=(_deviation(y) or 1.0,))


def _standardisation(values: NDArray[np.float64]) -> tuple[float, float]:
    """Return mean and 1 / standard deviation.

    A constant gets the scale 0: nothing was learned about its other values, so none of them may change a prediction.
    """
    deviation = _deviation(values)
    return float(_rounded(np.mean(values))), 1 / deviation if deviation else 0.0


def _deviation(values: NDArray[np.float64]) -> float:
    """Return the standard deviation; 0 where float32 tells the values, or 1 / standard deviation, not from 0."""
    rounded = _rounded(values)
    deviation = float(np.std(rounded)) if np.ptp(rounded) else 0.0
    return deviation if 1e-37 < deviation < 1e37 else 0.0


def _rounded(values: ArrayLike) -> NDArray[np.float64]:
    """Return the nearest float32 numbers: what a loaded model works with."""
    with np.errstate(over="ignore"):
        return np.asarray(values, np.float32).astype(np.float64)


def _few_whole(numbers: NDArray[np.float64]) -> bool:
    found = np.unique(numbers[~np.isnan(numbers)])
    return len(found) <= 20 and bool((found == np.floor(found)).all())


def _is_whole(text: str) -> bool:
    """Whether a text is a whole number as Python writes it: 07 and +7 are labels of their own."""
    try:
        return str(int(text)) == text and abs(int(text)) < 1 << 53
    except ValueError:
        return False
