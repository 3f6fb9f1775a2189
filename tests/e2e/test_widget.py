"""The autocomplete widget in a real Chromium: keyboard, timing, failures, input methods, highlights, CSP."""

import contextlib
import gzip
import importlib.util
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

sync_api = pytest.importorskip(
    "playwright.sync_api", reason="Playwright is not installed: pip install playwright"
)

pytestmark = pytest.mark.browser

WIDGET = Path(__file__).parents[2] / "clients/js/mariana-autocomplete.js"
ORIGIN = "http://mariana.test"
CSP = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; require-trusted-types-for 'script'"
PAGE = """<!doctype html><html lang="en"><title>Widget</title><script type="module" src="/widget.js"></script>
<form action="/found"><mariana-autocomplete src="/complete?fuzzy=0" limit="5"{attributes}>
<label for="city">City</label> <input id="city" name="city"></mariana-autocomplete><button>Go</button></form></html>"""
NAMES = ["San Diego", "San José", "Santiago", "São Paulo", "Saigon"]


def completions(names: list[str], highlights: list[list[int]] | None = None) -> dict:
    return {
        "query": "",
        "completions": [
            {"text": n, "score": 1.0, "edits": 0, "highlights": highlights or [[0, 2]], "payload": {"n": n}}
            for n in names
        ],
    }


class Site:
    """One page with the widget on it; `answer(query)` says what the index answers."""

    def __init__(self, page: "sync_api.Page") -> None:
        self.page = page
        self.asked: list[str] = []
        self.violations: list[str] = []
        self.attributes = ""
        self.answer: Callable[[str, sync_api.Route], None] = lambda _, route: route.fulfill(
            json=completions(NAMES)
        )
        page.on("console", lambda m: self.violations.append(m.text) if "ontent Security" in m.text else None)
        page.on("pageerror", lambda error: self.violations.append(str(error)))
        page.route(f"{ORIGIN}/**", self._serve)

    def _serve(self, route: "sync_api.Route") -> None:
        url = urlsplit(route.request.url)
        if url.path == "/widget.js":
            route.fulfill(body=WIDGET.read_bytes(), content_type="text/javascript")
        elif url.path == "/complete":
            query = parse_qs(url.query)
            assert query["fuzzy"] == ["0"], "the query of src is kept"
            assert query["limit"] == ["5"]
            self.asked.append(query["q"][0])
            self.answer(query["q"][0], route)
        else:
            html = PAGE.format(attributes=self.attributes)
            route.fulfill(body=html, content_type="text/html", headers={"Content-Security-Policy": CSP})

    def open(self, attributes: str = "") -> "sync_api.Locator":
        self.attributes = attributes
        self.page.goto(ORIGIN)
        self.input.focus()
        return self.input

    @property
    def input(self) -> "sync_api.Locator":
        return self.page.get_by_role("combobox", name="City")

    @property
    def texts(self) -> list[str]:
        return self.page.get_by_role("option").all_inner_texts()

    @property
    def active(self) -> str | None:
        """The text of the option that assistive technology hears of, checked both ways."""
        return self.page.evaluate("""() => {
            const id = document.querySelector("input").getAttribute("aria-activedescendant");
            const selected = [...document.querySelectorAll("[aria-selected=true]")];
            if (selected.length !== (id ? 1 : 0) || (id && selected[0].id !== id)) throw new Error("selected != active");
            return id && selected[0].textContent;
        }""")

    def wait_open(self) -> None:
        sync_api.expect(self.input).to_have_attribute("aria-expanded", "true")

    def wait_closed(self) -> None:
        sync_api.expect(self.input).to_have_attribute("aria-expanded", "false")


@pytest.fixture
def site(chromium: "sync_api.Browser") -> Iterator[Site]:
    context = chromium.new_context()
    context.set_default_timeout(10_000)
    site = Site(context.new_page())
    yield site
    site.page.unroute_all(behavior="ignoreErrors")
    context.close()
    assert site.violations == []


