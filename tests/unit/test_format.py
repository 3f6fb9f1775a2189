"""The model file: the same bytes for the same model; whatever else it holds, it is refused by name."""

import hashlib
import json
import math
import os
import random
import socket
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from mariana._binding.dense import MAX_LAYERS, MAX_WIDTH, activation_names
from mariana.errors import FileFormatError
from mariana.format import (
    MAX_COLUMNS,
    MAX_UNITS,
    ActivationName,
    Golden,
    ModelMetadata,
    NumericFeature,
    TrainingRecord,
    read_model,
    to_bytes,
)

Described = tuple[ModelMetadata, dict[str, Any]]


def pack(header: Any, data: bytes = b"") -> bytes:
    """Return a safetensors file with a header of our choice."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def document(file: bytes) -> dict[str, Any]:
    """Return the metadata of a good file."""
    size = int.from_bytes(file[:8], "little")
    found: dict[str, Any] = json.loads(json.loads(file[8 : 8 + size])["__metadata__"]["mariana"])
    return found


def with_document(described: Described, text: str) -> bytes:
    """Return a file whose tensors are good and whose metadata is ``text``."""
    return safetensors.numpy.save(described[1], metadata={"mariana": text})


def refused(tmp_path: Path, data: bytes) -> str:
    """Return the message with which a file is refused; it names the file and is one line."""
    path = tmp_path / "bad.safetensors"
    path.write_bytes(data)
    with pytest.raises(FileFormatError) as caught:
        read_model(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    assert len(message) < 700
    return message.removeprefix(f"{path}: ")


# ---- Good files -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_what_is_written_is_read(model_file: Any, task: str) -> None:
    path = model_file(task)
    file = read_model(path)
    assert file.metadata.task == task
    assert file.metadata.columns == 3
    assert file.metadata.encoded_columns == 5
    assert file.metadata.outputs == 3
    assert file.metadata.parameters == 5 * 7 + 7 + 7 * 3
    assert to_bytes(file.metadata, file.tensors) == path.read_bytes()


def test_the_same_model_gives_the_same_bytes(described: Described) -> None:
    metadata, tensors = described
    assert to_bytes(metadata, dict(reversed(tensors.items()))) == to_bytes(metadata, tensors)
    assert to_bytes(metadata, {n: np.asfortranarray(t) for n, t in tensors.items()}) == to_bytes(
        metadata, tensors
    )


def test_other_tools_read_it(described: Described) -> None:
    metadata, tensors = described
    data = to_bytes(metadata, tensors)
    loaded = safetensors.numpy.load(data)
    assert {name: array.tobytes() for name, array in loaded.items()} == {
        n: t.tobytes() for n, t in tensors.items()
    }
    for name, checksum in document(data)["tensors"].items():
        assert hashlib.sha256(tensors[name].tobytes()).hexdigest() == checksum


def test_non_finite_metrics_survive(tmp_path: Path, described: Described) -> None:
    metadata, tensors = described
    record = TrainingRecord(metrics={"train": {"loss": math.nan, "mae": math.inf}})
    path = tmp_path / "m.safetensors"
    path.write_bytes(to_bytes(metadata.model_copy(update={"training": record}), tensors))
    metrics = read_model(path).metadata.training.metrics["train"]
    assert math.isnan(metrics["loss"])
    assert metrics["mae"] == math.inf


def test_lists_and_limits_are_those_of_the_kernel() -> None:
    assert list(ActivationName.__args__) == activation_names()
    assert (MAX_COLUMNS, MAX_UNITS) == (MAX_WIDTH, MAX_WIDTH)
    assert ModelMetadata.model_json_schema()["properties"]["layers"]["maxItems"] == MAX_LAYERS


# ---- Writing refuses what reading would --------------------------------------------------------------------------


def test_tensors_must_fit(described: Described) -> None:
    metadata, tensors = described
    changes: list[tuple[dict[str, Any], str]] = [
        (
            {"hidden.weight": tensors["hidden.weight"].T},
            r"'hidden.weight' must be float32 \(5, 7\), found .* \(7, 5\)",
        ),
        ({"hidden.bias": np.full(7, np.nan, np.float32)}, "'hidden.bias' holds a number that is not finite"),
        ({"hidden.bias": np.full(7, np.inf, np.float32)}, "not finite"),
        ({"stray": np.zeros(1, np.float32)}, "'stray' belongs to no layer"),
    ]
    for change, message in changes:
        with pytest.raises(FileFormatError, match=message):
            to_bytes(metadata, tensors | change)
    with pytest.raises(FileFormatError, match=r"'hidden.bias' is missing"):
        to_bytes(metadata, {n: t for n, t in tensors.items() if n != "hidden.bias"})


def test_metadata_that_was_changed_behind_its_validation(described: Described) -> None:
    metadata, tensors = described
    golden = Golden.model_construct(inputs=((0.0, 0.0, 0.0),), outputs=((math.nan, 0.0, 1.0),))
    with pytest.raises(FileFormatError, match="golden"):
        to_bytes(metadata.model_copy(update={"golden": golden}), tensors)
    with pytest.raises(FileFormatError, match="labels"):
        to_bytes(metadata.model_copy(update={"labels": ("a",)}), tensors)


# ---- Damaged files -----------------------------------------------------------------------------------------------


def test_every_truncation_is_refused(tmp_path: Path, described: Described) -> None:
    data = to_bytes(*described)
    header = 8 + int.from_bytes(data[:8], "little")
    lengths = {
        *range(20),
        *range(header - 5, header + 6),
        *range(20, len(data), 37),
        *range(len(data) - 5, len(data)),
    }
    for length in sorted(lengths):
        refused(tmp_path, data[:length])


def test_trailing_bytes_are_refused(tmp_path: Path, described: Described) -> None:
    for more in (b"\0", b"\0" * 4, b"{}" * 100):
        assert "the tensors must take 252 bytes, found" in refused(tmp_path, to_bytes(*described) + more)


def test_any_changed_byte_is_refused_or_means_the_same(tmp_path: Path, described: Described) -> None:
    data = to_bytes(*described)
    good = read_back(tmp_path, data)
    header = 8 + int.from_bytes(data[:8], "little")
    rng = random.Random(1)
    places = [*range(8), *rng.sample(range(8, header), 250), *rng.sample(range(header, len(data)), 60)]
    for place in places:
        changed = bytearray(data)
        changed[place] ^= 1 << rng.randrange(8)
        try:
            found = read_back(tmp_path, bytes(changed))
        except FileFormatError:
            continue
        # Nothing guards the words themselves (a label, a name of the record): the numbers and shapes stay.
        assert place < header
        assert found.metadata.layers == good.metadata.layers or place >= 8
        assert {n: t.tobytes() for n, t in found.tensors.items()} == {
            n: t.tobytes() for n, t in good.tensors.items()
        }


def read_back(tmp_path: Path, data: bytes) -> Any:
    path = tmp_path / "changed.safetensors"
    path.write_bytes(data)
    return read_model(path)


@settings(max_examples=150, deadline=None)
@given(data=st.binary(max_size=300))
def test_random_bytes_are_refused(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    refused(tmp_path_factory.getbasetemp(), data)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(header=st.dictionaries(st.sampled_from(["__metadata__", "a", "b"]), JSON, max_size=3))
def test_random_headers_are_refused(tmp_path_factory: pytest.TempPathFactory, header: Any) -> None:
    refused(tmp_path_factory.getbasetemp(), pack(header, b"\0" * 8))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 8,
        (1 << 63).to_bytes(8, "little"),
        (2**64 - 1).to_bytes(8, "little") + b"{}",
        (100_000_001).to_bytes(8, "little") + b"{}",
        pack(b"[" * 100_000),
        pack(b'{"a":' * 100_000),
        pack(b"\xff\xfe{}"),
        pack(b"[]"),
        pack(b'{"__metadata__":"x"}'),
    ],
)
def test_broken_containers_are_refused(tmp_path: Path, data: bytes) -> None:
    assert "not a safetensors file, or a damaged one" in refused(tmp_path, data)


def header_of(described: Described) -> tuple[dict[str, Any], bytes]:
    """Return the header of a good file and its tensors' bytes."""
    data = to_bytes(*described)
    end = 8 + int.from_bytes(data[:8], "little")
    return json.loads(data[8:end]), data[end:]


