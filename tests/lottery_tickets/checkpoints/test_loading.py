"""Of a streamed decoder no more weights are in memory than one layer beside the embeddings, or the head."""

import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lottery_tickets import CheckpointWeights, compute_performance, create_wanda_mask
from lottery_tickets.checkpoints import loading
from tests.lottery_tickets.checkpoints.decoders import make_batches, make_decoder, save_decoder

BATCHES = make_batches()


@pytest.fixture
def peaks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Bytes of weights that were in memory, each time that memory for another was taken."""
    found: list[int] = []
    alive: list[Callable[[], Any]] = []

    def make(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        assert dtype == torch.float32
        array = np.empty(shape, np.float32)
        alive.append(weakref.ref(array))  # which lives as long as a tensor has its memory
        found.append(sum(one.nbytes for one in (ref() for ref in alive) if one is not None))
        return torch.from_numpy(array)

    monkeypatch.setattr(loading, "torch", SimpleNamespace(empty=make, equal=torch.equal))
    return found


@pytest.mark.parametrize("kind", ["llama", "llama, tied", "gpt2"])
@pytest.mark.parametrize("run", ["performance", "wanda"])
def test_weights_in_memory(run: str, kind: str, peaks: list[int], tmp_path: Path) -> None:
    model = make_decoder(kind)
    weights = CheckpointWeights(save_decoder(model, tmp_path))
    if run == "performance":
        compute_performance(weights, BATCHES)
    else:
        create_wanda_mask(weights, BATCHES, 0.5)
    sizes = {name: 4 * parameter.numel() for name, parameter in model.named_parameters()}
    layer = sum(size for name, size in sizes.items() if ".layers.0." in name or ".h.0." in name)
    head = sizes.get("lm_head.weight", 0)
    outside = sum(size for name, size in sizes.items() if ".layers." not in name and ".h." not in name) - head
    assert max(peaks) == outside + max(layer, head if run == "performance" else 0)
