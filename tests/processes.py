"""A function run in several processes that talk by gloo, as torchrun would start them, and what each returns."""

import contextlib
import datetime as dt
import multiprocessing
import os
import pickle
import traceback
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

TIMEOUT_SECONDS: Final = 60  # for one answer of all processes
PRELOADED: Final = [
    "torch.distributed.tensor",
    "torch.distributed.fsdp",
    "lottery_tickets.importance_scoring",
    "tests.sharded",
]


class Failed(Exception):  # noqa: N818 - what happened, not an error of ours
    """What a process has raised, as text."""


class Processes:
    """Processes in one group, which wait for functions to call.

    Args:
        pipes: To each of them.
        workers: Themselves.
    """

    def __init__(self, pipes: list[Connection], workers: list[Any]) -> None:
        self.pipes, self.workers = pipes, workers

    def run(self, function: Callable[..., Any], *arguments: Any) -> list[Any]:  # noqa: ANN401 - whatever pickles
        """Returns what the function returns in each process; it is called with these arguments.

        Raises:
            Failed: When one has raised, with what all have raised.
        """
        answers = self.ask(function, *arguments)
        failures = [f"in process {rank}: {answer}" for rank, (is_right, answer) in enumerate(answers) if not is_right]
        if failures:  # all of the first, and what the others end with
            raise Failed("\n".join([failures[0], *(failure.strip().splitlines()[-1] for failure in failures[1:])]))
        return [answer for _, answer in answers]

    def ask(self, function: Callable[..., Any], *arguments: Any) -> list[tuple[bool, Any]]:  # noqa: ANN401 - as above
        """Returns for each process whether it returned, and what, or what it has raised; None of one that died."""
        for pipe in self.pipes:
            with contextlib.suppress(BrokenPipeError):
                pipe.send((function, arguments))
        return [self._receive(pipe) for pipe in self.pipes]

    def _receive(self, pipe: Connection) -> tuple[bool, Any]:
        if not pipe.poll(TIMEOUT_SECONDS):
            return False, "no answer"
        try:
            return pickle.loads(pipe.recv_bytes())  # type: ignore[no-any-return]
        except EOFError:
            return False, "died"


@contextlib.contextmanager
def started(num_processes: int, folder: Path, seconds: float = TIMEOUT_SECONDS) -> Iterator[Processes]:
    """Gives so many processes in one group of gloo.

    Args:
        num_processes: How many.
        folder: Where they find one another.
        seconds: How long one waits for another.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    pairs = [context.Pipe() for _ in range(num_processes)]
    workers = [
        context.Process(target=_serve, args=(theirs, rank, num_processes, str(folder / "store"), seconds), daemon=True)
        for rank, (_, theirs) in enumerate(pairs)
    ]
    for worker, (_, theirs) in zip(workers, pairs, strict=True):
        worker.start()
        theirs.close()
    try:
        yield Processes([ours for ours, _ in pairs], workers)
    finally:
        for ours, _ in pairs:
            ours.close()
        for worker in workers:
            worker.join(5)
            if worker.is_alive():
                worker.kill()
                worker.join()


def _serve(pipe: Connection, rank: int, num_processes: int, store: str, seconds: float) -> None:
    import torch  # noqa: PLC0415 - in the process that was started

    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo",
        init_method=f"file://{store}",
        rank=rank,
        world_size=num_processes,
        timeout=dt.timedelta(seconds=seconds),
    )
    with contextlib.suppress(EOFError):
        while True:
            function, arguments = pipe.recv()
            try:
                answer = True, function(*arguments)
            except BaseException:  # noqa: BLE001 - told to the test
                answer = False, traceback.format_exc()
            pipe.send_bytes(pickle.dumps(answer))
    os._exit(0)  # torch's group would wait for those that were killed
