"""What is checked in each process of sharded models: they do, gathered, what a plain model does."""

import copy
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed import checkpoint
from torch.nn import functional

from lottery_tickets import (
    EarlyBirdWatcher,
    apply_mask,
    check_held,
    compute_sparsity,
    compute_ticket_overlap,
    create_importance_mask,
    create_magnitude_mask,
    hold_mask,
    masked,
    remove_mask,
)
from lottery_tickets.integrations.distributed_checkpoint import MaskState, WatchState
from lottery_tickets.masks import Mask
from tests.sharded import Stack, make_sharded

KINDS = ("fsdp", "tensor", "both")
STEPS = 4


def gather(model: nn.Module) -> dict[str, Tensor]:
    """Returns the state of a model, whole."""
    state = model.state_dict()
    return {name: value.full_tensor() if hasattr(value, "full_tensor") else value for name, value in state.items()}


def draw_batch(step: int) -> tuple[Tensor, Tensor]:
    """Returns a batch, the same in each process."""
    generator = torch.Generator().manual_seed(step)
    return torch.randn(8, 6, generator=generator), torch.randint(5, (8,), generator=generator)


def check_masks(kind: str) -> list[str]:
    """Compares all that makes, compares and applies masks; returns the names that a mask has."""
    plain, sharded = Stack(), make_sharded(kind)
    expected, found = create_magnitude_mask(plain, 0.7), create_magnitude_mask(sharded, 0.7)
    assert found.gather() == expected
    assert found == expected  # and so is the comparison of the two
    assert (found.num_kept, found.layer_sparsity()) == (expected.num_kept, expected.layer_sparsity())
    assert found.shapes == expected.shapes
    local = sum(bits.numel() for bits in found.bits.values())
    assert local < expected.nbytes
    for name, kept in found.items():
        assert torch.equal(kept.full_tensor() if hasattr(kept, "full_tensor") else kept, expected[name]), name
    sparser = create_magnitude_mask(sharded, 0.9, within=found)
    assert sparser.is_subset(found)
    assert (found & ~sparser).gather() == expected & ~create_magnitude_mask(plain, 0.9)
    overlap = compute_ticket_overlap(found, sparser)
    assert overlap == compute_ticket_overlap(expected, create_magnitude_mask(plain, 0.9))
    scores = {name: value - 0.01 for name, value in sharded.named_parameters() if name.endswith("up.weight")}
    plain_scores = {name: value - 0.01 for name, value in plain.named_parameters() if name.endswith("up.weight")}
    assert create_importance_mask(scores, 0.5).gather() == create_importance_mask(plain_scores, 0.5)
    apply_mask(plain, expected)
    apply_mask(sharded, found)
    assert compute_sparsity(sharded) == compute_sparsity(plain)
    for name, value in gather(sharded).items():
        assert torch.equal(value, plain.state_dict()[name]), name
    return list(found)


def check_plain_mask_on_sharded(kind: str) -> None:
    """A mask that was made in one process prunes a sharded model, and the reverse."""
    plain, sharded = Stack(), make_sharded(kind)
    mask = create_magnitude_mask(plain, 0.5)
    apply_mask(sharded, mask)
    other = create_magnitude_mask(sharded, 0.8)
    apply_mask(plain, mask)
    for name, value in gather(sharded).items():
        assert torch.equal(value, plain.state_dict()[name]), name
    apply_mask(plain, other)
    assert compute_sparsity(plain) == other.sparsity


def clip_gradients(model: nn.Module, most: float) -> float:
    """Scales gradients down to a norm; returns the norm that they had. torch's own takes no mixture of DTensors."""
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    wholes = [g.full_tensor() if hasattr(g, "full_tensor") else g for g in gradients]
    norm = float(torch.stack([whole.double().square().sum() for whole in wholes]).sum().sqrt())
    for gradient in gradients:
        gradient.mul_(min(1.0, most / norm))
    return norm


def train(model: nn.Module, optimizer: torch.optim.Optimizer, *, clip: bool) -> list[float]:
    """Trains a few steps on batches that all processes share; returns the losses."""
    losses = []
    for step in range(STEPS):
        inputs, targets = draw_batch(step)
        inputs = inputs.to(next(model.parameters()).dtype)
        loss = functional.cross_entropy(model(inputs), targets)
        loss.backward()
        if clip:
            clip_gradients(model, 0.5)
        optimizer.step()
        optimizer.zero_grad(set_to_none=bool(step % 2))
        losses.append(float(loss.detach()))
    return losses


