"""A model in memory: raw rows in, labels and probabilities or values out."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mariana._binding.dense import Layer, Network
from mariana.errors import FileFormatError, InvalidInputError, KernelError, NotFoundError, OutOfRangeError
from mariana.format import (
    BooleanFeature,
    CategoricalFeature,
    Feature,
    Label,
    ModelFile,
    ModelMetadata,
    read_model,
)
from mariana.settings import Settings
from mariana.store import MODEL_FILE, highest_version

GOLDEN_ABSOLUTE = 1e-4
GOLDEN_RELATIVE = 1e-3
"""How far the golden outputs may be from what the kernel gives: float32 rounding, with room."""

_FLOAT32_MAX = float(np.finfo(np.float32).max)
_float32 = np.dtype(np.float32)


@dataclass(frozen=True, slots=True)
class ClassPrediction:
    """What a classification model says of one row; ``probabilities`` are in the order of the model's labels."""

    label: Label
    probability: float
    probabilities: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class ValuePrediction:
    """What a regression model says of one row; a tuple when there are several targets."""

    value: float | tuple[float, ...]


Prediction = ClassPrediction | ValuePrediction


class Model:
    """A network ready to run, with everything that it needs to take raw rows.

    Safe to share between threads.

    Args:
        file: what :func:`mariana.format.read_model` returned.
        isa: the highest instruction set to use; None takes ``MARIANA_ISA``, or the best that this machine has.

    Attributes:
        info: the metadata of the model file.
        isa: the instruction set in use.
        nbytes: bytes of packed weights and tables in memory.
        columns: numbers in a raw row, one a feature.
        outputs: numbers in an output row.

    Raises:
        KernelError: the instruction set is unknown, or the network is refused.
    """

    def __init__(self, file: ModelFile, *, isa: str | None = None) -> None:
        info = file.metadata
        self._network = Network(
            [
                Layer(file.tensors[f"{la.name}.weight"], file.tensors.get(f"{la.name}.bias"), la.activation)
                for la in info.layers
            ],
            info.columns,
            isa=Settings().isa if isa is None else isa,
            **_tables(info),
        )
        self.info = info
        self.isa = self._network.isa
        self.nbytes = self._network.nbytes
        self.columns = info.columns
        self.outputs = info.outputs
        self._run = self._network.predict
        self._positions = {feature.name: position for position, feature in enumerate(info.features)}
        self._codes = [
            {category: code for code, category in enumerate(f.categories)}
            if f.kind == "categorical"
            else None
            for f in info.features
        ]

    def __repr__(self) -> str:
        widths = "-".join(str(layer.units) for layer in self.info.layers)
        return f"<Model {self.info.task} {self.columns}-{widths} {self.isa}>"

    def predict(self, x: ArrayLike) -> NDArray[np.float32]:
        """Run a batch of rows.

        Args:
            x: (batch, columns), float32; other real types are converted. One column a feature: a number, 0 or 1 for
                a boolean, the index of its category; NaN for a missing value.

        Returns:
            (batch, outputs) float32: probabilities for classification, values for regression.

        Raises:
            InvalidInputError: the shape or the type does not fit.
        """
        if (
            type(x) is np.ndarray
            and x.dtype is _float32
            and x.ndim == 2
            and x.shape[1] == self.columns
            and x.flags.c_contiguous
        ):
            return self._run(x)
        return self._run(self._matrix(x))

    def _matrix(self, x: ArrayLike) -> NDArray[np.float32]:
        try:
            given = np.asarray(x)
        except (ValueError, TypeError) as error:
            raise InvalidInputError(f"x is no array of numbers: {error}") from None
        if given.dtype.kind not in "fiub":
            raise InvalidInputError(
                f"expected numbers, got {given.dtype}; raw rows go through predict_records"
            )
        if given.ndim != 2:
            shape = f"(batch, {self.columns})"
            raise InvalidInputError(
                f"expected an array of shape {shape}, got {given.shape}; one row is x[None, :]"
            )
        if given.shape[1] != self.columns:
            raise InvalidInputError(
                f"expected {self.columns} features a row, got {given.shape[1]}; see model.info.features"
            )
        with np.errstate(over="ignore"):  # beyond float32 is infinity, as NumPy has it
            return np.ascontiguousarray(given, dtype=np.float32)

    def bind(self, x: NDArray[np.float32], y: NDArray[np.float32]) -> Callable[[], None]:
        """Bind two arrays once; the returned function runs ``x`` into ``y`` without allocating, as often as it is called.

        It must not be called from two threads at once: it has one scratch block.

        Args:
            x: (batch, columns) float32, C-contiguous; read at each call, so fill it in place.
            y: (batch, outputs) float32, C-contiguous, writable.

        Raises:
            InvalidInputError: an array has another type, shape or layout.
        """
        for name, array, width in (("x", x, self.columns), ("y", y, self.outputs)):
            if not isinstance(array, np.ndarray) or array.dtype != np.float32 or not array.flags.c_contiguous:
                raise InvalidInputError(
                    f"{name} must be a C-contiguous float32 array; see numpy.ascontiguousarray"
                )
            if array.ndim != 2 or array.shape[1] != width:
                raise InvalidInputError(f"expected {name} of shape (batch, {width}), got {array.shape}")
        if len(x) != len(y):
            raise InvalidInputError(f"x has {len(x)} rows, y has {len(y)}; they must be the same")
        if not y.flags.writeable:
            raise InvalidInputError("y is read-only; the results go there")
        if np.shares_memory(x, y):
            raise InvalidInputError("x and y overlap; give them memory of their own")
        return self._network.bind(x, y)

    def encode(self, records: Sequence[Mapping[str, object]]) -> NDArray[np.float32]:
        """Return raw rows as the (rows, columns) float32 matrix that :meth:`predict` takes.

        Args:
            records: feature name -> value; a missing value is None, or absent.

        Raises:
            InvalidInputError: a name is unknown, a value has the wrong type, or is missing without a stand-in.
            OutOfRangeError: a number is not finite or beyond float32, or a category is unknown without a stand-in.
        """
        x = np.full((len(records), self.columns), np.nan, dtype=np.float32)
        for row, record in enumerate(records):
            if not isinstance(record, Mapping):
                raise InvalidInputError(
                    f"row {row} is no mapping of feature names to values", pointer=f"/{row}"
                )
            for name in record:
                if name not in self._positions:
                    raise InvalidInputError(
                        f"row {row} has a feature that the model does not know", pointer=f"/{row}"
                    )
            for column, feature in enumerate(self.info.features):
                value = record.get(feature.name)
                x[row, column] = _encode(value, feature, self._codes[column], f"/{row}/{feature.name}")
        return x

    def decode(self, y: NDArray[np.float32]) -> list[Prediction]:
        """Return what the (rows, outputs) float32 ``y`` of :meth:`predict` says, row by row."""
        if self.info.task == "regression":
            if self.outputs == 1:
                return [ValuePrediction(value) for value in y[:, 0].tolist()]
            return [ValuePrediction(tuple(row)) for row in y.tolist()]
        if self.outputs == 1:
            y = np.concatenate([1 - y, y], axis=1)
        labels = self.info.labels
        best = y.argmax(axis=1).tolist()
        return [
            ClassPrediction(labels[i], row[i], tuple(row)) for i, row in zip(best, y.tolist(), strict=True)
        ]

    def predict_records(self, records: Sequence[Mapping[str, object]]) -> list[Prediction]:
        """Run raw rows: feature name -> value in, labels and probabilities or values out; see :meth:`encode`."""
        return self.decode(self.predict(self.encode(records)))


