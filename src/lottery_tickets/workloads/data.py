"""Image data sets that fit in memory: split, normalised, fingerprinted, cut into batches.

Digits come with scikit-learn. Fashion-MNIST (Xiao et al. 2017, arXiv 1708.07747) and everything else in the format of
MNIST is read from four IDX files. Nothing is ever downloaded.
"""

import hashlib
import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lottery_tickets._core.reading import naming
from lottery_tickets.workloads.idx import read_idx

DIGITS_TEST_SHARE = 0.30
DIGITS_VALIDATION_SHARE = 0.10
DIGITS_SPLIT_SEED = 0

FASHION_MNIST_FOLDER = Path("/usr/share/datasets/fashion-mnist")
"""Where the Debian package `dataset-fashion-mnist` puts its four files."""

_Bytes = npt.NDArray[np.uint8]
_Indices = npt.NDArray[np.int64]

_FILES = (("train-images", "idx3"), ("train-labels", "idx1"), ("t10k-images", "idx3"), ("t10k-labels", "idx1"))


@dataclass(frozen=True, eq=False)
class ImageData:
    """An image data set in three splits that share no image.

    Inputs are float32 of shape (images, channels, height, width), normalised by the mean and the standard deviation
    over all pixels of the *training* split. Targets are int64 class numbers of shape (images,).

    Attributes:
        name: What the data set is called, as in `DATA_NAMES`.
        train_inputs: Images to train on.
        train_targets: Their classes.
        validation_inputs: Images to choose by (early stopping); never trained on.
        validation_targets: Their classes.
        test_inputs: Images to report on; neither trained on nor chosen by.
        test_targets: Their classes.
        num_classes: How many classes there are.
        pixel_mean: The mean of the training pixels, on a scale of 0 to 1.
        pixel_std: The standard deviation of the training pixels, on a scale of 0 to 1.
        fingerprint: SHA-256, in hex, of the raw bytes of all splits and of the positions the splits were taken from.
    """

    name: str
    train_inputs: Tensor
    train_targets: Tensor
    validation_inputs: Tensor
    validation_targets: Tensor
    test_inputs: Tensor
    test_targets: Tensor
    num_classes: int
    pixel_mean: float
    pixel_std: float
    fingerprint: str

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """The channels, height and width of one image."""
        _, channels, height, width = self.train_inputs.shape
        return channels, height, width


@dataclass(frozen=True, eq=False)
class _Split:
    """Raw images and labels, and the positions in their source they were taken from."""

    images: _Bytes
    targets: _Bytes
    positions: _Indices


def load_digits_data(*, split_seed: int = DIGITS_SPLIT_SEED) -> ImageData:
    """Returns scikit-learn's 1,797 handwritten digits of 8 x 8 pixels, split 60/10/30 within each class.

    Writers are not kept apart (the data set does not name them), so the test accuracy says how well the network does on
    further digits of the same writers.

    Args:
        split_seed: Which split. The default is the one all published figures of this library use.

    Raises:
        ModuleNotFoundError: scikit-learn is not installed.

    Examples:
        >>> data = load_digits_data()
        >>> data.train_inputs.shape, data.validation_inputs.shape, data.test_inputs.shape
        (torch.Size([1079, 1, 8, 8]), torch.Size([179, 1, 8, 8]), torch.Size([539, 1, 8, 8]))
    """
    try:
        datasets = importlib.import_module("sklearn.datasets")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "the digits come with scikit-learn, which is not installed; run: pip install 'lottery-tickets[demo]'",
            name=error.name,
        ) from error
    raw = datasets.load_digits()
    images = np.asarray(raw.images, dtype=np.uint8)  # whole numbers from 0 to 16
    targets = np.asarray(raw.target, dtype=np.uint8)
    parts: dict[str, list[_Indices]] = {"test": [], "validation": [], "train": []}
    order = _permutation(len(targets), split_seed)
    for label in np.unique(targets):
        members = order[targets[order] == label]
        num_test = round(DIGITS_TEST_SHARE * len(members))
        num_validation = round(DIGITS_VALIDATION_SHARE * len(members))
        cuts = np.split(members, [num_test, num_test + num_validation])
        for part, positions in zip(parts.values(), cuts, strict=True):
            part.append(positions)
    splits = {name: _take(images, targets, np.concatenate(part)) for name, part in parts.items()}
    return _image_data("digits", splits, white=16)


