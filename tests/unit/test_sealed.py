"""The sealed plan of a model file: it says what the document says, whole or not at all, whatever its bytes are."""

import base64
import os
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from mariana._binding import lib
from mariana.environment import running
from mariana.errors import FileFormatError, InvalidInputError, KernelError
from mariana.format import (
    CategoricalFeature,
    DenseLayer,
    Form,
    Golden,
    ModelFile,
    ModelMetadata,
    NumericFeature,
    TargetScaling,
    plan_of,
    read_model,
    schema,
    to_bytes,
)
from mariana.model import Model, load_model
from mariana.plan import FORMS, Plan, Tables
from mariana.quantize import quantize
from mariana.sealed import PLAN_KEY, SCHEMA, read_sealed
from mariana.settings import Settings, load_settings

Write = Callable[..., Path]
BEGIN = b'{"__metadata__":{"' + PLAN_KEY.encode() + b'":"'


def parts(file: bytes) -> tuple[bytes, bytes, bytes]:
    """Return the plan of a sealed file, what comes after it in the header, and the tensors."""
    end = 8 + int.from_bytes(file[:8], "little")
    assert file.startswith(BEGIN, 8)
    text, quote, rest = file[8 + len(BEGIN) : end].partition(b'"')
    return base64.b64decode(text, validate=True)[4:], quote + rest, file[end:]


def sealed(plan: bytes, rest: bytes, tensors: bytes) -> bytes:
    """Return a file whose seal is whole, as docs/format.md describes it."""
    seal = zlib.crc32(tensors, zlib.crc32(rest, zlib.crc32(plan)))
    header = BEGIN + base64.b64encode(seal.to_bytes(4, "little") + plan) + rest
    return len(header).to_bytes(8, "little") + header + tensors


def same_plan(a: Plan, b: Plan) -> None:
    assert (a.precision, a.input_shape) == (b.precision, b.input_shape)
    for x, y in zip(a.layers, b.layers, strict=True):
        assert x.activation == y.activation
        for name in ("weight", "bias", "slope", "weight_scale"):
            np.testing.assert_array_equal(getattr(x, name), getattr(y, name), name)
    for name in Tables.__slots__:
        np.testing.assert_array_equal(getattr(a.tables, name), getattr(b.tables, name), name)
    np.testing.assert_array_equal(a.golden_inputs, b.golden_inputs)
    np.testing.assert_array_equal(a.golden_outputs, b.golden_outputs)


def of_all_kinds() -> tuple[ModelMetadata, dict[str, Any]]:
    """Return a network with every table and every kind of slope."""
    metadata = ModelMetadata(
        task="regression",
        features=(
            NumericFeature(name="a", shift=1, scale=2, soft=True, knots=(0, 1, 4), indicator=True, fill=0.5),
            NumericFeature(name="b"),
            CategoricalFeature(name="c", categories=("x", "y"), fill="y"),
            NumericFeature(name="d", indicator=True, fill=2),
        ),
        input_shape=(2, 2),
        layers=(
            DenseLayer(name="one", inputs=9, units=3, activation="leaky_relu"),
            DenseLayer(name="two", inputs=3, units=4, activation="elu", slope=0.3, use_bias=False),
            DenseLayer(name="three", inputs=4, units=5, activation="prelu"),
            DenseLayer(name="out", inputs=5, units=2, activation="gelu_tanh"),
        ),
        targets=("p", "q"),
        target_scaling=TargetScaling(shift=(1, 2), scale=(3, 4)),
    )
    random = np.random.default_rng(3)
    tensors = {name: random.normal(size=s).astype(np.float32) for name, s in metadata.tensor_shapes().items()}
    rows = ((0.5, 2.0, 1.0, None), (None, -1.0, None, 3.0))
    x = np.array([[np.nan if v is None else v for v in row] for row in rows], np.float32)
    y = Model(ModelFile(metadata, tensors)).predict(x)
    golden = Golden(inputs=rows, outputs=tuple(tuple(row) for row in y.tolist()))
    return metadata.model_copy(update={"golden": golden}), tensors


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8"])
def test_the_plan_is_what_the_document_comes_down_to(tmp_path: Path, precision: Any) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(to_bytes(*of_all_kinds()))
    if precision != "float32":
        narrow = quantize(read_model(path), precision, source_sha256="0" * 64)
        path.write_bytes(to_bytes(narrow.metadata, narrow.tensors))
    quick, file = read_sealed(path), read_model(path)
    assert quick is not None
    same_plan(quick.plan, plan_of(file.metadata, file.tensors))
    model, slow = load_model(path), load_model(path, validate=True)
    x = np.random.default_rng(1).normal(size=(50, 2, 2)).astype(np.float32)
    assert model.predict(x).tobytes() == slow.predict(x).tobytes() == Model(file).predict(x).tobytes()
    assert (model.info, repr(model), model.nbytes) == (slow.info, repr(slow), slow.nbytes)


