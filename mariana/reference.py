# ruff: noqa: RUF001 - letters that look alike are folded here
"""Slow, obvious Python twins of the C kernels: for tests, and for reading.

Nothing here is fast, and nothing here shares code with what it checks.
"""

from __future__ import annotations

import functools
import math
import struct
import unicodedata
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import NamedTuple

# ---- Dense networks ----------------------------------------------------------------------------------------


def encode(
    row: Sequence[float],
    categories: Sequence[int] | None = None,
    fill: Sequence[float] | None = None,
    shift: Sequence[float] | None = None,
    scale: Sequence[float] | None = None,
    copies: Sequence[int] | None = None,
    forms: Sequence[str] | None = None,
) -> list[float]:
    """Return what the first layer sees of a raw row; ``mrn_network`` in ``csrc/mrn.h`` explains the tables."""
    encoded: list[float] = []
    for column, given in enumerate(row):
        value = fill[column] if fill is not None and math.isnan(given) else given
        count = categories[column] if categories is not None else 0
        number = copies[column] if copies is not None else 1
        if count:
            encoded += [1.0 if value == i else 0.0 for i in range(count)]
        elif forms is None:
            encoded += [value] * number
        else:
            of_copies = forms[len(encoded) : len(encoded) + number]
            encoded += [float(math.isnan(given)) if form == "missing" else value for form in of_copies]
    if shift is not None:
        encoded = [value - by for value, by in zip(encoded, shift, strict=True)]
    if scale is not None:
        encoded = [value * by for value, by in zip(encoded, scale, strict=True)]
    if forms is not None:
        encoded = [shape(form, value) for form, value in zip(forms, encoded, strict=True)]
    return encoded


def shape(form: str, value: float) -> float:
    """Return what becomes of a number that is shifted and scaled already."""
    if math.isnan(value) or form in ("linear", "missing"):
        return value
    if form == "ramp":
        return min(max(value, 0.0), 1.0)
    return (
        math.copysign(1 / math.hypot(1, 1 / value), value) if value else 0.0
    )  # value / sqrt(1 + value ** 2)


def activate(name: str, sums: Sequence[float], slopes: Sequence[float] | None = None) -> list[float]:
    """Return an activation of all sums of a layer; ``slopes``, one a unit, for those that have one."""
    if slopes is not None:
        below = math.expm1 if name == "elu" else float
        return [
            slope * below(value) if value < 0 else value for slope, value in zip(slopes, sums, strict=True)
        ]
    if name == "softmax":
        highest = max(sums)
        powers = [math.exp(value - highest) for value in sums]
        return [power / math.fsum(powers) for power in powers]
    function: Callable[[float], float] = {
        "linear": lambda value: value,
        "relu": lambda value: value if value > 0 else 0.0,
        "sigmoid": lambda value: 1 / (1 + math.exp(-value)) if value > -700 else 0.0,
        "tanh": math.tanh,
        "selu": lambda value: (
            1.0507009873554805 * (value if value > 0 else 1.6732632423543772 * math.expm1(value))
        ),
        "gelu": lambda value: value / 2 * math.erfc(-value / math.sqrt(2)),
        "gelu_tanh": lambda value: (
            value / 2 * (1 + math.tanh(math.sqrt(2 / math.pi) * (value + 0.044715 * value**3)))
        ),
        "silu": lambda value: value / (1 + math.exp(-value)) if value > -700 else 0.0,
        "softplus": lambda value: max(value, 0.0) + math.log1p(math.exp(-abs(value))),
    }[name]
    return [function(value) for value in sums]


def dense(
    row: Sequence[float],
    weight: Sequence[Sequence[float]],
    bias: Sequence[float] | None,
    activation: str,
    slopes: Sequence[float] | None = None,
) -> list[float]:
    """Return ``activation(row @ weight + bias)``, in double precision, sums exact."""
    units = range(len(weight[0]))
    sums = [
        math.fsum([value * weight[k][unit] for k, value in enumerate(row)] + ([bias[unit]] if bias else []))
        for unit in units
    ]
    return activate(activation, sums, slopes)


# ---- Precisions below float32 ------------------------------------------------------------------------------


def float32(value: float) -> float:
    """Return the float32 nearest to a number; infinite beyond the largest one."""
    try:
        found: float = struct.unpack("f", struct.pack("f", value))[0]
    except OverflowError:
        return math.copysign(math.inf, value)
    return found


