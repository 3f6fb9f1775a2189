"""Where predictions run: the same bits everywhere, batches of what came together, errors for those whose they are."""

import asyncio
import selectors
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from starlette.testclient import TestClient

from mariana.model import load_model
from mariana.server import create_app
from mariana.server.schedule import BATCH, Cost, Schedule, measure
from mariana.settings import Settings

COSTS = {"inline": Cost(1e-6, 1e-5), "batched": Cost(1e-4, 1e-4), "thread": Cost(2e-3, 4e-3)}


def test_the_mode_follows_from_the_cost() -> None:
    assert {name: cost.mode for name, cost in COSTS.items()} == {name: name for name in COSTS}
    cost = Cost(10e-6, 40e-6)
    assert (cost.of(1), cost.of(BATCH)) == (10e-6, pytest.approx(40e-6))
    schedule = Schedule(lambda x: x, cost)
    assert schedule.inline(1)
    assert schedule.inline(400)
    assert not schedule.inline(600), "so many rows would hold the loop too long"
    assert not Schedule(lambda x: x, COSTS["batched"]).inline(1)


def test_measuring_warms_up() -> None:
    shapes: list[int] = []

    def predict(x: np.ndarray) -> np.ndarray:
        shapes.append(len(x))
        return x

    cost = measure(predict, 3)
    assert set(shapes) == {1, BATCH}
    assert 0 < cost.one < 1


@pytest.mark.parametrize("mode", ["batched", "thread"])
def test_batches_and_waits_are_told(mode: str) -> None:
    told: list[tuple[int, list[float]]] = []

    async def main() -> None:
        schedule = Schedule(lambda x: x, COSTS[mode], told=lambda rows, waits: told.append((rows, waits)))
        running = [asyncio.ensure_future(schedule.run(np.zeros((2, 1), np.float32))) for _ in range(5)]
        await asyncio.sleep(0)
        assert schedule.queued == 5
        await asyncio.gather(*running)
        assert schedule.queued == 0

    asyncio.run(main())
    assert sum(rows for rows, _ in told) == 10
    assert sum(len(waits) for _, waits in told) == 5
    assert all(0 <= seconds < 10 for _, waits in told for seconds in waits)


@pytest.mark.parametrize("mode", list(COSTS))
@pytest.mark.parametrize("window", [0.0, 0.01])
def test_each_gets_its_own_rows(mode: str, window: float) -> None:
    calls: list[tuple[int, bool]] = []

    def predict(x: np.ndarray) -> np.ndarray:
        calls.append((len(x), threading.current_thread() is threading.main_thread()))
        return x * 2

    async def main() -> None:
        schedule = Schedule(predict, COSTS[mode], window)
        inputs = [np.full((1 + i % 3, 2), i, np.float32) for i in range(9)]
        outputs = await asyncio.gather(*map(schedule.run, inputs))
        for x, y in zip(inputs, outputs, strict=True):
            assert y.tolist() == (x * 2).tolist()

    asyncio.run(main())
    assert sum(rows for rows, _ in calls) == 18
    if mode == "inline":
        assert len(calls) == 9
    else:
        assert len(calls) == 1, "they came together"
    assert all(here is (mode != "thread" and (mode != "batched" or rows < 100)) for rows, here in calls)


@pytest.mark.parametrize("mode", ["batched", "thread"])
def test_what_comes_meanwhile_is_the_next_batch(mode: str) -> None:
    calls: list[int] = []

    def predict(x: np.ndarray) -> np.ndarray:
        calls.append(len(x))
        return x

    async def main() -> None:
        schedule = Schedule(predict, COSTS[mode])
        for _ in range(3):
            await asyncio.gather(*(schedule.run(np.zeros((1, 1), np.float32)) for _ in range(5)))
        assert schedule.batches == len(calls)
        gone = asyncio.create_task(schedule.run(np.zeros((1, 1), np.float32)))
        await asyncio.sleep(0)
        gone.cancel()
        assert (await schedule.run(np.ones((1, 1), np.float32))).tolist() == [[1]]

    asyncio.run(main())
    assert calls[:3] == [5, 5, 5]


