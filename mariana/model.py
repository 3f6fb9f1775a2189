"""A model in memory: raw rows in, labels or values out."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mariana._binding import choose_isa
from mariana._binding.dense import FORMS, Layer, Memory, Network, Tables, precision_usable
from mariana._binding.pool import MAX_THREADS, pool_of
from mariana.errors import FileFormatError, InvalidInputError, KernelError, NotFoundError, OutOfRangeError
from mariana.format import (
    SLOPES,
    CategoricalFeature,
    DatePart,
    DenseLayer,
    Feature,
    Form,
    InputField,
    ModelFile,
    ModelMetadata,
    NumericFeature,
    read_date,
    read_model,
)
from mariana.settings import Settings
from mariana.store import MODEL_FILE, versions_in

Float32 = NDArray[np.float32]

_ndarray = np.ndarray
_FLOAT32 = np.dtype(np.float32)
_FLOAT32_MAX = float(np.finfo(np.float32).max)
_MISSING = float("nan")
_GOLDEN_ABSOLUTE, _GOLDEN_RELATIVE = 1e-4, 1e-3
"""How far golden outputs may be off, in units of the target scale: instruction sets and libraries round differently."""
_GOLDEN_NARROW = 0.02
"""The same for bfloat16 and int8, in units of the largest output: where a hidden number lies next to the border of two
steps, a last bit that differs moves it by a whole step."""


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


def load_model(
    path: str | Path,
    *,
    isa: str | None = None,
    precision: str | None = None,
    threads: int | None = None,
    memory: Memory | None = None,
) -> Model:
    """Read a model file, check all of it, and make it ready to run.

    Args:
        path: the file, the folder of a version, or the folder of a model (its highest version).
        isa: the highest instruction set to use (``generic``, ``avx2``, ``avx512``, ...); default: the
            environment's ``MARIANA_ISA``, else the best that this machine has.
        precision: how a file with float32 weights is computed, ``float32`` or ``float32-split``; default: the
            environment's ``MARIANA_PRECISION``, else ``float32``. A quantised file runs in its own precision.
            Where the machine has no AMX, ``float32-split`` runs as ``float32``; ``Model.precision`` says what runs.
        threads: that share the work of a call, with the caller's own, where it is worth it; the answers have the
            same bits. Idle ones cost no time. Default: ``MARIANA_THREADS``, else 1.
        memory: where the packed weights are, for processes that share them; default: this process's own.

    Returns:
        The model; any number of threads may use it at a time.

    Raises:
        NotFoundError: there is no model at ``path``.
        FileFormatError: the file is damaged, newer than this version, inconsistent, or does not
            give the outputs that it promises.
        KernelError: ``isa`` names no instruction set, or the system starts no more threads.
        InvalidInputError: ``precision`` is none of the two.
        OSError: the file cannot be read.
    """
    found = find_model(Path(path))
    file = read_model(found)
    try:
        model = Model(file, isa=isa, precision=precision, threads=threads, memory=memory)
    except KernelError as error:
        if error.status in ("E_ISA", "E_NO_MEMORY"):
            raise
        raise FileFormatError(f"{found}: {error}") from None
    _check_golden(found, model)
    return model


class Model:
    """A network that is ready to run, with everything that its file says of it.

    Made by :func:`load_model`. Any number of threads may use it at a time.

    Args:
        file: what :func:`mariana.format.read_model` returned.
        isa: as for :func:`load_model`.
        precision: as for :func:`load_model`.
        threads: as for :func:`load_model`.
        memory: as for :func:`load_model`.

    Attributes:
        info: everything but the weights.
        isa: the instruction set in use.
        precision: how the layers are computed: ``float32``, ``float32-split``, ``bfloat16`` or ``int8``.
        threads: that a call may use, the caller's own among them.
        nbytes: bytes of memory that the packed weights and tables take.
        columns: numbers in a raw row, one a feature.
        outputs: numbers that come out for a row.
    """

    __slots__ = (
        "_dates",
        "_network",
        "_plain",
        "_readers",
        "_run",
        "columns",
        "info",
        "isa",
        "nbytes",
        "outputs",
        "precision",
        "threads",
    )

    def __init__(
        self,
        file: ModelFile,
        *,
        isa: str | None = None,
        precision: str | None = None,
        threads: int | None = None,
        memory: Memory | None = None,
    ) -> None:
        self.info: ModelMetadata = file.metadata
        layers = [
            Layer(
                file.tensors[f"{layer.name}.weight"],
                file.tensors[f"{layer.name}.bias"] if layer.use_bias else None,
                layer.activation,
                slopes_of(layer, file.tensors),
                file.tensors.get(f"{layer.name}.weight_scale"),
            )
            for layer in self.info.layers
        ]
        settings = Settings()
        chosen = choose_isa(settings.isa if isa is None else isa)
        self.precision: str = _precision(
            self.info.precision, settings.precision if precision is None else precision, chosen
        )
        self.threads: int = settings.threads if threads is None else threads
        if not 1 <= self.threads <= MAX_THREADS:
            raise OutOfRangeError(f"threads must be 1 to {MAX_THREADS}, got {self.threads}")
        pool = pool_of(self.threads) if self.threads > 1 else None
        self._network = Network(
            layers, self.info.columns, chosen, tables_of(self.info), self.precision, pool=pool, memory=memory
        )
        dated = [feature.column != feature.name for feature in self.info.features]
        self._plain = np.flatnonzero(~np.array(dated))
        self._readers = {
            f.name: _Reader(f) for f, part in zip(self.info.features, dated, strict=True) if not part
        }
        self._dates = [_DateReader(self.info, field) for field in self.info.fields if field.kind == "date"]
        self.isa: str = self._network.isa
        self.nbytes: int = self._network.nbytes
        self.columns: int = self.info.columns
        self.outputs: int = self.info.outputs
        self._run = self._network.predict

    def __repr__(self) -> str:
        widths = "-".join(str(n) for n in (self.info.encoded_columns, *(la.units for la in self.info.layers)))
        how = "" if self.precision == "float32" else f" in {self.precision}"
        return f"<Model {self.info.task} {widths}{how} on {self.isa}>"

    def predict(self, x: ArrayLike) -> Float32:
        """Run raw rows through the network.

        Args:
            x: (batch, columns), or (batch, *info.input_shape); one column a feature: a number, 1 or
                0 for a boolean, the index of the category; NaN where it is missing. C-contiguous
                float32 is taken as it is, everything else is copied first.

        Returns:
            (batch, outputs) float32: probabilities for classification, else values. A missing number
            for which the model has no substitute gives NaN; an index of no category is like none of them.

        Raises:
            InvalidInputError: ``x`` has another shape, or is no array of real numbers.
        """
        if (
            type(x) is _ndarray
            and x.dtype is _FLOAT32
            and len(shape := x.shape) == 2  # cheaper than a slice of it
            and shape[1] == self.columns
        ):
            try:
                return self._run(x)
            except ValueError:  # not C-contiguous
                pass
        return self._run(self._rows(x))

    def bind(self, x: Float32, y: Float32) -> Callable[[], None]:
        """Return a call that runs the rows in ``x`` and writes the outputs to ``y``.

        For callers in a loop: refill ``x``, call, read ``y``. A call allocates nothing. One bound
        call belongs to one thread at a time; bind again, with other arrays, for another thread.

        Args:
            x: (batch, columns) float32, C-contiguous; as for :meth:`predict`.
            y: (batch, outputs) float32, C-contiguous, writable.

        Raises:
            InvalidInputError: an array has another shape or type, or the two overlap.
        """
        for name, array, width in (("x", x, self.columns), ("y", y, self.outputs)):
            if (
                not isinstance(array, np.ndarray)  # type: ignore[redundant-expr] # callers may not be typed
                or array.dtype != _FLOAT32
                or array.ndim != 2
                or array.shape[1] != width
                or not array.flags.c_contiguous
            ):
                raise InvalidInputError(
                    f"bind needs {name} as a C-contiguous float32 array (batch, {width}), got {_kind(array)}"
                )
        if len(x) != len(y):
            raise InvalidInputError(f"bind needs as many rows in x as in y, got {len(x)} and {len(y)}")
        if not y.flags.writeable:
            raise InvalidInputError("bind writes the outputs to y, but the array is read-only")
        if np.may_share_memory(x, y):
            raise InvalidInputError("bind needs x and y apart, but the arrays overlap")
        return self._network.bind(x, y)

    def encode(self, records: Sequence[Mapping[str, object]]) -> Float32:
        """Turn rows with names into the matrix that :meth:`predict` takes.

        A value may be missing (the key is not there, None, or a category that is not in the model's
        list) where the feature has a substitute.

        Args:
            records: rows; numbers for numeric features, True or False for boolean ones, strings
                for categorical ones; for the column of a date a text in ISO 8601, a date or a datetime.

        Returns:
            (len(records), columns) float32.

        Raises:
            InvalidInputError: a name is unknown, a value is missing or has the wrong type;
                ``pointer`` says where, for example ``/3/sepal_length``.
            OutOfRangeError: a number is not finite or does not fit float32; a category is unknown.
        """
        readers = self._readers
        x = np.empty((len(records), self.columns), np.float32)
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
        """Say what outputs mean.

        Args:
            y: (batch, outputs), of :meth:`predict`.

        Returns:
            One prediction a row: :class:`ClassPrediction` or :class:`ValuePrediction`.

        Raises:
            InvalidInputError: ``y`` has another shape.
        """
        if y.ndim != 2 or y.shape[1] != self.outputs:
            raise InvalidInputError(f"expected outputs of shape (batch, {self.outputs}), got {y.shape}")
        rows: list[list[float]] = y.tolist()
        if self.info.task == "regression":
            return [ValuePrediction(row[0] if len(row) == 1 else tuple(row)) for row in rows]
        labels = self.info.labels
        if self.outputs == 1:
            rows = [[1.0 - row[0], row[0]] for row in rows]
        predictions: list[Prediction] = []
        for row in rows:
            probability = max(row)
            predictions.append(ClassPrediction(labels[row.index(probability)], probability, tuple(row)))
        return predictions

    def predict_records(self, records: Sequence[Mapping[str, object]]) -> list[Prediction]:
        """Run rows with names through the network and say what comes out.

        The same as ``decode(predict(encode(records)))``; see there for what may be raised.
        """
        return self.decode(self._network.predict(self.encode(records)))

    def _encode_dates(self, record: Mapping[str, object], i: int, row: Float32) -> int:
        """Write the parts of a record's dates to their columns and return how many dates there were."""
        found = 0
        for reader in self._dates:
            found += reader.name in record
            for place, value in reader.read(record.get(reader.name), i):
                row[place] = value
        return found

    def _rows(self, x: ArrayLike) -> Float32:
        """Return ``x`` as (batch, columns) float32, C-contiguous."""
        try:
            array = np.asarray(x)
        except ValueError:
            raise InvalidInputError(
                "expected a matrix of numbers, but its rows have different lengths"
            ) from None
        if array.dtype.kind not in "fiub":
            raise InvalidInputError(f"expected real numbers, got an array of {array.dtype}")
        if array.ndim > 2 and array.shape[1:] == self.info.input_shape:
            array = array.reshape(len(array), self.columns)
        if array.ndim != 2:
            hint = "; put one row into a list" if array.ndim == 1 else ""
            raise InvalidInputError(
                f"expected a matrix of shape (batch, {self.columns}), got shape {array.shape}{hint}"
            )
        if array.shape[1] != self.columns:
            raise InvalidInputError(
                f"expected {self.columns} features, got {array.shape[1]}; the model's info.features names them"
            )
        with np.errstate(over="ignore"):
            rows = np.ascontiguousarray(array, np.float32)
        if array.dtype.itemsize > 4 and (wrong := np.isinf(rows) & np.isfinite(array)).any():
            row, column = np.argwhere(wrong)[0].tolist()
            raise OutOfRangeError(
                f"row {row}, column {column}: {array[row, column]} does not fit float32",
                pointer=f"/{row}/{column}",
            )
        return rows

    def _refuse_unknown(self, row: int) -> None:
        names = [field.name for field in self.info.fields]
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