def bfloat16(value: float) -> float:
    """Return the bfloat16 nearest to a float32, ties to even: 8 bits of precision; denormals become 0."""
    if not math.isfinite(value) or value == 0:
        return value
    _, exponent = math.frexp(value)
    if exponent < -125:  # below 2^-126
        return math.copysign(0.0, value)
    rounded = math.ldexp(round(math.ldexp(value, 8 - exponent)), exponent - 8)
    return math.copysign(math.inf, value) if abs(rounded) >= 2.0**128 else rounded


def dense_bfloat16(
    row: Sequence[float], weight: Sequence[Sequence[float]], bias: Sequence[float] | None, activation: str
) -> list[float]:
    """Return what :func:`dense` does of a row whose numbers are rounded to bfloat16, as the weights are."""
    return dense([bfloat16(value) for value in row], weight, bias, activation)


def terms(value: float) -> tuple[float, float, float]:
    """Return three bfloat16 whose sum is a float32 of middle size: each is next to what the ones before it leave."""
    high = bfloat16(value)
    middle = bfloat16(value - high)
    return high, middle, bfloat16(value - high - middle)


def dense_split(
    row: Sequence[float], weight: Sequence[Sequence[float]], bias: Sequence[float] | None, activation: str
) -> list[float]:
    """Return what :func:`dense` does when each number is three bfloat16, of whose nine products the smallest are left out.

    The kernels scale rows and units by powers of two first, so that all numbers are of middle size; this twin does not.
    """
    pairs = ((0, 0), (0, 1), (1, 0), (0, 2), (1, 1), (2, 0))
    split = [terms(value) for value in row]
    sums = []
    for unit in range(len(weight[0])):
        parts = [terms(weight[k][unit]) for k in range(len(row))]
        products = [a[i] * b[j] for a, b in zip(split, parts, strict=True) for i, j in pairs]
        sums.append(math.fsum(products + ([bias[unit]] if bias else [])))
    return activate(activation, sums)


def steps(row: Sequence[float]) -> tuple[list[int], float, int]:
    """Return a row as whole steps from 0 to 255: ``value`` is about ``(step - zero) * scale``.

    Every operation is rounded to float32, so that the steps are those of the kernels.
    """
    low, high = min(0.0, *row), max(0.0, *row)
    scale = max(float32(float32(high / 255) - float32(low / 255)), float32(1e-37))
    inverse = float32(1 / scale)
    zero = min(round(float32(-low * inverse)), 255)
    return [min(max(round(float32(value * inverse)) + zero, 0), 255) for value in row], scale, zero


def dense_int8(
    row: Sequence[float],
    weight: Sequence[Sequence[int]],
    weight_scale: Sequence[float],
    bias: Sequence[float] | None,
    activation: str,
) -> list[float]:
    """Return a layer with int8 weights: sums of integers are exact, each has one scale."""
    if not all(map(math.isfinite, row)):
        return [math.nan] * len(weight_scale)
    found, scale, zero = steps(row)
    sums = []
    for unit, step in enumerate(weight_scale):
        total = sum((value - zero) * weight[k][unit] for k, value in enumerate(found))
        product = float32(float32(total) * float32(scale * step))
        sums.append(float32(product + (bias[unit] if bias else 0.0)))
    return activate(activation, sums)


# ---- Autocomplete ------------------------------------------------------------------------------------------

PLAIN_LETTERS = (
    dict(zip("đłøħŧıðə", "dlohtide", strict=True))
    | {"æ": "ae", "œ": "oe", "þ": "th"}
    | dict.fromkeys("‘’ʻʼ", "'")
    | dict.fromkeys("‐–—", "-")
)
"""Letters that Unicode does not take apart, and what people type for them."""


@functools.lru_cache(maxsize=1024)
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
    """Return the best entries whose folded text, as if a space followed, begins with the folded prefix, best first.

    A text that comes twice counts once, with its highest score.
    """
    best: dict[str, float] = {}
    for text, score in entries:
        best[text] = max(score, best.get(text, score))
    key = fold(prefix)
    found = [entry for entry in best.items() if f"{fold(entry[0]).removesuffix(' ')} ".startswith(key)]
    return sorted(found, key=rank)[:limit]


class Found(NamedTuple):
    """An answer of :func:`search`."""

    text: str
    score: float
    edits: int
    highlights: tuple[tuple[int, int], ...]


