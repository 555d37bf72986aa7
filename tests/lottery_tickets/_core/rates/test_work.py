"""What is counted of a call: torch's own FLOPs, those it leaves out, bytes of the rest, nothing of views."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from lottery_tickets._core.rates.work import (
    CONVOLUTION,
    CONVOLUTION_BACKWARD,
    MEMORY,
    PRODUCT,
    Operation,
    Work,
    WorkCounter,
)


def count(run: Callable[[], object]) -> Work:
    with WorkCounter() as counter:
        run()
    found: Work = counter.work
    return found


def count_flops(work: Work) -> float:
    kinds = {PRODUCT, CONVOLUTION, CONVOLUTION_BACKWARD}
    return sum(times * call.size for call, times in work.calls.items() if call.kind in kinds)


def test_a_training_step_has_the_flops_that_torch_counts() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(512, 10))
    images, classes = torch.randn(4, 3, 8, 8), torch.randint(10, (4,))

    def step() -> None:
        functional.cross_entropy(model(images), classes).backward()

    with FlopCounterMode(display=False) as torch_s:
        step()
    work = count(step)
    assert count_flops(work) == torch_s.get_total_flops() > 0
    assert {CONVOLUTION, CONVOLUTION_BACKWARD, PRODUCT, MEMORY} == {call.kind for call in work.calls}


def test_products_that_are_added_in_place_count() -> None:
    one, other = torch.ones(6, 5), torch.ones(5, 7)
    assert count_flops(count(lambda: torch.zeros(6, 7).addmm_(one, other))) == 2 * 6 * 5 * 7
    batched = torch.zeros(3, 6, 7), one.expand(3, 6, 5), other.expand(3, 5, 7)
    assert count_flops(count(lambda: batched[0].baddbmm_(*batched[1:]))) == 3 * 2 * 6 * 5 * 7


def test_attention_on_a_cpu_is_two_products_and_five_backward() -> None:
    shape = (2, 3, 16, 8)
    queries, keys, values = (torch.randn(shape, requires_grad=True) for _ in range(3))
    one = 2 * 2 * 3 * 16 * 16 * 8
    found: list[Tensor] = []
    attend = count(lambda: found.append(functional.scaled_dot_product_attention(queries, keys, values)))
    assert count_flops(attend) == 2 * one
    assert count_flops(count(lambda: found[0].backward(torch.ones(shape)))) == 5 * one


@pytest.mark.parametrize(
    ("run", "num_bytes"),
    [
        (lambda x: x + x[0], (1024 + 8 + 1024) * 4),
        (lambda x: x.add_(1), 2 * 1024 * 4),
        (lambda x: x.sum(), 1025 * 4),
        (lambda x: x.mT.view(8, 128)[2:], 0),
        (lambda x: x.expand(5, 128, 8), 0),
        (lambda _: torch.empty(1000), 0),
        (lambda x: functional.embedding(torch.tensor([3, 3]), x), 2 * 2 * 8 * 4),
    ],
)  # fmt: skip
def test_bytes_that_are_read_and_written(run: Callable[[Tensor], object], num_bytes: int) -> None:
    values = torch.zeros(128, 8)
    work = count(lambda: run(values))
    assert sum(call.size * times for call, times in work.calls.items()) == pytest.approx(num_bytes, abs=16)


def test_work_adds_up_and_counts_for_more() -> None:
    twice = WorkCounter()
    with twice, twice.counting_for_more(2.5):
        _ = torch.ones(4, 4) @ torch.ones(4, 4)
    assert twice.work.calls[Operation(PRODUCT, "float32", 128)] == 2.5
    both = twice.work + twice.work
    assert both.calls == {call: 2 * times for call, times in twice.work.calls.items()}
    assert both.num_calls == 2 * twice.work.num_calls
    assert Work.of("moving", [3, 3, 0]).calls == {Operation("moving", "", 3): 2}
