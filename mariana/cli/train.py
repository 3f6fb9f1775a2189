"""``mariana train``: from a table to a published model."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, get_args

import click

from mariana._binding import choose_isa
from mariana.cli.data import cache_option, open_table
from mariana.cli.options import json_option, settings, store_option
from mariana.cli.text import printable
from mariana.errors import InvalidInputError
from mariana.format import read_model
from mariana.model_card import CARD_FILE, example_record
from mariana.store import Store, check_name, locked, make_folder, store_errors
from mariana.trainer.activations import ACTIVATIONS
from mariana.trainer.backend import BackendName, use_backend
from mariana.trainer.callbacks import Callback
from mariana.trainer.checkpoints import BackupAndRestore
from mariana.trainer.from_table import Prepared, network, prepare, publish, scores, teach
from mariana.trainer.optimizers import OPTIMIZERS
from mariana.trainer.recipe import SMALL, Recipe
from mariana.trainer.threads import use_threads

BACKUP_SECONDS = 5.0
"""At least so many lie between two checkpoints of a training; a shorter one writes none."""


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
            help=f"Units of each hidden layer.  [default: 128,128,128 from {SMALL:,} rows on, else 64]",
        ),
        click.option(
            "--activation",
            type=click.Choice(activations),
            default=_DEFAULTS.activation,
            show_default=True,
            help="Of the hidden layers.",
        ),
        click.option(
            "--members",
            type=click.IntRange(1, 64),
            default=_DEFAULTS.members,
            show_default=True,
            help="Networks that are learned, each from other weights, and merged into one: their mean.",
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
@cache_option
@click.option(
    "--threads",
    type=click.IntRange(1, 64),
    help="Threads of the matrix products.  [default: 1; from a million weights on, one per core]",
)
@click.option(
    "--backend",
    type=click.Choice(get_args(BackendName)),
    help="What computes the steps: numpy; c, fused kernels; auto: c where it is there.  "
    "[default: $MARIANA_BACKEND or auto]",
)
@click.option("--resume", is_flag=True, help="Go on with this training where it was interrupted.")
@json_option
def train(
    data: str,
    target: str,
    name: str | None,
    store: Path | None,
    task: Literal["auto", "classification", "regression"],
    cache: Path | None,
    threads: int | None,
    backend: BackendName | None,
    resume: bool,
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
      mariana train houses.csv --target price --resume
    """
    chosen = {name: options.pop(name) for name in ("validation", "test", "numbers", "class_weight")}
    recipe = Recipe(**options)
    say = (lambda _: None) if as_json else click.echo
    using = settings(store=store)
    choose_isa(using.isa)  # a name that is none ends it here, not after the last epoch
    published = Store(using.store)
    table = open_table(data, cache, published.path / "cache", say)
    name = check_name(model_name(table.name) if name is None else name)
    prepared = prepare(table, target, task, recipe, **chosen)
    say(described(prepared))
    net = network(prepared, recipe)
    net.members[0].summary(print_fn=say)
    if recipe.members > 1:
        whole = net.network.parameters.size
        say(
            f"{recipe.members} of these are learned and merged into one network of {whole:,} parameters, which answers their "
            "mean; --members 1 learns one: smaller and faster to serve, less exact"
        )
    backups = published.path / "training" / name
    about = (
        {"data": table.sha256, "target": target, "task": task, "threads": threads} | asdict(recipe) | chosen
    )

    def callbacks(member: int) -> list[Callback]:
        if recipe.members > 1:
            say(f"network {member + 1} of {recipe.members}")
        return [
            BackupAndRestore(
                backups / str(member + 1),
                1,
                at_most_every=BACKUP_SECONDS,
                delete_checkpoint=False,  # what was learned is kept until it is published
                options=about,
            )
        ]

    with _held(backups, say, resume=resume), use_threads(threads), use_backend(backend):
        temperature = teach(net, prepared, recipe, verbose=0 if as_json else "auto", callbacks=callbacks)
        metrics = {
            split: scores(net, prepared, split) for split, rows in prepared.splits.items() if len(rows)
        }
        path = publish(net, prepared, metrics, published, name, temperature)
        shutil.rmtree(backups, ignore_errors=True)
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
    click.echo(score_table(metrics))
    click.echo(f"published {name} version {version}: {path}")
    click.echo(f"its model card: {path.parent / CARD_FILE}")
    option = "" if store is None else f" --store {store}"
    click.echo(f"\nnext:  mariana serve{option}")
    click.echo(
        f"       curl -s localhost:8080/v1/models/{name}/predict -d '{_request(path)}'"
        if len(prepared.features) <= 16
        else f"       mariana predict {name} {data}{option}"
    )


@contextmanager
def _held(backups: Path, say: Callable[[str], object], *, resume: bool) -> Iterator[None]:
    """Hold the folder of a training's checkpoints, emptied unless it is to be gone on with.

    Of the folders that are made for it, those go again that nothing was put into.

    Raises:
        InvalidInputError: a training of this name is at work in it.
    """
    made = [folder for folder in (backups, *backups.parents[:2]) if not folder.exists()]
    with ExitStack() as held:
        with store_errors(f"write {backups}"):
            make_folder(backups)
            if not held.enter_context(locked(backups, wait=False)):
                raise InvalidInputError(
                    f"a training of the name {backups.name!r} is at work; wait for its end, or give this one another --name"
                )
            left = list(backups.iterdir())
            if resume and not left:
                say(f"nothing to resume in {backups}: the training begins anew")
            elif left and not resume:
                say("an interrupted training of this name is dropped; --resume would have gone on with it")
                for entry in left:
                    shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        try:
            yield
        finally:
            with suppress(OSError):  # it has a checkpoint, a model
                for folder in made:
                    folder.rmdir()


def model_name(stem: str) -> str:
    """Return the name of a file as the name of a model."""
    return re.sub(r"[^a-z0-9_.-]+", "-", stem.lower()).strip("-_.")[:64] or "model"


def described(prepared: Prepared) -> str:
    """Return what is known of a table before it is learned."""
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


def score_table(metrics: dict[str, dict[str, float]]) -> str:
    """Return the scores of each split as a table."""
    names = list(next(iter(metrics.values())))
    lines = ["", f"{'':12}" + "".join(f"{name:>12}" for name in names)]
    for split, found in metrics.items():
        lines.append(f"{split:12}" + "".join(f" {found[name]:#11.5g}" for name in names))
    return "\n".join([*lines, ""])


def _request(path: Path) -> str:
    """Return a JSON request for the first golden row of a model."""
    record = example_record(read_model(path).metadata)
    return json.dumps({"instances": [record]}).replace("'", "\\u0027")
