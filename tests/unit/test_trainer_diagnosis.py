"""What is wrong is found and said: dead units, vanishing gradients, rates too high or low, and where a NaN began."""

from pathlib import Path

import numpy as np
import pytest

from mariana.datasets import load_iris
from mariana.errors import FileFormatError, InvalidInputError, TrainingError
from mariana.trainer import (
    SGD,
    Adam,
    Callback,
    Constant,
    CosineDecay,
    CSVLogger,
    CustomActivation,
    Dense,
    Diagnosis,
    Dropout,
    LambdaCallback,
    ModelCheckpoint,
    Sequential,
    find_learning_rate,
)

X, Y = load_iris()
X = (X - X.mean(axis=0)) / X.std(axis=0)
SPARSE = "sparse_categorical_crossentropy"


def _diagnosed(layers: list, optimizer, epochs: int = 3, **options) -> Diagnosis:
    diagnosis = Diagnosis(every=1, **options)
    net = Sequential([*layers, Dense(3, "softmax")], seed=0)
    net.compile(optimizer, SPARSE)
    net.fit(X, Y, 30, epochs, 0, [diagnosis])
    return diagnosis


def test_a_healthy_network_gets_no_advice() -> None:
    diagnosis = _diagnosed([Dense(32, "relu", kernel_initializer="he_normal"), Dropout(0.1)], Adam(0.003))
    assert diagnosis.findings == []
    assert [health.layer for health in diagnosis.epochs[-1]] == ["dense", "dense_1"]
    assert all(1e-6 < health.update < 0.1 for health in diagnosis.epochs[-1])


def test_dead_units_are_counted() -> None:
    said: list[str] = []
    dead = Dense(8, "relu", bias_initializer=Constant(-100))
    diagnosis = _diagnosed([Dense(4, "tanh"), dead], Adam(0.001), print_fn=said.append)
    assert diagnosis.epochs[0][1].dead == 1
    assert "layer 'dense_1': 100% of its units never fired; lower the learning rate" in diagnosis.findings[0]
    assert len([s for s in said if "never fired" in s]) == 1
    assert said[0].startswith("epoch 1: layer")


@pytest.mark.parametrize(
    ("layers", "optimizer", "sentence"),
    [
        (lambda: [Dense(9, "sigmoid") for _ in range(8)], SGD(0.1), "so it hardly learns"),
        (lambda: [Dense(9, "tanh", kernel_initializer=Constant(30))], SGD(0.01), "are saturated"),
        (lambda: [Dense(9, "tanh")], SGD(30.0), "lower the learning rate"),
        (lambda: [Dense(9, "tanh")], SGD(1e-8), "raise the learning rate"),
        (
            lambda: [Dense(9, "relu", kernel_initializer=Constant(3e3))],
            SGD(1e-9),
            "clip with global_clipnorm",
        ),
    ],
)
def test_other_troubles_have_their_sentences(layers, optimizer, sentence: str) -> None:
    diagnosis = _diagnosed(layers(), optimizer, 1)
    assert any(sentence in found for found in diagnosis.findings), diagnosis.findings


def test_the_measured_norms_are_the_norms() -> None:
    net = Sequential([Dense(5, "tanh"), Dense(3, "softmax")], seed=0, dtype="float64")
    net.compile(SGD(0.1), SPARSE)
    net.build((4,))
    net.loss_and_gradients(X, Y)
    layer = net.layers[0]
    gradient = np.sqrt(sum((g**2).sum() for g in layer.parameter_gradients.values()))
    weight = np.sqrt(sum((p**2).sum() for p in layer.parameters.values()))
    hidden = np.tanh(X @ layer.kernel + layer.bias)
    diagnosis = Diagnosis(every=1)
    net.fit(X, Y, 150, 1, 0, [diagnosis], shuffle=False)
    health = diagnosis.epochs[0][0]
    assert health.gradient == pytest.approx(gradient, rel=1e-9)
    assert health.update == pytest.approx(0.1 * gradient / weight, rel=1e-9)
    assert health.activation == pytest.approx(np.sqrt((hidden**2).mean()), rel=1e-9)


def test_nan_names_the_layer_and_the_rows() -> None:
    with np.errstate(all="ignore"):
        root = CustomActivation(np.sqrt, lambda x: 0.5 / np.sqrt(np.abs(x) + 1), "root")
        net = Sequential([Dense(4, "tanh"), Dense(1, root, kernel_initializer="zeros"), Dense(1)], seed=0)
        net.compile(SGD(0.1), "mse")
        net.build((4,))
        kernel, bias, _, _, last, zero = net.get_weights()
        kernel[:] = [[1], [0], [0], [0]]
        marked = np.abs(X) * 0.1
        marked[[17, 70], 0] = -1
        net.set_weights([kernel, bias, [[1], [0], [0], [0]], [0.0], last, zero])
        with pytest.raises(
            TrainingError, match=r"epoch 1, step \d of 5.*layer 'dense_1', with rows? (17|70)"
        ):
            net.fit(marked, Y.astype(float), 30, verbose=0)