class Item(NamedTuple):
    """An entry, for :func:`search`."""

    text: str
    score: float
    contexts: frozenset[str] = frozenset()
    id: str = ""  # of the document that it is a name of


WORDS_MAX, WORD_KEY_MAX, QUERY_WORDS_MAX, TYPED_MAX = 32, 64, 6, 60


def search(
    items: Iterable[Item],
    query: str,
    limit: int,
    *,
    edits: int = 0,
    any_word: bool = False,
    camel_case: bool = False,
    contexts: Collection[str] = (),
    prefer: Collection[str] = (),
) -> list[Found]:
    """Return the best entries that match a query, best first, by the rules of docs/matching.md, looking at each.

    Of entries with one id the best is the answer.

    Args:
        items: a text that comes twice counts once, with its highest score.
        query: what was typed.
        limit: at most so many.
        edits: typing errors that are forgiven.
        any_word: further words count too.
        camel_case: words also begin at capitals.
        contexts: only entries with one of these.
        prefer: entries with none of these come later.
    """
    best: dict[str, Item] = {}
    for item in items:
        if item.text not in best or item.score > best[item.text].score:
            best[item.text] = item
    typed = fold(query)
    edits = edits if 1 <= len(typed) <= TYPED_MAX else 0
    found = []
    for item in best.values():
        if contexts and not item.contexts & {*contexts}:
            continue
        matches = list(_matches(item.text, query, edits, any_word=any_word, camel_case=camel_case))
        if not matches:
            continue
        bits, needed, _, highlights = min(matches)
        bits += 6 if prefer and not item.contexts & {*prefer} else 0
        weight = (sum(other.score > item.score for other in best.values()) + 1) << bits
        answer = Found(item.text, item.score, needed, highlights)
        found.append(((weight, *rank((item.text, item.score))), answer, item.id))
    answers, shown = [], set()
    for _, answer, id_ in sorted(found):
        if id_ and id_ in shown:
            continue
        shown.add(id_)
        answers.append(answer)
    return answers[:limit]


def _matches(
    text: str, query: str, edits: int, *, any_word: bool, camel_case: bool
) -> Iterator[tuple[int, int, tuple[int, int], tuple[tuple[int, int], ...]]]:
    """Yield each way that a text matches: bits that it costs, edits, (kind, which word), highlights."""
    key, typed = fold(text).removesuffix(" "), fold(query)
    starts = word_starts(text, camel_case=camel_case) if any_word else []
    further = [start for start in starts if 0 < start < len(key)]
    marked = bool(_marks(query))
    for number, start in enumerate([0, *further]):
        part = key[start:]
        while start and len(part.encode()) > WORD_KEY_MAX:
            part = part[:-1]
        if start and not typed:
            break
        needed, length = prefix_edits(typed, part)
        if typed == f"{part} " and (start == 0 or len(part.encode()) <= WORD_KEY_MAX - 4):
            needed, length = 0, len(part)  # as if a space followed; a longer one may be cut
        if needed > edits:
            continue
        bits = (4 + 6 * needed if needed else 0) + (3 if start else 0)
        if marked and (needed or _marks(query, 0, length) != _marks(text, start, length)):
            bits += 6
        yield bits, needed, (min(number, 1), number), _range(text, start, length)
    if any_word and (places := _places(key, starts, typed)):
        joined: list[tuple[int, int]] = []
        for start, end in sorted(_range(text, place, length)[0] for place, length in places):
            if joined and start <= joined[-1][1]:
                joined[-1] = joined[-1][0], max(end, joined[-1][1])
            else:
                joined.append((start, end))
        yield 6 + (6 if marked else 0), 0, (2, 0), tuple(joined)


def _places(key: str, starts: list[int], typed: str) -> list[tuple[int, int]]:
    """Return where the words of a query first begin words of a key, and how long they are; none unless all do."""
    words = _words(typed)
    whole = parts_words(typed[-1:] or "x")  # then the last one has to be a word of the key
    if not words or len(words) + whole < 2 or len(words) > QUERY_WORDS_MAX:
        return []
    ends = {len(key), *starts, *(at for at, point in enumerate(key) if parts_words(point))}
    places = []
    for number, word in enumerate(words, 1):
        there = [s for s in starts if key.startswith(word, s)]
        if whole and number == len(words):
            there = [s for s in there if s + len(word) in ends]
        if not there:
            return []
        places.append((there[0], len(word)))
    return places


