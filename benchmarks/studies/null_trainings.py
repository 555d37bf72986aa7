"""Weights that no data moves, or hardly, and some that digits train, watched by the early-bird watcher.

Each yields the model before the first check, then once for each check. Small, so that hundreds run in minutes.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial

import torch
from torch import nn

from lottery_tickets import ConvergenceRule, EarlyBirdWatcher, Probe
from lottery_tickets._core.batches.tensor_batches import TensorBatches
from lottery_tickets.early_bird.history import EarlyBirdCheckpoint
from lottery_tickets.workloads import Workload, load_workload

NUM_CHECKS = 12
STEPS_A_CHECK = 20

Losses = Iterator[tuple[nn.Module, float | None]]
Simulation = Callable[[int], Losses]


def watch(
    simulation: Simulation, seed: int, rules: Sequence[tuple[ConvergenceRule, float]], *, channels: bool = False
) -> list[list[EarlyBirdCheckpoint]]:
    """Returns the checks of one simulated training, for each pair of a rule and a sparsity."""
    training = simulation(seed)
    model, loss = next(training)
    return follow(model, None if channels else make_probe(), loss, training, rules, channels=channels)


def follow(
    model: nn.Module,
    probe: Probe | None,
    loss: float | None,
    training: Losses,
    rules: Sequence[tuple[ConvergenceRule, float]],
    *,
    channels: bool,
) -> list[list[EarlyBirdCheckpoint]]:
    """Returns the checks of one training, for each pair of a rule and a sparsity.

    Args:
        model: With its starting weights.
        probe: What learning is measured on.
        loss: At the start, where it is told.
        training: Yields at each check.
        rules: Each with a sparsity.
        channels: Whether the scales of batch norm are ranked.
    """
    watchers = [
        EarlyBirdWatcher(
            model, target_sparsity=sparsity, rule=rule, check_steps=STEPS_A_CHECK, channels=channels, probe=probe
        )
        for rule, sparsity in rules
    ]
    for watcher in watchers:
        watcher.observe(model, 0, loss=loss)
    for check, (present, present_loss) in enumerate(training, start=1):
        for watcher in watchers:
            watcher.observe(present, check * STEPS_A_CHECK, epoch=check, loss=present_loss)
    return [watcher.checkpoints for watcher in watchers]


def make_probe() -> Probe:
    """Returns digits that are not trained on, for networks of any dtype."""
    data = load_digits().data
    batches = list(zip(data.validation_inputs.split(64), data.validation_targets.split(64), strict=True))

    def compute(model: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        dtype = next(model.parameters()).dtype
        return nn.functional.cross_entropy(model(batch[0].to(dtype)), batch[1])

    return Probe(batches, compute)


def simulate_independent(seed: int) -> Losses:
    """Weights that have nothing to do with those of the check before."""
    for check in range(NUM_CHECKS + 1):
        yield build_model(1000 * seed + check), None


def simulate_noise(
    seed: int,
    *,
    make_optimizer: Callable[[list[nn.Parameter]], torch.optim.Optimizer],
    decays: bool = False,
    build: Callable[[int], nn.Module] | None = None,
) -> Losses:
    """Gradients that are independent Gaussian noise, in an optimizer that does not know it."""
    model = (build or build_model)(seed)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = make_optimizer(parameters)
    base_lr = optimizer.param_groups[0]["lr"]
    generator = torch.Generator().manual_seed(seed)
    yield model, None
    num_steps = NUM_CHECKS * STEPS_A_CHECK
    for step in range(num_steps):
        if decays:
            optimizer.param_groups[0]["lr"] = base_lr * 0.5 * (1 + math.cos(math.pi * step / num_steps))
        for parameter in parameters:
            parameter.grad = torch.randn(parameter.shape, generator=generator).to(parameter.dtype)
        optimizer.step()
        if (step + 1) % STEPS_A_CHECK == 0:
            yield model, None


def simulate_drift(seed: int) -> Losses:
    """Weights that move straight on at a constant, slow rate, and never arrive."""
    model = build_model(seed)
    direction = build_model(seed + 10_000)
    yield model, None
    for _ in range(NUM_CHECKS):
        with torch.no_grad():
            for parameter, by in zip(model.parameters(), direction.parameters(), strict=True):
                parameter.add_(by, alpha=0.03)
        yield model, None


def simulate_training(
    seed: int,
    *,
    make_optimizer: Callable[[list[nn.Parameter]], torch.optim.Optimizer],
    dtype: torch.dtype = torch.float32,
    tells_loss: bool = True,
    shuffles_labels: bool = False,
) -> Losses:
    """LeNet-300-100 on the digits, really trained."""
    workload = load_digits()
    model = build_model(seed).to(dtype)
    optimizer = make_optimizer(list(model.parameters()))
    data = workload.data
    batches = TensorBatches(data.train_inputs.to(dtype), data.train_targets, 60, seed).from_step(0)
    generator = torch.Generator().manual_seed(seed)
    for step, (inputs, targets) in enumerate(itertools.islice(batches, NUM_CHECKS * STEPS_A_CHECK + 1)):
        labels = torch.randint(data.num_classes, targets.shape, generator=generator) if shuffles_labels else targets
        loss = nn.functional.cross_entropy(model(inputs), labels)
        if step % STEPS_A_CHECK == 0:
            yield model, float(loss.detach()) if tells_loss else None
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def make_sgd(
    parameters: list[nn.Parameter], *, lr: float, momentum: float = 0.0, decay: float = 0.0
) -> torch.optim.SGD:
    """Returns SGD."""
    return torch.optim.SGD(parameters, lr=lr, momentum=momentum, weight_decay=decay)


def make_adam(parameters: list[nn.Parameter], *, lr: float) -> torch.optim.Adam:
    """Returns Adam."""
    return torch.optim.Adam(parameters, lr=lr)


@cache
def load_digits() -> Workload:
    """Returns the digits with LeNet-300-100."""
    return load_workload("digits", "lenet-300-100")


def build_model(seed: int) -> nn.Module:
    """Returns a fresh LeNet-300-100 for the digits."""
    return load_digits().build_model(torch.Generator().manual_seed(seed))


def build_norms(seed: int) -> nn.Module:
    """Returns batch norms of 1,000 channels whose scales are 1, as at the start of every training."""
    del seed
    return nn.Sequential(*[nn.BatchNorm1d(200) for _ in range(5)])


NULLS: dict[str, Simulation] = {
    "independent weights": simulate_independent,
    "learning rate 0": partial(simulate_training, make_optimizer=partial(make_sgd, lr=0.0)),
    "learning rate 1e-6": partial(simulate_training, make_optimizer=partial(make_sgd, lr=1e-6)),
    "bfloat16, plain SGD at 1e-4": partial(
        simulate_training, make_optimizer=partial(make_sgd, lr=1e-4), dtype=torch.bfloat16
    ),
    "labels drawn anew each step": partial(
        simulate_training,
        make_optimizer=partial(make_sgd, lr=0.1, momentum=0.9),
        shuffles_labels=True,
    ),
    "noise, SGD at 1e-4": partial(simulate_noise, make_optimizer=partial(make_sgd, lr=1e-4)),
    "noise, SGD at 3e-3": partial(simulate_noise, make_optimizer=partial(make_sgd, lr=3e-3)),
    "noise, SGD at 3e-2": partial(simulate_noise, make_optimizer=partial(make_sgd, lr=3e-2)),
    "noise, momentum": partial(simulate_noise, make_optimizer=partial(make_sgd, lr=1e-3, momentum=0.9)),
    "noise, weight decay": partial(simulate_noise, make_optimizer=partial(make_sgd, lr=1e-2, decay=0.5)),
    "noise, Adam": partial(simulate_noise, make_optimizer=partial(make_adam, lr=1e-3)),
    "noise, decaying learning rate": partial(simulate_noise, make_optimizer=partial(make_sgd, lr=1e-2), decays=True),
    "steady drift": simulate_drift,
}
CHANNEL_NULLS: dict[str, Simulation] = {
    "channels, noise": partial(simulate_noise, make_optimizer=partial(make_sgd, lr=3e-3), build=build_norms),
    "channels, noise and decay": partial(
        simulate_noise, make_optimizer=partial(make_sgd, lr=1e-2, decay=0.5), decays=True, build=build_norms
    ),
}
EMERGENCES: dict[str, Simulation] = {
    "SGD 0.1, momentum 0.9": partial(simulate_training, make_optimizer=partial(make_sgd, lr=0.1, momentum=0.9)),
    "Adam 1.2e-3": partial(simulate_training, make_optimizer=partial(make_adam, lr=1.2e-3)),
    "Adam 1.2e-3, loss not told": partial(
        simulate_training, make_optimizer=partial(make_adam, lr=1.2e-3), tells_loss=False
    ),
}
