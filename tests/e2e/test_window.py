"""The opt-in waiting window, on a real server: requests that come one after the other run as one batch."""

import json
import re
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import numpy as np

from mariana.format import DenseLayer, ModelMetadata, NumericFeature, TrainingRecord, to_bytes
from mariana.model import load_model
from mariana.store import Store

COLUMNS, WIDTH = 8, 1024
"""So wide inside that one row is nowhere run at once."""
CLIENTS = 4
OCTETS = {"Content-Type": "application/octet-stream"}


def wide() -> bytes:
    """Return a model file with a million weights."""
    widths = (COLUMNS, WIDTH, WIDTH, 3)
    metadata = ModelMetadata(
        task="classification",
        features=tuple(NumericFeature(name=f"x{i}") for i in range(COLUMNS)),
        input_shape=(COLUMNS,),
        layers=tuple(
            DenseLayer(name=f"d{i}", inputs=widths[i], units=widths[i + 1], activation=activation)
            for i, activation in enumerate(("relu", "relu", "softmax"))
        ),
        labels=("a", "b", "c"),
        training=TrainingRecord(metrics={"test": {"accuracy": 0.5}}),
    )
    random, shapes = np.random.default_rng(1), metadata.tensor_shapes()
    scale = np.float32(WIDTH**-0.5)
    return to_bytes(
        metadata, {n: random.normal(size=s).astype(np.float32) * scale for n, s in shapes.items()}
    )


def test_rows_of_several_requests_are_joined(serving: Callable, tmp_path: Path) -> None:
    path = Store(tmp_path).publish_model("wide", wide())
    rows = np.random.default_rng(0).normal(size=(CLIENTS, COLUMNS)).astype(np.float32)
    expected = load_model(path, isa="generic").predict(rows)
    together = Barrier(CLIENTS)

    with serving(tmp_path, isa="generic", batch_window=1.0) as url:

        def get(path: str) -> bytes:
            with urllib.request.urlopen(url + path, timeout=60) as answer:
                return answer.read()

        def predict(row: np.ndarray) -> list[float]:
            request = urllib.request.Request(f"{url}/v1/models/wide/predict", row.tobytes(), OCTETS)
            with urllib.request.urlopen(request, timeout=60) as answer:
                (found,) = json.load(answer)["predictions"]
            return found["probabilities"]

        def at_once(row: np.ndarray) -> list[float]:
            together.wait()
            return predict(row)

        def counted(metric: str) -> float:
            text = get("/metrics").decode()
            return float(re.search(rf"^mariana_model_{metric}{{.*}} (.*)$", text, re.MULTILINE)[1])

        config = json.loads(get("/v2/models/wide/config"))
        assert config["dynamic_batching"] == {"max_queue_delay_microseconds": 1_000_000}
        assert config["parameters"]["execution"]["string_value"] in {"batched", "thread"}
        alone = predict(rows[0])
        assert (counted("batch_rows_count"), counted("batch_rows_sum")) == (1, 1)
        assert counted("queue_seconds_sum") > 0.9, "nobody came"
        with ThreadPoolExecutor(CLIENTS) as pool:
            answers = list(pool.map(at_once, rows))
        assert counted("batch_rows_sum") == 1 + CLIENTS
        assert counted("batch_rows_count") < 1 + CLIENTS, "some ran together"
    assert np.float32(answers).tolist() == expected.tolist(), "each has its own row, with the same bits"
    assert alone == answers[0]
