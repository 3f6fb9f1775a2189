"""Completion: speed, size and quality of ours beside its peers, on the same texts, in the same run.

``data.py`` says what is completed and how it is typed, ``engines.py`` who takes part, ``oracle.py`` what is right.
"""

from __future__ import annotations

import gc
import random
import sqlite3
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from functools import cache
from pathlib import Path

from benchmarks.harness import Row, table, versions, write_results
from benchmarks.index.data import SETS, TYPED_MAX, Case, DataSet, prefixes, words
from benchmarks.index.engines import ENGINES, Complete, Engine
from benchmarks.index.oracle import Oracle

__all__ = ["run", "words"]

CSRC = Path(__file__).parents[2] / "csrc"
CLASSES = {"1": (1, 1), "2": (2, 2), "3": (3, 3), "4-5": (4, 5), "6-7": (6, 7), "8+": (8, TYPED_MAX)}
SAMPLE = 300  # keystrokes of each length class
ROUNDS = 3
TURN = 0.03
"""Seconds that a contestant gets in each round and length class."""
JSON_ROUNDS = 5
CASES = 1000
FEW = 100
"""No share is told of fewer texts; for so many prefixes are the answers of peers compared with brute force."""
LARGEST = {"Redis": 200_000}
"""What takes minutes to fill, or gigabytes, gets the smaller sets only."""
JUDGED = 500_000
"""Texts that brute force compares with errors forgiven, for each number of errors: a few seconds."""
BUDGET = 0.5
"""Seconds for one engine and one column of the table of quality."""

Timed = Callable[[str], object]


def run(names: Iterable[str] = SETS) -> str:
    rows, texts = [], []
    for name in names:
        data = DataSet(name, SETS[name]())
        if data.entries:
            found, text = _measure(data)
            rows += found
            texts.append(text)
        else:
            texts.append(f"### Completion of {name}\n\nNot on this machine.\n")
    peers = versions("marisa-trie", "DAWG2", "ducer", "tantivy", "completype", "redis", "wordfreq")
    write_results("index", "Completion", rows, peers | {"SQLite": sqlite3.sqlite_version})
    return "\n".join(texts)


def _measure(data: DataSet) -> tuple[list[Row], str]:
    typed, cases = data.keystrokes(), data.cases(CASES)
    oracle = Oracle(data)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        engines, absent = _engines(data, folder, stack)
        agreed = _agreement(engines, oracle, typed)
        latency = _latency(engines, typed)
        as_json = _each_as_json(engines["mariana"].raw or engines["mariana"].complete, typed)
        quality, forgiving = _quality(engines, cases)
        loads = {name: _load(engine.load) for name, engine in engines.items() if engine.load}
        in_c = _inside_c(next((folder / "mariana").glob("*.mrx")), typed, folder)
        right = _forgiven(engines["mariana"], oracle, cases, len(data.entries))
    count = len(data.entries)
    shares = {label: len(_of_length(typed, label)) / len(typed) for label in CLASSES}
    means = {
        name: sum(shares[label] * statistics.fmean(times) for label, times in of.items())
        for name, of in latency.items()
        if name in engines
    }
    rows = [
        _row(f"{data.name}: a keystroke, mean", "us", means),
        _row(
            f"{data.name}: bytes a string, scores included",
            "B",
            {n: e.nbytes / count for n, e in engines.items()},
        ),
        _row(f"{data.name}: build, from Python objects", "s", {n: e.build for n, e in engines.items()}),
        _row(f"{data.name}: open (ours checks every byte)", "ms", loads),
        *(_row(f"{data.name}: forgiving {what}, median", "us", of) for what, of in forgiving.items()),
    ]
    rows = [row for row in rows if row.peers]
    rows[0].extra = {f"inside C, {length} letters, ns": figure for length, figure in in_c.items()}
    mean_bytes = statistics.fmean(len(text.encode()) for text in data.ranked)
    title = f"Completion of {data.name}: {count:,} texts of {mean_bytes:.1f} bytes, {len(typed):,} keystrokes"
    lines = [
        table(title, rows),
        *_latency_table(latency, agreed),
        f"Inside C: {', '.join(f'{figure:.0f} ns at {length}' for length, figure in in_c.items())} letters.",
        "",
        (
            f"As JSON, called from Python, every keystroke as it is typed, median / p99 us: {_named(as_json)}. What an "
            f"empty call takes by the clock, {_clock() * 1e6:.2f} us, is taken off everywhere."
        ),
        "",
        *quality,
        right,
        *absent,
        "",
    ]
    return rows, "\n".join(lines)


