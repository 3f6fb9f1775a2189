"""``mariana train``: from a table to a published model."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import click
import numpy as np
from numpy.typing import DTypeLike, NDArray

from mariana.cli.options import json_option, settings, store_option
from mariana.cli.text import printable
from mariana.errors import InvalidInputError
from mariana.format import Feature, TargetScaling, read_model
from mariana.model_card import CARD_FILE, example_record
from mariana.store import Store, check_name
from mariana.tables import Table, read_table
from mariana.trainer import Sequential
from mariana.trainer.activations import ACTIVATIONS
from mariana.trainer.calibration import apply_temperature, find_temperature, logits
from mariana.trainer.callbacks import Callback
from mariana.trainer.data import stratified_split
from mariana.trainer.optimizers import OPTIMIZERS
from mariana.trainer.preprocessing import (
    Numbers,
    Target,
    encode,
    infer_features,
    infer_target,
    target_scaling,
)
from mariana.trainer.recipe import SMALL, Outputs, Recipe, build, learn
from mariana.trainer.scores import classification_scores, regression_scores

Rows = NDArray[np.int64]


class _Layers(click.ParamType[tuple[int, ...]]):
    name = "UNITS,..."

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        if not re.fullmatch(r"[1-9]\d{0,5}(,[1-9]\d{0,5}){0,31}", value):
            self.fail(
                f"{value!r:.60}: expected the units of each hidden layer, for example 128,64", param, ctx
            )
        return tuple(int(units) for units in value.split(","))


_DEFAULTS = Recipe()


def recipe_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say how to learn."""
    activations = [name for name in ACTIVATIONS if name not in ("softmax", "custom")]
    positive = click.FloatRange(0, min_open=True)
    options = [
        click.option(
            "--layers",
            type=_Layers(),
            default=",".join(map(str, _DEFAULTS.layers)),
            show_default=True,
            help="Units of each hidden layer.",
        ),
        click.option(
            "--activation",
            type=click.Choice(activations),
            default=_DEFAULTS.activation,
            show_default=True,
            help="Of the hidden layers.",
        ),
        click.option("--batch-norm", is_flag=True, help="Normalise the outputs of each hidden layer."),
        click.option(
            "--dropout",
            type=click.FloatRange(0, 1, max_open=True),
            help="Share of the outputs of each hidden layer that a step of training leaves out.  "
            f"[default: 0.1 from {SMALL:,} rows on, else 0]",
        ),
        click.option(
            "--optimizer", type=click.Choice(list(OPTIMIZERS)), default=_DEFAULTS.optimizer, show_default=True
        ),
        click.option(
            "--learning-rate",
            type=positive,
            help="Length of the first steps.  [default: 0.0007 for classes of 1,000 rows or more, else 0.002]",
        ),
        click.option(
            "--schedule",
            type=click.Choice(["cosine", "constant"]),
            default=_DEFAULTS.schedule,
            show_default=True,
            help="How the learning rate falls.",
        ),
        click.option("--l1", type=click.FloatRange(0), default=0.0, help="Penalty of the absolute weights."),
        click.option("--l2", type=click.FloatRange(0), default=0.0, help="Penalty of the squared weights."),
        click.option(
            "--weight-decay",
            type=click.FloatRange(0),
            default=0.0,
            help="Share of the weights a step takes away.",
        ),
        click.option(
            "--label-smoothing",
            type=click.FloatRange(0, 1, max_open=True),
            default=_DEFAULTS.label_smoothing,
            help="How far the targets of classes are moved from 0 and 1.",
        ),
        click.option(
            "--class-weight",
            type=click.Choice(["none", "balanced"]),
            default="none",
            show_default=True,
            help="balanced: rare classes count as much as frequent ones; probabilities are then not calibrated.",
        ),
        click.option(
            "--numbers",
            type=click.Choice(["auto", "standard"]),
            default="auto",
            show_default=True,
            help="auto: robust and piecewise linear; standard: mean 0 and variance 1.",
        ),
        click.option(
            "--batch-size",
            type=click.IntRange(min=1),
            help="Rows of a step.  [default: 64 to 256, by the rows]",
        ),
        click.option(
            "--epochs", type=click.IntRange(min=1), help="At most.  [default: 40 to 300, by the rows]"
        ),
        click.option(
            "--early-stopping",
            type=click.IntRange(min=0),
            default=_DEFAULTS.early_stopping,
            show_default=True,
            help="Epochs without improvement before it stops; 0: never.",
        ),
        click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True),
    ]
    for option in reversed(options):
        command = option(command)
    return command


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
        return encode(self.features, self.raw[self.splits[split]], dtype)

    def targets(self, split: str) -> NDArray[Any]:
        """Return what the network learns of a split: class indices, or standardised numbers."""
        y = self.target.y[self.splits[split]]
        return y if self.scaling is None else (y - self.scaling.shift[0]) / self.scaling.scale[0]


