"""What decides the last bits of a result beside everything that a user asks for."""

import platform
from importlib.metadata import version
from typing import Any

import torch


def describe_environment(*, of_threads: bool = False) -> dict[str, Any]:
    """Returns versions and machine, JSON-able.

    Args:
        of_threads: Whether the number of torch's threads counts: it decides the last bits of a sum.
    """
    versions = {name: version(name) for name in ("lottery-tickets", "torch", "numpy")}
    threads = {"num_threads": torch.get_num_threads()} if of_threads else {}
    # Which vector instructions torch computes by decides the order of its sums.
    machine = {"machine": platform.machine(), "cpu_capability": torch.backends.cpu.get_cpu_capability()}
    return {"python": platform.python_version(), **machine, **versions, **threads}
