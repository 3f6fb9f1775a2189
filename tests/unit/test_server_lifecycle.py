"""Versions and indexes come, go and are chosen while the server runs; a bad one never replaces a good one."""

import asyncio
import hashlib
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from mariana.building import build_index
from mariana.server import create_app, lifecycle
from mariana.server.routes import predict
from mariana.settings import Settings
from mariana.store import Store

TOKEN = "a token for tests"
ADMIN = {"Authorization": f"Bearer {TOKEN}"}
BODY = {"instances": [[1, 2, 3, 4]]}


@pytest.fixture
def store(tiny_store: Path, tmp_path: Path) -> Path:
    path = tmp_path / "store"
    shutil.copytree(tiny_store, path)
    return path


def serve(store: Path, **settings: Any) -> TestClient:
    given = {"store": store, "admin_token": TOKEN, "reload_store": False, **settings}
    return TestClient(create_app(Settings(**given)))


def version(client: TestClient, path: str = "/v1/models/tiny/predict") -> int:
    answer = client.post(path, json=BODY)
    assert answer.status_code == 200, answer.text
    return answer.json()["version"]


def eventually(condition: Callable[[], bool]) -> None:
    for _ in range(400):
        if condition():
            return
        time.sleep(0.02)
    raise AssertionError("it did not come about")


def load(client: TestClient, name: str = "tiny") -> int:
    return client.post(f"/v2/repository/models/{name}/load", headers=ADMIN).status_code


def test_new_versions_are_noticed(store: Path, make_classifier: Callable[..., bytes]) -> None:
    with serve(store, reload_store=True, reload_interval=0.05) as client:
        assert version(client) == 2
        before = client.get("/openapi.json").json()["paths"]
        Store(store).publish_model("tiny", make_classifier(seed=3))
        eventually(lambda: version(client) == 3)
        after = client.get("/openapi.json").json()["paths"]
        assert set(after) - set(before) == {"/v1/models/tiny/versions/3/predict"}
        Store(store).publish_model("new", make_classifier(columns=2))
        eventually(lambda: client.get("/v2/models/new/ready").status_code == 200)
        shutil.rmtree(store / "models/tiny/3")
        eventually(lambda: version(client) == 2)
        shutil.rmtree(store / "models/new")
        eventually(lambda: client.get("/v1/models/new").status_code == 404)
        build_index(Store(store).new_index_path("towns"), [("Sapa", 1)])
        eventually(lambda: client.get("/v1/indexes/towns").json()["entries"] == 1)
        (found,) = client.get("/v1/indexes/towns/complete?q=sa").json()["completions"]
        assert found["text"] == "Sapa"


def test_a_bad_version_never_replaces_a_good_one(store: Path, make_classifier: Callable[..., bytes]) -> None:
    with serve(store) as client:
        good = client.post("/v1/models/tiny/predict", json=BODY).json()
        published = Store(store).publish_model("tiny", make_classifier(seed=3))
        damaged = bytearray(published.read_bytes())
        damaged[-1] ^= 1
        published.write_bytes(bytes(damaged))
        assert load(client) == 200
        assert client.post("/v1/models/tiny/predict", json=BODY).json() == good
        status = client.get("/v1/models/tiny").json()["model_version_status"][0]
        assert (status["version"], status["state"], status["status"]["error_code"]) == (
            "3",
            "END",
            "DATA_LOSS",
        )
        assert "SHA-256" in status["status"]["error_message"]
        rows = {
            row["version"]: row for row in client.post("/v2/repository/index").json() if row["name"] == "tiny"
        }
        assert (rows["3"]["state"], "SHA-256" in rows["3"]["reason"]) == ("UNAVAILABLE", True)

        second = store / "models/tiny/2/model.safetensors"  # a version that serves is overwritten by rubbish
        second.unlink()
        second.write_bytes(b"rubbish")
        assert load(client) == 200
        assert client.post("/v1/models/tiny/predict", json=BODY).json() == good
        assert (
            client.get("/v1/models/tiny").json()["model_version_status"][1]["status"]["error_code"]
            == "DATA_LOSS"
        )

        segment = next((store / "indexes/towns").glob("*.mrx"))
        shutil.copy(segment, store / "segment")
        segment.unlink()
        (store / "segment").rename(segment)


