"""What is public is a list, and the lists that exist twice are equal."""

import ast
import re
from pathlib import Path
from typing import get_args

import pytest

import mariana
from mariana import errors, trainer
from mariana._binding import ffi, isa_names, lib
from mariana._binding.dense import activation_names
from mariana.format import ActivationName

ROOT = Path(__file__).parents[2]
CSRC = ROOT / "csrc"


def test_the_public_names_are_there() -> None:
    assert mariana.__all__ == sorted(mariana.__all__)
    for name in mariana.__all__:
        assert getattr(mariana, name).__doc__
        assert name in dir(mariana)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        mariana.nonsense  # noqa: B018 - the access is what is tested


@pytest.mark.parametrize("row", ["layers", "schedules", "augmentation", "callbacks"])
def test_what_the_trainers_page_lists_can_be_imported_from_the_trainer(row: str) -> None:
    (line,) = re.findall(rf"^\| {row}\b[^|]*\|(.*)\|$", (ROOT / "docs/trainer.md").read_text(), re.MULTILINE)
    names = re.findall(r"`([A-Z]\w+)`", line)
    assert len(names) > 6
    assert set(names) <= set(trainer.__all__)


def test_every_exception_is_one_of_ours() -> None:
    for name, thing in vars(errors).items():
        if isinstance(thing, type) and issubclass(thing, Exception):
            assert issubclass(thing, errors.MarianaError), name
            assert name in errors.__doc__


def _header_names() -> set[str]:
    """Return the functions and constants between the cdef marks of the public headers."""
    names: set[str] = set()
    for header in ("mrn.h", "mrn_format.h"):
        text = re.sub(r"/\*(?! cdef).*?\*/", "", (CSRC / header).read_text(encoding="utf-8"), flags=re.DOTALL)
        for part in re.findall(r"/\* cdef: begin -(.*?)/\* cdef: end -", text, flags=re.DOTALL):
            names.update(re.findall(r"\b(mrn_\w+)\(", part))
            names.update(re.findall(r"\b(MRN_\w+)\s*=", part))
    return names


def test_the_header_and_the_built_library_name_the_same() -> None:
    assert _header_names() == {name for name in dir(lib) if name.lower().startswith("mrn_")}


def test_the_stub_names_only_what_is_there_and_every_function() -> None:
    tree = ast.parse((ROOT / "mariana" / "_kernel.pyi").read_text(encoding="utf-8"))
    (stub,) = (node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "_Lib")
    functions = {node.name: node for node in stub.body if isinstance(node, ast.FunctionDef)}
    constants = {node.target.id for node in stub.body if isinstance(node, ast.AnnAssign)}  # type: ignore[union-attr] # plain names
    assert set(functions) == {name for name in _header_names() if name.startswith("mrn_")}
    assert constants <= _header_names()
    for name, function in functions.items():
        kind = ffi.typeof(getattr(lib, name))
        assert len(function.args.args) - 1 == len(kind.args), name


def _def_names(file: str, macro: str) -> list[str]:
    text = re.sub(r"/\*.*?\*/", "", (CSRC / file).read_text(encoding="utf-8"), flags=re.DOTALL)
    return re.findall(rf"^{macro}\((?:\d+, )?(\w+)", text, flags=re.MULTILINE)


def test_the_lists_of_activations_are_equal() -> None:
    names = activation_names()
    assert names == _def_names("activations.def", "MRN_ACTIVATION")
    assert names == list(get_args(ActivationName))
    from mariana.trainer import activations

    assert set(activations.ACTIVATIONS) == set(names)


def test_the_lists_of_instruction_sets_are_equal() -> None:
    known = _def_names("isa.def", "MRN_ISA")
    assert known[: len(isa_names())] == isa_names()


def test_statuses_are_unique_and_negative() -> None:
    text = (CSRC / "status.def").read_text(encoding="utf-8")
    found = [
        (name, int(code))
        for name, code in re.findall(r"^MRN_STATUS\((\w+), (-?\d+),", text, flags=re.MULTILINE)
    ]
    assert found[0] == ("OK", 0)
    assert len({code for _, code in found}) == len({name for name, _ in found}) == len(found)
    assert all(code < 0 for _, code in found[1:])
    for name, code in found:
        assert ffi.string(lib.mrn_status_name(code)).decode() == name