def _engines(data: DataSet, folder: Path, stack: ExitStack) -> tuple[dict[str, Engine], list[str]]:
    engines, absent = {}, []
    for name, make in ENGINES.items():
        if len(data.entries) > LARGEST.get(name, len(data.entries)):
            absent.append(f"{name} is measured on sets to {LARGEST[name]:,} texts only.")
            continue
        own = folder / name
        own.mkdir()
        try:
            engines[name] = make(data, own)
            stack.callback(engines[name].close)
        except (ImportError, OSError) as error:
            absent.append(f"{name} is not on this machine ({error}).")
        gc.collect()
    return engines, absent


# ---- Right answers ----------------------------------------------------------------------------------------------


def _agreement(engines: Mapping[str, Engine], oracle: Oracle, typed: list[str]) -> dict[str, float]:
    """Return the share of the answers that are those of brute force; ours have to be, for all that is typed."""
    distinct = sorted(set(typed))
    expected = {prefix: oracle.complete(prefix) for prefix in distinct}
    sample = random.Random(2).sample(distinct, min(FEW, len(distinct)))
    shares = {}
    for name, engine in engines.items():
        of = distinct if name == "mariana" else sample
        wrong = [prefix for prefix in of if engine.complete(prefix) != expected[prefix]]
        if name == "mariana" and wrong:
            raise AssertionError(f"not what brute force finds: {wrong[:10]}")
        shares[name] = 1 - len(wrong) / len(of)
    return shares


