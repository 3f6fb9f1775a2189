"""Prediction and the lists over HTTP: the same answers as in Python, whatever the form of the body."""

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from starlette.testclient import TestClient

from mariana.model import load_model
from mariana.server import create_app
from mariana.settings import Settings

ROWS = [[0.5, -1, 2e-3, 4], [1, 2, 3, 4]]


@pytest.fixture
def expected(tiny_store: Path) -> list[list[float]]:
    return load_model(tiny_store / "models/tiny").predict(np.array(ROWS, dtype=np.float32)).tolist()


def _npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b'{"instances": [[0.5, -1, 2e-3, 4], [1, 2, 3, 4]]}', "application/json"),
        (b'{"instances": [[0.5, -1, 2e-3, 4], [1, 2, 3, 4]]}', None),
        (b'{"instances": [[0.5, -1, 2e-3, 4], [1, 2, 3, 4]]}', "Application/JSON; charset=UTF-8"),
        (b'{"instances": [[0.5, -1, 2e-3, 4], [1, 2, 3, 4]]}', "application/x-www-form-urlencoded"),
        (b'{"more": {}, "instances": [[0.5, -1, 2e-3, 4], [1, 2, 3, 4]]}', "application/cloudevents+json"),
        (
            b'{"instances": [{"x0": 0.5, "x1": -1, "x2": 2e-3, "x3": 4}, {"x3": 4, "x2": 3, "x1": 2, "x0": 1}]}',
            "text/plain",
        ),
        (np.array(ROWS, dtype="<f4").tobytes(), "application/octet-stream"),
        (_npy(np.array(ROWS, dtype="<f4")), "application/x-npy"),
        (_npy(np.array(ROWS, dtype=">f8")), "application/x-npy"),
        (_npy(np.asfortranarray(np.array(ROWS, dtype=np.float32))), "application/x-npy"),
    ],
)
def test_all_forms_give_what_python_gives(
    client: TestClient, expected: list[list[float]], content: bytes, kind: str | None
) -> None:
    headers = {} if kind is None else {"Content-Type": kind}
    answer = client.post("/v1/models/tiny/predict", content=content, headers=headers)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-content-type-options"] == "nosniff"
    document = answer.json()
    assert {key: document[key] for key in ("model", "version", "labels")} == {
        "model": "tiny",
        "version": 2,
        "labels": ["a", "b", "c"],
    }
    for prediction, row in zip(document["predictions"], expected, strict=True):
        assert (
            np.float32(prediction["probabilities"]).tolist() == row
        )  # the shortest decimals of these float32
        assert prediction["probability"] == max(prediction["probabilities"])
        assert prediction["label"] == "abc"[row.index(max(row))]


def test_one_row_may_come_as_a_flat_array(client: TestClient) -> None:
    answer = client.post(
        "/v1/models/tiny/predict",
        content=_npy(np.arange(4)),
        headers={"Content-Type": "application/x-npy"},
    )
    assert len(answer.json()["predictions"]) == 1


def test_a_proxy_may_serve_it_under_a_prefix(tiny_store: Path) -> None:
    with TestClient(create_app(Settings(store=tiny_store)), root_path="/models-of-ours") as client:
        for prefix in ("", "/models-of-ours"):
            answer = client.post(f"{prefix}/v1/models/tiny/predict", json={"instances": ROWS})
            assert answer.status_code == 200


def test_versions_answer_for_themselves(client: TestClient) -> None:
    body = {"instances": ROWS}
    answers = [client.post(f"/v1/models/tiny/versions/{v}/predict", json=body).json() for v in (1, 2)]
    assert [answer["version"] for answer in answers] == [1, 2]
    assert answers[0]["predictions"] != answers[1]["predictions"]
    assert client.post("/v1/models/tiny/predict", json=body).json() == answers[1]


def test_records_of_all_kinds_and_missing_values(client: TestClient) -> None:
    # price = 10 + 2 * ((area - 0.5) * 2 + 2 new + 3 Hue + 4 Ha Noi + 5 flat + 6 gable), area 1 and roof flat stand in
    records = [
        {"area m/2": 3, "new": True, "town": "Hue", "roof": "gable"},
        {"area m/2": None, "new": False, "town": "Ha Noi"},
        {"new": False, "town": "Ha Noi", "roof": "round"},
    ]
    answer = client.post("/v1/models/price/predict", json={"instances": records})
    assert answer.json()["predictions"] == [{"value": 42.0}, {"value": 30.0}, {"value": 30.0}]
    rows = [[3, 1, 0, 1], [None, 0, 1, 0], [None, 0, 1, None]]
    assert client.post("/v1/models/price/predict", json={"instances": rows}).json() == answer.json()
    binary = np.array(rows, dtype="<f4").tobytes()
    headers = {"Content-Type": "application/octet-stream"}
    assert client.post("/v1/models/price/predict", content=binary, headers=headers).json() == answer.json()


