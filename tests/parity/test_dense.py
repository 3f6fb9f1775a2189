"""The dense kernels on every instruction set of this machine, in one process, against double precision."""

import math
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mariana import reference
from mariana._binding import isa_names, usable_isas
from mariana._binding.dense import Layer, Network, Tables, activation_names
from mariana.plan import FORMS

HIDDEN = [name for name in activation_names() if name != "softmax"]
ISAS = [isa_names().index(name) for name in usable_isas()]
SLOPED = ("leaky_relu", "prelu", "elu")
STEEPEST = 4
"""Bound on the slope of any activation here: random PReLU slopes are the steepest."""
EPSILON = float(np.finfo(np.float32).eps)


@dataclass
class Case:
    """A network and rows, as arrays."""

    layers: list[Layer]
    columns: int
    tables: Tables
    x: Any

    def run(self, isa: int) -> Any:
        return Network(self.layers, self.columns, isa, self.tables).predict(self.x)

    def truth(self) -> tuple[Any, float]:
        """Return the outputs in double precision, and how far float32 sums of this size may be off."""
        if len(self.x) == 0:
            return np.empty((0, self.layers[-1].weight.shape[1])), 0.0
        lists = {name: table.tolist() for name, table in self.tables.present().items()}
        names = {number: name for name, number in FORMS.items()}
        if "forms" in lists:
            lists["forms"] = [names[number] for number in lists["forms"]]
        targets = {name: lists.pop(f"target_{name}", None) for name in ("shift", "scale")}
        h = np.array([reference.encode(row, **lists) for row in self.x.tolist()])
        error = 0.0
        for layer in self.layers:
            weight = layer.weight.astype(float)
            bias = None if layer.bias is None else layer.bias.tolist()
            slopes = None if layer.slope is None else layer.slope.tolist()
            size = np.abs(h) @ np.abs(weight)  # what rounding is relative to
            gain = np.abs(weight).sum(axis=0).max() * STEEPEST
            error = error * gain + EPSILON * (len(weight) + 8) * (size.max(initial=0) + 2)
            h = np.array(
                [reference.dense(row, weight.tolist(), bias, layer.activation, slopes) for row in h.tolist()]
            )
        if targets["scale"] is not None:
            h = h * targets["scale"]
            error *= np.abs(targets["scale"]).max()
        if targets["shift"] is not None:
            h = h + targets["shift"]
        return h, error + EPSILON * float(np.abs(h).max(initial=0))


def make(
    widths: list[int],
    rows: int,
    *,
    seed: int,
    hidden: str = "relu",
    last: str = "linear",
    tables: Tables | None = None,
) -> Case:
    rng = np.random.default_rng(seed)
    layers = []
    for i, (inputs, units) in enumerate(pairwise(widths)):
        weight = (rng.standard_normal((inputs, units)) / np.sqrt(inputs)).astype(np.float32)
        bias = rng.standard_normal(units).astype(np.float32) if rng.integers(4) else None
        activation = last if i == len(widths) - 2 else hidden
        slope = rng.standard_normal(units).astype(np.float32) if activation in SLOPED else None
        layers.append(Layer(weight, bias, activation, slope))
    x = rng.standard_normal((rows, widths[0])).astype(np.float32)
    return Case(layers, widths[0], tables or Tables(), x)


def check(case: Case) -> None:
    wanted, tolerance = case.truth()
    for isa in ISAS:
        np.testing.assert_allclose(case.run(isa), wanted, rtol=1e-5, atol=tolerance, err_msg=isa_names()[isa])


def grid() -> Iterator[tuple[int, int, int]]:
    """Every width around a vector, a strip of 16 and a panel of 64, and every row around a tile of 6."""
    for units in (1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 47, 48, 49, 63, 64, 65, 80, 127, 128, 129, 200):
        yield 5, units, 3
    for inputs in (1, 2, 3, 15, 16, 17, 100):
        yield inputs, 33, 7
    for rows in range(1, 15):
        yield 4, 70, rows


@pytest.mark.parametrize(("inputs", "units", "rows"), list(grid()))
def test_odd_sizes(inputs: int, units: int, rows: int) -> None:
    check(make([inputs, units, 3], rows, seed=units))


