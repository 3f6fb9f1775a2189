"""Training: both backends beside PyTorch and scikit-learn's MLPClassifier, one thread, data in memory, shuffled, float32.

Three networks: 784-256-128-10, batch 128; 784-1024-1024-10 with batch normalisation and dropout of 0.3, batch 128; and one
for a table, 74-128-64-2, batch 256. All learn by Adam, without metrics; an epoch is as many rows as make it about half a second. Each
contestant runs in a process of its own, so that no BLAS' threads disturb another's; the parent asks them for an epoch in turn.
The floor is the matrix products of those steps alone, by NumPy. Also the seconds from the call of ``fit`` to the end of the first step,
on 60,000 rows, weights drawn and data checked.
"""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from benchmarks.harness import Row, row, versions, write_results

Epoch = Callable[[], object]


@dataclass(frozen=True)
class Net:
    """A network and its data.

    Attributes:
        widths: inputs, hidden layers, classes.
        rows: of an epoch.
        batch: rows of a step.
        regular: whether batch normalisation and dropout stand behind each hidden layer.
        rounds: epochs that are timed.
        bars: the ratio ours / peer that must not be exceeded, by backend and peer.
    """

    widths: tuple[int, ...]
    rows: int
    batch: int
    regular: bool
    rounds: int
    bars: dict[tuple[str, str], float]

    def __str__(self) -> str:
        extra = ", batch norm, dropout 0.3" if self.regular else ""
        return f"{'-'.join(map(str, self.widths))}{extra}"

    def data(self) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        rng = np.random.default_rng(0)
        x = rng.random((self.rows, self.widths[0]), np.float32)
        return x, rng.integers(0, self.widths[-1], self.rows)


DROPOUT = 0.3
SMALL = Net(
    (784, 256, 128, 10),
    12_800,
    128,
    regular=False,
    rounds=7,
    bars={("numpy", "PyTorch"): 1 / 1.2, ("numpy", "scikit-learn"): 1 / 1.5, ("c", "PyTorch"): 1 / 2},
)
BIG = Net((784, 1024, 1024, 10), 3_840, 128, regular=True, rounds=5, bars={})
TABLE = Net((74, 128, 64, 2), 51_200, 256, regular=False, rounds=5, bars={})


def ours(net: Net, backend: Any) -> Epoch:
    from mariana.trainer import Activation, BatchNormalization, Dense, Dropout, Sequential, use_backend

    x, y = net.data()
    layers: list[Any] = []
    for units in net.widths[1:-1]:
        if net.regular:
            layers += [Dense(units), BatchNormalization(), Activation("relu"), Dropout(DROPOUT)]
        else:
            layers.append(Dense(units, "relu"))
    model = Sequential([*layers, Dense(net.widths[-1], "softmax")], seed=0)
    model.compile("adam", "sparse_categorical_crossentropy")

    def epoch() -> None:
        with use_backend(backend):
            model.fit(x, y, net.batch, verbose=0)

    return epoch


def pytorch(net: Net, *, fused: bool = False) -> Epoch:
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
    x, y = (torch.tensor(array) for array in net.data())
    layers: list[Any] = []
    for inputs, units in zip(net.widths, net.widths[1:-1], strict=False):
        layers.append(torch.nn.Linear(inputs, units))
        if net.regular:
            layers.append(torch.nn.BatchNorm1d(units))
        layers.append(torch.nn.ReLU())
        if net.regular:
            layers.append(torch.nn.Dropout(DROPOUT))
    model = torch.nn.Sequential(*layers, torch.nn.Linear(*net.widths[-2:]))
    optimizer = torch.optim.Adam(model.parameters(), fused=fused)
    loss = torch.nn.CrossEntropyLoss()

    def epoch() -> None:
        for rows in torch.randperm(len(x)).split(net.batch):
            optimizer.zero_grad()
            loss(model(x[rows]), y[rows]).backward()
            optimizer.step()

    return epoch


def scikit_learn(net: Net) -> Epoch:
    from sklearn.neural_network import MLPClassifier

    x, y = net.data()
    model = MLPClassifier(net.widths[1:-1], batch_size=net.batch, alpha=0.0, random_state=0)
    return lambda: model.partial_fit(x, y, classes=np.arange(net.widths[-1]))


