"""Live updates and learning over HTTP."""

import contextlib
import errno
import json
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

import mariana
from mariana.errors import StoreError
from mariana.server import create_app, follow
from mariana.server.routes import complete, selections
from mariana.server.schemas import Deletions, Insertions, ReceiptAnswer, Selection, component
from mariana.settings import Settings
from mariana.store import Store

TOKEN = {"Authorization": "Bearer let-me-in"}
ENTRIES = "/v1/indexes/towns/entries"
SELECTIONS = "/v1/indexes/towns/selections"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    mariana.build_index(
        Store(tmp_path).new_index_path("towns"), [("Saigon", 9), ("Sapporo", 7), ("São Paulo", 12)]
    )
    return tmp_path


Serve = Callable[..., TestClient]


@pytest.fixture
def serve(store: Path) -> Iterator[Serve]:
    """A function that serves the store, with the settings it is given."""
    with contextlib.ExitStack() as stack:

        def start(**settings: object) -> TestClient:
            defaults = {"store": store, "admin_token": "let-me-in", "learn": True}
            return stack.enter_context(TestClient(create_app(Settings(**{**defaults, **settings}))))

        yield start


def texts(client: TestClient, query: str = "sa") -> list[str]:
    answer = client.get("/v1/indexes/towns/complete", params={"q": query, "limit": 100, "fuzzy": 0})
    return [completion["text"] for completion in answer.json()["completions"]]


def delete(client: TestClient, document: object, **options: object) -> object:
    return client.request("DELETE", ENTRIES, json=document, **{"headers": TOKEN, **options})


def test_entries_come_and_go(serve: Serve) -> None:
    client = serve()
    entries = [{"text": "Salta", "score": 10, "payload": {"n": [1, 2.5, 10**18]}}, {"text": "Saigon"}]
    answer = client.post(ENTRIES, json={"entries": entries}, headers=TOKEN)
    assert (answer.status_code, answer.json()) == (200, {"sequence": 1, "count": 2})
    assert texts(client) == ["São Paulo", "Salta", "Sapporo", "Saigon"]
    assert client.get("/v1/indexes/towns").json()["entries"] == 4
    found = client.get("/v1/indexes/towns/complete?q=salta").json()["completions"][0]
    assert (found["payload"], found["score"]) == ({"n": [1, 2.5, 10**18]}, 10)
    answer = delete(client, {"texts": ["Sapporo", "Nowhere"]})
    assert (answer.status_code, answer.json()) == (200, {"sequence": 2, "count": 1})
    assert texts(client) == ["São Paulo", "Salta", "Saigon"]


def test_names_of_a_document_come_and_go_together(serve: Serve) -> None:
    client = serve()
    entries = [{"text": "Santiago", "score": 20, "id": "cl"}, {"text": "Santiago de Chile", "id": "cl"}]
    assert client.post(ENTRIES, json={"entries": entries}, headers=TOKEN).status_code == 200
    assert texts(client, "sant") == ["Santiago"]
    body = client.get("/v1/indexes/towns/complete?q=s&fuzzy=0").json()["completions"]
    assert [completion.get("id", "none") for completion in body] == ["cl", "none", "none", "none"]
    answer = delete(client, {"ids": ["cl", "nowhere"], "texts": ["Saigon"]})
    assert (answer.status_code, answer.json()["count"]) == (200, 3)
    assert texts(client) == ["São Paulo", "Sapporo"]
    assert delete(client, {}).status_code == 400
    wrong = {"entries": [{"text": "x", "id": ""}]}
    assert client.post(ENTRIES, json=wrong, headers=TOKEN).status_code == 422


def test_another_worker_sees_it(serve: Serve) -> None:
    one, other = serve(), serve()
    one.post(ENTRIES, json={"entries": [{"text": "Salta"}]}, headers=TOKEN)
    until = time.monotonic() + 10
    while "Salta" not in texts(other):
        assert time.monotonic() < until
        time.sleep(0.005)


