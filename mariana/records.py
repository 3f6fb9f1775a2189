"""Rows with names in, labels or values out: what stands around a model's arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mariana.errors import InvalidInputError, OutOfRangeError
from mariana.format import (
    CategoricalFeature,
    DatePart,
    Feature,
    InputField,
    ModelMetadata,
    NumericFeature,
    read_date,
)

Float32 = NDArray[np.float32]

_FLOAT32_MAX = float(np.finfo(np.float32).max)
_MISSING = float("nan")


@dataclass(frozen=True, slots=True)
class ClassPrediction:
    """What a classification network says of one row.

    Attributes:
        label: the most probable class; of equal ones the first.
        probability: its probability.
        probabilities: of every class, in the order of the model's labels.
    """

    label: int | str
    probability: float
    probabilities: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class ValuePrediction:
    """What a regression network says of one row.

    Attributes:
        value: the predicted number; one a target when there are several.
    """

    value: float | tuple[float, ...]


Prediction = ClassPrediction | ValuePrediction


class Records:
    """Reads rows with names as a model's document says, and says what its outputs mean.

    Args:
        info: of the model.
    """

    __slots__ = ("_dates", "_info", "_plain", "_readers")

    def __init__(self, info: ModelMetadata) -> None:
        dated = [feature.column != feature.name for feature in info.features]
        self._info = info
        self._plain = np.flatnonzero(~np.array(dated))
        self._readers = {f.name: _Reader(f) for f, part in zip(info.features, dated, strict=True) if not part}
        self._dates = [_DateReader(info, field) for field in info.fields if field.kind == "date"]

    def encode(self, records: Sequence[Mapping[str, object]]) -> Float32:
        """Return the matrix that rows with names are; :meth:`mariana.model.Model.encode` says the rest."""
        readers = self._readers
        x = np.empty((len(records), self._info.columns), np.float32)
        for i, record in enumerate(records):
            if not isinstance(record, Mapping):
                raise InvalidInputError(
                    f"row {i} must map feature names to values, got {type(record).__name__}", pointer=f"/{i}"
                )
            found = 0
            row = []
            for name, reader in readers.items():
                value = record.get(name, reader)  # a reader is never a value
                if value is reader:
                    value = None
                else:
                    found += 1
                row.append(reader.read(value, i))
            if self._dates:
                found += self._encode_dates(record, i, x[i])
                x[i, self._plain] = row
            else:
                x[i] = row
            if found != len(record):
                self._refuse_unknown(i)
        return x

    def decode(self, y: Float32) -> list[Prediction]:
        """Say what outputs mean; :meth:`mariana.model.Model.decode` says the rest."""
        if y.ndim != 2 or y.shape[1] != self._info.outputs:
            raise InvalidInputError(f"expected outputs of shape (batch, {self._info.outputs}), got {y.shape}")
        rows: list[list[float]] = y.tolist()
        if self._info.task == "regression":
            return [ValuePrediction(row[0] if len(row) == 1 else tuple(row)) for row in rows]
        labels = self._info.labels
        if self._info.outputs == 1:
            rows = [[1.0 - row[0], row[0]] for row in rows]
        predictions: list[Prediction] = []
        for row in rows:
            probability = max(row)
            predictions.append(ClassPrediction(labels[row.index(probability)], probability, tuple(row)))
        return predictions

    def _encode_dates(self, record: Mapping[str, object], i: int, row: Float32) -> int:
        """Write the parts of a record's dates to their columns and return how many dates there were."""
        found = 0
        for reader in self._dates:
            found += reader.name in record
            for place, value in reader.read(record.get(reader.name), i):
                row[place] = value
        return found

    def _refuse_unknown(self, row: int) -> None:
        names = [field.name for field in self._info.fields]
        known = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
        raise InvalidInputError(
            f"row {row}: a name is no feature of this model; there are: {known}",
            pointer=f"/{row}",
        )


class _Reader:
    """Reads the values of one feature out of records."""

    __slots__ = ("_filled", "_indexes", "_kind", "_name")

    def __init__(self, feature: Feature) -> None:
        self._name = feature.name
        self._kind = feature.kind
        self._filled = feature.fill is not None
        self._indexes: dict[str, float] = {}
        if isinstance(feature, CategoricalFeature):
            self._indexes = {category: float(i) for i, category in enumerate(feature.categories)}

    def read(self, value: object, row: int) -> float:
        """Return the number that stands for ``value``, NaN for a missing one."""
        if self._kind == "numeric":
            if isinstance(value, float | int | np.floating | np.integer) and not isinstance(value, bool):
                if -_FLOAT32_MAX <= value <= _FLOAT32_MAX:
                    return float(value)
                raise OutOfRangeError(
                    f"row {row}: {self._name!r} is not finite or does not fit float32", pointer=self._at(row)
                )
            expected = "a number"
        elif self._kind == "boolean":
            if isinstance(value, bool | np.bool_):
                return 1.0 if value else 0.0
            expected = "true or false"
        else:
            if isinstance(value, str):
                index = self._indexes.get(value)
                return self._missing(row, known=True) if index is None else index
            expected = "a string"
        if value is None:
            return self._missing(row)
        raise InvalidInputError(
            f"row {row}: {self._name!r} must be {expected}, got {type(value).__name__}", pointer=self._at(row)
        )

    def _missing(self, row: int, *, known: bool = False) -> float:
        if self._filled:
            return _MISSING
        if known:
            first = ", ".join(repr(category) for category in list(self._indexes)[:10])
            more = ", ..." if len(self._indexes) > 10 else ""
            raise OutOfRangeError(
                f"row {row}: {self._name!r} is none of its categories; there are: {first}{more}",
                pointer=self._at(row),
            )
        raise InvalidInputError(
            f"row {row}: {self._name!r} is missing, and the model has no substitute for it",
            pointer=self._at(row),
        )

    def _at(self, row: int) -> str:
        return _pointer(row, self._name)


class _DateReader:
    """Reads the dates of one column out of records."""

    __slots__ = ("_parts", "_required", "name")

    def __init__(self, info: ModelMetadata, field: InputField) -> None:
        self.name = field.name
        self._required = field.required
        self._parts: list[tuple[int, DatePart]] = []
        for place in field.features:
            feature = info.features[place]
            if isinstance(feature, NumericFeature) and feature.date is not None:
                self._parts.append((place, feature.date))

    def read(self, value: object, row: int) -> list[tuple[int, float]]:
        """Return place and number of each part, NaN for a missing date."""
        if value is None:
            if self._required:
                raise InvalidInputError(
                    f"row {row}: {self.name!r} is missing, and the model has no substitute for it",
                    pointer=_pointer(row, self.name),
                )
            return [(place, _MISSING) for place, _ in self._parts]
        date = read_date(value)
        if date is None:
            raise InvalidInputError(
                f"row {row}: {self.name!r} must be a date as ISO 8601 writes it, such as 2024-03-05 or "
                "2024-03-05T14:30:00",
                pointer=_pointer(row, self.name),
            )
        return [(place, part.of(date)) for place, part in self._parts]


def _pointer(row: int, name: str) -> str:
    """Return a JSON pointer (RFC 6901)."""
    return f"/{row}/" + name.replace("~", "~0").replace("/", "~1")
