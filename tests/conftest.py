"""What tests of several kinds share."""

from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import numpy as np
import pytest
from starlette.testclient import TestClient

from mariana.building import build_index
from mariana.format import (
    BooleanFeature,
    CategoricalFeature,
    DenseLayer,
    Golden,
    ModelMetadata,
    NumericFeature,
    TargetScaling,
    TrainingRecord,
    to_bytes,
)
from mariana.server import create_app
from mariana.settings import Settings
from mariana.store import Store

hypothesis.settings.register_profile("mariana", deadline=None, derandomize=True)
hypothesis.settings.load_profile("mariana")  # no timing assertions, and the same cases in every run


def classifier_bytes(
    columns: int = 4, labels: tuple[int | str, ...] = ("a", "b", "c"), seed: int = 0
) -> bytes:
    """Return a model file: `columns` numbers, one hidden layer, softmax."""
    random = np.random.default_rng(seed)
    metadata = ModelMetadata(
        task="classification",
        features=tuple(NumericFeature(name=f"x{i}") for i in range(columns)),
        input_shape=(columns,),
        layers=(
            DenseLayer(name="hidden", inputs=columns, units=5, activation="relu"),
            DenseLayer(name="out", inputs=5, units=len(labels), activation="softmax"),
        ),
        labels=labels,
        training=TrainingRecord(metrics={"test": {"accuracy": 0.97}}),
    )
    shapes = metadata.tensor_shapes()
    return to_bytes(metadata, {n: random.normal(size=s).astype(np.float32) for n, s in shapes.items()})


def regressor_bytes() -> bytes:
    """Return a model file with a feature of each kind, stand-ins for missing values, and one golden row."""
    metadata = ModelMetadata(
        task="regression",
        features=(
            NumericFeature(name="area m/2", fill=1.0, shift=0.5, scale=2.0),
            BooleanFeature(name="new"),
            CategoricalFeature(name="town", categories=("Hue", "Ha Noi")),
            CategoricalFeature(name="roof", categories=("flat", "gable"), fill="flat"),
        ),
        input_shape=(4,),
        layers=(DenseLayer(name="out", inputs=6, units=1),),
        targets=("price",),
        target_scaling=TargetScaling(shift=(10.0,), scale=(2.0,)),
        golden=Golden(inputs=((None, 1, 1, 0),), outputs=((10 + 2 * (1 + 2 + 4 + 5),),)),
    )
    weight = np.array([[1], [2], [3], [4], [5], [6]], dtype=np.float32)
    return to_bytes(metadata, {"out.weight": weight, "out.bias": np.zeros(1, dtype=np.float32)})


@pytest.fixture(scope="session")
def make_classifier() -> Callable[..., bytes]:
    """The function that makes the bytes of a classification model."""
    return classifier_bytes


@pytest.fixture(scope="session")
def tiny_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with models `tiny` (two versions) and `price`, and the index `towns`. Do not write in it."""
    path = tmp_path_factory.mktemp("tiny") / "store"
    store = Store(path)
    store.publish_model("tiny", classifier_bytes(seed=1))
    store.publish_model("tiny", classifier_bytes(seed=2))
    store.publish_model("price", regressor_bytes())
    build_index(
        store.new_index_path("towns"),
        [
            {"text": "Saigon", "score": 9, "payload": {"country": "VN"}},
            {"text": "Saint-Étienne", "score": 5},
            {"text": "São Paulo", "score": 12},
            {"text": "Hà Nội", "score": 8},
        ],
    )
    return path


@pytest.fixture(scope="session")
def client(tiny_store: Path) -> Iterator[TestClient]:
    """A client of the application over `tiny_store`, in this process."""
    with TestClient(create_app(Settings(store=tiny_store, max_values=1000))) as client:
        yield client
