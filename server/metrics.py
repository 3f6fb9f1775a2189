"""What the service counts, and how Prometheus reads it (text exposition format 0.0.4).

Written down here and not taken from ``prometheus_client``: counting must cost tens of nanoseconds, and with several
workers whichever one is asked must tell the sum of all. So a request only notes its numbers in lists; a few times a
second, and before the numbers are read, :meth:`Metrics.fold` counts them into rows of :class:`~.cells.Cells`, which the
other workers read. The rows of a worker that has died stay, and count on with the one that takes its place.
"""

from __future__ import annotations

import gc
import os
import resource
import time
from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .cells import Cells, Key, Values

SECONDS = (
    1e-6, 2.5e-6, 5e-6, 1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5
)  # fmt: skip
"""Upper bounds of the buckets of times: from what a small network takes to what no client waits for."""

ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 1024, 4096, 16384, 65536)
"""Upper bounds of the buckets of rows in a request."""

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Family(NamedTuple):
    """A metric: its type, what it means, and how the numbers of several workers become one."""

    kind: str
    """counter, gauge or histogram"""
    about: str
    bounds: tuple[float, ...] = ()
    """of a histogram's buckets"""
    shared: bool = False
    """a gauge of what all workers have in common: the greatest number, not the sum"""


FAMILIES = {
    "mariana_workers": Family("gauge", "Processes that serve."),
    "mariana_requests_total": Family("counter", "Answers by kind of endpoint and status."),
    "mariana_request_seconds": Family("histogram", "Time from a request's head to its answer.", SECONDS),
    "mariana_rejected_total": Family("counter", "Requests turned away unread."),
    "mariana_inflight_requests": Family("gauge", "Requests being answered."),
    "mariana_connections": Family("gauge", "Open connections."),
    "mariana_reloads_total": Family("counter", "Loads after the start, of every worker."),
    "mariana_model_stage_seconds": Family(
        "histogram",
        "Time of a prediction by stage: parse the body, run the network, write the answer.",
        SECONDS,
    ),
    "mariana_model_rows": Family("histogram", "Rows of a request.", ROWS),
    "mariana_model_queue_seconds": Family(
        "histogram", "Time that a request waited for its batch; what runs inline does not wait.", SECONDS
    ),
    "mariana_model_batch_rows": Family("histogram", "Rows that ran as one batch, not inline.", ROWS),
    "mariana_model_queued_requests": Family("gauge", "Requests that wait for a batch."),
    "mariana_model_errors_total": Family(
        "counter", "Requests that were refused, by the status of the answer."
    ),
    "mariana_model_last_prediction_timestamp_seconds": Family(
        "gauge", "When a version last answered.", shared=True
    ),
    "mariana_complete_seconds": Family("histogram", "Time of a completion.", SECONDS),
    "mariana_model_loaded": Family("gauge", "Workers that serve this version; 0 where it failed."),
    "mariana_model_bytes": Family("gauge", "Bytes of packed weights; workers share them.", shared=True),
    "mariana_index_entries": Family("gauge", "Entries of an index.", shared=True),
    "process_cpu_seconds_total": Family("counter", "CPU time, user and system, of all workers."),
    "process_resident_memory_bytes": Family(
        "gauge", "Resident memory of all workers; pages that they share are counted in each."
    ),
    "process_open_fds": Family("gauge", "Open file descriptors."),
    "python_gc_collections_total": Family("counter", "Collections of Python's garbage collector."),
}
"""Every metric, in the order in which they are told."""

_LAST = "mariana_model_last_prediction_timestamp_seconds"


class Histogram:
    """Counts values by bucket.

    Args:
        bounds: upper bounds of the buckets; one more takes what is above them.
        row: where it counts, a number a bucket and the sum of all values; None: a row of its own.
    """

    __slots__ = ("_row", "_seen", "bounds")

    def __init__(self, bounds: tuple[float, ...], row: Values | None = None) -> None:
        self.bounds = bounds
        self._row = np.zeros(len(bounds) + 2) if row is None else row
        self._seen: list[float] = []

    def observe(self, value: float) -> None:
        """Note one value."""
        self._seen.append(value)

    def observe_all(self, values: NDArray[np.float64]) -> None:
        """Count some values: many at once cost a tenth of one by one."""
        row = self._row
        row[:-1] += np.bincount(np.searchsorted(self.bounds, values), minlength=len(row) - 1)
        row[-1] += values.sum()

    def fold(self) -> None:
        """Count what was noted."""
        if self._seen:
            seen, self._seen = np.array(self._seen), []
            self.observe_all(seen)

    @property
    def counts(self) -> list[int]:
        """How many values there were in each bucket."""
        self.fold()
        return [int(count) for count in self._row[:-1]]

    @property
    def total(self) -> float:
        """The sum of all values."""
        self.fold()
        return float(self._row[-1])


