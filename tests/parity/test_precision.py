"""The precisions below float32 on every instruction set of this machine, beside their twins in mariana.reference."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mariana import reference
from mariana._binding import isa_names, usable_isas
from mariana._binding.dense import Layer, Network, precision_names, precision_usable
from mariana.format import ModelMetadata, Precision
from mariana.quantize import to_bfloat16, to_int8
from mariana.settings import Settings

ISAS = [isa_names().index(name) for name in usable_isas()]
float32s = st.floats(width=32, allow_nan=False, allow_infinity=False)


def bfloat16_values(bits: Any) -> Any:
    return (bits.astype(np.uint32) << 16).view(np.float32)


def test_the_lists_of_precisions_are_equal() -> None:
    assert precision_names() == ["float32", "float32-split", "bfloat16", "int8"]
    stored = Precision.__args__  # type: ignore[attr-defined] # a Literal
    assert [name for name in precision_names() if name != "float32-split"] == list(stored)
    asked = Settings.model_fields["precision"].annotation
    assert [name for name in precision_names() if name.startswith("float32")] == list(asked.__args__)  # type: ignore[union-attr]
    assert ModelMetadata.model_fields["precision"].default == precision_names()[0]


@pytest.mark.parametrize("isa", ISAS, ids=usable_isas())
def test_all_but_split_run_everywhere(isa: int) -> None:
    for name in precision_names():
        assert precision_usable(name, isa) or name == "float32-split"


@settings(max_examples=60)
@given(
    rows=st.integers(1, 20), inputs=st.integers(1, 70), units=st.integers(1, 70), seed=st.integers(0, 1000)
)
def test_int8_has_the_bits_of_its_twin(rows: int, inputs: int, units: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    weight = rng.integers(-127, 128, (inputs, units)).astype(np.int8)
    scale = rng.uniform(0.001, 0.1, units).astype(np.float32)
    bias = rng.standard_normal(units).astype(np.float32)
    x = (rng.standard_normal((rows, inputs)) * 10.0 ** rng.integers(-30, 30)).astype(np.float32)
    wanted = [
        reference.dense_int8(row, weight.tolist(), scale.tolist(), bias.tolist(), "relu")
        for row in x.tolist()
    ]
    for isa in ISAS:
        network = Network([Layer(weight, bias, "relu", None, scale)], inputs, isa, precision="int8")
        np.testing.assert_array_equal(network.predict(x), np.array(wanted, np.float32), isa_names()[isa])


@settings(max_examples=60)
@given(
    rows=st.integers(1, 20), inputs=st.integers(1, 70), units=st.integers(1, 40), seed=st.integers(0, 1000)
)
def test_bfloat16_beside_its_twin(rows: int, inputs: int, units: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    bits = to_bfloat16(rng.standard_normal((inputs, units)).astype(np.float32))
    bias = rng.standard_normal(units).astype(np.float32)
    x = rng.standard_normal((rows, inputs)).astype(np.float32)
    weight = bfloat16_values(bits)
    wanted = [reference.dense_bfloat16(row, weight.tolist(), bias.tolist(), "linear") for row in x.tolist()]
    size = np.abs(x) @ np.abs(weight) * 1.01 + np.abs(bias)
    first = None
    for isa in ISAS:
        found = Network([Layer(bits, bias, "linear")], inputs, isa, precision="bfloat16").predict(x)
        assert (np.abs(found - wanted) <= size * (inputs + 2) * 2.0**-24).all(), isa_names()[isa]
        if isa_names()[isa] != "amx":
            first = found if first is None else first
            np.testing.assert_array_equal(found, first, isa_names()[isa])


@given(st.lists(float32s, min_size=1, max_size=30))
def test_bfloat16_weights_are_the_nearest(values: list[float]) -> None:
    found = bfloat16_values(to_bfloat16(np.array(values, np.float32)))
    for value, near in zip(values, found.tolist(), strict=True):
        wanted = reference.bfloat16(value)
        if math.isinf(wanted):
            assert near == math.copysign(float.fromhex("0x1.fep127"), value)
        elif abs(value) < 2.0**-126:
            assert abs(near - value) <= 2.0**-134
        else:
            assert near == wanted


@given(st.lists(st.lists(float32s, min_size=3, max_size=3), min_size=1, max_size=8))
def test_int8_weights_are_within_half_a_step(rows: list[list[float]]) -> None:
    weight = np.array(rows, np.float32)
    integers, scale = to_int8(weight)
    assert integers.dtype == np.int8
    assert integers.min() >= -127
    assert (scale > 0).all()
    assert np.isfinite(scale).all()
    error = np.abs(integers * scale.astype(np.float64) - weight)
    assert (error <= scale.astype(np.float64) * 0.50001).all()


def test_int8_weights_of_zeros() -> None:
    integers, scale = to_int8(np.zeros((3, 2), np.float32))
    assert not integers.any()
    assert (scale > 0).all()


@given(st.floats(2.0**-60, 2.0**60, width=32), st.sampled_from([-1, 1]))
def test_three_terms_are_the_number(size: float, sign: int) -> None:
    assert math.fsum(reference.terms(sign * size)) == sign * size


def test_split_is_no_less_exact_than_a_float32_product() -> None:
    rng = np.random.default_rng(1)
    x, weight = (rng.standard_normal(shape).astype(np.float32) for shape in ((16, 300), (300, 16)))
    exact = x.astype(np.float64) @ weight
    size = np.abs(x).astype(np.float64) @ np.abs(weight)
    wanted = np.array([reference.dense_split(row, weight.tolist(), None, "linear") for row in x.tolist()])
    sgemm = np.abs(x @ weight - exact) / size
    assert (np.abs(wanted - exact) / size).max() <= sgemm.max()  # the products that are left out
    for isa in ISAS:
        if precision_usable("float32-split", isa):
            found = Network([Layer(weight, None, "linear")], 300, isa, precision="float32-split").predict(x)
            assert (np.abs(found - exact) / size).max() <= sgemm.max()
