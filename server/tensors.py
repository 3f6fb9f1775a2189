"""The Open Inference Protocol v2: requests of tensors, in JSON and in binary, and their answers."""

from __future__ import annotations

import itertools
import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictStr, ValidationError
from pydantic_core import to_json

from mariana.model import Model

from .bodies import RowReader, load_json, problem_at
from .errors import Problem, invalid, pointer
from .versions import ID_MAX, INPUT, OUTPUT, Infer, Plain, Version

HEADER_LENGTH = "inference-header-content-length"
"""The header that says how many bytes of a body are JSON; binary tensors come after them."""

_float32 = np.dtype(np.float32)
_FLOATS = {"FP16": "<f2", "FP32": "<f4", "FP64": "<f8"}
_INTEGERS = {
    f"{prefix}INT{8 * size}": f"<{'u' if prefix else 'i'}{size}"
    for prefix in ("", "U")
    for size in (1, 2, 4, 8)
}
Datatype = Literal[
    "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64", "BF16", "BYTES"
]  # fmt: skip


class TensorParameters(BaseModel):
    """Of a tensor in a request; others are ignored."""

    model_config = ConfigDict(strict=True)

    binary_data_size: Annotated[float, Field(ge=0, le=1 << 40, multiple_of=1)] | None = Field(
        default=None, description="bytes of the tensor's values, which come after the JSON", examples=[16]
    )


class InputTensor(BaseModel):
    """A tensor in a request: ``input`` with a row a first dimension, or one tensor a feature, by the feature's name."""

    model_config = ConfigDict(strict=True)

    name: StrictStr = Field(examples=[INPUT])
    shape: list[Annotated[float, Field(ge=0, le=1 << 31, multiple_of=1)]] = Field(
        min_length=1, max_length=9, examples=[[1, 4]]
    )
    datatype: Datatype = Field(examples=["FP32"])
    parameters: TensorParameters | None = None
    data: list[Any] | None = Field(
        default=None, description="row-major, flat or nested", examples=[[5.1, 3.5, 1.4, 0.2]]
    )


class OutputParameters(BaseModel):
    """Of an output in a request; others are ignored."""

    model_config = ConfigDict(strict=True)

    binary_data: StrictBool | None = Field(default=None, description="answer with bytes after the JSON")
    classification: Annotated[float, Field(ge=0, le=1 << 31, multiple_of=1)] | None = Field(
        default=None,
        description="answer with so many classes a row, the most probable first, as strings value:index:label",
    )


class RequestedOutput(BaseModel):
    """An output that a request asks for."""

    model_config = ConfigDict(strict=True)

    name: StrictStr = Field(examples=[OUTPUT])
    parameters: OutputParameters | None = None


class InferParameters(BaseModel):
    """Of a request; others are ignored."""

    model_config = ConfigDict(strict=True)

    binary_data_output: StrictBool | None = Field(
        default=None, description="answer with bytes after the JSON where an output does not say otherwise"
    )


class InferRequest(BaseModel):
    """An inference request."""

    model_config = ConfigDict(strict=True)

    id: StrictStr | None = Field(default=None, max_length=ID_MAX, description="comes back with the answer")
    parameters: InferParameters | None = None
    inputs: list[InputTensor] = Field(min_length=1, max_length=1 << 16)
    outputs: list[RequestedOutput] | None = Field(default=None, max_length=16)


class OutputTensor(BaseModel):
    """A tensor in an answer."""

    name: str
    datatype: str
    shape: list[int]
    parameters: dict[str, int] | None = Field(default=None, description="binary_data_size")
    data: list[float] | list[str] | None = None


class InferAnswer(BaseModel):
    """An inference answer."""

    model_name: str
    model_version: str
    id: str | None = None
    outputs: list[OutputTensor]


class Wish(NamedTuple):
    """How an output is to be answered."""

    binary: bool = False
    classes: int = 0


@dataclass(frozen=True, slots=True)
class Inference:
    """An inference request that has been read.

    Attributes:
        x: (rows, columns) float32.
        id: comes back with the answer.
        wish: how to answer the output.
    """

    x: NDArray[np.float32]
    id: str | None
    wish: Wish


def inference(plain: Plain) -> Inference:
    """Return what :func:`read_infer` makes of a plain request."""
    identity = None if plain.identity is None else plain.identity.decode()
    return Inference(plain.x, identity, Wish(plain.binary))


