"""Under load: reloads that nobody notices, overload that is told, clients that dawdle, and an orderly end."""

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mariana.model import load_model
from mariana.store import Store

BODY = b'{"instances": [[1, 2, 3, 4]]}'
TOKEN = "a token for tests"
RELOADS = 100


def address(url: str) -> tuple[str, int]:
    host, port = url.removeprefix("http://").strip("/").split(":")
    return host, int(port)


def test_reloads_fail_no_request_and_mix_no_versions(
    serving, tmp_path: Path, make_classifier: Callable[..., bytes]
) -> None:
    store = Store(tmp_path / "store")
    models = [make_classifier(seed=seed) for seed in range(7)]
    x = np.array([[1, 2, 3, 4]], np.float32)
    expected: dict[int, list[float]] = {}

    def publish(i: int) -> None:
        path = store.publish_model("net", models[i % len(models)])
        expected[int(path.parent.name)] = load_model(path).predict(x)[0].tolist()

    publish(0)
    faults: list[object] = []
    seen: list[int] = []
    stop = threading.Event()

    def ask(url: str, path: str) -> None:
        connection = http.client.HTTPConnection(*address(url), timeout=20)
        while not stop.is_set():
            connection.request("POST", path, BODY)
            answer = connection.getresponse()
            document = json.loads(answer.read())
            if answer.status != 200:
                faults.append(document)
                return
            if path.endswith(":predict"):
                continue
            probabilities = np.float32(document["predictions"][0]["probabilities"]).tolist()
            if probabilities != expected[document["version"]]:
                faults.append(document)
            seen.append(document["version"])
        connection.close()

    with serving(store.path, admin_token=TOKEN, keep_versions=2, reload_store=False) as url:
        paths = ("/v1/models/net/predict", "/v1/models/net/predict", "/v1/models/net:predict")
        threads = [threading.Thread(target=ask, args=(url, path)) for path in paths]
        for thread in threads:
            thread.start()
        headers = {"Authorization": f"Bearer {TOKEN}"}
        for i in range(1, RELOADS + 1):
            publish(i)
            request = urllib.request.Request(f"{url}/v2/repository/models/net/load", b"", headers)
            with urllib.request.urlopen(request, timeout=20) as answer:
                assert answer.status == 200
        with urllib.request.urlopen(f"{url}/v1/models/net/predict", BODY, timeout=20) as answer:
            assert json.load(answer)["version"] == RELOADS + 1
        stop.set()
        for thread in threads:
            thread.join()
    assert faults == []
    assert len(set(seen)) > 5


def exchange(url: str, *parts: bytes, pause: float = 0.0) -> bytes:
    """Send parts with pauses, and return everything until the server closes."""
    with socket.create_connection(address(url), timeout=10) as connection:
        for part in parts:
            connection.sendall(part)
            time.sleep(pause)
        received = b""
        while True:
            try:
                data = connection.recv(65536)
            except ConnectionResetError:
                return received
            if not data:
                return received
            received += data


HEAD = b"POST /v1/models/tiny/predict HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n"


def test_who_dawdles_is_cut_off_and_harms_nobody(serving, tiny_store: Path) -> None:
    with serving(tiny_store, head_timeout=0.3, body_timeout=0.3, idle_timeout=0.3, max_inflight=2) as url:
        slow = [
            (b"",),
            (b"POST /v1",),
            (HEAD % 29,),
            (HEAD % 29 + b"\r\n" + BODY[:10],),
            (b"POST /v1/models/tiny:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 29\r\n\r\n" + BODY[:10],),
            (b"\r\n" * 10,),
        ]
        answers: dict[int, bytes] = {}
        threads = [
            threading.Thread(target=lambda i=i, parts=parts: answers.update({i: exchange(url, *parts)}))
            for i, parts in enumerate(slow * 5)
        ]
        for thread in threads:
            thread.start()
        for _ in range(10):
            with urllib.request.urlopen(f"{url}/v1/models/tiny/predict", BODY, timeout=5) as answer:
                assert answer.status == 200
        for thread in threads:
            thread.join()
        for i, answer in answers.items():
            if slow[i % len(slow)][0].strip():
                assert answer.startswith(b"HTTP/1.1 408 "), (slow[i % len(slow)], answer)
                assert len(answer) < 1000
        idle = exchange(url, HEAD % len(BODY) + b"\r\n" + BODY)
        assert idle.startswith(b"HTTP/1.1 200 ")


def test_long_heads_are_refused(serving, tiny_store: Path) -> None:
    with serving(tiny_store) as url:
        for raw in (
            b"GET / HTTP/1.1\r\nX: " + b"a" * 20_000 + b"\r\n\r\n",
            b"GET / HTTP/1.1\r\nX: " + b"a" * 20_000,
            b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\n\r\n",
            b"GET / HTTP/1.1\r\n" + b"X: a\r\n" * 100 + b"\r\n",
            HEAD % len(BODY) + b"X: a\r\n" * 100 + b"\r\n" + BODY,
        ):
            answer = exchange(url, raw)
            assert answer.startswith(b"HTTP/1.1 431 "), (raw[:40], answer[:100])


