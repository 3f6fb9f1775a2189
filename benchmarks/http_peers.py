"""Other model servers, each in an environment of its own, since their pins conflict with ours and with each other's.

``$MARIANA_PEERS/NAME`` is such an environment, made at the first use (by default under ~/.cache/mariana-peers). What is
installed stands in ``PACKAGES``. Where that cannot be, the peer is left out, and a line says so.

What runs there is ``benchmarks/peers/NAME_net.py``.
"""

import os
import subprocess
import sys
from pathlib import Path

PACKAGES = {
    "mlserver": ["mlserver==1.7.1", "uvloop==0.21.0"],
    "kserve": ["kserve==0.21.0"],
}


def environment(name: str) -> Path | None:
    """Return the interpreter of a peer's environment, made when it is not there; None where it cannot be."""
    folder = Path(os.environ.get("MARIANA_PEERS") or Path.home() / ".cache/mariana-peers") / name
    python = folder / "bin" / "python"
    if not python.exists():
        print(f"installing {' '.join(PACKAGES[name])} into {folder}", file=sys.stderr)
        try:
            subprocess.run([sys.executable, "-m", "venv", folder], check=True)
            subprocess.run([python, "-m", "pip", "install", "-q", *PACKAGES[name]], check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            print(f"{name} is left out: {error}", file=sys.stderr)
            return None
    return python
