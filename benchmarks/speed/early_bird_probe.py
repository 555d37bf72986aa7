"""What a check with a probe costs beside the training it watches, at one check in 100 steps.

`python -m benchmarks.speed.early_bird_probe` takes turns on one thread: some steps of training, a check without a
probe, one with a probe of the default size, one that also puts weights back, and the start of a watch; it writes
`benchmarks/results/early_bird_probe.json`. The floor of a probe is the forward passes of twice its samples.
"""

import itertools
import statistics
from collections.abc import Callable, Mapping
from typing import Any, Final

import torch
from torch import nn

from benchmarks.common import take_turns, write_results
from benchmarks.studies.small_transformer import build_transformer
from lottery_tickets import EarlyBirdWatcher, Probe
from lottery_tickets._core.objective import compute_loss
from lottery_tickets.early_bird.exchanges import choose_num_samples
from lottery_tickets.workloads import load_workload

NUM_REPEATS: Final = 3
STEPS_A_CHECK: Final = 100
Case = tuple[nn.Module, Callable[[int], Any], int, int]


def main() -> None:
    """Measures each network, and writes."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rows = [measure(name, *make()) for name, make in CASES.items()]
    for row in rows:
        print(row)
    print(write_results("early_bird_probe", {"steps_a_check": STEPS_A_CHECK, "rows": rows}))


def measure(
    name: str, model: nn.Module, make_batch: Callable[[int], Any], batch_size: int, num_steps: int
) -> dict[str, Any]:
    """Returns seconds and ratios of one network, trained by SGD with momentum."""
    batch, num_samples = make_batch(batch_size), choose_num_samples(batch_size)
    probe = Probe([make_batch(batch_size) for _ in range(-(-num_samples // batch_size))])
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    plain, probed = EarlyBirdWatcher(model), EarlyBirdWatcher(model, probe=probe)
    learning = probed._learning  # noqa: SLF001 - its parts are timed
    assert learning is not None
    steps = itertools.count(1)

    def train() -> None:
        for _ in range(num_steps):
            optimizer.zero_grad()
            compute_loss(model, batch).backward()
            optimizer.step()

    def put_back() -> None:
        weights = probed._find(model)  # noqa: SLF001 - as above
        start = weights.with_values(probed.starting_weights)
        learning.put_back(model, weights, start, learning.look(model, weights, start))

    def run_forward() -> None:
        with torch.no_grad():
            for piece in learning.measure.pieces:
                for side in (piece.own, piece.exchanged):
                    compute_loss(model, side)

    seconds = take_turns(
        {
            "training": train,
            "check": lambda: plain.check(model, next(steps), {}),
            "check_with_probe": lambda: probed.check(model, next(steps), {}),
            "look_and_put_back": put_back,
            "forward": run_forward,
            "start": lambda: EarlyBirdWatcher(model, probe=probe),
        },
        NUM_REPEATS,
    )
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    training = medians["training"] * STEPS_A_CHECK / num_steps
    return {
        "name": name,
        "batch_size": batch_size,
        "num_samples": learning.measure.num_samples,
        "num_parts": len(learning.look(*_arguments(probed, model))["parts"]),
        "seconds": seconds,
        "training_seconds": training,
        "probe_over_training": (medians["check_with_probe"] - medians["check"]) / training,
        "check_over_training": medians["check_with_probe"] / training,
        "deciding_check_over_training": (medians["check"] + medians["look_and_put_back"]) / training,
        "floor_over_training": medians["forward"] / training,
        "probe_over_floor": (medians["check_with_probe"] - medians["check"]) / medians["forward"],
        "start_over_training": medians["start"] / training,
    }


def _arguments(watcher: EarlyBirdWatcher, model: nn.Module) -> tuple[Any, ...]:
    weights = watcher._find(model)  # noqa: SLF001 - as above
    return model, weights, weights.with_values(watcher.starting_weights)


def make_lenet(batch_size: int) -> Case:
    """Returns LeNet-300-100 for images of 28 x 28."""
    model = load_workload("fashion-mnist", "lenet-300-100").build_model(torch.Generator().manual_seed(0))
    return model, lambda size: (torch.randn(size, 1, 28, 28), torch.randint(10, (size,))), batch_size, STEPS_A_CHECK


def make_resnet() -> Case:
    """Returns ResNet-20 for images of 28 x 28."""
    model = load_workload("fashion-mnist", "resnet-20").build_model(torch.Generator().manual_seed(0))
    return model, lambda size: (torch.randn(size, 1, 28, 28), torch.randint(10, (size,))), 64, 5


def make_transformer() -> Case:
    """Returns the small transformer, in batches of 16 x 128 tokens."""
    return build_transformer(0), lambda size: {"input_ids": torch.randint(256, (size, 128))}, 16, 5


CASES: Final[Mapping[str, Callable[[], Case]]] = {
    "LeNet-300-100": lambda: make_lenet(60),
    "LeNet-300-100, batches of 8": lambda: make_lenet(8),
    "ResNet-20": make_resnet,
    "small transformer": make_transformer,
}


if __name__ == "__main__":
    main()
