"""The mask of a model that is sharded over 1, 2 and 4 processes of one machine, beside that of one process.

The weights are random, made shard by shard. One process works on them with as many threads as there are cores; each
of several has its share of these, and one at least. Bytes are those of the messages that a process sends, of which
the groups of torch make more. Peak memory is the rise of resident memory over the shard, in each process.
Run by `python -m benchmarks.sharded.masks`; writes benchmarks/results/sharded_masks.json.
"""

import argparse
import pickle
import statistics
import time
from collections.abc import Callable
from typing import Any, Final

import torch
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Shard

from benchmarks.common import measure_peak_extra_bytes, write_results
from benchmarks.sharded.ranks import add_arguments, run_rank, run_ranks
from lottery_tickets import create_magnitude_mask, hold_mask, remove_mask
from lottery_tickets._core.sharding.together import Processes

NUM_TENSORS: Final = 20
NUM_COLUMNS: Final = 4096
SPARSITY: Final = 0.5
REPEATS: Final = 5
RANKS: Final = (1, 2, 4)
WIDTH: Final = 1024
STEPS: Final = 30
BATCH: Final = 64


def make_weights(num_weights: int, dtype: torch.dtype, rank: int, num_ranks: int) -> dict[str, Tensor]:
    """Returns the shard of random weights that a process has, as DTensors; plain tensors of one process alone."""
    mesh = init_device_mesh("cpu", (num_ranks,)) if num_ranks else None
    return make_shards(NUM_TENSORS, (num_weights // NUM_TENSORS // NUM_COLUMNS, NUM_COLUMNS), rank, mesh, dtype)


def make_shards(
    num_tensors: int, shape: tuple[int, int], rank: int, mesh: DeviceMesh | None, dtype: torch.dtype = torch.float32
) -> dict[str, Tensor]:
    """Returns what a process has of random matrices whose rows are shared out over a mesh; all of them without one."""
    (rows, columns), generator = shape, torch.Generator().manual_seed(rank)
    share = [chunk.numel() for chunk in torch.arange(rows).chunk(mesh.size() if mesh else 1)][rank]
    tensors: dict[str, Tensor] = {
        f"layer{place}.weight": torch.randn(share, columns, generator=generator).to(dtype)
        for place in range(num_tensors)
    }
    if mesh is None:
        return tensors
    stride = (columns, 1)
    return {
        name: DTensor.from_local(t, mesh, [Shard(0)], run_check=False, shape=torch.Size(shape), stride=stride)
        for name, t in tensors.items()
    }


class Counter:
    """Counts what one process sends: calls, and bytes of their messages."""

    def __init__(self) -> None:
        self.bytes = self.calls = 0
        add_up, gather = Processes.add_up_, Processes._gather  # noqa: SLF001 - where all messages are sent

        def count_sum(processes: Processes, tensor: Tensor) -> None:
            self.calls, self.bytes = self.calls + 1, self.bytes + tensor.nbytes
            add_up(processes, tensor)

        def count_gathered(processes: Processes, value: Any) -> list[Any]:  # noqa: ANN401 - as there
            self.calls, self.bytes = self.calls + 1, self.bytes + len(pickle.dumps(value))
            return gather(processes, value)

        replaced: Any = Processes
        replaced.add_up_, replaced._gather = count_sum, count_gathered  # noqa: SLF001 - as above


def measure_masks(num_weights: int, dtype: str, rank: int, num_ranks: int) -> dict[str, Any]:
    """Returns what a mask takes in one process of several, or in one alone (0)."""
    weights = make_weights(num_weights, getattr(torch, dtype), rank, num_ranks)

    def create() -> None:
        create_magnitude_mask(weights, SPARSITY)

    create()
    peak = measure_peak_extra_bytes(create)
    counter = Counter()
    seconds = [_time(create) for _ in range(REPEATS)]
    return {
        "seconds": statistics.median(seconds),
        "bytes_a_mask": counter.bytes / REPEATS,
        "messages_a_mask": counter.calls / REPEATS,
        "peak_bytes": peak,
        "shard_bytes": sum(t.to_local().nbytes if isinstance(t, DTensor) else t.nbytes for t in weights.values()),
    }


def measure_holding(rank: int, num_ranks: int) -> dict[str, Any]:
    """Returns the seconds of a training step under `fully_shard`, held to a mask and not, in turns."""
    torch.manual_seed(0)
    layers = [torch.nn.Sequential(torch.nn.Linear(WIDTH, WIDTH), torch.nn.ReLU()) for _ in range(8)]
    model = torch.nn.Sequential(*layers)
    mesh = init_device_mesh("cpu", (num_ranks,))
    for layer in model:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    inputs = torch.randn(BATCH, WIDTH, generator=torch.Generator().manual_seed(rank))
    mask = create_magnitude_mask(model, 0.9)

    def step() -> None:
        model(inputs).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    found: dict[str, list[float]] = {"free": [], "held": []}
    for place in range(2 * STEPS + 4):
        if place % 2:
            hold_mask(model, mask)
        else:
            remove_mask(model)
        step()
        seconds = _time(step)
        if place >= 4:  # noqa: PLR2004 - the first warm up
            found["held" if place % 2 else "free"].append(seconds)
    return {name: statistics.median(seconds) for name, seconds in found.items()}


def _time(call: Callable[[], object]) -> float:
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Returns what one process of several has measured."""
    if arguments.what == "holding":
        return measure_holding(arguments.rank, arguments.ranks)
    return measure_masks(arguments.weights, arguments.what, arguments.rank, arguments.ranks)


def main() -> None:
    """Measures and writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="?")
    parser.add_argument("--weights", type=int, default=200_000_000)
    add_arguments(parser)
    arguments = parser.parse_args()
    if arguments.what:
        run_rank(arguments, lambda: measure(arguments))
        return
    masks = [
        {
            "dtype": dtype,
            "num_weights": num_weights,
            "ranks": num_ranks,
            "processes": run_ranks(__file__, num_ranks, dtype, "--weights", str(num_weights)),
        }
        for dtype in ("float32", "bfloat16")
        for num_weights in (arguments.weights // 10, arguments.weights)
        for num_ranks in (0, *RANKS)
    ]
    holding = [{"ranks": ranks, "processes": run_ranks(__file__, ranks, "holding")} for ranks in (1, 2)]
    write_results("sharded-masks", {"sparsity": SPARSITY, "repeats": REPEATS, "masks": masks, "holding": holding})


if __name__ == "__main__":
    main()
