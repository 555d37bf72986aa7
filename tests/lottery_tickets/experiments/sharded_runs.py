"""What is checked in each process of runs of sharded models: their folders are, byte for byte, those of one process."""

import errno
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

from lottery_tickets import compute_iterative_magnitude_pruning, hold_mask
from lottery_tickets._core.folders import load_state, save_state
from lottery_tickets._core.sharding.data_parallel import find_together
from lottery_tickets._core.sharding.dtensors import see_local
from lottery_tickets._core.sharding.shards import find_shards
from lottery_tickets._core.sharding.together import ALONE
from lottery_tickets._core.states import copy_clean_state, hash_state
from lottery_tickets._core.tensor_files import whole
from lottery_tickets.experiments.pruning_results import PruningResults
from lottery_tickets.masks.controls import reinitialise_
from tests.sharded import Stack, make_mesh, make_sharded

make_plain = partial(Stack, num_blocks=1)
DATA = [(torch.randn(8, 6, generator=torch.Generator().manual_seed(n)), torch.arange(8) % 5) for n in range(2)]
SETTINGS: dict[str, Any] = {
    "num_epochs": 2,
    "rewind_epoch": 1,
    "prune_rates": 0.5,
    "control_levels": [2],
    "accept_changed_environment": True,
    "trainer_id": "folding",
}
REWIND = "replicate-0/level-00-ticket/rewind.safetensors"
MESHES: dict[int, DeviceMesh] = {}  # made once in each process: each makes new groups
opened: set[str] = set()  # files that this process has opened
sys.addaudithook(lambda event, about: opened.add(str(about[0])) if event == "open" else None)


class StoppedError(Exception):
    """What a trainer raises that stands for an interruption."""


class Folding:
    """Trains by arithmetic that gives each weight the same bits wherever it lies, and reorders them by size.

    Args:
        most: Trainings, after which it raises.
        instead: Called in place of the training after those.
    """

    def __init__(self, most: int = 1000, instead: Callable[[], object] | None = None) -> None:
        self.left, self.instead = most, instead

    def __call__(self, model: nn.Module, dataloader: Iterable[Any], *, epochs: int) -> None:
        """Folds each parameter at a place that the global generator draws."""
        self.left -= 1
        if self.left < 0:
            if self.instead is None:
                raise StoppedError
            self.instead()
        for _ in range(epochs):
            place = torch.rand(()).div(4)
            for _batch in dataloader:
                pass
            with torch.no_grad():
                for parameter in model.parameters():
                    local = see_local(parameter)
                    local.copy_(local.abs().mul(1.5).sub(place))


def run(model: nn.Module, folder: str | None, trainer: Folding | None = None, **settings: Any) -> PruningResults:  # noqa: ANN401 - of many types
    """Runs iterative magnitude pruning on a model; each process is given its share of the training data."""
    together, samples = find_together(model), TensorDataset(*map(torch.cat, zip(*DATA, strict=True)))
    share = partial(DistributedSampler[Any], samples, together.num_processes, together.place)
    sampler = None if together is ALONE else share()
    given = {"trainer_fn": trainer or Folding(), "evaluation_dataloader": DATA, "run_folder": folder}
    return compute_iterative_magnitude_pruning(
        model, DataLoader(samples, batch_size=2, sampler=sampler), 0.7, **{**given, **SETTINGS, **settings}
    )


def shard_over(num_processes: int) -> nn.Module | None:
    """Returns a stack under FSDP2 in the first so many processes; None in the others."""
    if num_processes not in MESHES:
        MESHES[num_processes] = DeviceMesh("cpu", torch.arange(num_processes))
    if torch.distributed.get_rank() >= num_processes:
        return None
    model, mesh = make_plain(), MESHES[num_processes]
    for block in model.blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    return model


def make_model(kind: str) -> nn.Module | None:
    """Returns a stack of a kind: "fsdp 3" over so many processes, "ddp", or one of `make_sharded`."""
    if kind.startswith("fsdp "):
        return shard_over(int(kind.split()[1]))
    return DistributedDataParallel(make_plain()) if kind == "ddp" else make_sharded(kind, num_blocks=1)


