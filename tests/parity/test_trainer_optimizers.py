"""Optimizers over the flat vector against textbook formulas, one weight array at a time; clipping and weight decay."""

import math

import numpy as np
import pytest

from mariana.errors import InvalidInputError
from mariana.trainer import SGD, Adagrad, Adam, Adamax, AdamW, Dense, Nadam, RMSprop, Sequential
from mariana.trainer.optimizers import OPTIMIZERS, Optimizer

SHAPES = ((4, 3), (3,), (3, 2), (2,))


def _rmsprop(rate, rho, momentum, epsilon, centered):
    def step(s, p, g, t):
        del t
        s["v"] = rho * s.get("v", 0) + (1 - rho) * g**2
        s["m"] = rho * s.get("m", 0) + (1 - rho) * g
        s["u"] = momentum * s.get("u", 0) + rate * g / np.sqrt(
            s["v"] - (s["m"] ** 2 if centered else 0) + epsilon
        )
        return p - s["u"]

    return step


def _adagrad(rate, initial, epsilon):
    def step(s, p, g, t):
        del t
        s["a"] = s.get("a", initial) + g**2
        return p - rate * g / np.sqrt(s["a"] + epsilon)

    return step


def _adam(rate, b1, b2, epsilon, *, amsgrad=False, decay=0.0):
    def step(s, p, g, t):
        s["m"] = b1 * s.get("m", 0) + (1 - b1) * g
        s["v"] = b2 * s.get("v", 0) + (1 - b2) * g**2
        s["largest"] = np.maximum(s.get("largest", 0), s["v"])
        second = s["largest"] if amsgrad else s["v"]
        p = p - rate * decay * p
        # with epsilon as Keras has it: beside the root of what is not corrected yet
        corrected = epsilon / math.sqrt(1 - b2**t)
        return p - rate * (s["m"] / (1 - b1**t)) / (np.sqrt(second / (1 - b2**t)) + corrected)

    return step


def _adamax(rate, b1, b2, epsilon):
    def step(s, p, g, t):
        s["m"] = b1 * s.get("m", 0) + (1 - b1) * g
        s["u"] = np.maximum(b2 * s.get("u", 0), abs(g))
        return p - rate / (1 - b1**t) * s["m"] / (s["u"] + epsilon)

    return step


def _nadam(rate, b1, b2, epsilon):
    def mu(t):
        return b1 * (1 - 0.5 * 0.96**t)

    def step(s, p, g, t):
        s["m"] = b1 * s.get("m", 0) + (1 - b1) * g
        s["v"] = b2 * s.get("v", 0) + (1 - b2) * g**2
        so_far = math.prod(mu(i) for i in range(1, t + 1))
        ahead = mu(t + 1) * s["m"] / (1 - so_far * mu(t + 1)) + (1 - mu(t)) * g / (1 - so_far)
        return p - rate * ahead / (np.sqrt(s["v"] / (1 - b2**t)) + epsilon)

    return step


CASES = {
    "rmsprop": (RMSprop(), _rmsprop(0.001, 0.9, 0, 1e-7, False)),
    "rmsprop with all": (RMSprop(0.01, 0.8, 0.5, 1e-3, True), _rmsprop(0.01, 0.8, 0.5, 1e-3, True)),
    "adagrad": (Adagrad(), _adagrad(0.001, 0.1, 1e-7)),
    "adagrad, own numbers": (Adagrad(0.3, 0.5, 1e-3), _adagrad(0.3, 0.5, 1e-3)),
    "adam": (Adam(), _adam(0.001, 0.9, 0.999, 1e-7)),
    "amsgrad": (Adam(0.02, 0.8, 0.9, 1e-4, amsgrad=True), _adam(0.02, 0.8, 0.9, 1e-4, amsgrad=True)),
    "adamw": (AdamW(), _adam(0.001, 0.9, 0.999, 1e-7, decay=0.004)),
    "adamw, own numbers": (AdamW(0.02, 0.3, 0.7, 0.9, 1e-3), _adam(0.02, 0.7, 0.9, 1e-3, decay=0.3)),
    "adamax": (Adamax(), _adamax(0.001, 0.9, 0.999, 1e-7)),
    "adamax, own numbers": (Adamax(0.05, 0.7, 0.8, 1e-3), _adamax(0.05, 0.7, 0.8, 1e-3)),
    "nadam": (Nadam(), _nadam(0.001, 0.9, 0.999, 1e-7)),
    "nadam, own numbers": (Nadam(0.05, 0.7, 0.8, 1e-3), _nadam(0.05, 0.7, 0.8, 1e-3)),
}


@pytest.mark.parametrize("case", CASES)
def test_200_steps_as_the_textbook_says_array_by_array(case: str) -> None:
    optimizer, textbook = CASES[case]
    rng = np.random.default_rng(0)
    theirs = [rng.normal(size=shape) for shape in SHAPES]
    scales = [rng.uniform(0.1, 3, shape) for shape in SHAPES]
    states: list[dict] = [{} for _ in SHAPES]
    ours = np.concatenate([p.ravel() for p in theirs])
    begin = ours.copy()
    optimizer.build(ours)
    for t in range(1, 201):
        noise = [rng.normal(scale=0.1, size=shape) for shape in SHAPES]
        cut = np.cumsum([p.size for p in theirs])[:-1]
        here = [part.reshape(s) for part, s in zip(np.split(ours, cut), SHAPES, strict=True)]
        flat = [(c * p + n).ravel() for c, p, n in zip(scales, here, noise, strict=True)]
        optimizer.update(ours, np.concatenate(flat))
        theirs = [
            textbook(s, p, c * p + n, t) for s, p, c, n in zip(states, theirs, scales, noise, strict=True)
        ]
    np.testing.assert_allclose(ours, np.concatenate([p.ravel() for p in theirs]), rtol=1e-6, atol=1e-9)
    assert np.abs(ours - begin).min() > 1e-6


