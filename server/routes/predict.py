"""Prediction: each model and version has a path and a schema of its own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
from fastapi import Request, Response
from pydantic import BaseModel
from pydantic_core import to_json
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Match
from starlette.types import Receive, Scope, Send

from mariana.model import Model
from mariana.settings import Settings

from ..bodies import JSON, NPY, OCTETS, RowReader
from ..errors import Problem
from ..schemas import (
    REF,
    ClassificationAnswer,
    RegressionAnswer,
    component,
    examples,
    problems,
    request_schema,
)
from ..state import State

Endpoint = Callable[[Request], Awaitable[Response]]


class PredictRoute(BaseRoute):
    """All paths of predictions, found by one look-up: FastAPI's own way there costs more than the prediction.

    What FastAPI would read off signatures for the OpenAPI document is in ``paths`` and ``schemas``.
    """

    def __init__(self, state: State, settings: Settings) -> None:
        self.paths: dict[str, Any] = {}
        self.schemas = component(ClassificationAnswer) | component(RegressionAnswer)
        self._endpoints: dict[str, Endpoint] = {}
        for name, served in state.models.items():
            for version, model in sorted(served.versions.items(), reverse=True):
                endpoint = _endpoint(name, version, model, settings)
                operation = _operation(name, version, model, self.schemas)
                if version == served.version:
                    self._add(f"/v1/models/{name}/predict", endpoint, operation, f"predict_{name}")
                path = f"/v1/models/{name}/versions/{version}/predict"
                self._add(path, endpoint, operation, f"predict_{name}_{version}")

    def _add(self, path: str, endpoint: Endpoint, operation: dict[str, Any], operation_id: str) -> None:
        self._endpoints[path] = endpoint
        self.paths[path] = {"post": operation | {"operationId": operation_id}}

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Return whether a connection is for this route, and the endpoint that serves it."""
        if scope["type"] == "http":
            endpoint = self._endpoints.get(scope["path"].removeprefix(scope.get("root_path", "")))
            if endpoint is not None:
                return Match.FULL, {"endpoint": endpoint}
        return Match.NONE, {}

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["method"] != "POST":
            raise HTTPException(405, headers={"Allow": "POST"})
        response = await scope["endpoint"](Request(scope, receive))
        await response(scope, receive, send)


def _endpoint(name: str, version: int, model: Model, settings: Settings) -> Endpoint:
    """Return the endpoint of a model: body in, body out, on the event loop, for it takes microseconds."""
    read = RowReader(model, settings).read
    predict = model.predict
    decode = model.decode
    head = to_json({"model": name, "version": version, "labels": model.info.labels})[:-1] + b',"predictions":'

    async def endpoint(request: Request) -> Response:
        y = predict(await read(request))
        if not np.isfinite(y).all():
            raise Problem(422, "the numbers are so large that the network overflows on them")
        return Response(head + to_json(decode(y)) + b"}", media_type="application/json")

    return endpoint


def _operation(name: str, version: int, model: Model, schemas: dict[str, Any]) -> dict[str, Any]:
    """Return the OpenAPI operation of a model, without its id; the schemas that it refers to join ``schemas``."""
    forms = []
    for form in request_schema(name, version, model):
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
    return {
        "tags": ["predict"],
        "summary": f"Predict with {name}, version {version}",
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


def _reference(form: type[BaseModel]) -> dict[str, str]:
    return {"$ref": REF.format(model=form.__name__)}
