"""What reinforcement learning changes of a small transformer, and whether the changed weights carry the result.

A transformer of 0.1 M weights, small enough to be trained here many times, learns to add two numbers of two digits,
from examples, until it answers some of the new ones. Then it is trained on by REINFORCE, whose reward is whether a
sampled answer is right, and from the same weights by examples (*supervised*), with the same optimizer and as many
prompts. The weights before are those that bfloat16 holds, so nothing is hidden before the first step. Controls are
of the tenth of the weights that moved most: nearly all are stored otherwise, and so say nothing.

`python -m benchmarks.changes.reinforce` takes a quarter of an hour on two free cores and writes
`benchmarks/results/changes_reinforce.json`. It shows what a small network does; a large one may do otherwise.
"""

import argparse
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, RandomSampler

from benchmarks.changes.parts import VIEWS, compare, judge, load_state, name_once
from benchmarks.common import write_results
from benchmarks.studies.small_transformer import build_transformer
from lottery_tickets import compute_change_mask, compute_change_mask_quality
from lottery_tickets.storage import save_weights

SIZES: Final = {
    "vocab_size": 12,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
}
PLUS, EQUALS = 10, 11  # behind the digits
PROMPT: Final = 6  # tokens: two digits, plus, two digits, equals; three of the answer follow, the last digit first
NUM_FIRST, NUM_MORE, NUM_TEST = 6_000, 3_000, 1_000  # pairs of numbers, all 10,000 of them
FIRST_STEPS, FIRST_RATE, FIRST_BATCH = 400, 2e-3, 128
STEPS, RATE, BATCH = 200, 3e-5, 32
SAMPLES: Final = 8  # answers a prompt
NUM_SEEDS, NUM_REPLICATES = 3, 5
MARGIN: Final = 0.01  # of the share of right answers, that counts as none
TRAINED: Final = 0.1  # of the weights, in the controls: stored otherwise are nearly all
Batches = list[dict[str, Tensor]]


