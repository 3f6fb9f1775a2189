"""Searching for a better recipe, with Optuna (the extra ``tune``): several processes over one journal file.

A trial learns the training split by a recipe that the sampler proposes, and reports the validation loss of each epoch, so that
a hopeless one is cut short. All that happened is in the journal, an append-only file: a search that was killed goes on where it
was, and processes on one machine, or on several over a shared folder, work on it together.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import multiprocessing
import os
import signal
import socket
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mariana.errors import InvalidInputError, TrainingError
from mariana.store import store_errors

from .calibration import log_loss, logits
from .callbacks import Callback, Logs
from .committee import Committee
from .from_table import Prepared, calibrate, network, teach
from .recipe import Recipe, first_rate
from .threads import use_threads

STUDY = "mariana"
ACTIVATIONS = ("tanh", "relu", "silu", "gelu", "selu")
OPTIMIZERS = ("adam", "adamw", "nadam", "rmsprop")

_LONGEST_LINE = 1 << 16
"""Bytes of the first line of a journal, at most."""

_OTHER = {
    "data": "another table",
    "target": "another target",
    "task": "another task",
    "validation": "other validation rows (--seed, --validation, --test)",
}
"""What a journal is refused for."""

_WORST = 1e30
"""The loss of a trial that diverged."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One trial that ended.

    Attributes:
        number: from 0.
        loss: the least validation loss; of a pruned one the last that was reported.
        state: ``complete`` or ``pruned``.
        recipe: what was tried.
        seconds: that it took.
    """

    number: int
    loss: float
    state: str
    recipe: Recipe
    seconds: float


def suggest(trial: Any, recipe: Recipe, *, classes: bool) -> Recipe:
    """Return the recipe that a trial of Optuna proposes; what is not searched stays as in ``recipe``."""
    layers = trial.suggest_int("layers", 1, 4)
    units = trial.suggest_categorical("units", [32, 64, 128, 256, 512])
    return replace(
        recipe,
        layers=(units,) * layers,
        activation=trial.suggest_categorical("activation", ACTIVATIONS),
        optimizer=trial.suggest_categorical("optimizer", OPTIMIZERS),
        learning_rate=trial.suggest_float("learning_rate", 1e-4, 1e-2, log=True),
        batch_size=trial.suggest_categorical("batch_size", [32, 64, 128, 256, 512]),
        dropout=trial.suggest_float("dropout", 0.0, 0.5),
        l2=trial.suggest_float("l2", 1e-8, 1e-2, log=True),
        weight_decay=trial.suggest_float("weight_decay", 1e-5, 0.1, log=True),
        label_smoothing=trial.suggest_float("label_smoothing", 0.0, 0.2) if classes else 0.0,
    )


class _Losses(Callback):
    """Keeps the least validation loss.

    It is the log-loss or the squared error alone: that which is learned by holds penalties and smoothed targets too, and
    recipes that differ in these could not be compared by it.
    """

    def __init__(self, prepared: Prepared) -> None:
        self.prepared = prepared
        self.inputs = prepared.inputs("validation")
        self.last = self.best = _WORST

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Compare."""
        del epoch, logs
        self.last = _loss(self.model.predict(self.inputs), self.prepared)
        self.best = min(self.best, self.last)


def _loss(outputs: NDArray[np.floating], prepared: Prepared) -> float:
    """Return the log-loss, or the mean squared error in standard deviations, of the validation split."""
    y = prepared.targets("validation")
    weights = None if prepared.weights is None else prepared.weights[prepared.splits["validation"]]
    if prepared.scaling is None:
        return log_loss(logits(outputs), y, weights)
    return float(np.mean((outputs[:, 0] - y) ** 2))


