"""What each feature adds to an answer: shares of single predictions, feature by feature as the caller names them.

A share says how far a feature moves the answer away from what it would be at the *baseline*: for a number the value that
stands in for a missing one (the training median), else the centre that it is scaled by (the training mean; 0 without
scaling); for a category the one that stands in, else none of them. What is explained is the value that is predicted, or
of the predicted class the log-odds, ``log(p / (1 - p))``: probabilities near 1 hardly move, whatever feature changes.

``leave_one_out``
    The answer minus the answer with this one feature at its baseline: exact, with the network as it is served. (Zeiler
    and Fergus, "Visualizing and Understanding Convolutional Networks", ECCV 2014, call it occlusion.) Where one sigmoid
    answers, log-odds end at 17.3: beyond that its float32 probability is 1.
``gradient_x_input``
    The slope of the answer times the way from the baseline, summed over a feature's encoded columns: one pass back for
    all features at once, right where the network is straight. (Shrikumar et al., "Not Just a Black Box", 2016, arXiv
    1605.01713.)
``integrated_gradients``
    The same with the mean slope along the straight way from the baseline: the shares add up to the answer minus the
    baseline's, but for the error of the integration. (Sundararajan et al., "Axiomatic Attribution for Deep Networks",
    ICML 2017, arXiv 1703.01365.)

Gradients are computed here in double precision from the weights in the file; of a bfloat16 or int8 network with its
weights as they are stored, and numbers between layers that are not rounded.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from mariana.errors import InvalidInputError
from mariana.format import SLOPES, CategoricalFeature, DenseLayer, Feature, ModelFile, ModelMetadata

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

ExplainMethod = Literal["leave_one_out", "gradient_x_input", "integrated_gradients"]
METHODS: tuple[str, ...] = get_args(ExplainMethod)

EXACT_FIELDS = 128
"""Up to so many features, ``auto`` is ``leave_one_out``; beyond it ``gradient_x_input``."""

_STEPS = 64
"""Places on the way from the baseline, at the middles of equal parts."""

_SMALLEST = float(np.finfo(np.float32).tiny)
_BELOW_ONE = float(np.finfo(np.float32).epsneg) / 2
"""What may be missing where a float32 probability is 1: half of its last bit."""


@dataclass(frozen=True, slots=True)
class Attribution:
    """What each feature adds to one output of one row.

    Attributes:
        output: the class or the target that is explained.
        value: of it: its log-odds, or the value.
        baseline_value: the same at the baseline.
        shares: by feature, in units of ``value``.
    """

    output: int | str
    value: float
    baseline_value: float
    shares: dict[str, float]


def choose(info: ModelMetadata, method: str) -> ExplainMethod:
    """Return the method that ``method`` means for a model; InvalidInputError for a name that is none."""
    if method == "auto":
        return "leave_one_out" if len(info.fields) <= EXACT_FIELDS else "gradient_x_input"
    for known in get_args(ExplainMethod):
        if method == known:
            return known  # type: ignore[no-any-return] # get_args has no types
    raise InvalidInputError(f"unknown method of explanation; there are: auto, {', '.join(METHODS)}")


def cost(info: ModelMetadata, method: ExplainMethod) -> int:
    """Return how many rows are run to explain one."""
    return 1 + (len(info.fields) if method == "leave_one_out" else _STEPS if method.startswith("int") else 1)


def baseline_row(info: ModelMetadata) -> Float32:
    """Return the raw row from which shares are counted: (columns,); -1 is no category."""
    return np.array([_baseline(feature) for feature in info.features], np.float32)


def baseline_record(info: ModelMetadata) -> dict[str, float | str | None]:
    """Return the same by feature; None where it is no category; the parts of a date by their own names."""
    record: dict[str, float | str | None] = {}
    for feature in info.features:
        if isinstance(feature, CategoricalFeature):
            record[feature.name] = feature.fill
        else:
            record[feature.name] = float(f"{_baseline(feature):.7g}")
    return record


def _baseline(feature: Feature) -> float:
    if isinstance(feature, CategoricalFeature):
        return -1.0 if feature.fill is None else float(feature.categories.index(feature.fill))
    return feature.shift if feature.fill is None else float(feature.fill)


def leave_one_out(
    info: ModelMetadata, predict: Callable[[Float32], Float32], x: Float32
) -> list[list[Attribution]]:
    """Explain rows exactly: (rows, columns) raw, as ``predict`` takes them. One attribution a row and output."""
    fields, base = info.fields, baseline_row(info)
    around = len(fields) + 2
    explained = []
    for row in x:
        rows = np.tile(row, (around, 1))
        rows[-1] = base
        for i, field in enumerate(fields):
            places = list(field.features)
            rows[i, places] = base[places]
        y = predict(rows).astype(np.float64)
        told = []
        for output in _outputs(info, y[-2]):
            values = _measure(info, y, output)
            shares = values[-2] - values[:-2]
            told.append(_attribution(info, output, float(values[-2]), float(values[-1]), shares))
        explained.append(told)
    return explained


def _outputs(info: ModelMetadata, y: Float64) -> list[int]:
    """Return what is explained of a row: the predicted class (0 or 1 with one output), or every target."""
    if info.task == "regression":
        return list(range(info.outputs))
    return [int(y[0] > 0.5)] if info.outputs == 1 else [int(np.argmax(y))]


def _measure(info: ModelMetadata, y: Float64, output: int) -> Float64:
    """Return what is explained of the outputs of some rows: (rows,)."""
    if info.task == "regression":
        return y[:, output]
    if info.outputs == 1:
        y = np.stack([np.maximum(1 - y[:, 0], _BELOW_ONE), y[:, 0]], axis=1)
    others = np.delete(y, output, axis=1).sum(axis=1)  # not 1 - p, of which nothing is left near 1
    odds: Float64 = np.log(np.maximum(y[:, output], _SMALLEST)) - np.log(np.maximum(others, _SMALLEST))
    return odds


def _attribution(
    info: ModelMetadata, output: int, value: float, base: float, shares: Sequence[float] | Float64
) -> Attribution:
    names: Sequence[int | str] = info.labels if info.task == "classification" else info.targets
    name = names[output] if len(names) > output else output
    told = {field.name: float(share) for field, share in zip(info.fields, shares, strict=True)}
    return Attribution(name, value, base, told)


class Gradients:
    """Passes forward and back through a network, in double precision.

    Args:
        file: the model.
    """

    def __init__(self, file: ModelFile) -> None:
        self.info = file.metadata
        self._layers = [_Layer(layer, file.tensors) for layer in self.info.layers]
        self._base = encode(self.info, baseline_row(self.info)[None])
        ends = np.cumsum([feature.width for feature in self.info.features])
        columns = np.split(np.arange(self.info.encoded_columns), ends[:-1])
        self._columns = [np.concatenate([columns[i] for i in field.features]) for field in self.info.fields]

    def explain(self, x: Float32, *, integrated: bool) -> list[list[Attribution]]:
        """Explain rows by gradients: (rows, columns) raw. One attribution a row and output."""
        explained = []
        base_sums = self.sums(self._base)
        for row in encode(self.info, x):
            way = row - self._base[0]
            sums = self.sums(row[None])
            told = []
            for output in _outputs(self.info, self._answers(sums)[0]):
                if integrated:
                    parts = ((np.arange(_STEPS) + 0.5) / _STEPS)[:, None]
                    slope = self.gradient(self._base + parts * way, output).mean(axis=0)
                else:
                    slope = self.gradient(row[None], output)[0]
                flat = way * slope
                shares = [float(flat[columns].sum()) for columns in self._columns]
                value, base = (float(self.value(given, output)[0]) for given in (sums, base_sums))
                told.append(_attribution(self.info, output, value, base, shares))
            explained.append(told)
        return explained

    def sums(self, encoded: Float64) -> Float64:
        """Return the last layer's sums before its activation: (rows, outputs)."""
        for layer in self._layers[:-1]:
            encoded = layer.activate(layer.sums(encoded))
        return self._layers[-1].sums(encoded)

    def _answers(self, sums: Float64) -> Float64:
        if self.info.task == "classification":
            return 1 / (1 + np.exp(-sums)) if self.info.outputs == 1 else sums  # a softmax keeps the order
        return self._layers[-1].activate(sums)

    def value(self, sums: Float64, output: int) -> Float64:
        """Return what is explained: (rows,)."""
        if self.info.task == "regression":
            scaling = self.info.target_scaling
            y = self._layers[-1].activate(sums)[:, output]
            return y if scaling is None else y * scaling.scale[output] + scaling.shift[output]
        if self.info.outputs == 1:
            return sums[:, 0] if output == 1 else -sums[:, 0]
        others = np.delete(sums, output, axis=1)
        highest = others.max(axis=1)
        odds: Float64 = sums[:, output] - highest - np.log(np.exp(others - highest[:, None]).sum(axis=1))
        return odds

    def gradient(self, encoded: Float64, output: int) -> Float64:
        """Return the slope of what is explained by each encoded column: (rows, encoded columns)."""
        sums = []
        for layer in self._layers:
            sums.append(layer.sums(encoded))
            if layer is not self._layers[-1]:
                encoded = layer.activate(sums[-1])
        slope = self._last_slope(sums[-1], output)
        for layer, before, below in zip(self._layers[:0:-1], self._layers[-2::-1], sums[-2::-1], strict=True):
            slope = (slope @ layer.weight.T) * before.slope(below)
        return slope @ self._layers[0].weight.T

    def _last_slope(self, sums: Float64, output: int) -> Float64:
        slope = np.zeros_like(sums)
        if self.info.task == "regression":
            scaling = self.info.target_scaling
            slope[:, output] = self._layers[-1].slope(sums)[:, output]
            return slope if scaling is None else slope * scaling.scale[output]
        if self.info.outputs == 1:
            slope[:] = 1.0 if output == 1 else -1.0
            return slope
        others = sums - np.delete(sums, output, axis=1).max(axis=1, keepdims=True)
        others[:, output] = -np.inf
        others = np.exp(others)
        slope -= others / others.sum(axis=1, keepdims=True)
        slope[:, output] = 1
        return slope


