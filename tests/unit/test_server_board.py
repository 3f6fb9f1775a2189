"""What workers share: weights that are packed once, counters, decisions; whatever one of them dies of."""

import os
import signal
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from mariana.errors import MarianaError
from mariana.model import load_model
from mariana.server.board import SERVING, VACANT, Board, Decisions
from mariana.server.cells import Cells
from mariana.server.limits import TokenBuckets
from mariana.server.metrics import Metrics, add_up
from mariana.server.weights import Weights

KEY, OTHER = b"a" * 32, b"b" * 32
WORKERS_MAX = 256


class Child:
    """A forked process that does something, says so, and stays until it is let go."""

    def __init__(self, board: Board, number: int, work: Callable[[], object]) -> None:
        self.slot = board.slots[number]
        self.slot.begin()
        self.slot.state = SERVING
        done, told = os.pipe()
        stay, self._go = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                os.close(self._go)
                kept = work()
                os.write(told, b"1")
                os.read(stay, 1)
                del kept
                os._exit(0)
            except BaseException:  # noqa: BLE001 - the parent sees that it failed
                traceback.print_exc()
            finally:
                os._exit(1)
        os.close(told)
        os.close(stay)
        self.said = os.read(done, 1)
        os.close(done)

    def end(self) -> int:
        os.close(self._go)
        status = os.waitpid(self.pid, 0)[1]
        self.slot.state = VACANT
        return os.waitstatus_to_exitcode(status)


@contextmanager
def child(board: Board, number: int, work: Callable[[], object]) -> Iterator[Child]:
    made = Child(board, number, work)
    try:
        yield made
    finally:
        assert made.end() == 0


def resident(pid: int) -> int:
    """Return the bytes of shared memory that a process counts as its own part of (Pss)."""
    total, shared = 0, False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if line[0] in "0123456789abcdef" and "-" in line.split()[0]:
            shared = "/dev/zero" in line
        elif shared and line.startswith("Pss:"):
            total += int(line.split()[1]) * 1024
    return total


def test_weights_are_in_memory_once(tmp_path: Path, make_classifier: Callable[..., bytes]) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(make_classifier(columns=8_000))
    x = np.random.default_rng(1).normal(size=(3, 8_000)).astype(np.float32)
    alone = load_model(path)
    expected = alone.predict(x)
    board = Board(4)
    weights = Weights(board)

    def load(number: int) -> Callable[[], object]:
        def work() -> object:
            weights.join(number)
            model = load_model(path, memory=weights)
            assert model.predict(x).tobytes() == expected.tobytes()
            assert model.nbytes == alone.nbytes
            return model

        return work

    with child(board, 0, load(0)) as one, child(board, 1, load(1)) as other:
        assert (one.said, other.said) == (b"1", b"1")
        assert weights.in_use() == alone.nbytes
        pages = sum(resident(found.pid) for found in (one, other)) + resident(os.getpid())
        assert alone.nbytes <= pages + 4096 < 1.1 * alone.nbytes
    weights.join(2)  # whoever comes next gives back what those who have ended left
    assert weights.in_use() == 0


def test_who_dies_while_packing_is_replaced() -> None:
    board = Board(4)
    weights = Weights(board)

    def die() -> None:
        weights.join(0)
        weights.take(KEY, 10_000, lambda _: os.kill(os.getpid(), signal.SIGKILL))

    dead = Child(board, 0, die)
    assert dead.said == b""
    assert dead.end() == -signal.SIGKILL

    def fill(block: np.ndarray) -> None:
        block[:] = 7

    def live() -> object:
        weights.join(1)
        block = weights.take(KEY, 10_000, fill)
        assert block is not None
        assert (block == 7).all()
        assert weights.take(KEY, 10_000, lambda _: pytest.fail("it is there")) is not None
        return block

    with child(board, 1, live) as found:
        assert found.said == b"1"