@pytest.mark.parametrize(
    "change",
    [
        {"shape": [2**63, 4]},
        {"shape": [2**62, 4]},
        {"shape": [-7]},
        {"shape": [7.0]},
        {"shape": None},
        {"dtype": "F99"},
        {"data_offsets": [28, 0]},
        {"data_offsets": [4, 32]},
        {"data_offsets": [0, 2**63]},
        {"data_offsets": [0, 2**64]},
        {"data_offsets": [2**64 - 28, 2**64]},
        {"data_offsets": [0]},
    ],
)
def test_tensors_that_lie_elsewhere_are_refused(tmp_path: Path, described: Described, change: Any) -> None:
    header, data = header_of(described)
    header["hidden.bias"] |= change
    assert "not a safetensors file, or a damaged one" in refused(tmp_path, pack(header, data))


@pytest.mark.parametrize(
    "header",
    [
        {},
        {"__metadata__": None},
        {"__metadata__": {}},
        {"__metadata__": {"pt": "1"}},
        {"__metadata__": {"mariana": 1}},
    ],
)
def test_foreign_safetensors_are_refused(tmp_path: Path, header: Any) -> None:
    assert "this safetensors file is not a Mariana model" in refused(tmp_path, pack(header))


@pytest.mark.parametrize("kind", ["I32", "U32"])
def test_other_types_are_refused(tmp_path: Path, described: Described, kind: str) -> None:
    header, data = header_of(described)
    header["hidden.bias"]["dtype"] = kind
    assert f"'hidden.bias' must be F32, found {kind}" in refused(tmp_path, pack(header, data))


