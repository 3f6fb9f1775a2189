"""Activations: each forward pass is in place, and most gradients are computed from the output alone.

So a layer keeps one array of outputs. The activations that are not monotone (GELU, SiLU) cannot be undone from their
output; they keep their slope in a step of training, and only there.

Which one? ``relu`` with He initialisation for wide inputs and much data, ``tanh`` for tables of some thousand rows,
``gelu`` or ``silu`` where a smooth ReLU learns better (often deep stacks), ``selu`` with LeCun initialisation for deep
stacks without batch normalisation. ``sigmoid`` and ``softmax`` belong into the last layer: in hidden ones they saturate,
their gradient vanishes, and the layers before them stop learning.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from mariana.errors import InvalidInputError

from . import checks, initializers
from .buffers import Array, Buffers
from .initializers import Initializer
from .registry import get as _get


class ActivationFunction:
    """A function on each row of ``(batch, units)``; the name is the one that the model file knows.

    Attributes:
        name: in the registry and in the model file.
        exportable: whether the model file knows it.
        saturates: the outputs at which the gradient vanishes, for the diagnosis.
        rectifies: whether its outputs are 0, or shrunk, for negative inputs: then a unit can be dead.
    """

    name = ""
    exportable = True
    saturates: tuple[float, ...] = ()
    rectifies = False

    def config(self) -> dict[str, float]:
        """Return the numbers that belong to it, by the names of its arguments."""
        return {}

    def build(self, units: int) -> dict[str, tuple[int, ...]]:
        """Return the shape of each parameter that is learned along; most have none."""
        del units
        return {}

    def attach(self, parameters: dict[str, Array], gradients: dict[str, Array]) -> None:
        """Take the views of the parameters and their gradients; called only if there are some."""

    def initialize(self, rng: np.random.Generator) -> None:
        """Fill the parameters."""

    def forward(self, y: Array, buffers: Buffers) -> None:
        """Replace ``y``, (batch, units), by its activation."""
        raise NotImplementedError

    def learning_forward(self, y: Array, buffers: Buffers) -> None:
        """Do the same in a step of training, and keep in ``buffers`` what ``backward`` needs beside the output."""
        self.forward(y, buffers)

    def backward(self, y: Array, dy: Array, buffers: Buffers) -> None:
        """Replace ``dy``, the gradient with respect to the output ``y``, by that with respect to the input."""
        raise NotImplementedError


class Linear(ActivationFunction):
    """``x``: the output of a regression. Stacked linear layers are one linear layer: hidden ones need another."""

    name = "linear"

    def forward(self, y: Array, buffers: Buffers) -> None:
        """Leave ``y`` as it is."""

    def backward(self, y: Array, dy: Array, buffers: Buffers) -> None:
        """Leave ``dy`` as it is."""


class ReLU(ActivationFunction):
    """``max(x, 0)``: the default for hidden layers; use He initialisation with it.

    A unit that is negative on all data gets no gradient and stays dead; a lower learning rate prevents it, and
    ``leaky_relu`` or ``elu`` cannot die.
    """

    name = "relu"
    rectifies = True

    def forward(self, y: Array, buffers: Buffers) -> None:
        """Replace negative numbers by 0."""
        del buffers
        np.maximum(y, 0, out=y)

    def backward(self, y: Array, dy: Array, buffers: Buffers) -> None:
        """``dy * (y > 0)``; the gradient at 0 is taken as 0."""
        positive = buffers.get("positive", *y.shape[1:], dtype=np.bool_)
        np.greater(y, 0, out=positive)
        np.multiply(dy, positive, out=dy)


class LeakyReLU(ActivationFunction):
    """``x`` if positive, else ``negative_slope * x`` (Maas et al., 2013): a ReLU whose units cannot die.

    Args:
        negative_slope: 0 to below 1.
    """

    name = "leaky_relu"
    rectifies = True

    def __init__(self, negative_slope: float = 0.2) -> None:
        self.negative_slope = checks.number("negative_slope", negative_slope, 0, 1)

    def config(self) -> dict[str, float]:
        """Return the slope."""
        return {"negative_slope": self.negative_slope}

    def forward(self, y: Array, buffers: Buffers) -> None:
        """``max(x, negative_slope * x)``."""
        scratch = buffers.get("slope", *y.shape[1:])
        np.multiply(y, self.negative_slope, out=scratch)
        np.maximum(y, scratch, out=y)

    def backward(self, y: Array, dy: Array, buffers: Buffers) -> None:
        """``dy`` where the output is positive, else ``negative_slope * dy``."""
        slope = buffers.get("slope", *y.shape[1:])
        np.greater(y, 0, out=slope)
        np.multiply(slope, 1 - self.negative_slope, out=slope)
        np.add(slope, self.negative_slope, out=slope)
        np.multiply(dy, slope, out=dy)


class PReLU(ActivationFunction):
    """``x`` if positive, else ``alpha * x`` with an ``alpha`` a unit that is learned (He et al., 2015).

    For wide layers and much data: with little data the slopes are one more thing to learn by heart.

    Args:
        alpha_initializer: for alpha, (units,).
    """

    name = "prelu"
    rectifies = True

    def __init__(self, alpha_initializer: str | Initializer = "zeros") -> None:
        self.alpha_initializer = initializers.get(alpha_initializer)
        self.alpha: Array = np.empty(0)

    def build(self, units: int) -> dict[str, tuple[int, ...]]:
        """Return the shape of alpha."""
        return {"alpha": (units,)}

    def __getstate__(self) -> dict[str, Any]:
        """Leave the views out, as layers do."""
        return {"alpha_initializer": self.alpha_initializer, "alpha": np.empty(0)}

    def attach(self, parameters: dict[str, Array], gradients: dict[str, Array]) -> None:
        """Take the views of alpha and its gradient."""
        if self.alpha.size:
            raise InvalidInputError("the same PReLU stands in two layers; make a new one for each")
        self.alpha, self._gradient = parameters["alpha"], gradients["alpha"]

    def initialize(self, rng: np.random.Generator) -> None:
        """Fill alpha."""
        if self.alpha.size:
            self.alpha_initializer.fill(self.alpha, rng)

    def forward(self, y: Array, buffers: Buffers) -> None:
        """``max(x, 0) + alpha * min(x, 0)``."""
        negative = buffers.get("negative", *y.shape[1:])
        scaled = buffers.get("slope", *y.shape[1:])
        np.minimum(y, 0, out=negative)
        np.multiply(negative, self.alpha, out=scaled)
        np.maximum(y, 0, out=y)
        np.add(y, scaled, out=y)

    def backward(self, y: Array, dy: Array, buffers: Buffers) -> None:
        """``dalpha = sum of dy * min(x, 0)``, ``dx = dy`` or ``alpha * dy``; alpha may have any sign, so x decides."""
        negative = buffers.get("negative", *y.shape[1:])
        scaled = buffers.get("slope", *y.shape[1:])
        below = buffers.get("below", *y.shape[1:], dtype=np.bool_)
        np.multiply(dy, negative, out=scaled)
        np.sum(scaled, axis=0, out=self._gradient)
        np.less(negative, 0, out=below)
        np.multiply(dy, self.alpha, out=scaled)
        np.copyto(dy, scaled, where=below)


class ELU(ActivationFunction):
    """``x`` if positive, else ``alpha * (exp(x) - 1)`` (Clevert et al., 2016): smooth, no dead units, mean nearer to 0.

    Args:
        alpha: ``-alpha`` is where it saturates; positive.
    """

    name = "elu"
    _scale = 1.0

    def __init__(self, alpha: float = 1.0) -> None:
        self.alpha = checks.number("alpha", alpha, 0, above=True)

    def config(self) -> dict[str, float]:
        """Return alpha."""
        return {"alpha": self.alpha}

    def forward(self, y: Array, buffers: Buffers) -> None:
        """``scale * (max(x, 0) + alpha * (exp(min(x, 0)) - 1))``."""
        negative = buffers.get("slope", *y.shape[1:])
        np.minimum(y, 0, out=negative)
        np.expm1(negative, out=negative)
        np.multiply(negative, self.alpha * self._scale, out=negative)
        np.maximum(y, 0, out=y)
        if self._scale != 1:
            np.multiply(y, self._scale, out=y)
        np.add(y, negative, out=y)

    def backward(self, y: Array, dy: Array, buffers: Buffers) -> None:
        """``dy * scale`` where the output is positive, else ``dy * (y + scale * alpha)``."""
        slope = buffers.get("slope", *y.shape[1:])
        positive = buffers.get("positive", *y.shape[1:], dtype=np.bool_)
        np.add(y, self.alpha * self._scale, out=slope)
        np.greater(y, 0, out=positive)
        np.copyto(slope, self._scale, where=positive)
        np.multiply(dy, slope, out=dy)


class SELU(ELU):
    """``scale * elu(x, alpha)`` with the two numbers that keep mean 0 and variance 1 (Klambauer et al., 2017).

    For deep plain stacks; it wants ``lecun_normal`` kernels and standardised inputs, and no batch normalisation.
    """

    name = "selu"
    _scale = 1.0507009873554805

    def __init__(self) -> None:
        super().__init__(1.6732632423543772)

    def config(self) -> dict[str, float]:
        """Return nothing: the numbers are fixed."""
        return {}


class Sigmoid(ActivationFunction):
    """``1 / (1 + exp(-x))``: the output for two classes, or for labels that do not exclude each other.

    In hidden layers it saturates: its gradient is at most 1/4, so that deep stacks learn slowly. Prefer ReLU there.
    """

    name = "sigmoid"
    saturates = (0.0, 1.0)

    def forward(self, y: Array, buffers: Buffers) -> None:
        """Compute the sigmoid without overflow."""
        del buffers
        _sigmoid(y, y)

    def backward(self, y: Array, dy: Array, buffers: Buffers) -> None:
        """``dy * y * (1 - y)``."""
        slope = buffers.get("slope", *y.shape[1:])
        np.subtract(1, y, out=slope)
        np.multiply(slope, y, out=slope)
        np.multiply(dy, slope, out=dy)


class Tanh(ActivationFunction):
    """The hyperbolic tangent: like the sigmoid, but centred on 0; use Glorot initialisation with it.

    It saturates too, at -1 and 1: inputs must be scaled to about -1 to 1.
    """

    name = "tanh"
    saturates = (-1.0, 1.0)

    def forward(self, y: Array, buffers: Buffers) -> None:
        """Compute tanh."""
        del buffers
        np.tanh(y, out=y)

    def backward(self, y: Array, dy: Array, buffers: Buffers) -> None:
        """``dy * (1 - y * y)``."""
        slope = buffers.get("slope", *y.shape[1:])
        np.multiply(y, y, out=slope)
        np.subtract(1, slope, out=slope)
        np.multiply(dy, slope, out=dy)


class Softplus(ActivationFunction):
    """``log(1 + exp(x))``: a smooth ReLU; as the last layer for numbers that are always positive, such as rates."""

    name = "softplus"

    def forward(self, y: Array, buffers: Buffers) -> None:
        """``max(x, 0) + log(1 + exp(-|x|))``, which cannot overflow."""
        rest = buffers.get("slope", *y.shape[1:])
        np.abs(y, out=rest)
        np.negative(rest, out=rest)
        np.exp(rest, out=rest)
        np.log1p(rest, out=rest)
        np.maximum(y, 0, out=y)
        np.add(y, rest, out=y)

    def backward(self, y: Array, dy: Array, buffers: Buffers) -> None:
        """``dy * (1 - exp(-y))``, which is the sigmoid of the input."""
        slope = buffers.get("slope", *y.shape[1:])
        np.negative(y, out=slope)
        np.expm1(slope, out=slope)
        np.negative(slope, out=slope)
        np.multiply(dy, slope, out=dy)


class _Smooth(ActivationFunction):
    """``x * gate(x)`` with a gate from 0 to 1: not monotone, so the slope is kept in a step of training."""

    def _gate(self, x: Array, gate: Array, buffers: Buffers) -> None:
        raise NotImplementedError

    def _slope(self, x: Array, gate: Array, slope: Array, buffers: Buffers) -> None:
        raise NotImplementedError

    def forward(self, y: Array, buffers: Buffers) -> None:
        """``x * gate(x)``."""
        gate = buffers.get("gate", *y.shape[1:])
        self._gate(y, gate, buffers)
        np.multiply(y, gate, out=y)

    def learning_forward(self, y: Array, buffers: Buffers) -> None:
        """Do the same and keep the slope."""
        gate, slope = buffers.get("gate", *y.shape[1:]), buffers.get("slope", *y.shape[1:])
        self._gate(y, gate, buffers)
        self._slope(y, gate, slope, buffers)
        np.multiply(y, gate, out=y)

    def backward(self, y: Array, dy: Array, buffers: Buffers) -> None:
        """``dy * slope``."""
        np.multiply(dy, buffers.get("slope", *y.shape[1:]), out=dy)


class SiLU(_Smooth):
    """``x * sigmoid(x)``, also called swish (Elfwing et al., 2018): a smooth ReLU for deep stacks."""

    name = "silu"

    def _gate(self, x: Array, gate: Array, buffers: Buffers) -> None:
        del buffers
        _sigmoid(x, gate)

    def _slope(self, x: Array, gate: Array, slope: Array, buffers: Buffers) -> None:
        """``gate * (1 + x * (1 - gate))``."""
        del buffers
        np.subtract(1, gate, out=slope)
        np.multiply(slope, x, out=slope)
        np.add(slope, 1, out=slope)
        np.multiply(slope, gate, out=slope)


class GELU(_Smooth):
    """``x * Phi(x)`` with the normal distribution's Phi (Hendrycks and Gimpel, 2016): what transformers use.

    Exact, by the error function; ``gelu_tanh`` is the cheaper approximation.
    """

    name = "gelu"

    def _gate(self, x: Array, gate: Array, buffers: Buffers) -> None:
        """``Phi(x) = erfc(-x / sqrt(2)) / 2``."""
        z, upper = buffers.get("slope", *x.shape[1:]), buffers.get("positive", *x.shape[1:], dtype=np.bool_)
        np.abs(x, out=z)
        np.multiply(z, math.sqrt(0.5), out=z)
        _erfc(z, gate, buffers)
        np.multiply(gate, 0.5, out=gate)
        np.greater(x, 0, out=upper)
        np.subtract(1, gate, out=gate, where=upper)

    def _slope(self, x: Array, gate: Array, slope: Array, buffers: Buffers) -> None:
        """``Phi(x) + x * phi(x)``."""
        del buffers
        np.multiply(x, x, out=slope)
        np.multiply(slope, -0.5, out=slope)
        np.exp(slope, out=slope)
        np.multiply(slope, 1 / math.sqrt(2 * math.pi), out=slope)
        np.multiply(slope, x, out=slope)
        np.add(slope, gate, out=slope)


class GELUTanh(_Smooth):
    """``x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x³))) / 2``: the approximation of GELU, within 5e-4 of it."""

    name = "gelu_tanh"

    def _gate(self, x: Array, gate: Array, buffers: Buffers) -> None:
        del buffers
        np.multiply(x, x, out=gate)
        np.multiply(gate, 0.044715, out=gate)
        np.add(gate, 1, out=gate)
        np.multiply(gate, x, out=gate)
        np.multiply(gate, math.sqrt(2 / math.pi), out=gate)
        np.tanh(gate, out=gate)
        np.add(gate, 1, out=gate)
        np.multiply(gate, 0.5, out=gate)

    def _slope(self, x: Array, gate: Array, slope: Array, buffers: Buffers) -> None:
        """``gate + 2 x gate (1 - gate) sqrt(2 / pi) (1 + 3 * 0.044715 x²)``."""
        other = buffers.get("other", *x.shape[1:])
        np.multiply(x, x, out=slope)
        np.multiply(slope, 3 * 0.044715, out=slope)
        np.add(slope, 1, out=slope)
        np.multiply(slope, 2 * math.sqrt(2 / math.pi), out=slope)
        np.multiply(slope, x, out=slope)
        np.multiply(slope, gate, out=slope)
        np.subtract(1, gate, out=other)
        np.multiply(slope, other, out=slope)
        np.add(slope, gate, out=slope)


class Softmax(ActivationFunction):
    """``exp(x_i) / sum_j exp(x_j)`` along the row: probabilities of classes that exclude each other."""

    name = "softmax"

    def forward(self, y: Array, buffers: Buffers) -> None:
        """Compute softmax; the row's maximum is subtracted first, so that nothing overflows."""
        row = buffers.get("row", 1)
        np.max(y, axis=1, keepdims=True, out=row)
        np.subtract(y, row, out=y)
        np.exp(y, out=y)
        np.sum(y, axis=1, keepdims=True, out=row)
        np.divide(y, row, out=y)

    def backward(self, y: Array, dy: Array, buffers: Buffers) -> None:
        """``y * (dy - sum_j dy_j y_j)``."""
        product = buffers.get("product", *y.shape[1:])
        row = buffers.get("row", 1)
        np.multiply(dy, y, out=product)
        np.sum(product, axis=1, keepdims=True, out=row)
        np.subtract(dy, row, out=dy)
        np.multiply(dy, y, out=dy)


