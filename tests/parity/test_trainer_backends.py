"""The C backend beside NumPy: every layer, activation and loss, every optimizer, on every instruction set; and what is NumPy's.

C computes in float32. Its bound against NumPy in float64, for networks and batches of this size: 1e-5 of the largest number of the
gradient of each weight array, and 1e-6 of the largest of all, which counts where a gradient is 0 but for rounding.
"""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mariana._binding import usable_isas
from mariana._binding.train import Kernels, loss_names, optimizer_names
from mariana.errors import InvalidInputError, KernelError
from mariana.format import read_model
from mariana.trainer import (
    SGD,
    Activation,
    Adagrad,
    Adam,
    Adamax,
    AdamW,
    BackupAndRestore,
    BatchNormalization,
    BinaryCrossentropy,
    Callback,
    CategoricalCrossentropy,
    CustomActivation,
    CustomLoss,
    Dense,
    Dropout,
    Huber,
    Input,
    MaxNorm,
    MixUp,
    Nadam,
    PReLU,
    RMSprop,
    Sequential,
    SparseCategoricalCrossentropy,
    use_backend,
)
from mariana.trainer.activations import ACTIVATIONS, ELU, LeakyReLU
from mariana.trainer.backend import Backend, chosen
from mariana.trainer.fused import Fused
from mariana.trainer.losses import LOSSES
from mariana.trainer.optimizers import OPTIMIZERS

ROWS, COLUMNS = 37, 5
ISAS = [isa for isa in usable_isas() if isa in ("generic", "avx2", "avx512", "neon")]
"""Those with kernels of their own."""
FLOAT32 = np.dtype(np.float32)

X = np.random.default_rng(0).normal(size=(203, 6)).astype(np.float32)
Y = (X[:, 0] + X[:, 1] ** 2 > 0.7).astype(int) + (X[:, 2] > 0.5)


