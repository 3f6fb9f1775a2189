"""Dense networks in bfloat16, int8 and float32-split beside the runtimes that offer such, one thread, from Python.

Each runtime gets the same float32 weights and quantises them in its own way: OpenVINO computes in bfloat16 on request
(in float32 where the CPU has no instruction for it: its error shows that, and then its name in the table says it) and
takes ONNX Runtime's QDQ model for int8; ONNX Runtime quantises activations when it runs; LiteRT has int8 weights
with a scale a unit, and activations that it quantises when it runs ("dynamic range") or in ranges found on 256 other
rows ("full integer", as QDQ). The largest difference between a probability and that of float64 stands beside the time.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from benchmarks.dense import Call, Float32, Weights, model_file, onnx_model, weights_of
from benchmarks.harness import Row, row, seconds_per_call, versions, write_results
from benchmarks.peers.litert import tflite_model
from mariana.model import Model
from mariana.quantize import Narrow, quantize, to_int8

SHAPES = ((64, 64, 32, 10), (784, 256, 128, 10), (784, 1024, 1024, 10))
BATCHES = (1, 8, 64, 512)
BARS = {
    ("bfloat16", (784, 256, 128, 10)): (0.3, 0.6, 0.7, 0.6),
    ("bfloat16", (784, 1024, 1024, 10)): (0.65, 0.6, 0.7, 0.6),
    ("int8", (784, 256, 128, 10)): (0.7, 0.7, 0.8, 0.7),
    ("int8", (784, 1024, 1024, 10)): (0.7, 0.7, 0.8, 0.7),
}  # ours / best peer, batch by batch

Maker = Callable[[Weights, Float32], Call]


def _ours(precision: Narrow) -> Maker:
    def make(weights: Weights, x: Float32) -> Call:
        model = Model(quantize(model_file(weights), precision, source_sha256="0" * 64))
        return lambda: model.predict(x)

    return make


def _split(weights: Weights, x: Float32) -> Call:
    model = Model(model_file(weights), precision="float32-split")
    return lambda: model.predict(x)


def _float32(weights: Weights, x: Float32) -> Call:
    model = Model(model_file(weights), precision="float32")
    return lambda: model.predict(x)


def _openvino(model: Any, x: Float32, precision: str) -> Call:
    import openvino

    config = {
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": 1,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
    }
    core = openvino.Core()
    described = core.read_model(model)
    described.reshape(list(x.shape))  # a fixed batch is its faster case
    request = core.compile_model(described, "CPU", config).create_infer_request()
    return lambda: request.infer([x], share_inputs=True)[0]


def openvino_bf16(weights: Weights, x: Float32) -> Call:
    return _openvino(onnx_model(weights).SerializeToString(), x, "bf16")


def openvino_int8(weights: Weights, x: Float32) -> Call:
    return _openvino(_qdq(weights), x, "f32")


@contextmanager
def no_warnings() -> Iterator[None]:
    """Keep ONNX Runtime from advising shape inference before each quantisation: these graphs have their shapes."""
    before = logging.root.level
    logging.root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logging.root.setLevel(before)


def onnx_runtime_dynamic(weights: Weights, x: Float32) -> Call:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with tempfile.TemporaryDirectory() as folder, no_warnings():
        quantize_dynamic(
            onnx_model(weights), Path(folder) / "int8.onnx", per_channel=True, weight_type=QuantType.QInt8
        )
        return _session((Path(folder) / "int8.onnx").read_bytes(), x)


def onnx_runtime_qdq(weights: Weights, x: Float32) -> Call:
    return _session(_qdq(weights), x)


def _session(model: bytes, x: Float32) -> Call:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"x": x})[0]


def _qdq(weights: Weights) -> bytes:
    """Return the model quantised by ONNX Runtime, activations calibrated on 256 random rows."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc] # has no types
        def __init__(self) -> None:
            self._left = iter([{"x": _calibration(weights)}])

        def get_next(self) -> dict[str, Float32] | None:
            return next(self._left, None)

    with tempfile.TemporaryDirectory() as folder, no_warnings():
        quantize_static(
            onnx_model(weights),
            Path(folder) / "qdq.onnx",
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        return (Path(folder) / "qdq.onnx").read_bytes()


def _calibration(weights: Weights) -> Float32:
    return np.random.default_rng(3).standard_normal((256, len(weights[0][0]))).astype(np.float32)


def litert_dynamic(weights: Weights, x: Float32) -> Call:
    return _litert(weights, x, None)


def litert_integer(weights: Weights, x: Float32) -> Call:
    return _litert(weights, x, _calibration(weights))


def _litert(weights: Weights, x: Float32, calibration: Float32 | None) -> Call:
    from ai_edge_litert.interpreter import Interpreter

    narrow = [to_int8(weight) for weight, _ in weights]
    model = tflite_model(weights, len(x), narrow, calibration)
    interpreter = Interpreter(model_content=model, num_threads=1)
    interpreter.allocate_tensors()
    to, out = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]

    def predict() -> object:
        interpreter.set_tensor(to, x)
        interpreter.invoke()
        return interpreter.get_tensor(out)

    return predict


