"""The quick calls of ``mariana._calls`` beside the binding by cffi: the same bits, the same errors; and nothing is left behind."""

from __future__ import annotations

import gc
import itertools
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mariana._binding import address, calls, choose_isa, ffi, lib
from mariana._binding.dense import Network
from mariana._binding.pool import pool_of
from mariana.errors import InvalidInputError, MarianaError
from mariana.model import Model, load_model
from mariana.plan import Layer

pytestmark = pytest.mark.skipif(calls is None, reason="the extension for quick calls is not built here")

COLUMNS = 4


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, make_classifier: Callable[..., bytes]) -> Model:
    path = tmp_path_factory.mktemp("calls") / "model.safetensors"
    path.write_bytes(make_classifier())
    return load_model(path, threads=1)


def _outcome(call: Callable[[], Any]) -> object:
    try:
        y = call()
    except (MarianaError, TypeError, ValueError) as error:
        return type(error), str(error)
    return type(y), y.dtype, y.shape, y.flags.c_contiguous, y.flags.owndata, y.flags.writeable, y.tobytes()


def _by_cffi(model: Model, x: Any) -> Any:
    return model._network.predict(model._rows(x))


# ---- Networks ---------------------------------------------------------------------------------------------------


class Rows(np.ndarray[Any, Any]):
    """An array that is not quite one."""


def _unaligned(x: np.ndarray) -> np.ndarray:
    raw = b"\0" + x.astype(np.float32).tobytes()
    return np.frombuffer(raw, np.float32, offset=1).reshape(x.shape)


def _read_only(x: np.ndarray) -> np.ndarray:
    x = x.astype(np.float32)
    x.flags.writeable = False
    return x


FORMS: dict[str, Callable[[np.ndarray], Any]] = {
    "as it is": lambda x: x.astype(np.float32),
    "read-only": _read_only,
    "Fortran order": lambda x: np.asfortranarray(x, np.float32),
    "every second column": lambda x: np.repeat(x.astype(np.float32), 2, axis=1)[:, ::2],
    "backwards": lambda x: x.astype(np.float32)[::-1],
    "one row many times": lambda x: np.broadcast_to(x[:1].astype(np.float32), x.shape),
    "unaligned": _unaligned,
    "other byte order": lambda x: x.astype(np.dtype(np.float32).newbyteorder()),
    "subclass": lambda x: x.astype(np.float32).view(Rows),
    "masked": lambda x: np.ma.masked_array(x.astype(np.float32)),
    "matrix of records": lambda x: x.astype(np.float32).view([("a", np.float32)]),
    "memoryview": lambda x: memoryview(np.ascontiguousarray(x, np.float32)),
    "three dimensions": lambda x: x.astype(np.float32)[:, None, :],
    "one dimension": lambda x: x.astype(np.float32).ravel(),
    "no dimension": lambda _: np.float32(1),
    "list": lambda x: x.tolist(),
    "None": lambda _: None,
    "text": lambda _: "rows",
    **{
        name: lambda x, name=name: x.astype(name)
        for name in ("f8", "f2", "i4", "u1", "?", "c8", "i8", "O", "U3", "M8[s]")
    },
}


@given(
    form=st.sampled_from(sorted(FORMS)),
    rows=st.one_of(st.integers(0, 40), st.sampled_from([1000, 20_000])),
    columns=st.sampled_from([COLUMNS] * 8 + [0, 1, COLUMNS - 1, COLUMNS + 1]),
    special=st.sampled_from([0.0, -0.0, np.nan, np.inf, 1e-42, 3e38]),
    seed=st.integers(0, 9),
)
def test_rows_of_every_form_give_the_same_either_way(
    model: Model, form: str, rows: int, columns: int, special: float, seed: int
) -> None:
    random = np.random.default_rng(seed)
    numbers = random.integers(-2, 3, (rows, columns)).astype(float)
    if form not in ("i4", "u1", "i8", "M8[s]"):
        numbers[random.random((rows, columns)) < 0.1] = special
    with np.errstate(all="ignore"):
        x = FORMS[form](numbers)
    assert _outcome(lambda: model.predict(x)) == _outcome(lambda: _by_cffi(model, x))


def test_ordinary_rows_go_the_quick_way_and_no_others(model: Model) -> None:
    x = np.zeros((3, COLUMNS), np.float32)
    assert model._quick(x) is not None
    assert model._quick(_read_only(x)) is not None
    for other in (
        x.astype(np.float64),
        x.view(np.int32),
        np.asfortranarray(x),
        x[:, 1:],
        x[0],
        x.view(Rows),
        x.astype(">f4"),
        [[1.0]],
        None,
    ):
        assert model._quick(other) is None
    assert model.predict(x=x).shape == (3, 3), "the argument has its name"