def test_weights_come_and_go() -> None:
    board = Board(2)
    board.slots[0].begin()
    weights = Weights(board)
    weights.join(0)
    for size in (1, 4096, 10_001):
        blocks = [weights.take(bytes([i]) * 32, size, lambda block, i=i: block.fill(i)) for i in range(5)]
        assert all(block is not None and (block == i).all() for i, block in enumerate(blocks))
        assert weights.in_use() == 5 * size
        with pytest.raises(ValueError, match="read-only"):
            blocks[0][0] = 1
        again = weights.take(bytes(32), size, lambda _: pytest.fail("it is there"))
        del blocks
        assert weights.in_use() == size
        assert again is not None
        assert (again == 0).all()
        del again
        assert weights.in_use() == 0

    def fail(_: object) -> None:
        raise MemoryError

    with pytest.raises(MemoryError):
        weights.take(OTHER, 100, fail)
    assert weights.take(OTHER, 100, lambda block: block.fill(1))[0] == 1


def test_weights_of_as_many_workers_as_there_may_be() -> None:
    board = Board(2 * WORKERS_MAX + 16)
    weights = Weights(board)
    last = len(board.slots) - 1
    board.slots[last].begin()
    weights.join(last)
    block = weights.take(KEY, 100, lambda block: block.fill(7))
    assert block is not None
    assert (block == 7).all()
    del block
    assert weights.in_use() == 0


def test_decisions_survive_whoever_makes_them() -> None:
    board = Board(2)

    def unload(decisions: Decisions) -> None:
        decisions.unloaded.append("tiny")

    board.decide(unload)

    def die(_: Decisions) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    dead = Child(board, 0, lambda: board.decide(die))
    assert dead.said == b""
    dead.end()
    assert (board.decisions().unloaded, board.changes) == (["tiny"], 1)
    board.decide(unload)  # the lock has gone with the one who had it
    assert (board.decisions().unloaded, board.changes) == (["tiny", "tiny"], 2)


def test_decisions_that_do_not_fit_leave_the_others() -> None:
    board = Board(1)
    board.decide(lambda decisions: decisions.unloaded.append("tiny"))
    with pytest.raises(MarianaError, match="too many models"):
        board.decide(lambda decisions: decisions.unloaded.append("x" * (1 << 20)))
    assert (board.decisions().unloaded, board.changes) == (["tiny"], 1)


def test_reports_are_whole_or_not_there() -> None:
    slot = Board(1).slots[0]
    assert slot.reported() is None
    slot.report({"a": "ü"})
    assert slot.reported() == {"a": "ü"}
    slot.report("x" * (1 << 20))
    assert slot.reported() is None
    slot.report([1])
    assert slot.reported() == [1]


def test_counts_outlive_a_worker() -> None:
    board = Board(2)
    slot = board.slots[0]
    for _ in range(3):  # one after the other in the same place
        metrics = Metrics(slot.cells())
        metrics.inflight = 5
        for _ in range(4):
            metrics.answered("x", 200, 0.5)
        metrics.model("m", 1).observe(2, 0.0, 0.1, 0.2, 0.3)
        metrics.fold()
        metrics.measure()
    there, gone = (add_up([(slot.cells(), live)]) for live in (True, False))
    for found in (there, gone):
        assert found["mariana_requests_total", (("endpoint", "x"), ("status", "200"))] == [12]
        assert found["mariana_model_rows", (("model", "m"), ("version", "1"))][-1] == 6
    assert there["mariana_inflight_requests", ()] == [5]
    assert ("mariana_inflight_requests", ()) not in gone


def test_what_does_not_fit_is_not_counted(caplog: pytest.LogCaptureFixture) -> None:
    cells = Cells()
    for i in range(16_000):
        cells.row("x", {"a": str(i)}, 20)[:] = 1
    assert caplog.text.count("too many models") == 1
    assert all((row == 1).all() for _, row in cells)
    assert cells.row("x", {"a": "0"}, 20).sum() == 20


def there(metrics: Metrics) -> dict[tuple[str, str], float]:
    """Return the rows that each version has answered."""
    found = add_up([(metrics.cells, True)]).items()
    return {(k[0][1], k[1][1]): row[-1] for (name, k), row in found if name == "mariana_model_rows"}


def note(metrics: Metrics, model: str, version: int) -> None:
    """Let a version answer as many rows as its number, and let it be told as one that serves."""
    metrics.model(model, version).observe(version, 0.0, 0.1, 0.2, 0.3)
    for name in ("mariana_model_bytes", "mariana_model_queued_requests"):
        metrics.gauge(name, {"model": model, "version": str(version)}, 1)
    metrics.gauge("mariana_model_loaded", {"model": model, "version": str(version), "isa": "generic"}, 1)
    metrics.index(f"index {version}").complete.observe(0.1)
    metrics.index(f"index {version}").complete.fold()
    metrics.model(model, version).fold()


