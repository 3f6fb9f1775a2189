"""Run the benchmarks that were named, or all of them, each into its part of benchmarks/results/README.md."""

from __future__ import annotations

import importlib
import sys

from benchmarks.harness import KINDS, RESULTS, kind, machine

SUITES = ("dense", "precision", "index", "live", "http", "service", "train")
INTRODUCTION = """\
# Measured figures

Written by `make bench`, table by table. All rows of one table come from one run, contestants interleaved; the figures
are medians. The ratio counts: a shared machine's absolute figures swing between minutes. Below 1 we win. A table is
headed by the widest instructions of the machine that it comes from.
[What to know before comparing](../../docs/benchmarks.md).
"""


def main(names: list[str]) -> None:
    unknown = set(names) - set(SUITES)
    if unknown:
        sys.exit(f"unknown benchmark {', '.join(sorted(unknown))}; there are: {', '.join(SUITES)}")
    RESULTS.mkdir(exist_ok=True)
    for name in names or SUITES:
        text = importlib.import_module(f"benchmarks.{name}").run()
        print(text, flush=True)
        on = ", ".join(f"{key} {value}" for key, value in machine().items())
        heading, rest = text.split("\n", 1)
        (RESULTS / f"{name}-{kind()}.md").write_text(
            f"{heading} · {KINDS.get(kind(), kind())}\n{rest}\nMeasured on: {on}.\n", encoding="utf-8"
        )
    found = [
        path.read_text(encoding="utf-8") for name in SUITES for path in sorted(RESULTS.glob(f"{name}-*.md"))
    ]
    (RESULTS / "README.md").write_text("\n".join([INTRODUCTION, *found]), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
