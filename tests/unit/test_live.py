"""Live updates: what is seen, by whom, in what order, and what survives."""

import contextlib
import os
import random
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

import mariana
from mariana import (
    FileFormatError,
    Index,
    InvalidInputError,
    NotFoundError,
    OutOfRangeError,
    Receipt,
    StoreError,
)
from mariana.live import folder, holding, journal, layers, learning, state

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
    assert index.insert([("Salta", 10), {"text": "Saigon", "score": 1, "payload": [1]}]) == Receipt(1, 2)
    assert index.delete(["Sapporo", "Nowhere", "Sapporo"]) == Receipt(2, 1)
    assert index.delete(["Sapporo"]) == Receipt(3, 0)
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
        assert third.insert([("Sarh", 1)]) == Receipt(3, 1), "it catches up by itself"
        assert texts(third, "sa") == ["São Paulo", "Salta", "Saigon", "Sapporo", "Sana", "Sarh"]


@contextlib.contextmanager
def running(call: Callable[[], object]) -> Iterator[threading.Thread]:
    """Another thread that does something, which is to have ended with the block."""
    thread = threading.Thread(target=call)
    thread.start()
    yield thread
    thread.join(60)
    assert not thread.is_alive()


def test_a_look_waits_for_who_is_at_work_in_this_process_if_asked_to(index: Index, path: Path) -> None:
    """What was acknowledged before a look is seen after it, also when a renewal has read the journal just before."""
    index.insert([("Salta", 10)])
    seen: list[str] = []
    with mariana.open_index(path) as other, contextlib.ExitStack() as held:
        held.enter_context(other._source._lock)
        index.insert([("Sana", 1)])
        with running(lambda: (other.refresh(), seen.extend(texts(other)))) as looking:
            looking.join(0.2)
            with running(lambda: seen.append(f"refreshed: {other.refresh(wait=False)}")):
                pass
            assert seen == ["refreshed: False"]
            held.close()
        assert "Sana" in seen


def test_a_first_write_waits_for_no_compaction(index: Index, path: Path) -> None:
    """Who opened the index before it had a journal, and has not looked since."""
    with mariana.open_index(path) as late:
        index.insert([("Salta", 10)])
        receipts: list[Receipt] = []
        with state.locked(path), running(lambda: receipts.append(late.insert([("Sana", 1)]))) as writing:
            writing.join(10)
            assert receipts == [Receipt(2, 1)]


