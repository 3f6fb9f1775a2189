"""For whoever operates the server: metrics."""

from __future__ import annotations

from fastapi import APIRouter, Response

from ..metrics import CONTENT_TYPE, render
from ..state import Served, State

router = APIRouter(tags=["operation"])


@router.get(
    "/metrics",
    operation_id="metrics",
    response_class=Response,
    responses={
        200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "Prometheus's text"}
    },
)
async def metrics(state: Served) -> Response:
    """Tell what the server has counted, for Prometheus."""
    describe(state)
    return Response(render([state.metrics.dump()]), headers={"Content-Type": CONTENT_TYPE})


def describe(state: State) -> None:
    """Bring what the metrics tell of the state up to date."""
    rows: dict[str, list[tuple[dict[str, str], float]]] = {"models": [], "model_bytes": [], "indexes": []}
    for served in state.models.values():
        for number in sorted({*served.versions, *served.failures}):
            version = served.versions.get(number)
            labels = {"model": served.name, "version": str(number)}
            isa = "" if version is None else version.model.isa
            rows["models"].append(({**labels, "isa": isa}, float(version is not None)))
            if version is not None:
                rows["model_bytes"].append((labels, version.model.nbytes))
    for index in state.indexes.values():
        if index.index is not None:
            rows["indexes"].append(({"index": index.name}, len(index.index)))
    state.metrics.serving = rows
