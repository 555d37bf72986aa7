"""Memory of storing and reading the state of a model that is sharded over 2 and 4 processes, as a run folder does.

The state is eight tensors of 48 MB, each shared out over all processes. Peak memory is the rise of resident memory in
each process, beside the shard that reading returns; the first process maps the file while it reads, which the system
may let go, so that this counts too. A smaller state is stored and read before.
Run by `python -m benchmarks.sharded.states`; writes benchmarks/results/sharded_states.json.
"""

import argparse
import tempfile
from functools import partial
from pathlib import Path
from typing import Any, Final

from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor

from benchmarks.common import measure_peak_extra_bytes, write_results
from benchmarks.sharded.masks import make_shards
from benchmarks.sharded.ranks import add_arguments, run_rank, run_ranks
from lottery_tickets._core.folders import load_state, save_state
from lottery_tickets._core.sharding.shards import find_shards

NUM_TENSORS: Final = 8
NUM_COLUMNS: Final = 4096
NUM_ROWS: Final = 48_000_000 // 4 // NUM_COLUMNS
RANKS: Final = (2, 4)


def measure_states(folder: Path, rank: int, num_ranks: int) -> dict[str, Any]:
    """Returns the peaks of storing and reading, in bytes, and what they are beside."""
    mesh = init_device_mesh("cpu", (num_ranks,))
    _store_and_read(make_shards(NUM_TENSORS, (64, NUM_COLUMNS), rank, mesh), folder / "small")
    state = make_shards(NUM_TENSORS, (NUM_ROWS, NUM_COLUMNS), rank, mesh)
    stored, read = _store_and_read(state, folder / "large")
    here = sum(tensor.to_local().nbytes for tensor in state.values() if isinstance(tensor, DTensor))
    return {
        "stored_peak_bytes": stored,
        "read_peak_bytes": read - here,
        "shard_bytes": here,
        "tensor_bytes": NUM_ROWS * NUM_COLUMNS * 4,
    }


def _store_and_read(state: dict[str, Tensor], path: Path) -> tuple[int, int]:
    shards = find_shards(state)
    assert shards is not None
    stored = measure_peak_extra_bytes(partial(save_state, path, state))
    return stored, measure_peak_extra_bytes(partial(load_state, path, shards.together, shards))


def main() -> None:
    """Measures and writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path)
    add_arguments(parser)
    arguments = parser.parse_args()
    if arguments.folder:
        run_rank(arguments, lambda: measure_states(arguments.folder, arguments.rank, arguments.ranks))
        return
    cases = []
    for num_ranks in RANKS:
        with tempfile.TemporaryDirectory() as folder:
            cases.append({"ranks": num_ranks, "processes": run_ranks(__file__, num_ranks, folder)})
    write_results("sharded-states", {"num_tensors": NUM_TENSORS, "states": cases})


if __name__ == "__main__":
    main()
