# Types of the extension module that csrc/python/ makes.

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

class Network:
    def __new__(
        cls,
        run: int,
        model: int,
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