@functools.lru_cache(maxsize=256)
def _key_ends(text: str) -> tuple[int, ...]:
    """Return how long the key is after each code point of a text."""
    ends, length, last = [], 0, " "
    for point in text:
        for part in _fold_point(point):
            length += not (part == " " == last)
            last = part
        ends.append(length)
    return tuple(ends)


def _range(text: str, start: int, length: int) -> tuple[tuple[int, int], ...]:
    """Return what ``length`` characters of the key from ``start`` on cover in the text."""
    if length == 0:
        return ()
    first = next(i for i, end in enumerate(_key_ends(text)) if end > start)
    return ((first if start else 0, _covered(text, fold(text)[: start + length])),)


def word_starts(text: str, *, camel_case: bool) -> list[int]:
    """Return where the words of a text begin in its key, one at 0 and the first ``WORDS_MAX`` others."""
    starts, after, folded = [], True, fold(text)
    for at, point in enumerate(text):
        before = _key_ends(text)[at - 1] if at else 0
        if camel_case and at and "A" <= point <= "Z":
            last, following = text[at - 1], text[at + 1 : at + 2]
            after |= last in "abcdefghijklmnopqrstuvwxyz0123456789" or (
                "A" <= last <= "Z" and "a" <= following <= "z"
            )
        for place in range(before, _key_ends(text)[at]):
            parts = parts_words(folded[place])
            if after and not parts:
                starts.append(place)
            after = parts
    return starts[: WORDS_MAX + (starts[:1] == [0])]


def parts_words(point: str) -> bool:
    """Say whether a folded character stands between words."""
    number = ord(point)
    if number < 0x80:
        return not point.isalnum()
    return (
        number <= 0xBF
        or number in {0xD7, 0xF7, 0x60C, 0x61B, 0x61F, 0x6D4, 0x964, 0x965, 0x30FB}
        or 0x66A <= number <= 0x66D
        or 0x2010 <= number <= 0x205E
        or 0x3001 <= number <= 0x3003
        or 0x3008 <= number <= 0x3020
    )


def _words(key: str) -> list[str]:
    return "".join(" " if parts_words(point) else point for point in key).split()


def _marks(text: str, start: int = 0, length: int | None = None) -> list[tuple[int, str]]:
    """Return the letters that lose something by folding, and marks alone, with the character of the key they are at."""
    marks = []
    for at, point in enumerate(text):
        whole, before = point, ""
        while whole != before:
            before = whole
            whole = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", whole).casefold())
        folded, place = _fold_point(point), _key_ends(text)[at - 1] if at else 0
        if not folded:
            marks.append((max(place - 1, 0), point))
        elif folded != whole:
            marks.append((place, point.lower() if len(point.lower()) == 1 else point))
    end = len(fold(text)) + 1 if length is None else start + length
    return [(place - start, mark) for place, mark in marks if start <= place < end]


@functools.lru_cache(maxsize=4096)
def prefix_edits(typed: str, key: str) -> tuple[int, int]:
    """Compare a text with the beginnings of a key.

    Returns:
        The least optimal string alignment distance, and how long the shortest beginning is that has it.
    """
    rows = [list(range(len(typed) + 1))]
    for i, point in enumerate(key, 1):
        row = [i]
        for j, wanted in enumerate(typed, 1):
            cost = min(rows[i - 1][j - 1] + (point != wanted), rows[i - 1][j] + 1, row[j - 1] + 1)
            if i > 1 and j > 1 and point == typed[j - 2] and key[i - 2] == wanted:
                cost = min(cost, rows[i - 2][j - 2] + 1)
            row.append(cost)
        rows.append(row)
    return min((row[-1], length) for length, row in enumerate(rows))


def highlight(text: str, prefix: str) -> int:
    """Return how many code points of a text its folded prefix covers, with the marks that follow them."""
    return _covered(text, fold(prefix)[: len(fold(text).removesuffix(" "))])


def _covered(text: str, key: str) -> int:
    if not key:
        return 0
    end = next(i for i, length in enumerate(_key_ends(text), 1) if length >= len(key))
    while end < len(text) and all(_is_accent(part) for part in unicodedata.normalize("NFKD", text[end])):
        end += 1
    return end