def load_model(path: str | Path, *, isa: str | None = None) -> Model:
    """Load a model and check it: its file completely, and its golden rows by running them.

    Args:
        path: a model file, the folder of a version, or the folder of a model (its highest version is taken).
        isa: the highest instruction set to use: generic, avx2, avx512; None: the best.

    Raises:
        NotFoundError: there is no model at ``path``.
        FileFormatError: the file is damaged, newer than this version, inconsistent, or gives other results than
            its golden ones.
        KernelError: ``isa`` is unknown.
    """
    file = _find(Path(path))
    try:
        read = read_model(file)
    except FileNotFoundError:
        raise NotFoundError(f"no model at {path}") from None
    try:
        model = Model(read, isa=isa)
    except KernelError as error:
        if error.status == "E_ISA":
            raise
        raise FileFormatError(f"{file}: {error}") from None
    _check_golden(model, file)
    return model


def _find(path: Path) -> Path:
    if not path.is_dir():
        return path
    if (path / MODEL_FILE).exists():
        return path / MODEL_FILE
    version = highest_version(path)
    if version is None:
        raise NotFoundError(f"no {MODEL_FILE} in {path}, nor in a numbered folder of it")
    return path / str(version) / MODEL_FILE


def _check_golden(model: Model, file: Path) -> None:
    golden = model.info.golden
    if not golden.inputs:
        return
    rows = [[math.nan if value is None else value for value in row] for row in golden.inputs]
    found = model.predict(np.array(rows, dtype=np.float32))
    wanted = np.array(golden.outputs, dtype=np.float32)
    if not np.allclose(found, wanted, rtol=GOLDEN_RELATIVE, atol=GOLDEN_ABSOLUTE):
        worst = float(np.nanmax(np.abs(found - wanted))) if np.isfinite(found).any() else math.nan
        raise FileFormatError(
            f"{file}: the golden rows give other outputs than the file says (off by up to {worst:.3g}); "
            "the file is damaged or the kernel wrong: do not serve it"
        )


