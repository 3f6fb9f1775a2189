"""Plots show the numbers that they were given; TensorBoard reads the event files."""

import json
import struct
import sys
from pathlib import Path

import numpy as np
import pytest

from mariana.datasets import load_iris
from mariana.errors import InvalidInputError
from mariana.trainer import Adam, Dense, Diagnosis, History, Sequential, TensorBoard, find_learning_rate
from mariana.trainer.tensorboard import _masked_crc, event, record

X, Y = load_iris()


def _net() -> Sequential:
    net = Sequential([Dense(8, "relu"), Dense(3, "softmax")], seed=0)
    net.compile(Adam(0.01), "sparse_categorical_crossentropy", ["accuracy"])
    return net


def test_records_have_the_checksums_of_the_format() -> None:
    # the CRC-32C of "123456789" is 0xE3069283 (RFC 3720); the mask is that of TensorFlow's crc32c.h
    crc = 0xE3069283
    masked = ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
    assert _masked_crc(b"123456789") == struct.pack("<I", masked)
    data = record(b"123456789")
    assert data[:8] == struct.pack("<Q", 9)
    assert data[12:] == b"123456789" + struct.pack("<I", masked)
    assert event(0.0, 300, {"a": 1.5}) == (
        b"\x09" + bytes(8) + b"\x10\xac\x02" + b"\x2a\x0a\x0a\x08\x0a\x01a\x15" + struct.pack("<f", 1.5)
    )


@pytest.mark.optional
def test_tensorboard_reads_what_is_written(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    history = _net().fit(X, Y, 50, 3, 0, [TensorBoard(tmp_path)], validation_split=0.2)
    found: dict[str, list[float]] = {}
    for split, prefix in (("train", ""), ("validation", "val_")):
        (path,) = (tmp_path / split).iterdir()
        events = list(EventFileLoader(str(path)).Load())
        assert events[0].file_version == "brain.Event:2"
        assert [e.step for e in events[1:]] == [0, 1, 2]
        for e in events[1:]:
            for value in e.summary.value:
                name = prefix + value.tag.removeprefix("epoch_")
                found.setdefault(name, []).append(float(value.tensor.float_val[0]))
    assert found.pop("learning_rate") == pytest.approx([0.01] * 3)
    assert found.keys() == history.history.keys()
    for name, values in found.items():
        np.testing.assert_allclose(values, history.history[name], rtol=1e-6)


@pytest.fixture
def plots():
    pytest.importorskip("matplotlib")
    from mariana.trainer import plots

    return plots


def test_plots_show_the_numbers(plots, tmp_path: Path) -> None:
    net, diagnosis = _net(), Diagnosis()
    live = plots.LivePlot(tmp_path / "live.png", every=2)
    history = net.fit(X, Y, 50, 4, 0, [diagnosis, live], validation_split=0.2)
    figure = plots.plot_history(history)
    for axes, name in zip(figure.axes, ("loss", "accuracy"), strict=True):
        assert axes.get_title() == name
        drawn = [line.get_ydata().tolist() for line in axes.lines]
        assert drawn == [history.history[name], history.history[f"val_{name}"]]
    assert (tmp_path / "live.png").read_bytes().startswith(b"\x89PNG")
    health = plots.plot_health(diagnosis)
    assert health.axes[1].lines[0].get_ydata().tolist() == [epoch[0].gradient for epoch in diagnosis.epochs]
    found = find_learning_rate(net, X, Y, steps=30)
    assert plots.plot_learning_rates(found).axes[0].lines[0].get_ydata().tolist() == found.losses.tolist()
    figure = plots.plot_confusion_matrix(Y, net.predict(X), ["setosa", "versicolor", "virginica"])
    assert sum(int(text.get_text()) for text in figure.axes[0].texts) == 150
    figure.savefig(tmp_path / "confusion.svg")
    with pytest.raises(InvalidInputError, match="3 classes, but 2 labels"):
        plots.plot_confusion_matrix(Y, Y, ["a", "b"])
    for empty in (lambda: plots.plot_history(History()), lambda: plots.plot_health(Diagnosis())):
        with pytest.raises(InvalidInputError, match="empty"):
            empty()
    assert json.dumps(live.get_state()[0])


def test_the_confusion_matrix_is_scikit_learns(plots) -> None:
    from sklearn.metrics import confusion_matrix

    rng = np.random.default_rng(0)
    y, p = rng.integers(0, 4, 100), rng.dirichlet(np.ones(4), 100)
    np.testing.assert_array_equal(plots.confusion_matrix(y, p), confusion_matrix(y, p.argmax(axis=1)))
    np.testing.assert_array_equal(
        plots.confusion_matrix(y > 1, p[:, :1]), confusion_matrix(y > 1, p[:, 0] > 0.5)
    )
    np.testing.assert_array_equal(plots.confusion_matrix([0, 0], [0, 0]), [[2]])
    for true, predicted in (([0.5], [1]), ([1], [-1]), ([0, 1], [0]), ([], [])):
        with pytest.raises(InvalidInputError):
            plots.confusion_matrix(true, predicted)


def test_without_matplotlib_it_says_what_to_install(plots, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(InvalidInputError, match=r"pip install 'mariana-serve\[plots\]'"):
        plots.plot_history({"loss": [1.0]})
