"""How numbers get their knots."""

import numpy as np

from mariana.format import NumericFeature
from mariana.tables import table_of
from mariana.trainer.preprocessing import encode, infer_features


def knots(values: np.ndarray) -> tuple[float, ...]:  # type: ignore[type-arg]
    """Return those of a column."""
    table = table_of(values.astype(float).reshape(-1, 1))
    (feature,), _ = infer_features(list(table.columns.values()), np.arange(len(values)))
    assert isinstance(feature, NumericFeature)
    return feature.knots


def test_few_different_values_with_rows_enough_have_a_knot_each() -> None:
    rng = np.random.default_rng(0)
    ages = rng.permutation(np.repeat(np.arange(17, 91), 150))
    assert knots(ages) == tuple(range(17, 91))
    assert len(knots(ages[: len(ages) // 2])) == 49  # 75 rows each: quantiles
    assert len(knots(rng.permutation(np.repeat(np.arange(130), 150)))) == 49  # too many
    assert len(knots(rng.normal(size=20_000))) == 49


def test_each_of_few_values_is_told_from_its_neighbours() -> None:
    values = np.repeat([0.0, 1, 5, 7, 7.5, 9] + [20.0 + i for i in range(60)], 200)
    table = table_of(values.reshape(-1, 1))
    features, _ = infer_features(list(table.columns.values()), np.arange(len(values)))
    encoded = encode(features, np.unique(values).reshape(-1, 1))[:, 1:]
    assert (encoded == np.tri(66, 65, -1)).all()  # a thermometer: any function of the values is linear in it
