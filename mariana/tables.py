"""Tables from files: CSV, Parquet, NumPy archives, and the tables that are bundled."""

from __future__ import annotations

import csv
import gzip
import hashlib
import importlib
import io
import math
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any, Literal, NoReturn

import numpy as np
from numpy.typing import NDArray

from mariana import scratch
from mariana.datasets import BUNDLED
from mariana.errors import FileFormatError, InvalidInputError, NotFoundError
from mariana.format import DatePart, Feature, read_date
from mariana.scratch import CHUNK_ROWS
from mariana.table_size import SHARE, memory_bytes

MISSING = frozenset(("", "?", "NA", "N/A", "NaN", "nan", "NULL", "null", "None"))
"""How a missing value is written in a CSV file."""

BOOLEANS = {"true": 1.0, "True": 1.0, "TRUE": 1.0, "false": 0.0, "False": 0.0, "FALSE": 0.0}
"""How a boolean is written in a CSV file."""

Kind = Literal["numeric", "boolean", "date", "categorical"]


class Texts(Sequence[str | None]):
    """Texts that repeat, each kept once.

    Args:
        codes: (rows,) places in ``known``; -1 where missing.
        known: the different texts.
    """

    def __init__(self, codes: NDArray[np.int32], known: Sequence[str]) -> None:
        self.codes = codes
        self.known: list[str | None] = [*known, None]

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.codes)

    def __getitem__(self, row: Any) -> Any:
        """Return the text of a row, None where missing."""
        return self.known[self.codes[row]]

    def __iter__(self) -> Iterator[str | None]:
        """Yield the texts, some thousand rows read at once."""
        for start in range(0, len(self.codes), CHUNK_ROWS):
            yield from map(self.known.__getitem__, self.codes[start : start + CHUNK_ROWS].tolist())

    def take(self, rows: NDArray[np.int64]) -> Texts:
        """Return the texts of these rows alone."""
        found = copy(self)
        found.codes = self.codes[rows]
        return found


@dataclass(frozen=True, slots=True)
class Column:
    """One column.

    Attributes:
        name: from the header.
        cells: texts as they were written, None where missing; or float64 numbers, NaN where missing. Either may be mapped
            from a file.
        kind: what all cells that are not missing can be read as; numeric before boolean before date (texts in ISO 8601)
            before categorical.
        unit: what a row is called in messages: line (of a CSV file) or row.
        places: number of the line or row of each cell.
    """

    name: str
    cells: Sequence[str | None] | NDArray[np.float64]
    kind: Kind
    unit: str
    places: Sequence[int] | NDArray[np.int64]

    def numbers(self, kind: Kind) -> NDArray[np.float64]:
        """Return the cells as numbers (booleans as 1 and 0), NaN where missing.

        Raises:
            InvalidInputError: a cell is no number or boolean, or does not fit float32; the message names its line.
        """
        numbers = self.cells if isinstance(self.cells, np.ndarray) else self._read(self.cells, kind)
        with np.errstate(over="ignore"):
            wrong = np.isinf(numbers.astype(np.float32))
        if wrong.any():
            self.refuse(
                int(np.argmax(wrong)),
                "is infinite, or too large for float32; leave the cell empty if the number is not known",
            )
        return numbers

    def _read(self, cells: Sequence[str | None], kind: Kind) -> NDArray[np.float64]:
        if kind == self.kind:  # then all cells are known to be right
            read = float if kind == "numeric" else BOOLEANS.__getitem__
            return np.array([math.nan if cell is None else read(cell) for cell in cells])
        numbers = np.empty(len(cells))
        for i, cell in enumerate(cells):
            value = (
                math.nan if cell is None else read_number(cell) if kind == "numeric" else BOOLEANS.get(cell)
            )
            if value is None:
                wanted = "a number" if kind == "numeric" else "true or false"
                self.refuse(i, f"is {str(cell)[:40]!r}, expected {wanted}")
            numbers[i] = value
        return numbers

    def dates(self, part: DatePart) -> NDArray[np.float64]:
        """Return a part of the cells as dates, NaN where missing.

        Raises:
            InvalidInputError: a cell is no date in ISO 8601; the message names its line.
        """
        known: dict[str | None, float] = {None: math.nan}
        texts = self.texts()
        for row, text in enumerate(texts):
            if text in known:
                continue
            when = read_date(text)
            if when is None:
                self.refuse(row, f"is {str(text)[:40]!r}, expected a date such as 2024-03-05")
            known[text] = part.of(when)
        return np.array([known[text] for text in texts])

    def known(self) -> NDArray[np.bool_]:
        """Return which cells are not missing: (rows,)."""
        if isinstance(self.cells, np.ndarray):
            return ~np.isnan(self.cells)
        return np.fromiter((cell is not None for cell in self.cells), bool, len(self.cells))

    def texts(self) -> Sequence[str | None]:
        """Return the cells as texts, None where missing; whole numbers without a point."""
        if not isinstance(self.cells, np.ndarray):
            return self.cells
        if self.kind == "boolean":
            return [None if math.isnan(v) else "true" if v else "false" for v in self.cells.tolist()]
        return [
            None if math.isnan(v) else str(int(v)) if v.is_integer() else repr(v) for v in self.cells.tolist()
        ]

    def take(self, rows: NDArray[np.int64]) -> Column:
        """Return the column with these rows alone."""
        cells: Sequence[str | None] | NDArray[np.float64]
        if isinstance(self.cells, np.ndarray):
            cells = _taken(self.cells, rows)
        else:
            cells = self.cells.take(rows) if isinstance(self.cells, Texts) else [self.cells[i] for i in rows]
        return replace(self, cells=cells, places=_taken(np.asarray(self.places), rows))

    def refuse(self, row: int, what: str) -> NoReturn:
        """Raise InvalidInputError about the cell of a row."""
        raise InvalidInputError(f"{self.unit} {self.places[row]}: {self.name!r} {what}")


