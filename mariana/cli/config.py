"""``mariana config``: the settings in force and where each comes from."""

from __future__ import annotations

import json
from typing import Any

import click
from pydantic import SecretStr

from mariana.cli.options import json_option
from mariana.environment import PREFIX
from mariana.settings import Settings, load_settings, source, unknown_variables


@click.command()
@json_option
def config(as_json: bool) -> None:
    """Show the settings in force and where each comes from.

    \b
    Example:
      MARIANA_PORT=9000 mariana config
      mariana config --json
    """
    settings = load_settings()
    for sentence in unknown_variables():
        click.echo(f"mariana: {sentence}", err=True)
    rows = [_row(name, settings) for name in Settings.model_fields]
    if as_json:
        click.echo(json.dumps({"settings": rows}, indent=1))
        return
    width = max(len(row["variable"]) for row in rows)
    values = max(len(_shown(row["value"])) for row in rows)
    for row in rows:
        click.echo(
            f"{row['variable']:{width}}  {_shown(row['value']):{values}}  {row['source']:11}  {row['about']}"
        )


def _row(name: str, settings: Settings) -> dict[str, Any]:
    value = getattr(settings, name)
    if isinstance(value, SecretStr):
        value = "(set, hidden)"
    elif not isinstance(value, str | int | float | None):
        value = list(value) if isinstance(value, tuple) else str(value)
    return {
        "name": name,
        "variable": PREFIX + name.upper(),
        "value": value,
        "source": source(name),
        "about": Settings.model_fields[name].description,
    }


def _shown(value: object) -> str:
    if isinstance(value, list):
        return ",".join(value) or "(none)"
    return "(unset)" if value is None else str(value)
