"""ONNX out: raw rows in, outputs out, the preprocessing in the graph too.

Only operators of the default domain at opset 17, which every runtime of the last years runs; newer ones (Gelu) are
written out as older exporters do.
"""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mariana import __version__
from mariana.errors import InvalidInputError
from mariana.exchange.protobuf import MAX_FILE, onnx_package
from mariana.format import DenseLayer, ModelFile, slopes_of, tables_of
from mariana.plan import FORMS, Tables

OPSET = 17
IR_VERSION = 8
"""As old as the opset allows."""

_PRECISIONS = ("float32",)


def to_onnx(file: ModelFile, name: str = "mariana") -> bytes:
    """Return an ONNX file with the input ``x`` (batch, features) and the output ``y`` (batch, outputs), float32.

    A row holds what :meth:`mariana.Model.predict` takes: numbers, 1 or 0, indexes of categories, NaN where a value is
    missing. The file's metadata names ``features``, ``labels``, ``task`` and ``targets``, as JSON.

    Args:
        file: a model file that has been read.
        name: of the graph.

    Raises:
        InvalidInputError: the precision has no counterpart in ONNX, or the file would be too large for protobuf.
        MarianaError: the package onnx is not installed.
    """
    info = file.metadata
    if info.precision != "float32":
        raise InvalidInputError(
            f"{info.precision} cannot be exported to ONNX: its results would differ; export the float32 version"
        )
    if info.parameters * 4 > MAX_FILE - (1 << 20):
        raise InvalidInputError(
            f"{info.parameters * 4} bytes of weights; an ONNX file has at most {MAX_FILE}"
        )
    graph = _Graph()
    h = graph.encode(tables_of(info), "x")
    for layer in info.layers:
        h = graph.dense(layer, file, h)
    target = info.target_scaling
    if target is not None:
        h = graph.add("Mul", h, graph.constant("target_scale", np.array(target.scale, np.float32)))
        h = graph.add("Add", h, graph.constant("target_shift", np.array(target.shift, np.float32)))
    graph.add("Identity", h, output="y")
    facts = {
        "task": info.task,
        "features": [feature.name for feature in info.features],
        "labels": list(info.labels),
        "targets": list(info.targets),
    }
    return graph.serialized(
        name, info.columns, info.outputs, {key: value for key, value in facts.items() if value}
    )


