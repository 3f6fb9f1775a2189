"""Quantised models: what the file holds, what is refused, what the command says, and every path that runs a model."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from click.testing import CliRunner
from starlette.testclient import TestClient

from mariana._binding import choose_isa
from mariana._binding.dense import precision_usable
from mariana.cli import cli
from mariana.errors import FileFormatError, InvalidInputError
from mariana.format import Loss, Quantization, read_model, to_bytes
from mariana.model import Model, load_model
from mariana.quantize import Narrow, Rows, quantize
from mariana.server import create_app
from mariana.settings import Settings
from mariana.store import Store

BOTH = pytest.mark.parametrize("to", ["bfloat16", "int8"])
SHA = "0" * 64


@pytest.fixture
def quantised(model_file: Callable[..., Path], tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes the quantised model of ``describe`` and returns its path."""

    def write(to: Narrow, task: str = "classification", **changes: Any) -> Path:
        narrow = quantize(read_model(model_file(task, **changes)), to, source_sha256=SHA)
        path = tmp_path / f"{to}.safetensors"
        path.write_bytes(to_bytes(narrow.metadata, narrow.tensors))
        return path

    return write


@BOTH
@pytest.mark.parametrize("task", ["classification", "regression"])
def test_what_is_quantised_is_read(quantised: Any, model_file: Any, to: Narrow, task: str) -> None:
    path = quantised(to, task)
    file = read_model(path)
    assert to_bytes(file.metadata, file.tensors) == path.read_bytes()
    assert file.metadata.precision == to
    wide, narrow = load_model(model_file(task)), load_model(path)
    assert narrow.info.precision == narrow.precision == to
    assert to in repr(narrow)
    assert wide.precision == "float32"
    rows = [{"length": 2.0, "colour": "red", "ripe": True}, {"ripe": False}]
    x = wide.encode(rows)
    np.testing.assert_allclose(
        narrow.predict(x), wide.predict(x), atol=0.05 if task == "classification" else 0.2
    )
    y = np.empty((2, 3), np.float32)
    narrow.bind(x, y)()
    np.testing.assert_array_equal(y, narrow.predict(x))
    assert narrow.predict_records(rows) == narrow.decode(y)


@BOTH
def test_other_tools_know_the_types(quantised: Any, to: Narrow) -> None:
    data = quantised(to).read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    assert header["hidden.weight"]["dtype"] == {"bfloat16": "BF16", "int8": "I8"}[to]
    assert header["hidden.bias"]["dtype"] == "F32"
    assert int.from_bytes(data[:8], "little") % 8 == 0
    if to == "int8":
        assert safetensors.numpy.load(data)["output.weight_scale"].shape == (3,)
    torch = pytest.importorskip("safetensors.torch")
    assert str(torch.load(data)["hidden.weight"].dtype) == f"torch.{to}"


@BOTH
def test_the_loss_is_in_the_file(model_file: Any, to: Narrow) -> None:
    file = read_model(model_file())
    x = np.random.default_rng(1).standard_normal((50, 3)).astype(np.float32)
    narrow = quantize(
        file, to, source_sha256=SHA, data=[Rows("flowers", x, lambda y: {"mean": float(y.mean())})]
    )
    assert narrow.metadata.quantization is not None
    golden, flowers = narrow.metadata.quantization.losses
    difference = np.abs(Model(narrow).predict(x).astype(np.float64) - Model(file).predict(x))
    assert (golden.data, golden.rows, golden.before) == ("golden rows", 3, {})
    assert (flowers.data, flowers.rows) == ("flowers", 50)
    assert flowers.max_difference == difference.max() > 0
    assert flowers.mean_difference == difference.mean()
    assert flowers.before["mean"] == float(Model(file).predict(x).mean())
    assert narrow.metadata.golden.inputs == file.metadata.golden.inputs
    assert narrow.metadata.golden.outputs != file.metadata.golden.outputs


def test_rows_without_an_answer_are_left_out(model_file: Any) -> None:
    file = read_model(model_file())
    x = np.array([[1.0, 0.0, 1.0], [1.0, 0.0, np.nan]], np.float32)  # nothing stands in for "ripe"
    narrow = quantize(file, "int8", source_sha256=SHA, data=[Rows("holes", x)])
    assert narrow.metadata.quantization is not None
    assert narrow.metadata.quantization.losses[-1].rows == 1
    for rows in (x[1:], x[:0]):
        with pytest.raises(InvalidInputError, match="holes: no row that the model gives a finite output for"):
            quantize(file, "int8", source_sha256=SHA, data=[Rows("holes", rows)])


@BOTH
def test_a_quantised_model_is_not_quantised_again(quantised: Any, to: Narrow) -> None:
    with pytest.raises(InvalidInputError, match=f"the model is {to} already"):
        quantize(read_model(quantised(to)), "int8", source_sha256=SHA)


