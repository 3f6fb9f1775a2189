"""Optimizers against naive twins; losses, metrics and the defaults of train against scikit-learn."""

import math

import numpy as np
import pytest
from sklearn import metrics as judge
from sklearn.datasets import make_friedman1
from sklearn.ensemble import HistGradientBoostingRegressor

from mariana.errors import InvalidInputError
from mariana.tables import read_csv
from mariana.trainer import (
    SGD,
    Adam,
    BinaryCrossentropy,
    CategoricalCrossentropy,
    Dense,
    MeanSquaredError,
    Sequential,
    SparseCategoricalCrossentropy,
    use_backend,
)
from mariana.trainer.from_table import network, prepare, scores, teach
from mariana.trainer.optimizers import Optimizer
from mariana.trainer.recipe import Recipe


def _naive_sgd(rate: float, momentum: float, nesterov: bool):
    state: dict[int, float] = {}

    def step(i: int, p: float, g: float, t: int) -> float:
        del t
        v = state[i] = momentum * state.get(i, 0.0) - rate * g
        return p + (momentum * v - rate * g if nesterov else v)

    return step


def _naive_adam(rate: float, beta_1: float, beta_2: float, epsilon: float):
    state: dict[int, tuple[float, float]] = {}

    def step(i: int, p: float, g: float, t: int) -> float:
        m, v = state.get(i, (0.0, 0.0))
        m, v = beta_1 * m + (1 - beta_1) * g, beta_2 * v + (1 - beta_2) * g * g
        state[i] = m, v
        # Keras writes epsilon beside sqrt(v) before the correction of v
        correction = math.sqrt(1 - beta_2**t) / (1 - beta_1**t)
        return p - rate * correction * m / (math.sqrt(v) + epsilon)

    return step


@pytest.mark.parametrize(
    ("optimizer", "naive"),
    [
        (SGD(0.05), _naive_sgd(0.05, 0, False)),
        (SGD(0.05, momentum=0.9), _naive_sgd(0.05, 0.9, False)),
        (SGD(0.05, momentum=0.9, nesterov=True), _naive_sgd(0.05, 0.9, True)),
        (Adam(0.01), _naive_adam(0.01, 0.9, 0.999, 1e-7)),
        (Adam(0.1, 0.5, 0.9, 1e-3), _naive_adam(0.1, 0.5, 0.9, 1e-3)),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Optimizer) else "",
)
def test_200_steps_as_the_naive_twin(optimizer: Optimizer, naive) -> None:
    rng = np.random.default_rng(0)
    scale = rng.uniform(0.1, 3, 9)
    ours = rng.normal(size=9)
    theirs = ours.tolist()
    optimizer.build(ours)
    for t in range(1, 201):
        noise = rng.normal(scale=0.1, size=9)
        optimizer.update(ours, scale * ours + noise)
        theirs = [naive(i, p, scale[i] * p + noise[i], t) for i, p in enumerate(theirs)]
    np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12)
    assert optimizer.iterations == 200


def test_adams_first_step_is_the_learning_rate_whatever_the_gradient() -> None:
    gradients = np.array([1e-3, -5.0, 700.0])
    parameters = np.zeros(3)
    adam = Adam(0.01, epsilon=1e-15)
    adam.build(parameters)
    adam.update(parameters, gradients.copy())
    np.testing.assert_allclose(parameters, -0.01 * np.sign(gradients), rtol=1e-9)


@pytest.mark.parametrize("backend", ["numpy", "auto"])
@pytest.mark.parametrize("units", [2, 5, 300])
def test_categorical_crossentropy_and_accuracy(units: int, backend: str) -> None:
    rng = np.random.default_rng(units)
    y = rng.integers(0, units, 400)
    y[:units] = np.arange(units)
    x = rng.normal(size=(400, 6))
    one_hot = np.eye(units)[y]
    found = []
    for loss, targets in (("sparse_categorical_crossentropy", y), ("categorical_crossentropy", one_hot)):
        with use_backend(backend):
            net = Sequential([Dense(units, "softmax")], seed=1)
            net.compile("adam", loss, ["accuracy"])
            net.fit(x, targets, epochs=3, verbose=0)
            outputs = net.predict(x).astype(np.float64)
            outputs /= outputs.sum(axis=1, keepdims=True)
            value, accuracy = net.evaluate(x, targets, batch_size=64)
        assert value == pytest.approx(judge.log_loss(y, outputs, labels=range(units)), rel=1e-5)
        assert accuracy == pytest.approx(judge.accuracy_score(y, outputs.argmax(axis=1)))
        found.append(value)
    # in C each kind of target has a kernel of its own, in float32
    assert found[0] == (found[1] if backend == "numpy" else pytest.approx(found[1], rel=1e-7))
    assert SparseCategoricalCrossentropy()(y, outputs) == pytest.approx(
        judge.log_loss(y, outputs, labels=range(units)), rel=1e-12
    )
    assert CategoricalCrossentropy()(one_hot, outputs) == pytest.approx(
        judge.log_loss(y, outputs, labels=range(units)), rel=1e-12
    )


