"""Prefix top-10 by score: ours beside marisa-trie, SQLite and a sorted list, on the same words, in the same run.

The words are those of wordfreq's large English and German lists, folded, with their frequency as the score. Keystrokes
are typed as people do: 3,000 words, three quarters of them drawn by 1/rank from the 15,000 most frequent ones, one
quarter from all; each typed letter by letter, up to 20. Before anything is timed, every contestant's answer to every
prefix that is timed, and ours to every keystroke, is compared with brute force.
"""

from __future__ import annotations

import bisect
import gc
import heapq
import itertools
import random
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from array import array
from collections.abc import Callable
from pathlib import Path

import numpy as np

import mariana
from benchmarks.harness import Row, row, seconds_per_call, versions, write_results
from mariana._binding import trie
from mariana.errors import InvalidInputError
from mariana.reference import rank

CSRC = Path(__file__).parents[1] / "csrc"
LIMIT = 10
SAMPLE = 200
TYPOS = 1500

Entries = dict[str, float]
Complete = Callable[[str], list[tuple[str, float]]]


def words() -> Entries:
    """Return folded words with their occurrences in 10**9 words."""
    import wordfreq

    entries: Entries = {}
    for language in ("en", "de"):
        for word, frequency in wordfreq.get_frequency_dict(language, "large").items():
            try:
                text = trie.fold(word)
            except InvalidInputError:  # a few hold marks of writing direction
                continue
            if text:
                entries[text] = max(entries.get(text, 0.0), float(round(frequency * 1e9)))
    return entries


def keystrokes(ranked: list[str]) -> list[str]:
    """Return what is typed, keystroke by keystroke."""
    chance = random.Random(1)
    popular = ranked[:15_000]
    weights = list(itertools.accumulate(1 / (place + 1) for place in range(len(popular))))
    targets = chance.choices(popular, cum_weights=weights, k=2_250) + chance.choices(ranked, k=750)
    return [target[:length] for target in targets for length in range(1, min(len(target), 20) + 1)]


# ---- Contestants: each returns how to complete, the bytes it takes, and the seconds that building took --------


def ours(entries: Entries, folder: Path) -> tuple[Complete, float, float]:
    start = time.perf_counter()
    index = mariana.open_index(mariana.build_index(folder, entries.items(), any_word=False))
    seconds = time.perf_counter() - start
    return lambda p: [(c.text, c.score) for c in index.complete(p, LIMIT, 0)], index.nbytes, seconds


def marisa(entries: Entries, folder: Path) -> tuple[Complete, float, float]:
    import marisa_trie

    start = time.perf_counter()
    keys = marisa_trie.Trie(entries)
    scores = array("d", [0.0]) * len(keys)
    for text, score in entries.items():
        scores[keys[text]] = score
    seconds = time.perf_counter() - start

    def complete(prefix: str) -> list[tuple[str, float]]:
        return heapq.nsmallest(LIMIT, ((key, scores[keys[key]]) for key in keys.iterkeys(prefix)), key=rank)

    keys.save(str(folder / "marisa"))
    return complete, (folder / "marisa").stat().st_size + 8 * len(scores), seconds


def sqlite(entries: Entries, folder: Path) -> tuple[Complete, float, float]:
    start = time.perf_counter()
    database = sqlite3.connect(folder / "sqlite.db")
    database.execute("CREATE TABLE entries (text TEXT PRIMARY KEY, score REAL) WITHOUT ROWID")
    database.executemany("INSERT INTO entries VALUES (?, ?)", sorted(entries.items()))
    database.commit()
    seconds = time.perf_counter() - start
    query = (
        "SELECT text, score FROM entries WHERE text >= ? AND text < ? "
        f"ORDER BY score DESC, length(text), text LIMIT {LIMIT}"
    )

    def complete(prefix: str) -> list[tuple[str, float]]:
        return database.execute(query, (prefix, prefix + "\U0010ffff")).fetchall()

    return complete, (folder / "sqlite.db").stat().st_size, seconds


def sorted_list(entries: Entries, folder: Path) -> tuple[Complete, float, float]:
    del folder
    start = time.perf_counter()
    texts = sorted(entries)
    pairs = [(text, entries[text]) for text in texts]
    seconds = time.perf_counter() - start

    def complete(prefix: str) -> list[tuple[str, float]]:
        low = bisect.bisect_left(texts, prefix)
        high = bisect.bisect_left(texts, prefix + "\U0010ffff", low)
        return heapq.nsmallest(LIMIT, pairs[low:high], key=rank)

    sizes = sum(
        sys.getsizeof(text) + sys.getsizeof(pair) + 24 + 16 for text, pair in zip(texts, pairs, strict=True)
    )
    return complete, sizes, seconds


CONTESTANTS = {"mariana": ours, "marisa-trie + scores": marisa, "SQLite": sqlite, "sorted list": sorted_list}


# ---- Measuring --------------------------------------------------------------------------------------------------


def brute_force(entries: Entries, ranked: list[str]) -> Complete:
    """Return a completer that shares nothing with ours: all entries from the best down, until ten begin so."""
    place = {text: at for at, text in enumerate(ranked)}
    texts = sorted(ranked)
    places = np.array([place[text] for text in texts])

    def complete(prefix: str) -> list[tuple[str, float]]:
        low, high = bisect.bisect_left(texts, prefix), bisect.bisect_left(texts, prefix + "\U0010ffff")
        best = np.sort(places[low:high])[:LIMIT]
        return [(ranked[at], entries[ranked[at]]) for at in best]

    return complete


