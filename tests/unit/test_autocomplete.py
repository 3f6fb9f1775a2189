"""Building and opening indexes from Python, and what is refused."""

import gc
import itertools
import json
import os
import pickle
import random
import threading
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import mariana
from mariana import (
    Answers,
    Completion,
    FileFormatError,
    InvalidInputError,
    NotFoundError,
    StoreError,
    reference,
)
from mariana.autocomplete import QUERY_MAX, Fuzzy
from mariana.cli import cli
from mariana.errors import OutOfRangeError

ENTRIES = [
    ("Saigon", 14002598),
    {"text": "São Paulo", "score": 12400232.0, "payload": {"country": "BR", "names": ["Sampa", None, 1.5]}},
    {"text": "sai"},
    ("Đà Nẵng", 0.125),
]


@pytest.fixture
def index(tmp_path: Path) -> mariana.Index:
    return mariana.open_index(mariana.build_index(tmp_path / "places", ENTRIES))


def texts(index: mariana.Index, prefix: str, **options: object) -> list[str]:
    return [completion.text for completion in index.complete(prefix, **options)]  # type: ignore[arg-type]


def test_completions_carry_everything(index: mariana.Index) -> None:
    assert index.complete("SÃO") == [
        Completion(
            text="São Paulo",
            score=12400232.0,
            edits=0,
            highlights=((0, 3),),
            payload={"country": "BR", "names": ["Sampa", None, 1.5]},
        )
    ]
    assert index.complete("da nang") == [Completion("Đà Nẵng", 0.125, 0, ((0, 7),), None)]
    assert index.complete("sai")[1].score == 1, "the score of an entry without one"


def test_best_first_and_at_most_the_limit(index: mariana.Index) -> None:
    assert texts(index, "sa") == ["Saigon", "São Paulo", "sai"]
    assert texts(index, "sa", limit=2) == ["Saigon", "São Paulo"]
    assert texts(index, "") == ["Saigon", "São Paulo", "sai", "Đà Nẵng"]
    assert index.complete("")[0].highlights == ()
    assert texts(index, "   ") == texts(index, "")
    assert texts(index, "x") == texts(index, "saigonx", fuzzy=0) == []


def test_what_the_index_says_of_itself(index: mariana.Index) -> None:
    assert len(index) == index.info.entries == 4
    assert index.nbytes == index.info.bytes == index.info.path.stat().st_size
    assert index.info.path.name == "segment-00000001.mrx"
    assert "4 entries" in repr(index)


@pytest.mark.parametrize(
    ("score", "expected"),
    [(0, 0.0), (-0.0, 0.0), (2**53, 2.0**53), (2**53 - 1, 2.0**53 - 1), (1e308, 1e308), (5e-324, 5e-324), (0.1, 0.1),
     (np.float32(0.5), 0.5), (np.int64(7), 7.0), (True, None), ("3", None), (None, None), (float("nan"), None),
     (float("inf"), None), (-1, None), (10**400, None), (1j, None)],
)  # fmt: skip
def test_scores(tmp_path: Path, score: object, expected: float | None) -> None:
    entries = [("a", 1), ("b", score)]
    if expected is None:
        with pytest.raises(InvalidInputError, match="score") as caught:
            mariana.build_index(tmp_path / "x", entries)  # type: ignore[arg-type]
        assert caught.value.pointer.startswith("/1")
        assert not (tmp_path / "x").exists()
    else:
        mariana.build_index(tmp_path / "x", entries)  # type: ignore[arg-type]
        found = mariana.open_index(tmp_path / "x").complete("b")[0].score
        assert (found, str(found)) == (expected, str(expected))


@pytest.mark.parametrize(
    "entry",
    [
        "ab",
        ("a",),
        ("a", 1, 2),
        None,
        7,
        (b"a", 1),
        (1, 1),
        ("", 1),
        (" ", 1),
        ("\u0301", 1),
        ("a\0b", 1),
        ("a\nb", 1),
        ("a\ud800", 1),
        ("a\u202eb", 1),
        ("a" * 1025, 1),
        ("\ufdfa" * 32, 1),
        {"score": 1},
        {"text": None},
        {"text": "a", "weight": 1},
        {"text": "a", "contexts": ["x", 1]},
        {"text": "a", "contexts": [""]},
        {"text": "a", "contexts": 3},
        {"text": "a", "contexts": [str(i) for i in range(65)]},
        {"text": "a", "payload": {1, 2}},
        {"text": "a", "payload": float("nan")},
        {"text": "a", "payload": "\ud800"},
        {"text": "a", "payload": json.loads("[" * 300 + "]" * 300)},
        {"text": "a", "payload": "x" * 70_000},
    ],
)
def test_entries_that_are_refused(tmp_path: Path, entry: object) -> None:
    with pytest.raises(InvalidInputError) as caught:
        mariana.build_index(tmp_path / "x", [("fine", 1), entry])  # type: ignore[list-item]
    assert caught.value.pointer.startswith("/1")
    assert len(str(caught.value).splitlines()) == 1
    assert not (tmp_path / "x").exists()
    refused: list[int] = []
    report = mariana.build_index(
        tmp_path / "x",
        [("fine", 1), entry, ("too", 1)],
        on_invalid=lambda at, _: refused.append(at),  # type: ignore[list-item]
    )
    assert (report.entries, report.skipped, refused) == (2, 1, [1])