def test_caches_ask_again_once_an_index_is_live(serve: Serve) -> None:
    client = serve()
    assert client.get("/v1/indexes/towns/complete?q=s").headers["cache-control"] == complete.CACHE_CONTROL
    client.post(ENTRIES, json={"entries": [{"text": "Salta"}]}, headers=TOKEN)
    assert (
        client.get("/v1/indexes/towns/complete?q=s").headers["cache-control"] == complete.LIVE_CACHE_CONTROL
    )


@pytest.mark.parametrize(
    ("headers", "token", "status"),
    [
        (TOKEN, None, 403),
        ({}, None, 403),
        ({}, "let-me-in", 401),
        ({"Authorization": "Bearer let-me-out"}, "let-me-in", 401),
        ({"Authorization": "Basic let-me-in"}, "let-me-in", 401),
        (TOKEN, "let-me-in", 200),
    ],
)
def test_who_may_write(serve: Serve, headers: dict[str, str], token: str | None, status: int) -> None:
    client = serve(admin_token=token)
    answer = client.post(ENTRIES, json={"entries": [{"text": "Salta"}]}, headers=headers)
    assert answer.status_code == status
    assert delete(client, {"texts": ["Salta"]}, headers=headers).status_code == status
    assert ("Salta" in texts(client)) is False
    if status != 200:
        assert client.post("/v1/indexes/nothing/entries", json={}, headers=headers).status_code == status


WRONG = [
    ("[]", 400, ""),
    ('{"entries": []}', 400, "/entries"),
    ('{"entries": {}}', 400, "/entries"),
    ("{}", 400, "/entries"),
    ('{"entries": [{"text": 3}]}', 400, "/entries/0/text"),
    ('{"entries": [{"text": "a"}, {"score": 1}]}', 400, "/entries/1/text"),
    ('{"entries": [{"text": "a", "score": "1"}]}', 400, "/entries/0/score"),
    ('{"entries": [{"text": "a", "score": true}]}', 400, "/entries/0/score"),
    ('{"entries": [{"text": "a", "score": -1}]}', 422, "/entries/0/score"),
    ('{"entries": [{"text": "a", "score": 1e999}]}', 422, "/entries/0/score"),
    ('{"entries": [{"text": "a", "score": NaN}]}', 400, ""),
    ('{"entries": [{"text": "a", "colour": 1}]}', 400, "/entries/0/colour"),
    ('{"entries": [{"text": "a", "text": "b"}]}', 400, ""),
    ('{"entries": [{"text": "a"}], "more": 1}', 400, "/more"),
    ('{"entries": [{"text": ""}]}', 422, "/entries/0/text"),
    ('{"entries": [{"text": "a"}, {"text": "%s"}]}' % ("x" * 1025), 422, "/entries/1/text"),
    ('{"entries": [{"text": "a"}, {"text": "%s"}]}' % ("é" * 600), 400, "/entries/1"),
    (
        '{"entries": [{"text": "a"}, {"text": "\\u0000"}, {"text": "\\u200f"}, {"text": " "}]}',
        400,
        "/entries/1",
    ),
    ('{"entries": [{"text": "\\ud800"}]}', 400, "/entries/0/text"),
    ('{"entries": [{"text": "a", "payload": %s}]}' % ("[" * 300 + "]" * 300), 400, "/entries/0/payload"),
    ('{"entries": [{"text": "a", "payload": "%s"}]}' % ("x" * 70_000), 400, "/entries/0"),
    ('{"entries": [{"text": "a", "payload": "\\ud800"}]}', 400, "/entries/0/payload"),
    (json.dumps({"entries": [{"text": "a"}] * 10_001}), 400, "/entries"),
    ("[" * 100_000, 400, ""),
    ("é".encode("latin-1"), 400, ""),
    ('{"entries": [{"text": "a", "payload": 1%s}]}' % ("0" * 5000), 400, "/entries/0/payload"),
]


