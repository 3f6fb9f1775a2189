"""From a network to a model file in a store: the one place where the trainer meets the file format."""

from __future__ import annotations

import math
import platform
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import ValidationError

import mariana
from mariana.errors import InvalidInputError
from mariana.format import (
    DenseLayer,
    Feature,
    Golden,
    Label,
    ModelMetadata,
    NumericFeature,
    TargetScaling,
    TrainingRecord,
    to_bytes,
)
from mariana.model_card import CARD_FILE, model_card
from mariana.store import Store, check_name

from .folding import folded
from .losses import BinaryCrossentropy, CategoricalCrossentropy
from .preprocessing import encode

if TYPE_CHECKING:
    from .sequential import Sequential

Rows = Any
"""A float64 array, or a number that goes with it."""

GOLDEN_ROWS = 8
"""Rows whose outputs travel with the model, to be checked wherever it is loaded."""


def publish(
    net: Sequential,
    store: Store | str | Path,
    name: str,
    *,
    features: Sequence[Feature] | None = None,
    labels: Sequence[Label] | None = None,
    targets: Sequence[str] = (),
    input_shape: tuple[int, ...] | None = None,
    target_scaling: TargetScaling | None = None,
    examples: ArrayLike | None = None,
    record: Mapping[str, Any] | None = None,
    task: Literal["classification", "regression"] | None = None,
) -> Path:
    """Publish a network as the next version of a model and return the path of its file.

    Args:
        net: a trained network; activations and batch normalisations are merged into the Dense layers beside them.
        store: the store or its folder.
        name: of the model.
        features: how raw columns become what the network saw; None: numbers ``x0``, ``x1``, ... as they are.
        labels: of the classes, in the order of the outputs; None: 0, 1, 2, ...
        targets: names of what is predicted.
        input_shape: shape of one row; None: that of the training data.
        target_scaling: how the outputs of a regression become values.
        examples: (rows, features) a few real raw rows, NaN for missing; they and their outputs, computed in float64,
            go into the file. None: rows of the training data, if ``features`` is None too.
        record: overrides parts of the training record, for example ``data`` or ``metrics``.
        task: None: what the loss is for. ``regression`` serves the outputs as they are, such as the probabilities of
            labels that go together.

    Raises:
        InvalidInputError: the network or the arguments cannot be exported; the message says why.
        StoreError: the store cannot be written.
    """
    check_name(name)
    if not net.built:
        raise InvalidInputError("the network is not built yet: fit it, or begin it with Input(shape=...)")
    layers, tensors = folded(net.layers)
    task = _task(net, layers, task)
    if features is None:
        features = [NumericFeature(name=f"x{i}") for i in range(layers[0].inputs)]
        input_shape = input_shape or net.input_shape
        examples = net.examples if examples is None else examples
    raw = _examples(features, layers[0].inputs, examples)
    if task == "classification" and labels is None:
        labels = range(max(2, layers[-1].units))
    try:
        metadata = ModelMetadata(
            task=task,
            features=tuple(features),
            input_shape=tuple(input_shape or (len(features),)),
            layers=tuple(layers),
            labels=tuple(_plain(label) for label in labels or ()),
            targets=tuple(targets),
            target_scaling=target_scaling,
            training=TrainingRecord(**{"versions": _versions(), **net.training, **(record or {})}),
            golden=_golden(features, layers, tensors, target_scaling, raw),
        )
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        raise InvalidInputError(
            f"the network cannot be exported: {where}{': ' * bool(where)}{message}"
        ) from None
    return (store if isinstance(store, Store) else Store(store)).publish_model(
        name, to_bytes(metadata, tensors), {CARD_FILE: model_card(metadata, name).encode()}
    )


