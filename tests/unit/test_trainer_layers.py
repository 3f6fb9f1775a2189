"""Dropout and batch normalisation against naive twins: in training, in prediction, and folded into the model file."""

from pathlib import Path

import numpy as np
import pytest

import mariana
from mariana.datasets import load_iris
from mariana.errors import InvalidInputError, TrainingError
from mariana.format import read_model
from mariana.trainer import (
    SGD,
    Activation,
    BatchNormalization,
    Callback,
    Dense,
    Dropout,
    EarlyStopping,
    Input,
    Sequential,
    gradcheck,
)

X, Y = load_iris()
SPARSE = "sparse_categorical_crossentropy"


@pytest.mark.parametrize(
    "stack",
    [
        lambda: [Dense(6, "tanh"), BatchNormalization(), Dense(3, "softmax")],
        lambda: [Dense(6), BatchNormalization(), Activation("tanh"), Dense(3, "softmax")],
        lambda: [BatchNormalization(), Dense(6, "sigmoid"), Dense(3, "softmax")],
        lambda: [Dense(6, "tanh"), BatchNormalization(scale=False, epsilon=0.1), Dense(3, "softmax")],
        lambda: [Dense(6, "tanh"), BatchNormalization(center=False), Dense(3), Activation("softmax")],
        lambda: [Dense(6, "tanh"), BatchNormalization(center=False, scale=False), Dense(3, "softmax")],
        lambda: [Dense(9, "tanh"), Dropout(0.4), Dense(6, "tanh"), Dropout(0.2, seed=1), Dense(3, "softmax")],
        lambda: [Dropout(0.5), Dense(6, "tanh"), BatchNormalization(), Dropout(0.3), Dense(3, "softmax")],
    ],
)
def test_gradients_by_finite_differences_in_training(stack) -> None:
    rng = np.random.default_rng(0)
    net = Sequential(stack(), seed=0, dtype="float64")
    net.compile("sgd", SPARSE)
    net.build((4,))
    net.parameters += rng.normal(scale=0.3, size=net.parameters.shape)
    before = net.state.copy()
    assert gradcheck(net, rng.normal(size=(11, 4)), np.arange(11) % 3) < 1e-7
    np.testing.assert_array_equal(net.state, before)


def _normalised(x: np.ndarray, epsilon: float) -> np.ndarray:
    out = np.empty_like(x)
    for column in range(x.shape[1]):
        values = x[:, column]
        mean = sum(values) / len(values)
        variance = sum((v - mean) ** 2 for v in values) / len(values)
        out[:, column] = [(v - mean) / (variance + epsilon) ** 0.5 for v in values]
    return out


def test_batch_normalisation_normalises_the_batch_and_moves_its_statistics() -> None:
    """A frozen identity after it shows in the loss what it gave; three batches move the statistics three times."""
    rng = np.random.default_rng(0)
    x = rng.normal(3, 2, (24, 3))
    layer = BatchNormalization(momentum=0.7, epsilon=0.01)
    net = Sequential([Input(3), layer, Dense(3)], dtype="float64")
    net.compile(SGD(1e-300), "mse")
    net.build()
    gamma, beta = np.array([2.0, 0.5, -1.0]), np.array([0.0, 1.0, 2.0])
    moving_mean, moving_variance = np.zeros(3), np.ones(3)
    net.set_weights([gamma, beta, moving_mean, moving_variance, np.eye(3), np.zeros(3)])
    target = np.zeros((24, 3))
    losses = []
    for part in (slice(0, 8), slice(8, 16), slice(16, 24)):
        losses.append(np.mean((_normalised(x[part], 0.01) * gamma + beta) ** 2))
        moving_mean = 0.7 * moving_mean + 0.3 * x[part].mean(axis=0)
        moving_variance = 0.7 * moving_variance + 0.3 * x[part].var(axis=0)
    history = net.fit(x, target, batch_size=8, shuffle=False, verbose=0)
    assert history.history["loss"] == [pytest.approx(np.mean(losses), rel=1e-12)]
    weights = net.get_weights()
    np.testing.assert_allclose(weights[2], moving_mean, rtol=1e-12)
    np.testing.assert_allclose(weights[3], moving_variance, rtol=1e-12)
    wanted = (x - moving_mean) / np.sqrt(moving_variance + 0.01) * gamma + beta
    np.testing.assert_allclose(net.predict(x), wanted, rtol=1e-12)
    np.testing.assert_allclose(net.evaluate(x, target), np.mean(wanted**2), rtol=1e-12)
    np.testing.assert_array_equal(net.get_weights()[2], weights[2])  # neither predict nor evaluate moves them


