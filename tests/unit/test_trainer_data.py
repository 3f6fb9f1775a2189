"""What goes into a step: weights of rows and classes, steps of an epoch, augmentation, penalties and constraints."""

import math

import numpy as np
import pytest

from mariana.datasets import load_iris
from mariana.errors import InvalidInputError
from mariana.trainer import (
    SGD,
    Adam,
    AdamW,
    Callback,
    Constant,
    Dense,
    FeatureDropout,
    Input,
    MaxNorm,
    MixUp,
    Orthogonal,
    RandomErasing,
    RandomFlip,
    RandomNoise,
    RandomNormal,
    RandomRotation,
    RandomTranslation,
    RandomZoom,
    Sequential,
    TruncatedNormal,
)
from mariana.trainer.augmentation import Batch
from mariana.trainer.buffers import Buffers

X, Y = load_iris()
SPARSE = "sparse_categorical_crossentropy"


def _net(loss: str = SPARSE, units: int = 3, last: str = "softmax", **options) -> Sequential:
    net = Sequential([Dense(8, "tanh"), Dense(units, last)], seed=0, dtype="float64")
    net.compile(SGD(0.1), loss, ["accuracy"], **options)
    return net


def test_a_weight_of_two_is_the_row_twice_and_of_zero_is_none() -> None:
    weights = np.random.default_rng(0).integers(0, 3, len(X)).astype(float)
    repeated = np.repeat(np.arange(len(X)), weights.astype(int))
    weighted, plain = _net(weighted_metrics=["accuracy", "auc", "recall"]), _net()
    found = weighted.evaluate(X, Y, return_dict=True, sample_weight=weights)
    expected = plain.evaluate(X[repeated], Y[repeated], return_dict=True)
    assert found["loss"] * len(X) == pytest.approx(expected["loss"] * len(repeated), rel=1e-12)
    assert found["weighted_accuracy"] == pytest.approx(expected["accuracy"], rel=1e-12)
    assert set(found) == {"loss", "accuracy", "weighted_accuracy", "auc", "recall"}
    # one full batch: the same sum of gradients, divided by other numbers of rows
    weighted.loss_and_gradients(X, Y, weights)
    plain.loss_and_gradients(X[repeated], Y[repeated])
    np.testing.assert_allclose(
        weighted.gradients * len(X), plain.gradients * len(repeated), rtol=1e-9, atol=1e-9
    )


@pytest.mark.parametrize("kind", ["sparse", "one-hot", "binary"])
def test_class_weights_are_the_weights_of_their_rows(kind: str) -> None:
    y = {"sparse": Y, "one-hot": np.eye(3)[Y], "binary": (Y == 1).astype(int)}[kind]
    loss = {"sparse": SPARSE, "one-hot": "categorical_crossentropy", "binary": "binary_crossentropy"}[kind]
    classes = (Y == 1).astype(int) if kind == "binary" else Y
    balanced = len(Y) / (len(np.unique(classes)) * np.bincount(classes)[classes])
    table = np.array([1.0, 3.0, 0.5])[classes]
    units, last = (1, "sigmoid") if kind == "binary" else (3, "softmax")
    for given, weights in ((balanced, "balanced"), (table, {1: 3.0, 2: 0.5}), (table * 2, {1: 3.0, 2: 0.5})):
        nets = _net(loss, units, last), _net(loss, units, last)
        nets[0].fit(X, y, epochs=2, verbose=0, sample_weight=given)
        scale = np.full(len(X), given[0] / balanced[0] if weights == "balanced" else given[0] / table[0])
        nets[1].fit(X, y, epochs=2, verbose=0, class_weight=weights, sample_weight=scale)
        np.testing.assert_allclose(nets[0].parameters, nets[1].parameters, rtol=1e-9)


def test_class_weights_do_not_weigh_the_validation() -> None:
    net = _net()
    history = net.fit(X, Y, verbose=0, validation_split=0.2, class_weight={2: 100.0})
    assert history.history["val_loss"][0] == net.evaluate(X[120:], Y[120:])[0]
    net.fit(X, Y, verbose=0, validation_data=(X, Y, np.arange(150)))
    assert net.logs["val_loss"] == net.evaluate(X, Y, sample_weight=np.arange(150))[0]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"sample_weight": np.ones(149)}, "each of the 150 rows"),
        ({"sample_weight": np.ones((150, 2))}, "each of the 150 rows"),
        ({"sample_weight": np.zeros(150)}, "not all 0"),
        ({"sample_weight": -np.ones(150)}, "at least 0"),
        ({"sample_weight": np.full(150, np.nan)}, "finite"),
        ({"sample_weight": ["a"] * 150}, "a number for each"),
        ({"class_weight": "even"}, "'balanced'"),
        ({"class_weight": [1, 2]}, "map class indices"),
        ({"class_weight": {"a": 2.0}}, "each class of class_weight"),
        ({"class_weight": {1: -2.0}}, r"class_weight\[1\] is -2"),
        ({"validation_data": (X, Y, np.zeros(150))}, "validation sample_weight"),
        ({"validation_data": (X, Y, Y, Y)}, "triple"),
        ({"steps_per_epoch": 0}, "steps_per_epoch is 0"),
        ({"augmentations": [Dense(3)]}, "no Augmentation"),
        ({"augmentations": [RandomFlip()]}, "images are"),
    ],
)
def test_bad_arguments_of_fit_are_told(options: dict, complaint: str) -> None:
    with pytest.raises(InvalidInputError, match=complaint):
        _net().fit(X, Y, verbose=0, **options)