def test_however_many_versions_there_have_been_those_that_serve_are_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    board = Board(2)
    metrics, seen = Metrics(board.slots[0].cells()), Metrics(board.slots[0].cells())
    note(metrics, "other", 7)
    metrics.model("other", 7).error("400")
    metrics.answered("x", 200, 0.5)
    metrics.fold()
    for version in range(1, 4001):
        note(metrics, "m", version)
        present = {("m", version), ("m", version - 1), ("other", 7)}
        metrics.retain(present, {f"index {version}"})
        if version % 500 == 0:  # whoever reads, now and then or for the first time, sees the same
            told = [there(reader) for reader in (metrics, seen, Metrics(board.slots[0].cells()))]
            assert told[0] == told[1] == told[2]
            assert told[0]["m", str(version)] == version
            assert told[0]["m", str(version - 1)] == version - 1
            assert told[0]["other", "7"] == 7
            assert all(rows == int(number) for (_, number), rows in told[0].items())
    assert caplog.text == ""
    assert 1 < metrics.cells._drops < 10, "only where there is not much room"
    found = add_up([(board.slots[0].cells(), True)])
    assert found["mariana_requests_total", (("endpoint", "x"), ("status", "200"))] == [1]
    errors = (("model", "other"), ("version", "7"), ("status", "400"))
    assert found["mariana_model_errors_total", errors] == [1]
    assert found["mariana_complete_seconds", (("index", "index 4000"),)][-1] == pytest.approx(0.1)


def test_a_version_that_comes_back_soon_is_counted_on() -> None:
    metrics = Metrics()
    note(metrics, "m", 3)
    metrics.retain(set(), set())
    note(metrics, "m", 3)
    assert there(metrics) == {("m", "3"): 6}


def test_who_counts_on_uses_what_is_free() -> None:
    slot = Board(1).slots[0]
    cells = slot.cells()
    for i in range(10):
        cells.row("x", {"a": str(i)}, 20)[:] = i
    cells.drop(lambda _, labels: labels["a"] in "3456")
    later = slot.cells()  # of the next worker
    later.row("x", {"a": "y"}, 7)[:] = 70
    later.row("x", {"a": "z"}, 73)[:] = 80
    later.row("x", {"a": "w"}, 74)[:] = 90
    found = {dict(labels)["a"]: (set(row), len(row)) for (_, labels), row in slot.cells()}
    assert found == {
        **{str(i): ({float(i)}, 20) for i in (0, 1, 2, 7, 8, 9)},
        "y": ({70.0}, 7),
        "z": ({80.0}, 73),
        "w": ({90.0}, 74),
    }
    assert [row.begin for row in later._rows.values()][-3:] == [60, 67, 200]


def test_one_that_dies_while_dropping_leaves_all_rows() -> None:
    board = Board(1)
    cells = board.slots[0].cells()
    for i in range(100):
        cells.row("x", {"a": str(i)})[0] = i

    class Deadly:
        def __init__(self, head: memoryview) -> None:
            self.head = head

        def __getitem__(self, word: int) -> int:
            return self.head[word]

        def __setitem__(self, word: int, value: int) -> None:
            if word == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            self.head[word] = value

    def die() -> None:
        mine = board.slots[0].cells()
        mine._head = Deadly(mine._head)
        mine.drop(lambda _, labels: labels["a"] != "7")

    dead = Child(board, 0, die)
    assert dead.said == b""
    dead.end()
    later = board.slots[0].cells()
    assert [row[0] for _, row in later] == list(range(100))
    later.drop(lambda _, labels: labels["a"] != "7")
    assert [row[0] for _, row in board.slots[0].cells()] == [7]
    assert [row[0] for _, row in cells] == [7]


def test_buckets_are_those_of_all_workers() -> None:
    memory = Board(1).clients
    one, other = (TokenBuckets(1, 3, lambda: 5.0, memory) for _ in range(2))
    assert [one.wait("a"), other.wait("a"), one.wait("a"), other.wait("a")] == [0, 0, 0, 1]
    assert other.wait("b") == 0
