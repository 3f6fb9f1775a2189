"""Data on its way into a network: checked, cast once, split, and gathered batch by batch into the same arrays."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from mariana.errors import InvalidInputError

from . import checks
from .buffers import Array


def rows(x: ArrayLike, dtype: DTypeLike, name: str = "x") -> tuple[Array, tuple[int, ...]]:
    """Return data as (rows, columns), C-contiguous, and the shape that one row had.

    Args:
        x: (rows, columns) or (rows, ...) numbers; not copied if it is right already.
        dtype: wanted.
        name: for messages.

    Raises:
        InvalidInputError: no rows, one dimension, no numbers, or a number that is missing or not finite.
    """
    array = as_array(x, name)
    if array.ndim < 2:
        raise InvalidInputError(
            f"{name} has shape {array.shape}: expected (rows, columns); use {name}.reshape(1, -1) for one row"
        )
    if array.dtype.kind not in "biuf":
        raise InvalidInputError(
            f"{name} holds {array.dtype}: expected numbers; encode texts and categories first"
        )
    if 0 in array.shape:
        raise InvalidInputError(
            f"{name} has shape {array.shape}: there must be at least one row and one column"
        )
    with np.errstate(over="ignore"):
        flat = np.ascontiguousarray(array.reshape(len(array), -1), dtype)
    if not np.isfinite(flat).all():
        row, column = (int(i) for i in np.argwhere(~np.isfinite(flat))[0])
        raise InvalidInputError(
            f"{name}[{row}, {column}] is {array.reshape(len(array), -1)[row, column]}: all numbers must be finite "
            f"{np.dtype(dtype)}; fill or leave out what is missing"
        )
    return flat, array.shape[1:]


def as_array(x: ArrayLike, name: str) -> Array:
    """Return an array; ragged lists get a clear error."""
    try:
        return np.asarray(x)
    except ValueError:
        raise InvalidInputError(f"{name} is ragged: all of its rows must have the same length") from None


def split_rows(count: int, share: float) -> int:
    """Return how many of ``count`` rows are for training when the last ``share`` of them validates.

    Raises:
        InvalidInputError: ``share`` is not within 0 (inclusive) and 1, or leaves one of both parts empty.
    """
    checks.number("validation_split", share, 0, 1)
    first = math.floor(count * (1 - share))
    if share and first in (0, count):
        raise InvalidInputError(
            f"validation_split={share:g} of {count} rows leaves {first} rows to learn and {count - first} to validate"
        )
    return first


def stratified_split(
    y: NDArray[np.int64] | None, count: int, share: float, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the row numbers of two parts, in random order; the second holds about ``share`` of the rows.

    Args:
        y: (count,) class indices, of which each part gets its share; None: no classes.
        count: rows.
        share: of the second part, from 0 to below 1.
        rng: draws the parts.
    """
    order = rng.permutation(count)
    if not share:
        return order, order[:0]
    parts = [order] if y is None else [order[y[order] == label] for label in np.unique(y)]
    # the number taken so far decides, so that the roundings of many small classes do not add up
    cuts, taken, seen = [], 0, 0
    for part in parts:
        seen += len(part)
        cut = min(max(round(seen * share) - taken, 0), len(part) - 1)
        taken += cut
        cuts.append(cut)
    first = np.concatenate([part[cut:] for part, cut in zip(parts, cuts, strict=True)])
    second = np.concatenate([part[:cut] for part, cut in zip(parts, cuts, strict=True)])
    return rng.permutation(first), rng.permutation(second)


def batches(count: int, size: int) -> Iterator[slice]:
    """Yield the slices of ``count`` rows in batches of ``size``; the last may be shorter."""
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))