class _Graph:
    """Collects nodes and constants; every method returns the name of its value."""

    def __init__(self) -> None:
        self.onnx = onnx_package()
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def add(self, operator: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        """Append a node and return the name of its output."""
        output = output or f"{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(self.onnx.helper.make_node(operator, list(inputs), [output], output, **attributes))
        return output

    def constant(self, name: str, value: NDArray[Any] | float) -> str:
        """Append a constant; numbers become float32."""
        array = np.asarray(value, np.float32) if isinstance(value, float) else value
        self.constants.append(self.onnx.numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def encode(self, tables: Tables, x: str) -> str:
        """Fill, one-hot or copies, shift, scale and form, all columns at once."""
        missing = None
        forms = tables.forms
        if forms is not None and (forms == FORMS["missing"]).any():
            missing = self.add("Cast", self.add("IsNaN", x), to=self.onnx.TensorProto.FLOAT)
        if tables.fill is not None:
            x = self.add("Where", self.add("IsNaN", x), self.constant("fill", tables.fill), x)
        if tables.categories is not None or tables.copies is not None:
            x, missing = self._widen(tables, x, missing)
        if missing is not None and forms is not None:
            x = self.add("Where", self.constant("is_missing", forms == FORMS["missing"]), missing, x)
        if tables.shift is not None:
            x = self.add("Sub", x, self.constant("shift", tables.shift))
        if tables.scale is not None:
            x = self.add("Mul", x, self.constant("scale", tables.scale))
        return x if forms is None else self._shape(forms, x)

    def _widen(self, tables: Tables, x: str, missing: str | None) -> tuple[str, str | None]:
        """Give each encoded column its raw number, and compare those of categories with the category's."""
        widths = tables.copies
        categories = tables.categories
        if categories is not None:
            widths = np.where(categories > 0, categories, 1 if widths is None else widths)
        assert widths is not None  # noqa: S101 - one of the two tables is there
        columns = self.constant("columns", np.repeat(np.arange(len(widths)), widths).astype(np.int64))
        wide = self.add("Gather", x, columns, axis=1)
        if missing is not None:
            missing = self.add("Gather", missing, columns, axis=1)
        if categories is not None:
            numbers = np.concatenate([np.arange(n) for n in widths]).astype(np.float32)
            equal = self.add("Equal", wide, self.constant("categories", numbers))
            ones = self.add("Cast", equal, to=self.onnx.TensorProto.FLOAT)
            one_hot = self.constant("is_category", np.repeat(categories > 0, widths))
            wide = self.add("Where", one_hot, ones, wide)
        return wide, missing

    def _shape(self, forms: NDArray[np.uint32], x: str) -> str:
        if (forms == FORMS["ramp"]).any():
            ramp = self.add("Clip", x, self.constant("zero", 0.0), self.constant("one", 1.0))
            x = self.add("Where", self.constant("is_ramp", forms == FORMS["ramp"]), ramp, x)
        if (forms == FORMS["soft"]).any():
            bounded = self.add(
                "Clip", x, self.constant("soft_low", -4096.0), self.constant("soft_high", 4096.0)
            )
            square = self.add("Add", self.add("Mul", bounded, bounded), self.constant("soft_one", 1.0))
            soft = self.add("Div", bounded, self.add("Sqrt", square))
            x = self.add("Where", self.constant("is_soft", forms == FORMS["soft"]), soft, x)
        return x

    def dense(self, layer: DenseLayer, file: ModelFile, h: str) -> str:
        """Append a layer: Gemm, and its activation."""
        inputs = [h, self.constant(f"{layer.name}.weight", file.tensors[f"{layer.name}.weight"])]
        if layer.use_bias:
            inputs.append(self.constant(f"{layer.name}.bias", file.tensors[f"{layer.name}.bias"]))
        z = self.add("Gemm", *inputs)
        return (
            z if layer.activation == "linear" else self._activation(layer, slopes_of(layer, file.tensors), z)
        )

    def _activation(self, layer: DenseLayer, slopes: NDArray[np.float32] | None, z: str) -> str:
        name, kind = layer.name, layer.activation
        if kind in {"relu", "sigmoid", "tanh", "softplus", "selu"}:
            return self.add(kind.capitalize(), z)
        if kind == "softmax":
            return self.add("Softmax", z, axis=-1)
        if kind == "silu":
            return self.add("Mul", z, self.add("Sigmoid", z))
        if kind == "gelu":
            inner = self.add("Erf", self.add("Mul", z, self.constant(f"{name}.half_root", math.sqrt(0.5))))
        elif kind == "gelu_tanh":
            cube = self.add(
                "Mul", self.add("Mul", self.add("Mul", z, z), z), self.constant(f"{name}.cubic", 0.044715)
            )
            root = self.constant(f"{name}.root", math.sqrt(2 / math.pi))
            inner = self.add("Tanh", self.add("Mul", self.add("Add", z, cube), root))
        else:
            assert slopes is not None  # noqa: S101 - the three that are left have them
            if kind == "prelu":
                return self.add("PRelu", z, self.constant(f"{name}.slope", slopes))
            return self.add("LeakyRelu" if kind == "leaky_relu" else "Elu", z, alpha=float(slopes[0]))
        half = self.add("Mul", z, self.constant(f"{name}.half", 0.5))
        return self.add("Mul", half, self.add("Add", inner, self.constant(f"{name}.one", 1.0)))

    def serialized(self, name: str, columns: int, outputs: int, facts: dict[str, Any]) -> bytes:
        """Return the bytes of the file."""
        helper, kind = self.onnx.helper, self.onnx.TensorProto.FLOAT
        graph = helper.make_graph(
            self.nodes,
            name,
            [helper.make_tensor_value_info("x", kind, ["batch", columns])],
            [helper.make_tensor_value_info("y", kind, ["batch", outputs])],
            self.constants,
        )
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="mariana",
            producer_version=__version__,
        )
        helper.set_model_props(model, {key: json.dumps(value) for key, value in facts.items()})
        self.onnx.checker.check_model(model)
        data: bytes = model.SerializeToString(deterministic=True)
        return data
