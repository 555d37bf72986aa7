"""What is checked in each process of watches of sharded models, and of what is saved of them."""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed import checkpoint
from torch.nn import functional

from lottery_tickets import EarlyBirdWatcher, create_magnitude_mask
from lottery_tickets.integrations.distributed_checkpoint import MaskState, WatchState
from tests.sharded import Stack, make_sharded


def watch(model: nn.Module, data: list[tuple[Tensor, Tensor]], held_out: tuple[Tensor, Tensor]) -> EarlyBirdWatcher:
    """Trains under a watch with a probe; returns the watcher."""
    watcher = EarlyBirdWatcher(model, check_steps=10, probe=held_out)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)  # of what is sharded again
    for step in range(1, 61):
        inputs, targets = data[step % len(data)]
        loss = functional.cross_entropy(model(inputs), targets)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        with torch.no_grad():  # after which the outermost module keeps what it has gathered
            model(inputs)
        watcher.observe(model, step, loss=loss.detach())
    return watcher


def check_watching(kind: str) -> str:
    """A watch of a sharded model finds what that of the plain one finds, and leaves no trace; returns the verdict."""
    data, held_out = draw_rule()
    found = [watch(model, data, held_out) for model in (Stack(12).double(), make_sharded(kind, 12, torch.float64))]
    plain, sharded = (watcher.results() for watcher in found)
    for own, expected in zip(sharded["checkpoints"], plain["checkpoints"], strict=True):
        compare_figures(own, expected)
    assert sharded["verdict"] == plain["verdict"]
    assert sharded["final_mask"].gather() == plain["final_mask"]
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
        # Shards add up in another order, in float32 where places are followed; all that is counted is equal above.
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
    checkpoint.state_dict_saver.save(parts, checkpoint_id=folder)


def go_on(kind: str, folder: str) -> tuple[Any, Any]:
    """Loads what was saved into other shards, trains on to step 20; returns figures of all checks, and whole masks."""
    model, state = begin_watch(kind)
    loaded, weights = MaskState(model), model.state_dict()
    checkpoint.state_dict_loader.load({"model": weights, "mask": loaded, "watch": state}, checkpoint_id=folder)
    model.load_state_dict(weights)
    assert loaded.mask is not None
    assert loaded.mask == create_magnitude_mask(model, 0.7)
    assert loaded.mask.provenance["method"] == "magnitude"
    train_watched(state, model, state.step, 20)
    ticket = state.watcher.draw_ticket(last=True).gather()
    return state.watcher.checkpoints, {name: ticket[name] for name in ticket}


def check_other_losses(kind: str) -> list[tuple[Any, ...]]:
    """Returns what each check says where processes see other losses, and one of them a loss that is not finite."""
    model, rank = make_sharded(kind), torch.distributed.get_rank()
    watcher = EarlyBirdWatcher(model, check_steps=1)
    for step, loss in ((1, 1.0 + rank), (2, torch.nan if rank else 1.0)):
        watcher.observe(model, step, loss=loss)
    return [(found["finite"], found["loss"], found["verdict"]) for found in watcher.checkpoints]
