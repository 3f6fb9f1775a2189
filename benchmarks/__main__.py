"""Run the benchmarks that were named, or all of them, and write one table: benchmarks/results/README.md."""

from __future__ import annotations

import importlib
import sys

from benchmarks.harness import RESULTS, machine

SUITES = ("dense", "precision", "index", "live", "http", "train")


def main(names: list[str]) -> None:
    unknown = set(names) - set(SUITES)
    if unknown:
        sys.exit(f"unknown benchmark {', '.join(sorted(unknown))}; there are: {', '.join(SUITES)}")
    parts = [
        "# Measured figures",
        "",
        "Written by `make bench`. All rows of one table come from one run, contestants interleaved; the figures are",
        "medians. The ratio counts: a shared machine's absolute figures swing between minutes. Below 1 we win.",
        "",
        *(f"- {key}: {value}" for key, value in machine().items()),
        "",
    ]
    for name in names or SUITES:
        text = importlib.import_module(f"benchmarks.{name}").run()
        print(text, flush=True)
        parts.append(text)
    if not names:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "README.md").write_text("\n".join(parts), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
