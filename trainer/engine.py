"""What one step computes: the way forward through the layers, and the way back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from .backend import Backend, Call
from .buffers import Array, Buffers
from .layers import Layer, Rescaling
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
    """The arrays of one batch size: inputs, targets, and for each layer its outputs and their gradients.

    Attributes:
        batch: inputs, targets, and what belongs to no layer.
        layers: outputs and gradients of each layer.
        step: the step of training on these arrays.
        predictions: the calls of all layers but the lowest, by the number of layers that run their activation.
    """

    def __init__(self, rows: int, layers: Sequence[Layer], dtype: np.dtype[Any]) -> None:
        self.batch = Buffers(rows, dtype)
        self.layers = [Buffers(rows, dtype) for _ in layers]
        self.step: Step | None = None
        self.predictions: dict[int, list[Call]] = {}


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
        first = layers[0]
        self._rescaling = first if isinstance(first, Rescaling) else None
        self._regular = [layer for layer in layers if layer.regularizers]
        self._workspaces: dict[int, Workspace] = {}

    def use(self, backend: Backend) -> None:
        """Let a backend compute steps and predictions from now on."""
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

    def gather(self, table: Array, rows: Array | None, out: Array) -> Call:
        """Return what puts rows of a table into ``out`` as the layers take them: of the network's dtype, and rescaled.

        Args:
            table: (rows, columns) of the network's dtype, or uint8.
            rows: (batch,) numbers of its rows; None: its first ones.
            out: (batch, columns).
        """
        rescaling = self._rescaling
        if rescaling is None and rows is not None and table.dtype == out.dtype:
            return self.backend.gather(table, rows, out)
        scale, offset = (1.0, 0.0) if rescaling is None else (rescaling.scale, rescaling.offset)
        return self.backend.rescale(table, rows, out, scale, offset)

    def entered(self, x: Array, workspace: Workspace) -> Array:
        """Return rows as the layers take them; they are x itself if it is right already."""
        if self._rescaling is None and x.dtype == self.dtype:
            return x
        out = workspace.batch.get("x", x.shape[1])
        self.gather(x, None, out)()
        return out

    def forward(self, x: Array, workspace: Workspace, activated: int) -> Array:
        """Predict: run all layers, the first ``activated`` of them with their activation, and return the outputs."""
        plan = self._plans[False]
        # the lowest layer is bound each time: x is other rows of a table each time, which are not copied
        lowest = self._bind_prediction(plan[:1], self.entered(x, workspace), workspace, activated)
        above = workspace.predictions.get(activated)
        if above is None:
            y = self._output(workspace, *plan[0])
            above = workspace.predictions[activated] = self._bind_prediction(
                plan[1:], y, workspace, activated
            )
        for call in (*lowest, *above):
            call()
        return self._output(workspace, *plan[-1])

    def _bind_prediction(
        self, plan: Sequence[tuple[int, Layer]], x: Array, workspace: Workspace, activated: int
    ) -> list[Call]:
        """Return the prediction of some layers, one after the other."""
        calls: list[Call] = []
        for number, layer in plan:
            buffers, y = workspace.layers[number], self._output(workspace, number, layer)
            calls += self.backend.predict(layer, x, y, buffers, activated=number < activated)
            x = y
        return calls

    @staticmethod
    def _output(workspace: Workspace, number: int, layer: Layer) -> Array:
        return workspace.layers[number].get("output", layer.units)

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
            buffers, y = workspace.layers[number], self._output(workspace, number, layer)
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
            y = self._output(workspace, number, layer)
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
        return [(layer, self._output(workspace, number, layer)) for number, layer in self._plans[True]]
