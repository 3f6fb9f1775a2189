"""`mariana serve --workers N` as real processes: whatever happens to one worker, the service goes on, and all of them agree."""

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import pytest

from mariana.building import build_index
from mariana.store import Store

TOKEN = "a token for tests"
ADMIN = {"Authorization": f"Bearer {TOKEN}"}
BODY = b'{"instances": [[1, 2, 3, 4]]}'
PREDICT = "/v1/models/tiny/predict"


class Service:
    """A server as a process, and what a test does to it."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.process = process
        self.port = port

    def ask(self, path: str, body: bytes | None = None, method: str | None = None) -> tuple[int, Any]:
        """Send a request on a connection of its own: whichever worker takes it."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request(
                method or ("GET" if body is None else "POST"), path, body, {**ADMIN, "Connection": "close"}
            )
            answer = connection.getresponse()
            text = answer.read()
        finally:
            connection.close()
        kind = answer.headers.get_content_type()
        return answer.status, json.loads(text) if kind.endswith("json") else text.decode()

    def workers(self) -> list[int]:
        """Return the processes of the workers."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(pid) for pid in children.split()]

    def metrics(self) -> dict[str, float]:
        """Return what is counted, as whichever worker tells it."""
        rows = (line.rpartition(" ") for line in self.ask("/metrics")[1].splitlines() if line[0] != "#")
        return {name: float(value) for name, _, value in rows}

    def everywhere(self, condition: Callable[[], bool], rounds: int = 30) -> None:
        """Check something often enough for every worker to have been asked; at once, without waiting."""
        assert all(condition() for _ in range(rounds))

    def eventually_everywhere(self, condition: Callable[[], bool], rounds: int = 30) -> None:
        """Wait until every worker that is asked, often enough for all of them, says so."""
        eventually(lambda: all(condition() for _ in range(rounds)))


def command(store: Path, *arguments: str, hook: str = "") -> list[str]:
    """Return the command line of a server; `hook` is Python that is run before."""
    code = f"{hook}\nfrom mariana.cli import main\nmain()"
    return [sys.executable, "-c", code, "serve", "--store", str(store), "--port", "0", *arguments]


@contextmanager
def serving(
    store: Path, *arguments: str, workers: int = 2, hook: str = "", **environment: str
) -> Iterator[Service]:
    process = subprocess.Popen(
        command(store, "--workers", str(workers), *arguments, hook=hook),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "MARIANA_ADMIN_TOKEN": TOKEN, "MARIANA_IDLE_TIMEOUT": "20", **environment},
    )
    try:
        line = process.stdout.readline()
        assert line.startswith("Console: http://"), line + process.stderr.read()
        service = Service(process, int(line.rstrip("/\n").rpartition(":")[2]))
        eventually(lambda: service.metrics()["mariana_workers"] == workers)
        yield service
    finally:
        for pid in [*(service.workers() if process.poll() is None else ()), process.pid]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.communicate()


def eventually(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < until, "it did not come about"
        time.sleep(0.01)


@pytest.fixture
def store(tmp_path: Path, make_classifier: Callable[..., bytes]) -> Path:
    Store(tmp_path).publish_model("tiny", make_classifier(seed=1))
    build_index(Store(tmp_path).new_index_path("towns"), [("Saigon", 9), ("Sapporo", 7)])
    return tmp_path


class Load:
    """Clients that ask on connections that they keep, as a library with a pool does; each error is kept."""

    def __init__(self, service: Service, clients: int = 4) -> None:
        self._service = service
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self.answers: Counter[str] = Counter()
        self.errors: list[str] = []
        self._threads = [threading.Thread(target=self._run) for _ in range(clients)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        eventually(lambda: self.count > 20)
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join(20)

    @property
    def count(self) -> int:
        return sum(self.answers.values())

    def _run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._service.port, timeout=20)
        while not self._stopping.is_set():
            try:
                connection.request("POST", PREDICT, BODY)
                answer = connection.getresponse()
                text = answer.read().decode()
                with self._lock:
                    if answer.status == 200:
                        self.answers[text] += 1
                    else:
                        self.errors.append(f"{answer.status} {text}")
                if answer.getheader("Connection") == "close":
                    connection.close()
            except (OSError, http.client.HTTPException) as error:
                with self._lock:
                    self.errors.append(repr(error))
                connection.close()
            time.sleep(0.001)
        connection.close()


def test_a_killed_worker_takes_only_its_own_requests_along(store: Path) -> None:
    with serving(store) as service, Load(service) as load:
        for _ in range(2):
            before = service.workers()
            os.kill(before[0], signal.SIGKILL)
            eventually(lambda before=before: len(set(service.workers()) - set(before)) == 1)
            assert before[1] in service.workers()
            eventually(lambda: service.metrics()["mariana_workers"] == 2)
        count = load.count
        eventually(lambda: load.count > count + 50)
        assert len(load.errors) <= 2 * 4, "a connection of each client at most, each time"
    assert len(load.answers) == 1


def test_workers_are_rolled_without_a_failure(store: Path, tmp_path: Path) -> None:
    config = tmp_path / "mariana.toml"
    config.write_text("max_values = 100\n")
    many = json.dumps({"instances": [[1, 2, 3, 4]] * 20}).encode()
    with serving(store, MARIANA_CONFIG=str(config)) as service, Load(service) as load:
        assert service.ask(PREDICT, many)[0] == 200
        before = set(service.workers())
        config.write_text("max_values = 40\n")
        service.process.send_signal(signal.SIGHUP)
        eventually(lambda: len(service.workers()) == 2 and not before & set(service.workers()))
        service.everywhere(lambda: service.ask(PREDICT, many)[0] == 413)
        assert load.errors == []
        assert service.metrics()["mariana_workers"] == 2
    assert load.errors == []


def test_workers_that_are_replaced_take_no_count_along(store: Path) -> None:
    with serving(store) as service:
        with Load(service) as load:
            before = set(service.workers())
            service.process.send_signal(signal.SIGHUP)
            eventually(lambda: len(service.workers()) == 2 and not before & set(service.workers()))
        name = 'mariana_requests_total{endpoint="POST /v1/models/{name}/predict",status="200"}'
        assert load.errors == []
        eventually(lambda: service.metrics()[name] == load.count)


def test_settings_that_are_wrong_replace_nobody(store: Path, tmp_path: Path) -> None:
    config = tmp_path / "mariana.toml"
    config.write_text("")
    with serving(store, MARIANA_CONFIG=str(config)) as service:
        before = service.workers()
        config.write_text("max_values = 0\n")
        service.process.send_signal(signal.SIGHUP)
        line = next(line for line in service.process.stderr if "the workers stay as they are" in line)
        assert "max_values" in line
        assert service.workers() == before


def test_limits_that_are_changed_hold_for_all(store: Path, tmp_path: Path) -> None:
    config = tmp_path / "mariana.toml"
    config.write_text("")
    many = json.dumps({"instances": [[1, 2, 3, 4]] * 20}).encode()
    with serving(store, workers=3, MARIANA_CONFIG=str(config)) as service:
        before = service.workers()
        for text, status in (
            ("max_values = 40\n", 413),
            ("max_body = 100\n", 413),
            ("rate_limit = 0.001\nrate_burst = 1\n", 429),
            ("", 200),
            ("max_values = 40", 413),
        ):
            config.write_text(text)
            service.eventually_everywhere(lambda status=status: service.ask(PREDICT, many)[0] == status)
        os.kill(before[0], signal.SIGKILL)
        eventually(lambda: len(set(service.workers()) - set(before)) == 1)
        os.kill(before[1], signal.SIGKILL)
        os.kill(before[2], signal.SIGKILL)
        eventually(lambda: not set(service.workers()) & set(before))
        service.eventually_everywhere(
            lambda: service.ask(PREDICT, many)[0] == 413
        )  # later workers know them too


def test_what_one_decides_holds_for_all(store: Path, make_classifier: Callable[..., bytes]) -> None:
    with serving(store, "--no-reload-store", workers=3) as service:
        Store(store).publish_model("tiny", make_classifier(seed=2))
        assert service.ask("/v2/repository/models/tiny/load", b"")[0] == 200
        service.everywhere(lambda: service.ask(PREDICT, BODY)[1]["version"] == 2)
        assert service.ask("/v1/models/tiny/policy", b'{"version": 1}', "PUT")[0] == 200
        service.everywhere(lambda: service.ask(PREDICT, BODY)[1]["version"] == 1)
        assert service.ask("/v2/repository/models/tiny/unload", b"")[0] == 200
        service.everywhere(lambda: service.ask(PREDICT, BODY)[0] == 404)
        before = service.workers()
        os.kill(before[0], signal.SIGKILL)
        eventually(lambda: len(set(service.workers()) - set(before)) == 1)
        eventually(lambda: service.metrics()["mariana_workers"] == 3)
        service.everywhere(lambda: service.ask(PREDICT, BODY)[0] == 404)  # the new one has been told
        assert service.ask("/v2/repository/models/tiny/load", b"")[0] == 200
        service.everywhere(lambda: service.ask(PREDICT, BODY)[1]["version"] == 1)
        assert service.ask("/v2/repository/models/none/load", b"")[0] == 404


ONE_LOOKS = """
from mariana.server.lifecycle import Lifecycle
watch = Lifecycle.watch
async def watched(self):
    if self._state.team.slot.number == 0:
        await watch(self)
