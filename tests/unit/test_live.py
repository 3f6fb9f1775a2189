"""Live updates: what is seen, by whom, in what order, and what survives."""

import json
import os
import random
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

import mariana
from mariana import FileFormatError, Index, InvalidInputError, NotFoundError, StoreError
from mariana.live import folder, journal, layers, learning, state

ENTRIES = [("Saigon", 9), ("Sapporo", 7), {"text": "São Paulo", "score": 12, "payload": {"country": "BR"}}]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return Path(mariana.build_index(tmp_path / "towns", ENTRIES))


@pytest.fixture
def index(path: Path) -> Iterator[Index]:
    with mariana.open_index(path) as index:
        yield index


def texts(index: Index, prefix: str = "", limit: int = 100) -> list[str]:
    return [completion.text for completion in index.complete(prefix, limit=limit, fuzzy=0)]


def scores(index: Index, prefix: str = "") -> dict[str, float]:
    return {completion.text: completion.score for completion in index.complete(prefix, limit=100, fuzzy=0)}


# ---- What is seen ---------------------------------------------------------------------------------------------


def test_what_is_written_is_seen_here_and_by_who_opens_it(index: Index, path: Path) -> None:
    assert not index.live
    assert index.insert([("Salta", 10), {"text": "Saigon", "score": 1, "payload": [1]}]) == (1, 2)
    assert index.delete(["Sapporo", "Nowhere", "Sapporo"]) == (2, 1)
    assert index.delete(["Sapporo"]) == (3, 0)
    for seen in (index, mariana.open_index(path)):
        assert (seen.live, seen.sequence, len(seen)) == (True, 3, 3)
        assert texts(seen, "sa") == ["São Paulo", "Salta", "Saigon"]
        assert seen.complete("saigon")[0].payload == [1]
        assert seen.complete("sao")[0].payload == {"country": "BR"}
        seen.close()


def test_others_see_it_when_they_look(index: Index, path: Path) -> None:
    with mariana.open_index(path) as other, mariana.open_index(path) as third:
        assert not other.refresh()
        index.insert([("Salta", 10)])  # the first change makes index.db
        assert "Salta" not in texts(other)
        assert other.refresh()
        assert "Salta" in texts(other)
        assert not other.refresh()
        other.insert([("Sana", 1)])
        assert index.refresh()
        assert "Sana" in texts(index)
        assert third.insert([("Sarh", 1)]) == (3, 1), "it catches up by itself"
        assert texts(third, "sa") == ["São Paulo", "Salta", "Saigon", "Sapporo", "Sana", "Sarh"]


def test_of_a_text_twice_in_a_batch_the_later_one_counts(index: Index) -> None:
    assert index.insert([("Saigon", 100), ("Saigon", 3)]).count == 2
    assert scores(index)["Saigon"] == 3
    assert len(index) == 3


def test_a_batch_with_a_wrong_entry_changes_nothing(index: Index) -> None:
    batch = [("Salta", 1), ("", 1), {"text": "x", "score": "3"}, ("y", -1), {"text": "z", "payloads": 1}]
    with pytest.raises(InvalidInputError, match="entry 1") as caught:
        index.insert(batch)
    assert caught.value.pointer == "/1"
    assert [where for where, _ in caught.value.faults] == ["/1", "/2/score", "/3", "/4"]
    assert (texts(index), index.live) == (["São Paulo", "Saigon", "Sapporo"], False)
    for wrong in ("Saigon", [3], ["\ud800"]):
        with pytest.raises(InvalidInputError):
            index.delete(wrong)  # type: ignore[arg-type]
    assert index.insert([]) == (1, 0)


def test_a_file_and_a_closed_index_cannot_be_changed(index: Index) -> None:
    with mariana.open_index(index.info.path) as file, pytest.raises(InvalidInputError, match="open its folder"):
        file.insert([("x", 1)])
    index.close()
    with pytest.raises(InvalidInputError, match="closed"):
        index.insert([("x", 1)])
    assert "closed" in repr(index)


