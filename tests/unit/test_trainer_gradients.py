"""The gradients of every activation, layer, loss and penalty against central finite differences, float64, 1e-9."""

import numpy as np
import pytest

from mariana.errors import InvalidInputError
from mariana.trainer import (
    L1L2,
    Activation,
    BatchNormalization,
    BinaryCrossentropy,
    CategoricalCrossentropy,
    CustomActivation,
    CustomLoss,
    Dense,
    Dropout,
    Flatten,
    GaussianNoise,
    Huber,
    PReLU,
    Sequential,
    SparseCategoricalCrossentropy,
    gradcheck,
)
from mariana.trainer.activations import ACTIVATIONS, ELU, LeakyReLU
from mariana.trainer.losses import LOSSES, Loss

ROWS = 7
BAR = 1e-9


def _targets(loss: str, units: int, rng: np.random.Generator) -> np.ndarray:
    if loss == "sparse_categorical_crossentropy":
        return np.arange(ROWS) % units
    if loss == "categorical_crossentropy":
        return rng.dirichlet(np.ones(units), ROWS)
    if loss in ("binary_crossentropy", "hinge"):
        return rng.integers(0, 2, (ROWS, units))
    if loss == "poisson":
        return rng.poisson(3, (ROWS, units))
    return rng.normal(size=(ROWS, units))


def _net(stack: list, loss, columns: int = 4, seed: int = 3) -> Sequential:
    net = Sequential(stack, seed=seed, dtype="float64")
    net.compile("sgd", loss)
    net.build((columns,))
    net.parameters += np.random.default_rng(1).normal(scale=0.1, size=net.parameters.shape)
    return net  # biases too are not 0


@pytest.mark.parametrize("as_layer", [False, True], ids=["in Dense", "as a layer"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation(activation: str, as_layer: bool) -> None:
    stack = []
    for width in (6, 5):
        hidden = [Dense(width), Activation(activation)]
        stack += hidden if as_layer else [Dense(width, activation, use_bias=width != 5)]
    net = _net([*stack, Dense(3, "softmax")], "sparse_categorical_crossentropy")
    x = np.random.default_rng(2).normal(size=(ROWS, 4))
    assert gradcheck(net, x, np.arange(ROWS) % 3) < BAR


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("units", [1, 3])
@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss(loss: str, units: int, weighted: bool) -> None:
    fuses = LOSSES[loss]().fuses
    if fuses == "softmax" and units == 1:
        pytest.skip("a softmax of one output is always 1")
    last = fuses or ("softplus" if loss == "poisson" else "linear")
    rng = np.random.default_rng(5)
    net = _net([Dense(5, "tanh"), Dense(units, last)], loss)
    x, y = rng.normal(size=(ROWS, 4)), _targets(loss, units, rng)
    weights = rng.uniform(0, 3, ROWS) if weighted else None
    assert gradcheck(net, x, y, sample_weight=weights) < BAR


@pytest.mark.parametrize(
    "loss",
    [
        CategoricalCrossentropy(from_logits=True),
        BinaryCrossentropy(from_logits=True, label_smoothing=0.2),
        SparseCategoricalCrossentropy(from_logits=True, label_smoothing=0.1),
        Huber(0.3),
        CustomLoss(lambda o, t: ((o - t) ** 4).sum(axis=1), lambda o, t: 4 * (o - t) ** 3, "quartic"),
    ],
    ids=lambda loss: loss.name,
)
def test_arguments_of_losses(loss: Loss) -> None:
    rng = np.random.default_rng(2)
    net = _net([Dense(5, "tanh"), Dense(4)], loss, 3)
    assert gradcheck(net, rng.normal(size=(ROWS, 3)), _targets(loss.name, 4, rng)) < BAR


@pytest.mark.parametrize(
    "stack",
    [
        lambda: [Flatten(), Dense(6, "tanh"), BatchNormalization(), Dense(3, "softmax")],
        lambda: [Dense(6, use_bias=False), PReLU("ones"), GaussianNoise(0.3), Dense(3, "softmax")],
        lambda: [GaussianNoise(0.5), Dropout(0.3), Dense(6, ELU(0.5)), Flatten(), Dense(3, "softmax")],
        lambda: [Dense(6, LeakyReLU(0.01)), Dense(3, "softmax"), Flatten()],
        lambda: [Activation("sigmoid"), BatchNormalization(), Dense(3), Activation("softmax")],
        lambda: [
            Dense(6, "tanh", kernel_regularizer="l2", bias_regularizer=L1L2(0.1, 0.2)),
            Dense(3, "softmax", kernel_regularizer="l1"),
        ],
        lambda: [
            Dense(6, CustomActivation(np.sin, np.cos, "sine")),
            Dense(6, (np.arctan, lambda x: 1 / (1 + x * x))),
            Dense(3, "softmax"),
        ],
    ],
)
def test_layers_and_penalties(stack) -> None:
    loss = "sparse_categorical_crossentropy"
    if isinstance(stack()[-1], Flatten):
        loss = SparseCategoricalCrossentropy(from_logits=True)
        net = _net([Dense(6, LeakyReLU(0.01)), Dense(3), Flatten()], loss)
    else:
        net = _net(stack(), loss)
    x = np.random.default_rng(0).normal(size=(11, 4))
    assert gradcheck(net, x, np.arange(11) % 3) < BAR


def test_a_deep_stack() -> None:
    rng = np.random.default_rng(2)
    net = _net(
        [*(Dense(8, "tanh") for _ in range(12)), Dense(3, "softmax")], "sparse_categorical_crossentropy", 8
    )
    assert gradcheck(net, rng.normal(size=(ROWS, 8)), np.arange(ROWS) % 3, sample=200) < BAR


def test_it_finds_a_wrong_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    net = _net([Dense(5, "tanh"), Dense(1)], "mse", 3)
    x, y = rng.normal(size=(ROWS, 3)), rng.normal(size=ROWS)
    monkeypatch.setattr(ACTIVATIONS["tanh"], "backward", lambda *_: None)
    assert gradcheck(net, x, y) > 1e-3


def test_it_wants_float64() -> None:
    net = Sequential([Dense(1)])
    net.compile("sgd", "mse")
    with pytest.raises(InvalidInputError, match="float64"):
        gradcheck(net, [[1.0]], [1.0])


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: CustomActivation(np.sin, 3), "two functions"),
        (lambda: CustomLoss(3, np.cos), "two functions"),
        (lambda: LeakyReLU(1), "negative_slope is 1"),
        (lambda: ELU(0), "alpha is 0"),
        (lambda: Dense(1, (np.sin,)), "is no activation"),
        (
            lambda: _net([Dense(3, act := ACTIVATIONS["prelu"]()), Dense(3, act), Dense(1)], "mse"),
            "two layers",
        ),
    ],
)
def test_bad_arguments_are_told(make, complaint: str) -> None:
    with pytest.raises(InvalidInputError, match=complaint):
        make()


def test_custom_functions_must_keep_the_shape() -> None:
    x, y = np.ones((3, 2)), np.ones(3)
    net = _net([Dense(4, CustomActivation(lambda x: x.sum(), np.cos, "bad")), Dense(1)], "mse", 2)
    with pytest.raises(InvalidInputError, match=r"'bad'.*shape"):
        net.predict(x)
    for loss in ((lambda o, t: o - t, np.subtract), (lambda o, t: (o - t)[:, 0], lambda o, _: o[0])):
        with pytest.raises(InvalidInputError, match="loss 'custom': expected a"):
            _net([Dense(1)], loss, 2).loss_and_gradients(x, y)
