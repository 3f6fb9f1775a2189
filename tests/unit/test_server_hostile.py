"""Hostile bodies of the Open Inference Protocol and of TensorFlow Serving: each is answered by a small 4xx, echoing nothing."""

import pytest
from hostile_cases import CASES, GOOD_BYTES, MARK
from starlette.testclient import TestClient


@pytest.mark.parametrize("start", range(0, len(CASES), 40))
def test_each_is_refused_in_few_words(client: TestClient, start: int) -> None:
    for path, body, headers in CASES[start : start + 40]:
        answer = client.post(path, content=body, headers=headers)
        told = (path, body[:200], headers, answer.text)
        assert 400 <= answer.status_code < 500, told
        assert answer.headers["content-type"] == "application/problem+json", told
        assert len(answer.content) < 1000, told
        assert MARK not in answer.text, told
        assert answer.json()["error"] == answer.json()["detail"], told
    good = client.post("/v2/models/tiny/infer", content=GOOD_BYTES)
    assert good.status_code == 200
