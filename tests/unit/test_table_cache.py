"""Tables larger than memory: a cache holds what the file holds, and a network learned from it has the same bytes."""

import gzip
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from mariana import scratch, table_cache
from mariana.cli import cli
from mariana.errors import FileFormatError, InvalidInputError, MarianaError, NotFoundError
from mariana.table_cache import cached_table
from mariana.table_size import learning_bytes, memory_bytes
from mariana.tables import Table, read_table
from mariana.trainer.preprocessing import infer_target

TEXT = (
    "n;b;when;city;none;target\n"
    + "".join(
        f"{i / 7:.3f};{'true' if i % 3 else ''};2024-0{i % 9 + 1}-05;{'Rome' if i % 5 else ' NA '};;{'x' if i % 4 else 'y'}\n"
        + ("\n" if i % 11 == 0 else "")
        for i in range(200)
    )
    + '1e3;false;;"a\nb";?;\n'
)


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (scratch, table_cache):
        monkeypatch.setattr(module, "CHUNK_ROWS", 64)
    monkeypatch.setattr("mariana.tables.CHUNK_ROWS", 64)
    monkeypatch.setattr(scratch, "SPILL_BYTES", 0)


def same(mine: Table, theirs: Table) -> None:
    assert (mine.name, mine.rows, mine.sha256, list(mine.columns)) == (
        theirs.name,
        theirs.rows,
        theirs.sha256,
        list(theirs.columns),
    )
    for name, column in mine.columns.items():
        other = theirs.columns[name]
        assert (column.kind, column.unit, list(column.places)) == (
            other.kind,
            other.unit,
            list(other.places),
        )
        assert column.known().tolist() == other.known().tolist()
        if column.kind in ("numeric", "boolean"):
            np.testing.assert_array_equal(column.numbers(column.kind), other.numbers(column.kind))
        else:
            assert list(column.texts()) == list(other.texts())


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("suffix", ["csv", "csv.gz", "parquet"])
def test_the_cache_holds_what_the_file_holds(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"table.{suffix}"
    if suffix == "parquet":
        arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        table = read_table_of_text(tmp_path)
        columns = {
            name: list(c.texts())
            if c.kind in ("categorical", "date")
            else [None if np.isnan(v) else v for v in c.numbers(c.kind)]
            for name, c in table.columns.items()
        }
        parquet.write_table(arrow.table(columns), path)
    else:
        path.write_bytes(gzip.compress(TEXT.encode()) if suffix == "csv.gz" else TEXT.encode("utf-8-sig"))
    expected = read_table(path)
    found = cached_table(path, tmp_path / "cache")
    same(found, expected)
    rows = np.array([200, 3, 77])
    same(found.take(rows), expected.take(rows))
    made = sorted((tmp_path / "cache").rglob("*"))
    path_stat = [p.stat().st_mtime_ns for p in made]
    same(cached_table(path, tmp_path / "cache"), expected)  # not made a second time
    assert [p.stat().st_mtime_ns for p in made] == path_stat
    os.utime(path, ns=(1, 1))
    cached_table(path, tmp_path / "cache")
    assert len(list((tmp_path / "cache").iterdir())) == 2
    for column in (tmp_path / "cache").rglob("0.npy"):
        column.write_bytes(b"")
    with pytest.raises(FileFormatError, match="damaged cache"):
        cached_table(path, tmp_path / "cache")


def read_table_of_text(folder: Path) -> Table:
    (folder / "text.csv").write_text(TEXT)
    return read_table(folder / "text.csv")


@pytest.mark.usefixtures("small_chunks")
def test_a_network_learned_from_the_cache_has_the_same_bytes(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text(TEXT)
    for store, options in (("plain", []), ("cached", ["--cache", str(tmp_path / "cache")])):
        arguments = [
            "train",
            str(path),
            "--target",
            "target",
            "--epochs",
            "3",
            "--store",
            str(tmp_path / store),
        ]
        result = CliRunner().invoke(cli, [*arguments, *options], catch_exceptions=False)
        assert result.exit_code == 0, result.output
    plain, cached = (tmp_path / store / "models/table/1/model.safetensors" for store in ("plain", "cached"))
    assert plain.read_bytes() == cached.read_bytes()
    assert len(list((tmp_path / "cache").iterdir())) == 1  # what was spilled is gone


@pytest.mark.usefixtures("small_chunks")
def test_large_arrays_lie_in_files(tmp_path: Path) -> None:
    with scratch.spill_to(tmp_path):
        array = scratch.empty((70, 3), np.float32)
    assert isinstance(array, np.memmap)
    assert not list(tmp_path.iterdir())
    array[:] = 1
    assert array.sum() == 210
    assert not isinstance(scratch.empty((70, 3)), np.memmap)


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.csv", b""),
        ("a.csv", b"a,b\n"),
        ("a.csv", b"a,a\n1,2\n"),
        ("a.csv", b"a,b\n1,2\n1\n"),
        ("a.csv", b"a,b\n1,2\n1,\xff\n"),
        ("a.csv", b'a,b\n1,2\n1,"2" x\n'),
        ("a.csv.gz", gzip.compress(b"a,b\n1,2\n", mtime=0)[:-9]),
        ("a.csv.gz", b"no gzip"),
        ("a.parquet", b"PAR1"),
    ],
)
def test_what_cannot_be_read_cannot_be_cached(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    for read in (read_table, lambda path: cached_table(path, tmp_path / "cache")):
        with pytest.raises(MarianaError, match=r"a\.(csv|parquet)"):
            read(tmp_path / name)
    assert not list((tmp_path / "cache").iterdir())


@pytest.mark.parametrize("written", ["inf", "-inf", "Infinity", "1e999", "1e39"])
def test_a_number_without_end_is_refused_and_makes_no_texts(tmp_path: Path, written: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text("x,y,city\n1.5,a,inf\nnan,b,Rome\n" + written + ",c,Oslo\n", encoding="utf-8")
    for table in (read_table(path), cached_table(path, tmp_path / "cache")):
        assert table.columns["x"].kind == "numeric"
        assert list(table.columns["city"].texts()) == ["inf", "Rome", "Oslo"]
        with pytest.raises(InvalidInputError, match=r"line 4.*'x'.* is infinite, or too large for float32"):
            table.columns["x"].numbers("numeric")
    said = CliRunner().invoke(cli, ["train", str(path), "--target", "y", "--store", str(tmp_path / "store")])
    assert isinstance(said.exception, InvalidInputError)
    assert "line 4" in str(said.exception)


def test_other_files_are_not_cached(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        cached_table(tmp_path / "none.csv", tmp_path)
    (tmp_path / "a.txt").write_bytes(b"")
    with pytest.raises(InvalidInputError, match="a cache is made of"):
        cached_table(tmp_path / "a.txt", tmp_path)


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("labels", [None, "numbers", "texts", "dates"])
def test_an_archive_is_cached_as_it_is_read(tmp_path: Path, labels: str | None) -> None:
    rng = np.random.default_rng(0)
    arrays = {"x": rng.integers(0, 255, (200, 3, 2), np.uint8)}
    if labels is not None:
        number = rng.integers(0, 3, 200)
        known = {"numbers": number, "texts": np.array(["a", "b", "NA"])[number]}
        arrays["y"] = known.get(labels, np.array(["2024-01-05", "2023-01-01", ""])[number])
    np.savez_compressed(tmp_path / "a.npz", **arrays)
    expected, found = read_table(tmp_path / "a.npz"), cached_table(tmp_path / "a.npz", tmp_path / "cache")
    same(found, expected)
    assert found.input_shape == expected.input_shape == (3, 2)
    same(cached_table(tmp_path / "a.npz", tmp_path / "cache"), expected)


def test_archives_that_cannot_be_cached(tmp_path: Path) -> None:
    cases = {
        "no x": {"y": np.zeros(3)},
        r"x must be numbers \(rows": {"x": np.zeros(3)},
        "y must be numbers or texts": {"x": np.zeros((3, 2)), "y": np.zeros(2)},
        "Fortran": {"x": np.asfortranarray(np.zeros((3, 2)))},
    }
    path = tmp_path / "a.npz"
    for message, arrays in cases.items():
        np.savez(path, **arrays)
        with pytest.raises(MarianaError, match=message):
            cached_table(path, tmp_path / "cache")
    np.savez(path, x=np.zeros((300, 2)))
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(FileFormatError, match="not an archive"):
        cached_table(path, tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())


@pytest.mark.parametrize("suffix", ["csv", "csv.gz", "parquet", "npz"])
def test_what_learning_takes_is_estimated_from_the_head(tmp_path: Path, suffix: str) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(5000, 4)).round(3)
    path = tmp_path / f"a.{suffix}"
    if suffix == "npz":
        np.savez(path, x=x)
    elif suffix == "parquet":
        arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        parquet.write_table(arrow.table({f"c{i}": x[:, i] for i in range(4)}), path)
    else:
        text = "a,b,c,d\n" + "".join(",".join(map(str, row)) + "\n" for row in x.tolist())
        path.write_bytes(gzip.compress(text.encode()) if suffix == "csv.gz" else text.encode())
    cells = learning_bytes(path) / (
        150 + 196 if "csv" in suffix else (90 if suffix == "parquet" else 16) + 196
    )
    assert 0.5 * x.size < cells < 1.2 * x.size
    path.write_bytes(b"\x93no table")
    assert learning_bytes(path) < 1000
    assert learning_bytes(tmp_path / "none.csv") == 0
    assert memory_bytes() > 1 << 28


@pytest.mark.usefixtures("small_chunks")
def test_a_large_table_is_cached_unasked_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "table.csv"
    path.write_text(TEXT)
    arguments = ["train", str(path), "--target", "target", "--epochs", "3", "--store"]
    plain = CliRunner().invoke(cli, [*arguments, str(tmp_path / "a")], catch_exceptions=False)
    assert "it is cached in" not in plain.output
    monkeypatch.setattr("mariana.cli.data.memory_bytes", lambda: 400_000)
    large = CliRunner().invoke(cli, [*arguments, str(tmp_path / "b")], catch_exceptions=False)
    assert "GB of memory, more than 50%: it is cached in" in large.output
    assert [p.name for p in (tmp_path / "b/cache").glob("*/table.json")] == ["table.json"]
    first, second = (tmp_path / store / "models/table/1/model.safetensors" for store in "ab")
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.usefixtures("small_chunks")
def test_labels_stay_as_they_are_written(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("x,y,z\n" + "".join(f"{i / 8},0{i % 3},{i % 3}\n" for i in range(200)))
    expected, found = read_table(path), cached_table(path, tmp_path / "cache")
    same(found, expected)
    for name, labels in (("y", ("00", "01", "02")), ("z", (0, 1, 2))):
        targets = [infer_target(table.column(name)) for table in (expected, found)]
        assert [target.labels for target in targets] == [labels, labels]
        assert (targets[0].y == targets[1].y).all()
    assert isinstance(found.column("z").cells, np.memmap)


@pytest.mark.usefixtures("small_chunks")
def test_what_a_killed_maker_left_goes_and_what_a_living_one_makes_stays(tmp_path: Path) -> None:
    cache, path = tmp_path / "cache", tmp_path / "table.csv"
    path.write_text(TEXT)
    script = (
        "import sys, time\n"
        "from mariana import table_cache\n"
        "def write(source, folder):\n"
        "    (folder / '0.npy').write_bytes(b'half')\n"
        "    print(folder.name, flush=True)\n"
        "    time.sleep(60)\n"
        "table_cache._write = write\n"
        "table_cache.cached_table(*sys.argv[1:2], table_cache.Path(sys.argv[2]))\n"
    )
    command = [sys.executable, "-c", script, str(path), str(cache)]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as killed,
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as living,
    ):
        assert killed.stdout is not None
        assert living.stdout is not None
        left, made = killed.stdout.readline().strip(), living.stdout.readline().strip()
        killed.kill()
        killed.wait()
        assert (cache / left).exists()
        cached_table(path, cache)
        assert not (cache / left).exists()
        assert (cache / made).exists()
        living.kill()
        living.wait()
        cached_table(path, cache)  # it is there: nothing is made, but tidied up
    assert [p.name[:6] for p in cache.iterdir()] == ["table-"]