@pytest.fixture(params=ISAS)
def isa(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("MARIANA_ISA", request.param)
    return request.param


def _targets(loss: str, units: int) -> np.ndarray:
    rng = np.random.default_rng(3)
    return {
        "sparse_categorical_crossentropy": lambda: rng.integers(0, units, ROWS),
        "categorical_crossentropy": lambda: rng.dirichlet(np.ones(units), ROWS),
        "poisson": lambda: rng.poisson(2, (ROWS, units)).astype(float),
        "hinge": lambda: rng.choice([-1.0, 1.0], (ROWS, units)),
    }.get(loss, lambda: rng.uniform(0, 1, (ROWS, units)))()


def _compare(layers, loss, *, units: int, weights=None, bound: float = 1e-5) -> None:
    """Compare loss and gradients of a step of C in float32 with one of NumPy in float64, from the same weights."""
    rng = np.random.default_rng(2)
    x = rng.normal(size=(ROWS, COLUMNS)).astype(np.float32)
    name = loss if isinstance(loss, str) else loss.name
    y, found = _targets(name, units), {}
    start = None
    for dtype, backend in (("float64", "numpy"), ("float32", "c")):
        net = Sequential(layers(), seed=1, dtype=dtype)
        net.compile("sgd", loss)
        net.build((COLUMNS,))
        if start is None:
            start = net.parameters + rng.normal(scale=0.3, size=net.parameters.shape)
            start = start.astype(np.float32)
        net.parameters[...] = start
        with use_backend(backend):
            value = net.loss_and_gradients(x, y, weights)
        found[backend] = value, net.gradients.astype(float), net._sizes()
    assert found["c"][0] == pytest.approx(found["numpy"][0], rel=2e-6)
    place, least = 0, 1e-6 * np.abs(found["numpy"][1]).max()
    for name, size in found["numpy"][2].items():
        ours, theirs = (found[backend][1][place : place + size] for backend in ("c", "numpy"))
        assert np.abs(ours - theirs).max() <= bound * np.abs(theirs).max() + least, name
        place += size


def _name(activation) -> str:
    return activation if isinstance(activation, str) else f"own {activation.name}"


@pytest.mark.parametrize("units", [3, 16, 70])
@pytest.mark.parametrize("activation", [*ACTIVATIONS, LeakyReLU(0.05), ELU(1.7)], ids=_name)
@pytest.mark.usefixtures("isa")
def test_every_activation(activation, units: int) -> None:
    def layers() -> list:
        return [Dense(units, activation), Dense(7, activation, use_bias=False), Dense(2)]

    _compare(layers, "mean_squared_error", units=2)


@pytest.mark.parametrize("activation", ["relu", "gelu", "prelu", "linear"])
@pytest.mark.usefixtures("isa")
def test_activations_as_layers(activation: str) -> None:
    last = PReLU() if activation == "prelu" else Activation(activation)
    _compare(lambda: [Activation("tanh"), Dense(19), Activation(activation), Dense(2)], "mse", units=2)
    if activation != "prelu":
        _compare(lambda: [Dense(19), last], "mse", units=19)


@pytest.mark.parametrize("units", [1, 2, 10, 16, 45])
@pytest.mark.parametrize("loss", sorted({cls.name for cls in LOSSES.values()}))
@pytest.mark.usefixtures("isa")
def test_every_loss(loss: str, units: int) -> None:
    if units == 1 and LOSSES[loss].fuses == "softmax":
        pytest.skip("a softmax of one output is always 1")
    last = LOSSES[loss].fuses or ("softplus" if loss == "poisson" else None)
    weights = np.random.default_rng(0).uniform(0, 3, ROWS)
    for given in (None, weights):
        _compare(lambda: [Dense(6, "tanh"), Dense(units, last)], loss, units=units, weights=given)


@pytest.mark.parametrize(
    "loss",
    [
        SparseCategoricalCrossentropy(label_smoothing=0.2),
        CategoricalCrossentropy(from_logits=True, label_smoothing=0.2),
        BinaryCrossentropy(label_smoothing=0.1),
        Huber(0.2),
    ],
    ids=lambda loss: loss.name,
)
@pytest.mark.usefixtures("isa")
def test_losses_with_arguments(loss) -> None:
    last = None if getattr(loss, "from_logits", False) else loss.fuses or None
    _compare(lambda: [Dense(6, "tanh"), Dense(20, last)], loss, units=20)


@pytest.mark.parametrize("options", [{}, {"center": False}, {"scale": False}])
@pytest.mark.parametrize("units", [4, 33])
@pytest.mark.usefixtures("isa")
def test_batch_normalisation(options: dict, units: int) -> None:
    _compare(
        lambda: [BatchNormalization(**options), Dense(units), BatchNormalization(**options), Dense(2)],
        "mse",
        units=2,
        bound=1e-4,  # divided by small deviations
    )
    nets = []
    for backend in ("numpy", "c"):
        net = Sequential([BatchNormalization(momentum=0.7), Dense(1)], seed=0)
        net.compile("sgd", "mse")
        x = np.random.default_rng(0).normal(3, 2, (64, units)).astype(np.float32)
        with use_backend(backend):
            net.fit(x, x[:, 0], batch_size=16, epochs=3, verbose=0)
        nets.append(net)
    np.testing.assert_allclose(nets[1].state, nets[0].state, rtol=1e-5)


def test_huge_logits_stay_finite_and_nan_is_seen(isa: str) -> None:
    kernels, logits = Kernels(isa), np.zeros((3, 5), np.float32)
    logits[0, 1], logits[1, 2], logits[2, 3] = 3e38, -3e38, np.nan
    losses, gradient = np.empty(3, np.float32), np.empty_like(logits)
    classes = np.array([1, 2, 0], np.int64)
    name = "sparse_categorical_crossentropy"
    total = kernels.loss(name, logits, classes=classes, losses=losses, gradient=gradient)()
    assert losses[0] == 0
    assert losses[1] == pytest.approx(3e38)
    assert np.isnan([losses[2], total]).all()
    assert np.isfinite(gradient[:2]).all()
    classes[0] = 5
    with pytest.raises(KernelError):
        kernels.loss(name, logits, classes=classes, losses=losses, gradient=gradient)()
    with pytest.raises(KernelError):
        kernels.loss(name, logits, losses=losses)


# Dropout.


def test_dropout_drops_its_share_and_the_way_back_drops_the_same(isa: str) -> None:
    kernels, seed = Kernels(isa), np.zeros(1, np.uint64)
    x, dy = np.random.default_rng(0).uniform(1, 2, (2, 300, 333)).astype(np.float32)
    y, dx = np.empty_like(x), np.empty_like(x)
    forward, back = kernels.drop(0.3, seed, x, y), kernels.drop(0.3, seed, dy, dx)
    masks = []
    for value in (1, 2, 1 << 40, 2**64 - 1):
        seed[0] = value
        forward()
        back()
        kept = y != 0
        np.testing.assert_array_equal(kept, dx != 0)
        np.testing.assert_allclose(y[kept], x[kept] / 0.7, rtol=1e-6)
        assert abs(kept.mean() - 0.7) < 4 * np.sqrt(0.21 / x.size)
        # neither rows nor columns nor neighbours know of each other
        assert np.abs(kept.mean(axis=0) - 0.7).max() < 5 * np.sqrt(0.21 / 300)
        assert np.abs(kept.mean(axis=1) - 0.7).max() < 5 * np.sqrt(0.21 / 333)
        assert abs((kept[:, 1:] & kept[:, :-1]).mean() - 0.49) < 0.01
        masks.append(kept)
    for one in range(4):
        for other in range(one):
            assert abs((masks[one] & masks[other]).mean() - 0.49) < 0.01
    forward_all = kernels.drop(0.0, seed, x, y)
    forward_all()
    np.testing.assert_array_equal(y, x)


def test_the_same_is_dropped_on_every_instruction_set() -> None:
    seed, x = np.array([12345], np.uint64), np.ones(1001, np.float32)
    found = set()
    for name in ISAS:
        y = np.empty_like(x)
        Kernels(name).drop(0.5, seed, x, y)()
        found.add(y.tobytes())
    assert len(found) == 1


# Optimizers.

COMMON = {
    "": {},
    "decay": {"weight_decay": 0.1},
    "value": {"clipvalue": 1.0},
    "norm": {"clipnorm": 0.3, "weight_decay": 0.05},
    "global": {"global_clipnorm": 0.5, "weight_decay": 0.05},
    "average": {"use_ema": True, "ema_momentum": 0.9},
}
KINDS = {
    "sgd": SGD,
    "momentum": lambda **c: SGD(0.01, 0.9, **c),
    "nesterov": lambda **c: SGD(0.01, 0.9, nesterov=True, **c),
    "adagrad": lambda **c: Adagrad(0.05, **c),
    "rmsprop": RMSprop,
    "rmsprop_momentum": lambda **c: RMSprop(momentum=0.5, **c),
    "rmsprop_centered": lambda **c: RMSprop(centered=True, epsilon=1e-2, **c),
    "rmsprop_centered_momentum": lambda **c: RMSprop(momentum=0.5, centered=True, epsilon=1e-2, **c),
    "adam": lambda **c: Adam(0.01, **c),
    "amsgrad": lambda **c: Adam(0.01, amsgrad=True, **c),
    "adamax": lambda **c: Adamax(0.01, **c),
    "nadam": lambda **c: Nadam(0.01, **c),
}


def test_every_fused_step_has_a_case() -> None:
    assert list(KINDS) == sorted(optimizer_names(), key=list(KINDS).index)
    assert {make().rule for make in KINDS.values()} == set(optimizer_names())
    assert set(loss_names()) < set(LOSSES)


def _run(optimizer, backend: Backend, dtype: str) -> tuple[np.ndarray, np.ndarray | None]:
    """Do 200 steps towards the middle, with noise; the numbers are about 1."""
    rng = np.random.default_rng(0)
    sizes = {"a/kernel": 40, "a/bias": 7, "b/kernel": 16, "b/bias": 3}
    size = sum(sizes.values())
    p, scale = rng.normal(size=size).astype(dtype), rng.uniform(0.1, 1.5, size).astype(dtype)
    gradients = np.empty_like(p)
    optimizer.exclude_from_weight_decay(["bias"])
    optimizer.build(p, sizes)
    update = backend.update(optimizer, p, gradients, [])
    for _ in range(200):
        gradients[...] = scale * p + rng.normal(scale=0.3, size=size)
        update()
    return p, None if optimizer.average is None else optimizer.average.sum


@pytest.mark.parametrize("common", COMMON)
@pytest.mark.parametrize("kind", KINDS)
def test_200_steps_of_every_optimizer(isa: str, kind: str, common: str) -> None:
    """In float64, NumPy's are equal to PyTorch's and the textbook's (test_trainer_torch.py, test_trainer_optimizers.py)."""
    theirs, their_average = _run(KINDS[kind](**COMMON[common]), Backend(), "float64")
    ours, our_average = _run(KINDS[kind](**COMMON[common]), Fused(isa), "float32")
    # where gradients are cut, steps are alike, and their rounding to float32 goes the same way each time
    bound = 2e-5 if common == "value" else 1e-6
    np.testing.assert_allclose(ours, theirs, rtol=bound, atol=bound)
    if their_average is not None:
        np.testing.assert_allclose(our_average, their_average, rtol=1e-6, atol=1e-6)


def test_200_steps_beside_pytorch(isa: str) -> None:
    torch = pytest.importorskip("torch")
    optim, tiny = torch.optim, 1e-30
    cases = [
        (SGD(0.05, 0.9), lambda p: optim.SGD(p, 0.05, momentum=0.9)),
        (SGD(0.05, 0.9, nesterov=True), lambda p: optim.SGD(p, 0.05, momentum=0.9, nesterov=True)),
        (
            Adagrad(0.1, epsilon=tiny),
            lambda p: optim.Adagrad(p, 0.1, initial_accumulator_value=0.1, eps=tiny),
        ),
        (RMSprop(0.01, 0.95, epsilon=tiny), lambda p: optim.RMSprop(p, 0.01, alpha=0.95, eps=tiny)),
        (Adam(0.01, epsilon=tiny), lambda p: optim.Adam(p, 0.01, eps=tiny)),
        (Adam(0.01, epsilon=tiny, amsgrad=True), lambda p: optim.Adam(p, 0.01, eps=tiny, amsgrad=True)),
        (AdamW(0.01, 0.1, epsilon=tiny), lambda p: optim.AdamW(p, 0.01, weight_decay=0.1, eps=tiny)),
        (Adamax(0.01, epsilon=tiny), lambda p: optim.Adamax(p, 0.01, eps=tiny)),
        (Nadam(0.01, epsilon=tiny), lambda p: optim.NAdam(p, 0.01, eps=tiny, momentum_decay=1.0)),
    ]
    for ours, make in cases:
        rng = np.random.default_rng(0)
        p, scale = rng.normal(size=(2, 53)).astype(np.float32)
        theirs, scale = torch.tensor(p.astype(np.float64), requires_grad=True), np.abs(scale) + 0.1
        optimizer, gradients = make([theirs]), np.empty_like(p)
        ours.build(p)
        update = Fused(isa).update(ours, p, gradients, [])
        for _ in range(200):
            noise = rng.normal(scale=0.3, size=53)
            gradients[...] = scale * p + noise
            update()
            theirs.grad = torch.tensor(scale) * theirs.detach() + torch.tensor(noise)
            optimizer.step()
        np.testing.assert_allclose(p, theirs.detach().numpy(), rtol=1e-6, atol=1e-6, err_msg=ours.rule)


@pytest.mark.parametrize("spared", [[], ["bias"], ["kernel"], ["a/bias", "b"], ["a", "b"]])
@pytest.mark.parametrize("clip", [{}, {"clipnorm": 0.3}, {"global_clipnorm": 0.3}])
def test_decay_shrinks_what_is_not_spared(isa: str, spared: list[str], clip: dict[str, float]) -> None:
    found = []
    for backend in (Backend(), Fused(isa)):
        optimizer = SGD(0.5, weight_decay=0.5, **clip)
        optimizer.exclude_from_weight_decay(spared)
        parameters, gradients = np.arange(1, 41, dtype=np.float32), np.ones(40, np.float32)
        optimizer.build(parameters, {"a/kernel": 20, "a/bias": 3, "b/kernel": 15, "b/bias": 2})
        backend.update(optimizer, parameters, gradients, [])()
        found.append(parameters)
    np.testing.assert_allclose(found[1], found[0], rtol=1e-6, atol=1e-6)


def test_arrays_that_are_too_short_are_refused() -> None:
    """C takes the lengths that it is told."""
    kernels, x, short = Kernels(), np.zeros((4, 3), np.float32), np.zeros(2, np.float32)
    rows = np.zeros(4, np.int64)
    wrong = [
        lambda: kernels.forward("relu", x, x, bias=short),
        lambda: kernels.forward("relu", x[:2], x),
        lambda: kernels.backward("relu", x, x[:2], x),
        lambda: kernels.normalize_back(x, dy=x, dx=x, mean=short, inverse=short),
        lambda: kernels.drop(0.5, np.zeros(1, np.uint64), x, short),
        lambda: kernels.loss("mean_squared_error", x, targets=x, losses=short),
        lambda: kernels.loss("sparse_categorical_crossentropy", x, classes=rows[:1], losses=x[:, 0].copy()),
        lambda: kernels.update("momentum", x.ravel(), x.ravel(), [short], None),
        lambda: kernels.update("sgd", x.ravel(), short, [], None),
        lambda: kernels.update("sgd", x.ravel(), x.ravel(), [], short),
    ]
    for call in wrong:
        with pytest.raises(ValueError, match="but the others ask for"):
            call()
    with pytest.raises(ValueError, match="do not fit"):
        kernels.gather(x, rows, x[:2].copy())


@pytest.mark.parametrize("backend", ["numpy", "c"])
@pytest.mark.parametrize("widths", [(64, 2), (8, 8)], ids=["of another size", "of the same size"])
def test_an_optimizer_of_another_network_is_refused(backend: str, widths: tuple[int, int]) -> None:
    optimizer, nets = Adam(), []
    for units in widths:
        nets.append(Sequential([Input((X.shape[1],)), Dense(units, "relu"), Dense(3, "softmax")], seed=0))
        nets[-1].compile(optimizer, "sparse_categorical_crossentropy")
        nets[-1].build()
    with use_backend(backend):
        nets[1].fit(X, Y, verbose=0)
        learned = nets[1].parameters.copy()
        with pytest.raises(InvalidInputError, match="an optimizer of its own"):
            nets[0].fit(X, Y, verbose=0)
        nets[0].compile(
            optimizer, "sparse_categorical_crossentropy"
        )  # begins anew, and is the first one's from now on
        assert optimizer.iterations == 0
        nets[0].fit(X, Y, verbose=0)
        with pytest.raises(InvalidInputError, match="an optimizer of its own"):
            nets[1].fit(X, Y, verbose=0)
    np.testing.assert_array_equal(nets[1].parameters, learned)


@pytest.mark.parametrize("clip", ["clipnorm", "global_clipnorm"])
def test_gradients_whose_squares_overflow_are_shortened(isa: str, clip: str) -> None:
    optimizer = SGD(1.0, **{clip: 1.0})
    parameters = np.zeros(37, np.float32)
    gradients = np.full(37, 1e30, np.float32)
    optimizer.build(parameters)
    Fused(isa).update(optimizer, parameters, gradients, [])()
    np.testing.assert_allclose(parameters, -1 / np.sqrt(37), rtol=1e-6)


def test_constraints_come_between_the_step_and_the_average() -> None:
    nets = []
    for backend in ("numpy", "c"):
        net = _net(SGD(0.05, use_ema=True), dropout=0.0, kernel_constraint=MaxNorm(0.5))
        with use_backend(backend):
            net.fit(X, Y, epochs=3, verbose=0)
        nets.append(net)
    np.testing.assert_allclose(nets[1].parameters, nets[0].parameters, rtol=1e-4, atol=1e-5)


# Trainings.


def _net(optimizer="adam", dropout=0.2, **dense) -> Sequential:
    layers = [Dense(16, **dense), BatchNormalization(), Activation("gelu"), Dropout(dropout)]
    net = Sequential([*layers, Dense(3, "softmax")], seed=4)
    net.compile(optimizer, "sparse_categorical_crossentropy", ["accuracy"])
    return net


def test_one_seed_gives_the_same_bytes_and_the_record_says_by_which_backend(isa: str, tmp_path: Path) -> None:
    found = []
    for _ in range(2):
        net = _net()
        with use_backend("c"):
            net.fit(X, Y, batch_size=16, epochs=3, verbose=0)
        found.append(net.parameters.tobytes())
    assert found[0] == found[1]
    assert net.training["backend"] == f"c {isa}"
    assert read_model(net.export(tmp_path, "m")).metadata.training.backend == f"c {isa}"
    with use_backend("numpy"):
        net.fit(X, Y, verbose=0)
    assert net.training["backend"] == "numpy"


def test_both_learn_alike() -> None:
    losses = []
    for backend in ("numpy", "c"):
        net = Sequential([Dense(32, "tanh"), Dense(3, "softmax")], seed=0)
        net.compile("adam", "sparse_categorical_crossentropy")
        with use_backend(backend):
            losses.append(net.fit(X, Y, epochs=20, verbose=0).history["loss"])
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-4)