@pytest.mark.parametrize(("body", "status", "pointer"), WRONG, ids=lambda value: str(value)[:40])
def test_what_is_wrong_with_a_batch_is_told_and_nothing_changes(
    serve: Serve, body: str, status: int, pointer: str
) -> None:
    client = serve()
    answer = client.post(ENTRIES, content=body, headers=TOKEN)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), (
        answer.text
    )
    assert len(answer.content) <= 1000
    errors = answer.json()["errors"]
    assert (errors[0]["pointer"] if errors else "") == pointer
    assert texts(client, "") == ["São Paulo", "Saigon", "Sapporo"]


def test_each_wrong_entry_is_told(serve: Serve) -> None:
    entries = [{"text": "a"}, {"text": "\n"}, {"text": "b"}, {"text": "\u2028"}]
    answer = serve().post(ENTRIES, json={"entries": entries}, headers=TOKEN)
    assert [error["pointer"] for error in answer.json()["errors"]] == ["/entries/1", "/entries/3"]


def test_other_ways_to_go_wrong(serve: Serve) -> None:
    client = serve(max_body=1000)
    assert client.post(ENTRIES, content="x" * 1001, headers=TOKEN).status_code == 413
    headers = {**TOKEN, "Content-Type": "application/octet-stream"}
    assert client.post(ENTRIES, content="x", headers=headers).status_code == 415
    assert client.post("/v1/indexes/nothing/entries", json={}, headers=TOKEN).status_code == 404
    assert client.put(ENTRIES, json={}, headers=TOKEN).status_code == 405
    for texts_ in (["a", 3], "a", [], [["a"]]):
        assert delete(client, {"texts": texts_}).status_code == 400
    body = json.dumps({"texts": ["\ud800"]})
    assert client.request("DELETE", ENTRIES, content=body, headers=TOKEN).status_code == 400
    assert delete(client, {"texts": ["x" * 5000 for _ in range(1)]}).status_code == 413


def test_openapi_tells_what_is_taken(serve: Serve) -> None:
    client = serve()
    document = client.get("/openapi.json").json()
    assert document["components"]["securitySchemes"]["admin"]["scheme"] == "bearer"
    for path, method, form, statuses in (
        (ENTRIES, "post", Insertions, "400 401 403 404 413 415 422 503 507"),
        (ENTRIES, "delete", Deletions, "400 401 403 404 413 415 422 503 507"),
        (SELECTIONS, "post", Selection, "400 403 404 413 415 422 503 507"),
    ):
        operation = document["paths"][path.replace("towns", "{name}")][method]
        assert set(statuses.split()) <= set(operation["responses"])
        assert ("security" in operation) is (path == ENTRIES)
        body = operation["requestBody"]["content"]["application/json"]
        assert body["schema"] == {"$ref": f"#/components/schemas/{form.__name__}"}
        assert document["components"]["schemas"][form.__name__] == component(form)[form.__name__]
        assert body["examples"]
        for example in body["examples"].values():
            form.model_validate(example["value"], strict=True)
            answer = client.request(method, path, json=example["value"], headers=TOKEN)
            assert answer.status_code == 200
            ReceiptAnswer.model_validate_json(answer.content)


# ---- Learning -------------------------------------------------------------------------------------------------


def test_a_selection_raises_an_entry_once_a_client(serve: Serve) -> None:
    client = serve()
    for count in (1, 0):
        answer = client.post(SELECTIONS, json={"query": "sap", "text": "Sapporo"})
        assert (answer.status_code, answer.json()["count"]) == (200, count)
    assert texts(client) == ["Sapporo", "São Paulo", "Saigon"]


def test_learning_is_off_by_default(serve: Serve) -> None:
    assert Settings().learn is False
    answer = serve(learn=False).post(SELECTIONS, json={"query": "sap", "text": "Sapporo"})
    assert (answer.status_code, "MARIANA_LEARN=on" in answer.json()["detail"]) == (403, True)


