"""Slow, obvious Python twins of the C kernels: for tests, and for reading.

Nothing here is fast, and nothing here shares code with what it checks.
"""

from __future__ import annotations
