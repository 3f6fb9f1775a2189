"""The quick way into a model file: the plan that its writer sealed, read without a schema.

A model file holds a document, which says everything, and beside it the network's *plan*: the arrays that the document
comes down to once it has been checked. The plan begins with the *seal*, a checksum of the plan and of all of the file
behind it. Who finds the seal whole knows that the file is as it was written, after every check was made, and needs no
schema, no JSON, no checksum of each tensor. Whatever is odd about a file makes :func:`read_sealed` say None; then
``mariana.format`` reads it, and finds the words for what is wrong.

A seal can be forged. Nothing relies on more than this: what is read here are numbers and views of bytes that are
there, the binding compares the sizes of all arrays, C checks the rest. A forged plan is refused, or its answers are
wrong; the document is checked as soon as somebody asks for it.

``docs/format.md`` describes the bytes.
"""

from __future__ import annotations

import math
import os
import stat
from binascii import a2b_base64, b2a_base64, crc32
from pathlib import Path
from struct import Struct
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from mariana.errors import FileFormatError
from mariana.plan import Layer, Plan, Tables

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

PLAN_KEY = "mariana.plan"
SCHEMA = 0x96080BF9
"""Checksum of the names of all fields of the document. A plan made under another schema is not taken: it may come from a
later Mariana, whose new fields this one has to refuse."""

DAMAGED = "not a safetensors file, or a damaged one"
MAX_HEADER = 100_000_000  # as the safetensors package has it
_BEGIN = f'{{"__metadata__":{{"{PLAN_KEY}":"'.encode()
_SEAL = Struct("<I")
_HEAD = Struct("<6I16s")  # schema, dimensions, layers, tables, encoded columns, golden rows, precision
_LAYER = Struct(
    "<2I16sf4Q"
)  # inputs, units, activation, slope, where weight, bias, weight_scale, slope begin
_ABSENT = (1 << 64) - 1
_FLOAT32 = np.dtype("<f4")
_WEIGHTS = {"float32": "<f4", "bfloat16": "<u2", "int8": "i1"}
_TENSORS = ("weight", "bias", "weight_scale", "slope")
_TABLES = {
    "categories": ("<u4", "columns"),
    "copies": ("<u4", "columns"),
    "forms": ("<u4", "encoded"),
    "fill": ("<f4", "columns"),
    "shift": ("<f4", "encoded"),
    "scale": ("<f4", "encoded"),
    "target_shift": ("<f4", "outputs"),
    "target_scale": ("<f4", "outputs"),
}
"""Type and length of each, in the order in which they stand in a plan, and in which a bit says that they do."""


class SealedFile:
    """What the quick way finds in a model file.

    Attributes:
        plan: of the network; its arrays are views of the file's bytes.
        path: of the file.
        header: of the file, with the document, which nobody has looked at.
    """

    __slots__ = ("header", "path", "plan")

    def __init__(self, plan: Plan, path: Path, header: bytes) -> None:
        self.plan = plan
        self.path = path
        self.header = header


def read_sealed(path: Path) -> SealedFile | None:
    """Return the plan of a model file whose seal is whole; None for every other file, whatever is wrong with it."""
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            header = read_header(path, file, size)
            if not header.startswith(_BEGIN, 8):
                return None
            start = 8 + len(_BEGIN)
            end = header.index(b'"', start)
            sealed = a2b_base64(header[start:end], strict_mode=True)
            (seal,), plan = _SEAL.unpack_from(sealed), _Reader(sealed[_SEAL.size :])
            if plan.schema != SCHEMA or plan.tensor_bytes != size - len(header):
                return None
            tensors = file.read()
        if crc32(tensors, crc32(header[end:], crc32(plan.given))) != seal:
            return None
        return SealedFile(plan.read(tensors), path, header)
    except Exception:  # noqa: BLE001 - the bytes come from anywhere; mariana.format says what is wrong with them
        return None


