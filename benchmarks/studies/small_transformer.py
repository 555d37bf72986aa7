"""A transformer small enough to be trained from scratch in minutes: Llama's architecture over bytes of English text."""

from collections.abc import Iterator
from functools import cache
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from lottery_tickets.workloads import load_speeches

SIZES: Final = {
    "vocab_size": 256,
    "hidden_size": 128,
    "intermediate_size": 352,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


def build_transformer(seed: int, **sizes: int) -> nn.Module:
    """Returns a fresh Llama, by default of 4 layers and width 128 over 256 byte values: 0.85 M parameters."""
    config: dict[str, Any] = {**SIZES, **sizes, "use_cache": False}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return LlamaForCausalLM(LlamaConfig(**config))


def load_bytes(seed: int, *, batch_size: int, num_tokens: int) -> Iterator[dict[str, Tensor]]:
    """Yields endless batches of sequences cut at random places from the speeches given before 2000."""
    text = _read_text()
    generator = torch.Generator().manual_seed(seed)
    places = torch.arange(num_tokens)
    while True:
        starts = torch.randint(len(text) - num_tokens, (batch_size, 1), generator=generator)
        yield {"input_ids": text[starts + places].long()}


@cache
def _read_text() -> Tensor:
    joined: Any = "\n".join(load_speeches().train).encode()
    return torch.from_numpy(np.frombuffer(joined, np.uint8).copy())