def test_roles_and_names_before_the_first_key(site: Site) -> None:
    field = site.open()
    for name, value in {"aria-expanded": "false", "aria-autocomplete": "list", "autocomplete": "off"}.items():
        assert field.get_attribute(name) == value
    assert site.page.locator(f"#{field.get_attribute('aria-controls')}").get_attribute("role") == "listbox"
    assert site.asked == []


def test_arrows_wrap_through_the_text_and_enter_accepts(site: Site) -> None:
    field = site.open()
    site.page.evaluate("""() => {
        window.seen = [];
        for (const type of ["input", "change", "mariana-select"])
            document.addEventListener(type, (e) => seen.push([type, e.detail?.payload?.n]));
    }""")
    field.fill("sa")
    site.wait_open()
    assert site.active is None
    walked = []
    for _ in range(len(NAMES) + 2):
        field.press("ArrowDown")
        walked.append(site.active)
    assert walked == [*NAMES, None, NAMES[0]]
    field.press("ArrowUp")
    assert site.active is None
    field.press("ArrowUp")
    assert site.active == NAMES[-1]
    assert field.input_value() == "sa", "selection is manual: moving does not write"
    site.page.evaluate("seen.length = 0")
    field.press("Enter")
    site.wait_closed()
    assert field.input_value() == "Saigon"
    assert site.page.url == f"{ORIGIN}/", "Enter on a suggestion does not submit"
    assert site.page.evaluate("seen") == [["mariana-select", "Saigon"], ["input", None], ["change", None]]
    assert site.asked == ["sa"], "accepting asks nothing"


def test_select_can_be_prevented(site: Site) -> None:
    field = site.open()
    site.page.evaluate("document.addEventListener('mariana-select', (e) => e.preventDefault())")
    field.fill("sa")
    site.wait_open()
    field.press("ArrowDown")
    field.press("Enter")
    assert field.input_value() == "sa"


@pytest.mark.parametrize(
    ("attribute", "path"), [("learn", "/selections"), ("learn=/told?who=me", "/told?who=me"), ("", None)]
)
def test_a_choice_is_told_once_where_asked_for(site: Site, attribute: str, path: str | None) -> None:
    told: list[tuple[str, str, object]] = []

    def note(route: "sync_api.Route") -> None:
        told.append((route.request.method, route.request.url, route.request.post_data_json))
        route.fulfill(status=403)  # which nobody minds

    for pattern in ("**/selections**", "**/told**"):
        site.page.route(pattern, note)
    field = site.open(" " + attribute)
    field.fill("sa")
    site.wait_open()
    field.press("ArrowDown")
    with site.page.expect_request(f"**{path}") if path else contextlib.nullcontext():
        field.press("Enter")
    site.wait_closed()
    assert field.input_value() == "San Diego"
    expected = [("POST", f"{ORIGIN}{path}", {"query": "sa", "text": "San Diego"})]
    assert told == (expected if path else [])


def test_enter_without_a_choice_submits_the_form(site: Site) -> None:
    field = site.open()
    field.fill("sa")
    site.wait_open()
    with site.page.expect_navigation(url="**/found?city=sa"):
        field.press("Enter")


def test_escape_closes_then_clears(site: Site) -> None:
    field = site.open()
    field.fill("sa")
    site.wait_open()
    field.press("Escape")
    site.wait_closed()
    assert field.input_value() == "sa"
    field.press("Escape")
    assert field.input_value() == ""


def test_alt_arrows_open_and_close_without_moving(site: Site) -> None:
    field = site.open()
    field.fill("sa")
    site.wait_open()
    field.press("Alt+ArrowUp")
    site.wait_closed()
    field.press("Alt+ArrowDown")
    site.wait_open()
    assert site.active is None
    field.press("Alt+ArrowUp")
    field.press("ArrowDown")
    site.wait_open()
    assert site.active == NAMES[0], "Down alone opens and moves"


