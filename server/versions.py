"""One version of a model, ready for requests: the quick way from the bytes of a body to the bytes of an answer.

The quick way takes what the strict readers in C take and what comes out finite, and declines everything else (None):
then the full way through pydantic decides, words the errors, and gives the same answer where there is one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic_core import to_json

from mariana._binding.rows import (
    PredictionWriter,
    RowBuffers,
    all_finite,
    json_floats,
    json_rows,
    json_tensor,
    raw_rows,
)
from mariana.errors import KernelError, MarianaError
from mariana.model import Model

from .bodies import RowReader
from .errors import Problem, status_of
from .limits import Limits
from .metrics import ModelStats
from .schedule import Schedule, measure

Float32 = NDArray[np.float32]

INPUT, OUTPUT = "input", "output"
"""Names of the one input and the one output tensor of every model."""

ID_MAX = 256
"""Characters of a request's id."""

OVERFLOW = "the numbers are so large that the network overflows on them"

_float32 = np.dtype("<f4")

_BINARY_HEAD = re.compile(
    rb'\s*\{\s*(?:"id"\s*:\s*"([ !#-\[\]-~]{0,256})"\s*,\s*)?'
    rb'"inputs"\s*:\s*\[\s*\{\s*"name"\s*:\s*"input"\s*,\s*"shape"\s*:\s*\[\s*([1-9]\d{0,8})\s*,\s*([1-9]\d{0,8})\s*\]\s*,'
    rb'\s*"datatype"\s*:\s*"FP32"\s*,\s*"parameters"\s*:\s*\{\s*"binary_data_size"\s*:\s*([1-9]\d{0,11})\s*\}\s*\}\s*\]\s*'
    rb"(?:,\s*(?:"
    rb'"outputs"\s*:\s*\[\s*\{\s*"name"\s*:\s*"output"\s*(?:,\s*"parameters"\s*:\s*\{\s*"binary_data"\s*:\s*(true|false)\s*\}\s*)?\}\s*\]'
    rb'|"parameters"\s*:\s*\{\s*"binary_data_output"\s*:\s*(true|false)\s*\}'
    rb")\s*)?\}\s*"
)
"""The JSON of an inference request with one tensor of bytes, as tritonclient and KServe's client write it."""


class Infer(NamedTuple):
    """The answer of an inference request."""

    body: bytes
    json_bytes: int | None
    """how many bytes of it are JSON; None: all of them"""


class Plain(NamedTuple):
    """An inference request of one tensor."""

    x: Float32
    """(rows, columns) float32, finite"""
    identity: bytes | None
    """the text of the id, as it stands in JSON"""
    binary: bool
    """the output is wanted as bytes"""


class _BinaryHead(NamedTuple):
    """The JSON of an inference request whose one tensor is bytes."""

    identity: bytes | None
    columns: int
    nbytes: int
    """of the tensor"""
    rows: int
    binary: bool
    """the output is wanted as bytes"""


@lru_cache(256)  # a client sends the same one again and again, but for an id
def _binary_head(text: bytes) -> _BinaryHead | None:
    head = _BINARY_HEAD.fullmatch(text)
    if head is None:
        return None
    identity, rows, columns, size, each, default = head.groups()
    return _BinaryHead(identity, int(columns), int(size), int(rows), (each or default) == b"true")


FEW_ROWS, FEW_NUMBERS = 16, 1 << 16
"""Requests up to this size are answered without an array of their own."""


