"""A walk through an ONNX graph: every value becomes an array, rows, or a refusal that counts only if it is needed."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

import mariana
from mariana.errors import FileFormatError, InvalidInputError
from mariana.exchange.chain import Affine, Float64, Linear
from mariana.exchange.elementwise import ELEMENTWISE, Maker, affine_of, constant_row
from mariana.exchange.protobuf import array_of, onnx_package
from mariana.exchange.values import Call, Node, Refusal, RefusedError, Rows, Value, cuts, evaluate, short
from mariana.format import MAX_COLUMNS, Label, TrainingRecord

MIN_OPSET = 7
"""Before it, operators had the attributes `broadcast` and `consumed_inputs`."""

MAX_NODES = 20_000
_MAX_NUMBERS = 1 << 27
"""Of all constants together that the graph makes of its constants; a few bytes of a file can ask for any number."""


class Graph:
    """Walks through the nodes once, in their order."""

    def __init__(self, proto: Any, path: Path) -> None:
        self.path = path
        self.onnx = onnx_package()
        self.graph = proto.graph
        self.opsets = {entry.domain or "ai.onnx": entry.version for entry in proto.opset_import}
        self.opset = self.opsets.get("ai.onnx", MIN_OPSET)
        self.count = itertools.count()
        self.room = _MAX_NUMBERS
        self.values: dict[str, Value] = {}
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
                short(proto.producer_name or "onnx"): short(proto.producer_version),
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

    def _set(self, name: str, value: Value) -> None:
        if name in self.values:
            raise FileFormatError(f"two things are named {short(name)!r}")
        self.values[name] = value

    def _inputs(self) -> None:
        inputs = [entry for entry in self.graph.input if entry.name not in self.values]
        for entry in inputs:
            kind = entry.type.tensor_type
            if not entry.type.HasField("tensor_type") or not kind.HasField("shape"):
                raise InvalidInputError(f"input {short(entry.name)!r} is no tensor of a known shape")
            if kind.elem_type == self.onnx.TensorProto.STRING:
                self._set(entry.name, Refusal(f"input {short(entry.name)!r} holds strings"))
                continue
            shape = tuple(dim.dim_value if dim.HasField("dim_value") else 0 for dim in kind.shape.dim)[1:]
            width = math.prod(shape)
            if not kind.shape.dim or not 0 < width <= MAX_COLUMNS:
                raise InvalidInputError(
                    f"input {short(entry.name)!r} must be rows of a known number of columns, up to {MAX_COLUMNS}"
                )
            single = len(inputs) == 1
            columns = tuple(f"x{i}" if single else f"{entry.name}{i}" for i in range(width))
            if not single and width == 1:
                columns = (entry.name,)
            if single and len(self.names) == width:
                columns = self.names
            self._set(
                entry.name,
                Rows(self._new(f"input {entry.name}", width, columns=columns, shape=shape), shape),
            )
        if not inputs:
            raise InvalidInputError("the graph has no input")

    def _make_room(self, numbers: int) -> None:
        """Refuse a constant that would take more than what is left of the memory for them."""
        if numbers > self.room:
            raise RefusedError("its constants make too large an array")
        self.room -= numbers

    def _new(self, where: str, width: int, **facts: Any) -> Node:
        return Node(where, next(self.count), width, **facts)

    def _node(self, i: int, node: Any) -> None:
        texts = (node.domain, node.op_type, node.name, *node.input, *node.output)
        if not all(isinstance(text, str) for text in texts):
            raise FileFormatError(f"a name of node {i} is no text")
        domain = node.domain or "ai.onnx"
        operator = node.op_type if domain in {"ai.onnx", "ai.onnx.ml"} else f"{domain}.{node.op_type}"
        where = f"node {short(node.name) or i!r} ({short(operator)})"
        values: list[Value] = []
        for name in node.input:
            if name and name not in self.values:
                raise FileFormatError(f"{where} uses {short(name)!r}, which nothing before it gives")
            values.append(self.values[name] if name else None)
        outputs = [name for name in node.output if name]
        result: Value
        refused = next((value for value in values if isinstance(value, Refusal)), None)
        try:
            attributes = {a.name: self._attribute(a) for a in node.attribute}
            call = Call(operator, where, values, attributes, self.opset, len(outputs), next(self.count))
            self._find_labels(call)
            result = self._run(call) if refused is None else refused
        except RefusedError as error:
            result = Refusal(f"{where} cannot be run here: {error}")
        except (ValueError, TypeError, IndexError, KeyError, OverflowError, MemoryError, ArithmeticError):
            result = Refusal(f"{where} does not fit its inputs")
        for place, name in enumerate(node.output):
            if name:
                extra = Refusal(f"{where}: its output {place} is not computed here")
                self._set(name, result if place == 0 else extra)

    def _attribute(self, attribute: Any) -> Any:
        kinds = self.onnx.AttributeProto
        if attribute.type == kinds.TENSOR:
            return array_of(attribute.t, self.path)
        if attribute.type in {kinds.GRAPH, kinds.GRAPHS, kinds.SPARSE_TENSOR, kinds.SPARSE_TENSORS}:
            return None
        return self.onnx.helper.get_attribute_value(attribute)

    def _find_labels(self, call: Call) -> None:
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

    def _run(self, call: Call) -> Value:
        special = getattr(self, f"_op_{call.operator}", None) if call.operator.isidentifier() else None
        if special is not None:
            return cast("Value", special(call))
        if call.operator in ELEMENTWISE:
            return self._elementwise(call, ELEMENTWISE[call.operator])
        raise RefusedError("Mariana has no such operator")

    def output(self, wanted: str | None) -> tuple[Rows, str, tuple[str, ...]]:
        """Return the output that a model is made of, its name, and the names of the others."""
        names = [entry.name for entry in self.graph.output]
        if wanted is not None and wanted not in names:
            raise InvalidInputError(
                f"there is no output {wanted[:64]!r}; there are: {short(', '.join(names))}"
            )
        for name in names:
            if name not in self.values:
                raise FileFormatError(f"nothing gives the output {short(name)!r}")
        runnable = [n for n in names if isinstance(self.values[n], Rows) and wanted in {None, n}]
        if not runnable:
            reasons = [
                v.reason for n in names if wanted in {None, n} and isinstance(v := self.values[n], Refusal)
            ]
            raise InvalidInputError(reasons[-1] if reasons else "no output depends on the input")
        if len(runnable) > 1:
            raise InvalidInputError(
                f"several outputs can be run; choose one with --output: {', '.join(runnable)}"
            )
        rows = self.values[runnable[0]]
        assert isinstance(rows, Rows)  # noqa: S101 - filtered above
        return rows, runnable[0], tuple(name for name in names if name != runnable[0])

    # ---- Dense layers --------------------------------------------------------------------------------

    def _dense(self, call: Call, weight: NDArray[Any], bias: NDArray[Any] | None) -> Rows:
        rows = call.rows()
        if weight.ndim != 2 or rows.shape != (weight.shape[0],):
            raise RefusedError(f"weights {weight.shape} do not fit rows of shape {rows.shape}")
        units = weight.shape[1]
        if not 0 < units <= MAX_COLUMNS:
            raise RefusedError(f"it has {units} units")
        if bias is None:
            bias = np.zeros(units)
        if bias.size != 1 and not bias.size == bias.shape[-1] == units:
            raise RefusedError(f"a bias of shape {bias.shape} does not fit {units} units")
        wide = np.broadcast_to(bias.reshape(-1).astype(np.float64), (units,))
        linear = Linear(weight.astype(np.float64), wide)
        return Rows(self._new(call.where, units, parents=(rows.node,), linear=linear), (units,))

    def _op_Gemm(self, call: Call) -> Value:  # noqa: N802
        if call.attributes.get("transA", 0):
            raise RefusedError("transA turns the rows on their side")
        weight = call.array(1)
        weight = weight.T if call.attributes.get("transB", 0) else weight
        bias = call.optional(2)
        alpha, beta = (float(call.attributes.get(key, 1.0)) for key in ("alpha", "beta"))
        return self._dense(
            call, alpha * weight.astype(np.float64), None if bias is None else beta * bias.astype(np.float64)
        )

    def _op_MatMul(self, call: Call) -> Value:  # noqa: N802
        return self._dense(call, call.array(1), None)

    def _op_BatchNormalization(self, call: Call) -> Value:  # noqa: N802
        rows = call.rows()
        if call.attributes.get("training_mode", 0):
            raise RefusedError("it is in training mode")
        scale, bias, mean, variance = (call.array(i).astype(np.float64).ravel() for i in range(1, 5))
        if len(rows.shape) != 1 or not scale.size == bias.size == mean.size == variance.size == rows.shape[0]:
            raise RefusedError(f"it does not fit rows of shape {rows.shape}")
        factor = scale / np.sqrt(variance + float(call.attributes.get("epsilon", 1e-5)))
        return self._affine(call, rows, factor, bias - mean * factor)

    def _op_Scaler(self, call: Call) -> Value:  # noqa: N802
        rows = call.rows()
        offset, scale = (
            np.array(call.attributes.get(key, d), np.float64)
            for key, d in (("offset", [0.0]), ("scale", [1.0]))
        )
        if len(rows.shape) != 1 or any(a.size not in {1, rows.shape[0]} for a in (offset, scale)):
            raise RefusedError(f"it does not fit rows of shape {rows.shape}")
        return self._affine(call, rows, scale, -offset * scale)

    def _affine(self, call: Call, rows: Rows, factor: Float64, summand: Float64) -> Rows:
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
        return Rows(node, rows.shape)

    def _op_Softmax(self, call: Call) -> Value:  # noqa: N802
        rows = call.rows()
        axis = call.attributes.get("axis", 1 if call.opset < 13 else -1)
        if len(rows.shape) != 1 or axis not in {1, -1}:
            raise RefusedError(f"it does not run over the numbers of a row (axis {axis}, rows {rows.shape})")
        return Rows(self._new(call.where, rows.node.width, parents=(rows.node,), softmax=True), rows.shape)

    # ---- Operators that change no number -------------------------------------------------------------

    def _op_LogSoftmax(self, _: Call) -> Value:  # noqa: N802
        raise RefusedError(
            "export the network without it, and import what is left with --task classification: softmax is put there"
        )

    def _op_Identity(self, call: Call) -> Value:  # noqa: N802
        return call.values[0]

    def _op_ZipMap(self, call: Call) -> Value:  # noqa: N802
        return call.values[0]

    def _op_Dropout(self, call: Call) -> Value:  # noqa: N802
        training = call.optional(2)
        if training is not None and training.any():
            raise RefusedError("it is in training mode")
        return call.values[0]

    def _op_Cast(self, call: Call) -> Value:  # noqa: N802
        kinds = self.onnx.TensorProto
        to = call.attributes["to"]
        if isinstance(call.values[0], np.ndarray):
            wanted = self.onnx.helper.tensor_dtype_to_np_dtype(to)
            if to == kinds.STRING:
                raise RefusedError("it makes strings")
            return call.values[0].astype(np.float32 if to == kinds.BFLOAT16 else wanted)
        if to not in {kinds.FLOAT, kinds.DOUBLE, kinds.FLOAT16, kinds.BFLOAT16}:
            raise RefusedError("it makes something else of numbers than floating-point numbers")
        return call.values[0]

    def _shaped(self, call: Call, shape: tuple[int, ...]) -> Value:
        rows = call.rows()
        if math.prod(shape) != rows.node.width:
            raise RefusedError(f"rows of shape {rows.shape} cannot become {shape}")
        return Rows(rows.node, shape)

    def _op_Flatten(self, call: Call) -> Value:  # noqa: N802
        rows = call.rows()
        if call.attributes.get("axis", 1) not in {1, -len(rows.shape)}:
            raise RefusedError("it mixes rows: only axis 1 keeps them apart")
        return self._shaped(call, (rows.node.width,))

    def _op_Reshape(self, call: Call) -> Value:  # noqa: N802
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
            raise RefusedError(f"the shape {short(wanted)} does not keep the rows apart")
        return self._shaped(call, tuple(shape[1:]))

    def _op_Squeeze(self, call: Call) -> Value:  # noqa: N802
        axes = call.integers(1, "axes")
        if isinstance(call.values[0], np.ndarray):
            return np.squeeze(call.values[0], None if axes is None else tuple(axes))
        shape = (0, *call.rows().shape)
        if axes is None:
            raise RefusedError("without axes it might squeeze the rows too")
        gone = {axis % len(shape) for axis in axes}
        if any(shape[axis] != 1 for axis in gone):
            raise RefusedError(f"it squeezes axes {axes} of rows of shape {shape[1:]}")
        return self._shaped(call, tuple(n for i, n in enumerate(shape) if i and i not in gone))

    def _op_Unsqueeze(self, call: Call) -> Value:  # noqa: N802
        axes = call.integers(1, "axes") or []
        if isinstance(call.values[0], np.ndarray):
            return np.expand_dims(call.values[0], tuple(axes))
        shape = list(call.rows().shape)
        for axis in sorted(axis % (len(shape) + 1 + len(axes)) for axis in axes):
            if axis == 0:
                raise RefusedError("it puts an axis before the rows")
            shape.insert(axis - 1, 1)
        return self._shaped(call, tuple(shape))

    def _op_Transpose(self, call: Call) -> Value:  # noqa: N802
        order = call.attributes.get("perm")
        if isinstance(call.values[0], np.ndarray):
            return call.values[0].transpose(order)
        rows = call.rows()
        if order is None or list(order) != list(range(len(rows.shape) + 1)):
            raise RefusedError("it reorders the axes of the rows")
        return rows

    def _op_Concat(self, call: Call) -> Value:  # noqa: N802
        axis = call.attributes["axis"]
        if all(isinstance(value, np.ndarray) for value in call.values):
            arrays = [call.array(i) for i in range(len(call.values))]
            self._make_room(sum(array.size for array in arrays))
            return np.concatenate(arrays, axis)
        parts = [call.rows(i) for i in range(len(call.values))]
        if axis not in {1, -1} or any(len(part.shape) != 1 for part in parts):
            raise RefusedError("it joins rows along another axis")
        nodes = [part.node for part in parts]
        if len(parts) == 1:
            return parts[0]
        if all(node.columns for node in nodes) and len(set(map(id, nodes))) == len(nodes):
            columns = tuple(itertools.chain.from_iterable(node.columns for node in nodes))
            return Rows(self._new(call.where, len(columns), columns=columns), (len(columns),))
        if len(nodes) == 2 and nodes[0].width == nodes[1].width == 1 and nodes[1] in cuts(nodes[0]):
            p = np.linspace(0, 1, 33)[:, None]
            if np.allclose(evaluate(nodes[0], nodes[1], p), 1 - p, rtol=0, atol=1e-7):
                return Rows(nodes[1], (2,), complement=True)
        raise RefusedError("it joins parts of a network")

    # ---- Constants -----------------------------------------------------------------------------------

    def _op_Constant(self, call: Call) -> Value:  # noqa: N802
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
            raise RefusedError("it holds no dense numbers")
        return found

    def _op_Shape(self, call: Call) -> Value:  # noqa: N802
        value = call.values[0]
        shape = (
            value.shape if isinstance(value, np.ndarray) else (0, *call.rows().shape)
        )  # 0: as it is, in a Reshape
        return np.array(shape[call.attributes.get("start", 0) : call.attributes.get("end")], np.int64)

    def _op_Gather(self, call: Call) -> Value:  # noqa: N802
        array, places, axis = call.array(0), call.array(1), call.attributes.get("axis", 0)
        self._make_room(array.size // max(array.shape[axis], 1) * places.size)
        return np.asarray(np.take(array, places, axis=axis))

    def _op_Slice(self, call: Call) -> Value:  # noqa: N802
        array = call.array(0)
        starts, ends = call.integers(1, "starts") or [], call.integers(2, "ends") or []
        axes = call.integers(3, "axes") or list(range(len(starts)))
        steps = call.integers(4, "steps") or [1] * len(starts)
        cut = [slice(None)] * array.ndim
        for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
            cut[axis] = slice(start, end, step)
        return array[tuple(cut)]

    # ---- Number by number ----------------------------------------------------------------------------

    def _elementwise(self, call: Call, make: Maker) -> Value:
        function = make(call)
        if all(value is None or isinstance(value, np.ndarray) for value in call.values):
            arrays = [value for value in call.values if isinstance(value, np.ndarray)]
            self._make_room(math.prod(np.broadcast_shapes(*(a.shape for a in arrays))))
            return np.asarray(function(*arrays))
        shape = next(value.shape for value in call.values if isinstance(value, Rows))
        operands: list[Node | Float64] = []
        for place, value in enumerate(call.values):
            if value is None:
                continue
            if isinstance(value, np.ndarray):
                operands.append(constant_row(value, shape))
                continue
            rows = call.rows(place)
            if rows.shape != shape:
                raise RefusedError(f"rows of shapes {shape} and {rows.shape} meet")
            operands.append(rows.node)
        parents = tuple(dict.fromkeys(o for o in operands if isinstance(o, Node)))
        affine = affine_of(call.operator, operands)
        constants = [a for a in operands if not isinstance(a, Node) and a.ndim]
        if any(a.size not in {1, parents[0].width} for a in constants):
            raise RefusedError(f"a constant does not fit rows of shape {shape}")

        def evaluate(*given: Float64) -> Float64:
            known = dict(zip(parents, given, strict=True))
            return function(*(known[o] if isinstance(o, Node) else o for o in operands))

        row = np.zeros((1, parents[0].width))
        if np.broadcast_shapes(np.shape(evaluate(*[row] * len(parents))), row.shape) != row.shape:
            raise RefusedError(f"its result does not fit rows of shape {shape}")
        node = self._new(call.where, parents[0].width, parents=parents, function=evaluate, affine=affine)
        return Rows(node, shape)