def test_pipelined_requests_are_answered_in_order(serving, tiny_store: Path) -> None:
    quick = HEAD % len(BODY) + b"\r\n" + BODY
    slow = b"GET /v2 HTTP/1.1\r\nHost: x\r\n\r\n"
    last = b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    with serving(tiny_store) as url:
        for requests in (
            (quick, quick),
            (quick, slow, quick),
            (slow, quick, slow),
            (slow, slow, quick, quick),
        ):
            raw = exchange(url, b"".join(requests) + last)
            kinds = [b"predictions" in part for part in raw.split(b"HTTP/1.1 200 OK")[1:-1]]
            assert kinds == [request is quick for request in requests]


def test_too_many_connections_are_told(serving, tiny_store: Path) -> None:
    with serving(tiny_store, max_connections=3) as url:
        held = [socket.create_connection(address(url), timeout=10) for _ in range(3)]
        for connection in held:
            connection.sendall(HEAD % len(BODY) + b"\r\n" + BODY)
            assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
        answer = exchange(url)
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"\r\nretry-after: 1\r\n" in answer
        for connection in held:
            connection.close()


def test_overload_is_told_at_once(serving, tiny_store: Path) -> None:
    """A burst of more requests than may be under way: some are answered, the others get 503 with Retry-After."""
    request = b"GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n"
    with serving(tiny_store, max_inflight=4) as url:
        connections = [socket.create_connection(address(url), timeout=10) for _ in range(60)]
        for _ in range(3):
            statuses = []
            for connection in connections:
                with contextlib.suppress(OSError):  # it was closed with its 503
                    connection.sendall(request)
            for i, connection in enumerate(connections):
                try:
                    head = connection.recv(65536)
                except OSError:
                    head = b""
                if b" 503 " in head[:20]:
                    assert b"\r\nretry-after: 1\r\n" in head
                    statuses.append(503)
                elif b" 200 " in head[:20]:
                    statuses.append(200)
                if b" 200 " not in head[:20]:
                    connection.close()
                    connections[i] = socket.create_connection(address(url), timeout=10)
            assert 200 in statuses
        for connection in connections:
            connection.close()
        with urllib.request.urlopen(f"{url}/v1/models", timeout=5) as answer:
            assert answer.status == 200


def test_who_is_refused_is_read_from_a_little_later(serving, tiny_store: Path) -> None:
    """Refusals are not given as fast as they are asked for; the connection stays, and is served when there is room."""
    request = HEAD % len(BODY) + b"\r\n" + BODY
    with (
        serving(tiny_store, rate_limit=20, rate_burst=1) as url,
        socket.create_connection(address(url), timeout=10) as connection,
    ):
        statuses, begun = [], time.monotonic()
        while statuses.count(200) < 3:
            connection.sendall(request)
            answer = connection.recv(65536)
            assert b" 200 " in answer[:16] or b"\r\nretry-after: 1\r\n" in answer
            statuses.append(int(answer[9:12]))
        refused = statuses.count(429)
        assert 1 <= refused <= 4 * (time.monotonic() - begun) + 2


def test_it_drains_before_it_stops(tiny_store: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "mariana", "serve", "--port", "0", "--store", str(tiny_store)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "MARIANA_DRAIN_SECONDS": "1"},
    )
    try:
        url = process.stdout.readline().split()[1]
        kept = http.client.HTTPConnection(*address(url), timeout=10)
        kept.request("POST", "/v1/models/tiny/predict", BODY)
        answer = kept.getresponse()
        assert (answer.status, answer.getheader("connection")) == (200, None)
        answer.read()
        process.send_signal(signal.SIGTERM)
        for _ in range(100):
            probe = http.client.HTTPConnection(*address(url), timeout=5)
            probe.request("GET", "/v2/health/ready")
            answer = probe.getresponse()
            ready = json.loads(answer.read())["ready"]
            probe.close()
            if not ready:
                assert answer.status == 503
                break
            time.sleep(0.01)
        else:
            pytest.fail("it stayed ready")
        kept.request("POST", "/v1/models/tiny/predict", BODY)
        answer = kept.getresponse()
        assert (answer.status, answer.getheader("connection")) == (200, "close")
        answer.read()
        with urllib.request.urlopen(f"{url}v1/models", timeout=5) as answer:
            assert (answer.status, answer.headers["connection"]) == (200, "close")
        out, err = process.communicate(timeout=20)
        assert (process.returncode, out, err) == (0, "", "")
    finally:
        process.kill()
        process.communicate()
