"""The recipe of the demo's digits network: small images, varied so that what people draw on a pad is recognised."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mariana.datasets import load_digits
from mariana.format import NumericFeature

from .callbacks import LearningRateScheduler
from .data import stratified_split
from .layers import Dense
from .optimizers import Adam
from .scores import classification_scores
from .sequential import Sequential

INK = 16
"""What a block of 4x4 pixels holds when all of them are ink."""

FEATURES = tuple(NumericFeature(name=f"x{i}", scale=1 / INK) for i in range(64))
"""Pixels row by row; the network sees 0 (white) to 1 (ink)."""

TEST_SHARE = 0.2
COPIES = 30
EPOCHS = 16
LEARNING_RATE = 0.002
BATCH_SIZE = 128

_SIDE, _FINE = 8, 2


@dataclass(frozen=True, slots=True)
class Split:
    """The digits, split once and for all: x (rows, 64) float32 from 0 to 16, y (rows,) the digit."""

    x: NDArray[np.float32]
    y: NDArray[np.int64]
    x_test: NDArray[np.float32]
    y_test: NDArray[np.int64]


def split() -> Split:
    """Return the fixed split: a fifth of each digit is held out."""
    x, y = load_digits()
    learn, test = stratified_split(y, len(y), TEST_SHARE, np.random.default_rng(0))
    return Split(x[learn], y[learn], x[test], y[test])


def vary(images: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Return images (rows, 64) as another hand might have drawn them.

    Each is shifted, scaled, rotated and slanted a little, and drawn with a thinner or thicker pen: the 8x8 counts are
    read as a map of ink, sampled at 16x16 moved points, and whatever is above the pen's threshold counts as ink again.
    """
    n = len(images)
    angle = rng.normal(0, 0.15, n)
    slant = rng.normal(0, 0.3, n)
    across, down = rng.normal(1, 0.18, n), rng.normal(1, 0.15, n)
    shift = rng.normal(0, 0.7, (2, n))
    threshold = rng.uniform(0.2, 0.65, n)

    points = (np.arange(_SIDE * _FINE) + 0.5) / _FINE - _SIDE / 2  # from the centre, in pixels
    v, u = np.repeat(points, len(points)), np.tile(points, len(points))
    cos, sin = np.cos(angle) / across, np.sin(angle) / down
    column = cos[:, None] * u + (slant - sin)[:, None] * v + shift[0][:, None]
    row = np.sin(angle)[:, None] * u + (np.cos(angle) / down)[:, None] * v + shift[1][:, None]

    ink = _bilinear(
        images.reshape(n, _SIDE, _SIDE) / np.float32(INK), row + _SIDE / 2 - 0.5, column + _SIDE / 2 - 0.5
    )
    drawn = np.clip((ink - threshold[:, None]) * 4 + 0.5, 0, 1)
    blocks = drawn.reshape(n, _SIDE, _FINE, _SIDE, _FINE).sum(axis=(2, 4))
    counts: NDArray[np.float32] = np.rint(blocks * (INK / _FINE**2)).reshape(n, -1).astype(np.float32)
    return counts


def _bilinear(
    images: NDArray[np.float32], row: NDArray[np.float64], column: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Sample images (n, side, side) at points (n, points); there is no ink outside."""
    width = _SIDE + 4
    padded = np.pad(images, ((0, 0), (2, 2), (2, 2))).astype(np.float32).ravel()
    row, column = np.clip(row + 2, 0, width - 1.01), np.clip(column + 2, 0, width - 1.01)
    top, left = row.astype(np.int64), column.astype(np.int64)
    down, right = (row - top).astype(np.float32), (column - left).astype(np.float32)
    at = np.arange(len(images))[:, None] * width**2 + top * width + left
    upper = padded[at] * (1 - right) + padded[at + 1] * right
    at += width
    lower = padded[at] * (1 - right) + padded[at + 1] * right
    sampled: NDArray[np.float32] = upper * (1 - down) + lower * down
    return sampled


def train(seed: int = 0) -> tuple[Sequential, dict[str, dict[str, float]]]:
    """Train the network; nothing is chosen by the held-out digits.

    Returns:
        The network, which takes pixels from 0 to 1, and its scores on ``train`` and ``test``.
    """
    data = split()
    rng = np.random.default_rng(seed)
    x = np.concatenate([data.x, *(vary(data.x, rng) for _ in range(COPIES))]) / np.float32(INK)
    y = np.tile(data.y, COPIES + 1)
    net = Sequential(
        [
            Dense(256, "relu", kernel_initializer="he_normal"),
            Dense(128, "relu", kernel_initializer="he_normal"),
            Dense(10, "softmax"),
        ],
        seed=seed,
    )
    net.compile(Adam(LEARNING_RATE), "sparse_categorical_crossentropy")
    # the rate falls linearly to 0, so that the last epochs settle
    anneal = LearningRateScheduler(lambda epoch, _: LEARNING_RATE * (1 - epoch / EPOCHS))
    net.fit(x, y, batch_size=BATCH_SIZE, epochs=EPOCHS, callbacks=[anneal], verbose=0)
    return net, {
        "train": classification_scores(net.predict(data.x / np.float32(INK)), data.y),
        "test": classification_scores(net.predict(data.x_test / np.float32(INK)), data.y_test),
    }
