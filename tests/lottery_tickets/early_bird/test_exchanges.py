"""Who exchanges targets with whom, in batches of any kind, and which samples a probe takes."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from lottery_tickets.early_bird.exchanges import IGNORED, choose_num_samples, draw_batches, make_exchange

INPUTS, TARGETS = torch.arange(10.0).view(5, 2), torch.arange(5)


@pytest.mark.parametrize(
    ("batch", "targets", "where"),
    [
        ((INPUTS, TARGETS), None, 1),
        ([INPUTS, TARGETS], None, 1),
        ({"pixels": INPUTS, "labels": TARGETS}, None, "labels"),
        ({"x": INPUTS, "y": TARGETS}, None, "y"),
        ({"x": INPUTS, "price": TARGETS}, "price", "price"),
        ((TARGETS, INPUTS), 0, 0),
    ],
)
def test_two_samples_exchange_their_targets_and_keep_their_inputs(batch: Any, targets: Any, where: Any) -> None:  # noqa: ANN401 - any batch
    order = torch.tensor([3, 1, 4, 0, 2])
    found = make_exchange(batch, targets, order)
    assert found.num_samples == 4  # the odd one is left out
    assert type(found.own) is type(batch)
    assert found.own[where].tolist() == [3, 1, 4, 0]
    assert found.exchanged[where].tolist() == [1, 3, 0, 4]
    others = [key for key in (batch if isinstance(batch, dict) else range(len(batch))) if key != where]
    for key in others:
        assert torch.equal(found.own[key], INPUTS[[3, 1, 4, 0]])
        assert torch.equal(found.exchanged[key], INPUTS[[3, 1, 4, 0]])
    pieces = list(found.cut(2))
    assert [piece.own[where].tolist() for piece in pieces] == [[3, 1], [4, 0]]
    assert [piece.exchanged[where].tolist() for piece in pieces] == [[1, 3], [0, 4]]


def test_tokens_are_exchanged_where_both_sequences_have_one() -> None:
    """What a network says to padding is no evidence."""
    tokens = torch.tensor([[1, 2, 3, 0], [4, 5, 6, 7]])
    attended = torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1]])
    found = make_exchange({"input_ids": tokens, "attention_mask": attended}, None, torch.arange(2))
    assert torch.equal(found.own["input_ids"], tokens)
    assert found.own["labels"].tolist() == [[1, 2, 3, IGNORED], [4, 5, 6, IGNORED]]
    assert found.exchanged["labels"].tolist() == [[4, 5, 6, IGNORED], [1, 2, 3, IGNORED]]


def test_what_cannot_exchange_is_refused_in_words() -> None:
    order = torch.arange(5)
    for batch in (INPUTS, {"x": INPUTS, "price": TARGETS}, (INPUTS, TARGETS, TARGETS)):
        with pytest.raises(ValueError, match=r"the targets of a batch must be known .*Probe\(batches, targets=\)"):
            make_exchange(batch, None, order)
    with pytest.raises(ValueError, match="targets of a batch must be known"):
        make_exchange((INPUTS, TARGETS), "labels", order)
    with pytest.raises(ValueError, match="holds only one"):
        make_exchange((INPUTS[:1], TARGETS[:1]), None, order[:1])
    with pytest.raises(ValueError, match="at least one batch"):
        draw_batches([], None, 0)
    with pytest.raises(TypeError, match="start anew"):
        draw_batches(iter([(INPUTS, TARGETS)]), None, 0)


def test_sorted_data_is_sampled_from_all_over() -> None:
    targets = torch.arange(10).repeat_interleave(100)
    data = TensorDataset(torch.arange(1000.0).view(-1, 1), targets)
    generator = torch.Generator().manual_seed(3)
    loader = DataLoader(data, 32, shuffle=True, generator=generator)
    before = generator.get_state()
    drawn = draw_batches(loader, 64, 0)
    assert torch.equal(generator.get_state(), before)
    assert len(torch.cat([batch[1] for batch in drawn]).unique()) == 10
    assert [len(batch[1]) for batch in drawn] == [32, 32]
    assert all(torch.equal(a[1], b[1]) for a, b in zip(drawn, draw_batches(loader, 64, 0), strict=True))
    listed = list(zip(data.tensors[0].split(10), targets.split(10), strict=True))
    spread = torch.cat([batch[1] for batch in draw_batches(listed, 100, 0)])
    assert len(spread) == 100
    assert len(spread.unique()) == 10


def test_how_many_samples_are_taken() -> None:
    assert [choose_num_samples(size) for size in (1, 8, 20, 32, 500)] == [64, 64, 160, 256, 256]
    pair = (torch.randn(400, 2), torch.zeros(400))
    assert [len(batch[0]) for batch in draw_batches(pair, None, 0)] == [256]
    assert [len(batch[0]) for batch in draw_batches([pair, pair], 30, 0)] == [30]


def test_repeated_samples_are_no_further_evidence() -> None:
    inputs = torch.randn(8, 3)
    again = [(inputs, TARGETS[0].expand(8)), (inputs.clone(), TARGETS[0].expand(8))]
    assert [len(batch[0]) for batch in draw_batches(again, None, 0)] == [8]
    other = [(inputs, torch.zeros(8)), (inputs, torch.ones(8))]
    assert [len(batch[0]) for batch in draw_batches(other, None, 0)] == [8, 8]


def test_batches_of_one_sample_are_joined() -> None:
    singles: list[dict[str, Tensor]] = [{"input_ids": torch.full((1, 4), number)} for number in range(5)]
    assert draw_batches(singles, None, 0)[0]["input_ids"][:, 0].tolist() == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match="each batch of the probe holds one sample, of another shape"):
        draw_batches([*singles, {"input_ids": torch.ones(1, 3)}], None, 0)
