"""Processes that hold parts of the same weights: what each has counted is summed, and what one raises all raise."""

import contextlib
import math
import pickle
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NoReturn, Self, TypeVar, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh

Value = TypeVar("Value")
Counts = NDArray[np.signedinteger[Any]]


class Together(ABC):
    """Who shares the weights. Every one of them must make the same calls in the same order."""

    @property
    @abstractmethod
    def num_processes(self) -> int:
        """How many they are."""

    @property
    @abstractmethod
    def place(self) -> int:
        """Which of them this one is, from 0."""

    @abstractmethod
    def sum(self, size: int, count: Callable[[], Counts]) -> Counts:
        """Returns the sum over all of what each counts, in one message of `8 * (size + 1)` bytes.

        Args:
            size: How many numbers `count` returns, the same everywhere.
            count: Counts here.

        Raises:
            Exception: What `count` has raised, here or elsewhere.
            RuntimeError: When another process has ended or does not answer.
        """

    @abstractmethod
    def add_up_(self, tensor: Tensor) -> None:
        """Puts the sum over all of a tensor that each has into its place."""

    @abstractmethod
    def gather(self, find: Callable[[], Value]) -> list[Value]:
        """Returns what each finds, in one order; all raise what one raises. For what is small, or has no one size."""

    @abstractmethod
    def ask_first(self, find: Callable[[], Value]) -> Value:
        """Returns what the first process finds, in each; all raise what it raises.

        Args:
            find: Called by the first process alone; what it returns must pickle.
        """

    @abstractmethod
    def hand_out(self, find: Callable[[], Tensor]) -> Tensor:
        """Returns a tensor that the first process finds, in each, on the CPU there; all raise what it raises.

        Args:
            find: Called by the first process alone; the tensor lies on the CPU.
        """

    def average(self, number: float) -> float:
        """Returns the mean over all of a number that each has."""
        total = torch.tensor([number], dtype=torch.float64)
        self.add_up_(total)
        return total.item() / self.num_processes

    @contextlib.contextmanager
    def led(self, begin: Callable[[], contextlib.AbstractContextManager[Value]]) -> Iterator[Value]:
        """Within the block the first process holds a context; all are given what it gives, and raise what it raises.

        Args:
            begin: Called by the first process alone; what its context gives must pickle.
        """
        with contextlib.ExitStack() as stack:
            yield self.ask_first(lambda: stack.enter_context(begin()))
            self.let_first(stack.close)

    def let_first(self, act: Callable[[], object]) -> None:
        """Has the first process do something; all raise what it raises."""
        self.agree(act if self.place == 0 else lambda: None)

    def agree(self, compute: Callable[[], Value]) -> Value:
        """Returns what is computed here; all raise what one raises."""
        computed: list[Value] = []

        def run() -> Counts:
            computed.append(compute())
            return np.zeros(0, np.int64)

        self.sum(0, run)
        return computed[0]


@final
class Alone(Together):
    """One process, which has all."""

    @property
    def num_processes(self) -> int:
        """One."""
        return 1

    @property
    def place(self) -> int:
        """The first."""
        return 0

    def sum(self, size: int, count: Callable[[], Counts]) -> Counts:  # noqa: ARG002 - there is no message
        """Returns what is counted here."""
        return count()

    def add_up_(self, tensor: Tensor) -> None:
        """Leaves the tensor as it is."""

    def gather(self, find: Callable[[], Value]) -> list[Value]:
        """Returns what is found here."""
        return [find()]

    def ask_first(self, find: Callable[[], Value]) -> Value:
        """Returns what is found here."""
        return find()

    def hand_out(self, find: Callable[[], Tensor]) -> Tensor:
        """Returns what is found here."""
        return find()


ALONE: Final = Alone()


