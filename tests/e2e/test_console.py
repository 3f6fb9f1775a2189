"""The console and the API page in a real Chromium, under the server's Content-Security-Policy.

The pages are served from server/static, the API is faked here; test_console_live.py asks the real one.
"""

import csv
import gzip
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from mariana.datasets.cities import cities_path

sync_api = pytest.importorskip(
    "playwright.sync_api", reason="Playwright is not installed: pip install playwright"
)
expect = sync_api.expect

pytestmark = pytest.mark.browser

STATIC = Path(__file__).parents[2] / "server/static"
ORIGIN = "http://mariana.test"
CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'"
)
TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
FEATURES = [
    {"name": "sepal_length", "kind": "numeric", "required": True, "categories": None},
    {"name": "wild", "kind": "boolean", "required": True, "categories": None},
    {"name": "colour", "kind": "categorical", "required": True, "categories": ["blue", "white"]},
]
MODEL = {
    "version": 1,
    "versions": [1],
    "task": "classification",
    "isa": "avx2",
    "nbytes": 20_480,
    "layers": [64, 10],
}
MODELS = [
    MODEL
    | {
        "name": "digits",
        "features": [{"name": f"pixel_{i}", "kind": "numeric", "required": True} for i in range(64)],
        "labels": [str(i) for i in range(10)],
        "metrics": {"train": {"accuracy": 1.0}, "test": {"loss": 0.1, "accuracy": 0.976}},
    },
    MODEL | {"name": "iris", "features": FEATURES, "labels": ["setosa", "other"], "metrics": {}},
    {
        "name": "broken",
        "version": None,
        "versions": [],
        "task": None,
        "features": None,
        "model_version_status": [
            {
                "version": "1",
                "state": "END",
                "status": {"error_code": "DATA_LOSS", "error_message": "is damaged"},
            }
        ],
    },
]
INDEXES = [
    {"name": "cities", "state": "AVAILABLE", "entries": 32_182, "nbytes": 1_200_000, "error": None},
    {"name": "torn", "state": "END", "entries": None, "nbytes": None, "error": "is cut short"},
]
SAIGON = {
    "text": "Sài Gòn",
    "score": 8_993_082.0,
    "edits": 0,
    "highlights": [[0, 3]],
    "payload": {"country": "VN", "lat": 10.82, "lon": 106.63, "city": "Ho Chi Minh City"},
}
RECORD = {"sepal_length": 5.099999904632568, "wild": True, "colour": "white"}
OPENAPI = {
    "openapi": "3.1.0",
    "info": {"title": "Mariana", "version": "0.1.0"},
    "paths": {
        "/v1/models/iris/predict": {
            "post": {
                "tags": ["models"],
                "description": "Predict with iris.",
                "requestBody": {
                    "content": {
                        "application/json": {
                            "schema": {"$ref": "#/components/schemas/Rows"},
                            "examples": {"records": {"summary": "by name", "value": {"instances": [RECORD]}}},
                        }
                    }
                },
                "responses": {"200": {"description": "One prediction a row"}},
            }
        },
        "/v1/indexes/{name}/complete": {
            "get": {
                "tags": ["indexes"],
                "description": "Complete what was typed.",
                "parameters": [
                    {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}},
                    {
                        "name": "q",
                        "in": "query",
                        "required": True,
                        "schema": {"type": "string", "examples": ["sai"]},
                    },
                    {
                        "name": "limit",
                        "in": "query",
                        "schema": {"type": "integer", "minimum": 1, "maximum": 100, "default": 10},
                    },
                ],
                "responses": {
                    "200": {
                        "description": "ok",
                        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Tree"}}},
                    }
                },
            }
        },
    },
    "components": {
        "schemas": {
            "Rows": {
                "type": "object",
                "required": ["instances"],
                "properties": {
                    "instances": {"type": "array", "items": {"type": "object"}, "description": "one a row"}
                },
            },
            "Tree": {
                "type": "object",
                "properties": {"children": {"type": "array", "items": {"$ref": "#/components/schemas/Tree"}}},
            },
        }
    },
}


