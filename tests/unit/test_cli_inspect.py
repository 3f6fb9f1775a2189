"""``mariana inspect``: readable, and the same facts as JSON."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from mariana.building import build_index
from mariana.cli import cli
from mariana.errors import FileFormatError, InvalidInputError, NotFoundError
from mariana.store import Store


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, ["inspect", *map(str, arguments)])


def test_a_model_by_path(model_file: Any) -> None:
    result = run(model_file())
    assert result.exit_code == 0
    for part in (
        "classification of fruit",
        "3 features (3), 5 after encoding",
        "labels:       apple, cherry, plum",
        "5 x 7 relu                168",
        "7 x 3 softmax              84",
        "length: numeric  (value - 2) * 0.5  missing: 1.5",
        "colour: categorical  red, green, blue  missing: green",
        "ripe: boolean  must be there",
        "golden rows:  3, all as promised",
        "test accuracy 0.97",
        "data:       orchard",
    ):
        assert part in result.output


def test_a_model_as_json(model_file: Any) -> None:
    path = model_file("regression")
    facts = json.loads(run(path, "--json").output)
    assert (facts["kind"], facts["path"], facts["task"]) == ("model", str(path), "regression")
    assert [(layer["name"], layer["bytes"]) for layer in facts["layers"]] == [("hidden", 168), ("output", 84)]
    assert facts["parameters"] == 63
    assert facts["golden_rows"] == 3
    assert facts["nbytes"] > 0
    assert facts["isa"]


def test_names_in_the_store(tiny_store: Path) -> None:
    assert json.loads(run("tiny", "--store", tiny_store, "--json").output)["path"].endswith(
        "tiny/2/model.safetensors"
    )
    facts = json.loads(run("towns", "--store", tiny_store, "--json").output)
    assert (facts["kind"], facts["entries"]) == ("index", 4)
    assert "entries:          4" in run("towns", "--store", tiny_store).output


def test_an_index_by_path(tiny_store: Path) -> None:
    folder = tiny_store / "indexes" / "towns"
    for path in (folder, next(folder.glob("*.mrx"))):
        assert json.loads(run(path, "--json").output)["entries"] == 4


def test_what_is_not_there(tmp_path: Path) -> None:
    result = run("nothing", "--store", tmp_path)
    assert isinstance(result.exception, NotFoundError)
    assert str(result.exception).endswith("there are: none")


def test_a_name_of_both(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.publish_model("both", b"")
    build_index(store.new_index_path("both"), [("a", 1.0)])
    assert isinstance(run("both", "--store", tmp_path).exception, InvalidInputError)


@pytest.mark.parametrize("name", ["model.safetensors", "broken.mrx"])
def test_what_is_broken(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"\xff" * 100)
    result = run(path)
    assert isinstance(result.exception, FileFormatError)
    assert str(path) in str(result.exception)
