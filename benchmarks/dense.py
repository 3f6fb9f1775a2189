"""Dense networks: ours beside other runtimes, one thread, the same weights; float32 (precision.py has the others).

``predict`` rows take a fresh array and give a fresh array, as a user calls each library; ``bind`` rows let a library
reuse its buffers: ours `bind`, NumPy `out=`, ONNX Runtime an I/O binding, LiteRT nothing but `invoke()`. A library that
is not installed is left out. Times are CPU times of the process: who else wants the core does not count.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from benchmarks.footprint import footprint
from benchmarks.harness import Row, row, seconds_per_call, table, versions, write_results
from benchmarks.peers.litert import tflite_model
from mariana.format import DenseLayer, ModelFile, ModelMetadata, NumericFeature
from mariana.model import Model

Float32 = NDArray[np.float32]
Weights = list[tuple[Float32, Float32]]
Call = Callable[[], object]

SHAPES = ((4, 16, 16, 3), (64, 64, 32, 10), (784, 256, 128, 10), (784, 1024, 1024, 10))
BATCHES = (1, 8, 64, 512, 4096)
SMALL = SHAPES[:2]
BARS: dict[tuple[str, str], dict[tuple[int, ...], dict[int, float]]] = {
    ("float32", "predict"): {
        **{shape: {1: 0.6, 8: 0.6, 64: 0.7, 512: 0.8} for shape in SMALL},
        SHAPES[2]: {1: 0.8, 8: 0.6, 64: 0.7, 512: 0.65},
        SHAPES[3]: {1: 1.02, 8: 0.9, 64: 0.7, 512: 0.6},
    },
    ("float32", "bind"): {shape: {1: 0.45} for shape in SMALL},
}
"""(precision, call) -> shape -> batch -> ours / best peer."""


@dataclass
class Contender:
    """One library's ways to run a network on some rows: calls by `predict` or `bind`, and where a call leaves its answer."""

    calls: dict[str, Call]
    answers: dict[str, Float32] = field(default_factory=dict)

    def answer(self, what: str) -> NDArray[np.float64]:
        found = self.calls[what]()
        return np.array(self.answers.get(what, found), np.float64)


def ours(weights: Weights, x: Float32) -> Contender:
    model = Model(model_file(weights), threads=1)
    y = np.empty((len(x), model.outputs), np.float32)
    return Contender({"predict": lambda: model.predict(x), "bind": model.bind(x, y)}, {"bind": y})


def ours_split(weights: Weights, x: Float32) -> Contender:
    model = Model(model_file(weights), threads=1, precision="float32-split")
    if model.precision != "float32-split":
        raise ImportError("this machine has no AMX")
    return Contender({"predict": lambda: model.predict(x)})


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


def exact(weights: Weights, x: Float32) -> NDArray[np.float64]:
    """Return what float64 gives."""
    h = x.astype(np.float64)
    for weight, bias in weights[:-1]:
        h = np.maximum(h @ weight.astype(np.float64) + bias, 0)
    weight, bias = weights[-1]
    e = np.exp(h @ weight.astype(np.float64) + bias)
    return np.asarray(e / e.sum(axis=1, keepdims=True))


def numpy(weights: Weights, x: Float32) -> Contender:
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
    return Contender({"predict": lambda: forward(x, fresh), "bind": lambda: forward(x, buffers)})


def onnx_runtime(weights: Weights, x: Float32) -> Contender:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    data = onnx_model(weights).SerializeToString()
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    y = np.empty((len(x), len(weights[-1][1])), np.float32)
    binding = session.io_binding()
    binding.bind_cpu_input("x", x)
    binding.bind_output("y", "cpu", 0, np.float32, y.shape, y.ctypes.data)

    def bound(_alive: Float32 = y) -> object:  # the binding knows y by its address alone
        return session.run_with_iobinding(binding)

    return Contender({"predict": lambda: session.run(None, {"x": x})[0], "bind": bound}, {"bind": y})