def test_weights_made_infinite_are_named() -> None:
    class Break(Callback):
        def on_train_batch_end(self, batch: int, logs) -> None:
            assert logs["loss"] > 0
            if batch == 1:
                self.model.layers[1].kernel[2, 0] = np.inf

    net = Sequential([Dense(4, "tanh"), Dense(3), Dense(3, "softmax")], seed=0)
    net.compile(SGD(0.1), SPARSE)
    with pytest.raises(
        TrainingError, match=r"step 3 of 5.*'dense_1', whose kernel the step before"
    ) as caught:
        net.fit(X, Y, 30, verbose=0, callbacks=[Break()])
    assert "\n" not in str(caught.value)
    net = Sequential([Dense(3, "softmax")], seed=0)
    net.compile(SGD(0.1), SPARSE)
    spoil = LambdaCallback(on_train_batch_end=lambda *_: net.parameters.__setitem__(0, np.nan))
    with pytest.raises(TrainingError, match=r"no longer finite \('kernel' of layer 'dense'\).*step 1 of 1"):
        net.fit(X, Y, 150, verbose=0, callbacks=[spoil])


def test_the_learning_rate_finder_finds_one_that_learns_and_changes_nothing() -> None:
    net = Sequential([Dense(16, "relu"), Dropout(0.1), Dense(3, "softmax")], seed=0)
    net.compile(SGD(0.5), SPARSE)
    found = find_learning_rate(net, X, Y, steps=60)
    before = net.parameters.copy()
    find_learning_rate(net, X, Y, steps=60)
    np.testing.assert_array_equal(net.parameters, before)
    assert net.optimizer is not None
    assert (net.optimizer.learning_rate, net.optimizer.iterations, net.training) == (0.5, 0, {})
    again = find_learning_rate(net, X, Y, steps=60)
    assert again.suggestion == found.suggestion
    assert len(found.rates) == len(found.losses) <= 60
    losses = []
    for rate in (found.suggestion / 1000, found.suggestion):
        net = Sequential([Dense(16, "relu"), Dense(3, "softmax")], seed=0)
        net.compile(SGD(rate), SPARSE)
        losses.append(net.fit(X, Y, 32, 5, 0).history["loss"][-1])
    assert losses[1] < losses[0] / 2
    net.compile(SGD(CosineDecay(0.1, 10)), SPARSE)
    with pytest.raises(InvalidInputError, match="follows a CosineDecay"):
        find_learning_rate(net, X, Y)


def test_weights_are_kept_and_taken_back(tmp_path: Path) -> None:
    net = Sequential([Dense(6, "prelu"), Dense(3, "softmax")], seed=0)
    net.compile(Adam(0.05), SPARSE, ["accuracy"])
    best = ModelCheckpoint(tmp_path / "best.safetensors", save_best_only=True)
    each = ModelCheckpoint(tmp_path / "net-{epoch:02d}-{val_loss:.3f}.safetensors")
    log = CSVLogger(tmp_path / "log.csv")
    history = net.fit(X, Y, 30, 4, 0, [best, each, log], validation_split=0.3)
    losses = history.history["val_loss"]
    names = sorted(path.name for path in tmp_path.glob("net-*"))
    assert names == [f"net-{i:02d}-{loss:.3f}.safetensors" for i, loss in enumerate(losses, 1)]
    lines = (tmp_path / "log.csv").read_text().splitlines()
    assert lines[0] == "epoch,loss,accuracy,val_loss,val_accuracy"
    assert [float(line.split(",")[3]) for line in lines[1:]] == losses
    other = Sequential([Dense(6, "prelu"), Dense(3, "softmax")], seed=5)
    other.compile(Adam(), SPARSE)
    other.build((4,))
    other.load_weights(tmp_path / "best.safetensors")
    assert other.evaluate(X[105:], Y[105:]) == min(losses)
    wrong = Sequential([Dense(7, "prelu"), Dense(3, "softmax")])
    wrong.build((4,))
    with pytest.raises(
        InvalidInputError, match=r"another network: dense/kernel is \(4, 6\) there, \(4, 7\) here"
    ):
        wrong.load_weights(tmp_path / "best.safetensors")
    with pytest.raises(FileFormatError, match="damaged"):
        wrong.load_weights(tmp_path / "log.csv")
    with pytest.raises(InvalidInputError, match=r"\.safetensors"):
        ModelCheckpoint("weights.h5")
    with pytest.raises(InvalidInputError, match="there are: epoch, loss"):
        net.fit(X, Y, 30, 1, 0, [ModelCheckpoint(str(tmp_path / "{nonsense}.safetensors"))])
