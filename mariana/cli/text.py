"""Texts on the terminal."""

from __future__ import annotations


def printable(text: str) -> str:
    """Return a text on one line and without control characters: files name columns, and terminals obey escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
