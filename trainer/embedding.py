"""Learned embeddings of columns with many categories: a few numbers a category in place of one column for each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mariana.errors import InvalidInputError
from mariana.format import Feature

from . import activations
from .buffers import Array, Buffers
from .layers import Layer

SIZE = 8
"""Numbers that stand for a category, as in RealMLP (arXiv 2407.04491)."""


class _Part(NamedTuple):
    """Columns of the input, and where they go: as they are, or through a matrix of that name."""

    source: slice
    target: slice
    matrix: str


class Embedding(Layer):
    """Maps the one-hot columns of each categorical feature with many categories to 8 learned numbers.

    Other columns pass. It stands first; at export it is folded into the Dense after it (one-hot x matrix x kernel), so that a
    served model knows nothing of it.

    Args:
        features: how raw columns were encoded.
        most: a feature of more categories than this is embedded.
    """

    kind = "embedding"

    def __init__(self, features: Sequence[Feature], most: int) -> None:
        self.activation = activations.get(None)
        self._parts: list[_Part] = []
        self._inputs = start = 0
        for number, feature in enumerate(features):
            embedded = feature.kind == "categorical" and feature.width > most
            width = SIZE if embedded else feature.width
            source, target = slice(start, start + feature.width), slice(self._inputs, self._inputs + width)
            before = self._parts[-1] if self._parts else None
            if not embedded and before is not None and not before.matrix:  # one copy for neighbours
                source, target = (
                    slice(before.source.start, source.stop),
                    slice(before.target.start, target.stop),
                )
                self._parts.pop()
            self._parts.append(_Part(source, target, f"embedding_{number}" if embedded else ""))
            start, self._inputs = start + feature.width, self._inputs + width
        self._inputs, self._outputs = start, self._inputs

    @staticmethod
    def needed(features: Sequence[Feature], most: int) -> bool:
        """Return whether a feature has more categories than ``most``."""
        return any(feature.kind == "categorical" and feature.width > most for feature in features)

    def width(self, inputs: int) -> int:
        """Return the number of output columns."""
        if inputs != self._inputs:
            raise InvalidInputError(f"the features make {self._inputs} columns, but the input has {inputs}")
        return self._outputs

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of each matrix: (categories, 8)."""
        return {
            part.matrix: (part.source.stop - part.source.start, SIZE) for part in self._parts if part.matrix
        }

    def initialize(self, rng: np.random.Generator) -> None:
        """Draw normal numbers of standard deviation 1/2."""
        for matrix in self.parameters.values():
            matrix[:] = rng.standard_normal(matrix.shape) / 2

    def transform(self, x: Array, y: Array) -> None:
        """Copy, or multiply by the matrices."""
        for part in self._parts:
            if part.matrix:
                np.matmul(x[:, part.source], self.parameters[part.matrix], out=y[:, part.target])
            else:
                np.copyto(y[:, part.target], x[:, part.source])

    def gradients(self, x: Array, dy: Array, dx: Array | None, buffers: Buffers) -> None:
        """``x.T @ dy`` for each matrix."""
        del buffers
        for part in self._parts:
            slope = dy[:, part.target]
            if part.matrix:
                np.matmul(x[:, part.source].T, slope, out=self.parameter_gradients[part.matrix])
            if dx is not None and part.matrix:
                np.matmul(slope, self.parameters[part.matrix].T, out=dx[:, part.source])
            elif dx is not None:
                np.copyto(dx[:, part.source], slope)

    def matrix(self) -> NDArray[np.float64]:
        """Return what the layer multiplies by: (inputs, units)."""
        whole = np.zeros((self._inputs, self._outputs))
        for part in self._parts:
            block = whole[part.source, part.target]
            block[:] = self.parameters[part.matrix] if part.matrix else np.eye(len(block))
        return whole
