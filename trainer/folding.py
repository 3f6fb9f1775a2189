"""From the layers of a network to those of the model file, which are all Dense with an activation.

An Activation is merged into the Dense before it; a Rescaling, and a BatchNormalization, which is affine once it is trained, into
a Dense beside it; Dropout does nothing to a prediction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from mariana.errors import InvalidInputError
from mariana.format import ActivationName, DenseLayer

from .activations import ActivationFunction, PReLU
from .embedding import Embedding
from .layers import Activation, BatchNormalization, Dense, Dropout, Flatten, GaussianNoise, Layer, Rescaling

Vector = NDArray[np.float64]


@dataclass(slots=True)
class Affine:
    """A Dense in the making, in float64: ``activation(x @ kernel + bias)``.

    Attributes:
        name: of the layer.
        kernel: (inputs, units).
        bias: (units,), or None.
        activation: of the outputs.
    """

    name: str
    kernel: NDArray[np.float64]
    bias: Vector | None
    activation: ActivationFunction


class _Folding:
    """The Dense layers so far, and what is affine and waits for the next one."""

    def __init__(self) -> None:
        self.layers: list[Affine] = []
        self.waiting: tuple[Layer, Vector, Vector] | None = None
        self.embedding: Embedding | None = None

    def dense(self, layer: Dense) -> None:
        """Append it; what waits is applied to its inputs: ``(x * a + c) @ k + b = x @ (a * k) + (c @ k + b)``."""
        kernel = layer.kernel.astype(np.float64)
        bias = None if layer.bias is None else layer.bias.astype(np.float64)
        if self.waiting is not None:
            _, factor, summand = self.waiting
            bias = summand @ kernel + (0 if bias is None else bias)
            kernel = factor[:, None] * kernel
            self.waiting = None
        if self.embedding is not None:
            kernel = self.embedding.matrix() @ kernel  # (x @ m) @ k = x @ (m @ k)
            self.embedding = None
        self.layers.append(Affine(layer.name, kernel, bias, layer.activation))

    def column_by_column(self, layer: BatchNormalization | Rescaling) -> None:
        """Apply it to the outputs of a linear Dense, ``(x @ k + b) * a + c``; else it waits."""
        factor, summand = layer.affine()
        if self.layers and self.layers[-1].activation.name == "linear":
            before = self.layers[-1]
            before.kernel = before.kernel * factor
            before.bias = summand if before.bias is None else before.bias * factor + summand
        elif self.waiting is not None:
            self.waiting = (layer, self.waiting[1] * factor, self.waiting[2] * factor + summand)
        else:
            self.waiting = (layer, factor, summand)

    def activation(self, layer: Activation) -> None:
        """Give it to the Dense before it."""
        if layer.activation.name == "linear":
            return
        self.check_nothing_waits()
        if not self.layers or self.layers[-1].activation.name != "linear":
            before = (
                f"{self.layers[-1].name!r} has the activation {self.layers[-1].activation.name} already"
                if self.layers
                else "there is none"
            )
            raise InvalidInputError(
                f"layer {layer.name!r} cannot be exported: it must follow a Dense without activation, but {before}"
            )
        self.layers[-1].activation = layer.activation

    def layer(self, layer: Layer, *, first: bool) -> None:
        """Append, merge or pass by a layer."""
        if isinstance(layer, Dense):
            self.dense(layer)
        elif isinstance(layer, BatchNormalization | Rescaling):
            self.column_by_column(layer)
        elif isinstance(layer, Embedding) and first:
            self.embedding = layer
        elif isinstance(layer, Activation):
            self.activation(layer)
        elif not isinstance(layer, Dropout | GaussianNoise | Flatten):
            raise InvalidInputError(f"layer {layer.name!r} ({type(layer).__name__}) cannot be exported")

    def check_nothing_waits(self) -> None:
        """Raise InvalidInputError if an embedding, a rescaling or a batch normalisation has found no Dense."""
        if self.embedding is not None:
            raise InvalidInputError(
                f"layer {self.embedding.name!r} cannot be exported: a Dense must follow it"
            )
        if self.waiting is not None:
            raise InvalidInputError(
                f"layer {self.waiting[0].name!r} cannot be exported: it must follow a Dense without activation, "
                "or stand before a Dense"
            )


def affine(layers: Sequence[Layer]) -> list[Affine]:
    """Return a network as Dense layers alone.

    Args:
        layers: of a network that is built.

    Raises:
        InvalidInputError: a layer cannot be merged; the message names it.
    """
    folding = _Folding()
    for place, layer in enumerate(layers):
        folding.layer(layer, first=place == 0)
    folding.check_nothing_waits()
    return folding.layers


def folded(layers: Sequence[Layer]) -> tuple[list[DenseLayer], dict[str, NDArray[np.float32]]]:
    """Return the layers of the model file and their tensors.

    Args:
        layers: of a network that is built.

    Raises:
        InvalidInputError: a layer cannot be merged; the message names it.
    """
    tensors: dict[str, NDArray[np.float32]] = {}
    found = [_finished(merged, tensors) for merged in affine(layers)]
    for exported in found[:-1]:
        if exported.activation == "softmax":
            raise InvalidInputError(
                f"layer {exported.name!r} cannot be exported: only the last layer can be softmax"
            )
    return found, tensors


def _finished(merged: Affine, tensors: dict[str, NDArray[np.float32]]) -> DenseLayer:
    """Return a layer of the model file, and add its tensors."""
    activation = merged.activation
    if not activation.exportable:
        raise InvalidInputError(
            f"layer {merged.name!r} cannot be exported: the model file does not know the activation "
            f"{activation.name!r}; it knows {', '.join(get_args(ActivationName))}"
        )
    tensors[f"{merged.name}.weight"] = merged.kernel.astype(np.float32)
    if merged.bias is not None:
        tensors[f"{merged.name}.bias"] = merged.bias.astype(np.float32)
    if isinstance(activation, PReLU):
        tensors[f"{merged.name}.slope"] = activation.alpha.astype(np.float32)
    return DenseLayer(
        name=merged.name,
        inputs=merged.kernel.shape[0],
        units=merged.kernel.shape[1],
        activation=activation.name,
        use_bias=merged.bias is not None,
        slope=next(iter(activation.config().values()), None),
    )
