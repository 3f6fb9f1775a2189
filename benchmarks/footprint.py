"""What a small network costs a fresh process: milliseconds of CPU until it is loaded, and memory.

``python -m benchmarks.footprint NAME FOLDER`` is one such process; it prints milliseconds and KiB. It imports next to
nothing before the clock starts, so that nobody finds a module there already that he needs.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.harness import Row

SHAPE = (64, 64, 32, 10)
ROUNDS = 5


def footprint() -> Iterator[Row]:
    """Yield rows of import and load, and of resident memory beyond that of a process with NumPy alone."""
    import compileall
    import statistics
    import subprocess
    import tempfile

    import mariana
    from benchmarks.harness import Row

    # pip compiles what it installs; of a folder that is worked in, every import may compile anew
    compileall.compile_dir(Path(mariana.__file__).parent, quiet=1)
    times: dict[str, list[float]] = {}
    memory: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        _write(Path(folder))
        for _ in range(ROUNDS):
            for name in LOADERS:
                command = [sys.executable, "-m", "benchmarks.footprint", name, folder]
                done = subprocess.run(command, capture_output=True, text=True, check=False)
                if done.returncode == 0:
                    ms, kib = map(float, done.stdout.split()[-2:])
                    times.setdefault(name, []).append(ms)
                    memory.setdefault(name, []).append(kib / 1024)
    label = "-".join(map(str, SHAPE))
    took = {name: statistics.median(figures) for name, figures in times.items()}
    bare = statistics.median(memory.pop("NumPy alone"))
    took.pop("NumPy alone")
    used = {name: statistics.median(figures) - bare for name, figures in memory.items()}
    yield Row(
        f"{label}: import and load, NumPy imported before",
        "ms",
        took.pop("ours"),
        took,
        extra={"bar ms": 3.0},
    )
    yield Row(f"{label}: memory beyond NumPy", "MiB", used.pop("ours"), used, extra={"bar MiB": 3.0})


def _write(folder: Path) -> None:
    """Write the network in each library's format."""
    from benchmarks.dense import weights_of
    from benchmarks.peers.litert import tflite_model
    from mariana.exchange.to_onnx import to_onnx
    from mariana.format import to_bytes
    from mariana.roofline import network

    net = network(SHAPE)
    (folder / "net.safetensors").write_bytes(to_bytes(net.metadata, net.tensors))
    (folder / "net.onnx").write_bytes(to_onnx(net))
    (folder / "net.tflite").write_bytes(tflite_model(weights_of(SHAPE), 1))


def _ours(folder: Path) -> object:
    import mariana

    return mariana.load_model(folder / "net.safetensors")


def _onnx_runtime(folder: Path) -> object:
    import onnxruntime

    return onnxruntime.InferenceSession(str(folder / "net.onnx"), providers=["CPUExecutionProvider"])


def _litert(folder: Path) -> object:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(folder / "net.tflite"), num_threads=1)
    interpreter.allocate_tensors()
    return interpreter


def _openvino(folder: Path) -> object:
    import openvino

    core = openvino.Core()
    return core.compile_model(core.read_model(str(folder / "net.onnx")), "CPU")


LOADERS: dict[str, Callable[[Path], object]] = {
    "NumPy alone": lambda folder: folder,
    "ours": _ours,
    "ONNX Runtime": _onnx_runtime,
    "LiteRT": _litert,
    "OpenVINO": _openvino,
}


def main(name: str, folder: str) -> None:
    np.ones(1)
    start = time.process_time()
    alive = LOADERS[name](Path(folder))
    ms = (time.process_time() - start) * 1000
    status = Path("/proc/self/status").read_text(encoding="ascii")
    (kib,) = (line.split()[1] for line in status.splitlines() if line.startswith("VmRSS"))
    del alive
    print(ms, kib)


if __name__ == "__main__":
    main(*sys.argv[1:])
