"""Initial weights. A good start keeps the variance of outputs and gradients the same from layer to layer.

Zeros for a kernel cannot work: all units of a layer would compute the same, get the same gradient, and stay equal.
"""

from __future__ import annotations

import math

import numpy as np

from .buffers import Array
from .registry import get as _get


class Initializer:
    """Fills an array; ``fan_in`` and ``fan_out`` are the two sides of a kernel ``(inputs, units)``."""

    def fill(self, out: Array, rng: np.random.Generator) -> None:
        """Fill ``out`` with initial values drawn from ``rng``."""
        raise NotImplementedError


class Zeros(Initializer):
    """0: for biases."""

    def fill(self, out: Array, rng: np.random.Generator) -> None:
        """Fill ``out`` with 0."""
        del rng
        out[...] = 0


class Ones(Initializer):
    """1."""

    def fill(self, out: Array, rng: np.random.Generator) -> None:
        """Fill ``out`` with 1."""
        del rng
        out[...] = 1


class _VarianceScaling(Initializer):
    """Zero-mean numbers of the variance ``gain / fan``, uniform or normal."""

    def variance(self, fan_in: int, fan_out: int) -> float:
        raise NotImplementedError

    def draw(self, shape: tuple[int, ...], variance: float, rng: np.random.Generator) -> Array:
        raise NotImplementedError

    def fill(self, out: Array, rng: np.random.Generator) -> None:
        """Fill ``out`` with random numbers of the right variance."""
        fan_in, fan_out = (out.shape[0], out.shape[-1])
        out[...] = self.draw(out.shape, self.variance(fan_in, fan_out), rng)


class _Glorot(_VarianceScaling):
    def variance(self, fan_in: int, fan_out: int) -> float:
        return 2 / (fan_in + fan_out)


class _He(_VarianceScaling):
    def variance(self, fan_in: int, fan_out: int) -> float:
        del fan_out
        return 2 / fan_in


class _Uniform(_VarianceScaling):
    def draw(self, shape: tuple[int, ...], variance: float, rng: np.random.Generator) -> Array:
        limit = math.sqrt(3 * variance)
        return rng.uniform(-limit, limit, shape)


_STANDARD_DEVIATION_WITHIN_TWO = 0.87962566103423978
"""Of a standard normal truncated to [-2, 2]: sqrt(1 - 4 phi(2) / (Phi(2) - Phi(-2))), as Keras divides by."""


class _Normal(_VarianceScaling):
    def draw(self, shape: tuple[int, ...], variance: float, rng: np.random.Generator) -> Array:
        values = rng.standard_normal(shape)
        while (outside := np.abs(values) > 2).any():
            values[outside] = rng.standard_normal(int(outside.sum()))
        return values * (math.sqrt(variance) / _STANDARD_DEVIATION_WITHIN_TWO)


class GlorotUniform(_Glorot, _Uniform):
    """Uniform with variance 2 / (fan_in + fan_out): for tanh, sigmoid, softmax (Glorot and Bengio, 2010)."""


class GlorotNormal(_Glorot, _Normal):
    """Normal, truncated at two standard deviations, with variance 2 / (fan_in + fan_out)."""


class HeUniform(_He, _Uniform):
    """Uniform with variance 2 / fan_in: for ReLU, which loses half of the variance (He et al., 2015)."""


class HeNormal(_He, _Normal):
    """Normal, truncated at two standard deviations, with variance 2 / fan_in."""


INITIALIZERS: dict[str, type[Initializer]] = {
    "glorot_uniform": GlorotUniform,
    "glorot_normal": GlorotNormal,
    "he_uniform": HeUniform,
    "he_normal": HeNormal,
    "zeros": Zeros,
    "ones": Ones,
}
"""The initializers by name."""


def get(value: str | Initializer) -> Initializer:
    """Return the initializer of that name."""
    return _get("initializer", INITIALIZERS, value, Initializer)
