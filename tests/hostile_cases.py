"""Requests that no client of good will sends: bytes for the parser of HTTP, and bodies for what is behind it."""

import gzip
import itertools
import json
import struct
import zlib
from typing import Any

import numpy as np

MARK = "Zq7xVb"
"""Stands in every hostile body, and in no answer."""

ROW = [0.1, 0.2, 0.3, 0.4]
GOOD = {"name": "input", "shape": [1, 4], "datatype": "FP32", "data": ROW}

Case = tuple[str, bytes, dict[str, str]]


def infer(document: Any, blob: bytes = b"", length: int | str | None = None, **headers: str) -> Case:
    head = document if isinstance(document, bytes) else json.dumps(document).encode()
    if length is not None or blob:
        headers["Inference-Header-Content-Length"] = str(len(head) if length is None else length)
    return "/v2/models/tiny/infer", head + blob, headers


def tensor(**changes: Any) -> dict[str, Any]:
    changed = {**GOOD, **changes}
    return {"id": MARK, "inputs": [{name: value for name, value in changed.items() if value is not ...}]}


def predict(document: Any) -> Case:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return "/v1/models/tiny:predict", body, {}


SHAPES: list[Any] = [
    [], [0, 4], [1, 0], [1, 3], [2, 4], [4], [-1, 4], [1, -4], [1.5, 4], [1, 4, 1], [2**31, 2**31], [2**32, 4], [2**63, 4],
    [2**64 - 1, 4], [1e400, 4], ["1", 4], [None, 4], [True, 4], [[1], 4], "1,4", 4, None, {}, [1] * 10, [1] * 10_000,
    [4294967297, 4], [1, 4294967300], [0], [0, 0], [MARK, 4],
]  # fmt: skip
DATA: list[Any] = [
    [], [1], [*ROW, 1], [ROW, ROW], [[ROW]] * 2, ["1", "2", "3", "4"], [True] * 4, [None] * 4, [[1], [2], [3]], [[1, 2], 3, 4],
    [{}] * 4, [[]] * 4, {}, "data", 1, [1e39] * 4, [-1e39] * 4, [10**400, 1, 1, 1], [MARK] * 4, [[[[[[1, 2, 3, 4]]]]], 5],
    [[1, 2], [3, MARK]],
]  # fmt: skip
DATATYPES: list[Any] = [
    "FP33",
    "fp32",
    "",
    "BYTES",
    "STRING",
    "OBJECT",
    32,
    None,
    ["FP32"],
    {},
    MARK,
    "FP32 ",
]
NAMES: list[Any] = ["", "Input", "x", MARK, "x0", 1, None, ["input"], "input\x00", "a" * 10_000, "../input"]
RAW: list[bytes] = [
    b"", b" ", b"{", b"[]", b"null", b"1", b'"inputs"', b"{}", b'{"inputs"}', b'{"inputs":}', b'{"inputs":[]}', b'{"inputs":{}}',
    b'{"inputs":[null]}', b'{"inputs":[[]]}', b'{"inputs":[1]}', b"\xff\xfe{\x00}\x00", b"\x00" * 100, b"[" * 100_000,
    b'{"inputs":' * 50_000, b'{"inputs":[{"data":' + b"[" * 100_000, b'{"id":"' + b"a" * 100_000 + b'"}',
    b'{"inputs":[],"inputs":[]}', b'{"id":1,"inputs":[{}]}', b"\xef\xbb\xbf{}", b'{"inputs":[{"data":[NaN]}]}', b"GET / HTTP/1.1",
    b'{"' + b'a":1,"' * 40_000 + b'b":1}', b'{"inputs":[{"shape":[' + b"9" * 400_000 + b"]}]}", b"{'inputs': []}", b"<inputs/>",
]  # fmt: skip
BINARY: list[tuple[Any, bytes, int | str | None]] = [
    (tensor(data=..., parameters={"binary_data_size": size}), blob, None)
    for size, blob in itertools.product([0, 1, 15, 17, 16.5, -1, 2**31, 2**63, "16", None, True, [16]], [b"\0" * 16, b"\0" * 15])
] + [
    (tensor(parameters={"binary_data_size": 16}), b"\0" * 16, None),
    (tensor(data=..., parameters={"binary_data_size": 16}), b"\0" * 32, None),
    (tensor(data=...), b"\0" * 16, None),
    *((tensor(), b"", length) for length in ("-1", "x", "1e3", "99999999999999999999", " 5", "0x10", "5.0", "+5", 1, 10_000)),
    *((tensor(data=..., datatype="BYTES", shape=[4], parameters={"binary_data_size": len(b)}), b, None) for b in (
        b"\xff\xff\xff\xff", struct.pack("<I", 2**31) + b"x", struct.pack("<I", 1) + b"\xff", b"\0\0\0", b"\0" * 20)),
    (tensor(data=..., datatype="BOOL", parameters={"binary_data_size": 4}), b"\1\1\1\2", None),
    *((tensor(data=..., parameters={"binary_data_size": 16}), np.full(4, v, "<f4").tobytes(), None) for v in (np.inf, -np.inf, np.nan)),
    (tensor(data=..., datatype="FP64", parameters={"binary_data_size": 32}), np.full(4, 1e39).tobytes(), None),
    (tensor(data=..., shape=[2**30, 4], parameters={"binary_data_size": 16}), b"\0" * 16, None),
]  # fmt: skip
OUTPUTS: list[Any] = [
    [{}], [{"name": "x"}], [{"name": MARK}], [{"name": "output"}] * 2, [{"name": "output"}] * 100, "output", {"name": "output"}, [1],
    [{"name": "output", "parameters": {"binary_data": "yes"}}], [{"name": "output", "parameters": {"binary_data": 1}}],
    [{"name": "output", "parameters": {"classification": -1}}], [{"name": "output", "parameters": {"classification": 1.5}}],
    [{"name": "output", "parameters": {"classification": 2**40}}], [{"name": "output", "parameters": {"classification": "3"}}],
    [{"name": "output", "parameters": []}],
]  # fmt: skip
GOOD_BYTES = json.dumps({"inputs": [GOOD]}).encode()

