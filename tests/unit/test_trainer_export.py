"""What is exported is read back whole, and what cannot be exported is refused by name."""

import re
from pathlib import Path

import numpy as np
import pytest

from mariana.datasets import IRIS_LABELS, load_iris
from mariana.errors import InvalidInputError
from mariana.format import CategoricalFeature, NumericFeature, TargetScaling, read_model
from mariana.trainer import (
    Activation,
    BinaryCrossentropy,
    CategoricalCrossentropy,
    Dense,
    Sequential,
)
from mariana.trainer.preprocessing import encode

X, Y = load_iris()


def _net(*layers, loss="sparse_categorical_crossentropy", y=Y, x=X, seed=0) -> Sequential:
    net = Sequential(layers, seed=seed)
    net.compile("adam", loss, ["accuracy"])
    net.fit(x, y, validation_split=0.1, verbose=0)
    return net


def test_round_trip(tmp_path: Path) -> None:
    net = _net(Dense(8), Activation("tanh"), Dense(5, use_bias=False), Dense(3), Activation("softmax"))
    path = net.export(tmp_path, "iris", labels=IRIS_LABELS, record={"data": "iris"})
    assert path == tmp_path / "models/iris/1/model.safetensors"
    file = read_model(path)
    info = file.metadata
    assert [(la.units, la.activation, la.use_bias) for la in info.layers] == [
        (8, "tanh", True),
        (5, "linear", False),
        (3, "softmax", True),
    ]
    assert info.labels == IRIS_LABELS
    assert (info.training.data, info.training.seed, info.training.rows) == ("iris", 0, 135)
    assert info.training.optimizer["name"] == "adam"
    assert set(info.training.metrics) == {"train", "validation"}
    assert info.training.versions["numpy"] == np.__version__
    np.testing.assert_array_equal(file.tensors["dense.weight"], net.get_weights()[0])
    inputs = np.array(info.golden.inputs)
    np.testing.assert_array_equal(inputs, X[:8])
    np.testing.assert_allclose(info.golden.outputs, net.predict(inputs), atol=1e-6)
    assert net.export(tmp_path, "iris").parent.name == "2"


def test_same_seed_same_bytes(tmp_path: Path) -> None:
    paths = [_net(Dense(3, "softmax"), seed=s).export(tmp_path, f"m{i}") for i, s in enumerate((1, 1, 2))]
    contents = [path.read_bytes() for path in paths]
    assert contents[0] == contents[1] != contents[2]


def test_features_and_target_scaling_are_part_of_the_golden_outputs(tmp_path: Path) -> None:
    features = [
        NumericFeature(name="size", shift=3, scale=0.5, fill=2.0),
        CategoricalFeature(name="colour", categories=("blue", "red"), fill="red"),
    ]
    raw = np.array([[1.0, 0], [np.nan, 1], [5, np.nan], [7, 0]])
    seen = encode(features, raw)
    np.testing.assert_array_equal(seen, [[-1, 1, 0], [-0.5, 0, 1], [1, 0, 1], [2, 1, 0]])
    net = Sequential([Dense(4, "relu"), Dense(1)], seed=0)
    net.compile("adam", "mse")
    net.fit(seen, np.arange(4.0), verbose=0)
    scaling = TargetScaling(shift=(10.0,), scale=(2.0,))
    info = read_model(
        net.export(
            tmp_path, "price", features=features, target_scaling=scaling, targets=["price"], examples=raw
        )
    ).metadata
    assert info.task == "regression"
    assert info.golden.inputs[1] == (None, 1.0)
    np.testing.assert_allclose(info.golden.outputs, net.predict(seen) * 2 + 10, rtol=1e-6)


@pytest.mark.parametrize(
    ("loss", "units", "y", "activation"),
    [
        (CategoricalCrossentropy(from_logits=True), 3, np.eye(3)[Y], "softmax"),
        (BinaryCrossentropy(from_logits=True), 1, Y == 1, "sigmoid"),
    ],
)
def test_logits_become_probabilities(tmp_path: Path, loss, units: int, y, activation: str) -> None:
    info = read_model(_net(Dense(units), loss=loss, y=y).export(tmp_path, "m")).metadata
    assert info.layers[-1].activation == activation
    assert info.labels == tuple(range(max(units, 2)))


@pytest.mark.parametrize(
    ("layers", "options", "complaint"),
    [
        ([Activation("relu"), Dense(3, "softmax")], {}, "'activation'.*there is none"),
        ([Dense(4, "relu"), Activation("tanh"), Dense(3, "softmax")], {}, "'activation'.*'dense' has"),
        ([Dense(4, "softmax"), Dense(3, "softmax")], {}, "'dense'.*softmax"),
        (
            [Dense(4, (np.sin, np.cos)), Dense(3, "softmax")],
            {},
            "'dense'.*does not know the activation 'custom'",
        ),
        ([Dense(3, "softmax")], {"labels": ["a", "b"]}, "3 softmax units and 2 labels"),
        ([Dense(3, "softmax")], {"labels": ["a", "b", "b"]}, "same label"),
        ([Dense(3, "softmax")], {"labels": [1, 2, "1"]}, "same label"),
        ([Dense(3, "softmax")], {"labels": [1.5, 2, 3]}, "labels"),
        ([Dense(3, "softmax")], {"input_shape": (3,)}, "input_shape"),
        ([Dense(3, "softmax")], {"name": "A/b"}, "name"),
        ([Dense(3, "softmax")], {"features": [NumericFeature(name="a")]}, "make 1 columns.*4 inputs"),
        ([Dense(3, "softmax")], {"record": {"when": "now"}}, "when"),
        ([Dense(3, "softmax")], {"examples": [[np.nan, 1, 2, 3]]}, "'x0' is missing"),
        ([Dense(3, "softmax")], {"examples": [[1, 2, 3]]}, "examples"),
    ],
)
def test_what_cannot_be_exported_is_told(tmp_path: Path, layers, options, complaint: str) -> None:
    net = _net(*layers)
    with pytest.raises(InvalidInputError, match=complaint) as caught:
        net.export(tmp_path, **{"name": "m"} | options)
    assert "\n" not in str(caught.value)
    assert not re.search(r"pydantic|validation error", str(caught.value))
    assert not list(tmp_path.rglob("*.safetensors"))


def test_an_unbuilt_network_is_told(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="not built"):
        Sequential([Dense(1)]).export(tmp_path, "m")


def test_labels_that_go_together_are_told(tmp_path: Path) -> None:
    net = _net(Dense(3, "sigmoid"), loss="binary_crossentropy", y=np.eye(3)[Y])
    with pytest.raises(InvalidInputError, match="3 sigmoid outputs"):
        net.export(tmp_path, "m")
