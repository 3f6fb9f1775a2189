"""What was acknowledged survives SIGKILL at any moment, whole."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(path: Path, rounds: int, seed: int) -> dict[str, int]:
    done = subprocess.run(
        [sys.executable, ROOT / "tests/e2e/kill_writers.py", path / "index", str(rounds), str(seed)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def test_ten_rounds(tmp_path: Path) -> None:
    assert run(tmp_path, 10, seed=1)["acknowledged"] >= 10


@pytest.mark.slow
def test_two_hundred_rounds(tmp_path: Path) -> None:
    report = run(tmp_path, 200, seed=2)
    assert report["acknowledged"] > 500
    assert report["segments"] > 3, "there were compactions to be killed"
