"""From a name to the thing: each registry is a dict from name to class, and this one function."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from mariana.errors import InvalidInputError

T = TypeVar("T")


def get(what: str, known: Mapping[str, Callable[[], T]], value: object, base: type[T]) -> T:
    """Return ``value`` if it is a ``base``, or what the class makes that ``known`` holds under that name.

    Args:
        what: how an error message calls the thing, for example ``activation``.
        known: classes by name.
        value: a name or an instance.
        base: the class of all such things.

    Raises:
        InvalidInputError: an unknown name or another type; the message lists the known names.
    """
    if isinstance(value, base):
        return value
    if isinstance(value, str) and value in known:
        return known[value]()
    found = repr(value)[:80]
    raise InvalidInputError(
        f"{found} is no {what}: use one of {', '.join(known)}, or an instance of {base.__name__}"
    )
