"""The quick completions of ``mariana._calls`` beside the binding by cffi: the same answers, the same errors; nothing is left behind."""

from __future__ import annotations

import gc
import json
import sys
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mariana
from mariana._binding import build, calls, trie
from mariana.autocomplete import Answers, Completion, Index
from mariana.errors import FileFormatError, InvalidInputError, MarianaError

pytestmark = pytest.mark.skipif(calls is None, reason="the extension for quick calls is not built here")

ENTRIES: list[dict[str, Any]] = [
    {"text": "Hanoi", "score": 8_000_000, "payload": {"country": "VN", "at": [21.0, 105.8]}},
    {"text": "Hải Phòng", "score": 2_000_000, "payload": None, "id": "hp"},
    {"text": "Haiphong", "score": 1_500_000, "payload": "old", "id": "hp"},
    {"text": "Hamburg", "score": 1_800_000.5, "id": "hh"},
    {"text": "New Haven", "score": 130_000},
    {"text": "Düsseldorf", "score": 600_000, "contexts": ["de"]},
    {"text": "東京", "score": 9e6, "payload": [1, [2, {"3": None}]]},
    {"text": 'quote " and \\', "score": 0},
    *({"text": f"hall {i:03}", "score": i} for i in range(150)),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("calls") / "index"
    mariana.build_index(path, ENTRIES)
    return path


def _by_cffi(index: Index) -> Index:
    index._opened().reader.quick = trie._Declines()
    return index


@pytest.fixture(scope="module")
def both(folder: Path) -> Iterator[tuple[Index, Index]]:
    """The index, and the same one without the extension."""
    with mariana.open_index(folder) as one, mariana.open_index(folder) as other:
        yield one, _by_cffi(other)


def _outcome(call: Callable[[], Any]) -> object:
    try:
        return call()
    except (MarianaError, TypeError, ValueError) as error:
        return type(error), str(error)


class Text(str):
    __slots__ = ()


QUERIES = st.one_of(
    st.sampled_from(
        ["", "h", "ha", "hai", "hamb", "hamburg", "hambrug", "hm", "new h", "haven n", "東", "ü", "hall"]
    ),
    st.text("ha nouiö\u0301東\x00\n\u202e\ud800🏙", max_size=12),
    st.sampled_from(["h" * 256, "h" * 257, "ö" * 128, "ö" * 129, "ﷺ" * 40, "h" * 100_000, "\ud83d"]),
    st.sampled_from([Text("ha"), b"ha", None, 3, ["ha"]]),
)
LIMITS = st.one_of(
    st.integers(1, 100),
    st.sampled_from(
        [0, -1, 101, 2**31, 2**32, 2**32 + 5, 2**64, -(2**70), True, 2.0, "5", None, np.int64(5)]
    ),
)
FUZZY = st.sampled_from(
    ["auto", 0, 1, 2, 3, -1, True, False, 1.0, "AUTO", "1", None, Text("auto"), b"auto", [1], 2**70]
)


METHODS = st.sampled_from(["complete", "complete_json"])


@given(query=QUERIES, limit=LIMITS, fuzzy=FUZZY, method=METHODS)
def test_every_query_gives_the_same_either_way(
    both: tuple[Index, Index], query: Any, limit: Any, fuzzy: Any, method: str
) -> None:
    quick, slow = (_outcome(lambda i=i: getattr(i, method)(query, limit, fuzzy)) for i in both)
    assert quick == slow
    assert repr(quick) == repr(slow), "types too"


@given(
    query=QUERIES,
    context=st.sampled_from(["de", [], ("de",), ["no"], 3, [3], ["x"] * 65]),
    name=st.sampled_from(["context", "prefer"]),
    method=METHODS,
)
def test_contexts_give_the_same_either_way(
    both: tuple[Index, Index], query: Any, context: Any, name: str, method: str
) -> None:
    quick, slow = (_outcome(lambda i=i: getattr(i, method)(query, 10, **{name: context})) for i in both)
    assert quick == slow


def test_ordinary_queries_go_the_quick_way_and_no_others(both: tuple[Index, Index]) -> None:
    quick = both[0]._opened().reader.quick
    for query in ("", "ha", "東京", "hambrug"):
        for fuzzy in ("auto", 0, 1, 2):
            assert quick.json(query, 10, fuzzy) is not None
    for other in (
        ("ha", 0, 0),
        ("ha", 10, 3),
        ("ha", 10, True),
        (b"ha", 10, 0),
        (Text("ha"), 10, 0),
        ("\ud800", 10, 0),
    ):
        assert quick.json(*other) is None
        assert quick.complete(*other, Completion, json.loads, Answers) is None


def test_answers_are_what_they_seem(both: tuple[Index, Index]) -> None:
    found = both[0].complete("ha", 100)
    assert len(found) == 100
    for one in found:
        assert type(one) is Completion
        assert one == Completion(*one)
        assert hash(one[:3]) == hash(tuple(one[:3]))
        assert one._replace(edits=0).text == one.text
    assert json.loads(both[0].complete_json("ha", 100))["completions"][0]["text"] == found[0].text
    bare = both[0].complete("hall 001")[0]
    assert hash(bare) == hash(tuple(bare)), "a tuple that was made in another way may hash to anything"


def test_answers_that_need_much_room(tmp_path: Path) -> None:
    """Control characters in the payload become six bytes each in nobody's JSON, but 65,536 bytes a hundred times take some."""
    payload = "x" * 65_000
    mariana.build_index(
        tmp_path / "i", [{"text": f"a{i}", "score": i, "payload": payload} for i in range(100)]
    )
    index = mariana.open_index(tmp_path / "i")
    quick = index.complete_json("a", 100), index.complete("a", 100)
    slow = _by_cffi(index).complete_json("a", 100), index.complete("a", 100)
    assert quick == slow
    assert len(quick[0]) > 6_500_000


def test_a_payload_that_is_not_json_is_named_either_way(tmp_path: Path) -> None:
    file, _ = build.build_segment([b"abc"], [1.0], [b"9" * 5000])  # more digits than Python reads
    path = tmp_path / "broken.mrx"
    path.write_bytes(file)
    index = mariana.open_index(path)
    outcomes = [_outcome(lambda: index.complete("a")), _outcome(lambda: _by_cffi(index).complete("a"))]
    assert (
        outcomes[0]
        == outcomes[1]
        == (
            FileFormatError,
            f"{path}: a payload is not JSON; build the index again",
        )
    )


def test_a_call_within_a_call(both: tuple[Index, Index]) -> None:
    """As a collector may make while the objects are made."""
    quick = both[0]._opened().reader.quick
    expected = both[1].complete("ha", 20)
    depth = 0

    def payload(raw: bytes) -> object:
        nonlocal depth
        if depth < 20:
            depth += 1
            assert quick.complete("ha", 20, "auto", Completion, payload, Answers) == expected
            assert quick.json("東", 5, 0) == both[1].complete_json("東", 5, 0)
        return json.loads(raw)

    assert quick.complete("ha", 20, "auto", Completion, payload, Answers) == expected
    assert depth == 20


def test_who_looks_at_all_objects_sees_whole_ones(both: tuple[Index, Index]) -> None:
    """As a profiler of memory does, from a thread of its own or, here, while a payload is read."""
    quick = both[0]._opened().reader.quick
    seen: list[object] = []

    def payload(raw: bytes) -> object:
        some = [o for o in gc.get_objects() if type(o) in (tuple, list) and len(o) in (2, 3, 6)]
        seen.extend(some)  # holding them, too, changes nothing
        assert [len(repr(o)) for o in some[-200:]]
        return json.loads(raw)

    assert quick.complete("ha", 3, 0, Completion, payload, Answers) == both[1].complete("ha", 3, 0)
    assert seen


def test_a_segment_that_was_completed_alone_is_let_go() -> None:
    file = bytes(build.build_segment([b"abc"], [1.0])[0])
    before = sys.getrefcount(file)
    for _ in range(5):
        segment = trie.Segment(file, "of the test")
        assert segment.complete(b"a", 1, 0)[0]
    del segment
    gc.collect()
    assert sys.getrefcount(file) == before


def test_it_takes_what_it_was_made_for(both: tuple[Index, Index]) -> None:
    quick = both[0]._opened().reader.quick
    for wrong in (("ha", 1), ("ha", 1, 0, 0)):
        with pytest.raises(TypeError, match="json takes 3 arguments"):
            quick.json(*wrong)
    for kind in (list, dict, 3, None):
        with pytest.raises(TypeError, match="subtypes of tuple"):
            quick.complete("ha", 1, 0, kind, json.loads, Answers)
    assert quick.complete("hall 001", 1, 0, tuple, json.loads, Answers) == [
        ("hall 001", 1.0, 0, ((0, 8),), None, None)
    ]
    with pytest.raises(TypeError):
        calls.Reader()


def test_the_segment_lives_as_long_as_its_quick_calls(folder: Path) -> None:
    index = mariana.open_index(folder)
    quick, expected = index._opened().reader.quick, index.complete_json("ha")
    index.close()
    with pytest.raises(InvalidInputError, match="the index is closed"):
        index.complete_json("ha")
    with pytest.raises(InvalidInputError, match="the index is closed"):
        index.complete("ha")
    del index
    gc.collect()
    assert quick.json("ha", 10, "auto") == expected


def test_threads_complete_while_the_index_changes_and_closes(tmp_path: Path) -> None:
    mariana.build_index(tmp_path / "live", ENTRIES)
    index = mariana.open_index(tmp_path / "live")
    plain = set(index.complete("hall", 20, 0))
    wrong: list[object] = []
    done = threading.Event()

    def ask() -> None:
        try:
            while not done.is_set():
                texts = [c.text for c in index.complete("ha", 20)]
                changing = [c["text"] for c in json.loads(index.complete_json("zz", 3))["completions"]]
                if "Hanoi" not in texts or not set(changing) <= {"zz top", "zzz"}:
                    wrong.append((texts, changing))
                index.complete_json("hambrug", 10, 2)
        except InvalidInputError as error:
            if str(error) != "the index is closed" or not done.is_set():
                wrong.append(error)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for i in range(12):
        index.insert([("zz top", i), ("zzz", 1)])
        index.delete(["zzz"])
    done.set()
    index.close()
    for thread in threads:
        thread.join()
    assert not wrong
    assert plain


ASKED = ["h", "ha", "hai", "東", "zzz", "new"]


def _json(quick: Any, times: int) -> None:
    for _ in range(times):
        for query in ASKED:
            quick.json(query, 10, 0)
        for refused in (("\ud800", 10, 0), ("ha", -1, "auto"), ("ha", 1, [])):
            quick.json(*refused)


def _objects(quick: Any, times: int) -> None:
    for _ in range(times // 10):
        for query in (*ASKED, "\ud800"):
            quick.complete(query, 10, 0, Completion, json.loads, Answers)


def _failing(quick: Any, times: int) -> None:
    for _ in range(times // 100):
        with pytest.raises(KeyError):
            quick.complete("ha", 10, 0, Completion, {}.__getitem__, Answers)


@pytest.mark.parametrize("call", [_json, _objects, _failing])
def test_nothing_is_left_behind(both: tuple[Index, Index], call: Callable[[Any, int], None]) -> None:
    """A million calls, of which some are refused."""
    quick = both[0]._opened().reader.quick
    watched = [None, "auto", Completion, json.loads, trie.EDITS, *ASKED]
    call(quick, 100)
    before = [sys.getrefcount(thing) for thing in watched]
    call(quick, 110_000)
    assert all(abs(sys.getrefcount(t) - b) < 20 for t, b in zip(watched, before, strict=True))
    tracemalloc.start()
    call(quick, 100)
    start = tracemalloc.get_traced_memory()[0]
    call(quick, 2000)
    grown = tracemalloc.get_traced_memory()[0] - start
    tracemalloc.stop()
    assert grown < 10_000


def test_a_reader_lets_go_of_what_it_kept() -> None:
    alive, files, edits = object(), (b"",), dict(trie.EDITS)
    before = [sys.getrefcount(thing) for thing in (alive, files, edits)]
    made = [
        calls.Reader(json=0, complete=0, reader=0, alive=alive, files=files, edits=edits) for _ in range(10)
    ]
    assert [sys.getrefcount(thing) - 10 for thing in (alive, files, edits)] == before
    del made
    assert [sys.getrefcount(thing) for thing in (alive, files, edits)] == before
