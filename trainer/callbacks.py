"""Callbacks: what happens beside the learning, at the ends of batches and epochs."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from tqdm import tqdm

from mariana.errors import InvalidInputError

from . import checks

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

    def on_train_batch_end(self, batch: int, logs: Logs) -> None:
        """After a step; logs holds the loss so far in this epoch."""


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


class _Monitoring(Callback):
    """Watches a logged number; greater is better for the value that it returns."""

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
        self._sign = 1 if mode == "max" or (mode == "auto" and "acc" in monitor) else -1

    def _value(self, logs: Logs) -> float:
        if self.monitor not in logs:
            raise InvalidInputError(
                f"{type(self).__name__} monitors {self.monitor!r}, which is not measured; there are: {', '.join(logs)}. "
                "Names with val_ need validation_split or validation_data"
            )
        return self._sign * logs[self.monitor]


class EarlyStopping(_Monitoring):
    """Stops when a logged number has not improved for some epochs.

    Args:
        monitor: the name in the logs.
        min_delta: a smaller change is no improvement.
        patience: epochs without improvement before it stops.
        mode: whether smaller or greater is better; ``auto``: greater for an accuracy.
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
        mode: whether smaller or greater is better; ``auto``: greater for an accuracy.
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


class ProgressBar(Callback):
    """A bar on the terminal (stderr), with the time left and the loss."""

    def on_train_begin(self) -> None:
        """Draw the bar."""
        self._bar: tqdm[Any] = tqdm(
            total=self.params["epochs"] * self.params["steps"],
            unit="step",
            file=sys.stderr,
            dynamic_ncols=True,
        )

    def on_epoch_begin(self, epoch: int) -> None:
        """Name the epoch."""
        self._bar.set_description(f"epoch {epoch + 1}/{self.params['epochs']}", refresh=False)

    def on_train_batch_end(self, batch: int, logs: Logs) -> None:
        """Move the bar; tqdm draws at most ten times a second."""
        del batch, logs
        self._bar.update()

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
