"""The processes of a benchmark: a module of this package started once a rank, and what each of them has measured."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import torch

from benchmarks.common import ROOT

PORT: Final = "29611"


def run_ranks(script: str, num_ranks: int, *arguments: str) -> list[dict[str, Any]]:
    """Returns what each of so many processes has measured; 0 is one process without a group.

    Args:
        script: The module's `__file__`; it calls `run_rank` when it is given these arguments.
        num_ranks: How many. Each has its share of the cores, and one at least.
        arguments: What it is given besides.
    """
    with tempfile.TemporaryDirectory() as folder:
        outputs = [Path(folder) / f"{rank}.json" for rank in range(max(1, num_ranks))]
        threads = str(_count_threads(num_ranks))
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": threads,
            "NUMBA_NUM_THREADS": threads,
            "GLOO_SOCKET_IFNAME": "lo",
        }
        module = ".".join(Path(script).relative_to(ROOT).with_suffix("").parts)
        running = [
            subprocess.Popen(  # noqa: S603 - ours
                [
                    *(sys.executable, "-m", module, *arguments, "--rank", str(rank), "--ranks", str(num_ranks)),
                    *("--output", str(output)),
                ],
                cwd=ROOT,
                env=environment,
            )
            for rank, output in enumerate(outputs)
        ]
        assert [process.wait() for process in running] == [0] * len(running)
        return [json.loads(output.read_text(encoding="utf-8")) for output in outputs]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds those that `run_ranks` gives."""
    parser.add_argument("--rank", type=int)
    parser.add_argument("--ranks", type=int)
    parser.add_argument("--output")


def run_rank(arguments: argparse.Namespace, measure: Callable[[], dict[str, Any]]) -> None:
    """Measures in one process of several, and writes what it found."""
    torch.set_num_threads(_count_threads(arguments.ranks))
    if arguments.ranks:
        torch.distributed.init_process_group(
            "gloo", init_method=f"tcp://127.0.0.1:{PORT}", rank=arguments.rank, world_size=arguments.ranks
        )
    Path(arguments.output).write_text(json.dumps(measure()), encoding="utf-8")


def _count_threads(num_ranks: int) -> int:
    return max(1, (os.cpu_count() or 1) // max(1, num_ranks))
