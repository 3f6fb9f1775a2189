"""Tables larger than memory: a CSV, Parquet or NumPy file becomes, once, a folder of columns that are mapped, not read.

A column of numbers or booleans is a ``.npy`` file of float64, one of texts or dates a ``.npy`` file of int32 codes beside
its different texts. The folder is named after the file's place, size and time of change: a changed file gets another one.
It is written under another name and renamed, so that it is whole or not there; what a killed process left of one goes when
the next one is asked for. What is read is what :func:`mariana.tables.read_table` reads.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import importlib
import io
import itertools
import json
import math
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, nullcontext, suppress
from datetime import date
from pathlib import Path
from typing import IO, Any, BinaryIO

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import DTypeLike, NDArray

from mariana.errors import FileFormatError, InvalidInputError, NotFoundError
from mariana.format import read_date
from mariana.scratch import CHUNK_ROWS, reserve
from mariana.store import (
    fsync_directory,
    make_folder,
    remove_abandoned,
    store_errors,
    unfinished,
    write_whole,
)
from mariana.table_size import array_header
from mariana.tables import (
    BOOLEANS,
    MISSING,
    Column,
    Kind,
    Table,
    Texts,
    check_header,
    check_width,
    spells_number,
    stem,
)

_VERSION = 2
_MOST_LABELS = 10_000
"""A column of more different numbers is no set of classes: how they are written is not kept."""

_MANIFEST = "table.json"
_NUMBERS = ("numeric", "boolean")

Chunk = tuple[list[Any], list[int]]
"""The cells of some rows, column by column (lists, or arrays of numbers), and the rows' lines."""


def cached_table(source: str | Path, folder: Path) -> Table:
    """Return a table whose columns are mapped from a cache, which is made if it is not there.

    Args:
        source: a file ``.csv``, ``.tsv`` (both also with ``.gz``), ``.parquet`` or ``.npz``.
        folder: of the caches, made if it is not there.

    Raises:
        NotFoundError: there is no such file.
        FileFormatError: it is malformed; the message names the line.
        InvalidInputError: not a kind of file that can be cached.
        StoreError: the cache cannot be written.
    """
    path = Path(source)
    if not path.is_file():
        raise NotFoundError(f"{source}: no such file")
    suffix = path.suffix if path.suffix != ".gz" else Path(path.stem).suffix
    kinds: dict[str, type[_Source]] = {
        ".csv": _Text,
        ".tsv": _Text,
        ".parquet": _Parquet,
        ".npz": _Archive,
    }
    if suffix.lower() not in kinds:
        raise InvalidInputError(f"{source}: a cache is made of .csv[.gz], .tsv[.gz], .parquet and .npz files")
    found = path.stat()
    identity = f"{_VERSION} {path.resolve()} {found.st_size} {found.st_mtime_ns}"
    home = folder / f"{stem(path.name)}-{hashlib.sha256(identity.encode()).hexdigest()[:16]}"
    with store_errors(f"write {home}"):
        make_folder(folder)
        remove_abandoned(folder)
        if not (home / _MANIFEST).exists():
            with unfinished(folder) as temporary:
                _write(kinds[suffix.lower()](path), temporary)
                with suppress(OSError) if home.exists() else nullcontext():  # made meanwhile
                    temporary.rename(home)
            fsync_directory(folder)
    return _open(home)


def _open(home: Path) -> Table:
    """Return the table that a cache holds."""
    try:
        document = json.loads((home / _MANIFEST).read_bytes())
        rows = document["rows"]
        places: Sequence[int] | NDArray[np.int64] = range(rows)
        if document["unit"] == "line":
            places = np.load(home / "lines.npy", mmap_mode="r")
        columns = {}
        for number, (title, kind, texts) in enumerate(document["columns"]):
            values = np.load(home / f"{number}.npy", mmap_mode="r")
            cells = values if texts is None else Texts(values, texts)
            columns[title] = Column(title, cells, kind, document["unit"], places)
        if all(len(column.cells) == rows for column in columns.values()):
            return Table(document["name"], columns, rows, document["sha256"], tuple(document["input_shape"]))
    except (OSError, ValueError, KeyError, TypeError, EOFError):
        pass
    raise FileFormatError(f"{home}: a damaged cache; remove the folder, and it is made anew")


