"""``mariana predict`` and ``mariana evaluate``: a published model on the rows of a file."""

from __future__ import annotations

import codecs
import csv
import json
import sys
from pathlib import Path
from typing import Any, NoReturn

import click
import numpy as np
from numpy.typing import NDArray

from mariana.cli.options import json_option, settings, store_option
from mariana.errors import FileFormatError, InvalidInputError, NotFoundError
from mariana.explain import Attribution
from mariana.model import ClassPrediction, Model, Prediction, find_model, load_model
from mariana.store import Store
from mariana.tables import Table, read_csv, read_table
from mariana.trainer.scores import classification_scores, regression_scores

_JSON_SUFFIXES = (".jsonl", ".ndjson", ".json")


@click.command()
@click.argument("model")
@click.argument("data")
@store_option
@json_option
@click.option("--explain", is_flag=True, help="Tell beside each answer what each feature has to do with it.")
def predict(model: str, data: str, store: Path | None, as_json: bool, explain: bool) -> None:
    """Predict the rows of a file, or of standard input when DATA is -.

    MODEL is a name in the store or a path. DATA is a table as `mariana train` reads it, or JSON lines: an object with
    the features, or an array of numbers, a line. The answer is CSV; with --json, JSON lines. Explanations are shares of
    the value, or of the log-odds of the predicted class: by how much a feature moves it away from the baseline.

    \b
    Example:
      mariana predict iris flowers.csv
      mariana predict iris flowers.csv --explain
      echo '{"sepal_length": 5.1, "sepal_width": 3.5, "petal_length": 1.4, "petal_width": 0.2}' |
        mariana predict iris - --json
    """
    loaded = open_model(model, store)
    source = sys.stdin.buffer.read() if data == "-" else None
    if source is None and data.lower().endswith(_JSON_SUFFIXES):
        source = _file(data).read_bytes()
    if source is None:
        x: NDArray[np.floating] = read_table(data).matrix(loaded.info.features)
    elif source.removeprefix(codecs.BOM_UTF8).lstrip()[:1] in (b"{", b"["):
        x = _json_rows(loaded, "standard input" if data == "-" else data, source)
    else:
        x = read_csv("standard input", source).matrix(loaded.info.features)
    shares = [_shares(told) for told in loaded.explain(x)] if explain else []
    _write(loaded, loaded.decode(loaded.predict(x)), as_json, shares)


@click.command()
@click.argument("model")
@click.argument("data")
@click.option("--target", help="Column with the truth.  [default: the one the model was trained on]")
@store_option
@json_option
def evaluate(model: str, data: str, target: str | None, store: Path | None, as_json: bool) -> None:
    """Compare the predictions of a model with the truth in a table.

    Prints accuracy and log-loss for classes; mean absolute error, root mean squared error and R² for numbers. Rows
    without the truth are left out.

    \b
    Example:
      mariana evaluate iris flowers.csv
      mariana evaluate digits digits --target y --json
    """
    loaded = open_model(model, store)
    whole = read_table(data)
    table, y, target = rows_with_truth(loaded, whole, target)
    missing = whole.rows - table.rows
    found = scores(loaded, loaded.predict(table.matrix(loaded.info.features)), y)
    if as_json:
        click.echo(
            json.dumps(
                {
                    "model": model,
                    "data": table.name,
                    "rows": table.rows,
                    "left_out": missing,
                    "metrics": found,
                }
            )
        )
        return
    click.echo(f"{table.rows:,} rows" + (f"; left out: {missing:,} without {target}" if missing else ""))
    for name, value in found.items():
        click.echo(f"{name:10} {value:#.5g}")


def rows_with_truth(model: Model, table: Table, target: str | None) -> tuple[Table, NDArray[Any], str]:
    """Return the rows with a value in the target column, these values (class indices, or numbers), and its name.

    Args:
        model: that predicts them.
        table: the rows.
        target: name of the column; None: the one that the model was trained on.
    """
    if target is None:
        if len(model.info.targets) != 1:
            raise InvalidInputError("the model does not say what it predicts; name the column with --target")
        (target,) = model.info.targets
    known = np.array([text is not None for text in table.column(target).texts()])
    if not known.any():
        raise InvalidInputError(f"column {target!r} of {table.name} has no value to compare with")
    if not known.all():
        table = table.take(np.flatnonzero(known))
    return table, _truth(model, table, target), target


