"""The Open Inference Protocol v2: health and metadata."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from fastapi import APIRouter, Request

from mariana import __version__
from mariana.errors import NotFoundError

from ..errors import Problem
from ..metrics import ModelTotals
from ..schemas import (
    InferenceStatistics,
    Live,
    ModelMetadataAnswer,
    ModelReady,
    ModelStatistics,
    Ready,
    ServerMetadata,
    TensorMetadata,
    problems,
)
from ..state import Served, ServedModel, State
from ..versions import INPUT, OUTPUT, PLATFORM, Version

if TYPE_CHECKING:
    from ..lifecycle import Lifecycle

router = APIRouter(prefix="/v2", tags=["open inference protocol"])

EXTENSIONS = ["binary_tensor_data", "classification", "model_configuration", "model_repository", "statistics"]


def lifecycle_of(request: Request) -> Lifecycle:
    """Return what loads and unloads."""
    return cast("Lifecycle", request.state.lifecycle)


@router.get("", operation_id="server_metadata")
async def server_metadata() -> ServerMetadata:
    """Tell what this server is."""
    return ServerMetadata(name="mariana", version=__version__, extensions=EXTENSIONS)


@router.get("/health/live", operation_id="server_live")
async def live() -> Live:
    """Tell that the server runs."""
    return Live(live=True)


@router.get("/health/ready", operation_id="server_ready", responses=problems(503))
async def ready(state: Served) -> Ready:
    """Tell whether the server takes requests: the store has been loaded, and it is not about to stop."""
    if not state.ready and not state.replaced:
        raise Problem(
            503, "the server is about to stop", headers={"Retry-After": "1"}, members={"ready": False}
        )
    return Ready(ready=True)


@router.get("/models/stats", operation_id="all_statistics")
async def all_statistics(state: Served) -> ModelStatistics:
    """Tell what every model has done."""
    return await _statistics([v for served in state.models.values() for v in served.versions.values()], state)


@router.get("/models/{name}", operation_id="model_metadata", responses=problems(404))
async def model_metadata(name: str, state: Served) -> ModelMetadataAnswer:
    """Tell the tensors of a model."""
    return _metadata(name, None, state)


@router.get("/models/{name}/versions/{version}", operation_id="version_metadata", responses=problems(404))
async def version_metadata(name: str, version: str, state: Served) -> ModelMetadataAnswer:
    """Tell the tensors of a version of a model."""
    return _metadata(name, version, state)


@router.get("/models/{name}/ready", operation_id="model_ready", responses=problems(404))
async def model_ready(name: str, state: Served) -> ModelReady:
    """Tell that a model takes requests."""
    state.model(name).get()
    return ModelReady(name=name, ready=True)


@router.get("/models/{name}/versions/{version}/ready", operation_id="version_ready", responses=problems(404))
async def version_ready(name: str, version: str, state: Served) -> ModelReady:
    """Tell that a version of a model takes requests."""
    state.model(name).get(version_number(version))
    return ModelReady(name=name, ready=True)


@router.get("/models/{name}/config", operation_id="model_config", responses=problems(404))
async def model_config(name: str, state: Served) -> dict[str, Any]:
    """Tell how a model is run."""
    return state.model(name).get().config()


@router.get(
    "/models/{name}/versions/{version}/config", operation_id="version_config", responses=problems(404)
)
async def version_config(name: str, version: str, state: Served) -> dict[str, Any]:
    """Tell how a version of a model is run."""
    return state.model(name).get(version_number(version)).config()


@router.get("/models/{name}/stats", operation_id="model_statistics", responses=problems(404))
async def model_statistics(name: str, state: Served) -> ModelStatistics:
    """Tell what the versions of a model have done."""
    served: ServedModel = state.model(name)
    if not served.versions:
        raise NotFoundError("no version of it serves")
    return await _statistics(list(served.versions.values()), state)


@router.get(
    "/models/{name}/versions/{version}/stats", operation_id="version_statistics", responses=problems(404)
)
async def version_statistics(name: str, version: str, state: Served) -> ModelStatistics:
    """Tell what a version of a model has done."""
    return await _statistics([state.model(name).get(version_number(version))], state)


async def _statistics(versions: list[Version], state: State) -> ModelStatistics:
    def duration(count: int, seconds: float) -> dict[str, int]:
        return {"count": count, "ns": round(seconds * 1e9)}

    await state.gather()
    totals = ModelTotals(state.metrics.totals())
    found = []
    for version in sorted(versions, key=lambda version: (version.name, version.number)):
        stats = totals.of(version.name, version.number)
        found.append(
            InferenceStatistics.model_validate(
                {
                    "name": version.name,
                    "version": str(version.number),
                    "last_inference": round(stats.last * 1e3),
                    "inference_count": stats.rows,
                    "execution_count": stats.requests,
                    "inference_stats": {
                        "success": duration(
                            stats.requests, stats.parse + stats.queue + stats.infer + stats.write
                        ),
                        "fail": duration(stats.errors, 0),
                        "queue": duration(stats.requests, stats.queue),
                        "compute_input": duration(stats.requests, stats.parse),
                        "compute_infer": duration(stats.requests, stats.infer),
                        "compute_output": duration(stats.requests, stats.write),
                    },
                }
            )
        )
    return ModelStatistics(model_stats=found)


def version_number(version: str) -> int:
    """Return the number that a path names; Problem, 404, when it is none."""
    if not (version.isascii() and version.isdecimal() and len(version) <= 9):
        raise Problem(404, "a version is a whole number: 1, 2, ...")
    return int(version)


def _metadata(name: str, version: str | None, state: Served) -> ModelMetadataAnswer:
    served = state.model(name)
    model = served.get(None if version is None else version_number(version)).model
    return ModelMetadataAnswer(
        name=name,
        versions=[str(number) for number in sorted(served.versions)],
        platform=PLATFORM,
        inputs=[TensorMetadata(name=INPUT, datatype="FP32", shape=[-1, model.columns])],
        outputs=[TensorMetadata(name=OUTPUT, datatype="FP32", shape=[-1, model.outputs])],
        parameters={"precision": model.precision, "isa": model.isa},
    )
