"""Live updates between processes: what one process is told of, others complete."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from mariana_client import AuthenticationError, Mariana

import mariana
from mariana.store import Store

ROOT = Path(__file__).parents[2]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    mariana.build_index(Store(tmp_path).new_index_path("towns"), [("Saigon", 9), ("Sapporo", 7)])
    return tmp_path


@pytest.fixture
def urls(store: Path) -> Iterator[list[str]]:
    """Two servers of one store, each a process of its own."""
    command = [sys.executable, "-m", "mariana", "serve", "--store", store, "--port", "0"]
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "MARIANA_ADMIN_TOKEN": "secret",
        "MARIANA_LEARN": "on",
    }
    servers = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    try:
        found = [re.search(r"http://\S+", server.stdout.readline()) for server in servers]
        yield [match[0].rstrip("/") for match in found]
    finally:
        for server in servers:
            server.terminate()
        for server in servers:
            server.wait(20)
            server.stdout.close()


def wait_for(condition) -> None:
    until = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.005)


def test_every_process_sees_every_change(store: Path, urls: list[str]) -> None:
    with Mariana(urls[0], api_key="secret") as one, Mariana(urls[1], api_key="secret") as other:

        def texts(client: Mariana) -> list[str]:
            return [completion.text for completion in client.complete("towns", "s", fuzzy=0)]

        for number in range(10):
            writer, reader = (one, other) if number % 2 else (other, one)
            assert writer.insert("towns", [(f"s{number}", 100 + number)]).count == 1
            assert texts(writer)[0] == f"s{number}"
            wait_for(lambda reader=reader, number=number: texts(reader)[0] == f"s{number}")
        assert one.delete("towns", [f"s{number}" for number in range(10)]).sequence == 11
        assert other.select("towns", "sap", "Sapporo").count == 1
        for client in (one, other):
            wait_for(lambda client=client: texts(client) == ["Sapporo", "Saigon"])
        mariana.build_index(store / "indexes/towns", [("Sana", 1)])
        for client in (one, other):
            wait_for(lambda client=client: texts(client) == ["Sana"])
    with Mariana(urls[0]) as nobody, pytest.raises(AuthenticationError):
        nobody.insert("towns", ["x"])
