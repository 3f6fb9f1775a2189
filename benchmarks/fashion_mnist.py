"""Fashion-MNIST with a plain multilayer perceptron: two fixed recipes, the mean of five seeds on the test images.

    python -m benchmarks.fashion_mnist [short|long] [--seeds 5]

The data is Debian's package ``dataset-fashion-mnist`` (Xiao et al., 2017, arXiv 1708.07747; MIT). Nothing was picked on
the test images: the recipes were chosen by 10,000 of the training images held out, then trained on all 60,000, and the
weights of the last epoch are judged, once. This is no part of ``make bench``: it takes minutes to hours.
"""

from __future__ import annotations

import argparse
import gzip
import json
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness import RESULTS, machine, versions
from mariana.trainer import (
    Activation,
    AdamW,
    BatchNormalization,
    CosineDecay,
    Dense,
    Dropout,
    Input,
    RandomFlip,
    Sequential,
    SparseCategoricalCrossentropy,
    WarmUp,
)

FOLDER = Path("/usr/share/datasets/fashion-mnist")
_MEAN, _DEVIATION = 0.2860, 0.3530  # of the training pixels, 0 to 1
_WARM_UP = 300  # steps


@dataclass(frozen=True)
class Recipe:
    units: tuple[int, ...]
    dropout: float
    label_smoothing: float
    epochs: int
    batch_size: int
    learning_rate: float = 1e-3
    weight_decay: float = 0.01


RECIPES = {
    "short": Recipe((256, 128), dropout=0.1, label_smoothing=0.0, epochs=30, batch_size=256),
    "long": Recipe(
        (512, 512),
        dropout=0.4,
        label_smoothing=0.1,
        epochs=60,
        batch_size=256,
        learning_rate=2e-3,
        weight_decay=0.05,
    ),
}


def load(part: str) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return standardised images (rows, 28, 28) and class indices of ``train`` or ``t10k``."""
    if not FOLDER.exists():
        sys.exit(f"{FOLDER} is missing: apt-get install dataset-fashion-mnist")
    images, labels = (
        np.frombuffer(gzip.decompress((FOLDER / f"{part}-{kind}-ubyte.gz").read_bytes()), np.uint8)
        for kind in ("images-idx3", "labels-idx1")
    )
    x = (images[16:].reshape(-1, 28, 28) / np.float32(255) - np.float32(_MEAN)) / np.float32(_DEVIATION)
    return x, labels[8:].astype(np.int64)


def network(recipe: Recipe, rows: int, seed: int) -> Sequential:
    layers = []
    for units in recipe.units:
        layers += [Dense(units, kernel_initializer="he_normal"), BatchNormalization()]
        layers += [Activation("relu"), Dropout(recipe.dropout)]
    net = Sequential([Input((28, 28)), *layers, Dense(10, "softmax")], seed=seed)
    steps = recipe.epochs * -(-rows // recipe.batch_size)
    rate = WarmUp(CosineDecay(recipe.learning_rate, steps - _WARM_UP), _WARM_UP)
    loss = SparseCategoricalCrossentropy(label_smoothing=recipe.label_smoothing)
    net.compile(AdamW(rate, recipe.weight_decay), loss, ["accuracy"])
    return net


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe", choices=RECIPES, nargs="?", default="short")
    parser.add_argument("--seeds", type=int, default=5)
    arguments = parser.parse_args()
    recipe = RECIPES[arguments.recipe]
    x, y = load("train")
    x_test, y_test = load("t10k")
    found: list[float] = []
    seconds: list[float] = []
    for seed in range(arguments.seeds):
        net = network(recipe, len(x), seed)
        begin = time.perf_counter()
        net.fit(x, y, recipe.batch_size, recipe.epochs, augmentations=[RandomFlip()], verbose=2 * (seed == 0))
        seconds.append(time.perf_counter() - begin)
        found.append(100 * net.evaluate(x_test, y_test, return_dict=True)["accuracy"])
        print(f"seed {seed}: {found[-1]:.2f} % after {seconds[-1]:.0f} s", flush=True)
    spread = statistics.stdev(found) if len(found) > 1 else 0.0
    print(f"{arguments.recipe}: {statistics.mean(found):.2f} % +- {spread:.2f}", flush=True)
    RESULTS.mkdir(exist_ok=True)
    document = {
        "machine": machine(),
        "versions": versions("numpy", "mariana-serve"),
        "recipe": arguments.recipe,
        "accuracy": found,
        "mean": statistics.mean(found),
        "deviation": spread,
        "seconds": seconds,
    }
    path = RESULTS / f"fashion_mnist_{arguments.recipe}.json"
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