def test_home_and_end_move_in_the_text(site: Site) -> None:
    field = site.open()
    field.fill("sa")
    site.wait_open()
    field.press("ArrowDown")
    field.press("Home")
    assert site.active is None
    assert field.evaluate("e => e.selectionStart") == 0
    field.press("End")
    assert field.evaluate("e => e.selectionStart") == 2
    field.press("ArrowDown")
    assert field.evaluate("e => e.selectionStart") == 2, "Down leaves the caret alone"


def test_tab_closes_and_moves_without_choosing(site: Site) -> None:
    field = site.open()
    field.fill("sa")
    site.wait_open()
    field.press("ArrowDown")
    field.press("Tab")
    site.wait_closed()
    assert field.input_value() == "sa"
    assert site.page.evaluate("document.activeElement.tagName") == "BUTTON"


def test_pointer_chooses_and_the_focus_never_leaves_the_input(site: Site) -> None:
    field = site.open()
    site.page.evaluate(
        "window.blurs = 0; document.querySelector('input').addEventListener('blur', () => blurs++)"
    )
    field.press_sequentially("sa")
    site.page.get_by_role("option", name="Santiago").click()
    assert field.input_value() == "Santiago"
    assert site.page.evaluate("[blurs, document.activeElement.id]") == [0, "city"]


def test_min_length_counts_code_points_without_blanks_around(site: Site) -> None:
    field = site.open(' min-length="2"')
    field.press_sequentially(" s ")
    field.fill("😀")  # one code point, two UTF-16 units
    site.page.wait_for_timeout(50)
    assert site.asked == []
    field.fill("sa")
    site.wait_open()
    field.press("Backspace")
    site.wait_closed()
    assert site.asked == ["sa"]


def test_debounce_asks_once(site: Site) -> None:
    field = site.open(' debounce="150"')
    field.press_sequentially("saig")
    site.wait_open()
    assert site.asked == ["saig"]


def test_answers_out_of_order_end_right_and_superseded_requests_are_aborted(site: Site) -> None:
    held: list[sync_api.Route] = []
    failed: list[str] = []
    site.page.on("requestfailed", lambda request: failed.append(request.failure))

    def answer(query: str, route: "sync_api.Route") -> None:
        if query == "sa":
            route.fulfill(json=completions(["new"]))
        else:
            held.append(route)

    site.answer = answer
    field = site.open()
    field.press_sequentially("sa")
    site.wait_open()
    assert failed == ["net::ERR_ABORTED"]
    held[0].fulfill(json=completions(["old"]))
    site.page.wait_for_timeout(50)
    assert site.texts == ["new"]


def test_stale_answers_are_dropped_even_if_abort_does_nothing(site: Site) -> None:
    site.page.add_init_script("""
        window.held = {};
        window.fetch = (url) => new Promise((resolve) => held[new URL(url).searchParams.get("q")] = (text) => resolve(
            new Response(JSON.stringify({completions: [{text, score: 1, edits: 0, highlights: [], payload: null}]}))));
    """)
    field = site.open()
    field.press_sequentially("sa")
    site.page.evaluate("held.sa('new'); setTimeout(() => held.s('old'), 20)")
    site.page.wait_for_timeout(80)
    assert site.texts == ["new"]


def test_repeated_questions_come_from_the_cache(site: Site) -> None:
    field = site.open()
    for text in ("s", "sa", "s", "sa"):
        site.answer = lambda query, route: route.fulfill(json=completions([f"{query}..."]))
        field.fill(text)
        sync_api.expect(site.page.get_by_role("option")).to_have_text(f"{text}...")
    assert site.asked == ["s", "sa"]


def test_500_twice_then_recovery_by_itself(site: Site) -> None:
    def answer(_: str, route: "sync_api.Route") -> None:
        route.fulfill(status=500, body="") if len(site.asked) < 3 else route.fulfill(json=completions(NAMES))

    site.answer = answer
    field = site.open()
    field.press_sequentially("s")
    site.wait_open()
    assert site.asked == ["s"] * 3