def test_a_bad_index_never_replaces_a_good_one(store: Path) -> None:
    with serve(store, reload_store=True, reload_interval=0.05) as client:
        good = client.get("/v1/indexes/towns/complete?q=sa").json()
        (store / "indexes/towns/segment-00000002.mrx").write_bytes(b"rubbish")
        eventually(lambda: client.get("/v1/indexes/towns").json()["error"] is not None)
        assert client.get("/v1/indexes/towns").json()["state"] == "AVAILABLE"
        assert client.get("/v1/indexes/towns/complete?q=sa").json() == good


def test_only_the_newest_stay_loaded(store: Path, make_classifier: Callable[..., bytes]) -> None:
    for seed in range(3, 6):
        Store(store).publish_model("tiny", make_classifier(seed=seed))
    with serve(store, keep_versions=2) as client:
        assert client.get("/v1/models/tiny").json()["versions"] == [4, 5]
        answer = client.put("/v1/models/tiny/policy", json={"labels": {"old": 1}}, headers=ADMIN)
        assert answer.json() == {"version": None, "labels": {"old": 1}, "canary": 0}
        assert client.get("/v1/models/tiny").json()["versions"] == [1, 4, 5]
        assert version(client, "/v1/models/tiny/labels/old/predict") == 1
        answer = client.post("/v1/models/tiny/labels/old:predict", json=BODY)
        assert list(answer.json()) == ["predictions"]


def test_metrics_tell_of_the_versions_that_are_there(
    store: Path, make_classifier: Callable[..., bytes]
) -> None:
    with serve(store, keep_versions=1) as client:
        served = version(client)
        assert f'model="tiny",version="{served}"' in client.get("/metrics").text
        Store(store).publish_model("tiny", make_classifier(seed=3))
        assert load(client) == 200
        text = client.get("/metrics").text
        assert f'mariana_model_rows_count{{model="tiny",version="{served + 1}"}} 0' in text
        assert f'model="tiny",version="{served}"' not in text
        assert client.post("/v2/repository/models/tiny/unload", headers=ADMIN).status_code == 200
        assert 'model="tiny"' not in client.get("/metrics").text


def test_pins_labels_and_canaries(store: Path, make_classifier: Callable[..., bytes]) -> None:
    def policy(document: dict[str, Any]) -> int:
        return client.put("/v1/models/tiny/policy", json=document, headers=ADMIN).status_code

    with serve(store) as client:
        assert policy({"version": 1}) == 200
        assert version(client) == 1
        Store(store).publish_model("tiny", make_classifier(seed=3))
        assert load(client) == 200
        assert version(client) == 1
        assert policy({"labels": {"stable": 1, "canary": 3}, "canary": 0.5}) == 200
        seen = [version(client) for _ in range(100)]
        assert set(seen) == {1, 3}
        assert 20 < seen.count(3) < 80
        assert policy({"labels": {"canary": 3}, "canary": 1}) == 200
        assert {version(client) for _ in range(10)} == {3}
        assert policy({}) == 200
        assert version(client) == 3
        for document, status in (
            ({"version": 9}, 404),
            ({"version": 0}, 422),
            ({"version": 1.5}, 400),
            ({"canary": 0.5}, 400),
            ({"canary": 2}, 422),
            ({"labels": {"Not a label": 1}}, 400),
            ({"more": 1}, 400),
            ([], 400),
        ):
            assert policy(document) == status, document
    with serve(store) as client:  # it is kept in the store
        assert client.get("/v1/models/tiny/policy").json() == {"version": None, "labels": {}, "canary": 0}


def test_unload_and_load(store: Path) -> None:
    with serve(store) as client:
        assert client.post("/v2/repository/models/tiny/unload", headers=ADMIN).status_code == 200
        assert client.post("/v1/models/tiny/predict", json=BODY).status_code == 404
        assert client.get("/v2/models/tiny/ready").status_code == 404
        assert client.get("/v1/models/tiny").json()["ready"] is False
        assert load(client) == 200
        assert version(client) == 2
        assert load(client, "nothing") == 404
        (store / "models/price/1/model.safetensors").write_bytes(b"")
        assert client.post("/v2/repository/models/price/unload", headers=ADMIN).status_code == 200
        assert load(client, "price") == 422


