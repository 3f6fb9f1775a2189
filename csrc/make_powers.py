"""Write ``csrc/power_table.h``: the powers of ten that double_text.c multiplies by.

For k from -292 to 324, g(k) = floor(10**k * 2**-r) + 1 with r chosen so that g has 126 bits, as two numbers of 63 bits:
table 3 of Raffaello Giulietti, "The Schubfach way to render doubles" (2021).
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

LEAST, MOST = -292, 324


def power(k: int) -> int:
    """Return g(k)."""
    ten = Fraction(10) ** k
    # r with 2**125 <= ten * 2**-r < 2**126
    r = ten.numerator.bit_length() - ten.denominator.bit_length() - 126
    while ten / Fraction(2) ** r >= Fraction(2) ** 126:
        r += 1
    while ten / Fraction(2) ** r < Fraction(2) ** 125:
        r -= 1
    scaled = ten / Fraction(2) ** r
    return scaled.numerator // scaled.denominator + 1


def main() -> None:
    """Write the table beside this script."""
    rows = [f"{{0x{g >> 63:x}u,0x{g & (1 << 63) - 1:x}u}}," for g in map(power, range(LEAST, MOST + 1))]
    lines = [
        "/* Written by make_powers.py: do not edit. */",
        "/* clang-format off */",
        "#include <stdint.h>",
        f"enum {{ POWER_LEAST = {LEAST} }};",
        "static const uint64_t powers[][2] = {",
        *rows,
        "};",
    ]
    Path(__file__).with_name("power_table.h").write_text("\n".join(lines) + "\n", encoding="ascii")


if __name__ == "__main__":
    main()
