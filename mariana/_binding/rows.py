"""Bodies without Python objects: numbers read straight out of requests, predictions written straight into answers."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mariana._binding import check, ffi, lib

_json_rows = lib.mrn_json_rows
_raw_rows = lib.mrn_raw_rows
_all_finite = lib.mrn_all_finite
_json_tensor = lib.mrn_json_tensor
_json_floats = lib.mrn_json_floats
_json_predictions = lib.mrn_json_predictions
_json_predictions_bytes = lib.mrn_json_predictions_bytes
_from_buffer = ffi.from_buffer
_buffer = ffi.buffer
_unpack = ffi.unpack
_new = ffi.new
_float32 = np.dtype(np.float32)
_little = np.dtype("<f4")
_BIG_ENDIAN = sys.byteorder == "big"
_empty = np.empty
_FLOATS = ffi.typeof("float[]")
_SIZE = ffi.typeof("size_t *")
_CHARS = ffi.typeof("char[]")
_REQUEST = ffi.typeof("mrn_json_request *")
_FLOAT_BYTES = int(lib.MRN_JSON_FLOAT)

KEPT_BYTES = 1 << 16
"""A writer keeps its buffer for the next answer up to this size."""


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
    rows = _new(_SIZE)
    if _json_rows(body, len(body), columns, _from_buffer(_FLOATS, x), most * columns, rows) != 0:
        return None
    return x[: rows[0]]


def raw_rows(body: bytes, columns: int, max_values: int) -> NDArray[np.float32] | None:
    """Return the rows of a body of float32 numbers, little-endian; None for a body that is anything else.

    Arguments and the rest as for :func:`json_rows`. One pass in C instead of four calls of NumPy, each of which costs
    more than the numbers; and the rows are aligned, as those out of JSON are.
    """
    most = min(max_values, len(body) // 4) // columns
    x = _empty((most, columns), _float32)
    rows = _new(_SIZE)
    if _raw_rows(body, len(body), columns, _from_buffer(_FLOATS, x), most * columns, rows) != 0:
        return None
    return x


def all_finite(values: NDArray[np.float32]) -> bool:
    """Whether all of some numbers are finite; of a C-contiguous array."""
    return bool(_all_finite(_from_buffer(_FLOATS, values), values.size))


class Tensor(NamedTuple):
    """What :func:`json_tensor` found."""

    x: NDArray[np.float32]
    """(rows, columns) float32, all finite"""
    id: bytes | None
    """the text of the member ``id``; its bytes need no escaping in JSON"""


def json_tensor(body: bytes, columns: int, max_values: int) -> Tensor | None:
    """Return the one tensor of an Open Inference Protocol request, or None for a body that is anything else.

    Taken is ``{"id": "...", "inputs": [{"name": "input", "shape": [rows, columns], "datatype": "FP32",
    "data": [...]}]}`` with its members in any order; arguments and the rest as for :func:`json_rows`.
    """
    most = min(max_values, len(body) // 2) // columns
    x = _empty((most, columns), _float32)
    request = _new(_REQUEST)
    if _json_tensor(body, len(body), columns, _from_buffer(_FLOATS, x), most * columns, request) != 0:
        return None
    text = body[request.id : request.id + request.id_bytes] if request.has_id else None
    return Tensor(x[: request.rows], text)


def json_floats(values: NDArray[np.float32]) -> bytes:
    """Return numbers with commas between them, each the shortest decimal that reads back as the same float32.

    Raises:
        KernelError: one is not finite.
    """
    capacity = values.size * _FLOAT_BYTES
    out = _new(_CHARS, capacity + 1)
    size = _new(_SIZE)
    check(_json_floats(_from_buffer(_FLOATS, values), values.size, out, capacity, size), "write numbers")
    return bytes(_buffer(out, size[0]))


class RowBuffers:
    """Arrays for a few rows that C knows already, and a network bound to them; one call at a time.

    A row that is read to a new array, run, and written from another costs more in making and pointing to them than a
    small network takes. Here nothing is made but the bytes of the answer.

    Args:
        bind: of a model: makes the call that runs rows from one array to another.
        columns: numbers of a row.
        outputs: numbers that come out for a row.
        writer: of the outputs.
        rows: that it has place for, 1 or more.
    """

    __slots__ = (
        "_bind",
        "_capacity",
        "_columns",
        "_count",
        "_floats",
        "_out",
        "_outputs",
        "_request",
        "_size",
        "_steps",
        "_writer",
        "_x",
        "_x_at",
        "_y",
        "_y_at",
        "_y_flat",
        "json_bytes",
        "rows",
    )

    def __init__(
        self,
        bind: Callable[[NDArray[np.float32], NDArray[np.float32]], Callable[[], object]],
        columns: int,
        outputs: int,
        writer: PredictionWriter,
        rows: int,
    ) -> None:
        self.rows = rows
        self.json_bytes = 64 + 2 * _FLOAT_BYTES * columns * rows
        """A longer body is not worth trying: it has more rows, or is not plain."""
        self._bind = bind
        self._columns = columns
        self._outputs = outputs
        self._writer = writer
        self._capacity = rows * columns
        self._x, self._y = _empty((rows, columns), _float32), _empty((rows, outputs), _float32)
        self._x_at, self._y_at = _from_buffer(_FLOATS, self._x), _from_buffer(_FLOATS, self._y)
        self._y_flat = self._y.reshape(-1)
        self._steps: dict[int, Callable[[], object]] = {}
        self._count = _new(_SIZE)
        self._size = _new(_SIZE)
        self._request = _new(_REQUEST)
        self._floats = rows * outputs * _FLOAT_BYTES
        self._out = _new(_CHARS, self._floats)

    def read_json(self, body: bytes) -> int:
        """Read rows as :func:`json_rows` does; return how many, 0: declined."""
        if _json_rows(body, len(body), self._columns, self._x_at, self._capacity, self._count) != 0:
            return 0
        return int(self._count[0])

    def read_raw(self, body: bytes) -> int:
        """Read rows as :func:`raw_rows` does; return how many, 0: declined."""
        if _raw_rows(body, len(body), self._columns, self._x_at, self._capacity, self._count) != 0:
            return 0
        return int(self._count[0])

    def read_tensor(self, body: bytes) -> tuple[int, bytes | None]:
        """Read rows as :func:`json_tensor` does; return how many, 0: declined, and the id."""
        request = self._request
        if _json_tensor(body, len(body), self._columns, self._x_at, self._capacity, request) != 0:
            return 0, None
        at = request.id
        return request.rows, body[at : at + request.id_bytes] if request.has_id else None

    def run(self, rows: int) -> None:
        """Run the rows that were read."""
        step = self._steps.get(rows)
        if step is None:
            step = self._steps[rows] = self._bind(self._x[:rows], self._y[:rows])
        step()

    def predictions(self, rows: int) -> bytes | None:
        """Return the outputs as :meth:`PredictionWriter.write` does."""
        return self._writer.write_at(self._y_at, rows)

    def floats(self, rows: int) -> bytes | None:
        """Return the outputs as :func:`json_floats` does; None when one is not finite."""
        count = rows * self._outputs
        if _json_floats(self._y_at, count, self._out, self._floats, self._size) != 0:
            return None
        text: bytes = _unpack(self._out, self._size[0])
        return text

    def octets(self, rows: int) -> bytes | None:
        """Return the outputs as float32, little-endian; None when one is not finite."""
        count = rows * self._outputs
        if not _all_finite(self._y_at, count):
            return None
        if _BIG_ENDIAN:
            return self._y[:rows].astype(_little).tobytes()
        return self._y_flat[:count].tobytes()


class PredictionWriter:
    """Writes the outputs of a network as JSON; one call at a time.

    Args:
        outputs: numbers that come out for a row.
        labels: of the classes, as JSON texts; empty for values. As many as outputs, or two for one output.
    """

    __slots__ = ("_alive", "_form", "_out", "_row_bytes", "_size")

    def __init__(self, outputs: int, labels: Sequence[bytes]) -> None:
        ends = _new("uint64_t[]", np.cumsum([len(label) for label in labels], dtype=np.uint64).tolist() or 1)
        text = ffi.from_buffer(b"".join(labels) or b" ")
        self._form = _new("mrn_json_form *")
        self._form.outputs = outputs
        self._form.label_count = len(labels)
        self._form.labels = text
        self._form.label_ends = ends
        self._alive = (ends, text)
        self._size = _new(_SIZE)
        self._row_bytes = int(_json_predictions_bytes(self._form, 1))
        self._out = _new(_CHARS, max(KEPT_BYTES, self._row_bytes) if self._row_bytes <= KEPT_BYTES else 1)

    def write(self, y: NDArray[np.float32]) -> bytes | None:
        """Return the predictions as a JSON array; None when a number is not finite.

        Args:
            y: (rows, outputs) float32, C-contiguous.
        """
        return self.write_at(_from_buffer(_FLOATS, y), len(y))

    def write_at(self, y: Any, rows: int) -> bytes | None:
        """Do :meth:`write` for an array that C knows."""
        out = self._out
        capacity = rows * self._row_bytes + 2
        if capacity > len(out):
            out = _new(_CHARS, capacity)
        size = self._size
        if _json_predictions(self._form, y, rows, out, len(out), size) != 0:
            return None
        text: bytes = _unpack(out, size[0])
        return text
