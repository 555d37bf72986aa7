"""What fine-tuning changes of SmolLM2-135M, and whether the changed weights carry the result.

`python -m benchmarks.changes.smollm` trains the model on State-of-the-Union speeches, three times by AdamW and three
times by SGD, and writes `benchmarks/results/changes_smollm.json`: of each optimizer the shares that changed as float32
and as bfloat16, what the three have in common beside each null, and the trainings of the mask of the first beside its
controls. Each part is kept in that file and each training under `--folder`, so the same command goes on where it was
stopped; a training takes 0.6 GB there, all together 37 GB by default. `--device cuda` trains on a GPU, which `--workers
5` keeps busy; then the folder should be on a fast disk. `--tiny` tries all of it on a tiny model.

The model starts from its weights rounded to bfloat16, so that no precision is hidden before the first step.
"""

import argparse
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final, cast

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, RandomSampler

from benchmarks.changes.parts import DRAWN, VIEWS, compare, judge, load_state, name_once
from benchmarks.common import FIGURES, RESULTS, load_language, read_results, write_results
from benchmarks.studies.small_transformer import build_transformer, load_bytes
from lottery_tickets import compute_change_mask, compute_change_mask_quality, compute_performance
from lottery_tickets.storage import save_weights
from statistical_report_generator.figures.changes import draw_changes
from statistical_report_generator.figures.style import save_figure

NAME: Final = "changes_smollm"
NUM_SEEDS: Final = 3
MARGIN: Final = 0.01  # of the loss, in nats
OPTIMIZERS: Final[dict[str, Callable[..., torch.optim.Optimizer]]] = {
    "AdamW": partial(torch.optim.AdamW, lr=2e-5, weight_decay=0.01),
    "SGD": partial(torch.optim.SGD, lr=0.03),
}
Batches = list[dict[str, Tensor]]


@dataclass(frozen=True)
class Settings:
    """What the figures depend on.

    Attributes:
        num_steps: Of each training.
        num_replicates: Of the controls.
        batch_size: Texts a step.
        num_tokens: Of each.
        num_test_batches: Batches that are measured on.
        device: That trains.
        tiny: Whether a tiny model takes the place of SmolLM2.
    """

    num_steps: int
    num_replicates: int
    batch_size: int
    num_tokens: int
    num_test_batches: int
    device: str
    tiny: bool

    def load(self) -> tuple[nn.Module, DataLoader[Any], Batches]:
        """Returns the model, whose weights bfloat16 holds, batches to train on, drawn anew each time, and others."""
        shape: dict[str, Any] = {"batch_size": self.batch_size, "num_tokens": self.num_tokens}
        num_pool = 4 * self.num_steps  # each training draws a quarter
        if self.tiny:
            model: nn.Module = build_transformer(0)
            texts = load_bytes(0, **shape)
            pool, test = ([next(texts) for _ in range(num)] for num in (num_pool, self.num_test_batches))
        else:
            model, pool = load_language(**shape, num_batches=num_pool)
            _, test = load_language(**shape, num_batches=self.num_test_batches, split="test")
        model.load_state_dict({name: tensor.bfloat16().float() for name, tensor in model.state_dict().items()})
        sampler: RandomSampler = RandomSampler(pool, num_samples=self.num_steps)
        loader: DataLoader[Any] = DataLoader(cast("Any", pool), batch_size=None, sampler=sampler)
        return model.to(self.device).train(), loader, test


def train(
    model: nn.Module,
    dataloader: Iterable[Mapping[str, Tensor]],
    *,
    epochs: int,
    make_optimizer: Callable[..., torch.optim.Optimizer],
) -> None:
    """Trains in place, to predict each next token."""
    optimizer = make_optimizer(model.parameters())
    device = next(model.parameters()).device
    for _ in range(epochs):
        for batch in dataloader:
            tokens = batch["input_ids"].to(device)
            optimizer.zero_grad()
            model(input_ids=tokens, labels=tokens).loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()


def fine_tune(settings: Settings, optimizer: str, folder: Path, num_seeds: int = NUM_SEEDS) -> dict[str, Any]:
    """Trains from each seed, keeps the weights in the folder, and returns the losses on the test batches."""
    losses: list[float | None] = []
    model, loader, test = settings.load()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    save_weights(name_once(model), folder / "before.safetensors")
    loss_before = compute_performance(model, test)["loss"]
    for seed in range(num_seeds):
        model.load_state_dict(before)
        torch.manual_seed(seed)
        train(model, loader, epochs=1, make_optimizer=OPTIMIZERS[optimizer])
        save_weights(name_once(model), folder / f"{optimizer}-{seed}.safetensors")
        losses.append(compute_performance(model, test)["loss"])
        print(f"{optimizer}, seed {seed}: test loss {loss_before} -> {losses[-1]}", flush=True)
    return {"test_loss_before": loss_before, "test_losses": losses}


