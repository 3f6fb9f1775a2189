"""From a float32 model file to one with bfloat16 or int8 weights, with what that costs in accuracy.

No calibration data is needed: weights are rounded one by one, and activations when the network runs
(``docs/precision.md``). What is lost is measured, and written into the file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mariana.errors import InvalidInputError
from mariana.format import INT8_MAX_INPUTS, Golden, Loss, ModelFile, Quantization
from mariana.model import Model

Float32 = NDArray[np.float32]
Narrow = Literal["bfloat16", "int8"]


class Rows(NamedTuple):
    """Rows to measure the loss on.

    Attributes:
        name: of the data.
        x: (rows, columns) raw rows, as :meth:`mariana.Model.predict` takes them.
        score: turns outputs into metrics by name; None: the differences alone.
    """

    name: str
    x: NDArray[np.floating]
    score: Callable[[Float32], Mapping[str, float]] | None = None


def quantize(file: ModelFile, to: Narrow, *, source_sha256: str, data: Sequence[Rows] = ()) -> ModelFile:
    """Return a model with bfloat16 or int8 weights; its golden outputs are its own, its loss is in its metadata.

    Args:
        file: a float32 model.
        to: how weights are stored and computed with.
        source_sha256: of the file that ``file`` was read from.
        data: what the loss is measured on, besides the golden rows.

    Raises:
        InvalidInputError: the model is quantised already, has a layer that int8 cannot hold, or gives no finite output
            for any row of some data.
    """
    info = file.metadata
    if info.precision != "float32":
        raise InvalidInputError(f"the model is {info.precision} already; quantise the float32 one")
    for layer in info.layers:
        if to == "int8" and layer.inputs > INT8_MAX_INPUTS:
            raise InvalidInputError(
                f"layer {layer.name!r} has {layer.inputs} inputs, and int8 takes up to {INT8_MAX_INPUTS}; use bf16"
            )
    tensors: dict[str, NDArray[Any]] = dict(file.tensors)
    for layer in info.layers:
        name = f"{layer.name}.weight"
        if to == "int8":
            tensors[name], tensors[f"{name}_scale"] = to_int8(file.tensors[name])
        else:
            tensors[name] = to_bfloat16(file.tensors[name])
    narrow = ModelFile(
        info.model_copy(update={"precision": to, "golden": Golden(inputs=(), outputs=())}), tensors
    )

    before, after = Model(file, precision="float32"), Model(narrow)
    rows = list(data)
    golden = info.golden
    if golden.inputs:
        x = np.array([[np.nan if v is None else v for v in row] for row in golden.inputs], np.float32)
        rows.insert(0, Rows("golden rows", x))
        outputs = tuple(tuple(map(float, row)) for row in after.predict(x))
        golden = Golden(inputs=golden.inputs, outputs=outputs)
    quantization = Quantization(
        source_sha256=source_sha256, losses=tuple(_loss(before, after, each) for each in rows)
    )
    update = {"golden": golden, "quantization": quantization}
    return ModelFile(narrow.metadata.model_copy(update=update), tensors)


def to_bfloat16(weight: Float32) -> NDArray[np.uint16]:
    """Return the nearest bfloat16 of each number, ties to even, as 16 bits; never an infinity.

    Args:
        weight: finite, of any shape.
    """
    bits = np.ascontiguousarray(weight, np.float32).view(np.uint32)
    rounded = ((bits + np.uint32(0x7FFF) + (bits >> np.uint32(16) & np.uint32(1))) >> np.uint32(16)).astype(
        np.uint16
    )
    return np.where((rounded & 0x7F80) == 0x7F80, rounded - np.uint16(1), rounded)  # the largest one


def to_int8(weight: Float32) -> tuple[NDArray[np.int8], Float32]:
    """Return integers and a scale a unit, so that ``integers * scale`` is next to the weights.

    Symmetric: the largest weight of a unit becomes 127 or -127, zero stays zero.

    Args:
        weight: (inputs, units), finite.

    Returns:
        (inputs, units) from -127 to 127, and (units,) scales above 0.
    """
    scale = np.maximum(np.abs(weight).max(axis=0) / np.float32(127), np.float32(1e-37)).astype(np.float32)
    integers = np.clip(np.rint(weight / scale.astype(np.float64)), -127, 127)
    return integers.astype(np.int8), scale


def _loss(before: Model, after: Model, rows: Rows) -> Loss:
    given, found = before.predict(rows.x), after.predict(rows.x)
    finite = (np.isfinite(given) & np.isfinite(found)).all(axis=1)  # not so where a value is missing
    if not finite.any():
        raise InvalidInputError(f"{rows.name}: no row that the model gives a finite output for")
    difference = np.abs(found[finite].astype(np.float64) - given[finite])
    score = rows.score or (lambda _: {})
    return Loss(
        data=rows.name,
        rows=int(finite.sum()),
        max_difference=float(difference.max()),
        mean_difference=float(difference.mean()),
        before=dict(score(given)),
        after=dict(score(found)),
    )
