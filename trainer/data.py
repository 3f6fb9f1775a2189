"""Data on its way into a network: checked, cast once, split, weighted, and put in a new order for each pass."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from mariana.errors import InvalidInputError

from . import checks
from .buffers import Array
from .losses import Kind


def rows(x: ArrayLike, dtype: DTypeLike, name: str = "x") -> tuple[Array, tuple[int, ...]]:
    """Return data as (rows, columns), C-contiguous, and the shape that one row had.

    Args:
        x: (rows, columns) or (rows, ...) numbers; not copied if it is right already.
        dtype: wanted; bytes (uint8) stay bytes, which a batch turns into it.
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
    if array.dtype == np.uint8:
        return np.ascontiguousarray(array.reshape(len(array), -1)), array.shape[1:]
    with np.errstate(over="ignore"):
        flat = np.ascontiguousarray(array.reshape(len(array), -1), dtype)
    if not _all_finite(flat):
        row, column = (int(i) for i in np.argwhere(~np.isfinite(flat))[0])
        raise InvalidInputError(
            f"{name}[{row}, {column}] is {array.reshape(len(array), -1)[row, column]}: all numbers must be finite "
            f"{np.dtype(dtype)}; fill or leave out what is missing"
        )
    return flat, array.shape[1:]


def _all_finite(flat: Array) -> bool:
    """Return whether all numbers are finite; the sum, one pass without another array, is finite in nearly all cases."""
    with np.errstate(over="ignore", invalid="ignore"):
        total = np.add.reduce(flat, axis=None)
    return bool(np.isfinite(total)) or bool(np.isfinite(flat).all())


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


def sample_weights(
    count: int, dtype: DTypeLike, sample_weight: ArrayLike | None, name: str = "sample_weight"
) -> Array | None:
    """Return the weight of each of ``count`` rows, (rows, 1); None: all are 1.

    Raises:
        InvalidInputError: there is not one finite number of at least 0 for each row, or all are 0.
    """
    if sample_weight is None:
        return None
    given = as_array(sample_weight, name)
    if given.shape not in ((count,), (count, 1)) or given.dtype.kind not in "biuf":
        raise InvalidInputError(
            f"{name} must hold a number for each of the {count} rows, found {given.dtype} {given.shape}"
        )
    weights = np.ascontiguousarray(given.reshape(-1, 1), dtype)
    if not np.isfinite(weights).all() or (weights < 0).any() or not weights.any():
        raise InvalidInputError(f"{name} must be finite numbers of at least 0, and not all 0")
    return weights


def class_weighted(
    y: Array,
    kind: Kind,
    class_weight: Mapping[int, float] | Literal["balanced"] | None,
    weights: Array | None,
    dtype: DTypeLike,
) -> Array | None:
    """Return the weights of the rows times those of their classes, (rows, 1); None: all are 1.

    Args:
        y: what the loss's ``targets`` returned.
        kind: of these targets.
        class_weight: weight of each class index, 1 if it is not named; ``balanced``: rows / (classes * rows of the
            class), so that all classes count alike.
        weights: of the rows; None: all are 1.
        dtype: wanted.
    """
    if class_weight is None:
        return weights
    classes = _class_weights(_classes(y, kind), class_weight).reshape(-1, 1)
    return np.ascontiguousarray(classes if weights is None else classes * weights, dtype)


def _classes(y: Array, kind: Kind) -> NDArray[np.int64]:
    """Return the class index of each row."""
    if kind == "sparse":
        return y[:, 0].astype(np.int64)
    if kind == "categorical":
        return np.asarray(y.argmax(axis=1))
    if y.shape[1] > 1 or kind == "values":
        raise InvalidInputError("class_weight needs classes that exclude each other; use sample_weight")
    return (y[:, 0] > (0 if kind == "margin" else 0.5)).astype(np.int64)


def _class_weights(
    classes: NDArray[np.int64], class_weight: Mapping[int, float] | Literal["balanced"]
) -> NDArray[np.float64]:
    if isinstance(class_weight, str):
        if class_weight != "balanced":
            raise InvalidInputError(
                f"class_weight is {class_weight!r}: use 'balanced' or a weight for each class"
            )
        counts = np.bincount(classes)
        shares = len(classes) / (np.count_nonzero(counts) * np.maximum(counts, 1))
        return np.asarray(shares[classes])
    if not isinstance(class_weight, Mapping):
        raise InvalidInputError("class_weight must be 'balanced' or map class indices to numbers")
    known = {checks.whole_number("each class of class_weight", label, 0): label for label in class_weight}
    table = np.ones(max(int(classes.max()), *known, 0) + 1)
    for index, label in known.items():
        table[index] = checks.number(f"class_weight[{label}]", class_weight[label], 0)
    return np.asarray(table[classes])


def checksum(*arrays: Array) -> str:
    """Return a short text that is another one for other data: CRC-32 of up to 4,096 rows of each array, evenly spread."""
    found = 0
    for array in arrays:
        step = max(1, len(array) // 4096)
        found = zlib.crc32(np.ascontiguousarray(array[::step]).data, found)
        found = zlib.crc32(repr((array.shape, array.dtype.str)).encode(), found)
    return f"{found:08x}"


def batches(count: int, size: int) -> Iterator[slice]:
    """Yield the slices of ``count`` rows in batches of ``size``; the last may be shorter."""
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))


class Feed:
    """The rows of a training, pass after pass, each in a new order.

    Args:
        count: rows.
        batch_size: rows of a step; the last step of a pass may have fewer.
        shuffle: whether each pass has an order of its own.
        rng: draws the orders.
    """

    def __init__(self, count: int, batch_size: int, *, shuffle: bool, rng: np.random.Generator) -> None:
        self.count, self.batch_size = count, batch_size
        self.steps = -(-count // batch_size)
        self._shuffle, self._rng = shuffle, rng
        self._order = np.arange(count)
        self._begin = self._rng.bit_generator.state
        self._position = count

    def next(self) -> NDArray[np.int64]:
        """Return the row numbers of the next step."""
        if self._position >= self.count:
            self._new_pass()
        start = self._position
        self._position = min(start + self.batch_size, self.count)
        return self._order[start : self._position]

    def new_pass(self) -> None:
        """Leave the rest of this pass out."""
        self._position = self.count

    def _new_pass(self) -> None:
        self._begin = self._rng.bit_generator.state
        if self._shuffle:
            self._order[...] = np.arange(self.count)
            self._rng.shuffle(self._order)
        self._position = 0

    def state(self) -> dict[str, Any]:
        """Return what ``restore`` needs to go on with the same rows."""
        return {"begin": self._begin, "position": self._position, "now": self._rng.bit_generator.state}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on where ``state`` was asked for."""
        self._rng.bit_generator.state = state["begin"]
        self._new_pass()
        self._rng.bit_generator.state = state["now"]
        self._position = state["position"]
