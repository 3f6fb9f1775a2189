"""Changes to an index while it is served: how long until they are on the disk, visible here, and visible elsewhere.

The index holds wordfreq's large English and German lists (``benchmarks.index.words``). The peer is what a change costs at
least when it must not be lost: one transaction of the same rows in SQLite's full-text index FTS5, and in a bare table,
both with the log fsynced at each commit (``synchronous=FULL``), as ours is. All are timed in turn.
"""

from __future__ import annotations

import itertools
import random
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import mariana
from benchmarks.harness import Row, seconds_per_call, versions, write_results
from benchmarks.index import words
from mariana.live import state

BATCH = 1000
LIVE = 100_000
THREADS = 8
COMPACTIONS = 3

_FOLLOW = """
import sys, time, mariana
index = mariana.open_index(sys.argv[1])
print("ready", flush=True)
seen = index.sequence
while True:
    time.sleep(0.03)
    if index.refresh() and index.sequence != seen:
        seen = index.sequence
        print(time.time(), flush=True)
"""


def run() -> str:
    entries = words()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        mariana.build_index(path / "index", entries.items())
        state.COMPACT_LEAST = 1 << 40  # in its own time, below
        with mariana.open_index(path / "index") as index:
            rows = _insert(path, index, list(entries))
            rows.append(_elsewhere(path / "index", index))
            rows.append(_threads(index))
            rows += _when_full(index, list(entries))
            rows += _while_compacting(path / "index", index, list(entries))
    return write_results(
        "live",
        f"Live updates: an index of {len(entries):,} entries",
        rows,
        {"sqlite": sqlite3.sqlite_version, **versions("wordfreq")},
    )


def _batches(names: list[str], size: int) -> Callable[[], list[tuple[str, float]]]:
    """Return a function that gives a new batch each time: half new texts, half changes."""
    rng, count = random.Random(1), itertools.count()

    def batch() -> list[tuple[str, float]]:
        return [
            (
                rng.choice(names) if rng.random() < 0.5 else f"new {next(count)} {rng.random()}",
                float(rng.randrange(10**6)),
            )
            for _ in range(size)
        ]

    return batch


def _peer(path: Path, schema: str) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.executescript(f"PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; {schema}")
    return connection


def _insert(path: Path, index: mariana.Index, names: list[str]) -> list[Row]:
    bare = _peer(path / "bare.db", "CREATE TABLE items (text TEXT PRIMARY KEY, score REAL)")
    search = _peer(
        path / "fts.db", "CREATE VIRTUAL TABLE items USING fts5 (text, score UNINDEXED, prefix='1 2 3')"
    )

    def into(
        connection: sqlite3.Connection, batch: Callable[[], list[tuple[str, float]]]
    ) -> Callable[[], None]:
        def insert() -> None:
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany("INSERT OR REPLACE INTO items VALUES (?, ?)", batch())
            connection.execute("COMMIT")

        return insert

    rows = []
    for size, what in ((1, "one entry: on the disk and visible"), (BATCH, f"a batch of {BATCH:,}: the same")):
        batch = _batches(names, size)
        samples = seconds_per_call(
            {
                "mariana": lambda batch=batch: index.insert(batch()),
                "SQLite FTS5": into(search, batch),
                "SQLite bare table": into(bare, batch),
            },
            rounds=9,
            budget=0.05,
        )
        medians = {name: statistics.median(figures) * 1e3 for name, figures in samples.items()}
        rows.append(Row(what, "ms", medians.pop("mariana"), medians))
    bare.close()
    search.close()
    return rows


def _visible(index: mariana.Index, batch: Callable[[], list[tuple[str, float]]], times: int) -> float:
    """Return the median ms that another opening of the index takes to complete entries that were committed."""
    taken = []
    with mariana.open_index(index.info.path.parent) as other:
        for _ in range(times):
            index.insert(batch())
            start = time.perf_counter()
            other.refresh()
            taken.append(time.perf_counter() - start)
    return statistics.median(taken) * 1e3