def _forgiven(engine: Engine, oracle: Oracle, cases: list[Case], texts: int) -> str:
    """Return a line: how many answers with errors forgiven are those of brute force."""
    parts = []
    count = min(len(cases), max(JUDGED // texts, 3))
    for edits in (1, 2):
        some = [typed(case) for case in cases[:count] for typed in KINDS.values()]
        differ = [typed for typed in some if engine.forgiving[edits](typed) != oracle.forgive(typed, edits)]
        if wrong := [typed for typed in differ if not engine.cut_short(typed, edits)]:
            raise AssertionError(f"not what brute force finds, with {edits} errors: {wrong[:10]}")
        parts.append(f"{len(some) - len(differ)} of {len(some)} with {edits}")
    return (
        f"Ours with errors forgiven gives the same ten as brute force, in the same order: {', '.join(parts)}; all others "
        "hit the [bound](../../docs/matching.md#what-is-bounded) on the places looked at.\n"
    )


# ---- Time -------------------------------------------------------------------------------------------------------


def _of_length(typed: Iterable[str], label: str) -> list[str]:
    shortest, longest = CLASSES[label]
    return [prefix for prefix in typed if shortest <= len(prefix) <= longest]


def _latency(engines: Mapping[str, Engine], typed: list[str]) -> dict[str, dict[str, list[float]]]:
    """Return microseconds of keystrokes by contestant and length class; contestants take turns."""
    calls: dict[str, Timed] = {}
    for name, engine in engines.items():
        calls[name] = engine.complete
        if engine.raw:
            calls[f"{name}, as JSON"] = engine.raw
    times: dict[str, dict[str, list[float]]] = {name: {} for name in calls}
    for label in CLASSES:
        of = _of_length(typed, label)
        sample = random.Random(4).sample(of, min(SAMPLE, len(of)))
        for name, figures in _time_each(calls, sample).items():
            times[name][label] = figures
    return times


def _time_each(calls: Mapping[str, Timed], sample: list[str]) -> dict[str, list[float]]:
    """Return the microseconds of each call: of several the median, as the machine may be busy.

    In every round each contestant gets ``TURN`` seconds, and goes on where it was.
    """
    times: dict[str, list[list[float]]] = {name: [[] for _ in sample] for name in calls}
    at = dict.fromkeys(calls, 0)
    for _ in range(ROUNDS):
        for name, call in calls.items():
            end = time.perf_counter() + TURN
            for _ in sample:
                place = at[name] % len(sample)
                times[name][place].append(_seconds(call, sample[place]) * 1e6)
                at[name] += 1
                if time.perf_counter() > end:
                    break
    return {name: [statistics.median(few) for few in of if few] for name, of in times.items()}


def _seconds(call: Timed, typed: str) -> float:
    """Return what a call takes: by its own clock, when it has one."""
    start = time.perf_counter()
    call(typed)
    took = time.perf_counter() - start - _clock()
    return getattr(call, "seconds", took)


@cache
def _clock() -> float:
    """Return the seconds that a call takes by the clock when it does nothing: a tenth of our shortest ones."""

    def nothing(_: str) -> None:
        pass

    call: Timed = nothing
    times = []
    for _ in range(10_000):
        start = time.perf_counter()
        call("")
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def _each_as_json(call: Timed, typed: list[str]) -> dict[str, list[float]]:
    """Return the microseconds of all keystrokes, in the order in which they are typed: of all rounds, and the least
    of each one, since other programs take the CPU away in the middle of some."""
    _seconds(call, typed[0])
    rounds = [[_seconds(call, keys) * 1e6 for keys in typed] for _ in range(JSON_ROUNDS)]
    return {
        "all calls": [took for times in rounds for took in times],
        "the best of five": list(map(min, zip(*rounds, strict=True))),
    }


def _load(load: Callable[[], object] | float) -> float:
    """Return the least milliseconds that opening takes, of five."""
    if not callable(load):
        return load * 1e3
    times = []
    for _ in range(5):
        start = time.perf_counter()
        opened = load()
        times.append((time.perf_counter() - start) * 1e3)
        del opened
    return min(times)


def _inside_c(segment: Path, typed: list[str], folder: Path) -> dict[str, float]:
    """Return nanoseconds a keystroke by letters typed, measured by csrc/bench/bench_trie.c."""
    subprocess.run(["make", "--silent", f"--directory={CSRC}", "build/bench_trie"], check=True)
    file = folder / "prefixes.txt"
    file.write_text("\n".join(typed) + "\n", encoding="utf-8")
    command = [CSRC / "build/bench_trie", segment, file]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    names = {"0": "all", "8": "8 and more"}
    return {
        names.get(length, length): float(nanoseconds)
        for length, _, nanoseconds in map(str.split, lines.splitlines())
    }


# ---- Quality ----------------------------------------------------------------------------------------------------

KINDS: dict[str, Callable[[Case], str]] = {
    "right": lambda case: case.right,
    "one error": lambda case: case.wrong[0],
    "two errors": lambda case: case.wrong[1],
}


def _quality(
    engines: Mapping[str, Engine], cases: list[Case]
) -> tuple[list[str], dict[str, dict[str, float]]]:
    """Return a table of what is found and what it costs, and, by kind of typing, the medians of what forgives that."""
    lines = [
        (
            f"{len(cases):,} texts, 4 to 10 letters typed, right, and with one and two random errors that leave the first "
            "letter. Keys saved: of all letters of the texts, typed one by one until the text is among the ten, with one more "
            f"key to pick it. An engine that takes more than {BUDGET:g} s for a column gets as many texts as it manages; under {FEW} no share is told."
        ),
        "",
        "| errors forgiven | "
        + " | ".join(f"{kind}: in the top 10 | keys saved | median / p99 us" for kind in KINDS)
        + " | texts |",
        "|---" * (3 * len(KINDS) + 2) + "|",
    ]
    modes = {("none, as by all that agree", 0): engines["mariana"].complete}
    for name, engine in engines.items():
        modes |= {(name, mode): complete for mode, complete in engine.forgiving.items()}
    medians: dict[str, dict[str, float]] = {"one error": {}, "two errors": {}}
    for (name, mode), complete in modes.items():
        cells, fewest = [], len(cases)
        for kind, typed in KINDS.items():
            found, times = _found(complete, cases, typed)
            saved, walked = _saved(complete, cases, typed)
            cells.append(
                f"{f'{found:.3f}' if len(times) >= FEW else ''} | {f'{saved:.0%}' if walked >= FEW else ''} | {_median_p99(times)}"
            )
            fewest = min(fewest, len(times))
            alone = mode == "auto" and len(engines[name].forgiving) == 1
            if alone or (kind, mode) in {("one error", 1), ("two errors", 2)}:
                medians.setdefault(kind, {})[name] = statistics.median(times)
        lines.append(f"| {f'{name}, {mode}' if mode else name} | {' | '.join(cells)} | {fewest} |")
    medians.pop("right", None)
    return [*lines, ""], medians


def _found(complete: Complete, cases: list[Case], typed: Callable[[Case], str]) -> tuple[float, list[float]]:
    """Return how often the text meant is among the ten, and the microseconds of each call."""
    found, times = 0, []
    end = time.perf_counter() + BUDGET
    for case in cases:
        keys = typed(case)
        found += case.text in complete(keys)
        took = _seconds(complete, keys)
        if took < 0.001:  # of three: the machine may be busy
            took = statistics.median((took, _seconds(complete, keys), _seconds(complete, keys)))
        times.append(took * 1e6)
        if time.perf_counter() > end:
            break
    return found / len(times), times


def _saved(complete: Complete, cases: list[Case], typed: Callable[[Case], str]) -> tuple[float, int]:
    """Return the share of the keys that need not be hit, and of how many texts that is."""
    saved = letters = count = 0
    end = time.perf_counter() + BUDGET
    for case in cases:
        whole = typed(case) + case.text[len(case.right) :]
        hit = next((len(keys) for keys in prefixes(whole) if case.text in complete(keys)), len(case.text))
        saved += max(len(case.text) - hit - 1, 0)
        letters += len(case.text)
        count += 1
        if time.perf_counter() > end:
            break
    return saved / letters, count


# ---- Tables -----------------------------------------------------------------------------------------------------


def _row(what: str, unit: str, figures: Mapping[str, float]) -> Row:
    peers = dict(figures)
    return Row(what, unit, peers.pop("mariana"), peers)


def _median_p99(times: list[float]) -> str:
    p99 = statistics.quantiles(times, n=100)[98] if len(times) > 1 else times[0]
    return f"{statistics.median(times):,.3g} / {p99:,.3g}"


def _named(times: Mapping[str, list[float]]) -> str:
    return ", ".join(f"{_median_p99(of)} of {name}" for name, of in times.items())


def _latency_table(
    latency: Mapping[str, Mapping[str, list[float]]], agreed: Mapping[str, float]
) -> list[str]:
    lines = [
        (
            "Top 10 for a prefix, called from Python, median / p99 us by letters typed; and how often the ten are those of "
            "brute force (other rules of rank are no error):"
        ),
        "",
        f"| | {' | '.join(CLASSES)} | as brute force |",
        "|---" * (len(CLASSES) + 2) + "|",
    ]
    for name, of in latency.items():
        share = f"{agreed[name]:.2f}" if name in agreed else ""
        lines.append(f"| {name} | {' | '.join(map(_median_p99, of.values()))} | {share} |")
    return [*lines, ""]