class Stop(Exception):  # noqa: N818
    pass


class StopAt(Callback):
    def __init__(self, step: int) -> None:
        self.left = step

    def on_train_batch_end(self, *_) -> None:
        self.left -= 1
        if self.left < 0:
            raise Stop


def _learn(folder: Path, *more: Callback) -> Sequential:
    net = _net(AdamW(0.01, use_ema=True))
    callbacks = [BackupAndRestore(folder, 1), *more]
    net.fit(X, Y, 16, 4, verbose=0, augmentations=[MixUp(0.3)], callbacks=callbacks)
    return net


def test_resume_is_exact_and_only_with_the_same_backend(tmp_path: Path) -> None:
    with use_backend("c"):
        whole = _learn(tmp_path / "whole")
        with pytest.raises(Stop):
            _learn(tmp_path / "stopped", StopAt(20))
    with use_backend("numpy"), pytest.raises(InvalidInputError, match=r"backend is 'c .*'numpy'.*--backend"):
        _learn(tmp_path / "stopped")
    with use_backend("c"):
        resumed = _learn(tmp_path / "stopped")
    assert resumed.parameters.tobytes() == whole.parameters.tobytes()
    assert resumed.state.tobytes() == whole.state.tobytes()


def test_what_people_write_themselves_is_numpys() -> None:
    bump = CustomActivation(lambda x: np.exp(-x * x), lambda x: -2 * x * np.exp(-x * x), "bump")
    quartic = CustomLoss(lambda o, t: ((o - t) ** 4).sum(axis=1), lambda o, t: 4 * (o - t) ** 3, "quartic")

    class Doubled(Dense):
        def transform(self, x, y) -> None:
            super().transform(x, y)
            np.multiply(y, 2, out=y)

        def gradients(self, x, dy, dx, buffers) -> None:
            np.multiply(dy, 2, out=dy)
            super().gradients(x, dy, dx, buffers)

    class Backwards(SGD):
        def step(self, parameters, gradients, numbers) -> None:
            np.negative(gradients, out=gradients)
            super().step(parameters, gradients, numbers)

    _compare(lambda: [Dense(6, bump), Doubled(5, "tanh"), Dense(3)], quartic, units=3)
    p, q = np.ones(3, np.float32), np.ones(3, np.float32)
    Backwards().build(p)
    derived = Backwards(0.5)
    derived.build(p)
    Fused().update(derived, p, q, [])()
    np.testing.assert_array_equal(p, 1.5)


