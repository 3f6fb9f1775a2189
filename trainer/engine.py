"""What one step computes: the way forward through the layers, and the way back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from .backend import Backend, Call
from .buffers import Array, Buffers
from .layers import Layer
from .losses import Loss


class Step(NamedTuple):
    """The calls of a step of training, bound to their arrays.

    Attributes:
        bound: the arrays that are given from outside, and the loss: it is this step while they are the same objects.
        forward: from the inputs to what the loss takes.
        loss: the loss, which leaves its gradient.
        backward: from there to the gradients of all parameters.
        outputs: of the network.
    """

    bound: tuple[object, ...]
    forward: list[Call]
    loss: Callable[[], float]
    backward: list[Call]
    outputs: Array


class Workspace:
    """The arrays of one batch size: inputs, targets, and for each layer its outputs and their gradients."""

    def __init__(self, rows: int, layers: Sequence[Layer], dtype: np.dtype[Any]) -> None:
        self.batch = Buffers(rows, dtype)
        self.layers = [Buffers(rows, dtype) for _ in layers]
        self.step: Step | None = None


class Engine:
    """Runs the layers of a network that is built; all arrays of a step are made once per batch size.

    Args:
        layers: of the network.
        dtype: of all numbers.
    """

    def __init__(self, layers: Sequence[Layer], dtype: np.dtype[Any]) -> None:
        self.layers, self.dtype = layers, dtype
        self.backend = Backend()
        self._plans = {
            learning: [(i, layer) for i, layer in enumerate(layers) if not layer.idle(learning=learning)]
            for learning in (False, True)
        }
        # below the first layer with parameters nobody needs a gradient
        self._lowest = next(i for i, layer in enumerate(layers) if layer.parameters)
        self._regular = [layer for layer in layers if layer.regularizers]
        self._workspaces: dict[int, Workspace] = {}

    def use(self, backend: Backend) -> None:
        """Let a backend compute the steps of training from now on."""
        self.backend = backend
        self.clear()

    def workspace(self, rows: int) -> Workspace:
        """Return the arrays of that batch size."""
        workspace = self._workspaces.get(rows)
        if workspace is None:
            workspace = self._workspaces[rows] = Workspace(rows, self.layers, self.dtype)
        return workspace

    def clear(self) -> None:
        """Give the arrays back."""
        self._workspaces.clear()

    def forward(self, x: Array, workspace: Workspace, activated: int) -> Array:
        """Predict: run all layers, the first ``activated`` of them with their activation, and return the outputs."""
        for number, layer in self._plans[False]:
            buffers = workspace.layers[number]
            y = buffers.get("output", layer.units)
            layer.transform(x, y)
            if number < activated:
                layer.activation.forward(y, buffers)
            x = y
        return x

    def activated(self, loss: Loss) -> int:
        """Return how many layers run their activation before the loss: all, or all but the last if that is fused."""
        return len(self.layers) - bool(loss.fuses)

    def forward_backward(
        self, x: Array, targets: Array, weights: Array | None, loss: Loss, workspace: Workspace
    ) -> tuple[float, Array]:
        """Run a step of training but the update; return the loss and the outputs, and leave the gradients."""
        step = workspace.step
        given = (x, targets, weights, loss)
        if step is None or any(one is not other for one, other in zip(step.bound, given, strict=True)):
            step = workspace.step = self._bind(x, targets, weights, loss, workspace)
        for call in step.forward:
            call()
        value = step.loss()
        for call in step.backward:
            call()
        for layer in self._regular:
            value += layer.penalty(learning=True)
        return value, step.outputs

    def _bind(
        self, x: Array, targets: Array, weights: Array | None, loss: Loss, workspace: Workspace
    ) -> Step:
        """Return the step on these arrays."""
        backend, activated, plan = self.backend, self.activated(loss), self._plans[True]
        forward: list[Call] = []
        backward: list[Call] = []
        inputs = [x]
        for number, layer in plan:
            buffers = workspace.layers[number]
            y = buffers.get("output", layer.units)
            forward += backend.forward(layer, inputs[-1], y, buffers, activated=number < activated)
            inputs.append(y)
        outputs = inputs.pop()
        number, layer = plan[-1]
        dy = workspace.layers[number].get("gradient", layer.units)
        value = backend.loss(loss, outputs, targets, dy, workspace.batch, weights)
        for place in range(len(plan) - 1, -1, -1):
            number, layer = plan[place]
            buffers = workspace.layers[number]
            lowest = number == self._lowest
            dx = None if lowest else workspace.layers[plan[place - 1][0]].get("gradient", layer.inputs)
            y = buffers.get("output", layer.units)
            backward += backend.backward(
                layer, inputs[place], y, dy, dx, buffers, activated=number < activated
            )
            if dx is None:
                break
            dy = dx
        return Step((x, targets, weights, loss), forward, value, backward, outputs)

    def penalty(self) -> float:
        """Return what the regularizers add to the loss."""
        return sum(layer.penalty(learning=False) for layer in self._regular)

    def outputs(self, workspace: Workspace) -> list[tuple[Layer, Array]]:
        """Return the layers that the last step ran, each with its outputs."""
        return [
            (layer, workspace.layers[number].get("output", layer.units))
            for number, layer in self._plans[True]
        ]
