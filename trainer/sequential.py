"""A network: layers one after the other, and the loop that teaches it.

All parameters are views into one flat vector and all gradients into another, so that the optimizer, a copy of the
weights, or a gradient check is one operation on one array; what layers keep without learning it (the moving statistics
of a batch normalisation) are views into a third. All arrays of a step are made once per batch size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from mariana.errors import InvalidInputError, TrainingError
from mariana.format import Feature, Label, TargetScaling
from mariana.store import Store

from . import checks, data, losses, metrics, optimizers
from .buffers import Array, Buffers
from .callbacks import Callback, History, progress
from .layers import Input, Layer
from .losses import Loss
from .metrics import Metric
from .optimizers import Optimizer
from .threads import blas_threads

_INFERENCE_ROWS = 1024
"""Rows that predict and evaluate take at once when the caller does not say."""

_EXAMPLES = 8
"""Rows of the training data that are kept, to become golden inputs of the model file."""


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


class _Workspace:
    """The arrays of one batch size: inputs, targets, and for each layer its outputs and their gradients."""

    def __init__(self, rows: int, layers: Sequence[Layer], dtype: np.dtype[Any]) -> None:
        self.batch = Buffers(rows, dtype)
        self.layers = [Buffers(rows, dtype) for _ in layers]
        self.outputs = [
            buffers.get("output", layer.units) for buffers, layer in zip(self.layers, layers, strict=True)
        ]


@dataclass(frozen=True, slots=True)
class _Run:
    """What one call of ``fit`` or ``evaluate`` works with."""

    loss: Loss
    optimizer: Optimizer
    metrics: dict[str, Metric]
    callbacks: list[Callback] = field(default_factory=list)


def _diverged(what: str, epoch: int, step: int, steps: int) -> TrainingError:
    return TrainingError(
        f"{what} in epoch {epoch + 1}, step {step + 1} of {steps}: training diverged; use a lower learning rate, "
        "or scale the inputs to about -1 to 1"
    )


class Sequential:
    """Layers one after the other.

    Args:
        layers: the layers; an ``Input`` may come first, else the network is built when it first sees data.
        seed: of initial weights and shuffling; None draws one (see ``set_random_seed``). The same seed, data and
            versions give the same bytes.
        dtype: float32, or float64 to check gradients.

    Attributes:
        parameters: all weights and biases, one flat vector; empty until built.
        gradients: of the loss with respect to them, from the last step; the optimizer uses it up.
        state: what the layers keep without learning it, one flat vector.
        logs: loss and metrics of the last epoch, or of the epoch whose weights were restored.
        stop_training: set it in a callback to stop after the epoch.

    Example:
        >>> import numpy as np
        >>> from mariana.trainer import Dense, Sequential
        >>> x = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32)
        >>> net = Sequential([Dense(8, "tanh"), Dense(1, "sigmoid")], seed=0)
        >>> net.compile(optimizer="adam", loss="binary_crossentropy")
        >>> history = net.fit(x, np.array([0, 1, 1, 0]), epochs=500, verbose=0)
        >>> (net.predict(x) > 0.5).astype(int).ravel().tolist()
        [0, 1, 1, 0]
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
        weights, shuffling = np.random.SeedSequence(self.seed).spawn(2)
        self._weights_rng = np.random.default_rng(weights)
        self._shuffling_rng = np.random.default_rng(shuffling)
        self.layers: list[Layer] = []
        self.input_shape: tuple[int, ...] = ()
        self.parameters: Array = np.empty(0, self.dtype)
        self.gradients: Array = np.empty(0, self.dtype)
        self.state: Array = np.empty(0, self.dtype)
        self.stop_training = False
        self.logs: dict[str, float] = {}
        self.loss: Loss | None = None
        self.optimizer: Optimizer | None = None
        self._metrics: tuple[str | Metric, ...] = ()
        self._workspaces: dict[int, _Workspace] = {}
        self.training: dict[str, Any] = {}
        self.examples: Array = np.empty((0, 0), self.dtype)
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
        if self.loss is not None:
            self._check_loss(self.loss)
        counts: dict[str, int] = {}
        columns = Input(shape).columns
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
            layer.initialize(self._weights_rng)
        if self.optimizer is not None:
            self.optimizer.build(self.parameters, self._sizes())

    def compile(
        self, optimizer: str | Optimizer, loss: str | Loss, metrics: Iterable[str | Metric] = ()
    ) -> None:
        """Choose how the network learns; the optimizer begins anew.

        Args:
            optimizer: a name or an instance.
            loss: a name or an instance.
            metrics: names or instances; ``accuracy`` fits itself to the loss.
        """
        if isinstance(metrics, str):
            raise InvalidInputError(f"metrics is {metrics!r}: expected a list, for example [{metrics!r}]")
        chosen = losses.get(loss)
        if self.layers:
            self._check_loss(chosen)
        self.optimizer = optimizers.get(optimizer)
        self.loss = chosen
        self._metrics = tuple(metrics)
        if self.built:
            self.optimizer.build(self.parameters, self._sizes())

    def fit(
        self,
        x: ArrayLike,
        y: ArrayLike,
        batch_size: int = 32,
        epochs: int = 1,
        verbose: Literal["auto", 0, 1, 2] = "auto",
        callbacks: Iterable[Callback] | None = None,
        validation_split: float = 0.0,
        validation_data: tuple[ArrayLike, ArrayLike] | None = None,
        shuffle: bool = True,
    ) -> History:
        """Learn.

        Args:
            x: (rows, columns) or (rows, ...) finite numbers.
            y: targets, a row each, as the loss wants them.
            batch_size: rows of a step.
            epochs: times that all rows are seen.
            verbose: ``auto`` a bar on a terminal and lines elsewhere, 0 silent, 1 a bar, 2 lines.
            callbacks: called at the ends of batches and epochs.
            validation_split: share of the rows, the last ones as given, that are not learned from but validated on.
            validation_data: (x, y) to validate on instead.
            shuffle: whether the rows come in a new order in each epoch.

        Returns:
            The logs of each epoch.

        Raises:
            InvalidInputError: something does not fit; the message says what.
            TrainingError: the loss is no longer finite; the message names epoch and step.
        """
        loss, optimizer = self._compiled()
        batch_size, epochs = (
            checks.whole_number("batch_size", batch_size),
            checks.whole_number("epochs", epochs),
        )
        x, y = self._samples(x, y)
        learn = data.split_rows(len(x), validation_split)
        validation = (x[learn:], y[learn:]) if learn < len(x) else None
        if validation_data is not None:
            if len(validation_data) != 2:
                raise InvalidInputError("validation_data must be a pair (x, y)")
            validation = self._samples(*validation_data, "validation ")
        x, y = x[:learn], y[:learn]
        loss.check_training(y)
        self.examples = x[:_EXAMPLES].copy()
        history = History()
        run = _Run(loss, optimizer, self._measures(y), [history, *progress(verbose), *(callbacks or ())])
        slices = list(data.batches(learn, batch_size))
        config = optimizer.config()  # now, because callbacks may change the learning rate
        self._start(run, epochs=epochs, steps=len(slices), verbose=verbose)
        order = np.arange(learn)
        with blas_threads(self.parameters.size):
            for epoch in range(epochs):
                for callback in run.callbacks:
                    callback.on_epoch_begin(epoch)
                if shuffle:
                    self._shuffling_rng.shuffle(order)
                self.logs = self._epoch(run, x, y, order, slices, epoch)
                if validation is not None:
                    found = self._measure(*validation, run, None)
                    self.logs |= {f"val_{name}": value for name, value in found.items()}
                for callback in run.callbacks:
                    callback.on_epoch_end(epoch, self.logs)
                if self.stop_training:
                    break
        for callback in run.callbacks:
            callback.on_train_end()
        self._workspaces.clear()
        self.training = {
            "rows": learn,
            "seed": self.seed,
            "epochs": self.training.get("epochs", 0) + len(history.epoch),
            "batch_size": batch_size,
            "loss": loss.name,
            "optimizer": config,
            "metrics": _by_split(self.logs),
        }
        return history

    def evaluate(
        self, x: ArrayLike, y: ArrayLike, batch_size: int | None = None, return_dict: bool = False
    ) -> float | list[float] | dict[str, float]:
        """Return the loss, or ``[loss, metrics...]`` if there are metrics, on data that is not learned from.

        Args:
            x: (rows, columns) or (rows, ...) finite numbers.
            y: targets, a row each.
            batch_size: rows at once; None: chosen for speed.
            return_dict: return all of them by name instead.
        """
        loss, optimizer = self._compiled()
        x, y = self._samples(x, y)
        with blas_threads(self.parameters.size):
            result = self._measure(x, y, _Run(loss, optimizer, self._measures(y)), batch_size)
        self._workspaces.clear()
        if return_dict:
            return result
        return list(result.values()) if self._metrics else result["loss"]

    def predict(self, x: ArrayLike, batch_size: int | None = None) -> Array:
        """Return the outputs: x (rows, columns) -> (rows, units) of the network's dtype.

        Args:
            x: (rows, columns) or (rows, ...) finite numbers.
            batch_size: rows at once; None: chosen for speed.
        """
        flat = self._inputs(x)
        size = _INFERENCE_ROWS if batch_size is None else checks.whole_number("batch_size", batch_size)
        result = np.empty((len(flat), self.layers[-1].units), self.dtype)
        with np.errstate(over="ignore", invalid="ignore"), blas_threads(self.parameters.size):
            for part in data.batches(len(flat), size):
                workspace = self._workspace(part.stop - part.start)
                result[part] = self._forward(flat[part], workspace, len(self.layers))
        self._workspaces.clear()
        return result

    def summary(self, print_fn: Callable[[str], object] = print) -> None:
        """Print a table of the layers: output shape, parameters, bytes; ``?`` is not known before there is an input.

        Args:
            print_fn: takes each line.
        """
        if self.input_shape or not self.layers:
            self.build()
        table = [("layer", "output shape", "activation", "params", "bytes")]
        for layer in self.layers:
            size = (
                (f"{layer.count:,}", f"{layer.count * self.dtype.itemsize:,}") if self.built else ("?", "?")
            )
            name = f"{layer.name or layer.kind} ({type(layer).__name__})"
            table.append((name, f"(None, {layer.units or '?'})", layer.activation.name, *size))
        widths = [max(len(row[i]) for row in table) for i in range(5)]
        for number, row in enumerate(table):
            cells = [
                cell.ljust(w) if i < 3 else cell.rjust(w)
                for i, (cell, w) in enumerate(zip(row, widths, strict=True))
            ]
            print_fn("  ".join(cells))
            if not number:
                print_fn("  ".join("-" * w for w in widths))
        if not self.built:
            print_fn("total: ? parameters; the network is built when it first sees data")
            return
        count = self.parameters.size + self.state.size
        kept = f", {self.state.size:,} of them not learned" if self.state.size else ""
        print_fn(
            f"total: {count:,} parameters{kept}, {count * self.dtype.itemsize:,} bytes ({self.dtype}), "
            f"input {self.input_shape}"
        )

    def get_weights(self) -> list[Array]:
        """Return copies of all weights, layer by layer; after those that are learned, those that are only kept."""
        return [view.copy() for view in self._views()]

    def set_weights(self, weights: Sequence[ArrayLike]) -> None:
        """Set all weights, in the order of ``get_weights``.

        Raises:
            InvalidInputError: their number or shapes are not those of the network.
        """
        views = self._views()
        arrays = [np.asarray(weight) for weight in weights]
        if [a.shape for a in arrays] != [v.shape for v in views]:
            raise InvalidInputError(
                f"expected arrays of the shapes {[v.shape for v in views]}, found {[a.shape for a in arrays]}"
            )
        for view, array in zip(views, arrays, strict=True):
            np.copyto(view, array, casting="same_kind")

    def export(
        self,
        store: Store | str | Path,
        name: str,
        *,
        features: Sequence[Feature] | None = None,
        labels: Sequence[Label] | None = None,
        targets: Sequence[str] = (),
        input_shape: tuple[int, ...] | None = None,
        target_scaling: TargetScaling | None = None,
        examples: ArrayLike | None = None,
        record: Mapping[str, Any] | None = None,
    ) -> Path:
        """Publish the network as the next version of a model; see :func:`mariana.trainer.export.publish`."""
        from .export import publish  # noqa: PLC0415 - export reads networks, so it comes after them

        return publish(
            self,
            store,
            name,
            features=features,
            labels=labels,
            targets=targets,
            input_shape=input_shape,
            target_scaling=target_scaling,
            examples=examples,
            record=record,
        )

    def loss_and_gradients(self, x: ArrayLike, y: ArrayLike) -> float:
        """Return the loss of one step of training and leave its gradients in ``gradients``; nothing is learned.

        What a step keeps or draws is put back, so that the next call sees the same moving statistics and drops the
        same inputs.
        """
        loss, _ = self._compiled()
        flat, targets = self._samples(x, y)
        workspace = self._workspace(len(flat))
        state = self.state.copy()
        generators = [layer.rng.bit_generator for layer in self.layers if layer.rng is not None]
        drawn = [generator.state for generator in generators]
        try:
            return self._forward_backward(flat, targets, loss, workspace)
        finally:
            self._workspaces.clear()
            np.copyto(self.state, state)
            for generator, before in zip(generators, drawn, strict=True):
                generator.state = before

    # What one step consists of.

    def _forward(self, x: Array, workspace: _Workspace, activated: int, *, learning: bool = False) -> Array:
        """Run all layers; the first ``activated`` of them with their activation."""
        for number, layer in enumerate(self.layers):
            y = workspace.outputs[number]
            if learning:
                layer.learning_transform(x, y, workspace.layers[number])
            else:
                layer.transform(x, y)
            if number < activated:
                layer.activation.forward(y, workspace.layers[number])
            x = y
        return x

    def _activated(self, loss: Loss) -> int:
        """Return how many layers run their activation before the loss: all, or all but the last if that is fused."""
        return len(self.layers) - bool(loss.fuses)

    def _forward_backward(self, x: Array, targets: Array, loss: Loss, workspace: _Workspace) -> float:
        activated = self._activated(loss)
        outputs = self._forward(x, workspace, activated, learning=True)
        last = len(self.layers) - 1
        dy = workspace.layers[last].get("gradient", self.layers[last].units)
        value = loss.step(outputs, targets, dy, workspace.batch)
        for number in range(last, -1, -1):
            layer = self.layers[number]
            if number < activated:
                layer.activation.backward(workspace.outputs[number], dy, workspace.layers[number])
            if number:
                dx = workspace.layers[number - 1].get("gradient", layer.inputs)
                layer.gradients(workspace.outputs[number - 1], dy, dx, workspace.layers[number])
                dy = dx
            else:
                layer.gradients(x, dy, None, workspace.layers[number])
        return value

    def _epoch(
        self, run: _Run, x: Array, y: Array, order: Array, slices: list[slice], epoch: int
    ) -> dict[str, float]:
        totals = dict.fromkeys(("loss", *run.metrics), 0.0)
        logs = {"loss": 0.0}
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # the checks below tell of it
            for step, part in enumerate(slices):
                rows = part.stop - part.start
                workspace = self._workspace(rows)
                x_batch = workspace.batch.get("x", x.shape[1])
                y_batch = workspace.batch.get("y", y.shape[1], dtype=y.dtype)
                np.take(x, order[part], axis=0, out=x_batch, mode="clip")  # "raise" would buffer the output
                np.take(y, order[part], axis=0, out=y_batch, mode="clip")
                loss = self._forward_backward(x_batch, y_batch, run.loss, workspace)
                if not math.isfinite(loss):
                    raise _diverged(f"the loss is {loss}", epoch, step, len(slices))
                run.optimizer.update(self.parameters, self.gradients)
                totals["loss"] += loss * rows
                for name, metric in run.metrics.items():
                    totals[name] += metric.total(workspace.outputs[-1], y_batch, workspace.batch)
                logs["loss"] = totals["loss"] / part.stop
                for callback in run.callbacks:
                    callback.on_train_batch_end(step, logs)
        if not (np.isfinite(self.parameters).all() and np.isfinite(self.state).all()):
            raise _diverged("a weight is no longer finite", epoch, len(slices) - 1, len(slices))
        return {name: total / len(order) for name, total in totals.items()}

    def _measure(self, x: Array, y: Array, run: _Run, batch_size: int | None) -> dict[str, float]:
        size = _INFERENCE_ROWS if batch_size is None else checks.whole_number("batch_size", batch_size)
        totals = dict.fromkeys(("loss", *run.metrics), 0.0)
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # a loss may be infinite here
            for part in data.batches(len(x), size):
                workspace = self._workspace(part.stop - part.start)
                outputs = self._forward(x[part], workspace, self._activated(run.loss))
                totals["loss"] += run.loss.step(outputs, y[part], None, workspace.batch) * len(outputs)
                for name, metric in run.metrics.items():
                    totals[name] += metric.total(outputs, y[part], workspace.batch)
        return {name: total / len(x) for name, total in totals.items()}

    def _measures(self, targets: Array) -> dict[str, Metric]:
        """Return the metrics by the names under which they were asked for."""
        units = self.layers[-1].units
        return {
            metric if isinstance(metric, str) else metric.name: metrics.get(metric, targets, units)
            for metric in self._metrics
        }

    def _start(self, run: _Run, **params: Any) -> None:
        self.stop_training = False
        self._workspaces.clear()
        for callback in run.callbacks:
            if not isinstance(callback, Callback):
                raise InvalidInputError(f"{callback!r:.80} is no Callback")
            callback.set_model(self)
            callback.set_params(params)
        for callback in run.callbacks:
            callback.on_train_begin()

    # What is checked before.

    def _workspace(self, rows: int) -> _Workspace:
        if rows not in self._workspaces:
            self._workspaces[rows] = _Workspace(rows, self.layers, self.dtype)
        return self._workspaces[rows]

    def _inputs(self, x: ArrayLike, name: str = "x") -> Array:
        flat, shape = data.rows(x, self.dtype, name)
        if not self.built:
            self.build(self.input_shape or shape)
        if flat.shape[1] != self.layers[0].inputs:
            raise InvalidInputError(
                f"{name} has {flat.shape[1]} columns, but the network takes {self.layers[0].inputs}; see its summary()"
            )
        return flat

    def _samples(self, x: ArrayLike, y: ArrayLike, prefix: str = "") -> tuple[Array, Array]:
        loss, _ = self._compiled()
        targets = data.as_array(y, f"{prefix}y")
        if targets.ndim == 0:
            raise InvalidInputError(f"{prefix}y is one value: expected one for each row")
        flat = self._inputs(x, f"{prefix}x")
        if len(flat) != len(targets):
            raise InvalidInputError(f"{prefix}x has {len(flat)} rows, but {prefix}y has {len(targets)}")
        return flat, loss.targets(targets, self.layers[-1].units, self.dtype)

    def _compiled(self) -> tuple[Loss, Optimizer]:
        if self.loss is None or self.optimizer is None:
            raise InvalidInputError("call compile(optimizer=..., loss=...) first")
        return self.loss, self.optimizer

    def _check_loss(self, loss: Loss) -> None:
        wanted = "linear" if getattr(loss, "from_logits", False) else loss.fuses
        found = self.layers[-1].activation.name
        if wanted and found != wanted:
            raise InvalidInputError(
                f"loss {loss.name} needs {wanted} as the last activation, found {found}"
                + (" (from_logits=True)" if wanted == "linear" else "")
            )

    def _sizes(self) -> list[int]:
        """Return the sizes of the weight arrays in the flat vector of parameters, in its order."""
        return [view.size for layer in self.layers for view in layer.parameters.values()]

    def _views(self) -> list[Array]:
        if not self.built:
            self.build()
        return [
            view
            for layer in self.layers
            for part in (layer.parameters, layer.state)
            for view in part.values()
        ]


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


def _by_split(logs: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """Return logs as the training record wants them: train and validation apart."""
    splits: dict[str, dict[str, float]] = {}
    for name, value in logs.items():
        split, key = ("validation", name[4:]) if name.startswith("val_") else ("train", name)
        splits.setdefault(split, {})[key] = value
    return splits
