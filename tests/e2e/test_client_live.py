"""The Python client against the real server."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from mariana_client import (
    AsyncMariana,
    BadRequestError,
    ClassPrediction,
    Mariana,
    NotFoundError,
    ValuePrediction,
)

from mariana.model import load_model


@pytest.fixture(scope="module")
def tiny_server(tiny_store: Path, serving: Callable) -> Iterator[str]:
    with serving(tiny_store) as url:
        yield url


def test_the_client_predicts_what_the_model_does(tiny_store: Path, tiny_server: str) -> None:
    model = load_model(tiny_store / "models/tiny")
    rows = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    expected = model.predict(rows)
    with Mariana(tiny_server) as mariana:
        for form in (rows, rows.tolist(), [{f"x{i}": v for i, v in enumerate(row)} for row in rows]):
            answer = mariana.predict("tiny", form)
            assert (answer.model, answer.version, answer.labels) == ("tiny", 2, ("a", "b", "c"))
            assert all(isinstance(p, ClassPrediction) for p in answer.predictions)
            got = np.array([p.probabilities for p in answer.predictions])
            np.testing.assert_allclose(got, expected, rtol=1e-6)
            assert [p.label for p in answer.predictions] == ["abc"[i] for i in expected.argmax(1)]
        assert mariana.predict("tiny", rows, version=1).version == 1
        house = {"area m/2": None, "new": True, "town": "Ha Noi", "roof": "flat"}
        assert mariana.predict("price", [house]).predictions == (ValuePrediction(34.0),)


def test_the_client_completes_and_lists(tiny_server: str) -> None:
    with Mariana(tiny_server) as mariana:
        assert [c.text for c in mariana.complete("towns", "sa")] == ["São Paulo", "Saigon", "Saint-Étienne"]
        saigon = mariana.complete("towns", "SAI", limit=1, fuzzy=0)[0]
        assert (saigon.payload, saigon.highlights, saigon.edits) == ({"country": "VN"}, ((0, 3),), 0)
        assert {m.name: m.version for m in mariana.models()} == {"price": 1, "tiny": 2}
        assert {i.name: i.entries for i in mariana.indexes()} == {"towns": 4}
        health = mariana.health()
        assert health.live
        assert health.ready


def test_the_client_tells_what_was_wrong(tiny_server: str) -> None:
    with Mariana(tiny_server) as mariana:
        with pytest.raises(NotFoundError):
            mariana.predict("nothing", [[1]])
        with pytest.raises(NotFoundError):
            mariana.complete("nothing", "a")
        with pytest.raises(BadRequestError) as raised:
            mariana.predict("tiny", [[1, 2, 3]])
        assert raised.value.errors[0].pointer == "/instances/0"


def test_the_async_client(tiny_server: str) -> None:
    async def session() -> None:
        async with AsyncMariana(tiny_server) as mariana:
            answers = await asyncio.gather(
                mariana.predict("tiny", [[0.0] * 4]), mariana.complete("towns", "s"), mariana.models()
            )
            assert [len(answers[0].predictions), len(answers[1]), len(answers[2])] == [1, 3, 2]

    asyncio.run(session())
