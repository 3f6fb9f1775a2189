"""What models are loaded."""

from __future__ import annotations

from fastapi import APIRouter

from ..schemas import FeatureInfo, ModelInfo, ModelList, VersionError, VersionStatus, problems
from ..state import Served, ServedModel, State

router = APIRouter(prefix="/v1/models", tags=["models"])


@router.get("", operation_id="list_models")
async def list_models(state: Served) -> ModelList:
    """List the models of the store, with those that could not be loaded and why."""
    return ModelList(models=[_info(served, state) for served in state.models.values()])


@router.get("/{name}", operation_id="get_model", responses=problems(404))
async def get_model(name: str, state: Served) -> ModelInfo:
    """Tell of one model: its versions, features, labels, metrics, the kernel in use."""
    return _info(state.model(name), state)


def statuses(served: ServedModel, state: State) -> list[VersionStatus]:
    """Return the states of a model's versions, the newest first."""
    failures = state.failures(served)
    return [
        VersionStatus.model_validate(
            {
                "version": str(number),
                "state": "AVAILABLE" if number in served.versions else "END",
                "status": VersionError.model_validate(
                    {
                        "error_code": "DATA_LOSS" if number in failures else "OK",
                        "error_message": failures.get(number, ""),
                    }
                ),
            }
        )
        for number in sorted({*served.versions, *failures}, reverse=True)
    ]


def _info(served: ServedModel, state: State) -> ModelInfo:
    info = ModelInfo.model_validate(
        {
            "name": served.name,
            "ready": served.version is not None,
            "version": served.version,
            "versions": sorted(served.versions),
            "model_version_status": statuses(served, state),
        }
    )
    if served.version is None:
        return info
    model = served.get().model
    about = model.info
    return info.model_copy(
        update={
            "task": about.task,
            "features": [
                FeatureInfo(
                    name=field.name,
                    kind=field.kind,
                    required=field.required,
                    categories=list(field.categories) if field.kind == "categorical" else None,
                )
                for field in about.fields
            ],
            "input_shape": list(about.input_shape),
            "labels": list(about.labels),
            "targets": list(about.targets),
            "metrics": about.training.metrics,
            "parameters": about.parameters,
            "layers": [layer.units for layer in about.layers],
            "isa": model.isa,
            "precision": model.precision,
            "quantization": about.quantization,
            "nbytes": model.nbytes,
        }
    )
