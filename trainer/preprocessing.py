"""From the columns of a table to what a network sees, exactly as the model file says it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from mariana.errors import InvalidInputError
from mariana.format import (
    BooleanFeature,
    CategoricalFeature,
    DatePart,
    DatePartName,
    Feature,
    Form,
    NumericFeature,
    TargetScaling,
)
from mariana.tables import Column, read_number

MAX_CATEGORIES = 1000
"""More different texts than this are no category, but names or prose."""

MAX_CLASSES = 10_000

Task = Literal["classification", "regression"]


def encode(
    features: Sequence[Feature], raw: NDArray[np.float64], dtype: DTypeLike = np.float64
) -> NDArray[Any]:
    """Fill, scale and one-hot encode raw rows as a loaded model does: every number is rounded to float32 first.

    In float32 the result has the bits that C computes (``mrn_encode_rows``): the same operations in the same order, each
    of which IEEE 754 rounds in one way only.

    Args:
        features: one a column.
        raw: (rows, features): a number, 0 or 1, or the index of a category; NaN is missing.
        dtype: of the result, float32 or float64; it is computed in it.

    Returns:
        (rows, encoded columns) of that dtype.

    Raises:
        InvalidInputError: a value is missing where the feature has no fill, or is no index of a category.
    """
    widths = [feature.width for feature in features]
    encoded = np.zeros((len(raw), sum(widths)), dtype)
    rows, end = np.arange(len(raw)), 0
    encodings = [[] if feature.kind == "categorical" else feature.encoding for feature in features]
    numbers = iter(_rounded([pair for some in encodings for _, *pair in some]).astype(dtype))
    for feature, encoding, width, column in zip(features, encodings, widths, _rounded(raw).T, strict=True):
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
            for place, (form, _, _) in enumerate(encoding, start):
                value = (missing if form == "missing" else column).astype(dtype)
                shift, scale = next(numbers)
                with np.errstate(over="ignore", invalid="ignore"):  # as in C: infinity, and what comes of it
                    encoded[:, place] = _shaped(form, (value - shift) * scale)
    return encoded


def _shaped(form: Form, v: NDArray[Any]) -> NDArray[Any]:
    """Return what becomes of a shifted and scaled column; see :data:`mariana.format.Form`."""
    if form == "ramp":
        return np.asarray(np.clip(v, 0, 1))
    if form == "soft":
        bounded = np.clip(v, -4096, 4096)  # beyond it, all is 1 in float32
        return np.asarray(bounded / np.sqrt(1 + bounded * bounded))
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


Numbers = Literal["auto", "standard"]
"""How numbers are encoded: ``standard`` mean 0 and variance 1; ``auto`` robustly and piecewise linearly."""

_KNOTS = 48
"""Pieces of a piecewise linear encoding, at most: 16 did worse on the tables of docs/tables.md, 128 no better."""

_VALUES, _ROWS_A_VALUE = 128, 150
"""A column of at most so many different values, and so many rows for each on the mean, has a knot for each of them: the
amounts that people write into forms, ages, counts. Fewer knots were 2 % worse in log-loss on adult; so many of fewer rows
were 0.6 % worse on bike (docs/adr/0007)."""

_ROWS_A_PIECE = 40
_LEAST_PIECES = 4
_MOST_PIECES = 4096
"""Pieces of all columns together, at most: what the first layer must learn stays in proportion."""


def infer_features(
    columns: Iterable[Column],
    learn: NDArray[np.int64],
    numbers: Numbers = "auto",
    weights: NDArray[np.float64] | None = None,
) -> tuple[list[Feature], list[tuple[str, str]]]:
    """Choose how each column becomes what a network sees.

    ``auto``: of a number, the network sees its distance from the median in units of the interquartile range, softly
    limited to -3..3 (as RealMLP does, Holzmueller et al., arXiv 2407.04491), and its place among up to 48 knots (a
    piecewise linear encoding, Gorishniy et al., arXiv 2203.05556), or among all of up to 128 different values; ``standard``, and tables of less than 160 rows or more
    than 1,024 numbers a row: mean 0 and variance 1. Texts become one
    column a category, dates their parts. A column that misses a value somewhere gets a substitute, the median or the
    most frequent value of a boolean, and tells of it: a number by an indicator, a text by a category of its own.
    Quantiles, means and the like are those of the rows that are learned from.

    Args:
        columns: of the table, without the target.
        learn: numbers of the rows that are learned from.
        numbers: how numbers are encoded.
        weights: (len(learn),) how often each row counts; None: once.

    Returns:
        The features, and the columns left out with the reason.
    """
    columns = list(columns)
    features: list[Feature] = []
    left_out = []
    counts = np.ones(len(learn)) if weights is None else weights
    numeric = sum(column.kind not in ("categorical", "boolean") for column in columns)
    found_pieces = min(_KNOTS, int(counts.sum()) // _ROWS_A_PIECE, _MOST_PIECES // max(numeric, 1))
    pieces = found_pieces if numbers == "auto" and found_pieces >= _LEAST_PIECES else None
    values = min(_VALUES, int(counts.sum()) // _ROWS_A_VALUE, _MOST_PIECES // max(numeric, 1))
    for column in columns:
        if column.kind == "categorical":
            found = _categories(column, learn[counts > 0])
        elif column.kind == "date":
            found = _date_parts(column, learn, counts, pieces, values)
        else:
            cells = column.numbers(column.kind)
            found = _number(column.name, column.kind, cells, learn, counts, pieces, values)
        if isinstance(found, str):
            left_out.append((column.name, found))
        else:
            features += found
    return features, left_out


_ABSENT = "no value in the rows to learn from"


def _categories(column: Column, learn: NDArray[np.int64]) -> list[Feature] | str:
    """Return the feature of a column of texts, or why there is none."""
    texts = column.texts()
    known = {text for text in texts if text is not None}
    if _too_many(known, texts, MAX_CATEGORIES):
        return f"{len(known)} different texts are no categories{_example(column)}"
    if all(texts[i] is None for i in learn):
        return _ABSENT
    missing = len(known) < len(set(texts))
    categories = sorted(known | {""} if missing else known)
    return [CategoricalFeature(name=column.name, categories=tuple(categories), fill="" if missing else None)]


def _date_parts(
    column: Column, learn: NDArray[np.int64], counts: NDArray[np.float64], pieces: int | None, values: int
) -> list[Feature] | str:
    """Return the features of a column of dates: year, month, day, weekday and, if there are times, the hour."""
    features: list[Feature] = []
    parts: list[DatePartName] = ["year", "month", "day", "weekday", "hour"]
    for part in parts:
        date = DatePart(column=column.name, part=part)
        cells = column.dates(date)
        if part == "hour" and not np.nan_to_num(cells).any():
            continue
        found = _number(f"{column.name}.{part}", "numeric", cells, learn, counts, pieces, values, date)
        if isinstance(found, str):
            return found
        features += found
    return features


def _number(
    name: str,
    kind: str,
    cells: NDArray[np.float64],
    learn: NDArray[np.int64],
    counts: NDArray[np.float64],
    pieces: int | None,
    values: int,
    date: DatePart | None = None,
) -> list[Feature] | str:
    """Return the feature of a column of numbers or booleans, or why there is none.

    Args:
        name: of the feature.
        kind: of the column.
        cells: (rows,) NaN where missing.
        learn: numbers of the rows that are learned from.
        counts: (len(learn),) how often each row counts.
        pieces: of a piecewise linear encoding; None: standardised.
        values: a column of so many different values or fewer has a knot for each.
        date: what part of a date it is.
    """
    seen = _rounded(cells[learn])
    there = ~np.isnan(seen) & (counts > 0)
    if not there.any():
        return _ABSENT
    distinct, weights = _distinct(seen[there], counts[there])
    middle = _quantile(distinct, weights, 0.5)
    missing = bool(np.isnan(cells).any())
    if kind == "boolean" or pieces is None:
        all_seen, all_weights = _distinct(np.where(np.isnan(seen), middle, seen), counts)
        shift, scale = _standardisation(all_seen, all_weights)
        if kind == "boolean":
            return [
                BooleanFeature(name=name, fill=middle >= 0.5 if missing else None, shift=shift, scale=scale)
            ]
        fill = middle if missing else None
        return [NumericFeature(name=name, fill=fill, shift=shift, scale=scale, indicator=missing, date=date)]
    knots = _knots(distinct, weights, max(pieces, len(distinct) - 1) if len(distinct) <= values else pieces)
    return [
        NumericFeature(
            name=name,
            fill=middle if missing else None,
            shift=middle,
            scale=_robust_scale(distinct, weights) / _SOFT_LIMIT,
            soft=True,
            knots=knots,
            indicator=missing,
            date=date,
        )
    ]


_SOFT_LIMIT = 3.0
"""Interquartile ranges from the median that become 0.7: of more, less and less is seen."""


def _distinct(
    values: NDArray[np.float64], counts: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the different values, ascending, and how often each is there."""
    distinct, place = np.unique(values, return_inverse=True)
    return distinct, np.bincount(place, counts, len(distinct)).astype(np.float64)


