"""Prediction: one route a model and version, with a schema of its own."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, cast

import numpy as np
from fastapi import APIRouter, Request, Response
from fastapi.routing import APIRoute
from pydantic_core import to_json

from mariana.errors import NotFoundError
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

_PROBLEMS = problems(400, 404, 413, 415, 422)


class RawRoute(APIRoute):
    """A route that hands its endpoint the request as it is.

    FastAPI's own handler would solve parameters and parse the body, which costs several times the prediction; here
    the body is the endpoint's business and ``openapi_extra`` describes it.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the endpoint itself."""
        return cast(Callable[[Request], Coroutine[Any, Any, Response]], self.endpoint)


def make_router(state: State, settings: Settings) -> tuple[APIRouter, dict[str, Any]]:
    """Return the prediction routes of all models, and the OpenAPI schemas that they refer to."""
    router = APIRouter(route_class=RawRoute)
    schemas: dict[str, Any] = {}
    for name, served in state.models.items():
        for version, model in sorted(served.versions.items(), reverse=True):
            endpoint = _endpoint(name, version, model, settings)
            extra = _describe(name, version, model, schemas)
            routes = [(f"/v1/models/{name}/versions/{version}/predict", f"predict_{name}_{version}")]
            if version == served.version:
                routes.insert(0, (f"/v1/models/{name}/predict", f"predict_{name}"))
            for path, operation_id in routes:
                router.add_api_route(
                    path,
                    endpoint,
                    methods=["POST"],
                    tags=["predict"],
                    operation_id=operation_id,
                    summary=f"Predict with {name}, version {version}",
                    responses={
                        200: {
                            "model": ClassificationAnswer if model.info.labels else RegressionAnswer,
                            "description": "One prediction a row",
                        },
                        **_PROBLEMS,
                    },
                    openapi_extra=extra,
                )
    for path in ("/v1/models/{name}/predict", "/v1/models/{name}/versions/{version}/predict"):
        router.add_api_route(path, _unknown, methods=["POST"], include_in_schema=False)
    return router, schemas


async def _unknown(request: Request) -> Response:
    del request  # its body may be anything: it is not read
    raise NotFoundError("no such model")


def _endpoint(
    name: str, version: int, model: Model, settings: Settings
) -> Callable[[Request], Coroutine[Any, Any, Response]]:
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


def _describe(name: str, version: int, model: Model, schemas: dict[str, Any]) -> dict[str, Any]:
    forms = []
    for form in request_schema(name, version, model):
        if form is not None:
            schemas.update(component(form))
            forms.append({"$ref": REF.format(model=form.__name__)})
    row_bytes = 4 * model.columns
    binary = {"type": "string", "format": "binary"}
    return {
        "requestBody": {
            "required": True,
            "content": {
                JSON: {"schema": {"oneOf": forms}, "examples": examples(model)},
                OCTETS: {
                    "schema": {**binary, "description": f"float32, little-endian, rows of {row_bytes} bytes"}
                },
                NPY: {"schema": {**binary, "description": f"an array of shape (rows, {model.columns})"}},
            },
        }
    }
