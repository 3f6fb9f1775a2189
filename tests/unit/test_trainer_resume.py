"""A training that was stopped at any step, even by kill -9, ends as if it had not been; a checkpoint is whole or absent."""

import copy
import json
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from mariana.errors import FileFormatError, InvalidInputError
from mariana.trainer import (
    SGD,
    AdamW,
    BackupAndRestore,
    BatchNormalization,
    Callback,
    CosineDecay,
    CSVLogger,
    Dense,
    Diagnosis,
    Dropout,
    EarlyStopping,
    GaussianNoise,
    MixUp,
    Nadam,
    RandomNoise,
    ReduceLROnPlateau,
    Sequential,
    checkpoints,
)

RNG = np.random.default_rng(0)
X = RNG.normal(size=(203, 6)).astype(np.float32)
Y = (X[:, 0] + X[:, 1] ** 2 > 0.7).astype(int) + (X[:, 2] > 0.5)
EPOCHS = 6


def network(name: str) -> Sequential:
    optimizer = {
        "ema": lambda: AdamW(CosineDecay(0.02, 80), use_ema=True, ema_momentum=0.9),
        "nadam": lambda: Nadam(0.01, clipnorm=1.0),
        "momentum": lambda: SGD(0.05, momentum=0.9, use_ema=True),
    }[name]()
    layers = [GaussianNoise(0.1), Dense(16, "prelu"), BatchNormalization(momentum=0.9), Dropout(0.2)]
    net = Sequential([*layers, Dense(3, "softmax", kernel_regularizer="l2")], seed=4)
    net.compile(optimizer, "sparse_categorical_crossentropy", ["accuracy", "auc", "f1"])
    return net


def learn(net: Sequential, folder: Path, *more: Callback, freq: int = 1) -> list[Callback]:
    """Train with everything that remembers something; the backup first, to see that it is put last."""
    remembering = [
        BackupAndRestore(folder / "backup", freq),
        EarlyStopping("val_loss", patience=50, restore_best_weights=True),
        CSVLogger(folder / "log.csv"),
        Diagnosis(every=3),
    ]
    if isinstance(net.optimizer, SGD):
        remembering.append(ReduceLROnPlateau("loss", factor=0.5, patience=1, min_delta=0.05))
    remembering.append(net.fit(
        X,
        Y,
        batch_size=16,
        epochs=EPOCHS,
        verbose=0,
        validation_split=0.2,
        class_weight="balanced",
        augmentations=[RandomNoise(0.05), MixUp(0.3)],
        callbacks=[*remembering, *more],
    ))  # fmt: skip
    return remembering


def result(net: Sequential, folder: Path, callbacks: list[Callback]) -> dict:
    """Return all that a training leaves behind, bit by bit."""
    assert net.optimizer is not None
    numbers, slots = net.optimizer.state()
    return {
        "parameters": net.parameters.tobytes(),
        "state": net.state.tobytes(),
        "slots": {name: slot.tobytes() for name, slot in slots.items()},
        "numbers": numbers,
        "raw": net.optimizer.average and net.optimizer.average.raw(net.parameters).tobytes(),
        "training": net.training,
        "history": callbacks[-1].history,
        "epochs": callbacks[3].epochs,
        "csv": (folder / "log.csv").read_text(),
        "shuffling": net._shuffling_rng.bit_generator.state,
    }


class Stop(Exception):  # noqa: N818
    pass


class StopAt(Callback):
    def __init__(self, step: int) -> None:
        self.left = step

    def on_train_batch_end(self, *_) -> None:
        self.left -= 1
        if self.left < 0:
            raise Stop


