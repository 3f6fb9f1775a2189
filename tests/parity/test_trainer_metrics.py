"""Metrics against scikit-learn, with and without weights, in batches of any size."""

import math

import numpy as np
import pytest
from sklearn import metrics as judge

from mariana.errors import InvalidInputError
from mariana.trainer import AUC, Precision, TopKAccuracy, metrics
from mariana.trainer.buffers import Buffers
from mariana.trainer.metrics import METRICS, more_is_better

ROWS, UNITS = 211, 4
RNG = np.random.default_rng(0)
SCORES = RNG.dirichlet(np.ones(UNITS), ROWS).round(2)
SCORES /= SCORES.sum(axis=1, keepdims=True)
CLASSES = RNG.integers(0, UNITS, ROWS)
WEIGHTS = RNG.integers(0, 4, ROWS).astype(float)
ONE = SCORES[:, :1].round(2)
BINARY = (RNG.random((ROWS, 1)) < 0.2 + ONE).astype(float)
LABELS = (RNG.random((ROWS, UNITS)) < 0.1 + SCORES).astype(float)
VALUES = RNG.normal(100, 3, (ROWS, 2))
GUESSES = VALUES + RNG.normal(size=(ROWS, 2))
HOT = np.eye(UNITS)[CLASSES]
BEST = SCORES.argmax(axis=1)


def _found(metric, kind: str, outputs: np.ndarray, targets: np.ndarray, weights, size: int) -> float:
    made = metrics.get(metric, kind, outputs.shape[1])
    for _ in range(2):  # the second time after a reset
        made.reset()
        for start in range(0, len(outputs), size):
            part = slice(start, start + size)
            w = None if weights is None else weights[part, None]
            out = outputs[part].copy()
            made.update(out, targets[part], w, Buffers(len(out), np.float64))
    return made.result()


def _rmse(y, p, sample_weight=None) -> float:
    """The root over all numbers; scikit-learn's is the mean of a root for each output."""
    return math.sqrt(judge.mean_squared_error(y, p, sample_weight=sample_weight))


CASES = {
    "accuracy, classes": ("accuracy", "sparse", SCORES, CLASSES[:, None], judge.accuracy_score, (CLASSES, BEST), {}),
    "accuracy, one-hot": ("accuracy", "categorical", SCORES, HOT, judge.accuracy_score, (CLASSES, BEST), {}),
    "accuracy, binary": ("accuracy", "binary", ONE, BINARY, judge.accuracy_score, (BINARY, ONE > 0.5), {}),
    "top 2": (
        TopKAccuracy(2),
        "sparse",
        np.round(SCORES + np.arange(UNITS)[::-1] * 1e-9, 10),
        CLASSES[:, None],
        judge.top_k_accuracy_score,
        (CLASSES, np.round(SCORES + np.arange(UNITS)[::-1] * 1e-9, 10)),
        {"k": 2},
    ),
    "auc, binary": ("auc", "binary", ONE, BINARY, judge.roc_auc_score, (BINARY[:, 0], ONE[:, 0]), {}),
    "auc, labels": ("auc", "multilabel", SCORES, LABELS, judge.roc_auc_score, (LABELS, SCORES), {}),
    "auc, one-hot": ("auc", "categorical", SCORES, HOT, judge.roc_auc_score, (HOT, SCORES), {}),
    "log-loss, classes": ("log_loss", "sparse", SCORES.clip(1e-9), CLASSES[:, None], judge.log_loss, (CLASSES, SCORES.clip(1e-9)), {}),
    "log-loss, binary": ("log_loss", "binary", ONE.clip(1e-9), BINARY, judge.log_loss, (BINARY[:, 0], ONE.clip(1e-9)[:, 0]), {}),
    "mae": ("mae", "values", GUESSES, VALUES, judge.mean_absolute_error, (VALUES, GUESSES), {}),
    "mse": ("mse", "values", GUESSES, VALUES, judge.mean_squared_error, (VALUES, GUESSES), {}),
    "rmse": ("rmse", "values", GUESSES, VALUES, _rmse, (VALUES, GUESSES), {}),
    "r2": ("r2", "values", GUESSES, VALUES, judge.r2_score, (VALUES, GUESSES), {}),
}  # fmt: skip
for _name, _score in (
    ("precision", judge.precision_score),
    ("recall", judge.recall_score),
    ("f1", judge.f1_score),
):
    _macro = {"average": "macro", "zero_division": 0}
    CASES |= {
        f"{_name}, classes": (_name, "sparse", SCORES, CLASSES[:, None], _score, (CLASSES, BEST), _macro),
        f"{_name}, binary": (_name, "binary", ONE, BINARY, _score, (BINARY[:, 0], ONE[:, 0] > 0.5), {}),
        f"{_name}, labels": (_name, "multilabel", SCORES, LABELS, _score, (LABELS, SCORES > 0.5), _macro),
    }


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_every_metric(case: str, weighted: bool) -> None:
    metric, kind, outputs, targets, score, arguments, options = CASES[case]
    extra = {"sample_weight": WEIGHTS} if weighted else {}
    expected = score(*arguments, **options, **extra)
    for size in (1000, 64, 7):
        found = _found(metric, kind, outputs, targets, WEIGHTS if weighted else None, size)
        assert found == pytest.approx(float(expected), rel=1e-9), size


def test_thresholds_margins_and_nothing_at_all() -> None:
    found = _found(Precision(0.3), "binary", ONE, BINARY, None, 50)
    assert found == pytest.approx(judge.precision_score(BINARY[:, 0], ONE[:, 0] > 0.3))
    sides = np.where(BINARY > 0, 1.0, -1.0)
    expected = judge.f1_score(BINARY[:, 0], ONE[:, 0] - 0.4 > 0)
    assert _found("f1", "margin", ONE - 0.4, sides, None, 50) == pytest.approx(expected)
    assert math.isnan(_found("auc", "binary", ONE, BINARY * 0, None, 50))
    assert _found("precision", "binary", ONE * 0, BINARY, None, 50) == 0
    assert _found("r2", "values", VALUES * 0, VALUES * 0, None, 50) == 1
    assert _found(AUC(), "binary", ONE, BINARY, None, 50) == _found("auc", "binary", ONE, BINARY, None, 9)


def test_what_does_not_fit_is_told() -> None:
    for name, kind in (("r2", "sparse"), ("auc", "values"), ("mae", "sparse"), ("top_k", "binary")):
        with pytest.raises(InvalidInputError, match="does not fit targets of"):
            metrics.get(name, kind, 3)
    with pytest.raises(InvalidInputError, match="k is 0"):
        TopKAccuracy(0)


def test_more_or_less_of_it() -> None:
    more = {name for name in METRICS if more_is_better(f"val_{name}")}
    assert {name for name in METRICS if METRICS[name].better == "less"} == set(METRICS) - more
    assert more_is_better("val_accuracy")
    assert not more_is_better("val_loss")
