"""The operators of ONNX that work number by number, as functions in float64."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mariana.exchange.chain import Affine, Float64
from mariana.exchange.values import Call, Node, RefusedError

_erf = np.vectorize(math.erf, otypes=[np.float64])
_erfc = np.vectorize(math.erfc, otypes=[np.float64])


def constant_row(array: NDArray[Any], shape: tuple[int, ...]) -> Float64:
    """Return a constant as it meets a row made flat; a scalar stays one."""
    array = array.astype(np.float64)
    if array.size == 1:
        return array.reshape(())
    extra = array.ndim - len(shape)
    if extra > 0:
        if any(n != 1 for n in array.shape[:extra]):
            raise RefusedError(f"a constant of shape {array.shape} differs from row to row")
        array = array.reshape(array.shape[extra:])
    return np.broadcast_to(array, shape).reshape(-1)


def affine_of(operator: str, operands: list[Node | Float64]) -> Affine | None:
    """Return an operator with one variable operand as ``x * factor + summand``."""
    one, zero = np.ones(()), np.zeros(())
    match operands:
        case [Node()] if operator == "Neg":
            return Affine(-one, zero)
        case [Node(), np.ndarray() as a]:
            found = {"Add": (one, a), "Sub": (one, -a), "Mul": (a, zero), "Div": (1 / a, zero)}
        case [np.ndarray() as a, Node()]:
            found = {"Add": (one, a), "Sub": (-one, a), "Mul": (a, zero)}
        case _:
            return None
    return Affine(*found[operator]) if operator in found else None


Maker = Callable[[Call], Callable[..., Float64]]


def _attribute(call: Call, name: str, default: float) -> float:
    return float(call.attributes.get(name, default))


def _leaky(call: Call) -> Callable[..., Float64]:
    alpha = _attribute(call, "alpha", 0.01)
    return lambda x: np.where(x < 0, alpha * x, x)


def _elu(call: Call) -> Callable[..., Float64]:
    alpha = _attribute(call, "alpha", 1.0)
    return lambda x: np.where(x < 0, alpha * np.expm1(np.minimum(x, 0)), x)


def _celu(call: Call) -> Callable[..., Float64]:
    alpha = _attribute(call, "alpha", 1.0)
    return lambda x: np.where(x < 0, alpha * np.expm1(np.minimum(x, 0) / alpha), x)


def _selu(call: Call) -> Callable[..., Float64]:
    alpha, gamma = (
        _attribute(call, "alpha", 1.6732632423543772),
        _attribute(call, "gamma", 1.0507009873554805),
    )
    return lambda x: gamma * np.where(x < 0, alpha * np.expm1(np.minimum(x, 0)), x)


def _gelu(call: Call) -> Callable[..., Float64]:
    return gelu_tanh if call.attributes.get("approximate", b"none") == b"tanh" else gelu


def _clip(call: Call) -> Callable[..., Float64]:
    low, high = call.attributes.get("min", -math.inf), call.attributes.get("max", math.inf)
    if call.opset < 11:
        return lambda x: np.clip(x, low, high)
    has_low = len(call.values) > 1 and call.values[1] is not None

    def clip(x: Float64, *bounds: Float64) -> Float64:
        if not has_low:
            return np.minimum(x, bounds[0]) if bounds else x
        return np.clip(x, bounds[0], bounds[1] if len(bounds) > 1 else math.inf)

    return clip


def sigmoid(x: Float64) -> Float64:
    """Return 1 / (1 + e^-x)."""
    return (1 + np.tanh(x / 2)) / 2


def softplus(x: Float64) -> Float64:
    """Return log(1 + e^x)."""
    return np.logaddexp(0.0, x)


def gelu(x: Float64) -> Float64:
    """Return x Phi(x), Phi being the normal distribution."""
    phi: Float64 = (1 + _erf(x * math.sqrt(0.5))) / 2
    return x * phi


def gelu_tanh(x: Float64) -> Float64:
    """Return GELU as it is approximated with tanh (Hendrycks and Gimpel 2016)."""
    return x * sigmoid(2 * math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))


def _swish(call: Call) -> Callable[..., Float64]:
    alpha = _attribute(call, "alpha", 1.0)
    return lambda x: x * sigmoid(alpha * x)


def _plain(function: Callable[..., Any]) -> Maker:
    def make(call: Call) -> Callable[..., Any]:
        given = sum(value is not None for value in call.values)
        if isinstance(function, np.ufunc) and given != function.nin:  # it would write to one more
            raise RefusedError(f"it has {given} inputs")
        return function

    return make


ELEMENTWISE: dict[str, Maker] = {
    "Abs": _plain(np.abs),
    "Add": _plain(np.add),
    "Celu": _celu,
    "Clip": _clip,
    "Div": _plain(np.divide),
    "Elu": _elu,
    "Equal": _plain(np.equal),
    "Erf": _plain(_erf),
    "Erfc": _plain(_erfc),  # no operator of ONNX, but what tf2onnx writes for Keras's GELU
    "Exp": _plain(np.exp),
    "Gelu": _gelu,
    "Greater": _plain(np.greater),
    "GreaterOrEqual": _plain(np.greater_equal),
    "LeakyRelu": _leaky,
    "Less": _plain(np.less),
    "LessOrEqual": _plain(np.less_equal),
    "Log": _plain(np.log),
    "Max": _plain(lambda *x: functools.reduce(np.maximum, x)),
    "Min": _plain(lambda *x: functools.reduce(np.minimum, x)),
    "Mul": _plain(np.multiply),
    "Neg": _plain(np.negative),
    "Not": _plain(np.logical_not),
    "PRelu": _plain(lambda x, slope: np.where(x < 0, slope * x, x)),
    "Pow": _plain(np.power),
    "Reciprocal": _plain(np.reciprocal),
    "Relu": _plain(lambda x: np.maximum(x, 0)),
    "Selu": _selu,
    "Sigmoid": _plain(sigmoid),
    "Softplus": _plain(softplus),
    "Sqrt": _plain(np.sqrt),
    "Sub": _plain(np.subtract),
    "Sum": _plain(lambda *x: functools.reduce(np.add, x)),
    "Swish": _swish,
    "Tanh": _plain(np.tanh),
    "Where": _plain(lambda condition, x, y: np.where(condition != 0, x, y)),
}
"""Operators that work number by number, in float64."""
