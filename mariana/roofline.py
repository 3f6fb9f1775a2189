"""The dense kernels beside the limits of this machine, measured in the same minute.

A call cannot be faster than its multiply-adds at the peak of the instructions that it uses, nor than its weights can be
read from where they fit (Williams, Waterman, Patterson 2009, "Roofline"). On a shared machine, whose speed swings, that
share is the one figure that stays. Times are CPU times of the thread: who else wants the core does not count.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import thread_time

import numpy as np

from mariana._binding import roofs as binding
from mariana.format import DenseLayer, ModelFile, ModelMetadata, NumericFeature
from mariana.model import Model
from mariana.quantize import quantize

SHAPES = ((4, 16, 16, 3), (64, 64, 32, 10), (784, 256, 128, 10), (784, 1024, 1024, 10))
BATCHES = (1, 8, 64, 512)
PRECISIONS = ("float32", "float32-split", "bfloat16", "int8")
_BYTES = {"float32": 4, "float32-split": 6, "bfloat16": 2, "int8": 1}
_ROUNDS = 7

_FLOATS = {
    "generic": "generic multiply and add float32",
    "avx2": "avx2 fma float32",
    "neon": "neon fma float32",
    "neondot": "neon fma float32",
}
_PEAKS = {
    ("bfloat16", "avx512bf16"): ("avx512bf16 dot bfloat16", 1),
    ("bfloat16", "amx"): ("amx tile bfloat16", 1),
    ("float32-split", "amx"): ("amx tile bfloat16", 6),
    ("int8", "generic"): ("generic pairs int8", 1),
    ("int8", "avx2"): ("avx2 pairs int8", 1),
    ("int8", "avx512"): ("avx512 pairs int8", 1),
    ("int8", "neon"): ("neon pairs int8", 1),
    ("int8", "avx512vnni"): ("avx512vnni dot int8", 1),
    ("int8", "avx512bf16"): ("avx512vnni dot int8", 1),
    ("int8", "amx"): ("amx tile int8", 1),
    ("bfloat16", "neon"): ("neon fma float32", 1),
    ("bfloat16", "neondot"): ("neon fma float32", 1),
    ("int8", "neondot"): ("neondot dot int8", 1),
}
"""The roof of a precision on an instruction set, and how many of its operations one of ours takes."""


@dataclass(frozen=True, slots=True)
class Roof:
    """A limit.

    Attributes:
        name: of the instructions, or of the memory that is read.
        unit: GFLOP/s, GOP/s or GB/s.
        best: of all rounds, in that unit.
        median: of all rounds.
        level: bytes up to which this memory holds weights; 0 for instructions.
    """

    name: str
    unit: str
    best: float
    median: float
    level: int = 0


@dataclass(frozen=True, slots=True)
class Row:
    """One network, batch, precision and instruction set.

    Attributes:
        shape: widths, from the inputs to the outputs.
        batch: rows of a call.
        precision: as the file has it.
        isa: the instruction set in use.
        best: seconds of a call, arrays bound before.
        median: the same.
        rate: 1e9 multiplications and additions a second, at the best.
        bound: what limits it: the name of a roof; empty where none was measured.
        share: of that limit; 1 is the roof.
    """

    shape: tuple[int, ...]
    batch: int
    precision: str
    isa: str
    best: float
    median: float
    rate: float
    bound: str
    share: float | None


def roofs(seconds: float = 0.02) -> Iterator[Roof]:
    """Measure the limits of one core.

    Args:
        seconds: that a round of one of them takes, about.
    """
    for number, name in enumerate(binding.roof_names()):
        if not binding.roof_usable(number):
            continue
        repeats = 1000
        while (elapsed := _time(partial(binding.operations_per_second, number, repeats), 1)) < seconds / 2:
            repeats = int(repeats * min(16, max(2, seconds / max(elapsed, 1e-9))))
        rates = [binding.operations_per_second(number, repeats) / 1e9 for _ in range(_ROUNDS)]
        unit = "GOP/s" if name.endswith("int8") else "GFLOP/s"
        yield Roof(name, unit, max(rates), statistics.median(rates))
    caches = cache_sizes()
    sizes = [caches[0] // 2, caches[1] // 2, min(caches[2] // 2, 16 << 20), max(2 * caches[2], 128 << 20)]
    for name, size, level in zip(("L1", "L2", "L3", "memory"), sizes, (*caches, 1 << 62), strict=True):
        memory = binding.Reads(max(4096, size // 4096 * 4096))
        repeats = max(1, int(seconds * 50e9 / memory.size))
        memory.bytes_per_second(1)
        rates = [memory.bytes_per_second(repeats) / 1e9 for _ in range(_ROUNDS)]
        yield Roof(f"read {name}", "GB/s", max(rates), statistics.median(rates), level)


def best_of(*measured: Iterable[Roof]) -> list[Roof]:
    """Return the best of several measurements of the same roofs: what slowed one down is no limit."""
    found: dict[str, Roof] = {}
    for roof in itertools.chain(*measured):
        if roof.name not in found or roof.best > found[roof.name].best:
            found[roof.name] = roof
    return list(found.values())


def measure(
    roofs: Iterable[Roof],
    *,
    shapes: Sequence[tuple[int, ...]] = SHAPES,
    batches: Sequence[int] = BATCHES,
    precisions: Sequence[str] = PRECISIONS,
    isas: Sequence[str | None] = (None,),
    seconds: float = 0.01,
) -> Iterator[Row]:
    """Measure the kernels, one thread, arrays bound before.

    Args:
        roofs: of this machine, of :func:`roofs`.
        shapes: widths of each network, from the inputs to the outputs; ReLU inside, softmax at the end.
        batches: rows of a call.
        precisions: of the weights.
        isas: highest instruction sets to use; None: the best there is.
        seconds: that a round takes, about.
    """
    known = {roof.name: roof for roof in roofs}
    for shape in shapes:
        plain = network(shape)
        for precision in precisions:
            is_float = precision.startswith("float32")
            file = plain if is_float else quantize(plain, precision, source_sha256="0" * 64)  # type: ignore[arg-type]
            for isa in isas:
                model = Model(file, isa=isa, threads=1, precision=precision if is_float else None)
                if model.precision != precision:  # float32-split, where this set has no AMX
                    continue
                for batch in batches:
                    x = np.random.default_rng(batch).standard_normal((batch, shape[0])).astype(np.float32)
                    times = _times(model.bind(x, np.empty((batch, shape[-1]), np.float32)), seconds)
                    yield _row(known, model, shape, batch, times)


def network(shape: Sequence[int]) -> ModelFile:
    """Return a classification network with random weights: ReLU inside, softmax at the end."""
    last = len(shape) - 2
    layers = tuple(
        DenseLayer(name=f"dense_{i}", inputs=a, units=b, activation="softmax" if i == last else "relu")
        for i, (a, b) in enumerate(itertools.pairwise(shape))
    )
    metadata = ModelMetadata(
        task="classification",
        features=tuple(NumericFeature(name=f"x{i}") for i in range(shape[0])),
        input_shape=(shape[0],),
        layers=layers,
        labels=tuple(range(shape[-1])),
    )
    random = np.random.default_rng(1)
    tensors = {
        name: (random.standard_normal(size) / np.sqrt(size[0])).astype(np.float32)
        for name, size in metadata.tensor_shapes().items()
    }
    return ModelFile(metadata, tensors)


def cache_sizes() -> tuple[int, int, int]:
    """Return the bytes of the data caches that the first core sees, level 1 to 3; common ones where none is told."""
    found = {1: 32 << 10, 2: 1 << 20, 3: 16 << 20}
    for folder in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*"):
        try:
            level, kind, size = ((folder / name).read_text().strip() for name in ("level", "type", "size"))
            if kind != "Instruction" and size.endswith("K"):
                found[int(level)] = int(size[:-1]) << 10
        except (OSError, ValueError):
            continue
    return found[1], found[2], max(found[3], found[2])


def _row(known: dict[str, Roof], model: Model, shape: tuple[int, ...], batch: int, times: list[float]) -> Row:
    weights = sum(a * b for a, b in itertools.pairwise(shape))
    operations = 2 * weights * batch
    limits = {}
    name, cost = _PEAKS.get((model.precision, model.isa), ("", 1))
    if not name and model.precision != "int8":
        name = _FLOATS.get(model.isa, "avx512 fma float32")
    if name in known:
        limits[name] = operations * cost / (known[name].best * 1e9)
    size = weights * _BYTES.get(model.precision, 4)
    memory = min(
        (roof for roof in known.values() if roof.level >= size), key=lambda roof: roof.level, default=None
    )
    if memory is not None and limits:
        limits[memory.name] = size / (memory.best * 1e9)
    best = min(times)
    bound = max(limits, key=lambda key: limits[key], default="")
    return Row(
        shape, batch, model.precision, model.isa, best, statistics.median(times), operations / best / 1e9,
        bound, limits[bound] / best if bound else None,
    )  # fmt: skip


def _times(call: Callable[[], object], seconds: float) -> list[float]:
    """Return the seconds of a call, one figure a round."""
    call()
    count = 1
    while (elapsed := _time(call, count)) < seconds / 4:
        count *= 4
    count = max(1, int(count * seconds / elapsed))
    return [_time(call, count) / count for _ in range(_ROUNDS)]


def _time(call: Callable[[], object], count: int) -> float:
    loop = range(count)
    start = thread_time()
    for _ in loop:
        call()
    return thread_time() - start