def test_damaged_weights_are_refused(tmp_path: Path, described: Described) -> None:
    data = bytearray(to_bytes(*described))
    data[-1] ^= 0x01
    assert "is damaged: its SHA-256 is not the one in the metadata" in refused(tmp_path, bytes(data))
    data[-4:] = np.float32(np.nan).tobytes()
    assert "holds a number that is not finite" in refused(tmp_path, bytes(data))


def test_a_newer_version_is_refused_as_such(tmp_path: Path, described: Described) -> None:
    for newer in ({"format_version": 2, "all": "other"}, {"format_version": 10**9}):
        message = refused(tmp_path, with_document(described, json.dumps(newer)))
        assert f"format version {newer['format_version']} is newer than 1, the newest known here" in message


@pytest.mark.parametrize(
    "text", ["", "{", "nonsense", "[" * 50_000, '{"a":' * 50_000, "9" * 5000, '"\\ud800"', "\0"]
)
def test_metadata_that_is_no_document(tmp_path: Path, described: Described, text: str) -> None:
    refused(tmp_path, with_document(described, text))


WRONG: list[tuple[tuple[Any, ...], Any]] = [
    (("format_version",), 0),
    (("format_version",), "1"),
    (("format_version",), None),
    (("task",), "clustering"),
    (("precision",), "float16"),
    (("surprise",), 1),
    (("features",), []),
    (("features",), None),
    (("features", 0, "kind"), "text"),
    (("features", 0, "name"), ""),
    (("features", 0, "name"), "n" * 257),
    (("features", 0, "name"), "ripe"),
    (("features", 0, "shift"), "NaN"),
    (("features", 0, "scale"), 1e39),
    (("features", 0, "fill"), "Infinity"),
    (("features", 1, "categories"), []),
    (("features", 1, "categories"), ["red", "red", "blue"]),
    (("features", 1, "categories"), ["red", "blue"]),
    (("features", 1, "fill"), "yellow"),
    (("features", 2, "fill"), 1),
    (("input_shape",), []),
    (("input_shape",), [4]),
    (("input_shape",), [-1, -3]),
    (("input_shape",), [3.5]),
    (("layers",), []),
    (("layers", 0, "kind"), "conv"),
    (("layers", 0, "name"), "output"),
    (("layers", 0, "name"), "../weights"),
    (("layers", 0, "inputs"), 6),
    (("layers", 0, "inputs"), "5"),
    (("layers", 0, "inputs"), 0),
    (("layers", 0, "units"), 8),
    (("layers", 0, "units"), 2**64),
    (("layers", 0, "units"), True),
    (("layers", 0, "activation"), "mish"),
    (("layers", 0, "slope"), 0.1),
    (("layers", 0, "activation"), "softmax"),
    (("layers", 0, "use_bias"), False),
    (("layers", 1, "use_bias"), True),
    (("layers", 1, "activation"), "relu"),
    (("labels",), ["apple", "apple", "plum"]),
    (("labels",), ["apple", "plum"]),
    (("labels",), ["apple", "cherry", 1.5]),
    (("labels",), ["apple", "cherry", True]),
    (("target_scaling",), {"shift": [0, 0, 0], "scale": [1, 1, 1]}),
    (("training", "rows"), -1),
    (("training", "data_sha256"), "abc"),
    (("training", "surprise"), 1),
    (("golden", "inputs"), [[1, 2, 3]]),
    (("golden", "outputs", 0), [1, 2]),
    (("golden", "inputs", 0), [1, 2]),
    (("golden", "inputs", 0, 0), "Infinity"),
    (("tensors",), {}),
    (("tensors", "hidden.bias"), "0" * 64),
    (("tensors", "hidden.bias"), "zz"),
]