def test_500_for_good_is_shown_and_announced_and_the_next_key_recovers(site: Site) -> None:
    site.answer = lambda _, route: route.fulfill(json=completions(NAMES))
    field = site.open()
    site.page.evaluate("window.errors = 0; document.addEventListener('mariana-error', () => errors++)")
    field.press_sequentially("s")
    site.wait_open()
    site.asked.clear()
    site.answer = lambda _, route: route.fulfill(status=500, body="")
    field.press_sequentially("a")
    message = site.page.locator(".mariana-message")
    sync_api.expect(message).to_have_text("Suggestions cannot be loaded just now")
    sync_api.expect(site.page.get_by_role("status")).to_have_text("Suggestions cannot be loaded just now")
    assert site.asked == ["sa"] * 3
    assert site.texts == [], "no stale rows"
    assert site.page.evaluate("errors") == 1
    site.answer = lambda _, route: route.fulfill(json=completions(NAMES))
    field.press_sequentially("i")
    site.wait_open()
    assert not message.is_visible()


def test_retry_after_is_honoured(site: Site) -> None:
    times: list[float] = []

    def answer(_: str, route: "sync_api.Route") -> None:
        times.append(time.monotonic())
        if len(times) == 1:
            route.fulfill(status=503, headers={"Retry-After": "1"}, body="")
        else:
            route.fulfill(json=completions(NAMES))

    site.answer = answer
    site.open().press_sequentially("s")
    site.wait_open()
    assert times[1] - times[0] >= 1


TOO_LONG = "the query has more than 256 bytes before or after folding: shorten it"
CANNOT = "Suggestions cannot be loaded just now"


@pytest.mark.parametrize(
    ("answer", "shown"),
    [
        ({"status": 422, "json": {"status": 422, "detail": TOO_LONG}}, TOO_LONG),
        ({"status": 404, "json": {"detail": "<b>no</b> index"}}, "<b>no</b> index"),
        ({"status": 403, "json": {"detail": ["not", "words"]}}, CANNOT),
        ({"status": 400, "json": None}, CANNOT),
        ({"status": 404, "body": "<h1>Not Found</h1>", "content_type": "text/html"}, CANNOT),
        ({"status": 503, "json": {"detail": "a database is down"}, "headers": {"Retry-After": "60"}}, CANNOT),
        ({"status": 429, "json": {"detail": "too many"}, "headers": {"Retry-After": "60"}}, CANNOT),
    ],
)
def test_what_the_server_refuses_is_shown_in_its_words(site: Site, answer: dict, shown: str) -> None:
    site.answer = lambda _, route: route.fulfill(**answer)
    field = site.open()
    site.page.evaluate(
        "document.addEventListener('mariana-error', (event) => (window.failed = event.detail))"
    )
    field.press_sequentially("s")
    sync_api.expect(site.page.locator(".mariana-message")).to_have_text(shown)
    sync_api.expect(site.page.get_by_role("status")).to_have_text(shown)
    assert site.asked == ["s"]
    assert site.page.evaluate("[failed.status, failed.reason]") == [
        answer["status"],
        "" if shown == CANNOT else shown,
    ]
    site.answer = lambda _, route: route.fulfill(json=completions(NAMES))
    field.press_sequentially("a")
    site.wait_open()
    assert not site.page.locator(".mariana-message").is_visible()


def test_the_words_of_a_refusal_can_be_translated(site: Site) -> None:
    site.answer = lambda _, route: route.fulfill(status=422, json={"detail": TOO_LONG})
    field = site.open()
    site.page.evaluate(
        "void (document.querySelector('mariana-autocomplete').messages.refused = (reason) => `Abgelehnt: ${reason.length}`)"
    )
    field.press_sequentially("s")
    sync_api.expect(site.page.locator(".mariana-message")).to_have_text(f"Abgelehnt: {len(TOO_LONG)}")


def test_a_client_error_is_not_retried(site: Site) -> None:
    site.answer = lambda _, route: route.fulfill(status=404, body="")
    site.open().press_sequentially("s")
    sync_api.expect(site.page.locator("mariana-autocomplete")).to_have_attribute("data-state", "error")
    assert site.asked == ["s"]