class _Waited(selectors.DefaultSelector):
    """Makes a loop's clock go on at once by what it would have slept."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout:
            self.now += timeout
        return super().select(0)


def test_the_window_is_the_longest_wait() -> None:
    clock, batches = _Waited(), []
    loop = asyncio.SelectorEventLoop(clock)
    loop.time = lambda: clock.now

    async def ask(schedule: Schedule, at: float, value: int) -> tuple[float, float]:
        await asyncio.sleep(at)
        y = await schedule.run(np.full((value, 1), value, np.float32))
        assert y.tolist() == [[value]] * value
        return at, round(loop.time() - at, 6)

    async def main() -> list[tuple[float, float]]:
        schedule = Schedule(
            lambda x: x, COSTS["batched"], 0.5, lambda rows, waits: batches.append((rows, len(waits)))
        )
        return await asyncio.gather(
            *(ask(schedule, at, i + 1) for i, at in enumerate((0, 0.1, 0.4, 1.0, 2.0, 2.25)))
        )

    try:
        waits = loop.run_until_complete(main())
    finally:
        loop.close()
    assert waits == [(0, 0.5), (0.1, 0.4), (0.4, 0.1), (1.0, 0.5), (2.0, 0.5), (2.25, 0.25)]
    assert batches == [(6, 3), (4, 1), (11, 2)]


@pytest.mark.parametrize("mode", ["batched", "thread"])
def test_an_error_reaches_all_who_wait(mode: str) -> None:
    def predict(_x: np.ndarray) -> np.ndarray:
        raise MemoryError("no")

    async def main() -> None:
        schedule = Schedule(predict, COSTS[mode])
        found = await asyncio.gather(
            *(schedule.run(np.zeros((1, 1), np.float32)) for _ in range(3)), return_exceptions=True
        )
        assert [type(error) for error in found] == [MemoryError] * 3

    asyncio.run(main())


def test_a_batch_does_not_grow_without_end() -> None:
    sizes = []

    def predict(x: np.ndarray) -> np.ndarray:
        sizes.append(len(x))
        return x + 1

    async def main() -> None:
        schedule = Schedule(predict, COSTS["thread"])
        rows = [np.full((size, 1), size, np.float32) for size in (3000, 3000, 1000, 50, 9000, 1)]
        for x, y in zip(rows, await asyncio.gather(*map(schedule.run, rows)), strict=True):
            np.testing.assert_array_equal(y, x + 1)

    asyncio.run(main())
    assert sizes == [3000, 4050, 9000, 1]


@pytest.mark.parametrize("mode", list(COSTS))
def test_every_protocol_answers_alike_in_every_mode(tiny_store: Path, mode: str) -> None:
    rows = np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)
    expected = load_model(tiny_store / "models/tiny").predict(rows)
    app = create_app(Settings(store=tiny_store))
    with TestClient(app) as client:
        for version in app.front.state.models["tiny"].versions.values():
            version.schedule.cost = COSTS[mode]
        assert client.get("/v2/models/tiny/config").json()["parameters"]["execution"]["string_value"] == mode

        def ask(i: int) -> None:
            row = rows[i : i + 1]
            answers = [
                client.post("/v1/models/tiny/predict", json={"instances": row.tolist()}).json()[
                    "predictions"
                ][0]["probabilities"],
                client.post("/v1/models/tiny:predict", json={"instances": row.tolist()}).json()[
                    "predictions"
                ][0],
                client.post(
                    "/v2/models/tiny/infer",
                    json={
                        "inputs": [
                            {"name": "input", "shape": [1, 4], "datatype": "FP32", "data": row.tolist()}
                        ]
                    },
                ).json()["outputs"][0]["data"],
            ]
            for answer in answers:
                assert np.float32(answer).tolist() == expected[i].tolist()

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(ask, range(len(rows))))
