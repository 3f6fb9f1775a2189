"""Write ``pytorch-*.onnx`` and ``pytorch.npz``: a network as PyTorch exports it, and what PyTorch says of some rows.

They stand in the repository so that the import is tested where PyTorch is not installed. To make them again:
``pip install torch onnxscript && python tests/parity/golden/make_pytorch.py``.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import nn

HERE = Path(__file__).parent
OPSETS = (11, 17, 20)
BATCH = 16


def network() -> tuple[Any, Any]:
    """Return a network with every layer that the import knows, its batch norms used, and rows for it."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Flatten(),
        nn.Linear(6, 8),
        nn.BatchNorm1d(8),
        nn.GELU(),
        nn.Dropout(0.5),
        nn.Linear(8, 5),
        nn.SiLU(),
        nn.Linear(5, 6, bias=False),
        nn.GELU("tanh"),
        nn.BatchNorm1d(6),
        nn.Linear(6, 5),
        nn.PReLU(5),
        nn.Linear(5, 5),
        nn.ELU(0.7),
        nn.Linear(5, 5),
        nn.LeakyReLU(0.1),
        nn.Linear(5, 5),
        nn.SELU(),
        nn.Linear(5, 5),
        nn.Softplus(),
        nn.Linear(5, 5),
        nn.Tanh(),
        nn.Linear(5, 5),
        nn.ReLU(),
        nn.Linear(5, 3),
        nn.Softmax(-1),
    )
    net[11].weight.data = torch.linspace(0.1, 0.5, 5)
    net(torch.randn(64, 2, 3))  # running statistics
    return net.eval(), torch.randn(BATCH, 2, 3)


def torchscript(net: Any, x: Any, file: Any, opset: int) -> None:
    """Export by tracing, as PyTorch did before 2.9."""
    axes = {"x": {0: "batch"}}
    torch.onnx.export(
        net, (x,), file, input_names=["x"], dynamic_axes=axes, dynamo=False, opset_version=opset
    )


def dynamo(net: Any, x: Any, path: Path, *, beside: bool = False) -> None:
    """Export as PyTorch does since."""
    shapes = ({0: torch.export.Dim("batch")},)
    torch.onnx.export(
        net, (x,), path, dynamo=True, dynamic_shapes=shapes, external_data=beside, verbose=False
    )


if __name__ == "__main__":
    net, x = network()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        for opset in OPSETS:
            torchscript(net, x, HERE / f"pytorch-torchscript-{opset}.onnx", opset)
        dynamo(net, x, HERE / "pytorch-dynamo.onnx")
        exported = onnx.load(HERE / "pytorch-dynamo.onnx")
        for node in exported.graph.node:
            del node.metadata_props[:]  # where in PyTorch's sources each was made
        onnx.save(exported, HERE / "pytorch-dynamo.onnx")
        np.savez(HERE / "pytorch.npz", x=x.numpy(), y=net(x).numpy())
