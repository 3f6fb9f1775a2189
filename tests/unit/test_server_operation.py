"""What the server lets in, counts and logs."""

import errno
import gzip
import io
import json
import re
import signal
import time
import traceback
import zlib
from pathlib import Path

import numpy as np
import pytest
import uvicorn
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from mariana._binding.rows import json_floats
from mariana.server import create_app
from mariana.server.front import compressed
from mariana.server.limits import BUSY, CLIENTS, Gate, Limits, TokenBuckets, client_at
from mariana.server.metrics import SECONDS, Histogram, Metrics, add_up, render
from mariana.server.observe import AccessLog
from mariana.server.schedule import Cost
from mariana.server.versions import Version
from mariana.server.worker import Server
from mariana.settings import Settings

BODY = {"instances": [[1, 2, 3, 4], [5, 6, 7, 8]]}


def samples(text: str) -> dict[str, float]:
    """Read Prometheus's text format, strictly."""
    found = {}
    for line in text.splitlines():
        if line.startswith("#"):
            assert re.fullmatch(r"# (HELP [a-z_]+ .+|TYPE [a-z_]+ (counter|gauge|histogram))", line)
        else:
            match = re.fullmatch(
                r'([a-z_]+(?:\{[a-z_]+="[^"\n]*"(?:,[a-z_]+="[^"\n]*")*\})?) ([-+0-9.e]+)', line
            )
            assert match, line
            assert match[1] not in found
            found[match[1]] = float(match[2])
    return found


def test_metrics_tell_what_was_done(tiny_store: Path) -> None:
    with TestClient(create_app(Settings(store=tiny_store))) as client:
        for _ in range(3):
            client.post("/v1/models/tiny/predict", json=BODY)
        client.post("/v1/models/tiny/predict", json={"instances": [[1]]})
        client.get("/v1/indexes/towns/complete?q=sa")
        client.get("/nothing/of/this/name")
        answer = client.get("/metrics")
        assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
        found = samples(answer.text)
        predict = 'endpoint="POST /v1/models/{name}/predict"'
        assert found[f'mariana_requests_total{{{predict},status="200"}}'] == 3
        assert found[f'mariana_requests_total{{{predict},status="400"}}'] == 1
        assert found['mariana_model_errors_total{model="tiny",version="2",status="400"}'] == 1
        assert found['mariana_model_rows_sum{model="tiny",version="2"}'] == 6
        assert found['mariana_model_rows_bucket{model="tiny",version="2",le="1"}'] == 0
        assert found['mariana_model_rows_bucket{model="tiny",version="2",le="2"}'] == 3
        for stage in ("parse", "infer", "write"):
            labels = f'model="tiny",version="2",stage="{stage}"'
            assert found[f"mariana_model_stage_seconds_count{{{labels}}}"] == 3
            assert 0 < found[f"mariana_model_stage_seconds_sum{{{labels}}}"] < 1
        assert found['mariana_complete_seconds_count{index="towns"}'] == 1
        assert found['mariana_index_entries{index="towns"}'] == 4
        assert found["mariana_inflight_requests"] == 1
        assert not [name for name in found if "nothing" in name]
        stats = client.get("/v2/models/tiny/versions/2/stats").json()["model_stats"][0]
        assert (stats["inference_count"], stats["execution_count"]) == (6, 3)
        assert stats["inference_stats"]["success"]["count"] == 3
        assert stats["inference_stats"]["fail"]["count"] == 1


