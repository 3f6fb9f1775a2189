"""The trainer beside PyTorch in float64: gradients to 1e-9, optimizers to 1e-6 over 200 steps, schedules to 1e-9."""

import warnings

import numpy as np
import pytest

from mariana.trainer import (
    L2,
    SGD,
    Adagrad,
    Adam,
    Adamax,
    AdamW,
    BatchNormalization,
    CosineDecay,
    CosineDecayRestarts,
    Dense,
    ExponentialDecay,
    Huber,
    Nadam,
    OneCycle,
    PolynomialDecay,
    RMSprop,
    Sequential,
    StepDecay,
)
from mariana.trainer.activations import ACTIVATIONS
from mariana.trainer.losses import LOSSES

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.optional

ROWS, COLUMNS = 9, 4
TINY = 1e-30  # Keras and PyTorch write epsilon in different places: with next to none they must agree


def _theirs(name: str, z, slopes):
    f = torch.nn.functional
    return {
        "linear": lambda: z,
        "relu": lambda: torch.relu(z),
        "leaky_relu": lambda: f.leaky_relu(z, 0.2),
        "prelu": lambda: f.prelu(z, slopes),
        "elu": lambda: f.elu(z),
        "selu": lambda: f.selu(z),
        "gelu": lambda: f.gelu(z),
        "gelu_tanh": lambda: f.gelu(z, approximate="tanh"),
        "silu": lambda: f.silu(z),
        "softplus": lambda: f.softplus(z, threshold=1e3),
        "sigmoid": lambda: torch.sigmoid(z),
        "tanh": lambda: torch.tanh(z),
        "softmax": lambda: torch.softmax(z, 1),
    }[name]()


def _loss(name: str, z, y):
    f = torch.nn.functional
    return {
        "categorical_crossentropy": lambda: f.cross_entropy(z, y),
        "sparse_categorical_crossentropy": lambda: f.cross_entropy(z, y.ravel()),
        "binary_crossentropy": lambda: f.binary_cross_entropy_with_logits(z, y),
        "mean_squared_error": lambda: f.mse_loss(z, y),
        "mean_absolute_error": lambda: f.l1_loss(z, y),
        "huber": lambda: f.huber_loss(z, y),
        "poisson": lambda: f.poisson_nll_loss(f.softplus(z), y, log_input=False, eps=1e-7),
        "hinge": lambda: torch.clamp(1 - y * z, min=0).mean(),
    }[name]()


def _targets(name: str, units: int) -> np.ndarray:
    rng = np.random.default_rng(3)
    if name == "sparse_categorical_crossentropy":
        return rng.integers(0, units, ROWS)
    if name == "categorical_crossentropy":
        return rng.dirichlet(np.ones(units), ROWS)
    if name == "poisson":
        return rng.poisson(2, (ROWS, units)).astype(float)
    if name == "hinge":
        return rng.choice([-1.0, 1.0], (ROWS, units))
    return rng.uniform(0, 1, (ROWS, units))


def _tensor(array: np.ndarray):
    return torch.tensor(array.astype(np.float64) if array.dtype.kind == "f" else array)


def _compare(net: Sequential, loss: str, activations: list[str]) -> None:
    """Compare outputs, loss and all gradients of a stack of Dense layers."""
    x, y = np.random.default_rng(2).normal(size=(ROWS, COLUMNS)), _targets(loss, net.layers[-1].units)
    value = net.loss_and_gradients(x, y)
    theirs = [
        {name: torch.tensor(view, requires_grad=True) for name, view in layer.parameters.items()}
        for layer in net.layers
    ]
    h = torch.tensor(x)
    for weights, activation in zip(theirs, activations, strict=True):
        h = _theirs(activation, h @ weights["kernel"] + weights["bias"], weights.get("alpha"))
    found = _loss(loss, h, _tensor(y))
    found.backward()
    assert value == pytest.approx(float(found.detach()), rel=1e-12)
    for layer, weights in zip(net.layers, theirs, strict=True):
        for name, gradient in layer.parameter_gradients.items():
            np.testing.assert_allclose(gradient, weights[name].grad.numpy(), rtol=1e-9, atol=1e-12)