class _Reporting(_Losses):
    """Tells the trial of each epoch, and stops where the pruner says so."""

    def __init__(self, trial: Any, prepared: Prepared) -> None:
        super().__init__(prepared)
        self.trial = trial
        self.pruned = False

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Report the validation loss; a worker whose search was killed ends here."""
        parent = multiprocessing.parent_process()
        if parent is not None and not parent.is_alive():
            os._exit(1)
        super().on_epoch_end(epoch, logs)
        self.trial.report(self.last, epoch)
        if self.trial.should_prune():
            self.pruned = self.model.stop_training = True


def run_trials(
    journal: str | Path, prepared: Prepared, recipe: Recipe, trials: int, *, seed: int = 0
) -> None:
    """Work on a search, on one thread, until it has so many ended trials; any number of processes may do so at a time.

    Args:
        journal: the journal file; made if it is not there.
        prepared: the table, with a validation split.
        recipe: what is tried first, and what is not searched.
        trials: complete and pruned ones that the search shall have, those of earlier runs and other processes included.
        seed: of the sampler; give each process its own.
    """
    optuna = _optuna()
    study = _study(journal, prepared, seed)
    if not study.get_trials(deepcopy=False):
        rows = len(prepared.splits["train"])
        first = _parameters(recipe.settled(rows), rows, classes=prepared.scaling is None)
        study.enqueue_trial(first, skip_if_exists=True)

    def objective(trial: Any) -> float:
        trial.set_user_attr("process", f"{socket.gethostname()}:{os.getpid()}")
        proposed = replace(suggest(trial, recipe, classes=prepared.scaling is None), members=1)
        reporting = _Reporting(trial, prepared)
        try:
            teach(network(prepared, proposed), prepared, proposed, callbacks=lambda _: [reporting])
        except TrainingError:
            return _WORST
        if reporting.pruned:
            raise optuna.TrialPruned
        return reporting.best

    states = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)
    if len(study.get_trials(deepcopy=False, states=states)) < trials:
        with use_threads(1):
            study.optimize(objective, callbacks=[optuna.study.MaxTrialsCallback(trials, states=states)])


def _work(*args: Any, seed: int) -> None:
    """Run trials in a process of its own, which the one that waits for it ends: Ctrl-C comes to both."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    run_trials(*args, seed=seed)


def tune(
    prepared: Prepared,
    journal: str | Path,
    *,
    trials: int = 50,
    jobs: int = 1,
    restarts: int = 3,
    recipe: Recipe | None = None,
    progress: Callable[[list[Trial]], object] | None = None,
) -> tuple[Recipe, Committee, float | None]:
    """Search for a recipe, learn the best one from several random starts, and return the best networks, merged.

    The first trial is ``recipe`` as it is, so that the search ends no worse than without it. A trial is one network. A
    loss depends on the seed too; the restarts guard against taking a bad minimum of the best recipe.

    Args:
        prepared: the table, with a validation split; nothing is chosen by the test split.
        journal: the journal file; a search that was stopped goes on.
        trials: complete and pruned ones.
        jobs: processes; each learns on one thread.
        restarts: the best recipe is learned from so many starts less one more than it has members; the best are kept.
        recipe: what is tried first, and what is not searched; None: the defaults.
        progress: called with the trials so far, about twice a second while it runs.

    Returns:
        The best recipe, its networks of least validation loss, and the temperature that they are calibrated with.

    Raises:
        InvalidInputError: Optuna is not there; the journal is of another table; there is no validation split.
        TrainingError: all trials diverged.
    """
    if not len(prepared.splits["validation"]):
        raise InvalidInputError("tuning needs a validation split")
    recipe = recipe or Recipe()
    study = _study(journal, prepared, recipe.seed or 0)
    _clear_dead(study)
    seed = recipe.seed or 0
    # a fork shares the table with its workers, also one that is mapped because it is larger than memory
    context = multiprocessing.get_context("fork")
    workers = [
        context.Process(target=_work, args=(journal, prepared, recipe, trials), kwargs={"seed": seed + i})
        for i in range(jobs if len(ended(journal, prepared, recipe)) < trials else 0)
    ]
    for worker in workers:
        worker.start()
    try:
        while any(worker.is_alive() for worker in workers):
            for worker in workers:
                worker.join(0.5 / len(workers))
            if progress is not None:
                progress(ended(journal, prepared, recipe))
    finally:
        for worker in workers:
            worker.kill()
            worker.join()
    found = ended(journal, prepared, recipe)
    complete = [trial for trial in found if trial.state == "complete" and trial.loss < _WORST]
    if not complete:
        raise TrainingError(
            f"none of {len(found)} trials came to an end: all diverged or their processes failed"
        )
    best = min(complete, key=lambda trial: trial.loss).recipe
    return _restarted(prepared, best, max(restarts, 1))


