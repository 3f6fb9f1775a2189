"""/openapi.json tells the truth: every reference resolves, examples work, schemas and server agree."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import ValidationError
from starlette.testclient import TestClient

from mariana.model import load_model
from mariana.server.schemas import (
    DESCRIBED_FEATURES,
    ClassificationAnswer,
    CompleteAnswer,
    IndexList,
    ModelList,
    ProblemDetails,
    RegressionAnswer,
    request_schema,
)


@pytest.fixture(scope="module")
def document(client: TestClient) -> dict[str, Any]:
    return client.get("/openapi.json").json()


def _operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def test_the_endpoints(document: dict[str, Any]) -> None:
    assert sorted(f"{method} {path}" for path, method, _ in _operations(document)) == sorted(
        """
        delete /v1/indexes/{name}/entries
        get /metrics
        get /v1/indexes
        get /v1/indexes/{name}
        get /v1/indexes/{name}/complete
        get /v1/models
        get /v1/models/{name}
        get /v1/models/{name}/labels/{label}
        get /v1/models/{name}/labels/{label}/metadata
        get /v1/models/{name}/metadata
        get /v1/models/{name}/policy
        get /v1/models/{name}/versions/{version}
        get /v1/models/{name}/versions/{version}/metadata
        get /v2
        get /v2/health/live
        get /v2/health/ready
        get /v2/models/stats
        get /v2/models/{name}
        get /v2/models/{name}/config
        get /v2/models/{name}/ready
        get /v2/models/{name}/stats
        get /v2/models/{name}/versions/{version}
        get /v2/models/{name}/versions/{version}/config
        get /v2/models/{name}/versions/{version}/ready
        get /v2/models/{name}/versions/{version}/stats
        post /v1/indexes/{name}/entries
        post /v1/indexes/{name}/selections
        post /v1/models/price/predict
        post /v1/models/price/versions/1/predict
        post /v1/models/tiny/predict
        post /v1/models/tiny/versions/1/predict
        post /v1/models/tiny/versions/2/predict
        post /v1/models/{name}/labels/{label}:predict
        post /v1/models/{name}/versions/{version}:predict
        post /v1/models/{name}:predict
        post /v2/models/{name}/infer
        post /v2/models/{name}/versions/{version}/infer
        post /v2/repository/index
        post /v2/repository/models/{name}/load
        post /v2/repository/models/{name}/unload
        put /v1/models/{name}/policy
        """.strip()
        .replace("        ", "")
        .splitlines()
    )


def test_operations_have_ids_and_tell_our_errors(document: dict[str, Any]) -> None:
    ids = [operation["operationId"] for _, _, operation in _operations(document)]
    assert len(set(ids)) == len(ids)
    for _, _, operation in _operations(document):
        for status, response in operation["responses"].items():
            if not status.startswith(("2", "3")):
                assert list(response["content"]) == ["application/problem+json"]
    for _, method, operation in _operations(document):
        if method == "post" and "/predict" in operation["operationId"]:
            assert {"200", "400", "404", "413", "415", "422"} <= set(operation["responses"])
    assert "HTTPValidationError" not in document["components"]["schemas"]


def test_every_reference_resolves(document: dict[str, Any]) -> None:
    text = json.dumps(document)
    names = {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}
    assert names
    assert names <= set(document["components"]["schemas"])
    assert "#/$defs" not in text


def test_each_model_has_its_own_schema(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    row = schemas["tiny_2_rows"]["properties"]["instances"]["items"]
    assert (row["minItems"], row["maxItems"], row["items"]["type"]) == (4, 4, "number")
    record = schemas["price_1_record"]
    assert list(record["properties"]) == ["area m/2", "new", "town", "roof"]
    assert record["properties"]["town"]["enum"] == ["Hue", "Ha Noi"]
    assert record["properties"]["new"]["type"] == "boolean"
    assert record["required"] == ["new", "town"]
    assert record["additionalProperties"] is False


def test_examples_work_and_answers_fit_their_schemas(client: TestClient, document: dict[str, Any]) -> None:
    for path, method, operation in _operations(document):
        if method == "post" and "{" not in path and path.endswith("/predict"):
            answers = {"tiny": ClassificationAnswer, "price": RegressionAnswer}
            examples = operation["requestBody"]["content"]["application/json"]["examples"]
            assert set(examples) == {"rows", "records"}
            for example in examples.values():
                answer = client.post(path, json=example["value"])
                assert answer.status_code == 200
                answers[path.split("/")[3]].model_validate_json(answer.content)
    for path, schema in (
        ("/v1/models", ModelList),
        ("/v1/indexes", IndexList),
        ("/v1/indexes/towns/complete?q=s", CompleteAnswer),
        ("/nothing", ProblemDetails),
    ):
        schema.model_validate_json(client.get(path).content)


def test_every_example_works(client: TestClient, document: dict[str, Any]) -> None:
    tried = 0
    for path, method, operation in _operations(document):
        values = {p["name"]: p.get("example") for p in operation.get("parameters", ()) if p["in"] == "path"}
        if "label" in values or "security" in operation or path.endswith("/selections"):  # off here
            continue
        assert None not in values.values(), path
        url = path.format(**values)
        required = {
            p["name"]: p["schema"]["examples"][0] if "examples" in p["schema"] else p["examples"][0]
            for p in operation.get("parameters", ())
            if p["in"] == "query" and p["required"]
        }
        content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
        bodies = [example["value"] for example in content.get("examples", {}).values()] or [
            content.get("example")
        ]
        for body in bodies:
            answer = client.request(method, url, params=required, json=body)
            assert answer.status_code == 200, (method, url, body, answer.text)
            tried += 1
    assert tried > 30


RECORDS = [
    {"new": True, "town": "Hue"},
    {"new": True, "town": "Hue", "area m/2": None, "roof": None},
    {"new": True, "town": "Hue", "area m/2": 1e30, "roof": "round"},
    {"new": True, "town": "Hue", "area m/2": 1e39},
    {"new": True, "town": "Hue", "area m/2": True},
    {"new": True, "town": "Hue", "area m/2": "1"},
    {"new": 1, "town": "Hue"},
    {"new": True, "town": "hue"},
    {"new": None, "town": "Hue"},
    {"new": True},
    {"new": True, "town": "Hue", "f0": 1},
    {},
]


@pytest.mark.parametrize("record", RECORDS, ids=str)
def test_the_schema_of_records_says_what_the_server_does(
    client: TestClient, tiny_store, record: dict[str, Any]
) -> None:
    _, records = request_schema("price", 1, load_model(tiny_store / "models/price"))
    body = {"instances": [record]}
    try:
        records.model_validate_json(json.dumps(body), strict=True)
        valid = True
    except ValidationError:
        valid = False
    assert (client.post("/v1/models/price/predict", json=body).status_code == 200) is valid


def test_a_wide_model_is_not_described_feature_by_feature(tmp_path, make_classifier) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(make_classifier(columns=DESCRIBED_FEATURES + 1))
    rows, records = request_schema("wide", 1, load_model(path))
    assert rows.__name__ == "wide_1_rows"
    assert records is None