# ---- Files that are refused --------------------------------------------------------------------------------------


def refused(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    with pytest.raises(FileFormatError) as caught:
        load_model(path)
    return str(caught.value)


def with_tensor(path: Path, name: str, change: Callable[[Any], None]) -> bytes:
    """Return the file with a tensor changed and every checksum as it should be."""
    file = read_model(path)
    tensors = {each: array.copy() for each, array in file.tensors.items()}
    change(tensors[name])
    header_end = 8 + int.from_bytes(path.read_bytes()[:8], "little")
    header = json.loads(path.read_bytes()[8:header_end])
    begin, end = header[name]["data_offsets"]
    data = bytearray(path.read_bytes())
    data[header_end + begin : header_end + end] = tensors[name].tobytes()
    return bytes(data)


@pytest.mark.parametrize("bad", [0.0, -1.0, np.nan, np.inf])
def test_a_scale_must_be_above_zero(quantised: Any, tmp_path: Path, bad: float) -> None:
    data = with_tensor(quantised("int8"), "hidden.weight_scale", lambda array: array.__setitem__(0, bad))
    message = refused(tmp_path / "bad", data)
    assert "tensor 'hidden.weight_scale' holds a" in message


@pytest.mark.parametrize("bad", [0x7F80, 0xFF80, 0x7FC0])
def test_bfloat16_must_be_finite(quantised: Any, tmp_path: Path, bad: int) -> None:
    data = with_tensor(quantised("bfloat16"), "hidden.weight", lambda array: array.__setitem__((0, 0), bad))
    assert "'hidden.weight' holds a number that is not finite" in refused(tmp_path / "bad", data)


@BOTH
def test_a_changed_weight_is_seen(quantised: Any, tmp_path: Path, to: Narrow) -> None:
    data = with_tensor(
        quantised(to), "hidden.weight", lambda array: array.__setitem__((0, 0), array[0, 0] ^ 1)
    )
    assert "tensor 'hidden.weight' is damaged" in refused(tmp_path / "bad", data)


@BOTH
def test_every_truncation_is_refused(quantised: Any, tmp_path: Path, to: Narrow) -> None:
    data = quantised(to).read_bytes()
    for size in range(0, len(data), 37):
        refused(tmp_path / "bad", data[:size])


def test_types_must_fit_the_precision(quantised: Any, tmp_path: Path) -> None:
    whole = quantised("int8").read_bytes()
    assert "must take" in refused(
        tmp_path / "bad", whole.replace(rb"\"precision\":\"int8\"", rb"\"precision\":\"float32\"")
    )
    file = read_model(quantised("int8"))
    with pytest.raises(FileFormatError, match=r"'hidden.weight' must be int8 \(5, 7\), found float32"):
        to_bytes(file.metadata, {name: array.astype(np.float32) for name, array in file.tensors.items()})
    with pytest.raises(FileFormatError, match=r"'hidden.weight_scale' is missing"):
        to_bytes(file.metadata, {n: t for n, t in file.tensors.items() if n != "hidden.weight_scale"})


def test_a_wrong_golden_output_is_seen(quantised: Any, tmp_path: Path) -> None:
    file = read_model(quantised("int8"))
    golden = file.metadata.golden
    wrong = golden.model_copy(update={"outputs": ((0.5, 0.5, 0.5), *golden.outputs[1:])})
    data = to_bytes(file.metadata.model_copy(update={"golden": wrong}), file.tensors)
    assert "golden row 0 gives" in refused(tmp_path / "bad", data)


def test_int8_refuses_a_layer_that_is_too_wide(described: Any) -> None:
    metadata, _ = described
    layer = metadata.layers[0].model_copy(update={"inputs": 65537})
    features = tuple({"kind": "numeric", "name": f"x{i}"} for i in range(65537))
    document = metadata.model_dump() | {
        "features": features,
        "input_shape": (65537,),
        "layers": (layer, *metadata.layers[1:]),
        "golden": {"inputs": (), "outputs": ()},
        "precision": "int8",
    }
    with pytest.raises(ValueError, match="int8 takes up to 65536"):
        type(metadata).model_validate(document)


# ---- Which precision runs ----------------------------------------------------------------------------------------


def test_split_runs_where_it_can_and_says_so(model_file: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    path = model_file()
    runs = "float32-split" if precision_usable("float32-split", choose_isa()) else "float32"
    assert load_model(path, precision="float32-split").precision == runs
    monkeypatch.setenv("MARIANA_PRECISION", "float32-split")
    assert load_model(path).precision == runs
    assert load_model(path, precision="float32").precision == "float32"
    assert load_model(path, isa="generic").precision == "float32"


@BOTH
def test_a_quantised_model_keeps_its_precision(quantised: Any, to: Narrow) -> None:
    assert load_model(quantised(to), precision="float32-split").precision == to


@pytest.mark.parametrize("wrong", ["int8", "double", ""])
def test_a_precision_that_cannot_be_asked_for(model_file: Any, wrong: str) -> None:
    with pytest.raises(InvalidInputError, match="precision must be float32 or float32-split"):
        load_model(model_file(), precision=wrong)


# ---- The command -------------------------------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path: Path, model_file: Any) -> Store:
    store = Store(tmp_path / "store")
    store.publish_model("fruit", model_file().read_bytes())
    return store


def run(store: Store, *words: str) -> str:
    result = CliRunner().invoke(cli, [*words, "--store", str(store.path)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_the_command_publishes_a_version(store: Store, tmp_path: Path) -> None:
    data = tmp_path / "fruit.csv"
    data.write_text("length,colour,ripe,fruit\n2.5,red,true,apple\n1,blue,false,plum\n1,blue,true,cherry\n")
    said = run(store, "quantize", "fruit", "--to", "int8", "--data", str(data))
    assert "fruit: float32 to int8, 252 to 124 bytes of weights" in said
    assert "golden rows (3 rows): outputs differ by up to" in said
    assert "fruit (3 rows)" in said
    assert "accuracy: " in said
    assert f"published {store.path}/models/fruit/2/model.safetensors" in said
    assert load_model(store.model_path("fruit")).precision == "int8"
    shown = run(store, "inspect", "fruit")
    assert "quantised to int8, from the float32 file" in shown
    assert "accuracy: " in shown
    assert "packed for int8 on" in shown

    answer = json.loads(run(store, "quantize", "fruit", "--to", "bf16", "--json"))  # of version 1: 2 is int8
    assert answer["precision"] == "bfloat16"
    assert answer["bytes_after"] == 252 - 2 * (5 * 7 + 7 * 3)
    assert [loss["data"] for loss in answer["losses"]] == ["golden rows"]
    assert store.model_versions("fruit") == [1, 2, 3]
    facts = json.loads(run(store, "inspect", "fruit", "--json"))
    assert facts["precision"] == facts["runs_in"] == "bfloat16"
    assert facts["quantization"]["losses"] == answer["losses"]

    with TestClient(create_app(Settings(store=store.path))) as client:
        told = client.get("/v1/models/fruit").json()
        assert told["precision"] == "bfloat16"
        assert told["quantization"] == facts["quantization"]
        Store(store.path).publish_model("wide", store.model_path("fruit", 1).read_bytes())
    with TestClient(create_app(Settings(store=store.path))) as client:
        assert client.get("/v1/models/wide").json()["quantization"] is None


@BOTH
def test_an_export_to_onnx_wants_the_float32_version(store: Store, tmp_path: Path, to: Narrow) -> None:
    run(store, "quantize", "fruit", "--to", to)
    with pytest.raises(
        InvalidInputError, match=f"{to} cannot be exported to ONNX.*export the float32 version"
    ):
        run(store, "export", "fruit", "--to", "onnx", "-o", str(tmp_path / "out"))


def test_a_path_needs_a_name(store: Store) -> None:
    path = str(store.model_path("fruit"))
    with pytest.raises(InvalidInputError, match="name the model to publish with --name"):
        run(store, "quantize", path, "--to", "int8")
    run(store, "quantize", path, "--to", "int8", "--name", "small")
    assert store.model_versions("small") == [1]


@BOTH
def test_a_quantised_model_is_served(store: Store, to: Narrow) -> None:
    run(store, "quantize", "fruit", "--to", to)
    row = {"length": 2.5, "colour": "red", "ripe": True}
    wanted = load_model(store.model_path("fruit")).predict_records([row])[0]
    with TestClient(create_app(Settings(store=store.path, precision="float32-split"))) as client:
        told = client.get("/v1/models/fruit").json()
        assert (told["version"], told["precision"]) == (2, to)
        assert client.get("/v2/models/fruit").json()["parameters"]["precision"] == to
        before = client.get("/v2/models/fruit/versions/1").json()["parameters"]["precision"]
        assert before == load_model(store.model_path("fruit", 1), precision="float32-split").precision
        answer = client.post("/v1/models/fruit/predict", json={"instances": [row]}).json()
    (found,) = answer["predictions"]
    assert found["label"] == wanted.label  # type: ignore[union-attr] # a classification
    assert found["probabilities"] == pytest.approx(wanted.probabilities)  # type: ignore[union-attr]


def test_the_record_is_checked() -> None:
    with pytest.raises(ValueError, match="greater than or equal to 0"):
        Quantization(
            source_sha256=SHA, losses=(Loss(data="x", rows=1, max_difference=-1, mean_difference=0),)
        )