def test_c_is_handed_no_rows_between_two_numbers(model: Model) -> None:
    """Which C may not read as float32, on some machines cannot."""
    x = np.arange(12, dtype=np.float32).reshape(3, COLUMNS)
    shifted = _unaligned(x)
    assert not shifted.flags.aligned
    assert model._quick(shifted) is None
    assert model._rows(shifted).flags.aligned
    np.testing.assert_array_equal(model._rows(shifted), x)
    y = np.empty((3, 3), np.float32)
    unaligned_y = np.frombuffer(bytearray(37), np.float32, offset=1).reshape(3, 3)
    for arrays in ((shifted, y), (x, unaligned_y)):
        with pytest.raises(
            InvalidInputError, match=r"float32 array, aligned, .*, got float32 \(3, .\), not aligned"
        ):
            model.bind(*arrays)


def test_threads_call_at_once(model: Model) -> None:
    """Many rows let other threads in while they run; each call has scratch of its own."""
    random = np.random.default_rng(0)
    batches = [random.normal(size=(rows, COLUMNS)).astype(np.float32) for rows in (1, 7, 30_000, 60_000)]
    expected = [_by_cffi(model, x).tobytes() for x in batches]
    wrong: list[int] = []

    def call(first: int) -> None:
        for i in range(60):
            which = (first + i) % len(batches)
            if model.predict(batches[which]).tobytes() != expected[which]:
                wrong.append(which)

    threads = [threading.Thread(target=call, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def _network(model: Model, empty: Callable[..., Any], alive: object = None) -> Any:
    return calls.Network(
        run=address(ffi.addressof(lib, "mrn_model_predict")),
        share=0,
        settle=0,
        model=address(model._network._call.args[0]),
        pool=0,
        alive=alive,
        columns=model.columns,
        outputs=model.outputs,
        scratch_bytes=model._network._scratch_bytes,
        short_rows=100,
        array=np.ndarray,
        empty=empty,
        dtype=np.dtype(np.float32),
    )


def test_a_call_within_a_call(model: Model) -> None:
    """As a collector or a signal may make while the array for the outputs is made."""
    inner: list[tuple[int, bytes]] = []
    depth = 0

    def empty(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        nonlocal depth
        if depth < 50:
            depth += 1
            rows = depth % 5
            inner.append((rows, network.predict(x[:rows]).tobytes()))
        return np.empty(shape, dtype)

    x = np.random.default_rng(0).normal(size=(5, COLUMNS)).astype(np.float32)
    network = _network(model, empty)
    assert network.predict(x).tobytes() == _by_cffi(model, x).tobytes()
    assert len(inner) == 50
    assert all(y == _by_cffi(model, x[:rows]).tobytes() for rows, y in inner)


def test_what_fails_while_the_outputs_are_made_is_raised(model: Model) -> None:
    def empty(*_: object) -> Any:
        raise MemoryError("none left")

    x = np.zeros((1, COLUMNS), np.float32)
    with pytest.raises(MemoryError, match="none left"):
        _network(model, empty).predict(x)
    with pytest.raises(TypeError):
        _network(model, lambda *_: 3).predict(x)
    with pytest.raises(TypeError):
        calls.Network()


def test_the_network_lives_as_long_as_its_call(tmp_path: Path, make_classifier: Callable[..., bytes]) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(make_classifier())
    model = load_model(path, threads=1)
    x = np.ones((2, COLUMNS), np.float32)
    expected, quick = model.predict(x).tobytes(), model._quick
    del model
    gc.collect()
    assert quick(x).tobytes() == expected


def test_nothing_is_left_behind_by_calls_of_networks(model: Model) -> None:
    """A million calls, of which some are refused, and some fail."""
    alive, x, other = object(), np.ones((2, COLUMNS), np.float32), np.ones((2, COLUMNS + 1), np.float32)
    strided, long = np.ones((2, 2 * COLUMNS), np.float32)[:, ::2], np.ones((200, COLUMNS), np.float32)
    failing = _network(model, lambda *_: 3, alive)
    network = _network(model, np.empty, alive)

    def some(times: int) -> None:
        for _ in range(times):
            for rows in (x, x, x, other, strided, long, None, x):
                network.predict(rows)
        for _ in range(times // 100):
            with pytest.raises(TypeError):
                failing.predict(x)
            _network(model, np.empty, alive).predict(x)

    watched = [None, x, other, strided, np.ndarray, np.empty, np.dtype(np.float32), type(network), network]
    some(100)
    before = [sys.getrefcount(thing) for thing in watched]
    some(125_000)
    assert all(abs(sys.getrefcount(t) - b) < 10 for t, b in zip(watched, before, strict=True))
    tracemalloc.start()
    some(100)
    start = tracemalloc.get_traced_memory()[0]
    some(2000)
    grown = tracemalloc.get_traced_memory()[0] - start
    tracemalloc.stop()
    assert grown < 10_000


def test_a_network_lets_go_of_what_it_kept(model: Model) -> None:
    alive, empty, x = object(), partial(np.empty), np.ones((2, COLUMNS), np.float32)
    before = sys.getrefcount(alive), sys.getrefcount(empty)
    network = _network(model, empty, alive)
    network.predict(x)
    assert sys.getrefcount(alive) == before[0] + 1
    del network
    assert (sys.getrefcount(alive), sys.getrefcount(empty)) == before


# ---- With threads that share the work -----------------------------------------------------------------------------


@pytest.fixture(scope="module", params=[(32, 16, 2), (600, 700, 5)], ids=["small", "wide"])
def networks(request: pytest.FixtureRequest) -> tuple[Network, Network]:
    """A network alone and with three threads; a row of the wide one is worth sharing."""
    random = np.random.default_rng(0)
    widths = request.param
    layers = [
        Layer(random.normal(0, n**-0.5, (n, m)).astype(np.float32), None, "relu")
        for n, m in itertools.pairwise(widths)
    ]
    alone, shared = (Network(layers, widths[0], choose_isa(), pool=pool) for pool in (None, pool_of(3)))
    return alone, shared


@pytest.mark.parametrize("rows", [0, 1, 2, 7, 16, 17, 300, 3000])
def test_shared_work_gives_the_same_either_way(networks: tuple[Network, Network], rows: int) -> None:
    alone, shared = networks
    x = np.random.default_rng(rows).normal(size=(rows, alone.columns)).astype(np.float32)
    quick = shared.quick(x)
    assert quick is not None
    assert quick.tobytes() == shared.predict(x).tobytes() == alone.predict(x).tobytes()
    assert shared.quick(x.astype(float)) is None


def test_networks_go_while_their_pool_works(networks: tuple[Network, Network]) -> None:
    """A late helper may still use the scratch of a call that is back: it is waited for before that is freed."""
    shared = networks[1]
    layers = [
        Layer(np.full((256, 512), 0.5, np.float32), None, "linear"),
        Layer(np.ones((512, 2), np.float32), None, "relu"),
    ]
    x = np.ones((40, 256), np.float32)
    wrong: list[object] = []

    def come_and_go() -> None:
        for _ in range(30):
            y = Network(layers, 256, choose_isa(), pool=pool_of(3)).quick(x)
            if y is None or (y != 256 * 512 / 2).any():
                wrong.append(y)

    threads = [threading.Thread(target=come_and_go) for _ in range(3)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        shared.quick(np.ones((200, shared.columns), np.float32))
    assert not wrong


def test_a_child_shares_its_work_with_helpers_of_its_own(tmp_path: Path) -> None:
    program = (
        "import os, numpy as np\n"
        "from mariana._binding import choose_isa\n"
        "from mariana._binding.dense import Network\n"
        "from mariana._binding.pool import pool_of\n"
        "from mariana.plan import Layer\n"
        "layers = [Layer(np.full((512, 600), .01, np.float32), None, 'relu')]\n"
        "network = Network(layers, 512, choose_isa(), pool=pool_of(2))\n"
        "x = np.ones((300, 512), np.float32)\n"
        "expected = network.predict(x).tobytes()\n"
        "assert network.quick(x).tobytes() == expected\n"
        "if child := os.fork():\n"
        "    assert os.waitpid(child, 0)[1] == 0\n"
        "assert network.quick(x).tobytes() == expected\n"
        "del network\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=tmp_path, timeout=60)


# ---- Without the extension --------------------------------------------------------------------------------------


def test_all_goes_by_cffi_where_the_extension_is_not_built(
    tmp_path: Path, make_classifier: Callable[..., bytes]
) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(make_classifier())
    program = (
        "import sys\n"
        "if sys.argv[2] == 'without': sys.modules['mariana._calls'] = None\n"
        "import numpy as np, mariana\n"
        "from mariana._binding import calls\n"
        "assert (calls is not None) == (sys.argv[2] == 'with')\n"
        "x = np.arange(12, dtype=np.float32).reshape(3, 4)\n"
        "model = mariana.load_model(sys.argv[1])\n"
        "print(model.predict(x).tobytes().hex(), model.predict(x.tolist()).tobytes().hex())\n"
    )
    with_it, without = (
        subprocess.run(
            [sys.executable, "-c", program, str(path), how], capture_output=True, text=True, check=True
        ).stdout
        for how in ("with", "without")
    )
    assert with_it == without != ""
