"""One version of a model, ready for requests: the quick way from the bytes of a body to the bytes of an answer.

The quick way takes what the strict readers in C take and what comes out finite, and declines everything else (None):
then the full way through pydantic decides, words the errors, and gives the same answer where there is one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic_core import to_json

from mariana._binding.rows import PredictionWriter, all_finite, json_floats, json_rows, json_tensor, raw_rows
from mariana.errors import KernelError, MarianaError
from mariana.model import Model
from mariana.settings import Settings

from .bodies import RowReader
from .errors import Problem, status_of
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


class _Asked(NamedTuple):
    """An inference request."""

    x: Float32
    identity: bytes | None
    binary: bool


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
        "_columns",
        "_head",
        "_infer_head",
        "_max_values",
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
        self, name: str, number: int, model: Model, settings: Settings, stats: ModelStats, loaded: float
    ) -> None:
        self.name = name
        self.number = number
        self.model = model
        self.reader = RowReader(model, settings)
        self.stats = stats
        self.loaded = loaded
        labels = model.info.labels
        self._columns = model.columns
        self._outputs = model.outputs
        self._predict = model.predict
        self._max_values = settings.max_values
        cost = measure(model.predict, model.columns)
        self.schedule = Schedule(model.predict, cost, settings.batch_window, stats.batch)
        self._optional = any(feature.fill is not None for feature in model.info.features)
        self._writer = PredictionWriter(model.outputs, [to_json(label) for label in labels])
        self._head = to_json({"model": name, "version": number, "labels": labels})[:-1] + b',"predictions":'
        self._infer_head = to_json({"model_name": name, "model_version": str(number)})[:-1]

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
        start = perf_counter()
        x = json_rows(body, self._columns, self._max_values)
        return None if x is None else self._answer(x, start)

    def quick_octets(self, body: bytes) -> bytes | None:
        """Return the answer to a body of float32 rows, or None."""
        start = perf_counter()
        x = raw_rows(body, self._columns, self._max_values)
        return None if x is None else self._answer(x, start)

    def quick_infer(self, body: bytes, header_length: int | None) -> Infer | None:
        """Return the answer to an inference request, or None.

        Args:
            body: of the request.
            header_length: how many bytes of it are JSON; None: all of them; 0: it is the tensor alone.
        """
        start = perf_counter()
        asked = self._read_infer(body, header_length)
        if asked is None or not self.schedule.inline(len(asked.x)):
            return None
        parsed = perf_counter()
        y = self._predict(asked.x)
        inferred = perf_counter()
        answer = self.write_infer(y, asked.identity, binary=asked.binary)
        if answer is not None:
            self.stats.observe(len(y), start, parsed, inferred, perf_counter())
        return answer

    def _read_infer(self, body: bytes, header_length: int | None) -> _Asked | None:
        if header_length is None:
            tensor = json_tensor(body, self._columns, self._max_values)
            if tensor is None or (tensor.id is not None and len(tensor.id) > ID_MAX):
                return None
            return _Asked(tensor.x, tensor.id, binary=False)
        if header_length == 0:
            x = raw_rows(body, self._columns, self._max_values)
            return None if x is None else _Asked(x, None, binary=True)
        head = _BINARY_HEAD.fullmatch(body, 0, header_length) if header_length <= len(body) else None
        if head is None:
            return None
        identity, rows, columns, size, each, default = head.groups()
        blob = body[header_length:]
        fits = int(columns) == self._columns and int(size) == len(blob) == 4 * int(rows) * self._columns
        x = raw_rows(blob, self._columns, self._max_values) if fits else None
        return None if x is None else _Asked(x, identity, binary=(each or default) == b"true")

    def write_infer(self, y: Float32, identity: bytes | None, *, binary: bool) -> Infer | None:
        """Return the answer of an inference request; None when an output is not finite.

        Args:
            y: (rows, outputs) float32.
            identity: the text of the request's id, as it stands in JSON; None: it had none.
            binary: the numbers as bytes.
        """
        head = self._infer_head
        if identity is not None:
            head = b'%b,"id":"%b"' % (head, identity)
        shape = b'"shape":[%d,%d]' % y.shape
        if binary:
            if not all_finite(y):
                return None
            text = (
                b'%b,"outputs":[{"name":"output","datatype":"FP32",%b,"parameters":{"binary_data_size":%d}}]}'
                % (head, shape, y.nbytes)
            )
            return Infer(text + y.astype(_float32, copy=False).tobytes(), len(text))
        try:
            data = json_floats(y)
        except KernelError:
            return None
        return Infer(
            b'%b,"outputs":[{"name":"output","datatype":"FP32",%b,"data":[%b]}]}' % (head, shape, data), None
        )

    def config(self) -> dict[str, Any]:
        """Return what the Open Inference Protocol calls the model's configuration."""
        model = self.model
        return {
            "name": self.name,
            "platform": PLATFORM,
            "backend": "mariana",
            "max_batch_size": max(1, self._max_values // self._columns),
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