def test_class_weights_need_classes_that_exclude_each_other() -> None:
    for loss, y in (("mse", X[:, :3]), ("binary_crossentropy", np.eye(3)[Y])):
        with pytest.raises(InvalidInputError, match="exclude each other"):
            _net(loss, 3, "sigmoid").fit(X, y, verbose=0, class_weight="balanced")


def test_steps_per_epoch_goes_on_where_it_stopped() -> None:
    seen: list[np.ndarray] = []

    class Watch(Callback):
        def on_train_batch_end(self, *_) -> None:
            seen.append(self.model.training_loop.rows.copy())

    history = _net().fit(X, Y, 30, 5, 0, [Watch()], steps_per_epoch=3)
    assert len(history.epoch) == 5
    assert [len(rows) for rows in seen] == [30] * 15
    for start in (0, 5, 10):  # 15 steps of 30 rows are three passes over all rows
        assert sorted(np.concatenate(seen[start : start + 5])) == list(range(150))
    seen.clear()
    _net().fit(X, Y, 40, 2, 0, [Watch()], shuffle=False)
    np.testing.assert_array_equal(np.concatenate(seen), np.tile(np.arange(150), 2))


def _batch(shape: tuple[int, ...], rows: int = 400, dtype: str = "float32") -> Batch:
    rng = np.random.default_rng(0)
    x = rng.random((rows, math.prod(shape))).astype(dtype)
    return Batch(x, np.eye(4)[np.arange(rows) % 4].astype(dtype), shape, rng, Buffers(rows, dtype))


def test_flips_are_mirror_images_of_about_half() -> None:
    for mode, axes in (("horizontal", (2,)), ("vertical", (1,)), ("horizontal_and_vertical", (1, 2))):
        batch = _batch((5, 4, 3))
        before = batch.images().copy()
        RandomFlip(mode).apply(batch)
        after = batch.images()
        same = (after == before).all(axis=(1, 2, 3))
        assert 0.15 < same.mean() < 0.6
        mirrored = [(after == np.flip(before, axis)).all(axis=(1, 2, 3)) for axis in axes]
        if len(axes) == 1:
            assert (same | mirrored[0]).all()


def test_translations_shift_by_whole_pixels() -> None:
    batch = _batch((6, 8))
    before = batch.images().copy()
    RandomTranslation(0.2, (-0.25, 0.0), fill_value=-1).apply(batch)
    found = set()
    for old, new in zip(before, batch.images(), strict=True):
        padded = np.pad(old, ((2, 2), (2, 2), (0, 0)), constant_values=-1)
        shifts = [
            (i, j)
            for i in (-1, 0, 1)
            for j in (-2, -1, 0)
            if (padded[2 - i : 8 - i, 2 - j : 10 - j] == new).all()
        ]
        assert len(shifts) == 1
        found.add(shifts[0])
    assert len(found) == 9


def test_turning_and_zooming_move_the_picture_as_they_should() -> None:
    """A quarter turn is numpy.rot90; twice the size is every second pixel about the centre; nothing is nothing."""
    for augmentation, expected in (
        (RandomRotation((0.25, 0.25)), lambda image: np.rot90(image, 3)),
        (RandomRotation(0.0), lambda image: image),
        (RandomZoom((0.0, 0.0)), lambda image: image),
    ):
        batch = _batch((7, 7, 2), 5, "float64")
        before = batch.images().copy()
        augmentation.apply(batch)
        for old, new in zip(before, batch.images(), strict=True):
            turned = expected(old)
            assert np.allclose(new, turned) or np.allclose(new, np.rot90(turned, 2))
    batch = _batch((7, 7), 5, "float64")
    before = batch.images().copy()
    RandomZoom((1.0, 1.0)).apply(batch)
    np.testing.assert_allclose(batch.images()[:, 1::2, 1::2][:, :3, :3], before[:, 2:5, 2:5], atol=1e-12)
    batch = _batch((7, 7), 5, "float64")
    RandomZoom((-0.5, -0.5), fill_value=9).apply(batch)
    assert (batch.images()[:, 0] == 9).all()


def test_erasing_covers_squares() -> None:
    batch = _batch((12, 12))
    RandomErasing(0.25, fill_value=-5, probability=0.7).apply(batch)
    covered = (batch.images() == -5).sum(axis=(1, 2, 3))
    assert set(covered) <= {0, *(i * j for i in range(1, 4) for j in range(1, 4))}
    assert 0.6 < (covered > 0).mean() < 0.8


