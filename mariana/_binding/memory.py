"""Memory that several processes use, as the binding sees it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Memory(Protocol):
    """Where packed networks may be that several processes use."""

    def take(
        self, key: bytes, size: int, fill: Callable[[NDArray[np.uint8]], None]
    ) -> NDArray[np.uint8] | None:
        """Return a block with what ``fill`` writes, at the same address in every process; None: there is no room.

        Args:
            key: 32 bytes that tell blocks apart.
            size: of the block.
            fill: writes the block; not called when another process has done that.
        """
