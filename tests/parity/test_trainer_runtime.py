"""What the trainer predicts, the C core predicts: networks, tables and their raw rows."""

from pathlib import Path

import numpy as np
import pytest

import mariana
from mariana.datasets import IRIS_LABELS, load_digits, load_iris
from mariana.format import NumericFeature, TargetScaling
from mariana.store import Store
from mariana.tables import read_csv
from mariana.trainer import Activation, Adam, Dense, Flatten, GaussianNoise, Input, Sequential, digits
from mariana.trainer.activations import ACTIVATIONS, ELU, LeakyReLU
from mariana.trainer.from_table import network, prepare, publish, teach
from mariana.trainer.recipe import Recipe

HIDDEN = [*(name for name in ACTIVATIONS if name != "softmax"), LeakyReLU(0.05), ELU(0.5)]


@pytest.mark.parametrize("activation", HIDDEN, ids=lambda a: a if isinstance(a, str) else f"own {a.name}")
def test_networks(tmp_path: Path, activation) -> None:
    x, y = load_iris()
    layers = [Flatten(), Dense(17, activation), GaussianNoise(0.1), Dense(5, use_bias=False)]
    net = Sequential([*layers, Activation(activation), Dense(3, "softmax")], seed=0)
    net.compile(Adam(0.01), "sparse_categorical_crossentropy")
    net.fit(x, y, epochs=3, verbose=0)
    model = mariana.load_model(net.export(tmp_path, "iris", labels=IRIS_LABELS))
    np.testing.assert_allclose(model.predict(x), net.predict(x), atol=2e-6)
    assert model.decode(model.predict(x[:1]))[0].label in IRIS_LABELS


TABLE = b"""size,colour,sold,town,price
10.5,red,true,Hue,100
NA,blue,false,Saigon,250
7,,true,Hue,90
30,red,,Saigon,400
12,green,false,Hue,150
8,blue,true,Saigon,110
"""


@pytest.mark.parametrize(("target", "task"), [("price", "regression"), ("town", "auto"), ("colour", "auto")])
def test_a_table_with_everything_in_it(tmp_path: Path, target: str, task: str) -> None:
    table = read_csv("houses.csv", TABLE)
    recipe = Recipe(layers=(32,), epochs=40)
    prepared = prepare(table, target, task, recipe, validation=0, test=0)
    net = network(prepared, recipe)
    teach(net, prepared, recipe)
    model = mariana.load_model(publish(net, prepared, {}, Store(tmp_path), "houses"))
    assert model.info.targets == (target,)
    outputs = net.predict(prepared.inputs("train"))
    if prepared.scaling is not None:
        outputs = outputs * prepared.scaling.scale[0] + prepared.scaling.shift[0]
    raw = prepared.raw[prepared.splits["train"]]
    np.testing.assert_allclose(model.predict(raw), outputs, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(prepared.table.matrix(model.info.features), prepared.raw)
    records = [
        {"size": 10.5, "colour": "red", "sold": True, "town": "Hue", "price": 100.0},
        {"size": None, "colour": "blue", "sold": False, "town": "Saigon", "price": 250.0},
        {"size": 7, "sold": True, "town": "Hue", "price": 90.0},
        {"size": 30.0, "colour": "red", "town": "Saigon", "price": 400.0},
        {"size": 12.0, "colour": "green", "sold": False, "town": "Hue", "price": 150.0},
        {"size": 8.0, "colour": "blue", "sold": True, "town": "Saigon", "price": 110.0},
    ]
    kept = [{k: v for k, v in r.items() if k != target} for r in records if target in r]
    np.testing.assert_array_equal(model.encode(kept), prepared.raw.astype(np.float32))


@pytest.mark.parametrize(
    ("middle", "spread"), [(1.7e9, 3e3), (1e7, 3.0), (-1e9, 200.0), (0.0, 1e35), (0.0, 1e-35), (5.0, 0.0)]
)
def test_numbers_far_from_zero_and_of_any_size(tmp_path: Path, middle: float, spread: float) -> None:
    """Such as times in seconds: shift and scale must be what float32 makes of them, in training as in serving."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 60))
    rows = [
        f"{middle + spread * u:.17g},{v:.17g},{middle + 7 * v * spread:.17g}"
        for u, v in zip(a, b, strict=True)
    ]
    table = read_csv("t.csv", ("a,b,y\n" + "\n".join(rows) + "\n").encode())
    recipe = Recipe(layers=(32,), epochs=3)
    for target, task in (("y", "regression"), ("b", "regression")):
        if not spread and target == "y":
            continue
        prepared = prepare(table, target, task, recipe)
        assert np.abs(prepared.inputs("train")).max() < 10
        net = network(prepared, recipe)
        teach(net, prepared, recipe)
        model = mariana.load_model(publish(net, prepared, {}, Store(tmp_path), "t"))
        assert prepared.scaling is not None
        scale, shift = prepared.scaling.scale[0], prepared.scaling.shift[0]
        wanted = net.predict(prepared.inputs("test"))[:, 0] * np.float64(scale) + shift
        found = model.predict(prepared.raw[prepared.splits["test"]])[:, 0]
        np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-4 * scale)


def test_golden_outputs_may_be_off_by_a_part_of_the_target_scale(tmp_path: Path) -> None:
    """A value of nearly nothing on a scale of billions is a rounding error, and must not refuse the model."""
    net = Sequential([Input((1,)), Dense(1)], seed=0)
    net.compile("sgd", "mean_squared_error")
    net.set_weights([[[1.0]], [-0.1]])
    path = net.export(
        tmp_path,
        "zero",
        features=[NumericFeature(name="x")],
        target_scaling=TargetScaling(shift=(0.0,), scale=(1e12,)),
        examples=[[0.1], [3.0]],
    )
    assert abs(mariana.load_model(path).predict([[0.1]])[0, 0]) < 1e5


def test_the_digits_recipe(tmp_path: Path) -> None:
    """One seed of three (the bar is the mean of three); the same network serves raw pixels from 0 to 16."""
    net, scores = digits.train(seed=0)
    assert scores["test"]["accuracy"] >= 0.97
    x, y = load_digits()
    held = digits.split()
    assert len(held.x) + len(held.x_test) == len(x)
    path = net.export(tmp_path, "digits", features=digits.FEATURES, labels=range(10), input_shape=(8, 8))
    model = mariana.load_model(path)
    np.testing.assert_allclose(model.predict(held.x_test), net.predict(held.x_test / 16), atol=1e-5)
    assert np.mean(model.predict(x).argmax(axis=1) == y) > 0.98
    varied = digits.vary(
        held.x_test, np.random.default_rng(1)
    )  # drawn by other hands, they are still these digits
    assert np.mean(model.predict(varied).argmax(axis=1) == held.y_test) > 0.85


@pytest.mark.slow
def test_the_digits_bar_over_three_seeds() -> None:
    assert np.mean([digits.train(seed)[1]["test"]["accuracy"] for seed in range(3)]) >= 0.97


def test_varied_digits_keep_their_range_and_ink() -> None:
    x, _ = load_digits()
    varied = digits.vary(x, np.random.default_rng(0))
    assert (varied.dtype, varied.shape) == (np.float32, x.shape)
    assert varied.min() == 0
    assert varied.max() == 16
    assert varied.mean() == pytest.approx(x.mean(), rel=0.1)