def read_infer(body: bytes, header_length: int | None, version: Version) -> Inference:
    """Read the body of an inference request.

    Args:
        body: JSON; or JSON and the bytes of tensors; or the bytes of the one tensor alone.
        header_length: bytes of JSON at the start: None all of them, 0 none of them.
        version: what the tensors are for.

    Raises:
        Problem: 400 malformed, or wrong shape, name or type; 413 too many values; 422 a value out of range.
    """
    model, reader = version.model, version.reader
    if header_length == 0:
        return Inference(reader.parse_octets(body), None, Wish(binary=True))
    if header_length is not None and header_length > len(body):
        raise Problem(400, "Inference-Header-Content-Length says more bytes than there are")
    request = _validated(load_json(body[:header_length]))
    blob = b"" if header_length is None else body[header_length:]
    tensors: dict[str, _Tensor] = {}
    for i, tensor in enumerate(request.inputs):
        at = pointer("inputs", i)
        if tensor.name in tensors:
            raise problem_at(f"{at}/name", "an input has this name already")
        tensors[tensor.name], blob = _tensor(tensor, at, blob, reader)
    if blob:
        raise Problem(400, "there are more bytes than the binary_data_size of all inputs")
    if INPUT in tensors and len(tensors) == 1:
        x = reader.rows_of(
            _numbers(tensors[INPUT]), f"{tensors[INPUT].at}/shape", f"{tensors[INPUT].at}/data"
        )
    else:
        x = _by_feature(tensors, model, reader)
    default = bool(request.parameters and request.parameters.binary_data_output)
    return Inference(x, request.id, _wish(request.outputs, default))


def _validated(document: Any) -> InferRequest:
    if not isinstance(document, dict):
        raise Problem(400, 'expected an object: {"inputs": [...]}')
    try:
        return InferRequest.model_validate(document)
    except ValidationError as error:
        raise invalid(error.errors(include_url=False, include_input=False)) from None


def _wish(outputs: list[RequestedOutput] | None, default: bool) -> Wish:
    if not outputs:
        return Wish(default)
    if len(outputs) > 1 or outputs[0].name != OUTPUT:
        raise problem_at("/outputs", f"expected one output, named {OUTPUT}")
    parameters = outputs[0].parameters or OutputParameters()
    binary = default if parameters.binary_data is None else parameters.binary_data
    return Wish(binary, int(parameters.classification or 0))


@dataclass(frozen=True, slots=True)
class _Tensor:
    at: str
    datatype: str
    shape: tuple[int, ...]
    values: NDArray[Any] | list[str | None]
    """flat; float64, the datatype's own type, or strings"""


def _tensor(tensor: InputTensor, at: str, blob: bytes, reader: RowReader) -> tuple[_Tensor, bytes]:
    """Return a tensor, and what comes after its bytes."""
    shape = tuple(int(size) for size in tensor.shape)
    count = math.prod(shape)
    reader.check_size(count)
    size = None if tensor.parameters is None else tensor.parameters.binary_data_size
    values: NDArray[Any] | list[str | None]
    if size is not None:
        if tensor.data is not None:
            raise problem_at(at, "has data in JSON and in bytes; one of them is meant")
        if size > len(blob):
            raise problem_at(f"{at}/parameters/binary_data_size", "says more bytes than there are")
        raw, blob = blob[: int(size)], blob[int(size) :]
        values = _from_bytes(raw, tensor.datatype, count, at)
    elif tensor.data is None:
        raise problem_at(at, "has no data")
    else:
        values = _from_json(tensor.data, tensor.datatype, len(shape), f"{at}/data")
        if len(values) != count:
            raise problem_at(f"{at}/data", f"expected {count} values by the shape, found {len(values)}")
    return _Tensor(at, tensor.datatype, shape, values), blob


def _from_json(data: list[Any], datatype: str, depth: int, at: str) -> NDArray[Any] | list[str | None]:
    flat: Sequence[Any] = data
    for _ in range(depth - 1):
        if not flat or not all(type(item) is list for item in flat):
            break
        flat = list(itertools.chain.from_iterable(flat))
    kinds = set(map(type, flat))
    if datatype == "BYTES":
        if not kinds <= {str, type(None)}:
            raise problem_at(at, "expected strings")
        return list(flat)
    wanted, word = (bool, "true or false") if datatype == "BOOL" else (float, "numbers")
    if not kinds <= {wanted, type(None)}:
        raise problem_at(at, f"expected {word}")
    values = np.array([math.nan if value is None else value for value in flat], np.float64)
    if datatype in _INTEGERS:
        limits = np.iinfo(np.dtype(_INTEGERS[datatype]))
        there = values[~np.isnan(values)]
        if not np.isfinite(there).all() or (there != np.rint(there)).any():
            raise problem_at(at, "expected whole numbers")
        if len(there) and (there.min() < limits.min or there.max() > limits.max):
            raise problem_at(at, f"a number does not fit {datatype}", 422)
    return values