@pytest.mark.parametrize(
    ("where", "value"), WRONG, ids=[f"{'.'.join(map(str, w))}={str(v)[:20]}" for w, v in WRONG]
)
def test_each_wrong_field_is_refused(
    tmp_path: Path, described: Described, where: tuple[Any, ...], value: Any
) -> None:
    changed = document(to_bytes(*described))
    place: Any = changed
    for key in where[:-1]:
        place = place[key]
    place[where[-1]] = value
    refused(tmp_path, with_document(described, json.dumps(changed)))


@pytest.mark.parametrize("field", ["task", "features", "input_shape", "layers"])
def test_each_absent_field_is_named(tmp_path: Path, described: Described, field: str) -> None:
    changed = document(to_bytes(*described))
    del changed[field]
    assert refused(tmp_path, with_document(described, json.dumps(changed))).startswith(
        f"{field}: Field required"
    )


def test_a_layer_that_claims_more_than_the_file_holds(tmp_path: Path, described: Described) -> None:
    changed = document(to_bytes(*described))
    changed["layers"][0]["units"] = changed["layers"][1]["inputs"] = 1 << 20
    message = refused(tmp_path, with_document(described, json.dumps(changed)))
    assert message == "the tensors must take 37748736 bytes, found 252"


# ---- Things that are no regular file ---------------------------------------------------------------------------


def test_a_folder_a_pipe_a_socket_and_a_device_are_refused_at_once(tmp_path: Path) -> None:
    start = time.monotonic()
    pipe, folder, link, endpoint = (tmp_path / name for name in ("pipe", "folder", "link", "socket"))
    os.mkfifo(pipe)
    folder.mkdir()
    link.symlink_to("/dev/zero")
    for path in (pipe, link):
        with pytest.raises(
            FileFormatError, match=r"not a regular file; a model file is named model.safetensors"
        ):
            read_model(path)
    with pytest.raises((OSError, FileFormatError)):
        read_model(folder)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(endpoint))
        with pytest.raises(OSError):
            read_model(endpoint)
    assert time.monotonic() - start < 5


def test_a_sparse_file_of_a_terabyte_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "huge.safetensors"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(FileFormatError):
        read_model(path)


def test_a_link_to_a_good_file_is_good(tmp_path: Path, model_file: Any) -> None:
    link = tmp_path / "link"
    link.symlink_to(model_file())
    assert read_model(link).metadata.columns == 3


def test_reading_says_what_the_system_says(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_model(tmp_path / "absent")


def test_metadata_is_frozen_and_names_what_is_wrong() -> None:
    feature = NumericFeature(name="x")
    with pytest.raises(ValueError, match="frozen"):
        feature.name = "y"  # type: ignore[misc]
