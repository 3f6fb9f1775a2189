"""Plots of a training, with Matplotlib (``pip install 'mariana-serve[plots]'``).

Each function returns a ``matplotlib.figure.Figure``, which a notebook shows and ``figure.savefig("loss.png")`` writes.
Nothing is drawn on a screen and no global state is touched, so that they work on a server too.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from mariana.errors import InvalidInputError

from . import checks
from .buffers import Array
from .callbacks import Callback, History, Logs
from .diagnosis import Diagnosis, LearningRates

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def _figure(width: float, height: float, columns: int) -> tuple[Figure, list[Axes]]:
    """Return a figure with ``columns`` places side by side."""
    try:
        from matplotlib.figure import Figure as Made  # noqa: PLC0415 - an extra
    except ImportError:
        raise InvalidInputError("plots need Matplotlib: pip install 'mariana-serve[plots]'") from None
    figure = Made(figsize=(width * columns, height), layout="constrained")
    return figure, list(np.atleast_1d(figure.subplots(1, columns)))


def plot_history(history: History | Mapping[str, Sequence[float]]) -> Figure:
    """Draw loss and metrics over the epochs; the validation's is dashed.

    A validation loss that rises while the loss still falls tells of overfitting; two high ones of underfitting.

    Args:
        history: what ``fit`` returned, or its ``history``.
    """
    logs = history.history if isinstance(history, History) else history
    names = [name for name in logs if not name.startswith("val_")]
    if not names:
        raise InvalidInputError("the history is empty: train for an epoch first")
    figure, places = _figure(4.5, 3.2, len(names))
    for place, name in zip(places, names, strict=True):
        for key, label, style in ((name, "training", "-"), (f"val_{name}", "validation", "--")):
            if key in logs:
                place.plot(range(1, len(logs[key]) + 1), logs[key], style, label=label)
        place.set_xlabel("epoch")
        place.set_title(name)
        place.legend()
    return figure


def plot_confusion_matrix(
    y_true: ArrayLike, y_pred: ArrayLike, labels: Sequence[object] | None = None
) -> Figure:
    """Draw how often each class was taken for each other one; rows are the true classes.

    Args:
        y_true: (rows,) class indices.
        y_pred: (rows,) class indices, or (rows, classes) probabilities as ``predict`` gives them, or (rows, 1).
        labels: names of the classes.
    """
    counts = confusion_matrix(y_true, y_pred)
    names = [str(label) for label in (range(len(counts)) if labels is None else labels)]
    if len(names) != len(counts):
        raise InvalidInputError(f"there are {len(counts)} classes, but {len(names)} labels")
    figure, (place,) = _figure(max(4.0, 0.5 * len(counts) + 1.5), max(3.6, 0.5 * len(counts) + 1), 1)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    place.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(counts):
        if count:
            colour = "white" if shares[row, column] > 0.5 else "black"
            place.text(column, row, str(count), ha="center", va="center", color=colour)
    place.set_xticks(range(len(names)), names, rotation=45 if max(map(len, names)) > 3 else 0)
    place.set_yticks(range(len(names)), names)
    place.set_xlabel("predicted")
    place.set_ylabel("true")
    return figure


def confusion_matrix(y_true: ArrayLike, y_pred: ArrayLike) -> Array:
    """Return (classes, classes) counts: rows are the true classes, columns the predicted ones.

    Args:
        y_true: (rows,) class indices.
        y_pred: (rows,) class indices, or (rows, classes) probabilities, or (rows, 1): that of the second class.
    """
    true, predicted = np.asarray(y_true).reshape(-1), np.asarray(y_pred)
    if predicted.ndim == 2:
        classes = max(2, predicted.shape[1])
        predicted = predicted[:, 0] > 0.5 if predicted.shape[1] == 1 else predicted.argmax(axis=1)
    else:
        classes = 0
    if len(true) != len(predicted) or not len(true):
        raise InvalidInputError(f"y_true has {len(true)} rows, y_pred has {len(predicted)}")
    if (
        true.dtype.kind not in "biu"
        or predicted.dtype.kind not in "biu"
        or min(true.min(), predicted.min()) < 0
    ):
        raise InvalidInputError("classes must be whole numbers from 0 on")
    true, predicted = true.astype(np.int64), predicted.astype(np.int64)
    classes = max(classes, int(true.max()) + 1, int(predicted.max()) + 1)
    return np.bincount(true * classes + predicted, minlength=classes**2).reshape(classes, classes)


def plot_learning_rates(found: LearningRates) -> Figure:
    """Draw the loss over the rates that ``find_learning_rate`` tried, with its suggestion."""
    figure, (place,) = _figure(5, 3.2, 1)
    place.semilogx(found.rates, found.losses)
    place.axvline(found.suggestion, linestyle=":", label=f"suggestion {found.suggestion:.2g}")
    place.set_ylim(top=max(found.losses[0] * 1.5, float(found.losses.min()) * 2))
    place.set_xlabel("learning rate")
    place.set_ylabel("loss, smoothed")
    place.legend()
    return figure


def plot_health(diagnosis: Diagnosis) -> Figure:
    """Draw what a ``Diagnosis`` measured: for each layer its activations, gradients, updates and dead units."""
    if not diagnosis.epochs:
        raise InvalidInputError("the diagnosis is empty: give it to fit as a callback first")
    titles = {
        "activation": "activation (RMS)",
        "gradient": "gradient norm",
        "update": "update / weight (1e-3 is healthy)",
        "dead": "dead units",
    }
    figure, places = _figure(4, 3.2, len(titles))
    epochs = range(1, len(diagnosis.epochs) + 1)
    for place, (name, title) in zip(places, titles.items(), strict=True):
        for number, layer in enumerate(diagnosis.epochs[0]):
            values = [getattr(epoch[number], name) for epoch in diagnosis.epochs]
            draw = place.plot if name == "dead" or min(values) <= 0 else place.semilogy
            draw(epochs, values, label=layer.layer)
        place.set_title(title)
        place.set_xlabel("epoch")
    places[0].legend()
    return figure


class LivePlot(Callback):
    """Draws loss and metrics after each epoch, while the training runs: into a file, or into a notebook's cell.

    Args:
        path: of the picture (.png, .svg), written anew after each epoch; None: shown by IPython.
        every: epochs between two pictures.
    """

    def __init__(self, path: str | Path | None = None, every: int = 1) -> None:
        self.path = None if path is None else Path(path)
        self.every = checks.whole_number("every", every)
        self._history = History()

    def on_train_begin(self) -> None:
        """Forget the last training."""
        self._history = History()

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Draw."""
        self._history.on_epoch_end(epoch, logs)
        if (epoch + 1) % self.every:
            return
        figure = plot_history(self._history)
        if self.path is not None:
            temporary = self.path.with_name(f".{self.path.name}")
            figure.savefig(temporary, format=self.path.suffix.lstrip(".") or "png")
            temporary.replace(self.path)
            return
        try:
            display = importlib.import_module("IPython.display")  # there in notebooks
        except ImportError:
            raise InvalidInputError("LivePlot() needs a notebook; elsewhere give it a path") from None
        display.clear_output(wait=True)
        display.display(figure)

    def get_state(self) -> tuple[Any, dict[str, Array]]:
        """Return the logs so far."""
        return self._history.get_state()

    def set_state(self, state: Any, arrays: Mapping[str, Array]) -> None:
        """Take the logs."""
        self._history.set_state(state, arrays)