def test_the_first_entry_that_is_refused_is_named(tmp_path: Path) -> None:
    """Texts are looked at when all are there, fields before; what is not read is not looked at."""
    rest = iter([("fine", 1)] * 10_000)
    entries = [("fine", 1), ("a\0", 1), {"text": 3}, InvalidInputError("not read"), *[("fine", 1)] * 2000]
    with pytest.raises(InvalidInputError, match="entry 1: the text is not UTF-8") as caught:
        mariana.build_index(tmp_path / "x", itertools.chain(entries, rest))
    assert caught.value.faults == ((caught.value.pointer, str(caught.value).partition(": ")[2]),)
    assert len(list(rest)) > 8000
    with pytest.raises(InvalidInputError, match="entry 0: not read"):
        mariana.build_index(tmp_path / "x", entries[3:])


@pytest.mark.parametrize("path", [None, 5, b"x", ["x"]])
def test_paths_that_are_none(path: object) -> None:
    for opened in (mariana.open_index, mariana.load_model):
        with pytest.raises(
            InvalidInputError, match=f"path must be a string or a path, got {type(path).__name__}"
        ):
            opened(path)  # type: ignore[operator]
    with pytest.raises(NotFoundError, match="no index at"):
        mariana.open_index("a\0b")


def test_what_was_cut_short_says_so(tmp_path: Path) -> None:
    """Two errors among 200,000 texts without any likeness cannot all be looked for."""
    letters = random.Random(1)
    names = sorted({"".join(letters.choices("abcdefghijklmnop", k=12)) for _ in range(200_000)})
    mariana.build_index(tmp_path / "x", [(name, letters.random()) for name in names])
    cut: dict[bool, str] = {}
    with mariana.open_index(tmp_path / "x") as index:
        for query in ("b", "abcdefgh", "hgfedcba", "bbbbbbbb", "nothing like it"):
            for asked in ({}, {"prefer": "none"}):  # the second not through the quick extension
                partial = json.loads(index.complete_json(query, **asked)).get("partial", False)
                answers = index.complete(query, **asked)
                assert type(answers) is Answers
                assert answers.partial is index.explain(query, **asked).partial is partial
            cut[index.complete(query).partial] = query
    for options in ([], ["--explain"]):
        for partial, query in cut.items():
            said = CliRunner().invoke(cli, ["complete", str(tmp_path / "x"), query, *options])
            assert said.exit_code == 0
            assert ("may be missing" in said.stderr) is partial
            said = CliRunner().invoke(cli, ["complete", str(tmp_path / "x"), query, "--json", *options])
            assert json.loads(said.stdout).get("partial", False) is partial
            assert said.stderr == ""
    assert len(cut) == 2


def test_answers_are_a_list(index: mariana.Index) -> None:
    answers = index.complete("sai")
    assert answers == list(answers) == pickle.loads(pickle.dumps(answers))
    assert repr(answers) == repr(list(answers))
    assert not answers.partial


@pytest.mark.parametrize("names", [5, [b"city"], [None], [["city"]], ["city"] * 65, object()])
def test_contexts_that_are_no_names(tmp_path: Path, names: object) -> None:
    index = mariana.open_index(mariana.build_index(tmp_path, [("Saigon", 1)]))
    for complete in (index.complete, index.complete_json, index.explain):
        for asked in ({"context": names}, {"prefer": names}):
            with pytest.raises(InvalidInputError, match="names: strings, 64 at most"):
                complete("s", **asked)  # type: ignore[operator]


@pytest.mark.parametrize("name", ["", "ci\nty", "city\n", "\ncity", "c", "city" * 17, "\ud800", "City"])
def test_a_context_that_no_entry_has_finds_nothing(tmp_path: Path, name: str) -> None:
    index = mariana.open_index(mariana.build_index(tmp_path, [{"text": "Saigon", "contexts": ["city"]}]))
    assert index.complete("s", context=name) == []
    assert len(index.complete("s", context=["city", name])) == 1


