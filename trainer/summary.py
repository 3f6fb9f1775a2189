"""What a network looks like: a table of its layers, as people know it from Keras."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .network import Network


def print_summary(net: Network, print_fn: Callable[[str], object]) -> None:
    """Print a table of the layers: output shape, parameters, bytes; ``?`` is not known before the network is built."""
    table = [("layer", "output shape", "activation", "params", "bytes")]
    for layer in net.layers:
        size = (f"{layer.count:,}", f"{layer.count * net.dtype.itemsize:,}") if net.built else ("?", "?")
        name = f"{layer.name or layer.kind} ({type(layer).__name__})"
        table.append((name, f"(None, {layer.units or '?'})", layer.activation.name, *size))
    widths = [max(len(row[i]) for row in table) for i in range(5)]
    for number, row in enumerate(table):
        cells = [
            cell.ljust(w) if i < 3 else cell.rjust(w)
            for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ]
        print_fn("  ".join(cells))
        if not number:
            print_fn("  ".join("-" * w for w in widths))
    if not net.built:
        print_fn("total: ? parameters; the network is built when it first sees data")
        return
    count = net.parameters.size + net.state.size
    kept = f", {net.state.size:,} of them not learned" if net.state.size else ""
    print_fn(
        f"total: {count:,} parameters{kept}, {count * net.dtype.itemsize:,} bytes ({net.dtype}), "
        f"input {net.input_shape}"
    )
