"""The model repository extension of the Open Inference Protocol: what there is, load, unload; and the serving policy."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from mariana.errors import MarianaError, NotFoundError, StoreError

from ..auth import SECURITY, AdminOnly
from ..bodies import JSON, load_json, read_body
from ..documents import read_document, request_body
from ..errors import Problem
from ..policy import Policy
from ..schemas import problems
from ..state import Served, ServedModel, State
from .health import lifecycle_of

router = APIRouter(tags=["model repository"])


class RepositoryModel(BaseModel):
    """One version of a model in the repository."""

    name: str
    version: str = ""
    state: Literal["READY", "UNAVAILABLE"]
    reason: str = Field(
        description="why it is not ready, or why its newer file is not served; empty otherwise"
    )


class _IndexRequest(BaseModel):
    ready: bool = Field(default=False, description="only those that are ready")


class Unload(BaseModel):
    """Nothing more is told."""


@router.post(
    "/v2/repository/index",
    operation_id="repository_index",
    responses=problems(400, 413),
    openapi_extra={
        "requestBody": {
            "content": {JSON: {"schema": _IndexRequest.model_json_schema(), "example": {"ready": True}}}
        }
    },
)
async def index(state: Served, request: Request) -> list[RepositoryModel]:
    """List every version of every model, with why one is not ready."""
    body = await read_body(request, 4096)
    document = load_json(body) if body.strip() else {}
    if not isinstance(document, dict) or not isinstance(document.get("ready", False), bool):
        raise Problem(400, 'expected {"ready": true}, {"ready": false}, or no body')
    found = [row for served in state.models.values() for row in _rows(served, state)]
    return [row for row in found if row.state == "READY" or not document.get("ready", False)]


@router.post(
    "/v2/repository/models/{name}/load",
    operation_id="repository_load",
    responses=problems(400, 401, 403, 404, 413, 422),
    openapi_extra={"security": SECURITY},
)
async def load(name: str, admin: AdminOnly, request: Request) -> Response:
    """Put a model into service, or look at its folder anew: then its newest good versions serve."""
    del admin
    await _parameters(request)
    try:
        await lifecycle_of(request).load(name)
    except (NotFoundError, StoreError):
        raise
    except MarianaError as error:
        raise Problem(422, f"no version could be loaded: {error}"[:500]) from None
    return Response("{}", media_type=JSON)


@router.post(
    "/v2/repository/models/{name}/unload",
    operation_id="repository_unload",
    responses=problems(400, 401, 403, 404, 413),
    openapi_extra={"security": SECURITY},
)
async def unload(name: str, admin: AdminOnly, request: Request) -> Response:
    """Take a model out of service until it is loaded again; requests that run finish."""
    del admin
    await _parameters(request)
    await lifecycle_of(request).unload(name)
    return Response("{}", media_type=JSON)


@router.get("/v1/models/{name}/policy", operation_id="get_policy", responses=problems(404), tags=["models"])
async def get_policy(name: str, state: Served) -> Policy:
    """Tell which version serves when none is named, and the labels of versions."""
    return state.model(name).policy


@router.put(
    "/v1/models/{name}/policy",
    operation_id="set_policy",
    responses=problems(400, 401, 403, 404, 413, 422),
    openapi_extra={
        "security": SECURITY,
        **request_body(Policy, Policy.examples()),
    },
    tags=["models"],
)
async def set_policy(name: str, admin: AdminOnly, request: Request) -> Policy:
    """Pin a version, name versions, give a canary its share; kept in the store, in force at once."""
    del admin
    policy = await read_document(request, Policy, 65536)
    await lifecycle_of(request).set_policy(name, policy)
    return policy


async def _parameters(request: Request) -> None:
    """Read the body of a load or unload: its parameters are Triton's, and none of them means anything here."""
    body = await read_body(request, 65536)
    document: Any = load_json(body) if body.strip() else {}
    if not isinstance(document, dict):
        raise Problem(400, "expected an object, or no body")
    parameters = document.get("parameters", {})
    if not isinstance(parameters, dict) or any(
        key.startswith("file:") or key == "config" for key in parameters
    ):
        raise Problem(400, "a model comes from the store: no configuration or file is taken with the request")


def _rows(served: ServedModel, state: State) -> list[RepositoryModel]:
    failures = state.failures(served)
    numbers = sorted({*served.versions, *failures})
    if not numbers:
        reason = "unloaded" if served.unloaded else "no version could be loaded"
        return [RepositoryModel(name=served.name, state="UNAVAILABLE", reason=reason)]
    return [
        RepositoryModel(
            name=served.name,
            version=str(number),
            state="READY" if number in served.versions else "UNAVAILABLE",
            reason=failures.get(number, ""),
        )
        for number in numbers
    ]
