"""A model as one C99 header: weights as constants, the generic kernels' arithmetic, no libc, nothing allocated.

The arithmetic is not written here: :func:`header` copies ``csrc/embedded/core.h`` with the activation template that
every instruction set shares, so that a microcontroller gives the bits that ``MARIANA_ISA=generic`` gives here.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib import resources

import numpy as np
from numpy.typing import NDArray

from mariana import __version__
from mariana.errors import InvalidInputError
from mariana.format import (
    CategoricalFeature,
    DenseLayer,
    Feature,
    ModelFile,
    ModelMetadata,
    slopes_of,
    tables_of,
)

STRIP = 16
"""Units to which a softmax row is padded, as in csrc/kernels.h: the order of its sum depends on it."""

_ENCODING = ("categories", "copies", "forms", "fill", "shift", "scale")
_TYPES = {"categories": "uint32_t", "copies": "uint16_t", "forms": "uint8_t"}
_INCLUDE = '#include "../activation_template.h"\n'
_ACTIVATION = re.compile(r"^MRN_ACTIVATION\((\d+), (\w+), ([^,]+), (\w+)(?:, (\d))?\)$", re.MULTILINE)


_NO_FUSING = """\
/* A multiplication and an addition stay two roundings, in GNU modes too, and no loop becomes a call of memset. gcc
 * knows no STDC pragma. */
#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#elif defined(__GNUC__)
#pragma GCC push_options
#pragma GCC optimize("fp-contract=off", "no-tree-loop-distribute-patterns")
#endif
"""
_FUSING_AS_BEFORE = """\
#if defined(__clang__)
#pragma STDC FP_CONTRACT DEFAULT
#elif defined(__GNUC__)
#pragma GCC pop_options
#endif
"""


@dataclass(frozen=True, slots=True)
class _Activation:
    """A line of csrc/activations.def."""

    floor: str
    passes: str
    sloped: bool


def header(file: ModelFile, name: str) -> str:
    """Return a C99 header that runs the model: ``NAME_predict(row, out)``.

    Args:
        file: a model file that has been read.
        name: what every name in the header begins with; see :func:`identifier`.

    Raises:
        InvalidInputError: ``name`` is no C identifier.
    """
    if not re.fullmatch(r"(?!mariana)[a-z][a-z0-9_]{0,63}", name):
        raise InvalidInputError(
            f"{name[:64]!r} cannot begin names in C: use a-z, 0-9 and '_', beginning with a letter, "
            "and not with 'mariana'"
        )
    if file.metadata.precision not in {"float32", "int8"}:
        raise InvalidInputError(
            f"{file.metadata.precision} cannot be exported to C; export the float32 version, or int8"
        )
    return "\n".join(
        [
            _opening(file.metadata, name),
            _NO_FUSING,
            _core(),
            _Network(file, name).text(),
            _FUSING_AS_BEFORE,
            f"#endif /* {name.upper()}_H */",
            "",
        ]
    )


def identifier(text: str) -> str:
    """Return a text, such as the stem of a file's name, as the beginning of C identifiers."""
    name = re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")[:64]
    return name if re.match(r"(?!mariana)[a-z]", name) else f"model_{name}".rstrip("_")[:64]


