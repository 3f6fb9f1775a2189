"""How a table is learned: the choices, their defaults, and the networks that they make.

The command line, the estimators and the tuning all go through here, so that they mean the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mariana.errors import InvalidInputError
from mariana.format import Feature

from . import checks
from .activations import ACTIVATIONS
from .callbacks import Callback, EarlyStopping, History
from .committee import Committee
from .embedding import Embedding
from .layers import BatchNormalization, Dense, Dropout, Layer
from .losses import BinaryCrossentropy, Loss, MeanSquaredError, SparseCategoricalCrossentropy
from .optimizers import OPTIMIZERS, Optimizer
from .regularizers import L1L2
from .schedules import CosineDecay
from .sequential import Sequential

Outputs = Literal["binary", "classes", "labels", "numbers"]
"""What is predicted: one of two classes, one of several, labels that go together, numbers."""

SMALL = 1000
"""Rows below which a table counts as small: nothing of it is spared to stop early, and sums are in float64."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to learn a table; the defaults need no tuning. ``None`` means: chosen by the number of rows.

    Attributes:
        layers: units of each hidden layer; None: 128, 128 and 128, for tables of less than 1,000 rows one of 64.
        activation: of the hidden layers; smooth ones such as tanh do better on tables than relu.
        batch_norm: normalise the outputs of each hidden layer.
        dropout: share of the outputs of each hidden layer that a step leaves out.
        optimizer: a name.
        learning_rate: length of the first steps; None: 0.002 for numbers and small tables, 0.0007 for classes
            (RealMLP's defaults differ in the same direction).
        schedule: ``cosine``: the rate falls to 0 as half a cosine over all epochs; ``constant``.
        l1: penalty of the absolute weights.
        l2: penalty of the squared weights.
        weight_decay: share of the weights that each step takes away, times the learning rate.
        label_smoothing: how far the targets of classes are moved from 0 and 1 towards each other.
        batch_size: rows of a step.
        epochs: times that all rows are seen, at most.
        early_stopping: epochs without improvement of the validation loss before it stops; 0: never.
        embed: a column of more categories than this is embedded.
        members: networks that are learned, each from weights and an order of its own, and merged into one whose answer
            is their mean.
        seed: of weights, order and dropout.
    """

    layers: tuple[int, ...] | None = None
    activation: str = "tanh"
    batch_norm: bool = False
    dropout: float | None = None
    optimizer: str = "adam"
    learning_rate: float | None = None
    schedule: Literal["cosine", "constant"] = "cosine"
    l1: float = 0.0
    l2: float = 0.0
    weight_decay: float = 0.0
    label_smoothing: float = 0.0
    batch_size: int | None = None
    epochs: int | None = None
    early_stopping: int = 20
    embed: int = 64
    members: int = 4
    seed: int | None = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        for units in self.layers or ():
            checks.whole_number("units of a hidden layer", units)
        for name in ("batch_size", "epochs"):
            if getattr(self, name) is not None:
                checks.whole_number(name, getattr(self, name))
        checks.whole_number("members", self.members)
        for name in ("l1", "l2", "weight_decay"):
            checks.number(name, getattr(self, name), 0)
        checks.number("dropout", self.dropout or 0, 0, 1)
        checks.number("label_smoothing", self.label_smoothing, 0, 1)
        if self.learning_rate is not None:
            checks.number("learning_rate", self.learning_rate, 0, above=True)
        checks.whole_number("early_stopping", self.early_stopping, 0)
        for name, known in (
            ("activation", [a for a in ACTIVATIONS if a != "softmax"]),
            ("optimizer", OPTIMIZERS),
            ("schedule", ("cosine", "constant")),
        ):
            if getattr(self, name) not in known:
                raise InvalidInputError(
                    f"{name} is {getattr(self, name)!r:.60}: use one of {', '.join(known)}"
                )

    def settled(self, rows: int) -> Recipe:
        """Return the recipe with what depends on the number of rows filled in.

        Small batches for small tables, so that an epoch has steps enough, and epochs for about 4,000 steps, at least 40
        and at most 300.
        """
        size = min(max(rows // 64, 64), 256) if self.batch_size is None else self.batch_size
        size = min(size, rows)
        steps = math.ceil(rows / size)
        return replace(
            self,
            layers=((128, 128, 128) if rows >= SMALL else (64,)) if self.layers is None else self.layers,
            batch_size=size,
            epochs=min(max(math.ceil(4000 / steps), 40), 300) if self.epochs is None else self.epochs,
            dropout=(0.1 if rows >= SMALL else 0.0) if self.dropout is None else self.dropout,
        )

    def of_member(self, number: int) -> Recipe:
        """Return the recipe of one member, with a seed of its own; the first has that of the committee."""
        if self.seed is None or not number:
            return replace(self, members=1)
        drawn = np.random.SeedSequence([self.seed, number]).generate_state(1)
        return replace(self, members=1, seed=int(drawn[0]))


def build(recipe: Recipe, features: Iterable[Feature], outputs: Outputs, units: int, rows: int) -> Committee:
    """Return networks for a table, built and compiled, as many as the recipe says.

    Args:
        recipe: how to learn.
        features: how the columns become what the network sees.
        outputs: what is predicted.
        units: of the last layer: classes, labels or numbers; 1 for two classes.
        rows: that are learned from.
    """
    recipe, features = recipe.settled(rows), list(features)
    return Committee(
        _member(recipe.of_member(number), features, outputs, units, rows) for number in range(recipe.members)
    )


def _member(recipe: Recipe, features: list[Feature], outputs: Outputs, units: int, rows: int) -> Sequential:
    hidden: list[Layer] = (
        [Embedding(features, recipe.embed)] if Embedding.needed(features, recipe.embed) else []
    )
    penalty = L1L2(l1=recipe.l1, l2=recipe.l2) if recipe.l1 or recipe.l2 else None
    initial = "he_normal" if recipe.activation in _RECTIFIERS else "glorot_uniform"
    for width in recipe.layers or ():
        hidden.append(Dense(width, recipe.activation, kernel_initializer=initial, kernel_regularizer=penalty))
        if recipe.batch_norm:
            hidden.append(BatchNormalization(momentum=0.9))  # tables have few steps
        if recipe.dropout:
            hidden.append(Dropout(recipe.dropout))
    activation, loss = _ENDS[outputs]
    net = Sequential(
        [*hidden, Dense(units, activation, kernel_regularizer=penalty)],
        seed=recipe.seed,
        dtype="float32" if rows >= SMALL else "float64",
    )
    smoothing = {} if outputs == "numbers" else {"label_smoothing": recipe.label_smoothing}
    recipe = replace(recipe, learning_rate=first_rate(recipe, rows, classes=outputs != "numbers"))
    net.compile(_optimizer(recipe, rows), loss(**smoothing))
    net.build((sum(feature.width for feature in features),))
    return net


def first_rate(recipe: Recipe, rows: int, *, classes: bool) -> float:
    """Return the first learning rate of a recipe for so many rows."""
    if recipe.learning_rate is not None:
        return recipe.learning_rate
    return 0.0007 if classes and rows >= SMALL else 0.002


_RECTIFIERS = ("relu", "leaky_relu", "prelu", "elu", "gelu", "gelu_tanh", "silu")

_ENDS: dict[Outputs, tuple[str | None, type[Loss]]] = {
    "binary": ("sigmoid", BinaryCrossentropy),
    "classes": ("softmax", SparseCategoricalCrossentropy),
    "labels": ("sigmoid", BinaryCrossentropy),
    "numbers": (None, MeanSquaredError),
}
"""The last activation, and the loss."""


def learn(
    committee: Committee,
    recipe: Recipe,
    x: ArrayLike,
    y: ArrayLike,
    *,
    weights: NDArray[np.float64] | None = None,
    validation: tuple[Any, ...] | None = None,
    callbacks: Callable[[int], Iterable[Callback]] = lambda _: (),
    verbose: Literal["auto", 0, 1, 2] = 0,
) -> list[History]:
    """Fit the networks that :func:`build` made, and merge them.

    Each takes the weights of its best epoch where there is a validation split.

    Args:
        committee: the networks; they go on from their weights.
        recipe: how to learn.
        x: (rows, encoded columns).
        y: targets as the loss takes them.
        weights: (rows,) how much each row counts; scaled to a mean of 1. None: the same.
        validation: (x, y), or (x, y, weights), to validate on.
        callbacks: more of them, by the number of the member.
        verbose: as in ``Sequential.fit``.

    Returns:
        How it went, member by member.
    """
    rows = len(np.asarray(y))
    recipe = recipe.settled(rows)
    patience = recipe.early_stopping or recipe.epochs or 0
    histories = []
    for number, member in enumerate(committee.members):
        chosen = list(callbacks(number))
        if validation is not None:
            chosen.append(EarlyStopping(patience=patience, restore_best_weights=True))
        history = member.fit(
            x,
            y,
            batch_size=recipe.batch_size or rows,
            epochs=recipe.epochs or 1,
            verbose=verbose,
            callbacks=chosen,
            validation_data=validation,
            sample_weight=None if weights is None else weights * (len(weights) / weights.sum()),
        )
        histories.append(history)
    committee.merge()
    return histories


def _optimizer(recipe: Recipe, rows: int) -> Optimizer:
    rate = recipe.learning_rate or 0.001
    steps = math.ceil(rows / (recipe.batch_size or rows)) * (recipe.epochs or 1)
    falling = CosineDecay(rate, steps, alpha=0.001) if recipe.schedule == "cosine" else rate
    return OPTIMIZERS[recipe.optimizer](falling, weight_decay=recipe.weight_decay or None)
