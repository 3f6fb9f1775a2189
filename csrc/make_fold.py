# ruff: noqa: RUF001 - the look-alikes are the point
"""Write ``csrc/fold_table.h``: what each code point becomes before it is compared.

Run ``python csrc/make_fold.py`` after a change of the rule, and raise ``MRN_FOLD_VERSION`` in ``mrn_format.h``:
indexes built with another table are then refused instead of silently finding less.

The rule, code point by code point (docs/format.md has it in words):

1. NFKD and full case folding, repeated until nothing changes;
2. accents are dropped, vowel signs are not: see :func:`is_dropped`;
3. the letters of ``PLAIN``, which Unicode does not take apart, become what people type for them.

Hangul syllables (U+AC00..U+D7A3) are not in the table: fold.c takes them apart by arithmetic.
"""

from __future__ import annotations

import unicodedata
from pathlib import Path

PLAIN = (
    dict(zip("đłøħŧıðə", "dlohtide", strict=True))
    | {"æ": "ae", "œ": "oe", "þ": "th"}
    | dict.fromkeys("‘’ʻʼ", "'")
    | dict.fromkeys("‐–—", "-")
)
IGNORABLE = {0x034F, *range(0x180B, 0x1810), *range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0)}
"""Marks that only choose between glyphs: the grapheme joiner and the variation selectors."""

BLOCK = 64
IDENTITY, DROPPED, FIRST = 0, 1, 2
"""Values of the table: as it is; nothing; from 2 on, 2 + the place of the replacement in the pool."""


def is_dropped(point: str) -> bool:
    """Say whether a code point is an accent or invisible, rather than a letter or a vowel sign.

    By canonical combining class: 1 (overlays), 10..36 (Hebrew, Arabic and Syriac points) and 200 and above
    (what sits above or below a letter) are accents. 0 (vowel signs of Indic scripts), 7 (nukta), 8 (kana
    voicing), 9 (virama) and 84..132 (Telugu, Thai, Lao, Tibetan signs) tell words apart, so they stay.
    """
    accent = unicodedata.combining(point)
    return (
        accent == 1
        or 10 <= accent <= 36
        or accent >= 200
        or unicodedata.category(point) in ("Cf", "Me")
        or ord(point) in IGNORABLE
    )


def fold_point(point: str) -> str:
    """Return what one code point becomes."""
    folded, before = point, ""
    while folded != before:
        before = folded
        folded = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", folded).casefold())
    return "".join(PLAIN.get(part, part) for part in folded if not is_dropped(part))


def is_marked(point: str) -> bool:
    """Say whether folding takes an accent from a letter, or spells it plainly: whether it could be typed in two ways."""
    folded, before = point, ""
    while folded != before:
        before = folded
        folded = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", folded).casefold())
    return bool(fold_point(point)) and fold_point(point) != folded


def is_hangul_or_surrogate(point: str) -> bool:
    """Say whether a code point is none that folding looks up."""
    return 0xD800 <= ord(point) <= 0xDFFF or 0xAC00 <= ord(point) <= 0xD7A3


def small(point: str) -> str:
    """Return the small letter of a marked one, so that case does not tell two apart."""
    lower = point.lower()
    return lower if len(lower) == 1 else point


def main() -> None:
    """Write the table beside this script."""
    pool = bytearray()
    places: dict[bytes, int] = {}
    values = []
    for number in range(0x110000):
        point = chr(number)
        if 0xD800 <= number <= 0xDFFF or 0xAC00 <= number <= 0xD7A3:
            values.append(IDENTITY)
            continue
        folded = fold_point(point)
        if folded == point:
            values.append(IDENTITY)
        elif not folded:
            values.append(DROPPED)
        else:
            raw = folded.encode()
            if raw not in places:
                places[raw] = len(pool)
                pool += bytes([len(raw)]) + raw
            values.append(FIRST + places[raw])
    blocks: dict[tuple[int, ...], int] = {}
    index = [
        blocks.setdefault(tuple(values[at : at + BLOCK]), len(blocks)) for at in range(0, len(values), BLOCK)
    ]
    if max(values) >= 1 << 16 or len(blocks) > 256:
        raise SystemExit("the table has outgrown its types: widen them here and in fold.c")
    marked = [
        point for point in map(chr, range(0x110000)) if not is_hangul_or_surrogate(point) and is_marked(point)
    ]
    lines = [
        f"/* Written by make_fold.py from Unicode {unicodedata.unidata_version}: do not edit. */",
        "/* clang-format off */",
        f"enum {{ FOLD_BLOCK = {BLOCK}, FOLD_DROPPED = {DROPPED}, FOLD_FIRST = {FIRST} }};",
        f"enum {{ FOLD_POINT_MAX = {max(map(len, places))} }}; /* bytes that one code point may become */",
        *array("uint8_t", "fold_index", index),
        *array("uint16_t", f"fold_blocks[][{BLOCK}]", [value for block in blocks for value in block]),
        *array("uint8_t", "fold_pool", list(pool)),
        "/* Letters that lose something, ascending, and the small letter of each. */",
        *array("uint32_t", "fold_marked", list(map(ord, marked))),
        *array("uint32_t", "fold_small", [ord(small(point)) for point in marked]),
    ]
    Path(__file__).with_name("fold_table.h").write_text("\n".join(lines) + "\n", encoding="ascii")


def array(kind: str, name: str, numbers: list[int]) -> list[str]:
    """Return the lines of a C array; of rows of one block when the name has two dimensions."""
    rows = [numbers[at : at + BLOCK] for at in range(0, len(numbers), BLOCK)]
    opening, closing = ("{", "},") if "][" in name else ("", ",")
    name = name if "][" in name else f"{name}[]"
    body = [f"{opening}{','.join(map(str, row))}{closing}" for row in rows]
    return [f"static const {kind} {name} = {{", *body, "};"]


if __name__ == "__main__":
    main()
