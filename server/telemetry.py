"""OpenTelemetry: FastAPI's own spans and metrics, and the same for requests that never reach FastAPI.

FastAPI tells of every request that it serves (``telemetry=``). The quick ways answer before it; :class:`HotTelemetry`
gives their requests a server span and a duration with the names and attributes of the HTTP conventions, as FastAPI does.
It is there only when somebody listens: with ``MARIANA_TELEMETRY=off`` a request costs nothing for it.
"""

from __future__ import annotations

import importlib.util
from time import time_ns
from typing import Any

from fastapi.telemetry import TelemetryConfig
from opentelemetry import metrics, trace
from opentelemetry.context import Context
from opentelemetry.trace import SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.types import Scope

from mariana import __version__
from mariana.errors import MarianaError
from mariana.settings import Settings

SILENT: TelemetryConfig = {"tracing": False, "metrics": False, "logs": False}

_SECONDS = (1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Advised bounds of the duration's buckets: FastAPI's, and some for what takes less than 5 ms."""


def configure(settings: Settings) -> TelemetryConfig:
    """Return what FastAPI is to tell, and to whom: as the variables ``OTEL_*`` say. No logs: they would repeat input.

    Raises:
        MarianaError: it is on, but the packages are not installed.
    """
    if settings.telemetry == "off":
        return SILENT
    if not all(_there(name) for name in ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http")):
        raise MarianaError(
            "MARIANA_TELEMETRY is on, but OpenTelemetry is not installed: pip install 'mariana-serve[otel]'"
        )
    return {"auto_configure": True, "logs": False, "operation_spans": False}


def _there(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def name_span(scope: Scope, endpoint: str) -> None:
    """Give FastAPI's span of a request the name that FastAPI gives by itself to those of its own routes.

    Args:
        scope: of the request.
        endpoint: method and template of the route.
    """
    told = scope.get("fastapi.telemetry")
    if told is not None:
        told.route = endpoint.partition(" ")[2]  # goes with the duration
        if told.span is not None:
            told.span.update_name(endpoint)


class HotTelemetry:
    """Tells of requests on the quick ways.

    Args:
        tracer_provider: takes the spans; None: nobody does.
        meter_provider: takes the durations; None: nobody does.
    """

    def __init__(
        self, tracer_provider: trace.TracerProvider | None, meter_provider: metrics.MeterProvider | None
    ) -> None:
        self._tracer = None if tracer_provider is None else tracer_provider.get_tracer("mariana", __version__)
        self._duration = (
            None
            if meter_provider is None
            else meter_provider.get_meter("mariana", __version__).create_histogram(
                "http.server.request.duration",
                unit="s",
                description="Duration of HTTP server requests.",
                explicit_bucket_boundaries_advisory=_SECONDS,
            )
        )
        self._propagator = TraceContextTextMapPropagator()

    @classmethod
    def make(cls, config: TelemetryConfig) -> HotTelemetry | None:
        """Return one for whom FastAPI's configuration names, else for whom the process has set up; None: nobody."""
        tracers = config.get("tracer_provider") or _set_up(trace.get_tracer_provider())
        meters = config.get("meter_provider") or _set_up(metrics.get_meter_provider())
        tracers = tracers if config.get("tracing", True) else None
        meters = meters if config.get("metrics", True) else None
        return None if tracers is None and meters is None else cls(tracers, meters)

    def tell(self, endpoint: str, path: str, status: int, seconds: float, traceparent: bytes) -> None:
        """Tell of an answered request.

        Args:
            endpoint: method and template of the route.
            path: of the request.
            status: of the answer.
            seconds: that it took, until now.
            traceparent: the header, which the span becomes a child of; or empty.
        """
        method, _, route = endpoint.partition(" ")
        attributes: dict[str, Any] = {
            "http.request.method": method,
            "url.scheme": "http",
            "network.protocol.version": "1.1",
            "http.route": route,
            "http.response.status_code": status,
        }
        if self._tracer is not None:
            end = time_ns()
            span = self._tracer.start_span(
                endpoint,
                context=self._parent(traceparent),
                kind=SpanKind.SERVER,
                attributes={**attributes, "url.path": path},
                start_time=end - round(seconds * 1e9),
            )
            if status >= 500:
                span.set_attribute("error.type", str(status))
                span.set_status(StatusCode.ERROR)
            span.end(end)
        if self._duration is not None:
            self._duration.record(seconds, attributes)

    def _parent(self, traceparent: bytes) -> Context:
        if not traceparent:
            return Context()
        return self._propagator.extract({"traceparent": traceparent.decode("latin-1")}, Context())


def _set_up(provider: Any) -> Any:
    """Return a provider that somebody has set up, not the placeholder that stands there before."""
    return provider if type(provider).__module__.startswith("opentelemetry.sdk.") else None
