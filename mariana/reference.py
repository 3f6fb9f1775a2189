# ruff: noqa: RUF001 - letters that look alike are folded here
"""Slow, obvious Python twins of the C kernels: for tests, and for reading.

Nothing here is fast, and nothing here shares code with what it checks.
"""

from __future__ import annotations

import functools
import math
import struct
import unicodedata
from collections.abc import Callable, Iterable, Sequence

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


def complete_typed(
    entries: Sequence[tuple[str, float]],
    places: Sequence[int],
    record_bytes: int,
    prefix: str,
    limit: int,
    edits: int,
) -> list[tuple[str, float, int, int]]:
    """Return the best entries whose folded text begins with about the folded prefix, best first.

    Args:
        entries: all of them, best first (see :func:`rank`), without repetition.
        places: where each one's record is in its section; the rank is estimated from it.
        record_bytes: how long the section is.
        prefix: what was typed.
        limit: at most so many.
        edits: typing errors that are forgiven.

    Returns:
        (text, score, edits, code points of the text that are highlighted).
    """
    key = fold(prefix)
    if not 1 <= len(key) <= 64:
        edits = 0
    found = []
    for entry, place in zip(entries, places, strict=True):
        needed, length = prefix_edits(key, fold(entry[0]).removesuffix(" "))
        if needed <= edits:
            rank_estimate = int(place * (len(entries) / record_bytes))
            covered = _covered(entry[0], fold(entry[0])[:length])
            found.append(((rank_estimate + 1) * 64**needed, place, (*entry, needed, covered)))
    return [answer for _, _, answer in sorted(found)[:limit]]


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
    return _covered(text, fold(prefix))


def _covered(text: str, key: str) -> int:
    if not key:
        return 0
    end = next(i for i in range(len(text) + 1) if fold(text[:i]).startswith(key))
    while end < len(text) and all(_is_accent(part) for part in unicodedata.normalize("NFKD", text[end])):
        end += 1
    return end
