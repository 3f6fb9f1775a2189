"""A network that is taught, judged, asked, and exported.

How it is put together and where its weights lie is in ``network.py``; what a step computes in ``engine.py``, the loop of
the training in ``loop.py``.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from mariana.errors import InvalidInputError
from mariana.format import Feature, Label, TargetScaling
from mariana.store import Store

from . import backend, checks, data, losses, metrics, optimizers
from .augmentation import Augmentation
from .buffers import Array
from .callbacks import Callback, History, progress
from .checkpoints import BackupAndRestore
from .engine import Engine
from .layers import Input, Layer
from .loop import INFERENCE_ROWS, Measures, Samples, Training, measure
from .losses import Loss
from .metrics import Metric
from .network import Network
from .optimizers import Optimizer
from .threads import blas_threads

_EXAMPLES = 8
"""Rows of the training data that are kept, to become golden inputs of the model file."""


class Sequential(Network):
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
        super().__init__(layers, seed=seed, dtype=dtype)
        self.stop_training = False
        self.logs: dict[str, float] = {}
        self.loss: Loss | None = None
        self.optimizer: Optimizer | None = None
        self._metrics: tuple[tuple[str | Metric, bool], ...] = ()
        self._engine: Engine | None = None
        self._training_loop: Training | None = None
        self.training: dict[str, Any] = {}
        self.examples: Array = np.empty((0, 0), self.dtype)

    def build(self, input_shape: tuple[int, ...] | None = None) -> None:
        """Fix the shapes and draw the initial weights; ``fit`` and ``predict`` do it when it is needed.

        Args:
            input_shape: of one row; None: that of ``Input``.

        Raises:
            InvalidInputError: there is no layer that learns, the shape is not known, or the loss does not fit.
        """
        if self.built:
            return
        if self.loss is not None and self.layers:
            self._check_loss(self.loss)
        super().build(input_shape)
        self._start_engine()
        if self.optimizer is not None:
            self.optimizer.build(self.parameters, self._sizes())

    def _start_engine(self) -> None:
        self._engine = Engine(self.layers, self.dtype)
        self._engine.use(backend.chosen(self.dtype))

    def __getstate__(self) -> dict[str, Any]:
        """Everything but the arrays of steps; a copy learns on as this network would."""
        mine = self.optimizer is not None and self.optimizer.is_built_for(self.parameters)
        return {**super().__getstate__(), "_engine": None, "_training_loop": None, "_optimizer_is_mine": mine}

    def __setstate__(self, state: dict[str, Any]) -> None:
        mine = state.pop("_optimizer_is_mine")
        super().__setstate__(state)
        if self.built:
            self._start_engine()
        if mine and self.optimizer is not None:
            self.optimizer.belong_to(self.parameters)

    def set_weights(self, weights: Sequence[ArrayLike]) -> None:
        """Set all weights, in the order of ``get_weights``; an average of them begins anew.

        Raises:
            InvalidInputError: their number or shapes are not those of the network.
        """
        super().set_weights(weights)
        if self.optimizer is not None and self.optimizer.average is not None:
            self.optimizer.average.begin_anew()

    def compile(
        self,
        optimizer: str | Optimizer,
        loss: str | Loss | losses.Pair,
        metrics: Iterable[str | Metric] = (),
        weighted_metrics: Iterable[str | Metric] = (),
    ) -> None:
        """Choose how the network learns; the optimizer begins anew.

        Args:
            optimizer: a name or an instance.
            loss: a name, an instance, or a pair of functions (see ``CustomLoss``).
            metrics: names or instances; ``accuracy`` fits itself to the loss.
            weighted_metrics: the same, but the weights of the rows count.
        """
        for name, given in (("metrics", metrics), ("weighted_metrics", weighted_metrics)):
            if isinstance(given, str):
                raise InvalidInputError(f"{name} is {given!r}: expected a list, for example [{given!r}]")
        chosen = losses.get(loss)
        if self.layers:
            self._check_loss(chosen)
        self.optimizer = optimizers.get(optimizer)
        self.loss = chosen
        self._metrics = (*((m, False) for m in metrics), *((m, True) for m in weighted_metrics))
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
        validation_data: tuple[ArrayLike, ...] | None = None,
        shuffle: bool = True,
        class_weight: Mapping[int, float] | Literal["balanced"] | None = None,
        sample_weight: ArrayLike | None = None,
        steps_per_epoch: int | None = None,
        augmentations: Iterable[Augmentation] = (),
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
            validation_data: (x, y) or (x, y, sample_weight) to validate on instead.
            shuffle: whether the rows come in a new order in each epoch.
            class_weight: weight of each class index, 1 if it is not named; or ``balanced``: rare classes count as much as
                frequent ones. It multiplies ``sample_weight``.
            sample_weight: (rows,) weight of each row in the loss: 0 leaves it out, 2 counts it twice.
            steps_per_epoch: steps that make an epoch, with a validation at its end; the next epoch goes on where it
                stopped. None: an epoch is a pass over all rows.
            augmentations: change each batch before it is learned from, in this order.

        Returns:
            The logs of each epoch.

        Raises:
            InvalidInputError: something does not fit; the message says what.
            TrainingError: the loss is no longer finite; the message names epoch, step, layer and rows.
        """
        loss, optimizer = self._compiled()
        batch_size, epochs = (
            checks.whole_number("batch_size", batch_size),
            checks.whole_number("epochs", epochs),
        )
        if steps_per_epoch is not None:
            checks.whole_number("steps_per_epoch", steps_per_epoch)
        samples = self._samples(x, y, sample_weight)
        learn = data.split_rows(len(samples), validation_split)
        validation = _part(samples, slice(learn, None)) if learn < len(samples) else None
        if validation_data is not None:
            if len(validation_data) not in (2, 3):
                raise InvalidInputError(
                    "validation_data must be a pair (x, y), or a triple (x, y, sample_weight)"
                )
            validation = self._samples(*validation_data[:2], *validation_data[2:], prefix="validation ")
        samples = _part(samples, slice(learn))
        weights = data.class_weighted(
            samples.y, loss.kind(self.layers[-1].units), class_weight, samples.weights, self.dtype
        )
        samples = Samples(samples.x, samples.y, weights)
        loss.check_training(samples.y)
        self.examples = samples.x[:_EXAMPLES].copy()
        history = History()
        feed = data.Feed(learn, batch_size, shuffle=shuffle, rng=self._shuffling_rng)
        engine = self._built_engine()
        optimizer.check_built_for(self.parameters)
        engine.use(backend.chosen(self.dtype))
        called = _instances(Callback, [history, *progress(verbose), *(callbacks or ())])
        training = Training(
            net=self,
            engine=engine,
            loss=loss,
            optimizer=optimizer,
            feed=feed,
            samples=samples,
            measures=self._measures(),
            epochs=epochs,
            steps=feed.steps if steps_per_epoch is None else steps_per_epoch,
            whole_passes=steps_per_epoch is None,
            # what keeps checkpoints comes last: it keeps what the others remember
            callbacks=sorted(called, key=lambda callback: isinstance(callback, BackupAndRestore)),
            augmentations=_instances(Augmentation, augmentations),
            rng=self._augmenting_rng,
            config=optimizer.config(),  # now, because callbacks may change the learning rate
            validation=validation,
            validation_measures=self._measures(),
        )
        self._training_loop = training
        self.stop_training = False
        try:
            with blas_threads(self.parameters.size):
                for callback in training.callbacks:
                    callback.set_model(self)
                    callback.set_params({"epochs": epochs, "steps": training.steps, "verbose": verbose})
                for callback in training.callbacks:
                    callback.on_train_begin()
                training.run()
                for callback in training.callbacks:
                    callback.on_train_end()
        finally:
            training.engine.clear()
            self._training_loop = None
        self.training = {
            "rows": learn,
            "seed": self.seed,
            "epochs": self.training.get("epochs", 0) + len(history.epoch),
            "batch_size": batch_size,
            "backend": engine.backend.name,
            "loss": loss.name,
            "optimizer": training.config,
            "metrics": _by_split(self.logs),
        }
        return history

    @property
    def training_loop(self) -> Training:
        """The ``fit`` that runs; for callbacks.

        Raises:
            InvalidInputError: none runs.
        """
        if self._training_loop is None:
            raise InvalidInputError("the network is not being trained now")
        return self._training_loop

    def evaluate(
        self,
        x: ArrayLike,
        y: ArrayLike,
        batch_size: int | None = None,
        return_dict: bool = False,
        sample_weight: ArrayLike | None = None,
    ) -> float | list[float] | dict[str, float]:
        """Return the loss, or ``[loss, metrics...]`` if there are metrics, on data that is not learned from.

        Args:
            x: (rows, columns) or (rows, ...) finite numbers.
            y: targets, a row each.
            batch_size: rows at once; None: chosen for speed.
            return_dict: return all of them by name instead.
            sample_weight: (rows,) weight of each row in the loss and in the weighted metrics.
        """
        loss, _ = self._compiled()
        if batch_size is not None:
            checks.whole_number("batch_size", batch_size)
        samples = self._samples(x, y, sample_weight)
        with blas_threads(self.parameters.size):
            result = measure(self._built_engine(), samples, loss, self._measures(), batch_size)
        self._tidy()
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
        size = INFERENCE_ROWS if batch_size is None else checks.whole_number("batch_size", batch_size)
        engine = self._built_engine()
        result = np.empty((len(flat), self.layers[-1].units), self.dtype)
        with np.errstate(over="ignore", invalid="ignore"), blas_threads(self.parameters.size):
            for part in data.batches(len(flat), size):
                workspace = engine.workspace(part.stop - part.start)
                result[part] = engine.forward(flat[part], workspace, len(self.layers))
        self._tidy()
        return result

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

    def loss_and_gradients(self, x: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
        """Return the loss of one step of training and leave its gradients in ``gradients``; nothing is learned.

        What a step keeps or draws is put back, so that the next call sees the same moving statistics and drops the
        same inputs.
        """
        loss, _ = self._compiled()
        samples = self._samples(x, y, sample_weight)
        engine = self._built_engine()
        engine.use(backend.chosen(self.dtype))
        state = self.state.copy()
        generators = [layer.rng.bit_generator for layer in self.layers if layer.rng is not None]
        drawn = [generator.state for generator in generators]
        try:
            workspace = engine.workspace(len(samples))
            x = engine.entered(samples.x, workspace)
            value, _ = engine.forward_backward(x, samples.y, samples.weights, loss, workspace)
            return value
        finally:
            self._tidy()
            np.copyto(self.state, state)
            for generator, before in zip(generators, drawn, strict=True):
                generator.state = before

    @contextmanager
    def put_back(self) -> Iterator[None]:
        """Within this context the network may learn; after it all is as before: weights, optimizer, random numbers."""
        loss, optimizer = self._compiled()
        if not self.built:
            self.build()
        generators = [self._shuffling_rng, self._augmenting_rng, *(la.rng for la in self.layers if la.rng)]
        drawn = [generator.bit_generator.state for generator in generators]
        kept = self.parameters.copy(), self.state.copy(), dict(self.logs), dict(self.training)
        try:
            optimizer.check_built_for(self.parameters)
            self.optimizer = copy.deepcopy(optimizer)
            self.optimizer.belong_to(self.parameters)
            yield
        finally:
            self.optimizer, self.loss = optimizer, loss
            np.copyto(self.parameters, kept[0])
            np.copyto(self.state, kept[1])
            self.logs, self.training = kept[2], kept[3]
            for generator, before in zip(generators, drawn, strict=True):
                generator.bit_generator.state = before

    # What is checked before.

    def _measures(self) -> Measures:
        """Return the metrics by the names under which they were asked for."""
        units = self.layers[-1].units
        kind = self._compiled()[0].kind(units)
        found: dict[str, tuple[Metric, bool]] = {}
        for metric, weighted in self._metrics:
            name = metric if isinstance(metric, str) else metric.name
            if name in found:
                name = f"weighted_{name}"
            found[name] = metrics.get(copy.deepcopy(metric), kind, units), weighted
        return Measures(found)

    def _built_engine(self) -> Engine:
        if self._engine is None:
            self.build()
            return self._built_engine()
        return self._engine

    def _tidy(self) -> None:
        """Give the arrays of steps back, unless a training needs them again."""
        if self._engine is not None and self._training_loop is None:
            self._engine.clear()

    def _inputs(self, x: ArrayLike, name: str = "x") -> Array:
        flat, shape = data.rows(x, self.dtype, name)
        if not self.built:
            self.build(self.input_shape or shape)
        if flat.shape[1] != self.layers[0].inputs:
            raise InvalidInputError(
                f"{name} has {flat.shape[1]} columns, but the network takes {self.layers[0].inputs}; see its summary()"
            )
        return flat

    def _samples(
        self,
        x: ArrayLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        *,
        prefix: str = "",
    ) -> Samples:
        loss, _ = self._compiled()
        targets = data.as_array(y, f"{prefix}y")
        if targets.ndim == 0:
            raise InvalidInputError(f"{prefix}y is one value: expected one for each row")
        flat = self._inputs(x, f"{prefix}x")
        if len(flat) != len(targets):
            raise InvalidInputError(f"{prefix}x has {len(flat)} rows, but {prefix}y has {len(targets)}")
        checked = loss.targets(targets, self.layers[-1].units, self.dtype)
        return Samples(
            flat,
            checked,
            data.sample_weights(len(flat), self.dtype, sample_weight, f"{prefix}sample_weight"),
        )

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


_T = TypeVar("_T")


def _instances(base: type[_T], things: Iterable[object]) -> list[_T]:
    """Return the things as a list, if all are of that class."""
    found = []
    for thing in things:
        if not isinstance(thing, base):
            raise InvalidInputError(f"{thing!r:.80} is no {base.__name__}")
        found.append(thing)
    return found


def _part(samples: Samples, rows: slice) -> Samples:
    return Samples(
        samples.x[rows], samples.y[rows], None if samples.weights is None else samples.weights[rows]
    )


def _by_split(logs: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """Return logs as the training record wants them: train and validation apart."""
    splits: dict[str, dict[str, float]] = {}
    for name, value in logs.items():
        split, key = ("validation", name[4:]) if name.startswith("val_") else ("train", name)
        splits.setdefault(split, {})[key] = value
    return splits
