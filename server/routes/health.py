"""The Open Inference Protocol v2: health and metadata."""

from __future__ import annotations

from fastapi import APIRouter

from mariana import __version__

from ..errors import Problem
from ..schemas import (
    Live,
    ModelMetadataAnswer,
    ModelReady,
    Ready,
    ServerMetadata,
    TensorMetadata,
    problems,
)
from ..state import Served

router = APIRouter(prefix="/v2", tags=["open inference protocol"])

PLATFORM = "mariana_dense"
INPUT, OUTPUT = "input", "output"
"""Names of the one input and the one output tensor of every model."""


@router.get("", operation_id="server_metadata")
async def server_metadata() -> ServerMetadata:
    """Tell what this server is."""
    return ServerMetadata(name="mariana", version=__version__, extensions=[])


@router.get("/health/live", operation_id="server_live")
async def live() -> Live:
    """Tell that the server runs."""
    return Live(live=True)


@router.get("/health/ready", operation_id="server_ready")
async def ready(state: Served) -> Ready:
    """Tell that the store has been loaded; what in it could not be is told by the lists."""
    del state  # it is there, so the start is over
    return Ready(ready=True)


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
    state.model(name).get(_number(version))
    return ModelReady(name=name, ready=True)


def _number(version: str) -> int:
    if not (version.isascii() and version.isdecimal() and len(version) <= 9):
        raise Problem(404, "a version is a whole number: 1, 2, ...")
    return int(version)


def _metadata(name: str, version: str | None, state: Served) -> ModelMetadataAnswer:
    served = state.model(name)
    model = served.get(None if version is None else _number(version))
    return ModelMetadataAnswer(
        name=name,
        versions=[str(number) for number in sorted(served.versions)],
        platform=PLATFORM,
        inputs=[TensorMetadata(name=INPUT, datatype="FP32", shape=[-1, model.columns])],
        outputs=[TensorMetadata(name=OUTPUT, datatype="FP32", shape=[-1, model.outputs])],
        parameters={"precision": model.precision, "isa": model.isa},
    )
