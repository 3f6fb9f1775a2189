# Types of the extension module that csrc/python/ makes.

from collections.abc import Callable
from mmap import mmap
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

_Kind = TypeVar("_Kind", bound=tuple[Any, ...])
_Answers = TypeVar("_Answers")

class Network:
    def __new__(
        cls,
        run: int,
        share: int,
        settle: int,
        model: int,
        pool: int,
        alive: object,
        columns: int,
        outputs: int,
        scratch_bytes: int,
        short_rows: int,
        array: type[NDArray[Any]],
        empty: Any,
        dtype: np.dtype[np.float32],
    ) -> Self: ...
    def predict(self, x: object, /) -> NDArray[np.float32] | None: ...

class Reader:
    def __new__(
        cls,
        json: int,
        complete: int,
        reader: int,
        alive: object,
        files: tuple[bytes | mmap, ...],
        edits: dict[str | int, int],
    ) -> Self: ...
    def json(self, prefix: object, limit: object, fuzzy: object, /) -> bytes | None: ...
    def complete(
        self,
        prefix: object,
        limit: object,
        fuzzy: object,
        kind: type[_Kind],
        payload: Callable[[bytes], object],
        answers: Callable[[list[_Kind]], _Answers],
        /,
    ) -> _Answers | None: ...