class _Source:
    """A file that is read in chunks, as often as needed.

    Attributes:
        path: of the file.
        titles: of the columns.
        unit: what its rows are called.
        written: places of the columns whose numbers are kept as they are written, such as labels 01 and 02.
        input_shape: of one row of ``x`` in a NumPy archive; else empty.
    """

    unit: str
    written: frozenset[int] = frozenset()
    input_shape: tuple[int, ...] = ()

    def __init__(self, path: Path) -> None:
        self.path, self.titles = path, [""]

    def opened(self) -> BinaryIO:
        """Return the bytes that are the data."""
        return self.path.open("rb")

    def chunks(self) -> Iterator[Chunk]:
        """Yield the rows, texts without what stands for a missing value."""
        raise NotImplementedError

    def survey(self) -> tuple[list[Kind], int]:
        """Return what the columns are, and the number of rows."""
        raise NotImplementedError


class _Text(_Source):
    unit = "line"

    def opened(self) -> BinaryIO:
        return gzip.open(self.path) if self.path.suffix == ".gz" else self.path.open("rb")  # type: ignore[return-value]

    def chunks(self) -> Iterator[Chunk]:
        name = str(self.path)
        with self.opened() as data, io.TextIOWrapper(data, "utf-8-sig", newline="") as file:
            reader, count = None, 0
            try:
                first = file.readline()
                separator = max(",;\t", key=first.count)
                reader = csv.reader(itertools.chain([first], file), delimiter=separator, strict=True)
                self.titles = [title.strip() for title in next(reader, [])]
                check_header(name, self.titles)
                rows: list[list[str]] = []
                lines: list[int] = []
                for row in reader:
                    if not row:
                        continue
                    check_width(name, reader.line_num, row, len(self.titles), separator)
                    rows.append(row)
                    lines.append(reader.line_num)
                    if len(rows) == CHUNK_ROWS:
                        yield _columns(rows), lines
                        rows, lines, count = [], [], count + 1
                if rows:
                    yield _columns(rows), lines
                elif not count:
                    raise FileFormatError(f"{name}: there is a header, but no row")
            except UnicodeDecodeError:
                raise FileFormatError(
                    f"{name}: after line {reader.line_num if reader else 0} is not UTF-8; save the file as UTF-8"
                ) from None
            except csv.Error as error:
                raise FileFormatError(
                    f"{name}: line {reader.line_num if reader else 1}: {error}; see RFC 4180 for how CSV is written"
                ) from None
            except (gzip.BadGzipFile, EOFError, zlib.error) as error:
                raise FileFormatError(f"{name}: damaged gzip file: {error}") from None

    def survey(self) -> tuple[list[Kind], int]:
        rows, numeric, boolean, dated = 0, set[int](), set[int](), set[int]()
        texts: dict[int, set[str]] = {}
        for columns, lines in self.chunks():
            if not rows:
                numeric, boolean, dated = (set(range(len(columns))) for _ in range(3))
                texts = {number: set() for number in numeric}
            rows += len(lines)
            for number, cells in enumerate(columns):
                known = set(cells) - {None}
                if number in numeric and not all(map(spells_number, known)):
                    numeric.remove(number)
                if number in texts:
                    texts[number] |= known
                    if number not in numeric or len(texts[number]) > _MOST_LABELS:
                        del texts[number]
                if number in boolean and not known <= BOOLEANS.keys():
                    boolean.remove(number)
                if number in dated and not all(read_date(cell) is not None for cell in known):
                    dated.remove(number)
        self.written = frozenset(n for n, known in texts.items() if not all(map(_plainly_written, known)))
        kinds: list[Kind] = [
            "numeric"
            if n in numeric
            else "boolean"
            if n in boolean
            else "date"
            if n in dated
            else "categorical"
            for n in range(len(self.titles))
        ]
        return kinds, rows


