"""What the server writes to its log: lines for people or JSON for machines, with the request's id and trace."""

from __future__ import annotations

import json
import logging
import re
import sys
import time
from contextlib import suppress
from typing import Any, TextIO

from mariana.settings import Settings

_TRACE = re.compile(rb"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}")


class AccessLog:
    """One line a request, gathered and written a few times a second, so that it costs little.

    Args:
        settings: whether, and how.
        to: where; None is stderr.
    """

    def __init__(self, settings: Settings, to: TextIO | None = None) -> None:
        self.on = settings.access_log
        self._json = settings.log_format == "json"
        self._lines: list[str] = []
        self._to = to

    def write(
        self,
        method: str,
        endpoint: str,
        status: int,
        seconds: float,
        client: str,
        identity: bytes,
        trace: bytes,
    ) -> None:
        """Note an answer.

        Args:
            method: of the request.
            endpoint: the template of its route.
            status: of the answer.
            seconds: that it took.
            client: the address.
            identity: of the request.
            trace: its header traceparent (W3C Trace Context), or nothing.
        """
        found = _TRACE.fullmatch(trace) if trace else None
        if self._json:
            row: dict[str, Any] = {
                "time": _now(),
                "level": "info",
                "logger": "mariana.access",
                "message": "request",
                "method": method,
                "endpoint": endpoint,
                "status": status,
                "milliseconds": round(seconds * 1e3, 3),
                "client": client,
                "request_id": identity.decode(),
            }
            if found is not None:
                row["trace_id"], row["span_id"] = found[1].decode(), found[2].decode()
            line = json.dumps(row)
        else:
            traced = f" trace={found[1].decode()}" if found is not None else ""
            what = endpoint if endpoint.startswith(f"{method} ") else f"{method} {endpoint}"
            line = (
                f"{_now()} INFO {client} {what} {status} {seconds * 1e3:.3f}ms id={identity.decode()}{traced}"
            )
        self._lines.append(line)

    def flush(self) -> None:
        """Write what has been noted."""
        if self._lines:
            lines, self._lines = self._lines, []
            to = sys.stderr if self._to is None else self._to
            with suppress(
                OSError, ValueError
            ):  # a full disk, a closed pipe: the lines are lost, nothing else is
                to.write("\n".join(lines) + "\n")
                to.flush()


def _now() -> str:
    seconds = time.time()
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{int(seconds % 1 * 1000):03d}Z"


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record."""
        row = {
            "time": _now(),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            row["exception"] = self.formatException(record.exc_info)
        return json.dumps(row)