def openvino(weights: Weights, x: Float32) -> Contender:
    import openvino

    core = openvino.Core()
    options = {
        "INFERENCE_NUM_THREADS": 1,
        "INFERENCE_PRECISION_HINT": "f32",  # on AMX it would take bfloat16 unasked
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
    }
    request = core.compile_model(
        core.read_model(onnx_model(weights).SerializeToString()), "CPU", options
    ).create_infer_request()
    return Contender({"predict": lambda: request.infer({0: x}, share_inputs=True)[0]})


def ncnn(weights: Weights, x: Float32) -> Contender:
    import ncnn

    net = ncnn.Net()
    net.opt.num_threads = 1
    net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
    net.opt.use_bf16_storage = False
    lines, data, name = ["Input x 0 1 x"], b"", "x"
    for i, (weight, bias) in enumerate(weights):
        relu = " 9=1" if i < len(weights) - 1 else ""
        lines.append(f"InnerProduct fc{i} 1 1 {name} h{i} 0={len(bias)} 1=1 2={weight.size}{relu}")
        name = f"h{i}"
        data += bytes(4) + np.ascontiguousarray(weight.T).tobytes() + bias.tobytes()
    lines.append(f"Softmax softmax 1 1 {name} y 0=1 1=1")
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "net.param").write_text(
            "\n".join(["7767517", f"{len(lines)} {len(lines)}", *lines, ""])
        )
        (Path(folder) / "net.bin").write_bytes(data)
        net.load_param(f"{folder}/net.param")
        net.load_model(f"{folder}/net.bin")

    def predict() -> object:
        extractor = net.create_extractor()
        extractor.input("x", ncnn.Mat(x))
        return np.array(extractor.extract("y")[1])

    return Contender({"predict": predict})


def mnn(weights: Weights, x: Float32) -> Contender:
    from MNN import expr, nn

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.onnx"
        path.write_bytes(onnx_model(weights).SerializeToString())
        target = f"{folder}/net.mnn"
        command = ["-m", "MNN.tools.mnnconvert", "-f", "ONNX", "--bizCode", "x", "--modelFile"]
        subprocess.run(
            [sys.executable, *command, str(path), "--MNNModel", target], check=True, capture_output=True
        )
        runtime = nn.create_runtime_manager(({"backend": "CPU", "numThread": 1, "precision": "high"},))
        net = nn.load_module_from_file(target, ["x"], ["y"], runtime_manager=runtime)

    def predict() -> object:
        (y,) = net.forward([expr.const(x, list(x.shape), expr.NCHW)])
        return y.read()

    return Contender({"predict": predict})


def pytorch(weights: Weights, x: Float32) -> Contender:
    import torch

    torch.set_num_threads(1)
    parts: list[Any] = []
    for weight, bias in weights:
        linear = torch.nn.Linear(*weight.shape)
        linear.weight.data, linear.bias.data = torch.tensor(weight.T.copy()), torch.tensor(bias)
        parts += [linear, torch.nn.ReLU()]
    net = torch.nn.Sequential(*parts[:-1], torch.nn.Softmax(-1)).eval()

    def predict() -> object:
        with torch.inference_mode():
            return net(torch.from_numpy(x)).numpy()

    return Contender({"predict": predict})


def litert(weights: Weights, x: Float32) -> Contender:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=tflite_model(weights, len(x)), num_threads=1)
    interpreter.allocate_tensors()
    to, out = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]

    def predict() -> object:
        interpreter.set_tensor(to, x)
        interpreter.invoke()
        return interpreter.get_tensor(out)

    predict()  # leaves x where invoke() alone reads it
    return Contender({"predict": predict, "bind": interpreter.invoke}, {"bind": interpreter.get_tensor(out)})


Maker = Callable[[Weights, Float32], Contender]
CONTENDERS: dict[str, dict[str, Maker]] = {
    "float32": {
        "ours": ours,
        "NumPy": numpy,
        "ONNX Runtime": onnx_runtime,
        "LiteRT": litert,
        "OpenVINO": openvino,
        "ncnn": ncnn,
        "MNN": mnn,
        "PyTorch": pytorch,
    },
    "float32-split": {
        "ours": ours_split,
        "ONNX Runtime": onnx_runtime,
        "OpenVINO": openvino,
        "PyTorch": pytorch,
    },
}
WITHIN = 1e-5
"""How far from float64 a contender may be: farther is another network."""


