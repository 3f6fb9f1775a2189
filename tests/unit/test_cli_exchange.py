"""``mariana export`` and ``mariana import``."""

import builtins
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from mariana.cli import cli
from mariana.errors import FileFormatError, InvalidInputError, MarianaError, NotFoundError, StoreError
from mariana.model import load_model
from mariana.store import Store


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, [str(a) for a in arguments])


def test_a_model_goes_out_to_c(tiny_store: Path, tmp_path: Path) -> None:
    result = run("export", "tiny", "--to", "c", "-o", tmp_path / "My net.h", "--store", tiny_store)
    assert result.exit_code == 0, result.output
    assert "call my_net_predict(row, out)" in result.output
    text = (tmp_path / "My net.h").read_text()
    assert "void my_net_predict(const float *row, float *out)" in text
    assert text.isascii()


def test_a_model_goes_out_to_onnx_and_comes_back(tiny_store: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    path, store = tmp_path / "tiny.onnx", tmp_path / "store"
    result = run("export", "tiny", "--to", "onnx", "-o", path, "--store", tiny_store, "--json")
    assert json.loads(result.output)["path"] == str(path)
    for version in (1, 2):
        document = json.loads(run("import", path, "--name", "back", "--store", store, "--json").output)
        assert (document["version"], document["task"], document["labels"]) == (
            version,
            "classification",
            ["a", "b", "c"],
        )
    x = [[1, 2, 3, 4], [-1, 0, 0.5, 9]]
    back, tiny = load_model(store / "models/back"), load_model(tiny_store / "models/tiny")
    assert back.predict(x) == pytest.approx(tiny.predict(x), abs=1e-6)
    assert back.info.golden.inputs
    result = run("import", path, "--name", "named", "--labels", "x, y,z", "--store", store)
    assert "classification, 4-5-3, 43 parameters" in result.output
    assert Store(store).model_names() == ["back", "named"]
    assert load_model(store / "models/named").info.labels == ("x", "y", "z")


def test_preprocessing_goes_out_too(tiny_store: Path, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    path = tmp_path / "price.onnx"
    run("export", tiny_store / "models/price", "--to", "onnx", "-o", path)
    x = [[float("nan"), 1, 1, float("nan")], [2, 0, 0, 1]]
    y = onnxruntime.InferenceSession(path.read_bytes()).run(None, {"x": x})[0]
    assert y == pytest.approx(load_model(tiny_store / "models/price").predict(x))


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["export", "nothing", "--to", "c", "-o", "x.h"], NotFoundError),
        (["export", "tiny", "--to", "c", "-o", "file/x.h"], StoreError),
        (["import", "nothing.onnx", "--name", "x"], NotFoundError),
        (["import", "file", "--name", "No Name"], InvalidInputError),
        (["import", "file", "--name", "x"], MarianaError),
        (["import", ".", "--name", "x"], FileFormatError),
    ],
)
def test_what_cannot_be_done(
    tiny_store: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    error: type[Exception],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("no ONNX", encoding="utf-8")
    if arguments[0] == "import":
        pytest.importorskip("onnx")
    result = run(*arguments, "--store", tiny_store)
    assert isinstance(result.exception, error), result.exception
    assert "\n" not in str(result.exception)
    assert not isinstance(getattr(result.exception, "filename", ""), int), "it names a file, not its number"


def test_without_the_package_it_says_what_to_install(
    tiny_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = builtins.__import__

    def refuse(name: str, *rest: Any, **more: Any) -> Any:
        if name == "onnx":
            raise ImportError(name)
        return original(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", refuse)
    for arguments in (
        ["export", "tiny", "--to", "onnx", "-o", tmp_path / "x.onnx"],
        ["import", tmp_path / "x.onnx", "--name", "x"],
    ):
        result = run(*arguments, "--store", tiny_store)
        assert str(result.exception) == "ONNX files need the package onnx: pip install 'mariana-serve[onnx]'"
    assert not (tmp_path / "x.onnx").exists()