@pytest.mark.parametrize("last", activation_names())
@pytest.mark.parametrize("hidden", HIDDEN)
def test_activations(hidden: str, last: str) -> None:
    check(make([10, 21, 18], 9, seed=1, hidden=hidden, last=last))


@settings(max_examples=60, deadline=None)
@given(
    widths=st.lists(st.integers(1, 90), min_size=2, max_size=5),
    rows=st.integers(0, 20),
    seed=st.integers(0, 1 << 30),
    hidden=st.sampled_from(HIDDEN),
    last=st.sampled_from(activation_names()),
)
def test_random_networks(widths: list[int], rows: int, seed: int, hidden: str, last: str) -> None:
    check(make(widths, rows, seed=seed, hidden=hidden, last=last))


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_encoding_and_scaling(data: st.DataObject) -> None:
    columns = data.draw(st.integers(1, 8))
    categories = data.draw(
        st.none() | st.lists(st.sampled_from([0, 0, 1, 3, 5]), min_size=columns, max_size=columns)
    )
    copies = data.draw(st.none() | st.lists(st.integers(1, 4), min_size=columns, max_size=columns))
    widths = zip(categories or [0] * columns, copies or [1] * columns, strict=True)
    encoded = sum(n or copied for n, copied in widths)
    forms = data.draw(st.none() | st.lists(st.sampled_from(range(4)), min_size=encoded, max_size=encoded))
    outputs = data.draw(st.integers(1, 5))
    rng = np.random.default_rng(data.draw(st.integers(0, 1 << 30)))

    def table(count: int) -> Any:
        return rng.standard_normal(count).astype(np.float32) if data.draw(st.booleans()) else None

    fill = rng.integers(0, 3, columns).astype(np.float32)
    tables = Tables(
        categories=None if categories is None else np.array(categories, np.uint32),
        fill=fill,
        shift=table(encoded),
        scale=table(encoded),
        target_shift=table(outputs),
        target_scale=table(outputs),
        copies=None if copies is None else np.array(copies, np.uint32),
        forms=None if forms is None else np.array(forms, np.uint32),
    )
    case = make([encoded, 12, outputs], 6, seed=3, tables=tables)
    case.columns = columns
    values = [float("nan"), -1.0, 0.0, 0.5, 1.0, 2.0, 4.0, 5.0, 1e9]
    case.x = rng.choice(np.array(values, np.float32), (6, columns))
    check(case)


def test_a_category_that_is_none_gives_zeros() -> None:
    layer = Layer(np.eye(3, dtype=np.float32), None, "linear")
    for isa in ISAS:
        network = Network([layer], 1, isa, Tables(categories=np.array([3], np.uint32)))
        x = np.array([[0], [2], [3], [-1], [1.5], [np.nan], [np.inf], [-np.inf], [2**31]], np.float32)
        found = network.predict(x)
        np.testing.assert_array_equal(found[:2], [[1, 0, 0], [0, 0, 1]])
        np.testing.assert_array_equal(found[2:], 0)


@pytest.mark.parametrize("isa", ISAS, ids=usable_isas())
@pytest.mark.parametrize("widths", [[3, 5, 2], [70, 65, 33, 17], [300, 400, 10]])
def test_a_row_has_the_same_bits_in_every_batch(isa: int, widths: list[int]) -> None:
    case = make(widths, 300, seed=5, last="softmax")
    network = Network(case.layers, case.columns, isa)
    whole = network.predict(case.x)
    for size in (1, 2, 3, 5, 6, 7, 11, 64, 241, 299):
        for start in (0, 1, 300 - size):
            part = network.predict(np.ascontiguousarray(case.x[start : start + size]))
            assert part.tobytes() == whole[start : start + size].tobytes(), (size, start)


def test_vector_sets_give_the_same_bits() -> None:
    wide = [isa for isa in ISAS if isa_names()[isa] in ("avx2", "avx512")]
    for seed in range(20):
        widths = np.random.default_rng(seed).integers(1, 150, 4).tolist()
        case = make(
            widths, 13, seed=seed, hidden=HIDDEN[seed % len(HIDDEN)], last=activation_names()[seed % 13]
        )
        assert len({case.run(isa).tobytes() for isa in wide}) <= 1


