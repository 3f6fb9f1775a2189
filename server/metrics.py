"""What the service counts, and how Prometheus reads it (text exposition format 0.0.4).

Written down here and not taken from ``prometheus_client``: counting must cost tens of nanoseconds, and with several
workers whichever one is asked must tell the sum of all. So the counters are plain numbers in plain objects, a worker's
can be dumped (:meth:`Metrics.dump`), and dumps are summed (:func:`render`).
"""

from __future__ import annotations

import gc
import os
import resource
import time
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

SECONDS = (
    1e-6, 2.5e-6, 5e-6, 1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5
)  # fmt: skip
"""Upper bounds of the buckets of times: from what a small network takes to what no client waits for."""

ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 1024, 4096, 16384, 65536)
"""Upper bounds of the buckets of rows in a request."""

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Labels = tuple[tuple[str, str], ...]


class Histogram:
    """Counts values by bucket."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def observe_all(self, values: NDArray[np.float64]) -> None:
        """Count some values."""
        found = np.bincount(np.searchsorted(self.bounds, values), minlength=len(self.counts))
        self.counts = [count + more for count, more in zip(self.counts, found.tolist(), strict=True)]
        self.total += float(values.sum())

    @property
    def count(self) -> int:
        """How many values there were."""
        return sum(self.counts)


class ModelStats:
    """What one version of a model has done."""

    __slots__ = ("_seen", "errors", "infer", "last", "parse", "rows", "write")

    def __init__(self) -> None:
        self._seen: list[float] = []
        self.parse = Histogram(SECONDS)
        self.infer = Histogram(SECONDS)
        self.write = Histogram(SECONDS)
        self.rows = Histogram(ROWS)
        self.errors: dict[str, int] = {}
        self.last = 0.0

    def observe(self, rows: int, start: float, parsed: float, inferred: float, written: float) -> None:
        """Note a request that was answered; the times are of ``time.perf_counter``."""
        self._seen += (rows, start, parsed, inferred, written)

    def fold(self) -> None:
        """Count what was noted: many at once cost a tenth of one by one."""
        if not self._seen:
            return
        seen, self._seen = np.array(self._seen).reshape(-1, 5), []
        self.rows.observe_all(seen[:, 0])
        for histogram, times in zip(
            (self.parse, self.infer, self.write), np.diff(seen[:, 1:]).T, strict=True
        ):
            histogram.observe_all(times)
        self.last = float(seen[-1, 4])

    def error(self, kind: str) -> None:
        """Count a request that was not."""
        self.errors[kind] = self.errors.get(kind, 0) + 1


class IndexStats:
    """What one index has done."""

    __slots__ = ("complete",)

    def __init__(self) -> None:
        self.complete = Histogram(SECONDS)


class Metrics:
    """Everything that one process counts."""

    def __init__(self) -> None:
        self.started = time.time()
        self.models: dict[tuple[str, int], ModelStats] = {}
        self.indexes: dict[str, IndexStats] = {}
        self._answers: list[tuple[str, int, float]] = []
        self.responses: dict[tuple[str, int], int] = {}
        """By (kind of endpoint, status)."""
        self.duration: dict[str, Histogram] = {}
        """By kind of endpoint: from the request's head to its answer."""
        self.rejected: dict[str, int] = {}
        """By reason: requests that were turned away unread."""
        self.inflight = 0
        self.connections = 0
        self.reloads: dict[str, int] = {"ok": 0, "failed": 0}
        self.serving: dict[str, Any] = {}

    def model(self, name: str, version: int) -> ModelStats:
        """Return the counters of a version of a model; they outlive its reloads."""
        return self.models.setdefault((name, version), ModelStats())

    def index(self, name: str) -> IndexStats:
        """Return the counters of an index."""
        return self.indexes.setdefault(name, IndexStats())

    def answered(self, endpoint: str, status: int, seconds: float) -> None:
        """Note an answer."""
        self._answers.append((endpoint, status, seconds))

    def reject(self, reason: str) -> None:
        """Count a request that was turned away unread."""
        self.rejected[reason] = self.rejected.get(reason, 0) + 1

    def fold(self) -> None:
        """Count what was noted since the last time; a few times a second, and before the numbers are read."""
        answers, self._answers = self._answers, []
        seconds: dict[str, list[float]] = {}
        for endpoint, status, took in answers:
            key = (endpoint, status)
            self.responses[key] = self.responses.get(key, 0) + 1
            seconds.setdefault(endpoint, []).append(took)
        for endpoint, times in seconds.items():
            self.duration.setdefault(endpoint, Histogram(SECONDS)).observe_all(np.array(times))
        for stats in self.models.values():
            stats.fold()

    def dump(self) -> list[list[Any]]:
        """Return the families of samples: [name, type, help, [[labels, value], ...]]; values add up over workers."""
        self.fold()
        families = _Families()
        families.add("mariana_workers", "gauge", "Processes that serve.", {}, 1)
        for (endpoint, status), count in self.responses.items():
            families.add(
                "mariana_requests_total",
                "counter",
                "Answers by kind of endpoint and status.",
                {"endpoint": endpoint, "status": str(status)},
                count,
            )
        for endpoint, histogram in self.duration.items():
            families.histogram(
                "mariana_request_seconds",
                "Time from a request's head to its answer.",
                {"endpoint": endpoint},
                histogram,
            )
        for reason, count in self.rejected.items():
            families.add(
                "mariana_rejected_total", "counter", "Requests turned away unread.", {"reason": reason}, count
            )
        families.add("mariana_inflight_requests", "gauge", "Requests being answered.", {}, self.inflight)
        families.add("mariana_connections", "gauge", "Open connections.", {}, self.connections)
        for result, count in self.reloads.items():
            families.add(
                "mariana_reloads_total", "counter", "Loads after the start.", {"result": result}, count
            )
        self._dump_models(families)
        for row in self.serving.get("models", ()):
            families.add(
                "mariana_model_loaded",
                "gauge",
                "1 a worker that serves this version, 0 where it failed.",
                *row,
            )
        for row in self.serving.get("model_bytes", ()):
            families.add("mariana_model_bytes", "gauge", "Bytes of packed weights.", *row)
        for row in self.serving.get("indexes", ()):
            families.add("mariana_index_entries", "gauge", "Entries of an index, a worker.", *row)
        _process(families)
        return families.rows()

    def _dump_models(self, families: _Families) -> None:
        for (name, version), stats in self.models.items():
            labels = {"model": name, "version": str(version)}
            for stage in ("parse", "infer", "write"):
                families.histogram(
                    "mariana_model_stage_seconds",
                    "Time of a prediction by stage: parse the body, run the network, write the answer.",
                    {**labels, "stage": stage},
                    getattr(stats, stage),
                )
            families.histogram("mariana_model_rows", "Rows of a request.", labels, stats.rows)
            for kind, count in stats.errors.items():
                families.add(
                    "mariana_model_errors_total",
                    "counter",
                    "Requests that were refused, by the status of the answer.",
                    {**labels, "status": kind},
                    count,
                )
        for name, index in self.indexes.items():
            families.histogram(
                "mariana_complete_seconds", "Time of a completion.", {"index": name}, index.complete
            )