def test_closing_ends_a_renewal_where_it_is(
    index: Index, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index.insert([("Salta", 10)])
    with mariana.open_index(path) as other:
        assert other.compact()
        other.insert([(f"town {i}", i) for i in range(100)])
    source, apply, applied = index._source, layers.Layers.apply, []

    def close_meanwhile(self: layers.Layers, changes: dict[bytes, journal.Item | None]) -> None:
        if threading.current_thread().name == "renewal":
            applied.append(len(changes))
            if len(applied) == 1:
                closing.start()
                assert source._closed.wait(60)
        apply(self, changes)

    monkeypatch.setattr(holding, "PORTION", 10)
    monkeypatch.setattr(layers.Layers, "apply", close_meanwhile)
    closing = threading.Thread(target=index.close)
    index.refresh()
    source.settle()
    closing.join(60)
    assert not closing.is_alive()
    assert applied == [10], "and not the other ninety"


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
    assert index.insert([]) == Receipt(1, 0)


def test_a_file_and_a_closed_index_cannot_be_changed(index: Index) -> None:
    with (
        mariana.open_index(index.info.path) as file,
        pytest.raises(InvalidInputError, match="open its folder"),
    ):
        file.insert([("x", 1)])
    index.close()
    with pytest.raises(InvalidInputError, match="closed"):
        index.insert([("x", 1)])
    assert "closed" in repr(index)


def test_what_was_opened_before_a_fork_does_not_write_after_it(index: Index) -> None:
    index.insert([("a", 1)])
    index._source._pid += 1
    for use in (index.refresh, lambda: index.insert([("b", 1)]), lambda: index.select("a")):
        with pytest.raises(InvalidInputError, match="fork"):
            use()
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
        other._source.settle()
        assert index.info.path == other.info.path == folder.segment_path(path, 2)
        assert index.complete("", limit=100) == other.complete("", limit=100) == before
        index.insert([("Sana", 3)])
        assert other.refresh()
        assert texts(other) == texts(index)
    with state.locked(path):
        assert not index.compact(), "another one is at it"


def test_many_changes_are_compacted_by_themselves(
    index: Index, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state, "COMPACT_LEAST", 50)
    for i in range(60):
        index.insert([(f"town {i}", i)])
    assert index._source._compaction.wait(30) == 0
    index.refresh()
    index._source.settle()
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


@pytest.fixture
def held_up(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Whoever opens a segment beside others waits for this event."""
    go_on, opens = threading.Event(), folder.open_segment

    def open_late(path: Path) -> object:
        if threading.current_thread().name == "renewal":
            assert go_on.wait(60)
        return opens(path)

    monkeypatch.setattr(folder, "open_segment", open_late)
    yield go_on
    go_on.set()


def test_nobody_waits_for_the_segment_of_a_compaction(
    index: Index, path: Path, held_up: threading.Event
) -> None:
    """Who is behind answers, writes, deletes and learns as everybody else, on the segment that he has."""
    index.insert(
        [
            ("Salta", 10),
            {"text": "Sana", "score": 1, "id": "sana"},
            {"text": "Sanaa", "score": 2, "id": "sana"},
        ]
    )
    index.delete(["Sapporo"])
    with mariana.open_index(path) as other:
        thread = threading.Thread(target=other.compact)  # which is held up when it is published
        thread.start()
        while folder.segment_numbers(path) != [2]:
            time.sleep(0.01)
        assert index.refresh()
        assert index._source._now.behind
        assert index.insert([("Santos", 5), ("Salta", 11)]).count == 2
        assert index.delete(["Sapporo", "Salta", "Nowhere"]).count == 1, "as the compaction has it"
        assert index.delete(ids=["sana"]).count == 2, "whom only the new segment has"
        assert index.select("Santos").count == 1
        with pytest.raises(NotFoundError):
            index.select("Sapporo")
        expected = {"São Paulo": 12, "Saigon": 9, "Santos": pytest.approx(10, rel=1e-6)}
        assert scores(index) == expected
        with mariana.open_index(path) as third:
            assert scores(third) == expected
        assert index.info.path == folder.segment_path(path, 1)
        held_up.set()
        index._source.settle()
        thread.join()
        other.refresh()
        for seen in (index, other):
            assert seen.info.path == folder.segment_path(path, 2)
            assert scores(seen) == expected
        assert index.insert([("Salta", 1)]).count == 1
        assert index.compact()
        assert scores(index) == {**expected, "Salta": 1}


def test_another_list_is_taken_at_once_by_who_is_behind(
    index: Index, path: Path, held_up: threading.Event
) -> None:
    index.insert([("Salta", 10)])
    with mariana.open_index(path) as other:
        thread = threading.Thread(target=other.compact)
        thread.start()
        while folder.segment_numbers(path) != [2]:
            time.sleep(0.01)
        index.insert([("Santos", 5)])
        assert index._source._now.behind
        mariana.build_index(path, [("Lima", 1)])
        index.insert([("Leon", 2)])
        assert not index._source._now.behind
        assert texts(index) == ["Leon", "Lima"]
        held_up.set()
        thread.join()
        index._source.settle()
        assert texts(index) == ["Leon", "Lima"]


def test_a_segment_that_cannot_be_opened_beside_changes_nothing(
    index: Index, path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    index.insert([("Salta", 10)])
    before = index.complete("")
    with mariana.open_index(path) as other:
        assert other.compact()
    opens = folder.open_segment

    def refuse(path: Path) -> object:
        raise StoreError(5, f"cannot read {path}")

    monkeypatch.setattr(folder, "open_segment", refuse)
    assert index.refresh()
    index._source.settle()
    assert "goes on with its older segment: [Errno 5] cannot read" in caplog.text
    assert index.complete("") == before
    assert index._source._now.behind
    monkeypatch.setattr(folder, "open_segment", opens)
    index.insert([("Sana", 1)])  # the next change tries again
    index._source.settle()
    assert not index._source._now.behind


def test_a_list_that_comes_during_a_compaction_wins(
    index: Index, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index.insert([("Salta", 10)])
    build = layers.Layers.build_base

    def build_slowly(self: layers.Layers, changes: dict[bytes, journal.Item | None]) -> bytes:
        return build(self, changes)

    locked = state.locked

    def lock_late(*arguments: object, **options: object) -> object:
        monkeypatch.setattr(state, "locked", locked)
        mariana.build_index(path, [("Lima", 1)])
        return locked(*arguments, **options)

    monkeypatch.setattr(state, "locked", lock_late)
    assert not index.compact()
    index.refresh()
    assert texts(index) == ["Lima"]


@pytest.mark.parametrize("later", [0, 1, 30, 300])
def test_what_came_during_a_compaction_stays_however_much_it_is(index: Index, path: Path, later: int) -> None:
    with index:
        index.insert([(f"before {i}", i) for i in range(100)])
    there = journal.Journal.open(path)
    assert there is not None
    items = [(b"later %d" % i, journal.Item(i, b"[%d]" % i, b'["a"]', b"d")) for i in range(later)]
    with there.writing() as head:
        there.put(head.sequence + 1, items)
        there.advance(head.sequence + 1, head.clock)
    with there.writing():
        there.rebase(9, head.sequence, compacted=True)
    with there.reading() as now:
        assert (now.base, now.sequence, now.merged) == (9, head.sequence + 2, head.sequence)
        assert list(there.items(0)) == items
    there.close()


def test_a_batch_lands_in_few_layers_whatever_came_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "SMALL", 4)
    monkeypatch.setattr(layers, "RATIO", 2)
    rng = random.Random(1)
    base = [(f"{i:03}".encode(), journal.Item(float(i))) for i in range(0, 300, 3)]
    entries = [layers.Entry(text, item.score) for text, item in base]
    built = layers.Layers(layers.Segment(layers.build(entries), "base"))
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
        assert len(built._layers) - 1 <= 8


def names_of(index: Index, prefix: str = "") -> list[tuple[str, str | None]]:
    return [(completion.text, completion.id) for completion in index.complete(prefix)]


def test_a_document_is_shown_once_and_deleted_by_its_id(tmp_path: Path) -> None:
    entries = [
        {"text": "New York", "score": 9, "id": "ny"},
        {"text": "NYC", "score": 8, "id": "ny"},
        {"text": "Newark", "score": 7, "id": "nw"},
        {"text": "Nice", "score": 6},
    ]
    mariana.build_index(tmp_path / "index", entries)
    with mariana.open_index(tmp_path / "index") as index:
        assert names_of(index, "n") == [("New York", "ny"), ("Newark", "nw"), ("Nice", None)]
        assert names_of(index, "nyc") == [("NYC", "ny")]
        index.insert([{"text": "Nieuw Amsterdam", "score": 10, "id": "ny"}])
        assert names_of(index, "n") == [("Nieuw Amsterdam", "ny"), ("Newark", "nw"), ("Nice", None)]
        index.insert([{"text": "New York", "score": 9}])  # is a name of nothing now
        assert names_of(index, "n")[:2] == [("Nieuw Amsterdam", "ny"), ("New York", None)]
        assert index.explain("nieuw")[0].completion.id == "ny"
        index.insert([{"text": "Gotham", "score": 1, "id": "ny"}])
        assert index.compact()
        index.insert([{"text": "Big Apple", "score": 1, "id": "ny"}])
        assert index.delete(["Nice"], ids=["ny", "not there"]).count == 5
        assert names_of(index) == [("New York", None), ("Newark", "nw")]
        assert index.delete(ids=["ny"]).count == 0
        with pytest.raises(InvalidInputError, match="several strings"):
            index.delete(ids="nw")
        with pytest.raises(InvalidInputError, match="id is 1 to 256 bytes") as error:
            index.insert([("fine", 1), {"text": "x", "id": "é" * 129}])
        assert error.value.pointer == "/1/id"


@pytest.mark.parametrize("version", [1, 2])
def test_a_journal_of_an_older_format_gets_what_it_lacks(index: Index, path: Path, version: int) -> None:
    index.insert([("Salta", 1), {"text": "Sana", "contexts": ["YE"]}])
    before = index.complete("")
    index.close()
    connection = sqlite3.connect(path / "index.db")
    connection.executescript(f"ALTER TABLE meta DROP COLUMN merged; UPDATE meta SET format = {version}")
    if version == 1:
        connection.executescript("DROP INDEX items_by_id; ALTER TABLE items DROP COLUMN id")
    connection.close()
    with mariana.open_index(path) as again, mariana.open_index(path) as other:
        assert again.complete("") == before
        again.insert([{"text": "Sanaa", "score": 100, "id": "sana"}])
        other.refresh()
        assert names_of(other, "sana")[0] == ("Sanaa", "sana")
        before = again.complete("")
        assert again.compact()
        other.refresh()
        assert again.complete("") == other.complete("") == before
        mariana.build_index(path, [("Lima", 1)])
        for seen in (again, other):
            seen.refresh()
            assert texts(seen) == ["Lima"]


def test_a_backup_is_the_index_at_one_time(index: Index, path: Path, tmp_path: Path) -> None:
    index.backup(tmp_path / "first")
    index.insert([("Salta", 1)])
    index.select("Saigon")
    index.backup(tmp_path / "second")
    before = scores(index)
    index.insert([("Sana", 1)])
    index.compact()
    index.backup(tmp_path / "third")
    for name, expected in (
        ("first", {"Saigon": 9, "Sapporo": 7, "São Paulo": 12}),
        ("second", before),
        ("third", scores(index)),
    ):
        assert all(not file.name.startswith(("index.db-", ".tmp")) for file in (tmp_path / name).iterdir())
        with mariana.open_index(tmp_path / name) as copy:
            assert scores(copy) == expected
            copy.insert([("more", 1)])
    assert "more" not in texts(index)
    with pytest.raises(InvalidInputError, match="there already"):
        index.backup(path)
    assert not list(tmp_path.glob(".tmp*"))


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


def test_contexts_are_live_too_and_stay_few(index: Index, path: Path) -> None:
    names = [f"c{i}" for i in range(64)]
    with mariana.open_index(path) as other:
        assert other.insert([{"text": "Salta", "score": 1, "contexts": names[:40]}]).count == 1
        with pytest.raises(InvalidInputError, match="more than 64 different contexts"):
            index.insert(
                [{"text": "Sana", "contexts": [f"d{i}" for i in range(40)]}]
            )  # it has not looked yet
        assert index.insert([{"text": "Sana", "score": 2, "contexts": names[40:]}]).count == 1
        other.refresh()
        for seen in (index, other):
            assert [c.text for c in seen.complete("sa", context="c3")] == ["Salta"]
            assert [c.text for c in seen.complete("sa", context=["c3", "c50"])] == ["Sana", "Salta"]
        for _ in range(2):
            other.select("Salta")
        index.compact()
        other.refresh()
        for seen in (index, other):
            assert [c.text for c in seen.complete("sa", context=["c3", "c50"])] == ["Salta", "Sana"]
    mariana.build_index(path, [("Sana", 1)], any_word=False)
    index.insert([("San José", 1)])
    assert texts(index, "jos") == [], "changes are found in the way of the list"


# ---- Learning -------------------------------------------------------------------------------------------------


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time in days, to be changed; passes for the machine's clock and for what has passed."""
    now = [20_000.0]
    monkeypatch.setattr(learning.time, "time", lambda: now[0] * learning.DAY)
    monkeypatch.setattr(learning.time, "clock_gettime", lambda _clock: now[0] * learning.DAY)
    return now


def test_a_selection_raises_one_entry_and_moves_no_other(index: Index, path: Path) -> None:
    index.insert([(f"town {i}", 1 + i % 7) for i in range(40)])
    rng = random.Random(3)
    for _ in range(60):
        before = scores(index)
        chosen = rng.choice(list(before))
        assert index.select(chosen).count == 1
        after = scores(index)
        assert after.pop(chosen) > before.pop(chosen)
        assert after == before
    with mariana.open_index(path) as other:
        assert scores(other) == scores(index)


def test_selections_count_as_often_as_the_definition_says(index: Index, now: list[float]) -> None:
    """Against the plain sum: each selection counts 2^-(age / half-life) when all was let fade last."""
    index = mariana.open_index(index.info.path.parent, half_life=10)
    rng = random.Random(5)
    chosen = []
    for _ in range(50):
        now[0] += rng.random() * 3
        index.select("Saigon")
        chosen.append(now[0])
    now[0] += 2
    assert index.fade()
    ticks = [t / 10 * 1024 // 1 for t in (*chosen, now[0])]
    expected = sum(2 ** (-(ticks[-1] - t) / 1024) for t in ticks[:-1])
    explained = index._source.explain(b"Saigon")
    assert explained.selections == pytest.approx(expected, rel=1e-9)
    assert explained.learned == pytest.approx(9 * expected, rel=1e-8)
    assert scores(index)["Saigon"] == explained.base + explained.learned
    for _ in range(12):  # nobody chooses any more
        now[0] += 10
        index.fade()
    assert scores(index)["Saigon"] == 9
    assert index._source._now.learned == {}
    index.close()


def test_entries_without_a_score_are_raised_too(index: Index) -> None:
    index.insert([("a0", 0), ("a1", 0), ("a2", 1e308)])
    index.select("a1")
    for _ in range(3):
        index.select("a2")
    assert texts(index, "a") == ["a2", "a1", "a0"]
    assert scores(index, "a")["a2"] < float("inf")


def test_a_clock_that_jumps_does_no_harm(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wall = [20_000.0]
    monkeypatch.setattr(learning.time, "time", lambda: wall[0] * learning.DAY)

    def choose(*chosen: str) -> list[float]:
        with mariana.open_index(path) as index:
            for text in chosen:
                index.select(text)
            wall[0] += 100_000  # while it is open: no difference
            index.select("São Paulo")
            wall[0] -= 100_000
            return [index._source.explain(text).selections for text in (b"Saigon", b"Sapporo")]

    assert choose("Saigon", "Sapporo") == pytest.approx([1, 1], rel=1e-3)
    wall[0] = 10_000.0  # back: no decay, and it counts
    assert choose("Sapporo") == pytest.approx([1, 2], rel=1e-3)
    wall[0] = 40_000.0  # hundreds of half-lives ahead: one goes by
    assert choose("Saigon", "Sapporo") == pytest.approx([1.5, 2], rel=1e-3)
    wall[0] = 20_001.0
    assert choose("Saigon") == pytest.approx([2.5, 2], rel=1e-3)


def test_another_half_life_keeps_what_is_learnt(index: Index, path: Path) -> None:
    for _ in range(4):
        index.select("Saigon")
    with mariana.open_index(path, half_life=2) as other:
        other.insert([("x", 1)])
        assert other._source.explain(b"Saigon").selections == pytest.approx(4, rel=1e-6)
    index.refresh()
    assert index._source.explain(b"Saigon").selections == pytest.approx(4, rel=1e-6)
    for wrong in (0, -1, 1e9, float("nan")):
        with pytest.raises(OutOfRangeError, match=r"half_life must be 0.01 to 36500 days, got "):
            mariana.open_index(path, half_life=wrong)
    for nothing in ("x", b"2", True, [2], 2j):
        with pytest.raises(InvalidInputError, match=r"half_life must be a number of days, .*; got "):
            mariana.open_index(path, half_life=nothing)  # type: ignore[arg-type]
    mariana.open_index(path, half_life=np.float32(2)).close()


def test_one_client_counts_once_a_day_for_an_entry(
    index: Index, path: Path, now: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "CLIENT_SELECTIONS", 2)
    assert [index.select("Saigon", client="1.2.3.4").count for _ in range(3)] == [1, 0, 0]
    with mariana.open_index(path) as other:
        assert other.select("Saigon", client="1.2.3.4").count == 0, "in every process"
        assert other.select("Saigon", client="1.2.3.5").count == 1
    assert index.select("Sapporo", client="1.2.3.4").count == 1
    written = (path / "index.db-wal").stat().st_size
    assert index.select("São Paulo", client="1.2.3.4").count == 0, "and so often in all"
    assert (path / "index.db-wal").stat().st_size == written, "what does not count costs no write"
    assert index.select("São Paulo").count == 1, "without a client, always"
    assert b"1.2.3.4" not in (path / "index.db-wal").read_bytes() + (path / "index.db").read_bytes()
    now[0] += 1
    assert index.select("Saigon", client="1.2.3.4").count == 1
    rows = index._source._journal.connection.execute("SELECT count(*) FROM spent").fetchone()
    assert rows == (1,), "yesterday is forgotten"


def test_only_what_is_there_can_be_chosen(index: Index) -> None:
    for text in ("Nowhere", "saigon", ""):
        with pytest.raises(NotFoundError):
            index.select(text)
    index.delete(["Saigon"])
    with pytest.raises(NotFoundError):
        index.select("Saigon")
    with pytest.raises(InvalidInputError, match="client"):
        index.select("Sapporo", client=3)  # type: ignore[arg-type]
    index.select("Sapporo")
    index.delete(["Sapporo"])
    index.insert([("Sapporo", 7)])
    assert scores(index)["Sapporo"] == pytest.approx(14), "what was learnt comes back with the entry"


# ---- When things go wrong -------------------------------------------------------------------------------------


def test_a_full_disk_changes_nothing(index: Index, path: Path) -> None:
    index.insert([("Salta", 1)])
    connection = index._source._journal.connection
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {pages + 8}")
    big = [{"text": f"big {i}", "payload": "x" * 1000} for i in range(100)]
    before = texts(index)
    with pytest.raises(StoreError, match=r"index\.db: the disk is full") as caught:
        index.insert(big)
    assert caught.value.errno == 28
    assert texts(index) == before
    with mariana.open_index(path) as other:
        assert texts(other) == before
    assert index.insert([("small", 1)]).sequence == 2
    connection.execute("PRAGMA max_page_count = 1000000")
    assert index.insert(big).sequence == 3


def test_one_too_big_does_not_harm_those_who_wait_with_it(index: Index) -> None:
    index.insert([("Salta", 1)])
    source = index._source
    connection = source._journal.connection
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {pages + 8}")
    results: dict[str, object] = {}

    def insert(name: str, entries: list[object]) -> None:
        try:
            results[name] = index.insert(entries)  # type: ignore[arg-type]
        except StoreError as error:
            results[name] = error

    big = [{"text": f"big {i}", "payload": "x" * 1000} for i in range(100)]
    threads = [
        threading.Thread(target=insert, args=arguments)
        for arguments in (("big", big), ("a", [("a", 1)]), ("b", [("b", 1)]))
    ]
    with source._lock:  # all of them wait, and are written together
        for thread in threads:
            thread.start()
        while len(source._queue) < 3:
            time.sleep(0.001)
    for thread in threads:
        thread.join()
    assert isinstance(results["big"], StoreError)
    assert {results["a"], results["b"]} == {Receipt(2, 1), Receipt(3, 1)}


def test_threads_share_commits(index: Index, path: Path) -> None:
    commits = []
    index.insert([("first", 1)])
    index._source._journal.connection.set_trace_callback(commits.append)

    def insert(thread: int) -> None:
        for i in range(25):
            receipt = index.insert([(f"{thread} {i}", 1)])
            assert receipt.count == 1
            assert f"{thread} {i}" in texts(index, f"{thread} {i}"), "visible when it returns"

    threads = [threading.Thread(target=insert, args=(thread,)) for thread in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(index) == 204
    assert index.sequence == 201
    assert sum(statement == "COMMIT" for statement in commits) < 200
    with mariana.open_index(path) as other:
        assert len(other) == 204


def test_a_writer_that_takes_too_long_is_told_of(
    index: Index, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "BUSY_SECONDS", 0.05)
    index.insert([("a", 1)])
    other = sqlite3.connect(path / "index.db", isolation_level=None)
    with mariana.open_index(path) as impatient:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="another process has been writing") as caught:
            impatient.insert([("b", 1)])
        assert caught.value.errno == 16
        assert "a" in texts(impatient)
        other.execute("ROLLBACK")
        impatient.insert([("b", 1)])
    other.close()


@pytest.mark.parametrize(
    "damage",
    [
        "garbage",
        "empty",
        "cut",
        "page",
        "schema",
        "newer",
        "foreign",
        "no meta",
        "payload",
        "contexts",
        "names",
    ],
)
def test_a_damaged_journal_is_named(index: Index, path: Path, damage: str) -> None:
    index.insert([(f"town {i}", i) for i in range(2000)])
    index.close()
    file = path / "index.db"
    whole = file.read_bytes()
    if damage in ("newer", "foreign", "no meta", "payload", "contexts", "names"):
        connection = sqlite3.connect(file)
        connection.executescript(
            {
                "newer": "UPDATE meta SET format = 99",
                "foreign": "PRAGMA application_id = 3",
                "no meta": "DELETE FROM meta",
                "payload": "UPDATE items SET payload = '{' WHERE text = 'town 7'",
                "contexts": "UPDATE items SET contexts = '[' WHERE text = 'town 7'",
                "names": "UPDATE items SET contexts = '[1]' WHERE text = 'town 7'",
            }[damage]
        )
        connection.close()
    else:
        file.write_bytes(
            {
                "garbage": os.urandom(len(whole)),
                "empty": b"",
                "cut": whole[: len(whole) // 2],
                "page": whole[:4096] + b"\xff" * 4096 + whole[8192:],
                "schema": whole.replace(b"CREATE TABLE ", b"CREATE \xd3ABLE "),  # SQLite quotes it
            }[damage]
        )
    with pytest.raises(FileFormatError, match=r"towns/index\.db: "):
        mariana.open_index(path)
    file.unlink()
    with mariana.open_index(path) as without:
        assert texts(without, "sap") == ["Sapporo"]


def test_a_restored_or_deleted_journal_is_noticed(path: Path) -> None:
    with mariana.open_index(path) as index:
        index.insert([("a", 1)])
    kept = (path / "index.db").read_bytes()
    with mariana.open_index(path) as index:
        index.insert([("b", 1)])
        for end in ("", "-wal", "-shm"):
            (path / f"index.db{end}").unlink()
        (path / "index.db").write_bytes(kept)
        assert index.refresh()
        assert {"a"} == set(texts(index)) & {"a", "b"}
        assert index.insert([("c", 1)]).sequence == 2
        with mariana.open_index(path) as other:
            assert set(texts(other)) == set(texts(index)) == {"a", "c", "Saigon", "Sapporo", "São Paulo"}
        for end in ("", "-wal", "-shm"):
            (path / f"index.db{end}").unlink()
        assert index.insert([("d", 1)]) == Receipt(1, 1)
        assert set(texts(index)) == {"d", "Saigon", "Sapporo", "São Paulo"}


def test_what_could_not_be_taken_over_is_tried_again(
    index: Index, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index.insert([("a", 1)])
    with mariana.open_index(path) as other:
        other.insert([("b", 1)])
        apply, fails = layers.Layers.apply, [True, True]

        def fail(self: layers.Layers, changes: dict[bytes, journal.Item | None]) -> None:
            if fails:
                fails.pop()
                raise MemoryError
            apply(self, changes)

        monkeypatch.setattr(layers.Layers, "apply", fail)
        with pytest.raises(MemoryError):
            index.refresh()
        with pytest.raises(MemoryError):
            other.insert([("c", 1)])  # it is on the disk, but not visible yet
        for seen in (index, other):
            assert seen.refresh()
            assert {"a", "b", "c"} <= set(texts(seen))
            assert not seen.refresh()
        assert other.insert([("d", 1)]) == Receipt(4, 1)


def test_a_segment_that_went_missing_is_named(index: Index, path: Path) -> None:
    index.insert([("a", 1)])
    index.info.path.unlink()
    with pytest.raises(FileFormatError, match="segment-00000001"):
        mariana.open_index(path)
    assert "a" in texts(index), "who has it goes on"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB of its own."""
    path = tmp_path / "disk"
    path.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", path], capture_output=True, check=False
    )
    if done.returncode != 0:
        pytest.skip("may not mount a file system here: " + done.stderr.decode().strip())
    yield path
    subprocess.run(["umount", "--lazy", path], check=True)


def remount(path: Path, mode: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{mode}", path], check=True)


def test_a_disk_that_fills_up(small_disk: Path) -> None:
    path = Path(mariana.build_index(small_disk / "towns", ENTRIES))
    with mariana.open_index(path) as index:
        acknowledged = 0

        def fill() -> None:
            nonlocal acknowledged
            while True:
                index.insert([{"text": f"{acknowledged}-{i}", "payload": "x" * 1000} for i in range(50)])
                acknowledged += 1

        with pytest.raises(StoreError, match="the disk is full") as caught:
            fill()
        assert caught.value.errno == 28
        assert acknowledged > 3
        for look in (index.refresh, index.compact, lambda: mariana.build_index(path, [("x", 1)] * 10)):
            with contextlib.suppress(StoreError):
                look()
        with mariana.open_index(path) as other:
            for seen in (index, other):
                assert len(seen) == 3 + 50 * acknowledged or texts(seen) == ["x"]


def test_a_new_list_on_a_full_disk_changes_nothing(small_disk: Path) -> None:
    path = Path(mariana.build_index(small_disk / "towns", ENTRIES))
    with mariana.open_index(path) as index:
        index.insert([("Salta", 1)])
        (small_disk / "filler").write_bytes(bytes((os.statvfs(small_disk).f_bavail - 4) * 4096))
        with pytest.raises(StoreError) as caught:
            mariana.build_index(path, [(f"town {i}", i) for i in range(5000)])
        assert caught.value.errno == 28
        index.refresh()
        with mariana.open_index(path) as other:
            assert texts(other) == texts(index) == ["São Paulo", "Saigon", "Sapporo", "Salta"]
        assert len(list(path.glob("*.mrx"))) == 1
        assert not list(path.glob(".tmp*"))
        (small_disk / "filler").unlink()
        mariana.build_index(path, [(f"town {i}", i) for i in range(5000)])


def test_a_first_list_on_a_full_disk_leaves_nothing(small_disk: Path) -> None:
    entries = [(f"{i} {random.Random(i).random()}", i) for i in range(100_000)]
    with pytest.raises(StoreError, match="No space left"):
        mariana.build_index(small_disk / "towns", entries)
    assert list(small_disk.iterdir()) == []
    mariana.build_index(small_disk / "towns", entries[:10])


def test_a_read_only_disk_serves(small_disk: Path) -> None:
    path = Path(mariana.build_index(small_disk / "towns", ENTRIES))
    with mariana.open_index(path) as index:
        index.insert([("Salta", 1)])
    remount(small_disk, "ro")
    try:
        with mariana.open_index(path) as index:
            assert texts(index) == ["São Paulo", "Saigon", "Sapporo", "Salta"]
            assert not index.refresh()
            assert not index.fade()
            with pytest.raises(StoreError, match=r"index\.db: the file or its folder may not be") as caught:
                index.insert([("Sana", 1)])
            assert caught.value.errno == 30
            with pytest.raises(StoreError):
                index.compact()
            assert texts(index) == ["São Paulo", "Saigon", "Sapporo", "Salta"]
    finally:
        remount(small_disk, "rw")


def test_who_may_only_read_sees_what_others_write(small_disk: Path, tmp_path: Path) -> None:
    """Through a read-only mount of a folder that others write in, as a container has it."""
    written, seen = Path(mariana.build_index(small_disk / "towns", ENTRIES)), tmp_path / "seen"
    with mariana.open_index(written) as index:
        index.insert([("Salta", 8)])
    seen.mkdir()
    subprocess.run(["mount", "--bind", written, seen], check=True)
    try:
        remount(seen, "bind,ro")
        with mariana.open_index(seen) as reader:
            assert not reader.refresh()
            for first in ("Sana", "Sanaa"):
                with mariana.open_index(written) as index:
                    index.delete(["Saigon", "São Paulo", "Sana"])
                    index.insert([(first, 9)])
                    assert reader.refresh()
                    assert texts(reader)[:3] == [first, "Salta", "Sapporo"]
            assert not reader.refresh()
            mariana.build_index(written, [("Lima", 1)])
            assert reader.refresh()
            assert texts(reader) == ["Lima"]
            with pytest.raises(StoreError):
                reader.insert([("Leon", 1)])
    finally:
        subprocess.run(["umount", "--lazy", seen], check=True)


def test_a_disk_that_is_writable_again_is_written_to(small_disk: Path) -> None:
    path = Path(mariana.build_index(small_disk / "towns", ENTRIES))
    with mariana.open_index(path) as index:
        index.insert([("Salta", 1)])
    remount(small_disk, "ro")
    try:
        index = mariana.open_index(path)
        with pytest.raises(StoreError):
            index.insert([("Sana", 1)])
    finally:
        remount(small_disk, "rw")
    with index:
        assert index.insert([("Sana", 1)]) == Receipt(2, 1)
        assert "Sana" in texts(index)


def test_a_journal_of_an_older_format_on_a_read_only_disk_is_refused_in_words(small_disk: Path) -> None:
    path = Path(mariana.build_index(small_disk / "towns", ENTRIES))
    with mariana.open_index(path) as index:
        index.insert([("Salta", 1)])
    connection = sqlite3.connect(path / "index.db")
    connection.executescript("ALTER TABLE meta DROP COLUMN merged; UPDATE meta SET format = 2")
    connection.close()
    remount(small_disk, "ro")
    try:
        with pytest.raises(
            StoreError, match=r"index\.db is of format 2, .*open the index once where"
        ) as caught:
            mariana.open_index(path)
        assert caught.value.errno == 30
    finally:
        remount(small_disk, "rw")
    with mariana.open_index(path) as index:
        assert "Salta" in texts(index)


def test_a_read_only_disk_after_a_crash_serves(small_disk: Path) -> None:
    path = Path(mariana.build_index(small_disk / "towns", ENTRIES))
    code = (
        "import mariana, os, sys; i = mariana.open_index(sys.argv[1]); i.insert([('Salta', 1)]); os._exit(0)"
    )
    subprocess.run(
        [sys.executable, "-c", code, path], check=True, env={**os.environ, "PYTHONPATH": str(Path.cwd())}
    )
    assert (path / "index.db-wal").stat().st_size > 0
    remount(small_disk, "ro")
    try:
        with mariana.open_index(path) as other:
            assert texts(other) == ["São Paulo", "Saigon", "Sapporo", "Salta"]
    finally:
        remount(small_disk, "rw")
