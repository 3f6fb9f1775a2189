"""``mariana train``: from a table to a published model."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import click
import numpy as np
from numpy.typing import NDArray

from mariana.cli.options import json_option, settings, store_option
from mariana.cli.text import printable
from mariana.errors import InvalidInputError
from mariana.format import BooleanFeature, CategoricalFeature, Feature, TargetScaling
from mariana.store import Store, check_name
from mariana.tables import Table, read_table
from mariana.trainer import BatchNormalization, Dense, Dropout, EarlyStopping, Sequential
from mariana.trainer.activations import ACTIVATIONS
from mariana.trainer.data import stratified_split
from mariana.trainer.layers import Layer
from mariana.trainer.optimizers import OPTIMIZERS, Optimizer
from mariana.trainer.preprocessing import Target, encode, infer_features, infer_target, target_scaling
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


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to learn a table."""

    layers: tuple[int, ...] = (128, 64)
    activation: str = "tanh"  # better than relu on tables of some thousand rows: docs/trainer.md
    batch_norm: bool = False
    dropout: float = 0.0
    optimizer: str = "adam"
    learning_rate: float | None = None
    batch_size: int = 32
    epochs: int = 100
    validation: float = 0.1
    test: float = 0.1
    early_stopping: int = 10
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Prepared:
    """A table made ready to learn from."""

    table: Table
    column: str
    target: Target
    features: list[Feature]
    left_out: list[tuple[str, str]]
    raw: NDArray[np.float64]
    scaling: TargetScaling | None
    splits: dict[str, Rows]

    def inputs(self, split: str) -> NDArray[np.float32]:
        """Return what the network sees of a split."""
        return encode(self.features, self.raw[self.splits[split]], np.float32)

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
@click.option(
    "--layers", type=_Layers(), default="128,64", show_default=True, help="Units of each hidden layer."
)
@click.option(
    "--activation",
    type=click.Choice([name for name in ACTIVATIONS if name != "softmax"]),
    default="tanh",
    show_default=True,
    help="Of the hidden layers.",
)
@click.option("--batch-norm", is_flag=True, help="Normalise the outputs of each hidden layer.")
@click.option(
    "--dropout",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.0,
    show_default=True,
    help="Share of the outputs of each hidden layer that a step of training leaves out.",
)
@click.option("--optimizer", type=click.Choice(list(OPTIMIZERS)), default="adam", show_default=True)
@click.option("--learning-rate", type=float, help="Length of a step.  [default: the optimizer's]")
@click.option(
    "--batch-size", type=click.IntRange(min=1), default=32, show_default=True, help="Rows of a step."
)
@click.option("--epochs", type=click.IntRange(min=1), default=100, show_default=True, help="At most.")
@click.option(
    "--validation",
    type=click.FloatRange(0, 0.9),
    default=0.1,
    show_default=True,
    help="Share of the rows that decides when to stop.",
)
@click.option(
    "--test",
    type=click.FloatRange(0, 0.9),
    default=0.1,
    show_default=True,
    help="Share of the rows kept aside for the final score.",
)
@click.option(
    "--early-stopping",
    type=click.IntRange(min=0),
    default=10,
    show_default=True,
    help="Epochs without improvement before it stops; 0: never.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
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
    recipe = Recipe(**options)
    table = read_table(data)
    name = check_name(_model_name(table.name) if name is None else name)
    prepared = prepare(table, target, task, recipe)
    say = (lambda _: None) if as_json else click.echo
    say(_described(prepared))
    net = network(prepared, recipe)
    net.summary(print_fn=say)
    learn(net, prepared, recipe, verbose=0 if as_json else "auto")
    metrics = {split: scores(net, prepared, split) for split, rows in prepared.splits.items() if len(rows)}
    published = Store(settings(store=store).store)
    path = publish(net, prepared, metrics, published, name)
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
    option = "" if store is None else f" --store {store}"
    click.echo(f"\nnext:  mariana serve{option}")
    click.echo(
        f"       curl -s localhost:8080/v1/models/{name}/predict -d '{_request(prepared)}'"
        if len(prepared.features) <= 16
        else f"       mariana predict {name} {data}{option}"
    )


def prepare(
    table: Table, column: str, task: Literal["auto", "classification", "regression"], recipe: Recipe
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
    rest, test = stratified_split(classes, table.rows, recipe.test, rng)
    share = min(recipe.validation / (1 - recipe.test), 0.9)
    first, second = stratified_split(None if classes is None else classes[rest], len(rest), share, rng)
    splits = {"train": rest[first], "validation": rest[second], "test": test}
    others = [c for c in table.columns.values() if c.name != column]
    features, unusable = infer_features(others, splits["train"])
    if not features:
        raise InvalidInputError(f"{table.name} has no column to learn from besides {column!r}")
    scaling = target_scaling(target.y[splits["train"]]) if target.task == "regression" else None
    raw = table.matrix(features)
    return Prepared(table, column, target, features, left_out + unusable, raw, scaling, splits)


def network(prepared: Prepared, recipe: Recipe) -> Sequential:
    """Return a network for the table, built and compiled."""
    hidden: list[Layer] = []
    for units in recipe.layers:
        hidden.append(Dense(units, recipe.activation))
        if recipe.batch_norm:
            hidden.append(BatchNormalization())
        if recipe.dropout:
            hidden.append(Dropout(recipe.dropout))
    if prepared.target.task == "regression":
        last, loss = Dense(1), "mean_squared_error"
    elif len(prepared.target.labels) == 2:
        last, loss = Dense(1, "sigmoid"), "binary_crossentropy"
    else:
        last, loss = Dense(len(prepared.target.labels), "softmax"), "sparse_categorical_crossentropy"
    net = Sequential([*hidden, last], seed=recipe.seed)
    net.compile(_optimizer(recipe), loss, ["mae" if prepared.target.task == "regression" else "accuracy"])
    net.build((prepared.inputs("train").shape[1],))
    return net


def learn(net: Sequential, prepared: Prepared, recipe: Recipe, verbose: Literal["auto", 0, 1, 2]) -> None:
    """Fit the network to the training split, stopping when the validation split no longer gains."""
    validation = None
    callbacks = []
    if len(prepared.splits["validation"]):
        validation = (prepared.inputs("validation"), prepared.targets("validation"))
        if recipe.early_stopping:
            callbacks.append(EarlyStopping(patience=recipe.early_stopping, restore_best_weights=True))
    net.fit(
        prepared.inputs("train"),
        prepared.targets("train"),
        batch_size=recipe.batch_size,
        epochs=recipe.epochs,
        verbose=verbose,
        callbacks=callbacks,
        validation_data=validation,
    )


def scores(net: Sequential, prepared: Prepared, split: str) -> dict[str, float]:
    """Return how well the network does on a split; values in the target's own unit."""
    outputs = net.predict(prepared.inputs(split))
    y = prepared.target.y[prepared.splits[split]]
    if prepared.scaling is None:
        return classification_scores(outputs, y)
    return regression_scores(outputs[:, 0] * prepared.scaling.scale[0] + prepared.scaling.shift[0], y)


def publish(
    net: Sequential, prepared: Prepared, metrics: dict[str, dict[str, float]], store: Store, name: str
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
        record={"data": table.name, "data_sha256": table.sha256, "metrics": metrics},
        **flat,
    )


def _optimizer(recipe: Recipe) -> Optimizer:
    cls = OPTIMIZERS[recipe.optimizer]
    return cls() if recipe.learning_rate is None else cls(recipe.learning_rate)


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


def _request(prepared: Prepared) -> str:
    """Return a JSON request for the first row."""
    row: dict[str, object] = {}
    for feature, value in zip(prepared.features, prepared.raw[0], strict=True):
        if np.isnan(value):
            row[feature.name] = None
        elif isinstance(feature, CategoricalFeature):
            row[feature.name] = feature.categories[int(value)]
        elif isinstance(feature, BooleanFeature):
            row[feature.name] = bool(value)
        else:
            row[feature.name] = float(str(np.float32(value)))
    return json.dumps({"instances": [row]}).replace("'", "\\u0027")