def check_holding(kind: str, optimizer: str, clip: bool) -> None:
    """A held sharded model trains as the held plain one does, and stays pruned."""
    plain, sharded = Stack().double(), make_sharded(kind, dtype=torch.float64)
    mask = create_magnitude_mask(plain, 0.7)
    options: dict[str, Any] = {"lr": 0.1, **({"momentum": 0.9} if optimizer == "SGD" else {})}
    losses = []
    for model in (plain, sharded):
        hold_mask(model, mask)
        stepper = getattr(torch.optim, optimizer)(model.parameters(), **options)
        losses.append(train(model, stepper, clip=clip))
        assert check_held(model) == mask
    torch.testing.assert_close(torch.tensor(losses[0]), torch.tensor(losses[1]), rtol=1e-9, atol=1e-9)
    whole, own = gather(sharded), plain.state_dict()
    for name, value in whole.items():
        torch.testing.assert_close(value, own[name], rtol=1e-9, atol=1e-9)
    for name, kept in mask.items():
        assert not whole[name][~kept].any()
    remove_mask(sharded)
    train(sharded, torch.optim.SGD(sharded.parameters(), lr=0.1), clip=False)
    assert any(gather(sharded)[name][~kept].any() for name, kept in mask.items())


def check_gradients_while_held(kind: str) -> None:
    """After a backward pass the gradients are zero at pruned weights, so that their norm is the plain one's."""
    plain, sharded = Stack(), make_sharded(kind)
    mask = create_magnitude_mask(plain, 0.7)
    norms = []
    for model in (plain, sharded):
        hold_mask(model, mask)
        inputs, targets = draw_batch(0)
        functional.cross_entropy(model(inputs), targets).backward()
        norms.append(clip_gradients(model, 1e9))
    assert abs(norms[0] - norms[1]) < 1e-5


def check_writes_are_undone(kind: str) -> None:
    """What is written to a pruned weight between steps is zero in the next forward pass, also without gradients."""
    plain, sharded = Stack(), make_sharded(kind)
    mask = create_magnitude_mask(plain, 0.7)
    inputs, _ = draw_batch(0)
    outputs = []
    for model in (plain, sharded):
        hold_mask(model, mask)
        with torch.no_grad():
            model(inputs)
            modules: list[Any] = list(model.modules())
            for module in modules:
                if hasattr(module, "reshard"):
                    module.reshard()
            for parameter in model.parameters():
                parameter.add_(1.0)
            outputs.append(model(inputs))
    result = outputs[1].full_tensor() if hasattr(outputs[1], "full_tensor") else outputs[1]
    torch.testing.assert_close(outputs[0], result)


def check_masked(kind: str) -> None:
    """Within `masked` a sharded model computes as the plain one does, and is as before afterwards."""
    plain, sharded = Stack(), make_sharded(kind)
    mask, (inputs, targets) = create_magnitude_mask(plain, 0.7), draw_batch(0)
    before = gather(sharded)
    with torch.no_grad():
        dense = sharded(inputs)
    outputs, gradients = [], []
    for model in (plain, sharded):
        with masked(model, mask):
            result = model(inputs)
            functional.cross_entropy(result, targets).backward()
            outputs.append(result.detach())
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
        model.zero_grad()
    torch.testing.assert_close(outputs[0], outputs[1])
    for name, gradient in gradients[1].items():
        whole: Any = gradient.full_tensor() if hasattr(gradient, "full_tensor") else gradient
        torch.testing.assert_close(whole, gradients[0][name])
    for name, value in gather(sharded).items():
        assert torch.equal(value, before[name]), name
    with torch.no_grad():
        assert torch.equal(sharded(inputs), dense)


def check_files(kind: str, folder: str) -> None:
    """A sharded mask is written once, and is the plain one when it is loaded."""
    mask = create_magnitude_mask(make_sharded(kind), 0.7)
    path = Path(folder) / f"{kind}.safetensors"
    mask.save(path)
    assert Mask.load(path) == create_magnitude_mask(Stack(), 0.7)
    assert Mask.load(path).digest == mask.digest


def refuse_one_weight(kind: str) -> None:
    """One process has a weight that is not finite; all must say so."""
    model = make_sharded(kind)
    if torch.distributed.get_rank() == torch.distributed.get_world_size() - 1:
        for name, parameter in model.named_parameters():
            local = parameter.to_local() if hasattr(parameter, "to_local") else parameter
            if name.startswith("blocks.1.up"):
                local.detach().fill_(torch.nan)
    create_magnitude_mask(model, 0.5)


def copy_sharded() -> Any:  # noqa: ANN401 - whatever comes
    """A deepcopy of a sharded mask cannot be, and says why."""
    return copy.deepcopy(create_magnitude_mask(make_sharded("fsdp"), 0.5))