def _net(hidden: str, last: str | None, loss: str, units: int) -> Sequential:
    net = Sequential([Dense(6, hidden), Dense(5, hidden), Dense(units, last)], seed=1, dtype="float64")
    net.compile("sgd", loss)
    net.build((COLUMNS,))
    net.parameters += np.random.default_rng(1).normal(scale=0.3, size=net.parameters.shape)
    return net


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation(activation: str) -> None:
    _compare(
        _net(activation, None, "mean_squared_error", 3), "mean_squared_error", [activation] * 2 + ["linear"]
    )


@pytest.mark.parametrize("units", [1, 4])
@pytest.mark.parametrize("loss", sorted({cls.name for cls in LOSSES.values()}))
def test_every_loss(loss: str, units: int) -> None:
    fuses = LOSSES[loss].fuses
    if units == 1 and fuses == "softmax":
        pytest.skip("a softmax of one output is always 1")
    last = fuses or ("softplus" if loss == "poisson" else None)
    _compare(_net("tanh", last, loss, units), loss, ["tanh", "tanh", "linear"])


@pytest.mark.parametrize("activation", [name for name in ACTIVATIONS if name != "prelu"])
def test_extreme_inputs_are_activated_alike(activation: str) -> None:
    z = np.array([[-1e3, -40, -9, -3, -1e-3, 0], [1e-9, 0.5, 3, 9, 40, 700]])
    net = Sequential([Dense(6, activation, use_bias=False)], dtype="float64")
    net.build((6,))
    net.set_weights([np.eye(6)])
    expected = _theirs(activation, torch.tensor(z), None).numpy()
    np.testing.assert_allclose(net.predict(z), expected, rtol=1e-12, atol=1e-15)