class CustomActivation(ActivationFunction):
    """Your own function, by a pair of functions on arrays; the model file does not know it, so it cannot be exported.

    Args:
        function: x (batch, units) -> the outputs, an array of the same shape.
        derivative: x (batch, units) -> the derivative at each x, of the same shape.
        name: for summaries and messages.

    Example:
        >>> import numpy as np
        >>> from mariana.trainer import CustomActivation, Dense
        >>> bump = CustomActivation(lambda x: np.exp(-x * x), lambda x: -2 * x * np.exp(-x * x), "bump")
        >>> Dense(8, activation=bump).activation.name
        'bump'
    """

    exportable = False

    def __init__(
        self, function: Callable[[Array], Array], derivative: Callable[[Array], Array], name: str = "custom"
    ) -> None:
        pair: tuple[object, ...] = (function, derivative)
        if not all(map(callable, pair)):
            raise InvalidInputError("CustomActivation takes two functions: of x, and its derivative")
        self.function, self.derivative, self.name = function, derivative, name

    def forward(self, y: Array, buffers: Buffers) -> None:
        """Apply the function."""
        del buffers
        y[...] = self._checked(self.function(y), y)

    def learning_forward(self, y: Array, buffers: Buffers) -> None:
        """Do the same and keep the derivative."""
        buffers.get("slope", *y.shape[1:])[...] = self._checked(self.derivative(y), y)
        self.forward(y, buffers)

    def backward(self, y: Array, dy: Array, buffers: Buffers) -> None:
        """``dy * derivative``."""
        np.multiply(dy, buffers.get("slope", *y.shape[1:]), out=dy)

    def _checked(self, found: Array, x: Array) -> Array:
        if np.shape(found) != x.shape:
            raise InvalidInputError(
                f"activation {self.name!r}: expected an array of shape {x.shape}, its function gave {np.shape(found)}"
            )
        return found


