"""Who computes the parts of a step of training: NumPy, or kernels in C for the parts that have one.

Matrix products are NumPy's BLAS in both. The trainer trains where the compiled extension is missing: then it is NumPy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any, Literal, get_args

import numpy as np

from mariana.errors import InvalidInputError
from mariana.settings import load_settings

from .buffers import Array, Buffers
from .layers import Layer
from .losses import Loss
from .optimizers import Optimizer

Call = Callable[[], object]
"""A part of a step, bound to its arrays."""

BackendName = Literal["auto", "numpy", "c"]


class Backend:
    """NumPy: every part is done by the layer, the loss or the optimizer that it belongs to.

    A backend binds parts to the arrays of one batch size, which stay the same from step to step; the engine then only calls
    them. One that has something better for a part derives from this and leaves the other parts to it.

    Attributes:
        name: as it stands in the training record: two trainings by the same name, on the same number of threads of the
            same BLAS, give the same bits.
    """

    name = "numpy"

    def gather(self, table: Array, rows: Array, out: Array) -> Call:
        """Return what copies the rows of a table whose numbers are in ``rows``, (batch,) int64."""
        # mode "raise" would buffer the output
        return partial(np.take, table, rows, axis=0, out=out, mode="clip")

    def rescale(self, table: Array, rows: Array | None, out: Array, scale: float, offset: float) -> Call:
        """Return what gathers rows of bytes or floats, and rescales them: ``out = table[rows] * scale + offset``.

        Args:
            table: (rows, columns) uint8, or of the network's dtype.
            rows: (batch,) int64 numbers of its rows; None: its first ones.
            out: (batch, columns) of the network's dtype.
            scale: as in ``Rescaling``.
            offset: as in ``Rescaling``.
        """
        number = out.dtype.type
        staged = out if table.dtype == out.dtype else np.empty(out.shape, table.dtype)
        gather = None if rows is None else self.gather(table, rows, staged)

        def rescale() -> None:
            if gather is not None:
                gather()
            np.multiply(table[: len(out)] if gather is None else staged, number(scale), out=out)
            np.add(out, number(offset), out=out)

        return rescale

    def forward(self, layer: Layer, x: Array, y: Array, buffers: Buffers, *, activated: bool) -> list[Call]:
        """Return what computes y, (batch, units), from x, (batch, inputs), with the activation or without."""
        calls: list[Call] = [partial(layer.learning_transform, x, y, buffers)]
        if activated:
            calls.append(partial(layer.activation.learning_forward, y, buffers))
        return calls

    def predict(self, layer: Layer, x: Array, y: Array, buffers: Buffers, *, activated: bool) -> list[Call]:
        """Return what computes y from x as a prediction has it: nothing is drawn, kept, or moved."""
        calls: list[Call] = [partial(layer.transform, x, y)]
        if activated:
            calls.append(partial(layer.activation.forward, y, buffers))
        return calls

    def loss(
        self,
        loss: Loss,
        outputs: Array,
        targets: Array,
        dy: Array | None,
        buffers: Buffers,
        weights: Array | None,
    ) -> Callable[[], float]:
        """Return what computes the loss of a batch and, unless None, its gradient ``dy``."""
        return partial(loss.step, outputs, targets, dy, buffers, weights)

    def backward(
        self,
        layer: Layer,
        x: Array,
        y: Array,
        dy: Array,
        dx: Array | None,
        buffers: Buffers,
        *,
        activated: bool,
    ) -> list[Call]:
        """Return what computes the gradients of the parameters and, unless None, of x; ``dy`` is used up."""
        calls: list[Call] = [partial(layer.activation.backward, y, dy, buffers)] if activated else []
        calls.append(partial(layer.gradients, x, dy, dx, buffers))
        return calls

    def update(
        self, optimizer: Optimizer, parameters: Array, gradients: Array, constrained: Sequence[Layer]
    ) -> Call:
        """Return a step of the optimizer, with the constraints and the average of the weights after it."""

        def update() -> None:
            optimizer.update(parameters, gradients)
            for layer in constrained:
                layer.constrain()
            if optimizer.average is not None:
                optimizer.average.follow(parameters)

        return update


_chosen: ContextVar[BackendName | None] = ContextVar("backend", default=None)


@contextmanager
def use_backend(name: BackendName | None) -> Iterator[None]:
    """Let networks learn with that backend within the ``with`` block.

    Args:
        name: ``numpy``; ``c``: fused kernels for float32 networks; ``auto``: C if the extension is there; None: what
            ``MARIANA_BACKEND`` says, else ``auto``.

    Raises:
        InvalidInputError: another name.
    """
    if name is not None and name not in get_args(BackendName):
        raise InvalidInputError(f"backend is {name!r:.40}: use one of {', '.join(get_args(BackendName))}")
    token = _chosen.set(name)
    try:
        yield
    finally:
        _chosen.reset(token)


def chosen(dtype: np.dtype[Any]) -> Backend:
    """Return the backend for a network of that dtype: float64 is always NumPy's.

    Raises:
        InvalidInputError: C was asked for, but the extension is not there; or a setting does not fit.
        KernelError: ``MARIANA_ISA`` names no instruction set.
    """
    settings = load_settings()
    name = _chosen.get() or settings.backend
    if name == "numpy" or dtype != np.float32:
        return Backend()
    try:
        from .fused import Fused  # noqa: PLC0415 - needs the extension, which the rest of the trainer does not
    except ImportError:
        if name == "c":
            raise InvalidInputError(
                "backend c needs the compiled extension, which is not there: install mariana-serve with a C compiler, "
                "or use backend auto or numpy"
            ) from None
        return Backend()
    return Fused(settings.isa)