@pytest.mark.parametrize(
    ("optimizer", "first"),
    [
        (RMSprop(0.01, epsilon=1e-30), lambda p, g: p - 0.01 * np.sign(g) / math.sqrt(0.1)),
        (
            Adagrad(0.01, initial_accumulator_value=0, epsilon=1e-30),
            lambda p, g: p - 0.01 * np.sign(g),
        ),
        (Adam(0.01, epsilon=1e-30, amsgrad=True), lambda p, g: p - 0.01 * np.sign(g)),
        (AdamW(0.01, 0.5, epsilon=1e-30), lambda p, g: p * (1 - 0.005) - 0.01 * np.sign(g)),
        (Adamax(0.01, epsilon=1e-30), lambda p, g: p - 0.01 * np.sign(g)),
        (
            Nadam(0.01, epsilon=1e-30),
            lambda p, g: p - 0.01 * np.sign(g) * (0.1 * 0.48528 / (1 - 0.468 * 0.48528) + 1),
        ),
        (SGD(0.01, weight_decay=0.5), lambda p, g: p * (1 - 0.005) - 0.01 * g),
    ],
    ids=lambda value: value.name if isinstance(value, Optimizer) else "",
)
def test_the_first_step_in_closed_form(optimizer: Optimizer, first) -> None:
    before, gradients = np.array([1.0, -2.0, 0.5]), np.array([1e-3, -5.0, 700.0])
    after = before.copy()
    optimizer.build(after)
    optimizer.update(after, gradients.copy())
    np.testing.assert_allclose(after, first(before, gradients), rtol=1e-9)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_clipping(dtype: type) -> None:
    def moved(gradients: list[float], **clip: float) -> np.ndarray:
        parameters = np.zeros(len(gradients), dtype)
        sgd = SGD(1.0, **clip)
        sgd.build(parameters, [2, 3])
        sgd.update(parameters, np.array(gradients, dtype))
        return -parameters

    g = [3.0, 4.0, 0.0, 0.0, 12.0]
    np.testing.assert_allclose(moved(g, clipvalue=3.5), [3, 3.5, 0, 0, 3.5])
    np.testing.assert_allclose(moved([-9, 1, 0, 0, 0], clipvalue=2), [-2, 1, 0, 0, 0])
    np.testing.assert_allclose(moved(g, clipnorm=10), [3, 4, 0, 0, 10], rtol=1e-6)
    np.testing.assert_allclose(moved(g, clipnorm=1), [0.6, 0.8, 0, 0, 1], rtol=1e-6)
    np.testing.assert_allclose(moved(g, global_clipnorm=6.5), np.array(g) / 2, rtol=1e-6)
    np.testing.assert_allclose(moved(g, global_clipnorm=14), g)
    np.testing.assert_allclose(moved([3e30, 4e30, 0, 0, 0], global_clipnorm=5), [3, 4, 0, 0, 0], rtol=1e-6)


def test_a_network_clips_each_of_its_weight_arrays() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(8, 4)), rng.normal(size=(8, 2)) * 100
    net = Sequential([Dense(3, "tanh"), Dense(2)], seed=0, dtype="float64")
    net.compile(SGD(1.0, clipnorm=0.25), "mse")
    net.build((4,))
    net.loss_and_gradients(x, y)
    before, views = (
        net.get_weights(),
        [g.copy() for la in net.layers for g in la.parameter_gradients.values()],
    )
    net.fit(x, y, batch_size=8, verbose=0)
    for old, new, gradient in zip(before, net.get_weights(), views, strict=True):
        norm = np.linalg.norm(gradient)
        np.testing.assert_allclose(old - new, gradient * min(1, 0.25 / norm), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_learns_and_makes_itself_again_from_its_config(name: str) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(256, 3))
    net = Sequential([Dense(1)], seed=0)
    optimizer = OPTIMIZERS[name](0.05, clipnorm=100.0)
    net.compile(optimizer, "mse")
    losses = net.fit(x, x @ [1.0, -2.0, 0.5], epochs=40, verbose=0).history["loss"]
    assert losses[-1] < losses[0] / 3
    config = optimizer.config()
    assert config["clipnorm"] == 100.0
    assert net.training["optimizer"] == config
    assert OPTIMIZERS[config.pop("name")](**config).config() == optimizer.config()


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: Adam(clipnorm=1, clipvalue=1), "clipnorm and clipvalue exclude each other"),
        (lambda: SGD(clipvalue=0), "clipvalue is 0"),
        (lambda: AdamW(weight_decay=-1), "weight_decay is -1"),
        (lambda: RMSprop(rho=1), "rho is 1"),
        (lambda: Adagrad(initial_accumulator_value=-1), "initial_accumulator_value is -1"),
        (lambda: Nadam(global_clipnorm=math.nan), "global_clipnorm is nan"),
        (lambda: Adam(decay=0.1), "Adam has no argument 'decay'.*weight_decay"),
    ],
)
def test_bad_arguments_of_optimizers_are_told(make, complaint: str) -> None:
    with pytest.raises(InvalidInputError, match=complaint):
        make()
