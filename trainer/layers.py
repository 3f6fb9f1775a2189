"""Layers: an affine or empty transform followed by an activation.

A layer owns no numbers. Its parameters and their gradients are views into the network's two flat vectors,
and its outputs lie in the buffers of the batch; so one optimizer pass updates the whole network.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from mariana.errors import InvalidInputError

from . import activations, checks, initializers, regularizers
from .activations import ActivationFunction
from .buffers import Array, Buffers
from .initializers import Initializer
from .regularizers import MaxNorm, Regularizer

Pair = tuple[Callable[[Array], Array], Callable[[Array], Array]]
"""A function of an array and its derivative: a custom activation."""


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
        state: views into what the network keeps without learning it, by name.
        rng: draws what is random in a step of training; None: nothing is.
        regularizers: penalties by the name of the parameter.
        constraints: what holds after each step, by the name of the parameter.
    """

    kind = ""
    name = ""
    inputs = 0
    units = 0
    activation: ActivationFunction
    parameters: dict[str, Array]
    parameter_gradients: dict[str, Array]
    state: dict[str, Array]
    rng: np.random.Generator | None = None
    regularizers: dict[str, Regularizer] = {}  # noqa: RUF012 - never changed in place
    constraints: dict[str, MaxNorm] = {}  # noqa: RUF012 - never changed in place

    @property
    def count(self) -> int:
        """Number of parameters, and of numbers that are kept but not learned."""
        return sum(view.size for view in (*self.parameters.values(), *self.state.values()))

    def __getstate__(self) -> dict[str, Any]:
        """Leave the arrays out: they are views, which a copy would tear apart; the network gives a copy its own."""
        return {name: value for name, value in vars(self).items() if not _holds_arrays(value)}

    def build(self, inputs: int) -> dict[str, tuple[int, ...]]:
        """Fix the number of input columns; return the shape of each parameter, those of the activation too."""
        self.inputs = inputs
        self.units = self.width(inputs)
        return self.shapes() | self.activation.build(self.units)

    def idle(self, *, learning: bool) -> bool:
        """Return whether its outputs are its inputs, in a step of training or in a prediction: then it is passed by."""
        del learning
        return False

    def width(self, inputs: int) -> int:
        """Return the number of output columns for that number of input columns."""
        return inputs

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of each parameter of the transform."""
        return {}

    def state_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of each array that is kept but not learned by the optimizer."""
        return {}

    def attach(
        self, parameters: dict[str, Array], gradients: dict[str, Array], state: dict[str, Array]
    ) -> None:
        """Take the views of this layer's parameters, their gradients and its state, by their names."""
        self.parameters = parameters
        self.parameter_gradients = gradients
        self.state = state
        if self.activation.build(self.units):
            self.activation.attach(parameters, gradients)
        self._scratch = {
            name: np.empty_like(parameters[name]) for name in {**self.regularizers, **self.constraints}
        }

    def initialize(self, rng: np.random.Generator) -> None:
        """Fill the parameters and the state with initial values."""
        self.activation.initialize(rng)

    def transform(self, x: Array, y: Array) -> None:
        """Compute from x, (batch, inputs), what goes into the activation: y, (batch, units)."""
        np.copyto(y, x)

    def learning_transform(self, x: Array, y: Array, buffers: Buffers) -> None:
        """Do the same in a step of training, and keep in ``buffers`` what ``gradients`` needs."""
        del buffers
        self.transform(x, y)

    def gradients(self, x: Array, dy: Array, dx: Array | None, buffers: Buffers) -> None:
        """Compute the gradients of the parameters and, unless None, of x, from dy: (batch, units)."""
        del x, buffers
        if dx is not None:
            np.copyto(dx, dy)

    def penalty(self, *, learning: bool) -> float:
        """Return what the regularizers add to the loss; while learning, also add their gradients."""
        return sum(
            regularizer.penalty(
                self.parameters[name],
                self.parameter_gradients[name] if learning else None,
                self._scratch[name],
            )
            for name, regularizer in self.regularizers.items()
        )

    def constrain(self) -> None:
        """Make the constraints hold."""
        for name, constraint in self.constraints.items():
            constraint.apply(self.parameters[name], self._scratch[name])


def _holds_arrays(value: object) -> bool:
    some = list(value.values()) if isinstance(value, dict) else [value]
    return any(isinstance(one, np.ndarray) for one in some)


