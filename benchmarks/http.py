"""HTTP: CPU time of the server's processes per request, ours beside MLServer, KServe, a naive FastAPI twin, and nothing.

"Nothing" is an application that reads the body and answers {}: what uvicorn itself costs.

Server processes are pinned to one core, the client to another where there is one. Each of 16 kept-alive connections has
one request under way at a time. CPU time per request, of a server's whole process tree by the kernel's clock of each, is
the figure to trust: the client's speed does not enter it.
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
from benchmarks.http_client import client_core
from benchmarks.http_peers import PACKAGES, SERVERS, Absent, environment
from mariana.building import build_index
from mariana.format import DenseLayer, ModelMetadata, NumericFeature, to_bytes
from mariana.store import Store

CONNECTIONS = 16
NETWORKS = {784: (256, 128, 10), 16: (64, 32, 3)}
ROUNDS = 9
ROUND_SECONDS = 0.12
"""Of one contestant in one round; how many requests that is comes out of the warm-up."""
START_SECONDS = 40.0
"""For a server to answer its first request."""

OTHER, EMPTY = "ours, other ASGI server", "empty uvicorn"
BARS = {
    784: {"mlserver": 1 / 10, "naive twin": 1 / 5, EMPTY: 2.0},
    16: {"mlserver": 1 / 15, EMPTY: 2.0},
}
"""What ours may cost, in units of the other."""


def run() -> str:
    rows: list[Row] = []
    peers, absent = {}, {}
    for peer in SERVERS:
        try:
            peers[peer] = environment(peer)
        except Absent as reason:
            absent[peer] = f"left out: {reason}"
    with tempfile.TemporaryDirectory() as folder:
        for columns, widths in NETWORKS.items():
            store = Path(folder) / str(columns)
            _publish(store, columns, widths)
            values = np.random.default_rng(0).random(columns, dtype=np.float32).round(4)
            text = "[" + ",".join(f"{value:.4f}" for value in values) + "]"
            body = f'{{"instances":[{text}]}}'.encode()
            tensor = f'"name":"input","shape":[1,{columns}],"datatype":"FP32"'
            infer = _post("/v2/models/net/infer", f'{{"inputs":[{{{tensor},"data":{text}}}]}}'.encode())
            octets = values.astype("<f4").tobytes()
            size = f'"parameters":{{"binary_data_size":{len(octets)}}}'
            head = f'{{"inputs":[{{{tensor},{size}}}],"parameters":{{"binary_data_output":true}}}}'.encode()
            binary = _post("/v2/models/net/infer", head + octets, "application/octet-stream", len(head))
            request = _post("/v1/models/net/predict", body)
            name = f"predict, {columns} floats as JSON ({len(body) / 1000:.1f} kB)"
            contestants = {
                **dict.fromkeys(("ours", OTHER, "naive twin", EMPTY), request),
                **_ask(peers, mlserver=infer),
            }
            bars = BARS[columns]
            rows += _measure(name, store, contestants, peers, bars)
            rows += _measure(
                f"infer, {columns} floats as JSON", store, {"ours": infer, EMPTY: infer}, peers, {}
            )
            if columns == 784:
                contestants = {"ours": binary, EMPTY: binary, **_ask(peers, kserve=binary)}
                rows += _measure(
                    "infer, 784 floats as a binary tensor", store, contestants, peers, {"kserve": 1 / 20}
                )
        store = Path(folder) / "index"
        build_index(Store(store).new_index_path("words"), ((f"word {i}", i) for i in range(50_000)))
        request = b"GET /v1/indexes/words/complete?q=word+1 HTTP/1.1\r\nHost: localhost\r\n\r\n"
        contestants = dict.fromkeys(("ours", OTHER, EMPTY), request)
        rows += _measure("complete, 10 of 50,000", store, contestants, peers, {EMPTY: 1.5})
    packages = {name: " ".join(PACKAGES[name]) for name in peers}
    known = versions("fastapi", "pydantic", "starlette", "uvicorn", "uvloop")
    text = write_results("http", "HTTP", rows, {**known, **packages, **absent})
    return text + "".join(f"\n{name} {reason}.\n" for name, reason in absent.items())


def _ask(peers: dict[str, Path], **requests: bytes) -> dict[str, bytes]:
    return {name: request for name, request in requests.items() if name in peers}


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
    parts = {
        f"{kind[0]}{i}": tensors[f"d{i}.{kind}"] for i in range(len(widths)) for kind in ("weight", "bias")
    }
    np.savez(store / "net.npz", **parts)


def _post(path: str, body: bytes, kind: str = "application/json", header_length: int | None = None) -> bytes:
    lengths = f"Content-Length: {len(body)}\r\n"
    if header_length is not None:
        lengths += f"Inference-Header-Content-Length: {header_length}\r\n"
    return f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\n{lengths}\r\n".encode() + body


def _measure(
    what: str, store: Path, requests: dict[str, bytes], peers: dict[str, Path], bars: dict[str, float]
) -> list[Row]:
    """Return a row for each contestant beside ours: CPU microseconds per request; requests per second in the extras."""
    cpu: dict[str, list[float]] = {name: [] for name in requests}
    rate: dict[str, list[float]] = {name: [] for name in requests}
    counts: dict[str, int] = {}
    with ExitStack() as stack:
        core = stack.enter_context(client_core())
        servers = {n: stack.enter_context(_serving(n, store, core, peers.get(n))) for n in requests}
        connections = {}
        for name, (process, server) in servers.items():
            _wait(server, process, requests[name])
            connections[name] = [_connect(server) for _ in range(CONNECTIONS)]
            _load(connections[name], requests[name], 10 * CONNECTIONS)
            start = time.perf_counter()
            _load(connections[name], requests[name], 10 * CONNECTIONS)
            took = (time.perf_counter() - start) / (10 * CONNECTIONS)
            counts[name] = max(2, round(ROUND_SECONDS / took / CONNECTIONS)) * CONNECTIONS
        for _ in range(ROUNDS):
            for name, (process, _) in servers.items():
                used, start = tree_seconds(process.pid), time.perf_counter()
                _load(connections[name], requests[name], counts[name])
                rate[name].append(counts[name] / (time.perf_counter() - start))
                cpu[name].append((tree_seconds(process.pid) - used) / counts[name] * 1e6)
        for some in connections.values():
            for connection in some:
                connection.close()
    figures = {name: statistics.median(values) for name, values in cpu.items()}
    rates = {f"requests/s {name}": statistics.median(values) for name, values in rate.items()}
    own = figures.pop("ours")
    return [
        Row(f"{what}: beside {name}", "us CPU", own, {name: figure}, bars.get(name), rates)
        for name, figure in figures.items()
    ]


@contextmanager
def _serving(
    name: str, store: Path, core: int, peer: Path | None
) -> Iterator[tuple[subprocess.Popen[bytes], tuple[str, int]]]:
    environ = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])}
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
        command = [sys.executable, "-m", "benchmarks.http_servers", name, str(store), str(listener.fileno())]
        descriptors = [listener.fileno()]
        if peer is not None:
            listener.close()
            command = [str(peer), str(Path(__file__).parent / "peers" / f"{name}_net.py")]
            command += [str(store / "net.npz"), str(address[1])]
            environ["PYTHONPATH"] = str(Path(__file__).parent / "peers")
            descriptors = []
        process = subprocess.Popen(
            command,
            pass_fds=descriptors,
            env=environ,
            stdout=subprocess.DEVNULL if peer else None,
            stderr=subprocess.DEVNULL if peer else None,
        )
        os.sched_setaffinity(process.pid, {core})
    try:
        yield process, address
    finally:
        process.kill()
        process.wait()


def _connect(address: tuple[str, int]) -> socket.socket:
    connection = socket.create_connection(address, timeout=30)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def _wait(address: tuple[str, int], process: subprocess.Popen[bytes], request: bytes) -> None:
    """Wait until a server answers; it may listen before its model is there."""
    end = time.monotonic() + START_SECONDS
    while True:
        try:
            with _connect(address) as connection:
                _load([connection], request, 1)
                return
        except (OSError, RuntimeError):
            if process.poll() is not None or time.monotonic() > end:
                raise
            time.sleep(0.1)


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


def tree(pid: int) -> set[int]:
    """Return a process and its descendants."""
    parents: dict[int, int] = {}
    for task in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(task.name)] = int((task / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def tree_seconds(pid: int) -> float:
    """Return the seconds of CPU time that a process and its descendants have used, to the nanosecond."""
    # The clock of another process, as clock_getcpuclockid(3) makes its number.
    return sum(time.clock_gettime((~member << 3) | 2) for member in tree(pid))


if __name__ == "__main__":
    print(run())
