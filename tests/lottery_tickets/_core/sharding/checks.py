"""What is checked in each process: a sharded model or mapping gives, gathered, what a plain one gives."""

import contextlib
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor

from lottery_tickets._core.selection import largest
from lottery_tickets._core.selection.scopes import select_in_scope
from lottery_tickets._core.weights import Weights
from lottery_tickets.masks import Mask
from tests.sharded import make_mesh, shard_all

SCOPES = ("global", "layer", "row", "erk", "lamp", "2:4")
DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def draw_tensors(generator: np.random.Generator, scope: str) -> dict[str, Tensor]:
    """Returns up to four weights of random shapes and dtypes, with many ties, or none."""
    tensors = {}
    for place in range(int(generator.integers(1, 5))):
        shape = tuple(int(size) for size in generator.integers(0, 8, int(generator.integers(0, 4))))
        if scope == "2:4":
            shape = (int(generator.integers(0, 6)), 4 * int(generator.integers(1, 4)))
        values = generator.standard_normal(shape)
        if generator.random() < 0.6:
            values = np.round(values)
        tensors[f"weight{place}"] = torch.tensor(values).to(DTYPES[int(generator.integers(len(DTYPES)))])
    return tensors


@contextlib.contextmanager
def guessing(is_wanted: bool) -> Iterator[None]:
    """Lets few weights be selected by a guess, as many are."""
    with patch.object(largest, "SMALLEST_TO_SAMPLE", 0 if is_wanted else largest.SMALLEST_TO_SAMPLE):
        yield


def select(weights: Weights, sparsity: float, scope: str, within: Any) -> Mask:  # noqa: ANN401 - bits by name
    """Returns the mask of weights."""
    bits = select_in_scope(weights, None if ":" in scope else sparsity, scope=scope, within=within)
    return Mask(bits, weights.shapes, {}, weights.shards)


def check_selection(shapes: list[tuple[int, ...]], seeds: range) -> int:
    """Compares masks of randomly sharded weights with those of plain ones; returns how many had ties to resolve."""
    num_tied = 0
    for seed in seeds:
        generator = np.random.default_rng(seed)
        mesh = make_mesh(*shapes[seed % len(shapes)])
        scope = SCOPES[int(generator.integers(len(SCOPES)))]
        plain = draw_tensors(generator, scope)
        shared = Weights.from_tensors(shard_all(generator, plain, mesh))
        sparsity = float(generator.choice([0.0, 0.3, 0.5, 0.7, 1.0]))
        weights = Weights.from_tensors(plain)
        with guessing(bool(generator.random() < 0.5)):
            expected, found = (select(each, sparsity, scope, None) for each in (weights, shared))
            assert found.gather() == expected, (seed, scope)
            assert found.num_kept == expected.num_kept
            assert found.layer_sparsity() == expected.layer_sparsity()
            if scope not in {"2:4", "row"} and sparsity < 1:  # again, among the survivors
                denser, local = expected.bits, found.bits
                again = [
                    select(each, (1 + sparsity) / 2, "global", bits)
                    for each, bits in ((weights, denser), (shared, local))
                ]
                assert again[1].gather() == again[0], (seed, "within")
        num_tied += any(tensor.abs().unique().numel() < tensor.numel() for tensor in plain.values())
    return num_tied
