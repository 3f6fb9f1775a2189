"""The sandbox: what a server can still do in it, and what it cannot, tried from within a real process."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from mariana.errors import MarianaError
from mariana.server import create_app, sandbox
from mariana.settings import Settings
from mariana.store import Store

needs_landlock = pytest.mark.skipif(
    sandbox.version() == 0, reason="this kernel has no landlock (Linux 5.13 or later)"
)
TOKEN = "a token for tests"

INSIDE = """
import json, os, socket, sys, threading
from pathlib import Path
from mariana.server import sandbox
from mariana.settings import Settings

store, outside = Path(sys.argv[1]), Path(sys.argv[2])
print(sandbox.enter(Settings(store=store, sandbox="on")))

def attempt(call):
    try:
        call()
    except OSError as error:
        return error.errno
    return 0

def connect():
    with socket.socket() as s:
        s.connect(("127.0.0.1", int(sys.argv[3])))

def bind():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))

calls = {
    "read /etc/passwd": lambda: open("/etc/passwd").read(),
    "list /": lambda: os.listdir("/"),
    "list /etc": lambda: os.listdir("/etc"),
    "read outside": lambda: (outside / "file").read_bytes(),
    "write outside": lambda: (outside / "new").write_bytes(b""),
    "write the model": lambda: (store / "models/tiny/1/model.safetensors").write_bytes(b""),
    "new model": lambda: (store / "models/new").mkdir(),
    "link out": lambda: os.link(outside / "file", store / "indexes/link"),
    "follow a link": lambda: (store / "out").read_bytes(),
    "run a program": lambda: os.execv("/bin/true", ["true"]),
    "connect": connect,
    "bind": bind,
    "signal the parent": lambda: os.kill(os.getppid(), 0),
    "read the store": lambda: (store / "models/tiny/1/model.safetensors").read_bytes(),
    "write an index": lambda: (store / "indexes/towns/new").write_bytes(b"x"),
    "rename in an index": lambda: os.rename(store / "indexes/towns/new", store / "indexes/towns/newer"),
    "new index": lambda: (store / "indexes/fresh").mkdir(),
    "import": lambda: __import__("sqlite3"),
    "own memory": lambda: Path("/proc/self/statm").read_text(),
}
found = {name: attempt(call) for name, call in calls.items()}
thread = threading.Thread(target=lambda: found.update({"in a thread": attempt(calls["read /etc/passwd"])}))
thread.start()
thread.join()
print(json.dumps(found))
"""


@pytest.fixture
def store(tiny_store: Path, tmp_path: Path) -> Path:
    path = tmp_path / "store"
    shutil.copytree(tiny_store, path)
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/file").write_bytes(b"secret")
    (path / "out").symlink_to(tmp_path / "outside/file")
    return path


@needs_landlock
def test_what_is_given_up(store: Path, tmp_path: Path) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = str(listener.getsockname()[1])
        done = subprocess.run(
            [sys.executable, "-c", INSIDE, store, tmp_path / "outside", port],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    told, found = done.stdout.splitlines()
    assert told.startswith(f"landlock {sandbox.version()}: ")
    given_up = {name: code for name, code in json.loads(found).items() if code}
    kept = set(json.loads(found)) - set(given_up)
    assert kept - {"connect", "bind", "signal the parent"} == {
        "read the store",
        "write an index",
        "rename in an index",
        "new index",
        "import",
        "own memory",
    }
    assert ("connect" in kept, "bind" in kept) == ((sandbox.version() < 4),) * 2
    assert ("signal the parent" in kept) == (sandbox.version() < 6)
    assert (tmp_path / "outside/file").read_bytes() == b"secret"


@needs_landlock
def test_a_server_works_in_it(store: Path, make_classifier) -> None:
    environment = {
        **os.environ,
        "MARIANA_SANDBOX": "on",
        "MARIANA_ADMIN_TOKEN": TOKEN,
        "MARIANA_RELOAD_INTERVAL": "0.1",
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "mariana", "serve", "--port", "0", "--store", store],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    try:
        url = process.stdout.readline().split()[1].rstrip("/")

        def ask(path: str, document: object = None, method: str | None = None) -> dict:
            body = None if document is None else json.dumps(document).encode()
            headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
            request = urllib.request.Request(url + path, body, headers, method=method)
            with urllib.request.urlopen(request, timeout=20) as answer:
                return json.load(answer)

        row = {"instances": [[1, 2, 3, 4]]}
        assert ask("/v1/models/tiny/predict", row)["version"] == 2
        for method in ("leave_one_out", "gradient_x_input"):
            assert ask(f"/v1/models/tiny/predict?explain={method}", row)["explain"]["method"] == method
        entries = {"entries": [{"text": "Saigon Pearl", "score": 99}]}
        assert ask("/v1/indexes/towns/entries", entries)["count"] == 1
        found = ask("/v1/indexes/towns/complete?q=sai")["completions"]
        assert found[0]["text"] == "Saigon Pearl"
        assert ask("/v1/models/tiny/policy", {"labels": {"stable": 1}}, "PUT")["labels"] == {"stable": 1}
        assert ask("/v1/models/tiny/policy", {}, "PUT")["labels"] == {}
        Store(store).publish_model("tiny", make_classifier(seed=9))
        assert ask("/v2/repository/models/tiny/load", {}, "POST") == {}
        assert ask("/v1/models/tiny/predict", row)["version"] == 3
        with urllib.request.urlopen(f"{url}/metrics", timeout=20) as answer:
            assert b"process_resident_memory_bytes" in answer.read()
        with urllib.request.urlopen(f"{url}/docs", timeout=20) as answer:
            assert answer.status == 200
        status = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii")
        assert "NoNewPrivs:\t1" in status
    finally:
        process.terminate()
        _, told = process.communicate(timeout=20)
    assert process.returncode == 0, told
    assert "sandbox: landlock" in told


def test_without_landlock(tiny_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "version", lambda: 0)
    with pytest.raises(MarianaError, match="MARIANA_SANDBOX is on, but this kernel has no landlock"):
        create_app(Settings(store=tiny_store, sandbox="on"))
    assert sandbox.enter(Settings(store=tiny_store, sandbox="auto")) is None
    assert sandbox.enter(Settings(store=tiny_store)) is None


@needs_landlock
def test_a_store_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(MarianaError, match="needs the store"):
        sandbox.enter(Settings(store=tmp_path / "nothing", sandbox="on"))
