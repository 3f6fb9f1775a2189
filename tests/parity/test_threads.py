"""Threads: the same bits as one, also with several callers at a time, in a forked child, and after the network is gone."""

from __future__ import annotations

import multiprocessing
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from mariana._binding import choose_isa
from mariana._binding.dense import Layer, Network
from mariana._binding.pool import MAX_THREADS, Pool, pool_of
from mariana.errors import KernelError

RNG = np.random.default_rng(7)
WIDTHS = (300, 700, 520, 9)
LAYERS = [
    Layer(
        RNG.normal(size=shape).astype(np.float32) / 20,
        RNG.normal(size=shape[1]).astype(np.float32),
        activation,
    )
    for *shape, activation in zip(WIDTHS, WIDTHS[1:], ("tanh", "relu", "softmax"), strict=False)
]
X = RNG.normal(size=(1500, WIDTHS[0])).astype(np.float32)


@pytest.fixture(scope="module")
def expected() -> np.ndarray:
    return Network(LAYERS, WIDTHS[0], choose_isa()).predict(X)


def shared() -> Network:
    return Network(LAYERS, WIDTHS[0], choose_isa(), pool=pool_of(2))


@pytest.mark.parametrize("rows", [0, 1, 7, 64, 65, 300, 1500])
def test_same_bits_as_one_thread(rows: int, expected: np.ndarray) -> None:
    network = shared()
    for _ in range(3):
        assert network.predict(X[:rows]).tobytes() == expected[:rows].tobytes()


def test_bound_call_outlives_its_network(expected: np.ndarray) -> None:
    y = np.empty((200, WIDTHS[-1]), np.float32)
    step = shared().bind(X[:200], y)
    for _ in range(5):
        y[:] = np.nan
        step()
        assert y.tobytes() == expected[:200].tobytes()


def test_several_callers_share_one_pool(expected: np.ndarray) -> None:
    network = shared()

    def call(rows: int) -> bool:
        return network.predict(X[:rows]).tobytes() == expected[:rows].tobytes()

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(call, [1, 100, 700, 3, 1500, 64] * 4))


def _in_child(rows: int, expected: bytes) -> None:
    network = shared()  # made anew, on the pool that the parent started
    os._exit(0 if network.predict(X[:rows]).tobytes() == expected else 1)


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_forked_child_has_helpers_of_its_own(expected: np.ndarray) -> None:
    shared().predict(X)
    child = multiprocessing.get_context("fork").Process(
        target=_in_child, args=(400, expected[:400].tobytes())
    )
    child.start()
    child.join(60)
    assert child.exitcode == 0
    assert shared().predict(X).tobytes() == expected.tobytes()


def test_network_may_go_at_any_time(expected: np.ndarray) -> None:
    for _ in range(20):
        assert shared().predict(X[:300]).tobytes() == expected[:300].tobytes()


@pytest.mark.parametrize("threads", [0, MAX_THREADS + 1])
def test_pool_refuses_a_number_out_of_range(threads: int) -> None:
    with pytest.raises(KernelError, match="out of its range"):
        Pool(threads)
