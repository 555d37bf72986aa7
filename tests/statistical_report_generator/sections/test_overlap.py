"""Unrelated masks are at chance as often as the level says, and masks that share more are beyond it."""

import torch

from lottery_tickets import (
    Mask,
    compute_change_mask,
    compute_overlap_matrix,
    compute_ticket_overlap,
    create_random_mask,
    shuffle_mask,
)
from statistical_report_generator.document import Table, Verdicts
from statistical_report_generator.kinds import KINDS
from statistical_report_generator.reading import read_sources
from statistical_report_generator.sections.experiment import ExperimentOptions

SHAPES = Mask.from_tensors({"a": torch.zeros(60, 50), "b": torch.zeros(20, 10), "c": torch.zeros(7, 5)})
MASK = create_random_mask(SHAPES, 0.9, 0)
NUM_PAIRS = 200


def judge(first: Mask, second: Mask) -> str:
    [source] = read_sources(compute_ticket_overlap(first, second))
    sections = KINDS[source.kind].describe(source, ExperimentOptions())
    [verdicts] = [block for block in sections[0].blocks if isinstance(block, Verdicts)]
    return verdicts.items[0][0]


def test_unrelated_masks_are_at_chance() -> None:
    pairs = ((shuffle_mask(MASK, 2 * seed), shuffle_mask(MASK, 2 * seed + 1)) for seed in range(NUM_PAIRS))
    odd = [word for pair in pairs if (word := judge(*pair)) != "at chance"]
    assert len(odd) <= 4  # 0.4 are expected at 0.001 to each side; five or more come once in 20,000


def test_masks_that_share_a_little_more_or_less_are_told() -> None:
    kept = {name: tensor.clone() for name, tensor in shuffle_mask(MASK, 1).items()}
    for name, tensor in MASK.items():
        kept[name][: len(tensor) // 3] = tensor[: len(tensor) // 3]
    assert judge(MASK, Mask.from_tensors(kept)) == "beyond chance"
    half = {name: tensor.clone() for name, tensor in create_random_mask(SHAPES, 0.5, 1).items()}
    assert judge(Mask.from_tensors(half), Mask.from_tensors({name: ~tensor for name, tensor in half.items()})) == (
        "below chance"
    )


def test_verdicts_given_the_weights_are_those_of_the_results() -> None:
    torch.manual_seed(0)
    weights = {"a.weight": (0.02 * torch.randn(200, 100)).bfloat16()}
    first, second = (
        compute_change_mask(weights, {"a.weight": (weights["a.weight"] + 3e-6 * torch.randn(200, 100)).bfloat16()})
        for _ in range(2)
    )
    assert judge(first, second) == "beyond chance"  # by layer
    for found in (
        compute_ticket_overlap(first, second, given=weights),
        compute_overlap_matrix({"one": first, "two": second}, given=weights),
    ):
        [source] = read_sources(found)
        sections = KINDS[source.kind].describe(source, ExperimentOptions())
        [verdicts] = [block for block in sections[0].blocks if isinstance(block, Verdicts)]
        [(word, sentence)] = verdicts.items
        assert word == "at chance"
        assert "the error rate is 1 % on either side" in sentence
        [table] = [block for section in sections if section.title == "Beside chance" for block in section.blocks]
        assert isinstance(table, Table)
        assert table.rows[0][1] == "of all weights"
        assert table.rows[3][1] == "of each value, to 7 bits, in each layer"