@final
class Processes(Together):
    """Processes in one group of torch's, or in the several groups of a device mesh.

    Args:
        groups: Along each dimension of the mesh that of this process.
        device: Of messages: what the groups can send.
    """

    def __init__(self, groups: Sequence[Any], device: torch.device) -> None:
        self._groups = list(groups)
        self._device = device

    @classmethod
    def of_mesh(cls, mesh: DeviceMesh, dims: Sequence[int] | None = None) -> Self:
        """Returns the processes of a device mesh, or those that differ from this one along some of its dimensions."""
        chosen = range(mesh.ndim) if dims is None else dims
        return cls([mesh.get_group(dim) for dim in chosen], torch.device(mesh.device_type))

    @property
    def num_processes(self) -> int:
        """As many as the mesh has places."""
        return math.prod(map(torch.distributed.get_world_size, self._groups))

    @property
    def place(self) -> int:
        """In the order of the mesh, the last dimension fastest."""
        places, sizes = (
            [find(group) for group in self._groups]
            for find in (torch.distributed.get_rank, torch.distributed.get_world_size)
        )
        return int(np.ravel_multi_index(places, sizes))

    def add_up_(self, tensor: Tensor) -> None:
        """Puts the sum over all of a tensor that each has into its place."""
        message = tensor.to(self._device)
        with self._explained():
            for group in self._groups:
                torch.distributed.all_reduce(message, group=group)
        if message is not tensor:
            tensor.copy_(message)

    def sum(self, size: int, count: Callable[[], Counts]) -> Counts:
        """Returns the sum over all, dimension by dimension of the mesh."""
        error: Exception | None = None
        message = np.zeros(size + 1, dtype=np.int64)
        try:
            message[:size] = count()
        except Exception as raised:  # noqa: BLE001 - raised again, everywhere
            error, message[size] = raised, 1
        total = torch.from_numpy(message).to(self._device)
        self.add_up_(total)
        sums: Counts = total.cpu().numpy()
        if sums[size]:
            _raise_first(self._gather(_make_portable(error)))
        return sums[:size]

    def gather(self, find: Callable[[], Value]) -> list[Value]:
        """Returns what each finds, in the order of the mesh."""
        found: tuple[Exception | None, Value | None]
        try:
            found = (None, find())
        except Exception as raised:  # noqa: BLE001 - raised again, everywhere
            found = (_make_portable(raised), None)
        gathered = self._gather(found)
        errors = [error for error, _ in gathered]
        if any(errors):
            _raise_first(errors)
        return [value for _, value in gathered]

    def ask_first(self, find: Callable[[], Value]) -> Value:
        """Returns what the first process finds, sent along each dimension of the mesh in turn."""
        found: tuple[Exception | None, Value | None] = (None, None)
        if self.place == 0:
            try:
                found = (None, find())
            except Exception as raised:  # noqa: BLE001 - raised again, everywhere
                found = (_make_portable(raised), None)
        message: list[Any] = [found]
        with self._explained():
            for group in self._groups:
                torch.distributed.broadcast_object_list(message, group=group, group_src=0)
        error, value = message[0]
        if error is not None:
            _raise_first([error] + [None] * (self.num_processes - 1))
        return value  # type: ignore[no-any-return] # the first's, through a list

    def hand_out(self, find: Callable[[], Tensor]) -> Tensor:
        """Returns the tensor that the first process finds; its bytes are sent as they lie."""
        here: list[Tensor] = []

        def describe() -> tuple[torch.dtype, torch.Size]:
            here.append(find().contiguous())
            return here[0].dtype, here[0].shape

        dtype, shape = self.ask_first(describe)
        whole = here[0] if here else torch.empty(shape, dtype=dtype)
        if not whole.numel():
            return whole
        message = whole.view(-1).view(torch.uint8).to(self._device)
        with self._explained():
            for group in self._groups:
                torch.distributed.broadcast(message, group=group, group_src=0)
        return message.cpu().view(dtype).view(shape)

    def _gather(self, value: Any) -> list[Any]:  # noqa: ANN401 - whatever pickles
        """Returns the values of all, the last dimension of the mesh fastest."""
        values = [value]
        with self._explained():
            for group in reversed(self._groups):
                parts: list[Any] = [None] * torch.distributed.get_world_size(group)
                torch.distributed.all_gather_object(parts, values, group=group)
                values = [each for part in parts for each in part]
        return values

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Says in words what torch says of a process that is not there.

        Raises:
            RuntimeError: When another process has ended, or did not answer within the time of the process group.
        """
        try:
            yield
        except RuntimeError as error:  # of which torch's DistBackendError is one
            message = (
                f"all {self.num_processes} processes that share the weights must answer, but one has ended or is "
                "stuck; look for its own error, and run the same command again to go on"
            )
            raise RuntimeError(message) from error


def _make_portable(error: Exception | None) -> Exception | None:
    """Returns an error that pickles, with the same words."""
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    except Exception:  # noqa: BLE001 - whatever an exception's class does
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def _raise_first(errors: Sequence[Exception | None]) -> NoReturn:
    place, error = next((place, error) for place, error in enumerate(errors) if error is not None)
    error.add_note(f"in process {place} of the {len(errors)} that share the weights")
    raise error
