"""Bodies of requests: read within their limits, then parsed into float32 rows."""

from __future__ import annotations

import json
import math
import re
import zlib
from collections.abc import Callable, Mapping
from typing import Annotated, Any, NoReturn

import numpy as np
from fastapi import Request
from numpy.typing import NDArray
from pydantic import Field, TypeAdapter, ValidationError
from pydantic.types import FailFast
from starlette.requests import ClientDisconnect

from mariana._binding.rows import json_rows
from mariana.errors import InvalidInputError
from mariana.model import Model

from .errors import Fault, Problem, invalid, pointer
from .limits import Limits

JSON, OCTETS, NPY = "application/json", "application/octet-stream", "application/x-npy"

_JSON_TYPES = frozenset({"", JSON, "text/json", "text/plain", "application/x-www-form-urlencoded"})
"""Read as JSON. No type at all is what tritonclient sends, the last one what curl sends unless told otherwise."""

_FLOAT32_MAX = float(np.finfo(np.float32).max)
_float32 = np.dtype(np.float32)

Number = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=-_FLOAT32_MAX, le=_FLOAT32_MAX)]
"""A JSON number that fits float32; true and "3" are none."""


def media_type(content_type: str) -> str:
    """Return what a header Content-Type means: one of JSON, OCTETS, NPY.

    Raises:
        Problem: 415, it is another type, or in another charset than UTF-8.
    """
    kind, _, parameters = content_type.partition(";")
    kind = kind.strip().lower()
    if kind in (OCTETS, NPY):
        return kind
    charset = re.search(r'charset\s*=\s*"?([^";\s]*)', parameters, re.IGNORECASE)
    if charset is not None and charset[1].lower() not in ("utf-8", "utf8", "us-ascii"):
        raise Problem(415, "JSON is UTF-8; send it in no other charset")
    if kind in _JSON_TYPES or kind.endswith("+json"):
        return JSON
    accepted = f"{JSON}, {OCTETS}, {NPY}"
    raise Problem(415, f"this type of body is not taken; send {accepted}", headers={"Accept-Post": accepted})


async def read_body(request: Request, limit: int) -> bytes:
    """Return the body, decompressed where its Content-Encoding is gzip or deflate.

    Raises:
        Problem: 400, it is not compressed as it says; 413, it is longer than ``limit`` bytes, seen from its announced
            length, while it arrives, or while it is decompressed; 415, another Content-Encoding.
    """
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in _WINDOWS:
        accepted = ", ".join(name for name in _WINDOWS if name)
        raise Problem(
            415,
            f"bodies are taken with Content-Encoding {accepted} or none",
            headers={"Accept-Encoding": accepted},
        )
    announced = request.headers.get("content-length")
    announced = (
        None if announced is None else announced.strip(" \t")
    )  # RFC 9110 section 5.5; parsers leave it
    if announced is not None and (not announced.isdecimal() or len(announced) > 18 or int(announced) > limit):
        _refuse_length(limit)
    receive = request.receive
    chunks: list[bytes] = []
    total = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunk = message.get("body", b"")
        total += len(chunk)
        if total > limit:
            _refuse_length(limit)
        chunks.append(chunk)
        if not message.get("more_body", False):
            break
    body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
    window = _WINDOWS[encoding]
    return body if window is None else _decompress(body, window, limit)


_WINDOWS = {"": None, "identity": None, "gzip": 31, "deflate": 15}
"""What zlib calls them; deflate is the zlib format (RFC 9110 section 8.4.1.2)."""


def _decompress(body: bytes, window: int, limit: int) -> bytes:
    reader = zlib.decompressobj(window)
    try:
        data = reader.decompress(body, limit + 1)
    except zlib.error:
        raise Problem(400, "the body is not compressed as its Content-Encoding says") from None
    if len(data) > limit:
        _refuse_length(limit)
    if not reader.eof or reader.unused_data:
        raise Problem(400, "the compressed body is cut short, or something comes after it")
    return data


def _refuse_length(limit: int) -> NoReturn:
    raise Problem(413, f"the body is longer than {limit} bytes; send fewer rows at a time")


