"""`mariana serve` as a real process: it says where it is, answers, and ends with 0 when told to."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mariana import build_index
from mariana.errors import InvalidInputError
from mariana.settings import load_settings
from mariana.store import Store


@contextmanager
def serving(*arguments: str, **environment: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "mariana", "serve", "--port", "0", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )
    try:
        line = process.stdout.readline()
        assert line.startswith("Console: http://"), line + process.stderr.read()
        yield process, line.split()[1]
    finally:
        process.kill()
        process.communicate()


def _get(url: str, body: bytes | None = None, **headers: str) -> tuple[dict[str, str], dict]:
    with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=20) as answer:
        return {name.lower(): value for name, value in answer.headers.items()}, json.load(answer)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_and_stops(tiny_store: Path, number: signal.Signals) -> None:
    with serving("--store", str(tiny_store)) as (process, url):
        headers, document = _get(f"{url}v1/models/tiny/predict", b'{"instances": [[1, 2, 3, 4]]}')
        assert document["model"] == "tiny"
        assert "server" not in headers
        process.send_signal(number)
        out, err = process.communicate(timeout=20)
        assert (process.returncode, out, err) == (0, "", "")


@pytest.mark.skipif(sys.platform != "linux", reason="counts what /proc tells")
def test_a_server_is_small(tiny_store: Path) -> None:
    with serving("--store", str(tiny_store), OPENBLAS_NUM_THREADS="1") as (process, _):
        told = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
        own = next(int(line.split()[1]) for line in told.splitlines() if line.startswith("Anonymous:"))
        assert own / 1000 < 55
        mapped = Path(f"/proc/{process.pid}/maps").read_text()
        assert "matplotlib" not in mapped
        assert "pyarrow" not in mapped


def test_several_workers(tiny_store: Path) -> None:
    with serving("--workers", "2", MARIANA_STORE=str(tiny_store)) as (process, url):
        assert _get(f"{url}v1/indexes")[1]["indexes"][0]["name"] == "towns"
        process.terminate()
        process.communicate(timeout=20)
        assert process.returncode == 0


def test_a_missing_store_gets_a_hint(tmp_path: Path) -> None:
    with serving("--store", str(tmp_path / "none")) as (process, url):
        assert _get(f"{url}v1/models")[1] == {"models": []}
        process.terminate()
        assert "mariana demo" in process.communicate(timeout=20)[1]


def test_a_broken_request_line_harms_nobody(tiny_store: Path) -> None:
    with serving("--store", str(tiny_store)) as (_, url):
        host, port = url.removeprefix("http://").strip("/").split(":")
        for raw in (
            b"\x16\x03\x01\x02\x00",
            b"GET / HTTP/9.9\r\n\r\n",
            b"POST /v1 HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        ):
            with socket.create_connection((host, int(port)), timeout=20) as connection:
                connection.sendall(raw)
                head, _, body = connection.makefile("rb").read().partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 400 Bad Request\r\n")
            assert b"\r\ncontent-type: application/problem+json\r\n" in head
            assert f"\r\ncontent-length: {len(body)}\r\n".encode() in head + b"\r\n"
            assert json.loads(body)["status"] == 400
        assert _get(f"{url}v2/health/live")[1] == {"live": True}


@pytest.mark.parametrize("case", ["taken", "foreign"])
def test_an_address_that_cannot_be_had(case: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        arguments = ["--port", port] if case == "taken" else ["--host", "192.0.2.1", "--port", "0"]
        done = subprocess.run(
            [sys.executable, "-m", "mariana", "serve", *arguments],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("mariana: cannot listen on ")
    assert len(done.stderr.splitlines()) == 1


def test_an_instruction_set_that_is_none_ends_it() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mariana", "serve", "--port", "0"],
        env={**os.environ, "MARIANA_ISA": "sse9"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("mariana: unknown instruction set 'sse9'; known here: generic")


@pytest.mark.parametrize(("trusted", "clients"), [("", 1), ("10.0.0.0/8,127.0.0.1", 3), ("10.0.0.0/8", 1)])
def test_whom_a_proxy_speaks_for_counts_only_where_it_is_trusted(
    tmp_path: Path, trusted: str, clients: int
) -> None:
    build_index(Store(tmp_path).new_index_path("towns"), [("Saigon", 9)])
    with serving("--store", str(tmp_path), MARIANA_LEARN="on", MARIANA_TRUSTED_PROXIES=trusted) as (_, url):
        body = b'{"query": "sai", "text": "Saigon"}'
        told = [
            _get(f"{url}v1/indexes/towns/selections", body, **{"X-Forwarded-For": f"192.0.2.{n}"})[1]
            for n in range(3)
        ]
    assert sum(answer["count"] for answer in told) == clients


@pytest.mark.parametrize(("trusted", "refused"), [("", 7), ("127.0.0.1", 0)])
def test_rates_are_of_the_clients_that_a_trusted_proxy_names(
    tiny_store: Path, trusted: str, refused: int
) -> None:
    """On one connection, as a proxy keeps it."""
    environment = {
        "MARIANA_RATE_LIMIT": "0.001",
        "MARIANA_RATE_BURST": "3",
        "MARIANA_TRUSTED_PROXIES": trusted,
    }
    with serving("--store", str(tiny_store), **environment) as (_, url):
        connection = http.client.HTTPConnection(url.split("/")[2], timeout=20)
        codes = []
        for n in range(10):
            headers = {"X-Forwarded-For": f"192.0.2.{n}", "Content-Type": "application/json"}
            connection.request("POST", "/v1/models/tiny/predict", b'{"instances": [[1, 2, 3, 4]]}', headers)
            answer = connection.getresponse()
            answer.read()
            codes.append(answer.status)
        connection.close()
    assert codes.count(200) == 10 - refused
    assert codes.count(429) == refused


def test_a_trusted_proxy_is_an_address() -> None:
    with pytest.raises(InvalidInputError, match=r"10\.0\.0\.0/8"):
        load_settings(trusted_proxies="proxy.example")
