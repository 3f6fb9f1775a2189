"""What the C core promises to whoever embeds it, read from what the compiler makes of it.

One compilation, freestanding and with the flags of a release, gives the undefined symbols, the stack of each
function and who calls whom.
"""

import re
import shutil
import subprocess
from collections import defaultdict
from pathlib import Path

import pytest

CSRC = Path(__file__).resolve().parents[2] / "csrc"
GCC = shutil.which("gcc")
STACK = 1024
"""Bytes that one function of the request path may take; the deepest chain takes ``CHAIN``."""
CHAIN = 4096
FREESTANDING = {"memcpy", "memset", "memmove", "memcmp"}
"""What gcc itself may call, even in a freestanding environment."""
DENSE = re.compile(r"(dispatch|cpu|forward|model|kernels_.*|dot_.*)\.c")
REQUEST = re.compile(r"(?!index_build|pool|threads).*\.c")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if GCC is None:
        pytest.skip("gcc is not here")
    folder = tmp_path_factory.mktemp("core")
    sources = [
        path
        for part in (".", "x86", "arm")
        for path in (CSRC / part).glob("*.c")
        if REQUEST.fullmatch(path.name)
    ]
    flags = [
        "-O3",
        "-std=c11",
        "-ffreestanding",
        "-fbuiltin",
        "-ffp-contract=off",
        "-fno-math-errno",
        "-fno-stack-protector",
    ]
    subprocess.run(
        [
            GCC,
            *flags,
            "-Wvla",
            "-Werror",
            "-fstack-usage",
            "-fcallgraph-info=su",
            f"-I{CSRC}",
            "-c",
            *sources,
        ],
        cwd=folder,
        check=True,
    )
    return folder


def test_dense_networks_need_nothing_but_memory_functions(built: Path) -> None:
    objects = [path for path in built.glob("*.o") if DENSE.fullmatch(path.stem + ".c")]
    assert len(objects) > 8
    subprocess.run(["ld", "-r", "-o", "dense.all", *objects], cwd=built, check=True)
    undefined = subprocess.run(
        ["nm", "-u", "dense.all"], cwd=built, check=True, capture_output=True, text=True
    )
    assert {line.split()[-1] for line in undefined.stdout.splitlines()} <= FREESTANDING


def test_no_function_takes_much_stack_nor_an_amount_that_is_not_known(built: Path) -> None:
    functions = [line.split("\t") for path in built.glob("*.su") for line in path.read_text().splitlines()]
    assert len(functions) > 100
    assert {kind for *_, kind in functions} <= {"static", "dynamic,bounded"}  # neither a VLA nor alloca
    largest = max(functions, key=lambda function: int(function[1]))
    assert int(largest[1]) <= STACK, largest


def test_nothing_recurses(built: Path) -> None:
    calls: dict[str, set[str]] = defaultdict(set)
    stack: dict[str, int] = defaultdict(int)
    for path in built.glob("*.ci"):
        text = path.read_text()
        for name, size in re.findall(r'node: { title: "([^"]+)" label: "[^"]*\\n(\d+) bytes', text):
            stack[name] = int(size)
        for caller, callee in re.findall(r'edge: { sourcename: "([^"]+)" targetname: "([^"]+)"', text):
            # a kernel is called through a table, by forward.c and by the kernel's own file, which calls tiles
            # and activations through tables: those are leaves
            calls[caller].add(callee)
    deepest: dict[str, int] = {}
    path_now: list[str] = []

    def depth(name: str) -> int:
        assert name not in path_now, f"{' -> '.join(path_now)} -> {name}"
        if name not in deepest:
            path_now.append(name)
            deepest[name] = stack[name] + max(map(depth, calls[name]), default=0)
            path_now.pop()
        return deepest[name]

    assert max(map(depth, list(calls))) <= CHAIN