def test_who_may_write(store: Path, tmp_path: Path) -> None:
    path = "/v2/repository/models/tiny/load"
    with TestClient(create_app(Settings(store=store))) as client:
        assert client.post(path, headers=ADMIN).status_code == 403
    tokens = tmp_path / "tokens"
    tokens.write_text("# of the night shift\n", encoding="utf-8")
    with serve(store, admin_tokens_file=tokens) as client:
        for headers in (
            {},
            {"Authorization": "Bearer x"},
            {"Authorization": TOKEN},
            {"Authorization": f"Basic {TOKEN}"},
        ):
            answer = client.post(path, headers=headers)
            assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
        assert client.post(path, headers=ADMIN).status_code == 200
        other = {"Authorization": "bearer another one"}
        assert client.post(path, headers=other).status_code == 401
        digest = hashlib.sha256(b"another one").hexdigest()
        tokens.write_text(f"# of the night shift\n{digest}  Ada\nnonsense\n", encoding="utf-8")
        assert client.post(path, headers=other).status_code == 200
        tokens.unlink()
        assert client.post(path, headers=other).status_code == 401
        assert client.post(path, headers=ADMIN).status_code == 200


def test_what_goes_wrong_with_one_stops_no_other(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = lifecycle.load_model

    def fails(path: Path, **options: Any) -> Any:
        if path.parent.parent.name == "price":
            raise MemoryError
        return real(path, **options)

    monkeypatch.setattr(lifecycle, "load_model", fails)
    with serve(store) as client:
        assert version(client) == 2
        status = client.get("/v1/models/price").json()["model_version_status"][0]
        assert status["status"]["error_message"].startswith("MemoryError")


def test_the_hundredth_version_is_counted_like_the_first(
    store: Path,
    make_classifier: Callable[..., bytes],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("mariana.server.cells._LINES_BYTES", 40_000)  # room for about forty
    model = make_classifier(seed=3)
    with serve(store, keep_versions=2) as client:
        for number in range(3, 103):
            Store(store).publish_model("tiny", model)
            assert load(client) == 200
            assert version(client) == number
        told = client.get("/metrics").text
        for number in (101, 102):
            assert f'mariana_model_rows_count{{model="tiny",version="{number}"}} 1\n' in told
        assert 'mariana_requests_total{endpoint="POST /v1/models/{name}/predict",status="200"} 100\n' in told
        assert 'mariana_model_loaded{model="price",version="1"' in told
        assert 'version="100"' not in told
    assert "too many" not in caplog.text


def test_the_description_is_made_once_a_change_and_lets_others_in(
    tiny_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []
    operation = predict._operation
    monkeypatch.setattr(
        predict, "_operation", lambda version: (made.append(version.number), operation(version))[1]
    )
    app = create_app(Settings(store=tiny_store))
    with TestClient(app) as client:
        before = client.get("/openapi.json")
        assert before.headers["content-type"] == "application/json"
        assert json.loads(before.content) == app.openapi()
        assert client.get("/openapi.json").content == before.content
        assert sorted(made) == [1, 1, 2], "each version once"
        price = app.front.state.models.pop("price")
        app.front.state.changed()
        after = client.get("/openapi.json").json()
        assert {path.split("/")[3] for path in set(before.json()["paths"]) - set(after["paths"])} == {"price"}
        app.front.state.models["price"] = price
        app.front.state.changed()
        assert client.get("/openapi.json").json()["paths"].keys() == before.json()["paths"].keys()
        assert sorted(made) == [1, 1, 1, 2], "what has gone is not kept"

        async def ask_while_it_changes() -> list[bytes]:
            document, steps = app.document, []
            document.change()
            asking = [asyncio.create_task(document.body()) for _ in range(3)]
            while not all(task.done() for task in asking):
                await asyncio.sleep(0)
                steps.append(1)
                if len(steps) == 20:
                    del app.front.state.models["price"]
                    document.change()
            assert len(steps) > 40, "others had their turn"
            return [await task for task in asking]

        answers = asyncio.run(ask_while_it_changes())
        assert b'"/v1/models/price/predict"' not in answers[1], "what was made before the change is not kept"
        assert answers[1] == answers[2]


def test_the_description_behind_a_proxy(tiny_store: Path) -> None:
    with TestClient(create_app(Settings(store=tiny_store)), root_path="/models") as client:
        assert client.get("/models/openapi.json").json()["servers"] == [{"url": "/models"}]
