"""Models: where they are found, what they take, what they say."""

import gc
import math
import sys
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

import mariana
from mariana.errors import FileFormatError, InvalidInputError, KernelError, NotFoundError, OutOfRangeError
from mariana.format import BooleanFeature, DenseLayer, Golden, ModelMetadata, NumericFeature, to_bytes
from mariana.model import ClassPrediction, Model, ValuePrediction, load_model

Write = Callable[..., Path]
ROW = {"length": 2.5, "colour": "red", "ripe": True}


@pytest.fixture
def model(model_file: Write) -> Model:
    return load_model(model_file())


# ---- Loading ---------------------------------------------------------------------------------------------------


def test_load_takes_the_file_its_folder_and_the_folder_of_all_versions(
    tmp_path: Path, described: Any
) -> None:
    store = mariana.Store(tmp_path)
    store.publish_model("fruit", to_bytes(*described))
    latest = store.publish_model("fruit", to_bytes(*described))
    for path in (latest, latest.parent, latest.parent.parent, str(latest)):
        assert load_model(path).info.labels == ("apple", "cherry", "plum")


def test_load_of_a_model_folder_takes_the_highest_version(tmp_path: Path, described: Any) -> None:
    metadata, tensors = described
    for version, data in (("9", "old"), ("10", "new")):
        record = metadata.training.model_copy(update={"data": data})
        (tmp_path / version).mkdir()
        file = to_bytes(metadata.model_copy(update={"training": record}), tensors)
        (tmp_path / version / "model.safetensors").write_bytes(file)
    assert load_model(tmp_path).info.training.data == "new"


@pytest.mark.parametrize("what", ["absent", "empty folder"])
def test_load_of_nothing_says_so(tmp_path: Path, what: str) -> None:
    path = tmp_path / "absent" if what == "absent" else tmp_path
    with pytest.raises(NotFoundError, match=str(path)):
        load_model(path)


def test_a_model_that_breaks_its_promise_is_refused(tmp_path: Path, described: Any) -> None:
    metadata, tensors = described
    wrong = Golden(inputs=metadata.golden.inputs, outputs=((0.1, 0.1, 0.8),) * 3)
    path = tmp_path / "m.safetensors"
    path.write_bytes(to_bytes(metadata.model_copy(update={"golden": wrong}), tensors))
    with pytest.raises(FileFormatError, match=r"golden row 0 gives .* the file promises"):
        load_model(path)


def test_the_instruction_set_can_be_lowered(model_file: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = model_file()
    assert load_model(path, isa="generic").isa == "generic"
    monkeypatch.setenv("MARIANA_ISA", "generic")
    assert load_model(path).isa == "generic"
    monkeypatch.setenv("MARIANA_ISA", "abacus")
    with pytest.raises(KernelError, match="unknown instruction set 'abacus'; known here: generic"):
        load_model(path)


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ({"isa": 5}, "isa must be a name, as a string, or None; got int"),
        ({"isa": b"avx2"}, "isa must be a name, .* got bytes"),
        ({"precision": 16}, "precision must be a name, .* got int"),
        ({"precision": "float16"}, "precision must be float32 or float32-split, got 'float16'"),
        ({"threads": "2"}, "threads must be a whole number or None, got str"),
        ({"threads": 2.0}, "threads must be a whole number or None, got float"),
        ({"threads": True}, "threads must be a whole number or None, got bool"),
        ({"threads": 0}, "threads must be 1 to 64, got 0"),
    ],
)
def test_arguments_that_are_refused(model_file: Write, argument: dict[str, object], words: str) -> None:
    with pytest.raises(InvalidInputError, match=words):
        load_model(model_file(), **argument)  # type: ignore[arg-type]


def test_an_instruction_set_that_cannot_be_spelled(model_file: Write) -> None:
    with pytest.raises(KernelError, match="unknown instruction set"):
        load_model(model_file(), isa="\ud800")


