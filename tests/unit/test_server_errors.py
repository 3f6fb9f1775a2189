"""Bad input over HTTP: always one of our 4xx, in one shape, under 1 kB, and nothing of the input in it."""

import gzip
import io
import json
from collections.abc import Iterator

import numpy as np
import pytest
from starlette.testclient import TestClient

MARK = "xyzzy"  # stands in bad inputs; no answer may hold it
JSON, OCTETS, NPY = "application/json", "application/octet-stream", "application/x-npy"


def _check(answer, status: int) -> dict:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert len(answer.content) < 1000
    assert MARK not in answer.text
    document = answer.json()
    assert set(document) == {"type", "title", "status", "detail", "error", "errors"}
    assert (document["status"], document["error"]) == (status, document["detail"])
    assert document["detail"]
    for error in document["errors"]:
        assert set(error) == {"pointer", "detail"}
    return document


def _rows(row: str) -> str:
    return f'{{"instances": [[1, 2, 3, 4], {row}]}}'


def _record(members: str) -> str:
    return f'{{"instances": [{{{members}}}]}}'


GOOD = '"x0": 1, "x1": 2, "x2": 3'


@pytest.mark.parametrize(
    ("body", "status", "pointer"),
    [
        # malformed
        ("", 400, None),
        ("{", 400, None),
        ("[[NaN]]", 400, None),
        ("[[1e999]]", 400, None),
        ('"\\ud800"', 400, None),
        (MARK, 400, None),
        (_rows("[NaN, 1, 1, 1]"), 400, None),
        (_rows("[-Infinity, 1, 1, 1]"), 400, None),
        (_rows("[1, 2, 3, 4],"), 400, None),
        (_rows("[01, 2, 3, 4]"), 400, None),
        (_rows("[0x1, 2, 3, 4]"), 400, None),
        (_rows("[1 2, 3, 4]"), 400, None),
        (_rows("[1, 2, 3, 4]") + "\0", 400, None),
        ("\ufeff" + _rows("[1, 2, 3, 4]"), 400, None),
        ("[" * 400_000, 400, None),
        ('{"a":' * 100_000, 400, None),
        ("[" * 9 + "]" * 9, 400, None),
        ('{"instances": [], "instances": [[1, 2, 3, 4]]}', 400, None),
        (_record(f'{GOOD}, "x3": 1, "x3": 2'), 400, None),
        ("{" + ",".join(f'"{MARK}{i}":{i}' for i in range(50_000)) + "}", 400, "/instances"),
        # wrong shape or type
        ("null", 400, None),
        ("{}", 400, "/instances"),
        ('{"instances": null}', 400, "/instances"),
        ('{"instances": []}', 400, "/instances"),
        ('{"instances": {}}', 400, "/instances"),
        (f'{{"instances": "{MARK}"}}', 400, "/instances"),
        ('{"instances": "\\ud800"}', 400, "/instances"),
        ('{"instances": [1, 2, 3, 4]}', 400, "/instances/0"),
        (_rows("[]"), 400, "/instances/1"),
        (_rows("[1, 2, 3]"), 400, "/instances/1"),
        (_rows("[1, 2, 3, 4, 5]"), 400, "/instances/1"),
        (_rows("[[1], 2, 3, 4]"), 400, "/instances/1/0"),
        (_rows("[1, true, 3, 4]"), 400, "/instances/1/1"),
        (_rows('[1, "3", 3, 4]'), 400, "/instances/1/1"),
        (_rows(f'[1, "{MARK}\\ud800", 3, 4]'), 400, "/instances/1/1"),
        (_rows("[1, 2, null, 4]"), 400, "/instances/1/2"),
        (_rows("[1, 2, {}, 4]"), 400, "/instances/1/2"),
        (_rows("{}"), 400, "/instances/1"),
        (_rows("null"), 400, "/instances/1"),
        (_record(GOOD), 400, "/instances/0/x3"),
        (_record(f'{GOOD}, "x3": 4, "{MARK}": 4'), 400, "/instances/0"),
        (_record(f'{GOOD}, "x3": 4, "{MARK}\\ud800": 4'), 400, "/instances/0"),
        (_record(f'{GOOD}, "x3": true'), 400, "/instances/0/x3"),
        (_record(f'{GOOD}, "x3": "{MARK}"'), 400, "/instances/0/x3"),
        (_record(f'{GOOD}, "x3": [4]'), 400, "/instances/0/x3"),
        (_record(f'{GOOD}, "x3": null'), 400, "/instances/0/x3"),
        # a value out of its range
        (_rows("[1e999, 2, 3, 4]"), 422, "/instances/1/0"),
        (_rows("[1, 1e39, 3, 4]"), 422, "/instances/1/1"),
        (_rows("[1, 2, -3.5e38, 4]"), 422, "/instances/1/2"),
        (_rows("[1, 2, 3, " + "9" * 5000 + "]"), 422, "/instances/1/3"),
        (_rows("[1, 2, 3, " + "9" * 500_000 + "]"), 422, "/instances/1/3"),
        (_record(f'{GOOD}, "x3": 1e999'), 422, "/instances/0/x3"),
        (_record(f'{GOOD}, "x3": -{"1" * 400}'), 422, "/instances/0/x3"),
        (_rows("[3e38, 3e38, 3e38, 3e38]"), 422, None),  # finite, but the network overflows
        # too large
        ('{"instances": [' + ",".join(["[1,2,3,4]"] * 251) + "]}", 413, None),
        (" " * (1 << 20) + "{}", 413, None),
    ],
    ids=lambda value: str(value)[:40],
)
def test_json_bodies(client: TestClient, body: str, status: int, pointer: str | None) -> None:
    answer = client.post(
        "/v1/models/tiny/predict",
        content=body.encode("utf-8", "surrogatepass"),
        headers={"Content-Type": JSON},
    )
    document = _check(answer, status)
    assert [error["pointer"] for error in document["errors"]][:1] == ([] if pointer is None else [pointer])