def test_a_slow_answer_shows_loading_and_empty_only_after_an_answer(site: Site) -> None:
    held: list[sync_api.Route] = []
    site.answer = lambda _, route: held.append(route)
    field = site.open()
    field.press_sequentially("zz")
    sync_api.expect(site.page.locator(".mariana-message")).to_have_text("Loading suggestions…")
    assert field.get_attribute("aria-expanded") == "false"
    held[-1].fulfill(json=completions([]))
    sync_api.expect(site.page.locator(".mariana-message")).to_have_text("No suggestions")
    sync_api.expect(site.page.get_by_role("status")).to_have_text("No suggestions")


def test_the_count_is_announced(site: Site) -> None:
    site.open().press_sequentially("sa")
    sync_api.expect(site.page.get_by_role("status")).to_have_text("5 suggestions")


def test_nothing_is_asked_inside_a_composition(site: Site) -> None:
    field = site.open()
    session = site.page.context.new_cdp_session(site.page)
    for text in ("か", "かn", "かな", "かなz"):
        session.send(
            "Input.imeSetComposition", {"text": text, "selectionStart": len(text), "selectionEnd": len(text)}
        )
    site.page.wait_for_timeout(50)
    assert site.asked == []
    session.send("Input.insertText", {"text": "神奈"})
    site.wait_open()
    assert field.input_value() == "神奈"
    assert site.asked == ["神奈"]


def test_keyboards_that_compose_every_word_get_suggestions_too(chromium: "sync_api.Browser") -> None:
    context = chromium.new_context(user_agent="Mozilla/5.0 (Linux; Android 15) Chrome/150 Mobile")
    site = Site(context.new_page())
    field = site.open()
    session = context.new_cdp_session(site.page)
    session.send("Input.imeSetComposition", {"text": "sa", "selectionStart": 2, "selectionEnd": 2})
    site.wait_open()
    site.page.get_by_role("option", name="Saigon").click()
    site.page.wait_for_timeout(50)
    assert (site.asked, field.input_value(), site.texts) == (["sa"], "Saigon", [])
    session.send("Input.imeSetComposition", {"text": "か", "selectionStart": 1, "selectionEnd": 1})
    site.page.wait_for_timeout(50)
    assert site.asked == ["sa"]
    context.close()
    assert site.violations == []


def test_a_choice_made_while_an_answer_is_under_way_stays(site: Site) -> None:
    field = site.open()
    field.press_sequentially("s")
    site.wait_open()
    held = []
    site.answer = lambda _, route: held.append(route)
    field.press_sequentially("a")
    assert site.active is None
    field.press("ArrowDown")
    field.press("ArrowDown")
    while not held:
        site.page.wait_for_timeout(5)
    held[0].fulfill(json=completions(["Sana", *NAMES[1:]]))
    sync_api.expect(site.page.get_by_role("option").first).to_have_text("Sana")
    assert site.active == "San José"
    field.press("Enter")
    assert field.input_value() == "San José"


def test_typing_takes_the_mark_off_even_when_the_answer_is_known(site: Site) -> None:
    field = site.open()
    for text in ("s", "sa", "s"):
        field.fill(text)
        site.wait_open()
    sync_api.expect(site.page.locator("[aria-busy=false] [role=option]")).to_have_count(len(NAMES))
    field.press("ArrowDown")
    field.press_sequentially("a")
    assert site.active is None


def test_another_src_takes_the_old_rows_away(site: Site) -> None:
    site.open().fill("sa")
    site.wait_open()
    site.page.evaluate("document.querySelector('mariana-autocomplete').src = '/complete?fuzzy=0&context=eu'")
    site.wait_closed()
    assert site.texts == []


