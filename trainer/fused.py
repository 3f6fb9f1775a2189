"""The C backend: what surrounds the matrix products of a step, each part fused into one pass over its arrays.

The only module of the trainer that meets the compiled extension; :mod:`.backend` imports it when it is asked for. It
goes by exact classes: what is derived from one of them may compute something else, and runs as it is written, in NumPy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from mariana._binding.train import Kernels

from . import activations, losses
from .activations import ActivationFunction
from .backend import Backend, Call
from .buffers import Array, Buffers
from .layers import Activation, BatchNormalization, Dense, Dropout, Layer, PReLU
from .losses import Loss
from .optimizers import OPTIMIZERS, Optimizer

_KEPT = ("prelu", "silu", "gelu", "gelu_tanh")
"""Activations whose gradient needs more than the output."""

_LOSSES = (
    losses.SparseCategoricalCrossentropy,
    losses.CategoricalCrossentropy,
    losses.BinaryCrossentropy,
    losses.MeanSquaredError,
    losses.MeanAbsoluteError,
    losses.Huber,
)


class Fused(Backend):
    """Kernels in C for the parts that have one; the others, and what people derive or write themselves, are NumPy's.

    Args:
        highest: the highest instruction set allowed; None: the best that the machine has.

    Raises:
        KernelError: ``highest`` names no instruction set.
    """

    def __init__(self, highest: str | None = None) -> None:
        self._kernels = Kernels(highest)
        self.name = f"c {self._kernels.isa}"
        self._seeds: dict[Layer, Array] = {}

    def gather(self, table: Array, rows: Array, out: Array) -> Call:
        """Copy rows, one after the other."""
        if not table.flags.c_contiguous:
            return super().gather(table, rows, out)
        return self._kernels.gather(table, rows, out)

    def rescale(self, table: Array, rows: Array | None, out: Array, scale: float, offset: float) -> Call:
        """Gather, convert and rescale in one pass."""
        if not table.flags.c_contiguous:
            return super().rescale(table, rows, out, scale, offset)
        return self._kernels.rescale(table, rows, out, scale, offset)

    # The layers.

    def forward(self, layer: Layer, x: Array, y: Array, buffers: Buffers, *, activated: bool) -> list[Call]:
        """Bias and activation in one pass; batch normalisation, dropout."""
        kind, activation = type(layer), layer.activation
        if isinstance(layer, Dense) and kind is Dense:
            product = partial(np.matmul, x, layer.kernel, y)
            if not activated or _known(activation):
                name = activation.name if activated else "linear"
                if layer.bias is None and name == "linear":
                    return [product]
                return [product, self._forward(activation, name, y, y, buffers, layer.bias)]
        elif kind in (Activation, PReLU) and activated and _known(activation):
            return [self._forward(activation, activation.name, x, y, buffers, None)]
        elif isinstance(layer, BatchNormalization) and kind is BatchNormalization:
            return [
                self._kernels.normalize(
                    x,
                    y=y,
                    gamma=layer.gamma,
                    beta=layer.beta,
                    mean=layer.batch_mean,
                    inverse=layer.batch_factor,
                    moving_mean=layer.moving_mean,
                    moving_variance=layer.moving_variance,
                    share=1 - layer.momentum,
                    epsilon=layer.epsilon,
                )
            ]
        elif isinstance(layer, Dropout) and kind is Dropout and layer.rng is not None:
            seed, generator = self._seed(layer), layer.rng.bit_generator
            drop = self._kernels.drop(layer.rate, seed, x, y)

            def draw() -> None:
                seed[0] = generator.random_raw()
                drop()

            return [draw]
        return super().forward(layer, x, y, buffers, activated=activated)

    def predict(self, layer: Layer, x: Array, y: Array, buffers: Buffers, *, activated: bool) -> list[Call]:
        """Bias and activation in one pass; batch normalisation with the moving statistics."""
        kind = type(layer)
        if kind in (Dense, Activation, PReLU) and (not activated or _known(layer.activation)):
            return self.forward(layer, x, y, buffers, activated=activated)
        if isinstance(layer, BatchNormalization) and kind is BatchNormalization:
            inverse = np.empty_like(layer.moving_variance)

            def invert() -> None:
                np.add(layer.moving_variance, layer.epsilon, out=inverse)
                np.sqrt(inverse, out=inverse)
                np.reciprocal(inverse, out=inverse)

            standardize = self._kernels.standardize(
                x, y=y, gamma=layer.gamma, beta=layer.beta, mean=layer.moving_mean, inverse=inverse
            )
            return [invert, standardize]
        return super().predict(layer, x, y, buffers, activated=activated)

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
        """The gradient of the activation with that of the bias; batch normalisation, dropout."""
        kind, activation = type(layer), layer.activation
        if isinstance(layer, Dense) and kind is Dense and (not activated or _known(activation)):
            gradients = layer.parameter_gradients
            name = activation.name if activated else "linear"
            calls: list[Call] = []
            if layer.bias is not None or name != "linear":
                calls.append(self._backward(activation, name, y, dy, dy, buffers, gradients))
            calls.append(partial(np.matmul, x.T, dy, gradients["kernel"]))
            if dx is not None:
                calls.append(partial(np.matmul, dy, layer.kernel.T, dx))
            return calls
        if kind in (Activation, PReLU) and activated and _known(activation):
            gradients = layer.parameter_gradients
            to = dy if dx is None else dx
            return [self._backward(activation, activation.name, y, dy, to, buffers, gradients)]
        if isinstance(layer, BatchNormalization) and kind is BatchNormalization:
            gradients = layer.parameter_gradients
            return [
                self._kernels.normalize_back(
                    x,
                    dy=dy,
                    dx=dx,
                    gamma=layer.gamma,
                    mean=layer.batch_mean,
                    inverse=layer.batch_factor,
                    dgamma=gradients.get("gamma"),
                    dbeta=gradients.get("beta"),
                )
            ]
        if kind is Dropout and isinstance(layer, Dropout):
            return [] if dx is None else [self._kernels.drop(layer.rate, self._seed(layer), dy, dx)]
        return super().backward(layer, x, y, dy, dx, buffers, activated=activated)

    def _forward(
        self,
        activation: ActivationFunction,
        name: str,
        x: Array,
        y: Array,
        buffers: Buffers,
        bias: Array | None,
    ) -> Call:
        kept = buffers.get("kept", y.shape[1]) if name in _KEPT else None
        return self._kernels.forward(
            name, x, y, bias=bias, slope=_slope(activation, name, y.shape[1]), kept=kept
        )

    def _backward(
        self,
        activation: ActivationFunction,
        name: str,
        y: Array,
        dy: Array,
        dx: Array,
        buffers: Buffers,
        gradients: dict[str, Array],
    ) -> Call:
        kept = buffers.get("kept", y.shape[1]) if name in _KEPT else None
        return self._kernels.backward(
            name,
            y,
            dy,
            dx,
            slope=_slope(activation, name, y.shape[1]),
            kept=kept,
            dbias=gradients.get("bias"),
            dslope=gradients.get("alpha"),
        )

    def _seed(self, layer: Dropout) -> Array:
        """Return where the seed of what a layer drops in this step stands."""
        return self._seeds.setdefault(layer, np.zeros(1, np.uint64))

    # The loss.

    def loss(
        self,
        loss: Loss,
        outputs: Array,
        targets: Array,
        dy: Array | None,
        buffers: Buffers,
        weights: Array | None,
    ) -> Callable[[], float]:
        """Activation, loss of each row and gradient in one pass."""
        if type(loss) not in _LOSSES:
            return super().loss(loss, outputs, targets, dy, buffers, weights)
        rows = len(outputs)
        total = self._kernels.loss(
            loss.name,
            outputs,
            targets=targets if targets.dtype == np.float32 else None,
            classes=targets if targets.dtype == np.int64 else None,
            weights=weights,
            losses=buffers.get("losses"),
            gradient=dy,
            smoothing=getattr(loss, "label_smoothing", 0.0),
            delta=getattr(loss, "delta", 0.0),
        )
        return lambda: total() / rows

    # The optimizer.

    def update(
        self, optimizer: Optimizer, parameters: Array, gradients: Array, constrained: Sequence[Layer]
    ) -> Call:
        """Clipping, weight decay, the step and the average of the weights in one pass; two if a norm is clipped."""
        if type(optimizer) not in OPTIMIZERS.values():
            return super().update(optimizer, parameters, gradients, constrained)
        return _Update(self._kernels, optimizer, parameters, gradients, constrained)


class _Update:
    """A step of an optimizer; the parameters are one piece, or pieces where clipping or decay differ between them."""

    def __init__(
        self,
        kernels: Kernels,
        optimizer: Optimizer,
        parameters: Array,
        gradients: Array,
        constrained: Sequence[Layer],
    ) -> None:
        self._optimizer, self._parameters, self._constrained = optimizer, parameters, constrained
        self._average = optimizer.average
        # constraints come between the step and the average
        folded = None if self._average is None or constrained else self._average.sum
        common = optimizer.common
        self._decay = common.get("weight_decay", 0.0)
        self._longest = common.get("clipnorm", common.get("global_clipnorm"))
        everything = slice(0, parameters.size)
        alike = "clipnorm" not in common and (not self._decay or everything in optimizer.decayed)
        pieces = [everything] if alike else optimizer.parts
        self._pieces = []
        for piece in pieces:
            update = kernels.update(
                optimizer.rule,
                parameters[piece],
                gradients[piece],
                [slot[piece] for slot in optimizer.slots.values()],
                None if folded is None else folded[piece],
            )
            update.numbers.limit = common.get("clipvalue", math.inf)
            update.numbers.share = 0.0 if self._average is None else 1 - self._average.momentum
            norm = kernels.norm(gradients[piece] if "clipnorm" in common else gradients)
            decayed = any(part.start <= piece.start and piece.stop <= part.stop for part in optimizer.decayed)
            self._pieces.append((update, decayed, norm))
        self._folded = None if folded is None else self._average

    def __call__(self) -> None:
        optimizer = self._optimizer
        rate = optimizer.begin_step()
        coefficients = optimizer.coefficients(rate)
        for update, decayed, norm in self._pieces:
            numbers = update.numbers
            for name, value in coefficients.items():
                setattr(numbers, name, value)
            if decayed and self._decay:
                numbers.decay = rate * self._decay
            if self._longest is not None:
                length = norm()
                numbers.scale = self._longest / length if length > self._longest else 1.0
            update.run()
        for layer in self._constrained:
            layer.constrain()
        if self._folded is not None:
            self._folded.steps += 1
        elif self._average is not None:
            self._average.follow(self._parameters)


def _known(activation: ActivationFunction) -> bool:
    """Return whether the kernels have that activation: all of ours but softmax, which works on rows."""
    name = activation.name
    return name != "softmax" and type(activation) is activations.ACTIVATIONS.get(name)


def _slope(activation: ActivationFunction, name: str, units: int) -> Array | None:
    """Return the slope of each unit, for the activations that have one."""
    if name != activation.name:  # the bias alone
        return None
    if isinstance(activation, activations.PReLU):
        return activation.alpha
    if isinstance(activation, activations.LeakyReLU):
        return _repeated(activation.negative_slope, units)
    if isinstance(activation, activations.ELU) and name == "elu":
        return _repeated(activation.alpha, units)
    return None


def _repeated(value: float, units: int) -> Array:
    array: Array = np.full(units, value, np.float32)
    return array
