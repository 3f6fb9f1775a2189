"""Layers one after the other: how they are put together and built, what they look like, their weights out and in.

All parameters are views into one flat vector and all gradients into another, so that the optimizer, a copy of the
weights, or a gradient check is one operation on one array; what layers keep without learning it (the moving statistics
of a batch normalisation) are views into a third.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike

from mariana.errors import InvalidInputError

from . import checkpoints, checks
from .buffers import Array
from .layers import Input, Layer, Rescaling
from .summary import print_summary


class _Seeds:
    """Where networks without a seed of their own get one."""

    def __init__(self) -> None:
        self.rng = np.random.default_rng()

    def next(self) -> int:
        return int(self.rng.integers(1 << 31))


_SEEDS = _Seeds()


def set_random_seed(seed: int) -> None:
    """Make everything that is random from now on repeatable: networks made after this call draw their seeds from it."""
    _SEEDS.rng = np.random.default_rng(_seed(seed))


def _seed(seed: int) -> int:
    return checks.whole_number("seed", seed, 0)


class Network:
    """Layers that are built together; :class:`Sequential` teaches and asks them.

    Args:
        layers: the layers; an ``Input`` may come first, else the network is built when it first sees data.
        seed: of initial weights and shuffling; None draws one (see ``set_random_seed``).
        dtype: float32, or float64 to check gradients.
    """

    def __init__(
        self,
        layers: Iterable[Layer | Input] = (),
        *,
        seed: int | None = None,
        dtype: Literal["float32", "float64"] = "float32",
    ) -> None:
        if dtype not in ("float32", "float64"):
            raise InvalidInputError(f"dtype is {dtype!r}: use float32 or float64")
        self.dtype = np.dtype(dtype)
        self.seed = _SEEDS.next() if seed is None else _seed(seed)
        generators = [np.random.default_rng(seed) for seed in np.random.SeedSequence(self.seed).spawn(3)]
        self._weights_rng, self._shuffling_rng, self._augmenting_rng = generators
        self.layers: list[Layer] = []
        self.input_shape: tuple[int, ...] = ()
        self.parameters: Array = np.empty(0, self.dtype)
        self.gradients: Array = np.empty(0, self.dtype)
        self.state: Array = np.empty(0, self.dtype)
        for layer in layers:
            self.add(layer)

    def add(self, layer: Layer | Input) -> None:
        """Append a layer.

        Raises:
            InvalidInputError: the network is built already, or this is no layer.
        """
        if isinstance(layer, Input) and not self.layers and not self.input_shape:
            self.input_shape = layer.shape
            return
        if isinstance(layer, Input) or not isinstance(layer, Layer):
            raise InvalidInputError(
                f"{layer!r:.80} cannot stand here: expected a layer, or Input as the very first"
            )
        if self.built:
            raise InvalidInputError("the network is built already; add all layers before it sees data")
        if isinstance(layer, Rescaling) and self.layers:
            raise InvalidInputError(
                "Rescaling stands before all other layers: rows are rescaled when they come in"
            )
        if any(layer is other for other in self.layers):
            raise InvalidInputError("the same layer stands in the network twice; make a new one")
        self.layers.append(layer)

    @property
    def built(self) -> bool:
        """Whether the shapes are fixed and the weights are there."""
        return self.parameters.size > 0

    def build(self, input_shape: tuple[int, ...] | None = None) -> None:
        """Fix the shapes and draw the initial weights; ``fit`` and ``predict`` do it when it is needed.

        Args:
            input_shape: of one row; None: that of ``Input``.
        """
        if self.built:
            return
        shape = Input(input_shape).shape if input_shape is not None else self.input_shape
        if not shape:
            raise InvalidInputError(
                "the input's shape is not known yet: begin the network with Input(shape=...)"
            )
        self.input_shape = shape
        if not self.layers:
            raise InvalidInputError("the network has no layers")
        self._allocate()
        for layer in self.layers:
            layer.initialize(self._weights_rng)

    def _allocate(self) -> None:
        """Name the layers and give them their arrays, of zeros."""
        counts: dict[str, int] = {}
        columns = Input(self.input_shape).columns
        parameters, states = [], []
        for layer in self.layers:
            number = counts.get(layer.kind, 0)
            counts[layer.kind] = number + 1
            layer.name = f"{layer.kind}_{number}" if number else layer.kind
            parameters.append(layer.build(columns))
            states.append(layer.state_shapes())
            columns = layer.units
        if not any(parameters):
            raise InvalidInputError("the network has no parameters: add a Dense layer")
        self.parameters, weights = _carved(parameters, self.dtype)
        self.gradients, gradients = _carved(parameters, self.dtype)
        self.state, kept = _carved(states, self.dtype)
        for layer, *views in zip(self.layers, weights, gradients, kept, strict=True):
            layer.attach(*views)

    def __copy__(self) -> Self:
        """Copy deeply: two networks cannot share their layers, whose arrays are views into the vectors of one."""
        return copy.deepcopy(self)

    def __getstate__(self) -> dict[str, Any]:
        """The layers' arrays are views into flat vectors, which a copy would tear apart: only these travel."""
        return {**vars(self), "gradients": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        parameters, kept, self.gradients = self.parameters, self.state, np.empty(0, self.dtype)
        if self.built:
            self._allocate()
            np.copyto(self.parameters, parameters)
            np.copyto(self.state, kept)

    def summary(self, print_fn: Callable[[str], object] = print) -> None:
        """Print a table of the layers: output shape, parameters, bytes; ``?`` is not known before there is an input.

        Args:
            print_fn: takes each line.
        """
        if self.input_shape or not self.layers:
            self.build()
        print_summary(self, print_fn)

    def get_weights(self) -> list[Array]:
        """Return copies of all weights, layer by layer; after those that are learned, those that are only kept."""
        return [view.copy() for view in self._named_views().values()]

    def set_weights(self, weights: Sequence[ArrayLike]) -> None:
        """Set all weights, in the order of ``get_weights``.

        Raises:
            InvalidInputError: their number or shapes are not those of the network.
        """
        views = list(self._named_views().values())
        arrays = [np.asarray(weight) for weight in weights]
        if [a.shape for a in arrays] != [v.shape for v in views]:
            raise InvalidInputError(
                f"expected arrays of the shapes {[v.shape for v in views]}, found {[a.shape for a in arrays]}"
            )
        for view, array in zip(views, arrays, strict=True):
            np.copyto(view, array, casting="same_kind")

    def save_weights(self, path: str | Path) -> None:
        """Write all weights, those that are only kept too, to a safetensors file: ``dense/kernel``, ``dense/bias``, ...

        Raises:
            StoreError: the file cannot be written.
        """
        checkpoints.save(path, {}, self._named_views())

    def load_weights(self, path: str | Path) -> None:
        """Read what ``save_weights`` wrote.

        Raises:
            FileFormatError: the file is damaged.
            InvalidInputError: it belongs to another network.
        """
        views = self._named_views()
        _, arrays = checkpoints.load(path)
        mine, theirs = ({k: v.shape for k, v in named.items()} for named in (views, arrays))
        if mine != theirs:
            name = next(k for k in {**mine, **theirs} if mine.get(k) != theirs.get(k))
            raise InvalidInputError(
                f"{path} belongs to another network: {name} is {theirs.get(name)} there, {mine.get(name)} here"
            )
        self.set_weights([arrays[name] for name in views])

    def _sizes(self) -> dict[str, int]:
        """Return the sizes of the weight arrays in the flat vector of parameters, in its order, by name."""
        return {
            f"{layer.name}/{name}": view.size
            for layer in self.layers
            for name, view in layer.parameters.items()
        }

    def _named_views(self) -> dict[str, Array]:
        if not self.built:
            self.build()
        return {
            f"{layer.name}/{name}": view
            for layer in self.layers
            for part in (layer.parameters, layer.state)
            for name, view in part.items()
        }


def _carved(
    shapes: Sequence[Mapping[str, tuple[int, ...]]], dtype: np.dtype[Any]
) -> tuple[Array, list[dict[str, Array]]]:
    """Return one flat vector of zeros, and for each layer the views into it by name."""
    flat = np.zeros(sum(math.prod(shape) for part in shapes for shape in part.values()), dtype)
    views: list[dict[str, Array]] = []
    start = 0
    for part in shapes:
        views.append({})
        for name, shape in part.items():
            end = start + math.prod(shape)
            views[-1][name] = flat[start:end].reshape(shape)
            start = end
    return flat, views