@click.command()
@click.argument("data")
@click.option("--target", required=True, help="Column to predict.")
@click.option("--name", help="Name of the model.  [default: from the file's name]")
@store_option
@click.option(
    "--task", type=click.Choice(["auto", "classification", "regression"]), default="auto", show_default=True
)
@recipe_options
@click.option(
    "--validation",
    type=click.FloatRange(0, 0.9),
    default=0.1,
    show_default=True,
    help="Share of the rows that decides when to stop, and calibrates.",
)
@click.option(
    "--test",
    type=click.FloatRange(0, 0.9),
    default=0.1,
    show_default=True,
    help="Share of the rows kept aside for the final score.",
)
@json_option
def train(
    data: str,
    target: str,
    name: str | None,
    store: Path | None,
    task: Literal["auto", "classification", "regression"],
    as_json: bool,
    **options: Any,
) -> None:
    """Learn to predict a column of a table, and publish the network.

    DATA is a .csv[.gz], .tsv[.gz], .parquet or .npz (arrays x, y) file, or a bundled table: iris, digits. Columns of
    numbers, booleans and texts are understood; missing values may be empty, NA or the like.

    \b
    Example:
      mariana train iris --target species
      mariana train houses.csv --target price --layers 256,128 --epochs 200
      mariana train digits --target y --name digits-plain
    """
    chosen = {name: options.pop(name) for name in ("validation", "test", "numbers", "class_weight")}
    recipe = Recipe(**options)
    table = read_table(data)
    name = check_name(_model_name(table.name) if name is None else name)
    prepared = prepare(table, target, task, recipe, **chosen)
    say = (lambda _: None) if as_json else click.echo
    say(_described(prepared))
    net = network(prepared, recipe)
    net.summary(print_fn=say)
    temperature = teach(net, prepared, recipe, verbose=0 if as_json else "auto")
    metrics = {split: scores(net, prepared, split) for split, rows in prepared.splits.items() if len(rows)}
    published = Store(settings(store=store).store)
    path = publish(net, prepared, metrics, published, name, temperature)
    version = int(path.parent.name)
    if as_json:
        rows = {split: len(rows) for split, rows in prepared.splits.items()}
        document = {
            "model": name,
            "version": version,
            "path": str(path),
            "task": prepared.target.task,
            "rows": rows,
            "epochs": net.training["epochs"],
            "metrics": metrics,
            "left_out": dict(prepared.left_out),
        }
        click.echo(json.dumps(document))
        return
    click.echo(_score_table(metrics))
    click.echo(f"published {name} version {version}: {path}")
    click.echo(f"its model card: {path.parent / CARD_FILE}")
    option = "" if store is None else f" --store {store}"
    click.echo(f"\nnext:  mariana serve{option}")
    click.echo(
        f"       curl -s localhost:8080/v1/models/{name}/predict -d '{_request(path)}'"
        if len(prepared.features) <= 16
        else f"       mariana predict {name} {data}{option}"
    )


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
    known = np.array([text is not None for text in given.texts()])
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
        raise InvalidInputError(f"{table.name} has no column to learn from besides {column!r}")
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


def network(prepared: Prepared, recipe: Recipe) -> Sequential:
    """Return a network for the table, built and compiled."""
    outputs, units = prepared.outputs
    return build(recipe, prepared.features, outputs, units, len(prepared.splits["train"]))


def teach(
    net: Sequential,
    prepared: Prepared,
    recipe: Recipe,
    verbose: Literal["auto", 0, 1, 2] = 0,
    callbacks: Iterable[Callback] = (),
) -> float | None:
    """Fit the network to the training split, and calibrate it on the validation split; return the temperature."""
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
    if validation is None or prepared.scaling is not None or weights is not None:
        return None
    found = find_temperature(logits(net.predict(validation[0])), prepared.targets("validation"))
    apply_temperature(net, found)
    return found


def scores(net: Sequential, prepared: Prepared, split: str) -> dict[str, float]:
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
    net: Sequential,
    prepared: Prepared,
    metrics: dict[str, dict[str, float]],
    store: Store,
    name: str,
    temperature: float | None = None,
) -> Path:
    """Export the network with everything that turns raw rows into predictions."""
    table = prepared.table
    flat = {"input_shape": table.input_shape} if len(prepared.features) == np.prod(table.input_shape) else {}
    return net.export(
        store,
        name,
        features=prepared.features,
        labels=prepared.target.labels,
        targets=[prepared.column],
        target_scaling=prepared.scaling,
        examples=prepared.raw[prepared.splits["train"]],
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


def _model_name(stem: str) -> str:
    """Return the name of a file as the name of a model."""
    return re.sub(r"[^a-z0-9_.-]+", "-", stem.lower()).strip("-_.")[:64] or "model"


def _described(prepared: Prepared) -> str:
    target = prepared.target
    goal = f"{len(target.labels)} classes" if target.labels else "numbers"
    counts = {split: len(rows) for split, rows in prepared.splits.items()}
    lines = [
        f"{prepared.table.name}: {prepared.table.rows:,} rows, {len(prepared.features)} features",
        f"target {prepared.column}: {goal}",
        f"{counts['train']:,} rows to learn, {counts['validation']:,} to validate, {counts['test']:,} to test",
        *(f"left out: {column} ({reason})" for column, reason in prepared.left_out),
    ]
    return "\n".join([*map(printable, lines), ""])


def _score_table(metrics: dict[str, dict[str, float]]) -> str:
    names = list(next(iter(metrics.values())))
    lines = ["", f"{'':12}" + "".join(f"{name:>12}" for name in names)]
    for split, found in metrics.items():
        lines.append(f"{split:12}" + "".join(f" {found[name]:#11.5g}" for name in names))
    return "\n".join([*lines, ""])


def _request(path: Path) -> str:
    """Return a JSON request for the first golden row of a model."""
    record = example_record(read_model(path).metadata)
    return json.dumps({"instances": [record]}).replace("'", "\\u0027")
