"""The loop that teaches a network: epochs of steps, and callbacks beside them.

All that decides how a training goes on is in :meth:`Training.state`: the weights (the raw ones, when an average of them
is shown), the optimizer's arrays and counts, every random generator, the place in the pass over the rows, what loss and
metrics have added up in the epoch, and what the callbacks remember. A training that takes this state ends with the same
bits as one that was never interrupted.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mariana.errors import TrainingError

from . import data, diagnosis
from .augmentation import Augmentation, Batch
from .backend import Call
from .buffers import Array, Buffers
from .callbacks import Callback
from .checkpoints import check_same
from .layers import Layer
from .losses import Loss, one_hot
from .metrics import Metric
from .optimizer import Optimizer

if TYPE_CHECKING:
    from .engine import Engine
    from .sequential import Sequential

INFERENCE_ROWS = 1024
"""Rows that predict and evaluate take at once when the caller does not say."""


@dataclass(frozen=True, slots=True)
class Samples:
    """Rows that were checked.

    Attributes:
        x: (rows, columns) of the network's dtype, or uint8.
        y: what the loss's ``targets`` returned.
        weights: (rows, 1), or None: all are 1.
    """

    x: Array
    y: Array
    weights: Array | None = None

    def __len__(self) -> int:
        return len(self.x)


class Gathered(NamedTuple):
    """The arrays of a batch size.

    Attributes:
        rows: numbers of its rows.
        x: the rows of that number; ``y`` and ``weights`` likewise.
        gathers: fill them from the rows.
    """

    rows: Array
    x: Array
    y: Array
    weights: Array | None
    gathers: Sequence[Call]


class Measures:
    """The loss and the metrics over an epoch or a data set.

    Args:
        metrics: by the names that they get in the logs; the flag says whether the weights of the rows count.
    """

    def __init__(self, metrics: Mapping[str, tuple[Metric, bool]]) -> None:
        self.metrics = metrics
        self.reset()

    def reset(self) -> None:
        """Forget all."""
        self.loss, self.rows = 0.0, 0
        for metric, _ in self.metrics.values():
            metric.reset()

    def add(
        self, loss: float, outputs: Array, targets: Array, weights: Array | None, buffers: Buffers
    ) -> None:
        """Add a batch: its mean loss, and outputs beside targets."""
        self.loss += loss * len(outputs)
        self.rows += len(outputs)
        for metric, weighted in self.metrics.values():
            metric.update(outputs, targets, weights if weighted else None, buffers)

    def logs(self) -> dict[str, float]:
        """Return loss and metrics by name."""
        found = {name: metric.result() for name, (metric, _) in self.metrics.items()}
        return {"loss": self.loss / max(self.rows, 1)} | found

    def state(self) -> tuple[dict[str, float], dict[str, Array]]:
        """Return what was added up."""
        arrays = {name: metric.state for name, (metric, _) in self.metrics.items()}
        return {"loss": self.loss, "rows": self.rows}, arrays

    def restore(self, numbers: Mapping[str, float], arrays: Mapping[str, Array]) -> None:
        """Go on from there."""
        self.loss, self.rows = numbers["loss"], int(numbers["rows"])
        for name, (metric, _) in self.metrics.items():
            metric.state = arrays[name].copy()


def measure(
    engine: Engine, samples: Samples, loss: Loss, measures: Measures, batch_size: int | None = None
) -> dict[str, float]:
    """Return loss and metrics on rows that are not learned from."""
    measures.reset()
    activated = engine.activated(loss)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # a loss may be infinite here
        for part in data.batches(len(samples), batch_size or INFERENCE_ROWS):
            workspace = engine.workspace(part.stop - part.start)
            y = samples.y[part]
            weights = None if samples.weights is None else samples.weights[part]
            outputs = engine.forward(samples.x[part], workspace, activated)
            value = engine.backend.loss(loss, outputs, y, None, workspace.batch, weights)()
            measures.add(value, outputs, y, weights, workspace.batch)
        measures.loss += engine.penalty() * measures.rows
        return measures.logs()


@dataclass
class Training:
    """One call of ``fit``.

    Attributes:
        net: the network.
        loss: what is made small.
        optimizer: what makes it small.
        feed: the order of the rows.
        samples: rows to learn from.
        measures: loss and metrics of the rows that are learned from.
        epochs: after which it ends.
        steps: of an epoch.
        whole_passes: whether an epoch is a pass over the rows; else the next one goes on where it stopped.
        callbacks: in the order in which they are called.
        augmentations: change each batch before it is learned from.
        rng: draws what the augmentations need.
        config: of the optimizer when the training began; callbacks may change its learning rate.
        validation: rows to validate on.
        validation_measures: their loss and metrics.
        epoch: that runs, from 0.
        step: of the epoch that comes next, from 0.
        rows: numbers of the rows of the last step.
    """

    net: Sequential
    engine: Engine
    loss: Loss
    optimizer: Optimizer
    feed: data.Feed
    samples: Samples
    measures: Measures
    epochs: int
    steps: int
    whole_passes: bool
    callbacks: Sequence[Callback]
    augmentations: Sequence[Augmentation]
    rng: np.random.Generator
    config: Mapping[str, Any]
    validation: Samples | None = None
    validation_measures: Measures | None = None
    epoch: int = 0
    step: int = 0
    rows: Array = field(default_factory=lambda: np.empty(0, np.int64))

    def __post_init__(self) -> None:
        self._before_steps, self._before_updates, self._after_steps = (
            [getattr(callback, hook) for callback in self.callbacks if _overrides(callback, hook)]
            for hook in ("on_train_batch_begin", "on_before_update", "on_train_batch_end")
        )
        self._mixes = any(augmentation.mixes for augmentation in self.augmentations)
        self._step_loss = self.loss.dense() if self._mixes else self.loss
        self._remembering = [callback for callback in self.callbacks if _overrides(callback, "get_state")]
        self._batches: dict[int, Gathered] = {}
        self._update = self.engine.backend.update(
            self.optimizer,
            self.net.parameters,
            self.net.gradients,
            [layer for layer in self.engine.layers if layer.constraints],
        )

    def run(self) -> None:
        """Learn until the last epoch is over or ``stop_training`` is set."""
        net, average = self.net, self.optimizer.average
        if average is not None:
            average.hide(net.parameters)
        while self.epoch < self.epochs and not net.stop_training:
            if not self.step:
                for callback in self.callbacks:
                    callback.on_epoch_begin(self.epoch)
                self.measures.reset()
                if self.whole_passes:
                    self.feed.new_pass()
            self._steps()
            net.logs = self.measures.logs()
            with self._averaged():
                if self.validation is not None and self.validation_measures is not None:
                    found = measure(self.engine, self.validation, self.loss, self.validation_measures)
                    net.logs |= {f"val_{name}": value for name, value in found.items()}
                self.epoch, self.step = self.epoch + 1, 0
                for callback in self.callbacks:
                    callback.on_epoch_end(self.epoch - 1, net.logs)
        if average is not None:
            average.show(net.parameters)

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        """Show the average of the weights, if there is one, to what validates and keeps them."""
        average = self.optimizer.average
        if average is not None:
            average.show(self.net.parameters)
        yield
        if average is not None:
            average.hide(self.net.parameters)

    def _steps(self) -> None:
        net, engine = self.net, self.engine
        logs = {"loss": 0.0}
        update = self._update
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # the checks below tell of it
            while self.step < self.steps:
                for hook in self._before_steps:
                    hook(self.step)
                self.rows = rows = self.feed.next()
                workspace = engine.workspace(len(rows))
                buffers = workspace.batch
                batch = self._batches.get(len(rows)) or self._batch(buffers)
                np.copyto(batch.rows, rows)
                for gather in batch.gathers:
                    gather()
                x, y, weights = batch.x, batch.y, batch.weights
                learned = y
                if self.augmentations:
                    learned = self._augment(x, y, buffers)
                loss, outputs = engine.forward_backward(x, learned, weights, self._step_loss, workspace)
                if not math.isfinite(loss):
                    raise TrainingError(diagnosis.not_finite(self, loss, workspace))
                for hook in self._before_updates:
                    hook(self.step)
                update()
                self.measures.add(loss, outputs, y, weights, buffers)
                self.step += 1
                if self._after_steps:
                    logs["loss"] = self.measures.loss / self.measures.rows
                    for hook in self._after_steps:
                        hook(self.step - 1, logs)
        if not (np.isfinite(net.parameters).all() and np.isfinite(net.state).all()):
            raise TrainingError(diagnosis.weights_not_finite(self))

    def _batch(self, buffers: Buffers) -> Gathered:
        """Return the arrays of a batch size, and what fills them."""
        samples, engine = self.samples, self.engine
        rows = buffers.get("rows", dtype=np.int64)
        gathers: list[Call] = []

        def gathered(table: Array, name: str) -> Array:
            out = buffers.get(name, *table.shape[1:], dtype=table.dtype)
            gathers.append(engine.backend.gather(table, rows, out))
            return out

        weights = None if samples.weights is None else gathered(samples.weights, "weights")
        x, y = buffers.get("x", samples.x.shape[1]), gathered(samples.y, "y")
        gathers.append(engine.gather(samples.x, rows, x))
        batch = self._batches[len(rows)] = Gathered(rows, x, y, weights, gathers)
        return batch

    def _augment(self, x: Array, y: Array, buffers: Buffers) -> Array:
        """Change the batch in place, and return the targets to learn from."""
        learned = y
        if self._mixes:
            units = self.engine.layers[-1].units
            learned = buffers.get("mixed", units)
            if y.shape[1] == units:
                np.copyto(learned, y)
            else:
                one_hot(y, learned)
        batch = Batch(x, learned, self.net.input_shape, self.rng, buffers)
        for augmentation in self.augmentations:
            augmentation.apply(batch)
        return learned

    def outputs(self) -> list[tuple[Layer, Array]]:
        """Return the layers that the last step ran, each with its outputs."""
        return self.engine.outputs(self.engine.workspace(len(self.rows)))

    def state(self) -> tuple[dict[str, Any], dict[str, Array]]:
        """Return what decides how the training goes on: a JSON document, and arrays by name."""
        net, optimizer = self.net, self.optimizer
        average = optimizer.average
        numbers, slots = optimizer.state()
        added, sums = self.measures.state()
        document: dict[str, Any] = {
            "fingerprint": self.fingerprint(),
            "epoch": self.epoch,
            "step": self.step,
            "stop_training": net.stop_training,
            "logs": net.logs,
            "feed": self.feed.state(),
            "augmentation": self.rng.bit_generator.state,
            "layers": [None if la.rng is None else la.rng.bit_generator.state for la in net.layers],
            "optimizer": numbers,
            "measures": added,
            "callbacks": [],
        }
        arrays = {
            "parameters": net.parameters if average is None else average.raw(net.parameters),
            "state": net.state,
            **{f"optimizer.{name}": slot for name, slot in slots.items()},
            **{f"measures.{name}": total for name, total in sums.items()},
        }
        for place, callback in enumerate(self._remembering):
            remembered, kept = callback.get_state()
            document["callbacks"].append([type(callback).__name__, remembered])
            arrays |= {f"callbacks.{place}.{name}": array for name, array in kept.items()}
        return document, arrays

    def restore(self, document: Mapping[str, Any], arrays: Mapping[str, Array]) -> None:
        """Go on from a state.

        Raises:
            InvalidInputError: it belongs to another network, other data or other arguments; the message says which.
        """
        check_same(self.fingerprint(), document["fingerprint"])
        net = self.net
        self.epoch, self.step = document["epoch"], document["step"]
        net.stop_training, net.logs = document["stop_training"], document["logs"]
        self.feed.restore(document["feed"])
        self.rng.bit_generator.state = document["augmentation"]
        for layer, drawn in zip(net.layers, document["layers"], strict=True):
            if layer.rng is not None:
                layer.rng.bit_generator.state = drawn
        np.copyto(net.parameters, arrays["parameters"])
        np.copyto(net.state, arrays["state"])
        self.optimizer.restore(document["optimizer"], _below("optimizer.", arrays))
        self.measures.restore(document["measures"], _below("measures.", arrays))
        for place, (callback, (_, remembered)) in enumerate(
            zip(self._remembering, document["callbacks"], strict=True)
        ):
            callback.set_state(remembered, _below(f"callbacks.{place}.", arrays))

    def fingerprint(self) -> dict[str, Any]:
        """Return what must be the same for a training to go on: network, data and arguments, as plain JSON."""
        return {
            "layers": [[layer.kind, layer.units, layer.activation.name] for layer in self.net.layers],
            "dtype": str(self.net.dtype),
            "backend": self.engine.backend.name,
            "seed": self.net.seed,
            "loss": self.loss.name,
            "optimizer": self.config,
            "rows": len(self.samples),
            "data": data.checksum(self.samples.x, self.samples.y),
            "batch_size": self.feed.batch_size,
            "steps": self.steps,
            "metrics": sorted(self.measures.metrics),
            "augmentations": [type(augmentation).__name__ for augmentation in self.augmentations],
            "callbacks": [type(callback).__name__ for callback in self._remembering],
        }


def _overrides(callback: Callback, hook: str) -> bool:
    return getattr(type(callback), hook) is not getattr(Callback, hook)


def _below(prefix: str, arrays: Mapping[str, Array]) -> dict[str, Array]:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
