"""How long a plan foretells: operations of one step at this machine's rates, where they were measured."""

import pytest
import torch
from torch import nn

from lottery_tickets import plan_memory
from lottery_tickets._core.rates.kept import DeviceRates, write_rates
from tests.lottery_tickets.planning.test_plan import IMAGE, make_config, make_network


def make_rates(*, flops: float = 1e9, without: str = "") -> dict[str, DeviceRates]:
    """Returns rates at which only products take any time."""
    points = {name: [(1, 1e-30)] for name in ("memory", "selection", "moving", "convolution float32")}
    points |= {"convolution, backward float32": [(1, 1e-30)], "product float32": [(1, 1 / flops)]}
    return {"cpu": DeviceRates("cpu", {name: found for name, found in points.items() if name != without})}


def test_times_are_those_of_the_operations_at_this_machine_s_rates() -> None:
    model = nn.Linear(100, 50, bias=False)
    batch = (torch.zeros(1, 100), torch.zeros(1, dtype=torch.int64))
    none = plan_memory(model, batch=batch, batch_size=8)
    assert none["times"] == "not measured: run lottery-tickets doctor"
    assert all(planned["step_seconds"] is None for planned in none["analyses"].values())
    write_rates(make_rates())
    found = plan_memory(model, batch=batch, batch_size=8, num_steps=30)
    assert found["times"] == "measured on this machine"
    forward = 2 * 8 * 100 * 50 / 1e9
    products = {"early_bird_sgd": 2, "early_bird_adamw": 2, "imp": 2, "robustness": 1, "quality": 1, "landscape": 1}
    products["fisher"] = 2  # the forward one, and the squares of gradients, which are outer products of squares
    for name, number in products.items():
        assert found["analyses"][name]["step_seconds"] == pytest.approx(number * forward, rel=1e-6)
    steps = {name: planned["num_steps"] for name, planned in found["analyses"].items()}
    assert steps == {
        "early_bird_sgd": 30, "early_bird_adamw": 30, "imp": 30, "fisher": 1000 // 8, "robustness": 21, "quality": None,
        "landscape": 626,
    }  # fmt: skip
    assert found["analyses"]["quality"]["expected_seconds"] is None
    assert found["analyses"]["landscape"]["expected_seconds"] == pytest.approx(626 * forward, rel=1e-6)


def test_times_that_were_not_measured_here_are_not_foretold() -> None:
    write_rates(make_rates(without="product float32"))
    found = plan_memory(make_network(), batch=IMAGE, batch_size=4)
    assert found["times"] == "not measured everywhere: no rate of a product in float32"
    assert all(planned["expected_seconds"] is None for planned in found["analyses"].values())
    write_rates(make_rates())
    gpu = plan_memory(make_network(), batch=IMAGE, batch_size=4, gpu_memory_gb=1)
    if not torch.cuda.is_available():
        assert gpu["times"] == "not measured, because this machine has no GPU"
        assert all(planned["step_seconds"] is None for planned in gpu["analyses"].values())
    with pytest.raises(ValueError, match="num_steps must be"):
        plan_memory(make_network(), batch=IMAGE, num_steps=0)


def test_per_sample_gradients_count_for_all_samples_though_few_are_run() -> None:
    write_rates(make_rates())
    config = make_config(tie_word_embeddings=False)
    seconds = [
        plan_memory(config, batch_size=size, num_tokens=16, analyses=["fisher"])["analyses"]["fisher"]["step_seconds"]
        for size in (8, 16)
    ]
    assert seconds[0] is not None
    assert seconds[1] == pytest.approx(2 * seconds[0], rel=0.01)
