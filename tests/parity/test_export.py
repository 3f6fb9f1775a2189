"""What is exported computes the same: the C header has the bits of the generic kernels, on this machine and on an
emulated Cortex-M4; ONNX Runtime is within 1e-5.
"""

import json
import re
import shutil
import subprocess
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
from numpy.typing import NDArray

from mariana.errors import InvalidInputError
from mariana.exchange.to_c import header, identifier
from mariana.exchange.to_onnx import to_onnx
from mariana.format import (
    ActivationName,
    BooleanFeature,
    CategoricalFeature,
    DenseLayer,
    Feature,
    ModelFile,
    ModelMetadata,
    NumericFeature,
    TargetScaling,
    read_model,
    to_bytes,
)
from mariana.model import Model
from mariana.quantize import quantize

ACTIVATIONS = get_args(ActivationName)
STRICT = ("-std=c99", "-Wall", "-Wextra", "-pedantic", "-Werror")
COMPILERS = {
    "gcc": (*STRICT, "-O2"),
    "gcc for this machine, GNU mode": ("-std=gnu11", "-Wall", "-Wextra", "-Werror", "-O3", "-march=native"),
    "clang": (*STRICT, "-O2"),
}
CLANG = next((c for c in ("clang", *(f"clang-{n}" for n in range(20, 13, -1))) if shutil.which(c)), None)
M4 = ("-mcpu=cortex-m4", "-mthumb", "-mfpu=fpv4-sp-d16", "-mfloat-abi=hard", "-Os", "-ffreestanding")
HOST = """
#include <stdio.h>
#include "net.h"
int main(void) {
    float row[NET_COLUMNS], out[NET_OUTPUTS];
    while (fread(row, sizeof row, 1, stdin) == 1) {
        net_predict(row, out);
        fwrite(out, sizeof out, 1, stdout);
    }
    return 0;
}
"""
# A vector table, the FPU switched on, and semihosting (Arm IHI 0092): what a board's start-up code would do.
BOARD = """
#include "net.h"
static const uint32_t rows[][NET_COLUMNS] = {ROWS};
static float row[NET_COLUMNS], out[NET_OUTPUTS];
void start(void);
static int host(int operation, const void *arguments) {
    register int r0 __asm__("r0") = operation;
    register const void *r1 __asm__("r1") = arguments;
    __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
}
void start(void) {
    *(volatile uint32_t *)0xE000ED88 |= 0xFU << 20;
    __asm__ volatile("dsb\\nisb");
    uint32_t open[3] = {(uint32_t)":tt", 4, 3};
    uint32_t write[3] = {(uint32_t)host(1, open), (uint32_t)out, sizeof out};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        for (size_t c = 0; c < NET_COLUMNS; c++)
            row[c] = mariana_float(rows[i][c]);
        net_predict(row, out);
        host(5, write);
    }
    host(0x18, (void *)0x20026);
}
__attribute__((section(".vectors"), used)) static const struct {
    uint32_t stack;
    void (*reset)(void);
} vectors = {0x20020000, start};
"""
LINKER = """
SECTIONS {
    . = 0;
    .text : { *(.vectors) *(.text*) *(.rodata*) }
    . = 0x20000000;
    .bss : { *(.data*) *(.bss*) *(COMMON) }
}
"""


def network(
    features: list[Feature],
    widths: list[int],
    activations: list[str],
    *,
    seed: int = 0,
    scaled: bool = False,
    use_bias: bool = True,
) -> ModelFile:
    random = np.random.default_rng(seed)
    inputs = [sum(f.width for f in features), *widths]
    layers = tuple(
        DenseLayer(
            name=f"dense_{i}",
            inputs=a,
            units=b,
            activation=activation,
            use_bias=use_bias,
            slope=0.3 if activation in {"leaky_relu", "elu"} and seed % 2 else None,
        )
        for i, ((a, b), activation) in enumerate(zip(pairwise(inputs), activations, strict=True))
    )
    classes = activations[-1] == "softmax" and widths[-1] > 1
    scaling = TargetScaling(shift=tuple(random.normal(size=widths[-1])), scale=(2.5,) * widths[-1])
    metadata = ModelMetadata(
        task="classification" if classes else "regression",
        features=tuple(features),
        input_shape=(len(features),),
        layers=layers,
        labels=tuple(f'"{i}?\\{"é" * i}' for i in range(widths[-1])) if classes else (),
        target_scaling=scaling if scaled and not classes else None,
    )
    return ModelFile(
        metadata,
        {
            name: (random.normal(size=shape) / np.sqrt(shape[0])).astype(np.float32)
            for name, shape in metadata.tensor_shapes().items()
        },
    )


