"""HTTP: CPU time of the server process per request, ours beside a naive FastAPI twin and an empty uvicorn application.

Server processes are pinned to one core, the client to another where there is one. Each of 16 kept-alive connections has
one request under way at a time. CPU time per request is the figure to trust: the client's speed does not enter it.
"""

from __future__ import annotations

import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np

from benchmarks.harness import Row, versions, write_results
from mariana.autocomplete import build_index
from mariana.format import DenseLayer, ModelMetadata, NumericFeature, to_bytes
from mariana.store import Store

CONNECTIONS = 16
NETWORKS = {784: (256, 128, 10), 16: (64, 32, 3)}
ROUNDS = 7
REQUESTS = 1600
"""Requests a round and contestant: enough for the clock of /proc, whose tick is 10 ms."""

_TICKS = os.sysconf("SC_CLK_TCK")


def run() -> str:
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        for columns, widths in NETWORKS.items():
            store = Path(folder) / str(columns)
            _publish(store, columns, widths)
            values = np.random.default_rng(0).random(columns, dtype=np.float32).round(4).tolist()
            body = ('{"instances":[' + str([round(v, 4) for v in values]).replace(" ", "") + "]}").encode()
            request = _post("/v1/models/net/predict", body)
            name = f"predict, {columns} floats as JSON ({len(body) / 1000:.1f} kB)"
            contestants = dict.fromkeys(("ours", "naive twin", "empty uvicorn"), request)
            rows += _measure(name, store, contestants, bar=0.5 if columns == 784 else None)
            if columns == 784:
                octets = _post(
                    "/v1/models/net/predict", np.array(values, "<f4").tobytes(), "application/octet-stream"
                )
                rows += _measure(
                    "predict, 784 floats as bytes",
                    store,
                    {"ours": octets, "naive twin": request, "empty uvicorn": octets},
                )
        store = Path(folder) / "index"
        build_index(Store(store).new_index_path("words"), ((f"word {i}", i) for i in range(50_000)))
        request = b"GET /v1/indexes/words/complete?q=word+1 HTTP/1.1\r\nHost: localhost\r\n\r\n"
        rows += _measure("complete, 10 of 50,000", store, dict.fromkeys(("ours", "empty uvicorn"), request))
    return write_results(
        "http", "HTTP", rows, versions("fastapi", "pydantic", "starlette", "uvicorn", "uvloop")
    )


def _publish(store: Path, columns: int, widths: tuple[int, ...]) -> None:
    layers = []
    inputs = columns
    for i, units in enumerate(widths):
        activation = "softmax" if i == len(widths) - 1 else "relu"
        layers.append(DenseLayer(name=f"d{i}", inputs=inputs, units=units, activation=activation))
        inputs = units
    metadata = ModelMetadata(
        task="classification",
        features=tuple(NumericFeature(name=f"x{i}") for i in range(columns)),
        input_shape=(columns,),
        layers=tuple(layers),
        labels=tuple(range(widths[-1])),
    )
    random = np.random.default_rng(0)
    shapes = metadata.tensor_shapes()
    tensors = {n: random.normal(0, shape[0] ** -0.5, shape).astype(np.float32) for n, shape in shapes.items()}
    Store(store).publish_model("net", to_bytes(metadata, tensors))


def _post(path: str, body: bytes, kind: str = "application/json") -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def _measure(what: str, store: Path, requests: dict[str, bytes], *, bar: float | None = None) -> list[Row]:
    """Return a row of CPU microseconds per request; the requests per second are in its extra figures."""
    cpu: dict[str, list[float]] = {name: [] for name in requests}
    rate: dict[str, list[float]] = {name: [] for name in requests}
    cores = sorted(os.sched_getaffinity(0))
    with ExitStack() as stack:
        servers = {name: stack.enter_context(_serving(name, store, cores[0])) for name in requests}
        stack.callback(os.sched_setaffinity, 0, cores)
        os.sched_setaffinity(0, {cores[-1]})
        for name, (_, connections) in servers.items():
            _load(connections, requests[name], REQUESTS // 4)
        for _ in range(ROUNDS):
            for name, (pid, connections) in servers.items():
                used, start = _cpu(pid), time.perf_counter()
                _load(connections, requests[name], REQUESTS)
                rate[name].append(REQUESTS / (time.perf_counter() - start))
                cpu[name].append((_cpu(pid) - used) / REQUESTS * 1e6)
    figures = {name: statistics.mean(values) for name, values in cpu.items()}  # a mean: the clock is coarse
    rates = {f"requests/s {name}": statistics.median(values) for name, values in rate.items()}
    floor = figures["empty uvicorn"]
    own = figures.pop("ours")
    twin = {name: value for name, value in figures.items() if name != "empty uvicorn"}
    rows = [Row(f"{what}: beside an empty application", "us CPU", own, {"empty uvicorn": floor}, extra=rates)]
    if twin:
        rows.insert(0, Row(what, "us CPU", own, twin, bar, rates))
    return rows


@contextmanager
def _serving(name: str, store: Path, core: int) -> Iterator[tuple[int, list[socket.socket]]]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.http_servers", name, str(store), str(listener.fileno())],
            pass_fds=[listener.fileno()],
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])},
        )
        os.sched_setaffinity(process.pid, {core})
    try:
        with ExitStack() as stack:
            connections = []
            for _ in range(CONNECTIONS):
                connections.append(stack.enter_context(socket.create_connection(address, timeout=30)))
                connections[-1].setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            yield process.pid, connections
    finally:
        process.kill()
        process.wait()


def _load(connections: list[socket.socket], request: bytes, count: int) -> None:
    for _ in range(count // len(connections)):
        for connection in connections:
            connection.sendall(request)
        for connection in connections:
            _receive(connection)


def _receive(connection: socket.socket) -> None:
    head, _, body = connection.recv(65536).partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(f"unexpected answer: {head[:300]!r}")
    length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
    while len(body) < length:
        body += connection.recv(65536)


def _cpu(pid: int) -> float:
    """Return the seconds of CPU time that a process has used, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


if __name__ == "__main__":
    print(run())