def test_a_removed_element_leaves_a_plain_input(site: Site) -> None:
    site.open()
    left = site.page.evaluate("""() => {
        const element = document.querySelector("mariana-autocomplete");
        element.remove();
        return element.innerHTML;
    }""")
    assert "aria-" not in left
    assert "role" not in left


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(site: Site, scheme: str) -> None:
    found = importlib.util.find_spec("axe_playwright_python")
    if found is None:
        pytest.skip("axe-playwright-python is not installed")
    axe = Path(found.origin).with_name("axe.min.js").read_text()
    site.page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    field = site.open()
    site.page.evaluate("document.documentElement.style.colorScheme = 'light dark'")
    site.answer = lambda q, route: route.fulfill(json=completions([] if q == "sx" else NAMES))
    site.page.evaluate(axe)
    for step in ("closed", "open", "active", "empty"):
        if step == "open":
            field.fill("sa")
            site.wait_open()
        elif step == "active":
            field.press("ArrowDown")
        elif step == "empty":
            field.fill("sx")
            sync_api.expect(site.page.locator("mariana-autocomplete")).to_have_attribute(
                "data-state", "empty"
            )
        wrong = site.page.evaluate("axe.run('mariana-autocomplete')")["violations"]
        assert [(v["id"], v["nodes"][0]["html"]) for v in wrong] == [], step


def test_keys_of_the_input_method_are_left_alone(site: Site) -> None:
    field = site.open()
    field.fill("sa")
    site.wait_open()
    field.press("ArrowDown")
    for extra in ({"isComposing": True}, {"keyCode": 229}):
        prevented = field.evaluate(
            """(e, extra) => !e.dispatchEvent(
                new KeyboardEvent("keydown", {key: "Enter", bubbles: true, cancelable: true, ...extra}))""",
            extra,
        )
        assert not prevented
    assert field.input_value() == "sa"
    assert site.active == NAMES[0]


@pytest.mark.parametrize(
    ("text", "ranges", "marked"),
    [
        ("São Paulo", [[0, 2]], ["Sã"]),
        ("Sa\u0303o", [[0, 3]], ["Sa\u0303"]),  # a combining tilde is a code point of its own
        ("🏖️ 🦑 aigon", [[3, 6]], ["🦑 a"]),  # beyond the BMP: two UTF-16 units, one code point
        ("<b>San</b>", [[0, 3], [6, 10]], ["<b>", "</b>"]),
        ("Sa", [], []),
    ],
)
def test_highlights_count_code_points(
    site: Site, text: str, ranges: list[list[int]], marked: list[str]
) -> None:
    body = completions([text])
    body["completions"][0]["highlights"] = ranges
    site.answer = lambda _, route: route.fulfill(body=json.dumps(body), content_type="application/json")
    site.open().press_sequentially("s")
    site.wait_open()
    assert site.texts == [text]
    assert site.page.locator("[role=option] mark").all_text_contents() == marked


def test_an_input_that_comes_later_and_a_removed_element(site: Site) -> None:
    site.open()
    site.page.evaluate("""() => {
        const element = document.querySelector("mariana-autocomplete");
        const input = element.querySelector("input");
        input.remove();
        element.remove();
        document.forms[0].append(element);
        setTimeout(() => element.append(input), 10);
    }""")
    sync_api.expect(site.page.locator("#city")).to_have_attribute("aria-expanded", "false")
    site.page.wait_for_timeout(30)
    site.page.locator("#city").press_sequentially("s")
    sync_api.expect(site.page.get_by_role("option")).to_have_count(len(NAMES))
    assert site.page.locator("[role=listbox]").count() == 1


def test_the_list_follows_the_writing_direction(site: Site) -> None:
    site.open()
    site.page.evaluate("document.dir = 'rtl'")
    site.input.press_sequentially("s")
    site.wait_open()
    panel, element = (site.page.locator(s).bounding_box() for s in (".mariana-panel", "mariana-autocomplete"))
    assert panel["x"] == pytest.approx(element["x"], abs=1)
    assert site.page.locator(".mariana-panel").evaluate("e => getComputedStyle(e).textAlign") == "start"


def test_the_module_is_small() -> None:
    assert len(gzip.compress(WIDGET.read_bytes(), 9)) < 6_600, "comments included"