class _Network:
    """Writes the part of a header that is this network's own."""

    def __init__(self, file: ModelFile, name: str) -> None:
        self.info = file.metadata
        self.tensors = file.tensors
        self.name = name
        self.tables = tables_of(self.info).present()
        self.int8 = self.info.precision == "int8"
        self.halves = [0, 0]

    def text(self) -> str:
        calls = list(self._calls())  # first: they say how large the buffers are
        n, upper = self.name, self.name.upper()
        lines = [
            f"enum {{ {upper}_COLUMNS = {self.info.columns}, {upper}_OUTPUTS = {self.info.outputs} }};",
            "",
            *self._labels(),
            *self._constants(),
        ]
        buffers = [f"{n}_memory_{side}[{size}]" for side, size in zip("ab", self.halves, strict=True) if size]
        if self.int8:
            lines.append(f"static uint8_t {n}_cells[{max(layer.inputs for layer in self.info.layers)}];")
        if buffers:
            lines += [f"static float {', '.join(buffers)};", ""]
        lines += [
            f"/* row: {self.info.columns} numbers as listed above. out: {self.info.outputs} {self._meaning()}.",
            " * Uses the static buffers: one call at a time. */",
            f"static MARIANA_MAYBE MARIANA_CALL void {n}_predict(const float *row, float *out) {{",
            *(f"    {call}" for call in calls),
            "}",
            "",
        ]
        if self.info.task == "classification":
            best = f"mariana_argmax(out, {upper}_OUTPUTS)" if self.info.outputs > 1 else "out[0] > 0.5F"
            lines += [
                f"/* The number of the class that `out` says; its label is {upper}_LABELS[number]. */",
                f"static MARIANA_MAYBE size_t {n}_class(const float *out) {{",
                f"    return {best};",
                "}",
                "",
            ]
        return "\n".join(lines)

    def _meaning(self) -> str:
        if self.info.task == "regression":
            return "values"
        return "probability that it is class 1" if self.info.outputs == 1 else "probabilities"

    def _labels(self) -> Iterator[str]:
        if labels := self.info.labels:
            strings = ", ".join(_string(str(label)) for label in labels)
            yield _array(
                "static MARIANA_MAYBE const char *const", f"{self.name.upper()}_LABELS", len(labels), strings
            )
            yield ""

    def _constants(self) -> Iterator[str]:
        for key, table in self.tables.items():
            kind = _TYPES.get(key, "float")
            yield _array(f"static const {kind}", f"{self.name}_{key}", table.size, _numbers(table))
        for i, layer in enumerate(self.info.layers):
            weight = self.tensors[f"{layer.name}.weight"]
            yield f"/* {_comment(layer.name)}: {layer.inputs} x {layer.units}, {layer.activation}; unit by unit */"
            kind = "int8_t" if self.int8 else "float"
            yield _array(f"static const {kind}", f"{self.name}_weight_{i}", weight.size, _numbers(weight.T))
            if self.int8:
                scale, total = self.tensors[f"{layer.name}.weight_scale"], weight.sum(axis=0, dtype=np.int32)
                yield _array(
                    "static const float", f"{self.name}_weight_scale_{i}", scale.size, _numbers(scale)
                )
                yield _array(
                    "static const int32_t", f"{self.name}_weight_sum_{i}", total.size, _numbers(total)
                )
            if layer.use_bias:
                bias = self.tensors[f"{layer.name}.bias"]
                yield _array("static const float", f"{self.name}_bias_{i}", bias.size, _numbers(bias))
            if (slopes := self._slopes(layer)) is not None:
                yield _array("static const float", f"{self.name}_slope_{i}", slopes.size, _numbers(slopes))
        yield ""

    def _calls(self) -> Iterator[str]:
        n, side, x = self.name, 0, "row"
        if self.tables.keys() & set(_ENCODING):
            arguments = ", ".join(self._table(key) for key in _ENCODING)
            x = self._buffer(0, self.info.encoded_columns)
            side = 1
            yield f"mariana_encode(row, {self.info.columns}, {arguments}, {x});"
        for i, layer in enumerate(self.info.layers):
            known = _activations()[layer.activation]
            softmax = known.passes == "softmax"
            last = layer is self.info.layers[-1]
            width = -(-layer.units // STRIP) * STRIP if softmax else layer.units
            y = "out" if last and width == layer.units else self._buffer(side, width)
            floor = known.floor.replace("INFINITY", "MARIANA_INFINITY")
            bias = f"{n}_bias_{i}" if layer.use_bias else "NULL"
            sizes = f"{layer.inputs}, {layer.units}, {floor}"
            if self.int8:
                scales = f"{n}_weight_scale_{i}, {n}_weight_sum_{i}"
                yield f"mariana_dense_s8({n}_weight_{i}, {scales}, {bias}, {x}, {sizes}, {n}_cells, {y});"
            else:
                yield f"mariana_dense({n}_weight_{i}, {bias}, {x}, {sizes}, {y});"
            if width != layer.units:
                yield f"for (size_t i = {layer.units}; i < {width}; i++)"
                yield f"    {y}[i] = -MARIANA_INFINITY;"
            if known.passes != "none":
                slope = f"{n}_slope_{i}" if self._slopes(layer) is not None else "NULL"
                yield f"mariana_pass_{known.passes}({y}, 1, {width}, {slope});"
            x, side = y, 1 - side
        outputs = f"{n.upper()}_OUTPUTS"
        if x != "out":
            yield f"for (size_t i = 0; i < {outputs}; i++)"
            yield f"    out[i] = {x}[i];"
        if self.info.target_scaling is not None:
            yield f"mariana_scale_back(out, {outputs}, {n}_target_scale, {n}_target_shift);"

    def _buffer(self, side: int, floats: int) -> str:
        self.halves[side] = max(self.halves[side], floats)
        return f"{self.name}_memory_{'ab'[side]}"

    def _table(self, key: str) -> str:
        return f"{self.name}_{key}" if key in self.tables else "NULL"

    def _slopes(self, layer: DenseLayer) -> NDArray[np.float32] | None:
        return slopes_of(layer, self.tensors)


@cache
def _activations() -> dict[str, _Activation]:
    found = _ACTIVATION.findall(_source("activations.def"))
    return {name: _Activation(floor, passes, sloped == "1") for _, name, floor, passes, sloped in found}


def _source(path: str) -> str:
    """Return a C source; ``mariana/csrc`` is a link to ``csrc``, of which the wheel holds what is needed here."""
    return (resources.files("mariana") / "csrc" / path).read_text(encoding="utf-8")


def _core() -> str:
    """Return the arithmetic; several exported models in one program share it, if one version exported them."""
    core = _source("embedded/core.h")
    if core.count(_INCLUDE) != 1:
        raise AssertionError(
            "csrc/embedded/core.h must include the activation template once"
        )  # pragma: no cover
    text = core.replace(_INCLUDE, _source("activation_template.h"))
    digest = "0x" + hashlib.sha256(text.encode()).hexdigest()[:8] + "U"
    return "\n".join(
        [
            "#ifndef MARIANA_CORE",
            f"#define MARIANA_CORE {digest}",
            text,
            f"#elif MARIANA_CORE != {digest}",
            '#error "two models exported by different versions of Mariana: export both again"',
            "#endif",
            "",
        ]
    )


def _opening(info: ModelMetadata, name: str) -> str:
    """Return the comment at the top and the include guard."""
    widths = "-".join(str(n) for n in (info.encoded_columns, *(layer.units for layer in info.layers)))
    lines = [
        f"/* {name}: a dense network for {info.task}, {widths}, {info.precision}. Written by Mariana {__version__}.",
        " *",
        f' *     #include "{name}.h"',
        f" *     float row[{name.upper()}_COLUMNS] = {{...}}, out[{name.upper()}_OUTPUTS];",
        f" *     {name}_predict(row, out);",
        " *",
        " * C99; no libc, nothing is allocated, the same bits as Mariana's generic kernels. A row:",
        *(f" *   row[{i}]  {line}" for i, line in enumerate(map(_feature, info.features))),
        " * NaN stands for a missing value. */",
        f"#ifndef {name.upper()}_H",
        f"#define {name.upper()}_H",
        "",
    ]
    return "\n".join(lines)


def _feature(feature: Feature) -> str:
    missing = "" if feature.fill is None else "; may be missing"
    if isinstance(feature, CategoricalFeature):
        pairs = ", ".join(f"{i} {_comment(category)}" for i, category in enumerate(feature.categories))
        return f"{_comment(feature.name)}: {pairs}{missing}"
    kind = "0 or 1" if feature.kind == "boolean" else "a number"
    return f"{_comment(feature.name)}: {kind}{missing}"


def _comment(text: str) -> str:
    """Return a text that cannot end a comment, begin one, or steer a terminal."""
    plain = "".join(c if " " <= c <= "~" and c not in "\\*" else f"<{ord(c):x}>" for c in text)
    return f'"{plain}"'


def _string(text: str) -> str:
    """Return a C string literal of the text's UTF-8; octal escapes cannot run into what follows."""
    safe = (
        chr(b) if 0x20 <= b < 0x7F and chr(b) not in '"\\?' else f"\\{b:03o}"
        for b in text.encode("utf-8", "surrogatepass")
    )
    return f'"{"".join(safe)}"'


def _numbers(array: NDArray[np.generic]) -> str:
    return ", ".join(map(_number, array.ravel()))


def _number(value: np.generic) -> str:
    """Return a constant that every compiler reads as this very float32 or integer."""
    if isinstance(value, np.unsignedinteger):
        return f"{int(value)}U"
    if isinstance(value, np.signedinteger):
        return str(int(value))
    if np.isnan(float(value)):
        return "MARIANA_NAN"
    text = str(value)
    return text + ("F" if "." in text or "e" in text else ".0F")


def _array(kind: str, name: str, count: int, values: str) -> str:
    return f"{kind} {name}[{count}] = {{\n{_wrapped(values.split(', '))}}};"


def _wrapped(words: Iterable[str]) -> str:
    lines, line = [], "   "
    for word in words:
        if len(line) + len(word) > 110:
            lines.append(line)
            line = "   "
        line += f" {word},"
    return "\n".join([*lines, line, ""])
