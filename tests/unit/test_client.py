"""The Python client against a mock transport: what it sends, what it reads, when it tries again."""

import asyncio
import email.utils
import json
import random
import time
from collections.abc import Callable
from typing import Any

import httpx2
import mariana_client
import numpy as np
import pytest
from mariana_client import (
    AsyncMariana,
    ClassPrediction,
    Completion,
    Explanation,
    FieldError,
    Mariana,
    Receipt,
    ValuePrediction,
)

Handler = Callable[[httpx2.Request], httpx2.Response]

CLASSES = {
    "model": "iris",
    "version": 3,
    "labels": ["setosa", "other"],
    "predictions": [{"label": "setosa", "probability": 0.75, "probabilities": [0.75, 0.25]}],
}
VALUES = {
    "model": "prices",
    "version": 1,
    "labels": [],
    "predictions": [{"value": 2.5}, {"value": [1.0, 2.0]}],
}
CITIES = {
    "query": "são",
    "completions": [
        {"text": "São Paulo", "score": 12.4, "edits": 0, "highlights": [[0, 3]], "payload": {"country": "BR"}}
    ],
}


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The waits between tries, which are noted and not waited; jitter is at its longest."""
    noted: list[float] = []

    async def note(seconds: float) -> None:
        noted.append(seconds)

    monkeypatch.setattr("mariana_client._client.time.sleep", noted.append)
    monkeypatch.setattr("mariana_client._client.asyncio.sleep", note)
    monkeypatch.setattr(random, "uniform", lambda _low, high: high)
    return noted


def client(handler: Handler, **options: Any) -> Mariana:
    return Mariana(
        "http://mariana.test/", http_client=httpx2.Client(transport=httpx2.MockTransport(handler)), **options
    )


def answers(*responses: httpx2.Response | Exception) -> tuple[Handler, list[httpx2.Request]]:
    """A handler that gives these in turn, and the requests it got."""
    queue, seen = list(responses), []

    def handler(request: httpx2.Request) -> httpx2.Response:
        seen.append(request)
        response = queue.pop(0)
        if isinstance(response, Exception):
            raise response
        return response

    return handler, seen


def test_predict_rows_as_json() -> None:
    handler, seen = answers(httpx2.Response(200, json=CLASSES))
    answer = client(handler).predict("iris", [[1, None], [np.float32(0.5), 2]])
    assert answer.labels == ("setosa", "other")
    assert answer.version == 3
    assert answer.predictions == (ClassPrediction("setosa", 0.75, (0.75, 0.25)),)
    assert (seen[0].method, str(seen[0].url)) == ("POST", "http://mariana.test/v1/models/iris/predict")
    assert seen[0].headers["content-type"] == "application/json"
    assert json.loads(seen[0].content) == {"instances": [[1, None], [0.5, 2]]}


def test_predict_records_of_a_pinned_version() -> None:
    handler, seen = answers(httpx2.Response(200, json=VALUES))
    answer = client(handler).predict("a b/c", [{"room": "kitchen", "size": 12.5}], version=2)
    assert answer.predictions == (ValuePrediction(2.5), ValuePrediction((1.0, 2.0)))
    assert seen[0].url.raw_path == b"/v1/models/a%20b%2Fc/versions/2/predict"


def test_explanations() -> None:
    told = {"output": "setosa", "value": 2.0, "baseline_value": 0.5, "shares": {"size": 1.5}}
    classes = {**CLASSES, "explain": {"method": "leave_one_out", "of": "log_odds", "baseline": {"size": 3.0}}}
    classes["predictions"] = [{**CLASSES["predictions"][0], "explanation": told}]
    values = {**VALUES, "predictions": [{"value": [1.0, 2.0], "explanation": [told, told]}]}
    handler, seen = answers(
        httpx2.Response(200, json=classes),
        httpx2.Response(200, json=values),
        httpx2.Response(200, json=CLASSES),
    )
    answer = client(handler).predict("iris", [[1]], explain=True)
    explanation = Explanation("setosa", 2.0, 0.5, {"size": 1.5})
    assert answer.predictions[0].explanations == (explanation,)
    assert answer.baseline == {"size": 3.0}
    answer = client(handler).predict("iris", [[1]], explain="gradient_x_input")
    assert answer.predictions[0].explanations == (explanation, explanation)
    plain = client(handler).predict("iris", [[1]])
    assert (plain.predictions[0].explanations, plain.baseline) == ((), None)
    assert [str(request.url.query, "ascii") for request in seen] == [
        "explain=true",
        "explain=gradient_x_input",
        "",
    ]


def test_arrays_travel_as_float32_in_row_order() -> None:
    handler, seen = answers(httpx2.Response(200, json=CLASSES))
    rows = np.asfortranarray([[1.0, 2.0, np.nan], [4.0, 5.0, 6.0]], dtype=">f8")
    client(handler).predict("iris", rows)
    assert seen[0].headers["content-type"] == "application/octet-stream"
    np.testing.assert_array_equal(np.frombuffer(seen[0].content, "<f4").reshape(2, 3), rows)


@pytest.mark.parametrize("rows", [np.zeros(3), np.zeros((1, 2, 3)), [[float("nan")]], [[float("inf")]]])
def test_rows_that_cannot_be_sent_never_leave(rows: Any) -> None:
    handler, seen = answers()
    with pytest.raises(ValueError, match=r"shape|JSON"):
        client(handler).predict("iris", rows)
    with pytest.raises(TypeError, match="object"):
        client(handler).predict("iris", [[object()]])  # type: ignore[list-item]  # what the test is about
    assert seen == []


def test_complete() -> None:
    handler, seen = answers(httpx2.Response(200, json=CITIES))
    (found,) = client(handler).complete("cities", "são&x=1", limit=3, fuzzy=0)
    assert found == Completion("São Paulo", 12.4, 0, ((0, 3),), {"country": "BR"})
    assert dict(seen[0].url.params) == {"q": "são&x=1", "limit": "3", "fuzzy": "0"}
    assert seen[0].url.path == "/v1/indexes/cities/complete"


def test_completions_say_whether_they_are_all() -> None:
    handler, _ = answers(
        httpx2.Response(200, json=CITIES), httpx2.Response(200, json={**CITIES, "partial": True})
    )
    whole, cut = (client(handler).complete("cities", "são") for _ in range(2))
    assert whole == cut == list(cut)
    assert (whole.partial, cut.partial) == (False, True)


def test_changes() -> None:
    receipt = {"sequence": 7, "count": 2}
    handler, seen = answers(*(httpx2.Response(200, json=receipt) for _ in range(4)))
    mariana = client(handler, api_key="secret")
    entries = ["Hue", ("Vinh", np.float64(2.5)), {"text": "São", "payload": {"a": [1]}}]
    assert mariana.insert("my cities", entries) == Receipt(7, 2)
    assert mariana.delete("cities", iter(["Hue", "Vinh"])) == Receipt(7, 2)
    assert mariana.delete("cities", ids=["Q1854"]) == Receipt(7, 2)
    assert mariana.select("cities", "hu", "Huế") == Receipt(7, 2)
    assert [
        (request.method, request.url.raw_path.decode(), json.loads(request.content)) for request in seen
    ] == [
        (
            "POST",
            "/v1/indexes/my%20cities/entries",
            {
                "entries": [
                    {"text": "Hue"},
                    {"text": "Vinh", "score": 2.5},
                    {"text": "São", "payload": {"a": [1]}},
                ]
            },
        ),
        ("DELETE", "/v1/indexes/cities/entries", {"texts": ["Hue", "Vinh"]}),
        ("DELETE", "/v1/indexes/cities/entries", {"ids": ["Q1854"]}),
        ("POST", "/v1/indexes/cities/selections", {"query": "hu", "text": "Huế"}),
    ]
    for request in seen:
        assert request.headers["authorization"] == "Bearer secret"
        assert request.headers["content-type"] == "application/json"
    with pytest.raises(TypeError, match="several"):
        mariana.delete("cities", "Hue")
    with pytest.raises(ValueError, match="JSON"):
        mariana.insert("cities", [("Hue", float("nan"))])
    assert len(seen) == 4


def test_lists_hold_what_is_broken_too() -> None:
    models = [
        {
            "name": "iris",
            "version": 2,
            "versions": [1, 2],
            "task": "classification",
            "features": [{"name": "a"}],
        },
        {"name": "bad", "version": None, "versions": [], "task": None, "features": None},
    ]
    handler, _ = answers(
        httpx2.Response(200, json={"models": models}),
        httpx2.Response(200, json={"indexes": [{"name": "cities", "entries": None}]}),
    )
    mariana = client(handler)
    iris, bad = mariana.models()
    assert (iris.version, iris.versions, iris.features) == (2, (1, 2), ({"name": "a"},))
    assert (bad.version, bad.task, bad.features) == (None, None, ())
    assert mariana.indexes()[0].entries is None


def test_health_asks_once(pauses: list[float]) -> None:
    handler, seen = answers(httpx2.Response(200), httpx2.Response(503))
    assert client(handler).health() == mariana_client.Health(live=True, ready=False)
    assert [request.url.path for request in seen] == ["/v2/health/live", "/v2/health/ready"]
    assert pauses == []


def test_the_key_is_sent_as_a_bearer_token() -> None:
    handler, seen = answers(httpx2.Response(200, json={"models": []}))
    client(handler, api_key="secret").models()
    assert seen[0].headers["authorization"] == "Bearer secret"


@pytest.mark.parametrize(
    ("status", "name"),
    [
        (400, "BadRequestError"),
        (401, "AuthenticationError"),
        (403, "PermissionDeniedError"),
        (404, "NotFoundError"),
        (409, "ConflictError"),
        (413, "PayloadTooLargeError"),
        (415, "UnsupportedMediaTypeError"),
        (418, "APIStatusError"),
        (422, "UnprocessableEntityError"),
        (500, "ServerError"),
        (507, "ServerError"),
    ],
)
def test_problems_become_exceptions_without_retry(status: int, name: str, pauses: list[float]) -> None:
    problem = {
        "type": "about:blank",
        "title": "T",
        "status": status,
        "detail": "bad row",
        "errors": [{"pointer": "/instances/0", "detail": "expected 4 values, got 3"}],
    }
    handler, seen = answers(httpx2.Response(status, json=problem))
    with pytest.raises(mariana_client.APIStatusError) as raised:
        client(handler).predict("iris", [[1, 2, 3]])
    assert type(raised.value).__name__ == name
    assert (raised.value.title, raised.value.detail, raised.value.status_code) == ("T", "bad row", status)
    assert raised.value.errors == (FieldError("/instances/0", "expected 4 values, got 3"),)
    assert "/instances/0: expected 4 values, got 3" in str(raised.value)
    assert len(seen) == 1
    assert pauses == []


@pytest.mark.parametrize("body", [b"<html>Bad gateway</html>", b"[1]", b"\xff", b""])
def test_an_error_without_a_problem_body(body: bytes, pauses: list[float]) -> None:
    handler, seen = answers(*[httpx2.Response(502, content=body) for _ in range(3)])
    with pytest.raises(mariana_client.ServerError, match="502 Bad Gateway"):
        client(handler).models()
    assert len(seen) == 3
    assert pauses == [0.25, 0.5]


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"{}", b'{"models": [{}]}', b'{"models": 3}', b"\xff"])
def test_an_answer_of_something_else(body: bytes) -> None:
    handler, _ = answers(httpx2.Response(200, content=body))
    with pytest.raises(mariana_client.APIResponseError, match=r"http://mariana\.test/v1/models"):
        client(handler).models()


@pytest.mark.parametrize(
    "first", [408, 429, 502, 503, 504, httpx2.ConnectError("no"), httpx2.ReadError("cut")]
)
def test_what_passes_is_tried_again(first: int | Exception, pauses: list[float]) -> None:
    response = httpx2.Response(first) if isinstance(first, int) else first
    handler, seen = answers(response, httpx2.Response(200, json=CITIES))
    assert client(handler).complete("cities", "s")[0].text == "São Paulo"
    assert len(seen) == 2
    assert pauses == [0.25]


def test_pauses_grow_to_a_cap(pauses: list[float]) -> None:
    handler, _ = answers(*[httpx2.Response(503) for _ in range(9)])
    with pytest.raises(mariana_client.ServerError):
        client(handler, max_retries=8).models()
    assert pauses == [0.25, 0.5, 1, 2, 4, 8, 8, 8]


def test_retry_after_in_seconds_and_as_a_date(pauses: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "uniform", lambda _low, _high: 0.0)
    date = email.utils.formatdate(time.time() + 30, usegmt=True)
    handler, _ = answers(
        httpx2.Response(429, headers={"Retry-After": "7"}),
        httpx2.Response(503, headers={"Retry-After": date}),
        httpx2.Response(200, json={"models": []}),
    )
    client(handler).models()
    assert pauses[0] == 7
    assert 20 < pauses[1] <= 30


def test_a_long_retry_after_is_believed(pauses: list[float]) -> None:
    handler, seen = answers(httpx2.Response(429, headers={"Retry-After": "3600"}))
    with pytest.raises(mariana_client.RateLimitError):
        client(handler).models()
    assert len(seen) == 1
    assert pauses == []


@pytest.mark.parametrize("value", ["soon", "-3", "nan", "inf", "", "Thu, 99 Foo"])
def test_a_strange_retry_after_is_ignored(value: str, pauses: list[float]) -> None:
    handler, _ = answers(
        httpx2.Response(503, headers={"Retry-After": value}), httpx2.Response(200, json={"models": []})
    )
    client(handler).models()
    assert pauses == [0.25]


def test_a_timeout_is_final_and_a_kind_of_connection_error(pauses: list[float]) -> None:
    handler, seen = answers(httpx2.ReadTimeout("slow"))
    with pytest.raises(mariana_client.APITimeoutError, match=r"within 2\.5 s") as raised:
        client(handler, timeout=2.5).models()
    assert isinstance(raised.value, mariana_client.APIConnectionError)
    assert isinstance(raised.value.__cause__, httpx2.ReadTimeout)
    assert len(seen) == 1
    assert pauses == []


def test_a_server_that_is_not_there(pauses: list[float]) -> None:
    with (
        Mariana("http://127.0.0.1:9", http_client=None) as mariana,
        pytest.raises(mariana_client.APIConnectionError, match="127"),
    ):
        mariana.models()
    assert pauses == [0.25, 0.5]


def test_the_async_client_does_the_same(pauses: list[float]) -> None:
    queue: list[httpx2.Response | Exception] = [
        httpx2.ConnectError("no"),
        httpx2.Response(200, json=CLASSES),
        httpx2.Response(200, json=CITIES),
        httpx2.Response(200, json={"models": []}),
        httpx2.Response(200, json={"indexes": []}),
        *(httpx2.Response(200, json={"sequence": 1, "count": 1}) for _ in range(3)),
        httpx2.Response(200),
        httpx2.Response(200),
        httpx2.Response(404, json={"detail": "no such model"}),
        httpx2.ReadTimeout("slow"),
    ]
    handler, seen = answers(*queue)

    async def session() -> None:
        http = httpx2.AsyncClient(transport=httpx2.MockTransport(handler))
        async with http, AsyncMariana("http://mariana.test", http_client=http) as mariana:
            assert (await mariana.predict("iris", np.zeros((1, 2)))).version == 3
            assert (await mariana.complete("cities", "s"))[0].score == 12.4
            assert await mariana.models() == []
            assert await mariana.indexes() == []
            assert await mariana.insert("cities", ["Hue"]) == Receipt(1, 1)
            assert await mariana.delete("cities", ["Hue"]) == Receipt(1, 1)
            assert await mariana.select("cities", "h", "Hue") == Receipt(1, 1)
            assert (await mariana.health()).ready
            with pytest.raises(mariana_client.NotFoundError, match="no such model"):
                await mariana.predict("nothing", [[1]])
            with pytest.raises(mariana_client.APITimeoutError):
                await mariana.models()

    asyncio.run(session())
    assert len(seen) == len(queue)
    assert pauses == [0.25]


def test_a_given_transport_stays_open() -> None:
    http = httpx2.Client(transport=httpx2.MockTransport(lambda _: httpx2.Response(200)))
    with Mariana(http_client=http):
        pass
    assert not http.is_closed
    http.close()
    with Mariana() as mariana:
        pass
    with pytest.raises(RuntimeError, match="closed"):
        mariana.models()


@pytest.mark.parametrize("options", [{"timeout": 0}, {"max_retries": -1}])
def test_options_that_make_no_sense(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"timeout|max_retries"):
        Mariana(**options)


def test_the_public_names_are_exactly_those_listed() -> None:
    public = {name for name in vars(mariana_client) if not name.startswith("_")}
    assert set(mariana_client.__all__) == public
    assert mariana_client.__all__ == sorted(mariana_client.__all__)
    trees = [vars(mariana_client)[name] for name in public if name.endswith("Error") and name != "FieldError"]
    assert all(issubclass(error, mariana_client.MarianaClientError) for error in trees)