def list_sums() -> tuple[Tensor, Tensor, Tensor]:
    """Returns all sums as tokens, shape (sums, 9), in a random order: to begin with, to go on with, to test."""
    pairs = torch.randperm(10_000, generator=torch.Generator().manual_seed(0))
    first, second = pairs // 100, pairs % 100
    total = first + second
    signs = torch.full_like(pairs, PLUS), torch.full_like(pairs, EQUALS)
    tokens = [first // 10, first % 10, signs[0], second // 10, second % 10, signs[1]]
    tokens += [total % 10, total // 10 % 10, total // 100]
    begin, go_on, test = torch.stack(tokens, 1).split([NUM_FIRST, NUM_MORE, NUM_TEST])
    return begin, go_on, test


def make_loader(sums: Tensor, num_steps: int, batch_size: int) -> DataLoader[Any]:
    """Returns batches that are drawn anew each time."""
    sampler: RandomSampler = RandomSampler(sums, replacement=True, num_samples=num_steps * batch_size)
    rows = [row.clone() for row in sums]  # a view is sent to another process with all that it is a view of
    return DataLoader(rows, batch_size=batch_size, sampler=sampler, collate_fn=_collate)  # type: ignore[arg-type]  # a list does as a data set


def _collate(sums: list[Tensor]) -> dict[str, Tensor]:
    return {"input_ids": torch.stack(sums)}


def supervise(model: nn.Module, dataloader: Iterable[dict[str, Tensor]], *, epochs: int, rate: float = RATE) -> None:
    """Trains in place on right answers."""

    def compute_loss(tokens: Tensor) -> Tensor:
        return nn.functional.cross_entropy(_answer(model, tokens).flatten(0, 1), tokens[:, PROMPT:].flatten())

    _descend(model, dataloader, compute_loss, epochs, rate)


def reinforce(model: nn.Module, dataloader: Iterable[dict[str, Tensor]], *, epochs: int, rate: float = RATE) -> None:
    """Trains in place on sampled answers, by whether they are right more often than others of their prompt.

    References:
        Williams 1992, Machine Learning 8.
    """

    def compute_loss(tokens: Tensor) -> Tensor:
        prompts = tokens.repeat_interleave(SAMPLES, 0)
        sampled = sample(model, prompts)
        rewards = (sampled == prompts).all(1).float().view(-1, SAMPLES)
        advantages = (rewards - rewards.mean(1, keepdim=True)).flatten()
        found = _answer(model, sampled).log_softmax(-1)
        chosen = found.gather(-1, sampled[:, PROMPT:].unsqueeze(-1)).squeeze(-1)
        return -(advantages * chosen.sum(1)).mean()

    _descend(model, dataloader, compute_loss, epochs, rate)


@torch.no_grad()
def sample(model: nn.Module, tokens: Tensor) -> Tensor:
    """Returns the prompts with answers that are drawn by the model's probabilities."""
    sampled = tokens[:, :PROMPT]
    for _ in range(tokens.shape[1] - PROMPT):
        probabilities = model(input_ids=sampled).logits[:, -1].softmax(-1)
        sampled = torch.cat([sampled, torch.multinomial(probabilities, 1)], 1)
    return sampled


@torch.no_grad()
def measure(model: nn.Module, batches: Iterable[dict[str, Tensor]]) -> float:
    """Returns the share of prompts whose likeliest answer is right."""
    right = [
        (_answer(model, batch["input_ids"]).argmax(-1) == batch["input_ids"][:, PROMPT:]).all(1) for batch in batches
    ]
    return float(torch.cat(right).float().mean())


def _answer(model: nn.Module, tokens: Tensor) -> Tensor:
    """Returns the logits of the tokens of the answer."""
    logits: Tensor = model(input_ids=tokens).logits[:, PROMPT - 1 : -1]
    return logits


def _descend(
    model: nn.Module,
    dataloader: Iterable[dict[str, Tensor]],
    compute_loss: Callable[[Tensor], Tensor],
    epochs: int,
    rate: float,
) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.01)
    for _ in range(epochs):
        for batch in dataloader:
            optimizer.zero_grad()
            compute_loss(batch["input_ids"]).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()


WAYS: Final[dict[str, Callable[..., None]]] = {"REINFORCE": reinforce, "supervised": supervise}


def begin(folder: Path) -> nn.Module:
    """Returns the model before, with weights that bfloat16 holds, and keeps these in the folder."""
    model = build_transformer(0, **SIZES)
    if not (folder / "before.safetensors").exists():
        torch.manual_seed(0)
        supervise(model, make_loader(list_sums()[0], FIRST_STEPS, FIRST_BATCH), epochs=1, rate=FIRST_RATE)
        held = {name: tensor.bfloat16().float() for name, tensor in name_once(model).items()}
        save_weights(held, folder / "before.safetensors")
    model.load_state_dict(load_file(folder / "before.safetensors"))
    return model


def go_on(folder: Path, way: str, test: Batches) -> dict[str, Any]:
    """Trains on from each seed, keeps the weights in the folder, and returns the shares of right answers."""
    before, after = measure(begin(folder), test), list[float]()
    for seed in range(NUM_SEEDS):
        model = begin(folder)
        torch.manual_seed(1 + seed)
        WAYS[way](model, make_loader(list_sums()[1], STEPS, BATCH), epochs=1)
        save_weights(name_once(model), folder / f"{way}-{seed}.safetensors")
        after.append(measure(model, test))
    print(way, before, after, flush=True)
    return {"before": before, "after": after}


def control(folder: Path, way: str, test: Batches) -> dict[str, Any]:
    """Returns the shares of right answers where the weights that the first training moved most are trained alone."""
    states = [load_state(folder / f"{name}.safetensors", torch.float32) for name in ("before", f"{way}-0")]
    mask = compute_change_mask(*states, by="delta", sparsity=1 - TRAINED, include=list(states[0]))  # of all parameters
    with ProcessPoolExecutor(2, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        found = compute_change_mask_quality(
            begin(folder),
            mask,
            test,
            trainer_fn=WAYS[way],
            train_dataloader=make_loader(list_sums()[1], STEPS, BATCH),
            num_replicates=NUM_REPLICATES,
            metric=measure,
            run_folder=folder / f"largest-{way}",
            executor=pool,
            progress=True,
        )
    return {"mask_density": mask.density, **judge(found, metric="metric", margin=MARGIN)}


def main() -> None:
    """Trains, compares, and writes what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs/changes-reinforce"))
    folder: Path = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    test = [{"input_ids": part} for part in list_sums()[2].split(250)]
    trainings = {way: go_on(folder, way, test) for way in WAYS}
    labels = {way: {f"{way} {seed}": f"{way}-{seed}" for seed in range(NUM_SEEDS)} for way in WAYS}
    labels["both"] = {f"{way} 0": f"{way}-0" for way in WAYS}
    found = {what: {view: compare(folder, some, view) for view in VIEWS} for what, some in labels.items()}
    controls = {way: control(folder, way, test) for way in WAYS}
    num = sum(tensor.numel() for tensor in begin(folder).parameters())
    setting = {"steps": STEPS, "rate": RATE, "prompts": BATCH, "samples": SAMPLES, "parameters": num, "margin": MARGIN}
    print(write_results("changes_reinforce", {**setting, "trainings": trainings, "found": found, "controls": controls}))


if __name__ == "__main__":
    main()
