"""Data sets: splits that share nothing, the training split's normalisation, a fingerprint that sees every byte."""

import importlib
from pathlib import Path

import numpy as np
import pytest
import torch

from lottery_tickets.workloads.data import (
    FASHION_MNIST_FOLDER,
    ImageData,
    load_digits_data,
    load_fashion_mnist,
    load_mnist_format,
)
from lottery_tickets.workloads.idx import read_idx

from .files import small_mnist, write_mnist_folder

PARTS = ("train", "validation", "test")


def inputs_of(data: ImageData) -> dict[str, torch.Tensor]:
    return {part: getattr(data, f"{part}_inputs") for part in PARTS}


def targets_of(data: ImageData) -> dict[str, torch.Tensor]:
    return {part: getattr(data, f"{part}_targets") for part in PARTS}


def images_with_labels(data: ImageData, part: str) -> set[bytes]:
    pairs = zip(inputs_of(data)[part], targets_of(data)[part], strict=True)
    return {image.numpy().tobytes() + target.numpy().tobytes() for image, target in pairs}


@pytest.fixture(scope="module")
def digits() -> ImageData:
    return load_digits_data()


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> ImageData:
    folder = write_mnist_folder(tmp_path_factory.mktemp("small"), small_mnist())
    return load_mnist_format(folder, num_validation=10)


@pytest.mark.parametrize("source", ["digits", "small"])
def test_every_image_is_in_exactly_one_split(source: str, request: pytest.FixtureRequest) -> None:
    data = request.getfixturevalue(source)
    images = {part: images_with_labels(data, part) for part in PARTS}
    num_images = sum(len(inputs) for inputs in inputs_of(data).values())
    assert sum(len(part) for part in images.values()) == num_images == {"digits": 1797, "small": 50}[source]
    assert len(images["train"] | images["validation"] | images["test"]) == num_images


@pytest.mark.parametrize("source", ["digits", "small"])
def test_inputs_and_targets_have_the_documented_types(source: str, request: pytest.FixtureRequest) -> None:
    data = request.getfixturevalue(source)
    for inputs, targets in zip(inputs_of(data).values(), targets_of(data).values(), strict=True):
        assert inputs.dtype == torch.float32
        assert inputs.shape == (len(targets), *data.input_shape)
        assert inputs.is_contiguous()
        assert targets.dtype == torch.int64
        assert targets.shape == (len(inputs),)
        assert 0 <= targets.min() <= targets.max() < data.num_classes


@pytest.mark.parametrize("source", ["digits", "small"])
def test_the_training_split_has_mean_zero_and_variance_one(source: str, request: pytest.FixtureRequest) -> None:
    pixels = request.getfixturevalue(source).train_inputs.double()
    assert abs(pixels.mean().item()) < 1e-6
    assert abs(pixels.std(correction=0).item() - 1) < 1e-6


def test_the_other_splits_are_normalised_by_the_training_split(tmp_path: Path) -> None:
    arrays = small_mnist()
    arrays["t10k-images-idx3-ubyte"][:] = 255
    data = load_mnist_format(write_mnist_folder(tmp_path, arrays), num_validation=10)
    white = torch.tensor((1 - data.pixel_mean) / data.pixel_std)
    torch.testing.assert_close(data.test_inputs, white.expand_as(data.test_inputs))


def test_the_digits_are_split_alike_in_every_class(digits: ImageData) -> None:
    counts = {part: torch.bincount(targets).double() for part, targets in targets_of(digits).items()}
    whole = counts["train"] + counts["validation"] + counts["test"]
    for part, share in (("train", 0.6), ("validation", 0.1), ("test", 0.3)):
        # Rounding test and validation to whole images moves each count by at most one half, so the rest by at most one.
        assert ((counts[part] - share * whole).abs() <= 1).all()


def test_the_digits_split_is_fixed(digits: ImageData) -> None:
    assert digits.fingerprint == load_digits_data().fingerprint
    assert digits.fingerprint != load_digits_data(split_seed=1).fingerprint
    # Golden: published figures refer to this split.
    assert digits.fingerprint.startswith("475db23efe64c08c")


def test_the_digits_are_those_of_scikit_learn(digits: ImageData) -> None:
    pixels = torch.cat(list(inputs_of(digits).values())).double() * digits.pixel_std + digits.pixel_mean
    images = importlib.import_module("sklearn.datasets").load_digits().images
    assert sorted(torch.bincount((pixels * 16).round().long().flatten()).tolist()) == sorted(
        np.bincount(images.astype(int).ravel()).tolist()
    )


def test_missing_scikit_learn_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> None:
        raise ModuleNotFoundError(name=name)

    monkeypatch.setattr(importlib, "import_module", refuse)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'lottery-tickets\[demo\]'"):
        load_digits_data()


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("dots", [False, True])
def test_all_spellings_of_the_files_are_read(dots: bool, compressed: bool, tmp_path: Path, small: ImageData) -> None:
    folder = write_mnist_folder(tmp_path, small_mnist(), dots=dots, compressed=compressed)
    assert load_mnist_format(folder, num_validation=10).fingerprint == small.fingerprint