def _quantile(distinct: NDArray[np.float64], weights: NDArray[np.float64], share: float) -> float:
    """Return the least value that so much of the weight does not exceed: a value that is there."""
    below = np.cumsum(weights)
    return float(
        distinct[min(int(np.searchsorted(below, share * below[-1] * (1 - 1e-12))), len(distinct) - 1)]
    )


def _robust_scale(distinct: NDArray[np.float64], weights: NDArray[np.float64]) -> float:
    """Return 1 / interquartile range; where that is 0, 2 / range; for a constant 0: nothing was learned of it."""
    spread = _quantile(distinct, weights, 0.75) - _quantile(distinct, weights, 0.25)
    spread = spread if 1e-37 < spread < 1e37 else (distinct[-1] - distinct[0]) / 2
    return float(1 / spread) if 1e-37 < spread < 1e37 else 0.0


def _knots(distinct: NDArray[np.float64], weights: NDArray[np.float64], pieces: int) -> tuple[float, ...]:
    """Return the knots of a piecewise linear encoding, or none.

    They are quantiles where a value counts by the root of how often it is there: between plain quantiles, which give
    one frequent value (the 0 of a gain that few have) nearly all knots, and evenly many different values for each.
    """
    if len(distinct) < 3:
        return ()
    if len(distinct) > pieces + 1:
        below = np.cumsum(np.sqrt(weights))
        inner = np.searchsorted(below, np.arange(1, pieces) / pieces * below[-1])
        distinct = distinct[
            np.unique(np.concatenate([[0], np.minimum(inner, len(distinct) - 1), [len(distinct) - 1]]))
        ]
    apart = np.concatenate([[True], np.diff(distinct) > 1e-30])
    return tuple(distinct[apart].tolist()) if np.abs(distinct).max() < 1e37 else ()