def control(settings: Settings, optimizer: str, folder: Path, num_workers: int) -> dict[str, Any]:
    """Returns the losses of the first training's changed weights, trained alone, and of the controls; with claims."""
    if not (folder / f"{optimizer}-0.safetensors").exists():  # where the other parts were measured elsewhere
        fine_tune(settings, optimizer, folder, num_seeds=1)
    before, after = (
        load_state(folder / f"{name}.safetensors", torch.bfloat16) for name in ("before", f"{optimizer}-0")
    )
    mask = compute_change_mask(before, after, include=list(before))  # embeddings and norms too
    model, loader, test = settings.load()
    layer, index, size = find_super_weight(model, test[0])
    is_kept = mask.count_kept().get(layer, 0) > 0
    workers = ProcessPoolExecutor(num_workers, get_context("spawn")) if num_workers > 1 else nullcontext()
    with workers as executor:
        found = compute_change_mask_quality(
            model,
            mask,
            test,
            trainer_fn=partial(train, make_optimizer=OPTIMIZERS[optimizer]),
            train_dataloader=loader,
            super_weights={layer: [index]} if is_kept else None,
            num_replicates=settings.num_replicates,
            run_folder=folder / f"controls-{optimizer}",
            executor=executor,
            progress=True,
        )
    return {
        "mask_density": mask.density,
        "super_weight": {"layer": layer, "index": list(index), "largest_output": size},
        **judge(found, metric="test_loss", margin=MARGIN),
    }


@torch.no_grad()
def find_super_weight(model: nn.Module, batch: Mapping[str, Tensor]) -> tuple[str, tuple[int, int], float]:
    """Returns the weight through which the largest output of all down projections goes, and that output's size.

    It stands where the channel of the largest output meets that of the largest input of the same token
    (arXiv:2411.07191).
    """
    largest: dict[str, tuple[float, tuple[int, int]]] = {}

    def look(name: str, _module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        flat, given = output.flatten(0, -2).abs(), inputs[0].flatten(0, -2).abs()
        token, row = divmod(int(flat.argmax()), flat.shape[1])
        largest[name] = (flat.max().item(), (row, int(given[token].argmax())))

    modules = {name: module for name, module in model.named_modules() if name.endswith("down_proj")}
    hooks = [module.register_forward_hook(partial(look, name)) for name, module in modules.items()]
    model(input_ids=batch["input_ids"].to(next(model.parameters()).device))
    for hook in hooks:
        hook.remove()
    name = max(largest, key=lambda name: largest[name][0])
    size, index = largest[name]
    return f"{name}.weight", index, size


def main() -> None:
    """Computes the parts that are missing, and keeps each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs/changes-smollm"))
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--replicates", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--workers", type=int, default=1, help="processes that share the replicates of the controls")
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args()
    shape = (2, 32, 2) if options.tiny else (4, 256, 16)
    settings = Settings(options.steps, options.replicates, *shape, options.device, options.tiny)
    name = f"{NAME}_tiny" if options.tiny else NAME
    options.folder.mkdir(parents=True, exist_ok=True)
    kept = read_results(name) if (RESULTS / f"{name}.json").exists() else {"settings": asdict(settings), "parts": {}}
    if kept["settings"] != asdict(settings):
        raise SystemExit(f"{name}.json has other settings, {kept['settings']}; take these, or move it away")
    steps: dict[str, Callable[[], dict[str, Any]]] = {}
    for optimizer in OPTIMIZERS:
        steps[f"{optimizer}: trainings"] = partial(fine_tune, settings, optimizer, options.folder)
        seeds = {f"seed {seed}": f"{optimizer}-{seed}" for seed in range(NUM_SEEDS)}
        for view in VIEWS:
            steps[f"{optimizer}: {view}"] = partial(compare, options.folder, seeds, view)
    for optimizer in OPTIMIZERS:
        steps[f"{optimizer}: controls"] = partial(control, settings, optimizer, options.folder, options.workers)
    for part, compute in steps.items():
        if part not in kept["parts"]:
            kept["parts"][part] = compute()
            print(part, write_results(name, {"settings": kept["settings"], "parts": kept["parts"]}), flush=True)
    if not options.tiny:
        draw(kept["parts"])


def draw(parts: Mapping[str, Any]) -> None:
    """Draws of each optimizer what the first training changed, and what the first two share."""
    views = {optimizer: parts[f"{optimizer}: {DRAWN}"] for optimizer in OPTIMIZERS}
    updates = {optimizer: next(iter(view["updates"].values())) for optimizer, view in views.items()}
    pairs = [
        {**view["pairs"][0], "first": f"{optimizer} 0", "second": f"{optimizer} 1"} for optimizer, view in views.items()
    ]
    save_figure(draw_changes(updates, pairs, "SmolLM2-135M, fine-tuned, as bfloat16"), FIGURES / "changes.svg")


if __name__ == "__main__":
    main()
