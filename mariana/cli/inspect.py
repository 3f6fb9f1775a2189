"""``mariana inspect``: what a model file or an index holds."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from mariana.autocomplete import open_index
from mariana.cli.options import json_option, settings, store_option
from mariana.cli.text import printable
from mariana.errors import InvalidInputError, NotFoundError
from mariana.format import DenseLayer, Feature, Loss, ModelMetadata
from mariana.model import Model, load_model
from mariana.model_card import model_card
from mariana.store import Store

_SHOWN = 12
"""Features, labels and categories that are listed; of more, the first ones and their number."""


@click.command()
@click.argument("thing", metavar="PATH|NAME")
@store_option
@click.option(
    "--card", is_flag=True, help="Print the model card: what one should know before using the model."
)
@json_option
def inspect(thing: str, store: Path | None, card: bool, as_json: bool) -> None:
    """Show what a model or an index holds; all of it is checked on the way.

    PATH is a model file, the folder of a model or of a version, an index folder or a *.mrx file; NAME is a model or
    an index in the store.

    \b
    Example:
      mariana inspect digits
      mariana inspect iris --card
      mariana inspect store/models/digits/1/model.safetensors --json
    """
    kind, path = _find(thing, Store(settings(store=store).store))
    if card:
        if kind == "index":
            raise InvalidInputError(f"{thing} is an index; only models have a card")
        loaded = load_model(path)
        name = _model_name(path)
        text = model_card(loaded.info, name)
        click.echo(json.dumps({"kind": "model", "name": name, "card": text}) if as_json else text, nl=as_json)
        return
    if kind == "index":
        with open_index(path) as index:
            info = dataclasses.asdict(index.info)
        facts: dict[str, Any] = {"kind": kind, **info, "path": str(info["path"])}
        lines = iter([f"{name + ':':<17} {value}" for name, value in facts.items()])
    else:
        model = load_model(path, validate=True)
        facts = _model_facts(path, model)
        lines = _model_lines(facts, model.info)
    click.echo(json.dumps(facts) if as_json else "\n".join(map(printable, lines)))


def _find(thing: str, store: Store) -> tuple[str, Path]:
    """Return whether a path or a name means a model or an index, and where it is."""
    path = Path(thing)
    if path.exists():
        index = path.suffix == ".mrx" or (path.is_dir() and any(path.glob("*.mrx")))
        return ("index" if index else "model"), path
    models, indexes = store.model_names(), store.index_names()
    if thing in models and thing in indexes:
        raise InvalidInputError(
            f"{thing!r} is a model and an index; give a path: {store.model_path(thing)} or {store.index_path(thing)}"
        )
    if thing in models:
        return "model", store.model_path(thing)
    if thing in indexes:
        return "index", store.index_path(thing)
    known = ", ".join(models + indexes) or "none"
    raise NotFoundError(
        f"no model or index {thing[:64]!r} in {store.path}, and no such path; there are: {known}"
    )


def _model_name(path: Path) -> str:
    """Return the name of a model by its place in a store, NAME/VERSION/FILE; else that of the file or folder."""
    folders = [part for part in path.resolve().with_suffix("").parts if not part.isdecimal()]
    name = folders[-2] if folders[-1] == "model" and len(folders) > 1 else folders[-1]
    return printable(name)


def _model_facts(path: Path, model: Model) -> dict[str, Any]:
    info = model.info
    metadata = info.model_dump(mode="json", exclude={"golden", "layers"})
    layers = [{**layer.model_dump(mode="json"), "bytes": _bytes(info, layer)} for layer in info.layers]
    return {
        "kind": "model",
        "path": str(path),
        **metadata,
        "layers": layers,
        "parameters": info.parameters,
        "golden_rows": len(info.golden.inputs),
        "isa": model.isa,
        "runs_in": model.precision,
        "nbytes": model.nbytes,
    }


def _model_lines(facts: dict[str, Any], info: ModelMetadata) -> Iterator[str]:
    shape = " x ".join(map(str, info.input_shape))
    scaled = ", scaled back to the targets' units" if info.target_scaling else ""
    about = {
        "model": facts["path"],
        "task": f"{info.task} of {', '.join(info.targets)}" if info.targets else info.task,
        "input": f"{info.columns} features ({shape}), {info.encoded_columns} after encoding",
        "output": f"{info.outputs} numbers{scaled}",
        "labels": _list([str(label) for label in info.labels]),
        "parameters": f"{info.parameters:,} {info.precision}",
        "in memory": f"{facts['nbytes']:,} bytes, packed for {facts['runs_in']} on {facts['isa']}",
        "golden rows": f"{facts['golden_rows']}, all as promised" if facts["golden_rows"] else "none",
    }
    yield from (f"{name + ':':<13} {value}" for name, value in about.items() if value)
    yield ""
    yield f"{'layer':<24} {'shape':>15} {'activation':<10} {'bytes':>12}"
    for layer in info.layers:
        shape = f"{layer.inputs} x {layer.units}"
        yield f"{layer.name[:24]:<24} {shape:>15} {layer.activation:<10} {_bytes(info, layer):>12,}"
    yield ""
    yield "features"
    yield from (f"  {_feature(feature)}" for feature in info.features[:_SHOWN])
    if info.columns > _SHOWN:
        yield f"  ... and {info.columns - _SHOWN} more"
    yield from _record_lines(info)
    if info.quantization is not None:
        yield ""
        yield f"quantised to {info.precision}, from the float32 file {info.quantization.source_sha256[:12]}"
        yield from loss_lines(info.quantization.losses)


def loss_lines(losses: Sequence[Loss]) -> Iterator[str]:
    """Return what quantisation cost, data by data."""
    for loss in losses:
        yield (
            f"  {loss.data} ({loss.rows:,} rows): outputs differ by up to {loss.max_difference:.2g}, "
            f"on average {loss.mean_difference:.2g}"
        )
        for name, before in loss.before.items():
            yield f"    {name}: {before:.5g} before, {loss.after[name]:.5g} after"


def _plain(value: object) -> str:
    """Return a value of a configuration; one that has its own, such as a schedule, in brackets."""
    if isinstance(value, dict):
        return f"({', '.join(f'{name} {_plain(inner)}' for name, inner in value.items())})"
    return str(value)


def _record_lines(info: ModelMetadata) -> Iterator[str]:
    record = info.training
    optimizer = ", ".join(f"{name} {_plain(value)}" for name, value in record.optimizer.items())
    metrics = (
        f"{split} {name} {value:.4g}"
        for split, found in record.metrics.items()
        for name, value in found.items()
    )
    known = {
        "data": record.data,
        "rows": f"{record.rows:,}" if record.rows else "",
        "epochs": str(record.epochs or ""),
        "batch size": str(record.batch_size or ""),
        "seed": "" if record.seed is None else str(record.seed),
        "loss": record.loss,
        "optimizer": optimizer,
        "metrics": ", ".join(metrics),
        "versions": ", ".join(f"{name} {version}" for name, version in record.versions.items()),
    }
    if any(known.values()):
        yield ""
        yield "training"
        yield from (f"  {name + ':':<11} {value}" for name, value in known.items() if value)


def _feature(feature: Feature) -> str:
    if feature.kind == "categorical":
        how = _list(list(feature.categories))
    else:
        how = (
            ""
            if (feature.shift, feature.scale) == (0, 1)
            else f"(value - {feature.shift:g}) * {feature.scale:g}"
        )
        if feature.kind == "numeric":
            how += ", softly limited" * feature.soft
            how += f", {len(feature.knots)} knots" if feature.knots else ""
            how += ", an indicator" * feature.indicator
    fill = "must be there" if feature.fill is None else f"missing: {feature.fill}"
    return "  ".join(part for part in (f"{feature.name}: {feature.kind}", how, fill) if part)


def _bytes(info: ModelMetadata, layer: DenseLayer) -> int:
    return sum(
        kind.nbytes for name, kind in info.tensor_types().items() if name.rpartition(".")[0] == layer.name
    )


def _list(texts: list[str]) -> str:
    more = f", ... ({len(texts)} in all)" if len(texts) > _SHOWN else ""
    return ", ".join(texts[:_SHOWN]) + more
