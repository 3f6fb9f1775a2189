"""What one step computes: the way forward through the layers, and the way back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .buffers import Array, Buffers
from .layers import Layer
from .losses import Loss


class Workspace:
    """The arrays of one batch size: inputs, targets, and for each layer its outputs and their gradients."""

    def __init__(self, rows: int, layers: Sequence[Layer], dtype: np.dtype[Any]) -> None:
        self.batch = Buffers(rows, dtype)
        self.layers = [Buffers(rows, dtype) for _ in layers]


class Engine:
    """Runs the layers of a network that is built; all arrays of a step are made once per batch size.

    Args:
        layers: of the network.
        dtype: of all numbers.
    """

    def __init__(self, layers: Sequence[Layer], dtype: np.dtype[Any]) -> None:
        self.layers, self.dtype = layers, dtype
        self._plans = {
            learning: [(i, layer) for i, layer in enumerate(layers) if not layer.idle(learning=learning)]
            for learning in (False, True)
        }
        # below the first layer with parameters nobody needs a gradient
        self._lowest = next(i for i, layer in enumerate(layers) if layer.parameters)
        self._regular = [layer for layer in layers if layer.regularizers]
        self._workspaces: dict[int, Workspace] = {}

    def workspace(self, rows: int) -> Workspace:
        """Return the arrays of that batch size."""
        workspace = self._workspaces.get(rows)
        if workspace is None:
            workspace = self._workspaces[rows] = Workspace(rows, self.layers, self.dtype)
        return workspace

    def clear(self) -> None:
        """Give the arrays back."""
        self._workspaces.clear()

    def forward(self, x: Array, workspace: Workspace, activated: int, *, learning: bool = False) -> Array:
        """Run all layers, the first ``activated`` of them with their activation, and return the last outputs."""
        for number, layer in self._plans[learning]:
            buffers = workspace.layers[number]
            y = buffers.get("output", layer.units)
            if learning:
                layer.learning_transform(x, y, buffers)
            else:
                layer.transform(x, y)
            if number < activated:
                (layer.activation.learning_forward if learning else layer.activation.forward)(y, buffers)
            x = y
        return x

    def activated(self, loss: Loss) -> int:
        """Return how many layers run their activation before the loss: all, or all but the last if that is fused."""
        return len(self.layers) - bool(loss.fuses)

    def forward_backward(
        self, x: Array, targets: Array, weights: Array | None, loss: Loss, workspace: Workspace
    ) -> tuple[float, Array]:
        """Run a step of training but the update; return the loss and the outputs, and leave the gradients."""
        activated = self.activated(loss)
        outputs = self.forward(x, workspace, activated, learning=True)
        plan = self._plans[True]
        number, layer = plan[-1]
        dy = workspace.layers[number].get("gradient", layer.units)
        value = loss.step(outputs, targets, dy, workspace.batch, weights)
        for place in range(len(plan) - 1, -1, -1):
            number, layer = plan[place]
            buffers = workspace.layers[number]
            if number < activated:
                layer.activation.backward(buffers.get("output", layer.units), dy, buffers)
            if number == self._lowest:
                below = workspace.layers[plan[place - 1][0]].get("output", layer.inputs) if place else x
                layer.gradients(below, dy, None, buffers)
                break
            beneath = workspace.layers[plan[place - 1][0]]
            dx = beneath.get("gradient", layer.inputs)
            layer.gradients(beneath.get("output", layer.inputs), dy, dx, buffers)
            dy = dx
        for layer in self._regular:
            value += layer.penalty(learning=True)
        return value, outputs

    def penalty(self) -> float:
        """Return what the regularizers add to the loss."""
        return sum(layer.penalty(learning=False) for layer in self._regular)

    def outputs(self, workspace: Workspace) -> list[tuple[Layer, Array]]:
        """Return the layers that the last step ran, each with its outputs."""
        return [
            (layer, workspace.layers[number].get("output", layer.units))
            for number, layer in self._plans[True]
        ]