def watch(model: nn.Module, data: list[tuple[Tensor, Tensor]], held_out: tuple[Tensor, Tensor]) -> EarlyBirdWatcher:
    """Trains under a watch with a probe; returns the watcher."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    watcher = EarlyBirdWatcher(model, check_steps=10, probe=held_out)
    for step in range(1, 61):
        inputs, targets = data[step % len(data)]
        loss = functional.cross_entropy(model(inputs), targets)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        watcher.observe(model, step, loss=loss.detach())
    return watcher


def check_watching(kind: str) -> str:
    """A watch of a sharded model finds what that of the plain one finds, and leaves no trace; returns the verdict."""
    data, held_out = draw_rule()
    found = [watch(model, data, held_out) for model in (Stack(12).double(), make_sharded(kind, 12, torch.float64))]
    plain, sharded = (watcher.results() for watcher in found)
    assert sharded["verdict"] == plain["verdict"]
    assert sharded["final_mask"].gather() == plain["final_mask"]
    for own, expected in zip(sharded["checkpoints"], plain["checkpoints"], strict=True):
        compare_figures(own, expected)
    for name, ranks in sharded["final_rankings"].items():
        assert ranks.shape == sharded["final_mask"].local_shapes[name]
    return str(sharded["verdict"])


def compare_figures(own: Any, expected: Any) -> None:  # noqa: ANN401 - figures in figures
    """Compares what two checks have recorded, but for the time they took."""
    if isinstance(expected, dict):
        assert own.keys() == expected.keys()
        for name in own:
            if name != "seconds":
                compare_figures(own[name], expected[name])
    elif isinstance(expected, list):
        assert len(own) == len(expected)
        for one, other in zip(own, expected, strict=True):
            compare_figures(one, other)
    elif isinstance(expected, float):
        assert abs(own - expected) <= 1e-6 * max(1.0, abs(expected)), (own, expected)
    else:
        assert own == expected


def train_watched(state: WatchState, model: nn.Module, first: int, last: int) -> None:
    """Trains from one step to another under a watch that is kept in a state; without momentum."""
    data, _ = draw_rule()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for step in range(first + 1, last + 1):
        inputs, targets = data[step % len(data)]
        functional.cross_entropy(model(inputs), targets).backward()
        optimizer.step()
        optimizer.zero_grad()
        state.watcher.observe(model, step)
        state.step = step


def draw_rule() -> tuple[list[tuple[Tensor, Tensor]], tuple[Tensor, Tensor]]:
    """Returns batches that a linear rule labels, and others that are held out."""
    generator = torch.Generator().manual_seed(0)
    rule = torch.randn(12, 5, generator=generator)
    inputs = torch.randn(256, 12, dtype=torch.float64, generator=generator)
    targets = (inputs.float() @ rule).argmax(1)
    return [(inputs[s : s + 16], targets[s : s + 16]) for s in range(0, 128, 16)], (inputs[128:], targets[128:])


def begin_watch(kind: str) -> tuple[nn.Module, WatchState]:
    """Returns a model, sharded or not, and the state of its watch."""
    model: nn.Module = make_sharded(kind, 12, torch.float64) if kind else Stack(12).double()
    _, held_out = draw_rule()
    return model, WatchState(model, partial(EarlyBirdWatcher, check_steps=5, probe=held_out))


def save_checkpoint(kind: str, folder: str) -> None:
    """Trains 10 steps under a watch, then saves the model, a mask of it and the watch."""
    model, state = begin_watch(kind)
    train_watched(state, model, 0, 10)
    mask = create_magnitude_mask(model, 0.7)
    parts = {"model": model.state_dict(), "mask": MaskState(model, mask), "watch": state}
    checkpoint.save(parts, checkpoint_id=folder)


def go_on(kind: str, folder: str) -> tuple[Any, Any]:
    """Loads what was saved into other shards, trains on to step 20; returns figures of all checks, and whole masks."""
    model, state = begin_watch(kind)
    loaded, weights = MaskState(model), model.state_dict()
    checkpoint.load({"model": weights, "mask": loaded, "watch": state}, checkpoint_id=folder)
    model.load_state_dict(weights)
    assert loaded.mask is not None
    assert loaded.mask == create_magnitude_mask(model, 0.7)
    assert loaded.mask.provenance["method"] == "magnitude"
    train_watched(state, model, state.step, 20)
    ticket = state.watcher.draw_ticket(last=True).gather()
    return state.watcher.checkpoints, {name: ticket[name] for name in ticket}