class Site:
    """A browser page; what it may ask is answered from the attributes."""

    def __init__(self, page: "sync_api.Page") -> None:
        self.page = page
        self.models: list[dict] = MODELS
        self.indexes: list[dict] = INDEXES
        self.predicted: list[tuple[str, Any]] = []
        self.troubles: list[str] = []
        self.down = False
        self.failing = False  # requests fail on purpose, which the browser itself notes
        page.on("console", self._note)
        page.on("pageerror", lambda error: self.troubles.append(str(error)))
        page.route("**/*", self._serve)

    def _note(self, message: "sync_api.ConsoleMessage") -> None:
        refused = message.text.startswith("Failed to load resource")
        if message.type == "error" and not (refused and self.failing):
            self.troubles.append(message.text)

    def _serve(self, route: "sync_api.Route") -> None:
        url = urlsplit(route.request.url)
        assert f"{url.scheme}://{url.netloc}" == ORIGIN, "no third-party host"
        path = {"/": "/static/console.html", "/docs": "/static/docs.html"}.get(url.path, url.path)
        if path.startswith("/static/"):
            file = STATIC / path.removeprefix("/static/")
            headers = {"Content-Security-Policy": CSP, "Content-Type": TYPES[file.suffix]}
            route.fulfill(body=file.read_bytes(), headers=headers)
        elif self.down:
            route.abort()
        elif path == "/v1/models":
            route.fulfill(json={"models": self.models})
        elif path == "/v1/indexes":
            route.fulfill(json={"indexes": self.indexes})
        elif path == "/openapi.json":
            route.fulfill(json=OPENAPI)
        elif path.endswith("/complete"):
            assert parse_qs(url.query)["q"]
            route.fulfill(json={"query": "", "completions": [SAIGON]})
        elif path.endswith("/predict"):
            self._predict(path.split("/")[3], route)

    def _predict(self, name: str, route: "sync_api.Route") -> None:
        (instance,) = json.loads(route.request.post_data)["instances"]
        self.predicted.append((name, instance))
        model = next((m for m in self.models if m["name"] == name), None)
        if model is None:
            route.fulfill(status=404, json={"title": "Not Found", "status": 404, "detail": "no such model"})
        elif instance == {}:
            route.fulfill(status=400, json={"status": 400, "detail": "wrong"})
        else:
            labels = model["labels"]
            rest = 0.2 / (len(labels) - 1)
            probabilities = [0.8 if i == len(labels) - 1 else rest for i in range(len(labels))]
            prediction: dict[str, Any] = {
                "label": labels[-1],
                "probability": 0.8,
                "probabilities": probabilities,
            }
            answer = {"model": name, "version": 1, "labels": labels, "predictions": [prediction]}
            if urlsplit(route.request.url).query == "explain=true":
                names = list(instance) if isinstance(instance, dict) else [f"pixel_{i}" for i in range(64)]
                shares = {feature: (1.5 - i) * 0.5 for i, feature in enumerate(names)}
                told = {"output": labels[-1], "value": 1.386, "baseline_value": 0.25, "shares": shares}
                prediction["explanation"] = told
                answer["explain"] = {
                    "method": "leave_one_out",
                    "of": "log_odds",
                    "baseline": {"sepal_length": 5.8},
                }
            route.fulfill(json=answer)

    def open(self, path: str = "/") -> "sync_api.Page":
        self.page.goto(ORIGIN + path)
        if path == "/" and not self.down:
            expect(self.page.locator("#health")).to_have_attribute("data-state", "ready")
        return self.page

    def drag(self, points: list[tuple[float, float]]) -> None:
        """Draw a line through points on the unit square of the pad."""
        pad = self.page.locator("#pad")
        pad.scroll_into_view_if_needed()
        box = pad.bounding_box()
        mouse = self.page.mouse
        for i, (x, y) in enumerate(points):
            mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"], steps=4)
            if i == 0:
                mouse.down()
        mouse.up()

    def settled(self) -> list[int]:
        """The 8x8 that was asked last, once nothing more is asked."""
        count = -1
        while count != len(self.predicted):
            count = len(self.predicted)
            self.page.wait_for_timeout(150)
        return [row for name, row in self.predicted if name == "digits"][-1]


@pytest.fixture
def site(chromium: "sync_api.Browser") -> Iterator[Site]:
    context = chromium.new_context(locale="en-GB")
    context.set_default_timeout(10_000)
    site = Site(context.new_page())
    yield site
    site.page.unroute_all(behavior="ignoreErrors")
    context.close()
    assert site.troubles == []


