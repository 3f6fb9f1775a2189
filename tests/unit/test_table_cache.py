"""Tables larger than memory: a cache holds what the file holds, and a network learned from it has the same bytes."""

import gzip
import os
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from mariana import scratch, table_cache
from mariana.cli import cli
from mariana.errors import FileFormatError, InvalidInputError, MarianaError, NotFoundError
from mariana.table_cache import cached_table
from mariana.tables import Table, read_table

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


def test_other_files_are_not_cached(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        cached_table(tmp_path / "none.csv", tmp_path)
    (tmp_path / "a.npz").write_bytes(b"")
    with pytest.raises(InvalidInputError, match="a cache is made of"):
        cached_table(tmp_path / "a.npz", tmp_path)