class ModelStats:
    """What one version of a model does.

    Args:
        cells: where it is counted.
        name: of the model.
        version: its number.
    """

    __slots__ = ("_cells", "_labels", "_last", "_seen", "batches", "infer", "parse", "queue", "rows", "write")

    def __init__(self, cells: Cells, name: str, version: int) -> None:
        self._seen: list[float] = []
        self._cells = cells
        self._labels = {"model": name, "version": str(version)}
        self.parse, self.infer, self.write = (
            _histogram(cells, "mariana_model_stage_seconds", {**self._labels, "stage": stage})
            for stage in ("parse", "infer", "write")
        )
        self.rows = _histogram(cells, "mariana_model_rows", self._labels)
        self.queue = _histogram(cells, "mariana_model_queue_seconds", self._labels)
        self.batches = _histogram(cells, "mariana_model_batch_rows", self._labels)
        self._last = cells.row(_LAST, self._labels)

    def observe(self, rows: int, start: float, parsed: float, inferred: float, written: float) -> None:
        """Note a request that was answered; the times are of ``time.perf_counter``."""
        self._seen += (rows, start, parsed, inferred, written)

    def batch(self, rows: int, waits: list[float]) -> None:
        """Note a batch: its rows, and how long each of its requests has waited, in seconds."""
        self.batches.observe(rows)
        for seconds in waits:
            self.queue.observe(seconds)

    def fold(self) -> None:
        """Count what was noted."""
        self.queue.fold()
        self.batches.fold()
        if not self._seen:
            return
        seen, self._seen = np.array(self._seen).reshape(-1, 5), []
        self.rows.observe_all(seen[:, 0])
        for histogram, times in zip(
            (self.parse, self.infer, self.write), np.diff(seen[:, 1:]).T, strict=True
        ):
            histogram.observe_all(times)
        self._last[0] = time.time() - perf_counter() + seen[-1, 4]

    def error(self, kind: str) -> None:
        """Count a request that was refused."""
        self._cells.row("mariana_model_errors_total", {**self._labels, "status": kind})[0] += 1


class IndexStats:
    """What one index does."""

    __slots__ = ("complete",)

    def __init__(self, cells: Cells, name: str) -> None:
        self.complete = _histogram(cells, "mariana_complete_seconds", {"index": name})


def _histogram(cells: Cells, name: str, labels: Mapping[str, str]) -> Histogram:
    bounds = FAMILIES[name].bounds
    return Histogram(bounds, cells.row(name, labels, len(bounds) + 2))