CONTESTANTS: dict[str, dict[str, Maker]] = {
    "bfloat16": {"ours": _ours("bfloat16"), "our float32": _float32, "OpenVINO bf16": openvino_bf16},
    "int8": {
        "ours": _ours("int8"),
        "LiteRT dynamic range": litert_dynamic,
        "LiteRT full integer": litert_integer,
        "ONNX Runtime dynamic": onnx_runtime_dynamic,
        "ONNX Runtime QDQ": onnx_runtime_qdq,
        "OpenVINO int8": openvino_int8,
    },
}


def exact(weights: Weights, x: Float32) -> NDArray[np.float64]:
    """Return the outputs in float64."""
    h = x.astype(np.float64)
    for i, (weight, bias) in enumerate(weights):
        h = h @ weight + bias
        h = np.maximum(h, 0) if i < len(weights) - 1 else np.exp(h - h.max(axis=1, keepdims=True))
    return h / h.sum(axis=1, keepdims=True)


def ran_in_float32(precision: str, errors: dict[str, float]) -> list[str]:
    """Return the peers that are a hundred times nearer to float64 than the precision asked for can be."""
    peers = [name for name in CONTESTANTS[precision] if name not in ("ours", "our float32")]
    return [name for name in peers if errors[f"error {name}"] < errors["error ours"] / 100]


def rows() -> Iterator[Row]:
    for precision, contestants in CONTESTANTS.items():
        for shape in SHAPES:
            weights = weights_of(shape)
            for place, batch in enumerate(BATCHES):
                x = np.random.default_rng(2).standard_normal((batch, shape[0])).astype(np.float32)
                wanted = exact(weights, x)
                calls = {name: make(weights, x) for name, make in contestants.items()}
                errors = {}
                for name, call in calls.items():
                    errors[f"error {name}"] = float(np.abs(np.asarray(call()) - wanted).max())
                    if errors[f"error {name}"] > 0.2:
                        raise SystemExit(f"{name}: wrong by {errors[f'error {name}']:.2g}, not by rounding")
                bars = BARS.get((precision, shape))
                for name in ran_in_float32(precision, errors):
                    calls[f"{name}, ran in float32"] = calls.pop(name)
                    errors[f"error {name}, ran in float32"] = errors.pop(f"error {name}")
                    bars = None  # of the same precision
                label = f"{precision}, {'-'.join(map(str, shape))}, batch {batch}"
                found = row(label, seconds_per_call(calls), "ours", bar=bars[place] if bars else None)
                found.extra = errors
                float32 = found.peers.pop("our float32", None)
                if float32 is not None:
                    found.extra["our float32, us"] = float32
                yield found


def run() -> str:
    with threadpool_limits(1):
        measured = list(rows())
    peers = versions("onnxruntime", "ai-edge-litert", "openvino")
    table = write_results(
        "precision", "Dense networks, bfloat16 and int8, one thread, from Python", measured, peers
    )
    lines = [
        "| largest error of a probability | " + " | ".join(BATCHES_SHOWN) + " |",
        "|---|" + "---|" * len(BATCHES),
    ]
    for start in range(0, len(measured), len(BATCHES)):
        group = measured[start : start + len(BATCHES)]
        for key in group[0].extra:
            if key.startswith("error "):
                name = group[0].what.rsplit(",", 1)[0]
                figures = " | ".join(f"{each.extra[key]:.1e}" for each in group)
                lines.append(f"| {name}: {key.removeprefix('error ')} | {figures} |")
    return "\n".join([table, *lines, ""])


BATCHES_SHOWN = [f"batch {batch}" for batch in BATCHES]
