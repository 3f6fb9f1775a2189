"""TensorFlow Serving's REST interface: predict in row and column form, status, metadata."""

from __future__ import annotations

import itertools
from time import perf_counter
from typing import Annotated, Any

from fastapi import APIRouter, Request, Response
from fastapi import Path as PathParameter
from pydantic import BaseModel, Field

from mariana._binding.rows import json_floats

from ..bodies import JSON, load_json, media_type, problem_at, read_body
from ..errors import Problem
from ..front import compressed
from ..schemas import REF, VersionStatus, problems
from ..state import Served, ServedModel, State
from ..versions import INPUT, OUTPUT, Float32, Version
from .health import version_number
from .models import statuses

router = APIRouter(prefix="/v1/models", tags=["tensorflow serving"])

SIGNATURE = "serving_default"


class RowRequest(BaseModel):
    """Rows: of numbers, or records by feature name, or ``{"input": row}``."""

    signature_name: str = SIGNATURE
    instances: list[Any] = Field(min_length=1, examples=[[[5.1, 3.5, 1.4, 0.2]]])


class ColumnRequest(BaseModel):
    """Columns: the rows as one array, ``{"input": rows}``, or one array a feature by its name."""

    signature_name: str = SIGNATURE
    inputs: list[Any] | dict[str, list[Any]] = Field(examples=[[[5.1, 3.5, 1.4, 0.2]]])


class RowAnswer(BaseModel):
    """The outputs, a row each: probabilities or values."""

    predictions: list[list[float]]


class ColumnAnswer(BaseModel):
    """The outputs, a row each: probabilities or values."""

    outputs: list[list[float]]


class ModelStatus(BaseModel):
    """The states of a model's versions."""

    model_version_status: list[VersionStatus]


class ModelMetadata(BaseModel):
    """What a version takes and gives."""

    model_spec: dict[str, str]
    metadata: dict[str, Any]


SCHEMAS = (RowRequest, ColumnRequest, RowAnswer, ColumnAnswer)
_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            JSON: {"schema": {"oneOf": [{"$ref": REF.format(model=form.__name__)} for form in SCHEMAS[:2]]}}
        },
    }
}
_ANSWERS = problems(400, 404, 413, 415, 422)

_Label = Annotated[str, PathParameter(description="a name that the model's policy gives a version")]


@router.post(
    "/{name}:predict",
    operation_id="tensorflow_predict",
    response_model=RowAnswer | ColumnAnswer,
    responses=_ANSWERS,
    openapi_extra=_BODY,
)
async def predict(name: str, state: Served, request: Request) -> Response:
    """Predict as TensorFlow Serving does."""
    return await _predict(state.model(name).pick(), request)


@router.post(
    "/{name}/versions/{version}:predict",
    operation_id="tensorflow_predict_version",
    response_model=RowAnswer | ColumnAnswer,
    responses=_ANSWERS,
    openapi_extra=_BODY,
)
async def predict_version(name: str, version: str, state: Served, request: Request) -> Response:
    """Predict with a version as TensorFlow Serving does."""
    return await _predict(state.model(name).get(version_number(version)), request)


@router.post(
    "/{name}/labels/{label}:predict",
    operation_id="tensorflow_predict_label",
    response_model=RowAnswer | ColumnAnswer,
    responses=_ANSWERS,
    openapi_extra=_BODY,
)
async def predict_label(name: str, label: _Label, state: Served, request: Request) -> Response:
    """Predict with the version that has a label, as TensorFlow Serving does."""
    return await _predict(state.model(name).labelled(label), request)


@router.get("/{name}/versions/{version}", operation_id="tensorflow_version_status", responses=problems(404))
async def version_status(name: str, version: str, state: Served) -> ModelStatus:
    """Tell the state of a version."""
    number = version_number(version)
    return _status(state.model(name), number, state)


@router.get("/{name}/labels/{label}", operation_id="tensorflow_label_status", responses=problems(404))
async def label_status(name: str, label: _Label, state: Served) -> ModelStatus:
    """Tell the state of the version that has a label."""
    served = state.model(name)
    return _status(served, served.policy.labels.get(label, 0), state)


@router.get("/{name}/metadata", operation_id="tensorflow_metadata", responses=problems(404))
async def metadata(name: str, state: Served) -> ModelMetadata:
    """Tell what a model takes and gives."""
    return _metadata(state.model(name).get())


@router.get(
    "/{name}/versions/{version}/metadata", operation_id="tensorflow_version_metadata", responses=problems(404)
)
async def version_metadata(name: str, version: str, state: Served) -> ModelMetadata:
    """Tell what a version takes and gives."""
    return _metadata(state.model(name).get(version_number(version)))


