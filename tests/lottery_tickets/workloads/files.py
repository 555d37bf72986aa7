"""Small data sets in the format of MNIST, for tests to read."""

import gzip
from pathlib import Path

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]


def idx_bytes(array: Bytes) -> bytes:
    """Returns an array of unsigned bytes as the content of an IDX file."""
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()


def small_mnist(num_train: int = 40, num_test: int = 10) -> dict[str, Bytes]:
    """Returns random images of 5 x 4 in three classes, and their labels, by the stem of their file."""
    rng = np.random.default_rng(0)
    return {
        "train-images-idx3-ubyte": rng.integers(0, 256, (num_train, 5, 4), dtype=np.uint8),
        "train-labels-idx1-ubyte": np.arange(num_train, dtype=np.uint8) % 3,
        "t10k-images-idx3-ubyte": rng.integers(0, 256, (num_test, 5, 4), dtype=np.uint8),
        "t10k-labels-idx1-ubyte": np.arange(num_test, dtype=np.uint8) % 3,
    }


def write_mnist_folder(folder: Path, arrays: dict[str, Bytes], *, dots: bool = False, compressed: bool = False) -> Path:
    """Returns the folder after writing one IDX file for each array, in one of the four usual spellings."""
    folder.mkdir(parents=True, exist_ok=True)
    for stem, array in arrays.items():
        name = stem.replace("-idx", ".idx") if dots else stem
        content = idx_bytes(array)
        path = folder / (f"{name}.gz" if compressed else name)
        path.write_bytes(gzip.compress(content) if compressed else content)
    return folder
