"""The model card: what a person should know of a model before using it, as Markdown, written beside its file.

All of it comes from the model file, so that it can be made again for any model. The idea is Mitchell et al., "Model Cards
for Model Reporting", 2019, arXiv 1810.03993.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from mariana.format import Feature, InputField, ModelMetadata, NumericFeature, date_text

CARD_FILE = "README.md"
"""Its name in the folder of a version."""

_SHOWN = 40
"""Features and classes that are listed; of more, the first ones and their number."""


def model_card(info: ModelMetadata, name: str) -> str:
    """Return the card of a model as Markdown.

    Args:
        info: what the model file says.
        name: of the model.
    """
    sections = (_about, _data, _metrics, _limits, _call)
    lines = [f"# {_plain(name)}", ""]
    for section in sections:
        lines += section(info, name)
    return "\n".join(lines).rstrip() + "\n"


def example_record(info: ModelMetadata) -> dict[str, object]:
    """Return a row with names that the model takes: its first golden row, else zeros and first categories."""
    row = info.golden.inputs[0] if info.golden.inputs else tuple(0.0 for _ in info.features)
    return {field.name: _raw(info, field, row) for field in info.fields}


def _raw(info: ModelMetadata, field: InputField, row: Sequence[float | None]) -> object:
    value = row[field.features[0]]
    if value is None:
        return None
    if field.kind == "date":
        features = [info.features[place] for place in field.features]
        return date_text(features, [row[place] for place in field.features])
    if field.kind == "categorical":
        return field.categories[int(value) if 0 <= value < len(field.categories) else 0]
    return bool(value) if field.kind == "boolean" else float(f"{value:.7g}")


def _about(info: ModelMetadata, name: str) -> Iterator[str]:
    del name
    target = f" `{_plain(', '.join(info.targets))}`" if info.targets else ""
    if info.task == "classification":
        what = f"Predicts which of {len(info.labels)} classes a row belongs to{target and f' (the column{target})'}."
    else:
        what = f"Predicts {'a number' if info.outputs == 1 else f'{info.outputs} numbers'}{target and f':{target}'}."
    units = " → ".join(
        str(n) for n in (info.columns, info.encoded_columns, *(la.units for la in info.layers))
    )
    yield f"{what} A dense network with {info.parameters:,} parameters ({units}), {info.precision}."
    if info.labels:
        yield ""
        yield f"Classes: {_listed([str(label) for label in info.labels])}."
    yield ""


def _data(info: ModelMetadata, name: str) -> Iterator[str]:
    del name
    record = info.training
    yield "## What it has learned from"
    yield ""
    told = {
        "data": record.data and f"`{_plain(record.data)}`",
        "SHA-256 of the data": record.data_sha256 and f"`{record.data_sha256}`",
        "rows": ", ".join(f"{rows:,} {split}" for split, rows in record.split_rows.items())
        or (f"{record.rows:,} train" if record.rows else ""),
        "rows of each class": _listed([f"{label}: {rows:,}" for label, rows in record.class_rows.items()]),
        "not learned from": "; ".join(f"`{_plain(c)}` ({_plain(why)})" for c, why in record.left_out.items()),
        "seed": "" if record.seed is None else str(record.seed),
        "epochs": str(record.epochs or ""),
        "networks": ""
        if record.members == 1
        else f"{record.members}, merged into one that answers their mean",
        "loss": record.loss,
        "calibrated with temperature": "" if record.temperature is None else f"{record.temperature:.3g}",
        "versions": ", ".join(f"{thing} {version}" for thing, version in record.versions.items()),
    }
    yield from (f"- {key}: {value}" for key, value in told.items() if value)
    yield ""
    yield "| column | kind | a missing value | what the network sees |"
    yield "|---|---|---|---|"
    for feature in info.features[:_SHOWN]:
        missing = "refused" if feature.fill is None else f"becomes {_cell(feature.fill)}"
        if feature.fill == "":
            missing = "a category of its own"
        yield f"| {_cell(feature.name)} | {feature.kind} | {missing} | {_seen(feature)} |"
    if info.columns > _SHOWN:
        yield f"| ... and {info.columns - _SHOWN} more | | | |"
    yield ""


def _seen(feature: Feature) -> str:
    if feature.kind == "categorical":
        return f"one of {len(feature.categories)}: {_listed([c for c in feature.categories if c], 6)}"
    if feature.kind == "boolean" or not isinstance(feature, NumericFeature):
        return "standardised"
    pieces = f", and its place among {len(feature.knots)} knots" if feature.knots else ""
    return ("distance from the median, softly limited" if feature.soft else "scaled") + pieces


def _metrics(info: ModelMetadata, name: str) -> Iterator[str]:
    del name
    found = info.training.metrics
    if not found:
        return
    yield "## How good it is"
    yield ""
    names = list(dict.fromkeys(metric for values in found.values() for metric in values))
    yield f"| rows | {' | '.join(names)} |"
    yield "|---|" + "---|" * len(names)
    rows = dict(found)
    if info.training.baseline:
        rows["always the same answer"] = info.training.baseline
    for split, values in rows.items():
        yield f"| {split} | " + " | ".join(f"{values[m]:.4g}" if m in values else "" for m in names) + " |"
    yield ""
    if "test" in found:
        yield "The test rows were not learned from and decided nothing: theirs is the line to believe."
    else:
        yield "There were no test rows: expect less on new data."
    yield ""


def _limits(info: ModelMetadata, name: str) -> Iterator[str]:
    del name
    yield "## Limits"
    yield ""
    ranges = [
        f"{_cell(f.name)} {f.knots[0]:.6g} to {f.knots[-1]:.6g}"
        for f in info.features[:_SHOWN]
        if isinstance(f, NumericFeature) and f.knots
    ]
    if ranges:
        yield f"- It has seen these ranges, and outside of them it guesses: {'; '.join(ranges)}."
    if info.task == "classification":
        yield "- It always answers with one of its classes, also for a row that belongs to none."
        counts = sorted(info.training.class_rows.values())
        if counts and counts[0] * 10 < counts[-1]:
            yield "- The classes are far from equally frequent: look at more than the accuracy."
    yield "- It has learned what goes together in its data, mistakes and prejudices included, not what causes what."
    yield "- It knows the world as it was when the data was gathered; measure it again on new data: `mariana evaluate`."
    yield ""


def _call(info: ModelMetadata, name: str) -> Iterator[str]:
    record = example_record(info)
    if len(record) > _SHOWN:
        row = info.golden.inputs[0] if info.golden.inputs else ()
        short = ", ".join(str(value) for value in row[:3])
        yield "## How to call it"
        yield ""
        yield f'Rows of {info.columns} numbers: `{{"instances": [[{short}, ...]]}}` to `/v1/models/{name}/predict`.'
        return
    body = json.dumps({"instances": [record]}, ensure_ascii=False)
    yield "## How to call it"
    yield ""
    yield "```sh"
    yield "mariana serve"
    yield f"curl -s localhost:8080/v1/models/{name}/predict -d '{body.replace(chr(39), chr(92) + 'u0027')}'"
    yield "```"
    yield ""
    yield "```python"
    yield "import mariana"
    yield ""
    yield f'model = mariana.load_model("store/models/{name}")'
    yield f"model.predict_records([{record!r}])"
    yield "```"


def _listed(texts: Sequence[str], most: int = _SHOWN) -> str:
    more = f", ... ({len(texts)} in all)" if len(texts) > most else ""
    return ", ".join(_cell(text) for text in texts[:most]) + more


def _cell(value: object) -> str:
    """Return a text that breaks no line, table or code of Markdown."""
    return f"`{_plain(value)}`"


def _plain(value: object) -> str:
    text = "".join(c if c.isprintable() else "?" for c in str(value))
    return text.replace("`", "'").replace("|", "/")[:200]
