"""What early-bird tickets of channels save: found, cut out and trained, beside what else as much work buys.

Claimed (You et al. 2020) is 5 to 10 times less computation. Here ResNet-20 and a VGG-like network learn Fashion-MNIST.
A share of the channels goes, in each of these ways, from the same starting weights:

- early-bird: trained until the ticket has converged, its channels cut out, trained on from the weights of then
- random: the same, with as many channels of each layer drawn at random
- train, prune, train: trained to the end, channels with the least scales cut out, trained to the end again
- thin: that share of each layer less from the start, fresh weights
- thin, as much work: the same, with as many FLOPs as early-bird took, search included
- dense, as much work: the whole network, with as many FLOPs

FLOPs are those of the steps (`compute_costs`); of a check of the search none are counted, but its seconds are. Seconds
are processor time of one thread. `python -m benchmarks.shrinking.early_bird [FOLDER]` takes an hour and a half on two
free cores, keeps each replicate in FOLDER (benchmarks/results/early_bird_channels), where those that are there are not
trained again, and writes benchmarks/results/early_bird_channels.json and docs/figures/early_bird_channels.svg.
"""

import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, final

import torch
from torch import Tensor, nn

from benchmarks.common import FIGURES, RESULTS, write_results
from benchmarks.shrinking.early_bird_figure import draw_channels
from benchmarks.studies.parts import keep, run_in_processes, sum_up
from lottery_tickets import (
    Mask,
    TrainerSettings,
    compute_costs,
    compute_early_bird_tickets,
    compute_performance,
    create_unit_mask,
    shrink,
)
from lottery_tickets._core.determinism import derive_seed, make_generator
from lottery_tickets.workloads import build_model, create_image_batches, load_fashion_mnist
from lottery_tickets.workloads.models import initialise_
from statistical_report_generator.figures.style import save_figure
from statistical_report_generator.inference.equivalence import stack_differences, summarise_differences
from statistical_report_generator.inference.verdicts import compare_with_dense

SHARES: Final = (0.3, 0.5, 0.7)  # of the channels that go
REPLICATES: Final = 5
NUM_IMAGES, NUM_PROBED, BATCH, EPOCHS = 3_000, 500, 64, 12
CHECKS: Final = 4  # of the search, an epoch: a ticket can be found within the tenth of a training that is claimed
LEARNING_RATE, MOMENTUM, WEIGHT_DECAY = 0.1, 0.9, 5e-4
MARGIN: Final = 0.01  # of the accuracy, that counts as none
RIVALS: Final = ("dense", "dense, as much work", "thin", "thin, as much work", "random", "train, prune, train")
Batches = list[tuple[Tensor, Tensor]]


def build_vgg(generator: torch.Generator) -> nn.Module:
    """Returns a network of six convolutions with batch norms, in the manner of VGG: 0.29 M weights."""
    parts: list[nn.Module] = []
    channels = 1
    for width in (32, 64, 128):
        for inputs in (channels, width):
            parts += [nn.Conv2d(inputs, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        parts.append(nn.MaxPool2d(2))
        channels = width
    return initialise_(nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 10)), generator)


def build_resnet(generator: torch.Generator) -> nn.Module:
    """Returns ResNet-20: 0.27 M weights."""
    return build_model("resnet-20", input_shape=(1, 28, 28), num_classes=10, generator=generator)


NETWORKS: Final[Mapping[str, Callable[[torch.Generator], nn.Module]]] = {
    "ResNet-20": build_resnet,
    "VGG-like": build_vgg,
}


@final
@dataclass(frozen=True)
class Outcome:
    """What a way came to.

    Attributes:
        accuracy: On the test images.
        flops: Of all steps.
        seconds: Of all steps and checks, of one thread.
        parameters: Of the network that is left.
        epochs: Of the whole network, before anything was cut out.
        verdict: Of the search, if there was one.
    """

    accuracy: float
    flops: float
    seconds: float
    parameters: int
    epochs: float = 0.0
    verdict: str = ""