def test_files_without_a_plan_load_as_they_did(tmp_path: Path, described: Any, model_file: Write) -> None:
    path = model_file()
    _, rest, tensors = parts(path.read_bytes())
    header = b'{"__metadata__":{' + rest.removeprefix(b'",')
    old = tmp_path / "old.safetensors"
    old.write_bytes(len(header).to_bytes(8, "little") + header + tensors)
    assert read_sealed(old) is None
    x = np.ones((3, 3), np.float32)
    assert load_model(old).predict(x).tobytes() == load_model(path).predict(x).tobytes()
    assert load_model(old).info == described[0].model_copy(update={"tensors": load_model(old).info.tensors})


def test_a_header_that_would_become_too_long_stays_without(
    described: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = to_bytes(*described)
    monkeypatch.setattr("mariana.sealed.MAX_HEADER", int.from_bytes(whole[:8], "little") - 1)
    assert PLAN_KEY.encode() not in to_bytes(*described)


HEAVY = ("pydantic", "pydantic_settings", "safetensors", "hashlib", "json", "dataclasses", "numpy.typing")
QUICK = """
import sys, numpy
before = set(sys.modules)
import mariana
model = mariana.load_model(sys.argv[1])
x = numpy.ones((1, model.columns), numpy.float32)
model.predict(x), model.predict(numpy.ones((100, model.columns))), model.bind(x, model.predict(x))()
print(*sorted(set(sys.modules) - before), sep="\\n")
"""


@pytest.mark.parametrize("what", ["file", "folder"])
def test_loading_and_predicting_import_little(model_file: Write, what: str) -> None:
    path = model_file() if what == "file" else model_file().parent
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MARIANA_")}
    environment["MARIANA_THREADS"] = "2" if what == "folder" else ""
    done = subprocess.run(
        [sys.executable, "-c", QUICK, path], capture_output=True, text=True, check=True, env=environment
    )
    found = set(done.stdout.split())
    assert "mariana.model" in found
    assert not {name for name in found if name.split(".")[0] in HEAVY or name in HEAVY}, found
    assert not found & {"mariana.format", "mariana.settings", "mariana.records"}


def test_the_checksum_of_the_schema_is_that_of_its_fields() -> None:
    classes = [c for c in vars(schema).values() if isinstance(c, type) and issubclass(c, BaseModel)]
    fields = sorted(f"{c.__name__}.{field}" for c in set(classes) for field in c.model_fields)
    assert hex(zlib.crc32("\n".join(fields).encode())) == hex(SCHEMA)


def test_the_lists_of_forms_are_equal() -> None:
    assert tuple(FORMS) == get_args(Form)
    assert {name: getattr(lib, f"MRN_FORM_{name.upper()}") for name in FORMS} == FORMS
    assert len(FORMS) == lib.MRN_FORM_COUNT


# ---- Files that are not as they were written ------------------------------------------------------------------


def test_a_change_anywhere_breaks_the_seal(tmp_path: Path, described: Any) -> None:
    whole, path = to_bytes(*described), tmp_path / "m.safetensors"
    for place in range(0, len(whole), 7):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        assert read_sealed(path) is None, place
    for changed in (whole[:-1], whole + b"\0", b"", whole[:100]):
        path.write_bytes(changed)
        assert read_sealed(path) is None
        with pytest.raises(FileFormatError, match=str(path)):
            load_model(path)


def test_a_damaged_plan_beside_a_whole_document_does_no_harm(tmp_path: Path, described: Any) -> None:
    whole, path = to_bytes(*described), tmp_path / "m.safetensors"
    place = 8 + len(BEGIN) + 20
    path.write_bytes(
        whole[:place] + (b"A" if whole[place : place + 1] != b"A" else b"B") + whole[place + 1 :]
    )
    assert read_sealed(path) is None
    assert load_model(path).info.labels == ("apple", "cherry", "plum")


def test_what_is_no_file_has_no_plan(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "absent", tmp_path / "pipe"):
        assert read_sealed(path) is None


def test_the_plan_of_another_schema_is_not_taken(tmp_path: Path, described: Any) -> None:
    plan, *others = parts(to_bytes(*described))
    path = tmp_path / "m.safetensors"
    path.write_bytes(sealed(plan, *others))
    assert path.read_bytes() == to_bytes(*described)
    assert read_sealed(path) is not None
    path.write_bytes(sealed(bytes([plan[0] ^ 1]) + plan[1:], *others))
    assert read_sealed(path) is None
    assert load_model(path).outputs == 3


def test_a_newer_format_has_another_schema_and_is_refused(tmp_path: Path, described: Any) -> None:
    plan, rest, tensors = parts(to_bytes(*described))
    rest = rest.replace(rb"\"format_version\":1", rb"\"format_version\":2")
    path = tmp_path / "m.safetensors"
    path.write_bytes(sealed(b"\0\0\0\0" + plan[4:], rest, tensors))
    with pytest.raises(FileFormatError, match="format version 2 is newer than 1"):
        load_model(path)


def test_a_forged_document_is_found_when_it_is_asked_for(tmp_path: Path, described: Any) -> None:
    plan, rest, tensors = parts(to_bytes(*described))
    assert rb"\"task\":\"classification\"" in rest
    path = tmp_path / "m.safetensors"
    path.write_bytes(sealed(plan, rest.replace(rb"\"classification\"", rb"\"clairvoyance!!!\""), tensors))
    model = load_model(path)
    assert model.predict([[2.5, 0, 1]]).shape == (1, 3)
    for ask in (
        lambda: model.info,
        lambda: model.predict_records([{}]),
        lambda: load_model(path, validate=True),
    ):
        with pytest.raises(FileFormatError, match=f"{path}: task: Input should be"):
            ask()


def forged(path: Path, plan: bytes, rest: bytes, tensors: bytes) -> None:
    """Load a file with a whole seal over these bytes; it is refused in our words, or answers something."""
    path.write_bytes(sealed(plan, rest, tensors))
    try:
        model = load_model(path)
    except (FileFormatError, KernelError):
        return
    for rows in (1, 40):
        y = model.predict(np.ones((rows, model.columns), np.float32))
        assert y.shape == (rows, model.outputs)


@pytest.mark.parametrize("breaks", [False, True], ids=["document holds", "document broken"])
def test_every_word_of_a_forged_plan(tmp_path: Path, breaks: bool) -> None:
    plan, rest, tensors = parts(to_bytes(*of_all_kinds()))
    if breaks:  # so that nothing falls back on it
        rest = rest.replace(rb"\"task\":\"regression\"", rb"\"task\":\"aggression\"")
    for place in range(0, len(plan), 4):
        old = int.from_bytes(plan[place : place + 4], "little")
        for word in (0, 1, 2**31, 2**32 - 1, old ^ 1, (old + 1) % 2**32, (old - 1) % 2**32):
            forged(
                tmp_path / "m.safetensors",
                plan[:place] + word.to_bytes(4, "little") + plan[place + 4 :],
                rest,
                tensors,
            )


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_random_forgeries_are_refused_or_answer_something(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    plan, rest, tensors = parts(to_bytes(*of_all_kinds()))
    rest = rest.replace(rb"\"task\":\"regression\"", rb"\"task\":\"aggression\"")
    edits = st.tuples(
        st.integers(4, len(plan)), st.integers(0, 8), st.binary(max_size=8) | st.just(b"\xff" * 8)
    )
    for start, dropped, put in data.draw(st.lists(edits, min_size=1, max_size=4)):
        plan = plan[:start] + put + plan[start + dropped :]
    if data.draw(st.booleans()):
        tensors = data.draw(st.binary(max_size=64)) + tensors[data.draw(st.integers(0, 64)) :]
    forged(tmp_path_factory.getbasetemp() / "forged.safetensors", plan, rest, tensors)


# ---- Settings ---------------------------------------------------------------------------------------------------

VALUES = [None, "", "1", "2", "64", "65", "0", "02", " 2", "x", "float32", "float32-split", "avx2"]


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("name", ["MARIANA_ISA", "MARIANA_PRECISION", "MARIANA_THREADS", "mariana_threads"])
def test_the_environment_means_what_the_settings_say(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, value: str | None
) -> None:
    monkeypatch.chdir(tmp_path)
    for key in [key for key in os.environ if key.upper().startswith("MARIANA_")]:
        monkeypatch.delenv(key)
    if value is not None:
        monkeypatch.setenv(name, value)
    quick = running()
    if quick is not None:
        settings = Settings()
        assert quick == (settings.isa, settings.precision, settings.threads)
    elif value not in ("02", " 2"):
        with pytest.raises(InvalidInputError, match=name.upper()):
            load_settings()


def test_a_settings_file_counts(model_file: Write, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = model_file()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MARIANA_ISA", raising=False)
    (tmp_path / "mariana.toml").write_text('isa = "generic"\n')
    assert load_model(path).isa == "generic"
    (tmp_path / "mariana.toml").rename(tmp_path / "other.toml")
    monkeypatch.setenv("MARIANA_CONFIG", str(tmp_path / "other.toml"))
    assert load_model(path).isa == "generic"
    monkeypatch.setenv("MARIANA_THREADS", "many")
    with pytest.raises(InvalidInputError, match=r"MARIANA_THREADS: .*; it means: threads that share"):
        load_model(path)
