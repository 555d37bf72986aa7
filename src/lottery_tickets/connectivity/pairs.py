"""Pairs of trainings that share a beginning and differ, after it, in the order of the data alone: an experiment."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, final

from torch import Tensor, nn

from lottery_tickets._core.batches.order import depends_on_seed
from lottery_tickets._core.checks import check_count, check_restartable, warn_caller
from lottery_tickets._core.measuring.performance import Measurement
from lottery_tickets._core.measuring.restoring import restoring
from lottery_tickets._core.prunable_weights import find_prunable_weights
from lottery_tickets._core.sharding.dtensors import refuse_sharded
from lottery_tickets._core.training.trainer_function import TrainerFunction
from lottery_tickets.experiments.caller_subject import CallerSubject
from lottery_tickets.experiments.folder import CONNECTIVITY_FROM_PYTHON, ExperimentFolder
from lottery_tickets.experiments.keeping import Keeping
from lottery_tickets.experiments.plan import ExperimentPlan, Training
from lottery_tickets.experiments.schedules import PruningSchedule
from lottery_tickets.experiments.subjects import Subject
from lottery_tickets.masks.fitting import find_masked_parameters
from lottery_tickets.masks.holding import find_held_mask
from lottery_tickets.masks.mask import Mask

State = dict[str, Tensor]


@final
@dataclass(frozen=True)
class TrainedPair:
    """Two copies of a network, trained.

    Attributes:
        start_sha256: Hash of the weights that both were trained from.
        seeds: Of the data order of each copy, and of the training that they share.
        first: The trained state of one.
        second: That of the other.
    """

    start_sha256: str
    seeds: dict[str, int]
    first: State
    second: State


@final
@dataclass(frozen=True)
class PairTraining:
    """How pairs of copies of a model are trained.

    Attributes:
        trainer_fn: Called as `trainer_fn(model, dataloader, epochs=n)` under seeded generators.
        num_epochs: Of a whole training.
        rewind_epoch: Epochs that the copies share before they part.
        mask: What the copies hold pruned once they part.
        num_replicates: Pairs.
        train_dataloader: Handed to the trainer; the data that is measured on when None.
        seed: Decides the data orders.
        keeping: Where trainings are kept.
    """

    trainer_fn: TrainerFunction
    num_epochs: int
    rewind_epoch: int
    mask: Mask | None
    num_replicates: int
    train_dataloader: Iterable[Any] | None
    seed: int
    keeping: Keeping = field(default_factory=Keeping)

    @contextmanager
    def trained(
        self, model: nn.Module, dataloader: Iterable[Any], measurement: Measurement
    ) -> Iterator[Iterator[TrainedPair]]:
        """Trains what is missing and gives the pairs, one a replicate; the model is bit for bit what it was.

        Args:
            model: Trained in place, one copy after the other.
            dataloader: What trained networks are measured on.
            measurement: How.

        Raises:
            ValueError: When the run folder is of something else, or the copies of a pair do not differ.
        """
        self._check(model, dataloader)
        level = 0 if self.mask is None else 1
        with ExitStack() as stack:
            with restoring(model):
                subject = self._make_subject(model, dataloader, measurement)
                plan = plan_pairs(
                    subject,
                    num_steps=self.num_epochs,
                    rewind_step=self.rewind_epoch,
                    levels=(level,),
                    num_replicates=self.num_replicates,
                    seed=self.seed,
                )
                self._check_order(subject.dataloader, plan)
                running = self.keeping.running(subject, plan, CONNECTIVITY_FROM_PYTHON)
                folder, _ = stack.enter_context(running)  # the folder outlives the training, the model is put back
            yield (load_pair(folder, replicate, level) for replicate in range(self.num_replicates))

    def _make_subject(self, model: nn.Module, dataloader: Iterable[Any], measurement: Measurement) -> CallerSubject:
        return CallerSubject(
            model,
            dataloader if self.train_dataloader is None else self.train_dataloader,
            self.trainer_fn,
            _list_layers(model) if self.mask is None else list(self.mask),
            self.num_epochs,
            None if self.train_dataloader is None else dataloader,
            measurement,
            ticket=self.mask,
            seed=self.seed,
            has_one_start=True,
        )

    def _check(self, model: nn.Module, dataloader: Iterable[Any]) -> None:
        refuse_sharded(model, "pairs of trainings")
        if not callable(self.trainer_fn):
            raise TypeError(f"trainer_fn must be a function of model, dataloader and epochs, got {self.trainer_fn!r}")
        check_restartable(dataloader if self.train_dataloader is None else self.train_dataloader)
        check_count("num_replicates", self.num_replicates)
        last = check_count("num_epochs", self.num_epochs) - 1
        if type(self.rewind_epoch) is not int or not 0 <= self.rewind_epoch <= last:
            raise ValueError(f"rewind_epoch must be from 0 to num_epochs - 1, {last}, got {self.rewind_epoch!r}")
        if self.mask is not None:
            find_masked_parameters(model, self.mask)
        if find_held_mask(model) is not None:
            raise ValueError(
                "the model must hold no mask, because copies share dense epochs; call remove_mask first, and pass mask="
            )

    def _check_order(self, dataloader: Iterable[Any], plan: ExperimentPlan) -> None:
        """Warns before hours are spent on copies that see the same batches; a trainer may have a loader of its own."""
        level = plan.copy_levels[0]
        ticket, copy = Training(0, level, "ticket"), Training(0, level, "copy")
        if not depends_on_seed(dataloader, *(part.derive_seeds(plan)["data_order"] for part in (ticket, copy))):
            warn_caller(
                "the training data must come in an order that the seed decides, but two seeds give the same batches; "
                "pass a loader with shuffle=True, unless the trainer shuffles by itself"
            )


def plan_pairs(
    subject: Subject, *, num_steps: int, rewind_step: int, levels: tuple[int, ...], num_replicates: int, seed: int
) -> ExperimentPlan:
    """Returns the experiment that trains copies in pairs: of the dense network, of a given ticket, or of both.

    Args:
        subject: Has the ticket, where there is one.
        num_steps: Of a whole training.
        rewind_step: At which copies part.
        levels: 0 for the dense network, 1 for the ticket.
        num_replicates: Pairs of each.
        seed: Every use of chance derives its own seed from it.
    """
    return ExperimentPlan(
        subject=subject.describe(),
        schedule=PruningSchedule(),
        num_levels=0 if subject.ticket is None else 1,
        num_steps=num_steps,
        rewind_step=rewind_step,
        num_replicates=num_replicates,
        seed=seed,
        ticket_sha256=None if subject.ticket is None else subject.ticket.digest,
        copy_levels=levels,
    )


def load_pair(folder: ExperimentFolder, replicate: int, level: int) -> TrainedPair:
    """Returns a trained pair of an experiment.

    Args:
        folder: The folder of the run.
        replicate: Which replicate.
        level: Of the ticket that was trained twice.
    """
    ticket, copy = Training(replicate, level, "ticket"), Training(replicate, level, "copy")
    parts = {"first": ticket, "second": copy, "shared": folder.plan.find_origin(replicate)}
    return TrainedPair(
        folder.load_record(ticket)["start_sha256"],
        {name: part.derive_seeds(folder.plan)["data_order"] for name, part in parts.items()},
        folder.load_weights(ticket),
        folder.load_weights(copy),
    )


def _list_layers(model: nn.Module) -> list[str]:
    """Returns the weights that a dense network might lose; it may have none that can be pruned."""
    layers: list[str] = []
    with suppress(ValueError):
        layers = list(find_prunable_weights(model))
    return layers
