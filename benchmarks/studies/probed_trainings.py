"""Trainings with real gradients, watched on a probe: some in which inputs say nothing, some real ones.

All are small: hundreds run in minutes. Each is a `Recipe`; those that cannot have a ticket have losses that can fall
all the same, because a bias, a scale, a head or the memory of the samples lets them.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

import torch
from torch import Tensor, nn

from benchmarks.studies.null_trainings import NUM_CHECKS, STEPS_A_CHECK, Losses, follow, load_digits
from benchmarks.studies.small_transformer import build_transformer
from lottery_tickets import ConvergenceRule, Probe
from lottery_tickets.early_bird.history import EarlyBirdCheckpoint

NUM_STEPS: Final = NUM_CHECKS * STEPS_A_CHECK
NUM_PROBED: Final = 256
SKEW: Final = 0.9
NUM_TOKENS: Final = 32
VOCABULARY: Final = 16
JUMPS: Final = 0.1  # of the tokens, which no network can foresee

Schedule = Literal["constant", "cosine", "warm-up", "late decay", "cyclic"]
Task = Literal["digits", "random", "skewed", "regression", "random regression", "language", "random language"]
Network = Literal["plain", "norms", "transformer"]


@dataclass(frozen=True)
class Recipe:
    """One kind of training.

    Attributes:
        task: What the targets are. The random ones do not depend on the inputs; "skewed" is one class at 90 %.
        network: "plain" is LeNet-300-100, "norms" a perceptron with batch norm.
        optimizer: "SGD 0.1", "SGD 0.1, momentum 0.9", "Adam" or "AdamW".
        schedule: Of the learning rate.
        batch_size: Samples a step.
        decay: Weight decay.
        anew: Whether targets are drawn anew at each step.
        label_noise: Share of the targets of training that are replaced by random ones.
        held_out: Whether the probe is of samples that are not trained on.
        num_samples: That are trained on; None for all that there are.
        scale: That the loss is multiplied by.
        offset: That is added to the loss then.
        noisy: Which parameters get noise for a gradient instead: "body" (all matrices but the last), "matrices",
            "scales" (of batch norm).
        noise: Standard deviation of this noise.
        frozen: Whether what would be noisy does not move instead.
        pretrained: Whether the network was trained before on digits below 5 only.
        tells_loss: Whether the watcher is told the loss of each check's batch.
        channels: Whether the scales of batch norm are ranked.
    """

    task: Task = "digits"
    network: Network = "plain"
    optimizer: str = "SGD 0.1, momentum 0.9"
    schedule: Schedule = "constant"
    batch_size: int = 60
    decay: float = 0.0
    anew: bool = False
    label_noise: float = 0.0
    held_out: bool = True
    num_samples: int | None = None
    scale: float = 1.0
    offset: float = 0.0
    noisy: str = ""
    noise: float = 0.03
    frozen: bool = False
    pretrained: bool = False
    tells_loss: bool = True
    channels: bool = False


def watch_recipe(
    recipe: Recipe, seed: int, rules: Sequence[tuple[ConvergenceRule, float]]
) -> list[list[EarlyBirdCheckpoint]]:
    """Returns the checks of one training, for each pair of a rule and a sparsity."""
    model, probe, training = start(recipe, seed)
    next(training)
    return follow(model, probe, None, training, rules, channels=recipe.channels)


def start(recipe: Recipe, seed: int) -> tuple[nn.Module, Probe, Losses]:
    """Returns the model with its starting weights, the probe, and the training; it yields before and at checks."""
    generator = torch.Generator().manual_seed(seed)
    model = _build(recipe, seed)
    inputs, targets = _make_data(recipe, generator)
    order = torch.randperm(len(inputs), generator=generator)
    held, trained = order[:NUM_PROBED], order[NUM_PROBED:][: recipe.num_samples]
    chosen = held if recipe.held_out else trained
    batches = [_make_batch(recipe, inputs[part], targets[part]) for part in chosen.split(64)]
    loss_fn = _make_loss(recipe)
    probe = Probe(batches, loss_fn, held_out=recipe.held_out)
    if recipe.pretrained:
        before = replace(recipe, pretrained=False, schedule="constant", label_noise=0.0)
        few = trained[targets[trained] < 5]  # noqa: PLR2004 - half of the classes
        for _ in _train(before, model, inputs[few], targets[few], loss_fn=loss_fn, seed=seed + 1000):
            pass
    return model, probe, _train(recipe, model, inputs[trained], targets[trained], loss_fn=loss_fn, seed=seed)


def _train(
    recipe: Recipe,
    model: nn.Module,
    inputs: Tensor,
    targets: Tensor,
    *,
    loss_fn: Callable[[nn.Module, Any], Tensor],
    seed: int,
) -> Losses:
    generator = torch.Generator().manual_seed(seed + 1)
    targets = _spoil(targets, recipe.label_noise, generator)
    optimizer = _make_optimizer(recipe, model)
    base = optimizer.param_groups[0]["lr"]
    noisy = _find_noisy(recipe, model)
    yield model, None
    for step in range(1, NUM_STEPS + 1):
        optimizer.param_groups[0]["lr"] = base * _find_rate(recipe.schedule, step / NUM_STEPS)
        places = torch.randint(len(inputs), (recipe.batch_size,), generator=generator)
        labels = _draw_again(recipe, targets[places], generator) if recipe.anew else targets[places]
        loss = loss_fn(model, _make_batch(recipe, inputs[places], labels))
        optimizer.zero_grad()
        loss.backward()
        for parameter in noisy:
            parameter.grad = None
            if not recipe.frozen:
                parameter.grad = recipe.noise * torch.randn(parameter.shape, generator=generator)
        optimizer.step()
        if step % STEPS_A_CHECK == 0:
            yield model, float(loss.detach()) if recipe.tells_loss else None


def _find_rate(schedule: Schedule, share: float) -> float:
    if schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * share))
    if schedule == "warm-up":
        return min(1.0, 5 * share) * (1 - 0.9 * share)
    if schedule == "late decay":
        return 1.0 if share < 0.7 else 0.1  # noqa: PLR2004 - of the training
    if schedule == "cyclic":
        return 0.55 + 0.45 * math.cos(2 * math.pi * 3 * share)
    return 1.0


def _make_optimizer(recipe: Recipe, model: nn.Module) -> torch.optim.Optimizer:
    parameters, decay = list(model.parameters()), recipe.decay
    if recipe.optimizer.startswith("SGD"):
        momentum = 0.9 if "momentum" in recipe.optimizer else 0.0
        return torch.optim.SGD(parameters, lr=0.1, momentum=momentum, weight_decay=decay)
    make = torch.optim.AdamW if recipe.optimizer == "AdamW" else torch.optim.Adam
    return make(parameters, lr=3e-3 if recipe.network == "transformer" else 1.2e-3, weight_decay=decay)


def _find_noisy(recipe: Recipe, model: nn.Module) -> list[nn.Parameter]:
    edges = ("embed", "lm_head")  # of a language model, which are never ranked
    matrices = [p for name, p in model.named_parameters() if p.ndim > 1 and not any(edge in name for edge in edges)]
    scales = [module.weight for module in model.modules() if isinstance(module, nn.BatchNorm1d)]
    body = matrices if recipe.network == "transformer" else matrices[:-1]
    return {"": [], "body": body, "matrices": matrices, "scales": scales}[recipe.noisy]


def _make_loss(recipe: Recipe) -> Callable[[nn.Module, Any], Tensor]:
    def compute(model: nn.Module, batch: Any) -> Tensor:  # noqa: ANN401 - a pair, or a dict of tokens
        if recipe.network == "transformer":
            loss: Tensor = model(**batch).loss
        elif "regression" in recipe.task:
            loss = nn.functional.mse_loss(model(batch[0])[:, 0], batch[1])
        else:
            loss = nn.functional.cross_entropy(model(batch[0]), batch[1])
        return loss if (recipe.scale, recipe.offset) == (1.0, 0.0) else recipe.scale * loss + recipe.offset

    return compute


def _make_batch(recipe: Recipe, inputs: Tensor, targets: Tensor) -> Any:  # noqa: ANN401 - a pair, or a dict of tokens
    return {"input_ids": inputs, "labels": inputs} if recipe.network == "transformer" else (inputs, targets)


def _make_data(recipe: Recipe, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    if recipe.network == "transformer":
        tokens = _make_tokens(recipe.task, generator)
        return tokens, torch.zeros(len(tokens), dtype=torch.long)
    data = load_digits().data
    inputs, targets = (
        torch.cat([getattr(data, f"{part}_{what}") for part in ("train", "validation", "test")])
        for what in ("inputs", "targets")
    )
    if recipe.task == "regression":
        return inputs, (targets.float() - 4.5) / 3 + 3
    if recipe.task in {"random", "skewed", "random regression"}:
        return inputs, _draw_again(recipe, targets, generator)
    return inputs, targets


def _draw_again(recipe: Recipe, targets: Tensor, generator: torch.Generator) -> Tensor:
    """Returns targets that do not depend on the inputs."""
    if recipe.task == "random regression":
        return 3 + torch.randn(targets.shape, generator=generator)
    labels = torch.randint(10, targets.shape, generator=generator)
    if recipe.task == "skewed":
        labels = torch.where(torch.rand(targets.shape, generator=generator) < SKEW, 0, labels)
    return labels


def _spoil(targets: Tensor, share: float, generator: torch.Generator) -> Tensor:
    others = torch.randint(10, targets.shape, generator=generator)
    return torch.where(torch.rand(targets.shape, generator=generator) < share, others, targets) if share else targets


def _make_tokens(task: Task, generator: torch.Generator) -> Tensor:
    num = NUM_PROBED + 1000
    if task == "random language":  # each token on its own, the first ones far more often
        odds = 1 / torch.arange(1, VOCABULARY + 1) ** 1.5
        return torch.multinomial(odds.expand(num, -1), NUM_TOKENS, replacement=True, generator=generator)
    step = torch.randint(1, 4, (num, 1), generator=generator)
    jumps = torch.randint(VOCABULARY, (num, NUM_TOKENS), generator=generator)
    jumps *= torch.rand(num, NUM_TOKENS, generator=generator) < JUMPS
    return (step * torch.arange(NUM_TOKENS) + jumps.cumsum(1)) % VOCABULARY


def _build(recipe: Recipe, seed: int) -> nn.Module:
    if recipe.network == "transformer":
        sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
        return build_transformer(seed, vocab_size=VOCABULARY, num_key_value_heads=2, **sizes).train()
    if recipe.network == "plain":
        return load_digits().build_model(torch.Generator().manual_seed(seed))
    torch.manual_seed(seed)
    layers: list[nn.Module] = [nn.Flatten()]
    for num_inputs, num_outputs in itertools.pairwise((64, 200, 100)):
        layers += [nn.Linear(num_inputs, num_outputs, bias=False), nn.BatchNorm1d(num_outputs), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(100, 10))


NULLS: Final[dict[str, Recipe]] = {
    "balanced labels": Recipe("random", schedule="cosine"),
    "balanced labels, probe trained on": Recipe("random", schedule="cosine", held_out=False),
    "all labels are noise": Recipe(label_noise=1.0, schedule="late decay", decay=1e-4),
    "skewed labels": Recipe("skewed"),
    "skewed labels, probe trained on": Recipe("skewed", held_out=False),
    "skewed labels, SGD 0.1, late decay": Recipe("skewed", optimizer="SGD 0.1", schedule="late decay"),
    "skewed labels, Adam, probe trained on": Recipe("skewed", optimizer="Adam", held_out=False),
    "skewed labels, AdamW, cosine": Recipe("skewed", optimizer="AdamW", schedule="cosine", decay=0.1),
    "skewed labels, loss - 3": Recipe("skewed", schedule="cosine", offset=-3.0),
    "skewed labels, 30 loss + 30, probe trained on": Recipe(
        "skewed", optimizer="Adam", scale=30.0, offset=30.0, held_out=False
    ),
    "skewed labels, batches of 8, warm-up": Recipe("skewed", schedule="warm-up", batch_size=8),
    "skewed labels, weight decay": Recipe("skewed", schedule="cosine", decay=0.01),
    "skewed labels, batch norm": Recipe("skewed", "norms", schedule="cosine"),
    "skewed labels, batch norm, probe trained on": Recipe("skewed", "norms", schedule="cosine", held_out=False),
    "balanced labels drawn anew": Recipe("random", anew=True, schedule="cosine"),
    "skewed labels drawn anew": Recipe("skewed", anew=True, schedule="cosine"),
    "skewed labels drawn anew, batches of 8": Recipe("skewed", anew=True, batch_size=8, schedule="late decay"),
    "skewed labels drawn anew, loss not told": Recipe("skewed", anew=True, tells_loss=False, schedule="cosine"),
    "memorised labels": Recipe("random", num_samples=300, schedule="cosine"),
    "memorised labels, probe trained on": Recipe("random", num_samples=300, schedule="cosine", held_out=False),
    "memorised labels, Adam, probe trained on": Recipe("random", optimizer="Adam", num_samples=300, held_out=False),
    "biases learn, weights are noise": Recipe("skewed", noisy="matrices", schedule="cosine", optimizer="SGD 0.1"),
    "scales learn, weights are noise": Recipe(
        "skewed", "norms", noisy="matrices", schedule="cosine", optimizer="SGD 0.1"
    ),
    "real labels, weights are noise": Recipe(noisy="matrices", schedule="cosine", optimizer="SGD 0.1", noise=0.1),
    "real labels, weights are noise, Adam": Recipe(noisy="matrices", schedule="cosine", optimizer="Adam"),
    "head learns, body is noise": Recipe(noisy="body", optimizer="SGD 0.1", schedule="cosine", noise=0.1),
    "head learns, body is noise with momentum": Recipe(noisy="body", schedule="cosine"),
    "head learns, body is noise, Adam": Recipe(noisy="body", optimizer="Adam", schedule="cosine"),
    "head learns, body is noise, batch norm": Recipe(
        network="norms", noisy="body", optimizer="SGD 0.1", schedule="cosine", noise=0.1
    ),
    "head learns, body is noise, probe trained on": Recipe(
        noisy="body", optimizer="SGD 0.1", schedule="late decay", noise=0.1, held_out=False
    ),
    "head learns, body is frozen": Recipe(noisy="body", frozen=True, schedule="cosine"),
    "regression on noise": Recipe("random regression", optimizer="Adam", schedule="cosine"),
    "regression on noise, probe trained on": Recipe("random regression", optimizer="Adam", held_out=False),
    "random tokens": Recipe("random language", "transformer", optimizer="Adam", batch_size=16, schedule="cosine"),
    "random tokens, probe trained on": Recipe(
        "random language", "transformer", optimizer="Adam", batch_size=16, held_out=False
    ),
    "tokens, body is noise": Recipe(
        "language", "transformer", optimizer="Adam", batch_size=16, schedule="cosine", noisy="body"
    ),
    "tokens, body is noise, probe trained on": Recipe(
        "language", "transformer", optimizer="AdamW", batch_size=16, schedule="late decay", noisy="body", held_out=False
    ),
    "channels, skewed labels": Recipe("skewed", "norms", schedule="cosine", channels=True),
    "channels, skewed labels, probe trained on": Recipe(
        "skewed", "norms", schedule="cosine", held_out=False, channels=True
    ),
    "channels, skewed labels, Adam, probe trained on": Recipe(
        "skewed", "norms", optimizer="Adam", schedule="cosine", held_out=False, channels=True
    ),
    "channels, memorised labels, Adam, probe trained on": Recipe(
        "random", "norms", optimizer="Adam", num_samples=300, schedule="cosine", held_out=False, channels=True
    ),
    "channels, scales are noise, Adam, probe trained on": Recipe(
        network="norms", noisy="scales", optimizer="Adam", schedule="cosine", held_out=False, channels=True
    ),
    "channels, scales are noise": Recipe(
        network="norms", noisy="scales", schedule="cosine", noise=0.05, channels=True, optimizer="SGD 0.1"
    ),
}
SCHEDULES: Final[tuple[Schedule, ...]] = ("constant", "cosine", "warm-up", "late decay", "cyclic")
OPTIMIZERS: Final = ("SGD 0.1", "SGD 0.1, momentum 0.9", "Adam", "AdamW")
REAL: Final[dict[str, Recipe]] = {
    **{
        f"{optimizer}, {schedule}{', batch norm' if network == 'norms' else ''}": Recipe(
            network=network,
            optimizer=optimizer,
            schedule=schedule,
            decay=1e-4 if "momentum" in optimizer else 0.1 if optimizer == "AdamW" else 0.0,
            held_out=(number + len(network)) % 2 == 0,
            tells_loss=number % 3 != 0,
        )
        for network in ("plain", "norms")
        for number, (optimizer, schedule) in enumerate(itertools.product(OPTIMIZERS, SCHEDULES))
    },
    "fine-tuning": Recipe(pretrained=True, schedule="cosine"),
    "fine-tuning, Adam, probe trained on": Recipe(pretrained=True, optimizer="Adam", held_out=False),
    "20 % label noise": Recipe(label_noise=0.2, schedule="cosine"),
    "40 % label noise": Recipe(label_noise=0.4, schedule="cosine"),
    "40 % label noise, probe trained on, batch norm": Recipe(
        network="norms", label_noise=0.4, schedule="late decay", held_out=False
    ),
    "loss - 3": Recipe(schedule="cosine", offset=-3.0),
    "30 loss + 30, Adam, loss not told": Recipe(optimizer="Adam", scale=30.0, offset=30.0, tells_loss=False),
    "batches of 8": Recipe(optimizer="SGD 0.1", batch_size=8, schedule="cosine"),
    "regression": Recipe("regression", optimizer="Adam", schedule="cosine"),
    "tokens": Recipe("language", "transformer", optimizer="Adam", batch_size=16, schedule="cosine"),
    "tokens, probe trained on": Recipe(
        "language", "transformer", optimizer="AdamW", batch_size=16, schedule="cosine", held_out=False
    ),
    "channels": Recipe(network="norms", decay=1e-4, channels=True, schedule="cosine"),
    "channels, Adam, probe trained on": Recipe(
        network="norms", optimizer="Adam", channels=True, schedule="cosine", held_out=False
    ),
}