def test_lists_tell_what_is_loaded(client: TestClient) -> None:
    models = {model["name"]: model for model in client.get("/v1/models").json()["models"]}
    assert list(models) == ["price", "tiny"]
    tiny = models["tiny"]
    assert tiny == client.get("/v1/models/tiny").json()
    assert (tiny["version"], tiny["versions"], tiny["task"]) == (2, [1, 2], "classification")
    assert (tiny["input_shape"], tiny["labels"]) == ([4], ["a", "b", "c"])
    assert tiny["metrics"] == {"test": {"accuracy": 0.97}}
    assert tiny["model_version_status"][0] == {
        "version": "2",
        "state": "AVAILABLE",
        "status": {"error_code": "OK", "error_message": ""},
    }
    assert [(f["name"], f["kind"], f["required"]) for f in models["price"]["features"]] == [
        ("area m/2", "numeric", False),
        ("new", "boolean", True),
        ("town", "categorical", True),
        ("roof", "categorical", False),
    ]


def test_open_inference_protocol(client: TestClient) -> None:
    assert client.get("/v2").json()["name"] == "mariana"
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").json() == {"ready": True}
    metadata = client.get("/v2/models/tiny").json()
    assert metadata["versions"] == ["1", "2"]
    assert metadata["inputs"] == [{"name": "input", "datatype": "FP32", "shape": [-1, 4]}]
    assert metadata["outputs"] == [{"name": "output", "datatype": "FP32", "shape": [-1, 3]}]
    assert client.get("/v2/models/tiny/versions/1").json() == metadata
    for path in ("/v2/models/tiny/ready", "/v2/models/tiny/versions/1/ready"):
        assert client.get(path).json() == {"name": "tiny", "ready": True}


def test_what_is_damaged_stops_nothing_else(
    tiny_store: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = tmp_path / "store"
    shutil.copytree(tiny_store, store)
    (store / "models/tiny/2/model.safetensors").write_bytes(b"no model")
    (store / "models/price/1/model.safetensors").write_bytes(b"")
    segment = next((store / "indexes/towns").glob("*.mrx"))
    segment.write_bytes(segment.read_bytes()[:-1])
    with TestClient(create_app(Settings(store=store))) as client:
        tiny = client.get("/v1/models/tiny").json()
        assert (tiny["version"], tiny["versions"]) == (1, [1])
        failed = tiny["model_version_status"][0]
        assert (failed["version"], failed["state"]) == ("2", "END")
        assert failed["status"]["error_message"].startswith("models/tiny/2/model.safetensors: ")
        assert client.post("/v1/models/tiny/predict", json={"instances": ROWS}).json()["version"] == 1
        price = client.get("/v1/models/price").json()
        assert (price["version"], price["task"]) == (None, None)
        assert client.post("/v1/models/price/predict", content=b"x").status_code == 404
        assert client.get("/v2/models/price/ready").status_code == 404
        (towns,) = client.get("/v1/indexes").json()["indexes"]
        assert towns["state"] == "END"
        assert "segment" in towns["error"]
        assert client.get("/v1/indexes/towns/complete?q=s").status_code == 404
        assert client.get("/v2/health/ready").json() == {"ready": True}
    assert len(caplog.records) >= 3


def test_a_missing_store_serves_with_a_hint(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with TestClient(create_app(Settings(store=tmp_path / "nothing"))) as client:
        assert client.get("/v1/models").json() == {"models": []}
    assert "mariana demo" in caplog.text


def test_cors_is_closed_until_origins_are_named(client: TestClient, tiny_store: Path) -> None:
    asked = {"Origin": "https://a.example", "Access-Control-Request-Method": "POST"}
    assert client.options("/v1/models/tiny/predict", headers=asked).status_code == 405
    assert "access-control-allow-origin" not in client.get("/v1/models", headers=asked).headers
    with TestClient(create_app(Settings(store=tiny_store, cors_origins="https://a.example"))) as open_client:
        answer = open_client.get("/v1/models", headers=asked)
        assert answer.headers["access-control-allow-origin"] == "https://a.example"
        asked["Origin"] = "https://b.example"
        assert "access-control-allow-origin" not in open_client.get("/v1/models", headers=asked).headers
