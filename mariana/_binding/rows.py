"""Numbers read straight out of a prediction request's JSON."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mariana._binding import ffi, lib

_json_rows = lib.mrn_json_rows
_from_buffer = ffi.from_buffer
_float32 = np.dtype(np.float32)
_empty = np.empty


def json_rows(body: bytes, columns: int, max_values: int) -> NDArray[np.float32] | None:
    """Return the rows of ``{"instances": [[number, ...], ...]}``, or None for a body that is anything else.

    None says nothing about right or wrong: then the full parser decides.

    Args:
        body: UTF-8 JSON.
        columns: numbers in a row.
        max_values: no more numbers than that are taken.

    Returns:
        (rows, columns) float32, all finite: what ``numpy.float32(json.loads(body)["instances"])`` gives.
    """
    most = min(max_values, len(body) // 2) // columns  # a number takes two bytes at least, with its comma
    x = _empty((most, columns), _float32)
    rows = ffi.new("size_t *")
    if _json_rows(body, len(body), columns, _from_buffer("float[]", x), x.size, rows) != 0:
        return None
    return x[: rows[0]]