def _tables(info: ModelMetadata) -> dict[str, Any]:
    """Return the tables of ``mrn_network``; those that would change nothing are None, so that their step is skipped."""
    features = info.features
    categories = np.array(
        [len(f.categories) if f.kind == "categorical" else 0 for f in features], dtype=np.uint32
    )
    fill = np.array([_fill(f) for f in features], dtype=np.float32)
    shift: list[float] = []
    scale: list[float] = []
    for f in features:
        if f.kind == "categorical":
            shift += [0.0] * len(f.categories)
            scale += [1.0] * len(f.categories)
        else:
            shift.append(f.shift)
            scale.append(f.scale)
    target = info.target_scaling
    return {
        "categories": categories if categories.any() else None,
        "fill": None if np.isnan(fill).all() else fill,
        "shift": np.array(shift, dtype=np.float32) if any(shift) else None,
        "scale": np.array(scale, dtype=np.float32) if any(s != 1.0 for s in scale) else None,
        "target_shift": None if target is None else np.array(target.shift, dtype=np.float32),
        "target_scale": None if target is None else np.array(target.scale, dtype=np.float32),
    }


def _fill(feature: Feature) -> float:
    if feature.fill is None:
        return math.nan
    if isinstance(feature, CategoricalFeature):
        return float(feature.categories.index(str(feature.fill)))
    return float(feature.fill)


def _encode(value: object, feature: Feature, codes: Mapping[str, int] | None, pointer: str) -> float:
    """Return the number that stands for one raw value."""
    if value is None:
        if feature.fill is None:
            raise InvalidInputError("a value is missing, and the model has none to stand in", pointer=pointer)
        return math.nan
    if codes is not None:
        if not isinstance(value, str):
            raise InvalidInputError("expected a string, one of the feature's categories", pointer=pointer)
        if value in codes:
            return codes[value]
        if feature.fill is None:
            raise OutOfRangeError(
                "not one of the feature's categories; see the model's features", pointer=pointer
            )
        return math.nan
    if isinstance(feature, BooleanFeature):
        if not isinstance(value, bool | np.bool_):
            raise InvalidInputError("expected true or false", pointer=pointer)
        return float(value)
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | float | np.integer | np.floating):
        raise InvalidInputError("expected a number", pointer=pointer)
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not abs(number) <= _FLOAT32_MAX:
        raise OutOfRangeError("expected a finite number that fits float32", pointer=pointer)
    return number