@pytest.mark.parametrize("isa", ISAS, ids=usable_isas())
@pytest.mark.parametrize("activation", activation_names())
def test_infinities_nan_and_denormals_do_what_numpy_does(isa: int, activation: str) -> None:
    rng = np.random.default_rng(1)
    weight = rng.choice(
        np.array([-1, 1], np.float32), (2, 3)
    )  # a fused product may not overflow where NumPy's does
    values = np.array([np.nan, np.inf, -np.inf, 0, -0.0, 1e-45, -1e-40, 3e38, -3e38, 1], np.float32)
    x = np.array([[a, b] for a in values for b in values], np.float32)
    with np.errstate(all="ignore"):
        sums = x[:, :1] * weight[0] + x[:, 1:] * weight[1]
        wanted = {
            "linear": lambda: sums,
            "relu": lambda: np.maximum(sums, 0),
            "sigmoid": lambda: 1 / (1 + np.exp(-sums)),
            "tanh": lambda: np.tanh(sums),
            "softmax": lambda: _softmax(sums),
            "leaky_relu": lambda: np.where(sums < 0, sums / 2, sums),
            "prelu": lambda: np.where(sums < 0, sums / 2, sums),
            "elu": lambda: np.where(sums < 0, np.expm1(sums) / 2, sums),
            "selu": lambda: 1.05070099 * np.where(sums < 0, 1.67326324 * np.expm1(sums), sums),
            "gelu": lambda: _below_zero_at_most(sums, sums / 2 * (1 + _erf(sums / math.sqrt(2)))),
            "gelu_tanh": lambda: _below_zero_at_most(
                sums, sums / 2 * (1 + np.tanh(0.797884561 * (sums + 0.044715 * sums**3)))
            ),
            "silu": lambda: _below_zero_at_most(sums, sums / (1 + np.exp(-sums))),
            "softplus": lambda: np.logaddexp(sums, 0),
        }[activation]()
    slope = np.full(3, 0.5, np.float32) if activation in SLOPED else None
    found = Network([Layer(weight, None, activation, slope)], 2, isa).predict(x)
    np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-37)
    assert (found[:, 0] != 0).sum() >= (wanted[:, 0] != 0).sum(), "denormals were flushed"


_erf = np.vectorize(math.erf, [np.float32])


def _below_zero_at_most(sums: Any, values: Any) -> Any:
    """Replace what came out as infinity times 0 by the limit at minus infinity."""
    return np.where(sums < -1e30, 0, values)


def _softmax(sums: Any) -> Any:
    powers = np.exp(sums - sums.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("isa", ISAS, ids=usable_isas())
def test_exponentials_over_their_range(isa: int) -> None:
    x = np.concatenate(
        [np.linspace(-110, 110, 50_001), np.geomspace(1e-30, 1, 2_000), -np.geomspace(1e-30, 1, 2_000)]
    )
    x = x.astype(np.float32)[:, None]
    exact = x.astype(float)
    one = np.ones((1, 1), np.float32)
    found = {name: Network([Layer(one, None, name)], 1, isa).predict(x) for name in ("sigmoid", "tanh")}
    with np.errstate(over="ignore"):
        np.testing.assert_allclose(found["sigmoid"], 1 / (1 + np.exp(-exact)), rtol=3 * EPSILON, atol=1e-38)
    np.testing.assert_allclose(found["tanh"], np.tanh(exact), rtol=2 * EPSILON, atol=0)


def test_threads_share_a_network() -> None:
    case = make([40, 50, 4], 97, seed=9, last="softmax")
    network = Network(case.layers, case.columns, ISAS[-1])
    wanted = network.predict(case.x).tobytes()
    wrong = []

    def work() -> None:
        wrong.extend(1 for _ in range(200) if network.predict(case.x).tobytes() != wanted)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_every_instruction_set_of_this_machine_is_here() -> None:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(errors="replace").splitlines() if cpuinfo.exists() else []
    flags = {flag for line in lines if line.startswith("flags") for flag in line.split()}
    assert usable_isas()[0] == "generic"
    if {"avx2", "fma"} <= flags:
        assert "avx2" in usable_isas()
    if {"avx2", "fma", "avx512f", "avx512dq", "avx512bw", "avx512vl"} <= flags:
        assert "avx512" in usable_isas()