def _sigmoid(x: Array, out: Array) -> None:
    """``1 / (1 + exp(-x))``; below -log(largest number) it is 0 for all that can be told."""
    np.maximum(x, -np.log(np.finfo(x.dtype).max), out=out)
    np.negative(out, out=out)
    np.exp(out, out=out)
    np.add(out, 1, out=out)
    np.reciprocal(out, out=out)


# erfc(z) = t exp(-z² + sum_k c_k T_k(2t - 1)) with t = 2 / (2 + z), z >= 0 (Press et al., Numerical Recipes, 3rd ed.,
# 6.2.2). The c_k are those of the Chebyshev series of log(erfc(z) / t) + z², by mpmath with 50 digits and 60 nodes. All
# of them give erfc within 5e-16, the first 12 within 1.1e-8, which float32 cannot tell.
_ERFC = (
    -0.6513268598908547,
    0.6419697923564902,
    0.019476473204185836,
    -0.009561514786808632,
    -0.0009465953444820368,
    0.00036683949785276145,
    4.252332480690778e-05,
    -2.0278578112534255e-05,
    -1.6242900046470148e-06,
    1.303655835580513e-06,
    1.562644172207549e-08,
    -8.523809591493513e-08,
    6.5290544391066195e-09,
    5.059343495544564e-09,
    -9.913641564870331e-10,
    -2.2736512229824113e-10,
    9.646791102423924e-11,
    2.3940380799538945e-12,
    -6.886027524430104e-12,
    8.944879262721407e-13,
    3.130921399343172e-13,
    -1.1270822257678351e-13,
    3.8108845811235927e-16,
    7.10610069878699e-15,
    -1.523032285384786e-15,
    -9.456988821418283e-17,
    1.2101771903391955e-16,
    -2.8159725590597756e-17,
)
_ERFC_FLOAT32 = 12