@dataclass(frozen=True, slots=True)
class Table:
    """A table.

    Attributes:
        name: the file's name without folder and suffixes.
        columns: by name.
        rows: number of rows.
        sha256: of the file's bytes.
        input_shape: shape of one row of ``x`` in a NumPy archive; else empty.
    """

    name: str
    columns: dict[str, Column]
    rows: int
    sha256: str
    input_shape: tuple[int, ...] = ()

    def column(self, name: str) -> Column:
        """Return a column.

        Raises:
            InvalidInputError: there is none of that name; the message lists those that are there.
        """
        if name not in self.columns:
            known = ", ".join(list(self.columns)[:10]) + (", ..." if len(self.columns) > 10 else "")
            raise InvalidInputError(f"{self.name} has no column {name[:64]!r}; there are: {known}")
        return self.columns[name]

    def take(self, rows: NDArray[np.int64]) -> Table:
        """Return the table with these rows alone."""
        columns = {name: column.take(rows) for name, column in self.columns.items()}
        return replace(self, columns=columns, rows=len(rows))

    def matrix(self, features: Sequence[Feature]) -> NDArray[np.float64]:
        """Return raw rows as a model takes them: (rows, features).

        A number, 1 or 0 for a boolean, a part of a date, the index of a category; rounded to float32; NaN where it is missing (or no
        known category) and the feature has a fill.

        Raises:
            InvalidInputError: a column is not there, or a value is missing where there is no fill, has the wrong
                type, or does not fit float32; the message names its line.
        """
        matrix = scratch.empty((self.rows, len(features)))
        for i, feature in enumerate(features):
            column = self.column(feature.column)
            if feature.kind == "categorical":
                index = {category: float(n) for n, category in enumerate(feature.categories)}
                values = np.array(
                    [index.get(t, math.nan) if t is not None else math.nan for t in column.texts()]
                )
            elif feature.kind == "numeric" and feature.date is not None:
                values = column.dates(feature.date).astype(np.float32)
            else:
                values = column.numbers(feature.kind).astype(np.float32)
            missing = np.isnan(values)
            if feature.fill is None and missing.any():
                row = int(np.argmax(missing))
                text = column.texts()[row]
                column.refuse(
                    row,
                    "is missing, and there is no substitute for it"
                    if text is None
                    else f"is {text[:40]!r}, which is none of its categories",
                )
            matrix[:, i] = values
        return matrix


