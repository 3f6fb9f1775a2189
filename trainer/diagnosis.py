"""What goes wrong in a training, found and said in plain sentences.

``Diagnosis`` is a callback that measures the health of each layer; ``find_learning_rate`` looks for a good rate before
the training; and when the loss is no longer finite, the training stops with the step, the layer and the rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mariana.errors import InvalidInputError, TrainingError

from . import checks
from .buffers import Array
from .callbacks import Callback, Logs
from .layers import Layer

if TYPE_CHECKING:
    from .engine import Workspace
    from .loop import Training
    from .sequential import Sequential

_ADVICE = "use a lower learning rate, or scale the inputs to about -1 to 1"


def not_finite(training: Training, loss: float, workspace: Workspace) -> str:
    """Say in which step the loss was not finite, in which layer it began, and with which rows."""
    rows = training.rows
    where = "the loss itself"
    broken: Array = ~np.isfinite(workspace.batch.get("losses"))
    for layer, outputs in training.engine.outputs(workspace):
        wrong = np.asarray(~np.isfinite(outputs).all(axis=1))
        if not wrong.any():
            continue
        where, broken = f"layer {layer.name!r}", wrong
        weights = [name for name, view in layer.parameters.items() if not np.isfinite(view).all()]
        if weights:
            where += f", whose {' and '.join(weights)} the step before had made infinite"
        break
    if broken.all():
        which = "all rows of the batch"
    elif broken.any():
        found = np.sort(rows[broken])
        listed = ", ".join(map(str, found[:8])) + (", ..." if len(found) > 8 else "")
        which = f"row{'s' * (len(found) > 1)} {listed} of x"
    else:
        where, which = "the penalty on the weights", "no row"
    return (
        f"the loss is {loss} in epoch {training.epoch + 1}, step {training.step + 1} of {training.steps}: "
        f"training diverged; it began in {where}, with {which}; {_ADVICE}"
    )


def weights_not_finite(training: Training) -> str:
    """Say which weights were not finite at the end of an epoch."""
    layers = [
        f"{name!r} of layer {layer.name!r}"
        for layer in training.net.layers
        for name, view in (*layer.parameters.items(), *layer.state.items())
        if not np.isfinite(view).all()
    ]
    return (
        f"a weight is no longer finite ({layers[0]}) in epoch {training.epoch + 1}, step {training.step} of "
        f"{training.steps}: training diverged; {_ADVICE}"
    )


@dataclass(slots=True)
class LayerHealth:
    """What was measured of a layer in one epoch; means over the steps that were looked at.

    Attributes:
        layer: its name.
        activation: root of the mean square of its outputs.
        dead: share of its units that fired in no row that was looked at; only for ReLU and its kin.
        saturated: share of its outputs where the gradient vanishes; only for sigmoid and tanh.
        gradient: Euclidean norm of the gradient of its weights; 0 if it has none.
        weight: Euclidean norm of its weights.
        update: norm of what a step changes, divided by that of the weights: about 1e-3 is healthy.
    """

    layer: str
    activation: float = 0.0
    dead: float = 0.0
    saturated: float = 0.0
    gradient: float = 0.0
    weight: float = 0.0
    update: float = 0.0


@dataclass
class _Sums:
    """What is added up of a layer in an epoch."""

    steps: int = 0
    square: float = 0.0
    saturated: float = 0.0
    gradient: float = 0.0
    update: float = 0.0
    fired: NDArray[np.bool_] | None = None
    before: list[Array] = field(default_factory=list)


class Diagnosis(Callback):
    """Measures each layer's health in each epoch, and says in plain sentences what is wrong.

    Args:
        every: one step of so many is looked at; 10 costs a few percent of the time.
        print_fn: takes each new sentence; None: they are only kept.

    Attributes:
        epochs: for each epoch the health of each layer with an activation or weights, in their order.
        findings: the sentences of the last epoch.
    """

    def __init__(self, every: int = 10, print_fn: Any = None) -> None:
        self.every = checks.whole_number("every", every)
        self.print_fn = print_fn
        self.epochs: list[list[LayerHealth]] = []
        self.findings: list[str] = []

    def on_train_begin(self) -> None:
        """Forget the last training."""
        self.epochs, self.findings, self._said = [], [], set[str]()

    def on_epoch_begin(self, epoch: int) -> None:
        """Begin to add up."""
        del epoch
        self._sums = {layer.name: _Sums() for layer in self._layers()}

    def _layers(self) -> list[Layer]:
        return [la for la in self.model.layers if la.parameters or la.activation.name != "linear"]

    def on_before_update(self, batch: int) -> None:
        """Look at outputs and gradients, and keep the weights to see what the step changes."""
        if batch % self.every:
            return
        outputs = {layer.name: y for layer, y in self.model.training_loop.outputs()}
        for layer in self._layers():
            sums, y = self._sums[layer.name], outputs.get(layer.name)
            sums.steps += 1
            sums.gradient += _norm(layer.parameter_gradients.values())
            sums.before = [view.copy() for view in layer.parameters.values()]
            if y is None:
                continue
            sums.square += float(np.mean(np.square(y, dtype=np.float64)))
            if layer.activation.rectifies:
                fired = np.asarray((y > 0).any(axis=0))
                sums.fired = fired if sums.fired is None else sums.fired | fired
            if layer.activation.saturates:
                low, high = layer.activation.saturates
                edge = 0.03 * (high - low)
                sums.saturated += float(np.mean((y < low + edge) | (y > high - edge)))

    def on_train_batch_end(self, batch: int, logs: Logs) -> None:
        """Compare the weights with those before the step."""
        del logs
        if batch % self.every:
            return
        for layer in self._layers():
            sums = self._sums[layer.name]
            if not sums.before:
                continue
            views = list(layer.parameters.values())
            change = _norm([now - before for now, before in zip(views, sums.before, strict=True)])
            sums.update += change / max(_norm(sums.before), 1e-12)
            sums.before = []

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Make numbers and sentences of it."""
        del logs
        last = self.model.layers[-1]
        self.epochs.append(
            [
                LayerHealth(
                    layer=layer.name,
                    activation=math.sqrt(sums.square / sums.steps),
                    dead=0.0 if sums.fired is None else float(np.mean(~sums.fired)),
                    saturated=0.0 if layer is last else sums.saturated / sums.steps,
                    gradient=sums.gradient / sums.steps,
                    weight=_norm(layer.parameters.values()),
                    update=sums.update / sums.steps,
                )
                for layer, sums in ((layer, self._sums[layer.name]) for layer in self._layers())
                if sums.steps
            ]
        )
        self.findings = findings(self.epochs[-1])
        for sentence in self.findings:
            subject = sentence.partition(":")[0] + sentence.rpartition(";")[2]
            if self.print_fn is not None and subject not in self._said:
                self._said.add(subject)
                self.print_fn(f"epoch {epoch + 1}: {sentence}")

    def get_state(self) -> tuple[Any, dict[str, Array]]:
        """Return what was measured so far, in the epoch that runs too."""
        sums, arrays = {}, {}
        for name, part in self._sums.items():
            sums[name] = [part.steps, part.square, part.saturated, part.gradient, part.update]
            if part.fired is not None:
                arrays[name] = part.fired
        epochs = [[asdict(health) for health in epoch] for epoch in self.epochs]
        return {"epochs": epochs, "findings": self.findings, "said": sorted(self._said), "sums": sums}, arrays

    def set_state(self, state: Any, arrays: Mapping[str, Array]) -> None:
        """Take it."""
        self.epochs = [[LayerHealth(**health) for health in epoch] for epoch in state["epochs"]]
        self.findings, self._said = state["findings"], set(state["said"])
        self._sums = {name: _Sums(*sums) for name, sums in state["sums"].items()}
        for name, fired in arrays.items():
            self._sums[name].fired = fired


