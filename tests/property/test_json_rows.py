"""The C reader of rows beside the full parser: whatever it takes, both take alike; it never takes what is wrong."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from mariana._binding.rows import all_finite, json_rows, raw_rows
from mariana.model import load_model
from mariana.server.bodies import RowReader
from mariana.server.errors import Problem
from mariana.server.limits import Limits
from mariana.settings import Settings

COLUMNS = 4
LIMIT = 1000
SPACE = st.text(" \t\n\r", max_size=2)

DIGITS = st.text("0123456789", min_size=1, max_size=25)
NUMBER = st.one_of(
    st.floats(width=32, allow_nan=False, allow_infinity=False).map(repr),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.integers().map(str),
    st.builds(
        "{}{}{}{}".format,
        st.sampled_from(["", "-"]),
        DIGITS.map(lambda digits: digits.lstrip("0") or "0"),
        st.one_of(st.just(""), DIGITS.map(".{}".format)),
        st.one_of(
            st.just(""), st.builds("{}{}".format, st.sampled_from(["e", "E+", "e-"]), st.integers(0, 60))
        ),
    ),
)


@st.composite
def bodies(draw: st.DrawFn) -> str:
    rows = draw(st.lists(st.lists(NUMBER, min_size=COLUMNS, max_size=COLUMNS), min_size=1, max_size=4))
    tokens: list[str] = ["{", '"instances"', ":", "["]
    for i, row in enumerate(rows):
        tokens += [","] * (i > 0) + ["["]
        for j, number in enumerate(row):
            tokens += [","] * (j > 0) + [number]
        tokens.append("]")
    tokens += ["]", "}"]
    return "".join(draw(SPACE) + token for token in tokens) + draw(SPACE)


@st.composite
def mutants(draw: st.DrawFn) -> bytes:
    body = bytearray(draw(bodies()).encode())
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(body)))
        piece = draw(
            st.one_of(
                st.sampled_from(
                    [b"", b"0", b"-", b".", b"e", b",", b"[", b"]", b"null", b"true", b"NaN", b'"', b"1"]
                ),
                st.binary(max_size=2),
            )
        )
        body[at : at + draw(st.integers(0, 2))] = piece
    return bytes(body)


@given(bodies())
def test_numbers_are_those_of_python_and_numpy(body: str) -> None:
    x = json_rows(body.encode(), COLUMNS, LIMIT)
    if x is not None:
        with np.errstate(over="ignore"):
            expected = np.array(json.loads(body, parse_int=float)["instances"], dtype=np.float32)
        assert x.shape == expected.shape
        assert x.tobytes() == expected.tobytes()


@given(
    st.lists(
        st.lists(
            st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=COLUMNS, max_size=COLUMNS
        ),
        min_size=1,
    )
)
def test_plain_bodies_are_taken(rows: list[list[float]]) -> None:
    expected = np.array(rows, dtype=np.float32)
    if (
        (expected == 0) | ((abs(expected) > 1e-37) & (abs(expected) < 3e38))
    ).all():  # not at float32's very ends
        x = json_rows(json.dumps({"instances": rows}).encode(), COLUMNS, expected.size)
        assert x is not None
        assert x.tobytes() == expected.tobytes()


@pytest.fixture(scope="module")
def reader(tiny_store) -> RowReader:
    return RowReader(load_model(tiny_store / "models/tiny"), Limits.of(Settings(max_values=LIMIT)))


@given(body=st.one_of(bodies().map(str.encode), mutants(), st.binary(max_size=60)))
def test_what_the_fast_path_takes_the_full_parser_takes_alike(reader: RowReader, body: bytes) -> None:
    fast = json_rows(body, COLUMNS, LIMIT)
    try:
        full = reader.parse_json(body)
    except Problem:
        assert fast is None
    else:
        if fast is not None:
            assert fast.tobytes() == full.tobytes()


@given(body=st.one_of(bodies().map(str.encode), mutants()))
def test_both_ways_give_the_same_answer(client: TestClient, body: bytes) -> None:
    """A further member sends the same body the long way."""
    if not body.lstrip().startswith(b"{"):
        return
    longer = body.replace(b"{", b'{"other": 1, ', 1)
    answers = [client.post("/v1/models/tiny/predict", content=content) for content in (body, longer)]
    first, second = (answer.json() for answer in answers)
    assert answers[0].status_code == answers[1].status_code < 500
    if "not JSON" not in first.get(
        "detail", ""
    ):  # there the place of the fault differs by the member's length
        assert first == second


@pytest.mark.parametrize("limit", [0, 1, 7, 8, 9])
def test_no_more_than_the_limit(limit: int) -> None:
    taken = json_rows(b'{"instances":[[1,2,3,4],[5,6,7,8]]}', COLUMNS, limit)
    assert (taken is not None) == (limit >= 8)


@given(
    st.lists(st.floats(width=32), max_size=12).map(lambda numbers: np.array(numbers, "<f4").tobytes()),
    st.sampled_from([b"", b"a", b"abcd"]),
    st.integers(1, 4),
    st.integers(0, 12),
)
def test_raw_rows_are_taken_as_numpy_reads_them(raw: bytes, rest: bytes, columns: int, most: int) -> None:
    body = raw + rest
    x = raw_rows(body, columns, most)
    whole = len(body) > 0 and len(body) % (4 * columns) == 0 and len(body) // 4 <= most
    wanted = np.frombuffer(body, "<f4").reshape(-1, columns) if whole else None
    if wanted is None or not np.isfinite(wanted).all():
        assert x is None
    else:
        assert x is not None
        np.testing.assert_array_equal(x, wanted)


@given(st.lists(st.floats(width=32), max_size=40))
def test_all_finite(numbers: list[float]) -> None:
    values = np.array(numbers, np.float32)
    assert all_finite(values) == np.isfinite(values).all()
