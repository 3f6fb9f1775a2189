"""Completion over HTTP, its caching, and the pages."""

from pathlib import Path

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from mariana.autocomplete import open_index
from mariana.server.routes import complete, pages


@pytest.mark.parametrize("query", ["", "sa", "SAI", "hà", "zzz", "é" * 128])
def test_the_same_as_in_python(client: TestClient, tiny_store: Path, query: str) -> None:
    answer = client.get("/v1/indexes/towns/complete", params={"q": query, "limit": 2})
    assert answer.status_code == 200
    with open_index(tiny_store / "indexes/towns") as index:
        assert answer.json() == {
            "query": query,
            "completions": [
                {
                    "text": c.text,
                    "score": c.score,
                    "edits": c.edits,
                    "highlights": [list(pair) for pair in c.highlights],
                    "payload": c.payload,
                }
                for c in index.complete(query, limit=2)
            ],
        }


@pytest.mark.parametrize(
    "query", ["q=%ff", "q=sa%ED%A0%80", "q=%C3", "q=sa&limit=3&context=%ff", "q=sa&%ff=1"]
)
def test_what_is_no_utf_8_is_refused(client: TestClient, query: str) -> None:
    answer = client.get(f"/v1/indexes/towns/complete?{query}")
    assert answer.status_code == 400
    assert "the query string is not UTF-8" in answer.json()["detail"]


def test_an_answer_is_cached_by_its_etag(client: TestClient) -> None:
    first = client.get("/v1/indexes/towns/complete?q=sa")
    assert first.headers["cache-control"] == complete.CACHE_CONTROL
    etag = first.headers["etag"]
    again = client.get("/v1/indexes/towns/complete?q=sa", headers={"If-None-Match": f'"x", W/{etag}'})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
    other = client.get("/v1/indexes/towns/complete?q=h", headers={"If-None-Match": etag})
    assert (other.status_code, other.headers["etag"] != etag) == (200, True)


def test_lists(client: TestClient) -> None:
    (towns,) = client.get("/v1/indexes").json()["indexes"]
    assert towns == client.get("/v1/indexes/towns").json()
    assert (towns["name"], towns["state"], towns["entries"]) == ("towns", "AVAILABLE", 4)


def test_pages_are_read_once_and_guarded(tmp_path: Path) -> None:
    (tmp_path / "console.html").write_text("<!doctype html>", encoding="utf-8")
    (tmp_path / "widget.js").write_text("export {}", encoding="utf-8")
    (tmp_path / "notes.secret").write_text("x", encoding="utf-8")
    (tmp_path / "folder.js").mkdir()
    app = FastAPI(docs_url=None)
    app.include_router(pages.make_router(tmp_path))
    with TestClient(app) as client:
        (tmp_path / "console.html").unlink()
        console = client.get("/")
        assert (console.text, console.headers["content-type"]) == (
            "<!doctype html>",
            "text/html; charset=utf-8",
        )
        assert "script-src 'self';" in console.headers["content-security-policy"]
        assert client.head("/").content == b""
        script = client.get("/static/widget.js")
        assert script.headers["content-type"] == "text/javascript; charset=utf-8"
        headers = {"If-None-Match": script.headers["etag"]}
        assert client.get("/static/widget.js", headers=headers).status_code == 304
        for path in ("/docs", "/static/notes.secret", "/static/folder.js", "/static/..%2Fapp.py", "/static/"):
            assert client.get(path).status_code == 404