def test_what_was_opened_before_a_fork_does_not_write_after_it(index: Index) -> None:
    index.insert([("a", 1)])
    index._source._pid += 1
    with pytest.raises(InvalidInputError, match="fork"):
        index.insert([("b", 1)])
    index._source._pid -= 1


# ---- A new list, compaction -----------------------------------------------------------------------------------


def test_a_new_list_stands_for_all_that_was_before_it(index: Index, path: Path) -> None:
    index.insert([("Salta", 10)])
    index.select("Sapporo")

    def entries() -> Iterator[tuple[str, float]]:
        yield "Sapporo", 1
        index.insert([("Sana", 1)])  # while the list is read
        index.delete(["Santos"])
        yield "Santos", 2

    mariana.build_index(path, entries())
    assert index.refresh()
    with mariana.open_index(path) as other:
        for seen in (index, other):
            assert scores(seen) == pytest.approx({"Sapporo": 2, "Sana": 1, "Santos": 2}, rel=1e-6)
    assert [p.name for p in path.glob("*.mrx")] == ["segment-00000002.mrx"]


def test_an_index_without_changes_is_seen_anew_too(index: Index, path: Path) -> None:
    mariana.build_index(path, [("Lima", 1)])
    assert index.refresh()
    assert texts(index) == ["Lima"]
    assert not index.refresh()


def test_compaction_changes_nothing_but_the_files(index: Index, path: Path) -> None:
    assert not index.compact(), "there is nothing to do"
    index.insert([("Salta", 10.5), {"text": "Saigon", "score": 1, "payload": "p"}])
    index.delete(["Sapporo"])
    index.select("Salta")
    before = index.complete("", limit=100)
    with mariana.open_index(path) as other:
        assert index.compact()
        assert not index.compact()
        assert [p.name for p in path.glob("*.mrx")] == ["segment-00000002.mrx"]
        assert index.complete("", limit=100) == other.complete("", limit=100) == before
        assert other.refresh()
        assert index.info.path == other.info.path == folder.segment_path(path, 2)
        assert index.complete("", limit=100) == other.complete("", limit=100) == before
        index.insert([("Sana", 3)])
        assert other.refresh()
        assert texts(other) == texts(index)
    with folder.locked(path):
        assert not index.compact(), "another one is at it"


def test_many_changes_are_compacted_by_themselves(
    index: Index, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state, "COMPACT_LEAST", 50)
    for i in range(60):
        index.insert([(f"town {i}", i)])
    index._source._compaction.join()
    assert index.info.path != folder.segment_path(path, 1)
    assert len(index) == 63