def test_binary_crossentropy_and_accuracy() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 4))
    y = (x[:, 0] + rng.normal(size=300) > 0).astype(int)
    net = Sequential([Dense(1, "sigmoid")], seed=1)
    net.compile("adam", "binary_crossentropy", ["accuracy"])
    net.fit(x, y, epochs=5, verbose=0)
    p = net.predict(x).ravel().astype(np.float64)
    value, accuracy = net.evaluate(x, y)
    assert value == pytest.approx(judge.log_loss(y, p), rel=1e-5)
    assert accuracy == judge.accuracy_score(y, p > 0.5)
    assert BinaryCrossentropy()(y, p[:, None]) == pytest.approx(judge.log_loss(y, p), rel=1e-12)


def test_regression_metrics() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(100, 4)), rng.normal(size=(100, 2))
    net = Sequential([Dense(2)], seed=1)
    net.compile("adam", "mse", ["mae", "mse"])
    found = net.evaluate(x, y, return_dict=True, batch_size=33)
    outputs = net.predict(x)
    assert found["loss"] == pytest.approx(judge.mean_squared_error(y, outputs), rel=1e-5)
    assert found["mse"] == pytest.approx(judge.mean_squared_error(y, outputs), rel=1e-5)
    assert found["mae"] == pytest.approx(judge.mean_absolute_error(y, outputs), rel=1e-5)
    assert MeanSquaredError()(y, outputs) == pytest.approx(found["mse"], rel=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("size", [50.0, 1e4, 1e30])
def test_extreme_logits_stay_finite_and_right(size: float, dtype: str) -> None:
    """One huge logit: right gives a loss of 0, wrong one of its size; no infinity, no NaN."""
    cases = (("softmax", "sparse_categorical_crossentropy", 2), ("sigmoid", "binary_crossentropy", 1))
    for activation, loss, units in cases:
        net = Sequential([Dense(units, activation, use_bias=False)], dtype=dtype)
        net.compile("sgd", loss)
        net.build((1,))
        net.set_weights([[[-size, size]] if units == 2 else [[size]]])
        height = 2 * size if units == 2 else size
        assert net.evaluate([[1.0]], [1]) == pytest.approx(0, abs=1e-20)
        assert net.evaluate([[1.0]], [0]) == pytest.approx(height, rel=1e-6)
        assert net.evaluate([[-1.0]], [0]) == pytest.approx(0, abs=1e-20)
        outputs = net.predict([[1.0], [-1.0]])
        np.testing.assert_allclose(outputs[:, -1], [1, 0], atol=1e-15)
        net.loss_and_gradients([[1.0]], [0])
        assert np.isfinite(net.gradients).all()
        assert abs(net.gradients[-1]) == pytest.approx(1)


def test_losses_called_on_predictions_refuse_nonsense() -> None:
    with pytest.raises(InvalidInputError, match="probabilities"):
        CategoricalCrossentropy()([[1, 0]], [[2.0, -1.0]])
    with pytest.raises(InvalidInputError, match="rows"):
        MeanSquaredError()([1.0, 2.0], [[1.0]])
    assert math.isfinite(CategoricalCrossentropy()([[1, 0]], [[0.0, 1.0]]))


def test_the_defaults_of_train_are_as_good_as_scikit_learns() -> None:
    x, y = make_friedman1(1500, 10, noise=1.0, random_state=0)
    recipe = Recipe(layers=(128, 64))
    cells = np.column_stack([x, y]).tolist()
    lines = [",".join(f"c{i}" for i in range(10)) + ",y", *(",".join(map(repr, row)) for row in cells)]
    prepared = prepare(read_csv("friedman.csv", "\n".join(lines).encode()), "y", "auto", recipe, test=0.25)
    net = network(prepared, recipe)
    teach(net, prepared, recipe)
    test = prepared.splits["test"]
    rest = np.concatenate([prepared.splits["train"], prepared.splits["validation"]])
    peer = HistGradientBoostingRegressor(random_state=0).fit(x[rest], y[rest])
    assert scores(net, prepared, "test")["r2"] > peer.score(x[test], y[test]) - 0.02
