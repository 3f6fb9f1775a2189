"""Dense networks: arrays in, arrays out, pointers in between."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mariana._binding import check, choose_isa, ffi, isa_names, lib

_predict = lib.mrn_model_predict
_from_buffer = ffi.from_buffer
_float32 = np.dtype(np.float32)
_empty = np.empty


class Layer(NamedTuple):
    """One layer for the kernel: weight (inputs, units) and bias (units) float32, and the activation's name."""

    weight: NDArray[np.float32]
    bias: NDArray[np.float32] | None
    activation: str


def activation_names() -> list[str]:
    """Return the activations that the kernel knows, in the order of their numbers."""
    return [ffi.string(lib.mrn_activation_name(i)).decode() for i in range(lib.mrn_activation_count())]


def _aligned(nbytes: int, alignment: int) -> NDArray[np.uint8]:
    """Return ``nbytes`` zero bytes whose address is a multiple of ``alignment``."""
    raw = np.zeros(nbytes + alignment, dtype=np.uint8)
    address = int(ffi.cast("uintptr_t", _from_buffer(raw)))
    start = -address % alignment
    return raw[start : start + nbytes]


class Network:
    """A network packed for one instruction set.

    The tables are those of ``mrn_network`` in ``csrc/mrn.h``; None skips the table's step. Safe to call from
    several threads at once: each call that is under way has a scratch block of its own.

    Raises:
        KernelError: the description is refused, or ``isa`` is unknown.
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        columns: int,
        *,
        categories: NDArray[np.uint32] | None = None,
        fill: NDArray[np.float32] | None = None,
        shift: NDArray[np.float32] | None = None,
        scale: NDArray[np.float32] | None = None,
        target_shift: NDArray[np.float32] | None = None,
        target_scale: NDArray[np.float32] | None = None,
        isa: str | None = None,
    ) -> None:
        names = activation_names()
        keep: list[Any] = []  # what the description points to, until the weights are packed

        def pointer(array: NDArray[Any] | None, kind: str, dtype: Any) -> Any:
            if array is None:
                return ffi.NULL
            keep.append(np.ascontiguousarray(array, dtype=dtype))
            keep.append(_from_buffer(f"{kind}[]", keep[-1]))
            return keep[-1]

        described = ffi.new("mrn_layer[]", len(layers))
        for place, layer in zip(described, layers, strict=True):
            place.weight = pointer(layer.weight, "float", np.float32)
            place.bias = pointer(layer.bias, "float", np.float32)
            place.inputs, place.units = layer.weight.shape
            place.activation = names.index(layer.activation)
        network = ffi.new("mrn_network *")
        network.layers = described
        network.layer_count = len(layers)
        network.columns = columns
        network.categories = pointer(categories, "uint32_t", np.uint32)
        network.fill = pointer(fill, "float", np.float32)
        network.shift = pointer(shift, "float", np.float32)
        network.scale = pointer(scale, "float", np.float32)
        network.target_shift = pointer(target_shift, "float", np.float32)
        network.target_scale = pointer(target_scale, "float", np.float32)

        number = choose_isa(isa)
        plan = ffi.new("mrn_plan *")
        check(lib.mrn_model_plan(network, number, plan), "plan the network")
        self.isa = isa_names()[number]
        self.columns = columns
        self.outputs = int(layers[-1].weight.shape[1])
        self.nbytes = int(plan.model_bytes)
        self._scratch_bytes = int(plan.scratch_bytes)
        self._alignment = int(plan.alignment)
        self._block = _aligned(self.nbytes, self._alignment)
        model = ffi.new("mrn_model **")
        check(
            lib.mrn_model_open(network, number, _from_buffer(self._block), self.nbytes, model),
            "open the network",
        )
        self._model = model[0]
        self._scratches: list[Any] = []  # those that no call is using; append and pop are atomic

    def _scratch(self) -> Any:
        return _from_buffer(_aligned(self._scratch_bytes, self._alignment))

    def predict(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return (rows, outputs) float32 for ``x`` (rows, columns), float32 and C-contiguous (not checked here)."""
        rows = len(x)
        y = _empty((rows, self.outputs), _float32)
        try:
            scratch = self._scratches.pop()
        except IndexError:
            scratch = self._scratch()
        _predict(self._model, _from_buffer("float[]", x), rows, _from_buffer("float[]", y), scratch)
        self._scratches.append(scratch)
        return y

    def bind(self, x: NDArray[np.float32], y: NDArray[np.float32]) -> Callable[[], None]:
        """Return a function that runs ``x`` (rows, columns) into ``y`` (rows, outputs), both float32 C-contiguous."""
        arguments = (
            self._model,
            _from_buffer("float[]", x),
            len(x),
            _from_buffer("float[]", y, require_writable=True),
            self._scratch(),
        )
        run, model, rows_in, rows, rows_out, scratch = _predict, *arguments

        def step(_keep: Network = self) -> None:
            run(model, rows_in, rows, rows_out, scratch)

        return step
