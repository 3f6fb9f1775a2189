"""``mariana quantize``: a version of a model with bfloat16 or int8 weights."""

from __future__ import annotations

import hashlib
import json
from functools import partial
from pathlib import Path

import click

from mariana.cli.inspect import loss_lines
from mariana.cli.options import json_option, settings, store_option
from mariana.cli.predict import rows_with_truth, scores
from mariana.cli.text import printable
from mariana.errors import InvalidInputError, NotFoundError
from mariana.format import ModelFile, read_model, to_bytes
from mariana.model import find_model, load_model
from mariana.quantize import Narrow, Rows
from mariana.quantize import quantize as quantized
from mariana.store import Store, check_name
from mariana.tables import read_table

_PRECISIONS: dict[str, Narrow] = {"bf16": "bfloat16", "bfloat16": "bfloat16", "int8": "int8"}


@click.command()
@click.argument("model")
@click.option(
    "--to",
    required=True,
    type=click.Choice(list(_PRECISIONS)),
    help="Precision of the weights and of the sums' factors.",
)
@click.option("--data", help="Table to measure the loss of accuracy on, besides the golden rows.")
@click.option("--target", help="Its column with the truth.  [default: the one the model was trained on]")
@click.option("--name", help="Name of the new version's model.  [default: MODEL]")
@store_option
@json_option
def quantize(
    model: str,
    to: str,
    data: str | None,
    target: str | None,
    name: str | None,
    store: Path | None,
    as_json: bool,
) -> None:
    """Publish a version of a model with smaller weights: faster, and a little less accurate.

    MODEL is a name in the store, which means its newest float32 version, or a path. What is lost is measured on the
    model's golden rows, and on --data, printed, and written into the new file, where `mariana inspect` shows it. The
    new version is the one that is served from then on; the float32 version stays.

    \b
    Example:
      mariana quantize digits --to int8 --data digits
      mariana quantize models/digits/1 --to bf16 --name digits-bf16
    """
    to_store = Store(settings(store=store).store)
    path, file, default_name = _source(model, to_store)
    if name is None and default_name is None:
        raise InvalidInputError(f"{model} is a path; name the model to publish with --name")
    name = check_name(name or default_name or "")
    before = load_model(path, precision="float32")  # checks the golden rows
    rows = []
    if data is not None:
        table, y, _ = rows_with_truth(before, read_table(data), target)
        rows.append(Rows(table.name, table.matrix(before.info.features), partial(scores, before, y=y)))
    narrow = quantized(
        file, _PRECISIONS[to], source_sha256=hashlib.sha256(path.read_bytes()).hexdigest(), data=rows
    )
    published = to_store.publish_model(name, to_bytes(narrow.metadata, narrow.tensors))
    load_model(published)
    losses = narrow.metadata.quantization.losses if narrow.metadata.quantization else ()
    sizes = [sum(kind.nbytes for kind in each.metadata.tensor_types().values()) for each in (file, narrow)]
    if as_json:
        click.echo(
            json.dumps(
                {
                    "path": str(published),
                    "precision": narrow.metadata.precision,
                    "bytes_before": sizes[0],
                    "bytes_after": sizes[1],
                    "losses": [loss.model_dump(mode="json") for loss in losses],
                }
            )
        )
        return
    lines = [
        f"{name}: {file.metadata.precision} to {narrow.metadata.precision}, {sizes[0]:,} to {sizes[1]:,} bytes of weights",
        *loss_lines(losses),
        f"published {published}",
    ]
    click.echo("\n".join(map(printable, lines)))


def _source(model: str, store: Store) -> tuple[Path, ModelFile, str | None]:
    """Return the file that a name or a path means, what it holds, and the name."""
    if Path(model).exists() or "/" in model or model.endswith(".safetensors"):
        path = find_model(Path(model))
        return path, read_model(path), None
    store.model_path(model)  # says which ones there are when this one is not
    for version in reversed(store.model_versions(model)):
        path = store.model_path(model, version)
        file = read_model(path)
        if file.metadata.precision == "float32":
            return path, file, model
    raise NotFoundError(f"model {model!r} has no float32 version to quantise")