class Dense(Layer):
    """``activation(x @ kernel + bias)``: every unit sees every input.

    Args:
        units: outputs.
        activation: a name, an instance, or a pair of a function and its derivative; None is linear.
        use_bias: whether a bias is added.
        kernel_initializer: for the kernel, (inputs, units).
        bias_initializer: for the bias, (units,).
        kernel_regularizer: what the kernel adds to the loss: ``l1``, ``l2``, ``l1_l2`` or an instance.
        bias_regularizer: what the bias adds to the loss.
        kernel_constraint: what holds for the kernel after each step: ``max_norm`` or an instance.

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
        activation: str | ActivationFunction | Pair | None = None,
        use_bias: bool = True,
        kernel_initializer: str | Initializer = "glorot_uniform",
        bias_initializer: str | Initializer = "zeros",
        kernel_regularizer: str | Regularizer | None = None,
        bias_regularizer: str | Regularizer | None = None,
        kernel_constraint: str | MaxNorm | None = None,
    ) -> None:
        self.units = checks.whole_number("units", units)
        self.activation = activations.get(activation)
        self.use_bias = use_bias
        self.kernel_initializer = initializers.get(kernel_initializer)
        self.bias_initializer = initializers.get(bias_initializer)
        penalties = {
            "kernel": regularizers.get(kernel_regularizer),
            "bias": regularizers.get(bias_regularizer) if use_bias else None,
        }
        self.regularizers = {name: penalty for name, penalty in penalties.items() if penalty is not None}
        constraint = regularizers.get_constraint(kernel_constraint)
        self.constraints = {} if constraint is None else {"kernel": constraint}

    def width(self, inputs: int) -> int:
        """Return the units."""
        del inputs
        return self.units

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shapes of kernel and bias."""
        shapes: dict[str, tuple[int, ...]] = {"kernel": (self.inputs, self.units)}
        if self.use_bias:
            shapes["bias"] = (self.units,)
        return shapes

    def attach(
        self, parameters: dict[str, Array], gradients: dict[str, Array], state: dict[str, Array]
    ) -> None:
        """Take the views of kernel and bias."""
        super().attach(parameters, gradients, state)
        self.kernel, self.bias = parameters["kernel"], parameters.get("bias")
        self._kernel_gradient, self._bias_gradient = gradients["kernel"], gradients.get("bias")

    def initialize(self, rng: np.random.Generator) -> None:
        """Fill kernel and bias."""
        self.kernel_initializer.fill(self.kernel, rng)
        if self.bias is not None:
            self.bias_initializer.fill(self.bias, rng)
        super().initialize(rng)

    def transform(self, x: Array, y: Array) -> None:
        """``y = x @ kernel + bias``."""
        np.matmul(x, self.kernel, out=y)
        if self.bias is not None:
            np.add(y, self.bias, out=y)

    def gradients(self, x: Array, dy: Array, dx: Array | None, buffers: Buffers) -> None:
        """``dkernel = x.T @ dy``, ``dbias = sum of dy over the rows``, ``dx = dy @ kernel.T``."""
        del buffers
        np.matmul(x.T, dy, out=self._kernel_gradient)
        if self._bias_gradient is not None:
            np.sum(dy, axis=0, out=self._bias_gradient)
        if dx is not None:
            np.matmul(dy, self.kernel.T, out=dx)


class Activation(Layer):
    """An activation as a layer of its own; the model file merges it into the Dense before it.

    Args:
        activation: a name, an instance, or a pair of a function and its derivative.
    """

    kind = "activation"

    def __init__(self, activation: str | ActivationFunction | Pair) -> None:
        self.activation = activations.get(activation)


class PReLU(Activation):
    """``x`` if positive, else ``alpha * x`` with an ``alpha`` a unit that is learned (He et al., 2015).

    The same as ``Activation("prelu")``: for wide layers and much data.

    Args:
        alpha_initializer: for alpha, (units,).
    """

    kind = "p_re_lu"

    def __init__(self, alpha_initializer: str | Initializer = "zeros") -> None:
        super().__init__(activations.PReLU(alpha_initializer))


class Flatten(Layer):
    """Says that a row of several dimensions is read as one: all layers here do that anyway, so it costs nothing."""

    kind = "flatten"

    def __init__(self) -> None:
        self.activation = activations.get(None)

    def idle(self, *, learning: bool) -> bool:
        """Return True: it does nothing."""
        del learning
        return True


class Rescaling(Layer):
    """``scale * x + offset``: pixels of 0 to 255 become numbers about 0. It stands first, before all other layers.

    It is done while the rows of a batch are gathered, so that a table of bytes (``uint8``) stays one, a quarter as large as in
    float32; augmentations see what it gives. At export it is folded into the Dense after it: the model takes raw pixels.

    Args:
        scale: what each number is multiplied by: ``1 / 255``; for standardised pixels ``1 / (255 * deviation)``.
        offset: what is added to that; for standardised pixels ``-mean / deviation``.

    Example:
        >>> import numpy as np
        >>> from mariana.trainer import Dense, Rescaling, Sequential
        >>> net = Sequential([Rescaling(1 / 255), Dense(3, kernel_initializer="ones")])
        >>> net.predict(np.full((1, 2), 255, np.uint8)).tolist()
        [[2.0, 2.0, 2.0]]
    """

    kind = "rescaling"

    def __init__(self, scale: float, offset: float = 0.0) -> None:
        self.scale = checks.number("scale", scale, -math.inf)
        self.offset = checks.number("offset", offset, -math.inf)
        self.activation = activations.get(None)

    def idle(self, *, learning: bool) -> bool:
        """Return True: rows are rescaled before they come to the layers."""
        del learning
        return True

    def affine(self) -> tuple[Array, Array]:
        """Return the (units,) float64 factors and summands."""
        return np.full(self.units, self.scale), np.full(self.units, self.offset)


