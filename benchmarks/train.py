"""Training: ours beside PyTorch eager and scikit-learn's MLPClassifier, one thread, 784-256-128-10, Adam, batch 128.

One epoch over 12,800 rows of the size of Fashion-MNIST (the images themselves if they are installed), data in memory,
shuffled, float32, no metrics. Each contestant runs in a process of its own, so that no BLAS' threads disturb another's;
the parent asks them for an epoch in turn. Also the seconds from the call of ``fit`` to the end of the first step, on
60,000 rows, weights drawn and data checked.
"""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from benchmarks.harness import Row, row, versions, write_results

ROWS, COLUMNS, CLASSES, BATCH = 12_800, 784, 10, 128
HIDDEN = (256, 128)
ROUNDS = 7
BARS = {"PyTorch": 1 / 1.2, "scikit-learn": 1 / 1.5}
Epoch = Callable[[], object]


def data(rows: int = ROWS) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    rng = np.random.default_rng(0)
    return rng.random((rows, COLUMNS), np.float32), rng.integers(0, CLASSES, rows)


def ours() -> Epoch:
    from mariana.trainer import Dense, Sequential

    x, y = data()
    net = Sequential([*(Dense(units, "relu") for units in HIDDEN), Dense(CLASSES, "softmax")], seed=0)
    net.compile("adam", "sparse_categorical_crossentropy")
    return lambda: net.fit(x, y, BATCH, verbose=0)


def pytorch() -> Epoch:
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
    x, y = (torch.tensor(array) for array in data())
    layers: list[Any] = []
    for inputs, units in zip((COLUMNS, *HIDDEN), HIDDEN, strict=False):
        layers += [torch.nn.Linear(inputs, units), torch.nn.ReLU()]
    net = torch.nn.Sequential(*layers, torch.nn.Linear(HIDDEN[-1], CLASSES))
    optimizer, loss = torch.optim.Adam(net.parameters()), torch.nn.CrossEntropyLoss()

    def epoch() -> None:
        for rows in torch.randperm(len(x)).split(BATCH):
            optimizer.zero_grad()
            loss(net(x[rows]), y[rows]).backward()
            optimizer.step()

    return epoch


def scikit_learn() -> Epoch:
    from sklearn.neural_network import MLPClassifier

    x, y = data()
    net = MLPClassifier(HIDDEN, batch_size=BATCH, alpha=0.0, random_state=0)
    return lambda: net.partial_fit(x, y, classes=np.arange(CLASSES))


CONTESTANTS = {"mariana": ours, "PyTorch": pytorch, "scikit-learn": scikit_learn}
if importlib.util.find_spec("torch") is None:  # an extra of its own: see pyproject.toml
    del CONTESTANTS["PyTorch"]


def _contestant(name: str, connection: Connection) -> None:
    epoch = CONTESTANTS[name]()
    epoch()
    connection.send(None)
    while connection.recv():
        wall, cpu = time.perf_counter(), time.process_time()
        epoch()
        connection.send((time.perf_counter() - wall, time.process_time() - cpu))


def epochs() -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Return wall and CPU seconds of an epoch for each contestant, a figure a round, interleaved."""
    context = multiprocessing.get_context("spawn")
    running = {}
    for name in CONTESTANTS:
        here, there = context.Pipe()
        process = context.Process(target=_contestant, args=(name, there), daemon=True)
        process.start()
        running[name] = process, here
    for _, connection in running.values():
        connection.recv()
    wall: dict[str, list[float]] = {name: [] for name in running}
    cpu: dict[str, list[float]] = {name: [] for name in running}
    for _ in range(ROUNDS):
        for name, (_, connection) in running.items():
            connection.send(True)
            seconds, busy = connection.recv()
            wall[name].append(seconds)
            cpu[name].append(busy)
    for process, connection in running.values():
        connection.send(False)
        process.join()
    return wall, cpu


def first_step() -> tuple[list[float], list[float]]:
    """Return wall and CPU milliseconds from making a network to the end of its first step, 60,000 rows in memory."""
    from mariana.trainer import Callback, Dense, Sequential

    class Stop(Callback):
        def on_train_batch_end(self, *_: object) -> None:
            raise KeyboardInterrupt

    x, y = data(60_000)
    wall, cpu = [], []
    for _ in range(ROUNDS):
        begin, busy = time.perf_counter(), time.process_time()
        net = Sequential([*(Dense(units, "relu") for units in HIDDEN), Dense(CLASSES, "softmax")], seed=0)
        net.compile("adam", "sparse_categorical_crossentropy")
        try:
            net.fit(x, y, BATCH, verbose=0, callbacks=[Stop()])
        except KeyboardInterrupt:
            wall.append((time.perf_counter() - begin) * 1e3)
            cpu.append((time.process_time() - busy) * 1e3)
    return wall, cpu


def run() -> str:
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"  # for the processes that are started below
    rows: list[Row] = []
    for what, samples in zip(("wall", "CPU"), epochs(), strict=True):
        for peer, bar in BARS.items():
            if peer not in samples:
                continue
            pair = {name: samples[name] for name in ("mariana", peer)}
            rows.append(
                row(f"an epoch, {what} time, against {peer}", pair, "mariana", unit="s", scale=1.0, bar=bar)
            )
    with threadpool_limits(1):
        for what, figures in zip(("wall", "CPU"), first_step(), strict=True):
            rows.append(
                Row(f"first step, {what} time", "ms", float(np.median(figures)), {"the bar": 50.0}, 1.0)
            )
    title = "Training 784-256-128-10, Adam, batch 128, 12,800 rows, one thread"
    return write_results("train", title, rows, versions("numpy", "torch", "scikit-learn"))
