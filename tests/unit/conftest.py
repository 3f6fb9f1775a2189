"""Small models for the unit tests."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mariana.format import (
    BooleanFeature,
    CategoricalFeature,
    DenseLayer,
    Golden,
    ModelMetadata,
    NumericFeature,
    TargetScaling,
    TrainingRecord,
    to_bytes,
)

Described = tuple[ModelMetadata, dict[str, Any]]


def describe(task: str = "classification", *, golden: bool = True, **changes: Any) -> Described:
    """Return metadata and tensors of a network over one feature of each kind: 5 encoded columns, 7 and 3 units."""
    rng = np.random.default_rng(7)
    tensors = {
        "hidden.weight": rng.standard_normal((5, 7)).astype(np.float32),
        "hidden.bias": rng.standard_normal(7).astype(np.float32),
        "output.weight": rng.standard_normal((7, 3)).astype(np.float32),
    }
    classifies = task == "classification"
    fields: dict[str, Any] = {
        "task": task,
        "features": (
            NumericFeature(name="length", shift=2.0, scale=0.5, fill=1.5),
            CategoricalFeature(name="colour", categories=("red", "green", "blue"), fill="green"),
            BooleanFeature(name="ripe"),
        ),
        "input_shape": (3,),
        "layers": (
            DenseLayer(name="hidden", inputs=5, units=7, activation="relu"),
            DenseLayer(
                name="output",
                inputs=7,
                units=3,
                activation="softmax" if classifies else "linear",
                use_bias=False,
            ),
        ),
        "labels": ("apple", "cherry", "plum") if classifies else (),
        "targets": ("fruit",) if classifies else ("a", "b", "c"),
        "target_scaling": None if classifies else TargetScaling(shift=(1.0, 2.0, 3.0), scale=(2.0, 3.0, 4.0)),
        "training": TrainingRecord(data="orchard", rows=150, seed=1, metrics={"test": {"accuracy": 0.97}}),
    }
    metadata = ModelMetadata(**{**fields, **changes})
    if golden:
        inputs = ((2.5, 0.0, 1.0), (None, 2.0, 0.0), (-1.0, None, 1.0))
        outputs = tuple(tuple(forward(metadata, tensors, row)) for row in inputs)
        metadata = metadata.model_copy(update={"golden": Golden(inputs=inputs, outputs=outputs)})
    return metadata, tensors


def forward(metadata: ModelMetadata, tensors: dict[str, Any], row: tuple[float | None, ...]) -> list[float]:
    """Return the outputs of the network of ``describe`` for one raw row, written down once more by hand."""
    length, colour, ripe = row
    length = 1.5 if length is None else length
    colour = 1 if colour is None else int(colour)
    encoded = [(length - 2.0) * 0.5, *(float(colour == i) for i in range(3)), ripe]
    hidden = np.maximum(encoded @ tensors["hidden.weight"].astype(float) + tensors["hidden.bias"], 0)
    sums = hidden @ tensors["output.weight"]
    if metadata.task == "regression":
        return [float(v) for v in sums * [2.0, 3.0, 4.0] + [1.0, 2.0, 3.0]]
    return [float(v) for v in np.exp(sums) / np.exp(sums).sum()]


@pytest.fixture
def described() -> Described:
    return describe()


@pytest.fixture
def model_file(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes the model of ``describe`` and returns its path."""

    def write(task: str = "classification", **changes: Any) -> Path:
        path = tmp_path / "model.safetensors"
        path.write_bytes(to_bytes(*describe(task, **changes)))
        return path

    return write
