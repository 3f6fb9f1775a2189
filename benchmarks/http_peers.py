"""Other people's programs, each in an environment of its own, since their pins conflict with ours and with each other's.

``$MARIANA_PEERS/NAME`` is such an environment (by default under ~/.cache/mariana-peers). What is installed stands in
``PACKAGES``. The benchmark of HTTP makes those of the servers at its first run; where that cannot be done in
``SECONDS``, a peer is left out, and the table says why. Tests use those that are there; ``python -m benchmarks.http_peers``
makes all of them.

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
    "schemathesis": ["schemathesis==4.32.5"],
}
SERVERS = ("mlserver", "kserve")
SECONDS = 120.0
"""For one peer to be installed."""


class Absent(Exception):  # noqa: N818 - no error of ours
    """Why a peer cannot be had."""


def present(name: str) -> Path | None:
    """Return the interpreter of a peer's environment; None: it is not there."""
    folder = _folder(name)
    return folder / "bin" / "python" if (folder / "whole").exists() else None


def _folder(name: str) -> Path:
    return Path(os.environ.get("MARIANA_PEERS") or Path.home() / ".cache/mariana-peers") / name


def environment(name: str) -> Path:
    """Return the interpreter of a peer's environment, made when it is not there.

    Raises:
        Absent: it cannot be made; the next run tries again.
    """
    python = present(name)
    if python is not None:
        return python
    folder = _folder(name)
    python = folder / "bin" / "python"
    print(f"installing {' '.join(PACKAGES[name])} into {folder}", file=sys.stderr)
    uv = shutil.which("uv")
    pip = [uv, "pip", "install", "-q", "--python", python] if uv else [python, "-m", "pip", "install", "-q"]
    try:
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", folder], check=True, timeout=SECONDS)
        subprocess.run([*pip, *PACKAGES[name]], check=True, timeout=SECONDS)
        (folder / "whole").touch()
    except subprocess.TimeoutExpired:
        raise Absent(f"not installed within {SECONDS:.0f} s") from None
    except (OSError, subprocess.CalledProcessError) as error:
        raise Absent(str(error)[:200]) from None
    return python


if __name__ == "__main__":
    for peer in PACKAGES:
        print(environment(peer))