def test_what_a_model_tells_of_itself(model: Model) -> None:
    assert (model.columns, model.outputs) == (3, 3)
    assert model.nbytes > 4 * model.info.parameters
    assert repr(model) == f"<Model classification 5-7-3 on {model.isa}>"


# ---- Arrays in, arrays out -----------------------------------------------------------------------------------


def test_predict_gives_the_golden_outputs(model: Model) -> None:
    golden = model.info.golden
    rows = [[math.nan if value is None else value for value in row] for row in golden.inputs]
    np.testing.assert_allclose(model.predict(rows), golden.outputs, rtol=1e-5)


def test_predict_takes_what_is_real(model: Model) -> None:
    x = np.array([[2.5, 0, 1], [1, 2, 0]], np.float32)
    wanted = model.predict(x)
    assert wanted.dtype == np.float32
    assert wanted.flags.owndata
    wide = np.zeros((2, 6), np.float32)
    wide[:, ::2] = x
    readonly = x.copy()
    readonly.flags.writeable = False
    same: list[Any] = [
        x.tolist(),
        x.astype(np.float64),
        x.astype(">f4"),
        np.asfortranarray(x),
        wide[:, ::2],
        x[::-1][::-1],
        readonly,
        np.ma.masked_array(x),
        memoryview(x),
        np.repeat(x, 2, axis=0)[::2],
    ]
    for given in same:
        np.testing.assert_array_equal(model.predict(given), wanted)
    np.testing.assert_array_equal(
        model.predict(np.array([[2, 0, 1]], np.int8)), model.predict([[2.0, 0, True]])
    )
    assert model.predict(np.empty((0, 3), np.float32)).shape == (0, 3)


def test_predict_takes_rows_in_their_shape_before_they_were_flat(tmp_path: Path) -> None:
    metadata = ModelMetadata(
        task="regression",
        features=tuple(NumericFeature(name=f"x{i}") for i in range(6)),
        input_shape=(2, 3),
        layers=(DenseLayer(name="d", inputs=6, units=1),),
    )
    path = tmp_path / "m.safetensors"
    tensors = {"d.weight": np.arange(6, dtype=np.float32)[:, None], "d.bias": np.zeros(1, np.float32)}
    path.write_bytes(to_bytes(metadata, tensors))
    images = np.arange(12.0).reshape(2, 2, 3)
    np.testing.assert_allclose(load_model(path).predict(images)[:, 0], [55, 145])


