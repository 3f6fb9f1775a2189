"""The commands index and complete: the kinds of files, what is said, and the cities that ship."""

import gzip
import io
import itertools
import json
import sys
import tracemalloc
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from mariana.cli import cli
from mariana.cli.index import index_terms
from mariana.datasets.cities import cities_path
from mariana.errors import FileFormatError, InvalidInputError, MarianaError, NotFoundError
from mariana.terms import about_lines, read_terms


def run(folder: Path, *arguments: str) -> Result:
    return CliRunner().invoke(cli, [*arguments, "--store", str(folder / "store")], catch_exceptions=True)


def document(folder: Path, *arguments: str) -> dict:
    result = run(folder, *arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


SAME = {
    "a.txt": "Saigon\n\n  Huế \r\n",
    "b.tsv": "Saigon\t1\nHuế\n",
    "c.tsv": "score\ttext\n1\tSaigon\n\tHuế\n",
    "d.csv": '"Saigon",1\nHuế,1,\n',
    "e.csv": "text,score,payload,contexts\nSaigon,1,,\nHuế,1.0,,\n",
    "f.jsonl": '{"text": "Saigon", "score": 1}\n\n{"text": "Hu\\u1ebf"}\n',
    "g.txt": "\ufeffSaigon\nHuế",
}


@pytest.mark.parametrize("name", SAME)
@pytest.mark.parametrize("zipped", [False, True])
def test_every_kind_of_file_gives_the_same_index(tmp_path: Path, name: str, zipped: bool) -> None:
    content = SAME[name].encode()
    path = tmp_path / (name + ".gz" * zipped)
    path.write_bytes(gzip.compress(content, mtime=0) if zipped else content)
    done = document(tmp_path, "index", str(path), "--name", "same")
    assert (done["entries"], done["skipped"], done["merged"]) == (2, [], 0)
    found = document(tmp_path, "complete", "same", "")
    assert [(c["text"], c["score"]) for c in found["completions"]] == [("Huế", 1), ("Saigon", 1)]


def test_payloads_and_quotes(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('"a ""b"", c",2,"{""k"": [1, null]}"\n', encoding="utf-8")
    (tmp_path / "b.tsv").write_text('a "b", c\t2\t{"k": [1, null]}\n', encoding="utf-8")
    for name in ("a.csv", "b.tsv"):
        document(tmp_path, "index", str(tmp_path / name), "--name", "x")
        assert document(tmp_path, "complete", "x", 'A "B') == {
            "query": 'A "B',
            "completions": [
                {
                    "text": 'a "b", c',
                    "score": 2,
                    "edits": 0,
                    "highlights": [[0, 4]],
                    "payload": {"k": [1, None]},
                }
            ],
        }


BAD = {
    "a.tsv": ("good\t1\nbad\tmany\nbad\t-1\nbad\t1\t{\nbad\tnan\n\t5\na\t1\t\t\t\t\nbad\t1\t\t|\nbad\t1e999\n", range(2, 10)),
    "b.csv": ('good,1\n"bad"x,1\nbad,1_0\nbad\t1,\x00\n', range(2, 5)),
    "c.jsonl": ('{"text": "good"}\n{"text": 3}\n[1]\n{\n{"text": "x", "score": true}\n{"text":"x","w":1}\n"x"\n{"text":"x","score":NaN}\n' + "[" * 100_000 + "\n", range(2, 10)),
    "e.tsv": ("good\t1\t\t" + "|".join(map(str, range(64))) + "\nbad\t1\t\t64\nbad\t1\t\t0|65\n", range(2, 4)),
    "d.txt": (b"good\ncaf\xe9\na\x00b\n" + b"x" * 2000 + b"\n\xe2\x80\xaeevil\n", range(2, 6)),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_lines_are_named_and_left_out(tmp_path: Path, name: str) -> None:
    content, lines = BAD[name]
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    done = document(tmp_path, "index", str(path), "--name", "x")
    assert done["entries"] == 1
    assert [bad["line"] for bad in done["skipped"]] == list(lines)
    said = run(tmp_path, "index", str(path), "--name", "x")
    assert f"skipped line {lines[0]}: " in said.stderr
    assert f"{len(lines)} lines skipped" in said.stdout
    strict = run(tmp_path, "index", str(path), "--name", "y", "--strict")
    assert isinstance(strict.exception, InvalidInputError)
    assert f"{path}: line {lines[0]}: " in str(strict.exception)
    assert not (tmp_path / "store/indexes/y").exists()


# Refused by the reader of files, by that of entries, and when all of them are there.
@pytest.mark.parametrize("wrong", list(itertools.permutations(["a\t1\t\t\t\t\t", "a\t1\t\t|", "a\x00"])))
@pytest.mark.parametrize("apart", [1, 3000])
def test_strict_names_the_first_bad_line_however_it_is_found(
    tmp_path: Path, wrong: tuple[str, ...], apart: int
) -> None:
    lines = [f"good {i}" for i in range(3 * apart)]
    lines[::apart] = wrong
    (tmp_path / "a.tsv").write_text("fine\n" + "\n".join(lines), encoding="utf-8")
    with pytest.raises(InvalidInputError) as first:
        index_terms(str(tmp_path / "a.tsv"), tmp_path / "x", strict=True)
    assert "a.tsv: line 2: " in str(first.value)
    assert not (tmp_path / "x").exists()
    done = index_terms(str(tmp_path / "a.tsv"), tmp_path / "x")
    assert [line for line, _ in done.skipped] == [2, 2 + apart, 2 + 2 * apart]


@pytest.mark.parametrize(
    ("name", "content", "error"),
    [
        ("a.txt", b"", InvalidInputError),
        ("a.txt", b"\n \n", InvalidInputError),
        ("a.txt", b"\xff\n", InvalidInputError),
        ("a.tsv", b"text\tscore\n", InvalidInputError),
        ("a.tsv", b"text\tpopulation\nSaigon\t5\n", InvalidInputError),
        ("a.csv", b"text,text\n", InvalidInputError),
        ("a.xml", b"<a/>", InvalidInputError),
        ("a", b"x", InvalidInputError),
        ("a.gz", gzip.compress(b"x", mtime=0), InvalidInputError),
        ("a.txt.gz", b"not gzip", FileFormatError),
        ("a.txt.gz", gzip.compress(b"x" * 1000, mtime=0)[:-9], FileFormatError),
    ],
)
def test_files_without_an_entry_are_refused(
    tmp_path: Path, name: str, content: bytes, error: type[MarianaError]
) -> None:
    (tmp_path / name).write_bytes(content)
    result = run(tmp_path, "index", str(tmp_path / name), "--name", "x")
    assert type(result.exception) is error, result.output
    assert name in str(result.exception)
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("kind", ["txt", "tsv", "csv", "jsonl"])
def test_a_line_without_end_is_skipped_and_never_held(tmp_path: Path, kind: str) -> None:
    good = b'{"text": "good"}\n' if kind == "jsonl" else b"good\n"
    path = tmp_path / f"bomb.{kind}.gz"
    path.write_bytes(gzip.compress(good + b"a" * (32 << 20) + b"\n" + good.replace(b"good", b"more"), 1))
    tracemalloc.start()
    done = document(tmp_path, "index", str(path), "--name", "x")
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert done["entries"] == 2
    assert [bad["line"] for bad in done["skipped"]] == [2]
    assert most < 16 << 20
    strict = run(tmp_path, "index", str(path), "--name", "x", "--strict")
    assert isinstance(strict.exception, InvalidInputError)
    assert "line 2" in str(strict.exception)


def test_a_quote_that_is_never_closed_is_named_with_the_lines_after_it(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('a,1\n"b,2\nc,3\nd,4\n')
    assert [bad["line"] for bad in document(tmp_path, "index", str(path), "--name", "x")["skipped"]] == [
        2,
        3,
        4,
    ]


@pytest.mark.parametrize("at", [0, 9_900])
@pytest.mark.parametrize("closed", [False, True], ids=["open", "closed"])
def test_lines_that_a_stray_quote_takes_with_it_are_counted(tmp_path: Path, at: int, *, closed: bool) -> None:
    lines = [f"a word {number},{number}" for number in range(10_000)]
    lines[at] = '"stray,1'
    if closed:
        lines[at + 50] = '5" disk,1'
    path = tmp_path / "a.csv"
    path.write_text("\n".join(lines) + "\n")
    done = document(tmp_path, "index", str(path), "--name", "x")
    assert done["entries"] + len(done["skipped"]) == len(lines)
    assert done["skipped"][0]["line"] == at + 1


def test_a_folder_named_as_a_bundled_set_does_not_hide_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cities").mkdir()
    monkeypatch.chdir(tmp_path)
    assert document(tmp_path, "index", "cities", "--name", "x")["entries"] >= 30_000


def test_a_rebuild_that_fails_keeps_the_old_index(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Saigon\n")
    document(tmp_path, "index", str(tmp_path / "a.txt"), "--name", "x")
    (tmp_path / "a.txt").write_text("\n")
    assert run(tmp_path, "index", str(tmp_path / "a.txt"), "--name", "x").exit_code == 1
    assert len(document(tmp_path, "complete", "x", "")["completions"]) == 1


def test_lines_are_guessed_from_the_beginning(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    for lines in (0, 1, 100, 50_000):
        path.write_text("".join(f"town {i:06}\n" for i in range(lines)))
        assert about_lines(path) == pytest.approx(lines, rel=1e-3)
    path.write_text("x" * 100_000)
    assert about_lines(path) == 0
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"a\n" * 100))
    assert (
        about_lines(tmp_path / "a.txt.gz") == about_lines(tmp_path / "none.txt") == about_lines(tmp_path) == 0
    )


@pytest.mark.parametrize("zipped", [False, True])
def test_the_bar_says_how_far_it_is_and_what_is_done(
    tmp_path: Path, zipped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    content = b"".join(b"town %d\n" % i for i in range(5000))
    path = tmp_path / ("a.txt.gz" if zipped else "a.txt")
    path.write_bytes(gzip.compress(content) if zipped else content)
    index_terms(str(path), tmp_path / "x", progress=True)
    shown = terminal.getvalue().split("\r")
    assert any("reading:" in line for line in shown)
    assert "building: 100%" in shown[-1]


def test_complete_for_people(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text('Saigon\t14002598\t{"country":"VN"}\nSai\t0.5\n', encoding="utf-8")
    run(tmp_path, "index", str(tmp_path / "a.tsv"), "--name", "x")
    result = run(tmp_path, "complete", "x", "sai")
    assert result.output.splitlines() == ['14002598  Saigon  {"country": "VN"}', "     0.5  Sai"]
    path = tmp_path / "store/indexes/x"
    assert run(tmp_path, "complete", str(path), "sai").output == result.output
    assert run(tmp_path, "complete", "x", "none").output == ""
    assert isinstance(run(tmp_path, "complete", "y", "sai").exception, NotFoundError)
    assert run(tmp_path, "complete", "x", "siagon").output == '14002598  Saigon  {"country": "VN"}\n'
    assert run(tmp_path, "complete", "x", "siagon", "--fuzzy", "0").output == ""
    assert run(tmp_path, "complete", "x", "sai", "--limit", "0").exit_code == 2
    assert run(tmp_path, "complete", "x", "sai", "--fuzzy", "3").exit_code == 2


def test_a_payload_does_not_steer_the_terminal(tmp_path: Path) -> None:
    payload = {"a": "é東\x9b31m\u202e\U000e0001"}
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": "x", "payload": payload}), encoding="ascii")
    run(tmp_path, "index", str(tmp_path / "a.jsonl"), "--name", "x")
    shown = run(tmp_path, "complete", "x", "x").output.strip()
    assert shown.isprintable()
    assert json.loads(shown.split(maxsplit=2)[2]) == payload
    assert "é東" in shown


def test_the_cities_that_ship(tmp_path: Path) -> None:
    rows = [entry for _, entry in read_terms(cities_path())]
    assert all(not isinstance(row, str) for row in rows)
    assert len(rows) >= 30_000
    assert cities_path().stat().st_size < 1_000_000
    done = document(tmp_path, "index", "cities", "--name", "cities")
    assert (done["entries"], done["skipped"], done["merged"]) == (len(rows), [], 0)
    for prefix, text in [
        ("sai", "Saigon"),
        ("sao p", "São Paulo"),
        ("dus", "Düsseldorf"),
        ("da n", "Đà Nẵng"),
        ("ha noi", "Hà Nội"),
        ("lodz", "Łódź"),
        ("malmo", "Malmö"),
    ]:
        found = document(tmp_path, "complete", "cities", prefix)["completions"]
        assert text in [completion["text"] for completion in found], prefix
        assert all({"country", "lat", "lon"} <= set(completion["payload"]) for completion in found)
    saigon = document(tmp_path, "complete", "cities", "Saigon", "--limit", "1")["completions"][0]
    assert saigon["payload"] == {"country": "VN", "lat": 10.823, "lon": 106.63, "city": "Ho Chi Minh City"}