def load_mnist_format(
    folder: str | Path, *, num_validation: int = 5000, split_seed: int = 0, name: str = "mnist-format"
) -> ImageData:
    """Returns the data set in the four IDX files of a folder; validation images are drawn from the training images.

    Drawing them at random, apart from the test set, follows Frankle & Carbin 2019 (arXiv 1803.03635, appendix G: 5,000
    of MNIST's 60,000).

    Args:
        folder: Holds `train-images-idx3-ubyte`, `train-labels-idx1-ubyte`, `t10k-images-idx3-ubyte` and
            `t10k-labels-idx1-ubyte`. The spelling `train-images.idx3-ubyte` is accepted too, and `.gz` after either.
        num_validation: How many training images to set apart for validation.
        split_seed: Which of them.
        name: What to call the data set.

    Raises:
        OSError: A file is missing, or cannot be read.
        ValueError: A file is truncated, foreign or does not fit the others, or `num_validation` leaves nothing to
            train on.
    """
    folder = Path(folder)
    files = _find_files(folder)
    images, test_images = (read_idx(files[stem], num_dimensions=3) for stem in ("train-images", "t10k-images"))
    targets, test_targets = (read_idx(files[stem], num_dimensions=1) for stem in ("train-labels", "t10k-labels"))
    for part, part_images, part_targets in (("train", images, targets), ("t10k", test_images, test_targets)):
        if len(part_images) != len(part_targets):
            raise ValueError(
                f"{folder} must hold as many {part} labels as images, got {len(part_targets)} labels for "
                f"{len(part_images)} images; are the files of one data set?"
            )
    if images.shape[1:] != test_images.shape[1:]:
        raise ValueError(
            f"training and test images must have one size, got {images.shape[1:]} and {test_images.shape[1:]} in "
            f"{folder}; are the files of one data set?"
        )
    if not 0 < num_validation < len(images):
        raise ValueError(f"num_validation must lie between 1 and {len(images) - 1}, got {num_validation}; choose fewer")
    order = _permutation(len(images), split_seed)
    splits = {
        "test": _take(test_images, test_targets, np.arange(len(test_images))),
        "validation": _take(images, targets, order[:num_validation]),
        "train": _take(images, targets, order[num_validation:]),
    }
    with naming(folder, "hold one data set"):
        return _image_data(name, splits, white=255)


def load_fashion_mnist(
    folder: str | Path | None = None, *, num_validation: int = 5000, split_seed: int = 0
) -> ImageData:
    """Returns Fashion-MNIST (Xiao et al. 2017, arXiv 1708.07747): 60,000 + 10,000 images of 28 x 28, 10 classes.

    Args:
        folder: Holds the four files; by default `FASHION_MNIST_FOLDER`, where the Debian package puts them.
        num_validation: How many training images to set apart for validation.
        split_seed: Which of them.

    Raises:
        FileNotFoundError: A file is missing; the message says how to get it.
        ValueError: A file is truncated, foreign or does not fit the others.
    """
    folder = FASHION_MNIST_FOLDER if folder is None else Path(folder)
    try:
        return load_mnist_format(folder, num_validation=num_validation, split_seed=split_seed, name="fashion-mnist")
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{error}; Fashion-MNIST is installed by `apt-get install dataset-fashion-mnist` (Debian), or give a "
            "folder with the four files of https://github.com/zalandoresearch/fashion-mnist"
        ) from error


def create_image_batches(
    inputs: Tensor,
    targets: Tensor,
    *,
    batch_size: int,
    num_images: int | None = None,
    generator: torch.Generator | None = None,
) -> list[tuple[Tensor, Tensor]]:
    """Returns images with their classes in batches, in their own order or in one that is drawn.

    Args:
        inputs: Images, by their first dimension.
        targets: Their classes, as many.
        batch_size: Images a batch; the last batch has what is left.
        num_images: The first so many of the order; all when None, or when there are fewer.
        generator: On the CPU; draws the order, without replacement. None keeps the order of the images.

    Raises:
        ValueError: A number is below 1, or there are not as many classes as images.

    Examples:
        >>> data = load_digits_data()
        >>> batches = create_image_batches(data.test_inputs, data.test_targets, batch_size=40, num_images=100)
        >>> [len(targets) for _, targets in batches]
        [40, 40, 20]
    """
    for name, value in (("batch_size", batch_size), ("num_images", num_images)):
        if value is not None and value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}; choose a larger number")
    if len(inputs) != len(targets):
        raise ValueError(
            f"there must be as many targets as inputs, {len(inputs)}, got {len(targets)}; are they of one split?"
        )
    if generator is None:
        parts = inputs[:num_images].split(batch_size), targets[:num_images].split(batch_size)
        return list(zip(*parts, strict=True))
    order = torch.randperm(len(inputs), generator=generator)[:num_images]
    return [(inputs[positions], targets[positions]) for positions in order.split(batch_size)]


