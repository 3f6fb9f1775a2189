"""``mariana bench``: what it prints is consistent. How fast it is, is not tested."""

import json
import re
import shutil
import subprocess

import pytest
from click.testing import CliRunner, Result

from mariana import _roofs, roofline
from mariana._binding import roofs as binding
from mariana._binding import usable_isas
from mariana.cli import cli
from mariana.errors import InvalidInputError
from mariana.model import Model


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["bench", *arguments])


def test_roofs_of_this_machine() -> None:
    found = {roof.name: roof for roof in roofline.roofs(0.0002)}
    assert set(found) == {
        *(name for number, name in enumerate(binding.roof_names()) if binding.roof_usable(number)),
        "read L1", "read L2", "read L3", "read memory",
    }  # fmt: skip
    assert all(0 < roof.median <= roof.best for roof in found.values())
    assert {"generic multiply and add float32"} <= set(found)


@pytest.mark.parametrize(
    ("function", "instruction"),
    [
        ("run_avx512", "vfmadd"),
        ("run_avx512bf16", "vdpbf16ps"),
        ("run_avx512vnni", "vpdpbusd"),
        ("run_pairs_sse2", "pmaddwd"),
        ("run_pairs_avx2", "vpmaddwd"),
        ("run_pairs_avx512", "vpmaddwd"),
    ],
)
def test_the_compiler_leaves_all_sums_of_a_roof(function: str, instruction: str) -> None:
    """Sums that it knows to be equal it computes once: the roof would be three times too high."""
    if shutil.which("objdump") is None:
        pytest.skip("objdump is not here")
    command = ["objdump", "-d", "--no-show-raw-insn", _roofs.__file__]
    code = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.search(rf"<{function}>:(.*?)\bret", code, re.DOTALL)
    if found is None:
        pytest.skip("another CPU, or stripped of its names")
    assert found[1].count(instruction) >= 12


def test_every_usable_set_has_a_roof_for_every_precision() -> None:
    roofs = [roofline.Roof(name, "GFLOP/s", 100.0, 100.0) for name in binding.roof_names()]
    roofs += [roofline.Roof("read L1", "GB/s", 50.0, 50.0, 1 << 62)]
    rows = list(
        roofline.measure(
            roofs,
            shapes=[(4, 16, 3)],
            batches=[1, 8],
            precisions=roofline.PRECISIONS,
            isas=usable_isas(),
            seconds=0.0001,
        )
    )
    split = "amx" in usable_isas()
    assert len(rows) == 2 * ((len(roofline.PRECISIONS) - 1) * len(usable_isas()) + split)
    for row in rows:
        assert row.rate == pytest.approx(2 * (4 * 16 + 16 * 3) * row.batch / row.best / 1e9)
        assert row.best <= row.median
        size = {"float32": 4, "float32-split": 6, "bfloat16": 2, "int8": 1}[row.precision]
        assert row.share is not None, f"{row.precision} on {row.isa}"
        needed = max(2 * 112 * row.batch / 100e9, 112 * size / 50e9)
        assert row.share * row.best == pytest.approx(needed)


def test_networks_run() -> None:
    model = Model(roofline.network((4, 8, 3)))
    assert model.predict([[1, 2, 3, 4]]).sum() == pytest.approx(1)


def test_caches_grow() -> None:
    first, second, third = roofline.cache_sizes()
    assert 0 < first <= second <= third


def test_best_of() -> None:
    slow, fast = roofline.Roof("a", "GB/s", 1, 1), roofline.Roof("a", "GB/s", 2, 1)
    assert roofline.best_of([slow], [fast]) == roofline.best_of([fast], [slow]) == [fast]


@pytest.mark.parametrize("what", ["index", "train"])
def test_other_benchmarks_print_numbers(what: str) -> None:
    result = run(what, "--seconds", "0.0001", "--json")
    assert result.exit_code == 0, result.output
    assert all(value > 0 for value in json.loads(result.output).values())


@pytest.mark.slow
def test_http_starts_a_server_of_its_own() -> None:
    result = run("http", "--seconds", "0.0001")
    assert result.exit_code == 0, result.output
    assert "requests a second, 784 floats as JSON" in result.output


@pytest.mark.slow
def test_dense_prints_a_table_and_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roofline, "SHAPES", ((4, 16, 3),))
    monkeypatch.setattr(roofline, "BATCHES", (1,))
    assert "4-16-3" in run("--seconds", "0.0001", "--isa", "generic").output
    document = json.loads(run("dense", "--seconds", "0.0001", "--json").output)
    assert {row["precision"] for row in document["rows"]} == {"float32", "bfloat16", "int8"}
    assert document["roofs"]


def test_wrong_usage() -> None:
    assert isinstance(run("--isa", "z80").exception, InvalidInputError)
    assert run("index", "--isa", "generic").exit_code == 2
    assert run("nothing").exit_code == 2
