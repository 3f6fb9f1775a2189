"""Learning: it works, repeats exactly, stops when it should, allocates nothing in a step, and says what is wrong."""

import math
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from mariana.datasets import load_digits, load_iris
from mariana.errors import InvalidInputError, TrainingError
from mariana.trainer import (
    SGD,
    Activation,
    Adam,
    BatchNormalization,
    Callback,
    Dense,
    Dropout,
    EarlyStopping,
    HeNormal,
    Input,
    Rescaling,
    Sequential,
    set_random_seed,
)
from mariana.trainer import initializers as init

X, Y = load_iris()


def _net(seed: int | None = 0, **options) -> Sequential:
    net = Sequential([Dense(16, "relu"), Dense(3, "softmax")], seed=seed, **options)
    net.compile(Adam(0.01), "sparse_categorical_crossentropy", ["accuracy"])
    return net


def test_it_learns_iris() -> None:
    net = _net()
    history = net.fit(X, Y, epochs=60, validation_split=0.2, verbose=0)
    assert set(history.history) == {"loss", "accuracy", "val_loss", "val_accuracy"}
    assert history.epoch == list(range(60))
    assert history.history["loss"][-1] < history.history["loss"][0] / 3
    assert net.evaluate(X, Y)[1] > 0.93


@pytest.mark.parametrize("backend", ["numpy", "c"])
def test_one_seed_gives_the_same_bytes_and_another_does_not(
    backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MARIANA_BACKEND", backend)
    results = []
    for seed in (5, 5, 6):
        net = _net(seed)
        net.fit(X, Y, epochs=3, verbose=0)
        results.append(net.parameters.tobytes())
    assert results[0] == results[1] != results[2]
    assert set_random_seed(7) is None
    first = _net(None)
    set_random_seed(7)
    second = _net(None)
    assert first.seed == second.seed
    assert _net(None).seed != first.seed


@pytest.mark.parametrize("backend", ["numpy", "c"])
def test_a_step_allocates_no_arrays_after_the_first(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MARIANA_BACKEND", backend)
    x, y = load_digits()
    sizes = []

    class Watch(Callback):
        def on_train_batch_end(self, batch: int, logs) -> None:
            if batch == 1:
                tracemalloc.start()
                tracemalloc.reset_peak()
            if batch == 10:
                assert logs["loss"] > 0
                sizes.append(tracemalloc.get_traced_memory()[1])
                tracemalloc.stop()

    # NumPy casts through a buffer of its own, 8192 numbers whatever the arrays: make it small to see arrays alone
    usual = np.setbufsize(32)
    try:
        for activation in ("relu", "tanh", "sigmoid"):
            net = Sequential([Dense(128, activation), Dense(64, activation), Dense(10, "softmax")], seed=0)
            net.compile("adam", "sparse_categorical_crossentropy", ["accuracy"])
            net.fit(x, y, batch_size=128, callbacks=[Watch()], verbose=0)
        regular = [Dense(128, "relu"), BatchNormalization(), Dropout(0.3), Dense(10, "softmax")]
        net = Sequential([Rescaling(1 / 16), *regular], seed=0)
        net.compile("adam", "sparse_categorical_crossentropy", ["accuracy"])
        net.fit(x.astype(np.uint8), y, batch_size=128, callbacks=[Watch()], verbose=0)
    finally:
        np.setbufsize(usual)
    # the smallest array of a batch of 128 that could be made anew, the 10 outputs, takes 5,120 bytes
    assert max(sizes) < 5000, sizes


def test_validation_split_takes_the_last_rows() -> None:
    seen = []

    class Watch(Callback):
        def on_epoch_end(self, epoch: int, logs) -> None:
            seen.append(logs["val_loss"])
            assert epoch == 0

    net = _net()
    net.fit(X, Y, validation_split=0.1, verbose=0, callbacks=[Watch()])
    assert seen == [net.evaluate(X[135:], Y[135:])[0]]
    assert net.training["rows"] == 135


def test_early_stopping_restores_the_best_epoch() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 8)), rng.integers(0, 3, 60)  # noise: it can only be learned by heart
    x_val, y_val = rng.normal(size=(60, 8)), rng.integers(0, 3, 60)
    net = _net()
    stop = EarlyStopping(patience=4, restore_best_weights=True)
    history = net.fit(x, y, epochs=300, validation_data=(x_val, y_val), callbacks=[stop], verbose=0)
    losses = history.history["val_loss"]
    assert len(losses) < 300
    assert stop.best_epoch == int(np.argmin(losses)) == len(losses) - 1 - 4
    assert stop.stopped_epoch == len(losses) - 1
    assert net.evaluate(x_val, y_val)[0] == min(losses) == net.logs["val_loss"]
    assert net.training["metrics"]["validation"]["loss"] == min(losses)