class _Parquet(_Source):
    unit = "row"

    def chunks(self) -> Iterator[Chunk]:
        try:
            parquet = importlib.import_module("pyarrow.parquet")
        except ImportError:
            raise InvalidInputError(
                f"{self.path}: Parquet needs pyarrow; install it with: pip install 'mariana-serve[parquet]'"
            ) from None
        start = 0
        try:
            with parquet.ParquetFile(self.path) as file:
                self.titles = list(file.schema_arrow.names)
                check_header(str(self.path), self.titles)
                for batch in file.iter_batches(CHUNK_ROWS):
                    rows = range(start, start := start + batch.num_rows)
                    yield [[_cell(c) for c in column.to_pylist()] for column in batch.columns], list(rows)
        except (ValueError, OSError) as error:  # pyarrow's errors derive from these
            raise FileFormatError(
                f"{self.path}: not a Parquet file, or a damaged one: {str(error)[:200]}"
            ) from None
        if not start:
            raise FileFormatError(f"{self.path}: there are columns, but no row")

    def survey(self) -> tuple[list[Kind], int]:
        found: list[set[type]] = []
        rows = 0
        for columns, lines in self.chunks():
            rows += len(lines)
            found = found or [set() for _ in columns]
            for types, cells in zip(found, columns, strict=True):
                types.update(map(type, cells))
        return [self._kind(*pair) for pair in zip(self.titles, found, strict=True)], rows

    def _kind(self, title: str, types: set[type]) -> Kind:
        types = types - {type(None)}
        if types <= {str}:
            return "categorical"
        if types <= {int, float} or types == {bool}:
            return "boolean" if bool in types else "numeric"
        if all(issubclass(kind, date) for kind in types):
            return "date"
        raise FileFormatError(
            f"{self.path}: column {title!r} holds {', '.join(sorted(t.__name__ for t in types))}; "
            "numbers, booleans, strings and dates can be read"
        )


class _Archive(_Source):
    """``x`` (rows, ...) and, optionally, ``y`` (rows,) of a NumPy archive, row by row as they lie there."""

    unit = "row"

    def chunks(self) -> Iterator[Chunk]:
        name, start = str(self.path), 0
        try:
            with zipfile.ZipFile(self.path) as archive:
                there = [key for key in ("x", "y") if f"{key}.npy" in archive.namelist()]
                if "x" not in there:
                    raise FileFormatError(f"{name}: expected arrays x (rows, ...) and y (rows,), found no x")
                with ExitStack() as opened:
                    files = [opened.enter_context(archive.open(f"{key}.npy")) for key in there]
                    headers = [array_header(file) for file in files]
                    self._check([(shape, dtype) for shape, _, dtype in headers])
                    if headers[0][1]:
                        raise InvalidInputError(
                            f"{name}: x lies column by column (Fortran's order) and cannot be read in parts; "
                            "save it with numpy.ascontiguousarray"
                        )
                    rows, self.input_shape = headers[0][0][0], headers[0][0][1:]
                    width = math.prod(self.input_shape)
                    self.titles = [*(f"x{i}" for i in range(width)), *there[1:]]
                    while start < rows:
                        count = min(CHUNK_ROWS, rows - start)
                        flat = _read_rows(files[0], headers[0][2], count, width)
                        columns: list[Any] = list(flat.T)
                        for file, (_, _, dtype) in zip(files[1:], headers[1:], strict=True):
                            cells = _read_rows(file, dtype, count, 1)[:, 0]
                            columns.append(
                                cells if cells.dtype.kind != "U" else [_cell(text) for text in cells.tolist()]
                            )
                        yield columns, list(range(start, start := start + count))
        except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
            raise FileFormatError(f"{name}: not an archive of plain arrays: {str(error)[:200]}") from None

    def _check(self, headers: list[tuple[tuple[int, ...], np.dtype[Any]]]) -> None:
        (shape, dtype), *others = headers
        if len(shape) < 2 or 0 in shape or dtype.kind not in "biuf":
            raise FileFormatError(f"{self.path}: x must be numbers (rows, ...), found {dtype} {shape}")
        for other, kind in others:
            if other != shape[:1] or kind.kind not in "biufU":
                raise FileFormatError(
                    f"{self.path}: y must be numbers or texts ({shape[0]},), found {kind} {other}"
                )

    def survey(self) -> tuple[list[Kind], int]:
        kinds: list[Kind] = []
        rows, dated, known = 0, True, False
        for columns, lines in self.chunks():
            rows += len(lines)
            kinds = [_array_kind(cells) for cells in columns]
            if kinds[-1] == "categorical":
                texts = set(columns[-1]) - {None}
                known = known or bool(texts)
                dated = dated and all(read_date(text) is not None for text in texts)
        if kinds[-1] == "categorical" and known and dated:
            kinds[-1] = "date"
        return kinds, rows