def test_dropout_drops_its_share_and_keeps_the_mean() -> None:
    """One step of SGD on the sum of the outputs: the kernel of ones moves by what was let through."""
    rate, columns = 0.3, 20_000
    net = Sequential([Input(columns), Dropout(rate, seed=5), Dense(1, use_bias=False)], dtype="float64")
    net.compile("sgd", "mse")
    net.build()
    net.set_weights([np.zeros((columns, 1))])
    net.loss_and_gradients(np.ones((1, columns)), [-0.5])  # the gradient of (0 + 0.5)^2 is 1
    let_through = net.gradients.copy()
    assert set(np.unique(let_through)) == {0, 1 / (1 - rate)}
    assert np.mean(let_through == 0) == pytest.approx(rate, abs=0.015)  # 4.6 standard deviations
    assert let_through.mean() == pytest.approx(1, abs=0.02)
    net.set_weights([np.ones((columns, 1))])
    assert net.predict(np.ones((2, columns))).tolist() == [[columns]] * 2
    net.loss_and_gradients(np.ones((1, columns)), [0.0])
    np.testing.assert_array_equal(net.gradients == 0, let_through == 0)  # looking does not draw


def test_dropout_draws_anew_in_each_step_and_repeats_by_its_seed() -> None:
    def trained(network_seed: int, **options) -> bytes:
        net = Sequential([Dense(16, "relu"), Dropout(0.5, **options), Dense(3, "softmax")], seed=network_seed)
        net.compile("adam", SPARSE)
        net.fit(X, Y, epochs=2, verbose=0)
        return net.parameters.tobytes()

    assert trained(0) == trained(0)
    assert trained(0, seed=1) == trained(0, seed=1) != trained(0, seed=2)
    seen = []
    net = Sequential([Input(50), layer := Dropout(0.5), Dense(1)], seed=0)
    net.compile("sgd", "mse")

    class Watch(Callback):
        def on_train_batch_end(self, batch: int, logs) -> None:
            del batch, logs
            seen.append(layer.rng.bit_generator.state["state"]["state"])

    net.fit(np.ones((6, 50)), np.ones(6), batch_size=2, verbose=0, callbacks=[Watch()])
    assert len(set(seen)) == 3


def test_weights_come_in_the_order_of_keras_and_count_in_the_summary(
    capsys: pytest.CaptureFixture[str],
) -> None:
    net = Sequential([Input(4), Dense(5), BatchNormalization(), Dropout(0.1), Dense(3, "softmax")], seed=0)
    net.summary()
    text = capsys.readouterr().out
    assert "batch_normalization (BatchNormalization)" in text
    assert "total: 63 parameters, 10 of them not learned, 252 bytes" in text
    weights = net.get_weights()
    assert [w.shape for w in weights] == [(4, 5), (5,), (5,), (5,), (5,), (5,), (5, 3), (3,)]
    assert [float(w[0]) for w in weights[2:6]] == [1, 0, 0, 1]  # gamma, beta, moving mean, moving variance
    weights[4][:] = 7
    net.set_weights(weights)
    assert net.state[:5].tolist() == [7] * 5


def test_early_stopping_restores_the_moving_statistics() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 8)), rng.integers(0, 3, 60)
    x_val, y_val = rng.normal(size=(60, 8)), rng.integers(0, 3, 60)
    net = Sequential(
        [Dense(16, "relu"), BatchNormalization(momentum=0.9), Dropout(0.1), Dense(3, "softmax")], seed=0
    )
    net.compile("adam", SPARSE)
    stop = EarlyStopping(patience=6, restore_best_weights=True)
    losses = net.fit(x, y, epochs=500, validation_data=(x_val, y_val), callbacks=[stop], verbose=0).history[
        "val_loss"
    ]
    assert len(losses) < 500
    assert net.evaluate(x_val, y_val) == min(losses)


