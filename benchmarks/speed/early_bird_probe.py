"""What a check with a probe costs beside the training it watches, at one check in 100 steps.

`python -m benchmarks.speed.early_bird_probe` takes turns on one thread: some steps of training, a check without a
probe, one with a probe of the default size, what putting weights back adds to it, and the start of a watch. Then LeNet
is trained on Fashion-MNIST and watched from its start on, all of which is counted. It writes
`benchmarks/results/early_bird_probe.json`. The floor is one forward pass of the probe and one look at each magnitude.
"""

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.common import take_turns, write_results
from benchmarks.studies.small_transformer import build_transformer
from lottery_tickets import EarlyBirdWatcher, Probe
from lottery_tickets._core.batches.samples import move_batch
from lottery_tickets._core.batches.tensor_batches import TensorBatches
from lottery_tickets._core.objective import compute_loss
from lottery_tickets._core.weights import Weights
from lottery_tickets.early_bird.exchanges import choose_num_samples
from lottery_tickets.early_bird.history import PartEvidence
from lottery_tickets.workloads import build_model, load_workload

NUM_REPEATS: Final = 5
NUM_REPEATS_OF_SHORT: Final = 40  # of networks whose steps take milliseconds, which a busy machine hurts most
STEPS_A_CHECK: Final = 100
WATCHED_BATCHES: Final = (60, 8)
NUM_WATCHED_STEPS: Final = 3000
Case = tuple[nn.Module, Callable[[int], Any], int, int]


def main() -> None:
    """Measures each network, and writes."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rows = [measure(name, *make()) for name, make in CASES.items()]
    for row in rows:
        print(row)
    watches = [watch(batch_size) for batch_size in WATCHED_BATCHES]
    print(watches)
    print(write_results("early_bird_probe", {"steps_a_check": STEPS_A_CHECK, "rows": rows, "watches": watches}))


def watch(batch_size: int) -> dict[str, Any]:
    """Returns what a watch of a real training takes, to its verdict: its start, all checks, and what they put back."""
    data = load_workload("fashion-mnist", "lenet-300-100").data
    model = build_image_model("lenet-300-100")
    held_out = DataLoader(TensorDataset(data.validation_inputs, data.validation_targets), batch_size)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1 * batch_size / 64, momentum=0.9)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, NUM_WATCHED_STEPS)
    batches = TensorBatches(data.train_inputs, data.train_targets, batch_size, 0).from_step(0)
    began = time.process_time()
    watcher = EarlyBirdWatcher(model, check_steps=STEPS_A_CHECK, probe=Probe(held_out))
    start_seconds, watching_seconds = time.process_time() - began, 0.0
    for step in range(1, NUM_WATCHED_STEPS + 1):
        loss = compute_loss(model, next(batches))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        before = time.process_time()
        watcher.observe(model, step, loss=loss.detach())
        watching_seconds += time.process_time() - before
        if watcher.should_stop:
            break
    training_seconds = time.process_time() - began - start_seconds - watching_seconds
    return {
        "batch_size": batch_size,
        "num_steps": step,
        "verdict": watcher.verdict,
        "num_put_back": sum(p["closing_p"] is not None for c in watcher.checkpoints for p in c["parts"]),
        "training_seconds": training_seconds,
        "watching_over_training": watching_seconds / training_seconds,
        "with_start_over_training": (start_seconds + watching_seconds) / training_seconds,
    }


def measure(  # noqa: PLR0917 - what a case is, and where
    name: str,
    model: nn.Module,
    make_batch: Callable[[int], Any],
    batch_size: int,
    num_steps: int,
    device: torch.device | None = None,
) -> dict[str, Any]:
    """Returns seconds and ratios of one network, trained by SGD with momentum."""
    model, make_batch = model.to(device), make_moving(make_batch, device)
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

    weights = probed._find(model)  # noqa: SLF001 - as above
    start = weights.with_values(probed.starting_weights)
    parts = sorted(learning.look(model, weights, start)["parts"], key=lambda part: -part["num_weights"])
    fewest = next(num for num in range(1, len(parts) + 1) if 2 * sum_sizes(parts[:num]) >= sum_sizes(parts))

    def put_back(num_parts: int) -> None:
        now = probed._find(model)  # noqa: SLF001 - as above
        for part in parts[:num_parts]:
            learning.put_back(model, now, start, part)

    def run_forward() -> None:
        with torch.no_grad():
            for piece in learning.measure.pieces:
                compute_loss(model, piece.own)

    seconds = take_turns(
        {
            "training": train,
            "check": lambda: plain.check(model, next(steps), {}),
            "check_with_probe": lambda: probed.check(model, next(steps), {}),
            "put_back": lambda: put_back(fewest),
            "put_all_back": lambda: put_back(len(parts)),
            "look_at_magnitudes": lambda: look_at_magnitudes(weights),
            "forward": run_forward,
            "start": lambda: EarlyBirdWatcher(model, probe=probe),
        },
        NUM_REPEATS_OF_SHORT if num_steps == STEPS_A_CHECK else NUM_REPEATS,
        collect=False,
    )
    least = {name: min(values) for name, values in seconds.items()}  # others share the machine
    training = least["training"] * STEPS_A_CHECK / num_steps
    return {
        "name": name,
        "batch_size": batch_size,
        "num_samples": learning.measure.num_samples,
        "num_parts": len(parts),
        "num_parts_put_back": fewest,
        "seconds": seconds,
        "training_seconds": training,
        "probe_over_training": (least["check_with_probe"] - least["check"]) / training,
        "check_over_training": least["check_with_probe"] / training,
        "deciding_check_over_training": (least["check_with_probe"] + least["put_back"]) / training,
        "worst_check_over_training": (least["check_with_probe"] + least["put_all_back"]) / training,
        "floor_over_training": (least["forward"] + least["look_at_magnitudes"]) / training,
        "probe_over_floor": (least["check_with_probe"] - least["check"]) / least["forward"],
        "start_over_training": least["start"] / training,
    }


def make_moving(make_batch: Callable[[int], Any], device: torch.device | None) -> Callable[[int], Any]:
    """Returns what makes batches on a device."""
    return make_batch if device is None else lambda size: move_batch(make_batch(size), device)


def look_at_magnitudes(weights: Weights) -> None:
    """Looks at each magnitude once."""
    with torch.no_grad():
        for weight in weights.values():
            weight.tensor.abs().sum()


def sum_sizes(parts: Sequence[PartEvidence]) -> int:
    """Returns how many weights some parts have."""
    return sum(part["num_weights"] for part in parts)


def build_image_model(name: str) -> nn.Module:
    """Returns a network for images of 28 x 28 of 10 classes."""
    generator = torch.Generator().manual_seed(0)
    return build_model(name, input_shape=(1, 28, 28), num_classes=10, generator=generator)


def make_lenet(batch_size: int) -> Case:
    """Returns LeNet-300-100 for images of 28 x 28."""
    model = build_image_model("lenet-300-100")
    return model, lambda size: (torch.randn(size, 1, 28, 28), torch.randint(10, (size,))), batch_size, STEPS_A_CHECK


def make_resnet() -> Case:
    """Returns ResNet-20 for images of 28 x 28."""
    model = build_image_model("resnet-20")
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
