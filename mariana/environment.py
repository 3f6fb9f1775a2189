"""What the environment says of running a model, read without the schema of all settings where it is plain."""

from __future__ import annotations

import os
from pathlib import Path

PREFIX = "MARIANA_"
CONFIG_VARIABLE = "MARIANA_CONFIG"
CONFIG_FILE = Path("mariana.toml")
"""Read from the working folder when ``MARIANA_CONFIG`` names no other file."""

_THREADS = frozenset(map(str, range(1, 65)))
_PRECISIONS = ("float32", "float32-split")


def config_file() -> Path | None:
    """Return the settings file in force: what ``MARIANA_CONFIG`` names, or ``mariana.toml`` if it is here."""
    named = os.environ.get(CONFIG_VARIABLE)
    if named:
        return Path(named)
    return CONFIG_FILE if CONFIG_FILE.is_file() else None


def running() -> tuple[str | None, str, int] | None:
    """Return the settings ``isa``, ``precision`` and ``threads`` in force; None where ``mariana.settings`` has to say.

    That is where a settings file may hold one of them, or where a value is not plainly right. Names of variables may be
    written in any case, and empty values do not count, as there.
    """
    if config_file() is not None:
        return None
    named = [name for name in os.environ if name.upper().startswith(PREFIX)]
    found = {name.upper(): value for name in named if (value := os.environ[name])}
    precision, threads = found.get(f"{PREFIX}PRECISION", "float32"), found.get(f"{PREFIX}THREADS", "1")
    if precision not in _PRECISIONS or threads not in _THREADS:
        return None
    return found.get(f"{PREFIX}ISA"), precision, int(threads)
