"""Other model servers, each in an environment of its own, since their pins conflict with ours and with each other's.

``$MARIANA_PEERS/NAME`` is such an environment, made at the first use (by default under ~/.cache/mariana-peers). What is
installed stands in ``PACKAGES``. Where that cannot be done in ``SECONDS``, the peer is left out, and the table says why.

What runs there is ``benchmarks/peers/NAME_net.py``.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

PACKAGES = {
    "mlserver": ["mlserver==1.7.1", "uvloop==0.21.0"],
    "kserve": ["kserve==0.21.0"],
}
SECONDS = 120.0
"""For one peer to be installed."""


class Absent(Exception):  # noqa: N818 - no error of ours
    """Why a peer cannot be had."""


def environment(name: str) -> Path:
    """Return the interpreter of a peer's environment, made when it is not there.

    Raises:
        Absent: it cannot be made; the next run tries again.
    """
    folder = Path(os.environ.get("MARIANA_PEERS") or Path.home() / ".cache/mariana-peers") / name
    python, whole = folder / "bin" / "python", folder / "whole"
    if whole.exists():
        return python
    print(f"installing {' '.join(PACKAGES[name])} into {folder}", file=sys.stderr)
    uv = shutil.which("uv")
    install = (
        [uv, "pip", "install", "-q", "--python", python] if uv else [python, "-m", "pip", "install", "-q"]
    )
    try:
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", folder], check=True, timeout=SECONDS)
        subprocess.run([*install, *PACKAGES[name]], check=True, timeout=SECONDS)
        whole.touch()
    except subprocess.TimeoutExpired:
        raise Absent(f"not installed within {SECONDS:.0f} s") from None
    except (OSError, subprocess.CalledProcessError) as error:
        raise Absent(str(error)[:200]) from None
    return python
