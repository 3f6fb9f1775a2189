"""Compact one index: ``python -m mariana.live FOLDER``. A process that writes many changes starts this one."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from mariana.errors import MarianaError
from mariana.live.state import LiveIndex


def main(folder: str) -> int:
    """Compact the index of a folder, with what time the others leave; return the exit status."""
    os.nice(10)
    try:
        index = LiveIndex(Path(folder))
        try:
            index.compact()
        finally:
            index.close()
    except (MarianaError, OSError) as error:
        sys.stderr.write(f"cannot compact the index; it goes on as it is: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
