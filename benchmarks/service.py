"""The service as a whole: how evenly it answers, what it does at five times its capacity, how soon it is there, its memory.

The server is ``mariana serve`` on one core, the client is on another where there is one.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from benchmarks.harness import Row, versions, write_results
from benchmarks.http import _post, _publish, tree
from benchmarks.http_client import client_core, closed_loop, open_loop
from mariana.building import build_index
from mariana.store import Store

CONNECTIONS = 16
LARGE = (16, (2048, 2048, 3))
"""A network of so much work that one client can send five times what the server can take."""

OVERLOAD, OVERLOAD_SECONDS, OVERLOAD_CONNECTIONS = 5.0, 20.0, 900
MODELS, STRINGS, STARTS = 10, 1_000_000, 5


def run() -> str:
    with tempfile.TemporaryDirectory() as folder:
        rows = [*_evenness(Path(folder)), *_overload(Path(folder)), *_presence(Path(folder))]
    return write_results("service", "The service", rows, versions("fastapi", "uvicorn", "uvloop"))


@contextmanager
def serving(store: Path, *, core: int | None, workers: int = 1) -> Iterator[tuple[int, tuple[str, int]]]:
    """Give the process and the address of a server that says that it is ready."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mariana", "serve", "--store", store, "--port", str(port)]
    quiet = {"MARIANA_LOG_LEVEL": "error", "OPENBLAS_NUM_THREADS": "1", "MARIANA_IDLE_TIMEOUT": "600"}
    quiet["PYTHONDONTWRITEBYTECODE"] = ""  # what is installed has its bytecode; only the first start compiles
    process = subprocess.Popen(
        [*command, "--workers", str(workers)], env={**os.environ, **quiet}, stdout=subprocess.DEVNULL
    )
    if core is not None:
        os.sched_setaffinity(process.pid, {core})
    try:
        end = time.monotonic() + 60
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/health/ready", timeout=1):
                    break
            except OSError:
                if process.poll() is not None or time.monotonic() > end:
                    raise
                time.sleep(0.002)
        yield process.pid, ("127.0.0.1", port)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=30)


def _request(columns: int) -> bytes:
    values = np.random.default_rng(0).random(columns, dtype=np.float32).round(4)
    text = ",".join(f"{value:.4f}" for value in values)
    return _post("/v1/models/net/predict", f'{{"instances":[[{text}]]}}'.encode())


def _evenness(folder: Path) -> Iterator[Row]:
    store = folder / "even"
    _publish(store, 784, (256, 128, 10))
    with client_core() as core, serving(store, core=core) as (_, address):
        closed_loop(address, _request(784), CONNECTIONS, 1)
        ratios, medians = [], []
        for _ in range(5):
            seconds = sorted(closed_loop(address, _request(784), CONNECTIONS, 1.5).seconds)
            p50, p99 = (seconds[int(len(seconds) * share)] for share in (0.5, 0.99))
            ratios.append(p99 / p50)
            medians.append(p50)
    p50 = statistics.median(medians) * 1e6
    yield Row(
        f"predict, 784 floats, {CONNECTIONS} connections: p99 beside p50",
        "us",
        statistics.median(ratios) * p50,
        {"p50": p50},
        3.0,
        {"worst of 5": max(ratios)},
    )


def _overload(folder: Path) -> Iterator[Row]:
    store = folder / "large"
    _publish(store, *LARGE)
    request = _request(LARGE[0])
    with client_core() as core, serving(store, core=core) as (_, address):
        usual = statistics.median(closed_loop(address, request, 1, 2).seconds)
        capacity = max(
            len(closed_loop(address, request, connections, 4).seconds) / 4 for connections in (16, 64, 256)
        )
        rate = OVERLOAD * capacity
        found = open_loop(address, request, OVERLOAD_CONNECTIONS, OVERLOAD_SECONDS, rate)
        after = time.perf_counter()
        while True:
            answer = closed_loop(address, request, 1, 0.05)
            if answer.seconds and statistics.median(answer.seconds) < 2 * usual:
                break
        back = time.perf_counter() - after
    seconds = sorted(found.seconds)
    extra = {
        "offered/s": rate,
        "refused/s": found.refused / OVERLOAD_SECONDS,
        "other answers": found.wrong,
        "had no connection/s": found.unsent / OVERLOAD_SECONDS,
        "p50 of good answers, ms": statistics.median(seconds) * 1e3,
        "p99 of good answers, ms": seconds[int(len(seconds) * 0.99)] * 1e3,
        "p99 of refusals, ms": sorted(found.refused_seconds)[int(found.refused * 0.99)] * 1e3
        if found.refused
        else 0.0,
    }
    goodput = len(seconds) / OVERLOAD_SECONDS
    yield Row(
        f"overload, {OVERLOAD:g}x for {OVERLOAD_SECONDS:g} s: lost throughput (1 / share of capacity)",
        "capacity",
        capacity / goodput,
        {"capacity": 1.0},
        1 / 0.85,
        extra,
    )
    yield Row(
        "overload: answers other than 200, and 429 or 503 with Retry-After",
        "",
        found.wrong + 1,
        {"none": 1},
        1.0,
    )
    yield Row("overload: back to the usual time of an answer", "s", back, {"bar": 1.0}, 1.0)


def _presence(folder: Path) -> Iterator[Row]:
    store = folder / "many"
    for i in range(MODELS):
        _publish(folder / f"one{i}", 16, (64, 32, 3))
        model = next((folder / f"one{i}").glob("models/net/1/model.safetensors"))
        Store(store).publish_model(f"net{i}", model.read_bytes())
    build_index(
        Store(store).new_index_path("words"), ((f"entry {i * 7919 % STRINGS}", i) for i in range(STRINGS))
    )
    starts = []
    for _ in range(STARTS):
        begun = time.perf_counter()
        with serving(store, core=None) as (pid, address):
            starts.append(time.perf_counter() - begun)
            one = _memory(pid)
            with urllib.request.urlopen(f"http://{address[0]}:{address[1]}/v1/models", timeout=5) as answer:
                assert all(model["ready"] for model in json.load(answer)["models"])
    yield Row(
        f"ready with {MODELS} models and an index of {STRINGS:,} strings",
        "s",
        statistics.median(starts),
        {"bar": 0.6},
        1.0,
    )
    yield Row(
        "memory (PSS) of one worker with them, before the first search",
        "MB",
        one,
        {"bar": 60.0},
        None,
    )
    with serving(folder / "even", core=None) as (pid, _):
        yield Row("memory (PSS) of one worker with one model", "MB", _memory(pid), {"bar": 60.0}, 1.0)
    with serving(store, core=None, workers=2) as (pid, _):
        two = _memory(pid)
    with serving(store, core=None, workers=4) as (pid, _):
        four = _memory(pid)
    yield Row("memory (PSS) of each further worker", "MB", (four - two) / 2, {"bar": 30.0}, 1.0)


def _memory(pid: int) -> float:
    """Return the megabytes of a process and its descendants, pages that they share counted once."""
    total = 0.0
    for member in tree(pid):
        for line in Path(f"/proc/{member}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1]) / 1000
    return total


if __name__ == "__main__":
    print(run())