class Metrics:
    """Everything that one process counts.

    Args:
        cells: where; None: memory of its own.
        counted: gives the cells of all workers, and whether the worker is there; None: there is only this one.
    """

    def __init__(
        self, cells: Cells | None = None, counted: Callable[[], Iterable[tuple[Cells, bool]]] | None = None
    ) -> None:
        self.cells = Cells() if cells is None else cells
        self._counted = counted
        self._models: dict[tuple[str, int], ModelStats] = {}
        self._indexes: dict[str, IndexStats] = {}
        self._answers: list[tuple[str, int, float]] = []
        self._durations: dict[str, Histogram] = {}
        self._rejected: dict[str, int] = {}
        self._before: dict[str, float] = {}
        self.inflight = 0
        self.connections = 0
        for (name, _), row in self.cells:
            if FAMILIES[name].kind == "gauge" and name != _LAST:
                row[:] = np.nan  # of a worker that was here before
        self.reloaded(ok=0, failed=0)

    def model(self, name: str, version: int) -> ModelStats:
        """Return the counters of a version of a model; they outlive its reloads, see :meth:`retain`."""
        found = self._models.get((name, version))
        if found is None:
            found = self._models[name, version] = ModelStats(self.cells, name, version)
        return found

    def index(self, name: str) -> IndexStats:
        """Return the counters of an index."""
        found = self._indexes.get(name)
        if found is None:
            found = self._indexes[name] = IndexStats(self.cells, name)
        return found

    def answered(self, endpoint: str, status: int, seconds: float) -> None:
        """Note an answer."""
        self._answers.append((endpoint, status, seconds))

    def reject(self, reason: str) -> None:
        """Note a request that was turned away unread."""
        self._rejected[reason] = self._rejected.get(reason, 0) + 1

    def reloaded(self, *, ok: int = 0, failed: int = 0) -> None:
        """Count loads after the start."""
        for result, count in (("ok", ok), ("failed", failed)):
            self.cells.row("mariana_reloads_total", {"result": result})[0] += count

    def gauge(self, name: str, labels: Mapping[str, str], value: float) -> None:
        """Set a number that goes up and down; one that is not set again vanishes with :meth:`forget`."""
        self.cells.row(name, labels)[0] = value

    def forget(self, *names: str) -> None:
        """Take the gauges of some metrics back."""
        for (name, _), row in self.cells:
            if name in names:
                row[0] = np.nan

    def retain(self, versions: AbstractSet[tuple[str, int]], indexes: AbstractSet[str]) -> None:
        """Forget what other versions and indexes have done, where there is not much room left to count.

        Until then it is kept, should they come back.
        """

        def gone(name: str, labels: Mapping[str, str]) -> bool:
            if name.startswith("mariana_model_"):
                return (labels["model"], int(labels["version"])) not in versions
            return labels.get("index", "") not in {"", *indexes}

        if not self.cells.scarce:
            return
        self._models = {key: stats for key, stats in self._models.items() if key in versions}
        self._indexes = {name: stats for name, stats in self._indexes.items() if name in indexes}
        self.cells.drop(gone)

    def fold(self) -> None:
        """Count what was noted since the last time; a few times a second, and before the numbers are read."""
        answers, self._answers = self._answers, []
        found: dict[tuple[str, int], list[float]] = {}
        for endpoint, status, seconds in answers:
            found.setdefault((endpoint, status), []).append(seconds)
        for (endpoint, status), times in found.items():
            labels = {"endpoint": endpoint}
            self.cells.row("mariana_requests_total", {**labels, "status": str(status)})[0] += len(times)
            histogram = self._durations.get(endpoint)
            if histogram is None:
                histogram = self._durations[endpoint] = _histogram(
                    self.cells, "mariana_request_seconds", labels
                )
            histogram.observe_all(np.array(times))
        rejected, self._rejected = self._rejected, {}
        for reason, count in rejected.items():
            self.cells.row("mariana_rejected_total", {"reason": reason})[0] += count
        for stats in self._models.values():
            stats.fold()
        for index in self._indexes.values():
            index.complete.fold()

    def measure(self) -> None:
        """Bring the gauges of the process up to date."""
        self.gauge("mariana_workers", {}, 1)
        self.gauge("mariana_inflight_requests", {}, self.inflight)
        self.gauge("mariana_connections", {}, self.connections)
        for name, value in _process().items():
            if FAMILIES[name].kind == "gauge":
                self.gauge(name, {}, value)
            else:  # on top of what was counted here by a worker that is no more
                row = self.cells.row(name, {})
                row[0] = self._before.setdefault(name, float(row[0])) + value

    @property
    def rejected(self) -> dict[str, int]:
        """How many requests this worker has turned away unread, by reason."""
        self.fold()
        return {
            dict(labels)["reason"]: int(row[0])
            for (name, labels), row in self.cells
            if name == "mariana_rejected_total"
        }

    def totals(self) -> dict[Key, Values]:
        """Return the rows of all workers as one."""
        self.fold()
        return add_up([(self.cells, True)] if self._counted is None else self._counted())