def test_the_longest_text_is_found(tmp_path: Path) -> None:
    long = "é" * 512
    index = mariana.open_index(mariana.build_index(tmp_path, [(long, 1), ("é" * 511, 1), ("x" * 1024, 0)]))
    assert texts(index, "e" * QUERY_MAX) == ["é" * 511, long]
    assert index.complete("é" * 100)[0].highlights == ((0, 100),)


def test_a_text_that_comes_twice_keeps_its_highest_score(tmp_path: Path) -> None:
    entries = [
        {"text": "a", "score": 1, "payload": 1},
        {"text": "a", "score": 3, "payload": 3},
        {"text": "a", "score": 3, "payload": 4},
        {"text": "A", "score": 2},
    ]
    report = mariana.build_index(tmp_path, entries)
    assert (report.entries, report.merged, report.skipped) == (2, 2, 0)
    found = mariana.open_index(tmp_path).complete("a")
    assert [(c.text, c.score, c.payload) for c in found] == [("a", 3, 3), ("A", 2, None)]


def test_many_texts_with_one_key(tmp_path: Path) -> None:
    variants = ["a" + "\u0301" * (n % 300) + "b" + "\u0308" * (n // 300) for n in range(20_000)]
    index = mariana.open_index(mariana.build_index(tmp_path, ((text, n) for n, text in enumerate(variants))))
    assert len(index) == 20_000
    assert texts(index, "ab", limit=3) == variants[:-4:-1]
    assert texts(index, "abc") == []


def test_a_segment_of_more_than_16_mib(tmp_path: Path) -> None:
    entries = [(f"{n % 7}{n}", n % 50) for n in range(300)]
    mariana.build_index(tmp_path, ({"text": t, "score": s, "payload": t * 16_000} for t, s in entries))
    index = mariana.open_index(tmp_path)
    assert index.nbytes > 1 << 24, "its places take 4 bytes"
    for prefix in ("", "3", "12", "299"):
        for limit in (1, 100):
            found = index.complete(prefix, limit)
            assert [(c.text, c.score) for c in found] == reference.complete(entries, prefix, limit)
    assert index.complete("4298")[0].payload == "4298" * 16_000


def test_an_empty_index_answers_nothing(tmp_path: Path) -> None:
    index = mariana.open_index(mariana.build_index(tmp_path, []))
    assert len(index) == 0
    assert index.complete("") == index.complete("a") == []


def test_the_same_entries_give_the_same_bytes(tmp_path: Path) -> None:
    one = mariana.open_index(mariana.build_index(tmp_path / "1", ENTRIES)).info.path.read_bytes()
    two = mariana.open_index(mariana.build_index(tmp_path / "2", reversed(ENTRIES))).info.path.read_bytes()
    assert one == two


# ---- Queries ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "prefix",
    ["\ud800", "sa\0i", "sa\n", "\x7f", "\u200fsa", "\u202esa", "\u2066", "a" + "\u0301" * 10_000, "a" * 257,
     "\ufdfa" * 40, "é" * 129, "x" * 10_000_000, b"sai", None, 3],
)  # fmt: skip
def test_queries_that_are_refused(index: mariana.Index, prefix: object) -> None:
    with pytest.raises(InvalidInputError) as caught:
        index.complete(prefix)  # type: ignore[arg-type]
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    "prefix", ["a" * 256, "é" * 128, "\u0301", "sa\u0301i", "東京", "👩‍👩‍👧", "\ufdfa", "\U0010ffff", "'\"\\"]
)
def test_queries_that_are_unusual_but_fine(index: mariana.Index, prefix: str) -> None:
    index.complete(prefix)


@pytest.mark.parametrize(("limit", "error"), [(0, OutOfRangeError), (101, OutOfRangeError), (-1, OutOfRangeError),
                                              (10**30, OutOfRangeError), (True, InvalidInputError),
                                              (1.0, InvalidInputError), ("1", InvalidInputError)])  # fmt: skip
def test_limits_that_are_refused(index: mariana.Index, limit: object, error: type[Exception]) -> None:
    with pytest.raises(error, match="limit"):
        index.complete("a", limit)  # type: ignore[arg-type]


