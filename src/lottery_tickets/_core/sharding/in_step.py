"""Processes that run one computation in step: before each message of many numbers a short one says what it is.

So a process that fails is heard by the others wherever they are, and none waits for a message that never comes.
"""

import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Final, NoReturn, TypeVar, final

import numpy as np
from torch import Tensor

from lottery_tickets._core.identity.samples import hash_sample
from lottery_tickets._core.sharding.together import ALONE, Counts, Together

Item = TypeVar("Item")
Result = TypeVar("Result")

NUM_NUMBERS: Final = 3  # of a short message
CODES: Final = 1 << 24  # so that the squares of those of 2^15 processes can be summed


@final
class InStep:
    """The processes, and whether they are still in step. All must call the same methods in the same order.

    Args:
        together: The processes.
        alike: Those of them that see the same samples as this one, itself among them.
    """

    def __init__(self, together: Together, alike: Together = ALONE) -> None:
        self.together, self.alike = together, alike
        self._is_over = False

    def run(self, compute: Callable[[], Result]) -> Result:
        """Returns what is computed here, once all have come to the end; all raise what one raises.

        Args:
            compute: Calls the other methods.

        Raises:
            Exception: What was raised here or elsewhere.
            RuntimeError: When processes call different methods, or one has ended.
        """
        try:
            result = compute()
            self.meet("the end")
        except Exception as error:
            if not self._is_over:
                self._tell(error)
            raise
        return result

    def meet(self, place: str, number: int = 0) -> int:
        """Returns the sum of the numbers of all processes, once all are at this place.

        Raises:
            Exception: What another process has raised.
            RuntimeError: When another process is at another place, or has ended.
        """
        code = zlib.crc32(place.encode()) % CODES
        try:
            codes, squares, total = map(int, self.together.sum(NUM_NUMBERS, lambda: _list(code, code**2, number)))
        except Exception:
            self._is_over = True
            raise
        if self.together.num_processes * squares != codes**2:  # equal if and only if all codes are
            self._is_over = True
            raise RuntimeError(
                "all processes that share the weights must use the same layers in the same order, but this one is at "
                f"{place!r} and another is elsewhere; does the model skip layers, depending on its inputs?"
            )
        return total

    def any(self, flag: bool) -> bool:  # noqa: FBT001 - as the built-in function
        """Returns whether it is true in any process."""
        return self.meet("any", flag) > 0

    def all(self, flag: bool) -> bool:  # noqa: FBT001 - as the built-in function
        """Returns whether it is true in all processes."""
        return not self.any(not flag)

    def find_first(self, found: Result | None) -> Result | None:
        """Returns what the first process has found that has found something; None where none has."""
        if not self.any(found is not None):
            return None
        return next(one for one in self.together.gather(lambda: found) if one is not None)

    def gather(self, place: str, value: Result) -> list[Result]:
        """Returns what each process has found, of those that see the same samples the first."""
        self.meet(place)
        told = self.together.gather(lambda: (value,) if not self.alike.place else ())
        return [one for found in told for one in found]

    def go_on(self, items: Iterable[Item], spare: Sequence[Item] = ()) -> Iterator[tuple[Item, bool]]:
        """Yields items as long as any process has one; whoever has none left gets the last one again, and False.

        Args:
            items: Of this process.
            spare: What is the last one before there is any: nothing, or one.

        Raises:
            ValueError: When a process has none, but another has.
        """
        last = list(spare)
        iterator = iter(items)
        while True:
            new = list(islice(iterator, 1))
            if not self.any(bool(new)):
                return
            last = new or last
            if not last:
                raise ValueError(
                    "each process that shares the weights must be given a sample, but this one's data is empty; "
                    "share the samples out evenly"
                )
            yield last[0], bool(new)

    def check_alike(self, samples: object) -> None:
        """Checks that processes which must see the same samples do.

        Raises:
            ValueError: When one has others.
        """
        if self.alike is not ALONE and len(set(self.alike.gather(lambda: hash_sample(samples, [])))) > 1:
            raise ValueError(
                "processes that compute with parts of one weight (tensor parallelism) must be given the same batches, "
                "but have others; shuffle with one seed, and share samples out over the other dimensions of the mesh"
            )

    def take_own(self, number: int) -> slice:
        """Returns which of so many samples, that those which are alike see, this process is to work on."""
        place, num_processes = self.alike.place, self.alike.num_processes
        return slice(number * place // num_processes, number * (place + 1) // num_processes)

    def add_up_(self, place: str, tensors: Iterable[Tensor]) -> None:
        """Puts the sums over all processes of tensors that each has into their place."""
        self.meet(place)
        for tensor in tensors:
            self.together.add_up_(tensor)

    def _tell(self, error: Exception) -> None:
        def fail() -> NoReturn:
            raise error

        self._is_over = True
        self.together.sum(NUM_NUMBERS, fail)


def _list(*numbers: int) -> Counts:
    return np.array(numbers, dtype=np.int64)
