"""For whoever operates the server: metrics."""

from __future__ import annotations

from fastapi import APIRouter, Response

from ..metrics import CONTENT_TYPE, of_the_present, render
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
    """Tell what the server has counted, all workers of it, for Prometheus."""
    tally(state)
    await state.gather()
    return Response(render(of_the_present(state.metrics.totals())), headers={"Content-Type": CONTENT_TYPE})


def tally(state: State) -> None:
    """Bring the numbers of this worker up to date."""
    metrics = state.metrics
    metrics.fold()
    metrics.measure()
    metrics.forget(
        "mariana_model_loaded",
        "mariana_model_bytes",
        "mariana_model_queued_requests",
        "mariana_index_entries",
    )
    for served in state.models.values():
        for number in sorted({*served.versions, *served.failures}):
            version = served.versions.get(number)
            labels = {"model": served.name, "version": str(number)}
            isa = "" if version is None else version.model.isa
            metrics.gauge("mariana_model_loaded", {**labels, "isa": isa}, float(version is not None))
            if version is not None:
                metrics.gauge("mariana_model_bytes", labels, version.model.nbytes)
                metrics.gauge("mariana_model_queued_requests", labels, version.schedule.queued)
    for index in state.indexes.values():
        if index.index is not None:
            metrics.gauge("mariana_index_entries", {"index": index.name}, len(index.index))