class Version:
    """One version of a model.

    Attributes:
        name: of the model.
        number: of the version.
        model: it.
        reader: reads the bodies of its requests.
        stats: what it has done.
        loaded: when, in seconds since the epoch.
        schedule: where its rows run.
    """

    __slots__ = (
        "_buffers",
        "_columns",
        "_fitted",
        "_head",
        "_infer_head",
        "_infer_heads",
        "_limits",
        "_optional",
        "_outputs",
        "_predict",
        "_writer",
        "loaded",
        "model",
        "name",
        "number",
        "reader",
        "schedule",
        "stats",
    )

    def __init__(
        self,
        name: str,
        number: int,
        model: Model,
        limits: Limits,
        stats: ModelStats,
        *,
        loaded: float,
        window: float = 0.0,
    ) -> None:
        self.name = name
        self.number = number
        self.model = model
        self.reader = RowReader(model, limits)
        self.stats = stats
        self.loaded = loaded
        labels = model.info.labels
        self._columns = model.columns
        self._outputs = model.outputs
        self._predict = model.predict
        self._limits = limits
        cost = measure(model.predict, model.columns)
        self.schedule = Schedule(model.predict, cost, window, stats.batch)
        self._optional = any(feature.fill is not None for feature in model.info.features)
        self._writer = PredictionWriter(model.outputs, [to_json(label) for label in labels])
        self._fitted = 0
        self.fit()
        self._head = to_json({"model": name, "version": number, "labels": labels})[:-1] + b',"predictions":'
        self._infer_heads: dict[tuple[int, bool], bytes] = {}
        self._infer_head = to_json({"model_name": name, "model_version": str(number)})[:-1]

    def fit(self) -> None:
        """Make room for as many rows as the limits allow, where that is less than a few."""
        if self._fitted != self._limits.max_values:
            self._fitted = self._limits.max_values
            self._buffers = self._make_buffers()

    def _make_buffers(self) -> RowBuffers | None:
        """Return where requests of a few rows are answered; None: not on the event loop."""
        most = min(
            FEW_ROWS,
            self._limits.max_values // self._columns,
            FEW_NUMBERS // max(self._columns, self._outputs),
        )
        rows = next((rows for rows in range(most, 0, -1) if self.schedule.inline(rows)), 0)
        if rows == 0:
            return None
        return RowBuffers(self.model.bind, self._columns, self._outputs, self._writer, rows)

    async def predict(self, x: Float32) -> Float32:
        """Run rows through the network, where that belongs.

        Raises:
            Problem: 422, an output is not finite.
        """
        y = await self.schedule.run(x)
        if not all_finite(y):
            raise Problem(422, OVERFLOW)
        return y

    async def answer(self, x: Float32, start: float) -> bytes:
        """Return the body of a prediction's answer; arguments as for :meth:`_answer`.

        Raises:
            Problem: 422, an output is not finite.
        """
        parsed = perf_counter()
        y = await self.schedule.run(x)
        inferred = perf_counter()
        body = self._write(y)
        if body is None:
            raise Problem(422, OVERFLOW)
        self.stats.observe(len(x), start, parsed, inferred, perf_counter())
        return body

    def _write(self, y: Float32) -> bytes | None:
        text = self._writer.write(y)
        return None if text is None else self._head + text + b"}"

    def _answer(self, x: Float32, start: float) -> bytes | None:
        """Return the body of a prediction's answer; None when an output is not finite, or it is not for here.

        Args:
            x: (rows, columns) float32.
            start: when the reading of the body began, of ``perf_counter``.
        """
        if not self.schedule.inline(len(x)):
            return None
        parsed = perf_counter()
        y = self._predict(x)
        inferred = perf_counter()
        body = self._write(y)
        if body is None:
            return None
        self.stats.observe(len(x), start, parsed, inferred, perf_counter())
        return body

    @contextmanager
    def counting_errors(self) -> Iterator[None]:
        """Count what is raised inside, by the status that it is answered with."""
        try:
            yield
        except (Problem, MarianaError) as error:
            self.stats.error(str(status_of(error)))
            raise

    def quick_json(self, body: bytes) -> bytes | None:
        """Return the answer to a JSON body of a prediction, or None."""
        few = self._buffers
        if few is None:
            return None
        start = perf_counter()
        if len(body) <= few.json_bytes:
            rows = few.read_json(body)
            if rows:
                return self._answer_few(few, rows, start)
        x = json_rows(body, self._columns, self._limits.max_values)
        return None if x is None else self._answer(x, start)

    def quick_octets(self, body: bytes) -> bytes | None:
        """Return the answer to a body of float32 rows, or None."""
        few = self._buffers
        if few is None:
            return None
        start = perf_counter()
        rows = few.read_raw(body)
        if rows:
            return self._answer_few(few, rows, start)
        x = raw_rows(body, self._columns, self._limits.max_values)
        return None if x is None else self._answer(x, start)

    def _answer_few(self, few: RowBuffers, rows: int, start: float) -> bytes | None:
        """Return what :meth:`_answer` does, of the few rows in the buffers."""
        parsed = perf_counter()
        few.run(rows)
        inferred = perf_counter()
        text = few.predictions(rows)
        if text is None:
            return None
        self.stats.observe(rows, start, parsed, inferred, perf_counter())
        return b"%b%b}" % (self._head, text)

    def quick_infer(self, body: bytes, header_length: int | None) -> Infer | None:
        """Return the answer to an inference request, or None.

        Args:
            body: of the request.
            header_length: how many bytes of it are JSON; None: all of them; 0: it is the tensor alone.
        """
        few = self._buffers
        if few is None:
            return None
        start = perf_counter()
        rows, identity, binary = self._read_few(few, body, header_length)
        if not rows:
            return self._infer_many(body, header_length, start)
        parsed = perf_counter()
        few.run(rows)
        inferred = perf_counter()
        data = few.octets(rows) if binary else few.floats(rows)
        if data is None:
            return None
        answer = self._infer(data, rows, identity, binary=binary)
        self.stats.observe(rows, start, parsed, inferred, perf_counter())
        return answer

    def _read_few(
        self, few: RowBuffers, body: bytes, header_length: int | None
    ) -> tuple[int, bytes | None, bool]:
        """Read an inference request to the buffers; return rows (0: declined), id, and whether bytes are wanted."""
        if header_length is None:
            if len(body) > few.json_bytes:
                return 0, None, False
            rows, identity = few.read_tensor(body)
            return (0 if identity is not None and len(identity) > ID_MAX else rows), identity, False
        octets, identity, binary = self._split(body, header_length)
        return few.read_raw(octets), identity, binary

    def _split(self, body: bytes, header_length: int) -> tuple[bytes, bytes | None, bool]:
        """Return the bytes of a binary request's tensor (none: declined), its id, and whether bytes are wanted."""
        if header_length == 0:
            return body, None, True
        head = _binary_head(body[:header_length]) if header_length <= len(body) else None
        if head is None:
            return b"", None, False
        octets = body[header_length:]
        fits = head.columns == self._columns and head.nbytes == len(octets) == 4 * head.rows * self._columns
        return octets if fits else b"", head.identity, head.binary

    def read_plain(self, body: bytes, header_length: int | None) -> Plain | None:
        """Return a plain inference request; None for one that is anything else. Arguments as for :meth:`quick_infer`."""
        if header_length is None:
            tensor = json_tensor(body, self._columns, self._limits.max_values)
            if tensor is None or (tensor.id is not None and len(tensor.id) > ID_MAX):
                return None
            return Plain(tensor.x, tensor.id, binary=False)
        octets, identity, binary = self._split(body, header_length)
        x = raw_rows(octets, self._columns, self._limits.max_values)
        return None if x is None else Plain(x, identity, binary)

    def _infer_many(self, body: bytes, header_length: int | None, start: float) -> Infer | None:
        """Return the answer to an inference request that is too large for the buffers, or None."""
        asked = self.read_plain(body, header_length)
        if asked is None or not self.schedule.inline(len(asked.x)):
            return None
        parsed = perf_counter()
        y = self._predict(asked.x)
        inferred = perf_counter()
        answer = self.write_infer(y, asked.identity, binary=asked.binary)
        if answer is not None:
            self.stats.observe(len(y), start, parsed, inferred, perf_counter())
        return answer

    def write_infer(self, y: Float32, identity: bytes | None, *, binary: bool) -> Infer | None:
        """Return the answer of an inference request; None when an output is not finite.

        Args:
            y: (rows, outputs) float32.
            identity: the text of the request's id, as it stands in JSON; None: it had none.
            binary: the numbers as bytes.
        """
        if binary:
            data = y.astype(_float32, copy=False).tobytes() if all_finite(y) else None
        else:
            try:
                data = json_floats(y)
            except KernelError:
                data = None
        return None if data is None else self._infer(data, len(y), identity, binary=binary)

    def _infer(self, data: bytes, rows: int, identity: bytes | None, *, binary: bool) -> Infer:
        key = rows, binary
        text = self._infer_heads.get(key) if identity is None else None
        if text is None:
            head = self._infer_head if identity is None else b'%b,"id":"%b"' % (self._infer_head, identity)
            text = b'%b,"shape":[%d,%d],' % (head + _OUTPUT, rows, self._outputs)
            text += b'"parameters":{"binary_data_size":%d}}]}' % len(data) if binary else b'"data":['
            if identity is None and rows <= FEW_ROWS:
                self._infer_heads[key] = text
        return Infer(text + data, len(text)) if binary else Infer(b"%b%b]}]}" % (text, data), None)

    def config(self) -> dict[str, Any]:
        """Return what the Open Inference Protocol calls the model's configuration."""
        model = self.model
        return {
            "name": self.name,
            "platform": PLATFORM,
            "backend": "mariana",
            "max_batch_size": max(1, self._limits.max_values // self._columns),
            "dynamic_batching": {"max_queue_delay_microseconds": round(self.schedule.window * 1e6)},
            "version_policy": {"specific": {"versions": [self.number]}},
            "input": [{"name": INPUT, "data_type": "TYPE_FP32", "dims": [self._columns]}],
            "output": [{"name": OUTPUT, "data_type": "TYPE_FP32", "dims": [self._outputs]}],
            "instance_group": [{"name": self.name, "kind": "KIND_CPU", "count": 1}],
            "parameters": {
                "isa": {"string_value": model.isa},
                "precision": {"string_value": model.precision},
                "execution": {"string_value": self.schedule.cost.mode},
                "microseconds_1": {"string_value": f"{self.schedule.cost.one * 1e6:.1f}"},
                "microseconds_16": {"string_value": f"{self.schedule.cost.sixteen * 1e6:.1f}"},
            },
        }


PLATFORM = "mariana_dense"

_OUTPUT = b',"outputs":[{"name":"output","datatype":"FP32"'
