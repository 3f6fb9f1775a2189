"""The document of a model file: its fields, and what fits together. This module is the only place that knows them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, StrictStr, model_validator

FORMAT_VERSION: Literal[1] = 1
"""The version written; readers refuse a higher one."""

MAX_COLUMNS = 1 << 20
MAX_UNITS = 1 << 20

ActivationName = Literal[
    "linear",
    "relu",
    "sigmoid",
    "tanh",
    "softmax",
    "leaky_relu",
    "elu",
    "selu",
    "gelu",
    "gelu_tanh",
    "silu",
    "softplus",
    "prelu",
]
SLOPES: dict[str, float] = {"leaky_relu": 0.2, "elu": 1.0}
"""Activations with one slope for the whole layer, and its default (Keras': ``negative_slope``, ``alpha``)."""
Precision = Literal["float32", "bfloat16", "int8"]
"""How weights are stored; those of the last two are also computed with. ``docs/precision.md`` says how."""

INT8_MAX_INPUTS = 1 << 16
"""Of a layer with int8 weights: their products still sum up in 32 bits."""

Label = StrictInt | StrictStr
Finite = Annotated[float, Field(allow_inf_nan=False, ge=-3.4028234663852886e38, le=3.4028234663852886e38)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
FeatureName = Annotated[str, Field(min_length=1, max_length=256)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="strings")


Form = Literal["linear", "soft", "ramp", "missing"]
"""What an encoded column v is: ``linear`` v; ``soft`` v / sqrt(1 + v²); ``ramp`` v limited to 0..1; ``missing`` 1 where
the raw value was missing, else 0, before it is shifted and scaled. ``csrc/mrn.h`` has the same list."""

DatePartName = Literal["year", "month", "day", "weekday", "hour"]
MAX_KNOTS = 1024


class DatePart(_Part):
    """Says that a number is a part of a date: in a row with names, the date stands under the name of its column."""

    column: FeatureName
    part: DatePartName = Field(
        description="weekday: 0 is Monday; hour: with its minutes and seconds as a fraction"
    )

    def of(self, when: datetime) -> float:
        """Return the part of a date."""
        if self.part == "weekday":
            return float(when.weekday())
        if self.part == "hour":
            return when.hour + when.minute / 60 + when.second / 3600
        return float(getattr(when, self.part))


class NumericFeature(_Part):
    """A number; the network sees ``(value - shift) * scale``, and what else is asked for here."""

    kind: Literal["numeric"] = "numeric"
    name: FeatureName
    fill: Finite | None = Field(default=None, description="stands in for a missing value; None: refused")
    shift: Finite = 0.0
    scale: Finite = 1.0
    soft: StrictBool = Field(default=False, description="z / sqrt(1 + z * z) in place of z: limits outliers")
    knots: tuple[Finite, ...] = Field(
        default=(),
        max_length=MAX_KNOTS,
        description="ascending; a column for each two neighbours a, b: (value - a) / (b - a), limited to 0..1",
    )
    indicator: StrictBool = Field(default=False, description="a column more: 1 where it is missing, else 0")
    date: DatePart | None = None

    @property
    def encoding(self) -> list[tuple[Form, float, float]]:
        """Form, shift and scale of each encoded column, all of them as float32 holds them."""
        columns: list[tuple[Form, float, float]] = [
            ("soft" if self.soft else "linear", self.shift, self.scale)
        ]
        places = [float(np.float32(knot)) for knot in self.knots]
        columns += [("ramp", low, 1 / (high - low)) for low, high in pairwise(places)]
        return columns + [("missing", 0.0, 1.0)] * self.indicator

    @property
    def width(self) -> int:
        """Number of encoded columns."""
        return 1 + max(len(self.knots) - 1, 0) + self.indicator

    @property
    def column(self) -> str:
        """Its name in a table and in a row with names."""
        return self.name if self.date is None else self.date.column

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not self.knots:
            return self
        places = np.array(self.knots, np.float32).astype(np.float64)
        if len(places) == 1 or (np.diff(places) < 1e-37).any():
            raise ValueError(f"feature {self.name!r} needs no knots, or two and more that ascend in float32")
        return self


class BooleanFeature(_Part):
    """True or false; the network sees ``(1 or 0 - shift) * scale``."""

    kind: Literal["boolean"] = "boolean"
    name: FeatureName
    fill: StrictBool | None = Field(default=None, description="stands in for a missing value; None: refused")
    shift: Finite = 0.0
    scale: Finite = 1.0

    @property
    def encoding(self) -> list[tuple[Form, float, float]]:
        """Form, shift and scale of the encoded column."""
        return [("linear", self.shift, self.scale)]

    @property
    def width(self) -> int:
        """Number of encoded columns."""
        return 1

    @property
    def column(self) -> str:
        """Its name in a table and in a row with names."""
        return self.name


class CategoricalFeature(_Part):
    """One of a list of strings; the network sees one column a category, 1 or 0.

    A value that is not in the list counts as missing.
    """

    kind: Literal["categorical"] = "categorical"
    name: FeatureName
    categories: tuple[StrictStr, ...] = Field(min_length=1, max_length=65536)
    fill: StrictStr | None = Field(default=None, description="stands in for a missing value; None: refused")

    @property
    def width(self) -> int:
        """Number of encoded columns."""
        return len(self.categories)

    @property
    def column(self) -> str:
        """Its name in a table and in a row with names."""
        return self.name

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(set(self.categories)) != len(self.categories):
            raise ValueError(f"feature {self.name!r} names a category twice")
        if self.fill is not None and self.fill not in self.categories:
            raise ValueError(
                f"feature {self.name!r} is filled with {self.fill!r}, which is not among its categories"
            )
        return self


Feature = Annotated[NumericFeature | BooleanFeature | CategoricalFeature, Field(discriminator="kind")]


@dataclass(frozen=True, slots=True)
class InputField:
    """What a row with names holds under one name.

    Attributes:
        name: of the column.
        kind: ``date`` is a text in ISO 8601, which several features take their part of.
        required: nothing stands in for a missing value.
        features: places of the features that read it.
        categories: of a categorical one.
    """

    name: str
    kind: Literal["numeric", "boolean", "categorical", "date"]
    required: bool
    features: tuple[int, ...]
    categories: tuple[str, ...] = ()


class DenseLayer(_Part):
    """``activation(x @ weight + bias)``; the tensors are ``NAME.weight`` (inputs, units) and ``NAME.bias`` (units).

    ``prelu`` has a third one, ``NAME.slope`` (units).
    """

    kind: Literal["dense"] = "dense"
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_]{1,64}$")]
    inputs: Annotated[StrictInt, Field(ge=1, le=MAX_COLUMNS)]
    units: Annotated[StrictInt, Field(ge=1, le=MAX_UNITS)]
    activation: ActivationName = "linear"
    use_bias: StrictBool = True
    slope: Finite | None = Field(
        default=None,
        description="slope just below 0: leaky_relu's negative_slope (0.2 when null), elu's alpha (1 when null)",
    )

    @property
    def parameters(self) -> int:
        """Number of weights, biases and slopes that are tensors."""
        return self.units * (self.inputs + self.use_bias + (self.activation == "prelu"))

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.slope is not None and self.activation not in SLOPES:
            raise ValueError(f"layer {self.name!r} has a slope, but {self.activation} has none")
        return self


class TargetScaling(_Part):
    """A regression network's output ``o`` means ``o * scale + shift``, target by target."""

    shift: tuple[Finite, ...]
    scale: tuple[Finite, ...]


class TrainingRecord(_Part):
    """How the network came to be: enough to repeat it, nothing that changes from run to run."""

    data: str = Field(default="", description="name of the data set or file")
    data_sha256: Sha256 | None = None
    rows: int = Field(default=0, ge=0, description="rows trained on")
    seed: int | None = None
    epochs: int = Field(default=0, ge=0)
    batch_size: int | None = None
    backend: str = Field(
        default="", description="what computed the steps: numpy, or c with the instruction set"
    )
    members: Annotated[StrictInt, Field(ge=1)] = Field(
        default=1, description="networks whose mean the layers compute: each is a block of them"
    )
    loss: str = ""
    optimizer: dict[str, Any] = Field(default_factory=dict, description="name and configuration")
    metrics: dict[str, dict[str, float]] = Field(
        default_factory=dict, description="metric by split: train, validation, test"
    )
    baseline: dict[str, float] = Field(
        default_factory=dict,
        description="metrics on the test split of always answering the same, the best that is",
    )
    split_rows: dict[str, int] = Field(default_factory=dict, description="rows by split")
    class_rows: dict[str, int] = Field(default_factory=dict, description="rows trained on by class")
    left_out: dict[str, str] = Field(
        default_factory=dict, description="columns not learned from, with the reason"
    )
    temperature: float | None = Field(
        default=None, description="what the logits were divided by to calibrate"
    )
    versions: dict[str, str] = Field(default_factory=dict, description="versions of what trained it")


class Golden(_Part):
    """A few raw rows with the outputs that they must give; checked whenever the file is loaded."""

    inputs: tuple[tuple[Finite | None, ...], ...] = Field(
        max_length=64, description="None is a missing value"
    )
    outputs: tuple[tuple[Finite, ...], ...] = Field(max_length=64)


class Loss(_Part):
    """How far a quantised network is from the one that it was made from, on some rows."""

    data: str = Field(description="name of the data, or 'golden rows'")
    rows: int = Field(ge=1)
    max_difference: float = Field(ge=0, description="largest absolute difference between two outputs")
    mean_difference: float = Field(ge=0)
    before: dict[str, float] = Field(default_factory=dict, description="metrics of the float32 network")
    after: dict[str, float] = Field(default_factory=dict, description="metrics of the quantised network")


class Quantization(_Part):
    """Which float32 file a quantised network comes from, and what it lost on the way."""

    source_sha256: Sha256 = Field(description="SHA-256 of the float32 model file")
    losses: tuple[Loss, ...] = ()


@dataclass(frozen=True, slots=True)
class TensorType:
    """What a tensor must be.

    Attributes:
        name: as safetensors has it: ``F32``, ``BF16``, ``I8``.
        dtype: of the array that holds it; NumPy has no bfloat16, its 16 bits are in a uint16.
        shape: of the array.
    """

    name: Literal["F32", "BF16", "I8"]
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of the tensor."""
        return self.dtype.itemsize * math.prod(self.shape)


_WEIGHTS: dict[str, tuple[Literal["F32", "BF16", "I8"], np.dtype[Any]]] = {
    "float32": ("F32", np.dtype("<f4")),
    "bfloat16": ("BF16", np.dtype("<u2")),
    "int8": ("I8", np.dtype("i1")),
}


class ModelMetadata(_Part):
    """Everything about a model but its weights."""

    format_version: Literal[1] = FORMAT_VERSION
    task: Literal["classification", "regression"]
    features: tuple[Feature, ...] = Field(min_length=1, max_length=MAX_COLUMNS)
    input_shape: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        min_length=1, max_length=8, description="shape of one row before it was made flat, for example (8, 8)"
    )
    layers: tuple[DenseLayer, ...] = Field(min_length=1, max_length=64)
    labels: tuple[Label, ...] = Field(default=(), description="class labels in the order of the outputs")
    targets: tuple[str, ...] = Field(default=(), description="names of what is predicted")
    target_scaling: TargetScaling | None = None
    precision: Precision = "float32"
    quantization: Quantization | None = Field(default=None, description="of a network that was quantised")
    training: TrainingRecord = TrainingRecord()
    golden: Golden = Golden(inputs=(), outputs=())
    tensors: dict[str, Sha256] = Field(default_factory=dict, description="SHA-256 of each tensor's bytes")

    @property
    def columns(self) -> int:
        """Raw columns of one row: one a feature."""
        return len(self.features)

    @property
    def encoded_columns(self) -> int:
        """Columns that the first layer sees: categorical features are one-hot."""
        return sum(feature.width for feature in self.features)

    @property
    def fields(self) -> list[InputField]:
        """What a row with names holds: a field a feature, one for all parts of a date."""
        fields: dict[str, InputField] = {}
        for place, feature in enumerate(self.features):
            kind: Literal["numeric", "boolean", "categorical", "date"] = feature.kind
            categories = feature.categories if feature.kind == "categorical" else ()
            if feature.kind == "numeric" and feature.date is not None:
                kind = "date"
            before = fields.get(feature.column)
            places = (*before.features, place) if before is not None else (place,)
            required = feature.fill is None or (before is not None and before.required)
            fields[feature.column] = InputField(feature.column, kind, required, places, categories)
        return list(fields.values())

    @property
    def outputs(self) -> int:
        """Units of the last layer."""
        return self.layers[-1].units

    @property
    def parameters(self) -> int:
        """Number of weights, biases and slopes that are tensors."""
        return sum(layer.parameters for layer in self.layers)

    def tensor_types(self) -> dict[str, TensorType]:
        """Return what each tensor of the file must be."""
        types: dict[str, TensorType] = {}
        for layer in self.layers:
            types[f"{layer.name}.weight"] = TensorType(*_WEIGHTS[self.precision], (layer.inputs, layer.units))
            units = TensorType(*_WEIGHTS["float32"], (layer.units,))
            if self.precision == "int8":
                types[f"{layer.name}.weight_scale"] = units
            if layer.use_bias:
                types[f"{layer.name}.bias"] = units
            if layer.activation == "prelu":
                types[f"{layer.name}.slope"] = units
        return types

    def tensor_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of each tensor that the file must hold."""
        return {name: kind.shape for name, kind in self.tensor_types().items()}

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for things, which in ((self.features, "features"), (self.layers, "layers")):
            if len({thing.name for thing in things}) != len(things):
                raise ValueError(f"two {which} have the same name")
        self._check_dates()
        if math.prod(self.input_shape) != self.columns:
            raise ValueError(f"input_shape {self.input_shape} does not hold {self.columns} features")
        self._check_layers()
        if self.task == "classification":
            self._check_classification()
        elif self.labels:
            raise ValueError("a regression model has no class labels")
        if self.target_scaling is not None:
            self._check_scaling(self.target_scaling)
        self._check_golden()
        return self

    def _check_layers(self) -> None:
        width = self.encoded_columns
        for layer in self.layers:
            if layer.inputs != width:
                raise ValueError(f"layer {layer.name!r} takes {layer.inputs} inputs, but gets {width}")
            if layer.activation == "softmax" and layer is not self.layers[-1]:
                raise ValueError(f"layer {layer.name!r} is softmax, which only the last layer can be")
            if self.precision == "int8" and layer.inputs > INT8_MAX_INPUTS:
                raise ValueError(
                    f"layer {layer.name!r} has {layer.inputs} inputs; int8 takes up to {INT8_MAX_INPUTS}"
                )
            width = layer.units

    def _check_dates(self) -> None:
        dates = [f.date for f in self.features if f.kind == "numeric" and f.date is not None]
        taken = {f.name for f in self.features if f.column == f.name}
        if len(set(dates)) != len(dates) or any(date.column in taken for date in dates):
            raise ValueError("two features are the same part of a date, or have the name of its column")

    def _check_golden(self) -> None:
        rows = self.golden.inputs
        if (
            len(rows) != len(self.golden.outputs)
            or any(len(row) != self.columns for row in rows)
            or any(len(row) != self.outputs for row in self.golden.outputs)
        ):
            raise ValueError("the golden inputs and outputs do not fit the network")

    def _check_scaling(self, scaling: TargetScaling) -> None:
        if self.task != "regression" or not len(scaling.shift) == len(scaling.scale) == self.outputs:
            raise ValueError(
                f"target_scaling belongs to regression and needs {self.outputs} shifts and scales"
            )

    def _check_classification(self) -> None:
        last = self.layers[-1]
        if len({str(label) for label in self.labels}) != len(self.labels):  # in a table 1 and "1" are one
            raise ValueError("two classes have the same label")
        if last.activation == "softmax" and last.units >= 2 and len(self.labels) == last.units:
            return
        if last.activation == "sigmoid" and last.units == 1 and len(self.labels) == 2:
            return
        raise ValueError(
            f"a classification network ends in softmax with a unit a class, or in one sigmoid unit for two classes; "
            f"found {last.units} {last.activation} units and {len(self.labels)} labels"
        )
