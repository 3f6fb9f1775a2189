"""``?explain=`` on a prediction: shares in the answer, the same as the model's own, and the words for what is wrong."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from mariana.explain import METHODS
from mariana.model import load_model
from mariana.server import create_app
from mariana.server.schemas import ClassificationAnswer, RegressionAnswer
from mariana.settings import Settings

ROWS = [[0.5, -1, 2e-3, 4], [1, 2, 3, 4]]
PATH = "/v1/models/tiny/predict"


@pytest.mark.parametrize("value", ["true", *METHODS])
def test_shares_are_the_models_own(client: TestClient, tiny_store: Path, value: str) -> None:
    plain = client.post(PATH, json={"instances": ROWS}).json()
    answer = client.post(PATH, params={"explain": value}, json={"instances": ROWS}).json()
    ClassificationAnswer.model_validate(answer)
    method = METHODS[0] if value == "true" else value
    assert answer.pop("explain") == {
        "method": method,
        "of": "log_odds",
        "baseline": {"x0": 0, "x1": 0, "x2": 0, "x3": 0},
    }
    expected = load_model(tiny_store / "models/tiny").explain(ROWS, method)
    for prediction, (told,) in zip(answer["predictions"], expected, strict=True):
        explanation = prediction.pop("explanation")
        assert explanation["output"] == told.output == prediction["label"]
        assert explanation["value"] == pytest.approx(told.value)
        assert explanation["baseline_value"] == pytest.approx(told.baseline_value)
        assert explanation["shares"] == pytest.approx(told.shares, rel=1e-5)
    assert answer == plain


def test_a_value_by_records(client: TestClient) -> None:
    # price = 10 + 2 * ((area - 0.5) * 2 + 2 new + 3 Hue + 4 Ha Noi + 5 flat + 6 gable); at the baseline area is 1 and the
    # roof flat, which stand in, it is not new, and in no town
    record = {"area m/2": 3.0, "new": True, "town": "Ha Noi", "roof": "gable"}
    for value in ("true", *METHODS):
        answer = client.post(
            "/v1/models/price/predict",
            params={"explain": value},
            json={"instances": [record, {**record, "roof": None}]},
        ).json()
        RegressionAnswer.model_validate(answer)
        assert answer["explain"]["of"] == "value"
        assert answer["explain"]["baseline"] == {"area m/2": 1.0, "new": 0.0, "town": None, "roof": "flat"}
        first, second = (prediction["explanation"] for prediction in answer["predictions"])
        assert first["shares"] == pytest.approx({"area m/2": 8, "new": 4, "town": 8, "roof": 2}, abs=1e-4)
        assert second["shares"]["roof"] == pytest.approx(0, abs=1e-4)
        assert first["value"] - first["baseline_value"] == pytest.approx(22, abs=1e-4)
        assert first["output"] == "price"


def test_every_kind_of_body_and_path(client: TestClient) -> None:
    body = np.float32(ROWS).tobytes()
    octets = client.post(
        PATH + "?explain=true", content=body, headers={"Content-Type": "application/octet-stream"}
    )
    assert octets.json() == client.post(PATH + "?explain=true", json={"instances": ROWS}).json()
    for path in ("/v1/models/tiny/versions/1/predict?explain=true",):
        assert "explanation" in client.post(path, json={"instances": ROWS}).json()["predictions"][0]
    for query in ("", "?explain=false", "?other=1", "?" + "a&" * 4000):
        assert "explain" not in client.post(PATH + query, json={"instances": ROWS}).json()


@pytest.mark.parametrize(
    ("query", "rows", "status"),
    [
        ("explain=shap", 1, 422),
        ("explain=", 1, 422),
        ("explain=true&explain=true", 1, 400),
        ("explain=%ff", 1, 422),
        ("explain=leave_one_out", 51, 413),
        ("explain=integrated_gradients", 4, 413),
    ],
)
def test_what_is_wrong_is_said(client: TestClient, query: str, rows: int, status: int) -> None:
    answer = client.post(f"{PATH}?{query}", json={"instances": [[1, 2, 3, 4]] * rows})
    assert answer.status_code == status
    assert len(answer.content) < 1000
    assert answer.json()["detail"]


def test_rows_of_a_request_are_few(tiny_store: Path) -> None:
    with TestClient(create_app(Settings(store=tiny_store))) as client:
        answers = [
            client.post(
                PATH + "?explain=gradient_x_input",
                content=np.ones((rows, 4), np.float32).tobytes(),
                headers={"Content-Type": "application/octet-stream"},
            )
            for rows in (1000, 1001)
        ]
    assert [answer.status_code for answer in answers] == [200, 413]
    assert "at most 1000" in answers[1].json()["detail"]


@pytest.mark.parametrize("value", METHODS)
def test_large_numbers(client: TestClient, value: str) -> None:
    for rows, status in (([[1e30, -1e30, 1e30, 1]], 200), ([[3e38, 3e38, 3e38, 3e38]], 422)):
        answer = client.post(PATH, params={"explain": value}, json={"instances": rows})
        assert answer.status_code in {status, 422}
        if answer.status_code == 200:
            assert None not in answer.json()["predictions"][0]["explanation"]["shares"].values()


def test_openapi_tells_of_it(client: TestClient) -> None:
    operation: dict[str, Any] = client.get("/openapi.json").json()["paths"][PATH]["post"]
    (parameter,) = operation["parameters"]
    assert (parameter["name"], parameter["in"]) == ("explain", "query")
    assert parameter["schema"]["enum"] == ["true", "false", *METHODS]
