"""From a table to a published model, step by step: split and understand it, build, teach, score, publish."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import DTypeLike, NDArray

from mariana import scratch
from mariana.errors import InvalidInputError
from mariana.format import Feature, TargetScaling
from mariana.store import Store
from mariana.tables import Table

from .calibration import apply_temperature, find_temperature, logits
from .callbacks import Callback
from .committee import Committee
from .data import batches, stratified_split
from .export import GOLDEN_ROWS
from .preprocessing import Numbers, Target, encode, infer_features, infer_target, target_scaling
from .recipe import Outputs, Recipe, build, learn
from .scores import classification_scores, regression_scores

Rows = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Prepared:
    """A table made ready to learn from.

    Attributes:
        table: without the rows that miss the target.
        column: the target's.
        target: what is to be predicted.
        features: how the columns become what the network sees.
        left_out: columns and rows not learned from, with the reason.
        raw: (rows, features), NaN where missing.
        scaling: of the target of a regression.
        splits: rows by ``train``, ``validation``, ``test``.
        weights: (rows,) how much each row counts in training; None: the same.
    """

    table: Table
    column: str
    target: Target
    features: list[Feature]
    left_out: list[tuple[str, str]]
    raw: NDArray[np.float64]
    scaling: TargetScaling | None
    splits: dict[str, Rows]
    weights: NDArray[np.float64] | None = None

    @property
    def outputs(self) -> tuple[Outputs, int]:
        """What the network predicts, and with how many units."""
        if self.scaling is not None:
            return "numbers", 1
        classes = len(self.target.labels)
        return ("binary", 1) if classes == 2 else ("classes", classes)

    def inputs(self, split: str, dtype: DTypeLike = np.float32) -> NDArray[Any]:
        """Return what the network sees of a split."""
        rows = self.splits[split]
        inputs = scratch.empty((len(rows), sum(feature.width for feature in self.features)), dtype)
        for part in batches(len(rows), scratch.CHUNK_ROWS):
            inputs[part] = encode(self.features, self.raw[rows[part]], dtype)
        return inputs

    def targets(self, split: str) -> NDArray[Any]:
        """Return what the network learns of a split: class indices, or standardised numbers."""
        y = self.target.y[self.splits[split]]
        return y if self.scaling is None else (y - self.scaling.shift[0]) / self.scaling.scale[0]


def prepare(
    table: Table,
    column: str,
    task: Literal["auto", "classification", "regression"],
    recipe: Recipe,
    *,
    validation: float = 0.1,
    test: float = 0.1,
    numbers: Numbers = "auto",
    class_weight: str = "none",
) -> Prepared:
    """Split a table, and choose how its columns become what the network sees; rows without a target are left out.

    Raises:
        InvalidInputError: there is nothing to learn, or nothing to learn from.
    """
    given = table.column(column)
    known = given.known()
    left_out = []
    if not known.all():
        left_out.append((column, f"{int((~known).sum())} rows without it"))
        table = table.take(np.flatnonzero(known))
        given = table.column(column)
    if not table.rows:
        raise InvalidInputError(f"column {column!r} of {table.name} has no value")
    target = infer_target(given, task)
    classes = target.y if target.task == "classification" else None
    rng = np.random.default_rng(recipe.seed)
    rest, tested = stratified_split(classes, table.rows, test, rng)
    share = min(validation / (1 - test), 0.9)
    first, second = stratified_split(None if classes is None else classes[rest], len(rest), share, rng)
    splits = {"train": rest[first], "validation": rest[second], "test": tested}
    others = [c for c in table.columns.values() if c.name != column]
    image = (
        len(table.input_shape) > 1
    )  # its columns are alike: what helps numbers of many kinds does not help them
    features, unusable = infer_features(others, splits["train"], "standard" if image else numbers)
    if not features:
        why = "; ".join(map(" ".join, unusable))
        raise InvalidInputError(
            f"{table.name} has no column to learn from besides {column!r}" + (f": {why}" if why else "")
        )
    scaling = target_scaling(target.y[splits["train"]]) if target.task == "regression" else None
    weights = None
    if class_weight == "balanced" and classes is not None:
        weights = balanced(classes, splits["train"], len(target.labels))
    raw = table.matrix(features)
    return Prepared(table, column, target, features, left_out + unusable, raw, scaling, splits, weights)


def balanced(classes: NDArray[np.int64], learn: Rows, count: int) -> NDArray[np.float64]:
    """Return weights (rows,) that make all classes count the same in the rows to learn from."""
    found = np.bincount(classes[learn], minlength=count)
    return np.asarray((len(learn) / count / np.maximum(found, 1))[classes])


def network(prepared: Prepared, recipe: Recipe) -> Committee:
    """Return networks for the table, built and compiled: one committee, which answers as one network."""
    outputs, units = prepared.outputs
    return build(recipe, prepared.features, outputs, units, len(prepared.splits["train"]))


def teach(
    net: Committee,
    prepared: Prepared,
    recipe: Recipe,
    verbose: Literal["auto", 0, 1, 2] = 0,
    callbacks: Callable[[int], Iterable[Callback]] = lambda _: (),
) -> float | None:
    """Fit the networks to the training split, and calibrate the whole on the validation split; return the temperature.

    Args:
        net: the networks.
        prepared: the table.
        recipe: how to learn.
        verbose: as in ``Sequential.fit``.
        callbacks: by the number of the member.
    """
    validation: tuple[Any, ...] | None = None
    learning = prepared.splits["train"]
    weights = prepared.weights
    if len(held := prepared.splits["validation"]):
        validation = (prepared.inputs("validation", net.dtype), prepared.targets("validation"))
        if weights is not None:
            validation = (*validation, weights[held])
    learn(
        net,
        recipe,
        prepared.inputs("train", net.dtype),
        prepared.targets("train"),
        weights=None if weights is None else weights[learning],
        validation=validation,
        callbacks=callbacks,
        verbose=verbose,
    )
    return calibrate(net, prepared)


def calibrate(net: Committee, prepared: Prepared) -> float | None:
    """Calibrate probabilities on the validation split; return the temperature, None where there is nothing to calibrate."""
    if not len(prepared.splits["validation"]) or prepared.scaling is not None or prepared.weights is not None:
        return None
    outputs = net.predict(prepared.inputs("validation", net.dtype))
    found = find_temperature(logits(outputs), prepared.targets("validation"))
    apply_temperature(net.network, found)
    return found


def scores(net: Committee, prepared: Prepared, split: str) -> dict[str, float]:
    """Return how well the network does on a split; values in the target's own unit."""
    outputs = net.predict(prepared.inputs(split, net.dtype))
    y = prepared.target.y[prepared.splits[split]]
    if prepared.scaling is None:
        return classification_scores(outputs, y)
    return regression_scores(outputs[:, 0] * prepared.scaling.scale[0] + prepared.scaling.shift[0], y)


