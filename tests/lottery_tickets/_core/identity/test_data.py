"""The samples of a loader, whatever their order and batches."""

import itertools
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    Sampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)
from transformers import BatchEncoding

from lottery_tickets._core.batches.tensor_batches import TensorBatches
from lottery_tickets._core.identity.data import LEVELS, identify_data, spread
from lottery_tickets._core.identity.identities import compare_identities

SIZE = 40
IMAGES = torch.rand(SIZE, 1, 3, 3, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(SIZE) % 7


class Images(Dataset[Any]):
    def __init__(self, images: Tensor = IMAGES, labels: Tensor = LABELS, num_reads: int = 0) -> None:
        self.images, self.labels, self.num_reads = images, labels.tolist(), num_reads

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, position: int) -> Any:  # noqa: ANN401 - samples of many kinds
        self.num_reads += 1
        return self.images[position], self.labels[position]


@dataclass
class Padding:  # has no hash, as the collators of transformers
    size: int

    def __call__(self, samples: list[Any]) -> int:
        return len(samples) + self.size


class Halves(Sampler[list[int]]):
    def __init__(self, size: int) -> None:
        self.size = size

    def __iter__(self) -> Iterator[list[int]]:
        yield from (list(range(self.size // 2)), list(range(self.size // 2, self.size)))


class Shuffled:
    """A stream of batches in an order that no seed decides."""

    def __init__(self, batches: list[Any]) -> None:
        self.batches, self.order = batches, itertools.count()

    def __iter__(self) -> Iterator[Any]:
        turn = next(self.order) % len(self.batches)
        yield from self.batches[turn:] + self.batches[:turn]


def digest(loader: Any) -> str:  # noqa: ANN401 - loaders of many kinds
    identity = identify_data(loader)
    assert identity["kind"] == "samples"
    assert identity["complete"], identity["says"]
    assert identity["digest"] is not None
    return identity["digest"]


def cut(*tensors: Tensor, size: int = 8) -> list[tuple[Tensor, ...]]:
    return list(zip(*(tensor.split(size) for tensor in tensors), strict=True))


def permuted(*tensors: Tensor) -> tuple[Tensor, ...]:
    order = torch.randperm(len(tensors[0]))
    return tuple(tensor[order] for tensor in tensors)


def load(*tensors: Tensor, **settings: Any) -> DataLoader[Any]:  # noqa: ANN401 - settings of many types
    return DataLoader(TensorDataset(*tensors), **settings)


def changed(tensor: Tensor, position: int, value: float) -> Tensor:
    tensor = tensor.clone()
    tensor[position] = value
    return tensor


SAME: dict[str, Callable[[], Any]] = {
    "shuffle": lambda: load(IMAGES, LABELS, batch_size=3, shuffle=True),
    "workers": lambda: load(IMAGES, LABELS, batch_size=16, num_workers=2),
    "permuted": lambda: load(*permuted(IMAGES, LABELS)),
    "strides": lambda: load(IMAGES.transpose(1, 3).contiguous().transpose(1, 3), LABELS),
    "subset": lambda: DataLoader(Subset(TensorDataset(IMAGES, LABELS), range(SIZE))),
    "part": lambda: load(
        IMAGES.repeat(2, 1, 1, 1), LABELS.repeat(2), sampler=SubsetRandomSampler(list(range(SIZE, 2 * SIZE)))
    ),
    "part in batches": lambda: load(
        IMAGES.repeat(2, 1, 1, 1),
        LABELS.repeat(2),
        batch_sampler=BatchSampler(SubsetRandomSampler(list(range(SIZE))), 8, drop_last=False),
    ),
    "batches": lambda: cut(IMAGES, LABELS),
    "other batches": lambda: cut(*permuted(IMAGES, LABELS), size=7),
    "one batch": lambda: [[IMAGES, LABELS]],
    "stream": lambda: Shuffled(cut(IMAGES, LABELS)),
    "our batches": lambda: TensorBatches(IMAGES, LABELS, batch_size=3, seed=0),
}

OTHER: dict[str, Callable[[], Any]] = {
    "pixel": lambda: load(changed(IMAGES, 17, 0.5), LABELS),
    "label": lambda: load(IMAGES, changed(LABELS, 17, 6)),
    "swapped labels": lambda: load(IMAGES, LABELS[[1, 0, *range(2, SIZE)]]),
    "one more": lambda: load(IMAGES[[*range(SIZE), 0]], LABELS[[*range(SIZE), 0]]),
    "one less": lambda: load(IMAGES[1:], LABELS[1:]),
    "one twice": lambda: load(IMAGES[[0, *range(SIZE - 1)]], LABELS[[0, *range(SIZE - 1)]]),
    "dtype": lambda: load(IMAGES.double(), LABELS),
    "label dtype": lambda: load(IMAGES, LABELS.int()),
    "shape": lambda: load(IMAGES.flatten(1), LABELS),
    "no labels": lambda: load(IMAGES),
    "twice the labels": lambda: load(IMAGES, LABELS, LABELS),
    "collate": lambda: load(IMAGES, LABELS, collate_fn=len),
    "other collate": lambda: load(IMAGES, LABELS, collate_fn=str),
    "collate of an object": lambda: load(IMAGES, LABELS, collate_fn=Padding(1)),
    "another collate of an object": lambda: load(IMAGES, LABELS, collate_fn=Padding(2)),
    "weights": lambda: load(IMAGES, LABELS, sampler=WeightedRandomSampler([1.0] * SIZE, SIZE)),
    "other weights": lambda: load(IMAGES, LABELS, sampler=WeightedRandomSampler([2.0] * SIZE, SIZE)),
    "drawn": lambda: load(IMAGES, LABELS, sampler=RandomSampler(LABELS, replacement=True)),
    "batch sampler": lambda: load(IMAGES, LABELS, batch_sampler=Halves(SIZE)),
    "other batch sampler": lambda: load(IMAGES, LABELS, batch_sampler=Halves(SIZE - 2)),
    "empty": list,
}


@pytest.mark.parametrize("make", SAME.values(), ids=SAME)
def test_order_and_batches_do_not_matter(make: Callable[[], Any]) -> None:
    assert digest(make()) == digest(load(IMAGES, LABELS))


def test_every_other_data_has_another_digest() -> None:
    digests = {name: digest(make()) for name, make in OTHER.items()}
    assert digests == {name: digest(make()) for name, make in OTHER.items()}
    assert len({*digests.values(), digest(load(IMAGES, LABELS))}) == len(OTHER) + 1


def test_a_data_set_gives_what_its_tensors_give() -> None:
    class Pairs(Images):
        def __getitem__(self, position: int) -> Any:  # noqa: ANN401 - samples of many kinds
            return self.images[position], torch.tensor(self.labels[position])

    assert digest(DataLoader(Pairs(), batch_size=4, shuffle=True)) == digest(load(IMAGES, LABELS))


def test_samples_of_words_and_of_tokenizers_count() -> None:
    def encode(words: list[str], ids: Tensor, extra: float = 1.0) -> list[Any]:
        return [BatchEncoding({"input_ids": ids, "words": words, "scale": extra, "text": np.arange(len(ids))})]

    ids = torch.arange(12).reshape(3, 4)
    whole = digest(encode(["a", "b", "c"], ids))
    parts = [*encode(["b", "c"], ids[1:]), *encode(["a"], ids[:1])]
    parts[0]["text"] += 1
    assert digest(parts) == whole
    assert digest([dict(batch) for batch in parts]) == whole
    assert digest(encode(["a", "c", "b"], ids)) != whole
    assert digest(encode(["a", "b", "c"], ids, 2.0)) != whole
    assert digest(encode(["a", "b", "c"], ids + 1)) != whole


def test_a_batch_that_cannot_be_cut_is_one_sample() -> None:
    images, mask = torch.ones(4, 2), torch.ones(3)
    identity = identify_data([(images, mask), (images, mask + 1)])
    assert (identity["num_samples"], identity["complete"]) == (2, True)
    assert digest([(images, mask + 1), (images, mask)]) == identity["digest"]


class Augmented(Images):
    def __init__(self, images: Tensor = IMAGES) -> None:
        super().__init__(images)
        self.own, self.others = torch.Generator().manual_seed(3), [np.random.default_rng()]

    def __getitem__(self, position: int) -> Any:  # noqa: ANN401 - as `Images`
        image, label = super().__getitem__(position)
        noise = torch.rand(1) + torch.rand(1, generator=self.own)
        return image + noise + np.random.rand() + self.others[0].random(), label  # noqa: NPY002 - what callers use


def read_generators(data: Augmented, loader: DataLoader[Any]) -> str:
    """Not Python's own generator: the checks of annotations in the tests draw from it."""
    assert loader.generator is not None
    states = [data.own.get_state(), loader.generator.get_state(), torch.get_rng_state()]
    numpy = [data.others[0].bit_generator.state, np.random.get_state()]  # noqa: NPY002 - the global one
    with np.printoptions(threshold=10**6):
        return repr([[state.tolist() for state in states], numpy])


def test_augmentation_is_identified_under_seeds_and_generators_stay() -> None:
    data = Augmented()
    loader = DataLoader(data, shuffle=True, generator=torch.Generator().manual_seed(5))
    before = read_generators(data, loader)
    identity = identify_data(loader)
    assert identity["complete"]
    assert identity["says"] == "the training data has 40 samples, read as they are augmented with a fixed seed"
    assert read_generators(data, loader) == before
    torch.rand(3)
    assert read_generators(data, loader) != before
    assert digest(DataLoader(Augmented())) == identity["digest"]
    assert digest(DataLoader(Augmented(changed(IMAGES, 17, 0.5)))) != identity["digest"]


SCRIPT = """
import random, torch
from torch.utils.data import DataLoader
from lottery_tickets._core.identity.data import identify_data

class Words:
    def __init__(self):
        self.drawn = random.Random()

    def __len__(self):
        return 3

    def __getitem__(self, position):
        return {"word": "abc"[position], "noise": random.random() + self.drawn.random(), "set": {"x", "y", position}}

data = Words()
before = random.getstate(), data.drawn.getstate(), torch.get_rng_state().tolist()
print(identify_data(DataLoader(data, shuffle=True)))
assert (random.getstate(), data.drawn.getstate(), torch.get_rng_state().tolist()) == before
"""


def test_another_process_finds_the_same() -> None:
    found = set()
    for seed in ("0", "1"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        run = subprocess.run(
            [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=True
        )
        found.add(run.stdout)
    assert len(found) == 1
    assert "3 samples, read as they are augmented" in found.pop()


class Wild(Images):
    def __getitem__(self, position: int) -> Any:  # noqa: ANN401 - as `Images`
        image, label = super().__getitem__(position)
        return image + np.random.default_rng().random(), label


def test_augmentation_that_no_seed_decides_is_said() -> None:
    first, second = identify_data(DataLoader(Wild())), identify_data(DataLoader(Wild(num_reads=3)))
    assert first["says"] == (
        "the training data could not be identified: its samples differ from read to read (random augmentation that no "
        "seed decides); pass data_id="
    )
    assert (first["kind"], first["complete"], first["num_samples"]) == ("unknown", False, SIZE)
    assert compare_identities(first, second) == "unknown"
    assert compare_identities(first, identify_data(DataLoader(Wild(labels=LABELS + 1)))) == "different"
    assert compare_identities(first, identify_data(DataLoader(Wild(images=IMAGES + 1)))) == "different"


def test_streams_of_samples_are_read_in_this_process() -> None:
    class Stream(IterableDataset[Any]):
        def __init__(self, size: int) -> None:
            self.size = size

        def __iter__(self) -> Iterator[Any]:
            assert torch.utils.data.get_worker_info() is None
            yield from (cut(IMAGES, LABELS, size=self.size) if self.size else zip(IMAGES, LABELS, strict=True))

    whole = digest(load(IMAGES, LABELS))
    assert digest(DataLoader(Stream(0), batch_size=5, num_workers=2)) == whole
    assert digest(DataLoader(Stream(7), batch_size=None)) == whole


def test_a_stream_that_differs_is_said() -> None:
    class Noise:
        def __iter__(self) -> Iterator[Any]:
            yield torch.from_numpy(np.random.default_rng().random((3, 2)))

    says = "the test data could not be identified: its samples differ from epoch to epoch under the same seeds; pass x="
    assert identify_data(Noise(), what="the test data", argument="x")["says"] == says


def test_an_iterator_is_not_used_up() -> None:
    batches = iter(cut(IMAGES, LABELS))
    assert "a list_iterator is used up after one epoch; pass data_id=" in identify_data(batches)["says"]
    assert len(list(batches)) == 5


class Slow(Images):
    seconds = 0.0

    def __getitem__(self, position: int) -> Any:  # noqa: ANN401 - as `Images`
        time.sleep(self.seconds)
        return super().__getitem__(position)


def test_slow_data_is_read_in_part_and_still_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = identify_data(DataLoader(Slow()))
    monkeypatch.setattr(Slow, "seconds", 0.01)
    start = time.monotonic()
    part = identify_data(DataLoader(Slow()), max_seconds=0.6)
    assert time.monotonic() - start < 5
    assert (part["complete"], part["num_samples"], part["num_read"]) == (False, SIZE, LEVELS[0])
    assert part["says"] == (
        "the training data has 40 samples; 16 evenly spread ones were read, as reading all takes longer than 0.6 "
        "seconds; pass data_id= to name it"
    )
    other = identify_data(DataLoader(Slow(images=IMAGES + 1)), max_seconds=0.6)
    assert compare_identities(whole, part) == compare_identities(part, whole) == "same"
    assert compare_identities(whole, other) == compare_identities(part, other) == "different"
    assert (
        "reading 24 samples takes longer than 0.1 seconds" in identify_data(DataLoader(Slow()), max_seconds=0.1)["says"]
    )


def test_a_slow_stream_is_not_identified_by_its_beginning() -> None:
    class Endless:
        def __iter__(self) -> Iterator[Any]:
            while True:
                yield IMAGES, LABELS

    identity = identify_data(Endless(), max_seconds=0.05)
    reason = "it can only be read from beginning to end, and that takes longer than 0.05 seconds; pass data_id="
    assert identity["says"] == f"the training data could not be identified: {reason}"
    assert compare_identities(identity, identity) == "unknown"


def test_what_is_in_a_sample_and_cannot_be_identified_is_said() -> None:
    class Odd(Images):
        def __getitem__(self, position: int) -> Any:  # noqa: ANN401 - as `Images`
            return {"image": self.images[position], "source": (item for item in "a")}

    identity = identify_data(DataLoader(Odd()))
    assert not identity["complete"]
    assert "identified only in part: 'source' is a builtins.generator; pass data_id=" in identity["says"]


@pytest.mark.parametrize("size", [1, 16, 17, 100, 1024, 1025])
def test_spread_places_are_even_and_each_comes_once(size: int) -> None:
    places = spread(range(size), 16)
    assert len(set(places)) == min(size, 16)
    assert max(np.diff(places), default=1) - min(np.diff(places), default=1) <= 1


def test_a_name_that_is_given_replaces_all() -> None:
    assert identify_data(iter([]), "mnist")["says"] == "the training data is named 'mnist' by the caller"
