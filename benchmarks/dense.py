"""Dense networks: ours beside NumPy, ONNX Runtime and LiteRT, float32, one thread, the same weights.

``predict`` rows take a fresh array and give a fresh array, as a user calls each library; ``bind`` rows let every
library reuse its buffers: ours `bind`, NumPy `out=`, ONNX Runtime an I/O binding, LiteRT nothing but `invoke()`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from benchmarks.harness import Row, row, seconds_per_call, versions, write_results
from mariana.format import DenseLayer, ModelFile, ModelMetadata, NumericFeature
from mariana.model import Model

Float32 = NDArray[np.float32]
Weights = list[tuple[Float32, Float32]]
Call = Callable[[], object]

SHAPES = ((4, 16, 16, 3), (64, 64, 32, 10), (784, 256, 128, 10))
BATCHES = (1, 8, 64, 512)
BARS = {  # (shape, batch, what) -> ours / best peer
    ((4, 16, 16, 3), 1, "bind"): 0.6,
    ((4, 16, 16, 3), 1, "predict"): 1.0,
    ((784, 256, 128, 10), 1, "bind"): 1.0,
    ((784, 256, 128, 10), 1, "predict"): 1.0,
}


def weights_of(shape: tuple[int, ...]) -> Weights:
    rng = np.random.default_rng(1)
    return [
        (
            (rng.standard_normal((a, b)) / np.sqrt(a)).astype(np.float32),
            rng.standard_normal(b).astype(np.float32),
        )
        for a, b in pairwise(shape)
    ]


def model_file(weights: Weights) -> ModelFile:
    """Return the network as one of our files: ReLU, a softmax at the end."""
    columns, last = len(weights[0][0]), len(weights) - 1
    tensors = {}
    layers = []
    for i, (weight, bias) in enumerate(weights):
        tensors |= {f"dense_{i}.weight": weight, f"dense_{i}.bias": bias}
        inputs, units = weight.shape
        activation = "softmax" if i == last else "relu"
        layers.append(DenseLayer(name=f"dense_{i}", inputs=inputs, units=units, activation=activation))
    metadata = ModelMetadata(
        task="classification",
        features=tuple(NumericFeature(name=f"x{i}") for i in range(columns)),
        input_shape=(columns,),
        layers=tuple(layers),
        labels=tuple(range(layers[-1].units)),
    )
    return ModelFile(metadata, tensors)


def ours(weights: Weights, x: Float32) -> Iterator[tuple[Call, Float32 | None]]:
    model = Model(model_file(weights))
    y = np.empty((len(x), model.outputs), np.float32)
    yield lambda: model.predict(x), None
    yield model.bind(x, y), y


def numpy(weights: Weights, x: Float32) -> Iterator[tuple[Call, Float32 | None]]:
    def forward(h: Float32, buffers: list[Float32 | None]) -> Float32:
        for i, ((weight, bias), buffer) in enumerate(zip(weights, buffers, strict=True)):
            h = np.matmul(h, weight, out=buffer)
            h += bias
            if i < len(weights) - 1:
                np.maximum(h, 0, out=h)
        h -= h.max(axis=1, keepdims=True)
        np.exp(h, out=h)
        h /= h.sum(axis=1, keepdims=True)
        return h

    fresh: list[Float32 | None] = [None] * len(weights)
    buffers: list[Float32 | None] = [np.empty((len(x), len(b)), np.float32) for _, b in weights]
    yield lambda: forward(x, fresh), None
    yield lambda: forward(x, buffers), buffers[-1]


def onnx_model(weights: Weights) -> Any:
    """Return an ONNX model: Gemm layers, ReLU between them, a softmax at the end; any batch."""
    from onnx import TensorProto, helper, numpy_helper

    nodes, values, name = [], [], "x"
    for i, (weight, bias) in enumerate(weights):
        values += [numpy_helper.from_array(weight, f"w{i}"), numpy_helper.from_array(bias, f"b{i}")]
        nodes.append(helper.make_node("Gemm", [name, f"w{i}", f"b{i}"], [f"sum{i}"]))
        last = i == len(weights) - 1
        name = "y" if last else f"h{i}"
        nodes.append(
            helper.make_node(
                "Softmax" if last else "Relu", [f"sum{i}"], [name], **({"axis": 1} if last else {})
            )
        )
    ends = [
        helper.make_tensor_value_info(end, TensorProto.FLOAT, ["batch", width])
        for end, width in (("x", len(weights[0][0])), ("y", len(weights[-1][1])))
    ]
    graph = helper.make_graph(nodes, "dense", ends[:1], ends[1:], values)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def onnx_runtime(weights: Weights, x: Float32) -> Iterator[tuple[Call, Float32 | None]]:
    import onnxruntime

    proto = onnx_model(weights)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    yield lambda: session.run(None, {"x": x})[0], None

    y = np.empty((len(x), len(weights[-1][1])), np.float32)
    binding = session.io_binding()
    binding.bind_cpu_input("x", x)
    binding.bind_output("y", "cpu", 0, np.float32, y.shape, y.ctypes.data)

    def bound(_alive: Float32 = y) -> object:  # the binding knows y by its address alone
        return session.run_with_iobinding(binding)

    yield bound, y


def litert(weights: Weights, x: Float32) -> Iterator[tuple[Call, Float32 | None]]:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=tflite_model(weights, len(x)), num_threads=1)
    interpreter.allocate_tensors()
    to, out = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]

    def predict() -> object:
        interpreter.set_tensor(to, x)
        interpreter.invoke()
        return interpreter.get_tensor(out)

    yield predict, None
    # What invoke() alone reads was left there by set_tensor; a view of its output must not outlive the next call.
    interpreter.set_tensor(to, x)
    interpreter.invoke()
    yield interpreter.invoke, interpreter.get_tensor(out)


def tflite_model(weights: Weights, batch: int, narrow: Sequence[tuple[Any, Float32, Float32]] = ()) -> bytes:
    """Return a LiteRT model file: fully connected layers, ReLU fused, a softmax at the end; fixed batch.

    Given ``narrow`` (int8 weights, a scale a unit, bias), activations are quantised when it runs.
    """
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    buffers = [schema.BufferT()]
    tensors: list[Any] = []
    operators: list[Any] = []

    def tensor(name: str, shape: tuple[int, ...], data: Any = None, scale: Float32 | None = None) -> int:
        made = schema.TensorT()
        made.name, made.shape, made.type = name, list(shape), schema.TensorType.FLOAT32
        if scale is not None:
            made.type = schema.TensorType.INT8
            made.quantization = schema.QuantizationParametersT()
            made.quantization.scale, made.quantization.zeroPoint = scale.tolist(), [0] * len(scale)
            made.quantization.quantizedDimension = 0
        made.buffer = 0
        if data is not None:
            made.buffer = len(buffers)
            buffers.append(schema.BufferT())
            buffers[-1].data = np.frombuffer(data.tobytes(), np.uint8)
        tensors.append(made)
        return len(tensors) - 1

    def operator(code: int, inputs: list[int], output: int, kind: int, options: Any) -> None:
        made = schema.OperatorT()
        made.opcodeIndex, made.inputs, made.outputs = code, inputs, [output]
        made.builtinOptionsType, made.builtinOptions = kind, options
        operators.append(made)

    h = tensor("x", (batch, len(weights[0][0])))
    for i, (weight, bias) in enumerate(weights):
        stored, scale = narrow[i][:2] if narrow else (weight, None)
        w = tensor(f"w{i}", weight.T.shape, np.ascontiguousarray(stored.T), scale)
        b = tensor(f"b{i}", bias.shape, bias)
        to = tensor(f"h{i}", (batch, len(bias)))
        options = schema.FullyConnectedOptionsT()
        options.asymmetricQuantizeInputs = bool(narrow)
        if i < len(weights) - 1:
            options.fusedActivationFunction = schema.ActivationFunctionType.RELU
        operator(0, [h, w, b], to, schema.BuiltinOptions.FullyConnectedOptions, options)
        h = to
    y = tensor("y", (batch, len(weights[-1][1])))
    softmax = schema.SoftmaxOptionsT()
    softmax.beta = 1.0
    operator(1, [h], y, schema.BuiltinOptions.SoftmaxOptions, softmax)

    graph = schema.SubGraphT()
    graph.tensors, graph.operators, graph.inputs, graph.outputs = tensors, operators, [0], [y]
    model = schema.ModelT()
    model.version, model.subgraphs, model.buffers, model.operatorCodes = 3, [graph], buffers, []
    for builtin in (schema.BuiltinOperator.FULLY_CONNECTED, schema.BuiltinOperator.SOFTMAX):
        code = schema.OperatorCodeT()
        code.builtinCode = code.deprecatedBuiltinCode = builtin
        code.version = 9 if narrow and builtin == schema.BuiltinOperator.FULLY_CONNECTED else 1
        model.operatorCodes.append(code)
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


CONTESTANTS = {"ours": ours, "NumPy": numpy, "ONNX Runtime": onnx_runtime, "LiteRT": litert}


def rows() -> Iterator[Row]:
    for shape in SHAPES:
        weights = weights_of(shape)
        for batch in BATCHES:
            x = np.random.default_rng(2).standard_normal((batch, shape[0])).astype(np.float32)
            calls: dict[str, dict[str, Call]] = {"predict": {}, "bind": {}}
            promised = None
            for name, contestant in CONTESTANTS.items():
                for what, (call, y) in zip(calls, contestant(weights, x), strict=True):
                    found = call()
                    found = y if y is not None else found
                    promised = np.array(found) if promised is None else promised
                    np.testing.assert_allclose(found, promised, rtol=1e-4, atol=1e-6, err_msg=name)
                    calls[what][name] = call
            for what, contestants in calls.items():
                samples = seconds_per_call(contestants)
                label = f"{'-'.join(map(str, shape))}, batch {batch}, {what}"
                yield row(label, samples, "ours", bar=BARS.get((shape, batch, what)))


def run() -> str:
    with threadpool_limits(1):
        measured = list(rows())
    peers = versions("numpy", "onnxruntime", "ai-edge-litert")
    return write_results("dense", "Dense networks, float32, one thread, from Python", measured, peers)
