"""Batches split and moved as they are, whatever holds their tensors."""

from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from transformers import BatchEncoding

from lottery_tickets._core.batches.samples import count_samples, join_batches, move_batch, split_batch


class Pair(NamedTuple):
    inputs: Tensor
    names: Any


def test_batches_keep_their_types_when_split() -> None:
    (first, share), _ = split_batch(Pair(torch.arange(5), [torch.arange(5), 3]), 3)
    assert isinstance(first, Pair)
    assert (first.inputs.tolist(), first.names[0].tolist(), first.names[1], share) == ([0, 1], [0, 1], 3, 0.4)
    assert split_batch("text", None) == [("text", 1.0)]
    assert count_samples({"a": torch.ones(2), "input_ids": torch.ones(3)}) == 3
    assert count_samples("text") is None


@pytest.mark.parametrize(
    ("batch", "match"),
    [
        ("text", "must hold tensors for max_batch_size to split it, but got str"),
        ({"x": torch.ones(4), "name": "text"}, "can split a batch of tensors, .* but this one holds a str"),
        ((torch.ones(4), ["a", "b", "c", "d"]), "holds a list with one item for each of its 4 samples"),
        ((torch.ones(3), [{"boxes": torch.ones(i, 4)} for i in (1, 2, 5)]), "holds a list with one item for each"),
    ],
)
def test_what_cannot_be_split_is_an_error(batch: Any, match: str) -> None:  # noqa: ANN401 - any batch
    with pytest.raises(ValueError, match=match):
        split_batch(batch, 2)


def test_batches_move_to_the_device() -> None:
    meta = torch.device("meta")
    batch = {"x": [torch.ones(2), 3], "y": Pair(torch.ones(2), "name")}
    moved = move_batch(batch, meta)
    assert (moved["x"][0].device, moved["x"][1], moved["y"].inputs.device, moved["y"].names) == (meta, 3, meta, "name")
    assert move_batch(batch, torch.device("cpu")) is batch
    assert move_batch(BatchEncoding({"input_ids": torch.ones(2)}), meta).input_ids.device == meta


def test_a_batch_that_moves_in_place_is_left_where_it_was() -> None:
    batch = BatchEncoding({"input_ids": torch.ones(2)})
    move_batch(batch, torch.device("meta"))
    assert batch.input_ids.device == torch.device("cpu")


def test_samples_of_several_batches_make_one() -> None:
    batches = [{"x": torch.full((size, 2), float(size)), "y": (torch.arange(size), 3, "name")} for size in (2, 3)]
    joined = join_batches(batches)
    assert joined["x"][:, 0].tolist() == [2, 2, 3, 3, 3]
    assert (joined["y"][0].tolist(), joined["y"][1:]) == ([0, 1, 0, 1, 2], (3, "name"))
    pair = join_batches([Pair(torch.ones(2), None), Pair(torch.ones(1), None)])
    assert isinstance(pair, Pair)
    assert len(pair.inputs) == 3
    weights = torch.ones(4)
    assert join_batches([(torch.ones(2, 3), weights), (torch.ones(3, 3), weights.clone())])[1].tolist() == [1] * 4


@pytest.mark.parametrize(
    "batches",
    [
        [torch.ones(2, 3), torch.ones(2, 4)],
        [torch.ones(2, 3), torch.ones(2, 3).double()],
        [(torch.ones(2), 1), (torch.ones(2), 2)],
        [(torch.ones(2), ["a", "b"]), (torch.ones(2), ["c", "d"])],
        [(torch.ones(2), object()), (torch.ones(2), object())],
        [(torch.ones(2), torch.ones(3)), (torch.ones(3), torch.ones(3))],
        [(torch.ones(2), torch.ones(3)), (torch.ones(4), torch.zeros(3))],
        [{"x": torch.ones(2)}, {"y": torch.ones(2)}],
        [(torch.ones(2),), (torch.ones(2), torch.ones(2))],
    ],
)
def test_batches_of_other_shapes_kinds_or_constants_are_not_joined(batches: list[Any]) -> None:
    assert join_batches(batches) is None