@pytest.mark.parametrize("fuzzy", [3, -1, None, "0", True, 0.0, "Auto"])
def test_fuzzy_that_there_is_not(index: mariana.Index, fuzzy: object) -> None:
    with pytest.raises(InvalidInputError, match="fuzzy"):
        index.complete("a", fuzzy=fuzzy)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("prefix", "fuzzy", "found"),
    [
        ("xyzt", "auto", {}),
        ("Đà Nang", "auto", {"Đà Nẵng": (0, 7)}),
        ("Da Nnag", "auto", {"Đà Nẵng": (1, 7)}),
        ("DaNang", "auto", {"Đà Nẵng": (1, 7)}),
        ("Ga Nang", "auto", {"Đà Nẵng": (1, 7)}),
        ("Daa Nagn", 1, {}),
        ("Daa Nagn", 2, {"Đà Nẵng": (2, 6)}),
        ("Daa Nagn", "auto", {"Đà Nẵng": (2, 6)}),
        ("Ga", "auto", {}),
        ("Ga", 1, {"Đà Nẵng": (1, 2), "東京": (2, 0)}),
        ("北京", 1, {"Đà Nẵng": (2, 0), "東京": (1, 2)}),
    ],
)
def test_typing_errors(tmp_path: Path, prefix: str, fuzzy: Fuzzy, found: dict[str, tuple[int, int]]) -> None:
    with mariana.open_index(mariana.build_index(tmp_path, [("Đà Nẵng", 3), ("東京", 2)])) as index:
        got = {
            c.text: (c.edits, c.highlights[0][1] if c.highlights else 0)
            for c in index.complete(prefix, fuzzy=fuzzy)
        }
    allowed = 2 if fuzzy == "auto" else fuzzy
    assert got == {text: answer for text, answer in found.items() if answer[0] <= allowed}


def test_a_typing_error_costs_a_factor_of_1024_in_rank(tmp_path: Path) -> None:
    texts = ["paigon0", "paigon1", *(f"filler{i}" for i in range(990)), *(f"saigon{i}" for i in range(80))]
    entries = [(text, 2000 - rank) for rank, text in enumerate(texts)]
    with mariana.open_index(mariana.build_index(tmp_path, entries)) as index:
        found = [c.text for c in index.complete("saigon", limit=100)]
    assert sorted(found) == sorted(text for text in texts if "aigon" in text), "nothing is hidden"
    assert found[:2] == ["saigon0", "saigon1"]
    assert found.index("paigon0") == 1024 - 992 - 1, "between ranks of 1,023 and 1,024, counted from 1"
    assert found[-1] == "paigon1", "its effective rank is 2,048"


def test_fuzzy_auto_and_0_mean_the_same_for_short_prefixes(index: mariana.Index) -> None:
    assert index.complete("sa", fuzzy="auto") == index.complete("sa", fuzzy=0) == index.complete("sa")


def test_marks_after_the_prefix_are_highlighted_with_their_letter(tmp_path: Path) -> None:
    index = mariana.open_index(
        mariana.build_index(tmp_path, [("e\u0301te\u0301", 1), ("ßen", 2), ("S  T", 3)])
    )
    assert index.complete("e")[0].highlights == ((0, 2),)
    assert index.complete("ete")[0].highlights == ((0, 5),)
    assert index.complete("s")[1].highlights == ((0, 1),)
    assert index.complete("sse")[0].highlights == ((0, 2),)
    assert index.complete("s t")[0].highlights == ((0, 4),)


# ---- Files --------------------------------------------------------------------------------------------------


def test_a_rebuild_replaces_the_index_and_spares_its_readers(tmp_path: Path) -> None:
    folder = tmp_path / "index"
    mariana.build_index(folder, [("old", 1)])
    (folder / "notes").write_text("not ours to remove")
    reader = mariana.open_index(folder)
    mariana.build_index(folder, [("new", 1)])
    assert sorted(path.name for path in folder.iterdir()) == ["notes", "segment-00000002.mrx"]
    assert texts(reader, "") == ["old"]
    assert texts(mariana.open_index(folder), "") == ["new"]


def test_one_segment_opens_by_its_path(tmp_path: Path) -> None:
    mariana.build_index(tmp_path, ENTRIES)
    assert len(mariana.open_index(str(tmp_path / "segment-00000001.mrx"))) == 4


def test_closing(tmp_path: Path) -> None:
    with mariana.open_index(mariana.build_index(tmp_path, ENTRIES)) as index:
        pass
    index.close()
    with pytest.raises(InvalidInputError, match="closed"):
        index.complete("a")
    gc.collect()
    assert str(tmp_path) not in Path("/proc/self/maps").read_text()