@router.get(
    "/{name}/labels/{label}/metadata", operation_id="tensorflow_label_metadata", responses=problems(404)
)
async def label_metadata(name: str, label: _Label, state: Served) -> ModelMetadata:
    """Tell what the version that has a label takes and gives."""
    return _metadata(state.model(name).labelled(label))


async def _predict(version: Version, request: Request) -> Response:
    reader = version.reader
    with version.counting_errors():
        if media_type(request.headers.get("content-type", "")) != JSON:
            raise Problem(415, f"TensorFlow Serving's predict takes {JSON}")
        body = await read_body(request, reader.longest(JSON))
        start = perf_counter()
        x, member = _read(body, version)
        parsed = perf_counter()
        y = await version.predict(x)
        inferred = perf_counter()
        answer = _write(y, member)
        version.stats.observe(len(y), start, parsed, inferred, perf_counter())
    answer, extra = compressed(answer, request.headers.get("accept-encoding", "").encode())
    return Response(answer, headers={n.decode(): v.decode() for n, v in extra}, media_type=JSON)


def _read(body: bytes, version: Version) -> tuple[Float32, str]:
    """Return the rows, and the member of the answer that tells the outputs."""
    document = load_json(body)
    if not isinstance(document, dict) or ("instances" in document) == ("inputs" in document):
        raise Problem(400, 'expected an object with either "instances" or "inputs"')
    if document.get("signature_name", SIGNATURE) != SIGNATURE:
        raise problem_at("/signature_name", f"expected {SIGNATURE}")
    if "instances" in document:
        return version.reader.parse_rows(
            _rows(document["instances"], "instances", version), "instances"
        ), "predictions"
    inputs = document["inputs"]
    if isinstance(inputs, dict) and not (set(inputs) == {INPUT} and not _is_feature(version, INPUT)):
        columns = _columns(inputs)
        rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    else:
        rows = inputs[INPUT] if isinstance(inputs, dict) else inputs
    return version.reader.parse_rows(_rows(rows, "inputs", version), "inputs"), "outputs"


def _rows(rows: Any, member: str, version: Version) -> list[Any]:
    if not isinstance(rows, list) or not rows:
        raise problem_at(f"/{member}", "expected an array of one row or more")
    if not _is_feature(version, INPUT) and all(
        isinstance(row, dict) and list(row) == [INPUT] for row in rows
    ):
        rows = [row[INPUT] for row in rows]
    depth = (
        len(version.model.info.input_shape) - 1
    )  # a row may come in the shape that it had before it was flat
    return [_flat(row, depth) for row in rows] if depth else rows


def _flat(row: Any, depth: int) -> Any:
    for _ in range(depth):
        if not isinstance(row, list) or not row or not all(isinstance(part, list) for part in row):
            return row
        row = list(itertools.chain.from_iterable(row))
    return row


def _is_feature(version: Version, name: str) -> bool:
    return any(field.name == name for field in version.model.info.fields)


def _columns(inputs: dict[str, Any]) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {}
    for name, values in inputs.items():
        if not isinstance(values, list):
            raise problem_at("/inputs", "expected one array a feature")
        columns[name] = [v[0] if isinstance(v, list) and len(v) == 1 else v for v in values]
    if len({len(values) for values in columns.values()}) != 1:
        raise problem_at("/inputs", "expected as many values of each feature as of the others")
    return columns


def _write(y: Float32, member: str) -> bytes:
    rows = b"],[".join(json_floats(row) for row in y)
    return b'{"%b":[[%b]]}' % (member.encode(), rows)


def _status(served: ServedModel, number: int, state: State) -> ModelStatus:
    found = [status for status in statuses(served, state) if status.version == str(number)]
    if not found:
        raise Problem(404, "no such model, version or index; GET /v1/models and /v1/indexes list them")
    return ModelStatus(model_version_status=found)


def _metadata(version: Version) -> ModelMetadata:
    def tensor(name: str, columns: int) -> dict[str, Any]:
        dimensions = [{"size": str(size), "name": ""} for size in (-1, columns)]
        return {"dtype": "DT_FLOAT", "tensor_shape": {"dim": dimensions, "unknown_rank": False}, "name": name}

    signature = {
        "inputs": {INPUT: tensor(INPUT, version.model.columns)},
        "outputs": {OUTPUT: tensor(OUTPUT, version.model.outputs)},
        "method_name": "tensorflow/serving/predict",
    }
    return ModelMetadata(
        model_spec={"name": version.name, "signature_name": "", "version": str(version.number)},
        metadata={"signature_def": {"signature_def": {SIGNATURE: signature}}},
    )