def _kind(thing: object) -> str:
    if isinstance(thing, np.ndarray):
        order = "" if thing.flags.c_contiguous else ", not C-contiguous"
        return f"{thing.dtype} {thing.shape}{order}"
    return type(thing).__name__


def find_model(path: Path) -> Path:
    """Return the model file that a path means: the file, the folder of a version, or of a model (its highest version).

    Raises:
        NotFoundError: there is no model at ``path``.
    """
    if not path.is_dir():
        if not path.exists():
            raise NotFoundError(f"{path}: there is no such file or folder")
        return path
    if (path / MODEL_FILE).exists():
        return path / MODEL_FILE
    versions = versions_in(path)
    if not versions:
        raise NotFoundError(f"{path}: no {MODEL_FILE} here, and no version folder (1, 2, ...) that holds one")
    return path / str(versions[-1]) / MODEL_FILE


def slopes_of(layer: DenseLayer, tensors: Mapping[str, Float32]) -> Float32 | None:
    """Return the slope of each unit of a layer whose activation has one."""
    if layer.activation in SLOPES:
        slope = SLOPES[layer.activation] if layer.slope is None else layer.slope
        return np.full(layer.units, slope, np.float32)
    return tensors.get(f"{layer.name}.slope")


def _precision(stored: str, wanted: str, isa: int) -> str:
    """Return the precision that runs: quantised weights their own, float32 ones the one that is wanted, if it can be."""
    if wanted not in ("float32", "float32-split"):
        raise InvalidInputError(
            f"precision must be float32 or float32-split, got {wanted[:40]!r}; for bfloat16 and int8 make a new version "
            "with mariana quantize"
        )
    if stored != "float32":
        return stored
    return wanted if precision_usable(wanted, isa) else "float32"