class _Random(Layer):
    """A layer that draws numbers in each step of training, and does nothing to a prediction.

    Args:
        seed: of what is drawn; None: drawn from the network's seed.
    """

    def __init__(self, seed: int | None) -> None:
        self.seed = None if seed is None else checks.whole_number("seed", seed, 0)
        self.activation = activations.get(None)

    def idle(self, *, learning: bool) -> bool:
        """Return whether this is a prediction."""
        return not learning

    def initialize(self, rng: np.random.Generator) -> None:
        """Seed what will be drawn."""
        self.rng = np.random.default_rng(rng.integers(1 << 62) if self.seed is None else self.seed)


class GaussianNoise(_Random):
    """Adds normal numbers while training: what is learned must not hang on small differences of the inputs.

    Wise as the first layer, on standardised inputs, with a deviation of 0.05 to 0.2. Predictions are not touched; the
    model file has none.

    Args:
        stddev: standard deviation of what is added; 0 or more.
        seed: of the noise; None: drawn from the network's seed.
    """

    kind = "gaussian_noise"

    def __init__(self, stddev: float, seed: int | None = None) -> None:
        super().__init__(seed)
        self.stddev = checks.number("stddev", stddev, 0)

    def learning_transform(self, x: Array, y: Array, buffers: Buffers) -> None:
        """``y = x + noise``."""
        del buffers
        self.rng.standard_normal(out=y, dtype=y.dtype.type)  # type: ignore[union-attr]  # initialize has made it
        np.multiply(y, self.stddev, out=y)
        np.add(y, x, out=y)


class Dropout(_Random):
    """Sets each input to 0 with probability ``rate`` while training, and scales the others by ``1 / (1 - rate)``.

    So no unit can rely on another one (Srivastava et al., 2014). Predictions are not touched; the model file has none.

    Args:
        rate: share of the inputs that is dropped; 0 to below 1.
        seed: of what is dropped; None: drawn from the network's seed.
    """

    kind = "dropout"

    def __init__(self, rate: float, seed: int | None = None) -> None:
        super().__init__(seed)
        self.rate = checks.number("rate", rate, 0, 1)

    def learning_transform(self, x: Array, y: Array, buffers: Buffers) -> None:
        """``y = keep * x / (1 - rate)``, with a new random ``keep`` of zeros and ones."""
        keep = buffers.get("keep", self.units, dtype=np.bool_)
        # y holds the random numbers first, so that they need no array of their own
        self.rng.random(out=y, dtype=y.dtype.type)  # type: ignore[union-attr]  # initialize has made it
        np.greater_equal(y, self.rate, out=keep)
        np.multiply(x, keep, out=y)
        np.multiply(y, 1 / (1 - self.rate), out=y)

    def gradients(self, x: Array, dy: Array, dx: Array | None, buffers: Buffers) -> None:
        """``dx = keep * dy / (1 - rate)``."""
        del x
        if dx is not None:
            np.multiply(dy, buffers.get("keep", self.units, dtype=np.bool_), out=dx)
            np.multiply(dx, 1 / (1 - self.rate), out=dx)


