"""``mariana export`` and ``mariana import``: models for other programs, and from them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import click

from mariana.cli.options import json_option, settings, store_option
from mariana.cli.predict import model_path
from mariana.cli.text import printable
from mariana.format import Label, read_model, to_bytes
from mariana.store import Store, check_name, write_whole

_SUFFIXES = {"c": ".h", "onnx": ".onnx"}


@click.command()
@click.argument("model")
@click.option("--to", "kind", type=click.Choice(["onnx", "c"]), required=True, help="The format.")
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    help="The file to write; names in C begin with its stem.",
)
@store_option
@json_option
def export(model: str, kind: Literal["onnx", "c"], output: Path, store: Path | None, as_json: bool) -> None:
    """Write a model as one file for programs without Mariana.

    MODEL is a name in the store or a path. `c` is one C99 header for microcontrollers and other programs: weights as
    constants, no libc, nothing allocated, the bits of MARIANA_ISA=generic. `onnx` needs the package onnx:
    pip install 'mariana-serve[onnx]'. Both take raw rows: docs/exchange.md.

    \b
    Example:
      mariana export iris --to c -o iris.h
      mariana export store/models/digits/1 --to onnx -o digits.onnx
    """
    from mariana.exchange import to_c, to_onnx  # noqa: PLC0415 - only what is asked for is loaded

    path = model_path(model, store)
    file = read_model(path)
    name = to_c.identifier(output.stem)
    data = to_c.header(file, name).encode() if kind == "c" else to_onnx.to_onnx(file, name)
    write_whole(output, data)
    if as_json:
        document = {"model": str(path), "to": kind, "path": str(output), "bytes": len(data)}
        click.echo(json.dumps(document | ({"function": f"{name}_predict"} if kind == "c" else {})))
        return
    call = f", call {name}_predict(row, out)" if kind == "c" else ""
    click.echo(f"{output}: {len(data):,} bytes{call}")


@click.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--name", required=True, help="Name of the model in the store.")
@click.option(
    "--task",
    type=click.Choice(["auto", "classification", "regression"]),
    default="auto",
    show_default=True,
    help="auto: classification where it ends in softmax or one sigmoid. A classification network of scores gets its softmax.",
)
@click.option(
    "--labels", help="Of the classes, separated by commas.  [default: those in the file, else 0, 1, ...]"
)
@click.option("--output", help="Output of the graph, where several can be run.")
@store_option
@json_option
def import_(
    *,
    file: Path,
    name: str,
    task: Literal["auto", "classification", "regression"],
    labels: str | None,
    output: str | None,
    store: Path | None,
    as_json: bool,
) -> None:
    """Publish a network that another program wrote, as the next version of a model.

    FILE is an ONNX file whose graph is a chain of dense layers, as PyTorch, Keras and scikit-learn (skl2onnx) write
    them, with their scaling and batch normalisation. An operator that cannot be run is named. Needs the package onnx:
    pip install 'mariana-serve[onnx]'.

    \b
    Example:
      mariana import net.onnx --name net
      mariana import scores.onnx --name fruit --task classification --labels apple,cherry,plum
    """
    from mariana.exchange.from_onnx import import_onnx  # noqa: PLC0415 - only what is asked for is loaded

    check_name(name)
    given: list[Label] = [label.strip() for label in labels.split(",")] if labels else []
    found = import_onnx(file, task=task, labels=given, output=output)
    path = Store(settings(store=store).store).publish_model(name, to_bytes(found.metadata, found.tensors))
    version, info = int(path.parent.name), found.metadata
    if as_json:
        document = {
            "model": name,
            "version": version,
            "path": str(path),
            "task": info.task,
            "features": info.columns,
            "outputs": info.outputs,
            "parameters": info.parameters,
            "labels": info.labels,
            "output": found.output,
            "left_out": found.left_out,
        }
        click.echo(json.dumps(document))
        return
    widths = "-".join(str(n) for n in (info.columns, *(layer.units for layer in info.layers)))
    click.echo(
        f"{info.task}, {widths}, {info.parameters:,} parameters, from the output {printable(found.output)}"
    )
    if found.left_out:
        click.echo(f"left out: {printable(', '.join(found.left_out))}")
    click.echo(f"published {name} version {version}: {path}")
