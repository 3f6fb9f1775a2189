"""Model files as bytes: written whole, and read with every check there is."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray
from pydantic import ValidationError
from pydantic_core import PydanticSerializationError

from mariana.errors import FileFormatError
from mariana.format.planning import plan_of
from mariana.format.schema import FORMAT_VERSION, ModelMetadata
from mariana.plan import Plan
from mariana.sealed import DAMAGED, open_regular, read_header, seal

METADATA_KEY = "mariana"


@dataclass(frozen=True)
class ModelFile:
    """A model file that has been read and checked.

    Attributes:
        metadata: everything but the weights.
        tensors: by name, C-contiguous, finite, of the types and shapes that ``metadata.tensor_types()`` says.
    """

    metadata: ModelMetadata
    tensors: dict[str, NDArray[Any]]

    @cached_property
    def plan(self) -> Plan:
        """What it takes to run the network."""
        return plan_of(self.metadata, self.tensors)


def to_bytes(metadata: ModelMetadata, tensors: dict[str, NDArray[Any]]) -> bytes:
    """Return the bytes of a model file; the same arguments give the same bytes.

    Args:
        metadata: what the file says; its ``tensors`` (checksums) are filled in here.
        tensors: arrays of the types and shapes that ``metadata.tensor_types()`` says; numbers of another type become
            float32.

    Raises:
        FileFormatError: the metadata is not consistent or no Unicode, or the tensors do not fit it or are not finite.
    """
    types = metadata.tensor_types()
    arrays = {}
    for name in sorted(tensors):
        kept = name in types and types[name].dtype == tensors[name].dtype
        arrays[name] = np.ascontiguousarray(tensors[name], dtype=types[name].dtype if kept else "<f4")
    _check_tensors("model", metadata, arrays)
    checksums = {name: _sha256(array) for name, array in arrays.items()}
    try:
        document = metadata.model_copy(update={"tensors": checksums}).model_dump_json()
    except PydanticSerializationError:
        raise FileFormatError("model: a name, label or category holds half of a surrogate pair") from None
    checked = _parse_metadata("model", document)  # model_copy and model_construct check nothing
    data = safetensors.numpy.save(arrays, metadata={METADATA_KEY: document})
    return _with_plan(data, checked, arrays)


def _with_plan(data: bytes, document: ModelMetadata, tensors: Mapping[str, NDArray[Any]]) -> bytes:
    """Return a safetensors file with its plan sealed, and its 16-bit tensors called what they are.

    The package's writer only knows NumPy's types. A plan that would make the header too long is left out.
    """
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    header = {"__metadata__": header.pop("__metadata__"), **header}
    places = {}
    for name in tensors:
        places[name] = header[name]["data_offsets"][0]
        if header[name]["dtype"] == "U16":
            header[name]["dtype"] = "BF16"
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    names = [layer.name for layer in document.layers]
    return seal(text, data[end:], plan_of(document, tensors), names, places)


def read_model(path: str | Path) -> ModelFile:
    """Read a model file and check all of it.

    Raises:
        FileFormatError: the file is damaged, newer than this version, or inconsistent.
        OSError: the file cannot be read.
    """
    path = Path(path)
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        header = read_header(path, file, size)
        metadata = read_metadata(path, header)
        # Only now is it known how much the rest may be: nothing is read on the word of a length alone.
        types = metadata.tensor_types()
        found, wanted = size - len(header), sum(kind.nbytes for kind in types.values())
        if found != wanted:
            raise FileFormatError(f"{path}: the tensors must take {wanted} bytes, found {found}")
        try:
            views = safetensors.deserialize(header + file.read())  # type: ignore[no-untyped-call] # has no types
        except safetensors.SafetensorError as error:
            raise FileFormatError(f"{path}: {DAMAGED}: {_short(error)}") from None
        except MemoryError:
            raise FileFormatError(f"{path}: {found} bytes of tensors do not fit into memory") from None
    tensors = {}
    for name, view in views:
        kind = types.get(name)
        if kind is None:
            raise FileFormatError(f"{path}: tensor {_short(name)!r} belongs to no layer")
        if view["dtype"] != kind.name:
            raise FileFormatError(
                f"{path}: tensor {_short(name)!r} must be {kind.name}, found {view['dtype']}"
            )
        array = np.frombuffer(view["data"], kind.dtype)
        tensors[name] = array.astype(kind.dtype.newbyteorder("="), copy=False).reshape(view["shape"])
    _check_tensors(str(path), metadata, tensors)
    for name, array in tensors.items():
        if _sha256(array) != metadata.tensors.get(name):
            raise FileFormatError(
                f"{path}: tensor {name!r} is damaged: its SHA-256 is not the one in the metadata"
            )
    return ModelFile(metadata, tensors)


def read_metadata(path: Path, header: bytes) -> ModelMetadata:
    """Return the document that the header of a model file holds.

    Raises:
        FileFormatError: there is none, it is newer than this version, or inconsistent.
    """
    try:
        parts = json.loads(header[8:])
        document = (parts.get("__metadata__") or {}).get(METADATA_KEY)
    except (ValueError, RecursionError, AttributeError):  # not JSON, too deep, no object
        raise FileFormatError(f"{path}: {DAMAGED}: its header is no JSON object") from None
    if not isinstance(document, str):
        raise FileFormatError(
            f"{path}: no {METADATA_KEY!r} metadata; this safetensors file is not a Mariana model"
        )
    return _parse_metadata(str(path), document)


def _parse_metadata(path: str, text: str) -> ModelMetadata:
    """Return the metadata that a JSON document holds; the version is looked at first."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        raise FileFormatError(f"{path}: the {METADATA_KEY!r} metadata is not JSON") from None
    version = document.get("format_version") if isinstance(document, dict) else None
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise FileFormatError(
            f"{path}: format version {_short(version)} is newer than {FORMAT_VERSION}, "
            "the newest known here; update Mariana"
        )
    try:
        return ModelMetadata.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "metadata"
        raise FileFormatError(f"{path}: {_short(where)}: {_short(first['msg'])}") from None


def _sha256(array: NDArray[Any]) -> str:
    return hashlib.sha256(array.astype(array.dtype.newbyteorder("<"), copy=False).data).hexdigest()


def _short(thing: object) -> str:
    """Return a text for a message: one line, not longer than a reader likes."""
    text = " ".join(str(thing).split())
    return text if len(text) <= 200 else text[:197] + "..."


def _check_tensors(path: str, metadata: ModelMetadata, tensors: dict[str, NDArray[Any]]) -> None:
    types = metadata.tensor_types()
    for name, kind in types.items():
        if name not in tensors:
            raise FileFormatError(f"{path}: tensor {name!r} is missing")
        found = tensors[name]
        if found.dtype != kind.dtype or found.shape != kind.shape:
            wanted = f"{kind.dtype.name if kind.name != 'BF16' else 'bfloat16 (as uint16)'} {kind.shape}"
            raise FileFormatError(
                f"{path}: tensor {name!r} must be {wanted}, found {found.dtype} {_short(found.shape)}"
            )
        finite = (found & 0x7F80) != 0x7F80 if kind.name == "BF16" else np.isfinite(found)
        if not finite.all():
            raise FileFormatError(f"{path}: tensor {name!r} holds a number that is not finite")
        if name.endswith(".weight_scale") and not (found > 0).all():
            raise FileFormatError(f"{path}: tensor {name!r} holds a scale that is not above 0")
    if extra := sorted(tensors.keys() - types.keys()):
        raise FileFormatError(f"{path}: tensor {_short(extra[0])!r} belongs to no layer")