def test_writes_and_reads_go_on_during_a_compaction(
    index: Index, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index.insert([("Salta", 10), ("Santos", 5)])
    build = layers.Layers.build_base

    def build_slowly(self: layers.Layers, changes: dict[bytes, journal.Item | None]) -> bytes:
        index.insert([("Sana", 2), ("Santos", 6)])
        index.delete(["Salta", "Sapporo"])
        assert texts(index) == ["São Paulo", "Saigon", "Santos", "Sana"]
        return build(self, changes)

    monkeypatch.setattr(layers.Layers, "build_base", build_slowly)
    assert index.compact()
    with mariana.open_index(path) as other:
        for seen in (index, other):
            assert scores(seen) == {"São Paulo": 12, "Saigon": 9, "Santos": 6, "Sana": 2}


def test_a_list_that_comes_during_a_compaction_wins(
    index: Index, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index.insert([("Salta", 10)])
    build = layers.Layers.build_base

    def build_slowly(self: layers.Layers, changes: dict[bytes, journal.Item | None]) -> bytes:
        return build(self, changes)

    locked = folder.locked

    def lock_late(*arguments: object, **options: object) -> object:
        monkeypatch.setattr(folder, "locked", locked)
        mariana.build_index(path, [("Lima", 1)])
        return locked(*arguments, **options)

    monkeypatch.setattr(folder, "locked", lock_late)
    assert not index.compact()
    index.refresh()
    assert texts(index) == ["Lima"]


def test_a_batch_lands_in_few_layers_whatever_came_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "SMALL", 4)
    monkeypatch.setattr(layers, "RATIO", 2)
    rng = random.Random(1)
    base = [(f"{i:03}".encode(), journal.Item(float(i))) for i in range(0, 300, 3)]
    built = layers.Layers(layers.build(dict(base)))
    expected = dict(base)
    for _ in range(400):
        changes: dict[bytes, journal.Item | None] = {}
        for _ in range(rng.choice([1, 1, 1, 2, 5, 20])):
            text = f"{rng.randrange(300):03}".encode()
            changes[text] = None if rng.random() < 0.3 else journal.Item(float(rng.randrange(1000)))
        built.apply(changes)
        expected = {text: item for text, item in {**expected, **changes}.items() if item is not None}
        prefix = f"{rng.randrange(30):02}".encode()
        hits, _ = built.reader.complete(prefix, 100, 0)
        best = sorted(expected.items(), key=lambda pair: (-pair[1].score, pair[0]))
        best = [pair for pair in best if pair[0].startswith(prefix)]
        assert [(hit.text, hit.score) for hit in hits] == [(text, item.score) for text, item in best]
        assert built.reader.entries == len(expected)
        assert len(built._layers) <= 8


# ---- Against a model ------------------------------------------------------------------------------------------

names = st.sampled_from(["ab", "abc", "abd", "b", "bà", "ba", "Ba", "c"])
numbers = st.integers(0, 5)


class ModelOfAnIndex(RuleBasedStateMachine):
    """Three openings of one index, and a dict: whatever happens, they agree after a look."""

    @initialize(entries=st.dictionaries(names, numbers))
    def build(self, entries: dict[str, int]) -> None:
        import tempfile

        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "index"
        mariana.build_index(self.path, entries.items())
        self.model = dict(entries)
        self.open = [mariana.open_index(self.path) for _ in range(3)]
        self.sequence = 0

    def acknowledge(self, receipt: state.Receipt, count: int) -> None:
        assert receipt.count == count
        assert receipt.sequence > self.sequence
        self.sequence = receipt.sequence

    @rule(who=st.integers(0, 2), batch=st.lists(st.tuples(names, numbers), max_size=4))
    def insert(self, who: int, batch: list[tuple[str, int]]) -> None:
        self.acknowledge(self.open[who].insert(batch), len(batch))
        self.model.update(batch)
        self.agree(who)

    @rule(who=st.integers(0, 2), batch=st.lists(names, max_size=4))
    def delete(self, who: int, batch: list[str]) -> None:
        self.acknowledge(self.open[who].delete(batch), len(self.model.keys() & set(batch)))
        for text in batch:
            self.model.pop(text, None)
        self.agree(who)

    @rule(who=st.integers(0, 2))
    def compact(self, who: int) -> None:
        self.open[who].compact()

    @rule(entries=st.dictionaries(names, numbers))
    def build_again(self, entries: dict[str, int]) -> None:
        mariana.build_index(self.path, entries.items())
        self.model = dict(entries)

    @rule(who=st.integers(0, 2))
    def open_again(self, who: int) -> None:
        self.open[who].close()
        self.open[who] = mariana.open_index(self.path)
        self.agree(who)

    @rule(who=st.integers(0, 2))
    def look(self, who: int) -> None:
        self.open[who].refresh()
        self.agree(who)

    def agree(self, who: int) -> None:
        index = self.open[who]
        assert scores(index) == self.model
        assert len(index) == len(self.model)

    @invariant()
    def stays_whole(self) -> None:
        for index in self.open:
            assert len(index) == len(texts(index))

    def teardown(self) -> None:
        for index in getattr(self, "open", []):
            index.close()
        if hasattr(self, "folder"):
            self.folder.cleanup()


TestModelOfAnIndex = ModelOfAnIndex.TestCase
TestModelOfAnIndex.settings = settings(max_examples=15, stateful_step_count=20, deadline=None)
