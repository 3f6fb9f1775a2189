"""The bundled data equals its source; Fashion-MNIST is read from a folder of idx files."""

import gzip
from pathlib import Path

import numpy as np
import pytest
from sklearn import datasets as judge

from mariana import datasets
from mariana.errors import FileFormatError, NotFoundError


def test_digits_are_scikit_learns() -> None:
    x, y = datasets.load_digits()
    assert (x.dtype, y.dtype) == (np.float32, np.int64)
    np.testing.assert_array_equal(x, judge.load_digits().data)
    np.testing.assert_array_equal(y, judge.load_digits().target)


def test_iris_is_scikit_learns_but_for_the_order() -> None:
    x, y = datasets.load_iris()
    assert (x.shape, x.dtype, y.dtype) == ((150, 4), np.float32, np.int64)
    ours = sorted(map(tuple, np.column_stack([x, y]).tolist()))
    source = judge.load_iris()
    theirs = np.column_stack([source.data.astype(np.float32), source.target.astype(np.float32)])
    assert ours == sorted(map(tuple, theirs.tolist()))
    assert tuple(source.target_names) == datasets.IRIS_LABELS
    assert set(y[-15:]) == {0, 1, 2}, "the last tenth holds every class"


def _idx(array: np.ndarray) -> bytes:
    return bytes((0, 0, 8, array.ndim)) + np.array(array.shape, ">i4").tobytes() + array.tobytes()


@pytest.fixture
def fashion(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for part, rows in (("train", 6), ("t10k", 2)):
        images = _idx(rng.integers(0, 256, (rows, 28, 28), np.uint8))
        (tmp_path / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(images))
        (tmp_path / f"{part}-labels-idx1-ubyte").write_bytes(_idx(np.arange(rows, dtype=np.uint8)))
    return tmp_path


def test_fashion_mnist_from_a_folder(fashion: Path) -> None:
    (x, y), (x_test, y_test) = datasets.load_fashion_mnist(fashion)
    assert (x.shape, y.tolist(), x_test.shape, y_test.tolist()) == (
        (6, 784),
        list(range(6)),
        (2, 784),
        [0, 1],
    )
    original = np.random.default_rng(0).integers(0, 256, (6, 28, 28), np.uint8)
    np.testing.assert_array_equal(x.reshape(6, 28, 28), original)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "not an idx file"),
        (_idx(np.zeros((2, 28), np.uint8)), "3 dimensions"),
        (_idx(np.zeros((2, 28, 28), np.uint8))[:-1], "1567 follow"),
        (b"\0\0\x08\x03" + np.array([-1, -1, 0], ">i4").tobytes(), "promises"),
        (_idx(np.zeros((3, 2, 2), np.uint8)), "3 images, but 2 labels"),
    ],
)
def test_damaged_idx_files_are_refused(fashion: Path, content: bytes, complaint: str) -> None:
    (fashion / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(content))
    with pytest.raises(FileFormatError, match=complaint):
        datasets.load_fashion_mnist(fashion)


def test_fashion_mnist_says_how_to_get_it(tmp_path: Path, fashion: Path) -> None:
    with pytest.raises(NotFoundError, match="dataset-fashion-mnist"):
        datasets.load_fashion_mnist(tmp_path / "nothing")
    (fashion / "t10k-images-idx3-ubyte.gz").write_bytes(b"\x1f\x8bnot gzip")
    with pytest.raises(FileFormatError, match="damaged gzip"):
        datasets.load_fashion_mnist(fashion)
