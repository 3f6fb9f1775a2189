"""A committee: networks of one shape, each learned from weights and an order of its own, merged into one.

Networks that begin elsewhere are wrong elsewhere, so that the mean of their answers is better than any of them
(Hansen and Salamon, "Neural Network Ensembles", 1990; deep ensembles: Lakshminarayanan et al., arXiv 1612.01474). What
is averaged goes into the last activation: values, or logits. So the whole committee is a dense network itself: the
first layers side by side, the next ones as blocks along the diagonal, the last ones below each other, divided by the
number of members. Nothing that serves a model need know of it.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mariana.errors import InvalidInputError

from .activations import PReLU
from .folding import Affine, affine
from .layers import Dense
from .losses import Loss
from .sequential import Sequential

Float64 = NDArray[np.float64]

_MOST_BYTES = 1 << 28
"""Of the weights of what members make together. Their number grows with the square of that of the members."""


class Committee:
    """Networks of one shape that answer together.

    Args:
        members: one network or more, built and compiled with the same loss; each is taught by itself.

    Attributes:
        members: the networks.
        network: what they make together, as it was when :meth:`merge` was last called.

    Raises:
        InvalidInputError: there is no member, or what they make together would be too large.

    Example:
        >>> import numpy as np
        >>> from mariana.trainer import Dense, Input, Sequential
        >>> members = [Sequential([Input((3,)), Dense(4, "tanh"), Dense(1)], seed=seed) for seed in range(3)]
        >>> for net in members:
        ...     net.compile("adam", "mean_squared_error")
        ...     net.build()
        >>> x = np.ones((2, 3), np.float32)
        >>> mean = np.mean([net.predict(x) for net in members], axis=0)
        >>> bool(np.allclose(Committee(members).predict(x), mean, atol=1e-6))
        True
    """

    def __init__(self, members: Iterable[Sequential]) -> None:
        self.members = list(members)
        if not self.members:
            raise InvalidInputError("a committee needs at least one member")
        self.merge()

    @property
    def dtype(self) -> np.dtype[Any]:
        """What the members compute in."""
        return self.members[0].dtype

    @property
    def loss(self) -> Loss:
        """What the members learn by."""
        loss = self.members[0].loss
        if loss is None:
            raise InvalidInputError("a committee's members must be compiled")
        return loss

    def merge(self) -> Sequential:
        """Make ``network`` anew from what the members have learned, and return it."""
        first = self.members[0]
        parts = [affine(member.layers) for member in self.members]
        self._check_size(parts[0])
        layers = _merged(parts)
        net = Sequential(
            [Dense(layer.kernel.shape[1], _alike(layer), layer.bias is not None) for layer in layers],
            seed=first.seed,
            dtype="float64" if first.dtype == np.float64 else "float32",
        )
        net.compile("sgd", self.loss)
        net.build(first.input_shape)
        for layer, whole in zip(net.layers, layers, strict=True):
            layer.parameters["kernel"][...] = whole.kernel
            if whole.bias is not None:
                layer.parameters["bias"][...] = whole.bias
            if isinstance(whole.activation, PReLU):
                layer.parameters["alpha"][...] = whole.activation.alpha
        net.training, net.examples = self.training, first.examples
        self.network = net
        return net

    def _check_size(self, layers: Sequence[Affine]) -> None:
        """Refuse members that would make something too large together."""
        count, last = len(self.members), len(layers) - 1
        times = [(count if place else 1) * (count if place < last else 1) for place in range(last + 1)]
        weights = sum(layer.kernel.size * n for layer, n in zip(layers, times, strict=True))
        size = weights * self.dtype.itemsize
        if size > _MOST_BYTES:
            units = "-".join(str(layer.kernel.shape[1]) for layer in layers[:-1])
            raise InvalidInputError(
                f"{count} members of {units} units make a network of {weights:,} weights together, {size / 1e6:,.0f} MB while it "
                f"is learned; at most {_MOST_BYTES / 1e6:,.0f} MB can be: take fewer members, or fewer units"
            )

    @property
    def training(self) -> dict[str, Any]:
        """The training record: that of the first member, but the means of all metrics, and the most epochs."""
        records = [member.training for member in self.members]
        if not all(records):
            return {}
        return {
            **records[0],
            "epochs": max(record["epochs"] for record in records),
            "members": len(records),
            "metrics": {
                split: {
                    name: float(np.mean([record["metrics"][split][name] for record in records]))
                    for name in names
                }
                for split, names in records[0]["metrics"].items()
            },
        }

    def predict(self, x: ArrayLike) -> NDArray[Any]:
        """Return what the members answer together: (rows, units)."""
        return self.network.predict(x)

    def get_weights(self) -> list[list[NDArray[Any]]]:
        """Return the weights of each member."""
        return [member.get_weights() for member in self.members]

    def set_weights(self, weights: Sequence[Sequence[ArrayLike]]) -> None:
        """Set the weights of each member, and merge them."""
        for member, given in zip(self.members, weights, strict=True):
            member.set_weights(given)
        self.merge()


def _merged(members: Sequence[Sequence[Affine]]) -> list[Affine]:
    """Return the layers of the whole, from those of each member."""
    layers = list(zip(*members, strict=True))
    return [
        _side_by_side(parts, first=place == 0, last=place == len(layers) - 1)
        for place, parts in enumerate(layers)
    ]


def _side_by_side(parts: Sequence[Affine], *, first: bool, last: bool) -> Affine:
    kernels = [part.kernel for part in parts]
    biases = [part.bias for part in parts if part.bias is not None]
    activation = parts[0].activation
    if first and last:
        kernel = np.mean(kernels, axis=0)
    elif first:
        kernel = np.hstack(kernels)
    elif last:
        kernel = np.vstack(kernels) / len(kernels)
    else:
        kernel = _diagonal(kernels)
    if isinstance(activation, PReLU):
        activation = copy.copy(activation)
        activation.alpha = np.concatenate([part.activation.alpha for part in parts])  # type: ignore[attr-defined]
    bias = None if not biases else np.mean(biases, axis=0) if last else np.concatenate(biases)
    return Affine(parts[0].name, kernel, bias, activation)


def _diagonal(kernels: Sequence[Float64]) -> Float64:
    """Return blocks along the diagonal, 0 elsewhere."""
    whole = np.zeros(np.sum([kernel.shape for kernel in kernels], axis=0))
    rows = columns = 0
    for kernel in kernels:
        height, width = kernel.shape
        whole[rows : rows + height, columns : columns + width] = kernel
        rows, columns = rows + height, columns + width
    return whole


def _alike(layer: Affine) -> Any:
    """Return an activation for another layer: one that learns anything is not shared."""
    return PReLU() if isinstance(layer.activation, PReLU) else layer.activation
