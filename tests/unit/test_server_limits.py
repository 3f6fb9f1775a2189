"""Limits that follow the settings file while the server runs."""

import logging
import os
import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from mariana.errors import InvalidInputError
from mariana.server import create_app
from mariana.server.limits import Limits, TokenBuckets
from mariana.server.settings_file import SettingsFile
from mariana.settings import Settings, load_settings

PREDICT = "/v1/models/tiny/predict"
ROW = [1, 2, 3, 4]


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "mariana.toml"
    monkeypatch.setenv("MARIANA_CONFIG", str(path))
    path.write_text("")
    return path


def put(file: Path, text: str, age: float = 10.0) -> None:
    """Write the file as if it had been done some seconds ago; each time another time."""
    file.write_text(text)
    put.count += 1
    when = time.time() - age + put.count * 1e-3
    os.utime(file, (when, when))


put.count = 0


def test_every_limit_is_a_setting() -> None:
    assert set(Limits.__slots__) <= set(Settings.model_fields)
    settings = Settings(max_inflight=7, head_timeout=2)
    limits = Limits.of(settings)
    assert all(getattr(limits, name) == getattr(settings, name) for name in Limits.__slots__)
    assert limits.become(Limits.of(Settings(max_inflight=9, head_timeout=2))) == {"max_inflight": 9}
    assert limits.max_inflight == 9


def test_a_file_is_read_when_it_has_changed(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    reads, changes = [], []

    def read() -> Settings:
        reads.append(1)
        return load_settings(workers=3)

    limits = Limits.of(Settings())
    followed = SettingsFile(Settings(workers=3), read, limits, lambda: changes.append(1))
    with caplog.at_level(logging.INFO, "mariana.server"):
        put(file, "")
        for _ in range(3):
            followed.look()
        assert (len(reads), changes) == (1, [])
        put(file, "max_inflight = 5\nport = 9\nworkers = 9\n")
        for _ in range(3):
            followed.look()
        assert (len(reads), len(changes), limits.max_inflight) == (2, 1, 5)
        put(file, "max_body = 'many'\n")  # damaged: nothing changes
        for _ in range(3):
            followed.look()
        assert (len(reads), len(changes), limits.max_inflight) == (3, 1, 5)
        file.unlink()  # gone: nothing changes
        followed.look()
        assert (len(reads), limits.max_inflight) == (3, 5)
        put(file, "port = 9\n")
        followed.look()
        assert (len(changes), limits.max_inflight) == (2, Settings().max_inflight)
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == [
        "limits",
        "changed, and in force from the next start or SIGHUP",
        "the limits stay as they are",
        "limits",
    ]
    assert "max_inflight is 5 now" in caplog.records[0].getMessage()
    assert caplog.records[1].getMessage().endswith(": port"), "an option wins over the file"
    assert "max_body" in caplog.records[2].getMessage()


def test_a_file_that_may_be_half_written_is_read_again(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    reads = []

    def read() -> Settings:
        reads.append(1)
        raise InvalidInputError("half of it")

    followed = SettingsFile(Settings(), read, Limits.of(Settings()), lambda: None)
    put(file, "", age=-0.0)
    os.utime(file)
    followed.look()
    followed.look()
    assert len(reads) >= 1
    assert followed._seen is None or len(reads) == 1
    os.utime(file, (1, 1))
    before = len(reads)
    followed.look()
    followed.look()
    assert len(reads) == before + 1
    assert len(caplog.records) == 1
    future = time.time() + 1000  # by a clock that is wrong: it is not read for ever
    os.utime(file, (future, future))
    followed.look()
    followed.look()
    assert len(reads) == before + 2


def test_a_running_application_follows_the_file(
    file: Path, tiny_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MARIANA_STORE", str(tiny_store))
    monkeypatch.setenv("MARIANA_MAX_BINARY_BODY", "160")
    with TestClient(create_app()) as client:

        def status(rows: int, **headers: str) -> int:
            if headers:
                return client.post(PREDICT, content=bytes(16 * rows), headers=headers).status_code
            return client.post(PREDICT, json={"instances": [ROW] * rows}).status_code

        def eventually(condition: Callable[[], bool]) -> None:
            until = time.monotonic() + 30
            while not condition():
                assert time.monotonic() < until, "it did not come about"
                time.sleep(0.01)

        octets = {"Content-Type": "application/octet-stream"}
        for rows in (1, 2, 20, 200):
            assert status(rows) == 200
        for most in (8, 40, 4):  # fewer than a few rows, more, and one alone
            put(file, f"max_values = {most}\n")
            eventually(lambda most=most: (status(most // 4), status(most // 4 + 1)) == (200, 413))
            assert status(most // 4 + 1, **octets) == 413
            size = client.get("/v2/models/tiny/config").json()["max_batch_size"]
            assert size == most // 4
        put(file, "max_binary_body = 1000000\n")  # the environment wins
        eventually(lambda: status(2) == 200)
        assert (status(10, **octets), status(11, **octets)) == (200, 413)
        put(file, "max_body = 30\n")
        eventually(lambda: status(3) == 413)
        assert status(1) == 200
        put(file, "rate_limit = 0.001\nrate_burst = 2\n")
        eventually(lambda: status(1) == 429)
        put(file, "rate_limit = 1000000\nrate_burst = 2\n")
        eventually(lambda: status(1) == 200)
        put(file, "")
        eventually(lambda: status(100) == 200)


def test_settings_that_are_given_stay(file: Path, tiny_store: Path) -> None:
    put(file, "max_values = 4\n")
    with TestClient(create_app(Settings(store=tiny_store, max_values=8))) as client:
        put(file, "max_values = 16\n")
        time.sleep(0.2)
        assert client.post(PREDICT, json={"instances": [ROW] * 3}).status_code == 413


def test_a_bucket_that_was_deeper_is_no_emptier_than_empty() -> None:
    now = 0.0
    buckets = TokenBuckets(1, 100, lambda: now)
    assert [buckets.wait("a") for _ in range(101)] == [0.0] * 100 + [1.0]
    buckets.rate, buckets.burst = 100, 100
    assert buckets.wait("a") == pytest.approx(0.01)
    now = 0.02
    assert buckets.wait("a") == 0


def test_the_documents_say_which_are_live() -> None:
    document = (Path(__file__).parents[2] / "docs" / "settings.md").read_text(encoding="utf-8")
    marked = re.findall(r"^\| `MARIANA_(\w+)` \| [^|]* \| \*live\*: ", document, re.MULTILINE)
    assert {name.lower() for name in marked} == set(Limits.__slots__)