def test_batch_normalisation() -> None:
    x = np.random.default_rng(0).normal(2, 3, (16, COLUMNS))
    y = np.random.default_rng(1).normal(size=(16, COLUMNS))
    net = Sequential([BatchNormalization(epsilon=1e-3)], dtype="float64")
    net.compile("sgd", "mse")
    net.build((COLUMNS,))
    layer = torch.nn.BatchNorm1d(COLUMNS, eps=1e-3, dtype=torch.float64)
    value = net.loss_and_gradients(x, y)
    found = torch.nn.functional.mse_loss(layer(torch.tensor(x)), torch.tensor(y))
    found.backward()
    assert value == pytest.approx(float(found.detach()), rel=1e-12)
    ours = net.layers[0].parameter_gradients
    np.testing.assert_allclose(ours["gamma"], layer.weight.grad.numpy(), rtol=1e-9)
    np.testing.assert_allclose(ours["beta"], layer.bias.grad.numpy(), rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("loss", ["categorical_crossentropy", "sparse_categorical_crossentropy"])
def test_label_smoothing(loss: str) -> None:
    z, y = np.random.default_rng(0).normal(size=(ROWS, 4)), _targets(loss, 4)
    ours = LOSSES[loss](from_logits=True, label_smoothing=0.2)(y, z)
    theirs = torch.nn.functional.cross_entropy(torch.tensor(z), _tensor(y), label_smoothing=0.2)
    assert ours == pytest.approx(float(theirs), rel=1e-12)


def test_huber_delta() -> None:
    z, y = np.random.default_rng(0).normal(size=(2, ROWS, 3))
    theirs = torch.nn.functional.huber_loss(torch.tensor(z), torch.tensor(y), delta=0.3)
    assert Huber(0.3)(y, z) == pytest.approx(float(theirs), rel=1e-12)


_OPTIM = torch.optim
CASES = {
    "sgd": (SGD(0.05), lambda p: _OPTIM.SGD(p, 0.05)),
    "momentum": (SGD(0.05, 0.9), lambda p: _OPTIM.SGD(p, 0.05, momentum=0.9)),
    "nesterov": (
        SGD(0.05, 0.9, nesterov=True),
        lambda p: _OPTIM.SGD(p, 0.05, momentum=0.9, nesterov=True),
    ),
    "adagrad": (
        Adagrad(0.1, initial_accumulator_value=0.1, epsilon=TINY),
        lambda p: _OPTIM.Adagrad(p, 0.1, initial_accumulator_value=0.1, eps=TINY),
    ),
    "rmsprop": (
        RMSprop(0.01, rho=0.95, epsilon=TINY),
        lambda p: _OPTIM.RMSprop(p, 0.01, alpha=0.95, eps=TINY),
    ),
    "rmsprop with all": (
        RMSprop(0.01, rho=0.95, momentum=0.5, epsilon=TINY, centered=True),
        lambda p: _OPTIM.RMSprop(p, 0.01, alpha=0.95, eps=TINY, momentum=0.5, centered=True),
    ),
    "adam": (Adam(0.01, epsilon=TINY), lambda p: _OPTIM.Adam(p, 0.01, eps=TINY)),
    "adam, own betas": (
        Adam(0.02, 0.7, 0.95, TINY),
        lambda p: _OPTIM.Adam(p, 0.02, betas=(0.7, 0.95), eps=TINY),
    ),
    "amsgrad": (
        Adam(0.01, epsilon=TINY, amsgrad=True),
        lambda p: _OPTIM.Adam(p, 0.01, eps=TINY, amsgrad=True),
    ),
    "adamw": (
        AdamW(0.01, 0.1, epsilon=TINY),
        lambda p: _OPTIM.AdamW(p, 0.01, weight_decay=0.1, eps=TINY),
    ),
    "adamax": (Adamax(0.01, epsilon=TINY), lambda p: _OPTIM.Adamax(p, 0.01, eps=TINY)),
    "nadam": (
        Nadam(0.01, epsilon=TINY),
        lambda p: _OPTIM.NAdam(p, 0.01, eps=TINY, momentum_decay=1.0),
    ),
    "clipped": (Adam(0.01, epsilon=TINY, global_clipnorm=0.5), lambda p: _OPTIM.Adam(p, 0.01, eps=TINY)),
}


@pytest.mark.parametrize("case", CASES)
def test_200_steps_of_every_optimizer(case: str) -> None:
    ours, make = CASES[case]
    rng = np.random.default_rng(0)
    p, scale = rng.normal(size=(2, 23))
    begin, scale = p.copy(), np.abs(scale) + 0.1
    theirs = torch.tensor(p.copy(), requires_grad=True)
    optimizer = make([theirs])
    ours.build(p)
    for _ in range(200):
        noise = rng.normal(scale=0.3, size=23)
        ours.update(p, scale * p + noise)
        theirs.grad = torch.tensor(scale) * theirs.detach() + torch.tensor(noise)
        if case == "clipped":
            theirs.grad *= min(1.0, 0.5 / float(theirs.grad.norm()))
        optimizer.step()
        np.testing.assert_allclose(p, theirs.detach().numpy(), rtol=1e-6, atol=1e-9)
    assert np.abs(p - begin).min() > 1e-3


@pytest.mark.parametrize("name", ["SGD", "Adam"])
def test_an_l2_penalty_is_the_coupled_weight_decay(name: str) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(64, 3)), rng.normal(size=64)
    ours = Sequential(
        [Dense(1, kernel_regularizer=L2(0.05), bias_regularizer=L2(0.05))], seed=0, dtype="float64"
    )
    ours.compile(SGD(0.05) if name == "SGD" else Adam(0.05, epsilon=TINY), "mse")
    ours.build((3,))
    weights = [torch.tensor(w, requires_grad=True) for w in ours.get_weights()]
    extra = {} if name == "SGD" else {"eps": TINY}
    optimizer = getattr(_OPTIM, name)(weights, 0.05, weight_decay=0.1, **extra)
    ours.fit(x, y, batch_size=64, epochs=200, shuffle=False, verbose=0)
    for _ in range(200):
        optimizer.zero_grad()
        out = torch.tensor(x) @ weights[0] + weights[1]
        torch.nn.functional.mse_loss(out[:, 0], torch.tensor(y)).backward()
        optimizer.step()
    for mine, other in zip(ours.get_weights(), weights, strict=True):
        np.testing.assert_allclose(mine, other.detach().numpy(), rtol=1e-6, atol=1e-9)