@pytest.mark.parametrize(
    ("record", "status", "pointer"),
    [
        ({"new": 1, "town": "Hue"}, 400, "/instances/0/new"),
        ({"new": "true", "town": "Hue"}, 400, "/instances/0/new"),
        ({"new": True, "town": 1}, 400, "/instances/0/town"),
        ({"new": True, "town": MARK}, 422, "/instances/0/town"),
        ({"new": True}, 400, "/instances/0/town"),
        ({"new": True, "town": "Hue", "area m/2": MARK}, 400, "/instances/0/area m/2"),
    ],
    ids=str,
)
def test_records(client: TestClient, record: dict, status: int, pointer: str) -> None:
    document = _check(client.post("/v1/models/price/predict", json={"instances": [record]}), status)
    assert document["errors"][0]["pointer"].replace("~1", "/") == pointer


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "latin-1"])
def test_json_is_utf_8(client: TestClient, encoding: str) -> None:
    body = '{"instances": [[1, 2, 3, 4]], "\xe9": 1}'.encode(encoding)
    _check(client.post("/v1/models/tiny/predict", content=body), 400)


def _npy(header: str, data: bytes = b"", *, version: bytes = b"\x01\x00", length: int | None = None) -> bytes:
    text = header.encode() + b"\n"
    return (
        b"\x93NUMPY" + version + (len(text) if length is None else length).to_bytes(2, "little") + text + data
    )


def _saved(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


GOOD_NPY = _saved(np.ones((2, 4), dtype=np.float32))


@pytest.mark.parametrize(
    ("kind", "body", "status"),
    [
        (OCTETS, b"", 400),
        (OCTETS, b"\0" * 15, 400),
        (OCTETS, b"\0" * 17, 400),
        (OCTETS, np.array([1, 2, np.nan, 4], dtype="<f4").tobytes(), 422),
        (OCTETS, np.array([1, 2, np.inf, 4], dtype="<f4").tobytes(), 422),
        (OCTETS, b"\0" * (16 * 251), 413),
        (NPY, b"", 400),
        (NPY, b"\x93NUMPY", 400),
        (NPY, GOOD_NPY[:-1], 400),
        (NPY, GOOD_NPY + b"\0", 400),
        (NPY, GOOD_NPY.replace(b"\x01\x00", b"\x09\x00", 1), 400),
        (NPY, _saved(np.array([{}], dtype=object)), 400),
        (NPY, _saved(np.ones((2, 4), dtype=complex)), 400),
        (NPY, _saved(np.array(["a"] * 4)), 400),
        (NPY, _saved(np.ones((2, 4), dtype=[("a", "f4")])), 400),
        (NPY, _saved(np.ones((2, 3))), 400),
        (NPY, _saved(np.ones(())), 400),
        (NPY, _saved(np.ones((0, 4))), 400),
        (NPY, _saved(np.full((2, 4), 1e39)), 422),
        (NPY, _saved(np.full((2, 4), np.nan)), 422),
        (NPY, _npy("{'descr': '<f4', 'fortran_order': False, 'shape': (4000000000, 4), }"), 413),
        (NPY, _npy("{'descr': '<f4', 'fortran_order': False, 'shape': (4294967296, 4294967296), }"), 413),
        (NPY, _npy("{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 4), }"), 400),
        (NPY, _npy("__import__('os').system('false')"), 400),
        (NPY, _npy("(" * 9000), 400),
        (NPY, _npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1, 4), }", length=65535), 400),
    ],
)
def test_binary_bodies(client: TestClient, kind: str, body: bytes, status: int) -> None:
    _check(client.post("/v1/models/tiny/predict", content=body, headers={"Content-Type": kind}), status)


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "application/xml"},
        {"Content-Type": "multipart/form-data; boundary=x"},
        {"Content-Type": "image/png"},
        {"Content-Type": "application/json; charset=utf-16"},
        {"Content-Encoding": "compress"},
        {"Content-Encoding": "br"},
        {"Content-Encoding": "gzip, gzip"},
    ],
    ids=str,
)
def test_unsupported_bodies(client: TestClient, headers: dict[str, str]) -> None:
    body = gzip.compress(b'{"instances": [[1, 2, 3, 4]]}')
    _check(client.post("/v1/models/tiny/predict", content=body, headers=headers), 415)