def _taken(array: NDArray[Any], rows: NDArray[np.int64]) -> NDArray[Any]:
    return np.take(array, rows, out=scratch.empty((len(rows),), array.dtype), mode="clip")


def read_table(source: str | Path) -> Table:
    """Read a table.

    Args:
        source: a file ``.csv``, ``.tsv`` (both also with ``.gz``), ``.parquet`` or ``.npz`` (arrays ``x`` (rows, ...)
            and, optionally, ``y`` (rows,)), or the name of a bundled table.

    Raises:
        NotFoundError: there is no such file and no such bundled table.
        FileFormatError: the file is damaged or malformed; the message names the line.
        InvalidInputError: not a kind of file that can be read.
        OSError: the file cannot be read.
    """
    path = Path(source)
    bundled = {file.name.split(".")[0]: file for file in BUNDLED.values()}
    if not path.exists() and str(source) in bundled:
        path = bundled[str(source)]
    if not path.exists():
        raise NotFoundError(f"{source}: no such file, and no bundled table; those are: {', '.join(bundled)}")
    if not path.is_file():
        raise InvalidInputError(
            f"{source}: not a regular file; expected .csv[.gz], .tsv[.gz], .parquet or .npz"
        )
    suffix = path.suffix if path.suffix != ".gz" else Path(path.stem).suffix
    readers = {".csv": _read_text, ".tsv": _read_text, ".parquet": _read_parquet, ".npz": _read_npz}
    if suffix.lower() not in readers:
        raise InvalidInputError(f"{source}: expected .csv[.gz], .tsv[.gz], .parquet or .npz")
    return readers[suffix.lower()](str(source), path.read_bytes())