def test_a_drawing_is_reduced_and_predicted(site: Site) -> None:
    page = site.open()
    site.drag([(0.3, 0.2), (0.7, 0.2), (0.5, 0.8)])
    expect(page.locator("#digit")).to_have_text("9")
    expect(page.locator("#sure")).to_have_text("80.0 % sure")
    expect(page.locator("#digit-bars .best")).to_have_text("980.0 %")
    expect(page.locator("#digit-bars li")).to_have_count(10)
    expect(page.locator("#draw-status")).to_have_text("It reads 9, 80.0 % sure")
    expect(page.locator("#draw-latency")).to_contain_text("ms round trip")
    page.wait_for_function(
        "() => { const c = document.getElementById('reduced'), d = c.getContext('2d').getImageData(0, 0, c.width, c.width).data;"
        " for (let i = 0; i < d.length; i += 4) if (d[i + 3] > 100 && d[i] > d[i + 2] + 40) return true; return false; }"
    )  # cells that speak against the digit are in the colour of a warning
    counts = site.settled()
    assert len(counts) == 64
    assert all(isinstance(n, int) and 0 <= n <= 16 for n in counts)
    rows = [sum(counts[i : i + 8]) for i in range(0, 64, 8)]
    assert min(rows[0], rows[7]) > 0, "the drawing fills the height"
    assert rows[0] == max(rows), "its widest part is on top"
    page.get_by_role("button", name="Clear").click()
    expect(page.locator("#digit")).to_have_text("?")
    expect(page.locator("#pad-hint")).to_be_visible()


def test_the_reduction_forgets_place_and_size(site: Site) -> None:
    page = site.open()
    site.drag([(0.1, 0.1), (0.8, 0.1), (0.4, 0.9)])
    large = site.settled()
    page.get_by_role("button", name="Clear").click()
    site.drag([(0.6, 0.5), (0.775, 0.5), (0.675, 0.7)])
    small = site.settled()
    assert math.dist(large, small) < 12, "a quarter of the size, elsewhere: the same but for rounding"


def test_a_dot_is_a_drawing_too(site: Site) -> None:
    site.open()
    site.drag([(0.5, 0.5)])
    assert sum(site.settled()) > 0


def test_samples_work_by_keyboard(site: Site) -> None:
    page = site.open()
    seen = []
    for digit in range(10):
        page.get_by_role("button", name=f"Draw a {digit}", exact=True).press("Enter")
        expect(page.locator("#digit")).to_have_text("9")
        seen.append(tuple(site.settled()))
    assert len(set(seen)) == 10


def test_touch_draws_instead_of_scrolling(site: Site) -> None:
    page = site.open()
    assert page.locator("#pad").evaluate("e => getComputedStyle(e).touchAction") == "none"


def test_a_city_is_found_and_told_of(site: Site) -> None:
    page = site.open()
    field = page.get_by_role("combobox", name="City")
    field.press_sequentially("sai")
    expect(page.get_by_role("listbox").get_by_role("option")).to_have_text(["Sài GònVN · 8,993,082"])
    expect(page.locator("[role=option] mark")).to_have_text("Sài")
    field.press("ArrowDown")
    field.press("Enter")
    assert field.input_value() == "Sài Gòn"
    place = page.locator("#place")
    expect(place.locator("h3")).to_have_text("Sài Gòn")
    expect(place.locator("dd")).to_have_text(
        ["Ho Chi Minh City", "Vietnam", "8,993,082", "10.82° N, 106.63° E"]
    )
    expect(page.locator("#pin")).to_be_visible()
    pin, chart = page.locator("#pin").bounding_box(), page.locator("#map").bounding_box()
    assert (pin["x"] + pin["width"] / 2 - chart["x"]) / chart["width"] == pytest.approx(
        (106.63 + 180) / 360, abs=0.01
    )


def test_models_are_asked_by_feature_name(site: Site) -> None:
    page = site.open()
    expect(page.locator("#try-model option")).to_have_text(["iris"])
    expect(page.get_by_label("sepal length")).to_have_value("5.1")
    expect(page.get_by_label("wild")).to_be_checked()
    expect(page.locator("#try-bars .best")).to_have_text("other80.0 %")
    why = page.locator("#why-bars li")
    expect(why).to_have_text(["sepal length+0.75", "wild+0.25", "colour-0.25"])
    expect(why.nth(0)).to_have_attribute("title", "sepal_length, counted from 5.8")
    expect(page.locator("#why-bars .against")).to_have_count(1)
    expect(page.locator("#why-about")).to_contain_text("moves the log-odds of other, 1.386, away")
    page.get_by_label("sepal length").fill("6.5")
    page.get_by_label("colour").select_option("blue")
    page.get_by_role("button", name="Predict").click()
    page.wait_for_timeout(100)
    assert site.predicted[-1] == ("iris", {"sepal_length": 6.5, "wild": True, "colour": "blue"})
    page.get_by_text("The same with curl").click()
    expect(page.locator("#try-curl")).to_contain_text(
        '{"instances":[{"sepal_length":6.5,"wild":true,"colour":"blue"}]}'
    )


