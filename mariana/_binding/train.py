"""The parts of a step of training: calls that are bound to their arrays once, and then run in every step."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mariana._binding import check, choose_isa, ffi, isa_names, lib
from mariana._binding.dense import activation_names

Call = Callable[[], int]
Array = NDArray[Any]

_POINTERS = {"float32": "float[]", "int64": "int64_t[]", "uint64": "uint64_t[]", "uint8": "uint8_t[]"}


def loss_names() -> list[str]:
    """Return the losses that have a kernel, by number."""
    return [ffi.string(lib.mrn_loss_name(i)).decode() for i in range(lib.mrn_loss_count())]


def optimizer_names() -> list[str]:
    """Return the ways to update parameters that have a kernel, by number."""
    return [ffi.string(lib.mrn_optimizer_name(i)).decode() for i in range(lib.mrn_optimizer_count())]


def _pointer(array: Array) -> Any:
    """Return a pointer that keeps its array alive.

    Raises:
        ValueError: the array is not C-contiguous.
    """
    return ffi.from_buffer(_POINTERS[array.dtype.name], array)


_OF_A_BATCH = frozenset(("x", "y", "kept", "dy", "dx", "outputs", "targets", "gradient"))
_OF_ROWS = frozenset(("classes", "weights", "losses", "numbers"))
_OF_A_TABLE = frozenset(("bytes", "floats"))


def _check_sizes(fields: dict[str, Any]) -> None:
    """See to it that each array is as long as the description says, because C cannot.

    Raises:
        ValueError: one is not.
    """
    for name, value in fields.items():
        if not isinstance(value, np.ndarray):
            continue
        if "count" in fields:
            expected = 1 if name == "seed" else fields["count"]
        elif name in _OF_A_BATCH:
            expected = fields["rows"] * fields["units"]
        elif name in _OF_A_TABLE:
            expected = fields["table_rows"] * fields["units"]
        else:
            expected = fields["rows" if name in _OF_ROWS else "units"]
        if value.size != expected:
            raise ValueError(f"{name} holds {value.size} numbers, but the others ask for {expected}")


def _described(kind: str, fields: dict[str, Any]) -> tuple[Any, list[Any]]:
    """Return a description as C reads it, and what must stay alive with it; None is NULL."""
    described = ffi.new(f"{kind} *")
    alive = []
    for name, value in fields.items():
        if isinstance(value, np.ndarray):
            alive.append(_pointer(value))
            setattr(described, name, alive[-1])
        elif value is not None:
            alive.append(value)
            setattr(described, name, value)
    _check_sizes(fields)
    return described, alive


class Kernels:
    """The kernels of one instruction set.

    All arrays are float32, but rows and classes (int64), seeds (uint64) and tables of bytes (uint8); all are C-contiguous. What a call takes and gives
    says ``csrc/mrn.h``. A description that is not consistent raises KernelError when it is bound, an array of the wrong length ValueError.

    Args:
        highest: the highest instruction set allowed; None: the best that the machine has.

    Raises:
        KernelError: ``highest`` names no instruction set.
    """

    def __init__(self, highest: str | None = None) -> None:
        isa = choose_isa(highest)
        self.isa = isa_names()[isa]
        handle = ffi.new("mrn_trainer **")
        check(lib.mrn_trainer_open(isa, handle), "open the kernels of training")
        self._handle = handle[0]
        self._activations = {name: number for number, name in enumerate(activation_names())}
        self._losses = {name: number for number, name in enumerate(loss_names())}
        self._optimizers = {name: number for number, name in enumerate(optimizer_names())}

    def _bound(self, function: Any, kind: str, fields: dict[str, Any]) -> Call:
        """Return a call; its result is the status, which is 0 in every step because it is so now."""
        described, alive = _described(kind, fields)
        length = "count" if "count" in fields else "rows"
        setattr(described, length, 0)  # checks and does nothing
        check(function(self._handle, described), f"bind {kind}")
        setattr(described, length, fields[length])
        call = partial(function, self._handle, described)
        call.__dict__["alive"] = alive
        return call

    def gather(self, table: Array, rows: Array, out: Array) -> Call:
        """Return ``out[i] = table[rows[i]]``; the caller has seen to it that no row is out of the table."""
        row_bytes = table.nbytes // max(len(table), 1)
        if out.nbytes != len(rows) * row_bytes:
            raise ValueError(f"{len(rows)} rows of {row_bytes} bytes do not fit into {out.nbytes} bytes")
        return partial(
            lib.mrn_train_gather,
            ffi.from_buffer(table),
            len(table),
            row_bytes,
            _pointer(rows),
            len(rows),
            ffi.from_buffer(out, require_writable=True),
        )

    def rescale(self, table: Array, numbers: Array | None, y: Array, scale: float, offset: float) -> Call:
        """Return ``y[i] = table[numbers[i]] * scale + offset``; None: of the first rows. The table is float32 or uint8.

        The caller has seen to it that no number is out of the table.
        """
        fields = {
            "rows": len(y),
            "units": y.shape[1],
            "table_rows": len(table),
            "bytes" if table.dtype == np.uint8 else "floats": table,
            "numbers": numbers,
            "y": y,
            "scale": scale,
            "offset": offset,
        }
        return self._bound(lib.mrn_train_rescale, "mrn_rescaling_pass", fields)

    def forward(self, activation: str, x: Array, y: Array, **fields: Any) -> Call:
        """Return ``y = activation(x + bias)``; ``fields`` are ``bias``, ``slope`` and ``kept``."""
        return self._activation(lib.mrn_train_forward, activation, y, {"x": x, **fields})

    def backward(self, activation: str, y: Array, dy: Array, dx: Array, **fields: Any) -> Call:
        """Return ``dx = dy * activation'``; ``fields`` are ``slope``, ``kept``, ``dbias`` and ``dslope``."""
        return self._activation(lib.mrn_train_backward, activation, y, {"dy": dy, "dx": dx, **fields})

    def _activation(self, function: Any, activation: str, y: Array, fields: dict[str, Any]) -> Call:
        known = {"activation": self._activations[activation], "rows": len(y), "units": y.shape[1], "y": y}
        return self._bound(function, "mrn_activation_pass", known | fields)

    def normalize(self, x: Array, **fields: Any) -> Call:
        """Return batch normalisation with the statistics of the batch; ``fields`` are those of ``mrn_normalization_pass``."""
        return self._normalization(lib.mrn_train_normalize, x, fields)

    def standardize(self, x: Array, **fields: Any) -> Call:
        """Return the same with the ``mean`` and ``inverse`` that are given."""
        return self._normalization(lib.mrn_train_standardize, x, fields)

    def normalize_back(self, x: Array, **fields: Any) -> Call:
        """Return its gradients; ``mean`` and ``inverse`` are as ``normalize`` left them."""
        return self._normalization(lib.mrn_train_normalize_back, x, fields)

    def _normalization(self, function: Any, x: Array, fields: dict[str, Any]) -> Call:
        known = {"x": x, "rows": len(x), "units": x.shape[1]}
        return self._bound(function, "mrn_normalization_pass", known | fields)

    def drop(self, rate: float, seed: Array, from_: Array, to: Array) -> Call:
        """Return what sets numbers to 0 with a chance of ``rate`` and scales the others; ``seed`` is one number."""
        threshold = min(round(rate * 2**32), 2**32 - 1)
        fields = {
            "seed": seed,
            "count": from_.size,
            "from": from_,
            "to": to,
            "threshold": threshold,
            "scale": 1 / (1 - threshold / 2**32),
        }
        return self._bound(lib.mrn_train_drop, "mrn_dropout_pass", fields)

    def loss(self, name: str, outputs: Array, **fields: Any) -> Callable[[], float]:
        """Return what computes the sum of the losses of a batch; ``fields`` are those of ``mrn_loss_pass``."""
        fields |= {
            "loss": self._losses[name],
            "rows": len(outputs),
            "units": outputs.shape[1],
            "outputs": outputs,
        }
        total = ffi.new("double *")
        call = self._bound(lib.mrn_train_loss, "mrn_loss_pass", fields | {"sum": total})

        def loss() -> float:
            status = call()
            if status != 0:
                check(status, "compute the loss")
            return float(total[0])

        return loss

    def update(
        self, optimizer: str, parameters: Array, gradients: Array, slots: list[Array], average: Array | None
    ) -> Update:
        """Return a step of an optimizer over a vector."""
        return Update(self._handle, self._optimizers[optimizer], parameters, gradients, slots, average)

    def norm(self, values: Array) -> Callable[[], float]:
        """Return what computes the Euclidean length of a vector."""
        total = ffi.new("double *")
        call = partial(lib.mrn_train_squares, self._handle, _pointer(values), values.size, total)

        def norm() -> float:
            call()
            return math.sqrt(total[0])

        return norm


class Update:
    """A step of an optimizer over a vector; its numbers are attributes of ``numbers``, by their names in ``mrn_update``."""

    __slots__ = ("_alive", "numbers", "run")

    def __init__(
        self,
        handle: Any,
        optimizer: int,
        parameters: Array,
        gradients: Array,
        slots: list[Array],
        average: Array | None,
    ) -> None:
        fields = {
            "optimizer": optimizer,
            "count": parameters.size,
            "parameters": parameters,
            "gradients": gradients,
            "average": average,
            "scale": 1.0,
            "limit": float("inf"),
        }
        self.numbers, self._alive = _described("mrn_update", fields)
        for place, slot in enumerate(slots):
            _check_sizes({"count": parameters.size, "slot": slot})
            self._alive.append(_pointer(slot))
            self.numbers.slots[place] = self._alive[-1]
        self.numbers.count = 0  # checks and does nothing
        check(lib.mrn_train_update(handle, self.numbers), "bind an optimizer")
        self.numbers.count = parameters.size
        self.run: Call = partial(lib.mrn_train_update, handle, self.numbers)
