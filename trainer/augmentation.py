"""Data augmentation: each batch is changed a little before it is learned from, so that no row is seen twice alike.

Give ``fit`` a list of them. Changes must keep what the target says: a shirt seen in a mirror is a shirt, a 6 turned
upside down is no 6. All are vectorised over the batch; images are (height, width) or (height, width, channels), as the
network's input shape says. Names and the meaning of factors follow the layers of Keras 3.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mariana.errors import InvalidInputError

from . import checks
from .buffers import Array, Buffers


@dataclass(slots=True)
class Batch:
    """A batch that may be changed in place.

    Attributes:
        x: (rows, columns).
        y: targets, (rows, columns of the targets); with mixup a column an output.
        shape: of one row.
        rng: draws what is random.
        buffers: of the batch.
    """

    x: Array
    y: Array
    shape: tuple[int, ...]
    rng: np.random.Generator
    buffers: Buffers

    def images(self) -> Array:
        """Return x as (rows, height, width, channels), a view."""
        if len(self.shape) == 2:
            return self.x.reshape(len(self.x), *self.shape, 1)
        if len(self.shape) == 3:
            return self.x.reshape(len(self.x), *self.shape)
        raise InvalidInputError(
            f"images are (height, width) or (height, width, channels), but a row has the shape {self.shape}; "
            "begin the network with Input(shape=(28, 28)), or give fit x of shape (rows, 28, 28)"
        )


class Augmentation:
    """Changes a batch in place; derive from it and write ``apply``.

    Attributes:
        mixes: whether targets are mixed, so that class indices become a column a class.
    """

    mixes = False

    def apply(self, batch: Batch) -> None:
        """Change the batch."""
        raise NotImplementedError


class RandomFlip(Augmentation):
    """Mirrors images, each with probability 1/2.

    Args:
        mode: ``horizontal`` (left and right), ``vertical``, or ``horizontal_and_vertical``.
    """

    def __init__(
        self, mode: Literal["horizontal", "vertical", "horizontal_and_vertical"] = "horizontal"
    ) -> None:
        axes = {"vertical": (1,), "horizontal": (2,), "horizontal_and_vertical": (1, 2)}
        if mode not in axes:
            raise InvalidInputError(f"RandomFlip(mode={mode!r}): use {', '.join(axes)}")
        self._axes = axes[mode]

    def apply(self, batch: Batch) -> None:
        """Mirror about half of the images."""
        images = batch.images()
        for axis in self._axes:
            chosen = np.flatnonzero(batch.rng.random(len(images)) < 0.5)
            images[chosen] = np.flip(images[chosen], axis)


def _pair(name: str, value: float | tuple[float, float], low: float) -> tuple[float, float]:
    """Return the interval that a factor means: ``f`` is (-f, f)."""
    if isinstance(value, tuple):
        if len(value) != 2:
            raise InvalidInputError(f"{name} is {value}: expected a number or a pair")
        first = checks.number(name, value[0], low, above=True)
        return first, checks.number(name, value[1], first)
    return -checks.number(name, value, 0, -low), float(value)


class RandomTranslation(Augmentation):
    """Shifts images by whole pixels; what comes in from outside is ``fill_value``.

    Args:
        height_factor: largest shift up or down, as a share of the height; or a pair, negative is up.
        width_factor: largest shift to the left or right, as a share of the width; or a pair.
        fill_value: of pixels outside the image, as the network sees them: 0 before standardisation is not 0 after it.
    """

    def __init__(
        self,
        height_factor: float | tuple[float, float],
        width_factor: float | tuple[float, float],
        fill_value: float = 0.0,
    ) -> None:
        self.height = _pair("height_factor", height_factor, -1)
        self.width = _pair("width_factor", width_factor, -1)
        self.fill_value = checks.number("fill_value", fill_value, -math.inf)

    def apply(self, batch: Batch) -> None:
        """Shift: each distinct pair of shifts moves its images at once."""
        images = batch.images()
        _, height, width, _ = images.shape
        down, right = (
            batch.rng.integers(math.ceil(low * size - 1e-9), math.floor(high * size + 1e-9) + 1, len(images))
            for (low, high), size in ((self.height, height), (self.width, width))
        )
        for i, j in {(int(i), int(j)) for i, j in zip(down, right, strict=True)} - {(0, 0)}:
            chosen = np.flatnonzero((down == i) & (right == j))
            moved = np.full((len(chosen), *images.shape[1:]), self.fill_value, images.dtype)
            moved[:, max(i, 0) : height + min(i, 0), max(j, 0) : width + min(j, 0)] = images[
                chosen, max(-i, 0) : height + min(-i, 0), max(-j, 0) : width + min(-j, 0)
            ]
            images[chosen] = moved


class RandomAffine(Augmentation):
    """Rotates and zooms images about their centre, with bilinear interpolation.

    Args:
        rotation: largest angle either way, as a share of a full turn: 0.05 is 18 degrees; or a pair.
        zoom: largest change of the size: 0.1 is 90 % to 110 %; or a pair, negative is smaller.
        fill_value: of pixels outside the image.
    """

    def __init__(
        self,
        rotation: float | tuple[float, float] = 0.0,
        zoom: float | tuple[float, float] = 0.0,
        fill_value: float = 0.0,
    ) -> None:
        self.rotation = _pair("rotation", rotation, -math.inf)
        self.zoom = _pair("zoom", zoom, -1)
        self.fill_value = checks.number("fill_value", fill_value, -math.inf)

    def apply(self, batch: Batch) -> None:
        """Sample each image at turned and scaled points."""
        images = batch.images()
        rows, height, width, channels = images.shape
        angle = 2 * math.pi * batch.rng.uniform(*self.rotation, rows)
        size = 1 + batch.rng.uniform(*self.zoom, rows)
        cos, sin = np.cos(angle) / size, np.sin(angle) / size
        v, u = np.mgrid[:height, :width].reshape(2, -1) - np.array([[(height - 1) / 2], [(width - 1) / 2]])
        across = cos[:, None] * u + sin[:, None] * v + (width - 1) / 2
        down = cos[:, None] * v - sin[:, None] * u + (height - 1) / 2
        images[...] = _bilinear(images, down, across, self.fill_value).reshape(rows, height, width, channels)


class RandomRotation(RandomAffine):
    """Rotates images about their centre.

    Args:
        factor: largest angle either way, as a share of a full turn: 0.05 is 18 degrees; or a pair.
        fill_value: of pixels outside the image.
    """

    def __init__(self, factor: float | tuple[float, float], fill_value: float = 0.0) -> None:
        super().__init__(rotation=factor, fill_value=fill_value)


class RandomZoom(RandomAffine):
    """Zooms images about their centre, height and width alike.

    Args:
        factor: largest change of the size: 0.1 is 90 % to 110 %; or a pair, negative is smaller.
        fill_value: of pixels outside the image.
    """

    def __init__(self, factor: float | tuple[float, float], fill_value: float = 0.0) -> None:
        super().__init__(zoom=factor, fill_value=fill_value)


def _bilinear(images: Array, down: NDArray[np.float64], across: NDArray[np.float64], fill: float) -> Array:
    """Sample images (rows, height, width, channels) at points (rows, points); outside there is ``fill``."""
    rows, height, width, channels = images.shape
    framed = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=fill)
    flat = framed.reshape(-1, channels)
    down, across = np.clip(down + 1, 0, height + 1), np.clip(across + 1, 0, width + 1)
    top = np.minimum(down.astype(np.int64), height)
    left = np.minimum(across.astype(np.int64), width)
    low = (down - top).astype(images.dtype)[..., None]
    right = (across - left).astype(images.dtype)[..., None]
    at = (np.arange(rows) * ((height + 2) * (width + 2)))[:, None] + top * (width + 2) + left
    upper = flat[at] * (1 - right) + flat[at + 1] * right
    at += width + 2
    lower = flat[at] * (1 - right) + flat[at + 1] * right
    sampled: Array = upper * (1 - low) + lower * low
    return sampled


class RandomErasing(Augmentation):
    """Covers a random square of each image (cutout: DeVries and Taylor, 2017).

    Args:
        size: side of the square, as a share of the shorter side of the image; above 0 and at most 1.
        fill_value: of the covered pixels.
        probability: that an image is covered.
    """

    def __init__(self, size: float = 0.25, fill_value: float = 0.0, probability: float = 0.5) -> None:
        self.size = checks.number("size", size, 0, math.nextafter(1, 2), above=True)
        self.fill_value = checks.number("fill_value", fill_value, -math.inf)
        self.probability = checks.number("probability", probability, 0, math.nextafter(1, 2))

    def apply(self, batch: Batch) -> None:
        """Cover: the centre is anywhere in the image, so the square may lie partly outside."""
        images = batch.images()
        rows, height, width, _ = images.shape
        half = max(self.size * min(height, width) / 2, 0.5)
        centre_down, centre_across = batch.rng.random((2, rows)) * [[height], [width]]
        chosen = np.less(batch.rng.random(rows), self.probability)
        near_down = np.less_equal(np.abs(np.arange(height) + 0.5 - centre_down[:, None]), half)
        near_across = np.less_equal(np.abs(np.arange(width) + 0.5 - centre_across[:, None]), half)
        covered = np.einsum("ri,rj,r->rij", near_down, near_across, chosen)
        images[covered] = self.fill_value


class RandomNoise(Augmentation):
    """Adds normal numbers to all columns; for tables and images.

    Args:
        stddev: standard deviation of what is added; with standardised columns 0.05 to 0.2.
    """

    def __init__(self, stddev: float) -> None:
        self.stddev = checks.number("stddev", stddev, 0)

    def apply(self, batch: Batch) -> None:
        """Add."""
        noise = batch.buffers.get("noise", *batch.x.shape[1:])
        batch.rng.standard_normal(out=noise, dtype=noise.dtype.type)
        np.multiply(noise, self.stddev, out=noise)
        np.add(batch.x, noise, out=batch.x)


class FeatureDropout(Augmentation):
    """Replaces each number of a table by a fixed one with some probability, as if it were missing.

    Unlike ``Dropout`` it does not scale the others: a network learns to do without a column.

    Args:
        rate: share of the numbers; 0 to below 1.
        fill_value: what stands for a missing number; in standardised columns the mean is 0.
    """

    def __init__(self, rate: float, fill_value: float = 0.0) -> None:
        self.rate = checks.number("rate", rate, 0, 1)
        self.fill_value = checks.number("fill_value", fill_value, -math.inf)

    def apply(self, batch: Batch) -> None:
        """Replace."""
        drawn = batch.buffers.get("noise", *batch.x.shape[1:])
        gone = batch.buffers.get("gone", *batch.x.shape[1:], dtype=np.bool_)
        batch.rng.random(out=drawn, dtype=drawn.dtype.type)
        np.less(drawn, self.rate, out=gone)
        np.copyto(batch.x, self.fill_value, where=gone)


class MixUp(Augmentation):
    """Mixes each row with another one of the batch, inputs and targets alike (Zhang et al., 2018).

    ``x = share * x + (1 - share) * x'``, the share of each row from a beta distribution: the network learns to go over
    from one class to another smoothly. For classes and numbers alike. Metrics of the training rows compare with the
    targets before mixing, so they are lower than those of the validation.

    Args:
        alpha: of the beta distribution: small ones mix few rows strongly; 0.2 is usual; positive.
    """

    mixes = True

    def __init__(self, alpha: float = 0.2) -> None:
        self.alpha = checks.number("alpha", alpha, 0, above=True)

    def apply(self, batch: Batch) -> None:
        """Mix."""
        rows = len(batch.x)
        share = batch.rng.beta(self.alpha, self.alpha, (rows, 1)).astype(batch.x.dtype)
        partner = batch.rng.permutation(rows)
        for array in (batch.x, batch.y):
            other = array[partner]
            np.subtract(array, other, out=array)
            np.multiply(array, share, out=array)
            np.add(array, other, out=array)