STACKS = {
    "contract": lambda: [Dense(16, "relu"), BatchNormalization(), Dropout(0.3), Dense(3, "softmax")],
    "after a linear Dense": lambda: [
        Dense(16, use_bias=False),
        BatchNormalization(),
        Activation("relu"),
        Dense(3, "softmax"),
    ],
    "between layers, no bias": lambda: [
        Dense(9, "tanh"),
        BatchNormalization(scale=False),
        Dense(7, "sigmoid", use_bias=False),
        Dropout(0.1),
        BatchNormalization(center=False),
        Dense(3),
        Activation("softmax"),
    ],
    "first, twice, and last": lambda: [
        BatchNormalization(),
        BatchNormalization(),
        Dense(8, "relu"),
        Activation("linear"),
        BatchNormalization(),
        Dropout(0.1),
        BatchNormalization(),
        Dense(3),
        BatchNormalization(),
        Activation("softmax"),
    ],
}


@pytest.mark.parametrize("stack", STACKS)
def test_the_model_file_gives_what_the_network_predicts(tmp_path: Path, stack: str) -> None:
    net = Sequential(STACKS[stack](), seed=0)
    net.compile("adam", SPARSE, ["accuracy"])
    net.fit(X, Y, batch_size=16, epochs=15, verbose=0)
    rng = np.random.default_rng(1)
    net.parameters += rng.normal(scale=0.1, size=net.parameters.shape).astype(np.float32)
    path = net.export(tmp_path, "iris")
    assert {layer.kind for layer in read_model(path).metadata.layers} == {"dense"}
    found = mariana.load_model(path).predict(X)
    np.testing.assert_allclose(found, net.predict(X), atol=1e-5)
    assert (
        np.ptp(found, axis=0).min() > 0.1
    )  # the outputs differ from row to row: there is something to compare


@pytest.mark.parametrize(
    ("stack", "name"),
    [
        (lambda: [Dense(3, "softmax"), BatchNormalization()], "'batch_normalization'"),
        (
            lambda: [Dense(4, "relu"), BatchNormalization(), Activation("relu"), Dense(3, "softmax")],
            "'batch_normalization'",
        ),
        (lambda: [BatchNormalization(), Activation("relu"), Dense(3, "softmax")], "'batch_normalization'"),
        (lambda: [BatchNormalization()], "'batch_normalization'"),
        (
            lambda: [Dense(4), BatchNormalization(), Activation("tanh"), BatchNormalization(), Dropout(0.1)],
            "'batch_normalization_1'",
        ),
    ],
)
def test_what_cannot_be_folded_is_refused_by_name(tmp_path: Path, stack, name: str) -> None:
    net = Sequential([Input(4), *stack()], seed=0)
    net.build()
    with pytest.raises(InvalidInputError, match=f"layer {name} cannot be exported.*Dense"):
        net.export(tmp_path, "m")


@pytest.mark.parametrize(
    "make",
    [
        lambda: Dropout(1),
        lambda: Dropout(-0.1),
        lambda: Dropout("half"),
        lambda: Dropout(0.1, seed=-1),
        lambda: BatchNormalization(momentum=1),
        lambda: BatchNormalization(epsilon=0),
        lambda: Sequential([Dropout(0.1)]).build((3,)),
    ],
)
def test_bad_arguments_of_layers_are_told(make) -> None:
    with pytest.raises(InvalidInputError):
        make()


def test_statistics_that_overflow_stop_the_training() -> None:
    net = Sequential([BatchNormalization(), Dense(1)], seed=0)
    net.compile("sgd", "mse")
    with pytest.raises(TrainingError, match="no longer finite"):
        net.fit(np.array([[1e30], [-1e30]]), [0, 1], verbose=0)
