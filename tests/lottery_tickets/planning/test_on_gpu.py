"""What a plan for a GPU counts otherwise than one for a CPU; `benchmarks.memory.plan gpu` compares one with a GPU."""

import pytest
import torch
from torch import nn
from transformers import Qwen2Config, Qwen2ForCausalLM

from lottery_tickets import plan_memory
from lottery_tickets._core.memory.stand_in import StandIn
from lottery_tickets.planning.passes import run_backward

HEADS, SAMPLES, TOKENS = 8, 2, 128
PRODUCTS = 4 * SAMPLES * HEADS * TOKENS**2  # bytes of all products of queries and keys of a layer, in float32


def make(*, key_heads: int = HEADS, dtype: torch.dtype = torch.float32) -> nn.Module:
    config = Qwen2Config(
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=HEADS,
        num_key_value_heads=key_heads,
        vocab_size=64,
    )
    with torch.device("meta"):
        model: nn.Module = Qwen2ForCausalLM(config)
        return model.to(dtype)


@pytest.mark.parametrize(
    ("key_heads", "dtype", "is_held"),
    [(2, torch.float32, True), (HEADS, torch.float32, False), (2, torch.bfloat16, False), (HEADS, torch.float64, True)],
)
def test_attention_without_a_fused_kernel_holds_all_products(key_heads: int, dtype: torch.dtype, is_held: bool) -> None:
    model = make(key_heads=key_heads, dtype=dtype)
    peaks = []
    for on_gpu in (True, False):
        stand_in = StandIn(model, on_gpu=on_gpu)
        batch = stand_in.make_batch({"input_ids": torch.zeros(1, TOKENS, dtype=torch.int64)}, SAMPLES)
        names = [name for name in stand_in.parameters if "proj" in name]
        peaks.append(sum(run_backward(stand_in, batch, names, None).parts.values()))
    assert (peaks[0] - peaks[1] > PRODUCTS // 2) == is_held


def test_scores_of_float32_run_in_mixed_precision_on_a_gpu() -> None:
    def find_peak(dtype: torch.dtype, gpu: float | None) -> int:
        model = make(dtype=dtype)
        plan = plan_memory(model, batch_size=SAMPLES, num_tokens=TOKENS, gpu_memory_gb=gpu, analyses=["fisher"])
        assert not plan["notes"]
        return plan["analyses"]["fisher"]["device_bytes"]

    assert find_peak(torch.float32, 80) < find_peak(torch.float32, None)
    assert find_peak(torch.bfloat16, 80) == find_peak(torch.bfloat16, None)


def test_sums_of_scores_are_there_when_the_second_batch_comes() -> None:
    """So their bytes lie beside the largest moment of a pass, which comes before any gradient is complete."""
    model = nn.Sequential(nn.Linear(1000, 1000), nn.Linear(1000, 10_000))
    batch = torch.zeros(1, 1000), torch.zeros(1, dtype=torch.int64)
    parts = plan_memory(model, batch=batch, analyses=["fisher"])["analyses"]["fisher"]["parts"]
    assert parts["sums of scores"] == 4 * (1000 * 1000 + 1000 * 10_000)
