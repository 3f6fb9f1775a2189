"""What was acknowledged survives a power cut, whatever of the unsynced writes reaches the disk.

SIGKILL cannot see a missing fsync: what was written stays in the kernel's memory. So a program that changes an index
runs under strace, and for each moment of its run the folder is put together as a disk might hold it after a power cut
just then: file contents and directory entries each either as they were last synced, or as they were last written.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import mariana

ROOT = Path(__file__).parents[2]
PROGRAM = """
import os, sys, mariana
def say(mark):
    os.write(1, mark.encode())
path = sys.argv[1]
mariana.build_index(path, [("base", 1)])
say("@base")
with mariana.open_index(path) as index:
    index.insert([("a1", 1), ("a2", 1), ("a3", 1)])
    say("@a1 a2 a3 base")
    index.insert([("b1", 1), ("b2", 1)])
    say("@a1 a2 a3 b1 b2 base")
    index.delete(["a2"])
    say("@a1 a3 b1 b2 base")
    index.compact()
    say("@a1 a3 b1 b2 base")
    index.insert([("c1", 1), ("b1", 2)])
    say("@a1 a3 b1 b2 base c1")
    mariana.build_index(path, [("d1", 1), ("d2", 1)])
    say("@d1 d2")
    index.insert([("e1", 1)])
    say("@d1 d2 e1")
say("@d1 d2 e1")
"""
UNFINISHED = re.compile(r"^(\d+) +(.*?) *<unfinished \.\.\.>$", re.DOTALL)
RESUMED = re.compile(r"^(\d+) +<\.\.\. \w+ resumed>(.*)$", re.DOTALL)
CALL = re.compile(r"^\d+ +(\w+)\((.*)\) += (-?\d+)", re.DOTALL)


class Disk:
    """The files of one folder: as written, and as synced."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.names: dict[str, int] = {}
        self.synced_names: dict[str, int] = {}
        self.contents: list[bytes] = []
        self.synced_contents: list[bytes] = []

    def file(self, name: str) -> int:
        if name not in self.names:
            self.names[name] = len(self.contents)
            self.contents.append(b"")
            self.synced_contents.append(b"")
        return self.names[name]

    def write(self, name: str, data: bytes, at: int | None) -> None:
        number = self.file(name)
        old = self.contents[number]
        start = len(old) if at is None else at
        self.contents[number] = old[:start].ljust(start, b"\0") + data + old[start + len(data) :]

    def sync(self, path: str) -> None:
        if path == self.folder:
            self.synced_names = dict(self.names)
        elif path.startswith(self.folder + "/"):
            number = self.file(path.removeprefix(self.folder + "/"))
            self.synced_contents[number] = self.contents[number]

    def after_a_power_cut(self) -> Iterator[dict[str, bytes]]:
        for names in (self.synced_names, self.names):
            for contents in (self.synced_contents, self.contents):
                yield {name: contents[number] for name, number in names.items() if not name.endswith("-shm")}


def plain(escaped: str) -> str:
    return bytes.fromhex(escaped.replace("\\x", "")).decode()


def whole_lines(trace: str) -> Iterator[str]:
    """Yield the calls of a trace, a line each: one during which another thread called stands in two of them."""
    begun: dict[str, str] = {}
    for line in trace.splitlines():
        if unfinished := UNFINISHED.match(line):
            begun[unfinished[1]] = unfinished[2]
        elif resumed := RESUMED.match(line):
            yield f"{resumed[1]} {begun.pop(resumed[1])}{resumed[2]}"
        else:
            yield line


def replay(trace: str, folder: str) -> Iterator[tuple[Disk, int]]:
    """Yield the disk after each call of a trace, with how often something was acknowledged."""
    disk, acknowledged = Disk(folder), 0
    inside = re.compile(rf"<{re.escape(folder)}/([^>]+)>")
    for line in whole_lines(trace):
        call = CALL.match(re.sub(r"<((?:\\x[0-9a-f]{2})+)>", lambda path: f"<{plain(path[1])}>", line))
        if call is None or call[3].startswith("-"):
            continue
        name, arguments = call[1], call[2]
        strings = [
            bytes.fromhex(s.replace("\\x", "")) for s in re.findall(r'"((?:\\x[0-9a-f]{2})*)"', arguments)
        ]
        file = inside.search(arguments)
        if name in ("write", "pwrite64") and arguments.startswith("1<"):
            acknowledged += 1
        elif name in ("write", "pwrite64") and file is not None:
            assert len(strings[0]) == int(call[3]), "strace shortened what was written"
            disk.write(file[1], strings[0], int(arguments.rsplit(", ", 1)[1]) if name == "pwrite64" else None)
        elif name == "ftruncate" and file is not None:
            number, size = disk.file(file[1]), int(arguments.rsplit(", ", 1)[1])
            disk.contents[number] = disk.contents[number][:size].ljust(size, b"\0")
        elif name in ("fsync", "fdatasync"):
            disk.sync(re.search(r"<([^>]+)>", arguments)[1])
        elif name in ("rename", "unlink"):
            paths = [s.decode() for s in strings]
            if not paths[0].startswith(folder + "/"):
                continue
            number = disk.names.pop(paths[0].removeprefix(folder + "/"), None)
            if name == "rename" and number is not None:
                disk.names[paths[1].removeprefix(folder + "/")] = number
        else:
            continue
        yield disk, acknowledged


@pytest.mark.optional
@pytest.mark.skipif(
    shutil.which("strace") is None, reason="strace is not installed (Debian: apt-get install strace)"
)
def test_a_power_cut_at_any_moment(tmp_path: Path) -> None:
    folder, trace = tmp_path / "index", tmp_path / "trace"
    calls = "trace=write,pwrite64,ftruncate,fsync,fdatasync,rename,unlink"
    done = subprocess.run(
        [
            "strace",
            "-f",
            "-y",
            "-xx",
            "-s",
            "100000",
            "-e",
            calls,
            "-o",
            trace,
            sys.executable,
            "-c",
            PROGRAM,
            folder,
        ],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    if "ptrace" in done.stderr:
        pytest.skip("strace may not trace here: " + done.stderr[:200])
    assert done.returncode == 0, done.stderr
    marks = done.stdout.split("@")[1:]
    looked = set()
    for disk, acknowledged in replay(trace.read_text(encoding="utf-8"), str(folder)):
        if not acknowledged:
            continue  # the index is not there yet
        allowed = {tuple(sorted(mark.split())) for mark in marks[acknowledged - 1 : acknowledged + 1]}
        for image in disk.after_a_power_cut():
            key: tuple[object, ...] = (acknowledged, *sorted(image.items()))
            if key in looked:
                continue
            looked.add(key)
            copy = tmp_path / "copy"
            copy.mkdir()
            for name, data in image.items():
                (copy / name).write_bytes(data)
            with mariana.open_index(copy) as index:
                found = tuple(sorted(completion.text for completion in index.complete("")))
            assert found in allowed, f"after {acknowledged}: {sorted(image)}"
            shutil.rmtree(copy)
    assert len(looked) > 50