def check_run(kind: str, folder: str, rewinding: str) -> tuple[list[str], Any] | None:
    """Runs on a model of a kind; returns the digests of its masks, gathered, and its rows."""
    model = make_model(kind)
    if model is None:
        return None
    opened.clear()
    own = [DATA[torch.distributed.get_rank() // 2]]  # those of one tensor-parallel group see the same
    results = run(model, folder, rewinding=rewinding, evaluation_dataloader=own)
    if torch.distributed.get_rank() > 0:
        assert not [path for path in opened if folder in path]  # the files are those of the first process
    if kind != "ddp":
        assert results["final_mask"].nbytes < results["final_mask"].gather().nbytes
        assert hash_state(results["rewind_state"] or {}) == hash_state(load_state(Path(folder) / REWIND))
    hold_mask(model, results["final_mask"])
    for row in results["trainings"]:
        assert all(0 <= layer["num_moved"] <= layer["num_kept"] for layer in row["layers"].values())
    assert results["run_folder"] == folder
    return [mask.gather().digest for mask in results["masks"]], results["trainings"]


def stop_after(num_processes: int, folder: str, most: int) -> str:
    """Goes on with a run over so many processes until it has trained so often; returns what stopped it."""
    model = shard_over(num_processes)
    if model is None:
        return ""
    before = {name: value.clone() for name, value in model.state_dict().items()}
    try:
        run(model, folder, Folding(most))
    except StoppedError as error:
        after = model.state_dict()
        assert all(torch.equal(see_local(value), see_local(after[name])) for name, value in before.items())
        return "; ".join(error.__notes__)
    return "nothing"


def die_in_training(place: int, folder: str) -> None:
    """One process is killed in its fourth stretch of training."""
    is_it = torch.distributed.get_rank() == place
    run(
        make_sharded("fsdp", num_blocks=1),
        folder,
        Folding(3, lambda: os.kill(os.getpid(), signal.SIGKILL)) if is_it else None,
    )


def check_simulation(kind: str) -> list[str]:
    """Returns the digests of the masks of a simulation."""
    results = compute_iterative_magnitude_pruning(make_sharded(kind, num_blocks=1), DATA, 0.7, prune_rates=0.4)
    expected = compute_iterative_magnitude_pruning(make_plain(), DATA, 0.7, prune_rates=0.4)
    for own, row in zip(results["trainings"], expected["trainings"], strict=True):
        assert (own["layers"], own["num_kept"]) == (row["layers"], row["num_kept"])
        assert abs(own["history"]["end"]["loss"] - row["history"]["end"]["loss"]) < 1e-5
    assert [mask.gather() for mask in results["masks"]] == expected["masks"]
    return [mask.gather().digest for mask in results["masks"]]


def check_fresh_weights(kind: str) -> None:
    """Fresh weights of a sharded model are those that one process draws."""
    plain, sharded = make_plain(seed=1), make_sharded(kind, num_blocks=1)
    reinitialise_(plain, 3)
    reinitialise_(sharded, 3)
    assert hash_state(sharded.state_dict()) == hash_state(plain.state_dict())


def check_tied_state(folder: str) -> None:
    """A state with tied and empty tensors is written as that of one process, and comes back tied."""
    plain, sharded = _make_tied(), _make_tied()
    fully_shard(sharded, mesh=make_mesh(torch.distributed.get_world_size()))
    paths, state = {name: Path(folder) / name for name in ("plain", "sharded")}, copy_clean_state(sharded)
    save_state(paths["sharded"], state)
    shards = find_shards(state)
    assert shards is not None
    if shards.together.place == 0:
        save_state(paths["plain"], copy_clean_state(plain))
        assert paths["plain"].read_bytes() == paths["sharded"].read_bytes()
    loaded = load_state(paths["sharded"], shards.together, shards)
    assert loaded["1.weight"] is loaded["0.weight"]
    assert list(loaded) == list(load_state(paths["sharded"]))
    for name, value in state.items():
        assert torch.equal(see_local(loaded[name]), see_local(value)), name


def _make_tied() -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3, bias=False))
    model[1].weight = model[0].weight
    model.register_buffer("nothing", torch.zeros(0, 2))
    model.register_buffer("number", torch.tensor(7))
    return model


def fail_to_write(folder: str) -> None:
    """The first process cannot write the third tensor of a state."""
    outcomes = [None, None, OSError(errno.ENOSPC, "No space left on device")]
    is_first = torch.distributed.get_rank() == 0
    with patch.object(whole, "_append_tensor", side_effect=outcomes) if is_first else nullcontext():
        run(make_sharded("fsdp", num_blocks=1), folder)


def go_on_with_altered(folder: str) -> None:
    """Goes on with a run of which the first process has altered a file."""
    model = make_sharded("fsdp", num_blocks=1)
    if torch.distributed.get_rank() == 0:
        path = Path(folder) / "replicate-0/level-01-ticket/weights.safetensors"
        path.write_bytes(path.read_bytes()[:-1] + b"x")
        shutil.rmtree(Path(folder) / "replicate-0/level-02-ticket")
    run(model, folder)


def list_refused(folder: str) -> list[str]:
    """Returns what is said of what cannot be with a model that several processes train."""
    model, said = make_sharded("fsdp", num_blocks=1), []
    own = f"{folder}.json"
    for settings in (
        {"executor": object()},
        {"path": own},
        {"num_epochs": 3 + torch.distributed.get_rank() // 2},
        {"metric": "perplexity", "loss_fn": lambda model, batch: model(batch[0]).square().mean()},
    ):
        try:
            run(model, folder, **settings)
        except ValueError as error:
            said.append(str(error))
    return said