def _norm(arrays: Any) -> float:
    return math.sqrt(sum(float(np.einsum("i,i", a.ravel(), a.ravel(), dtype=np.float64)) for a in arrays))


def findings(layers: list[LayerHealth]) -> list[str]:
    """Return a sentence for each thing that is wrong with the layers of one epoch; none if all is well."""
    sentences = []
    learning = [health for health in layers if health.gradient > 0]
    top = learning[-1].gradient if learning else 0.0
    for health in layers:
        name = f"layer {health.layer!r}"
        if health.dead >= 0.4:
            sentences.append(
                f"{name}: {health.dead:.0%} of its units never fired; lower the learning rate, or use leaky_relu or elu"
            )
        if health.saturated >= 0.5:
            sentences.append(
                f"{name}: {health.saturated:.0%} of its outputs are saturated, where gradients vanish; scale the inputs "
                "to about -1 to 1, lower the learning rate, or use relu"
            )
        if health.gradient and health.gradient < 1e-4 * top:
            sentences.append(
                f"{name}: its gradient is {health.gradient / top:.0e} of that of the last layer, so it hardly learns; "
                "use relu with he_normal, batch normalisation, or fewer layers"
            )
        if health.gradient > 1e3:
            sentences.append(
                f"{name}: its gradient is {health.gradient:.0e} long; scale inputs and targets, or clip with "
                "global_clipnorm=1"
            )
        if health.update > 0.1:
            sentences.append(
                f"{name}: each step changes its weights by {health.update:.0%}; lower the learning rate"
            )
        elif 0 < health.update < 1e-6:
            sentences.append(
                f"{name}: each step changes its weights by {health.update:.0e} of themselves; raise the learning rate"
            )
    return sentences


