"""Real data that ships with Mariana, and loaders for what the machine may have; ``docs/data.md`` tells where it is from.

Each loader returns ``(x, y)``: x (rows, columns) float32 as measured, y (rows,) int64 class indices.
"""

from __future__ import annotations

import csv
import gzip
import math
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mariana.errors import FileFormatError, NotFoundError

Samples = tuple[NDArray[np.float32], NDArray[np.int64]]

BUNDLED = {name: Path(__file__).with_name(name) for name in ("digits.npz", "iris.csv")}
"""The files of the bundled tables, by file name."""

IRIS_FEATURES = ("sepal_length", "sepal_width", "petal_length", "petal_width")
IRIS_LABELS = ("setosa", "versicolor", "virginica")
FASHION_MNIST_LABELS = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
FASHION_MNIST_FOLDER = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package dataset-fashion-mnist puts its files."""


def load_digits() -> Samples:
    """Return the UCI optical digits: 1,797 images of 8x8 as rows of 64 numbers, 0 (white) to 16 (ink); y is the digit."""
    with np.load(BUNDLED["digits.npz"]) as archive:
        x, y = archive["x"], archive["y"]
    return x.reshape(len(x), 64).astype(np.float32), y.astype(np.int64)


def load_iris() -> Samples:
    """Return Fisher's iris: 150 flowers, the columns ``IRIS_FEATURES`` in cm; y indexes ``IRIS_LABELS``."""
    with BUNDLED["iris.csv"].open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    x = np.array([[float(row[name]) for name in IRIS_FEATURES] for row in rows], np.float32)
    return x, np.array([IRIS_LABELS.index(row["species"]) for row in rows], np.int64)


def load_fashion_mnist(folder: str | Path | None = None) -> tuple[Samples, Samples]:
    """Return Fashion-MNIST as ``(x_train, y_train), (x_test, y_test)``.

    Args:
        folder: where the four idx files are, gzipped or not; the folder of Debian's package
            ``dataset-fashion-mnist`` when none is named.

    Returns:
        60,000 and 10,000 images of 28x28 as rows of 784 numbers, 0 to 255; y indexes ``FASHION_MNIST_LABELS``.

    Raises:
        NotFoundError: the files are not there.
        FileFormatError: a file is damaged or not an idx file of bytes.
    """
    where = Path(folder) if folder is not None else FASHION_MNIST_FOLDER
    return _fashion_part(where, "train"), _fashion_part(where, "t10k")


def _fashion_part(folder: Path, part: str) -> Samples:
    images = _read_idx(folder, f"{part}-images-idx3-ubyte", 3)
    labels = _read_idx(folder, f"{part}-labels-idx1-ubyte", 1)
    if len(images) != len(labels):
        raise FileFormatError(
            f"{folder}: {len(images)} images, but {len(labels)} labels in the files {part}-*"
        )
    return images.reshape(len(images), -1).astype(np.float32), labels.astype(np.int64)


def _read_idx(folder: Path, name: str, dimensions: int) -> NDArray[np.uint8]:
    """Read one file of bytes in the idx format: 0, 0, 8, dimensions, each length as a big-endian int32, the bytes."""
    path = next((p for p in (folder / f"{name}.gz", folder / name) if p.is_file()), None)
    if path is None:
        raise NotFoundError(
            f"no {name}[.gz] in {folder}: install Debian's package dataset-fashion-mnist, or name a folder with the "
            "four files of github.com/zalandoresearch/fashion-mnist"
        )
    data = path.read_bytes()
    if path.suffix == ".gz":
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            raise FileFormatError(f"{path}: damaged gzip file: {error}") from None
    head = 4 + 4 * dimensions
    if len(data) < head or data[:4] != bytes((0, 0, 8, dimensions)):
        raise FileFormatError(f"{path}: not an idx file of bytes with {dimensions} dimensions")
    shape = tuple(int(n) for n in np.frombuffer(data, ">i4", dimensions, 4))
    if min(shape) < 0 or math.prod(shape) != len(data) - head:
        raise FileFormatError(f"{path}: its head promises {shape} bytes, but {len(data) - head} follow")
    return np.frombuffer(data, np.uint8, offset=head).reshape(shape)
