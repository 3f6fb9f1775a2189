"""``mariana index`` and ``mariana complete``."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import click

from mariana.autocomplete import (
    LIMIT_MAX,
    Answers,
    Completion,
    Explanation,
    Fuzzy,
    Index,
    open_index,
)
from mariana.building import BuildReport, build_index
from mariana.cli.options import json_option, settings, store_option
from mariana.datasets.cities import cities_path
from mariana.errors import InvalidInputError, NotFoundError
from mariana.store import Store, check_name
from mariana.terms import read_terms

BUNDLED = {"cities": cities_path}
"""Sets of terms that ship with Mariana."""

_SHOWN = 10


@dataclass(frozen=True, slots=True)
class Indexed:
    """What became of a file of terms: the index, and the lines left out, as (line number, reason)."""

    report: BuildReport
    skipped: list[tuple[int, str]]


def index_terms(
    terms: str,
    path: Path,
    *,
    strict: bool = False,
    progress: bool = False,
    any_word: bool = True,
    camel_case: bool = False,
) -> Indexed:
    """Build an index from a file of terms, or from a bundled set by its name.

    Args:
        terms: the file, or a key of ``BUNDLED``.
        path: the folder of the index.
        strict: stop at the first line that is no entry, instead of leaving it out.
        progress: show a progress bar when stderr is a terminal.
        any_word: entries are found by each of their words.
        camel_case: words also begin at capitals.

    Raises:
        InvalidInputError: a line is no entry and ``strict`` was asked for, or no line is one.
    """
    file = BUNDLED[terms]() if terms in BUNDLED else Path(terms)
    skipped: list[tuple[int, str]] = []
    lines: list[int] = []  # by position

    def entries() -> Iterator[Mapping[str, Any] | InvalidInputError]:
        for line, entry in read_terms(file):
            lines.append(line)
            yield InvalidInputError(entry) if isinstance(entry, str) else entry

    def skip(position: int, reason: str) -> None:
        skipped.append((lines[position], reason))

    try:
        report = build_index(
            path,
            entries(),
            progress=progress,
            on_invalid=None if strict else skip,
            allow_empty=False,
            any_word=any_word,
            camel_case=camel_case,
        )
    except InvalidInputError as error:
        if error.faults:
            ((pointer, reason),) = error.faults
            raise InvalidInputError(f"{file}: line {lines[int(pointer.split('/')[1])]}: {reason}") from error
        first = "; line {}: {}".format(*min(skipped)) if skipped else ""
        raise InvalidInputError(f"{file}: {error}{first}") from error
    return Indexed(report, sorted(skipped))


@click.command()
@click.argument("terms")
@click.option("--name", required=True, help="Name of the index in the store.")
@click.option(
    "--strict", is_flag=True, help="Stop at the first line that is no entry, instead of leaving it out."
)
@click.option(
    "--any-word/--no-any-word",
    default=True,
    show_default=True,
    help="Find entries by each of their words, in any order; without, the index is half as large.",
)
@click.option("--camel-case", is_flag=True, help="Words also begin at capitals, as in camelCase.")
@store_option
@json_option
def index(
    *,
    terms: str,
    name: str,
    strict: bool,
    any_word: bool,
    camel_case: bool,
    store: Path | None,
    as_json: bool,
) -> None:
    """Build an autocomplete index from TERMS, and publish it whole.

    TERMS is a file, or the name of a set that ships with Mariana: cities.

    \b
      .txt    one text a line
      .tsv    text, score, payload (JSON), contexts (a|b), id by tabs; a first line with a cell "text" names the columns instead
      .csv    the same by commas
      .jsonl  one object a line: {"text": "Saigon", "score": 14002598, "payload": {"country": "VN"}}

    Each may be gzipped (.gz). A text without a score has the score 1. A text that comes twice keeps its highest
    score.

    \b
    Example:
      mariana index cities --name cities
      mariana index terms.tsv.gz --name terms --strict
    """
    folder = Store(settings(store=store).store).new_index_path(check_name(name))
    done = index_terms(terms, folder, strict=strict, progress=True, any_word=any_word, camel_case=camel_case)
    report = done.report
    if as_json:
        document = {
            "index": name,
            "path": str(report.path),
            "entries": report.entries,
            "bytes": report.bytes,
            "merged": report.merged,
            "skipped": [{"line": line, "reason": reason} for line, reason in done.skipped],
        }
        click.echo(json.dumps(document, ensure_ascii=False))
        return
    for line, reason in done.skipped[:_SHOWN]:
        click.echo(f"skipped line {line}: {reason}", err=True)
    if len(done.skipped) > _SHOWN:
        click.echo(
            f"skipped {len(done.skipped) - _SHOWN} lines more; --json lists all, --strict stops at one",
            err=True,
        )
    counts = [f"{report.entries:,} entries", f"{report.bytes:,} bytes"]
    counts += [f"{report.merged:,} texts merged that came twice"] if report.merged else []
    counts += [f"{len(done.skipped):,} lines skipped"] if done.skipped else []
    click.echo(f"index {name}: {', '.join(counts)}, in {report.path}")


@click.command()
@click.argument("index")
@click.argument("prefix")
@click.option(
    "--limit", type=click.IntRange(1, LIMIT_MAX), default=10, show_default=True, help="At most so many."
)
@click.option(
    "--fuzzy",
    type=click.Choice(["auto", "0", "1", "2"]),
    default="auto",
    show_default=True,
    help="Typing errors to forgive; auto: 0 below 4 characters, 1 from 4, 2 from 8.",
)
@click.option("--context", multiple=True, help="Only entries with this context; several: with one of them.")
@click.option("--prefer", multiple=True, help="Entries without this context, or any of these, come later.")
@click.option("--explain", is_flag=True, help="Show what the place of each entry comes from.")
@store_option
@json_option
def complete(
    *,
    index: str,
    prefix: str,
    limit: int,
    fuzzy: str,
    context: tuple[str, ...],
    prefer: tuple[str, ...],
    explain: bool,
    store: Path | None,
    as_json: bool,
) -> None:
    """Show the best entries of INDEX for PREFIX: those that begin with it, or have a word that does.

    INDEX is a name in the store, or a path.

    \b
    Example:
      mariana complete cities sai
      mariana complete store/indexes/cities "são p" --limit 3 --json
      mariana complete cities sai --explain
    """
    errors = cast("Fuzzy", fuzzy if fuzzy == "auto" else int(fuzzy))
    with _open(index, Store(settings(store=store).store)) as opened:
        if explain:
            _show_explained(
                prefix, opened.explain(prefix, limit, errors, context=context, prefer=prefer), as_json=as_json
            )
            return
        completions = opened.complete(prefix, limit, errors, context=context, prefer=prefer)
    if as_json:
        _echo_json(prefix, [_as_json(completion) for completion in completions], partial=completions.partial)
        return
    width = max([len(_number(completion.score)) for completion in completions], default=0)
    for completion in completions:
        score, payload = _number(completion.score), _shown_payload(completion)
        click.echo(f"{score:>{width}}  {_highlighted(completion)}  {payload}".rstrip())
    _say_if_partial(completions)


def _say_if_partial(answers: Answers[Any]) -> None:
    if answers.partial:
        click.echo(
            "not all of the index could be looked through: a better entry, with typing errors, may be missing; type more",
            err=True,
        )


def _echo_json(prefix: str, rows: list[dict[str, Any]], *, partial: bool) -> None:
    document = {"query": prefix, "completions": rows, **({"partial": True} if partial else {})}
    click.echo(json.dumps(document, ensure_ascii=False))


def _show_explained(prefix: str, explained: Answers[Explanation], *, as_json: bool) -> None:
    if as_json:
        rows = [
            {
                **_as_json(one.completion),
                "base": json.loads(_number(one.base)),
                "learned": one.learned,
                "selections": one.selections,
                "factor": one.factor,
                "live": one.live,
            }
            for one in explained
        ]
        _echo_json(prefix, rows, partial=explained.partial)
        return
    cells = [("score", "base", "learned", "selections", "errors", "rank", "changed", "id", "text")]
    cells += [
        (
            _number(one.completion.score),
            _number(one.base),
            f"{one.learned:+.6g}" if one.learned else "",
            f"{one.selections:.3g}" if one.selections else "",
            str(one.completion.edits),
            f"x{one.factor}",
            "live" if one.live else "",
            one.completion.id or "",
            _highlighted(one.completion),
        )
        for one in explained
    ]
    widths = [max(len(row[column]) for row in cells) for column in range(8)]
    for row in cells:
        click.echo(
            "  ".join([*(cell.rjust(width) for cell, width in zip(row, widths, strict=False)), row[8]])
        )
    _say_if_partial(explained)


def _open(index: str, store: Store) -> Index:
    if index in store.index_names():
        return open_index(store.index_path(index))
    if Path(index).exists():
        return open_index(index)
    known = ", ".join(store.index_names()) or "none"
    raise NotFoundError(f"no index {index!r} in {store.path}, and no such path; there are: {known}")


def _number(score: float) -> str:
    return str(int(score)) if score.is_integer() and score <= 1 << 53 else repr(score)


def _as_json(completion: Completion) -> dict[str, Any]:
    return {
        "text": completion.text,
        "score": json.loads(_number(completion.score)),
        "edits": completion.edits,
        "highlights": completion.highlights,
        "payload": completion.payload,
        **({} if completion.id is None else {"id": completion.id}),
    }


def _shown_payload(completion: Completion) -> str:
    """Return the payload as JSON in which nothing steers a terminal; empty when there is none."""
    if completion.payload is None:
        return ""
    text = json.dumps(completion.payload, ensure_ascii=False)
    return "".join(part if part.isprintable() else json.dumps(part)[1:-1] for part in text)


def _highlighted(completion: Completion) -> str:
    """Return the text with what the prefix covers in bold; click leaves that out where it is no terminal."""
    text, at = "", 0
    for start, end in completion.highlights:
        text += completion.text[at:start] + click.style(completion.text[start:end], bold=True)
        at = end
    return text + completion.text[at:]
