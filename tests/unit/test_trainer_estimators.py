"""The estimators: scikit-learn's own checks, what goes beyond them, and the way into a served model."""

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import sklearn
from sklearn.datasets import load_diabetes, make_classification, make_multilabel_classification
from sklearn.metrics import accuracy_score, log_loss, r2_score
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

from mariana import load_model
from mariana.datasets import load_iris
from mariana.errors import InvalidInputError
from mariana.trainer import DNNClassifier, DNNRegressor
from mariana.trainer.calibration import expected_calibration_error, find_temperature, logits

SMALL: dict[str, Any] = {
    "hidden_layer_sizes": (32,),
    "max_iter": 60,
    "learning_rate_init": 0.005,
    "random_state": 0,
}

SKIPPED_BY_SCIKIT_LEARNS_TOO = {
    "check_array_api_input",
    "check_classifiers_multilabel_output_format_decision_function",
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("estimator", [DNNClassifier(**SMALL), DNNRegressor(**SMALL)], ids=str)
def test_scikit_learns_checks(estimator: Any) -> None:
    results = check_estimator(estimator, on_fail=None)
    assert len(results) > 55
    if sklearn.__version__ == "1.9.1":
        assert len(results) == (60 if isinstance(estimator, DNNRegressor) else 68)
    passed = {result["check_name"] for result in results if result["status"] == "passed"}
    assert {result["check_name"] for result in results} - passed <= SKIPPED_BY_SCIKIT_LEARNS_TOO


def test_without_scikit_learn() -> None:
    code = (
        "import sys\n"
        "sys.modules['sklearn'] = None\n"
        "from mariana.datasets import load_iris\n"
        "from mariana.trainer import DNNClassifier\n"
        "x, y = load_iris()\n"
        "found = DNNClassifier((16,), max_iter=30, random_state=0).fit(x, y)\n"
        "assert found.score(x, y) > 0.7\n"
        "try:\n    DNNClassifier().predict(x)\nexcept ValueError as error:\n    assert 'not fitted' in str(error)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_pipelines_and_searches() -> None:
    x, y = load_iris()
    search = GridSearchCV(
        make_pipeline(StandardScaler(), DNNClassifier(**SMALL)),
        {"dnnclassifier__hidden_layer_sizes": [(4,), (32,)], "dnnclassifier__solver": ["adam"]},
        cv=2,
    ).fit(x, y)
    assert search.best_score_ > 0.75
    scores = cross_val_score(DNNRegressor(**SMALL), *load_diabetes(return_X_y=True), cv=3)
    assert scores.mean() > 0.35


def frame(rows: int = 1500) -> tuple[Any, Any, Any]:
    """Return a data frame of every kind of column with holes, classes and numbers."""
    pd = pytest.importorskip("pandas")
    rng = np.random.default_rng(0)
    size, town = rng.normal(size=rows), rng.choice(["Huế", "Hà Nội", "Sài Gòn"], rows)
    when = np.datetime64("2024-01-01") + rng.integers(0, 365, rows).astype("timedelta64[D]")
    month = when.astype("datetime64[M]").astype(int) % 12
    code = rng.integers(0, 90, rows)
    score = size + (town == "Huế") + (month > 5) + (code % 2) + 0.1 * rng.normal(size=rows)
    holes = rng.random(rows) < 0.1
    table = pd.DataFrame(
        {
            "size": np.where(holes, np.nan, size),
            "town": np.where(rng.random(rows) < 0.1, None, town),
            "flag": rng.random(rows) < 0.5,
            "when": when,
            "code": [f"c{n}" for n in code],
        }
    )
    return table, np.where(score > 1.5, "high", "low"), 100 * score


@pytest.mark.parametrize("kind", ["classifier", "regressor"])
def test_frames_end_in_a_served_model(tmp_path: Path, kind: str) -> None:
    x, classes, values = frame()
    y = classes if kind == "classifier" else values
    estimator = (DNNClassifier if kind == "classifier" else DNNRegressor)(
        hidden_layer_sizes=(64, 32), max_iter=30, random_state=0
    ).fit(x, y)
    assert estimator.score(x, y) > 0.85
    assert {net.layers[0].kind for net in estimator.committee_.members} == {"embedding"}  # 90 codes
    model = load_model(estimator.export(tmp_path, name="frame"))
    rows = x.iloc[:40]
    records = [
        {
            name: None if value is None or value != value else value  # noqa: PLR0124 - NaN
            for name, value in record.items()
        }
        for record in rows.to_dict("records")
    ]
    for record in records:
        record["when"] = record["when"].isoformat()
    served = model.predict_records(records)
    if kind == "classifier":
        assert [answer.label for answer in served] == estimator.predict(rows).tolist()
        wanted = estimator.predict_proba(rows)
        np.testing.assert_allclose([answer.probabilities for answer in served], wanted, atol=1e-5)
    else:
        np.testing.assert_allclose([a.value for a in served], estimator.predict(rows), rtol=1e-3, atol=0.1)
    card = (tmp_path / "models/frame/1/README.md").read_text()
    assert "| `when.month` | numeric |" in card
    assert '"when": "2024-' in card


def test_several_labels_and_several_numbers(tmp_path: Path) -> None:
    x, y = make_multilabel_classification(300, n_classes=4, random_state=0)
    estimator = DNNClassifier(**SMALL).fit(x, y)
    assert accuracy_score(y, estimator.predict(x)) == estimator.score(x, y) > 0.5
    served = load_model(estimator.export(tmp_path, name="labels"))
    np.testing.assert_allclose(served.predict(x), estimator.predict_proba(x), atol=1e-5)
    x, y = np.random.default_rng(0).normal(size=(200, 3)), np.zeros((200, 2))
    y[:, 0], y[:, 1] = 5 * x[:, 0], 1000 - x[:, 1]
    regressor = DNNRegressor(**SMALL).fit(x, y)
    assert regressor.score(x, y) == pytest.approx(r2_score(y, regressor.predict(x)))
    assert regressor.score(x, y) > 0.9
    served = load_model(regressor.export(tmp_path, name="numbers"))
    np.testing.assert_allclose(served.predict(x), regressor.predict(x), rtol=1e-4, atol=1e-2)


def test_partial_fit_and_early_stopping() -> None:
    x, y = make_classification(400, random_state=0)
    estimator = DNNClassifier((16,), random_state=0, early_stopping=True, n_iter_no_change=3, solver="adam")
    for _ in range(80):
        estimator.partial_fit(x, y, classes=[0, 1])
    assert estimator.n_iter_ < 80  # it stopped by itself
    assert estimator.score(x, y) > 0.85
    before = estimator.predict_proba(x)
    assert (estimator.partial_fit(x, y).predict_proba(x) == before).all()
    with pytest.raises(InvalidInputError, match="classes must be passed"):
        DNNClassifier().partial_fit(x, y)
    with pytest.raises(InvalidInputError, match="is not the same as on last call"):
        estimator.partial_fit(x, y, classes=[0, 1, 2])


def test_pickled_it_learns_on() -> None:
    x, y = load_iris()
    estimator = DNNClassifier(**SMALL).partial_fit(x, y, classes=[0, 1, 2])
    copied = pickle.loads(pickle.dumps(estimator))
    assert (copied.predict_proba(x) == estimator.predict_proba(x)).all()
    for _ in range(100):
        copied.partial_fit(x, y)
    assert copied.score(x, y) > max(0.9, estimator.score(x, y))


def test_warm_start_goes_on() -> None:
    x, y = load_diabetes(return_X_y=True)
    estimator = DNNRegressor((32,), max_iter=5, random_state=0, warm_start=True).fit(x, y)
    first = estimator.loss_curve_[-1]
    for _ in range(5):
        estimator.fit(x, y)
    assert estimator.loss_curve_[-1] < first


def test_rare_classes_count_more_when_asked_to() -> None:
    x, y = make_classification(1200, weights=[0.97], flip_y=0.05, random_state=1)
    plain = DNNClassifier(**SMALL).fit(x, y)
    fair = DNNClassifier(**SMALL, class_weight="balanced", calibrate=False).fit(x, y)
    rare = y == 1
    assert fair.predict(x)[rare].mean() > plain.predict(x)[rare].mean() + 0.05
    as_mapping = DNNClassifier(**SMALL, class_weight={1: 30.0}, calibrate=False).fit(x, y)
    assert as_mapping.predict(x)[rare].mean() > plain.predict(x)[rare].mean()


def test_the_same_seed_the_same_bytes(tmp_path: Path) -> None:
    x, y = make_classification(1100, random_state=0)
    paths = [DNNClassifier(**SMALL).fit(x, y).export(tmp_path, name="same") for _ in range(2)]
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_what_cannot_be_is_refused() -> None:
    x, y = load_iris()
    for wrong in (
        {"activation": "softmax"},
        {"solver": "magic"},
        {"hidden_layer_sizes": (0,)},
        {"hidden_layer_sizes": None},
        {"hidden_layer_sizes": "wide"},
        {"dropout": 1.0},
        {"learning_rate_init": 0},
        {"early_stopping": "maybe"},
        {"validation_fraction": 1},
        {"validation_fraction": "half"},
        {"numbers": "scaled"},
        {"random_state": "lucky"},
        {"random_state": np.random.default_rng(0)},
        {"class_weight": "fair"},
        {"max_iter": 0},
    ):
        with pytest.raises(InvalidInputError):
            DNNClassifier(**wrong).fit(x, y)


def test_temperature_is_the_best_there_is() -> None:
    rng = np.random.default_rng(0)
    for classes in (1, 4):
        z = rng.normal(size=(2000, classes)) * 3
        whole = np.hstack([np.zeros((2000, 1)), z]) if classes == 1 else z
        true = whole / 2.5
        p = np.exp(true) / np.exp(true).sum(axis=1, keepdims=True)
        y = np.array([rng.choice(p.shape[1], p=row) for row in p])
        found = find_temperature(z, y)
        assert found == pytest.approx(2.5, rel=0.15)

        def loss(t: float, whole: Any = whole, y: Any = y) -> float:
            """The rows as they are, and all of them once more in each class, which weigh as much as one row."""
            rows, count = whole.shape
            scaled = np.exp(whole / t)
            p = scaled / scaled.sum(axis=1, keepdims=True)
            alike = [log_loss(np.full(rows, k), p, labels=range(count)) for k in range(count)]
            return (rows * log_loss(y, p) + np.mean(alike)) / (rows + 1)

        assert loss(found) <= min(map(loss, np.geomspace(0.5, 10, 60))) + 1e-9
        sure = np.exp(whole) / np.exp(whole).sum(axis=1, keepdims=True)
        assert expected_calibration_error(p, y) < 0.05 < expected_calibration_error(sure, y)
        assert np.allclose(np.diff(logits(p)), np.diff(true)) if classes > 1 else True


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_a_few_right_answers_do_not_make_a_network_certain(classes: int) -> None:
    """One more row that belongs to each class alike, worked out by hand: all n rows right with the same margin."""
    for rows in (1, 12, 1000):
        z = np.zeros((rows, classes))
        z[:, 0] = 3
        p = np.exp(3 / find_temperature(z, np.zeros(rows, np.int64)))
        assert p / (p + classes - 1) == pytest.approx((rows + 1 / classes) / (rows + 1), abs=1e-6)


def test_a_sparse_matrix_is_taken_with_its_zeros(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = make_classification(300, random_state=0)
    x = np.where(np.abs(x) > 1, x, 0)
    dense = DNNClassifier(**SMALL).fit(x, y)
    for kind in (scipy.sparse.csr_matrix, scipy.sparse.coo_array):
        sparse = DNNClassifier(**SMALL).fit(kind(x), y)
        assert (sparse.predict_proba(kind(x)) == dense.predict_proba(x)).all()
    monkeypatch.setattr("mariana.tables.memory_bytes", lambda: 50_000)
    with pytest.raises(InvalidInputError, match=r"X is sparse, and with its zeros \(300, 20\) would take"):
        dense.predict(scipy.sparse.csr_matrix(x))


def test_a_heavy_row_counts_more() -> None:
    x = np.linspace(-1, 1, 400).reshape(-1, 1)
    y = np.where(np.arange(400) % 2, 1.0, 0.0)  # nothing to learn but the weighted mean
    weights = np.where(y == 1, 9.0, 1.0)
    regressor = DNNRegressor(**SMALL).fit(x, y, sample_weight=weights)
    assert abs(regressor.predict(x).mean() - 0.9) < 0.05
    classifier = DNNClassifier(**SMALL).fit(x, y, sample_weight=weights)
    assert abs(classifier.predict_proba(x)[:, 1].mean() - 0.9) < 0.05


def test_the_size_is_chosen_by_the_rows_unless_it_is_said() -> None:
    x, y = load_iris()
    for sizes, units in (("auto", [64, 3]), ((7, 5), [7, 5, 3]), (6, [6, 3]), ([4], [4, 3])):
        found = DNNClassifier(sizes, members=2, max_iter=1, random_state=0).fit(x, y)
        assert [layer.units for layer in found.committee_.members[0].layers] == units
        assert [layer.units for layer in found.network_.layers] == [*(2 * n for n in units[:-1]), 3]