ROWS = [data for data in DATA if data != [ROW, ROW]]
"""Two rows are right where the body does not say how many there are."""

CASES: list[Case] = [
    *(infer(tensor(shape=shape)) for shape in SHAPES),
    *(infer(tensor(data=data)) for data in DATA),
    *(infer(tensor(datatype=datatype)) for datatype in DATATYPES),
    *(infer(tensor(name=name)) for name in NAMES),
    *(infer(tensor(**{name: ...})) for name in GOOD),
    *(infer(raw) for raw in RAW),
    *(infer(document, blob, length) for document, blob, length in BINARY),
    *(infer({"inputs": [GOOD], "outputs": outputs}) for outputs in OUTPUTS),
    *(infer({"inputs": [GOOD] * count}) for count in (2, 100)),
    *(infer({"inputs": [GOOD], "id": identity}) for identity in (1, [], {}, True, "a" * 257)),
    *(infer({"inputs": [GOOD], "parameters": parameters}) for parameters in (1, [], {"binary_data_output": 1}, "x")),
    *(infer(tensor(datatype=f"{u}INT8", data=[v, 0, 0, 0])) for u in ("", "U") for v in (1.5, 256, -129, 1e300)),
    infer({"inputs": [GOOD, {**GOOD, "name": "x0"}]}),
    infer({"inputs": [{**GOOD, "name": "x0", "shape": [1], "data": [1]}]}),
    infer({"inputs": [{**GOOD, "name": f"x{i}", "shape": [1 + i], "data": [1] * (1 + i)} for i in range(4)]}),
    infer({"inputs": [{**GOOD, "name": f"x{i}", "shape": [0], "data": []} for i in range(4)]}),
    infer({"inputs": [{**GOOD, "name": f"x{i}", "shape": [1], "data": ["a"], "datatype": "BYTES"} for i in range(4)]}),
    infer(b"", b"\0" * 15, 0), infer(b"", b"", 0), infer(b"", np.full(4, np.inf, "<f4").tobytes(), 0),
    infer(GOOD_BYTES, **{"Content-Encoding": "gzip"}), infer(gzip.compress(GOOD_BYTES)[:-3], **{"Content-Encoding": "gzip"}),
    infer(gzip.compress(b" " * (4 << 20)), **{"Content-Encoding": "gzip"}), infer(zlib.compress(b"[" * (2 << 20)), **{"Content-Encoding": "deflate"}),
    infer(GOOD_BYTES, **{"Content-Encoding": "br"}), infer(gzip.compress(gzip.compress(GOOD_BYTES)), **{"Content-Encoding": "gzip, gzip"}),
    infer(gzip.compress(GOOD_BYTES) + gzip.compress(GOOD_BYTES), **{"Content-Encoding": "gzip"}),
    *(predict(raw) for raw in RAW),
    *(predict({"instances": data}) for data in ROWS),
    *(predict({"inputs": data}) for data in ROWS),
    *(predict({"instances": [{"input": data}]}) for data in DATA),
    *(predict({"inputs": {"input": data}}) for data in ROWS),
    *(predict({"inputs": columns}) for columns in ({}, {MARK: [1]}, {"x0": [1], "x1": []}, {"x0": 1}, {"x0": [[1, 2]]}, {"x0": [1]})),
    *(predict({"signature_name": name, "instances": [ROW]}) for name in ("x", 1, [], None, "")),
    predict({"instances": [ROW], "inputs": [ROW]}), predict({"instances": [ROW, {"input": ROW}]}),
]  # fmt: skip

