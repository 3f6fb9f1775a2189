"""From the nodes of a graph to the steps of a chain: activations are recognised by what they compute."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np

from mariana.errors import InvalidInputError
from mariana.exchange.chain import Activated, Float64, Step
from mariana.exchange.elementwise import gelu, gelu_tanh, sigmoid, softplus
from mariana.exchange.values import Node, cuts, evaluate

_GRID = np.concatenate(
    [np.linspace(-20, 20, 401), *(sign * np.logspace(-6, 6, 49) for sign in (1, -1)), [-1.0]]
)[:, None]


def recognise(function: Callable[[Float64], Float64]) -> Activated | None:
    """Return the activation that a function is, by its values; ``linear`` for one that changes nothing.

    Args:
        function: of (points, 1) float64, to (points, 1) or (points, width).
    """
    y = np.broadcast_arrays(np.asarray(function(_GRID), np.float64), _GRID)[0]
    known = np.isfinite(y)
    if not known[np.abs(_GRID[:, 0]) <= 20].all():
        return None
    slope = -y[-1]

    def same(candidate: Float64) -> bool:
        return bool(
            (
                np.abs(y - candidate)[known]
                <= np.broadcast_to(1e-6 + 1e-6 * np.abs(candidate), y.shape)[known]
            ).all()
        )

    for name, candidate in _FIXED.items():
        if same(candidate(_GRID)):
            return Activated(name)
    slopes = slope[0] if (slope == slope[0]).all() else slope
    if same(np.where(_GRID < 0, slope * _GRID, _GRID)):
        return Activated("leaky_relu" if slopes.ndim == 0 else "prelu", slopes)
    slopes = slopes / -math.expm1(-1)
    if same(np.where(_GRID < 0, slopes * np.expm1(np.minimum(_GRID, 0)), _GRID)):
        return Activated("elu", slopes) if slopes.ndim == 0 else None
    return None


_FIXED: dict[str, Callable[[Float64], Float64]] = {
    "linear": lambda x: x,
    "relu": lambda x: np.maximum(x, 0),
    "sigmoid": sigmoid,
    "tanh": np.tanh,
    "selu": lambda x: (
        1.0507009873554805 * np.where(x < 0, 1.6732632423543772 * np.expm1(np.minimum(x, 0)), x)
    ),
    "gelu": gelu,
    "gelu_tanh": gelu_tanh,
    "silu": lambda x: x * sigmoid(x),
    "softplus": softplus,
}


def steps_of(node: Node) -> tuple[Node, list[Step]]:
    """Return the input that a node depends on, and what is done to it."""
    found: list[Step] = []
    while not node.columns:
        node, step = _last_step(node)
        if step is not None:
            found.append(step)
    return node, found[::-1]


def _last_step(node: Node) -> tuple[Node, Step | None]:
    """Return what a node does, and the node that it does it to."""
    if node.linear is not None:
        return node.parents[0], node.linear
    if node.softmax:
        return node.parents[0], Activated("softmax")
    for cut in reversed(list(cuts(node))):  # as much at once as is known
        found = recognise(partial(evaluate, node, cut))
        if found is not None:
            return cut, None if found.name == "linear" else found
    if node.affine is not None:
        return node.parents[0], node.affine
    if len(node.parents) > 1:
        raise InvalidInputError(
            f"{node.where} joins two parts of the network, and is no activation known here"
        )
    raise InvalidInputError(f"{node.where} is no activation that Mariana runs")