def _find_files(folder: Path) -> dict[str, Path]:
    """Returns the path of each of the four files by its stem, such as "train-images"; plain files before compressed."""
    found: dict[str, Path] = {}
    for stem, kind in _FILES:
        spellings = [f"{stem}{mark}{kind}-ubyte{suffix}" for suffix in ("", ".gz") for mark in ("-", ".")]
        paths = [folder / spelling for spelling in spellings if (folder / spelling).is_file()]
        if not paths:
            wanted = ", ".join(f"{stem}-{kind}-ubyte" for stem, kind in _FILES)
            raise FileNotFoundError(f"{folder} must hold the files {wanted} (or .gz), but has no {spellings[0]}")
        found[stem] = paths[0]
    return found


def _permutation(num_items: int, seed: int) -> _Indices:
    """Returns the positions 0 to num_items - 1 in an order drawn from the seed, the same under every version of numpy.

    numpy keeps the raw stream of a bit generator for good, but not what `Generator.permutation` makes of it (NEP 19).
    """
    return np.argsort(np.random.PCG64(seed).random_raw(num_items), kind="stable").astype(np.int64)


def _take(images: _Bytes, targets: _Bytes, positions: _Indices) -> _Split:
    """Returns the images and labels at the given positions, in ascending order of position."""
    positions = np.sort(positions)
    return _Split(images=images[positions], targets=targets[positions], positions=positions)


def _image_data(name: str, splits: Mapping[str, _Split], *, white: int) -> ImageData:
    """Returns the data set made of raw splits "train", "validation" and "test" with pixels from 0 to `white`."""
    num_classes = int(splits["train"].targets.max()) + 1
    for part, split in splits.items():
        if split.targets.max() >= num_classes:
            raise ValueError(
                f"{part} labels of {name} must be below {num_classes}, the classes seen in training, got "
                f"{split.targets.max()}; are the files of one data set?"
            )
    if np.ptp(splits["train"].images) == 0:
        raise ValueError(
            f"training images of {name} must not all be one grey, got pixels of {splits['train'].images.flat[0]} only; "
            "check the files"
        )
    # Counting the 256 byte values makes both moments exact, whatever the machine's order of summation.
    counts = np.bincount(splits["train"].images.ravel(), minlength=256)
    values = np.arange(256) / white
    mean = float((counts * values).sum() / counts.sum())
    std = float(np.sqrt((counts * (values - mean) ** 2).sum() / counts.sum()))
    normalised = ((values - mean) / std).astype(np.float32)
    inputs = {part: torch.from_numpy(normalised[split.images]).unsqueeze(1) for part, split in splits.items()}
    targets = {part: torch.from_numpy(split.targets.astype(np.int64)) for part, split in splits.items()}
    return ImageData(
        name=name,
        train_inputs=inputs["train"],
        train_targets=targets["train"],
        validation_inputs=inputs["validation"],
        validation_targets=targets["validation"],
        test_inputs=inputs["test"],
        test_targets=targets["test"],
        num_classes=num_classes,
        pixel_mean=mean,
        pixel_std=std,
        fingerprint=_fingerprint(splits),
    )


def _fingerprint(splits: Mapping[str, _Split]) -> str:
    """Returns the SHA-256, in hex, of the names, shapes, bytes and positions of all splits."""
    digest = hashlib.sha256()
    for part in sorted(splits):
        split = splits[part]
        digest.update(f"{part} {split.images.shape}\n".encode())
        for array in (split.images, split.targets, split.positions.astype("<i8")):
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