def read_csv(name: str, data: bytes) -> Table:
    """Read the bytes of a CSV file (UTF-8, a header, separated by comma, semicolon or tab).

    Raises:
        FileFormatError: malformed; the message names the line.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise FileFormatError(f"{name}: line {line} is not UTF-8; save the file as UTF-8") from None
    first = text[: text.find("\n")] if "\n" in text else text
    separator = max(",;\t", key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    rows: list[list[str]] = []
    lines: list[int] = []
    try:
        header = [title.strip() for title in next(reader, [])]
        check_header(name, header)
        for row in reader:
            if not row:
                continue
            check_width(name, reader.line_num, row, len(header), separator)
            rows.append(row)
            lines.append(reader.line_num)
    except csv.Error as error:
        raise FileFormatError(
            f"{name}: line {reader.line_num}: {error}; see RFC 4180 for how CSV is written"
        ) from None
    if not rows:
        raise FileFormatError(f"{name}: there is a header, but no row")
    columns = {}
    for title, cells in zip(header, zip(*rows, strict=True), strict=True):
        stripped = [cell.strip() for cell in cells]
        values = [None if cell in MISSING else cell for cell in stripped]
        columns[title] = Column(title, values, _kind(values), "line", lines)
    return Table(stem(name), columns, len(rows), hashlib.sha256(data).hexdigest())


def check_header(name: str, header: list[str]) -> None:
    """Raise FileFormatError if the names of the columns are missing, too long, or not all different."""
    if not header:
        raise FileFormatError(f"{name}: the file is empty; its first line must name the columns")
    for number, title in enumerate(header, 1):
        if not title or len(title) > 256:
            raise FileFormatError(f"{name}: line 1: column {number} needs a name of 1 to 256 characters")
        if title in header[: number - 1]:
            raise FileFormatError(f"{name}: line 1 names the column {title!r} twice")


def check_width(name: str, line: int, row: list[str], columns: int, separator: str) -> None:
    """Raise FileFormatError if a line of a CSV file has more or fewer values than columns."""
    if len(row) != columns:
        raise FileFormatError(
            f"{name}: line {line} has {len(row)} values, but the header names {columns} "
            f"columns; put values that hold {separator!r} into double quotes"
        )


def _read_text(name: str, data: bytes) -> Table:
    if name.endswith(".gz"):
        try:
            unpacked = gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            raise FileFormatError(f"{name}: damaged gzip file: {error}") from None
        return read_csv(name, unpacked)
    return read_csv(name, data)


def _read_npz(name: str, data: bytes) -> Table:
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in ("x", "y") if key in archive}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        raise FileFormatError(f"{name}: not an archive of plain arrays: {str(error)[:200]}") from None
    if "x" not in arrays:
        raise FileFormatError(f"{name}: expected arrays x (rows, ...) and y (rows,), found no x")
    x, y = arrays["x"], arrays.get("y")
    if x.ndim < 2 or 0 in x.shape or x.dtype.kind not in "biuf":
        raise FileFormatError(f"{name}: x must be numbers (rows, ...), found {x.dtype} {x.shape}")
    if y is not None and (y.shape != (len(x),) or y.dtype.kind not in "biufU"):
        raise FileFormatError(f"{name}: y must be numbers or texts ({len(x)},), found {y.dtype} {y.shape}")
    flat = x.reshape(len(x), -1)
    parts = {f"x{i}": flat[:, i] for i in range(flat.shape[1])}
    if y is not None:
        parts["y"] = y
    columns = {title: _array_column(title, part) for title, part in parts.items()}
    return Table(stem(name), columns, len(x), hashlib.sha256(data).hexdigest(), x.shape[1:])


def _read_parquet(name: str, data: bytes) -> Table:
    try:
        parquet = importlib.import_module("pyarrow.parquet")
    except ImportError:
        raise InvalidInputError(
            f"{name}: Parquet needs pyarrow; install it with: pip install 'mariana-serve[parquet]'"
        ) from None
    try:
        table = parquet.read_table(io.BytesIO(data))
    except (ValueError, OSError) as error:  # pyarrow's errors derive from these
        raise FileFormatError(f"{name}: not a Parquet file, or a damaged one: {str(error)[:200]}") from None
    check_header(name, table.column_names)
    if not table.num_rows:
        raise FileFormatError(f"{name}: there are columns, but no row")
    columns = {}
    for title, chunks in zip(table.column_names, table.columns, strict=True):
        cells = chunks.to_pylist()
        found = {type(cell) for cell in cells} - {type(None)}
        if found <= {str}:
            texts = [None if cell in MISSING else cell for cell in cells]
            columns[title] = Column(title, texts, "categorical", "row", range(table.num_rows))
        elif found <= {int, float} or found == {bool}:
            numbers = np.array([math.nan if cell is None else float(cell) for cell in cells])
            kind: Kind = "boolean" if bool in found else "numeric"
            columns[title] = Column(title, numbers, kind, "row", range(table.num_rows))
        elif all(issubclass(kind, date) for kind in found):
            dates = [None if cell is None else cell.isoformat() for cell in cells]
            columns[title] = Column(title, dates, "date", "row", range(table.num_rows))
        else:
            raise FileFormatError(
                f"{name}: column {title!r} is of type {chunks.type}; numbers, booleans, strings and dates can be read"
            )
    return Table(stem(name), columns, table.num_rows, hashlib.sha256(data).hexdigest())


def table_of(x: Any, names: Sequence[str] | None = None) -> Table:
    """Return an array, a sparse matrix or a data frame (pandas, polars, pyarrow) as a table.

    Args:
        x: (rows, columns); columns of a data frame may hold numbers, booleans, texts and dates, and miss values.
        names: of an array's columns, if it has so many; else x0, x1, ...

    Raises:
        InvalidInputError: it is complex, empty, of another shape, or sparse and too large with its zeros.
        TypeError: a cell is no number, text, boolean or date.
    """
    titles = getattr(x, "column_names", None) or getattr(
        x, "columns", None
    )  # pyarrow's columns have no names
    if titles is not None and not callable(titles):
        columns = [_array_column(str(title), np.asarray(x[title])) for title in titles]
        rows = len(x)
    else:
        array = _matrix(x)
        rows = len(array)
        if names is None or len(names) != array.shape[1]:
            names = [f"x{i}" for i in range(array.shape[1])]
        columns = [_array_column(name, array[:, i]) for i, name in enumerate(names)]
    for count, what in ((rows, "sample"), (len(columns), "feature")):
        if not count:
            raise InvalidInputError(
                f"Found array with 0 {what}(s) (shape=({rows}, {len(columns)})) while a minimum of 1 is required."
            )
    by_name = {column.name: column for column in columns}
    if len(by_name) != len(columns):
        raise InvalidInputError("two columns have the same name")
    return Table("table", by_name, rows, "")


def _matrix(x: Any) -> NDArray[Any]:
    array = np.asarray(_dense(x) if hasattr(x, "todense") else x)
    if array.dtype.kind == "c":
        raise InvalidInputError("Complex data not supported: X must be real numbers")
    if array.ndim != 2:
        raise InvalidInputError(
            f"Expected 2D array (rows, columns), got {array.ndim}D array of shape {array.shape}. Reshape your data either "
            "using array.reshape(-1, 1) if your data has a single feature or array.reshape(1, -1) if it contains a "
            "single sample."
        )
    return array


def _dense(x: Any) -> NDArray[Any]:
    """Return a sparse matrix with its zeros, if there is memory for it."""
    size, there = math.prod(x.shape) * np.dtype(np.float64).itemsize, memory_bytes()
    if size > SHARE * there:
        raise InvalidInputError(
            f"X is sparse, and with its zeros {x.shape} would take {size / 1e9:.3g} GB of the {there / 1e9:.3g} GB of "
            "memory; choose fewer columns, or learn the rows in parts with partial_fit"
        )
    return np.asarray(x.toarray() if hasattr(x, "toarray") else x.todense())


def _array_column(name: str, array: NDArray[Any]) -> Column:
    """Return a column of an array (rows,)."""
    places = range(len(array))
    kind = array.dtype.kind
    if kind in "biuf":
        return Column(name, array.astype(np.float64), "boolean" if kind == "b" else "numeric", "row", places)
    if kind == "M":
        stamps = np.datetime_as_string(array, unit="s").tolist()
        return Column(name, [None if text == "NaT" else text for text in stamps], "date", "row", places)
    if kind == "U":
        return _text_column(name, [None if text in MISSING else text for text in array.tolist()])
    cells = [None if _absent(cell) else cell for cell in array.tolist()]
    known = [cell for cell in cells if cell is not None]
    if all(isinstance(cell, bool | np.bool_ | int | float | np.integer | np.floating) for cell in known):
        flags = bool(known) and all(isinstance(cell, bool | np.bool_) for cell in known)
        numbers = np.array([math.nan if cell is None else float(cell) for cell in cells])
        return Column(name, numbers, "boolean" if flags else "numeric", "row", places)
    if all(isinstance(cell, date) for cell in known):
        return Column(
            name, [cell if cell is None else cell.isoformat() for cell in cells], "date", "row", places
        )
    strange = [cell for cell in known if not isinstance(cell, str | int | float | np.generic)]
    if strange:
        raise TypeError(
            f"argument must be a string or a number, not {type(strange[0]).__name__} (column {name!r})"
        )
    return _text_column(name, [None if cell is None or cell in MISSING else str(cell) for cell in cells])


def _absent(cell: object) -> bool:
    """Whether a cell holds None, NaN, NaT or pandas' NA."""
    return (
        cell is None
        or type(cell).__name__ in ("NAType", "NaTType")
        or (isinstance(cell, float) and math.isnan(cell))
    )


def _text_column(name: str, texts: list[str | None]) -> Column:
    known = {text for text in texts if text is not None}
    dates = bool(known) and all(read_date(text) is not None for text in known)
    return Column(name, texts, "date" if dates else "categorical", "row", range(len(texts)))


def _kind(cells: list[str | None]) -> Kind:
    known = {cell for cell in cells if cell is not None}
    if all(map(spells_number, known)):
        return "numeric"
    if known <= BOOLEANS.keys():
        return "boolean"
    return "date" if all(read_date(cell) is not None for cell in known) else "categorical"


def read_number(text: str) -> float | None:
    """Return the finite number that a text spells; Python's underscores and infinities are none."""
    return float(text) if spells_number(text) and math.isfinite(float(text)) else None


def spells_number(text: str) -> bool:
    """Whether a text is a number, or would be: a column of numbers with an ``inf`` is none of texts, and refused as such."""
    try:
        float(text)
    except ValueError:
        return False
    return "_" not in text


def stem(name: str) -> str:
    """Return a file's name without folder and suffixes."""
    return Path(name).name.split(".")[0]
