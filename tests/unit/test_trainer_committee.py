"""Committees: one network of Dense layers answers what the mean of its members' answers is."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from mariana import load_model
from mariana.cli import cli
from mariana.errors import InvalidInputError
from mariana.format import CategoricalFeature, NumericFeature, read_model
from mariana.trainer import Activation, BatchNormalization, Dense, Dropout, Input, Sequential
from mariana.trainer.activations import ACTIVATIONS
from mariana.trainer.committee import Committee
from mariana.trainer.embedding import Embedding
from mariana.trainer.layers import Layer
from mariana.trainer.recipe import Recipe, build, learn

FEATURES = (
    NumericFeature(name="a"),
    CategoricalFeature(name="b", categories=tuple("cdefgh")),
    NumericFeature(name="i"),
)


def members(layers: list[list[Layer]], loss: str = "mean_squared_error") -> list[Sequential]:
    """Return networks of these layers, all of whose parameters are random, in float64."""
    nets = []
    for seed, chosen in enumerate(layers):
        net = Sequential([Input((8,)), *chosen], seed=seed, dtype="float64")
        net.compile("adam", loss)
        net.build()
        rng = np.random.default_rng(seed)
        net.set_weights([rng.uniform(0.1, 1, w.shape) * rng.choice([-1, 1]) for w in net.get_weights()])
        for layer in net.layers:
            if isinstance(layer, BatchNormalization):
                layer.moving_variance[...] = rng.uniform(0.5, 2, layer.moving_variance.shape)
        nets.append(net)
    return nets


@pytest.mark.parametrize("activation", [name for name in ACTIVATIONS if name != "softmax"])
def test_the_whole_answers_the_mean(activation: str) -> None:
    layers: list[list[Layer]] = [
        [
            Embedding(FEATURES, 4),
            Dense(5, activation),
            BatchNormalization(),
            Dropout(0.3),
            Dense(4, use_bias=False),
            Activation(activation),
            Dense(3),
        ]
        for _ in range(3)
    ]
    nets = members(layers)
    x = np.random.default_rng(9).normal(size=(20, 8))
    whole = Committee(nets)
    np.testing.assert_allclose(
        whole.predict(x), np.mean([net.predict(x) for net in nets], axis=0), rtol=1e-10
    )
    assert [layer.units for layer in whole.network.layers] == [15, 12, 3]


def test_one_layer_and_one_member() -> None:
    x = np.random.default_rng(9).normal(size=(20, 8))
    nets = members([[Dense(2)], [Dense(2)]])
    np.testing.assert_allclose(Committee(nets).predict(x), (nets[0].predict(x) + nets[1].predict(x)) / 2)
    np.testing.assert_allclose(Committee(nets[:1]).predict(x), nets[0].predict(x))
    with pytest.raises(InvalidInputError, match="at least one"):
        Committee([])


@pytest.mark.parametrize(
    ("end", "loss"), [("sigmoid", "binary_crossentropy"), ("softmax", "categorical_crossentropy")]
)
def test_of_probabilities_the_logits_are_averaged(end: str, loss: str) -> None:
    nets = members([[Dense(4, "tanh"), Dense(3, end)] for _ in range(4)], loss)
    x = np.random.default_rng(9).normal(size=(20, 8))
    p = np.array([net.predict(x) for net in nets])
    mean = np.exp(np.log(p).mean(axis=0))  # a geometric mean, normalised
    wanted = mean / (
        mean.sum(axis=1, keepdims=True) if end == "softmax" else mean + np.exp(np.log1p(-p).mean(axis=0))
    )
    np.testing.assert_allclose(Committee(nets).predict(x), wanted, rtol=1e-9)


def test_members_differ_and_are_better_together() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(600, 3))
    y = np.sin(3 * x[:, 0]) + x[:, 1] * x[:, 2] + 0.3 * rng.normal(size=600)
    features = [NumericFeature(name=name) for name in "abc"]
    committee = build(Recipe((16,), members=5, epochs=40), features, "numbers", 1, 400)
    histories = learn(committee, Recipe((16,), members=5, epochs=40), x[:400], y[:400])
    assert len({history.history["loss"][0] for history in histories}) == 5
    errors = [np.mean((net.predict(x[400:])[:, 0] - y[400:]) ** 2) for net in committee.members]
    assert np.mean((committee.predict(x[400:])[:, 0] - y[400:]) ** 2) < np.mean(errors)  # by Jensen, always
    again = build(Recipe((16,), members=5, epochs=40), features, "numbers", 1, 400)
    learn(again, Recipe((16,), members=5, epochs=40), x[:400], y[:400])
    assert (again.predict(x) == committee.predict(x)).all()
    assert Recipe(seed=None).of_member(3).seed is None


def test_trained_from_the_command_line_it_is_served_as_one_network(tmp_path: Path) -> None:
    arguments = [
        "train",
        "iris",
        "--target",
        "species",
        "--layers",
        "6,4",
        "--members",
        "3",
        "--epochs",
        "30",
    ]
    result = CliRunner().invoke(cli, [*arguments, "--store", str(tmp_path), "--json"], catch_exceptions=False)
    path = json.loads(result.output)["path"]
    info = read_model(path).metadata
    assert [layer.units for layer in info.layers] == [18, 12, 3]
    assert (info.training.members, info.training.epochs) == (3, 30)
    assert load_model(path).predict([[5.1, 3.5, 1.4, 0.2]]).sum() == pytest.approx(1)
    assert "networks: 3, merged" in (Path(path).parent / "README.md").read_text()


@pytest.mark.parametrize(("rows", "layers"), [(150, (64,)), (999, (64,)), (1000, (128, 128, 128))])
def test_a_small_table_gets_a_small_network(rows: int, layers: tuple[int, ...]) -> None:
    assert Recipe().settled(rows).layers == layers
    assert Recipe(layers=(7, 5)).settled(rows).layers == (7, 5)


def test_what_would_grow_too_large_is_refused_before_it_is_made() -> None:
    nets = [Sequential([Input((4,)), Dense(1024, "tanh"), Dense(1024, "tanh"), Dense(1)])] * 12
    for net in nets[:1]:
        net.compile("adam", "mse")
        net.build()
    match = r"12 members of 1024-1024 units make a network of 151,056,384 weights together, 604 MB .* fewer members"
    with pytest.raises(InvalidInputError, match=match):
        Committee(nets)
