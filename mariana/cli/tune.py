"""``mariana tune``: search for the recipe that learns a table best, and publish what it learns."""

from __future__ import annotations

import importlib.util
import json
import shlex
import sys
from pathlib import Path
from typing import Any, Literal

import click

from mariana._binding import choose_isa
from mariana.cli.data import cache_option, open_table
from mariana.cli.options import json_option, settings, store_option
from mariana.cli.train import described, model_name, score_table
from mariana.model_card import CARD_FILE
from mariana.store import Store, check_name
from mariana.trainer.from_table import prepare, publish, scores
from mariana.trainer.recipe import Recipe
from mariana.trainer.tuning import Trial, as_options, ended, importances, plot
from mariana.trainer.tuning import tune as search


@click.command()
@click.argument("data")
@click.option("--target", required=True, help="Column to predict.")
@click.option("--trials", type=click.IntRange(min=1), default=50, show_default=True, help="Recipes to try.")
@click.option(
    "--jobs",
    type=click.IntRange(1, 256),
    default=1,
    show_default=True,
    help="Processes; each learns on one thread.",
)
@click.option(
    "--restarts",
    type=click.IntRange(min=1),
    default=3,
    show_default=True,
    help="Networks that the best recipe learns: its members, and this number less one; the best are merged.",
)
@click.option("--name", help="Name of the model.  [default: from the file's name]")
@store_option
@click.option(
    "--journal",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File that holds the search; it goes on where it was.  [default: STORE/tuning/NAME.journal]",
)
@click.option(
    "--task", type=click.Choice(["auto", "classification", "regression"]), default="auto", show_default=True
)
@click.option("--epochs", type=click.IntRange(min=1), help="Of a trial, at most.  [default: by the rows]")
@click.option("--validation", type=click.FloatRange(0.01, 0.9), default=0.1, show_default=True)
@click.option("--test", type=click.FloatRange(0, 0.9), default=0.1, show_default=True)
@cache_option
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@json_option
def tune(
    data: str,
    target: str,
    trials: int,
    jobs: int,
    restarts: int,
    name: str | None,
    store: Path | None,
    journal: Path | None,
    task: Literal["auto", "classification", "regression"],
    epochs: int | None,
    validation: float,
    test: float,
    cache: Path | None,
    seed: int,
    as_json: bool,
) -> None:
    """Search for the recipe that learns a table best, and publish what it learns.

    Layers, units, activation, optimizer, learning rate, batch size, dropout and penalties are searched by Optuna
    (pip install 'mariana-serve[tune]'); hopeless trials are cut short. The validation rows decide, the test rows decide
    nothing. Killed or stopped, the same command goes on where the search was; with more --trials it goes further.

    \b
    Example:
      mariana tune iris --target species --trials 20
      mariana tune houses.csv --target price --trials 100 --jobs 2
    """
    recipe = Recipe(seed=seed, epochs=epochs)
    say = (lambda _: None) if as_json else click.echo
    using = settings(store=store)
    choose_isa(using.isa)  # a name that is none ends it here, not after the last epoch
    published = Store(using.store)
    table = open_table(data, cache, published.path / "cache", say, jobs)
    name = check_name(model_name(table.name) if name is None else name)
    journal = published.path / "tuning" / f"{name}.journal" if journal is None else journal
    prepared = prepare(table, target, task, recipe, validation=validation, test=test)
    say(described(prepared))
    shown = _Progress(trials)
    best, net, temperature = search(
        prepared,
        journal,
        trials=trials,
        jobs=jobs,
        restarts=restarts,
        recipe=recipe,
        progress=None if as_json else shown,
    )
    found = ended(journal, prepared, recipe)
    mattered = importances(journal, prepared)
    metrics = {split: scores(net, prepared, split) for split, rows in prepared.splits.items() if len(rows)}
    path = publish(net, prepared, metrics, published, name, temperature)
    picture = None
    if importlib.util.find_spec("matplotlib") is not None:
        picture = journal.with_suffix(".png")
        plot(picture, found, mattered)
    if as_json:
        document: dict[str, Any] = {
            "model": name,
            "version": int(path.parent.name),
            "path": str(path),
            "journal": str(journal),
            "trials": [_facts(trial) for trial in found],
            "importances": mattered,
            "options": as_options(best),
            "metrics": metrics,
        }
        click.echo(json.dumps(document))
        return
    say(_table(found[:10]))
    if mattered:
        say("what mattered: " + ", ".join(f"{thing} {share:.0%}" for thing, share in mattered.items()) + "\n")
    starts = best.members + restarts - 1
    say(
        f"the best recipe, {best.members} of {starts} starts merged: "
        f"mariana train {shlex.quote(data)} --target {shlex.quote(target)} {_said()}{as_options(best)}"
    )
    say(score_table(metrics))
    say(f"published {name} version {path.parent.name}: {path}")
    say(f"its model card: {path.parent / CARD_FILE}")
    say(f"the search: {journal}" + (f", drawn in {picture}" if picture else ""))


def _said() -> str:
    """Return the options of this command that `mariana train` takes too, as they were said."""
    context = click.get_current_context()
    names = ("name", "store", "task", "validation", "test", "cache")
    given = [n for n in names if context.get_parameter_source(n) is not click.core.ParameterSource.DEFAULT]
    return "".join(f"--{name} {shlex.quote(str(context.params[name]))} " for name in given)


class _Progress:
    """Tells how far the search is: a line that changes on a terminal, else a line for each trial."""

    def __init__(self, trials: int) -> None:
        self._trials = trials
        self._seen = -1

    def __call__(self, found: list[Trial]) -> None:
        if len(found) == self._seen or not found:
            return
        self._seen = len(found)
        wanted = max(self._trials, len(found))  # several processes may each be at the last one
        text = f"{len(found)} of {wanted} trials, least validation loss {found[0].loss:.5g}"
        terminal = sys.stderr.isatty()
        click.echo(f"\r{text}" if terminal else text, err=True, nl=not terminal or len(found) >= self._trials)


def _facts(trial: Trial) -> dict[str, Any]:
    return {
        "number": trial.number,
        "state": trial.state,
        "loss": trial.loss,
        "seconds": trial.seconds,
        "options": as_options(trial.recipe),
    }


def _table(trials: list[Trial]) -> str:
    lines = [f"\n{'trial':>5} {'loss':>10} {'seconds':>8} {'state':<8} recipe"]
    for trial in trials:
        recipe = trial.recipe
        layers = recipe.layers or ()
        lines.append(
            f"{trial.number:>5} {trial.loss:>10.5g} {trial.seconds:>8.1f} {trial.state:<8} "
            f"{len(layers)} x {layers[0]} {recipe.activation}, {recipe.optimizer} "
            f"{recipe.learning_rate:.2g}, batch {recipe.batch_size}, dropout {recipe.dropout:.2f}, l2 {recipe.l2:.1g}, "
            f"weight decay {recipe.weight_decay:.1g}"
        )
    return "\n".join([*lines, ""])