@pytest.mark.parametrize(
    ("x", "message"),
    [
        ([[1, 2]], "expected 3 features, got 2"),
        ([1, 2, 3], r"\(batch, 3\), got shape \(3,\); put one row into a list"),
        (5.0, r"got shape \(\)"),
        ([[[1, 2, 3]]], r"got shape \(1, 1, 3\)"),
        ([[1, 2, 3], [1]], "different lengths"),
        ([["1", "2", "3"]], "real numbers"),
        ([[None, 2, 3]], "real numbers"),
        ([[1j, 2, 3]], "real numbers"),
        (np.array([["2020-01-01"] * 3], "datetime64[D]"), "real numbers"),
        ({"length": 1}, "real numbers"),
    ],
)
def test_predict_refuses_the_rest(model: Model, x: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        model.predict(x)


def test_predict_refuses_numbers_beyond_float32(model: Model) -> None:
    with pytest.raises(OutOfRangeError, match="row 1, column 2") as caught:
        model.predict([[1, 2, 3], [1, 2, 1e39]])
    assert caught.value.pointer == "/1/2"
    assert model.predict([[math.inf, 0, 1]]).shape == (1, 3)  # infinity itself is a float32


def test_predict_from_many_threads_at_once(model: Model) -> None:
    rows = [np.random.default_rng(i).normal(size=(1 + i % 3, 3)).astype(np.float32) for i in range(12)]
    wanted = [model.predict(x.tolist()) for x in rows]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # so that threads meet between any two lines
    try:
        with ThreadPoolExecutor(8) as threads:
            found = list(threads.map(model.predict, rows * 200))
    finally:
        sys.setswitchinterval(interval)
    assert all(y.tobytes() == wanted[i % 12].tobytes() for i, y in enumerate(found))


def test_predict_gives_arrays_of_their_own(model: Model) -> None:
    x = np.ones((1, 3), np.float32)
    first = model.predict(x)
    kept = first.copy()
    x[:] = 0
    second = model.predict(x)
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(first, kept)
    first[:] = 7
    np.testing.assert_array_equal(model.predict(x), second)


def test_a_missing_value_is_filled_or_gives_nan(model: Model) -> None:
    filled = model.predict([[math.nan, math.nan, 1]])
    np.testing.assert_array_equal(filled, model.predict([[1.5, 1, 1]]))
    assert np.isnan(model.predict([[1, 1, math.nan]])).all()


def test_an_unaligned_array_is_taken(model: Model) -> None:
    raw = bytearray(3 * 4 + 1)
    x = np.frombuffer(raw, np.uint8)[1:].view(np.float32).reshape(1, 3)
    x[:] = [2.5, 0, 1]
    np.testing.assert_array_equal(model.predict(x), model.predict([[2.5, 0, 1]]))


def test_bind_follows_its_arrays(model: Model) -> None:
    x, y = np.zeros((2, 3), np.float32), np.zeros((2, 3), np.float32)
    step = model.bind(x, y)
    for seed in range(3):
        x[:] = np.random.default_rng(seed).integers(0, 2, (2, 3))
        step()
        assert y.tobytes() == model.predict(x).tobytes()


def test_bind_keeps_what_it_needs(model_file: Write) -> None:
    model = load_model(model_file())
    wanted = model.predict(np.ones((1, 3), np.float32))
    y = np.zeros((1, 3), np.float32)
    step = model.bind(np.ones((1, 3), np.float32), y)
    del model
    gc.collect()
    filler = [np.full(4096, 7, np.uint8) for _ in range(100)]  # would take the freed memory
    step()
    assert len(filler) == 100
    np.testing.assert_array_equal(y, wanted)


def test_a_bound_call_allocates_nothing(model: Model) -> None:
    step = model.bind(np.ones((64, 3), np.float32), np.ones((64, 3), np.float32))
    step()
    tracemalloc.start()
    try:
        before = sys.getallocatedblocks()
        for _ in range(1000):
            step()
        assert abs(sys.getallocatedblocks() - before) < 50
        assert tracemalloc.get_traced_memory()[1] < 10_000
    finally:
        tracemalloc.stop()


def _readonly(shape: tuple[int, int]) -> Any:
    array = np.zeros(shape, np.float32)
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.zeros((1, 3)), np.zeros((1, 3), np.float32), "x as a C-contiguous float32 .* got float64"),
        (np.zeros((1, 3), ">f4"), np.zeros((1, 3), np.float32), "got >f4"),
        ([[1, 2, 3]], np.zeros((1, 3), np.float32), "got list"),
        (np.zeros((1, 4), np.float32), np.zeros((1, 3), np.float32), r"\(batch, 3\), got float32 \(1, 4\)"),
        (np.zeros((1, 3), np.float32), np.zeros((1, 2), np.float32), "needs y"),
        (np.zeros((2, 6), np.float32)[:, ::2], np.zeros((2, 3), np.float32), "not C-contiguous"),
        (
            np.zeros((2, 3), np.float32),
            np.zeros((1, 3), np.float32),
            "as many rows in x as in y, got 2 and 1",
        ),
        (np.zeros((1, 3), np.float32), _readonly((1, 3)), "read-only"),
    ],
)
def test_bind_refuses_the_rest(model: Model, x: Any, y: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        model.bind(x, y)


def test_bind_refuses_arrays_that_overlap(model: Model) -> None:
    both = np.zeros((3, 3), np.float32)
    with pytest.raises(InvalidInputError, match="overlap"):
        model.bind(both[:2], both[1:])


# ---- Records in, predictions out -------------------------------------------------------------------------------


def test_predict_records(model: Model) -> None:
    (prediction,) = model.predict_records([ROW])
    assert isinstance(prediction, ClassPrediction)
    wanted = model.info.golden.outputs[0]
    np.testing.assert_allclose(prediction.probabilities, wanted, rtol=1e-5)
    assert prediction.label == ("apple", "cherry", "plum")[int(np.argmax(wanted))]
    assert prediction.probability == max(prediction.probabilities)
    assert model.predict_records([]) == []


def test_encode_says_how_columns_are_coded(model: Model) -> None:
    x = model.encode(
        [
            ROW,
            {"length": None, "colour": None, "ripe": False},
            {"ripe": np.bool_(True), "colour": "yellow"},
            {"ripe": False, "length": np.float32(0.5), "colour": "blue"},
            {"ripe": False, "length": np.int64(3), "colour": "green"},
        ]
    )
    nan = math.nan
    wanted = [[2.5, 0, 1], [nan, nan, 0], [nan, nan, 1], [0.5, 2, 0], [3, 1, 0]]
    np.testing.assert_array_equal(x, np.array(wanted, np.float32))


@pytest.mark.parametrize(
    ("change", "error", "pointer", "message"),
    [
        ({"length": "2"}, InvalidInputError, "/1/length", "'length' must be a number, got str"),
        ({"length": True}, InvalidInputError, "/1/length", "must be a number, got bool"),
        ({"length": math.inf}, OutOfRangeError, "/1/length", "not finite"),
        ({"length": math.nan}, OutOfRangeError, "/1/length", "not finite"),
        ({"length": 1e39}, OutOfRangeError, "/1/length", "does not fit float32"),
        ({"length": 10**400}, OutOfRangeError, "/1/length", "does not fit float32"),
        ({"colour": 1}, InvalidInputError, "/1/colour", "must be a string, got int"),
        ({"ripe": 1}, InvalidInputError, "/1/ripe", "must be true or false, got int"),
        ({"ripe": None}, InvalidInputError, "/1/ripe", "missing, and the model has no substitute"),
        ({"secret": 1}, InvalidInputError, "/1", "there are: length, colour, ripe"),
    ],
)
def test_encode_points_at_what_is_wrong(
    model: Model, change: dict[str, Any], error: type[Exception], pointer: str, message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        model.encode([ROW, ROW | change])
    assert type(caught.value) is error
    assert caught.value.pointer == pointer
    assert "secret" not in str(caught.value)


def test_encode_refuses_rows_that_are_no_mappings(model: Model) -> None:
    with pytest.raises(InvalidInputError, match="row 0 must map feature names to values, got list") as caught:
        model.encode([[1, 2, 3]])  # type: ignore[list-item]
    assert caught.value.pointer == "/0"


def test_an_unknown_category_without_a_substitute(tmp_path: Path, described: Any) -> None:
    metadata, tensors = described
    features = list(metadata.features)
    features[1] = features[1].model_copy(update={"fill": None})
    path = tmp_path / "m.safetensors"
    changed = metadata.model_copy(
        update={"features": tuple(features), "golden": Golden(inputs=(), outputs=())}
    )
    path.write_bytes(to_bytes(changed, tensors))
    with pytest.raises(
        OutOfRangeError, match="none of its categories; there are: 'red', 'green', 'blue'"
    ) as caught:
        load_model(path).encode([ROW | {"colour": "secret"}])
    assert "secret" not in str(caught.value)


def test_pointers_are_escaped(tmp_path: Path) -> None:
    metadata = ModelMetadata(
        task="regression",
        features=(NumericFeature(name="a/b~c"),),
        input_shape=(1,),
        layers=(DenseLayer(name="d", inputs=1, units=1, use_bias=False),),
    )
    path = tmp_path / "m.safetensors"
    path.write_bytes(to_bytes(metadata, {"d.weight": np.ones((1, 1), np.float32)}))
    with pytest.raises(InvalidInputError) as caught:
        load_model(path).encode([{}])
    assert caught.value.pointer == "/0/a~1b~0c"


def test_regression_gives_values(model_file: Write) -> None:
    model = load_model(model_file("regression"))
    (prediction,) = model.predict_records([ROW])
    assert isinstance(prediction, ValuePrediction)
    np.testing.assert_allclose(prediction.value, model.info.golden.outputs[0], rtol=1e-4)


def test_one_target_gives_one_number(tmp_path: Path) -> None:
    metadata = ModelMetadata(
        task="regression",
        features=(BooleanFeature(name="b", fill=True),),
        input_shape=(1,),
        layers=(DenseLayer(name="d", inputs=1, units=1),),
    )
    path = tmp_path / "m.safetensors"
    path.write_bytes(
        to_bytes(metadata, {"d.weight": np.full((1, 1), 2, np.float32), "d.bias": np.ones(1, np.float32)})
    )
    assert load_model(path).predict_records([{}, {"b": False}]) == [
        ValuePrediction(3.0),
        ValuePrediction(1.0),
    ]


def test_one_sigmoid_unit_gives_two_probabilities(tmp_path: Path) -> None:
    metadata = ModelMetadata(
        task="classification",
        features=(NumericFeature(name="x"),),
        input_shape=(1,),
        layers=(DenseLayer(name="d", inputs=1, units=1, activation="sigmoid", use_bias=False),),
        labels=("no", "yes"),
    )
    path = tmp_path / "m.safetensors"
    path.write_bytes(to_bytes(metadata, {"d.weight": np.ones((1, 1), np.float32)}))
    low, even, high = cast(
        list[ClassPrediction], load_model(path).predict_records([{"x": -50}, {"x": 0}, {"x": 2}])
    )
    assert even == ClassPrediction("no", 0.5, (0.5, 0.5))
    assert low == ClassPrediction("no", 1.0, (1.0, pytest.approx(math.exp(-50), rel=1e-6)))  # type: ignore[arg-type] # approx
    sure = 1 / (1 + math.exp(-2))
    assert high.label == "yes"
    assert high.probabilities == pytest.approx((1 - sure, sure))


def test_decode_refuses_another_shape(model: Model) -> None:
    with pytest.raises(InvalidInputError, match=r"\(batch, 3\), got \(3,\)"):
        model.decode(np.zeros(3, np.float32))


@pytest.mark.parametrize(
    ("activation", "slope", "wanted"),
    [
        ("leaky_relu", None, -0.4),
        ("leaky_relu", 0.5, -1.0),
        ("elu", None, math.expm1(-2)),
        ("prelu", None, -0.6),
    ],
)
def test_slopes_come_from_the_file(
    tmp_path: Path, activation: Any, slope: float | None, wanted: float
) -> None:
    metadata = ModelMetadata(
        task="regression",
        features=(NumericFeature(name="x"),),
        input_shape=(1,),
        layers=(
            DenseLayer(name="out", inputs=1, units=1, activation=activation, use_bias=False, slope=slope),
        ),
    )
    tensors = {"out.weight": np.ones((1, 1), np.float32)}
    if activation == "prelu":
        tensors["out.slope"] = np.array([0.3], np.float32)
    path = tmp_path / "model.safetensors"
    path.write_bytes(to_bytes(metadata, tensors))
    found = load_model(path).predict(np.array([[-2.0], [3.0]], np.float32))
    np.testing.assert_allclose(found, [[wanted], [3.0]], rtol=1e-6)
