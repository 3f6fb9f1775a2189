"""Files of terms, as ``mariana index`` takes them: one entry a line, with its line number.

========  ==========================================================================================
.txt      one text a line; empty lines do not count
.tsv      text, score, payload, contexts, id, in this order, by tabs; all but the text may be left out
.csv      the same by commas, with the usual quotes
.jsonl    one JSON object a line, with ``text`` and, if wanted, ``score``, ``payload``, ``contexts``, ``id``
========  ==========================================================================================

Each may end in ``.gz`` besides. A first line of a .tsv or .csv that has a cell ``text`` names the columns instead,
in any order. All are UTF-8. A payload is JSON; a text without a score has the score 1. Several contexts are parted by
``|`` in a .tsv or .csv, and are an array in a .jsonl. Entries with one id are names of one document.
"""

from __future__ import annotations

import csv
import gzip
import itertools
import json
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from mariana.errors import FileFormatError, InvalidInputError, NotFoundError

COLUMNS = ("text", "score", "payload", "contexts", "id")
LINE_MAX = 1 << 20
"""Characters that no line may have; the longest entry takes fewer, even with each of its characters escaped."""

_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")

_GUESSED_FROM = 1 << 16
"""Bytes."""

Row = tuple[int, Mapping[str, Any] | str]
"""A line number, and the entry there or what is wrong with it."""


def read_terms(path: str | Path) -> Iterator[Row]:
    """Read a file of terms, line by line.

    Yields:
        The line number, from 1, and the entry, as :func:`mariana.build_index` takes it; or, for a line that is
        none, what is wrong with it.

    Raises:
        NotFoundError: there is no such file.
        InvalidInputError: the name ends in nothing known, or the first line names an unknown column.
        FileFormatError: not a regular file, or damaged gzip.
    """
    path = Path(path)
    if not path.exists():
        raise NotFoundError(f"no file {path}")
    if not path.is_file():
        raise FileFormatError(f"{path}: not a regular file")
    kind = Path(path.stem).suffix if path.suffix == ".gz" else path.suffix
    if kind not in _READERS:
        raise InvalidInputError(f"the name must end in {', '.join(_READERS)}, or one of these and .gz")
    with _opened(path) as file:
        yield from _READERS[kind](file)


def about_lines(path: Path) -> int:
    """Guess how many lines a file has, from its beginning; 0 where that says nothing, as of a .gz."""
    if path.suffix == ".gz" or not path.is_file():
        return 0
    with path.open("rb") as file:
        start = file.read(_GUESSED_FROM)
    lines = start.count(b"\n")
    return lines * path.stat().st_size // max(len(start), 1)


@contextmanager
def _opened(path: Path) -> Iterator[TextIO]:
    # Bytes that are no UTF-8 become surrogates, which the builder refuses: so the line is named, not the file.
    opening = gzip.open if path.suffix == ".gz" else open
    try:
        with opening(path, "rt", encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            yield file
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise FileFormatError(f"{path}: damaged gzip: {error}") from error


def _lines(file: TextIO) -> Iterator[tuple[int, str]]:
    """Yield the lines with their numbers, each of at most ``LINE_MAX`` characters: what is longer is cut."""
    for number in itertools.count(1):
        line = part = file.readline(LINE_MAX)
        if not line:
            return
        while len(part) == LINE_MAX and part[-1] != "\n":  # it may have gigabytes, out of a small .gz
            part = file.readline(LINE_MAX)
        yield number, line


def _whole_lines(file: TextIO) -> Iterator[tuple[int, str | None]]:
    """Yield the lines with their numbers; None for one that was cut."""
    for number, line in _lines(file):
        yield number, line if len(line) < LINE_MAX or line[-1] == "\n" else None


_TOO_LONG = f"the line has {LINE_MAX:,} characters or more: put one entry a line"


def _read_txt(file: TextIO) -> Iterator[Row]:
    for number, line in _whole_lines(file):
        if line is None:
            yield number, _TOO_LONG
        elif line.strip():
            yield number, {"text": line.strip()}


def _read_jsonl(file: TextIO) -> Iterator[Row]:
    for number, line in _whole_lines(file):
        if line is None:
            yield number, _TOO_LONG
            continue
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            yield number, "not JSON"
            continue
        yield number, entry if isinstance(entry, dict) else "not a JSON object"


def _read_tsv(file: TextIO) -> Iterator[Row]:
    return _read_table(
        (number, _TOO_LONG if line is None else line.rstrip("\r\n").split("\t"))
        for number, line in _whole_lines(file)
    )


def _read_csv(file: TextIO) -> Iterator[Row]:
    return _read_table(_csv_lines(file))


def _csv_lines(file: TextIO) -> Iterator[tuple[int, list[str] | str]]:
    # a line that was cut has a cell beyond csv's own limit, or too many of them
    reader = csv.reader((line for _, line in _lines(file)), strict=True)
    while True:
        first = reader.line_num + 1  # a quoted cell may go on for lines
        try:
            yield first, next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield first, f"not CSV: {error}"
            for number in range(first + 1, reader.line_num + 1):  # which are lost with it
                yield number, f"not CSV: within the quotes that line {first} opens"


def _read_table(lines: Iterable[tuple[int, list[str] | str]]) -> Iterator[Row]:
    columns: tuple[str, ...] | None = None
    for number, cells in lines:
        if isinstance(cells, str):
            yield number, cells
            continue
        if not any(cell.strip() for cell in cells):
            continue
        if columns is None:
            columns = _header(cells)
            if columns is not None:
                continue
            columns = COLUMNS
        if len(cells) > len(columns):
            yield number, f"{len(cells)} cells, but at most {len(columns)} columns"
            continue
        yield number, _entry(dict(zip(columns, (cell.strip() for cell in cells), strict=False)))


def _header(cells: list[str]) -> tuple[str, ...] | None:
    columns = tuple(cell.strip() for cell in cells)
    if "text" not in columns:
        return None
    unknown = [column for column in columns if column not in COLUMNS]
    if unknown or len(set(columns)) != len(columns):
        raise InvalidInputError(
            f"the first line names the columns; they can be {', '.join(COLUMNS)}, each once"
        )
    return columns


def _entry(cells: dict[str, str]) -> Mapping[str, Any] | str:
    entry: dict[str, Any] = {"text": cells.get("text", "")}
    if cells.get("score"):
        if not _NUMBER.fullmatch(cells["score"]):
            return "score is not a number"
        entry["score"] = float(cells["score"])
    if cells.get("payload"):
        try:
            entry["payload"] = json.loads(cells["payload"])
        except (ValueError, RecursionError):
            return "payload is not JSON"
    if cells.get("contexts"):
        entry["contexts"] = [name.strip() for name in cells["contexts"].split("|")]
    if cells.get("id"):
        entry["id"] = cells["id"]
    return entry


_READERS: dict[str, Callable[[TextIO], Iterator[Row]]] = {
    ".txt": _read_txt,
    ".tsv": _read_tsv,
    ".csv": _read_csv,
    ".jsonl": _read_jsonl,
}
