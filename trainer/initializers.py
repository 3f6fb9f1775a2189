"""Initial weights. A good start keeps the variance of outputs and gradients the same from layer to layer.

Zeros (or any constant) for a kernel cannot work: all units of a layer would compute the same, get the same gradient, and
stay equal for ever; nothing breaks the symmetry. Names and formulas are those of Keras 3.
"""

from __future__ import annotations

import math

import numpy as np

from . import checks
from .buffers import Array
from .registry import get as _get


class Initializer:
    """Fills an array; ``fan_in`` and ``fan_out`` are the two sides of a kernel ``(inputs, units)``."""

    def fill(self, out: Array, rng: np.random.Generator) -> None:
        """Fill ``out`` with initial values drawn from ``rng``."""
        raise NotImplementedError


class Constant(Initializer):
    """One number: for biases, never for a kernel.

    Args:
        value: the number.
    """

    def __init__(self, value: float = 0.0) -> None:
        self.value = checks.number("value", value, -math.inf)

    def fill(self, out: Array, rng: np.random.Generator) -> None:
        """Fill ``out`` with the number."""
        del rng
        out[...] = self.value


class Zeros(Constant):
    """0: for biases. A kernel of zeros keeps all units of its layer equal, and nothing can be learned."""

    def __init__(self) -> None:
        super().__init__(0)


class Ones(Constant):
    """1: for factors, such as gamma of a batch normalisation."""

    def __init__(self) -> None:
        super().__init__(1)


class RandomNormal(Initializer):
    """Normal numbers of a fixed spread, whatever the layer's width; a scaled one (Glorot, He) is wiser.

    Args:
        mean: of the numbers.
        stddev: their standard deviation; 0 or more.
    """

    def __init__(self, mean: float = 0.0, stddev: float = 0.05) -> None:
        self.mean = checks.number("mean", mean, -math.inf)
        self.stddev = checks.number("stddev", stddev, 0)

    def fill(self, out: Array, rng: np.random.Generator) -> None:
        """Fill ``out`` with normal numbers."""
        out[...] = self.draw(out.shape, rng) * self.stddev + self.mean

    def draw(self, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
        """Return numbers of the standard normal distribution."""
        return rng.standard_normal(shape)


class TruncatedNormal(RandomNormal):
    """Normal numbers, those beyond two standard deviations drawn again."""

    def draw(self, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
        """Return numbers of the standard normal distribution between -2 and 2."""
        return _truncated_normal(shape, rng)


class RandomUniform(Initializer):
    """Numbers from an interval.

    Args:
        minval: least number.
        maxval: greatest number.
    """

    def __init__(self, minval: float = -0.05, maxval: float = 0.05) -> None:
        self.minval = checks.number("minval", minval, -math.inf)
        self.maxval = checks.number("maxval", maxval, self.minval)

    def fill(self, out: Array, rng: np.random.Generator) -> None:
        """Fill ``out`` with uniform numbers."""
        out[...] = rng.uniform(self.minval, self.maxval, out.shape)


class Orthogonal(Initializer):
    """Orthonormal rows or columns, whichever are fewer (Saxe et al., 2014): lengths are kept through deep stacks.

    Args:
        gain: factor; positive.
    """

    def __init__(self, gain: float = 1.0) -> None:
        self.gain = checks.number("gain", gain, 0, above=True)

    def fill(self, out: Array, rng: np.random.Generator) -> None:
        """Fill ``out`` from the QR decomposition of normal numbers, signs made unique."""
        rows, columns = out.shape[0], math.prod(out.shape[1:])
        q, r = np.linalg.qr(rng.standard_normal((max(rows, columns), min(rows, columns))))
        q *= np.where(np.diag(r) < 0, -1, 1)
        out[...] = (self.gain * (q if rows >= columns else q.T)).reshape(out.shape)


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


class _Lecun(_VarianceScaling):
    def variance(self, fan_in: int, fan_out: int) -> float:
        del fan_out
        return 1 / fan_in


class _Uniform(_VarianceScaling):
    def draw(self, shape: tuple[int, ...], variance: float, rng: np.random.Generator) -> Array:
        limit = math.sqrt(3 * variance)
        return rng.uniform(-limit, limit, shape)


_STANDARD_DEVIATION_WITHIN_TWO = 0.87962566103423978
"""Of a standard normal truncated to [-2, 2]: sqrt(1 - 4 phi(2) / (Phi(2) - Phi(-2))), as Keras divides by."""


class _Normal(_VarianceScaling):
    def draw(self, shape: tuple[int, ...], variance: float, rng: np.random.Generator) -> Array:
        return _truncated_normal(shape, rng) * (math.sqrt(variance) / _STANDARD_DEVIATION_WITHIN_TWO)


def _truncated_normal(shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    values = rng.standard_normal(shape)
    while (outside := np.abs(values) > 2).any():
        values[outside] = rng.standard_normal(int(outside.sum()))
    return values


class GlorotUniform(_Glorot, _Uniform):
    """Uniform with variance 2 / (fan_in + fan_out): for tanh, sigmoid, softmax (Glorot and Bengio, 2010)."""


class GlorotNormal(_Glorot, _Normal):
    """Normal, truncated at two standard deviations, with variance 2 / (fan_in + fan_out)."""


class HeUniform(_He, _Uniform):
    """Uniform with variance 2 / fan_in: for ReLU, which loses half of the variance (He et al., 2015)."""


class HeNormal(_He, _Normal):
    """Normal, truncated at two standard deviations, with variance 2 / fan_in."""


class LecunUniform(_Lecun, _Uniform):
    """Uniform with variance 1 / fan_in (LeCun et al., 1998)."""


class LecunNormal(_Lecun, _Normal):
    """Normal, truncated at two standard deviations, with variance 1 / fan_in: for SELU."""


INITIALIZERS: dict[str, type[Initializer]] = {
    "glorot_uniform": GlorotUniform,
    "glorot_normal": GlorotNormal,
    "he_uniform": HeUniform,
    "he_normal": HeNormal,
    "lecun_uniform": LecunUniform,
    "lecun_normal": LecunNormal,
    "orthogonal": Orthogonal,
    "random_normal": RandomNormal,
    "random_uniform": RandomUniform,
    "truncated_normal": TruncatedNormal,
    "constant": Constant,
    "zeros": Zeros,
    "ones": Ones,
}
"""The initializers by name."""


def get(value: str | Initializer) -> Initializer:
    """Return the initializer of that name."""
    return _get("initializer", INITIALIZERS, value, Initializer)
