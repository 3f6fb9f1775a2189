"""Dense networks as LiteRT model files, written with its own schema: float32, dynamic range and full integer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Weights = Sequence[tuple[Float32, Float32]]  # (inputs, units), (units,)
Quantized = tuple[Any, list[int]]  # scales, zero points

VERSIONS = {"float32": 1, "dynamic": 9, "integer": 12}
"""Of the operator FULLY_CONNECTED: 9 quantises its inputs when it runs, 12 has a scale a unit."""


class _Graph:
    """The lists of a model file while they grow."""

    def __init__(self) -> None:
        import flatbuffers
        from ai_edge_litert import schema_py_generated as schema

        self.flatbuffers, self.schema = flatbuffers, schema
        self.buffers = [schema.BufferT()]
        self.tensors: list[Any] = []
        self.operators: list[Any] = []
        self.codes: list[tuple[int, int]] = []  # built-in operator, its version

    def tensor(self, shape: Sequence[int], data: Any = None, quantized: Quantized | None = None) -> int:
        """Add a tensor: of the data's type; without data float32, or int8 where it is quantised."""
        types = self.schema.TensorType
        made = self.schema.TensorT()
        made.name, made.shape = f"t{len(self.tensors)}", list(shape)
        made.type = types.INT8 if quantized else types.FLOAT32
        made.buffer = 0
        if data is not None:
            made.type = {"int8": types.INT8, "int32": types.INT32, "float32": types.FLOAT32}[data.dtype.name]
            made.buffer = len(self.buffers)
            self.buffers.append(self.schema.BufferT())
            self.buffers[-1].data = np.frombuffer(np.ascontiguousarray(data).tobytes(), np.uint8)
        if quantized:
            made.quantization = self.schema.QuantizationParametersT()
            made.quantization.scale = [float(scale) for scale in quantized[0]]
            made.quantization.zeroPoint = quantized[1]
            made.quantization.quantizedDimension = 0
        self.tensors.append(made)
        return len(self.tensors) - 1

    def operator(self, kind: str, version: int, inputs: list[int], output: int, options: Any) -> int:
        """Add an operator by its name in the schema ("FULLY_CONNECTED"); returns its output."""
        code = (getattr(self.schema.BuiltinOperator, kind), version)
        if code not in self.codes:
            self.codes.append(code)
        made = self.schema.OperatorT()
        made.opcodeIndex, made.inputs, made.outputs = self.codes.index(code), inputs, [output]
        made.builtinOptionsType = getattr(
            self.schema.BuiltinOptions, type(options).__name__.removesuffix("T")
        )
        made.builtinOptions = options
        self.operators.append(made)
        return output

    def finish(self, inputs: list[int], outputs: list[int]) -> bytes:
        graph = self.schema.SubGraphT()
        graph.tensors, graph.operators = self.tensors, self.operators
        graph.inputs, graph.outputs = inputs, outputs
        model = self.schema.ModelT()
        model.version, model.subgraphs, model.buffers, model.operatorCodes = 3, [graph], self.buffers, []
        for builtin, version in self.codes:
            code = self.schema.OperatorCodeT()
            code.builtinCode, code.deprecatedBuiltinCode, code.version = builtin, min(builtin, 127), version
            model.operatorCodes.append(code)
        builder = self.flatbuffers.Builder(1024)
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())


def tflite_model(
    weights: Weights,
    batch: int,
    narrow: Sequence[tuple[NDArray[np.int8], Float32]] = (),
    calibration: Float32 | None = None,
) -> bytes:
    """Return a LiteRT model file: fully connected layers, ReLU fused, a softmax at the end; fixed batch.

    Inputs and outputs are float32 in all three kinds.

    Args:
        weights: of each layer, (inputs, units) and (units,).
        batch: rows of a call.
        narrow: int8 weights and a scale a unit for each layer. Activations are then quantised when it runs ("dynamic
            range"), unless there is ``calibration``.
        calibration: rows whose largest and smallest activations become the ranges of all between the first layer's
            inputs and the softmax: "full integer".
    """
    graph = _Graph()
    schema = graph.schema
    kind = "float32" if not narrow else "dynamic" if calibration is None else "integer"
    x = graph.tensor((batch, len(weights[0][0])))
    h, scale = x, np.float64(1)
    if calibration is not None:
        steps = _range(calibration)
        scale = steps[0][0]
        h = graph.operator(
            "QUANTIZE",
            1,
            [x],
            graph.tensor((batch, len(weights[0][0])), None, steps),
            schema.QuantizeOptionsT(),
        )
    for i, (weight, bias) in enumerate(weights):
        options = schema.FullyConnectedOptionsT()
        options.asymmetricQuantizeInputs = kind == "dynamic"
        hidden = i < len(weights) - 1
        if hidden:
            options.fusedActivationFunction = schema.ActivationFunctionType.RELU
        stored, steps = weight, None
        if narrow:
            stored, steps = narrow[i][0], (narrow[i][1], [0] * len(bias))
        w = graph.tensor(weight.T.shape, stored.T, steps)
        steps = None
        if calibration is None:
            b = graph.tensor(bias.shape, bias)
        else:
            step = scale * narrow[i][1].astype(np.float64)
            b = graph.tensor(bias.shape, np.rint(bias / step).astype(np.int32), (step, [0] * len(bias)))
            calibration = calibration @ weight + bias
            if hidden:
                calibration = np.maximum(calibration, 0)
            steps = _range(calibration)
            scale = steps[0][0]
        to = graph.tensor((batch, len(bias)), None, steps)
        h = graph.operator("FULLY_CONNECTED", VERSIONS[kind], [h, w, b], to, options)
    softmax = schema.SoftmaxOptionsT()
    softmax.beta = 1.0
    shape = (batch, len(weights[-1][1]))
    if calibration is None:
        return graph.finish([x], [graph.operator("SOFTMAX", 1, [h], graph.tensor(shape), softmax)])
    h = graph.operator("SOFTMAX", 2, [h], graph.tensor(shape, None, ([1 / 256], [-128])), softmax)
    y = graph.operator("DEQUANTIZE", 2, [h], graph.tensor(shape), schema.DequantizeOptionsT())
    return graph.finish([x], [y])


def _range(numbers: Float32) -> Quantized:
    """Return the step and the zero point that spread int8 over a range, which is widened to hold 0."""
    low, high = min(float(numbers.min()), 0.0), max(float(numbers.max()), 0.0)
    step = (high - low) / 255
    return np.array([step]), [round(-128 - low / step)]
