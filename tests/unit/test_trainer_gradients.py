"""The gradients of every combination of layer, activation and loss against central finite differences, float64."""

import numpy as np
import pytest

from mariana.errors import InvalidInputError
from mariana.trainer import (
    Activation,
    BinaryCrossentropy,
    CategoricalCrossentropy,
    Dense,
    Sequential,
    gradcheck,
)
from mariana.trainer.activations import ACTIVATIONS
from mariana.trainer.losses import LOSSES, Loss

ROWS = 7


def _targets(loss: str, units: int, rng: np.random.Generator) -> np.ndarray:
    if loss == "sparse_categorical_crossentropy":
        return np.arange(ROWS) % units
    if loss == "categorical_crossentropy":
        return rng.dirichlet(np.ones(units), ROWS)
    if loss == "binary_crossentropy":
        return rng.integers(0, 2, (ROWS, units))
    return rng.normal(size=(ROWS, units))


def _last(loss: str, units: int, activation: str) -> tuple[int, str]:
    return units, {"sigmoid": "sigmoid", "softmax": "softmax"}.get(LOSSES[loss]().fuses, activation)


@pytest.mark.parametrize("as_layer", [False, True], ids=["in Dense", "as a layer"])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation_with_every_loss(activation: str, loss: str, as_layer: bool) -> None:
    rng = np.random.default_rng(1)
    units, last = _last(loss, 3, activation)
    stack = []
    for width, name in ((6, activation), (5, activation), (units, last)):
        stack += [Dense(width), Activation(name)] if as_layer else [Dense(width, name, use_bias=width != 5)]
    net = Sequential(stack, seed=3, dtype="float64")
    net.compile("sgd", loss)
    net.build((4,))
    net.parameters += rng.normal(scale=0.1, size=net.parameters.shape)  # biases too are not 0
    assert gradcheck(net, rng.normal(size=(ROWS, 4)), _targets(loss, units, rng)) < 1e-7


@pytest.mark.parametrize("units", [1, 4])
@pytest.mark.parametrize("loss", ["binary_crossentropy", "mse"])
def test_one_output_and_several(loss: str, units: int) -> None:
    rng = np.random.default_rng(2)
    net = Sequential([Dense(5, "tanh"), Dense(units, "sigmoid")], seed=0, dtype="float64")
    net.compile("sgd", loss)
    assert gradcheck(net, rng.normal(size=(ROWS, 3)), _targets(loss, units, rng)) < 1e-7


@pytest.mark.parametrize(
    "loss", [CategoricalCrossentropy(from_logits=True), BinaryCrossentropy(from_logits=True)]
)
def test_from_logits(loss: Loss) -> None:
    rng = np.random.default_rng(2)
    net = Sequential([Dense(5, "tanh"), Dense(4)], seed=0, dtype="float64")
    net.compile("sgd", loss)
    assert gradcheck(net, rng.normal(size=(ROWS, 3)), _targets(loss.name, 4, rng)) < 1e-7


def test_a_deep_stack() -> None:
    rng = np.random.default_rng(2)
    net = Sequential([*(Dense(8, "tanh") for _ in range(12)), Dense(3, "softmax")], seed=0, dtype="float64")
    net.compile("sgd", "sparse_categorical_crossentropy")
    assert gradcheck(net, rng.normal(size=(ROWS, 8)), np.arange(ROWS) % 3, sample=200) < 1e-7


def test_it_finds_a_wrong_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    net = Sequential([Dense(5, "tanh"), Dense(1)], seed=0, dtype="float64")
    net.compile("sgd", "mse")
    x, y = rng.normal(size=(ROWS, 3)), rng.normal(size=ROWS)
    monkeypatch.setattr(ACTIVATIONS["tanh"], "backward", lambda *_: None)
    assert gradcheck(net, x, y) > 1e-3


def test_it_wants_float64() -> None:
    net = Sequential([Dense(1)])
    net.compile("sgd", "mse")
    with pytest.raises(InvalidInputError, match="float64"):
        gradcheck(net, [[1.0]], [1.0])