def encode(info: ModelMetadata, x: Float32) -> Float64:
    """Return what the first layer sees of raw rows: (rows, encoded columns)."""
    return np.concatenate(list(_encoded(info, x.astype(np.float64))), axis=1)


def _encoded(info: ModelMetadata, x: Float64) -> Iterator[Float64]:
    for i, feature in enumerate(info.features):
        given = x[:, i]
        if isinstance(feature, CategoricalFeature):
            index = given
            if feature.fill is not None:
                index = np.where(np.isnan(given), feature.categories.index(feature.fill), given)
            yield (index[:, None] == np.arange(feature.width)).astype(np.float64)
            continue
        value = given if feature.fill is None else np.where(np.isnan(given), float(feature.fill), given)
        columns = []
        for form, shift, scale in feature.encoding:
            v = np.isnan(given).astype(np.float64) if form == "missing" else value
            v = (v - shift) * scale
            columns.append(
                v / np.sqrt(1 + v * v) if form == "soft" else np.clip(v, 0, 1) if form == "ramp" else v
            )
        yield np.stack(columns, axis=1)


class _Layer:
    """A layer's weights as doubles, its activation, and the slope of that."""

    def __init__(self, layer: DenseLayer, tensors: Mapping[str, NDArray[Any]]) -> None:
        weight = tensors[f"{layer.name}.weight"]
        if weight.dtype == np.uint16:  # bfloat16
            weight = (weight.astype(np.uint32) << 16).view(np.float32)
        self.weight: Float64 = weight.astype(np.float64)
        if f"{layer.name}.weight_scale" in tensors:
            self.weight *= tensors[f"{layer.name}.weight_scale"]
        self._bias: Float64 | float = (
            tensors[f"{layer.name}.bias"].astype(np.float64) if layer.use_bias else 0.0
        )
        below: Any = tensors.get(f"{layer.name}.slope")
        if below is None:
            below = SLOPES.get(layer.activation, 0.0) if layer.slope is None else layer.slope
        forward, slope = _ACTIVATIONS[layer.activation]
        self.activate: Callable[[Float64], Float64] = lambda z: forward(z, below)
        self.slope: Callable[[Float64], Float64] = lambda z: slope(z, below)

    def sums(self, x: Float64) -> Float64:
        y: Float64 = x @ self.weight + self._bias
        return y


