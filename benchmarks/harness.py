"""Times several contestants in one run, interleaved, so that a noisy machine is unfair to all alike."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path

RESULTS = Path(__file__).parent / "results"


def seconds_per_call(
    contestants: Mapping[str, Callable[[], object]],
    *,
    rounds: int = 15,
    budget: float = 0.02,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Return the seconds per call of each contestant, one figure a round.

    Every round times every contestant once, in turn, for about ``budget`` seconds of calls.
    """
    repeats: dict[str, int] = {}
    for name, call in contestants.items():
        call()
        count = 1
        while (elapsed := _time(call, count, clock)) < budget / 10 and count < 1 << 24:
            count *= 4
        repeats[name] = max(1, int(count * budget / max(elapsed, 1e-9)))
    samples: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, call in contestants.items():
            samples[name].append(_time(call, repeats[name], clock) / repeats[name])
    return samples


def _time(call: Callable[[], object], count: int, clock: Callable[[], float]) -> float:
    loop = range(count)
    start = clock()
    for _ in loop:
        call()
    return clock() - start


@dataclass
class Row:
    """One line of a table: what was measured, ours, the best peer, all figures."""

    what: str
    unit: str
    ours: float
    peers: dict[str, float]
    bar: float | None = None  # the ratio ours / best peer must not be above this
    extra: dict[str, float] = field(default_factory=dict)

    @property
    def best_peer(self) -> str:
        return min(self.peers, key=lambda name: self.peers[name])

    @property
    def ratio(self) -> float:
        """Ours over the best peer: below 1 we win."""
        return self.ours / self.peers[self.best_peer]


def row(
    what: str,
    samples: Mapping[str, list[float]],
    ours: str,
    *,
    unit: str = "us",
    scale: float = 1e6,
    bar: float | None = None,
) -> Row:
    """Make a row of the medians of some samples."""
    medians = {name: statistics.median(figures) * scale for name, figures in samples.items()}
    return Row(what, unit, medians.pop(ours), medians, bar)


def table(title: str, rows: list[Row]) -> str:
    """Return a Markdown table, ratios first."""
    lines = [
        f"### {title}",
        "",
        "| what | ours / best peer | bar | ours | best peer | all peers |",
        "|---|---|---|---|---|---|",
    ]
    for r in rows:
        bar = "" if r.bar is None else f"<= {r.bar:g} {'met' if r.ratio <= r.bar else '**missed**'}"
        peers = ", ".join(
            f"{name} {value:.3g}" for name, value in sorted(r.peers.items(), key=lambda p: p[1])
        )
        best = f"{r.best_peer} {r.peers[r.best_peer]:.3g} {r.unit}"
        lines.append(f"| {r.what} | **{r.ratio:.2f}x** | {bar} | {r.ours:.3g} {r.unit} | {best} | {peers} |")
    return "\n".join([*lines, ""])


def machine() -> dict[str, str]:
    """Return what the figures depend on."""
    cpu = platform.processor() or platform.machine()
    flags = ""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                cpu = line.split(":", 1)[1].strip()
            if line.startswith("flags") and not flags:
                wanted = ("avx2", "avx512f", "avx512_vnni", "amx_tile")
                flags = " ".join(flag for flag in wanted if flag in line.split())
    except OSError:
        pass
    return {
        "cpu": cpu,
        "instruction sets": flags,
        "cores": str(os.cpu_count()),
        "system": platform.platform(),
        "python": platform.python_version(),
    }


KINDS = {"amx": "AMX", "avx512": "AVX-512", "avx2": "AVX2"}
"""What the widest instructions of a machine are called, in files and in headings."""


def kind() -> str:
    """Return which of KINDS this machine is, or its architecture: figures of each kind stand side by side."""
    flags = machine()["instruction sets"]
    return next((kind for kind in KINDS if kind in flags), platform.machine())


def versions(*names: str) -> dict[str, str]:
    """Return the installed versions of some distributions."""
    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "absent"
    return found


def write_results(name: str, title: str, rows: list[Row], peers: dict[str, str]) -> str:
    """Write results/NAME-KIND.json and return the table."""
    RESULTS.mkdir(exist_ok=True)
    document = {
        "machine": machine(),
        "versions": peers,
        "rows": [{**asdict(r), "ratio": r.ratio} for r in rows],
    }
    (RESULTS / f"{name}-{kind()}.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return table(title, rows)