def rows() -> Iterator[Row]:
    for precision, makers in CONTENDERS.items():
        for shape in SHAPES:
            weights = weights_of(shape)
            for batch in BATCHES:
                x = np.random.default_rng(2).standard_normal((batch, shape[0])).astype(np.float32)
                contenders = _made(makers, weights, x)
                if "ours" not in contenders or len(contenders) < 2:
                    continue
                yield from _measured(precision, shape, batch, contenders, exact(weights, x))


def _made(makers: dict[str, Maker], weights: Weights, x: Float32) -> dict[str, Contender]:
    found = {}
    for name, make in makers.items():
        try:
            with _quiet():
                found[name] = make(weights, x)
        except ImportError:
            continue
    return found


def _measured(
    precision: str,
    shape: tuple[int, ...],
    batch: int,
    contenders: dict[str, Contender],
    truth: NDArray[np.float64],
) -> Iterator[Row]:
    for what in ("predict", "bind") if batch == 1 else ("predict",):
        calls = {name: c.calls[what] for name, c in contenders.items() if what in c.calls}
        if len(calls) < 2:
            continue
        errors = {name: float(np.abs(contenders[name].answer(what) - truth).max()) for name in calls}
        for name, error in errors.items():
            if error > WITHIN:
                raise RuntimeError(f"{name}, {precision}, {shape}, batch {batch}: {error} from float64")
        samples = seconds_per_call(calls, rounds=11, clock=time.process_time)
        bar = BARS.get((precision, what), {}).get(shape, {}).get(batch)
        made = row(
            f"{'-'.join(map(str, shape))} {precision}, batch {batch}, {what}", samples, "ours", bar=bar
        )
        made.extra = {f"error {name}": error for name, error in errors.items()}
        made.extra |= {f"best {name}": min(figures) * 1e6 for name, figures in samples.items()}
        yield made


class _quiet:  # noqa: N801 - used as a function
    """Send what libraries print in C while they load to nowhere."""

    def __enter__(self) -> None:
        sys.stdout.flush()
        self.kept = os.dup(1), os.dup(2)
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        os.close(nowhere)

    def __exit__(self, *_: object) -> None:
        for to, descriptor in enumerate(self.kept, 1):
            os.dup2(descriptor, to)
            os.close(descriptor)


def _table(title: str, measured: list[Row]) -> str:
    """Return a Markdown table: ratios of medians and of bests, then accuracy, then all figures."""
    lines = [
        f"### {title}",
        "",
        "| what | ours / best peer | of the bests | bar | ours | largest error: ours, best peer | peers |",
        "|---|---|---|---|---|---|---|",
    ]
    for r in measured:
        bar = "" if r.bar is None else f"<= {r.bar:g} {'met' if r.ratio <= r.bar else '**missed**'}"
        peers = ", ".join(
            f"{name} {value:.3g}" for name, value in sorted(r.peers.items(), key=lambda p: p[1])
        )
        best = r.extra["best ours"] / min(r.extra[f"best {name}"] for name in r.peers)
        errors = f"{r.extra['error ours']:.0e}, {r.extra[f'error {r.best_peer}']:.0e}"
        lines.append(
            f"| {r.what} | **{r.ratio:.2f}x** | {best:.2f}x | {bar} | {r.ours:.3g} {r.unit} | {errors} | {peers} |"
        )
    return "\n".join([*lines, ""])


def run() -> str:
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        measured = list(rows())
    peers = versions("numpy", "onnxruntime", "ai-edge-litert", "openvino", "ncnn", "MNN", "torch")
    light = list(footprint())
    write_results("dense", "", measured + light, peers)
    title = f"Dense networks, one thread, from Python ({', '.join(f'{n} {v}' for n, v in peers.items())})"
    return "\n".join([_table(title, measured), table("A small network in a fresh process", light)])


if __name__ == "__main__":
    print(run())
