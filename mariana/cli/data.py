"""Where the data of a training is read from: memory, or a cache for tables that are large beside it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

from mariana.scratch import spill_to
from mariana.table_cache import cached_table
from mariana.table_size import SHARE, learning_bytes, memory_bytes
from mariana.tables import Table, read_table

cache_option = click.option(
    "--cache",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder where a copy of DATA is made once, and mapped instead of read.  [default: for a table that would take "
    "more than half of the memory STORE/cache, else none]",
)


def open_table(
    data: str, cache: Path | None, default: Path, say: Callable[[str], object], processes: int = 1
) -> Table:
    """Read a table; a large one through a cache, beside which what is made of it lies while the command runs.

    Args:
        data: a file, or the name of a bundled table.
        cache: the folder of the cache; None: none, unless learning the table would take more than half of the memory.
        default: the folder that is then taken.
        say: tells the user that it was.
        processes: that learn it at a time, each what it makes of it by itself.
    """
    if not Path(data).is_file():  # bundled, and small; or not there
        return read_table(data)
    if cache is None:
        needed, there = learning_bytes(Path(data)) * processes, memory_bytes()
        if needed <= SHARE * there:
            return read_table(data)
        cache = default
        say(
            f"{data} would take about {needed / 1e9:.3g} GB of the {there / 1e9:.3g} GB of memory, more than {SHARE:.0%}: "
            f"it is cached in {cache} and mapped; --cache names another folder"
        )
    table = cached_table(data, cache)
    click.get_current_context().with_resource(spill_to(cache))
    return table