class BatchNormalization(Layer):
    """``gamma * (x - mean) / sqrt(variance + epsilon) + beta``, column by column (Ioffe and Szegedy, 2015).

    While training, mean and (biased) variance are those of the batch, and moving ones follow them:
    ``moving = momentum * moving + (1 - momentum) * batch``. Predictions use the moving ones. With few steps of
    training they lag behind: then lower the momentum, for example to 0.9. The model file has no such layer: it is
    folded into the Dense beside it.

    Args:
        momentum: memory of the moving mean and variance; 0 to below 1.
        epsilon: added to the variance; positive.
        center: whether ``beta`` is added.
        scale: whether it is multiplied by ``gamma``.
    """

    kind = "batch_normalization"

    def __init__(
        self, *, momentum: float = 0.99, epsilon: float = 1e-3, center: bool = True, scale: bool = True
    ) -> None:
        self.momentum = checks.number("momentum", momentum, 0, 1)
        self.epsilon = checks.number("epsilon", epsilon, 0, above=True)
        self.center = center
        self.scale = scale
        self.activation = activations.get(None)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shapes of gamma and beta."""
        wanted = (("gamma", self.scale), ("beta", self.center))
        return {name: (self.units,) for name, there in wanted if there}

    def state_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the moving mean and variance."""
        return {"moving_mean": (self.units,), "moving_variance": (self.units,)}

    def attach(
        self, parameters: dict[str, Array], gradients: dict[str, Array], state: dict[str, Array]
    ) -> None:
        """Take the views, and make the few numbers a column that a step needs."""
        super().attach(parameters, gradients, state)
        self.gamma, self.beta = parameters.get("gamma"), parameters.get("beta")
        self.moving_mean, self.moving_variance = state["moving_mean"], state["moving_variance"]
        self.batch_mean, self.batch_variance, self.batch_factor = (
            np.empty_like(self.moving_mean) for _ in range(3)
        )

    def initialize(self, rng: np.random.Generator) -> None:
        """Begin with the identity."""
        del rng
        for array, value in (
            (self.gamma, 1),
            (self.beta, 0),
            (self.moving_mean, 0),
            (self.moving_variance, 1),
        ):
            if array is not None:
                array[...] = value

    def transform(self, x: Array, y: Array) -> None:
        """Normalise with the moving mean and variance."""
        np.subtract(x, self.moving_mean, out=y)
        self._divide(y, self.moving_variance)
        self._affine(y, y)

    def learning_transform(self, x: Array, y: Array, buffers: Buffers) -> None:
        """Normalise with the mean and variance of the batch, and let the moving ones follow."""
        normalized = buffers.get("normalized", self.units)
        np.sum(x, axis=0, out=self.batch_mean)
        np.divide(self.batch_mean, len(x), out=self.batch_mean)
        np.subtract(x, self.batch_mean, out=normalized)
        np.multiply(normalized, normalized, out=y)
        np.sum(y, axis=0, out=self.batch_variance)
        np.divide(self.batch_variance, len(x), out=self.batch_variance)
        for moving, batch in (
            (self.moving_mean, self.batch_mean),
            (self.moving_variance, self.batch_variance),
        ):
            np.subtract(batch, moving, out=self.batch_factor)
            np.multiply(self.batch_factor, 1 - self.momentum, out=self.batch_factor)
            np.add(moving, self.batch_factor, out=moving)
        self._divide(normalized, self.batch_variance)
        self._affine(normalized, y)

    def gradients(self, x: Array, dy: Array, dx: Array | None, buffers: Buffers) -> None:
        """``dx = gamma / sqrt(variance + epsilon) * (dy - mean(dy) - normalized * mean(dy * normalized))``."""
        del x
        normalized, product = buffers.get("normalized", self.units), buffers.get("product", self.units)
        dgamma, dbeta = (
            self.batch_mean,
            self.batch_variance,
        )  # the step is over: their numbers are not needed any more
        np.multiply(dy, normalized, out=product)
        np.sum(product, axis=0, out=dgamma)
        np.sum(dy, axis=0, out=dbeta)
        for name, gradient in (("gamma", dgamma), ("beta", dbeta)):
            if name in self.parameter_gradients:
                np.copyto(self.parameter_gradients[name], gradient)
        if dx is None:
            return
        np.divide(dgamma, len(dy), out=dgamma)
        np.divide(dbeta, len(dy), out=dbeta)
        np.multiply(normalized, dgamma, out=product)
        np.subtract(dy, dbeta, out=dx)
        np.subtract(dx, product, out=dx)
        np.multiply(dx, self.batch_factor, out=dx)
        if self.gamma is not None:
            np.multiply(dx, self.gamma, out=dx)

    def affine(self) -> tuple[Array, Array]:
        """Return the (units,) float64 factors and summands that a prediction multiplies by and adds."""
        factor = 1 / np.sqrt(self.moving_variance.astype(np.float64) + self.epsilon)
        if self.gamma is not None:
            factor *= self.gamma
        summand = -self.moving_mean * factor
        return factor, summand if self.beta is None else summand + self.beta

    def _divide(self, centred: Array, variance: Array) -> None:
        """Divide by the standard deviation; its reciprocal stays in ``batch_factor``."""
        np.add(variance, self.epsilon, out=self.batch_factor)
        np.sqrt(self.batch_factor, out=self.batch_factor)
        np.reciprocal(self.batch_factor, out=self.batch_factor)
        np.multiply(centred, self.batch_factor, out=centred)

    def _affine(self, normalized: Array, y: Array) -> None:
        if self.gamma is None:
            np.copyto(y, normalized)
        else:
            np.multiply(normalized, self.gamma, out=y)
        if self.beta is not None:
            np.add(y, self.beta, out=y)
