"""Whether a model under `fully_shard` on a GPU, of one process with NCCL, finds what it finds unsharded.

A section of `python -m benchmarks.speed.gpu`. With one process nothing is shared out, but every message, DTensor and
shard goes the way that it goes with many.
"""

import copy
import socket
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from benchmarks.speed.on_gpu.equality import SCORES, SEED, count_different, list_equality_cases
from lottery_tickets import (
    EarlyBirdWatcher,
    Probe,
    check_held,
    create_magnitude_mask,
    create_random_mask,
    hold_mask,
)
from lottery_tickets._core.batches.samples import move_batch
from lottery_tickets._core.objective import compute_loss


def measure_sharded(device: torch.device) -> dict[str, Any]:
    """Returns what differs between a sharded model and the same model unsharded, on one device."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, init_method=f"tcp://localhost:{port}", rank=0, world_size=1)
    try:
        return {name: compare(device, model, batches) for name, model, batches in list_equality_cases()}
    finally:
        dist.destroy_process_group()


def compare(device: torch.device, model: nn.Module, batches: list[Any]) -> dict[str, Any]:
    """Returns different bits of masks, relative differences of scores, and whether checks agree."""
    whole = model.to(device)
    shards = copy.deepcopy(whole)
    mesh = init_device_mesh(device.type, (1,))
    for layer in shards.modules():
        if isinstance(layer, nn.ModuleList):
            for block in layer:
                fully_shard(block, mesh=mesh)
    fully_shard(shards, mesh=mesh)
    here = [move_batch(batch, device) for batch in batches]
    masks = {
        scope: [create_magnitude_mask(one, 0.8, scope=scope) for one in (whole, shards)]
        for scope in ("global", "layer", "row")
    }
    masks["random"] = [create_random_mask(one, 0.8, seed=SEED) for one in (whole, shards)]
    probes = [EarlyBirdWatcher(one, probe=Probe(here)).check(one, 1, {}) for one in (whole, shards)]
    return {
        "different_bits": {name: count_different(one, other.gather()) for name, (one, other) in masks.items()},
        "scores": {name: compare_scores(compute, whole, shards, here) for name, compute in SCORES.items()},
        "check_of": [probe["verdict"] for probe in probes],
        "held_after_a_step": holds(shards, masks["global"][1], here),
    }


def holds(shards: nn.Module, mask: Any, batches: list[Any]) -> bool:  # noqa: ANN401 - a mask
    """Returns whether a sharded model keeps a mask through steps of an optimizer with momentum."""
    hold_mask(shards, mask)
    optimizer = torch.optim.SGD(shards.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-3)
    for batch in batches:
        optimizer.zero_grad()
        compute_loss(shards, batch).backward()
        optimizer.step()
    check_held(shards)
    kept = mask.gather()
    weights = {
        name: weight.full_tensor().detach().cpu()
        for name, weight in shards.named_parameters()
        if isinstance(weight, DTensor)
    }
    return all(not bool(weights[name][~kept[name]].any()) for name in kept)


def compare_scores(compute: Any, whole: nn.Module, shards: nn.Module, batches: list[Any]) -> float:  # noqa: ANN401 - of SCORES
    """Returns the largest relative difference of the scores of a weight."""
    pair = [compute(one, batches) for one in (whole, shards)]
    differences = []
    for name, score in pair[0].items():
        other = pair[1][name]
        full = other.full_tensor() if isinstance(other, DTensor) else other
        differences.append(float((full.double() - score.double()).norm() / score.double().norm().clamp_min(1e-30)))
    return max(differences)