def rows_for(file: ModelFile, count: int = 200, seed: int = 1) -> NDArray[np.float32]:
    random = np.random.default_rng(seed)
    x = (random.normal(size=(count, file.metadata.columns)) * 3).astype(np.float32)
    for i, feature in enumerate(file.metadata.features):
        if feature.kind == "categorical":
            x[:, i] = random.integers(-1, len(feature.categories) + 1, count)
        elif feature.kind == "boolean":
            x[:, i] = random.integers(0, 2, count)
        if feature.fill is not None:
            x[random.random(count) < 0.2, i] = np.nan
    x[0], x[1], x[2] = 0, 1e30, -1e-40
    return x


def int8(file: ModelFile) -> ModelFile:
    return quantize(file, "int8", source_sha256="0" * 64)


def same_bits(a: NDArray[np.float32], b: NDArray[np.float32]) -> None:
    wrong = (a.view(np.uint32) != b.view(np.uint32)) & ~(np.isnan(a) & np.isnan(b))
    assert not wrong.any(), (
        f"{wrong.sum()} of {wrong.size} differ, the first: {a[wrong][0]!r} and {b[wrong][0]!r}"
    )


def compiled(folder: Path, file: ModelFile, program: str, command: list[str]) -> Path:
    (folder / "net.h").write_text(header(file, "net"))
    (folder / "main.c").write_text(program)
    done = subprocess.run(
        [*command, "main.c", "-o", "main"], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[:4000]
    return folder / "main"


def host_run(folder: Path, file: ModelFile, x: NDArray[np.float32], compiler: str) -> NDArray[np.float32]:
    program = CLANG if compiler == "clang" else compiler.partition(" ")[0]
    if program is None or shutil.which(program) is None:
        pytest.skip(f"{compiler} is not here")
    main = compiled(folder, file, HOST, [program, *COMPILERS[compiler]])
    out = subprocess.run([str(main)], input=x.tobytes(), capture_output=True, check=True).stdout
    return np.frombuffer(out, np.float32).reshape(-1, file.metadata.outputs)


NUMBERS = st.builds(
    lambda fill, shift, scale, soft, knots, indicator: {
        "fill": fill, "shift": shift, "scale": scale, "soft": soft, "knots": knots, "indicator": indicator,
    },
    st.sampled_from([None, 0.5]),
    st.sampled_from([0.0, 1.25]),
    st.sampled_from([1.0, 0.3]),
    st.booleans(),
    st.sampled_from([(), (-1.0, 0.0, 2.0)]),
    st.booleans(),
)  # fmt: skip


@st.composite
def networks(draw: st.DrawFn) -> ModelFile:
    features: list[Any] = []
    for i in range(draw(st.integers(1, 5))):
        kind = draw(st.sampled_from(["plain", "numeric", "boolean", "categorical"]))
        name = f"f{i} */ \\ ü"
        if kind == "numeric":
            features.append(NumericFeature(name=name, **draw(NUMBERS)))
        elif kind == "boolean":
            features.append(BooleanFeature(name=name, shift=0.5, scale=2.0))
        elif kind == "categorical":
            fill = draw(st.sampled_from([None, "b"]))
            features.append(CategoricalFeature(name=name, categories=("a", "b", "c"), fill=fill))
        else:
            features.append(NumericFeature(name=name))
    widths = draw(st.lists(st.integers(1, 40), min_size=1, max_size=4))
    hidden = st.sampled_from([name for name in ACTIVATIONS if name != "softmax"])
    activations = [draw(hidden) for _ in widths[1:]] + [draw(st.sampled_from(ACTIVATIONS))]
    scaled, use_bias = draw(st.booleans()), draw(st.booleans())
    return network(
        features, widths, activations, seed=draw(st.integers(0, 99)), scaled=scaled, use_bias=use_bias
    )


@hypothesis.settings(
    max_examples=8, suppress_health_check=list(hypothesis.HealthCheck), phases=[hypothesis.Phase.generate]
)
@hypothesis.given(file=networks(), compiler=st.sampled_from(list(COMPILERS)))
def test_same_bits_as_generic(
    tmp_path_factory: pytest.TempPathFactory, file: ModelFile, compiler: str
) -> None:
    x = rows_for(file)
    y = host_run(tmp_path_factory.mktemp("c"), file, x, compiler)
    same_bits(y, Model(file, isa="generic").predict(x))


def everything() -> ModelFile:
    """A network with every activation and every way to encode a column."""
    features: list[Feature] = [
        NumericFeature(name="x", fill=0.5, shift=1, scale=2, soft=True, knots=(-1, 0, 2), indicator=True),
        BooleanFeature(name="b", fill=True),
        CategoricalFeature(name="c", categories=("a", "b", "c"), fill="b"),
    ]
    hidden = [name for name in ACTIVATIONS if name != "softmax"]
    return network(features, [8] * len(hidden) + [5], [*hidden, "softmax"])


PRECISIONS = {"float32": everything, "int8": lambda: int8(everything())}


@pytest.mark.parametrize("compiler", COMPILERS)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_activation_and_encoding(tmp_path: Path, compiler: str, precision: str) -> None:
    file = PRECISIONS[precision]()
    x = rows_for(file)
    same_bits(host_run(tmp_path, file, x, compiler), Model(file, isa="generic").predict(x))


def m4(folder: Path, file: ModelFile, program: str, *arguments: str) -> Path:
    if shutil.which("arm-none-eabi-gcc") is None:
        pytest.skip("arm-none-eabi-gcc is not here")
    command = ["arm-none-eabi-gcc", "-std=c99", "-Wall", "-Wextra", "-Werror", *M4, *arguments]
    return compiled(folder, file, program, command)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_code_and_stack_on_a_cortex_m4(tmp_path: Path, precision: str) -> None:
    """Code of the largest core there can be: 4 KB; stack: 256 bytes along the deepest calls; no symbol from outside."""
    file = PRECISIONS[precision]()
    program = '#include "net.h"\nvoid run(const float *row, float *out);\n'
    program += "void run(const float *row, float *out) { net_predict(row, out); }\n"
    made = m4(tmp_path, file, program, "-pedantic", "-fstack-usage", "-c")
    sizes = subprocess.run(
        ["arm-none-eabi-size", "-A", str(made)], capture_output=True, text=True, check=True
    ).stdout
    text = sum(int(n) for n in re.findall(r"^\.text\S*\s+(\d+)", sizes, re.MULTILINE))
    (usage,) = tmp_path.glob("*.su")
    frames = [line.split("\t")[1:] for line in usage.read_text().splitlines()]
    assert all(kind == "static" for _, kind in frames)
    assert sum(int(frame) for frame, _ in frames) <= 256, frames  # as if each function called the next one
    assert text <= 4096, text
    names = subprocess.run(
        ["arm-none-eabi-nm", "-u", str(made)], capture_output=True, text=True, check=True
    ).stdout
    assert not re.findall(r"U (\w+)", names)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_same_bits_on_an_emulated_cortex_m4(tmp_path: Path, precision: str) -> None:
    file = PRECISIONS[precision]()
    x = rows_for(file, count=40)
    listed = ", ".join("{" + ", ".join(f"{int(b)}U" for b in row) + "}" for row in x.view(np.uint32))
    (tmp_path / "board.ld").write_text(LINKER)
    program = BOARD.replace("ROWS", listed)
    main = m4(tmp_path, file, program, "-nostdlib", "-nostartfiles", "-T", "board.ld")
    if shutil.which("qemu-system-arm") is None:
        pytest.skip("qemu-system-arm is not here")
    command = "qemu-system-arm -M mps2-an386 -display none -monitor none -serial none -semihosting-config"
    emulator = [*command.split(), "enable=on,target=native", "-kernel", str(main)]
    out = subprocess.run(emulator, capture_output=True, timeout=60, check=True).stdout
    y = np.frombuffer(out, np.float32).reshape(-1, file.metadata.outputs)
    same_bits(y, Model(file, isa="generic").predict(x))


def test_two_models_in_one_program(tmp_path: Path) -> None:
    a, b = (
        network([NumericFeature(name="x")], [3], ["softmax"]),
        network([NumericFeature(name="x")], [2], ["gelu"]),
    )
    (tmp_path / "a.h").write_text(header(a, "a"))
    (tmp_path / "b.h").write_text(header(b, "b"))
    (tmp_path / "main.c").write_text(
        '#include "a.h"\n#include "b.h"\n#include "a.h"\n'
        "int main(void) { float row[1] = {1}, out[3]; a_predict(row, out); b_predict(row, out);"
        " return (int)a_class(out) + A_LABELS[0][0] < 0; }\n"
    )
    done = subprocess.run(
        ["gcc", *STRICT, "main.c", "-o", "main"], cwd=tmp_path, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert subprocess.run([str(tmp_path / "main")], check=False).returncode == 0


def test_labels_reach_c_unchanged(tmp_path: Path) -> None:
    file = network([NumericFeature(name="x")], [4], ["softmax"])
    main = compiled(
        tmp_path,
        file,
        '#include <stdio.h>\n#include "net.h"\n'
        "int main(void) { for (int i = 0; i < NET_OUTPUTS; i++) puts(NET_LABELS[i]); return 0; }\n",
        ["gcc", *STRICT],
    )
    out = subprocess.run([str(main)], capture_output=True, check=True).stdout.decode()
    assert out.splitlines() == list(file.metadata.labels)


def test_the_header_comes_from_the_file_alone(tmp_path: Path) -> None:
    file = everything()
    path = tmp_path / "model.safetensors"
    path.write_bytes(to_bytes(file.metadata, file.tensors))
    assert header(read_model(path), "net") == header(file, "net")


@pytest.mark.parametrize(
    ("stem", "name"),
    [
        ("iris", "iris"),
        ("My Net-2", "my_net_2"),
        ("2nd", "model_2nd"),
        ("mariana", "model_mariana"),
        ("ü", "model"),
    ],
)
def test_identifiers(stem: str, name: str) -> None:
    assert identifier(stem) == name


@pytest.mark.parametrize("name", ["", "2nd", "a b", "A", "mariana_exp", "a" * 65])
def test_names_that_c_cannot_have(name: str) -> None:
    with pytest.raises(InvalidInputError, match="cannot begin names in C"):
        header(everything(), name)


def onnx_run(file: ModelFile, x: NDArray[np.float32]) -> NDArray[np.float32]:
    onnxruntime = pytest.importorskip("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(to_onnx(file), options, providers=["CPUExecutionProvider"])
    found: NDArray[np.float32] = session.run(["y"], {"x": x})[0]
    return found


def nearly(found: NDArray[np.float32], promised: NDArray[np.float32]) -> None:
    np.testing.assert_allclose(found, promised, rtol=1e-5, atol=1e-5)


@hypothesis.settings(max_examples=40, suppress_health_check=list(hypothesis.HealthCheck))
@hypothesis.given(file=networks())
def test_onnx_runtime_agrees(file: ModelFile) -> None:
    x = rows_for(file)[3:]  # without 1e30: far out, each library has its own rounding
    nearly(onnx_run(file, x), Model(file).predict(x))


def test_onnx_of_every_activation_and_encoding() -> None:
    file = everything()
    x = rows_for(file)[3:]
    nearly(onnx_run(file, x), Model(file).predict(x))
    assert to_onnx(file) == to_onnx(file), "the same model gives the same bytes"


def test_onnx_by_the_reference_evaluator_and_with_names() -> None:
    onnx = pytest.importorskip("onnx")
    reference = pytest.importorskip("onnx.reference")
    file = network([NumericFeature(name="length", fill=1, shift=1, scale=2)], [4, 3], ["silu", "softmax"])
    x = rows_for(file)[3:]
    proto = onnx.load_from_string(to_onnx(file))
    (y,) = reference.ReferenceEvaluator(proto).run(None, {"x": x})
    nearly(y, Model(file).predict(x))
    names = {entry.key: json.loads(entry.value) for entry in proto.metadata_props}
    assert names["features"] == ["length"]
    assert names["labels"] == list(file.metadata.labels)
    assert names["task"] == "classification"