def add_up(counted: Iterable[tuple[Cells, bool]]) -> dict[Key, Values]:
    """Return the rows of several workers as one.

    Args:
        counted: cells, and whether the worker is there; where it is not, its gauges mean nothing.
    """
    sums: dict[Key, Values] = {}
    for cells, there in counted:
        for key, row in cells:
            family = FAMILIES[key[0]]
            if family.kind == "gauge" and (np.isnan(row[0]) or not (there or key[0] == _LAST)):
                continue
            before = sums.get(key)
            if before is None:
                sums[key] = row.copy()
            elif family.shared:
                np.maximum(before, row, out=before)
            else:
                before += row
    return sums


class ModelTotal(NamedTuple):
    """What a version of a model has done in all workers."""

    requests: int
    rows: int
    errors: int
    parse: float
    """seconds of this stage"""
    queue: float
    """seconds of waiting for a batch"""
    infer: float
    write: float
    last: float
    """when it last answered, in seconds since the epoch; 0: never"""


class ModelTotals:
    """What the versions of models have done.

    Args:
        totals: of :meth:`Metrics.totals`.
    """

    def __init__(self, totals: Mapping[Key, Values]) -> None:
        self._totals = totals

    def of(self, name: str, version: int) -> ModelTotal:
        """Return what a version has done."""
        model = (("model", name), ("version", str(version)))

        def row(metric: str, *more: tuple[str, str]) -> Values:
            return self._totals.get((metric, (*model, *more)), _NOTHING)

        rows = row("mariana_model_rows")
        parse, infer, write = (
            float(row("mariana_model_stage_seconds", ("stage", stage))[-1])
            for stage in ("parse", "infer", "write")
        )
        errors = sum(
            float(values[0])
            for (metric, labels), values in self._totals.items()
            if metric == "mariana_model_errors_total" and labels[:2] == model
        )
        requests, last = int(rows[:-1].sum()), float(row(_LAST)[0])
        queue = float(row("mariana_model_queue_seconds")[-1])
        return ModelTotal(
            requests, round(rows[-1]), int(errors), parse, queue, max(infer - queue, 0.0), write, last
        )


_NOTHING = np.zeros(2)


def _process() -> dict[str, float]:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    found: dict[str, float] = {
        "process_cpu_seconds_total": usage.ru_utime + usage.ru_stime,
        "python_gc_collections_total": sum(generation["collections"] for generation in gc.get_stats()),
    }
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        found["process_resident_memory_bytes"] = pages * os.sysconf("SC_PAGE_SIZE")
        found["process_open_fds"] = sum(1 for _ in Path("/proc/self/fd").iterdir())
    except OSError:
        pass
    return found


def of_the_present(totals: Mapping[Key, Values]) -> dict[Key, Values]:
    """Return the rows without those of versions that are not there any more, of which there may be thousands in time."""
    there = {labels[:2] for name, labels in totals if name == "mariana_model_loaded"}
    return {
        (name, labels): row
        for (name, labels), row in totals.items()
        if not name.startswith("mariana_model_") or labels[:2] in there
    }


def render(totals: Mapping[Key, Values]) -> str:
    """Return the exposition of some rows."""
    rows: dict[str, list[tuple[tuple[tuple[str, str], ...], Values]]] = {}
    for (name, labels), row in totals.items():
        rows.setdefault(name, []).append((labels, row))
    lines: list[str] = []
    for name, family in FAMILIES.items():
        if name in rows:
            lines += [f"# HELP {name} {family.about}", f"# TYPE {name} {family.kind}"]
        for labels, row in rows.get(name, ()):
            if family.kind != "histogram":
                lines.append(_sample(name, labels, row[0]))
                continue
            counts = np.cumsum(row[:-1])
            for bound, count in zip((*map(repr, family.bounds), "+Inf"), counts, strict=True):
                lines.append(_sample(f"{name}_bucket", (*labels, ("le", bound)), count))
            lines.append(_sample(f"{name}_sum", labels, row[-1]))
            lines.append(_sample(f"{name}_count", labels, counts[-1]))
    return "\n".join(lines) + "\n"


def _sample(name: str, labels: tuple[tuple[str, str], ...], value: float) -> str:
    told = ",".join(f'{label}="{_escape(text)}"' for label, text in labels)
    number = float(value)
    written = repr(int(number) if number.is_integer() else number)
    return f"{name}{{{told}}} {written}" if told else f"{name} {written}"


def _escape(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