def test_the_validation_split_is_drawn_from_everywhere_in_the_training_images(tmp_path: Path) -> None:
    arrays = small_mnist(num_train=1000)
    arrays["train-images-idx3-ubyte"][:] = np.linspace(0, 255, 1000, dtype=np.uint8)[:, None, None]
    data = load_mnist_format(write_mnist_folder(tmp_path, arrays), num_validation=500)
    # The images grow lighter from first to last; a split off either end would be 1.7 deviations away from the rest.
    assert abs(data.validation_inputs.mean() - data.train_inputs.mean()) < 0.2


def test_another_split_seed_takes_other_images(tmp_path: Path, small: ImageData) -> None:
    folder = write_mnist_folder(tmp_path, small_mnist())
    other = load_mnist_format(folder, num_validation=10, split_seed=1)
    assert other.fingerprint != small.fingerprint
    # Their normalisation differs, so the images are compared by the order of their pixels.
    orders = [{image.flatten().argsort(stable=True) for image in data.validation_inputs} for data in (small, other)]
    assert len(orders[0] & orders[1]) < 10


@pytest.mark.parametrize("file", sorted(small_mnist()))
def test_the_fingerprint_changes_with_every_byte(file: str, tmp_path: Path, small: ImageData) -> None:
    arrays = small_mnist()
    last = arrays[file].reshape(-1)
    last[-1] = 1 if last[-1] == 0 else last[-1] - 1
    changed = load_mnist_format(write_mnist_folder(tmp_path, arrays), num_validation=10)
    assert changed.fingerprint != small.fingerprint


@pytest.mark.parametrize("file", sorted(small_mnist()))
def test_a_missing_file_is_named(file: str, tmp_path: Path) -> None:
    arrays = small_mnist()
    del arrays[file]
    with pytest.raises(FileNotFoundError, match=f"has no {file}"):
        load_mnist_format(write_mnist_folder(tmp_path, arrays))


def test_files_that_do_not_fit_each_other_are_refused(tmp_path: Path) -> None:
    arrays = small_mnist()
    fewer = arrays | {"t10k-labels-idx1-ubyte": arrays["t10k-labels-idx1-ubyte"][:-1]}
    with pytest.raises(ValueError, match="as many t10k labels as images, got 9 labels for 10 images"):
        load_mnist_format(write_mnist_folder(tmp_path / "fewer", fewer), num_validation=10)
    narrower = arrays | {"t10k-images-idx3-ubyte": arrays["t10k-images-idx3-ubyte"][:, :, :3]}
    with pytest.raises(ValueError, match=r"one size, got \(5, 4\) and \(5, 3\)"):
        load_mnist_format(write_mnist_folder(tmp_path / "narrower", narrower), num_validation=10)
    new_class = arrays | {"t10k-labels-idx1-ubyte": arrays["t10k-labels-idx1-ubyte"] + np.uint8(1)}
    with pytest.raises(ValueError, match="test labels of mnist-format must be below 3"):
        load_mnist_format(write_mnist_folder(tmp_path / "new", new_class), num_validation=10)
    grey = arrays | {"train-images-idx3-ubyte": np.full((40, 5, 4), 7, np.uint8)}
    with pytest.raises(ValueError, match="must not all be one grey, got pixels of 7 only"):
        load_mnist_format(write_mnist_folder(tmp_path / "grey", grey), num_validation=10)


@pytest.mark.parametrize("num_validation", [-1, 0, 40, 41])
def test_a_validation_split_that_takes_nothing_or_all_is_refused(num_validation: int, tmp_path: Path) -> None:
    folder = write_mnist_folder(tmp_path, small_mnist())
    with pytest.raises(ValueError, match=f"between 1 and 39, got {num_validation}"):
        load_mnist_format(folder, num_validation=num_validation)


def test_missing_fashion_mnist_is_explained(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"apt-get install dataset-fashion-mnist.*give a folder"):
        load_fashion_mnist(tmp_path)


def test_loading_leaves_the_global_random_state_alone(tmp_path: Path) -> None:
    folder = write_mnist_folder(tmp_path, small_mnist())
    before = torch.get_rng_state(), repr(np.random.get_state())  # noqa: NPY002 - the global state is what is tested
    load_mnist_format(folder, num_validation=10)
    load_digits_data()
    assert torch.equal(torch.get_rng_state(), before[0])
    assert repr(np.random.get_state()) == before[1]  # noqa: NPY002 - as above


@pytest.mark.skipif(
    not FASHION_MNIST_FOLDER.is_dir(), reason="the Debian package dataset-fashion-mnist is not installed"
)
def test_fashion_mnist_is_the_published_data_set() -> None:
    raw = read_idx(FASHION_MNIST_FOLDER / "train-images-idx3-ubyte.gz", num_dimensions=3)
    counts = np.bincount(raw.ravel(), minlength=256)
    values = np.arange(256) / 255
    mean = (counts * values).sum() / counts.sum()
    std = np.sqrt((counts * (values - mean) ** 2).sum() / counts.sum())
    assert raw.shape == (60_000, 28, 28)
    assert round(mean, 5) == 0.28604
    assert round(std, 5) == 0.35302
    data = load_fashion_mnist()
    assert [len(targets) for targets in targets_of(data).values()] == [55_000, 5_000, 10_000]
    assert data.test_targets.bincount().tolist() == [1000] * 10
    # 5,000 drawn at random: each class has 500, give or take 21; within five deviations of that.
    assert (data.validation_targets.bincount() - 500).abs().max() < 105
    assert data.fingerprint.startswith("43474fdef1f67b23")