def _too_many(known: set[str], texts: Sequence[str | None], most: int) -> bool:
    """Whether so many different texts are no categories, but names, numbers or prose."""
    return len(known) > most or (len(known) > 20 and len(known) > len(texts) / 2)


def _example(column: Column) -> str:
    """Name a cell that is no number: it tells what is wrong where numbers were meant, such as a decimal comma."""
    for place, text in zip(column.places, column.texts(), strict=True):
        if text is not None and read_number(text) is None:
            return f"; {column.unit} {place} holds {text[:40]!r}, which is no number"
    return ""


def target_scaling(y: NDArray[np.float64], weights: NDArray[np.float64] | None = None) -> TargetScaling:
    """Return the scaling with which a network learns ``(y - mean) / standard deviation``, target by target.

    Args:
        y: (rows,) or (rows, targets).
        weights: (rows,) how often each row counts; None: once.
    """
    targets = y.reshape(len(y), -1).T
    return TargetScaling(
        shift=tuple(float(_rounded(np.average(target, weights=weights))) for target in targets),
        scale=tuple(_deviation(target, weights) or 1.0 for target in targets),
    )


def _standardisation(distinct: NDArray[np.float64], weights: NDArray[np.float64]) -> tuple[float, float]:
    """Return mean and 1 / standard deviation.

    A constant gets the scale 0: nothing was learned about its other values, so none of them may change a prediction.
    """
    deviation = _deviation(distinct, weights)
    mean = float(_rounded(np.average(distinct, weights=weights)))
    return mean, 1 / deviation if deviation else 0.0


def _deviation(values: NDArray[np.float64], weights: NDArray[np.float64] | None = None) -> float:
    """Return the standard deviation; 0 where float32 tells the values, or 1 / standard deviation, not from 0."""
    rounded = _rounded(values)
    if not np.ptp(rounded):
        return 0.0
    mean = np.average(rounded, weights=weights)
    deviation = float(np.sqrt(np.average((rounded - mean) ** 2, weights=weights)))
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