@pytest.fixture(params=["numpy", "c"])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Either backend, in processes that are started too."""
    monkeypatch.setenv("MARIANA_BACKEND", request.param)
    return request.param


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("name", ["ema", "nadam", "momentum"])
def test_stopped_at_any_step_it_ends_with_the_same_bits(tmp_path: Path, name: str) -> None:
    whole = network(name)
    expected = result(whole, tmp_path, learn(whole, tmp_path, freq=10**6))
    steps = EPOCHS * 11
    for step, freq in ((0, 1), (10, 3), (43, 1 if name == "ema" else 11), (steps - 1, 5)):
        folder = tmp_path / str(step)
        with pytest.raises(Stop):
            learn(network(name), folder, StopAt(step), freq=freq)
        with suppress(Stop):  # again, unless it comes to the end
            learn(network(name), folder, StopAt(7), freq=freq)
        net = network(name)
        assert result(net, folder, learn(net, folder)) == expected
        assert not list((folder / "backup").iterdir())


def test_killed_it_ends_with_the_same_bits(tmp_path: Path, backend: str) -> None:
    whole = network("ema")
    expected = result(whole, tmp_path, learn(whole, tmp_path))
    assert whole.training["backend"].split()[0] == backend
    program = (
        f"import sys, time; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from pathlib import Path\n"
        "import test_trainer_resume as t\n"
        "class Slow(t.Callback):\n"
        "    def on_train_batch_end(self, batch, logs): time.sleep(0.01); print(batch, flush=True)\n"
        f"t.learn(t.network('ema'), Path({str(tmp_path / 'killed')!r}), Slow())\n"
    )
    for lines in (25, 13):
        with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            for _ in range(lines):
                assert process.stdout.readline()
            process.send_signal(signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL
    document, _ = checkpoints.load(tmp_path / "killed/backup/training.safetensors")
    assert document["epoch"] * 11 + document["step"] >= 24 + 12  # the line is printed before the step is kept
    net = network("ema")
    assert result(net, tmp_path / "killed", learn(net, tmp_path / "killed")) == expected


def test_what_does_not_belong_together_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Stop):
        learn(network("nadam"), tmp_path, StopAt(5))
    path = tmp_path / "backup/training.safetensors"
    for name, shift, changed in (("ema", 0, "optimizer"), ("nadam", 1, "data")):
        backup = BackupAndRestore(tmp_path / "backup")
        with pytest.raises(InvalidInputError, match=rf"another training: its {changed} is"):
            network(name).fit(X[:162] + np.float32(shift), Y[:162], 16, EPOCHS, 0, [backup])
    data = path.read_bytes()
    path.write_bytes(data[:-5])
    with pytest.raises(FileFormatError, match="damaged"):
        learn(network("nadam"), tmp_path)
    path.write_bytes(data.replace(b'\\"version\\": 1', b'\\"version\\": 9'))
    with pytest.raises(FileFormatError, match="version 9 is not 1"):
        learn(network("nadam"), tmp_path)
    assert b"pickle" not in data
    assert json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])


def test_a_backup_is_written_as_often_as_asked(tmp_path: Path) -> None:
    class Count(Callback):
        writes = 0
        last = 0.0

        def on_train_batch_end(self, *_) -> None:
            there = tmp_path / "backup/training.safetensors"
            if there.exists() and there.stat().st_mtime_ns != self.last:
                self.last = there.stat().st_mtime_ns
                self.writes += 1
            time.sleep(0.002)

    for freq, seconds, expected in ((10, 0.0, 6), (1, 100.0, 0)):
        count, net = Count(), network("nadam")
        backup = BackupAndRestore(tmp_path / "backup", freq, at_most_every=seconds)
        net.fit(X, Y, 16, 5, 0, [count, backup])
        assert expected <= count.writes <= expected + 1
    with pytest.raises(InvalidInputError, match="save_freq"):
        BackupAndRestore(tmp_path, "hour")
    with pytest.raises(InvalidInputError, match="not being trained"):
        net.training_loop  # noqa: B018


def test_the_average_is_shown_and_the_raw_weights_go_on() -> None:
    """Three epochs in three calls are three epochs in one: each goes on with the raw weights, not the average."""
    once, thrice = (Sequential([Dense(3, "tanh"), Dense(1)], seed=0, dtype="float64") for _ in range(2))
    seen = []

    class Keep(Callback):
        def on_train_batch_end(self, *_) -> None:
            seen.append(self.model.parameters.copy())

    x, y = X[:64], X[:64, 0]
    for net, calls in ((once, 1), (thrice, 3)):
        net.compile(SGD(0.1, use_ema=True, ema_momentum=0.8), "mse")
        for _ in range(calls):
            net.fit(x, y, 16, 3 // calls, 0, [Keep()] if net is once else [])
    np.testing.assert_array_equal(once.parameters, thrice.parameters)
    weights = 0.8 ** np.arange(len(seen))[::-1]
    expected = (weights[:, None] * np.array(seen)).sum(axis=0) / weights.sum()
    np.testing.assert_allclose(once.parameters, expected, rtol=1e-12)
    assert np.abs(once.parameters - seen[-1]).max() > 1e-4
    once.set_weights(thrice.get_weights())
    once.fit(x, y, 64, 1, 0)
    np.testing.assert_array_less(np.abs(once.parameters - thrice.parameters), 0.1)


@pytest.mark.parametrize("name", ["ema", "nadam", "momentum"])
@pytest.mark.parametrize("duplicate", [lambda net: pickle.loads(pickle.dumps(net)), copy.deepcopy])
def test_a_copy_learns_on_with_the_same_bits(
    name: str, duplicate: Callable[[Sequential], Sequential]
) -> None:
    net = network(name)
    again = {"epochs": 2, "verbose": 0, "augmentations": [MixUp(0.3)]}
    net.fit(X, Y, **again)
    copied = duplicate(net)
    assert not np.shares_memory(copied.parameters, net.parameters)
    for layer in copied.layers:
        for view in layer.parameters.values():
            assert np.shares_memory(view, copied.parameters)
        for view in layer.state.values():
            assert np.shares_memory(view, copied.state)
    assert (copied.predict(X) == net.predict(X)).all()
    before = copied.predict(X)
    found = [one.fit(X, Y, **again).history for one in (net, copied)]
    assert found[0] == found[1]
    assert (copied.predict(X) == net.predict(X)).all()
    assert (copied.predict(X) != before).any()
    assert copied.training == net.training
    assert (copied.parameters == net.parameters).all()
    assert (copied.state == net.state).all()


def test_a_pickle_of_a_network_that_is_not_built_or_not_compiled() -> None:
    bare = pickle.loads(pickle.dumps(Sequential([Dense(3, "prelu")], seed=1)))
    assert (bare.predict(X) == Sequential([Dense(3, "prelu")], seed=1).predict(X)).all()
    net = network("nadam")
    copied = pickle.loads(pickle.dumps(net))
    for one in (net, copied):
        one.fit(X, Y, verbose=0)
    assert (copied.parameters == net.parameters).all()
    shared = SGD(0.1)
    nets = [Sequential([Dense(3, "softmax")], seed=1) for _ in range(2)]
    for one in nets:
        one.compile(shared, "sparse_categorical_crossentropy")
        one.build((X.shape[1],))
    with pytest.raises(InvalidInputError, match="keeps the state of another network"):
        pickle.loads(pickle.dumps(nets[0])).fit(X, Y)
    pickle.loads(pickle.dumps(nets[1])).fit(X, Y, verbose=0)


@pytest.mark.parametrize("name", ["ema", "nadam"])
def test_a_shallow_copy_leaves_the_network_whole(name: str) -> None:
    net = network(name)
    net.fit(X, Y, verbose=0)
    before = net.predict(X)
    copied = copy.copy(net)
    copied.fit(X, Y, verbose=0)
    assert (net.predict(X) == before).all()
    for layer in net.layers:
        for view in layer.parameters.values():
            assert np.shares_memory(view, net.parameters)
    net.fit(X, Y, verbose=0)
    assert (copied.parameters == net.parameters).all()


def test_a_network_is_pickled_while_it_learns() -> None:
    class Keep(Callback):
        def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
            del epoch, logs
            kept.append(pickle.dumps(self.model))

    kept: list[bytes] = []
    net = network("ema")
    net.fit(X, Y, epochs=2, verbose=0, callbacks=[Keep()])
    assert (pickle.loads(kept[-1]).predict(X) == net.predict(X)).all()