def scores(model: Model, outputs: NDArray[np.float32], y: NDArray[Any]) -> dict[str, float]:
    """Return how good outputs are: accuracy and log-loss, or mean absolute error, root mean squared error and R²."""
    if model.info.task == "classification":
        return classification_scores(outputs, y)
    return regression_scores(outputs[:, 0], y)


def open_model(model: str, store: Path | None) -> Model:
    """Load a model by its name in the store or its path."""
    return load_model(model_path(model, store))


def model_path(model: str, store: Path | None) -> Path:
    """Return the file of a model, by its name in the store or its path."""
    if Path(model).exists():
        return find_model(Path(model))
    if "/" in model or model.endswith(".safetensors"):
        raise NotFoundError(f"{model}: there is no such file or folder")
    return Store(settings(store=store).store).model_path(model)


def _truth(model: Model, table: Table, target: str) -> NDArray[Any]:
    """Return the target of each row: class indices, or numbers."""
    column = table.column(target)
    if model.info.task == "regression":
        if model.outputs != 1:
            raise InvalidInputError(f"the model predicts {model.outputs} numbers; evaluate compares one")
        return column.numbers("numeric")
    index = {str(label): i for i, label in enumerate(model.info.labels)}
    texts = column.texts()
    for row, text in enumerate(texts):
        if text not in index:
            column.refuse(row, f"is {str(text)[:40]!r}, which is no label of the model")
    return np.array([index[str(text)] for text in texts], np.int64)


def _file(name: str) -> Path:
    path = Path(name)
    if not path.exists():
        raise NotFoundError(f"{name}: there is no such file")
    if not path.is_file():
        raise InvalidInputError(f"{name}: not a regular file")
    return path


def _json_rows(model: Model, name: str, data: bytes) -> NDArray[np.float32]:
    """Return the rows of JSON lines as the model takes them."""
    rows = []
    for number, line in enumerate(data.splitlines(), 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line, parse_constant=_no_constant)
        except (ValueError, RecursionError) as error:
            raise FileFormatError(f"{name}: line {number} is not JSON: {str(error)[:200]}") from None
        try:
            rows.append(model.encode([_record(model, value)]))
        except InvalidInputError as error:
            raise type(error)(f"{name}: line {number}: {str(error).removeprefix('row 0: ')}") from None
    if not rows:
        raise FileFormatError(f"{name}: no rows")
    return np.concatenate(rows)


def _record(model: Model, value: object) -> dict[str, object]:
    """Return a line of JSON as a record; an array holds the features in order."""
    if isinstance(value, dict):
        return value
    features = model.info.features
    if not isinstance(value, list) or len(value) != len(features):
        raise InvalidInputError(
            f"expected an object with the features, or an array of {len(features)} values"
        )
    return {feature.name: cell for feature, cell in zip(features, value, strict=True)}


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no JSON number; write null for a missing value")


def _shares(attributions: list[Attribution]) -> dict[str, float]:
    """Return what each feature adds to an answer, by name; of several targets with the target's before it."""
    if len(attributions) == 1:
        return attributions[0].shares
    return {f"{one.output}: {name}": share for one in attributions for name, share in one.shares.items()}


def _write(
    model: Model, predictions: list[Prediction], as_json: bool, shares: list[dict[str, float]]
) -> None:
    if as_json:
        for i, prediction in enumerate(predictions):
            click.echo(json.dumps({**_document(prediction), **({"shares": shares[i]} if shares else {})}))
        return
    writer = csv.writer(sys.stdout, lineterminator="\n")
    of_features = [f"share of {name}" for name in shares[0]] if shares else []
    if model.info.task == "classification":
        writer.writerow(["label", "probability", *of_features])
    else:
        named = len(model.info.targets) == model.outputs
        writer.writerow([*(model.info.targets if named else _names(model.outputs)), *of_features])
    for i, prediction in enumerate(predictions):
        if isinstance(prediction, ClassPrediction):
            row = [str(prediction.label), f"{prediction.probability:.6g}"]
        else:
            values = prediction.value if isinstance(prediction.value, tuple) else (prediction.value,)
            row = [f"{value:.9g}" for value in values]
        writer.writerow([*row, *(f"{share:.6g}" for share in shares[i].values())] if shares else row)


def _names(count: int) -> list[str]:
    return ["value"] if count == 1 else [f"value{i}" for i in range(count)]


def _document(prediction: Prediction) -> dict[str, object]:
    if isinstance(prediction, ClassPrediction):
        return {
            "label": prediction.label,
            "probability": prediction.probability,
            "probabilities": prediction.probabilities,
        }
    return {"value": prediction.value}
