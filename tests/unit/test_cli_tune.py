"""``mariana tune``: a search in several processes over one journal, killed and taken up again, ends in a model."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from mariana.cli import cli
from mariana.errors import InvalidInputError
from mariana.format import read_model
from mariana.tables import read_table
from mariana.trainer.from_table import Prepared, prepare
from mariana.trainer.recipe import Recipe
from mariana.trainer.tuning import ended, importances, run_trials, tune

optuna = pytest.importorskip("optuna", reason="Optuna is not installed")
pytestmark = pytest.mark.filterwarnings("ignore")  # Optuna's experimental features


def arguments(store: Path, *more: object) -> list[str]:
    options = ["--store", store, "--epochs", 3, "--restarts", 2, *more]
    return ["tune", "iris", "--target", "species", *map(str, options)]


def trials_of(store: Path) -> list[object]:
    recipe = Recipe(epochs=3)
    prepared = prepare(read_table("iris"), "species", "auto", recipe)
    return list(ended(store / "tuning/iris.journal", prepared, recipe))


def test_killed_it_goes_on(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mariana", *arguments(tmp_path, "--trials", 500, "--jobs", 2)]
    process = subprocess.Popen(command, start_new_session=True, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    assert " of 500 trials" in process.stderr.readline()  # the first trial has ended
    time.sleep(0.2)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    process.stderr.close()
    before = len(trials_of(tmp_path))
    assert 0 < before < 500
    more = before + 2
    result = CliRunner().invoke(cli, arguments(tmp_path, "--trials", more, "--json"), catch_exceptions=False)
    assert result.exit_code == 0
    document = json.loads(result.stdout)
    assert more <= len(document["trials"]) <= more + 1
    assert {t["number"] for t in document["trials"]} >= {0}
    assert read_model(document["path"]).metadata.training.epochs == 3
    assert "--layers" in document["options"]


def test_it_says_how_many_networks_the_best_recipe_learned(tmp_path: Path) -> None:
    more = arguments(tmp_path, "--trials", 1, "--test", 0.2)
    result = CliRunner().invoke(cli, more, catch_exceptions=False)
    again = f"mariana train iris --target species --store {tmp_path} --test 0.2 --layers 64 "
    assert f"4 of 5 starts merged: {again}" in result.stdout
    assert read_model(tmp_path / "models/iris/1/model.safetensors").metadata.training.members == 4


def test_more_starts_than_could_be_merged_may_be_learned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = Recipe(layers=(8, 8), epochs=1, members=2)
    prepared = prepare(read_table("iris"), "species", "auto", recipe)
    monkeypatch.setattr("mariana.trainer.committee._MOST_BYTES", 40_000)  # five starts of 32-32 are 213,760
    best, net, _ = tune(prepared, tmp_path / "j", trials=1, restarts=4, recipe=recipe)
    assert best.layers == (32, 32)
    assert len(net.members) == 2


def test_the_first_trial_is_the_default_and_the_best_is_published(tmp_path: Path) -> None:
    recipe = Recipe(layers=(32,), epochs=2, seed=0)
    prepared = prepare(read_table("iris"), "species", "auto", recipe)
    journal = tmp_path / "j"
    seen: list[int] = []
    best, net, temperature = tune(
        prepared, journal, trials=3, restarts=2, recipe=recipe, progress=lambda t: seen.append(len(t))
    )
    found = ended(journal, prepared, recipe)
    (first,) = [trial for trial in found if trial.number == 0]
    assert (first.recipe.layers, first.recipe.activation, first.recipe.epochs) == ((32,), "tanh", 2)
    assert best.layers == min((t for t in found if t.state == "complete"), key=lambda t: t.loss).recipe.layers
    assert best.seed in (0, 1)
    assert net.training["epochs"] == 2
    assert temperature is not None
    assert seen[-1] == 3
    assert importances(journal, prepared) == {}
    other = prepare(read_table("iris"), "sepal_width", "auto", recipe)
    with pytest.raises(InvalidInputError, match="journal of another target"):
        tune(other, journal, trials=1)


def test_a_journal_whose_losses_mean_something_else_is_refused(tmp_path: Path) -> None:
    lines = "".join(f"{i / 7:.3f},{i % 3}\n" for i in range(90))
    (tmp_path / "t.csv").write_text("n,y\n" + lines)
    (tmp_path / "u.csv").write_text("n,y\n" + lines + "1,1\n")
    journal, recipe = tmp_path / "j", Recipe(epochs=1, layers=(4,))

    def prepared(file: str = "t.csv", task: Any = "classification", **split: Any) -> Prepared:
        seeded = replace(recipe, seed=split.pop("seed", 0))
        return prepare(read_table(str(tmp_path / file)), "y", task, seeded, **split)

    run_trials(journal, prepared(), recipe, 1)
    run_trials(journal, prepared(), recipe, 2, seed=1)  # the same rows, whatever the sampler draws
    for other, said in (
        (prepared("u.csv"), "another table"),
        (prepared(task="regression"), "another task"),
        (prepared(seed=1), "other validation rows"),
        (prepared(validation=0.2), "other validation rows"),
    ):
        with pytest.raises(InvalidInputError, match=f"journal of {said}"):
            tune(other, journal, trials=1)


def test_ctrl_c_ends_a_search_and_its_processes_without_a_trace(tmp_path: Path) -> None:
    # a shell's job in the background is born deaf to it
    command = (
        "import signal; signal.signal(2, signal.default_int_handler); from mariana.cli import cli; cli()"
    )
    options = ["--trials", "500", "--epochs", "3", "--jobs", "2", "--store", str(tmp_path)]
    with subprocess.Popen(
        [sys.executable, "-c", command, "tune", "iris", "--target", "species", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as search:
        assert search.stderr is not None
        first = search.stderr.readline()  # a trial has ended: the processes are at work
        os.killpg(search.pid, signal.SIGINT)  # as a terminal does
        _, rest = search.communicate(timeout=60)
    assert "of 500 trials" in first
    assert "Traceback" not in rest
    assert rest.endswith("Aborted!\n")
    assert search.returncode == 1
    with pytest.raises(ProcessLookupError):
        os.killpg(search.pid, 0)


def test_a_table_is_tuned_through_a_cache_as_from_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mariana.scratch.SPILL_BYTES", 0)  # everything lies in files, which the workers share
    lines = "".join(f"{i / 7:.3f},{'Rome' if i % 5 else ''},{'x' if i % 4 else 'y'}\n" for i in range(200))
    (tmp_path / "table.csv").write_text("n,city,target\n" + lines)
    command = [
        "tune",
        str(tmp_path / "table.csv"),
        "--target",
        "target",
        "--epochs",
        "2",
        "--trials",
        "1",
        "--store",
    ]
    plain = CliRunner().invoke(cli, [*command, str(tmp_path / "a")], catch_exceptions=False)
    assert "it is cached in" not in plain.output
    monkeypatch.setattr("mariana.cli.data.memory_bytes", lambda: 400_000)
    unasked = CliRunner().invoke(cli, [*command, str(tmp_path / "b")], catch_exceptions=False)
    assert f"it is cached in {tmp_path / 'b/cache'}" in unasked.output
    asked = [*command, str(tmp_path / "c"), "--cache", str(tmp_path / "cache")]
    assert CliRunner().invoke(cli, asked, catch_exceptions=False).exit_code == 0
    assert len(list((tmp_path / "cache").iterdir())) == 1  # what was spilled is gone
    models = [tmp_path / store / "models/table/1/model.safetensors" for store in "abc"]
    assert len({model.read_bytes() for model in models}) == 1


def test_what_cannot_be_a_journal(tmp_path: Path) -> None:
    for content in (b"a,b\n1,2\n", b"\xff\x00", b"{}\n", b"[1]\n"):
        (tmp_path / "j").write_bytes(content)
        result = CliRunner().invoke(cli, arguments(tmp_path, "--trials", 1, "--journal", tmp_path / "j"))
        assert result.exit_code == 1
        assert isinstance(result.exception, InvalidInputError | SystemExit)
        assert "is no journal of a search" in result.output + str(result.exception)
        assert (tmp_path / "j").read_bytes() == content
    (tmp_path / "file").write_text("")
    result = CliRunner().invoke(cli, arguments(tmp_path, "--trials", 1, "--journal", tmp_path / "file/j"))
    assert result.exit_code == 1
    assert "cannot write the journal" in result.output + str(result.exception)