def open_regular(path: Path) -> BinaryIO:
    """Open a model file.

    Raises:
        FileFormatError: it is a folder, a pipe, a device.
        OSError: it cannot be read.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # or a pipe would block here
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise FileFormatError(f"{path}: not a regular file; a model file is named model.safetensors")
    return os.fdopen(descriptor, "rb")


def read_header(path: Path, file: BinaryIO, size: int) -> bytes:
    """Return the start of a safetensors file: 8 bytes that say how long the header is, and the header.

    Raises:
        FileFormatError: the header does not lie inside of the file.
    """
    start = file.read(8)
    length = int.from_bytes(start, "little")
    if len(start) < 8 or length > min(size - 8, MAX_HEADER):
        raise FileFormatError(
            f"{path}: {DAMAGED}: its header is said to have {length} bytes, the file has {size}"
        )
    return start + file.read(length)


class _Reader:
    """Reads a plan out of its bytes; whatever they are, with an exception of Python or NumPy at worst."""

    def __init__(self, given: bytes) -> None:
        self.given = given
        self._at = 0
        (head,) = self._records(_HEAD, 1)
        self.schema, dimensions, layers, self._present, self._encoded, self._golden, precision = head
        self._precision = _text(precision)
        self._weights = np.dtype(_WEIGHTS[self._precision])
        self._layers = self._records(_LAYER, layers)
        self._shape = self._numbers("<u4", dimensions).tolist()

    @property
    def tensor_bytes(self) -> int:
        """Bytes that all tensors take."""
        parts = (part for layer in self._layers for part in self._tensors(layer))
        return sum(dtype.itemsize * math.prod(shape) for _, dtype, shape, _ in parts)

    def read(self, tensors: bytes) -> Plan:
        """Return the plan, with views of the tensors."""
        layers = []
        for layer in self._layers:
            arrays = {
                name: np.frombuffer(tensors, dtype, math.prod(shape), at).reshape(shape)
                for name, dtype, shape, at in self._tensors(layer)
                if at % dtype.itemsize == 0
            }
            _, units, activation, slope, *_ = layer
            if not math.isnan(slope) and units <= len(tensors):
                arrays["slope"] = np.full(units, slope, np.float32)
            others = (arrays.get(name) for name in ("slope", "weight_scale"))
            layers.append(Layer(arrays["weight"], arrays.get("bias"), _text(activation), *others))
        columns, outputs = math.prod(self._shape), layers[-1].weight.shape[1]
        if columns >= 1 << 32:
            raise ValueError("more columns than C can count")
        tables = {
            name: self._numbers(
                dtype, {"columns": columns, "encoded": self._encoded, "outputs": outputs}[count]
            )
            for bit, (name, (dtype, count)) in enumerate(_TABLES.items())
            if self._present >> bit & 1
        }
        golden = (self._numbers("<f4", self._golden, width) for width in (columns, outputs))
        return Plan(self._precision, tuple(self._shape), layers, Tables(**tables), *golden)

    def _records(self, kind: Struct, count: int) -> list[tuple[Any, ...]]:
        start, self._at = self._at, self._at + count * kind.size
        return list(kind.iter_unpack(self.given[start : self._at]))

    def _numbers(self, dtype: str, *shape: int) -> NDArray[Any]:
        array = np.frombuffer(self.given, dtype, math.prod(shape), self._at)
        self._at += array.nbytes
        return array.reshape(shape)

    def _tensors(self, layer: tuple[Any, ...]) -> Iterator[tuple[str, np.dtype[Any], tuple[int, ...], int]]:
        """Name, type, shape and place of each tensor of a layer."""
        inputs, units, _, _, *places = layer
        for name, at in zip(_TENSORS, places, strict=True):
            if at != _ABSENT:
                weight = name == "weight"
                yield name, self._weights if weight else _FLOAT32, (inputs, units) if weight else (units,), at


def _text(padded: bytes) -> str:
    return padded.rstrip(b"\0").decode()


def seal(header: bytes, tensors: bytes, plan: Plan, names: Sequence[str], places: Mapping[str, int]) -> bytes:
    """Return the bytes of a safetensors file with the plan and its seal put in front of what the header holds.

    A header that would become too long stays without.

    Args:
        header: JSON without spaces, that begins with ``__metadata__``, which is not empty.
        tensors: all that comes after the header.
        plan: what the document in the header comes down to.
        names: of the layers.
        places: where the tensors begin, by their names.
    """
    given = _written(plan, names, places)
    rest = b'",' + header.removeprefix(b'{"__metadata__":{')
    length = len(_BEGIN) + (_SEAL.size + len(given) + 2) // 3 * 4 + len(rest)
    if length <= MAX_HEADER - 8:
        rest += b" " * (-length % 8)  # tensors begin at a multiple of 8
        checksum = crc32(tensors, crc32(rest, crc32(given)))
        header = _BEGIN + b2a_base64(_SEAL.pack(checksum) + given, newline=False) + rest
    return len(header).to_bytes(8, "little") + header + tensors


def _written(plan: Plan, names: Sequence[str], places: Mapping[str, int]) -> bytes:
    """Return the bytes of a plan, as :class:`_Reader` takes them."""
    tables = plan.tables.present()
    present = sum(1 << bit for bit, name in enumerate(_TABLES) if name in tables)
    encoded, precision = plan.layers[0].weight.shape[0], plan.precision.encode()
    sizes = len(plan.input_shape), len(plan.layers), present, encoded, len(plan.golden_inputs)
    parts = [_HEAD.pack(SCHEMA, *sizes, precision)]
    for name, layer in zip(names, plan.layers, strict=True):
        begins = [places.get(f"{name}.{tensor}", _ABSENT) for tensor in _TENSORS]
        same = layer.slope is not None and f"{name}.slope" not in places
        slope = float(layer.slope[0]) if same and layer.slope is not None else math.nan
        parts.append(_LAYER.pack(*layer.weight.shape, layer.activation.encode(), slope, *begins))
    arrays = [
        (plan.input_shape, "<u4"),
        *((tables[name], _TABLES[name][0]) for name in _TABLES if name in tables),
    ]
    arrays += [(plan.golden_inputs, "<f4"), (plan.golden_outputs, "<f4")]
    return b"".join(parts + [np.asarray(array, dtype).tobytes() for array, dtype in arrays])