@pytest.mark.parametrize("kind", [JSON, OCTETS])
def test_a_body_without_a_length_is_stopped_at_the_limit(client: TestClient, kind: str) -> None:
    taken = 0

    def endless() -> Iterator[bytes]:
        nonlocal taken
        for _ in range(40):
            taken += 1
            yield b" " * (1 << 19)

    _check(client.post("/v1/models/tiny/predict", content=endless(), headers={"Content-Type": kind}), 413)


def test_a_false_length_is_refused(client: TestClient) -> None:
    headers = {"Content-Type": JSON, "Content-Length": str(1 << 40)}
    _check(client.post("/v1/models/tiny/predict", content=b"{}", headers=headers), 413)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", f"/{MARK}", 404),
        ("POST", f"/v1/models/{MARK}/predict", 404),
        ("POST", "/v1/models/tiny/versions/9/predict", 404),
        ("POST", f"/v1/models/tiny/versions/{MARK}/predict", 404),
        ("GET", f"/v1/models/{MARK}", 404),
        ("GET", "/v1/models/..%2F..%2Fetc", 404),
        ("GET", f"/v1/indexes/{MARK}", 404),
        ("GET", f"/v1/indexes/{MARK}/complete?q=a", 404),
        ("GET", f"/v2/models/{MARK}", 404),
        ("GET", f"/v2/models/{MARK}/ready", 404),
        ("GET", "/v2/models/tiny/versions/3", 404),
        ("GET", f"/v2/models/tiny/versions/{MARK}/ready", 404),
        ("GET", "/v2/models/tiny/versions/0", 404),
        ("GET", f"/static/{MARK}.js", 404),
        ("GET", "/v1/models/tiny/predict", 405),
        ("DELETE", "/v1/models", 405),
        ("POST", "/v1/indexes/towns/complete", 405),
        ("GET", "/v1/indexes/towns/complete", 400),
        ("GET", f"/v1/indexes/towns/complete?q=a&limit={MARK}", 400),
        ("GET", "/v1/indexes/towns/complete?q=a&limit=1.5", 400),
        ("GET", "/v1/indexes/towns/complete?q=a&limit=" + "9" * 5000, 400),
        ("GET", "/v1/indexes/towns/complete?q=a&limit=-1", 422),
        ("GET", "/v1/indexes/towns/complete?q=a&limit=0", 422),
        ("GET", "/v1/indexes/towns/complete?q=a&limit=101", 422),
        ("GET", "/v1/indexes/towns/complete?q=a&limit=1000000000", 422),
        ("GET", f"/v1/indexes/towns/complete?q=a&fuzzy={MARK}", 422),
        ("GET", "/v1/indexes/towns/complete?q=a&fuzzy=3", 422),
        ("GET", "/v1/indexes/towns/complete?q=" + "a" * 257, 422),
        (
            "GET",
            "/v1/indexes/towns/complete?q=" + "%EF%B7%BA" * 80,
            422,
        ),  # U+FDFA folds to 18 times its length
    ],
    ids=lambda value: str(value)[:60],
)
def test_paths_methods_and_queries(client: TestClient, method: str, path: str, status: int) -> None:
    answer = client.request(method, path)
    _check(answer, status)
    if status == 405:
        assert answer.headers["allow"]


@pytest.mark.parametrize("query", ["%00", "%ff%fe", "%ed%a0%80", "%e2%80%ae", "a%cc%81" * 50, "%F0%9F%98%80"])
def test_odd_queries_do_no_harm(client: TestClient, query: str) -> None:
    answer = client.get(f"/v1/indexes/towns/complete?q={query}")
    if answer.status_code != 200:
        _check(answer, answer.status_code)
        assert answer.status_code in (400, 422)


def test_many_errors_stay_small(client: TestClient) -> None:
    body = json.dumps({"instances": [{MARK: 1}] * 200})
    _check(client.post("/v1/models/tiny/predict", content=body), 400)