def floor(net: Net) -> Epoch:
    """The matrix products alone: forward, gradients of the weights, gradients of the inputs but the lowest."""
    rng = np.random.default_rng(0)
    shapes = list(zip(net.widths, net.widths[1:], strict=False))
    weights = [rng.random(shape, np.float32) for shape in shapes]
    gradients = [np.empty(shape, np.float32) for shape in shapes]
    values = [rng.random((net.batch, units), np.float32) for units in net.widths]

    def epoch() -> None:
        with threadpool_limits(1):
            for _ in range(net.rows // net.batch):
                for i, weight in enumerate(weights):
                    np.matmul(values[i], weight, out=values[i + 1])
                for i in reversed(range(len(weights))):
                    np.matmul(values[i].T, values[i + 1], out=gradients[i])
                    if i:
                        np.matmul(values[i + 1], weights[i].T, out=values[i])

    return epoch


MARIANA = {"numpy": "mariana, numpy", "c": "mariana, c"}
CONTESTANTS: dict[str, Callable[[Net], Epoch]] = {
    MARIANA["numpy"]: partial(ours, backend="numpy"),
    MARIANA["c"]: partial(ours, backend="c"),
    "PyTorch": pytorch,
    "PyTorch, fused Adam": partial(pytorch, fused=True),
    "scikit-learn": scikit_learn,
    "products alone": floor,
}
if importlib.util.find_spec("torch") is None:  # an extra of its own: see pyproject.toml
    del CONTESTANTS["PyTorch"], CONTESTANTS["PyTorch, fused Adam"]


def _contestant(name: str, net: Net, connection: Connection) -> None:
    epoch = CONTESTANTS[name](net)
    epoch()
    connection.send(None)
    while connection.recv():
        wall, cpu = time.perf_counter(), time.process_time()
        epoch()
        connection.send((time.perf_counter() - wall, time.process_time() - cpu))


def epochs(net: Net) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Return wall and CPU seconds of an epoch for each contestant, a figure a round, interleaved."""
    context = multiprocessing.get_context("spawn")
    running = {}
    for name in CONTESTANTS:
        if net.regular and name == "scikit-learn":  # it has no such layers
            continue
        here, there = context.Pipe()
        process = context.Process(target=_contestant, args=(name, net, there), daemon=True)
        process.start()
        running[name] = process, here
    for _, connection in running.values():
        connection.recv()
    wall: dict[str, list[float]] = {name: [] for name in running}
    cpu: dict[str, list[float]] = {name: [] for name in running}
    for _ in range(net.rounds):
        for name, (_, connection) in running.items():
            connection.send(True)
            seconds, busy = connection.recv()
            wall[name].append(seconds)
            cpu[name].append(busy)
    for process, connection in running.values():
        connection.send(False)
        process.join()
    return wall, cpu


def compared(net: Net) -> list[Row]:
    """Return a row for each backend and clock against all peers, and one for each bar."""
    rows = []
    for clock, samples in zip(("wall", "CPU"), epochs(net), strict=True):
        for backend, name in MARIANA.items():
            others = {n: s for n, s in samples.items() if n not in MARIANA.values()}
            others.pop("products alone")
            what = f"{net}, {backend}, {clock} time"
            rows.append(row(what, {name: samples[name], **others}, name, unit="ms", scale=1e3))
            for (whose, peer), bar in net.bars.items():
                if whose == backend and peer in samples:
                    pair = {name: samples[name], peer: samples[peer]}
                    rows.append(row(f"{what}, against {peer}", pair, name, unit="ms", scale=1e3, bar=bar))
        pair = {MARIANA["c"]: samples[MARIANA["c"]], "products alone": samples["products alone"]}
        rows.append(
            row(f"{net}, c, {clock} time, against the floor", pair, MARIANA["c"], unit="ms", scale=1e3)
        )
    return rows


def first_step(net: Net, backend: Any) -> tuple[list[float], list[float]]:
    """Return wall and CPU milliseconds from making a network to the end of its first step, 60,000 rows in memory."""
    from mariana.trainer import Callback, Dense, Sequential, use_backend

    class Stop(Callback):
        def on_train_batch_end(self, *_: object) -> None:
            raise KeyboardInterrupt

    rng = np.random.default_rng(0)
    x, y = rng.random((60_000, net.widths[0]), np.float32), rng.integers(0, net.widths[-1], 60_000)
    wall, cpu = [], []
    for _ in range(net.rounds):
        begin, busy = time.perf_counter(), time.process_time()
        layers = [*(Dense(units, "relu") for units in net.widths[1:-1]), Dense(net.widths[-1], "softmax")]
        model = Sequential(layers, seed=0)
        model.compile("adam", "sparse_categorical_crossentropy")
        try:
            with use_backend(backend):
                model.fit(x, y, net.batch, verbose=0, callbacks=[Stop()])
        except KeyboardInterrupt:
            wall.append((time.perf_counter() - begin) * 1e3)
            cpu.append((time.process_time() - busy) * 1e3)
    return wall, cpu


def run() -> str:
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"  # for the processes that are started below
    rows = [found for net in (SMALL, BIG, TABLE) for found in compared(net)]
    with threadpool_limits(1):
        for backend in MARIANA:
            for what, figures in zip(("wall", "CPU"), first_step(SMALL, backend), strict=True):
                median = float(np.median(figures))
                rows.append(Row(f"first step, {backend}, {what} time", "ms", median, {"the bar": 50.0}, 1.0))
    title = "Training: an epoch by Adam, one thread"
    return write_results("train", title, rows, versions("numpy", "torch", "scikit-learn"))