def _task(
    net: Sequential, layers: list[DenseLayer], wanted: Literal["classification", "regression"] | None
) -> Literal["classification", "regression"]:
    """Return what the network is for; one trained on logits gets the activation that its loss stood for."""
    last = layers[-1]
    if isinstance(net.loss, CategoricalCrossentropy | BinaryCrossentropy):
        if net.loss.from_logits:
            layers[-1] = last.model_copy(update={"activation": net.loss.fuses})
        if isinstance(net.loss, BinaryCrossentropy) and last.units != 1 and wanted != "regression":
            raise InvalidInputError(
                f"layer {last.name!r} cannot be exported: {last.units} sigmoid outputs (labels that go together) "
                "are no classes; use softmax for classes that exclude each other, or publish the probabilities as "
                "they are with task='regression'"
            )
        return wanted or "classification"
    return wanted or ("classification" if net.loss is None and last.activation == "softmax" else "regression")


def _examples(features: Sequence[Feature], inputs: int, examples: ArrayLike | None) -> NDArray[np.float64]:
    """Return the raw rows that become golden inputs, when they and the features fit the network."""
    width = sum(feature.width for feature in features)
    if width != inputs:
        raise InvalidInputError(f"the features make {width} columns, but the network takes {inputs} inputs")
    if examples is None:
        return np.empty((0, len(features)))
    raw = np.asarray(examples, np.float64)
    if raw.ndim != 2 or raw.shape[1] != len(features):
        raise InvalidInputError(f"examples must be raw rows (rows, {len(features)}), found shape {raw.shape}")
    return raw[:GOLDEN_ROWS]


def _golden(
    features: Sequence[Feature],
    layers: list[DenseLayer],
    tensors: dict[str, NDArray[np.float32]],
    target_scaling: TargetScaling | None,
    raw: NDArray[np.float64],
) -> Golden:
    """Run the network in float64, written out plainly: it shares no code with what it will check."""
    y = encode(features, raw)
    for layer in layers:
        y = y @ tensors[f"{layer.name}.weight"].astype(np.float64)
        if layer.use_bias:
            y += tensors[f"{layer.name}.bias"]
        slope = tensors[f"{layer.name}.slope"] if layer.activation == "prelu" else layer.slope
        y = _ACTIVATIONS[layer.activation](y, np.float64(1 if slope is None else slope))
    if target_scaling is not None:
        y = y * np.array(target_scaling.scale) + np.array(target_scaling.shift)
    return Golden(
        inputs=tuple(tuple(None if np.isnan(v) else float(v) for v in row) for row in raw),
        outputs=tuple(tuple(map(float, row)) for row in y),
    )


def _softmax(z: Rows) -> Rows:
    e: Rows = np.exp(z - z.max(axis=1, keepdims=True))
    e /= e.sum(axis=1, keepdims=True)
    return e


def _elu(z: Rows, alpha: Rows) -> Rows:
    return np.where(z > 0, z, alpha * np.expm1(np.minimum(z, 0)))


def _leaky(z: Rows, slope: Rows) -> Rows:
    return np.where(z > 0, z, slope * z)


_ERF = np.vectorize(math.erf, otypes=[float])

_ACTIVATIONS: dict[str, Callable[[Rows, Rows], Rows]] = {
    "linear": lambda z, _: z,
    "relu": lambda z, _: np.maximum(z, 0),
    "sigmoid": lambda z, _: (1 + np.tanh(z / 2)) / 2,
    "tanh": lambda z, _: np.tanh(z),
    "softmax": lambda z, _: _softmax(z),
    "leaky_relu": _leaky,
    "prelu": _leaky,
    "elu": _elu,
    "selu": lambda z, _: 1.0507009873554805 * _elu(z, np.float64(1.6732632423543772)),
    "gelu": lambda z, _: z * (1 + _ERF(z / math.sqrt(2))) / 2,
    "gelu_tanh": lambda z, _: z * (1 + np.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3))) / 2,
    "silu": lambda z, _: z * (1 + np.tanh(z / 2)) / 2,
    "softplus": lambda z, _: np.logaddexp(0, z),
}


def _plain(label: Label) -> Label:
    """NumPy's integers and strings as Python's, which pydantic's strict types want."""
    if isinstance(label, np.integer):
        return int(label)
    return str(label) if isinstance(label, str) else label


def _versions() -> dict[str, str]:
    return {"mariana": mariana.__version__, "numpy": np.__version__, "python": platform.python_version()}