def _from_bytes(raw: bytes, datatype: str, count: int, at: str) -> NDArray[Any] | list[str | None]:
    if datatype == "BYTES":
        return _strings(raw, count, at)
    code = {**_FLOATS, **_INTEGERS, "BOOL": "u1", "BF16": "<u2"}[datatype]
    dtype = np.dtype(code)
    if len(raw) != count * dtype.itemsize:
        raise problem_at(
            at, f"expected {count * dtype.itemsize} bytes by shape and datatype, found {len(raw)}"
        )
    values = np.frombuffer(raw, dtype)
    if datatype == "BF16":  # the upper half of a float32
        return (values.astype(np.uint32) << 16).view(np.float32)
    if datatype == "BOOL" and (values > 1).any():
        raise problem_at(at, "expected 0 or 1 in each byte of BOOL")
    return values


def _strings(raw: bytes, count: int, at: str) -> list[str | None]:
    strings: list[str | None] = []
    start = 0
    while start < len(raw) and len(strings) < count:
        end = start + 4 + int.from_bytes(raw[start : start + 4], "little")
        if start + 4 > len(raw) or end > len(raw):
            break
        try:
            strings.append(raw[start + 4 : end].decode())
        except UnicodeDecodeError:
            raise problem_at(at, "a string is not UTF-8") from None
        start = end
    if start != len(raw) or len(strings) != count:
        raise problem_at(at, f"expected {count} strings, each after its length in 4 bytes")
    return strings


def _numbers(tensor: _Tensor) -> NDArray[np.float32]:
    if isinstance(tensor.values, list):
        raise problem_at(f"{tensor.at}/datatype", "expected numbers; FP32 is what the model takes")
    with np.errstate(over="ignore", invalid="ignore"):  # what does not fit becomes infinity, and is refused
        return tensor.values.astype(_float32, copy=False).reshape(tensor.shape)


def _by_feature(tensors: dict[str, _Tensor], model: Model, reader: RowReader) -> NDArray[np.float32]:
    """Return the rows of a request that has one tensor a feature, each of shape (rows,) or (rows, 1)."""
    kinds = {field.name: field.kind for field in model.info.fields}
    columns: dict[str, list[Any]] = {}
    rows = None
    for name, tensor in tensors.items():
        if name not in kinds:
            raise problem_at(
                f"{tensor.at}/name", f"expected one input named {INPUT}, or inputs named as the features are"
            )
        if len(tensor.shape) > 2 or tensor.shape[1:] not in ((), (1,)) or rows not in (None, tensor.shape[0]):
            raise problem_at(
                f"{tensor.at}/shape", "expected (rows,) or (rows, 1), with as many rows as the others"
            )
        rows = tensor.shape[0]
        values = tensor.values if isinstance(tensor.values, list) else tensor.values.tolist()
        if kinds[name] == "boolean" and tensor.datatype == "BOOL":
            values = [value if value != value else bool(value) for value in values]  # noqa: PLR0124 - NaN
        columns[name] = [
            None if isinstance(value, float) and math.isnan(value) else value for value in values
        ]
    if not rows:
        raise problem_at("/inputs", "expected one row or more")
    reader.check_size(rows * model.columns)
    return model.encode([dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)])


def write_infer(version: Version, y: NDArray[np.float32], asked: Inference) -> Infer:
    """Return the answer to an inference request.

    Args:
        version: of the model.
        y: (rows, outputs) float32, finite.
        asked: the request.
    """
    wish = asked.wish
    if not wish.classes:
        identity = None if asked.id is None else to_json(asked.id)[1:-1]
        answer = version.write_infer(y, identity, binary=wish.binary)
        if answer is None:
            raise ValueError("the outputs are not finite")
        return answer
    strings = _classes(version.model, y, wish.classes)
    flat = [text for row in strings for text in row]
    tensor: dict[str, Any] = {"name": OUTPUT, "datatype": "BYTES", "shape": [len(strings), len(strings[0])]}
    raw = b""
    if wish.binary:
        raw = b"".join(struct.pack("<I", len(data)) + data for data in map(str.encode, flat))
        tensor["parameters"] = {"binary_data_size": len(raw)}
    else:
        tensor["data"] = flat
    head: dict[str, Any] = {"model_name": version.name, "model_version": str(version.number)}
    if asked.id is not None:
        head["id"] = asked.id
    text = to_json({**head, "outputs": [tensor]})
    return Infer(text + raw, len(text) if wish.binary else None)


def _classes(model: Model, y: NDArray[np.float32], count: int) -> list[list[str]]:
    """Return the greatest outputs of each row as value:index:label, as Triton's classification extension has it."""
    labels = model.info.labels if len(model.info.labels) == model.outputs else model.info.labels[1:]
    names = [f":{label}" for label in labels] or [""] * model.outputs
    order = np.argsort(-y, axis=1, kind="stable")[:, : min(count, model.outputs)]
    return [
        [f"{row[i]:f}:{i}{names[i]}" for i in places]
        for row, places in zip(y.tolist(), order.tolist(), strict=True)
    ]
