"""What goes into a network and comes out of it, by either backend: tables of bytes, rescaled on the way; predictions and validations."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from mariana import load_model
from mariana._binding import usable_isas
from mariana.errors import InvalidInputError
from mariana.trainer import (
    Activation,
    BackupAndRestore,
    BatchNormalization,
    Callback,
    CustomActivation,
    Dense,
    Dropout,
    MixUp,
    RandomFlip,
    Rescaling,
    Sequential,
    SparseCategoricalCrossentropy,
    use_backend,
)
from mariana.trainer.activations import ACTIVATIONS, ELU, LeakyReLU

ISAS = [isa for isa in usable_isas() if isa in ("generic", "avx2", "avx512", "neon")]
"""Those with kernels of training of their own."""

X = np.random.default_rng(0).normal(size=(203, 6)).astype(np.float32)
Y = (X[:, 0] + X[:, 1] ** 2 > 0.7).astype(int) + (X[:, 2] > 0.5)


@pytest.fixture(params=ISAS)
def isa(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("MARIANA_ISA", request.param)
    return request.param


@pytest.fixture(params=["numpy", *(f"c {isa}" for isa in ISAS)])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """NumPy, and C on every instruction set."""
    name, _, highest = request.param.partition(" ")
    if highest:
        monkeypatch.setenv("MARIANA_ISA", highest)
    with use_backend(name):
        yield request.param


def _name(activation) -> str:
    return activation if isinstance(activation, str) else f"own {activation.name}"


class Stop(Exception):  # noqa: N818
    pass


class StopAt(Callback):
    def __init__(self, step: int) -> None:
        self.left = step

    def on_train_batch_end(self, *_) -> None:
        self.left -= 1
        if self.left < 0:
            raise Stop


# Predictions.


@pytest.mark.parametrize("activation", [*ACTIVATIONS, LeakyReLU(0.05), ELU(1.7)], ids=_name)
def test_predictions_and_validations(isa: str, activation) -> None:
    """A network that has learned, asked by C in float32, and with the same weights by NumPy in float64."""
    nets = {}
    for dtype, backend in (("float32", "c"), ("float64", "numpy")):
        layers = [
            Dense(21, activation),
            BatchNormalization(),
            Activation("gelu"),
            Dropout(0.2),
            Dense(3, "softmax"),
        ]
        with use_backend(backend):
            nets[backend] = net = Sequential(layers, seed=4, dtype=dtype)
            net.compile("adam", SparseCategoricalCrossentropy(label_smoothing=0.1), ["accuracy"])
            if backend == "c":
                validation = net.fit(X, Y, epochs=3, verbose=0, validation_data=(X, Y)).history
            else:
                net.build((X.shape[1],))
                net.set_weights(nets["c"].get_weights())
    assert nets["c"]._engine.backend.name == f"c {isa}"
    theirs = nets["numpy"].predict(X)
    for size in (None, 7, 1):  # 203 rows: the last batch is a shorter one
        ours = nets["c"].predict(X, batch_size=size)
        assert ours.dtype == np.float32
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-6)
    expected = nets["numpy"].evaluate(X, Y, return_dict=True)
    for size in (None, 50):
        found = nets["c"].evaluate(X, Y, size, return_dict=True)
        assert found == pytest.approx(expected, rel=1e-6)
    assert {name: validation[f"val_{name}"][-1] for name in expected} == pytest.approx(expected, rel=1e-6)


@pytest.mark.usefixtures("backend")
def test_predictions_leave_the_statistics_and_the_random_numbers() -> None:
    net = Sequential(
        [Dense(16), BatchNormalization(), Activation("gelu"), Dropout(0.2), Dense(3, "softmax")], seed=4
    )
    net.compile("adam", "sparse_categorical_crossentropy")
    net.fit(X, Y, verbose=0)
    state, drawn = net.state.copy(), net.layers[3].rng.bit_generator.state
    first = net.predict(X)
    np.testing.assert_array_equal(net.predict(X), first)
    net.evaluate(X, Y)
    np.testing.assert_array_equal(net.state, state)
    assert net.layers[3].rng.bit_generator.state == drawn


def test_what_people_write_themselves_predicts_as_it_is_written() -> None:
    class Doubled(Dense):
        def transform(self, x, y) -> None:
            super().transform(x, y)
            np.multiply(y, 2, out=y)

    bump = CustomActivation(lambda x: np.exp(-x * x), lambda x: -2 * x * np.exp(-x * x), "bump")
    with use_backend("c"):
        net = Sequential([Dense(5, bump), Doubled(4, "tanh"), Dense(2)], seed=0)
        found = net.predict(X)
    (k1, b1), (k2, b2), (k3, b3) = ((la.kernel.astype(float), la.bias.astype(float)) for la in net.layers)
    wanted = np.tanh(2 * (np.exp(-((X @ k1 + b1) ** 2)) @ k2 + b2)) @ k3 + b3
    np.testing.assert_allclose(found, wanted, atol=2e-6)


# Tables of bytes.

PIXELS = np.random.default_rng(7).integers(0, 256, (203, 4, 5)).astype(np.uint8)


def _pixels(*first, dtype: str = "float32") -> Sequential:
    net = Sequential([*first, Dense(16, "relu"), Dropout(0.2), Dense(3, "softmax")], seed=4, dtype=dtype)
    net.compile("adam", "sparse_categorical_crossentropy", ["accuracy"])
    return net


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("augmentations", [[], [RandomFlip(), MixUp(0.2)]], ids=["plain", "augmented"])
def test_bytes_learn_as_their_rescaled_floats(augmentations: list) -> None:
    """Bit for bit, and the table stays as it is."""
    scale, offset = np.float32(1 / 90), np.float32(-0.8)
    floats, kept, found = PIXELS.astype(np.float32) * scale + offset, PIXELS.copy(), []
    for x, first in ((PIXELS, [Rescaling(1 / 90, -0.8)]), (floats, [])):
        net = _pixels(*first)
        logs = net.fit(x, Y, 16, 3, verbose=0, validation_split=0.2, augmentations=augmentations).history
        found.append([net.parameters, net.predict(x), net.evaluate(x, Y), list(logs.values())])
        found[-1].append(net.loss_and_gradients(x[:9], Y[:9]))
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(PIXELS, kept)


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_bytes_without_a_rescaling_are_their_numbers(dtype: str) -> None:
    found = []
    for x in (PIXELS, PIXELS.astype(float), np.asfortranarray(PIXELS)):
        net = _pixels(BatchNormalization(), dtype=dtype)
        net.fit(x, Y, verbose=0)
        found.append(net.predict(x))
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])


def test_a_rescaling_is_folded_at_export(tmp_path: Path) -> None:
    net = _pixels(Rescaling(1 / 255, -0.5), BatchNormalization())
    net.fit(PIXELS, Y, epochs=2, verbose=0)
    model = load_model(net.export(tmp_path, "pixels"))
    assert [layer.name for layer in model.info.layers] == ["dense", "dense_1"]
    rows = PIXELS.reshape(203, -1).astype(np.float32)
    np.testing.assert_allclose(model.predict(rows), net.predict(PIXELS), atol=1e-5)


def test_a_rescaling_stands_first() -> None:
    with pytest.raises(InvalidInputError, match="before all other layers"):
        Sequential([Dense(3), Rescaling(1 / 255)])
    with pytest.raises(InvalidInputError, match="scale"):
        Rescaling(float("nan"))
    with pytest.raises(InvalidInputError, match="scale is -inf: it must be a number above -inf and finite"):
        Rescaling(-float("inf"))


@pytest.mark.usefixtures("backend")
def test_a_training_on_bytes_goes_on_with_the_same_bits(tmp_path: Path) -> None:
    def learn(folder: str, *more: Callback) -> Sequential:
        net = _pixels(Rescaling(1 / 255))
        net.fit(PIXELS, Y, 16, 3, verbose=0, callbacks=[BackupAndRestore(tmp_path / folder, 1), *more])
        return net

    whole = learn("whole")
    with pytest.raises(Stop):
        learn("stopped", StopAt(20))
    assert learn("stopped").parameters.tobytes() == whole.parameters.tobytes()