def _array_kind(cells: Any) -> Kind:
    if not isinstance(cells, np.ndarray):
        return "categorical"
    return "boolean" if cells.dtype.kind == "b" else "numeric"


def _read_rows(file: IO[bytes], dtype: np.dtype[Any], rows: int, width: int) -> NDArray[Any]:
    """Return the next rows of an array: (rows, width)."""
    size = rows * width * dtype.itemsize
    data = file.read(size)
    if len(data) != size:
        raise EOFError("an array ends too early")
    return np.frombuffer(data, dtype).reshape(rows, width)


def _plainly_written(text: str) -> bool:
    """Whether a number is written as :meth:`mariana.tables.Column.texts` writes it, so that its text can be made again."""
    value = float(text)
    return text == (str(int(value)) if value.is_integer() else repr(value))


def _cell(cell: Any) -> Any:
    return None if isinstance(cell, str) and cell in MISSING else cell


def _columns(rows: list[list[str]]) -> list[list[Any]]:
    stripped = ([cell.strip() for cell in cells] for cells in zip(*rows, strict=True))
    return [[None if cell in MISSING else cell for cell in cells] for cells in stripped]


def _write(source: _Source, folder: Path) -> None:
    """Write the cache of a file."""
    kinds, rows = source.survey()
    numbers = [kind in _NUMBERS and n not in source.written for n, kind in enumerate(kinds)]
    arrays = [
        _new_array(folder / f"{n}.npy", np.float64 if number else np.int32, rows)
        for n, number in enumerate(numbers)
    ]
    lines = _new_array(folder / "lines.npy", np.int64, rows)
    codes: list[dict[str, int]] = [{} for _ in kinds]
    end = 0
    for columns, places in source.chunks():
        start, end = end, end + len(places)
        if end > rows or len(columns) != len(kinds):
            break
        lines[start:end] = places
        for array, cells, number, known in zip(arrays, columns, numbers, codes, strict=True):
            if number:
                array[start:end] = (
                    cells if isinstance(cells, np.ndarray) else [_number(cell) for cell in cells]
                )
            else:
                texts = (c.isoformat() if isinstance(c, date) else c for c in cells)
                array[start:end] = [-1 if t is None else known.setdefault(t, len(known)) for t in texts]
    if end != rows:
        raise FileFormatError(f"{source.path}: it changed while it was read; try again")
    for array in (*arrays, lines):
        array.flush()
    with source.opened() as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]  # gzip's is one as well
    document = {
        "name": stem(str(source.path)),
        "rows": rows,
        "sha256": digest,
        "unit": source.unit,
        "input_shape": source.input_shape,
        "columns": [
            (title, kind, None if number else list(known))
            for title, kind, number, known in zip(source.titles, kinds, numbers, codes, strict=True)
        ],
    }
    write_whole(folder / _MANIFEST, json.dumps(document).encode())


def _new_array(path: Path, dtype: DTypeLike, rows: int) -> np.memmap[Any, Any]:
    array = open_memmap(path, "w+", dtype, (rows,))
    with path.open("r+b") as file:
        reserve(file.fileno(), path.stat().st_size)
    return array


def _number(cell: Any) -> float:
    if cell is None:
        return math.nan
    return BOOLEANS[cell] if cell in BOOLEANS else float(cell)