def test_what_is_loaded_and_what_is_not(site: Site) -> None:
    page = site.open()
    expect(page.locator("#health-text")).to_have_text("ready: 2 models, 1 index")
    expect(page.locator("#models tr").first).to_contain_text("97.6 % accuracy (test)")
    expect(page.locator("#models tr").last).to_have_text("brokenis damaged")
    expect(page.locator("#indexes tr")).to_have_text(["cities32,1821.2 MB37.3 B", "tornis cut short"])


def test_an_empty_store_says_what_to_do(site: Site) -> None:
    site.models, site.indexes, site.failing = [], [], True
    page = site.open()
    expect(page.locator("#draw-notice")).to_contain_text("mariana demo")
    expect(page.locator("#city-notice")).to_contain_text("mariana demo")
    expect(page.locator("#city")).to_be_disabled()
    expect(page.locator("#try")).to_be_hidden()
    expect(page.locator("#models")).to_contain_text("mariana train")
    site.drag([(0.3, 0.2), (0.5, 0.8)])
    expect(page.locator("#draw-notice")).to_contain_text("No model named digits")


def test_a_server_that_is_gone(site: Site) -> None:
    site.down = site.failing = True
    page = site.open()
    expect(page.locator("#health")).to_have_attribute("data-state", "lost")


def test_a_server_that_goes_and_comes_back(site: Site) -> None:
    site.indexes = []
    page = site.open()
    expect(page.locator("#city-notice")).to_be_visible()
    site.down = site.failing = True
    page.get_by_role("button", name="Draw a 3").click()
    expect(page.locator("#health")).to_have_attribute("data-state", "lost")
    expect(page.locator("#draw-notice")).to_contain_text("the server does not answer")
    site.down, site.indexes = False, INDEXES
    page.get_by_role("button", name="Draw a 3").click()
    expect(page.locator("#health")).to_have_attribute("data-state", "ready")
    expect(page.locator("#draw-notice")).to_be_hidden()
    expect(page.locator("#city-notice")).to_be_hidden()


@pytest.mark.parametrize("path", ["/", "/docs"])
@pytest.mark.parametrize("width", [360, 768, 1280])
def test_nothing_overflows_sideways(site: Site, path: str, width: int) -> None:
    site.page.set_viewport_size({"width": width, "height": 800})
    page = site.open(path)
    page.wait_for_load_state("networkidle")
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_the_api_page_renders_openapi(site: Site) -> None:
    page = site.open("/docs")
    articles = page.locator("article")
    expect(articles).to_have_count(2)
    predict, complete = articles.nth(0), articles.nth(1)
    expect(predict).to_contain_text("instances array of object required: one a row")
    expect(predict.locator(".command")).to_contain_text(f"curl -s '{ORIGIN}/v1/models/iris/predict'")
    expect(predict.locator(".command")).to_contain_text('"colour":"white"')
    expect(complete.locator(".command")).to_contain_text("/v1/indexes/{name}/complete?q=sai")
    expect(complete).to_contain_text("integer 1..100")
    expect(page.get_by_role("navigation", name="Endpoints").get_by_role("link")).to_have_count(2)


def test_the_map_has_a_dot_wherever_there_is_a_city() -> None:
    drawn, x, y = set(), 0.0, 0.0
    for command, dx, dy in re.findall(r"([Mm])([\d.]+) ([\d.]+)h0", (STATIC / "world.svg").read_text()):
        x, y = (float(dx), float(dy)) if command == "M" else (x + float(dx), y + float(dy))
        drawn.add((int(x), int(y)))
    with gzip.open(cities_path(), "rt", encoding="utf-8") as file:
        rows = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        places = [json.loads(row["payload"]) for row in rows]
    cells = {
        (int((p["lon"] + 180) // 2.25), int((75 - p["lat"]) // 2.25)) for p in places if -57 <= p["lat"] <= 75
    }
    assert drawn == cells
