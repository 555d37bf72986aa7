"""Times the identity of 60,000 images with their labels beside one SHA-256 over all their bytes and one sum over them.

Floor of the time: all bytes hashed at once, in one call. Run with `python -m benchmarks.speed.identity`, a minute on
one core; the figures go to benchmarks/results/identity.json. Ratios are of calls in turns in one process.
"""

import functools
import hashlib
import json
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, TensorDataset

from benchmarks.common import call_in_new_process, measure, measure_peak_extra_bytes, show_timings, write_results
from lottery_tickets._core.identity.code import identify_callable
from lottery_tickets._core.identity.data import identify_data

NUM_IMAGES = 60_000
REPEATS = 7
DTYPES = {"float32": torch.float32, "uint8": torch.uint8}


class Images(Dataset[Any]):
    """Images and labels that are asked for one by one, as most data sets are."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images, self.labels = images, labels.tolist()

    def __len__(self) -> int:
        """Returns the number of images."""
        return len(self.images)

    def __getitem__(self, position: int) -> tuple[Tensor, int]:
        """Returns an image and its label."""
        return self.images[position], self.labels[position]


def main() -> None:
    """Measures and writes the figures."""
    torch.set_num_threads(1)
    payload = {name: measure_dtype(name) for name in DTYPES}
    print(json.dumps(payload, indent=1))
    write_results("identity", payload)


def make_images(name: str, num_images: int = NUM_IMAGES) -> tuple[Tensor, Tensor]:
    """Returns images of 28 x 28 and labels of ten classes."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (num_images, 1, 28, 28), generator=generator, dtype=torch.uint8)
    labels = torch.randint(10, (num_images,), generator=generator)
    return (images if name == "uint8" else images / 255), labels


def make_loaders(images: Tensor, labels: Tensor) -> dict[str, Any]:
    """Returns the same samples behind a loader of each kind."""
    return {
        "tensors": DataLoader(TensorDataset(images, labels), batch_size=128, shuffle=True),
        "one_by_one": DataLoader(Images(images, labels), batch_size=128, shuffle=True),
        "batches": list(zip(images.split(128), labels.split(128), strict=True)),
    }


def measure_dtype(name: str) -> dict[str, Any]:
    """Returns seconds, ratios to the floors, and peak extra bytes, for images of a dtype."""
    images, labels = make_images(name)
    loaders = make_loaders(images, labels)
    for loader in loaders.values():
        assert identify_data(loader, max_seconds=60)["complete"]
    ways: dict[str, Callable[[], object]] = {
        "sha256": lambda: hashlib.sha256(images.numpy().data).digest(),
        "sum": images.sum,
        **{kind: functools.partial(identify_data, loader, max_seconds=60) for kind, loader in loaders.items()},
        "trainer": functools.partial(identify_callable, measure_dtype),
    }
    timings = measure(ways, REPEATS)
    show_timings(timings)
    medians = {way: timing["median_seconds"] for way, timing in timings.items()}
    return {
        "num_images": NUM_IMAGES,
        "image_bytes": images.nbytes,
        "timings": timings,
        "over_sha256": {kind: medians[kind] / medians["sha256"] for kind in loaders},
        "over_sum": {kind: medians[kind] / medians["sum"] for kind in loaders},
        "peak_extra_bytes": {kind: int(call_in_new_process(__file__, name, kind)) for kind in loaders},
    }


def print_memory(name: str, kind: str) -> None:
    """Prints the peak extra bytes of one way, in a process of its own."""
    identify_data(make_loaders(*make_images(name, 100))[kind])
    loader = make_loaders(*make_images(name))[kind]
    print(measure_peak_extra_bytes(lambda: identify_data(loader, max_seconds=60)))


if __name__ == "__main__":
    if len(sys.argv) == 1:
        main()
    else:
        print_memory(*sys.argv[1:])