def test_the_moving_average_of_weights() -> None:
    """PyTorch's has no correction of the bias; it begins at the first weights instead. With both, the sums are alike."""
    rng = np.random.default_rng(0)
    p = rng.normal(size=5)
    sgd = SGD(0.1, use_ema=True, ema_momentum=0.9)
    sgd.build(p)
    assert sgd.average is not None
    model = torch.nn.Linear(5, 1, bias=False, dtype=torch.float64)
    with torch.no_grad():
        model.weight.zero_()
    ema = torch.optim.swa_utils.get_ema_multi_avg_fn(0.9)
    averaged = torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=ema)
    averaged.update_parameters(model)  # takes the zeros
    for step in range(1, 51):
        sgd.update(p, rng.normal(size=5))
        sgd.average.follow(p)
        with torch.no_grad():
            model.weight.copy_(torch.tensor(p[None]))
        averaged.update_parameters(model)
        np.testing.assert_allclose(sgd.average.sum, averaged.module.weight.detach()[0].numpy(), rtol=1e-10)
        shown = p.copy()
        sgd.average.show(shown)
        np.testing.assert_allclose(shown, sgd.average.sum / (1 - 0.9**step), rtol=1e-12)
        sgd.average.hide(shown)
        np.testing.assert_array_equal(shown, p)


_LR = torch.optim.lr_scheduler
SCHEDULES = {
    "one cycle": (
        OneCycle(0.4, 100, 0.25, 10, 50),
        lambda o: _LR.OneCycleLR(
            o, 0.4, total_steps=100, pct_start=0.25, div_factor=10, final_div_factor=50, cycle_momentum=False
        ),
        99,
    ),
    "steps at boundaries": (
        StepDecay(0.1, [30, 60, 90]),
        lambda o: _LR.MultiStepLR(o, [30, 60, 90]),
        120,
    ),
    "step": (StepDecay(0.1, 25, 0.5), lambda o: _LR.StepLR(o, 25, 0.5), 120),
    "exponential": (ExponentialDecay(0.1, 1, 0.97), lambda o: _LR.ExponentialLR(o, 0.97), 120),
    "polynomial": (PolynomialDecay(0.1, 80, 0.0, 2.0), lambda o: _LR.PolynomialLR(o, 80, 2.0), 120),
    "cosine": (CosineDecay(0.1, 100), lambda o: _LR.CosineAnnealingLR(o, 100), 100),
    "restarts": (
        CosineDecayRestarts(0.1, 10, 2.0),
        lambda o: _LR.CosineAnnealingWarmRestarts(o, 10, 2),
        150,
    ),
    "equal restarts": (
        CosineDecayRestarts(0.1, 10, 1.0),
        lambda o: _LR.CosineAnnealingWarmRestarts(o, 10, 1),
        50,
    ),
}


@pytest.mark.parametrize("case", SCHEDULES)
def test_schedules(case: str) -> None:
    ours, make, steps = SCHEDULES[case]
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        schedule = make(optimizer)
        for step in range(steps):
            assert ours(step) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9, abs=1e-12), step
            optimizer.step()
            schedule.step()
