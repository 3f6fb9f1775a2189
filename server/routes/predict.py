"""Prediction: each model and version has a path and a schema of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from time import perf_counter
from typing import Any

from fastapi import Request, Response
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Match
from starlette.types import Receive, Scope, Send

from ..bodies import JSON, NPY, OCTETS, media_type, read_body
from ..explanations import DESCRIPTION, PARAMETER, VALUES, explained, method_of
from ..front import Head, Hot, Reply, compressed
from ..schemas import (
    REF,
    ClassificationAnswer,
    RegressionAnswer,
    component,
    examples,
    problems,
    request_schema,
)
from ..state import ServedModel, State
from ..telemetry import name_span
from ..versions import Version

Pick = Callable[[], Version]

ENDPOINT = "POST /v1/models/{name}/predict"
"""What all paths of predictions are called in metrics and traces."""


class PredictRoute(BaseRoute):
    """All paths of predictions, found by one look-up: FastAPI's own way there costs more than the prediction.

    What FastAPI would read off signatures for the OpenAPI document is given by :meth:`describe`.
    """

    def __init__(self, state: State) -> None:
        self._state = state
        self._picks: dict[str, Pick] = {}
        self._described: dict[Version, tuple[dict[str, Any], dict[str, Any]]] = {}

    def publish(self) -> dict[str, Hot]:
        """Take over the models as they are now; return the quick ways of their paths."""
        models = self._state.models.values()
        picks = {path: pick for served in models for path, pick, _ in _paths(served)}
        self._picks = picks
        return {path: Hot("POST", ENDPOINT, _quick(pick), path) for path, pick in picks.items()}

    def describe(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the OpenAPI paths and schemas of the models as they are now."""
        paths: dict[str, Any] = {}
        schemas = component(ClassificationAnswer) | component(RegressionAnswer)
        present = self.versions()
        for version in present:
            schemas |= self.describe_one(version)[1]
        self._described = {version: self._described[version] for version in present}
        for served in self._state.models.values():
            for path, pick, operation_id in _paths(served):
                operation, _ = self.describe_one(pick())
                paths[path] = {"post": operation | {"operationId": operation_id}}
        return paths, schemas

    def versions(self) -> list[Version]:
        """Return the versions that serve."""
        return [version for served in self._state.models.values() for version in served.versions.values()]

    def describe_one(self, version: Version) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the OpenAPI operation of a version, without its id, and the schemas that it refers to; made once."""
        found = self._described.get(version)
        if found is None:
            found = self._described[version] = _operation(version)
        return found

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Return whether a connection is for this route, and which model serves it."""
        if scope["type"] == "http":
            pick = self._picks.get(scope["path"].removeprefix(scope.get("root_path", "")))
            if pick is not None:
                return Match.FULL, {"endpoint": pick, "endpoint_name": ENDPOINT}
        return Match.NONE, {}

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        name_span(scope, ENDPOINT)
        if scope["method"] != "POST":
            raise HTTPException(405, headers={"Allow": "POST"})
        response = await _predict(scope["endpoint"](), Request(scope, receive))
        await response(scope, receive, send)


def _paths(served: ServedModel) -> Iterator[tuple[str, Pick, str]]:
    """Give the paths of a model: each with what picks the version, and its operation id."""
    base, name = f"/v1/models/{served.name}", served.name
    if served.version is not None:
        yield f"{base}/predict", served.picker(), f"predict_{name}"
    for number, version in sorted(served.versions.items(), reverse=True):
        yield f"{base}/versions/{number}/predict", _always(version), f"predict_{name}_{number}"
    for label, number in served.policy.labels.items():
        if number in served.versions:
            pick = _always(served.versions[number])
            yield f"{base}/labels/{label}/predict", pick, f"predict_{name}_label_{label}"


def _always(version: Version) -> Pick:
    return lambda: version


def _quick(pick: Pick) -> Callable[[Head, bytes, bytes], Reply | None]:
    def call(head: Head, query: bytes, body: bytes) -> Reply | None:
        if query:
            return None
        version = pick()
        kind = head.kind
        answer = version.quick_octets(body) if kind == OCTETS else version.quick_json(body)
        if answer is None:
            return None
        if not head.accept:
            return Reply(answer)
        answer, extra = compressed(answer, head.accept)
        return Reply(answer, extra=extra)

    return call


async def _predict(version: Version, request: Request) -> Response:
    """Return the answer of the full way: every form of a body, and the words for what is wrong with one."""
    reader = version.reader
    with version.counting_errors():
        kind = media_type(request.headers.get("content-type", ""))
        body = await read_body(request, reader.longest(kind))
        method = method_of(request.query_params, version)
        start = perf_counter()
        x = reader.parse(kind, body)
        answer = await version.answer(x, start)
        if method is not None:
            answer = await explained(answer, version, x, method, reader.limits.max_values)
    answer, extra = compressed(answer, request.headers.get("accept-encoding", "").encode())
    headers = {name.decode(): value.decode() for name, value in extra}
    return Response(answer, headers=headers, media_type=JSON)


def _operation(version: Version) -> tuple[dict[str, Any], dict[str, Any]]:
    name, number, model = version.name, version.number, version.model
    schemas: dict[str, Any] = {}
    forms = []
    for form in request_schema(name, number, model):
        if form is not None:
            schemas.update(component(form))
            forms.append(_reference(form))
    row_bytes = 4 * model.columns
    binary = {"type": "string", "format": "binary"}
    answer = ClassificationAnswer if model.info.labels else RegressionAnswer
    responses = {
        200: {"description": "One prediction a row", "content": {JSON: {"schema": _reference(answer)}}},
        **problems(400, 404, 413, 415, 422),
    }
    operation = {
        "tags": ["predict"],
        "summary": f"Predict with {name}, version {number}",
        "parameters": [
            {
                "name": PARAMETER,
                "in": "query",
                "required": False,
                "description": DESCRIPTION,
                "schema": {"type": "string", "enum": list(VALUES), "default": "false"},
            }
        ],
        "requestBody": {
            "required": True,
            "content": {
                JSON: {"schema": {"oneOf": forms}, "examples": examples(model)},
                OCTETS: {
                    "schema": {**binary, "description": f"float32, little-endian, rows of {row_bytes} bytes"}
                },
                NPY: {"schema": {**binary, "description": f"an array of shape (rows, {model.columns})"}},
            },
        },
        "responses": {str(status): response for status, response in responses.items()},
    }
    return operation, schemas


def _reference(form: type[BaseModel]) -> dict[str, str]:
    return {"$ref": REF.format(model=form.__name__)}
