# ruff: noqa: DTZ001 - the time as it is written
"""A raw row gives the same answer everywhere: written out naively, in the trainer, in C through Python, and over HTTP."""

import math
import tempfile
from datetime import datetime
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from mariana.errors import InvalidInputError
from mariana.format import (
    BooleanFeature,
    CategoricalFeature,
    DatePart,
    DenseLayer,
    Feature,
    ModelFile,
    ModelMetadata,
    NumericFeature,
    read_model,
    to_bytes,
)
from mariana.model import Model
from mariana.server import create_app
from mariana.settings import Settings
from mariana.store import Store
from mariana.trainer.preprocessing import encode

number = st.floats(-1e6, 1e6, width=32)
DATED = NumericFeature(
    name="when.month", date=DatePart(column="when", part="month"), fill=6, shift=6, scale=0.5
)
HOUR = NumericFeature(
    name="when.hour", date=DatePart(column="when", part="hour"), fill=0, knots=(0, 6, 12, 24), soft=True
)


@st.composite
def numeric(draw: st.DrawFn, name: str) -> NumericFeature:
    steps = draw(st.lists(st.floats(2**-6, 50, width=32), max_size=5))
    start = draw(st.floats(-100, 100, width=32))
    knots = [start, *(start + sum(steps[: i + 1]) for i in range(len(steps)))] if steps else []
    return NumericFeature(
        name=name,
        fill=draw(number),
        shift=draw(st.floats(-100, 100, width=32)),
        scale=draw(st.floats(-10, 10, width=32)),
        soft=draw(st.booleans()),
        knots=tuple(knots),
        indicator=draw(st.booleans()),
    )


@st.composite
def case(draw: st.DrawFn) -> tuple[list[Feature], list[dict[str, Any]]]:
    features: list[Feature] = [draw(numeric(f"n{i}")) for i in range(draw(st.integers(1, 3)))]
    features += [
        BooleanFeature(name="flag", fill=True, shift=0.25, scale=2),
        CategoricalFeature(name="town", categories=("", "Huế", "Đà Nẵng"), fill=""),
        DATED,
        HOUR,
    ]
    features = draw(st.permutations(features))
    values: dict[str, st.SearchStrategy[Any]] = {
        f.name: number | st.sampled_from([3e38, -3e38, 0.0, 1e-40]) for f in features if f.name[0] == "n"
    }
    values |= {
        "flag": st.booleans(),
        "town": st.sampled_from(["Huế", "Đà Nẵng", "Paris"]),
        "when": st.datetimes(datetime(1900, 1, 1), datetime(2100, 1, 1)).map(
            lambda t: t.isoformat(timespec="seconds")
        ),
    }
    row = st.fixed_dictionaries({}, optional={name: value | st.none() for name, value in values.items()})
    return list(features), draw(st.lists(row, min_size=1, max_size=4))


def naive(features: list[Feature], record: dict[str, Any]) -> list[float]:
    """What docs/format.md says, without arrays."""
    encoded = []
    for feature in features:
        value = record.get(feature.column)
        if isinstance(feature, CategoricalFeature):
            value = value if value in feature.categories else feature.fill
            encoded += [float(value == category) for category in feature.categories]
            continue
        absent = value is None
        if isinstance(feature, NumericFeature) and feature.date is not None and not absent:
            when = datetime.fromisoformat(value)
            value = {"month": when.month, "hour": when.hour + when.minute / 60 + when.second / 3600}[
                feature.date.part
            ]
        value = float(np.float32(feature.fill if absent else value))
        z = (value - feature.shift) * feature.scale
        if isinstance(feature, BooleanFeature):
            encoded.append(z)
            continue
        bounded = math.copysign(1, z) if abs(z) > 1e4 else z / math.sqrt(1 + z * z)
        encoded.append(bounded if feature.soft else z)
        knots = [float(np.float32(knot)) for knot in feature.knots]
        for low, high in pairwise(knots):
            encoded.append(min(max((value - low) / (high - low), 0.0), 1.0))
        encoded += [float(absent)] * feature.indicator
    return encoded


@settings(max_examples=20, deadline=None)
@given(case())
def test_a_row_means_the_same_everywhere(given_case: tuple[list[Feature], list[dict[str, Any]]]) -> None:
    features, records = given_case
    width = sum(feature.width for feature in features)
    metadata = ModelMetadata(
        task="regression",
        features=tuple(features),
        input_shape=(len(features),),
        layers=(DenseLayer(name="all", inputs=width, units=width, use_bias=False),),
    )
    tensors = {"all.weight": np.eye(width, dtype=np.float32)}
    wanted = np.array([naive(features, record) for record in records])
    tolerance = 1e-5 * (1 + np.abs(wanted))

    model = Model(ModelFile(metadata, tensors))
    x = model.encode(records)
    found = model.predict(x)
    twin = encode(features, x.astype(np.float64))
    assert (np.abs(twin - wanted) <= tolerance).all()
    same = encode(features, x.astype(np.float64), np.float32)
    within = (np.abs(wanted) < 1e38).all(axis=1)  # beyond, float32 overflows, and 0 * infinity is NaN
    assert (np.abs(found - wanted) <= tolerance)[within].all()
    assert (found == same)[within].all()  # NumPy and C: bit by bit

    finite = np.flatnonzero(within).tolist()
    if not finite:
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Store(folder).publish_model("rows", to_bytes(metadata, tensors))
        assert read_model(path).metadata.features == metadata.features
        with TestClient(create_app(Settings(store=folder))) as client:
            answer = client.post(
                "/v1/models/rows/predict", json={"instances": [records[i] for i in finite]}
            ).json()
            schema = client.get("/v1/models/rows").json()["features"]
    served = np.array([prediction["value"] for prediction in answer["predictions"]])
    assert (served.reshape(len(finite), -1).astype(np.float32) == found[finite]).all()
    assert [f["kind"] for f in schema if f["name"] == "when"] == ["date"]


@pytest.mark.parametrize(
    "value", ["2024-13-01", "yesterday", "", 20240305, "2024-03-05T25:00", "05.03.2024", True, 1.5]
)
def test_what_is_no_date_is_refused(value: object) -> None:
    metadata = ModelMetadata(
        task="regression",
        features=(DATED.model_copy(update={"fill": None}),),
        input_shape=(1,),
        layers=(DenseLayer(name="all", inputs=1, units=1, use_bias=False),),
    )
    model = Model(ModelFile(metadata, {"all.weight": np.ones((1, 1), np.float32)}))
    with pytest.raises(InvalidInputError, match="must be a date as ISO 8601") as caught:
        model.encode([{"when": value}])
    assert caught.value.pointer == "/0/when"
    with pytest.raises(InvalidInputError, match="is missing"):
        model.encode([{}])
    with pytest.raises(InvalidInputError, match="there are: when"):
        model.encode([{"when": "2024-03-05", "when.month": 3}])
    assert model.encode([{"when": "2024-03-05"}, {"when": datetime(2024, 4, 1)}]).tolist() == [[3], [4]]
