"""Callbacks: what happens beside the learning, at the ends of batches and epochs."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from tqdm import tqdm

from mariana.errors import InvalidInputError
from mariana.store import write_whole

from . import checks
from .buffers import Array
from .metrics import more_is_better

if TYPE_CHECKING:
    from .sequential import Sequential

Logs = Mapping[str, float]
"""Loss and metrics by name; those of the validation data begin with ``val_``."""


class Callback:
    """Does nothing; derive from it and override what is needed.

    Attributes:
        model: the network that learns; set ``model.stop_training = True`` to stop after the epoch.
        params: ``epochs``, ``steps`` of an epoch and ``verbose``.
    """

    model: Sequential
    params: dict[str, Any]

    def set_model(self, model: Sequential) -> None:
        """Take the network."""
        self.model = model

    def set_params(self, params: dict[str, Any]) -> None:
        """Take the numbers of epochs and steps."""
        self.params = params

    def on_train_begin(self) -> None:
        """Before the first epoch."""

    def on_train_end(self) -> None:
        """After the last epoch; not called when training fails."""

    def on_epoch_begin(self, epoch: int) -> None:
        """Before an epoch; they count from 0."""

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """After an epoch and its validation."""

    def on_train_batch_begin(self, batch: int) -> None:
        """Before a step; they count from 0 in each epoch."""

    def on_before_update(self, batch: int) -> None:
        """Within a step, when ``model.gradients`` are there and the optimizer has not used them up yet."""

    def on_train_batch_end(self, batch: int, logs: Logs) -> None:
        """After a step; logs holds the loss so far in this epoch."""

    def get_state(self) -> tuple[Any, dict[str, Array]]:
        """Return what must be remembered for a training to be resumed exactly: plain JSON, and arrays by name."""
        return None, {}

    def set_state(self, state: Any, arrays: Mapping[str, Array]) -> None:
        """Take what ``get_state`` returned, after ``on_train_begin``."""


class LambdaCallback(Callback):
    """Calls functions; the short way to a callback.

    Args:
        on_epoch_end: takes the epoch, from 0, and the logs.
        on_train_batch_end: takes the step of the epoch, from 0, and the logs.
    """

    def __init__(
        self,
        on_epoch_end: Callable[[int, Logs], object] | None = None,
        on_train_batch_end: Callable[[int, Logs], object] | None = None,
    ) -> None:
        self._epoch_end, self._batch_end = on_epoch_end, on_train_batch_end

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Call the function."""
        if self._epoch_end is not None:
            self._epoch_end(epoch, logs)

    def on_train_batch_end(self, batch: int, logs: Logs) -> None:
        """Call the function."""
        if self._batch_end is not None:
            self._batch_end(batch, logs)


