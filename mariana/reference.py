# ruff: noqa: RUF001 - letters that look alike are folded here
"""Slow, obvious Python twins of the C kernels: for tests, and for reading.

Nothing here is fast, and nothing here shares code with what it checks.
"""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Iterable

# ---- Autocomplete ------------------------------------------------------------------------------------------

PLAIN_LETTERS = (
    dict(zip("đłøħŧıðə", "dlohtide", strict=True))
    | {"æ": "ae", "œ": "oe", "þ": "th"}
    | dict.fromkeys("‘’ʻʼ", "'")
    | dict.fromkeys("‐–—", "-")
)
"""Letters that Unicode does not take apart, and what people type for them."""


def fold(text: str) -> str:
    """Return what a text is compared by: without case, accents and compatibility forms."""
    folded = "".join(map(_fold_point, text))
    while "  " in folded:
        folded = folded.replace("  ", " ")
    return folded.removeprefix(" ")


@functools.cache
def _fold_point(point: str) -> str:
    whole, before = point, ""
    while whole != before:
        before = whole
        whole = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", whole).casefold())
    return "".join(PLAIN_LETTERS.get(part, part) for part in whole if not _is_accent(part))


def _is_accent(point: str) -> bool:
    """Say whether a code point is an accent or invisible, rather than a letter or a vowel sign."""
    combining = unicodedata.combining(point)
    return (
        combining == 1
        or 10 <= combining <= 36
        or combining >= 200
        or unicodedata.category(point) in {"Cf", "Me"}
        or unicodedata.name(point, "").startswith(("VARIATION SELECTOR", "MONGOLIAN FREE VARIATION"))
        or point == "\N{COMBINING GRAPHEME JOINER}"
    )


def rank(entry: tuple[str, float]) -> tuple[float, int, bytes]:
    """Return what entries are ordered by, best first: score, code points, bytes."""
    text, score = entry
    return (-score, len(text), text.encode())


def complete(entries: Iterable[tuple[str, float]], prefix: str, limit: int) -> list[tuple[str, float]]:
    """Return the best entries whose folded text begins with the folded prefix, best first.

    A text that comes twice counts once, with its highest score.
    """
    best: dict[str, float] = {}
    for text, score in entries:
        best[text] = max(score, best.get(text, score))
    key = fold(prefix)
    found = [entry for entry in best.items() if fold(entry[0]).removesuffix(" ").startswith(key)]
    return sorted(found, key=rank)[:limit]


def highlight(text: str, prefix: str) -> int:
    """Return how many code points of a text its folded prefix covers, with the marks that follow them."""
    key = fold(prefix)
    if not key:
        return 0
    end = next(i for i in range(len(text) + 1) if fold(text[:i]).startswith(key))
    while end < len(text) and all(_is_accent(part) for part in unicodedata.normalize("NFKD", text[end])):
        end += 1
    return end