class RowReader:
    """Reads the bodies of a model's prediction requests.

    Args:
        model: what the rows are for.
        limits: in force.
    """

    def __init__(self, model: Model, limits: Limits) -> None:
        self._model = model
        self._columns = model.columns
        self._shape = model.info.input_shape
        self.limits = limits
        """How much one request may have."""
        self._required = np.array([feature.fill is None for feature in model.info.features])
        row = Annotated[
            list[Number | None], Field(min_length=model.columns, max_length=model.columns), FailFast()
        ]
        self._rows: TypeAdapter[list[list[float | None]]] = TypeAdapter(Annotated[list[row], FailFast()])

    def longest(self, kind: str) -> int:
        """Return how many bytes a body of a type may have."""
        return self.limits.max_body if kind == JSON else self.limits.max_binary_body

    def parse(self, kind: str, body: bytes) -> NDArray[np.float32]:
        """Return the rows of a body: (rows, columns) float32, NaN for a missing value that the model stands in for.

        Args:
            kind: of :func:`media_type`.
            body: all of it.

        Raises:
            Problem: 400 malformed, or wrong shape or type; 413 too many values; 422 a value out of range.
            InvalidInputError: as 400 and 422.
        """
        if kind == JSON:
            x = json_rows(body, self._columns, self.limits.max_values)
            return self.parse_json(body) if x is None else x
        return self.parse_octets(body) if kind == OCTETS else self._parse_npy(body)

    def parse_json(self, body: bytes) -> NDArray[np.float32]:
        """Return the rows of a JSON body: what the fast path declined, and the words for what is wrong with it."""
        document = load_json(body)
        if not isinstance(document, dict):
            raise Problem(400, 'expected an object: {"instances": [...]}')
        instances = document.get("instances")
        if not isinstance(instances, list) or not instances:
            raise problem_at("/instances", "expected an array of one instance or more")
        return self.parse_rows(instances, "instances")

    def parse_rows(self, instances: list[Any], member: str) -> NDArray[np.float32]:
        """Return the rows of an array out of a JSON body: rows of numbers, or records.

        Args:
            instances: not empty.
            member: where it stood in the body.
        """
        self.check_size(len(instances) * self._columns)
        if all(isinstance(instance, dict) for instance in instances):
            return self._encode(instances, member)
        try:
            rows = self._rows.validate_python(instances)
        except ValidationError as error:
            details = error.errors(include_url=False, include_input=False, include_context=True)
            for detail in details:
                # Of the union "number or null" pydantic tells both members; the number's is the one meant.
                detail["loc"] = (member, *(part for part in detail["loc"] if isinstance(part, int)))
            raise invalid([d for d in details if d["type"] != "none_required"]) from None
        x = np.array([[math.nan if v is None else v for v in row] for row in rows], dtype=_float32)
        self._check_values(x, missing=400, where=lambda row, column: pointer(member, row, column))
        return x

    def _encode(self, records: list[Mapping[str, object]], member: str) -> NDArray[np.float32]:
        try:
            return self._model.encode(records)
        except InvalidInputError as error:
            error.pointer = f"/{member}{error.pointer}"
            raise

    def rows_of(self, array: NDArray[np.float32], shape_at: str, data_at: str) -> NDArray[np.float32]:
        """Return the rows of a tensor with a row a first dimension.

        Args:
            array: of any shape.
            shape_at: where in the body the shape stood.
            data_at: and the numbers.

        Raises:
            Problem: 400 another shape; 422 a number out of range.
        """
        if array.shape[1:] not in ((self._columns,), self._shape) or not len(array):
            raise problem_at(shape_at, f"expected [rows, {self._columns}]; see input_shape of the model")
        x = np.ascontiguousarray(array.reshape(len(array), self._columns), _float32)
        self._check_values(x, where=lambda _row, _column: data_at)
        return x

    def parse_octets(self, body: bytes) -> NDArray[np.float32]:
        """Return the rows of a body of float32 numbers, little-endian."""
        row_bytes = 4 * self._columns
        if not body or len(body) % row_bytes:
            raise Problem(
                400,
                f"expected whole rows of {row_bytes} bytes ({self._columns} float32), got {len(body)} bytes",
            )
        self.check_size(len(body) // 4)
        x = np.frombuffer(body, "<f4").reshape(-1, self._columns).astype(_float32, copy=False)
        self._check_values(x)
        return x

    def _parse_npy(self, body: bytes) -> NDArray[np.float32]:
        array = parse_npy(body, self.limits.max_values)
        if array.shape in ((self._columns,), self._shape):
            array = array.reshape(1, self._columns, order="C")
        elif array.ndim >= 2 and array.shape[1:] in ((self._columns,), self._shape) and len(array):
            array = array.reshape(len(array), self._columns, order="C")
        else:
            raise Problem(
                400, f"expected an array of shape (rows, {self._columns}); see input_shape of the model"
            )
        with np.errstate(over="ignore"):  # what does not fit becomes infinity, and is refused as such
            x = np.ascontiguousarray(array, _float32)
        self._check_values(x)
        return x

    def check_size(self, values: int) -> None:
        """Refuse more numbers than one request may have (Problem, 413)."""
        if values > self.limits.max_values:
            self._refuse_values()

    def _refuse_values(self) -> NoReturn:
        most = self.limits.max_values // self._columns
        raise Problem(413, f"more than {self.limits.max_values} values; send at most {most} rows at a time")

    def _check_values(
        self,
        x: NDArray[np.float32],
        *,
        missing: int = 422,
        where: Callable[[int, int], str] = lambda row, column: pointer("instances", row, column),
    ) -> None:
        """Refuse infinities, and with the status ``missing`` missing values that nothing stands in for."""
        if np.isfinite(x).all():
            return
        for bad, status, sentence in (
            (np.isinf(x), 422, "expected a finite number that fits float32"),
            (np.isnan(x) & self._required, missing, "a value is missing, and the model has none to stand in"),
        ):
            if bad.any():
                row, column = np.argwhere(bad)[0].tolist()
                raise problem_at(where(row, column), sentence, status)


def problem_at(where: str, sentence: str, status: int = 400) -> Problem:
    """Return the problem with what is at a JSON pointer."""
    return Problem(status, f"{where}: {sentence}", errors=[Fault(where, sentence)])


def load_json(body: bytes) -> Any:
    """Return the value of a JSON body, every number of it a float.

    Stricter than ``json.loads``: UTF-8 without a byte order mark, no NaN and Infinity, no name twice in an object.

    Raises:
        Problem: 400.
    """
    try:
        text = body.decode()
    except UnicodeDecodeError:
        raise Problem(400, "the body is not UTF-8") from None
    try:
        return _decoder.decode(text)
    except _RefusedError as error:
        raise Problem(400, str(error)) from None
    except json.JSONDecodeError as error:
        raise Problem(400, f"the body is not JSON: see its character {error.pos}") from None
    except RecursionError:
        raise Problem(400, "the body is nested too deeply; expected at most 8 levels") from None


class _RefusedError(Exception):
    pass


def _refuse_constant(_constant: str) -> NoReturn:
    raise _RefusedError("NaN and Infinity are not JSON; a missing value is null")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        raise _RefusedError("an object has the same name twice")
    return document


_decoder = json.JSONDecoder(parse_constant=_refuse_constant, parse_int=float, object_pairs_hook=_unique)

_NPY_HEADER = re.compile(
    rb"\{'descr': '([<>|](?:f[248]|[iu][1248]))', 'fortran_order': (True|False), "
    rb"'shape': \(((?:\d{1,10}, ?)*\d{0,10})\), ?\}\s*"
)


def parse_npy(body: bytes, max_values: int) -> NDArray[Any]:
    """Return the array of an ``.npy`` file of numbers (format versions 1 to 3), a view of ``body``.

    The header is matched, not evaluated; lengths are compared with what is there before anything is made.

    Raises:
        Problem: 400 malformed; 413 more than ``max_values`` numbers.
    """
    if body[:6] != b"\x93NUMPY" or len(body) < 12 or body[6] not in (1, 2, 3):
        raise Problem(400, "the body is not in NumPy's .npy format; write it with numpy.save")
    width = 2 if body[6] == 1 else 4
    start = 8 + width + int.from_bytes(body[8 : 8 + width], "little")
    header = _NPY_HEADER.fullmatch(body[8 + width : start]) if start <= min(len(body), 10_000) else None
    if header is None:
        raise Problem(400, "the .npy header is damaged, or tells of something else than plain numbers")
    dtype = np.dtype(header[1].decode())
    shape = tuple(int(size) for size in header[3].split(b",") if size.strip())
    count = math.prod(shape)
    if count > max_values:
        raise Problem(413, f"more than {max_values} values; send fewer rows at a time")
    if len(body) - start != count * dtype.itemsize or len(shape) > 8:
        raise Problem(400, "the .npy header tells of another number of bytes than there are")
    array = np.frombuffer(body, dtype, offset=start)
    return array.reshape(shape[::-1]).T if header[2] == b"True" else array.reshape(shape)