def test_noise_and_dropped_features() -> None:
    batch = _batch((50,))
    before = batch.x.copy()
    RandomNoise(0.3).apply(batch)
    assert (batch.x - before).std() == pytest.approx(0.3, rel=0.02)
    FeatureDropout(0.2, fill_value=7).apply(batch)
    assert (batch.x == 7).mean() == pytest.approx(0.2, abs=0.01)


def test_mixup_mixes_inputs_and_targets_alike() -> None:
    batch = _batch((4,), dtype="float64")
    batch.x[:, :4] = batch.y
    MixUp(0.4).apply(batch)
    np.testing.assert_allclose(batch.x, batch.y, rtol=1e-12)
    np.testing.assert_allclose(batch.y.sum(axis=1), 1)
    assert 0.3 < (batch.y.max(axis=1) < 0.99).mean() < 0.75


@pytest.mark.parametrize("loss", [SPARSE, "categorical_crossentropy", "mse"])
def test_it_learns_from_augmented_rows(loss: str) -> None:
    net = Sequential(
        [Input((2, 2)), Dense(16, "relu"), Dense(3, "linear" if loss == "mse" else "softmax")], seed=0
    )
    net.compile(Adam(0.01), loss, ["accuracy"])
    y = Y if loss == SPARSE else np.eye(3)[Y]
    x = X - X.mean(axis=0)
    net.fit(x, y, epochs=60, verbose=0, augmentations=[RandomNoise(0.1), RandomErasing(0.3), MixUp()])
    assert (net.predict(x).argmax(axis=1) == Y).mean() > 0.9
    again = Sequential(
        [Input((2, 2)), Dense(16, "relu"), Dense(3, "linear" if loss == "mse" else "softmax")], seed=0
    )
    again.compile(Adam(0.01), loss, ["accuracy"])
    again.fit(x, y, epochs=60, verbose=0, augmentations=[RandomNoise(0.1), RandomErasing(0.3), MixUp()])
    np.testing.assert_array_equal(net.parameters, again.parameters)


def test_penalties_shrink_and_l1_makes_zeros() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 10))
    y = x[:, 0] - 2 * x[:, 1]
    norms = {}
    for name in (None, "l1", "l2", "l1_l2"):
        net = Sequential([Dense(1, kernel_regularizer=name)], seed=0)
        net.compile(Adam(0.01), "mse")
        net.fit(x, y, epochs=60, verbose=0)
        norms[name] = net.get_weights()[0].ravel()
        if name == "l2":
            assert net.evaluate(x, y) == pytest.approx(
                np.mean((net.predict(x)[:, 0] - y) ** 2) + 0.01 * (norms[name] ** 2).sum(), rel=1e-4
            )
    assert np.abs(norms["l2"][:2]).sum() < np.abs(norms[None][:2]).sum() - 0.01
    assert np.abs(norms["l1"][2:]).max() < 3e-3


def test_the_longest_column_is_kept_short() -> None:
    net = Sequential([Dense(5, "relu", kernel_constraint=MaxNorm(0.5)), Dense(3, "softmax")], seed=0)
    net.compile(SGD(0.5), SPARSE)
    net.fit(X, Y, epochs=3, verbose=0)
    kernel, _, free, _ = net.get_weights()
    lengths = np.linalg.norm(kernel, axis=0)
    assert lengths.max() == pytest.approx(0.5, rel=1e-5)
    assert np.linalg.norm(free, axis=0).max() > 0.5
    with pytest.raises(InvalidInputError, match="max_norm"):
        Dense(1, kernel_constraint="short")
    with pytest.raises(InvalidInputError, match="l1, l2, l1_l2"):
        Dense(1, kernel_regularizer="l3")


def test_decay_can_spare_biases() -> None:
    net = Sequential([Dense(4, bias_initializer="ones"), Dense(1)], seed=0)
    optimizer = AdamW(0.1, weight_decay=0.5)
    optimizer.exclude_from_weight_decay(["bias"])
    net.compile(optimizer, "mse")
    net.build((3,))
    net.gradients[...] = 0
    kernel, bias, *_ = net.get_weights()
    optimizer.update(net.parameters, net.gradients)
    found = net.get_weights()
    np.testing.assert_allclose(found[0], kernel * 0.95, rtol=1e-6)
    np.testing.assert_array_equal(found[1], bias)


def test_initializers_without_a_fan() -> None:
    rng = np.random.default_rng(0)
    out = np.empty((40, 60))
    for initializer, deviation in ((RandomNormal(0.5, 0.2), 0.2), (TruncatedNormal(0.5, 0.2), 0.2 * 0.8796)):
        initializer.fill(out, rng)
        assert out.std() == pytest.approx(deviation, rel=0.05)
        assert out.mean() == pytest.approx(0.5, abs=0.02)
    assert np.abs(out - 0.5).max() <= 0.4
    Constant(3).fill(out, rng)
    assert (out == 3).all()
    for shape in ((40, 60), (60, 40), (30, 30)):
        out = np.empty(shape)
        Orthogonal(2).fill(out, rng)
        square = out @ out.T if shape[0] <= shape[1] else out.T @ out
        np.testing.assert_allclose(square, 4 * np.eye(min(shape)), atol=1e-12)