@pytest.mark.parametrize(
    ("document", "status", "pointer"),
    [
        ({"query": "x", "text": "Nowhere"}, 404, "/text"),
        ({"query": "x"}, 400, "/text"),
        ({"text": "Sapporo"}, 400, "/query"),
        ({"query": 3, "text": "Sapporo"}, 400, "/query"),
        ({"query": "x" * 257, "text": "Sapporo"}, 422, "/query"),
        ({"query": "x", "text": "\ud800"}, 400, "/text"),
        ({"query": "x", "text": ""}, 422, "/text"),
        ({"query": "x", "text": "Sapporo", "client": "me"}, 400, "/client"),
    ],
    ids=str,
)
def test_wrong_selections(serve: Serve, document: object, status: int, pointer: str) -> None:
    answer = serve().post(SELECTIONS, content=json.dumps(document))
    assert answer.status_code == status, answer.text
    assert answer.json()["errors"][0]["pointer"] == pointer


@pytest.mark.parametrize(
    ("host", "client"),
    [
        ("1.2.3.4", "1.2.3.4"),
        ("::ffff:1.2.3.4", "1.2.3.4"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("testclient", "testclient"),
        (None, "unknown"),
    ],
)
def test_a_client_is_an_address_or_a_network(host: str | None, client: str) -> None:
    class Request:
        pass

    request = Request()
    request.client = None if host is None else type("Address", (), {"host": host})
    assert selections.client_of(request) == client


# ---- When the disk is full, read-only, or damaged --------------------------------------------------------------


def test_reads_go_on_when_nothing_can_be_written(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    client = serve()
    client.post(ENTRIES, json={"entries": [{"text": "Salta"}]}, headers=TOKEN)
    state = client.app_state["served"]
    connection = state.index("towns").index._source._journal.connection
    connection.execute("PRAGMA max_page_count = 1")
    big = {"entries": [{"text": f"big {i}", "payload": "x" * 500} for i in range(1000)]}
    answer = client.post(ENTRIES, json=big, headers=TOKEN)
    assert (answer.status_code, answer.json()["detail"]) == (507, "the disk is full; nothing was changed")
    connection.execute("PRAGMA max_page_count = 1000000")
    connection.execute("PRAGMA query_only = 1")
    answer = client.post(ENTRIES, json=big, headers=TOKEN)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    connection.execute("PRAGMA query_only = 0")
    told = [(record.getMessage(), record.exc_info) for record in caplog.records]
    assert len(told) == 2, "one line each"
    assert all("index.db" in message and trace is None for message, trace in told)
    assert texts(client) == ["São Paulo", "Saigon", "Sapporo", "Salta"]
    assert client.post(ENTRIES, json=big, headers=TOKEN).status_code == 200


def test_a_journal_that_breaks_while_it_is_served(
    serve: Serve, store: Path, caplog: pytest.LogCaptureFixture
) -> None:
    client = serve()
    client.post(ENTRIES, json={"entries": [{"text": "Salta"}]}, headers=TOKEN)
    other = sqlite3.connect(store / "indexes/towns/index.db")
    other.execute("DELETE FROM meta")
    other.commit()
    other.close()
    until = time.monotonic() + 10
    while "index towns serves what it last saw" not in caplog.text:
        assert time.monotonic() < until
        time.sleep(0.01)
    assert "Salta" in texts(client)
    answer = client.post(ENTRIES, json={"entries": [{"text": "Sana"}]}, headers=TOKEN)
    assert (answer.status_code, "towns" in answer.text) == (503, False)


def test_what_is_learnt_need_not_fade_where_nothing_can_be_written(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A read-only disk is no news, once a minute."""
    faded = threading.Event()

    class Index:
        def refresh(self, *, wait: bool) -> bool:
            return wait

        def fade(self) -> bool:
            if fading:
                faded.set()
            fading.append(self)
            raise StoreError(errno.EROFS, "cannot use index.db: the file or its folder may not be written")

    fading: list[Index] = []
    monkeypatch.setattr(follow, "FADE_SECONDS", 0)
    follower = follow.Follower(lambda: [("towns", Index())])
    follower.start()
    assert faded.wait(60)
    follower.stop()
    assert not caplog.records
