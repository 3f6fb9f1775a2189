"""Dense networks: packing one into memory, running rows through it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from mariana._binding import address, aligned, calls, check, ffi, isa_names, lib
from mariana.errors import KernelError
from mariana.plan import Layer, Tables

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from mariana._binding.memory import Memory
    from mariana._binding.pool import Pool

    Float32 = NDArray[np.float32]
    Quick = Callable[[object], Float32 | None]

_FLOATS = ffi.typeof("float[]")

_SHORT_WORK = 1 << 16
"""Multiplications: a quick call of no more, some microseconds, keeps the interpreter's lock."""

MAX_LAYERS = int(lib.MRN_MAX_LAYERS)
MAX_WIDTH = int(lib.MRN_MAX_WIDTH)


def activation_names() -> list[str]:
    """Return the activations that the kernels know, by number."""
    return [ffi.string(lib.mrn_activation_name(i)).decode() for i in range(lib.mrn_activation_count())]


def precision_names() -> list[str]:
    """Return the precisions that the kernels know, by number."""
    return [ffi.string(lib.mrn_precision_name(i)).decode() for i in range(lib.mrn_precision_count())]


def precision_usable(precision: str, isa: int) -> bool:
    """Return whether this machine can run a precision on an instruction set."""
    return bool(lib.mrn_precision_usable(precision_names().index(precision), isa))


class Network:
    """A network packed for one instruction set; any number of threads may run it at a time.

    Args:
        layers: one after the other; what they hold is copied.
        columns: raw columns of a row.
        isa: number of the instruction set, of ``choose_isa``.
        tables: encoding of the rows and scaling of the outputs.
        precision: what the weights are and how they are computed with, of ``precision_names``.
        pool: threads that share the work of a call where it is worth it; None: the caller's alone.
        memory: where the packed weights are; None, and when there is no room: in memory of their own.

    Attributes:
        quick: :meth:`predict` of an ordinary array in a fraction of its time; None for everything else.

    Raises:
        KernelError: the description is not consistent, not finite, or too large.
    """

    __slots__ = (
        "_block",
        "_call",
        "_pool",
        "_scratch_bytes",
        "_spare",
        "columns",
        "isa",
        "nbytes",
        "outputs",
        "quick",
    )

    def __init__(
        self,
        layers: Sequence[Layer],
        columns: int,
        isa: int,
        tables: Tables = Tables(),  # noqa: B008 - nobody changes it
        precision: str = "float32",
        *,
        pool: Pool | None = None,
        memory: Memory | None = None,
    ) -> None:
        self.columns = columns
        self.outputs = layers[-1].weight.shape[1] if layers else 0
        self.isa = isa_names()[isa]
        _check_sizes(layers, columns, tables)
        network, _alive = _describe(layers, columns, tables, precision)
        plan = ffi.new("mrn_plan *")
        check(lib.mrn_model_plan(network, isa, plan), "plan the network")
        self.nbytes = int(plan.model_bytes)
        self._pool = pool
        model = ffi.new("mrn_model **")

        def pack(block: Any) -> None:
            check(lib.mrn_model_open(network, isa, block, self.nbytes, model), "open the network")

        shared = None
        if memory is not None:
            key = _digest(layers, columns, tables, isa, precision)
            shared = memory.take(key, self.nbytes, lambda block: pack(ffi.from_buffer(block)))
        if shared is None:
            self._block = self._place(self.nbytes)
            pack(self._block)
        else:
            block = ffi.from_buffer(shared)
            self._block = block if pool is None else pool.keep(block)
            model[0] = ffi.cast("mrn_model *", self._block)  # a model begins its block
        if pool is None:
            self._call: partial[Any] = partial(lib.mrn_model_predict, model[0])
            self._scratch_bytes = int(plan.scratch_bytes)
        else:
            self._call = partial(lib.mrn_model_predict_shared, model[0], pool.handle)
            size = ffi.new("size_t *")
            check(lib.mrn_model_workspace_bytes(model[0], pool.handle, size), "plan the workspace")
            self._scratch_bytes = int(size[0])
        self.quick: Quick = self._quick(model[0], sum(layer.weight.size for layer in layers))
        self._spare: list[Any] = []  # scratch that no call uses

    def _quick(self, model: Any, work: int) -> Quick:
        """Return the quick call of a model that takes so many multiplications a row."""
        if calls is None:
            return _decline
        return calls.Network(
            run=address(ffi.addressof(lib, "mrn_model_predict")),
            share=address(ffi.addressof(lib, "mrn_model_predict_shared")),
            settle=address(ffi.addressof(lib, "mrn_pool_settle")),
            model=address(model),
            pool=0 if self._pool is None else address(self._pool.handle),
            alive=(self._block, self._pool),
            columns=self.columns,
            outputs=self.outputs,
            scratch_bytes=self._scratch_bytes,
            short_rows=_SHORT_WORK // max(work, 1),
            array=np.ndarray,
            empty=np.empty,
            dtype=np.dtype(np.float32),
        ).predict

    def predict(self, x: Float32) -> Float32:
        """Run rows through the network.

        Args:
            x: (batch, columns) float32, C-contiguous; the caller has checked this.

        Returns:
            (batch, outputs) float32.
        """
        y = np.empty((len(x), self.outputs), np.float32)
        try:
            scratch = self._spare.pop()
        except IndexError:
            scratch = self._place(self._scratch_bytes)
        self._bound(x, y, scratch)()
        self._spare.append(scratch)
        return y

    def bind(self, x: Float32, y: Float32) -> Callable[[], None]:
        """Return a call that runs the rows in ``x`` and writes the outputs to ``y``.

        It allocates nothing, checks nothing, and belongs to one thread at a time.

        Args:
            x: (batch, columns) float32, C-contiguous; the caller has checked this.
            y: (batch, outputs) float32, C-contiguous, writable, apart from ``x``.
        """
        step = self._bound(x, y, self._place(self._scratch_bytes))
        step.__dict__["network"] = self  # keeps the packed weights alive; the arguments keep the rest
        return step

    def _bound(self, x: Float32, y: Float32, scratch: Any) -> partial[Any]:
        """Return the call of C; its result is the status, always 0: no pointer is NULL."""
        return partial(
            self._call,
            ffi.from_buffer(_FLOATS, x),
            len(x),
            ffi.from_buffer(_FLOATS, y, require_writable=True),
            scratch,
        )

    def _place(self, size: int) -> Any:
        """Return memory for C; a pool's helpers may still use it when nobody else does."""
        block = aligned(size)
        return block if self._pool is None else self._pool.keep(block)


