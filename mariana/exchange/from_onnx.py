"""ONNX in: a graph that is a plain chain of dense layers, made into a model file.

Every value of the graph becomes one of three things: an array (it does not depend on the input), a :class:`_Rows`
(it does), or a refusal that is raised only if the output needs it: what a classifier computes for its label may be
anything. Dense layers are taken as they stand. Whatever works number by number between them is not looked up by its
operators, of which exporters have many for one activation (Gelu, or Div, Erf, Add, Mul, Mul): the function is
evaluated, and recognised by its values.
"""

from __future__ import annotations

import functools
import itertools
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

import mariana
from mariana.errors import FileFormatError, InvalidInputError
from mariana.exchange.chain import Activated, Affine, Chain, Float64, Linear, Step, fold
from mariana.exchange.protobuf import array_of, onnx_package, read_proto
from mariana.format import (
    MAX_COLUMNS,
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

MIN_OPSET = 7
"""Before it, operators had the attributes `broadcast` and `consumed_inputs`."""

MAX_NODES = 20_000
GOLDEN_ROWS = 8
_MAX_REGION = 32
"""Operators that are looked at together; an activation takes ten at most."""

_MAX_NUMBERS = 1 << 27
"""Of all constants together that the graph makes of its constants; a few bytes of a file can ask for any number."""

_GRID = np.concatenate(
    [np.linspace(-20, 20, 401), *(sign * np.logspace(-6, 6, 49) for sign in (1, -1)), [-1.0]]
)[:, None]
_erf = np.vectorize(math.erf, otypes=[np.float64])


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
            graph = _Graph(read_proto(path), path)
            rows, name, others = graph.output(output)
            source, steps = _steps(rows.node)
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


# ---- Values ---------------------------------------------------------------------------------------------


@dataclass(eq=False, slots=True)
class _Node:
    """One computation on rows. A node without function begins a region of operators that work number by number."""

    where: str
    number: int
    width: int
    columns: tuple[str, ...] = ()
    """of the graph's input, where this is one"""
    shape: tuple[int, ...] = ()
    """of its rows, there"""
    parents: tuple[_Node, ...] = ()
    function: Callable[..., Float64] | None = None
    affine: Affine | None = None
    linear: Linear | None = None
    softmax: bool = False


@dataclass(frozen=True, slots=True)
class _Rows:
    """A value with rows: what computes it, and the shape of a row."""

    node: _Node
    shape: tuple[int, ...]
    complement: bool = False
    """it is (1 - p, p) where the node gives p"""


@dataclass(frozen=True, slots=True)
class _Refusal:
    """A value that cannot be had, and why."""

    reason: str


_Value = NDArray[Any] | _Rows | _Refusal | None


class _RefusedError(Exception):
    """An operator that is not run here, or not in this way."""


@dataclass(slots=True)
class _Call:
    """A node of the graph, with its inputs looked up."""

    operator: str
    where: str
    values: list[_Value]
    attributes: dict[str, Any]
    opset: int
    results: int
    number: int

    def array(self, place: int) -> NDArray[Any]:
        """Return an input that is constant."""
        value = self.values[place] if place < len(self.values) else None
        if not isinstance(value, np.ndarray):
            raise _RefusedError(f"its input {place} is not a constant")
        return value

    def rows(self, place: int = 0) -> _Rows:
        """Return an input that has rows."""
        value = self.values[place] if place < len(self.values) else None
        if not isinstance(value, _Rows) or value.complement:
            raise _RefusedError(f"its input {place} does not come from the network's input")
        return value

    def optional(self, place: int) -> NDArray[Any] | None:
        return self.array(place) if place < len(self.values) and self.values[place] is not None else None

    def integers(self, place: int, attribute: str) -> list[int] | None:
        """Return what older graphs have as an attribute and newer ones as an input."""
        if attribute in self.attributes:
            return [int(i) for i in np.ravel(self.attributes[attribute])]
        found = self.optional(place)
        return None if found is None else [int(i) for i in found.ravel()]


# ---- The graph ------------------------------------------------------------------------------------------


class _Graph:
    """Walks through the nodes once, in their order."""

    def __init__(self, proto: Any, path: Path) -> None:
        self.path = path
        self.onnx = onnx_package()
        self.graph = proto.graph
        self.opsets = {entry.domain or "ai.onnx": entry.version for entry in proto.opset_import}
        self.opset = self.opsets.get("ai.onnx", MIN_OPSET)
        self.count = itertools.count()
        self.room = _MAX_NUMBERS
        self.values: dict[str, _Value] = {}
        self.labels: tuple[Label, ...] = ()
        self.names: tuple[str, ...] = ()
        if self.opset < MIN_OPSET:
            raise InvalidInputError(f"opset {self.opset} is too old; from {MIN_OPSET} on they are read")
        if len(self.graph.node) > MAX_NODES:
            raise InvalidInputError(f"{len(self.graph.node)} nodes; up to {MAX_NODES} are read")
        self._properties(proto)
        self.record = TrainingRecord(
            data=f"imported from {path.name}"[:200],
            versions={
                "mariana": mariana.__version__,
                _short(proto.producer_name or "onnx"): _short(proto.producer_version),
            },
        )
        if self.graph.sparse_initializer:
            raise InvalidInputError("sparse tensors are not read")
        for tensor in self.graph.initializer:
            self._set(tensor.name, array_of(tensor, path))
        self._inputs()
        for i, node in enumerate(self.graph.node):
            self._node(i, node)

    def _properties(self, proto: Any) -> None:
        """Read the names that our own export leaves in the file."""
        for entry in proto.metadata_props:
            if entry.key not in {"labels", "features"}:
                continue
            try:
                found = json.loads(entry.value)
            except (ValueError, RecursionError):
                continue
            if isinstance(found, list) and all(type(item) in (int, str) for item in found):
                if entry.key == "labels":
                    self.labels = tuple(found)
                else:
                    self.names = tuple(map(str, found))

    def _set(self, name: str, value: _Value) -> None:
        if name in self.values:
            raise FileFormatError(f"two things are named {_short(name)!r}")
        self.values[name] = value

    def _inputs(self) -> None:
        inputs = [entry for entry in self.graph.input if entry.name not in self.values]
        for entry in inputs:
            kind = entry.type.tensor_type
            if not entry.type.HasField("tensor_type") or not kind.HasField("shape"):
                raise InvalidInputError(f"input {_short(entry.name)!r} is no tensor of a known shape")
            if kind.elem_type == self.onnx.TensorProto.STRING:
                self._set(entry.name, _Refusal(f"input {_short(entry.name)!r} holds strings"))
                continue
            shape = tuple(dim.dim_value if dim.HasField("dim_value") else 0 for dim in kind.shape.dim)[1:]
            width = math.prod(shape)
            if not kind.shape.dim or not 0 < width <= MAX_COLUMNS:
                raise InvalidInputError(
                    f"input {_short(entry.name)!r} must be rows of a known number of columns, up to {MAX_COLUMNS}"
                )
            single = len(inputs) == 1
            columns = tuple(f"x{i}" if single else f"{entry.name}{i}" for i in range(width))
            if not single and width == 1:
                columns = (entry.name,)
            if single and len(self.names) == width:
                columns = self.names
            self._set(
                entry.name,
                _Rows(self._new(f"input {entry.name}", width, columns=columns, shape=shape), shape),
            )
        if not inputs:
            raise InvalidInputError("the graph has no input")

    def _make_room(self, numbers: int) -> None:
        """Refuse a constant that would take more than what is left of the memory for them."""
        if numbers > self.room:
            raise _RefusedError("its constants make too large an array")
        self.room -= numbers

    def _new(self, where: str, width: int, **facts: Any) -> _Node:
        return _Node(where, next(self.count), width, **facts)

    def _node(self, i: int, node: Any) -> None:
        texts = (node.domain, node.op_type, node.name, *node.input, *node.output)
        if not all(isinstance(text, str) for text in texts):
            raise FileFormatError(f"a name of node {i} is no text")
        domain = node.domain or "ai.onnx"
        operator = node.op_type if domain in {"ai.onnx", "ai.onnx.ml"} else f"{domain}.{node.op_type}"
        where = f"node {_short(node.name) or i!r} ({_short(operator)})"
        values: list[_Value] = []
        for name in node.input:
            if name and name not in self.values:
                raise FileFormatError(f"{where} uses {_short(name)!r}, which nothing before it gives")
            values.append(self.values[name] if name else None)
        outputs = [name for name in node.output if name]
        result: _Value
        refused = next((value for value in values if isinstance(value, _Refusal)), None)
        try:
            attributes = {a.name: self._attribute(a) for a in node.attribute}
            call = _Call(operator, where, values, attributes, self.opset, len(outputs), next(self.count))
            self._find_labels(call)
            result = self._run(call) if refused is None else refused
        except _RefusedError as error:
            result = _Refusal(f"{where} cannot be run here: {error}")
        except (ValueError, TypeError, IndexError, KeyError, OverflowError, MemoryError, ArithmeticError):
            result = _Refusal(f"{where} does not fit its inputs")
        for place, name in enumerate(node.output):
            if name:
                extra = _Refusal(f"{where}: its output {place} is not computed here")
                self._set(name, result if place == 0 else extra)

    def _attribute(self, attribute: Any) -> Any:
        kinds = self.onnx.AttributeProto
        if attribute.type == kinds.TENSOR:
            return array_of(attribute.t, self.path)
        if attribute.type in {kinds.GRAPH, kinds.GRAPHS, kinds.SPARSE_TENSOR, kinds.SPARSE_TENSORS}:
            return None
        return self.onnx.helper.get_attribute_value(attribute)

    def _find_labels(self, call: _Call) -> None:
        """Take the labels of a classifier from where skl2onnx leaves them."""
        found: Sequence[Any] = ()
        if call.operator == "ZipMap":
            found = (
                call.attributes.get("classlabels_int64s") or call.attributes.get("classlabels_strings") or ()
            )
        elif call.operator == "ArrayFeatureExtractor" and isinstance(call.values[0], np.ndarray):
            found = call.values[0].ravel().tolist()
        if len(found) and not self.labels:
            self.labels = tuple(
                v.decode("utf-8", "replace") if isinstance(v, bytes) else v if isinstance(v, str) else int(v)
                for v in found
            )

    def _run(self, call: _Call) -> _Value:
        special = getattr(self, f"_op_{call.operator}", None) if call.operator.isidentifier() else None
        if special is not None:
            return cast("_Value", special(call))
        if call.operator in _ELEMENTWISE:
            return self._elementwise(call, _ELEMENTWISE[call.operator])
        raise _RefusedError("Mariana has no such operator")

    def output(self, wanted: str | None) -> tuple[_Rows, str, tuple[str, ...]]:
        """Return the output that a model is made of, its name, and the names of the others."""
        names = [entry.name for entry in self.graph.output]
        if wanted is not None and wanted not in names:
            raise InvalidInputError(
                f"there is no output {wanted[:64]!r}; there are: {_short(', '.join(names))}"
            )
        for name in names:
            if name not in self.values:
                raise FileFormatError(f"nothing gives the output {_short(name)!r}")
        runnable = [n for n in names if isinstance(self.values[n], _Rows) and wanted in {None, n}]
        if not runnable:
            reasons = [
                v.reason for n in names if wanted in {None, n} and isinstance(v := self.values[n], _Refusal)
            ]
            raise InvalidInputError(reasons[-1] if reasons else "no output depends on the input")
        if len(runnable) > 1:
            raise InvalidInputError(
                f"several outputs can be run; choose one with --output: {', '.join(runnable)}"
            )
        rows = self.values[runnable[0]]
        assert isinstance(rows, _Rows)  # noqa: S101 - filtered above
        return rows, runnable[0], tuple(name for name in names if name != runnable[0])

    # ---- Dense layers --------------------------------------------------------------------------------

    def _dense(self, call: _Call, weight: NDArray[Any], bias: NDArray[Any] | None) -> _Rows:
        rows = call.rows()
        if weight.ndim != 2 or rows.shape != (weight.shape[0],):
            raise _RefusedError(f"weights {weight.shape} do not fit rows of shape {rows.shape}")
        units = weight.shape[1]
        if not 0 < units <= MAX_COLUMNS:
            raise _RefusedError(f"it has {units} units")
        if bias is None:
            bias = np.zeros(units)
        if bias.size != 1 and not bias.size == bias.shape[-1] == units:
            raise _RefusedError(f"a bias of shape {bias.shape} does not fit {units} units")
        wide = np.broadcast_to(bias.reshape(-1).astype(np.float64), (units,))
        linear = Linear(weight.astype(np.float64), wide)
        return _Rows(self._new(call.where, units, parents=(rows.node,), linear=linear), (units,))

    def _op_Gemm(self, call: _Call) -> _Value:  # noqa: N802
        if call.attributes.get("transA", 0):
            raise _RefusedError("transA turns the rows on their side")
        weight = call.array(1)
        weight = weight.T if call.attributes.get("transB", 0) else weight
        bias = call.optional(2)
        alpha, beta = (float(call.attributes.get(key, 1.0)) for key in ("alpha", "beta"))
        return self._dense(
            call, alpha * weight.astype(np.float64), None if bias is None else beta * bias.astype(np.float64)
        )

    def _op_MatMul(self, call: _Call) -> _Value:  # noqa: N802
        return self._dense(call, call.array(1), None)

    def _op_BatchNormalization(self, call: _Call) -> _Value:  # noqa: N802
        rows = call.rows()
        if call.attributes.get("training_mode", 0):
            raise _RefusedError("it is in training mode")
        scale, bias, mean, variance = (call.array(i).astype(np.float64).ravel() for i in range(1, 5))
        if len(rows.shape) != 1 or not scale.size == bias.size == mean.size == variance.size == rows.shape[0]:
            raise _RefusedError(f"it does not fit rows of shape {rows.shape}")
        factor = scale / np.sqrt(variance + float(call.attributes.get("epsilon", 1e-5)))
        return self._affine(call, rows, factor, bias - mean * factor)

    def _op_Scaler(self, call: _Call) -> _Value:  # noqa: N802
        rows = call.rows()
        offset, scale = (
            np.array(call.attributes.get(key, d), np.float64)
            for key, d in (("offset", [0.0]), ("scale", [1.0]))
        )
        if len(rows.shape) != 1 or any(a.size not in {1, rows.shape[0]} for a in (offset, scale)):
            raise _RefusedError(f"it does not fit rows of shape {rows.shape}")
        return self._affine(call, rows, scale, -offset * scale)

    def _affine(self, call: _Call, rows: _Rows, factor: Float64, summand: Float64) -> _Rows:
        factor, summand = np.asarray(factor, np.float64), np.asarray(summand, np.float64)
        if factor.size == summand.size == 1:  # of no width of its own
            factor, summand = factor.reshape(()), summand.reshape(())

        def function(x: Float64) -> Float64:
            return x * factor + summand

        node = self._new(
            call.where,
            rows.node.width,
            parents=(rows.node,),
            function=function,
            affine=Affine(factor, summand),
        )
        return _Rows(node, rows.shape)

    def _op_Softmax(self, call: _Call) -> _Value:  # noqa: N802
        rows = call.rows()
        axis = call.attributes.get("axis", 1 if call.opset < 13 else -1)
        if len(rows.shape) != 1 or axis not in {1, -1}:
            raise _RefusedError(f"it does not run over the numbers of a row (axis {axis}, rows {rows.shape})")
        return _Rows(self._new(call.where, rows.node.width, parents=(rows.node,), softmax=True), rows.shape)

    # ---- Operators that change no number -------------------------------------------------------------

    def _op_LogSoftmax(self, _: _Call) -> _Value:  # noqa: N802
        raise _RefusedError(
            "export the network without it, and import what is left with --task classification: softmax is put there"
        )

    def _op_Identity(self, call: _Call) -> _Value:  # noqa: N802
        return call.values[0]

    def _op_ZipMap(self, call: _Call) -> _Value:  # noqa: N802
        return call.values[0]

    def _op_Dropout(self, call: _Call) -> _Value:  # noqa: N802
        training = call.optional(2)
        if training is not None and training.any():
            raise _RefusedError("it is in training mode")
        return call.values[0]

    def _op_Cast(self, call: _Call) -> _Value:  # noqa: N802
        kinds = self.onnx.TensorProto
        to = call.attributes["to"]
        if isinstance(call.values[0], np.ndarray):
            wanted = self.onnx.helper.tensor_dtype_to_np_dtype(to)
            if to == kinds.STRING:
                raise _RefusedError("it makes strings")
            return call.values[0].astype(np.float32 if to == kinds.BFLOAT16 else wanted)
        if to not in {kinds.FLOAT, kinds.DOUBLE, kinds.FLOAT16, kinds.BFLOAT16}:
            raise _RefusedError("it makes something else of numbers than floating-point numbers")
        return call.values[0]

    def _shaped(self, call: _Call, shape: tuple[int, ...]) -> _Value:
        rows = call.rows()
        if math.prod(shape) != rows.node.width:
            raise _RefusedError(f"rows of shape {rows.shape} cannot become {shape}")
        return _Rows(rows.node, shape)

    def _op_Flatten(self, call: _Call) -> _Value:  # noqa: N802
        rows = call.rows()
        if call.attributes.get("axis", 1) not in {1, -len(rows.shape)}:
            raise _RefusedError("it mixes rows: only axis 1 keeps them apart")
        return self._shaped(call, (rows.node.width,))

    def _op_Reshape(self, call: _Call) -> _Value:  # noqa: N802
        wanted = [int(i) for i in call.array(1).ravel()]
        if isinstance(call.values[0], np.ndarray):
            full = [call.values[0].shape[i] if n == 0 else n for i, n in enumerate(wanted)]
            return call.values[0].reshape(full)
        rows = call.rows()
        before = (0, *rows.shape)
        shape = [before[i] if n == 0 and i < len(before) else n for i, n in enumerate(wanted)]
        known = math.prod(n for n in shape[1:] if n != -1)
        if shape[1:].count(-1) == 1 and known and rows.node.width % known == 0:
            shape = [rows.node.width // known if n == -1 and i else n for i, n in enumerate(shape)]
        if not shape or -1 in shape[1:] or shape[0] not in {-1, 0, 1}:
            raise _RefusedError(f"the shape {_short(wanted)} does not keep the rows apart")
        return self._shaped(call, tuple(shape[1:]))

    def _op_Squeeze(self, call: _Call) -> _Value:  # noqa: N802
        axes = call.integers(1, "axes")
        if isinstance(call.values[0], np.ndarray):
            return np.squeeze(call.values[0], None if axes is None else tuple(axes))
        shape = (0, *call.rows().shape)
        if axes is None:
            raise _RefusedError("without axes it might squeeze the rows too")
        gone = {axis % len(shape) for axis in axes}
        if any(shape[axis] != 1 for axis in gone):
            raise _RefusedError(f"it squeezes axes {axes} of rows of shape {shape[1:]}")
        return self._shaped(call, tuple(n for i, n in enumerate(shape) if i and i not in gone))

    def _op_Unsqueeze(self, call: _Call) -> _Value:  # noqa: N802
        axes = call.integers(1, "axes") or []
        if isinstance(call.values[0], np.ndarray):
            return np.expand_dims(call.values[0], tuple(axes))
        shape = list(call.rows().shape)
        for axis in sorted(axis % (len(shape) + 1 + len(axes)) for axis in axes):
            if axis == 0:
                raise _RefusedError("it puts an axis before the rows")
            shape.insert(axis - 1, 1)
        return self._shaped(call, tuple(shape))

    def _op_Transpose(self, call: _Call) -> _Value:  # noqa: N802
        order = call.attributes.get("perm")
        if isinstance(call.values[0], np.ndarray):
            return call.values[0].transpose(order)
        rows = call.rows()
        if order is None or list(order) != list(range(len(rows.shape) + 1)):
            raise _RefusedError("it reorders the axes of the rows")
        return rows

    def _op_Concat(self, call: _Call) -> _Value:  # noqa: N802
        axis = call.attributes["axis"]
        if all(isinstance(value, np.ndarray) for value in call.values):
            arrays = [call.array(i) for i in range(len(call.values))]
            self._make_room(sum(array.size for array in arrays))
            return np.concatenate(arrays, axis)
        parts = [call.rows(i) for i in range(len(call.values))]
        if axis not in {1, -1} or any(len(part.shape) != 1 for part in parts):
            raise _RefusedError("it joins rows along another axis")
        nodes = [part.node for part in parts]
        if len(parts) == 1:
            return parts[0]
        if all(node.columns for node in nodes) and len(set(map(id, nodes))) == len(nodes):
            columns = tuple(itertools.chain.from_iterable(node.columns for node in nodes))
            return _Rows(self._new(call.where, len(columns), columns=columns), (len(columns),))
        if len(nodes) == 2 and nodes[0].width == nodes[1].width == 1 and nodes[1] in _cuts(nodes[0]):
            p = np.linspace(0, 1, 33)[:, None]
            if np.allclose(_evaluate(nodes[0], nodes[1], p), 1 - p, rtol=0, atol=1e-7):
                return _Rows(nodes[1], (2,), complement=True)
        raise _RefusedError("it joins parts of a network")

    # ---- Constants -----------------------------------------------------------------------------------

    def _op_Constant(self, call: _Call) -> _Value:  # noqa: N802
        for key, kind in (
            ("value_float", np.float32),
            ("value_floats", np.float32),
            ("value_int", np.int64),
            ("value_ints", np.int64),
        ):
            if key in call.attributes:
                return np.array(call.attributes[key], kind)
        found = call.attributes.get("value")
        if not isinstance(found, np.ndarray):
            raise _RefusedError("it holds no dense numbers")
        return found

    def _op_Shape(self, call: _Call) -> _Value:  # noqa: N802
        value = call.values[0]
        shape = (
            value.shape if isinstance(value, np.ndarray) else (0, *call.rows().shape)
        )  # 0: as it is, in a Reshape
        return np.array(shape[call.attributes.get("start", 0) : call.attributes.get("end")], np.int64)

    def _op_Gather(self, call: _Call) -> _Value:  # noqa: N802
        array, places, axis = call.array(0), call.array(1), call.attributes.get("axis", 0)
        self._make_room(array.size // max(array.shape[axis], 1) * places.size)
        return np.asarray(np.take(array, places, axis=axis))

    def _op_Slice(self, call: _Call) -> _Value:  # noqa: N802
        array = call.array(0)
        starts, ends = call.integers(1, "starts") or [], call.integers(2, "ends") or []
        axes = call.integers(3, "axes") or list(range(len(starts)))
        steps = call.integers(4, "steps") or [1] * len(starts)
        cut = [slice(None)] * array.ndim
        for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
            cut[axis] = slice(start, end, step)
        return array[tuple(cut)]

    # ---- Number by number ----------------------------------------------------------------------------

    def _elementwise(self, call: _Call, make: _Maker) -> _Value:
        function = make(call)
        if all(value is None or isinstance(value, np.ndarray) for value in call.values):
            arrays = [value for value in call.values if isinstance(value, np.ndarray)]
            self._make_room(math.prod(np.broadcast_shapes(*(a.shape for a in arrays))))
            return np.asarray(function(*arrays))
        shape = next(value.shape for value in call.values if isinstance(value, _Rows))
        operands: list[_Node | Float64] = []
        for place, value in enumerate(call.values):
            if value is None:
                continue
            if isinstance(value, np.ndarray):
                operands.append(_row(value, shape))
                continue
            rows = call.rows(place)
            if rows.shape != shape:
                raise _RefusedError(f"rows of shapes {shape} and {rows.shape} meet")
            operands.append(rows.node)
        parents = tuple(dict.fromkeys(o for o in operands if isinstance(o, _Node)))
        affine = _affine_of(call.operator, operands)
        constants = [a for a in operands if not isinstance(a, _Node) and a.ndim]
        if any(a.size not in {1, parents[0].width} for a in constants):
            raise _RefusedError(f"a constant does not fit rows of shape {shape}")

        def evaluate(*given: Float64) -> Float64:
            known = dict(zip(parents, given, strict=True))
            return function(*(known[o] if isinstance(o, _Node) else o for o in operands))

        row = np.zeros((1, parents[0].width))
        if np.broadcast_shapes(np.shape(evaluate(*[row] * len(parents))), row.shape) != row.shape:
            raise _RefusedError(f"its result does not fit rows of shape {shape}")
        node = self._new(call.where, parents[0].width, parents=parents, function=evaluate, affine=affine)
        return _Rows(node, shape)


def _row(array: NDArray[Any], shape: tuple[int, ...]) -> Float64:
    """Return a constant as it meets a row made flat; a scalar stays one."""
    array = array.astype(np.float64)
    if array.size == 1:
        return array.reshape(())
    extra = array.ndim - len(shape)
    if extra > 0:
        if any(n != 1 for n in array.shape[:extra]):
            raise _RefusedError(f"a constant of shape {array.shape} differs from row to row")
        array = array.reshape(array.shape[extra:])
    return np.broadcast_to(array, shape).reshape(-1)


def _affine_of(operator: str, operands: list[_Node | Float64]) -> Affine | None:
    """Return an operator with one variable operand as ``x * factor + summand``."""
    one, zero = np.ones(()), np.zeros(())
    match operands:
        case [_Node()] if operator == "Neg":
            return Affine(-one, zero)
        case [_Node(), np.ndarray() as a]:
            found = {"Add": (one, a), "Sub": (one, -a), "Mul": (a, zero), "Div": (1 / a, zero)}
        case [np.ndarray() as a, _Node()]:
            found = {"Add": (one, a), "Sub": (-one, a), "Mul": (a, zero)}
        case _:
            return None
    return Affine(*found[operator]) if operator in found else None


_Maker = Callable[[_Call], Callable[..., Float64]]


def _attribute(call: _Call, name: str, default: float) -> float:
    return float(call.attributes.get(name, default))


def _leaky(call: _Call) -> Callable[..., Float64]:
    alpha = _attribute(call, "alpha", 0.01)
    return lambda x: np.where(x < 0, alpha * x, x)


def _elu(call: _Call) -> Callable[..., Float64]:
    alpha = _attribute(call, "alpha", 1.0)
    return lambda x: np.where(x < 0, alpha * np.expm1(np.minimum(x, 0)), x)


def _celu(call: _Call) -> Callable[..., Float64]:
    alpha = _attribute(call, "alpha", 1.0)
    return lambda x: np.where(x < 0, alpha * np.expm1(np.minimum(x, 0) / alpha), x)


def _selu(call: _Call) -> Callable[..., Float64]:
    alpha, gamma = (
        _attribute(call, "alpha", 1.6732632423543772),
        _attribute(call, "gamma", 1.0507009873554805),
    )
    return lambda x: gamma * np.where(x < 0, alpha * np.expm1(np.minimum(x, 0)), x)


def _gelu(call: _Call) -> Callable[..., Float64]:
    return gelu_tanh if call.attributes.get("approximate", b"none") == b"tanh" else gelu


def _clip(call: _Call) -> Callable[..., Float64]:
    low, high = call.attributes.get("min", -math.inf), call.attributes.get("max", math.inf)
    if call.opset < 11:
        return lambda x: np.clip(x, low, high)
    has_low = len(call.values) > 1 and call.values[1] is not None

    def clip(x: Float64, *bounds: Float64) -> Float64:
        if not has_low:
            return np.minimum(x, bounds[0]) if bounds else x
        return np.clip(x, bounds[0], bounds[1] if len(bounds) > 1 else math.inf)

    return clip


def sigmoid(x: Float64) -> Float64:
    """Return 1 / (1 + e^-x)."""
    return (1 + np.tanh(x / 2)) / 2


def softplus(x: Float64) -> Float64:
    """Return log(1 + e^x)."""
    return np.logaddexp(0.0, x)


def gelu(x: Float64) -> Float64:
    """Return x Phi(x), Phi being the normal distribution."""
    phi: Float64 = (1 + _erf(x * math.sqrt(0.5))) / 2
    return x * phi


def gelu_tanh(x: Float64) -> Float64:
    """Return GELU as it is approximated with tanh (Hendrycks and Gimpel 2016)."""
    return x * sigmoid(2 * math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))


def _swish(call: _Call) -> Callable[..., Float64]:
    alpha = _attribute(call, "alpha", 1.0)
    return lambda x: x * sigmoid(alpha * x)


def _plain(function: Callable[..., Any]) -> _Maker:
    def make(call: _Call) -> Callable[..., Any]:
        given = sum(value is not None for value in call.values)
        if isinstance(function, np.ufunc) and given != function.nin:  # it would write to one more
            raise _RefusedError(f"it has {given} inputs")
        return function

    return make


_ELEMENTWISE: dict[str, _Maker] = {
    "Abs": _plain(np.abs),
    "Add": _plain(np.add),
    "Celu": _celu,
    "Clip": _clip,
    "Div": _plain(np.divide),
    "Elu": _elu,
    "Equal": _plain(np.equal),
    "Erf": _plain(_erf),
    "Exp": _plain(np.exp),
    "Gelu": _gelu,
    "Greater": _plain(np.greater),
    "GreaterOrEqual": _plain(np.greater_equal),
    "LeakyRelu": _leaky,
    "Less": _plain(np.less),
    "LessOrEqual": _plain(np.less_equal),
    "Log": _plain(np.log),
    "Max": _plain(lambda *x: functools.reduce(np.maximum, x)),
    "Min": _plain(lambda *x: functools.reduce(np.minimum, x)),
    "Mul": _plain(np.multiply),
    "Neg": _plain(np.negative),
    "Not": _plain(np.logical_not),
    "PRelu": _plain(lambda x, slope: np.where(x < 0, slope * x, x)),
    "Pow": _plain(np.power),
    "Reciprocal": _plain(np.reciprocal),
    "Relu": _plain(lambda x: np.maximum(x, 0)),
    "Selu": _selu,
    "Sigmoid": _plain(sigmoid),
    "Softplus": _plain(softplus),
    "Sqrt": _plain(np.sqrt),
    "Sub": _plain(np.subtract),
    "Sum": _plain(lambda *x: functools.reduce(np.add, x)),
    "Swish": _swish,
    "Tanh": _plain(np.tanh),
    "Where": _plain(lambda condition, x, y: np.where(condition != 0, x, y)),
}
"""Operators that work number by number, in float64."""


# ---- From nodes to steps --------------------------------------------------------------------------------


def _cuts(node: _Node) -> Iterator[_Node]:
    """Yield the nodes through which everything that `node` computes must pass, the nearest first."""
    if node.function is None:
        return
    pending = {parent.number: parent for parent in node.parents}
    for _ in range(_MAX_REGION):
        last = pending.pop(max(pending))
        if not pending:
            yield last
        if last.function is None:
            return
        pending |= {parent.number: parent for parent in last.parents}


def _evaluate(node: _Node, cut: _Node, given: Float64) -> Float64:
    """Return what `node` computes when `cut` has a value."""
    region = {node.number: node}
    pending = [node]
    while pending:
        for parent in pending.pop().parents:
            if parent is not cut and parent.number not in region:
                region[parent.number] = parent
                pending.append(parent)
    found = {cut: given}
    for number in sorted(region):
        current = region[number]
        assert current.function is not None  # noqa: S101 - nothing before a cut is visited
        found[current] = current.function(*(found[parent] for parent in current.parents))
    return found[node]


def recognise(function: Callable[[Float64], Float64]) -> Activated | None:
    """Return the activation that a function is, by its values; ``linear`` for one that changes nothing.

    Args:
        function: of (points, 1) float64, to (points, 1) or (points, width).
    """
    y = np.broadcast_arrays(np.asarray(function(_GRID), np.float64), _GRID)[0]
    known = np.isfinite(y)
    if not known[np.abs(_GRID[:, 0]) <= 20].all():
        return None
    slope = -y[-1]

    def same(candidate: Float64) -> bool:
        return bool(
            (
                np.abs(y - candidate)[known]
                <= np.broadcast_to(1e-6 + 1e-6 * np.abs(candidate), y.shape)[known]
            ).all()
        )

    for name, candidate in _FIXED.items():
        if same(candidate(_GRID)):
            return Activated(name)
    slopes = slope[0] if (slope == slope[0]).all() else slope
    if same(np.where(_GRID < 0, slope * _GRID, _GRID)):
        return Activated("leaky_relu" if slopes.ndim == 0 else "prelu", slopes)
    slopes = slopes / -math.expm1(-1)
    if same(np.where(_GRID < 0, slopes * np.expm1(np.minimum(_GRID, 0)), _GRID)):
        return Activated("elu", slopes) if slopes.ndim == 0 else None
    return None


_FIXED: dict[str, Callable[[Float64], Float64]] = {
    "linear": lambda x: x,
    "relu": lambda x: np.maximum(x, 0),
    "sigmoid": sigmoid,
    "tanh": np.tanh,
    "selu": lambda x: (
        1.0507009873554805 * np.where(x < 0, 1.6732632423543772 * np.expm1(np.minimum(x, 0)), x)
    ),
    "gelu": gelu,
    "gelu_tanh": gelu_tanh,
    "silu": lambda x: x * sigmoid(x),
    "softplus": softplus,
}


def _steps(node: _Node) -> tuple[_Node, list[Step]]:
    """Return the input that a node depends on, and what is done to it."""
    found: list[Step] = []
    while not node.columns:
        node, step = _last_step(node)
        if step is not None:
            found.append(step)
    return node, found[::-1]


def _last_step(node: _Node) -> tuple[_Node, Step | None]:
    """Return what a node does, and the node that it does it to."""
    if node.linear is not None:
        return node.parents[0], node.linear
    if node.softmax:
        return node.parents[0], Activated("softmax")
    for cut in reversed(list(_cuts(node))):  # as much at once as is known
        found = recognise(partial(_evaluate, node, cut))
        if found is not None:
            return cut, None if found.name == "linear" else found
    if node.affine is not None:
        return node.parents[0], node.affine
    if len(node.parents) > 1:
        raise InvalidInputError(
            f"{node.where} joins two parts of the network, and is no activation known here"
        )
    raise InvalidInputError(f"{node.where} is no activation that Mariana runs")


# ---- The model file -------------------------------------------------------------------------------------


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
    chain: Chain, source: _Node, labels: tuple[Label, ...], record: TrainingRecord
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


def _short(thing: object) -> str:
    text = " ".join(str(thing).split())
    return text if len(text) <= 120 else text[:117] + "..."
