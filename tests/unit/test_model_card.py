"""The model card: what it says of a model, and that nothing in a model's names breaks its Markdown."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from mariana import load_model
from mariana.cli import cli
from mariana.format import CategoricalFeature, NumericFeature, read_model
from mariana.model_card import example_record, model_card


def run(*arguments: object) -> str:
    result = CliRunner().invoke(cli, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_a_trained_model_has_a_card_beside_it(tmp_path: Path) -> None:
    options = ["--layers", 16, "--epochs", 20, "--store", tmp_path]
    run("train", "iris", "--target", "species", *options)
    card = (tmp_path / "models/iris/1/README.md").read_text()
    assert run("inspect", "iris", "--card", "--store", tmp_path) == card
    assert json.loads(run("inspect", "iris", "--card", "--json", "--store", tmp_path))["card"] == card
    for part in (
        "# iris",
        "which of 3 classes a row belongs to (the column `species`)",
        "120 train, 15 validation, 15 test",
        "`setosa: 40`, `versicolor: 40`, `virginica: 40`",
        "always the same answer",
        "/v1/models/iris/predict",
    ):
        assert part in card
    (request,) = re.findall(r"-d '(.*)'", card)
    model = load_model(tmp_path / "models/iris")
    (call,) = re.findall(r"predict_records\((.*)\)", card)
    assert model.predict_records(json.loads(request)["instances"]) == model.predict_records(eval(call))
    training = model.info.training
    assert training.split_rows == {"train": 120, "validation": 15, "test": 15}
    assert training.temperature is not None
    assert training.metrics["test"]["accuracy"] > training.baseline["accuracy"]


def test_hostile_names_stay_text(model_file: Callable[..., Path]) -> None:
    nasty = "a|b`c`\n# d <script>"
    features: Any = (
        NumericFeature(name=nasty, fill=1, knots=(0, 1)),
        CategoricalFeature(name="|" * 250, categories=(nasty, "x'y"), fill=nasty),
    )
    path = model_file()
    info = read_model(path).metadata.model_copy(update={"features": features, "targets": (nasty,)})
    card = model_card(info, "nasty")
    assert "\n# d" not in card.replace("# nasty", "")
    rows = [line for line in card.splitlines() if line.startswith("| `")]
    assert all(line.count("|") == 5 for line in rows)
    assert set(example_record(info)) == {nasty, "|" * 250}