def test_early_stopping_knows_that_accuracy_should_grow() -> None:
    net = _net()
    stop = EarlyStopping("accuracy", patience=3)
    history = net.fit(X, Y, epochs=200, callbacks=[stop], verbose=0)
    assert history.history["accuracy"][stop.best_epoch] == max(history.history["accuracy"])
    with pytest.raises(InvalidInputError, match=r"val_loss.*validation"):
        net.fit(X, Y, callbacks=[EarlyStopping()], verbose=0)


def test_divergence_names_epoch_and_step() -> None:
    net = Sequential([Dense(4, "relu"), Dense(1)], seed=0)
    net.compile(SGD(1e6), "mse")
    with pytest.raises(TrainingError, match=r"epoch \d+, step \d+ of 5"):
        net.fit(X, Y, epochs=20, verbose=0)


def test_progress_on_lines_and_as_a_bar(capsys: pytest.CaptureFixture[str]) -> None:
    _net().fit(X, Y, epochs=2, verbose=2)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert lines[1].startswith("epoch 2/2  loss ")
    _net().fit(X, Y, epochs=2, verbose=1)
    out, err = capsys.readouterr()
    assert not out
    assert "epoch 2/2" in err
    _net().fit(X, Y, epochs=2, verbose=0)
    assert not "".join(capsys.readouterr())


def test_summary_counts(capsys: pytest.CaptureFixture[str]) -> None:
    Sequential(
        [Input((28, 28)), Dense(256, "relu"), Dense(128), Activation("tanh"), Dense(10, "softmax")]
    ).summary()
    text = capsys.readouterr().out
    assert "235,146 parameters, 940,584 bytes" in text
    assert "dense_2 (Dense)" in text
    assert "200,960" in text
    assert "activation (Activation)" in text


