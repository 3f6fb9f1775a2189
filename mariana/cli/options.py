"""The options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from mariana.settings import Settings, load_settings

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

store_option: Decorator = click.option(
    "--store",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the models and indexes.  [default: $MARIANA_STORE or ./store]",
)
json_option: Decorator = click.option(
    "--json", "as_json", is_flag=True, help="Print JSON for other programs."
)


def settings(**options: Any) -> Settings:
    """Return the settings with the options that were given on the command line; they win."""
    return load_settings(**{name: value for name, value in options.items() if value is not None})
