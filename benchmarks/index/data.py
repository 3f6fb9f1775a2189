"""What is completed and what is typed: sets of texts with scores, keystrokes, and typing errors.

Three sets, each folded, so that every contestant holds the same bytes:

- words: wordfreq's large English and German lists, by their occurrences in 10**9 words;
- cities: the bundled names from GeoNames, by inhabitants;
- packages: what ``apt-cache`` knows, where there is one, by how many packages name it in Depends or Recommends.
"""

from __future__ import annotations

import csv
import gzip
import itertools
import random
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property

from mariana._binding import trie
from mariana.datasets.cities import cities_path
from mariana.errors import InvalidInputError
from mariana.reference import rank

Entries = dict[str, float]

TYPED_MAX = 20
"""Letters after which a person gives up."""

POPULAR = 15_000
"""Three quarters of what people look for is among so many, drawn by 1/rank."""


@dataclass(frozen=True)
class Case:
    """Somebody means ``text``, and has typed ``right``, 4 to 10 letters of it; or ``wrong``, with errors."""

    text: str
    right: str
    wrong: tuple[str, str]  # with one error, with two


@dataclass(frozen=True)
class DataSet:
    name: str
    entries: Entries

    @cached_property
    def ranked(self) -> list[str]:
        """All texts, best first."""
        return [text for text, _ in sorted(self.entries.items(), key=rank)]

    def targets(self, count: int, seed: int = 1) -> list[str]:
        """Return what people look for: three quarters from the popular ones by 1/rank, one quarter from all."""
        chance = random.Random(seed)
        popular = self.ranked[:POPULAR]
        weights = list(itertools.accumulate(1 / (place + 1) for place in range(len(popular))))
        uniform = count // 4
        found = chance.choices(popular, cum_weights=weights, k=count - uniform)
        return found + chance.choices(self.ranked, k=uniform)

    def keystrokes(self) -> list[str]:
        """Return what has been typed after each keystroke of 3,000 targets."""
        return [typed for target in self.targets(3_000) for typed in prefixes(target)]

    def cases(self, count: int) -> list[Case]:
        """Return targets of 4 letters or more, typed 4 to 10 letters far, with no, one and two errors."""
        chance = random.Random(3)
        long = [target for target in self.targets(4 * count + 100, seed=3) if len(target) >= 4]
        cases = []
        for target in chance.sample(long, min(count, len(long))):
            right = target[: chance.randint(4, min(10, len(target)))]
            once = mistype(right, chance)
            cases.append(Case(target, right, (once, mistype(once, chance, right))))
        return cases


def prefixes(target: str) -> list[str]:
    return [target[:length] for length in range(1, min(len(target), TYPED_MAX) + 1)]


def mistype(typed: str, chance: random.Random, intended: str = "") -> str:
    """Return what one random error makes of it: a letter more, less, other, or swapped with the next.

    The first letter stays, as people seldom miss it, and since several peers demand it. The result is neither what was
    typed nor ``intended``.
    """
    while True:
        at, letter = chance.randrange(1, len(typed)), chance.choice("abcdefghijklmnopqrstuvwxyz")
        wrong = chance.choice(
            (
                typed[:at] + letter + typed[at:],
                typed[:at] + typed[at + 1 :],
                typed[:at] + letter + typed[at + 1 :],
                typed[:at] + typed[at : at + 2][::-1] + typed[at + 2 :],
            )
        )
        if wrong not in {typed, intended}:
            return wrong


# ---- Sets -------------------------------------------------------------------------------------------------------


def words() -> Entries:
    """Return folded words with their occurrences in 10**9 words."""
    import wordfreq

    return _folded(
        (word, float(round(frequency * 1e9)))
        for language in ("en", "de")
        for word, frequency in wordfreq.get_frequency_dict(language, "large").items()
    )


def cities() -> Entries:
    """Return the folded names of cities with their inhabitants."""
    with gzip.open(cities_path(), "rt", encoding="utf-8", newline="") as file:
        return _folded((row["text"], float(row["score"])) for row in csv.DictReader(file, delimiter="\t"))


def packages() -> Entries:
    """Return Debian's packages with how many others name them; none where there is no apt, or no lists."""
    if not shutil.which("apt-cache"):
        return {}
    command = ["apt-cache", "dumpavail"]
    lines = subprocess.run(command, check=True, capture_output=True, text=True, errors="replace").stdout
    names = re.findall(r"^Package: (\S+)$", lines, re.MULTILINE)
    named: Counter[str] = Counter()
    for field in re.findall(r"^(?:Pre-Depends|Depends|Recommends): (.*)$", lines, re.MULTILINE):
        named.update({part.split()[0].split(":")[0] for part in re.split(r"[,|]", field) if part.strip()})
    return _folded((name, float(named[name])) for name in names)


SETS: dict[str, Callable[[], Entries]] = {"words": words, "cities": cities, "packages": packages}


def _folded(pairs: Iterable[tuple[str, float]]) -> Entries:
    entries: Entries = {}
    for original, score in pairs:
        try:
            text = trie.fold(original).strip()
        except InvalidInputError:  # a few hold marks of writing direction
            continue
        if text:
            entries[text] = max(entries.get(text, 0.0), score)
    return entries
