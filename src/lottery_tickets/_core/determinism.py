"""Seeds: one number names an experiment, and each use of chance in it gets a generator of its own."""

import contextlib
import hashlib
import os
import random
import threading
from collections.abc import Iterator

import numpy as np
import torch


def derive_seed(seed: int, *uses: str | int) -> int:
    """Returns the seed of one use of chance, a function of the experiment's seed and the use's name.

    Different uses get unrelated seeds, so drawing more for one never shifts another.

    Args:
        seed: The experiment's seed.
        uses: The path to the use, such as `"replicate", 0, "initialisation"`.

    Returns:
        A seed in [0, 2^63).
    """
    text = "/".join(str(part) for part in (seed, *uses))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def make_generator(seed: int, *uses: str | int) -> torch.Generator:
    """Returns a CPU generator for one use of chance; other uses of the same seed draw other numbers.

    Args:
        seed: The experiment's seed.
        uses: The path to the use, such as `"replicate", 0, "initialisation"`.

    Examples:
        >>> first = torch.rand(3, generator=make_generator(7, "samples"))
        >>> torch.equal(first, torch.rand(3, generator=make_generator(7, "samples")))
        True
        >>> torch.equal(first, torch.rand(3, generator=make_generator(7, "initialisation")))
        False
    """
    return torch.Generator().manual_seed(derive_seed(seed, *uses))


class _OneAtATime:
    """The lock of the global generators; a child process begins with a free one, whoever holds it in its parent."""

    lock = threading.RLock()

    @classmethod
    def free(cls) -> None:
        cls.lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_OneAtATime.free)


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Within the block the global generators of torch, numpy and Python are seeded; afterwards they are as before.

    They are the process's, so only one thread is inside such a block at a time; another waits until it is left. So each
    gives what it gives alone, and the generators come back. To wait, inside a block, for a thread that needs one itself
    would never end. A thread that draws from the global generators without such a block, while another thread is
    inside one, gets numbers from that one's seed and changes what that one gets; its draws are undone.
    """
    with _OneAtATime.lock:
        python_state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002 - callers' code may use it
        with torch.random.fork_rng():
            seed_everything(seed)
            try:
                yield
            finally:
                random.setstate(python_state)
                np.random.set_state(numpy_state)  # noqa: NPY002 - as above


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Within the block torch computes on one thread: the number of threads decides the last bits of a sum."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def seed_everything(seed: int) -> None:
    """Seeds the global generators of torch (all devices), numpy and Python."""
    if torch.accelerator.is_available():
        torch.manual_seed(seed)
    else:  # for devices that are not there torch would keep the seed, with a trace of the calls, which takes its time
        torch.default_generator.manual_seed(seed)
    # numpy's global generator takes 32 bits.
    np.random.seed(seed % 2**32)  # noqa: NPY002 - callers' code may use it
    random.seed(seed)