class History(Callback):
    """Keeps the logs of all epochs; ``fit`` returns it.

    Attributes:
        epoch: numbers of the epochs.
        history: a list of one number an epoch for each name.
    """

    def __init__(self) -> None:
        self.epoch: list[int] = []
        self.history: dict[str, list[float]] = {}

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Append the logs."""
        self.epoch.append(epoch)
        for name, value in logs.items():
            self.history.setdefault(name, []).append(value)

    def get_state(self) -> tuple[Any, dict[str, Array]]:
        """Return all logs."""
        return {"epoch": self.epoch, "history": self.history}, {}

    def set_state(self, state: Any, arrays: Mapping[str, Array]) -> None:
        """Take all logs."""
        del arrays
        self.epoch, self.history = state["epoch"], state["history"]


class _Monitoring(Callback):
    """Watches a logged number; greater is better for the value that it returns."""

    monitor: str
    _best: float
    _wait: int

    def __init__(
        self, monitor: str, min_delta: float, patience: int, mode: Literal["auto", "min", "max"]
    ) -> None:
        name = type(self).__name__
        if mode not in ("auto", "min", "max"):
            raise InvalidInputError(f"{name}(mode={mode!r}): use auto, min or max")
        if not patience >= 0 or not 0 <= min_delta < math.inf:
            raise InvalidInputError(
                f"{name}: patience ({patience}) and min_delta ({min_delta}) must be 0 or more"
            )
        self.monitor = monitor
        self.min_delta = min_delta
        self.patience = patience
        self._sign = 1 if mode == "max" or (mode == "auto" and more_is_better(monitor)) else -1

    def _value(self, logs: Logs) -> float:
        if self.monitor not in logs:
            raise InvalidInputError(
                f"{type(self).__name__} monitors {self.monitor!r}, which is not measured; there are: {', '.join(logs)}. "
                "Names with val_ need validation_split or validation_data"
            )
        return self._sign * logs[self.monitor]

    def get_state(self) -> tuple[Any, dict[str, Array]]:
        """Return the best number so far, how long it has waited, and the like."""
        return {name: getattr(self, name) for name in self._remembered}, {}

    def set_state(self, state: Any, arrays: Mapping[str, Array]) -> None:
        """Take them."""
        del arrays
        for name, value in state.items():
            setattr(self, name, value)

    _remembered: tuple[str, ...] = ("_best", "_wait")


class EarlyStopping(_Monitoring):
    """Stops when a logged number has not improved for some epochs.

    Args:
        monitor: the name in the logs.
        min_delta: a smaller change is no improvement.
        patience: epochs without improvement before it stops.
        mode: whether smaller or greater is better; ``auto``: greater for accuracy, precision, recall, F1, AUC and R².
        restore_best_weights: give the network back the weights of its best epoch.

    Attributes:
        best_epoch: the epoch, from 0, of the best number.
        stopped_epoch: the epoch after which it stopped; 0 if it did not.
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        min_delta: float = 0.0,
        patience: int = 0,
        mode: Literal["auto", "min", "max"] = "auto",
        restore_best_weights: bool = False,
    ) -> None:
        super().__init__(monitor, min_delta, patience, mode)
        self.restore_best_weights = restore_best_weights

    def on_train_begin(self) -> None:
        """Forget the last training."""
        self.stopped_epoch = self.best_epoch = self._wait = 0
        self._best = -math.inf
        self._best_logs: Logs = {}
        self._weights = (self.model.parameters, self.model.state) if self.restore_best_weights else ()
        self._best_weights = [np.empty_like(weights) for weights in self._weights]

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Compare with the best epoch."""
        value = self._value(logs)
        if value - self.min_delta > self._best:
            self._best, self.best_epoch, self._best_logs, self._wait = value, epoch, dict(logs), 0
            for best, now in zip(self._best_weights, self._weights, strict=True):
                np.copyto(best, now)
            return
        self._wait += 1
        if self._wait >= self.patience and epoch > 0:
            self.stopped_epoch = epoch
            self.model.stop_training = True

    _remembered = ("_best", "_wait", "best_epoch", "stopped_epoch", "_best_logs")

    def get_state(self) -> tuple[Any, dict[str, Array]]:
        """Return what it remembers, the best weights too."""
        return super().get_state()[0], {str(i): best for i, best in enumerate(self._best_weights)}

    def set_state(self, state: Any, arrays: Mapping[str, Array]) -> None:
        """Take it."""
        super().set_state(state, arrays)
        for i, best in enumerate(self._best_weights):
            np.copyto(best, arrays[str(i)])

    def on_train_end(self) -> None:
        """Give the best weights back."""
        if self._weights and self._best_logs:
            for best, now in zip(self._best_weights, self._weights, strict=True):
                np.copyto(now, best)
            self.model.logs = dict(self._best_logs)


class ReduceLROnPlateau(_Monitoring):
    """Lowers the learning rate when a logged number has not improved for some epochs.

    Args:
        monitor: the name in the logs.
        factor: what the rate is multiplied by; above 0 and below 1.
        patience: epochs without improvement before it is lowered.
        mode: whether smaller or greater is better; ``auto``: as for ``EarlyStopping``.
        min_delta: a smaller change is no improvement.
        cooldown: epochs after a fall in which it does not wait yet.
        min_lr: the lowest rate.
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        factor: float = 0.1,
        patience: int = 10,
        *,
        mode: Literal["auto", "min", "max"] = "auto",
        min_delta: float = 1e-4,
        cooldown: int = 0,
        min_lr: float = 0.0,
    ) -> None:
        super().__init__(monitor, min_delta, patience, mode)
        self.factor = checks.number("factor", factor, 0, 1, above=True)
        self.cooldown = checks.whole_number("cooldown", cooldown, 0)
        self.min_lr = checks.number("min_lr", min_lr, 0)

    def on_train_begin(self) -> None:
        """Forget the last training."""
        self._best = -math.inf
        self._wait = self._cooling = 0

    _remembered = ("_best", "_wait", "_cooling")

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Compare with the best epoch."""
        del epoch
        value = self._value(logs)
        if self._cooling:
            self._cooling -= 1
            self._wait = 0
        if value - self.min_delta > self._best:
            self._best, self._wait = value, 0
        elif not self._cooling:
            self._wait += 1
            optimizer = self.model.optimizer
            if (
                self._wait >= self.patience
                and optimizer is not None
                and optimizer.learning_rate > self.min_lr
            ):
                optimizer.learning_rate = max(optimizer.learning_rate * self.factor, self.min_lr)
                self._cooling, self._wait = self.cooldown, 0


class LearningRateScheduler(Callback):
    """Sets the learning rate before each epoch.

    Args:
        schedule: takes the epoch, from 0, and the rate so far; returns the rate of the epoch, positive.
    """

    def __init__(self, schedule: Callable[[int, float], float]) -> None:
        self.schedule = schedule

    def on_epoch_begin(self, epoch: int) -> None:
        """Set the rate."""
        optimizer = self.model.optimizer
        if optimizer is not None:
            optimizer.learning_rate = self.schedule(epoch, optimizer.learning_rate)


class ModelCheckpoint(_Monitoring):
    """Saves the weights after each epoch, or after those that were the best so far (``Sequential.load_weights``).

    To resume a training exactly, use ``BackupAndRestore``: weights alone are not enough for that.

    Args:
        filepath: of the file, ending in ``.safetensors``; ``{epoch}`` (from 1) and names of the logs are filled in, for
            example ``net-{epoch:03d}-{val_loss:.3f}.safetensors``.
        monitor: the name in the logs that tells the best.
        save_best_only: whether only epochs are saved that were the best so far.
        mode: whether smaller or greater is better; ``auto``: as for ``EarlyStopping``.
    """

    def __init__(
        self,
        filepath: str | Path,
        monitor: str = "val_loss",
        save_best_only: bool = False,
        mode: Literal["auto", "min", "max"] = "auto",
    ) -> None:
        super().__init__(monitor, 0.0, 0, mode)
        self.filepath = str(filepath)
        if not self.filepath.endswith(".safetensors"):
            raise InvalidInputError(f"filepath is {self.filepath!r}: it must end in .safetensors")
        self.save_best_only = save_best_only

    def on_train_begin(self) -> None:
        """Forget the last training."""
        self._best, self._wait = -math.inf, 0

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Save."""
        if self.save_best_only:
            value = self._value(logs)
            if not value > self._best:
                return
            self._best = value
        try:
            path = self.filepath.format(epoch=epoch + 1, **logs)
        except (KeyError, ValueError, IndexError) as error:
            raise InvalidInputError(
                f"filepath {self.filepath!r} cannot be filled in: {error!r:.80}; there are: epoch, {', '.join(logs)}"
            ) from None
        self.model.save_weights(path)


