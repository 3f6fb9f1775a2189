"""Explanations: against slow twins, finite differences, and what each method promises."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from mariana import load_model, reference
from mariana.errors import FileFormatError, InvalidInputError
from mariana.explain import METHODS, Gradients, baseline_record, baseline_row, encode
from mariana.format import (
    ActivationName,
    BooleanFeature,
    CategoricalFeature,
    DatePart,
    DenseLayer,
    ModelFile,
    ModelMetadata,
    NumericFeature,
    TargetScaling,
    slopes_of,
    tables_of,
    to_bytes,
)
from mariana.model import Model
from mariana.quantize import quantize

FEATURES = (
    NumericFeature(name="length", shift=2.0, scale=0.5, fill=1.5, soft=True, indicator=True),
    NumericFeature(name="age", shift=40.0, scale=0.1, knots=(20.0, 30.0, 60.0)),
    CategoricalFeature(name="colour", categories=("red", "green", "blue"), fill="green"),
    CategoricalFeature(name="town", categories=("Hue", "Ha Noi")),
    BooleanFeature(name="ripe", shift=0.25),
    NumericFeature(name="day year", date=DatePart(column="day", part="year"), shift=2020.0, scale=0.2),
    NumericFeature(name="day month", date=DatePart(column="day", part="month"), shift=6.0, scale=0.3),
)
FIELDS = ["length", "age", "colour", "town", "ripe", "day"]
ROWS = np.array(
    [
        [3.1, 25, 0, 1, 1, 2024, 3],
        [math.nan, 70, math.nan, 0, 0, 2019, 12],
        [-4, 33, 2, 1, 1, 2021, 7],
    ],
    np.float32,
)


def make(activation: ActivationName = "tanh", *, task: str = "classification", outputs: int = 3) -> ModelFile:
    rng = np.random.default_rng(3)
    columns = sum(feature.width for feature in FEATURES)
    last: ActivationName = "linear" if task == "regression" else "softmax" if outputs > 1 else "sigmoid"
    layers = (
        DenseLayer(name="a", inputs=columns, units=9, activation=activation),
        DenseLayer(name="b", inputs=9, units=6, activation=activation, use_bias=False),
        DenseLayer(name="c", inputs=6, units=outputs, activation=last),
    )
    classes = ("apple", "cherry", "plum")[: max(outputs, 2)]
    metadata = ModelMetadata(
        task=task,
        features=FEATURES,
        input_shape=(len(FEATURES),),
        layers=layers,
        labels=classes if task == "classification" else (),
        targets=("fruit",) if task == "classification" else tuple("xyz"[:outputs]),
        target_scaling=None
        if task == "classification"
        else TargetScaling(shift=(1.0, 2.0, 3.0)[:outputs], scale=(2.0, 3.0, 4.0)[:outputs]),
    )
    tensors = {
        name: rng.normal(0, 0.7, shape).astype(np.float32) for name, shape in metadata.tensor_shapes().items()
    }
    return ModelFile(metadata, tensors)


def twin(file: ModelFile, encoded: np.ndarray, output: int) -> float:
    """Return what is explained, of an encoded row: by the slow functions of ``mariana.reference``."""
    row = encoded.tolist()
    for layer in file.metadata.layers:
        bias = file.tensors[f"{layer.name}.bias"].tolist() if layer.use_bias else None
        slopes = slopes_of(layer, file.tensors)
        weight = file.tensors[f"{layer.name}.weight"].astype(float).tolist()
        row = reference.dense(
            row, weight, bias, layer.activation, None if slopes is None else slopes.tolist()
        )
    if file.metadata.task == "regression":
        scaling = file.metadata.target_scaling
        return row[output] * scaling.scale[output] + scaling.shift[output]
    probability = row[output] if len(row) > 1 else (row[0] if output == 1 else 1 - row[0])
    return math.log(probability / (1 - probability))


def encoded_twin(info: ModelMetadata, row: np.ndarray) -> list[float]:
    tables = tables_of(info)
    forms = ["linear", "soft", "ramp", "missing"]
    return reference.encode(
        row.tolist(),
        categories=tables.categories.tolist(),
        fill=tables.fill.tolist(),
        shift=tables.shift.tolist(),
        scale=tables.scale.tolist(),
        copies=tables.copies.tolist(),
        forms=[forms[i] for i in tables.forms],
    )


def test_rows_are_encoded_as_the_core_does() -> None:
    info = make().metadata
    x = np.concatenate([ROWS, baseline_row(info)[None]])
    expected = [encoded_twin(info, row) for row in x]
    assert np.allclose(encode(info, x), expected, atol=1e-6)


@pytest.mark.parametrize("activation", [name for name in get_args(ActivationName) if name != "softmax"])
@pytest.mark.parametrize(
    ("task", "outputs"), [("classification", 3), ("classification", 1), ("regression", 2)]
)
def test_gradients_are_those_of_finite_differences(activation: Any, task: str, outputs: int) -> None:
    file = make(activation, task=task, outputs=outputs)
    gradients = Gradients(file)
    rows = encode(file.metadata, ROWS)
    step = 1e-5
    for output in range(2):
        slopes = gradients.gradient(rows, output)
        values = gradients.value(gradients.sums(rows), output)
        for row, slope, value in zip(rows, slopes, values, strict=True):
            assert value == pytest.approx(twin(file, row, output), abs=1e-5)
            for column in range(len(row)):
                aside = np.eye(len(row))[column] * step
                high, low = twin(file, row + aside, output), twin(file, row - aside, output)
                assert slope[column] == pytest.approx((high - low) / (2 * step), abs=2e-5)


def log_odds(y: np.ndarray, output: int) -> float:
    return math.log(float(y[output])) - math.log(float(np.delete(y, output).sum()))


def test_leave_one_out_is_what_its_name_says() -> None:
    model = Model(make())
    base = baseline_row(model.info)
    y = model.predict(ROWS)
    for row, outputs, (told,) in zip(ROWS, y, model.explain(ROWS, "leave_one_out"), strict=True):
        output = int(outputs.argmax())
        assert told.output == model.info.labels[output]
        assert list(told.shares) == FIELDS
        assert told.value == pytest.approx(log_odds(outputs, output), rel=1e-5)
        assert told.baseline_value == pytest.approx(log_odds(model.predict(base[None])[0], output), rel=1e-5)
        for name, places in zip(FIELDS, [[0], [1], [2], [3], [4], [5, 6]], strict=True):
            without = row.copy()
            without[places] = base[places]
            left = log_odds(model.predict(without[None])[0], output)
            assert told.shares[name] == pytest.approx(told.value - left, abs=1e-4)


@pytest.mark.parametrize(
    ("task", "outputs"), [("classification", 3), ("classification", 1), ("regression", 2)]
)
def test_integrated_gradients_add_up(task: str, outputs: int) -> None:
    model = Model(make("gelu", task=task, outputs=outputs))
    for row in model.explain(ROWS, "integrated_gradients"):
        assert len(row) == (2 if task == "regression" else 1)
        for told in row:
            difference = told.value - told.baseline_value
            assert sum(told.shares.values()) == pytest.approx(difference, abs=2e-3 * max(1, abs(difference)))


@pytest.mark.parametrize(("task", "outputs"), [("classification", 1), ("regression", 2)])
def test_of_a_linear_network_all_methods_say_the_same_and_add_up(task: str, outputs: int) -> None:
    model = Model(make("linear", task=task, outputs=outputs))
    found = {method: model.explain(ROWS, method) for method in METHODS}
    for number in range(len(ROWS)):
        for told in zip(*(found[method][number] for method in METHODS), strict=True):
            assert len({one.output for one in told}) == 1
            for one in told:
                assert sum(one.shares.values()) == pytest.approx(one.value - one.baseline_value, abs=1e-3)
                assert one.shares == pytest.approx(told[0].shares, abs=1e-3)


def test_records_and_rows_are_the_same(tmp_path: Path) -> None:
    file = make()
    path = tmp_path / "model.safetensors"
    path.write_bytes(to_bytes(file.metadata, file.tensors))
    model = load_model(path)
    record = {"length": 3.1, "age": 25, "colour": "red", "town": "Ha Noi", "ripe": True, "day": "2024-03-01"}
    for method in ("auto", *METHODS):
        assert model.explain([record], method) == model.explain(ROWS[:1], method)
    assert model.explain(ROWS) == model.explain(ROWS, "leave_one_out")
    assert baseline_record(model.info) == {
        "length": 1.5,
        "age": 40.0,
        "colour": "green",
        "town": None,
        "ripe": 0.25,
        "day year": 2020.0,
        "day month": 6.0,
    }


def test_the_baseline_itself_has_no_shares() -> None:
    model = Model(make("silu"))
    for method in METHODS:
        ((told,),) = model.explain(baseline_row(model.info)[None], method)
        assert told.value == pytest.approx(told.baseline_value, abs=1e-6)
        assert max(map(abs, told.shares.values())) < 1e-6


def test_of_a_probability_that_rounds_to_1_the_log_odds_end() -> None:
    file = make("linear", outputs=1)
    file.tensors["c.bias"][:] = 40
    (told,) = Model(file).explain(ROWS[:1], "leave_one_out")[0]
    assert Model(file).predict(ROWS[:1])[0, 0] == 1
    assert told.value == told.baseline_value == pytest.approx(25 * math.log(2))
    assert set(told.shares.values()) == {0}


def test_many_features_are_explained_by_one_pass_back() -> None:
    columns = 200
    metadata = ModelMetadata(
        task="regression",
        features=tuple(NumericFeature(name=f"x{i}") for i in range(columns)),
        input_shape=(columns,),
        layers=(DenseLayer(name="a", inputs=columns, units=1),),
        targets=("y",),
    )
    weight = np.arange(columns, dtype=np.float32)[:, None]
    model = Model(ModelFile(metadata, {"a.weight": weight, "a.bias": np.zeros(1, np.float32)}))
    ((told,),) = model.explain(np.ones((1, columns)))
    assert list(told.shares.values()) == pytest.approx(range(columns))


@pytest.mark.parametrize("to", ["bfloat16", "int8"])
def test_narrow_networks(to: Any) -> None:
    file = make()
    model = Model(quantize(file, to, source_sha256="0" * 64))
    exact = Model(file).explain(ROWS, "gradient_x_input")
    for (narrow,), (wide,) in zip(model.explain(ROWS, "gradient_x_input"), exact, strict=True):
        if narrow.output == wide.output:
            assert narrow.shares == pytest.approx(wide.shares, abs=0.15)
    for (slopes,), (left_out,) in zip(
        model.explain(ROWS, "integrated_gradients"), model.explain(ROWS, "leave_one_out"), strict=True
    ):
        assert slopes.value == pytest.approx(left_out.value, abs=0.2)


def test_what_is_wrong_is_said(tmp_path: Path) -> None:
    file = make()
    path = tmp_path / "model.safetensors"
    path.write_bytes(to_bytes(file.metadata, file.tensors))
    model = load_model(path)
    with pytest.raises(InvalidInputError, match="there are: auto, leave_one_out"):
        model.explain(ROWS, "shap")
    with pytest.raises(InvalidInputError):
        model.explain(ROWS[:, :3])
    other = {name: array + np.float32(1) for name, array in file.tensors.items()}
    path.write_bytes(to_bytes(file.metadata, other))
    with pytest.raises(FileFormatError, match="not the file any more"):
        model.explain(ROWS, "gradient_x_input")