def test_the_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    assert chosen(FLOAT32).name.startswith("c ")
    assert chosen(np.dtype(np.float64)).name == "numpy"
    monkeypatch.setenv("MARIANA_BACKEND", "numpy")
    assert chosen(FLOAT32).name == "numpy"
    with use_backend("auto"):
        assert chosen(FLOAT32).name.startswith("c ")
        with use_backend(None):
            assert chosen(FLOAT32).name == "numpy"
    monkeypatch.setenv("MARIANA_BACKEND", "fortran")
    with pytest.raises(InvalidInputError, match="MARIANA_BACKEND"):
        chosen(FLOAT32)
    with pytest.raises(InvalidInputError, match=r"backend is 'gpu'.*auto, numpy, c"), use_backend("gpu"):
        pass
    monkeypatch.setenv("MARIANA_BACKEND", "c")
    monkeypatch.setenv("MARIANA_ISA", "mmx")
    with pytest.raises(KernelError, match="mmx"):
        chosen(FLOAT32)


def test_without_the_extension_auto_is_numpy_and_c_is_refused() -> None:
    program = (
        "import sys; sys.modules['mariana._kernel'] = None\n"
        "from mariana.datasets import load_iris\n"
        "from mariana.errors import InvalidInputError\n"
        "from mariana.trainer import *\n"
        "net = Sequential([Dense(3, 'softmax')]); net.compile('adam', 'sparse_categorical_crossentropy')\n"
        "net.fit(*load_iris(), verbose=0)\n"
        "assert net.training['backend'] == 'numpy'\n"
        "try:\n"
        "    with use_backend('c'): net.fit(*load_iris(), verbose=0)\n"
        "except InvalidInputError as error:\n"
        "    assert 'extension' in str(error)\n"
        "else:\n"
        "    raise SystemExit('it was not refused')\n"
    )
    environment = {k: v for k, v in os.environ.items() if k != "MARIANA_BACKEND"}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment)


def test_kernels_refuse_descriptions_that_are_not_whole() -> None:
    kernels, x = Kernels(), np.zeros((4, 3), np.float32)
    with pytest.raises(KernelError):
        kernels.forward("softmax", x, x)
    with pytest.raises(KernelError):
        kernels.forward("leaky_relu", x, x)
    with pytest.raises(KernelError):
        kernels.forward("gelu", x, x)
    with pytest.raises(KernelError):
        kernels.update("adam", x.ravel(), x.ravel(), [x.ravel()], None)
    with pytest.raises(ValueError, match="contiguous"):
        kernels.forward("relu", x[:, ::2], x)
    rows = np.array([0, 9], np.int64)
    assert kernels.gather(x, rows, x[:2])() != 0


def test_every_optimizer_says_its_rule() -> None:
    assert {cls().rule for cls in OPTIMIZERS.values()} <= set(optimizer_names())