class CSVLogger(Callback):
    """Writes a line an epoch to a CSV file: ``epoch`` (from 0) and the logs.

    Args:
        filename: of the file.
        separator: between the columns.
        append: whether lines are added to a file that is there, instead of writing it anew.
    """

    def __init__(self, filename: str | Path, separator: str = ",", append: bool = False) -> None:
        self.path, self.separator, self.append = Path(filename), separator, append
        self._lines: list[str] = []

    def on_train_begin(self) -> None:
        """Read what is there, if it is added to."""
        there = self.append and self.path.exists()
        self._lines = self.path.read_text(encoding="utf-8").splitlines() if there else []

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Add the line; the file is written whole."""
        if not self._lines:
            self._lines.append(self.separator.join(("epoch", *logs)))
        self._lines.append(self.separator.join((str(epoch), *(repr(float(v)) for v in logs.values()))))
        write_whole(self.path, ("\n".join(self._lines) + "\n").encode())

    def get_state(self) -> tuple[Any, dict[str, Array]]:
        """Return the lines."""
        return self._lines, {}

    def set_state(self, state: Any, arrays: Mapping[str, Array]) -> None:
        """Take the lines."""
        del arrays
        self._lines = state


class ProgressBar(Callback):
    """A bar on the terminal (stderr), with the time left and the loss."""

    def on_train_begin(self) -> None:
        """Draw the bar."""
        self._epoch = 0
        self._bar: tqdm[Any] = tqdm(
            total=self.params["epochs"] * self.params["steps"],
            unit="step",
            file=sys.stderr,
            dynamic_ncols=True,
        )

    def on_epoch_begin(self, epoch: int) -> None:
        """Name the epoch."""
        self._epoch = epoch
        self._bar.set_description(f"epoch {epoch + 1}/{self.params['epochs']}", refresh=False)

    def on_train_batch_end(self, batch: int, logs: Logs) -> None:
        """Move the bar, also over what a resumed training had done; tqdm draws at most ten times a second."""
        del logs
        self._bar.update(self._epoch * self.params["steps"] + batch + 1 - self._bar.n)

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Show loss and metrics."""
        del epoch
        self._bar.set_postfix_str(_text(logs), refresh=False)

    def on_train_end(self) -> None:
        """Leave the bar as it is."""
        self._bar.close()


class ProgressLines(Callback):
    """A line an epoch on stdout."""

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Write the line."""
        sys.stdout.write(f"epoch {epoch + 1}/{self.params['epochs']}  {_text(logs)}\n")
        sys.stdout.flush()


def progress(verbose: Literal["auto", 0, 1, 2]) -> list[Callback]:
    """Return the callback for ``verbose``: 0 silent, 1 bar, 2 lines, ``auto`` a bar on a terminal, lines elsewhere."""
    if verbose == "auto":
        verbose = 1 if sys.stderr.isatty() else 2
    if verbose not in (0, 1, 2):
        raise InvalidInputError(f"verbose is {verbose!r}: use 'auto', 0 (silent), 1 (a bar) or 2 (lines)")
    if verbose == 0:
        return []
    return [ProgressBar() if verbose == 1 else ProgressLines()]


def _text(logs: Logs) -> str:
    return "  ".join(f"{name} {value:.4f}" for name, value in logs.items())