def _erfc(z: Array, out: Array, buffers: Buffers) -> None:
    """``1 - erf(z)`` for z >= 0, by Clenshaw's recurrence; ``out`` is another array than ``z``."""
    u, scratch, now, before = (buffers.get(f"erfc_{i}", *z.shape[1:]) for i in range(4))
    np.add(z, 2, out=u)
    np.divide(4, u, out=u)
    np.subtract(u, 1, out=u)
    np.multiply(u, 2, out=u)  # 2 (2t - 1)
    now[...] = before[...] = 0
    first, *others = _ERFC[: _ERFC_FLOAT32 if z.dtype == np.float32 else None]
    for c in reversed(others):
        np.multiply(u, now, out=scratch)
        np.subtract(scratch, before, out=scratch)
        np.add(scratch, c, out=scratch)
        scratch, now, before = before, scratch, now
    np.multiply(u, now, out=out)
    np.multiply(out, 0.5, out=out)
    np.subtract(out, before, out=out)
    np.add(out, first, out=out)
    np.multiply(z, z, out=scratch)
    np.subtract(out, scratch, out=out)
    np.exp(out, out=out)
    np.add(u, 2, out=u)
    np.multiply(u, 0.25, out=u)
    np.multiply(out, u, out=out)


ACTIVATIONS: dict[str, type[ActivationFunction]] = {
    cls.name: cls
    for cls in (
        Linear,
        ReLU,
        Sigmoid,
        Tanh,
        Softmax,
        LeakyReLU,
        PReLU,
        ELU,
        SELU,
        GELU,
        GELUTanh,
        SiLU,
        Softplus,
    )
}
"""The activations by name; the list of ``csrc/activations.def`` is the same."""


def get(value: Any) -> ActivationFunction:
    """Return the activation of that name; None means linear, a pair of functions a ``CustomActivation``.

    Example:
        >>> get("relu").name
        'relu'
    """
    if isinstance(value, tuple) and len(value) == 2 and all(map(callable, value)):
        return CustomActivation(*value)
    return _get("activation", ACTIVATIONS, "linear" if value is None else value, ActivationFunction)