@dataclass(frozen=True, slots=True)
class LearningRates:
    """What ``find_learning_rate`` saw.

    Attributes:
        rates: that were tried, rising.
        losses: after each, smoothed.
        suggestion: where the loss fell fastest; give it to the optimizer.
    """

    rates: NDArray[np.float64]
    losses: NDArray[np.float64]
    suggestion: float


class _Sweep(Callback):
    """Raises the rate from step to step, and stops when the loss has grown to four times its best."""

    def __init__(self, rates: NDArray[np.float64]) -> None:
        self.rates, self.losses = rates, list[float]()
        self._average = self._before = 0.0

    def on_train_batch_begin(self, batch: int) -> None:
        """Set the rate."""
        if self.model.optimizer is not None:
            self.model.optimizer.learning_rate = float(self.rates[batch])

    def on_train_batch_end(self, batch: int, logs: Logs) -> None:
        """Smooth the loss of the step."""
        total = logs["loss"] * (batch + 1)
        loss, self._before = total - self._before, total
        self._average = 0.9 * self._average + 0.1 * loss
        self.losses.append(self._average / (1 - 0.9 ** (batch + 1)))
        if batch > 10 and self.losses[-1] > 4 * min(self.losses):
            raise _Enough


class _Enough(Exception):  # noqa: N818 - no error: the sweep is over
    pass


def find_learning_rate(
    net: Sequential,
    x: ArrayLike,
    y: ArrayLike,
    *,
    low: float = 1e-6,
    high: float = 10.0,
    steps: int = 100,
    batch_size: int = 32,
) -> LearningRates:
    """Try rising learning rates, one a step, and return where the loss fell fastest (Smith, 2017).

    The network is left as it was: nothing is learned, and its optimizer has not moved.

    Args:
        net: a compiled network whose optimizer has a number as its rate, no schedule.
        x: rows to learn from.
        y: their targets.
        low: first rate; positive.
        high: last rate.
        steps: rates between them, evenly spaced on a logarithmic scale; at least 20.
        batch_size: rows of a step.

    Raises:
        InvalidInputError: the network is not compiled, or its rate follows a schedule.
    """
    checks.number("low", low, 0, above=True)
    checks.number("high", high, low, above=True)
    checks.whole_number("steps", steps, 20)
    sweep = _Sweep(np.geomspace(low, high, steps))
    if not net.built:
        net.predict(np.asarray(x)[:1])
    with net.put_back(), suppress(_Enough, TrainingError):
        net.fit(x, y, batch_size=batch_size, epochs=1, steps_per_epoch=steps, callbacks=[sweep], verbose=0)
    losses = np.array(sweep.losses)
    if len(losses) < 5:
        raise InvalidInputError(
            f"the loss was not finite at a rate of {low:g}: scale the inputs, or lower low"
        )
    rates = sweep.rates[: len(losses)]
    end = int(np.argmin(losses)) + 1
    slopes = np.gradient(losses[: max(end, 3)], np.log(rates[: max(end, 3)]))
    return LearningRates(rates, losses, float(rates[int(np.argmin(slopes))]))
