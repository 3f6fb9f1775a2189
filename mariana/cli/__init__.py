"""The command ``mariana``: one module a family of commands, loaded when it is called."""

from __future__ import annotations

import gc
import importlib
import os
import sys

import click

from mariana import __version__
from mariana.cli.text import printable
from mariana.errors import MarianaError

_COMMANDS = {
    "bench": "bench",
    "complete": "index",
    "config": "config",
    "demo": "demo",
    "evaluate": "predict",
    "export": "exchange",
    "import": "exchange",
    "index": "index",
    "inspect": "inspect",
    "predict": "predict",
    "quantize": "quantize",
    "serve": "serve",
    "train": "train",
    "tune": "tune",
}
"""The module under ``mariana.cli`` that holds each command."""


class _LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        if cmd_name not in _COMMANDS:
            return None
        if cmd_name == "serve":  # NumPy's BLAS has nothing to do there, and its threads would be forked over
            os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
            gc.disable()  # what is made until it serves stays: looking through it again and again costs a tenth of it
            # FastAPI asks of each schema whether it is one of pydantic 1, and would import that: 2 MB, a twentieth of it
            sys.modules.setdefault("pydantic.v1", None)  # type: ignore[arg-type] # None: there is no such module
        module = importlib.import_module(f"mariana.cli.{_COMMANDS[cmd_name]}")
        command = getattr(module, cmd_name, None) or getattr(
            module, f"{cmd_name}_"
        )  # import is Python's word
        assert isinstance(command, click.Command)  # noqa: S101 - a fact about our own table
        return command


@click.group(
    cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(__version__, "-V", "--version", prog_name="mariana")
def cli() -> None:
    """Turn a table into a served neural network, and a list into an autocomplete.

    \b
    Example:
      mariana train iris --target species
      mariana index cities.tsv --name cities
      mariana serve
    """


def main() -> None:
    """Run the command line: exit 0 on success, 1 on a failure with one line on stderr, 2 on wrong usage."""
    try:
        cli(standalone_mode=True)
    except MarianaError as error:
        sys.exit(f"mariana: {_one_line(error)}")
    except MemoryError as error:
        sys.exit(f"mariana: not enough memory: {_one_line(error)}")
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
    except OSError as error:
        sys.exit(f"mariana: {_one_line(error)}")


def _one_line(error: BaseException) -> str:
    return printable(" ".join(str(error).split()))
