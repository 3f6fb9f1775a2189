"""The border to C: statuses become exceptions, names become numbers, hostile descriptions are refused."""

from typing import Any

import numpy as np
import pytest

from mariana._binding import check, choose_isa, isa_names, usable_isas
from mariana._binding.dense import MAX_LAYERS, MAX_WIDTH, Layer, Network, Tables, activation_names
from mariana.errors import KernelError

ONE = np.ones((1, 1), np.float32)


def test_a_good_status_is_silent() -> None:
    check(0, "do nothing")


@pytest.mark.parametrize(
    ("status", "name"), [(-1, "E_ARGUMENT"), (-4, "E_MEMORY"), (-999, "E_UNKNOWN"), (7, "E_UNKNOWN")]
)
def test_a_bad_status_is_raised_by_name(status: int, name: str) -> None:
    with pytest.raises(KernelError, match="cannot do this: ") as caught:
        check(status, "do this")
    assert caught.value.status == name


def test_instruction_sets() -> None:
    names = isa_names()
    assert names[0] == "generic"
    assert set(usable_isas()) <= set(names)
    assert choose_isa("generic") == 0
    assert names[choose_isa()] == usable_isas()[-1]
    for name in names:
        assert choose_isa(name) <= names.index(name)
    for unknown in ("", "AVX2", "avx2 ", "sse9", "x" * 10_000, "génèric", "a\0b"):
        with pytest.raises(KernelError, match="unknown instruction set") as caught:
            choose_isa(unknown)
        assert caught.value.status == "E_ISA"


def layer(
    inputs: int = 1, units: int = 1, activation: str = "linear", value: float = 1, bias: Any = None
) -> Layer:
    return Layer(np.full((inputs, units), value, np.float32), bias, activation)


NAN = np.full(1, np.nan, np.float32)


@pytest.mark.parametrize(
    ("layers", "columns", "tables", "status"),
    [
        ([], 1, Tables(), "E_ARGUMENT"),
        ([layer()], 0, Tables(), "E_ARGUMENT"),
        ([layer(activation="mish")], 1, Tables(), "E_ARGUMENT"),
        ([layer(activation="softmax"), layer()], 1, Tables(), "E_ARGUMENT"),
        ([layer()], 2, Tables(), "E_SHAPE"),
        ([layer(1, 2), layer(3, 1)], 1, Tables(), "E_SHAPE"),
        ([Layer(np.empty((1, 0), np.float32), None, "linear")], 1, Tables(), "E_SHAPE"),
        ([layer(value=np.nan)], 1, Tables(), "E_RANGE"),
        ([layer(value=np.inf)], 1, Tables(), "E_RANGE"),
        ([layer(bias=NAN)], 1, Tables(), "E_RANGE"),
        ([layer()], 1, Tables(fill=np.full(1, np.inf, np.float32)), "E_RANGE"),
        ([layer()], 1, Tables(shift=NAN), "E_RANGE"),
        ([layer()], 1, Tables(scale=NAN), "E_RANGE"),
        ([layer()], 1, Tables(target_shift=NAN), "E_RANGE"),
        ([layer()], 1, Tables(target_scale=NAN), "E_RANGE"),
        ([layer()] * (MAX_LAYERS + 1), 1, Tables(), "E_TOO_LARGE"),
        ([layer()], MAX_WIDTH + 1, Tables(), "E_TOO_LARGE"),
        ([layer()], 2**63, Tables(), "E_TOO_LARGE"),
        ([layer(1, MAX_WIDTH + 1)], 1, Tables(), "E_TOO_LARGE"),
        ([layer()], 1, Tables(categories=np.full(1, 2**32 - 1, np.uint32)), "E_TOO_LARGE"),
        ([layer()], 2, Tables(categories=np.full(2, 2**31, np.uint32)), "E_TOO_LARGE"),
        ([layer()], 1, Tables(copies=np.zeros(1, np.uint32)), "E_ARGUMENT"),
        ([layer()], 2, Tables(copies=np.full(2, 2**31, np.uint32)), "E_TOO_LARGE"),
        ([layer()], 1, Tables(forms=np.full(1, 4, np.uint32)), "E_ARGUMENT"),
        # arrays that are not as long as C would read
        ([layer(1, 2, bias=np.zeros(1, np.float32))], 1, Tables(), "E_SHAPE"),
        ([layer()], 1, Tables(categories=np.zeros(2, np.uint32)), "E_SHAPE"),
        ([layer(2)], 2, Tables(copies=np.ones(1, np.uint32)), "E_SHAPE"),
        ([layer(2)], 2, Tables(fill=np.zeros(1, np.float32)), "E_SHAPE"),
        ([layer(2)], 2, Tables(shift=np.zeros(1, np.float32)), "E_SHAPE"),
        ([layer(2)], 1, Tables(copies=np.array([3], np.uint32), forms=np.zeros(2, np.uint32)), "E_SHAPE"),
        ([layer(1, 2)], 1, Tables(target_scale=np.ones((2, 1), np.float32)), "E_SHAPE"),
    ],
)
def test_bad_descriptions_are_refused(layers: list[Layer], columns: int, tables: Tables, status: str) -> None:
    with pytest.raises(KernelError) as caught:
        Network(layers, columns, 0, tables)
    assert caught.value.status == status


def test_the_largest_that_is_allowed() -> None:
    deep = Network([layer()] * MAX_LAYERS, 1, choose_isa())
    assert deep.predict(ONE).tolist() == [[1.0]]
    wide = Network([layer(1, MAX_WIDTH), layer(MAX_WIDTH, 1, value=2**-20)], 1, choose_isa())
    assert wide.predict(ONE).tolist() == [[1.0]]


def test_what_a_network_takes_is_copied() -> None:
    weight = np.ones((2, 2), np.float32)
    network = Network([Layer(weight, None, "linear")], 2, choose_isa())
    weight[:] = 5
    assert network.predict(np.ones((1, 2), np.float32)).tolist() == [[2.0, 2.0]]


def test_other_layouts_of_the_weights_are_taken() -> None:
    weight = np.arange(12, dtype=np.float64).reshape(4, 3)
    x = np.ones((1, 4), np.float32)
    for given in (
        weight,
        np.asfortranarray(weight),
        weight.astype(">f4"),
        np.repeat(weight, 2, axis=1)[:, ::2],
    ):
        network = Network([Layer(given, None, "linear")], 4, choose_isa())  # type: ignore[arg-type] # converted
        assert network.predict(x).tolist() == [[18.0, 22.0, 26.0]]


def test_memory_does_not_depend_on_the_rows() -> None:
    network = Network([layer(8, 8)], 8, choose_isa())
    before = network.nbytes
    network.predict(np.ones((100_000, 8), np.float32))
    assert network.nbytes == before
    assert len(network._spare) == 1


def test_every_activation_has_a_name() -> None:
    assert activation_names()[:5] == [
        "linear",
        "relu",
        "sigmoid",
        "tanh",
        "softmax",
    ]  # numbers are never reused
