import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from lottery_tickets import compute_fisher_importance, recommend_settings


@pytest.mark.parametrize(
    ("num_params", "batch_size", "fisher_samples", "chunk_size", "grid_points", "early_bird_batch_size"),
    [
        (135e6, 64, 1000, None, 25, 64),
        (0.999e9, 64, 1000, None, 25, 64),
        (1e9, 32, 500, 100_000_000, 19, 4),
        (2.9e9, 32, 500, 100_000_000, 19, 4),
        (3e9, 16, 200, 50_000_000, 15, 4),
        (7e9, 16, 200, 50_000_000, 15, 4),
        (7.1e9, 8, 100, 25_000_000, 11, 2),
        (70e9, 8, 100, 25_000_000, 11, 2),
    ],
)
def test_the_table_people_are_told(  # noqa: PLR0917 - the table's columns
    num_params: float, batch_size: int, fisher_samples: int, chunk_size: int | None, grid_points: int,
    early_bird_batch_size: int,
) -> None:  # fmt: skip
    found = recommend_settings(num_params)
    assert found["batch_size"] == batch_size
    assert found["fisher_samples"] == fisher_samples
    assert found["chunk_size"] == chunk_size
    assert found["grid_points"] == grid_points
    assert found["early_bird_batch_size"] == early_bird_batch_size
    assert found["early_bird_sparsity"] == {"classification": 0.7, "language modelling": 0.5, "fine-tuning": 0.3}
    assert found["fits"] is None


def test_a_14_b_model_on_80_gb() -> None:
    """The published sizes of Qwen2.5-14B: bf16 weights of 29.54 GB."""
    found = recommend_settings(14.770e9, 80)
    assert found["predicted_memory_gb"]["weights"] == pytest.approx(29.54)
    # Weights, gradients and two states of 2 bytes each, as benchmarks/results/training_memory.json measured.
    assert found["predicted_memory_gb"]["early_bird_adamw"] == pytest.approx(8 * 14.770)
    assert found["predicted_memory_gb"]["fisher"] == pytest.approx(6 * 14.770)
    assert found["optimizer"] == "sgd"
    assert found["fits"] is not None
    assert found["fits"]["early_bird_sgd"]
    assert not found["fits"]["early_bird_adamw"]


def test_small_models_train_with_adamw_and_gpus_change_chunks() -> None:
    assert recommend_settings(135e6, 16)["optimizer"] == "adamw"
    chunks = [recommend_settings(2e9, gb)["chunk_size"] for gb in (16, 40, 80)]
    assert chunks == [25_000_000, 100_000_000, None]
    assert recommend_settings(14e9, 80)["chunk_size"] == 100_000_000


def test_a_model_is_counted_exactly_and_its_settings_are_taken_by_the_functions_they_are_for() -> None:
    model = nn.Sequential(nn.Linear(10, 20, dtype=torch.bfloat16), nn.Linear(20, 3))
    found = recommend_settings(model, 16)
    assert found["num_params"] == 220 + 63
    memory = found["predicted_memory_gb"]
    assert memory["weights"] == pytest.approx((2 * 220 + 4 * 63) / 1e9)
    assert memory["early_bird_sgd"] == pytest.approx((2 * 220 + 4 * 63 + 2 * 200) / 1e9)
    network = nn.Linear(4, 2)
    settings = recommend_settings(network, 16)
    data = [(torch.randn(8, 4), torch.randint(2, (8,)))]
    fisher = compute_fisher_importance(
        network, data, num_samples=settings["fisher_samples"], chunk_size=settings["chunk_size"]
    )
    assert fisher.report["num_samples"] == 8


@given(st.floats(1, 1e12), st.floats(1, 1e12))
def test_larger_models_never_get_larger_settings(first: float, second: float) -> None:
    small, large = (recommend_settings(n) for n in sorted((first, second)))
    for name in ("batch_size", "fisher_samples", "grid_points", "early_bird_batch_size"):
        assert small[name] >= large[name]
    assert (small["chunk_size"] or 1e18) >= (large["chunk_size"] or 1e18)


def test_bad_input() -> None:
    with pytest.raises(TypeError, match="settings are for a model or a number of parameters, but got str"):
        recommend_settings("7B")  # type: ignore[arg-type]
    for number in (0, -3):
        with pytest.raises(ValueError, match="a model must have at least one parameter"):
            recommend_settings(number)
    for infinite in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="the number of parameters must be finite"):
            recommend_settings(infinite)
    with pytest.raises(ValueError, match="a model must have at least one parameter, got 0"):
        recommend_settings(nn.ReLU())
    for memory in (0, -1, float("nan"), float("inf"), True, "80"):
        with pytest.raises(ValueError, match="gpu_memory_gb must be a positive number"):
            recommend_settings(1e9, memory)  # type: ignore[arg-type]
