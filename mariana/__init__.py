"""Mariana: a table in, a served neural network out; a list in, an autocomplete out.

The public names are loaded when they are first used, so that ``mariana.trainer`` can be imported
and can train where the compiled kernel is missing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mariana.autocomplete import Answers, Completion, Explanation, Index, open_index
    from mariana.building import build_index
    from mariana.errors import (
        FileFormatError,
        InvalidInputError,
        KernelError,
        MarianaError,
        NotFoundError,
        OutOfRangeError,
        StoreError,
        TrainingError,
    )
    from mariana.live.state import Receipt
    from mariana.model import Model, load_model
    from mariana.store import Store

__version__ = "0.1.0"

_HOME = {
    "Answers": "autocomplete",
    "Completion": "autocomplete",
    "Explanation": "autocomplete",
    "FileFormatError": "errors",
    "Index": "autocomplete",
    "InvalidInputError": "errors",
    "KernelError": "errors",
    "MarianaError": "errors",
    "Model": "model",
    "NotFoundError": "errors",
    "OutOfRangeError": "errors",
    "Receipt": "live.state",
    "Store": "store",
    "StoreError": "errors",
    "TrainingError": "errors",
    "build_index": "building",
    "load_model": "model",
    "open_index": "autocomplete",
}

__all__ = [
    "Answers",
    "Completion",
    "Explanation",
    "FileFormatError",
    "Index",
    "InvalidInputError",
    "KernelError",
    "MarianaError",
    "Model",
    "NotFoundError",
    "OutOfRangeError",
    "Receipt",
    "Store",
    "StoreError",
    "TrainingError",
    "build_index",
    "load_model",
    "open_index",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"mariana.{_HOME[name]}"), name)
    raise AttributeError(f"module 'mariana' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
