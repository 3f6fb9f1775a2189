"""OpenTelemetry, with exporters in memory: every request has one span and one duration, whichever way it went."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from mariana.errors import MarianaError
from mariana.server import create_app, telemetry
from mariana.settings import Settings

metrics_sdk = pytest.importorskip("opentelemetry.sdk.metrics", reason="opentelemetry-sdk is not installed")
from opentelemetry.sdk.metrics import MeterProvider  # noqa: E402
from opentelemetry.sdk.metrics.export import InMemoryMetricReader  # noqa: E402
from opentelemetry.sdk.trace import TracerProvider  # noqa: E402
from opentelemetry.sdk.trace.export import SimpleSpanProcessor  # noqa: E402
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter  # noqa: E402

TRACE, PARENT = 0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331
TRACEPARENT = f"00-{TRACE:032x}-{PARENT:016x}-01"
BODY = {"instances": [[1, 2, 3, 4]]}


@pytest.fixture
def spans() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def reader() -> InMemoryMetricReader:
    return InMemoryMetricReader()


@pytest.fixture
def told(tiny_store: Path, spans: InMemorySpanExporter, reader: InMemoryMetricReader) -> Iterator[TestClient]:
    tracers = TracerProvider()
    tracers.add_span_processor(SimpleSpanProcessor(spans))
    meters = MeterProvider([reader])
    config: Any = {"tracer_provider": tracers, "meter_provider": meters, "logs": False}
    with TestClient(create_app(Settings(store=tiny_store), config)) as client:
        yield client
    meters.shutdown()


REQUESTS: list[tuple[str, str, dict[str, Any], str, int, str]] = [
    ("POST", "/v1/models/tiny/predict", {"json": BODY}, "/v1/models/{name}/predict", 200, "mariana"),
    ("GET", "/v1/indexes/towns/complete?q=sa", {}, "/v1/indexes/{name}/complete", 200, "mariana"),
    ("POST", "/v1/models/tiny/predict", {"json": {}}, "/v1/models/{name}/predict", 400, "fastapi"),
    (
        "POST",
        "/v1/models/tiny/predict?explain=true",
        {"json": BODY},
        "/v1/models/{name}/predict",
        200,
        "fastapi",
    ),
    ("GET", "/v1/models/tiny", {}, "/v1/models/{name}", 200, "fastapi"),
]


@pytest.mark.parametrize(("method", "path", "content", "route", "status", "scope"), REQUESTS)
def test_a_request_has_one_span(
    told: TestClient,
    spans: InMemorySpanExporter,
    reader: InMemoryMetricReader,
    method: str,
    path: str,
    content: dict[str, Any],
    route: str,
    status: int,
    scope: str,
) -> None:
    assert told.request(method, path, headers={"traceparent": TRACEPARENT}, **content).status_code == status
    (span,) = [span for span in spans.get_finished_spans() if span.kind.name == "SERVER"]
    assert span.name == f"{method} {route}"
    assert span.instrumentation_scope.name == scope
    assert span.context.trace_id == TRACE
    assert span.parent.span_id == PARENT
    assert span.end_time >= span.start_time
    attributes = dict(span.attributes)
    assert attributes["http.request.method"] == method
    assert attributes["http.route"] == route
    assert attributes["http.response.status_code"] == status
    assert attributes["url.path"] == path.partition("?")[0]
    data = reader.get_metrics_data()
    points = [
        (part.scope.name, point)
        for resource in data.resource_metrics
        for part in resource.scope_metrics
        for metric in part.metrics
        if metric.name == "http.server.request.duration"
        for point in metric.data.data_points
    ]
    ((found, point),) = points
    assert (found, point.count, point.attributes["http.route"]) == (scope, 1, route)


def test_without_a_parent_a_trace_begins(told: TestClient, spans: InMemorySpanExporter) -> None:
    for traceparent in (None, "nonsense", "00-" + "0" * 32 + "-" + "0" * 16 + "-01"):
        headers = {} if traceparent is None else {"traceparent": traceparent}
        assert told.post("/v1/models/tiny/predict", json=BODY, headers=headers).status_code == 200
    assert [span.parent for span in spans.get_finished_spans()] == [None] * 3
    assert len({span.context.trace_id for span in spans.get_finished_spans()}) == 3


def test_off_nobody_is_told(tiny_store: Path) -> None:
    app = create_app(Settings(store=tiny_store))
    with TestClient(app) as client:
        assert app.front is not None
        assert app.front.telemetry is None
        assert client.get("/v1/models").status_code == 200


def test_on_needs_the_packages(tiny_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert telemetry.configure(Settings(store=tiny_store, telemetry="on"))["auto_configure"]
    monkeypatch.setattr(telemetry, "_there", lambda _name: False)
    with pytest.raises(MarianaError, match=r"pip install 'mariana-serve\[otel\]'"):
        create_app(Settings(store=tiny_store, telemetry="on"))
