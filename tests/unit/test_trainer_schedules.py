"""Learning rates that change: their formulas, how optimizers follow them, and what the training record keeps."""

import math
from pathlib import Path

import numpy as np
import pytest

from mariana.datasets import load_iris
from mariana.errors import InvalidInputError
from mariana.format import read_model
from mariana.trainer import (
    SGD,
    Adam,
    Callback,
    CosineDecay,
    Dense,
    ExponentialDecay,
    LearningRateScheduler,
    PolynomialDecay,
    ReduceLROnPlateau,
    Sequential,
    StepDecay,
    WarmUp,
)
from mariana.trainer.optimizers import OPTIMIZERS

X, Y = load_iris()


@pytest.mark.parametrize(
    ("schedule", "wanted"),
    [
        (ExponentialDecay(0.8, 10, 0.25), {0: 0.8, 5: 0.4, 10: 0.2, 20: 0.05}),
        (ExponentialDecay(0.8, 10, 0.25, staircase=True), {0: 0.8, 9: 0.8, 10: 0.2, 29: 0.05}),
        (StepDecay(0.5, 30), {0: 0.5, 29: 0.5, 30: 0.05, 60: 0.005, 90: 0.0005}),
        (CosineDecay(0.8, 12), {0: 0.8, 4: 0.6, 6: 0.4, 8: 0.2, 12: 0, 99: 0}),
        (CosineDecay(0.8, 12, alpha=0.5), {0: 0.8, 4: 0.7, 6: 0.6, 12: 0.4, 99: 0.4}),
        (PolynomialDecay(1.1, 10, 0.1), {0: 1.1, 5: 0.6, 10: 0.1, 99: 0.1}),
        (PolynomialDecay(1.0, 10, 0.0, power=2), {0: 1, 5: 0.25, 9: 0.01, 10: 0}),
        (WarmUp(0.4, 4), {0: 0.1, 1: 0.2, 3: 0.4, 4: 0.4, 99: 0.4}),
        (WarmUp(StepDecay(0.4, 10), 4), {0: 0.1, 3: 0.4, 4: 0.4, 13: 0.4, 14: 0.04}),
    ],
)
def test_rates(schedule, wanted: dict[int, float]) -> None:
    assert {step: schedule(step) for step in wanted} == pytest.approx(wanted, rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_with_a_schedule_is_one_whose_rate_is_set_before_each_step(name: str) -> None:
    rng = np.random.default_rng(0)
    schedule = WarmUp(CosineDecay(0.1, 20, 0.1), 5)
    first, second = OPTIMIZERS[name](schedule), OPTIMIZERS[name]()
    ours = rng.normal(size=7)
    theirs = ours.copy()
    first.build(ours)
    second.build(theirs)
    for step in range(30):
        gradients = rng.normal(size=7)
        assert first.learning_rate == schedule(step)
        first.update(ours, gradients.copy())
        second.learning_rate = schedule(step)
        second.update(theirs, gradients.copy())
    np.testing.assert_array_equal(ours, theirs)


def _net(optimizer) -> Sequential:
    net = Sequential([Dense(3, "softmax")], seed=0)
    net.compile(optimizer, "sparse_categorical_crossentropy")
    return net


def test_the_schedule_is_in_the_training_record(tmp_path: Path) -> None:
    net = _net(Adam(WarmUp(StepDecay(0.1, 10), 3)))
    net.fit(X, Y, epochs=2, verbose=0)
    assert net.optimizer.learning_rate == pytest.approx(0.1)
    assert read_model(net.export(tmp_path, "m")).metadata.training.optimizer["learning_rate"] == {
        "name": "warm_up",
        "schedule": {
            "name": "step_decay",
            "initial_learning_rate": 0.1,
            "decay_steps": 10,
            "decay_rate": 0.1,
        },
        "steps": 3,
    }


class _Rates(Callback):
    def __init__(self) -> None:
        self.rates: list[float] = []

    def on_epoch_begin(self, epoch: int) -> None:
        del epoch
        self.rates.append(self.model.optimizer.learning_rate)


def test_learning_rate_scheduler_sets_the_rate_of_each_epoch() -> None:
    rates = _Rates()
    halve = LearningRateScheduler(lambda epoch, rate: rate / 2 if epoch else rate)
    net = _net(SGD(0.8))
    net.fit(X, Y, epochs=4, verbose=0, callbacks=[halve, rates])
    assert rates.rates == [0.8, 0.4, 0.2, 0.1]
    assert net.training["optimizer"]["learning_rate"] == 0.8


@pytest.mark.parametrize(
    ("losses", "options", "wanted"),
    [
        ([5, 4, 4, 4, 4, 3, 3, 3], {"patience": 2}, [1, 1, 1, 1, 0.5, 0.5, 0.5, 0.5]),
        ([5, 4, 4, 4, 4, 4, 4, 4], {"patience": 2, "min_lr": 0.4}, [1, 1, 1, 1, 0.5, 0.5, 0.4, 0.4]),
        (
            [4, 4, 4, 4, 4, 4, 4, 4],
            {"patience": 1, "cooldown": 2},
            [1, 1, 0.5, 0.5, 0.25, 0.25, 0.125, 0.125],
        ),
        ([5, 4.9, 4.8, 4.7], {"patience": 1, "min_delta": 1.0}, [1, 1, 0.5, 0.25]),
        ([1, 2, 2, 3], {"patience": 1, "mode": "max"}, [1, 1, 1, 0.5]),
    ],
)
def test_reduce_on_plateau(losses: list[float], options: dict, wanted: list[float]) -> None:
    net = _net(SGD(1.0))
    callback = ReduceLROnPlateau("loss", 0.5, **options)
    callback.set_model(net)
    callback.on_train_begin()
    found = []
    for epoch, loss in enumerate(losses):
        found.append(net.optimizer.learning_rate)
        callback.on_epoch_end(epoch, {"loss": loss})
    assert found == pytest.approx(wanted)


def test_reduce_on_plateau_in_a_training() -> None:
    rates = _Rates()
    net = _net(SGD(0.1))
    plateau = ReduceLROnPlateau("loss", patience=1, min_delta=10)
    net.fit(X, Y, epochs=4, verbose=0, callbacks=[plateau, rates])
    assert rates.rates == pytest.approx([0.1, 0.1, 0.01, 0.001])
    with pytest.raises(InvalidInputError, match=r"ReduceLROnPlateau monitors 'val_loss'.*validation"):
        net.fit(X, Y, verbose=0, callbacks=[ReduceLROnPlateau()])


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: StepDecay(0, 10), "initial_learning_rate is 0"),
        (lambda: StepDecay(0.1, 0), "decay_steps is 0"),
        (lambda: ExponentialDecay(0.1, 10, 1.5), "decay_rate is 1.5"),
        (lambda: CosineDecay(0.1, 10, alpha=2), "alpha is 2"),
        (lambda: PolynomialDecay(0.1, 10, power=0), "power is 0"),
        (lambda: PolynomialDecay(0.1, 10, -1), "end_learning_rate is -1"),
        (lambda: WarmUp("fast", 3), "schedule is 'fast'"),
        (lambda: WarmUp(0.1, 0), "steps is 0"),
        (lambda: ReduceLROnPlateau(factor=1), "factor is 1"),
        (lambda: ReduceLROnPlateau(mode="up"), "ReduceLROnPlateau"),
        (lambda: setattr(SGD(StepDecay(0.1, 3)), "learning_rate", 0.1), "follows a StepDecay"),
        (
            lambda: _net("sgd").fit(X, Y, verbose=0, callbacks=[LearningRateScheduler(lambda *_: math.nan)]),
            "learning_rate is nan",
        ),
    ],
)
def test_bad_arguments_of_schedules_are_told(make, complaint: str) -> None:
    with pytest.raises(InvalidInputError, match=complaint):
        make()