def test_the_example_of_the_documents_as_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Such as a summary before there is data: it says what is not known yet, as Keras does."""
    monkeypatch.chdir(tmp_path)
    x, labels = load_digits()
    y = np.eye(10)[labels]
    net = Sequential(
        [Dense(256, activation="relu"), BatchNormalization(), Dropout(0.3), Dense(10, activation="softmax")]
    )
    net.compile(optimizer=Adam(learning_rate=1e-3), loss="categorical_crossentropy", metrics=["accuracy"])
    net.summary()
    text = capsys.readouterr().out
    assert "batch_normalization (BatchNormalization)  (None, ?)" in text
    assert "total: ? parameters" in text
    history = net.fit(x, y, batch_size=128, epochs=10, validation_split=0.1, callbacks=[])
    assert history.history["val_accuracy"][-1] > 0.8
    net.summary()
    assert "dense (Dense)" in capsys.readouterr().out
    assert net.export("store", name="fashion") == Path("store/models/fashion/1/model.safetensors")


def test_weights_go_out_and_in() -> None:
    first, second = _net(1), _net(2)
    first.fit(X, Y, verbose=0)
    second.build((4,))
    second.set_weights(first.get_weights())
    np.testing.assert_array_equal(first.predict(X), second.predict(X))
    first.get_weights()[0][:] = 0
    np.testing.assert_array_equal(first.predict(X), second.predict(X))
    with pytest.raises(InvalidInputError, match="shapes"):
        second.set_weights(first.get_weights()[:-1])


def test_images_are_made_flat_and_batches_do_not_matter() -> None:
    x, y = load_digits()
    net = Sequential([Dense(10, "softmax")], seed=0)
    net.compile("adam", "sparse_categorical_crossentropy")
    net.fit(x.reshape(-1, 8, 8), y, verbose=0)
    assert net.input_shape == (8, 8)
    np.testing.assert_allclose(net.predict(x), net.predict(x.reshape(-1, 8, 8), batch_size=7), atol=1e-6)


@pytest.mark.parametrize(
    ("name", "variance", "limit"),
    [
        ("glorot_uniform", 2 / 500, math.sqrt(6 / 500)),
        ("glorot_normal", 2 / 500, 2 * math.sqrt(2 / 500) / 0.8796),
        ("he_uniform", 2 / 300, math.sqrt(6 / 300)),
        ("he_normal", 2 / 300, 2 * math.sqrt(2 / 300) / 0.8796),
        ("zeros", 0, 0),
        ("ones", 0, 1),
    ],
)
def test_initializers_have_the_right_spread(name: str, variance: float, limit: float) -> None:
    kernel = np.empty((300, 200))
    init.get(name).fill(kernel, np.random.default_rng(0))
    assert kernel.var() == pytest.approx(variance, rel=0.02)
    assert np.abs(kernel).max() <= limit * 1.0001
    assert isinstance(init.get(HeNormal()), HeNormal)


def test_unknown_names_list_the_known_ones() -> None:
    with pytest.raises(
        InvalidInputError, match=r"'relux' is no activation.*linear, relu, sigmoid, tanh, softmax"
    ):
        Dense(3, "relux")
    with pytest.raises(InvalidInputError, match="glorot_uniform"):
        Dense(3, kernel_initializer="he")
    for optimizer, loss, metrics, known in (
        ("adamm", "mse", [], "sgd, adam"),
        ("adam", None, [], "mean_squared_error"),
        ("adam", "mse", ["acuracy"], "accuracy"),
        ("adam", "mse", "mae", "list"),
    ):
        with pytest.raises(InvalidInputError, match=known):
            _compiled(optimizer, loss, metrics).fit(X, Y, verbose=0)


def _compiled(*arguments) -> Sequential:
    net = Sequential([Dense(1)])
    net.compile(*arguments)
    return net


NAN = X.copy()
NAN[3, 2] = np.nan


@pytest.mark.parametrize(
    ("x", "y", "options", "complaint"),
    [
        (X[:0], Y[:0], {}, "at least one row"),
        (X[:, :0], Y, {}, "at least one row and one column"),
        (X[0], Y, {}, "reshape"),
        (NAN, Y, {}, r"x\[3, 2\] is nan"),
        (np.where(X > 5, np.inf, X), Y, {}, "finite"),
        (X.astype(float) * 1e300, Y, {}, "finite float32"),
        (X.astype(str), Y, {}, "encode"),
        (X.astype(object), Y, {}, "object"),
        ([[1, 2], [3]], [0, 1], {}, "ragged"),
        (X, [[0], [1, 2]], {}, "ragged"),
        (X, Y[:-1], {}, "150 rows, but y has 149"),
        (X, 3, {}, "one value"),
        (X, Y * 0, {}, "class 0: a classifier needs"),
        (X, Y - 1, {}, "class index -1 is out of range"),
        (X, Y + 1, {}, "class index 3 is out of range"),
        (X, Y.astype(float), {}, "whole numbers, found float64"),
        (X, Y.astype(str), {}, "return_inverse"),
        (X, np.eye(3)[Y], {}, r"\(rows,\)"),
        (X, Y, {"batch_size": 0}, "batch_size is 0"),
        (X, Y, {"batch_size": 2.5}, "batch_size is 2.5"),
        (X, Y, {"epochs": 0}, "epochs is 0"),
        (X, Y, {"epochs": True}, "epochs is True"),
        (X, Y, {"validation_split": 1}, "validation_split is 1"),
        (X, Y, {"validation_split": math.nan}, "validation_split is nan"),
        (X, Y, {"validation_split": 0.999}, "leaves 0 rows to learn"),
        (X, Y, {"validation_data": (X,)}, "pair"),
        (X, Y, {"validation_data": (X[:0], Y[:0])}, "validation x"),
        (X, Y, {"validation_data": (X[:, :2], Y)}, "validation x has 2 columns"),
        (X, Y, {"verbose": 3}, "verbose"),
    ],
)
def test_bad_training_input_is_told(x, y, options, complaint: str) -> None:
    with pytest.raises(InvalidInputError, match=complaint) as caught:
        _net().fit(x, y, **{"verbose": 0} | options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "make",
    [
        lambda: SGD(0),
        lambda: SGD(-1),
        lambda: Adam(math.nan),
        lambda: Adam(math.inf),
        lambda: Adam("fast"),
        lambda: Adam(beta_1=1),
        lambda: SGD(momentum=1.5),
        lambda: SGD(nesterov=True),
        lambda: Dense(0),
        lambda: Dense(2.0),
        lambda: Input(()),
        lambda: Input((3, 0)),
        lambda: Sequential([3]),
        lambda: Sequential([Dense(1), Input(3)]),
        lambda: Sequential([Dense(1)], seed=-1),
        lambda: Sequential([Dense(1)], dtype="float16"),
        lambda: Sequential([]).build((3,)),
        lambda: Sequential([Activation("relu")]).build((3,)),
        lambda: Sequential([]).summary(),
        lambda: Sequential([Dense(1)]).fit(X, Y),
        lambda: Sequential([layer := Dense(1), layer]),
        lambda: Sequential([Dense(3)]).compile("adam", "categorical_crossentropy"),
        lambda: Sequential([Dense(3, "softmax")]).compile("adam", "binary_crossentropy"),
        lambda: EarlyStopping(mode="up"),
        lambda: EarlyStopping(patience=-1),
        lambda: EarlyStopping(min_delta=math.nan),
        lambda: _net().fit(X, Y, callbacks=["stop"], verbose=0),
        lambda: _net().evaluate(X, Y, batch_size=0),
        lambda: _net().predict(X, batch_size=0),
    ],
)
def test_bad_arguments_are_told(make) -> None:
    with pytest.raises(InvalidInputError):
        make()


@pytest.mark.parametrize(
    ("units", "last", "loss", "y", "complaint"),
    [
        (1, "sigmoid", "binary_crossentropy", Y, "from 0 to 1, found 0 to 2"),
        (1, "sigmoid", "binary_crossentropy", Y * 0, "two classes"),
        (1, "softmax", "sparse_categorical_crossentropy", Y, "binary_crossentropy"),
        (3, "softmax", "categorical_crossentropy", Y, "sparse_categorical_crossentropy"),
        (3, "softmax", "categorical_crossentropy", np.ones((150, 3)), "sum to 1"),
        (3, "softmax", "categorical_crossentropy", np.eye(3)[Y * 0], "same class"),
        (1, "linear", "mse", np.where(Y, Y, np.nan), "finite"),
        (2, "linear", "mse", Y, r"\(rows, 2\)"),
        (1, "linear", "mse", Y.astype(str), "numbers"),
    ],
)
def test_bad_targets_are_told(units: int, last: str, loss: str, y: np.ndarray, complaint: str) -> None:
    net = Sequential([Dense(units, last)])
    net.compile("adam", loss)
    with pytest.raises(InvalidInputError, match=complaint):
        net.fit(X, y, verbose=0)


def test_it_trains_without_the_kernel() -> None:
    program = (
        "import sys; sys.modules['mariana._kernel'] = None\n"
        "from mariana.datasets import load_iris\n"
        "from mariana.trainer import *\n"
        "net = Sequential([Dense(3, 'softmax')]); net.compile('adam', 'sparse_categorical_crossentropy')\n"
        "net.fit(*load_iris(), verbose=0)\n"
        "assert not {'mariana._binding', 'mariana.model'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