class _Families:
    """Samples by the name of their metric."""

    def __init__(self) -> None:
        self._rows: dict[str, list[Any]] = {}

    def add(self, name: str, kind: str, about: str, labels: Mapping[str, str], value: float) -> None:
        self._rows.setdefault(name, [name, kind, about, []])[3].append([["", *labels.items()], value])

    def histogram(self, name: str, about: str, labels: Mapping[str, str], values: Histogram) -> None:
        samples = self._rows.setdefault(name, [name, "histogram", about, []])[3]
        total = 0
        for bound, count in zip((*map(repr, values.bounds), "+Inf"), values.counts, strict=True):
            total += count
            samples.append([["_bucket", *labels.items(), ("le", bound)], total])
        samples.append([["_sum", *labels.items()], values.total])
        samples.append([["_count", *labels.items()], total])

    def rows(self) -> list[list[Any]]:
        return list(self._rows.values())


def _process(families: _Families) -> None:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    families.add(
        "process_cpu_seconds_total",
        "counter",
        "CPU time, user and system, of all workers.",
        {},
        usage.ru_utime + usage.ru_stime,
    )
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        families.add(
            "process_resident_memory_bytes",
            "gauge",
            "Resident memory of all workers; pages that they share are counted in each.",
            {},
            pages * os.sysconf("SC_PAGE_SIZE"),
        )
        families.add(
            "process_open_fds",
            "gauge",
            "Open file descriptors.",
            {},
            sum(1 for _ in Path("/proc/self/fd").iterdir()),
        )
    except OSError:
        pass
    families.add(
        "python_gc_collections_total",
        "counter",
        "Collections of Python's garbage collector.",
        {},
        sum(generation["collections"] for generation in gc.get_stats()),
    )


def render(dumps: Iterable[list[list[Any]]]) -> str:
    """Return the exposition of the sum of some dumps."""
    heads: dict[str, tuple[str, str]] = {}
    sums: dict[str, dict[tuple[Any, ...], float]] = {}
    for dump in dumps:
        for name, kind, about, samples in dump:
            heads[name] = (kind, about)
            family = sums.setdefault(name, {})
            for labels, value in samples:
                key = (labels[0], *map(tuple, labels[1:]))
                family[key] = family.get(key, 0) + value
    lines: list[str] = []
    for name, (kind, about) in heads.items():
        lines += [f"# HELP {name} {about}", f"# TYPE {name} {kind}"]
        for (suffix, *labels), value in sums[name].items():
            told = ",".join(f'{label}="{_escape(text)}"' for label, text in labels)
            lines.append(f"{name}{suffix}{{{told}}} {value!r}" if told else f"{name}{suffix} {value!r}")
    return "\n".join(lines) + "\n"


def _escape(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