Lifecycle.watch = watched
"""
"""One worker looks at the store; the others know only what it tells them."""


def test_what_one_notices_the_others_are_told(store: Path, make_classifier: Callable[..., bytes]) -> None:
    with serving(store, workers=3, hook=ONE_LOOKS, MARIANA_RELOAD_INTERVAL="0.1") as service:
        Store(store).publish_model("tiny", make_classifier(seed=2))
        service.eventually_everywhere(lambda: service.ask(PREDICT, BODY)[1]["version"] == 2)
        build_index(Store(store).new_index_path("trees"), [("Sapling", 1)])
        service.eventually_everywhere(lambda: service.ask("/v1/indexes/trees")[0] == 200)


def test_live_entries_are_seen_by_all(store: Path) -> None:
    with serving(store, workers=3) as service:
        entries = json.dumps({"entries": [{"text": "Sana", "score": 99}]}).encode()
        assert service.ask("/v1/indexes/towns/entries", entries)[0] == 200

        def seen() -> bool:
            document = service.ask("/v1/indexes/towns/complete?q=s&fuzzy=0")[1]
            return document["completions"][0]["text"] == "Sana"

        service.eventually_everywhere(seen)


def test_a_rate_is_that_of_all(store: Path) -> None:
    with serving(store, MARIANA_RATE_LIMIT="0.001", MARIANA_RATE_BURST="300") as service:
        statuses = Counter(service.ask("/v2")[0] for _ in range(400))
        assert set(statuses) == {200, 429}, "a bucket a worker would have had 600 tokens"


def test_a_worker_that_cannot_load_is_seen_from_all(
    store: Path, make_classifier: Callable[..., bytes]
) -> None:
    with serving(store) as service:
        good = service.ask(PREDICT, BODY)[1]
        path = Store(store).publish_model("tiny", make_classifier(seed=2))
        path.write_bytes(path.read_bytes()[:-1])
        assert service.ask("/v2/repository/models/tiny/load", b"")[0] == 200

        def told() -> bool:
            statuses = service.ask("/v1/models/tiny")[1]["model_version_status"]
            return (statuses[0]["version"], statuses[0]["status"]["error_code"]) == ("2", "DATA_LOSS")

        service.everywhere(told)
        service.everywhere(lambda: service.ask(PREDICT, BODY)[1] == good)


def test_whoever_is_asked_tells_the_sum(store: Path) -> None:
    with serving(store, workers=3) as service:
        before = service.metrics()
        for _ in range(60):
            assert service.ask(PREDICT, BODY)[0] == 200
        label = 'endpoint="POST /v1/models/{name}/predict"'
        names = {
            f'mariana_requests_total{{{label},status="200"}}': 60,
            f"mariana_request_seconds_count{{{label}}}": 60,
            'mariana_model_rows_sum{model="tiny",version="1"}': 60,
            'mariana_model_stage_seconds_count{model="tiny",version="1",stage="infer"}': 60,
        }

        def right() -> bool:
            found = service.metrics()
            return (
                all(found[name] - before.get(name, 0) == count for name, count in names.items())
                and found[f'mariana_model_loaded{{model="tiny",version="1",isa="{isa}"}}'] == 3
                and found['mariana_index_entries{index="towns"}'] == 2
                and found["mariana_inflight_requests"] == 1
            )

        isa = next(re.search('isa="(.+)"', name)[1] for name in before if "model_loaded" in name)
        service.everywhere(right)
        stats = service.ask("/v2/models/tiny/stats")[1]["model_stats"][0]
        assert (stats["inference_count"], stats["execution_count"]) == (60, 60)
        os.kill(service.workers()[0], signal.SIGKILL)  # what it has counted stays
        eventually(lambda: service.metrics()["mariana_workers"] == 3)
        service.everywhere(right)
        cpu = service.metrics()["process_cpu_seconds_total"]
        assert cpu > before["process_cpu_seconds_total"]


def test_a_hundred_reloads_under_load(store: Path, make_classifier: Callable[..., bytes]) -> None:
    with serving(store, "--no-reload-store", MARIANA_KEEP_VERSIONS="2") as service, Load(service) as load:
        for seed in range(2, 102):
            Store(store).publish_model("tiny", make_classifier(seed=seed))
            assert service.ask("/v2/repository/models/tiny/load", b"")[0] == 200
        assert service.ask(PREDICT, BODY)[1]["version"] == 101
    assert load.errors == []
    answers: dict[int, set[str]] = {}
    for text in load.answers:
        answers.setdefault(json.loads(text)["version"], set()).add(text)
    assert len(answers) > 20
    assert all(len(texts) == 1 for texts in answers.values()), "a version gives one answer, whoever gives it"
    assert len({text.partition("probability")[2] for text in load.answers}) == len(answers)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_drains(store: Path, number: signal.Signals) -> None:
    with serving(store) as service, Load(service) as load:
        service.process.send_signal(number)
        out, err = service.process.communicate(timeout=30)
        assert (service.process.returncode, out, err) == (0, "", "")
        load.__exit__()
    answered = [error for error in load.errors if error[0].isdigit()]
    assert answered == [], "connections end, but nothing that is answered fails"


def test_a_second_signal_ends_it_at_once(store: Path) -> None:
    with serving(store, MARIANA_DRAIN_SECONDS="3000") as service:
        workers = service.workers()
        service.process.terminate()
        eventually(lambda: service.ask("/v2/health/ready")[0] == 503)
        service.process.terminate()
        assert service.process.wait(30) == 0
        assert not any(Path(f"/proc/{pid}").exists() for pid in workers)


def test_a_worker_that_hangs_is_replaced(store: Path) -> None:
    with serving(store, MARIANA_WORKER_TIMEOUT="1") as service:
        before = service.workers()
        os.kill(before[0], signal.SIGSTOP)
        eventually(lambda: before[0] not in service.workers())
        assert "gave no sign of life for 1 s" in service.process.stderr.readline()
        eventually(lambda: service.metrics()["mariana_workers"] == 2)


def test_workers_end_with_their_supervisor(store: Path) -> None:
    with serving(store) as service:
        workers = service.workers()
        service.process.kill()
        service.process.wait(30)

        def ended(pid: int) -> bool:
            try:
                return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
            except OSError:
                return True

        eventually(lambda: all(map(ended, workers)))


def test_workers_come_and_go(store: Path) -> None:
    with serving(store) as service, Load(service) as load:
        service.process.send_signal(signal.SIGTTIN)
        eventually(lambda: service.metrics()["mariana_workers"] == 3)
        for left in (2, 1):
            service.process.send_signal(signal.SIGTTOU)
            eventually(lambda left=left: len(service.workers()) == left)
    assert load.errors == []


DYING = """
import os
from mariana.server.lifecycle import Lifecycle
start = Lifecycle.start
Lifecycle.start = lambda self: os.kill(os.getpid(), 9) if os.path.exists({flag!r}) else start(self)
"""
"""Workers that begin while there is a certain file are killed before they serve."""


def test_a_roll_that_cannot_succeed_leaves_the_old_ones(store: Path, tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    with serving(store, hook=DYING.format(flag=str(flag))) as service, Load(service) as load:
        before = service.workers()
        flag.touch()
        service.process.send_signal(signal.SIGHUP)
        assert "the workers are replaced one by one" in service.process.stderr.readline()
        assert "the old workers stay" in service.process.stderr.readline()
        assert service.workers() == before
        os.kill(before[0], signal.SIGKILL)  # none comes to serve in its place: the other one goes on
        assert "was killed by SIGKILL" in service.process.stderr.readline()
        count = load.count
        eventually(lambda: load.count > count + 50)
        flag.unlink()
        eventually(lambda: service.metrics()["mariana_workers"] == 2)
        assert before[1] in service.workers()


def test_a_start_that_cannot_succeed_ends(store: Path) -> None:
    done = subprocess.run(
        command(store, "--workers", "2", hook=DYING.format(flag=str(store))),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    last = done.stderr.splitlines()[-1]
    assert last.startswith("mariana: 3 workers ended before they could serve")
    assert done.stderr.count("was killed by SIGKILL; another one takes its place") == 3
    assert "Traceback" not in done.stderr
