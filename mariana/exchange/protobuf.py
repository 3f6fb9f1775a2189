"""The border to the package ``onnx``: files in and out, tensors checked before anything is made of them."""

from __future__ import annotations

import math
import os
import stat
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mariana.errors import FileFormatError, MarianaError, NotFoundError

MAX_FILE = 1 << 31
"""Protobuf's own bound; weights beyond it stand in a second file."""


def onnx_package() -> ModuleType:
    """Return the package ``onnx``.

    Raises:
        MarianaError: it is not installed.
    """
    try:
        import onnx  # noqa: PLC0415 - optional
    except ImportError:
        raise MarianaError("ONNX files need the package onnx: pip install 'mariana-serve[onnx]'") from None
    return onnx


def read_proto(path: Path) -> Any:
    """Read an ONNX file as far as protobuf understands it; what it says is checked by who reads it.

    Raises:
        NotFoundError: there is no such file.
        FileFormatError: not a regular file, too large, damaged, or no ONNX file.
        OSError: the file cannot be read.
    """
    onnx = onnx_package()
    from google.protobuf.message import DecodeError  # noqa: PLC0415 - comes with onnx

    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(_read(path, 0, None))
    except FileNotFoundError:
        raise NotFoundError(f"{path}: there is no such file") from None
    except IsADirectoryError:
        raise FileFormatError(f"{path}: not a regular file") from None
    except (DecodeError, RuntimeError) as error:
        raise FileFormatError(f"{path}: not an ONNX file, or a damaged one: {_short(error)}") from None
    if not proto.HasField("graph") or not proto.opset_import:
        raise FileFormatError(f"{path}: not an ONNX file, or a damaged one: it has no graph")
    if proto.functions:
        try:
            proto = onnx.inliner.inline_local_functions(proto)
        except Exception as error:  # noqa: BLE001 - what C++ says of broken functions has many types
            raise FileFormatError(f"{path}: its local functions cannot be inlined: {_short(error)}") from None
    return proto


def array_of(tensor: Any, path: Path) -> NDArray[Any]:
    """Return a tensor of a graph as an array; strings as an array of objects.

    Args:
        tensor: a TensorProto.
        path: the ONNX file; weights in a second file are looked for beside it.

    Raises:
        FileFormatError: its sizes are not those of its data, its type is not known here, or its second file is
            missing, elsewhere, or too short.
    """
    onnx = onnx_package()
    name, kinds = _short(tensor.name) or "(no name)", onnx.TensorProto
    known = {
        kinds.FLOAT: 4,
        kinds.DOUBLE: 8,
        kinds.FLOAT16: 2,
        kinds.BFLOAT16: 2,
        kinds.INT64: 8,
        kinds.INT32: 4,
    }
    dims = list(tensor.dims)
    if any(dim < 0 for dim in dims) or len(dims) > 8:
        raise FileFormatError(f"{path}: tensor {name!r} has the shape {_short(dims)}")
    count = math.prod(dims)
    if tensor.data_type in (kinds.BOOL, kinds.STRING):
        data = list(tensor.string_data) or list(tensor.int32_data) or list(tensor.raw_data)
        if len(data) != count:
            raise FileFormatError(f"{path}: tensor {name!r} should hold {count} values, found {len(data)}")
        texts = [item.decode("utf-8", "replace") if isinstance(item, bytes) else bool(item) for item in data]
        return np.array(texts, object if tensor.data_type == kinds.STRING else bool).reshape(dims)
    if tensor.data_type not in known:
        kind = kinds.DataType.Name(tensor.data_type) if tensor.data_type in kinds.DataType.values() else "?"
        raise FileFormatError(
            f"{path}: tensor {name!r} holds {kind}; float32, float64, float16, bfloat16 are read"
        )
    if tensor.data_location == kinds.EXTERNAL:
        raw = _external(tensor, name, path, count * known[tensor.data_type])
        tensor = kinds(name=tensor.name, dims=dims, data_type=tensor.data_type, raw_data=raw)
    if tensor.HasField("raw_data"):
        found, wanted = len(tensor.raw_data), count * known[tensor.data_type]
    else:
        fields = {
            kinds.FLOAT: tensor.float_data,
            kinds.DOUBLE: tensor.double_data,
            kinds.INT64: tensor.int64_data,
        }
        found, wanted = len(fields.get(tensor.data_type, tensor.int32_data)), count
    if found != wanted:
        raise FileFormatError(
            f"{path}: tensor {name!r} of shape {_short(dims)} is damaged: it has {found} of {wanted}"
        )
    array: NDArray[Any] = onnx.numpy_helper.to_array(tensor)
    return array.astype(np.float32) if tensor.data_type == kinds.BFLOAT16 else array


def _external(tensor: Any, name: str, path: Path, size: int) -> bytes:
    """Return the bytes of a tensor that stands in a second file, which must be in the same folder."""
    facts = {entry.key: entry.value for entry in tensor.external_data}
    location = facts.get("location", "")
    if location in {"", ".", ".."} or "/" in location or "\\" in location or "\0" in location:
        raise FileFormatError(
            f"{path}: tensor {name!r} points to {_short(location)!r}, which is no file beside it"
        )
    try:
        offset, length = int(facts.get("offset", "0")), int(facts.get("length", str(size)))
    except ValueError:
        offset, length = -1, -1
    if offset < 0 or length != size:
        raise FileFormatError(
            f"{path}: tensor {name!r} needs {size} bytes of {location!r}, found another length"
        )
    try:
        data = _read(path.parent / location, offset, size)
    except OSError as error:
        raise FileFormatError(f"{path}: its weights are in {location!r}: {error.strerror}") from None
    if len(data) != size:
        raise FileFormatError(f"{path}: {location!r} is too short for tensor {name!r}")
    return data


def _read(path: Path, offset: int, size: int | None) -> bytes:
    """Read a regular file, or a part of it; a link that the file is does not lead elsewhere when a part is read."""
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | (0 if size is None else os.O_NOFOLLOW)
    with open(path, "rb", opener=lambda name, _: os.open(name, flags)) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise FileFormatError(f"{path}: not a regular file")
        if size is None and status.st_size > MAX_FILE:
            raise FileFormatError(f"{path}: {status.st_size} bytes; an ONNX file has at most {MAX_FILE}")
        file.seek(min(offset, status.st_size))
        return file.read(status.st_size if size is None else min(size, status.st_size))


def _short(thing: object) -> str:
    text = " ".join(str(thing).split())
    return text if len(text) <= 120 else text[:117] + "..."
