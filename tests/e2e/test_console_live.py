"""The console against the real server, with a digits network trained here in a second."""

from collections.abc import Callable, Iterator

import pytest

from mariana.building import build_index
from mariana.datasets import IRIS_FEATURES, IRIS_LABELS, load_digits, load_iris
from mariana.format import NumericFeature
from mariana.store import Store
from mariana.trainer import Adam, Dense, Sequential, set_random_seed

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def demo_server(tmp_path_factory: pytest.TempPathFactory, serving: Callable) -> Iterator[str]:
    """What `make run` serves, made in two seconds."""
    store = tmp_path_factory.mktemp("demo") / "store"
    tables = {
        "digits": (load_digits(), 128, 0.003, 30, list(range(10)), None),
        "iris": (
            load_iris(),
            16,
            0.02,
            60,
            list(IRIS_LABELS),
            [NumericFeature(name=n) for n in IRIS_FEATURES],
        ),
    }
    for name, ((x, y), units, rate, epochs, labels, features) in tables.items():
        set_random_seed(0)
        net = Sequential([Dense(units, activation="relu"), Dense(len(labels), activation="softmax")])
        net.compile(Adam(learning_rate=rate), "sparse_categorical_crossentropy", metrics=["accuracy"])
        net.fit(x, y, epochs=epochs, verbose=0)
        net.export(store, name=name, labels=labels, features=features)
    cities = [
        {"text": "Saigon", "score": 14_002_598, "payload": {"country": "VN", "lat": 10.823, "lon": 106.63}},
        {
            "text": "São Paulo",
            "score": 12_400_232,
            "payload": {"country": "BR", "lat": -23.55, "lon": -46.63},
        },
    ]
    build_index(Store(store).new_index_path("cities"), cities)
    with serving(store) as url:
        yield url


# By hand, on the unit square; the seven is crossed as in the training data.
DRAWN = {
    0: [
        [
            (0.5, 0.15),
            (0.3, 0.3),
            (0.27, 0.6),
            (0.42, 0.85),
            (0.62, 0.8),
            (0.72, 0.55),
            (0.66, 0.25),
            (0.5, 0.15),
        ]
    ],
    1: [[(0.5, 0.1), (0.5, 0.9)]],
    2: [[(0.28, 0.28), (0.4, 0.14), (0.6, 0.14), (0.7, 0.3), (0.6, 0.5), (0.27, 0.88), (0.75, 0.88)]],
    3: [[(0.28, 0.15), (0.7, 0.15), (0.48, 0.42), (0.68, 0.52), (0.7, 0.72), (0.55, 0.88), (0.28, 0.82)]],
    4: [[(0.6, 0.9), (0.6, 0.1), (0.22, 0.65), (0.8, 0.65)]],
    5: [
        [
            (0.7, 0.12),
            (0.35, 0.12),
            (0.32, 0.45),
            (0.55, 0.42),
            (0.7, 0.58),
            (0.66, 0.8),
            (0.48, 0.9),
            (0.28, 0.82),
        ]
    ],
    6: [
        [
            (0.6, 0.1),
            (0.42, 0.3),
            (0.32, 0.6),
            (0.36, 0.84),
            (0.56, 0.88),
            (0.68, 0.72),
            (0.56, 0.56),
            (0.36, 0.66),
        ]
    ],
    7: [[(0.27, 0.15), (0.72, 0.14), (0.55, 0.5), (0.43, 0.9)], [(0.36, 0.52), (0.68, 0.5)]],
    8: [
        [(0.5, 0.48), (0.34, 0.36), (0.36, 0.18), (0.55, 0.11), (0.68, 0.22), (0.62, 0.4)],
        [(0.62, 0.4), (0.36, 0.62), (0.34, 0.8), (0.52, 0.9), (0.68, 0.8), (0.64, 0.62), (0.5, 0.48)],
    ],
    9: [[(0.68, 0.3), (0.52, 0.12), (0.33, 0.25), (0.38, 0.45), (0.6, 0.44), (0.68, 0.26), (0.64, 0.9)]],
}


@pytest.fixture
def console(chromium: Callable, demo_server: str) -> Iterator:
    context = chromium.new_context(locale="en-GB")
    page = context.new_page()
    troubles: list[str] = []
    page.on("console", lambda message: troubles.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.goto(demo_server)
    page.wait_for_selector("#health[data-state=ready]")
    yield page
    context.close()
    assert troubles == [], "nothing is blocked by the policy, nothing fails"


def test_digits_drawn_with_the_mouse_are_recognised(console) -> None:
    box = console.locator("#pad").bounding_box()
    read = {}
    for digit, lines in DRAWN.items():
        console.get_by_role("button", name="Clear").click()
        for line in lines:
            for i, (x, y) in enumerate(line):
                console.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"], steps=2)
                if i == 0:
                    console.mouse.down()
            console.mouse.up()
        console.wait_for_selector("#digit-bars[aria-busy=false]")
        read[digit] = console.locator("#digit").inner_text()
    wrong = {digit: got for digit, got in read.items() if got != str(digit)}
    assert len(wrong) <= 1, wrong


def test_the_samples_are_recognised(console) -> None:
    for digit in range(10):
        console.get_by_role("button", name=f"Draw a {digit}", exact=True).click()
        console.wait_for_function("digit => document.querySelector('#digit').textContent == digit", arg=digit)


def test_a_city_is_completed_and_a_flower_named(console) -> None:
    console.get_by_role("combobox", name="City").fill("sao")
    console.get_by_role("option", name="São Paulo").click()
    console.wait_for_selector("#place dd >> text=Brazil")
    setosa = {"sepal length": "5.1", "sepal width": "3.5", "petal length": "1.4", "petal width": "0.2"}
    for name, value in setosa.items():
        console.get_by_label(name).fill(value)
    console.wait_for_selector("#try-bars .best >> text=setosa")


def test_the_api_page_shows_every_route(console, demo_server: str) -> None:
    document = console.request.get(f"{demo_server}/openapi.json").json()
    operations = sum(
        len(item.keys() & {"get", "post", "put", "delete"}) for item in document["paths"].values()
    )
    console.goto(f"{demo_server}/docs")
    console.wait_for_selector("article")
    assert console.locator("article").count() == operations