def _restarted(prepared: Prepared, recipe: Recipe, restarts: int) -> tuple[Recipe, Committee, float | None]:
    """Learn a recipe from more starts than it has members, and merge those of the least validation loss."""
    members, losses = [], []
    for start in range(recipe.members + restarts - 1):
        alone, loss = recipe.of_member(start), _Losses(prepared)
        net = network(prepared, alone)
        teach(net, prepared, alone, callbacks=lambda _, loss=loss: [loss])  # type: ignore[misc]  # bound now
        members += net.members
        losses.append(loss.best)
    best = np.argsort(losses, kind="stable")[: recipe.members]
    kept = Committee(members[start] for start in best)
    return recipe, kept, calibrate(kept, prepared)


def ended(journal: str | Path, prepared: Prepared, recipe: Recipe) -> list[Trial]:
    """Return the trials of a journal that ended, best first."""
    optuna = _optuna()
    states = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)
    found = [
        Trial(
            trial.number,
            float(trial.value) if trial.value is not None else _WORST,
            trial.state.name.lower(),
            suggest(optuna.trial.FixedTrial(trial.params), recipe, classes=prepared.scaling is None),
            trial.duration.total_seconds(),
        )
        for trial in _study(journal, prepared, 0).get_trials(deepcopy=False, states=states)
        if trial.params
    ]
    return sorted(found, key=lambda trial: (trial.state != "complete", trial.loss, trial.number))


def importances(journal: str | Path, prepared: Prepared) -> dict[str, float]:
    """Return how much each choice mattered for the loss, from 0 to 1, the most important first (PED-ANOVA).

    Empty while there are fewer than ten complete trials.
    """
    optuna = _optuna()
    study = _study(journal, prepared, 0)
    if len(study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))) < 10:
        return {}
    evaluator = optuna.importance.PedAnovaImportanceEvaluator()
    found = optuna.importance.get_param_importances(study, evaluator=evaluator)
    total = sum(found.values()) or 1.0
    return {name: float(value / total) for name, value in found.items()}


def plot(path: Path, trials: list[Trial], mattered: dict[str, float]) -> None:
    """Draw how the search went and what mattered (matplotlib, the extra ``plots``) into a picture."""
    figure_of = importlib.import_module("matplotlib.figure").Figure
    figure = figure_of(figsize=(11, 4), layout="constrained")
    course, bars, rates = figure.subplots(1, 3)
    complete = sorted(
        (t for t in trials if t.state == "complete" and t.loss < _WORST), key=lambda t: t.number
    )
    losses = [trial.loss for trial in complete]
    best = [min(losses[: i + 1]) for i in range(len(losses))]
    numbers = [trial.number for trial in complete]
    course.plot(numbers, losses, "o", markersize=3, label="trial")
    course.plot(numbers, best, label="best so far")
    course.set(xlabel="trial", ylabel="validation loss", title="the search")
    course.legend()
    names = list(mattered)[::-1]
    bars.barh(names, [mattered[name] for name in names])
    bars.set(title="what mattered")
    rates.scatter([trial.recipe.learning_rate or 0 for trial in complete], losses, s=9)
    rates.set(xscale="log", xlabel="learning rate", ylabel="validation loss", title="learning rate")
    figure.savefig(path, dpi=120)