BODY = b'{"instances": [[1, 2, 3, 4]]}'
PATH = b"/v1/models/tiny/predict"
LONG = b"a" * 3000


def post(
    headers: bytes, body: bytes = BODY, path: bytes = PATH, method: bytes = b"POST", version: bytes = b"1.1"
) -> bytes:
    return method + b" " + path + b" HTTP/" + version + b"\r\nHost: x\r\n" + headers + b"\r\n" + body


def length(value: object) -> bytes:
    return b"Content-Length: %b\r\n" % str(value).encode("latin-1")


CHUNKED = b"Transfer-Encoding: chunked\r\n"
REFUSED = [
    # lengths that are none, or two
    *(post(length(value)) for value in ("-1", "+29", "29.0", "0x1d", "1e2", " ", "29 29", "29,29", "9" * 40, "\xb2", "2_9")),
    post(length(29) + length(30)),
    post(length(29) + CHUNKED),
    # other protocols; one that is merely wished for is passed over: see test_upgrade
    post(b"Connection: Upgrade\r\nUpgrade: websocket\r\n" + length(29)),
    post(b"Connection: Upgrade\r\nUpgrade: h2c\r\n" + CHUNKED, b"0\r\n\r\n"),
    post(b"Connection: Upgrade\r\nUpgrade: h2c\r\n" + CHUNKED + length(29)),
    post(length(29), method=b"CONNECT"),
    post(CHUNKED + length(29)),
    post(b"Transfer-Encoding: identity\r\n" + length(29)),
    post(b"Transfer-Encoding: gzip, chunked\r\n", b"0\r\n\r\n"),
    post(b"Transfer-Encoding: chunked, chunked\r\n", b"0\r\n\r\n"),
    post(b"Transfer-Encoding : chunked\r\n", b"0\r\n\r\n"),
    post(b"Transfer-Encoding:\tchunked\x0b\r\n", b"0\r\n\r\n"),
    # chunks that are none
    *(post(CHUNKED, size + b"\r\n" + BODY + b"\r\n0\r\n\r\n") for size in (b"x", b"-1", b"0x1d", b"1" * 40, b"", b" ", b"1d;" + b"\0")),
    post(CHUNKED, b"1d\r\n" + BODY + b"0\r\n\r\n"),
    # what a body means
    post(length(1 << 30), b""),
    post(length(2), b"{}"),
    post(CHUNKED, b"2\r\n{}\r\n0\r\n\r\n"),
    post(CHUNKED, b"1\r\n \r\n" * 3000 + b"0\r\n\r\n"),
    # request lines
    *(post(length(29), method=method) for method in (b"", b"post", b"P\0ST", b"POST POST", b"\xff\xfe", b"TRACE", b"A" * 100)),
    *(post(length(29), path=path) for path in (b"", b"x", b"/\0", b"//etc/passwd", b"/v1/models/..%2f..%2fetc/predict", b"/%", b"/%zz",
                                                b"/v1/models/%00/predict", b"/" + LONG, b"/v1/models/tiny/predict/", b"/V1/models/tiny/predict")),
    *(post(length(29), version=version) for version in (b"", b"0.9", b"9.9", b"x", b"1.1 ", b"2.0")),
    b"GET /\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"\0" * 1000,
    b"\xff" * 1000,
    b"SSH-2.0-x\r\n",
    # headers
    *(post(length(29) + header) for header in (b"\0: x\r\n", b"x\r\n", b": x\r\n", b"a b: x\r\n", b"x: \0\r\n", b"x: a\rb\r\n", b"(x): y\r\n")),
    post(length(29) + b"x: y\r\n" * 200),
    post(length(29) + b"x: " + LONG * 10 + b"\r\n"),
    post(length(29) + b"Content-Type: application/xml\r\n"),
    post(length(29) + b"Content-Encoding: x\r\n"),
    post(length(29) + b"Inference-Header-Content-Length: -5\r\n", path=b"/v2/models/tiny/infer"),
]  # fmt: skip