def test_the_queue_is_counted_where_there_is_one(tiny_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mariana.server.versions.measure", lambda *_: Cost(1e-4, 1e-4))
    with TestClient(create_app(Settings(store=tiny_store, batch_window=0.02))) as client:
        assert client.post("/v1/models/tiny/predict", json=BODY).status_code == 200
        found = samples(client.get("/metrics").text)
        labels = 'model="tiny",version="2"'
        assert found[f"mariana_model_batch_rows_sum{{{labels}}}"] == 2
        assert found[f"mariana_model_queue_seconds_count{{{labels}}}"] == 1
        assert found[f"mariana_model_queue_seconds_sum{{{labels}}}"] >= 0.02
        assert found[f"mariana_model_queued_requests{{{labels}}}"] == 0
        stats = client.get("/v2/models/tiny/versions/2/stats").json()["model_stats"][0]["inference_stats"]
        assert stats["queue"]["ns"] >= 20_000_000
        assert stats["compute_infer"]["ns"] < stats["success"]["ns"]


def test_an_independent_reader_understands_the_metrics(client: TestClient) -> None:
    parser = pytest.importorskip("prometheus_client.parser", reason="prometheus_client is not installed")
    client.get("/v2")
    families = {
        family.name: family for family in parser.text_string_to_metric_families(client.get("/metrics").text)
    }
    assert families["mariana_requests"].type == "counter"
    assert families["mariana_request_seconds"].type == "histogram"


def test_counters_of_workers_add_up() -> None:
    counted = []
    for count in (2, 3):
        metrics = Metrics()
        for _ in range(count):
            metrics.answered("x", 200, 2e-5)
        metrics.fold()
        metrics.measure()
        counted.append((metrics.cells, True))
    found = samples(render(add_up(counted)))
    assert found['mariana_requests_total{endpoint="x",status="200"}'] == 5
    assert found['mariana_request_seconds_bucket{endpoint="x",le="2.5e-05"}'] == 5
    assert found["mariana_workers"] == 2


@given(st.lists(st.floats(0, 10)))
def test_histograms_are_cumulative(values: list[float]) -> None:
    histogram = Histogram((0.1, 1.0))
    for value in values:
        histogram.observe(value)
    assert histogram.counts == [
        sum(value <= 0.1 for value in values),
        sum(0.1 < value <= 1 for value in values),
        sum(value > 1 for value in values),
    ]


def test_token_buckets() -> None:
    now = 0.0
    buckets = TokenBuckets(2, 3, lambda: now)
    assert [buckets.wait("a") for _ in range(4)] == [0, 0, 0, 0.5]
    assert buckets.wait("b") == 0
    now = 0.5
    assert [buckets.wait("a") for _ in range(2)] == [0, 0.5]
    now = 100
    assert [buckets.wait("a") for _ in range(4)] == [0, 0, 0, 0.5]
    for i in range(3 * CLIENTS):
        assert buckets.wait(str(i)) == 0
    assert buckets.wait("a") > 0, "who has used his tokens up is not forgotten"
    assert len(buckets._clients) == CLIENTS, "and no more are remembered"


@pytest.mark.parametrize(
    ("address", "client"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::1", "2001:db8:1:2::/64"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("/run/socket", "/run/socket"),
    ],
)
def test_a_network_of_ipv6_is_one_client(address: str, client: str) -> None:
    assert client_at(address) == client


def test_a_person_with_many_addresses_has_one_bucket() -> None:
    gate = Gate(Limits.of(Settings(rate_limit=1, rate_burst=2)), Metrics())
    refusals = [gate.refusal(f"2001:db8::{i:x}") for i in range(4)]
    assert [refusal is None for refusal in refusals] == [True, True, False, False]
    assert refusals[3].status == 429
    assert gate.refusal("2001:db8:0:1::1") is None


def test_a_client_may_send_so_many(tiny_store: Path) -> None:
    with TestClient(create_app(Settings(store=tiny_store, rate_limit=0.01, rate_burst=3))) as client:
        statuses = [
            client.get("/v2").status_code,
            client.post("/v1/models/tiny/predict", json=BODY).status_code,
        ]
        statuses.append(client.post("/v1/models/tiny/predict", json={"instances": []}).status_code)
        assert statuses == [200, 200, 400]
        for answer in (
            client.get("/v2"),
            client.post("/v1/models/tiny/predict", json=BODY),
            client.post("/v2/repository/index", content=b"{}"),
        ):
            assert (answer.status_code, answer.headers["content-type"]) == (429, "application/problem+json")
            assert 1 <= int(answer.headers["retry-after"]) <= 101


def test_a_busy_server_says_so(tiny_store: Path) -> None:
    app = create_app(Settings(store=tiny_store, max_inflight=1))
    with TestClient(app) as client:
        app.front.metrics.inflight = 1
        for answer in (client.get("/v2"), client.post("/v1/models/tiny/predict", json=BODY)):
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        app.front.metrics.inflight = 0
        assert client.get("/v2").status_code == 200
        assert app.front.metrics.rejected == {"busy": 2}


def test_a_refusal_that_is_raised_keeps_no_request(tiny_store: Path) -> None:
    app = create_app(Settings(store=tiny_store, max_inflight=1))
    with TestClient(app) as client:
        app.front.metrics.inflight = 1
        depths = set()
        for _ in range(3):
            assert client.post("/v1/models/tiny:predict", json=BODY).status_code == 503
            depths.add(sum(1 for _ in traceback.walk_tb(BUSY.__traceback__)))
        assert len(depths) == 1


def test_a_quick_way_that_fails_is_left_for_the_full_one(
    tiny_store: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(Version, "quick_json", fail)
    with TestClient(create_app(Settings(store=tiny_store))) as client:
        assert client.post("/v1/models/tiny/predict", json=BODY).status_code == 200
    assert "the quick way failed" in caplog.text


def test_a_log_that_cannot_be_written_harms_nothing(tiny_store: Path) -> None:
    class Full(io.StringIO):
        def write(self, _: str) -> int:
            raise OSError(errno.ENOSPC, "the disk is full")

    log = AccessLog(Settings(store=tiny_store, access_log=True), Full())
    log.write("GET", "GET /v2", 200, 0.1, "x", b"1", b"")
    log.flush()


def test_an_error_of_the_sweep_ends_no_deadlines(tiny_store: Path) -> None:
    app = create_app(Settings(store=tiny_store))
    with TestClient(app):
        app.front.connections = None  # type: ignore[assignment]
        before = app.front.now
        for _ in range(100):
            time.sleep(0.05)
            if app.front.now > before:
                break
        assert app.front.now > before


def test_request_ids_and_timing(client: TestClient) -> None:
    for path in ("/v1/models/tiny/predict", "/v1/models/tiny:predict"):
        answers = [client.post(path, json=BODY) for _ in range(2)]
        first, second = (answer.headers["x-request-id"] for answer in answers)
        assert first != second
        assert "server-timing" not in answers[0].headers
        answer = client.post(path, json=BODY, headers={"X-Request-Id": "of-mine/1", "X-Server-Timing": "1"})
        assert answer.headers["x-request-id"] == "of-mine/1"
        assert re.fullmatch(r"total;dur=\d+\.\d{3}", answer.headers["server-timing"])
        answer = client.post(path, json=BODY, headers={"X-Request-Id": "a b<script>"})
        assert "script" not in answer.headers["x-request-id"]


@pytest.mark.parametrize("form", ["text", "json"])
def test_the_access_log(tiny_store: Path, capsys: pytest.CaptureFixture[str], form: str) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    with TestClient(create_app(Settings(store=tiny_store, access_log=True, log_format=form))) as client:
        headers = {"X-Request-Id": "id-1", "traceparent": trace}
        client.post("/v1/models/tiny/predict", json=BODY, headers=headers)
        client.get("/v2/health/live", headers=headers)
        client.get("/nothing")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    if form == "json":
        first, second, third = map(json.loads, lines)
        assert (first["endpoint"], first["status"], first["request_id"]) == (
            "POST /v1/models/{name}/predict",
            200,
            "id-1",
        )
        assert (first["trace_id"], first["span_id"]) == (trace[3:35], trace[36:52])
        assert second["endpoint"] == "GET /v2/health/live"
        assert (third["endpoint"], third["status"]) == ("other", 404)
    else:
        assert re.search(
            rf"INFO testclient POST /v1/models/{{name}}/predict 200 \d+\.\d+ms id=id-1 trace={trace[3:35]}$",
            lines[0],
        )


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
@pytest.mark.parametrize("path", ["/v1/models/tiny/predict", "/v1/models/tiny:predict"])
def test_bodies_may_be_compressed_both_ways(client: TestClient, path: str, encoding: str) -> None:
    plain = client.post(path, json=BODY)
    press = gzip.compress if encoding == "gzip" else zlib.compress
    content = press(json.dumps(BODY).encode())
    headers = {"Content-Encoding": encoding, "Accept-Encoding": encoding}
    answer = client.post(path, content=content, headers=headers)
    assert (answer.status_code, answer.headers["content-encoding"]) == (200, encoding)
    assert answer.json() == plain.json()
    assert "content-encoding" not in plain.headers, "too short to be worth it"
    for broken, status in ((content[:-5], 400), (content + b"x", 400), (b"x" + content, 400)):
        assert client.post(path, content=broken, headers=headers).status_code == status
    bomb = press(b" " * (2 << 20))
    assert client.post(path, content=bomb, headers=headers).status_code == 413


def test_who_gets_a_compressed_answer() -> None:
    short, long = b"a" * 10, b"a" * 5000
    assert compressed(short, b"gzip, deflate, br") == (short, ())
    data, headers = compressed(long, b"br;q=1.0, gzip;q=0.8")
    assert gzip.decompress(data) == long
    assert dict(headers) == {b"content-encoding": b"gzip", b"vary": b"accept-encoding"}
    assert zlib.decompress(compressed(short, b"deflate")[0]) == short
    assert compressed(long, b"br, identity") == (long, ())
    assert compressed(long, b"gzip;q=0") == (long, ())


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), max_size=20))
def test_numbers_are_written_as_short_as_they_read_back(values: list[float]) -> None:
    array = np.array(values, np.float32)
    text = json_floats(array).decode()
    found = json.loads(f"[{text}]")
    assert np.array(found, np.float32).tobytes() == array.tobytes()
    for number, word in zip(array, text.split(",") if values else [], strict=True):
        digits = re.sub(r"e.*|[-.]", "", word).strip("0")
        assert len(digits) <= len(
            re.sub(r"e.*|[-.]", "", np.format_float_scientific(number, unique=True)).strip("0")
        )


@given(st.lists(st.floats(0, 3)))
def test_many_at_once_count_as_one_by_one(values: list[float]) -> None:
    one, many = Histogram(SECONDS), Histogram(SECONDS)
    for value in values:
        one.observe(value)
    many.observe_all(np.array(values))
    assert many.counts == one.counts
    assert many.total == pytest.approx(one.total)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_before_the_loop_runs_is_noted(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    server = Server(uvicorn.Config(lambda: None), drain_seconds=1, idle_timeout=1)
    monkeypatch.setattr(uvicorn.Server, "run", lambda *_: signal.raise_signal(number))
    before = [(n, signal.getsignal(n)) for n in (signal.SIGTERM, signal.SIGINT)]
    try:
        server.run([])
    finally:
        for each, handler in before:
            signal.signal(each, handler)
    assert server.should_exit
