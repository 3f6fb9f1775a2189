"""Checks of single arguments, which people give and any type can be."""

from __future__ import annotations

import math

import numpy as np

from mariana.errors import InvalidInputError


def whole_number(name: str, value: object, low: int = 1) -> int:
    """Return a whole number of at least ``low``."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < low:
        raise InvalidInputError(f"{name} is {value!r}: it must be a whole number of at least {low}")
    return int(value)


def number(name: str, value: object, low: float, high: float = math.inf, *, above: bool = False) -> float:
    """Return a number from ``low`` (or above it, as of minus infinity) to below ``high``."""
    above = above or low == -math.inf
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float | np.floating | np.integer)
        or not low <= value < high
        or (above and value == low)
    ):
        limit = "finite" if high == math.inf else f"below {high:g}"
        raise InvalidInputError(
            f"{name} is {value!r}: it must be a number {'above' if above else 'of at least'} {low:g} and {limit}"
        )
    return float(value)