_erf = np.vectorize(math.erf, otypes=[np.float64])
_SELU, _SELU_ALPHA = 1.0507009873554805, 1.6732632423543772
_GELU = math.sqrt(2 / math.pi)


def _sigmoid(z: Float64) -> Float64:
    return 0.5 * (1 + np.tanh(0.5 * z))


def _gelu_inner(z: Float64) -> Float64:
    return np.tanh(_GELU * (z + 0.044715 * z**3))


def _gelu_slope(z: Float64, _: Any) -> Float64:
    slope: Float64 = 0.5 * (1 + _erf(z / math.sqrt(2))) + z * np.exp(-z * z / 2) / math.sqrt(2 * math.pi)
    return slope


def _gelu_tanh_slope(z: Float64, _: Any) -> Float64:
    t = _gelu_inner(z)
    return 0.5 * (1 + t) + 0.5 * z * (1 - t * t) * _GELU * (1 + 3 * 0.044715 * z * z)


def _silu_slope(z: Float64, _: Any) -> Float64:
    s = _sigmoid(z)
    return s * (1 + z * (1 - s))


def _exp_below(z: Float64) -> Float64:
    y: Float64 = np.exp(np.minimum(z, 0))
    return y


_Function = Callable[[Float64, Any], Float64]
_ACTIVATIONS: dict[str, tuple[_Function, _Function]] = {
    "linear": (lambda z, _: z, lambda z, _: np.ones_like(z)),
    "softmax": (lambda z, _: z, lambda z, _: np.ones_like(z)),  # explained from its sums
    "relu": (lambda z, _: np.maximum(z, 0), lambda z, _: (z > 0).astype(np.float64)),
    "sigmoid": (lambda z, _: _sigmoid(z), lambda z, _: _sigmoid(z) * (1 - _sigmoid(z))),
    "tanh": (lambda z, _: np.tanh(z), lambda z, _: 1 - np.tanh(z) ** 2),
    "leaky_relu": (lambda z, a: np.where(z < 0, a * z, z), lambda z, a: np.where(z < 0, a, 1.0)),
    "prelu": (lambda z, a: np.where(z < 0, a * z, z), lambda z, a: np.where(z < 0, a, 1.0)),
    "elu": (
        lambda z, a: np.where(z < 0, a * np.expm1(np.minimum(z, 0)), z),
        lambda z, a: np.where(z < 0, a * _exp_below(z), 1.0),
    ),
    "selu": (
        lambda z, _: _SELU * np.where(z < 0, _SELU_ALPHA * np.expm1(np.minimum(z, 0)), z),
        lambda z, _: _SELU * np.where(z < 0, _SELU_ALPHA * _exp_below(z), 1.0),
    ),
    "gelu": (lambda z, _: 0.5 * z * (1 + _erf(z / math.sqrt(2))), _gelu_slope),
    "gelu_tanh": (lambda z, _: 0.5 * z * (1 + _gelu_inner(z)), _gelu_tanh_slope),
    "silu": (lambda z, _: z * _sigmoid(z), _silu_slope),
    "softplus": (lambda z, _: np.logaddexp(z, 0), lambda z, _: _sigmoid(z)),
}
"""By name: the activation, and its slope, of a layer's sums and the slope below 0 (of those that have one)."""