@final
class Replicate:
    """One network on its own images, with its own starting weights and orders.

    Args:
        network: Its name.
        number: Of the replicate.
    """

    def __init__(self, network: str, number: int) -> None:
        self.network, self.number = network, number
        data = load_fashion_mnist(split_seed=number)
        self.train = data.train_inputs[:NUM_IMAGES], data.train_targets[:NUM_IMAGES]
        self.probe = data.validation_inputs[:NUM_PROBED], data.validation_targets[:NUM_PROBED]
        self.test: Batches = create_image_batches(data.test_inputs, data.test_targets, batch_size=500)

    def build(self) -> nn.Module:
        """Returns the network with the starting weights of this replicate."""
        return _lay_out(NETWORKS[self.network](make_generator(self.number, "start")))

    def iterate(self, *use: str) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields batches without end, each epoch in an order of its own."""
        generator = make_generator(self.number, "order", *use)
        while True:
            yield from create_image_batches(*self.train, batch_size=BATCH, generator=generator)

    def count_flops(self, model: nn.Module) -> float:
        """Returns the FLOPs of an epoch."""
        images, targets = self.train
        step = compute_costs(model, (images[:BATCH], targets[:BATCH]))["dense"]["step_flops"]
        return step * NUM_IMAGES / BATCH

    def fit(self, model: nn.Module, use: str, epochs: float = EPOCHS) -> tuple[float, float]:
        """Trains to the end of a cosine schedule; returns FLOPs and seconds."""
        start, batches = time.process_time(), self.iterate(use)
        num_steps = max(1, round(epochs * math.ceil(NUM_IMAGES / BATCH)))
        weights = model.parameters()
        optimizer = torch.optim.SGD(weights, lr=LEARNING_RATE, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, num_steps)
        model.train()
        for _ in range(num_steps):
            images, targets = next(batches)
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images), targets).backward()
            optimizer.step()
            schedule.step()
        return self.count_flops(model) * epochs, time.process_time() - start

    def judge(self, model: nn.Module, flops: float, seconds: float, **more: Any) -> Outcome:  # noqa: ANN401 - of Outcome
        """Returns the outcome of a network that has been trained."""
        accuracy = float(compute_performance(model, self.test)["accuracy"] or 0.0)
        return Outcome(accuracy, flops, seconds, sum(p.numel() for p in model.parameters()), **more)

    def cut(self, model: nn.Module, mask: Mask) -> nn.Module:
        """Returns the network without the channels that a mask prunes."""
        return _lay_out(shrink(model, mask, example_inputs=self.train[0][:1]).model)

    def draw(self, model: nn.Module, sparsity: float | Mapping[str, int], **how: Any) -> Mask:  # noqa: ANN401 - of create_unit_mask
        """Returns a mask of channels."""
        return create_unit_mask(model, sparsity, units="channels", example_inputs=self.train[0][:1], **how)


def _lay_out(model: nn.Module) -> nn.Module:
    """Returns the network with channels last, in which its convolutions take a fifth less time here."""
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]  # torch has it


@final
class _Pieces:
    """The batches of a search, of which each pass is the part of an epoch between two checks."""

    def __init__(self, replicate: Replicate, share: float) -> None:
        self._batches = replicate.iterate("search", str(share))

    def __len__(self) -> int:
        return math.ceil(NUM_IMAGES / BATCH / CHECKS)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return (next(self._batches) for _ in range(len(self)))


def run(job: tuple[str, int, Path]) -> dict[str, Any]:
    """Returns the outcomes of one replicate by way and share."""
    network, number, folder = job

    def compute() -> dict[str, Any]:
        replicate = Replicate(network, number)
        model = replicate.build()
        dense = replicate.fit(model, "dense")
        found = {"dense": {"": asdict(replicate.judge(model, *dense, epochs=EPOCHS))}}
        for share in SHARES:
            for way, outcome in run_ways(replicate, model, dense, share).items():
                found.setdefault(way, {})[str(share)] = asdict(outcome)
        return found

    found: dict[str, Any] = keep(folder / f"{network}-{number}.json", compute)
    print(network, number, flush=True)
    return found


def run_ways(replicate: Replicate, trained: nn.Module, dense: tuple[float, float], share: float) -> dict[str, Outcome]:
    """Returns the outcome of each way at one share of channels.

    Args:
        replicate: With its data.
        trained: The whole network after its training, which took
        dense: these FLOPs and seconds.
        share: Of the channels that go.
    """
    found: dict[str, Outcome] = {}
    searched, mask, told = search(replicate, share)
    spent = told["flops"], told["seconds"]
    more = {"epochs": told["epochs"], "verdict": told["verdict"]}
    random = replicate.draw(searched, mask.provenance["kept"], scores="random", seed=replicate.number)
    for way, chosen in (("early-bird", mask), ("random", random)):
        smaller = replicate.cut(searched, chosen)
        found[way] = _add(replicate, smaller, way, spent, **more)
    scales = replicate.draw(trained, share, scores="batch_norm_scale", scope="global")
    found["train, prune, train"] = _add(
        replicate, replicate.cut(trained, scales), "train, prune, train", dense, epochs=EPOCHS
    )
    work = found["early-bird"].flops
    for way, is_whole, epochs in (
        ("thin", False, EPOCHS),
        ("thin, as much work", False, 0),
        ("dense, as much work", True, 0),
    ):
        model = replicate.build()
        if not is_whole:
            generator = make_generator(replicate.number, "thin", str(share))
            model = initialise_(replicate.cut(model, replicate.draw(model, share, scores="random")), generator)
        found[way] = _add(replicate, model, way, (0.0, 0.0), epochs or work / replicate.count_flops(model))
    return found


def search(replicate: Replicate, share: float) -> tuple[nn.Module, Mask, dict[str, Any]]:
    """Returns the network at its last check, the ticket, and what the search took."""
    model, start = replicate.build(), time.process_time()
    found = compute_early_bird_tickets(
        model,
        _Pieces(replicate, share),
        max_epochs=EPOCHS * CHECKS,
        check_interval=1,
        target_sparsity=share,
        use_magnitude_ranking=False,
        training=TrainerSettings(LEARNING_RATE, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY),
        channels=True,
        probe=[replicate.probe],
        seed=derive_seed(replicate.number, "search"),
    )
    seconds, epochs = time.process_time() - start, len(found["checkpoints"]) / CHECKS
    told = {"flops": replicate.count_flops(model) * epochs, "seconds": seconds, "epochs": epochs}
    return model, found["final_mask"], {**told, "verdict": found["verdict"]}


def _add(
    replicate: Replicate,
    model: nn.Module,
    way: str,
    before: tuple[float, float],
    num_epochs: float = EPOCHS,
    **more: Any,  # noqa: ANN401 - of Outcome
) -> Outcome:
    """Returns the outcome of a network that is trained to the end, after what was spent before."""
    flops, seconds = replicate.fit(model, way, num_epochs)
    return replicate.judge(model, before[0] + flops, before[1] + seconds, **more)


def compare(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns for each share what each way came to, and early-bird beside the others, with p values by Holm."""
    rows = []

    def collect(way: str, share: float, figure: str) -> list[float]:
        return [float(one[way]["" if way == "dense" else str(share)][figure]) for one in found]

    tests = {}
    for rival in RIVALS:
        parts = [
            summarise_differences(collect("early-bird", share, "accuracy"), collect(rival, share, "accuracy"))
            for share in SHARES
        ]
        tests[rival] = compare_with_dense(stack_differences(parts), MARGIN)
    for place, share in enumerate(SHARES):
        ways = {}
        for way in ("early-bird", *RIVALS):
            accuracy, dense = collect(way, share, "accuracy"), collect("dense", share, "accuracy")
            flops, seconds = collect(way, share, "flops"), collect(way, share, "seconds")
            whole = collect("dense", share, "flops"), collect("dense", share, "seconds")
            ways[way] = {
                "accuracy": sum_up(accuracy),
                "minus_dense": sum_up([one - other for one, other in zip(accuracy, dense, strict=True)]),
                "flops_of_dense": sum_up([one / other for one, other in zip(flops, whole[0], strict=True)]),
                "seconds_of_dense": sum_up([one / other for one, other in zip(seconds, whole[1], strict=True)]),
                "parameters": sum_up(collect(way, share, "parameters")),
            }
        rivals = {
            rival: {
                name: float(getattr(test, name).adjusted_p_value[place])
                for name in ("not_worse", "equivalent", "above", "below")
            }
            for rival, test in tests.items()
        }
        verdicts = [one["early-bird"][str(share)]["verdict"] for one in found]
        epochs = collect("early-bird", share, "epochs")
        rows.append({"share": share, "ways": ways, "rivals": rivals, "verdicts": verdicts, "epochs": epochs})
    return rows


def main() -> None:
    """Runs all replicates, two at a time, and writes what they came to."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else RESULTS / "early_bird_channels"
    folder.mkdir(parents=True, exist_ok=True)
    jobs = [(network, number, folder) for number in range(REPLICATES) for network in NETWORKS]
    found = run_in_processes(run, jobs)
    networks = {
        network: compare([one for one, job in zip(found, jobs, strict=True) if job[0] == network])
        for network in NETWORKS
    }
    setting = {"images": NUM_IMAGES, "batch": BATCH, "epochs": EPOCHS, "replicates": REPLICATES, "margin": MARGIN}
    print(write_results("early_bird_channels", {**setting, "networks": networks}))
    save_figure(draw_channels(networks), FIGURES / "early_bird_channels.svg")


if __name__ == "__main__":
    main()
