"""Memory given back: measured in a process of its own, as the system counts it."""

import subprocess
import sys

import pytest

PROGRAM = """
import ssl, sys
import numpy as np
from mariana.server.heap import give_back_code

def code():
    kilobytes = running = 0
    for line in open("/proc/self/smaps"):
        words = line.split()
        if not words[0].endswith(":"):
            running = words[1] == "r-xp" and words[-1].startswith("/")
        elif words[0] == "Rss:" and running:
            kilobytes += int(words[1])
    return kilobytes

x = np.random.default_rng(0).random((64, 64))
expected, before = x @ x, code()
give_back_code()
after = code()
assert (x @ x == expected).all() and ssl.create_default_context() is not None
print(before, after)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="counts what /proc tells")
def test_code_that_is_not_used_is_let_go_and_comes_back() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    before, after = map(int, done.stdout.split())
    assert after < before / 2
