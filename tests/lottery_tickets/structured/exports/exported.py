"""What is exported in tests: a network with images, and a language model in a folder with its tokenizer."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lottery_tickets import Mask, create_unit_mask
from lottery_tickets.workloads import build_model, load_language_model
from tests.models import save_tiny_llama

Batch = tuple[Tensor, Tensor]


def make_resnet(seed: int = 0) -> nn.Module:
    """Returns ResNet-20 for small images, with batch norms that have seen some."""
    generator = torch.Generator().manual_seed(seed)
    model = build_model("resnet-20", input_shape=(1, 8, 8), num_classes=10, generator=generator)
    model(torch.randn(16, 1, 8, 8, generator=generator))
    return model


def make_images(num: int = 4) -> Batch:
    """Returns a batch of noise."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(num, 1, 8, 8, generator=generator), torch.arange(num) % 10


def make_small() -> tuple[nn.Module, Mask, Batch]:
    """Returns a perceptron, its mask, which empties one unit, and a batch."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    mask = Mask.from_tensors({"2.weight": torch.tensor([[True, False, True], [False, False, True]])})
    return model, mask, (torch.randn(2, 4), torch.tensor([0, 1]))


def make_llama(folder: Path) -> tuple[Any, Mask, dict[str, Tensor]]:
    """Returns a tiny Llama of a folder that is written, half of its neurons as a mask, and a batch."""
    model, _ = load_language_model(save_tiny_llama(folder))
    return model, create_unit_mask(model, 0.5, units="neurons"), {"input_ids": torch.arange(8).view(2, 4)}
