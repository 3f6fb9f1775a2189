"""Layers: an affine or empty transform followed by an activation.

A layer owns no numbers. Its parameters and their gradients are views into the network's two flat vectors,
and its outputs lie in the buffers of the batch; so one optimizer pass updates the whole network.
"""

from __future__ import annotations

import math

import numpy as np

from mariana.errors import InvalidInputError

from . import activations, checks, initializers
from .activations import ActivationFunction
from .buffers import Array
from .initializers import Initializer


class Input:
    """The shape of one row, so that a network is built before it sees data.

    Args:
        shape: of one row, without the batch; it is made flat.
    """

    def __init__(self, shape: int | tuple[int, ...]) -> None:
        self.shape = (shape,) if isinstance(shape, int) else tuple(shape)
        if not self.shape:
            raise InvalidInputError("Input(shape=()): expected the shape of one row, for example (784,)")
        for length in self.shape:
            checks.whole_number("each number of Input's shape", length)

    @property
    def columns(self) -> int:
        """Numbers of one row."""
        return math.prod(self.shape)


class Layer:
    """What a network is made of.

    Attributes:
        name: given by the network when it is built: ``dense``, ``dense_1``, ...
        inputs: columns of what comes in, (batch, inputs).
        units: columns of what goes out, (batch, units).
        activation: applied to the transform.
        parameters: views into the network's parameters, by name; ``parameter_gradients`` likewise.
    """

    kind = ""
    name = ""
    inputs = 0
    units = 0
    activation: ActivationFunction
    parameters: dict[str, Array]
    parameter_gradients: dict[str, Array]

    @property
    def count(self) -> int:
        """Number of weights and biases."""
        return sum(view.size for view in self.parameters.values())

    def build(self, inputs: int) -> dict[str, tuple[int, ...]]:
        """Fix the number of input columns; return the shape of each parameter."""
        raise NotImplementedError

    def attach(self, parameters: dict[str, Array], gradients: dict[str, Array]) -> None:
        """Take the views of this layer's parameters and their gradients, by the names that ``build`` gave."""
        self.parameters = parameters
        self.parameter_gradients = gradients

    def initialize(self, rng: np.random.Generator) -> None:
        """Fill the parameters with initial values."""

    def transform(self, x: Array, y: Array) -> None:
        """Compute from x, (batch, inputs), what goes into the activation: y, (batch, units)."""
        raise NotImplementedError

    def gradients(self, x: Array, dy: Array, dx: Array | None) -> None:
        """Compute the gradients of the parameters and, unless None, of x, from dy: (batch, units)."""
        raise NotImplementedError


class Dense(Layer):
    """``activation(x @ kernel + bias)``: every unit sees every input.

    Args:
        units: outputs.
        activation: a name or an instance; None is linear.
        use_bias: whether a bias is added.
        kernel_initializer: for the kernel, (inputs, units).
        bias_initializer: for the bias, (units,).

    Example:
        >>> import numpy as np
        >>> from mariana.trainer import Dense, Sequential
        >>> Sequential([Dense(3, activation="softmax")]).predict(np.ones((5, 4), np.float32)).shape
        (5, 3)
    """

    kind = "dense"

    def __init__(
        self,
        units: int,
        activation: str | ActivationFunction | None = None,
        use_bias: bool = True,
        kernel_initializer: str | Initializer = "glorot_uniform",
        bias_initializer: str | Initializer = "zeros",
    ) -> None:
        self.units = checks.whole_number("units", units)
        self.activation = activations.get(activation)
        self.use_bias = use_bias
        self.kernel_initializer = initializers.get(kernel_initializer)
        self.bias_initializer = initializers.get(bias_initializer)

    def build(self, inputs: int) -> dict[str, tuple[int, ...]]:
        """Fix the number of input columns."""
        self.inputs = inputs
        shapes: dict[str, tuple[int, ...]] = {"kernel": (inputs, self.units)}
        if self.use_bias:
            shapes["bias"] = (self.units,)
        return shapes

    def attach(self, parameters: dict[str, Array], gradients: dict[str, Array]) -> None:
        """Take the views of kernel and bias."""
        super().attach(parameters, gradients)
        self.kernel, self.bias = parameters["kernel"], parameters.get("bias")
        self._kernel_gradient, self._bias_gradient = gradients["kernel"], gradients.get("bias")

    def initialize(self, rng: np.random.Generator) -> None:
        """Fill kernel and bias."""
        self.kernel_initializer.fill(self.kernel, rng)
        if self.bias is not None:
            self.bias_initializer.fill(self.bias, rng)

    def transform(self, x: Array, y: Array) -> None:
        """``y = x @ kernel + bias``."""
        np.matmul(x, self.kernel, out=y)
        if self.bias is not None:
            np.add(y, self.bias, out=y)

    def gradients(self, x: Array, dy: Array, dx: Array | None) -> None:
        """``dkernel = x.T @ dy``, ``dbias = sum of dy over the rows``, ``dx = dy @ kernel.T``."""
        np.matmul(x.T, dy, out=self._kernel_gradient)
        if self._bias_gradient is not None:
            np.sum(dy, axis=0, out=self._bias_gradient)
        if dx is not None:
            np.matmul(dy, self.kernel.T, out=dx)


class Activation(Layer):
    """An activation as a layer of its own; the model file merges it into the Dense before it.

    Args:
        activation: a name or an instance.
    """

    kind = "activation"

    def __init__(self, activation: str | ActivationFunction) -> None:
        self.activation = activations.get(activation)

    def build(self, inputs: int) -> dict[str, tuple[int, ...]]:
        """Fix the number of columns."""
        self.inputs = self.units = inputs
        return {}

    def transform(self, x: Array, y: Array) -> None:
        """Copy x to y."""
        np.copyto(y, x)

    def gradients(self, x: Array, dy: Array, dx: Array | None) -> None:
        """Copy dy to dx."""
        del x
        if dx is not None:
            np.copyto(dx, dy)