def inside_c(segment: Path, typed: list[str], folder: Path) -> list[tuple[str, int, float]]:
    """Return (typed letters, keystrokes, nanoseconds a keystroke) measured by csrc/bench/bench_trie.c."""
    subprocess.run(["make", "--silent", f"--directory={CSRC}", "build/bench_trie"], check=True)
    prefixes = folder / "prefixes.txt"
    prefixes.write_text("\n".join(typed) + "\n", encoding="utf-8")
    command = [CSRC / "build/bench_trie", segment, prefixes]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    names = {"0": "all", "8": "8 and more"}
    return [
        (names.get(length, length), int(count), float(nanoseconds))
        for length, count, nanoseconds in map(str.split, lines.splitlines())
    ]


def run() -> str:
    entries = words()
    ranked = [text for text, _ in sorted(entries.items(), key=rank)]
    typed = keystrokes(ranked)
    judge = brute_force(entries, ranked)
    expected = {prefix: judge(prefix) for prefix in set(typed)}
    sample = random.Random(2).sample(typed, SAMPLE)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        made = {}
        for contestant, make in CONTESTANTS.items():
            made[contestant] = make(entries, folder)
            gc.collect()
        for contestant, (complete, _, _) in made.items():
            for prefix in expected if contestant == "mariana" else sample:
                assert complete(prefix) == expected[prefix], (contestant, prefix)

        def timed(complete: Complete) -> Callable[[], None]:
            def call() -> None:
                for prefix in sample:
                    complete(prefix)

            return call

        samples = seconds_per_call({n: timed(complete) for n, (complete, _, _) in made.items()}, rounds=5)
        typos = forgiving(folder, ranked)
        in_c = inside_c(next(folder.glob("*.mrx")), typed, folder)
        rows = [
            row("prefix top-10 from Python, a keystroke", samples, "mariana", scale=1e6 / SAMPLE),
            _figures(
                "bytes a string, scores included", "B", {n: m[1] / len(entries) for n, m in made.items()}
            ),
            _figures("build, from Python objects", "s", {n: m[2] for n, m in made.items()}),
        ]
        rows[0].extra = {f"inside C, {length} letters, ns": figure for length, _, figure in in_c}
    mean_bytes = statistics.fmean(len(text.encode()) for text in entries)
    table = write_results(
        "index",
        f"Autocomplete: {len(entries):,} words of {mean_bytes:.1f} bytes, {len(typed):,} keystrokes",
        rows,
        versions("marisa-trie", "wordfreq") | {"SQLite": sqlite3.sqlite_version},
    )
    overall = in_c[-1][2]
    agreement = (
        f"All four gave the same answers as brute force ({len(expected):,} different prefixes for ours, {SAMPLE} for "
        "the others)."
    )
    verdict = f"bar: <= 1 us, {'met' if overall <= 1000 else '**missed**'}"
    lines = [
        table,
        agreement,
        "",
        f"Inside C a keystroke takes {overall / 1000:.2f} us ({verdict}):",
        "",
        "| letters typed | " + " | ".join(length for length, _, _ in in_c) + " |",
        "|---" * (len(in_c) + 1) + "|",
        "| ns | " + " | ".join(f"{figure:.0f}" for _, _, figure in in_c) + " |",
        "",
        *typos,
    ]
    return "\n".join(lines)


def mistyped(ranked: list[str]) -> list[tuple[str, str, str]]:
    """Return (word, its first 4 to 10 letters, the same with one typing error) for words that are often meant."""
    chance = random.Random(3)
    popular = [word for word in ranked[:15_000] if len(word) >= 4]
    cases = []
    for word in chance.choices(popular, [1 / (place + 1) for place in range(len(popular))], k=TYPOS):
        clean = word[: chance.randint(4, 10)]
        at, letter = chance.randrange(len(clean)), chance.choice("abcdefghijklmnopqrstuvwxyz")
        wrong = chance.choice(
            (
                clean[:at] + letter + clean[at:],
                clean[:at] + clean[at + 1 :],
                clean[:at] + letter + clean[at + 1 :],
                clean[:at] + clean[at : at + 2][::-1] + clean[at + 2 :],
            )
        )
        cases.append((word, clean, wrong))
    return cases


def forgiving(folder: Path, ranked: list[str]) -> list[str]:
    """Return a table: how often the word meant is among the ten, and how long that takes, from Python."""
    index = mariana.open_index(folder)
    cases = mistyped(ranked)
    lines = [
        f"{TYPOS} words typed 4 to 10 letters far, without and with one typing error (insertion, omission, exchange, swap):",
        "",
        "| typed | fuzzy | word meant in the top 10 | median us | p99 us |",
        "|---|---|---|---|---|",
    ]
    for name, column in (("right", 1), ("one error", 2)):
        for fuzzy in (0, 1, 2, "auto"):
            found, times = 0, []
            for case in cases:
                start = time.perf_counter()
                completions = index.complete(case[column], LIMIT, fuzzy)
                times.append((time.perf_counter() - start) * 1e6)
                found += case[0] in {completion.text for completion in completions}
            p99 = statistics.quantiles(times, n=100)[98]
            lines.append(
                f"| {name} | {fuzzy} | {found / TYPOS:.3f} | {statistics.median(times):.0f} | {p99:.0f} |"
            )
    return [*lines, ""]


def _figures(what: str, unit: str, figures: dict[str, float]) -> Row:
    peers = dict(figures)
    return Row(what, unit, peers.pop("mariana"), peers)