def _elsewhere(path: Path, index: mariana.Index) -> Row:
    with subprocess.Popen(
        [sys.executable, "-c", _FOLLOW, path], stdout=subprocess.PIPE, text=True
    ) as follower:
        assert follower.stdout is not None
        follower.stdout.readline()
        delays = []
        for number in range(60):
            index.insert([(f"elsewhere {number}", 1.0)])
            acknowledged = time.time()
            delays.append(float(follower.stdout.readline()) - acknowledged)
            time.sleep(random.random() * 0.03)
        follower.terminate()
    delays.sort()
    bound = {"the promise (100 ms)": 100.0}
    return Row(
        "acknowledged here: visible in another process, the slowest of 60",
        "ms",
        delays[-1] * 1e3,
        bound,
        bar=1,
    )


def _threads(index: mariana.Index) -> Row:
    def work(name: str, times: int) -> None:
        for number in range(times):
            index.insert([(f"thread {name} {number}", 1.0)])

    def timed(threads: int) -> float:
        running = [threading.Thread(target=work, args=(f"{threads} {i}", 40)) for i in range(threads)]
        start = time.perf_counter()
        for thread in running:
            thread.start()
        for thread in running:
            thread.join()
        return (time.perf_counter() - start) / (40 * threads) * 1e3

    alone = timed(1)
    return Row(
        f"one entry each from {THREADS} threads, which share commits: time for each",
        "ms",
        timed(THREADS),
        {"one thread": alone},
    )


def _when_full(index: mariana.Index, names: list[str]) -> list[Row]:
    one = _batches(names, 1)
    promise = {"the promise (1 ms)": 1.0}
    rows = [Row("one entry: from commit to visible", "ms", _visible(index, one, 100), promise, bar=1)]
    many = _batches(names, BATCH)
    for _ in range(LIVE // BATCH):
        index.insert(many())
    rows.append(Row(f"the same, on top of {LIVE:,} changes", "ms", _visible(index, one, 100), promise))
    start = time.perf_counter()
    index.compact()
    elapsed = time.perf_counter() - start
    rows.append(Row(f"compaction of {LIVE:,} changes", "s", elapsed, {"one second": 1.0}))
    return rows


@dataclass
class _Watched:
    """How long some calls took, seconds each."""

    writes: list[float] = field(default_factory=list)
    reads: list[float] = field(default_factory=list)

    def watch(self, index: mariana.Index, batch: Callable[[], list[tuple[str, float]]]) -> None:
        """Write a batch and complete a letter, once, and note how long each took."""
        entries = batch()
        start = time.perf_counter()
        index.insert(entries)
        between = time.perf_counter()
        index.complete_json("s")
        self.writes.append(between - start)
        self.reads.append(time.perf_counter() - between)


def _while_compacting(path: Path, index: mariana.Index, names: list[str]) -> list[Row]:
    """Write and read all the time, half of it while another process compacts, as the server does it."""
    many = _batches(names, LIVE)
    rows = []
    for size in (1, 100):
        batch = _batches(names, size)
        before, during = _Watched(), _Watched()
        for _ in range(COMPACTIONS):
            index.insert(many())
            for _ in range(200):
                before.watch(index, batch)
            with subprocess.Popen([sys.executable, "-m", "mariana.live", path]) as compaction:
                while compaction.poll() is None:
                    during.watch(index, batch)
            for _ in range(20):  # what comes just after it
                during.watch(index, batch)
        what = f"{'one entry' if size == 1 else f'a batch of {size}'} while {LIVE:,} changes are compacted"
        for kind, calm, busy in (
            (what, before.writes, during.writes),
            (f"a completion between these ({len(during.reads)})", before.reads, during.reads),
        ):
            for part, at in (("median", 0.5), ("p99", 0.99), ("longest", 1.0)):
                figures = [
                    sorted(some)[min(int(at * len(some)), len(some) - 1)] * 1e3 for some in (calm, busy)
                ]
                rows.append(Row(f"{kind}: {part}", "ms", figures[1], {"the same just before": figures[0]}))
    return rows
