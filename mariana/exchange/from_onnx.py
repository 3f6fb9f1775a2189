"""ONNX in: a graph that is a plain chain of dense layers, made into a model file.

Every value of the graph becomes one of three things (``values``, ``graph``): an array (it does not depend on the input),
rows (it does), or a refusal that is raised only if the output needs it: what a classifier computes for its label may be
anything. Dense layers are taken as they stand. Whatever works number by number between them (``elementwise``) is not
looked up by its operators, of which exporters have many for one activation (Gelu, or Div, Erf, Add, Mul, Mul): the
function is evaluated, and recognised by its values (``steps``). What is found is a ``chain``, and folds into layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from mariana.errors import FileFormatError, InvalidInputError
from mariana.exchange.chain import Activated, Chain, Float64, fold
from mariana.exchange.graph import Graph
from mariana.exchange.protobuf import read_proto
from mariana.exchange.steps import steps_of
from mariana.exchange.values import Node
from mariana.format import (
    DenseLayer,
    Golden,
    Label,
    ModelFile,
    ModelMetadata,
    NumericFeature,
    TargetScaling,
    TrainingRecord,
)
from mariana.model import Model

Task = Literal["auto", "classification", "regression"]

GOLDEN_ROWS = 8


@dataclass(frozen=True, slots=True)
class Imported:
    """What an ONNX file holds.

    Attributes:
        metadata: as a model file has it, with golden rows.
        tensors: by name.
        output: name of the graph's output that the model gives.
        left_out: names of the other ones.
    """

    metadata: ModelMetadata
    tensors: dict[str, NDArray[np.float32]]
    output: str
    left_out: tuple[str, ...]


def import_onnx(
    path: str | Path, *, task: Task = "auto", labels: Sequence[Label] = (), output: str | None = None
) -> Imported:
    """Read an ONNX file as a model.

    Args:
        path: the file; weights in a second file are read when it lies beside it.
        task: ``auto`` is classification where the network ends in softmax, in one sigmoid, or has labels.
            A classification network without softmax gets it.
        labels: of the classes; default: those in the graph, else 0, 1, ...
        output: name of the graph's output; needed where several can be run.

    Raises:
        FileFormatError: the file is damaged, or inconsistent.
        InvalidInputError: an operator is not one that Mariana runs, or the arguments do not fit the network.
        MarianaError: the package onnx is not installed.
        OSError: the file cannot be read.
    """
    path = Path(path)
    try:
        with np.errstate(all="ignore"):
            graph = Graph(read_proto(path), path)
            rows, name, others = graph.output(output)
            source, steps = steps_of(rows.node)
            chain = fold(steps, source.width)
            classes = _classes(chain, task, labels, graph.labels, complement=rows.complement)
            metadata, tensors = _model(chain, source, classes, graph.record)
            return Imported(metadata, tensors, name, others)
    except InvalidInputError as error:
        raise InvalidInputError(f"{path}: {error}") from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]["msg"]
        raise FileFormatError(f"{path}: {' '.join(first.split())[:200]}") from None
    except FileFormatError as error:
        text = str(error)
        raise FileFormatError(text if text.startswith(str(path)) else f"{path}: {text}") from None


def _classes(
    chain: Chain, task: Task, given: Sequence[Label], found: Sequence[Label], *, complement: bool
) -> tuple[Label, ...]:
    """Return the labels of a classification network, none for regression; give it the softmax or sigmoid it lacks."""
    last, units = chain.layers[-1], len(chain.layers[-1].bias)
    if any(layer.activation.name == "softmax" for layer in chain.layers[:-1]):
        raise InvalidInputError("softmax is run in the last layer only")
    ending = "sigmoid" if units == 1 else "softmax"
    if (task == "classification" or (task == "auto" and given)) and last.activation.name == "linear":
        last.activation = Activated(ending)
    probable = last.activation.name == ending and chain.target is None
    if task == "regression" or (task == "auto" and not given and not probable):
        if given or complement:
            raise InvalidInputError("it gives probabilities of classes: that is no regression")
        return ()
    if not probable:
        raise InvalidInputError(
            f"a classification network of {units} outputs ends in {ending}, not in {last.activation.name}"
        )
    classes = max(units, 2)
    labels = tuple(given or found or range(classes))
    if len(labels) != classes:
        raise InvalidInputError(f"{len(labels)} labels, but {classes} classes")
    return labels


def _model(
    chain: Chain, source: Node, labels: tuple[Label, ...], record: TrainingRecord
) -> tuple[ModelMetadata, dict[str, NDArray[np.float32]]]:
    """Return what a model file holds, with golden rows."""
    layers = []
    tensors: dict[str, NDArray[np.float32]] = {}
    for i, layer in enumerate(chain.layers):
        name, slope = f"dense_{i}", layer.activation.slope
        tensors |= {f"{name}.weight": _float32(layer.weight), f"{name}.bias": _float32(layer.bias)}
        if layer.activation.name == "prelu":
            tensors[f"{name}.slope"] = _float32(np.broadcast_to(cast("Float64", slope), layer.bias.shape))
        layers.append(
            DenseLayer(
                name=name,
                inputs=layer.weight.shape[0],
                units=layer.weight.shape[1],
                activation=layer.activation.name,
                **({} if slope is None or slope.ndim else {"slope": float(slope)}),
            )
        )
    features = [
        NumericFeature(name=name, shift=float(shift), scale=float(scale))
        for name, shift, scale in zip(
            source.columns, _float32(chain.shift), _float32(chain.scale), strict=True
        )
    ]
    target = chain.target
    metadata = ModelMetadata(
        task="classification" if labels else "regression",
        features=tuple(features),
        input_shape=source.shape or (len(features),),
        layers=tuple(layers),
        labels=labels,
        target_scaling=None
        if target is None
        else TargetScaling(shift=tuple(target.summand.tolist()), scale=tuple(target.factor.tolist())),
        training=record,
    )
    return metadata.model_copy(update={"golden": _golden(metadata, tensors)}), tensors


def _golden(metadata: ModelMetadata, tensors: dict[str, NDArray[np.float32]]) -> Golden:
    """Run rows that are spread as the network expects them."""
    scale = np.array([f.scale for f in metadata.features if f.kind == "numeric"])
    shift = np.array([f.shift for f in metadata.features if f.kind == "numeric"])
    spread = np.random.default_rng(0).standard_normal((GOLDEN_ROWS, len(scale)))
    rows = _float32(shift + spread / np.where(scale == 0, 1, scale))
    outputs = Model(ModelFile(metadata, tensors)).predict(rows)
    if not np.isfinite(outputs).all():
        raise InvalidInputError("the network gives numbers that are not finite")
    return Golden(
        inputs=tuple(map(tuple, rows.astype(float).tolist())),
        outputs=tuple(map(tuple, outputs.astype(float).tolist())),
    )


def _float32(array: Float64) -> NDArray[np.float32]:
    found = np.ascontiguousarray(array, np.float32)
    if not np.isfinite(found).all():
        raise InvalidInputError("a weight, or what is made of it, is not finite or does not fit float32")
    return found
