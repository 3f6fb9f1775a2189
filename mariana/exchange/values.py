"""What a value of an ONNX graph is: an array, rows that something computes, or a refusal; and a node with its inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mariana.exchange.chain import Affine, Float64, Linear

MAX_REGION = 32
"""Operators that are looked at together; an activation takes ten at most."""


@dataclass(eq=False, slots=True)
class Node:
    """One computation on rows. A node without function begins a region of operators that work number by number."""

    where: str
    number: int
    width: int
    columns: tuple[str, ...] = ()
    """of the graph's input, where this is one"""
    shape: tuple[int, ...] = ()
    """of its rows, there"""
    parents: tuple[Node, ...] = ()
    function: Callable[..., Float64] | None = None
    affine: Affine | None = None
    linear: Linear | None = None
    softmax: bool = False


@dataclass(frozen=True, slots=True)
class Rows:
    """A value with rows: what computes it, and the shape of a row."""

    node: Node
    shape: tuple[int, ...]
    complement: bool = False
    """it is (1 - p, p) where the node gives p"""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A value that cannot be had, and why."""

    reason: str


Value = NDArray[Any] | Rows | Refusal | None


class RefusedError(Exception):
    """An operator that is not run here, or not in this way."""


@dataclass(slots=True)
class Call:
    """A node of the graph, with its inputs looked up."""

    operator: str
    where: str
    values: list[Value]
    attributes: dict[str, Any]
    opset: int
    results: int
    number: int

    def array(self, place: int) -> NDArray[Any]:
        """Return an input that is constant."""
        value = self.values[place] if place < len(self.values) else None
        if not isinstance(value, np.ndarray):
            raise RefusedError(f"its input {place} is not a constant")
        return value

    def rows(self, place: int = 0) -> Rows:
        """Return an input that has rows."""
        value = self.values[place] if place < len(self.values) else None
        if not isinstance(value, Rows) or value.complement:
            raise RefusedError(f"its input {place} does not come from the network's input")
        return value

    def optional(self, place: int) -> NDArray[Any] | None:
        """Return an input that is constant, or is not there."""
        return self.array(place) if place < len(self.values) and self.values[place] is not None else None

    def integers(self, place: int, attribute: str) -> list[int] | None:
        """Return what older graphs have as an attribute and newer ones as an input."""
        if attribute in self.attributes:
            return [int(i) for i in np.ravel(self.attributes[attribute])]
        found = self.optional(place)
        return None if found is None else [int(i) for i in found.ravel()]


def cuts(node: Node) -> Iterator[Node]:
    """Yield the nodes through which everything that `node` computes must pass, the nearest first."""
    if node.function is None:
        return
    pending = {parent.number: parent for parent in node.parents}
    for _ in range(MAX_REGION):
        last = pending.pop(max(pending))
        if not pending:
            yield last
        if last.function is None:
            return
        pending |= {parent.number: parent for parent in last.parents}


def evaluate(node: Node, cut: Node, given: Float64) -> Float64:
    """Return what `node` computes when `cut` has a value."""
    region = {node.number: node}
    pending = [node]
    while pending:
        for parent in pending.pop().parents:
            if parent is not cut and parent.number not in region:
                region[parent.number] = parent
                pending.append(parent)
    found = {cut: given}
    for number in sorted(region):
        current = region[number]
        assert current.function is not None  # noqa: S101 - nothing before a cut is visited
        found[current] = current.function(*(found[parent] for parent in current.parents))
    return found[node]


def short(thing: object) -> str:
    """Return a text from a file as it may stand in a message: one line, of 120 characters at most."""
    text = " ".join(str(thing).split())
    return text if len(text) <= 120 else text[:117] + "..."