def test_many_threads_share_an_index(index: mariana.Index) -> None:
    expected = {prefix: index.complete(prefix) for prefix in ("", "s", "sa", "sai", "d")}
    wrong: list[str] = []

    def work() -> None:
        for _ in range(300):
            wrong.extend(prefix for prefix, answer in expected.items() if index.complete(prefix) != answer)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_places_without_an_index(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nothing", tmp_path / "nothing.mrx"):
        with pytest.raises(NotFoundError, match=str(path)):
            mariana.open_index(path)


def test_files_that_are_no_segment(tmp_path: Path) -> None:
    good = mariana.open_index(mariana.build_index(tmp_path / "good", ENTRIES)).info.path.read_bytes()
    os.mkfifo(tmp_path / "fifo.mrx")
    (tmp_path / "folder.mrx").mkdir()
    (tmp_path / "empty.mrx").touch()
    (tmp_path / "text.mrx").write_text("Saigon\n" * 100)
    (tmp_path / "cut.mrx").write_bytes(good[:-1])
    (tmp_path / "more.mrx").write_bytes(good + b"\0")
    (tmp_path / "newer.mrx").write_bytes(good[:8] + b"\3" + good[9:])
    for name, size in (("sparse", 1 << 30), ("huge", 1 << 40)):
        with (tmp_path / f"{name}.mrx").open("wb") as file:
            file.write(good)
            file.truncate(size)
    for path in tmp_path.glob("*.mrx"):
        error: type[Exception] = NotFoundError if path.name == "folder.mrx" else FileFormatError
        with pytest.raises(error, match=path.name) as caught:
            mariana.open_index(path)
        assert len(str(caught.value).splitlines()) == 1
    with pytest.raises(FileFormatError, match=r"newer than this library knows.*reads format 2"):
        mariana.open_index(tmp_path / "newer.mrx")
    with pytest.raises(FileFormatError, match="regular file"):
        mariana.open_index("/dev/zero")


def test_a_payload_that_is_not_json_is_said() -> None:
    from mariana._binding import build

    _, verdicts = build.build_segment([b"a"], [1.0], [b"{"])
    assert "payload is not JSON" in build.verdict_message(int(verdicts[0]))


def test_a_store_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="file"):
        mariana.build_index(tmp_path / "file" / "index", ENTRIES)
    with pytest.raises(StoreError):
        mariana.build_index(tmp_path / "file", ENTRIES)


def test_a_path_that_is_too_long(tmp_path: Path) -> None:
    for use in (mariana.open_index, lambda path: mariana.build_index(path, ENTRIES)):
        with pytest.raises(StoreError, match="too long"):
            use(tmp_path / ("x" * 5000))


def test_builders_at_once_publish_one_after_the_other(tmp_path: Path) -> None:
    def work(name: str) -> None:
        for _ in range(10):
            mariana.build_index(tmp_path, [(name, 1)])
            assert len(mariana.open_index(tmp_path)) == 1

    threads = [threading.Thread(target=work, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [path.name for path in tmp_path.iterdir()] == ["segment-00000030.mrx"]


def test_nothing_is_left_when_the_entries_fail(tmp_path: Path) -> None:
    def entries() -> object:
        yield ("a", 1)
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        mariana.build_index(tmp_path / "x", entries())  # type: ignore[arg-type]
    assert not (tmp_path / "x").exists()


def test_payloads_come_back_as_given(tmp_path: Path) -> None:
    nested = json.loads("[" * 200 + "]" * 200)
    values = [
        nested,
        0,
        -1.5,
        True,
        False,
        "",
        "ü\u2028",
        [],
        {},
        {"a": [1, {"b": None}]},
        2**70,
        "x" * 60_000,
    ]
    mariana.build_index(tmp_path, ({"text": f"k{n:02}", "payload": v} for n, v in enumerate(values)))
    found = {c.text: c.payload for c in mariana.open_index(tmp_path).complete("k", limit=100)}
    assert json.dumps([found[f"k{n:02}"] for n in range(len(values))]) == json.dumps(values)


def test_a_space_at_the_end_counts_in_queries_only(tmp_path: Path) -> None:
    """A typed space says that the word is whole; one behind a text says nothing."""
    entries = [("New York ", 2), ("Newark", 1), ("a\N{GRINNING FACE}b", 1)]
    with mariana.open_index(mariana.build_index(tmp_path / "towns", entries)) as index:
        found = {
            query: [completion.text for completion in index.complete(query, fuzzy=0)]
            for query in ("new ", "new york", "new york ", "york ", "b")
        }
    assert found == {
        "new ": ["New York "],
        "new york": ["New York "],
        "new york ": ["New York "],
        "york ": ["New York "],
        "b": [],  # an emoji parts no words
    }
