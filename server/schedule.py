"""Where a prediction runs, decided by what it costs on this machine, measured when the model is loaded.

inline   a request that costs microseconds is answered on the event loop: whatever else one did would cost more.
batched  where one row costs more than ``INLINE_SECONDS``, the rows that one pass of the event loop has brought run as one
         batch, at the pass's end: weights are read once for all of them. Nobody waits for a timer.
thread   what takes longer than ``LOOP_SECONDS`` runs in one thread, without the interpreter's lock, so that the loop goes
         on answering; what comes meanwhile is the next batch.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from time import perf_counter
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Mode = Literal["inline", "batched", "thread"]

INLINE_SECONDS = 30e-6
LOOP_SECONDS = 1e-3
BATCH = 16
ROWS_MAX = 4096
"""Rows from which a batch gains nothing by more: those who wait longer than the batch are the next one."""
_ROUNDS, _PATIENCE = 20, 5e-3
_ROUNDS_MIN, _PATIENCE_MAX = 5, 50e-3
"""A busy machine, which makes a quick model look slow, is given more time than a slow model."""

_thread = ThreadPoolExecutor(1, "predict")


class Cost(NamedTuple):
    """What a model costs here, in seconds."""

    one: float
    """one row"""
    sixteen: float
    """sixteen rows at once"""

    @property
    def mode(self) -> Mode:
        """How requests of one row are run."""
        if self.one <= INLINE_SECONDS:
            return "inline"
        return "batched" if self.one <= LOOP_SECONDS else "thread"

    def of(self, rows: int) -> float:
        """Return about what some rows cost at once."""
        return self.one + (rows - 1) * max(self.sixteen - self.one, 0.0) / (BATCH - 1)


def measure(predict: Callable[[Float32], Float32], columns: int) -> Cost:
    """Return what a model costs: the best of a few rounds, which also warm it up; some milliseconds."""
    found = []
    for rows in (1, BATCH):
        x = np.zeros((rows, columns), np.float32)
        best = float("inf")
        begun = perf_counter()
        for i in range(1, _ROUNDS + 1):
            start = perf_counter()
            predict(x)
            best = min(best, perf_counter() - start)
            if perf_counter() - begun > (_PATIENCE if i >= _ROUNDS_MIN else _PATIENCE_MAX):
                break
        found.append(best)
    return Cost(*found)


class _Waiting(NamedTuple):
    """A request that waits for a batch."""

    x: Float32
    done: asyncio.Future[Float32]
    since: float


class Schedule:
    """Runs the rows of one model.

    Args:
        predict: rows in, outputs out; threads may call it.
        cost: of :func:`measure`.
        window: seconds to wait for more rows; 0: none.
        told: called with the rows of each batch, and with the seconds that each of its requests has waited for it.
    """

    def __init__(
        self,
        predict: Callable[[Float32], Float32],
        cost: Cost,
        window: float = 0.0,
        told: Callable[[int, list[float]], None] | None = None,
    ) -> None:
        self._predict = predict
        self.window = window
        self._told = told
        self._waiting: list[_Waiting] = []
        self._running = False
        self.cost = cost
        self.batches = 0
        """How many batches have been run."""

    @property
    def queued(self) -> int:
        """How many requests wait for a batch to begin."""
        return len(self._waiting)

    def inline(self, rows: int) -> bool:
        """Whether some rows are to be run at once, here."""
        return self.cost.one <= INLINE_SECONDS and (rows == 1 or self.cost.of(rows) <= LOOP_SECONDS)

    async def run(self, x: Float32) -> Float32:
        """Run rows where they belong; raises what the model raises.

        Args:
            x: (rows, columns) float32.

        Returns:
            (rows, outputs) float32.
        """
        if self.inline(len(x)):
            return self._predict(x)
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Float32] = loop.create_future()
        self._waiting.append(_Waiting(x, done, perf_counter()))
        if not self._running and len(self._waiting) == 1:
            if self.window > 0:
                loop.call_later(self.window, self._start)
            else:
                loop.call_soon(self._start)
        return await done

    def _start(self) -> None:
        """Run what waits: here when that is quick, else in the thread, and then what has come meanwhile."""
        while self._waiting:
            batch = self._take()
            try:
                x = batch[0].x if len(batch) == 1 else np.concatenate([waiting.x for waiting in batch])
                if self._told is not None:
                    now = perf_counter()
                    self._told(len(x), [now - waiting.since for waiting in batch])
                if self.cost.of(len(x)) > LOOP_SECONDS:
                    running = asyncio.get_running_loop().run_in_executor(_thread, self._predict, x)
                    running.add_done_callback(partial(self._ended, batch))
                    self._running = True
                    return
                self._finish(batch, self._predict(x), None)
            except Exception as error:  # noqa: BLE001 - it belongs to those who wait
                self._finish(batch, None, error)

    def _take(self) -> list[_Waiting]:
        """Return the next batch: at least one request, and as many more as fit ``ROWS_MAX``."""
        rows = count = 0
        for waiting in self._waiting:
            rows += len(waiting.x)
            if count and rows > ROWS_MAX:
                break
            count += 1
        batch, self._waiting = self._waiting[:count], self._waiting[count:]
        return batch

    def _ended(self, batch: list[_Waiting], task: asyncio.Future[Float32]) -> None:
        self._running = False
        error = task.exception()
        self._finish(batch, None if error is not None else task.result(), error)
        self._start()

    def _finish(self, batch: list[_Waiting], y: Float32 | None, error: BaseException | None) -> None:
        self.batches += 1
        at = 0
        for waiting in batch:
            rows, done = len(waiting.x), waiting.done
            if not done.done():  # else its client has gone
                if y is None:
                    done.set_exception(error or RuntimeError("no outputs"))
                else:
                    done.set_result(y[at : at + rows])
            at += rows