def baseline(prepared: Prepared) -> dict[str, float]:
    """Return the scores on the test split of always giving the same answer: the shares of the classes, or the mean."""
    y = prepared.target.y[prepared.splits["test"]]
    seen = prepared.target.y[prepared.splits["train"]]
    if not len(y):
        return {}
    if prepared.scaling is None:
        shares = np.bincount(seen, minlength=len(prepared.target.labels)) / len(seen)
        return classification_scores(np.tile(shares, (len(y), 1)), y)
    return regression_scores(np.full(len(y), np.mean(seen)), y)


def publish(
    net: Committee,
    prepared: Prepared,
    metrics: dict[str, dict[str, float]],
    store: Store,
    name: str,
    temperature: float | None = None,
) -> Path:
    """Export what the networks make together, with everything that turns raw rows into predictions."""
    table = prepared.table
    flat = {"input_shape": table.input_shape} if len(prepared.features) == np.prod(table.input_shape) else {}
    return net.network.export(
        store,
        name,
        features=prepared.features,
        labels=prepared.target.labels,
        targets=[prepared.column],
        target_scaling=prepared.scaling,
        examples=prepared.raw[prepared.splits["train"][:GOLDEN_ROWS]],
        record={
            "data": table.name,
            "data_sha256": table.sha256,
            "metrics": metrics,
            "baseline": baseline(prepared),
            "split_rows": {split: len(rows) for split, rows in prepared.splits.items() if len(rows)},
            "class_rows": _class_rows(prepared),
            "left_out": dict(prepared.left_out),
            "temperature": temperature,
        },
        **flat,
    )


def _class_rows(prepared: Prepared) -> dict[str, int]:
    """Return how many rows of each class were learned from; of many classes, of none."""
    labels = prepared.target.labels
    if not labels or len(labels) > 100:
        return {}
    counts = np.bincount(prepared.target.y[prepared.splits["train"]], minlength=len(labels))
    return {str(label): int(count) for label, count in zip(labels, counts, strict=True)}