def _parameters(recipe: Recipe, rows: int, *, classes: bool) -> dict[str, Any]:
    """Return a recipe as the parameters of a trial, as near as the search space has it."""
    layers = recipe.layers or (64,)
    units = min((32, 64, 128, 256, 512), key=lambda u: abs(u - layers[0]))
    size = recipe.batch_size or 256
    parameters: dict[str, Any] = {
        "layers": min(len(layers), 4),
        "units": units,
        "activation": recipe.activation if recipe.activation in ACTIVATIONS else "tanh",
        "optimizer": recipe.optimizer if recipe.optimizer in OPTIMIZERS else "adam",
        "learning_rate": first_rate(recipe, rows, classes=classes),
        "batch_size": min((32, 64, 128, 256, 512), key=lambda n: abs(n - size)),
        "dropout": min(recipe.dropout or 0.0, 0.5),
        "l2": max(recipe.l2, 1e-8),
        "weight_decay": max(recipe.weight_decay, 1e-5),
    }
    return parameters | ({"label_smoothing": recipe.label_smoothing} if classes else {})


def _study(journal: str | Path, prepared: Prepared, seed: int) -> Any:
    """Open the journal, and check that it is of this table, target, task and split."""
    storage = _storage(journal)
    optuna = _optuna()
    past = sum(study.n_trials for study in optuna.get_all_study_summaries(storage))
    drawn = int(
        np.random.SeedSequence([seed, past]).generate_state(1)[0]
    )  # taken up again, it draws other recipes
    study = optuna.create_study(
        study_name=STUDY,
        storage=storage,
        sampler=optuna.samplers.TPESampler(seed=drawn, multivariate=True, constant_liar=True),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=5),
        load_if_exists=True,
    )
    about = {
        "data": prepared.table.sha256,
        "target": prepared.column,
        "task": prepared.target.task,
        # losses are compared, which other rows give others
        "validation": hashlib.sha256(prepared.splits["validation"].tobytes()).hexdigest(),
    }
    known = study.user_attrs
    for name, value in about.items():
        if known.get(name, value) != value:
            raise InvalidInputError(
                f"{journal} is the journal of {_OTHER[name]}, whose losses cannot be compared with these; choose another one"
            )
        if name not in known:
            study.set_user_attr(name, value)
    return study


def _storage(journal: str | Path) -> Any:
    """Open the journal, which is made if it is not there.

    Raises:
        InvalidInputError: it is no journal of Optuna.
        StoreError: it cannot be written.
    """
    storages = _optuna().storages
    path = Path(journal)
    with store_errors(f"write the journal {path}"):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            if path.exists():
                with path.open("rb") as file:
                    line = file.readline(_LONGEST_LINE)
                _ = json.loads(line)["op_code"] if line else 0  # each line of a journal has one
            storage = storages.JournalStorage(storages.journal.JournalFileBackend(str(path)))
            storage.get_all_studies()  # reads all of it
        except (ValueError, KeyError, TypeError):
            raise InvalidInputError(
                f"{path} is no journal of a search, or a damaged one; choose another one"
            ) from None
    return storage


def _clear_dead(study: Any) -> None:
    """Mark as failed what processes of this machine left when they were killed, and try it again."""
    optuna = _optuna()
    for trial in study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
        host, _, process = trial.user_attrs.get("process", ":").rpartition(":")
        if host == socket.gethostname() and not _alive(int(process)):
            study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
            study.enqueue_trial(trial.params)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _optuna() -> Any:
    try:
        optuna = importlib.import_module("optuna")
    except ImportError:
        raise InvalidInputError(
            "tuning needs Optuna; install it with: pip install 'mariana-serve[tune]'"
        ) from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def as_options(recipe: Recipe) -> str:
    """Return a recipe as the options of ``mariana train``."""
    values = {name: value for name, value in asdict(recipe).items() if value not in (None, 0.0, False)}
    values.pop("embed")
    if recipe.layers is not None:
        values["layers"] = ",".join(map(str, recipe.layers))
    return " ".join(
        f"--{name.replace('_', '-')} {f'{value:.4g}' if isinstance(value, float) else value}"
        for name, value in values.items()
    )