def _decline(_: object) -> None:
    """Take no call."""


_WEIGHTS: dict[str, tuple[str, type[np.generic]]] = {
    "bfloat16": ("uint16_t[]", np.uint16),
    "int8": ("int8_t[]", np.int8),
}
"""How C reads the weights of a precision; of the others as float32."""


def _check_sizes(layers: Sequence[Layer], columns: int, tables: Tables) -> None:
    """Refuse arrays that are not as long as C takes them to be: it sees only where they begin."""
    sizes = {"categories": columns, "copies": columns, "fill": columns}
    sizes |= dict.fromkeys(("shift", "scale", "forms"), layers[0].weight.shape[0] if layers else 0)
    sizes |= dict.fromkeys(("target_shift", "target_scale"), layers[-1].weight.shape[1] if layers else 0)
    wrong = [name for name, size in sizes.items() if _other_size(getattr(tables, name), size)]
    for i, layer in enumerate(layers):
        parts = ("bias", "slope", "weight_scale")
        wrong += [f"{p} of layer {i}" for p in parts if _other_size(getattr(layer, p), layer.weight.shape[1])]
    if wrong:
        raise KernelError(f"cannot describe the network: {wrong[0]} has another length", status="E_SHAPE")


def _other_size(array: NDArray[Any] | None, size: int) -> bool:
    return array is not None and array.shape != (size,)


def _digest(layers: Sequence[Layer], columns: int, tables: Tables, isa: int, precision: str) -> bytes:
    """Return what tells a packed network from every other one: 32 bytes."""
    import hashlib  # noqa: PLC0415 - brings OpenSSL along

    digest = hashlib.blake2b(repr((len(layers), columns, isa, precision)).encode(), digest_size=32)
    parts: list[Layer | Tables] = [*layers, tables]
    for whole in parts:
        for name in whole.__slots__:
            part = getattr(whole, name)
            if isinstance(part, np.ndarray):
                digest.update(repr((part.dtype.str, part.shape)).encode())
                digest.update(np.ascontiguousarray(part).data)
            else:
                digest.update(repr(part).encode())
    return digest.digest()


def _describe(layers: Sequence[Layer], columns: int, tables: Tables, precision: str) -> tuple[Any, list[Any]]:
    """Return the network as C reads it, and what must stay alive meanwhile."""
    alive: list[Any] = []

    def pointer(array: NDArray[Any] | None, kind: str, dtype: type[np.generic]) -> Any:
        if array is None:
            return ffi.NULL
        data = ffi.from_buffer(kind, np.ascontiguousarray(array, dtype))
        alive.append(data)
        return data

    numbers = {name: number for number, name in enumerate(activation_names())}
    described = ffi.new("mrn_layer[]", len(layers))
    for to, layer in zip(described, layers, strict=True):
        to.weight = pointer(layer.weight, *_WEIGHTS.get(precision, ("float[]", np.float32)))
        to.weight_scale = pointer(layer.weight_scale, "float[]", np.float32)
        to.bias = pointer(layer.bias, "float[]", np.float32)
        to.slope = pointer(layer.slope, "float[]", np.float32)
        to.inputs, to.units = layer.weight.shape
        to.activation = numbers.get(layer.activation, len(numbers))
    network = ffi.new("mrn_network *")
    network.layers = described
    network.layer_count = len(layers)
    network.columns = columns
    network.precision = precision_names().index(precision)
    for name in ("categories", "copies", "forms"):
        setattr(network, name, pointer(getattr(tables, name), "uint32_t[]", np.uint32))
    for name in ("fill", "shift", "scale", "target_shift", "target_scale"):
        setattr(network, name, pointer(getattr(tables, name), "float[]", np.float32))
    alive.append(described)
    return network, alive