def tables_of(info: ModelMetadata) -> Tables:
    """Return what happens around the layers; a table that would change nothing is None."""
    categories, fill, copies = [], [], []
    encoded: list[tuple[Form, float, float]] = []
    for feature in info.features:
        if isinstance(feature, CategoricalFeature):
            categories.append(feature.width)
            fill.append(_MISSING if feature.fill is None else feature.categories.index(feature.fill))
            encoded += [("linear", 0.0, 1.0)] * feature.width
        else:
            categories.append(0)
            fill.append(_MISSING if feature.fill is None else float(feature.fill))
            encoded += feature.encoding
        copies.append(feature.width)
    forms, shift, scale = zip(*encoded, strict=True)
    target = info.target_scaling
    return Tables(
        categories=np.array(categories, np.uint32) if any(categories) else None,
        fill=None if all(math.isnan(value) for value in fill) else np.array(fill, np.float32),
        copies=None
        if all(c or n == 1 for c, n in zip(categories, copies, strict=True))
        else np.array(copies, np.uint32),
        forms=None if set(forms) == {"linear"} else np.array([FORMS[form] for form in forms], np.uint32),
        shift=np.array(shift, np.float32) if any(shift) else None,
        scale=np.array(scale, np.float32) if any(value != 1.0 for value in scale) else None,
        target_shift=None if target is None else np.array(target.shift, np.float32),
        target_scale=None if target is None else np.array(target.scale, np.float32),
    )


def _check_golden(path: Path, model: Model) -> None:
    """Refuse a model that does not give the outputs that its file promises."""
    golden = model.info.golden
    if not golden.inputs:
        return
    x = np.array(
        [[_MISSING if value is None else value for value in row] for row in golden.inputs], np.float32
    )
    found, promised = model.predict(x), np.array(golden.outputs, np.float32)
    target = model.info.target_scaling
    unit = np.ones(model.outputs) if target is None else np.abs(target.scale)
    if model.info.precision == "float32":
        allowed = _GOLDEN_ABSOLUTE * unit + _GOLDEN_RELATIVE * np.abs(promised)
    else:
        allowed = np.broadcast_to(_GOLDEN_NARROW * np.maximum(unit, np.abs(promised).max()), promised.shape)
    wrong = ~(np.abs(found - promised) <= allowed)
    if wrong.any():
        row, output = np.argwhere(wrong)[0].tolist()
        raise FileFormatError(
            f"{path}: golden row {row} gives {found[row, output]:.6g} at output {output}, "
            f"but the file promises {promised[row, output]:.6g}"
        )
