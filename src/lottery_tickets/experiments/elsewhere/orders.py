"""What workers elsewhere are told to do: an order, a file in the run folder, which each of them must see.

The engine carries its name and hash alone, however large the model. It stands as long as its driver does, which takes
it away when it ends; a worker that does not find it any more stops before its next training.
"""

import contextlib
import hashlib
import pickle
import platform
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Final, NoReturn, Self, final

from lottery_tickets._core.determinism import one_thread
from lottery_tickets._core.environment import describe_environment
from lottery_tickets._core.files import name_aside, write_whole
from lottery_tickets._core.folders import find_differences
from lottery_tickets.experiments.elsewhere.pickling import pickle_once
from lottery_tickets.experiments.engine import run_replicate
from lottery_tickets.experiments.folder import ExperimentFolder
from lottery_tickets.experiments.subjects import Subject

ONE_AT_A_TIME: Final = threading.Lock()  # generators and threads belong to the process: two trainings would share them
POLL_SECONDS: Final = 0.5


class WithdrawnError(Exception):
    """Nobody waits for what a worker was told to do."""


@final
@dataclass(frozen=True)
class Failure:
    """What a worker raised, as it travels: an engine may lose the type of an exception, or take it for a lost worker.

    Attributes:
        pickled: The exception; None where it cannot be pickled.
        said: What it said.
        trace: Where it was raised, the machine first.
    """

    pickled: bytes | None
    said: str
    trace: str

    @classmethod
    def of(cls, error: Exception) -> Self:
        """Returns the failure that an exception is."""
        pickled = None
        with contextlib.suppress(Exception):  # of any class, which may not bear it
            pickled = pickle.dumps(error)
        trace = f"on {platform.node()}:\n{''.join(traceback.format_exception(error))}"
        return cls(pickled, f"{type(error).__name__}: {error}", trace)

    def raise_here(self) -> NoReturn:
        """Raises it as if it had been raised here."""
        error: object = None
        if self.pickled is not None:
            with contextlib.suppress(Exception):  # a class that is only there
                error = pickle.loads(self.pickled)  # noqa: S301 - of a worker of ours
        if not isinstance(error, Exception):
            error = RuntimeError(self.said)
        raise error from RuntimeError(self.trace)


@final
@dataclass(frozen=True)
class Order:
    """A file that holds a run's folder and what makes its subject.

    Attributes:
        path: Absolute.
        sha256: Of its bytes: what is unpickled is what the driver wrote.
    """

    path: Path
    sha256: str

    def read(self) -> tuple[ExperimentFolder, Callable[[], Subject]]:
        """Returns the folder and what makes the subject; has modules found where the driver finds them.

        Raises:
            FileNotFoundError: When this worker does not see the file.
            ValueError: When the file is another one, or needs what is not installed here.
        """
        if not self.path.is_file():
            raise FileNotFoundError(
                f"workers must see the run folder at the path that the driver has, {self.path.parent}, but "
                f"{platform.node()} does not find its order there; name a folder on a disk that all machines share"
            )
        content = self.path.read_bytes()
        if hashlib.sha256(content).hexdigest() != self.sha256:
            raise ValueError(f"{self.path} must be as the driver wrote it, but is not; was it altered?")
        modules, pickled = pickle.loads(content)  # noqa: S301 - its hash is the driver's
        sys.path += [entry for entry in modules if entry not in sys.path]
        try:
            folder, make_subject = pickle.loads(pickled)  # noqa: S301 - as above
        except (ImportError, AttributeError) as error:
            raise ValueError(
                f"workers must have the code that the driver has, but on {platform.node()}: {error}; install it there, "
                "or put it beside the script on a disk that all machines share"
            ) from error
        return folder, make_subject

    def check_wanted(self) -> None:
        """Raises where the driver has taken it away."""
        if not self.path.is_file():
            raise WithdrawnError


@contextlib.contextmanager
def placing_order(folder: ExperimentFolder, make_subject: Callable[[], Subject]) -> Iterator[Order]:
    """Gives an order that stands for the life of the block; what a killed driver leaves goes when the run is opened.

    Args:
        folder: Of the run, held by this process.
        make_subject: Builds the subject.

    Raises:
        TypeError: When what makes the subject cannot be pickled.
        OSError: When the file cannot be written.
    """
    place = folder.path.absolute()
    modules = [str(Path(entry).absolute()) for entry in sys.path]
    content = pickle.dumps((modules, _pickle((replace(folder, path=place), make_subject))))
    path = name_aside(place / "order")
    try:
        write_whole(path, lambda aside: aside.write_bytes(content))
        yield Order(path, hashlib.sha256(content).hexdigest())
    finally:
        path.unlink(missing_ok=True)


def fill_order(order: Order, replicate: int) -> Failure | None:
    """Trains a replicate, on one thread; returns what it raised.

    A process trains one replicate at a time: further threads of it wait.

    Args:
        order: What the driver has placed.
        replicate: Which replicate.
    """
    while not ONE_AT_A_TIME.acquire(timeout=POLL_SECONDS):
        if not order.path.is_file():
            return None
    try:
        folder, make_subject = order.read()
        with one_thread():
            _check_environment(folder)
            run_replicate(folder, make_subject(), replicate, check_wanted=order.check_wanted)
    except WithdrawnError:
        return None
    except Exception as error:  # noqa: BLE001 - of whatever is trained
        return Failure.of(error)
    finally:
        ONE_AT_A_TIME.release()
    return None


def _check_environment(folder: ExperimentFolder) -> None:
    """Raises where the records would tell of another environment than this one: bits may differ from those of others.

    Raises:
        ValueError: When it differs.
    """
    here = describe_environment(of_threads="num_threads" in folder.environment)
    if odd := sorted(find_differences(dict(folder.environment), here)):
        raise ValueError(
            "workers must have the environment of their driver, or their bits could not be compared, but on "
            f"{platform.node()} these differ: {'; '.join(odd)}; install the same versions, run the driver on such a "
            "machine, or set ATEN_CPU_CAPABILITY alike for all"
        )


def _pickle(task: tuple[ExperimentFolder, Callable[[], Subject]]) -> bytes:
    try:
        return pickle_once(task)
    except ModuleNotFoundError:
        raise
    except Exception as error:
        raise TypeError(
            f"what an executor runs must be picklable, but {_find_odd_part(task[1])} is not: {error}; open files, "
            "locks and connections inside the function that uses them, or leave the executor out"
        ) from error


def _find_odd_part(make_subject: Callable[[], Subject]) -> str:
    """Returns in words what of a subject cannot be pickled."""
    subject: Any = make_subject()
    for part in fields(subject) if is_dataclass(subject) else ():
        try:
            pickle_once(getattr(subject, part.name))
        except Exception:  # noqa: BLE001 - of whatever it is
            return part.name
    return "it"
