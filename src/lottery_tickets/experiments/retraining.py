"""A ticket trained again from its starting weights beside its controls: an experiment of one level."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, final

import torch
from torch import Tensor, nn

from lottery_tickets._core.bits import num_bytes
from lottery_tickets._core.checks import check_restartable
from lottery_tickets._core.measuring.performance import Measurement
from lottery_tickets._core.measuring.restoring import restoring
from lottery_tickets._core.names import clean_name, unwrap
from lottery_tickets._core.sharding.dtensors import refuse_sharded
from lottery_tickets._core.states import load_clean_state
from lottery_tickets._core.training.trainer_function import TrainerFunction
from lottery_tickets.experiments.caller_subject import CallerSubject
from lottery_tickets.experiments.folder import CHANGES_FROM_PYTHON, RETRAINING_FROM_PYTHON
from lottery_tickets.experiments.keeping import Keeping
from lottery_tickets.experiments.plan import CONTROLS, FRESH, Branch, ExperimentPlan
from lottery_tickets.experiments.schedules import PruningSchedule
from lottery_tickets.experiments.subjects import Subject
from lottery_tickets.masks.controls import check_reinitialisable
from lottery_tickets.masks.fitting import fit_mask
from lottery_tickets.masks.holding import Others, find_held_mask
from lottery_tickets.masks.mask import Mask


@final
@dataclass(frozen=True)
class Retraining:
    """How a ticket is trained again.

    Attributes:
        trainer_fn: Called as `trainer_fn(model, dataloader, epochs=n)` under seeded generators.
        num_epochs: The budget of every branch.
        train_dataloader: Handed to the trainer; the data that is measured on when None.
        starting_weights: theta_k, by the names of `model.state_dict()`; the model's present weights when None.
        controls: Of "reinitialised", "shuffled" and "random".
        num_replicates: Repetitions, each with its own data order and its own draws of the controls.
        initialise_fn: Draws fresh weights in place from the global generators; by default each module's
            `reset_parameters`.
        seed: Every use of chance derives its own seed from it.
        keeping: Where trainings are kept.
        others: What the weights are that the mask does not keep: "zero", or "frozen" at the starting weights. Then
            those of parameters that the mask does not name are frozen too.
        super_weights: By name flat positions of weights that the control "super" always keeps.
    """

    trainer_fn: TrainerFunction
    num_epochs: int
    train_dataloader: Iterable[Any] | None = None
    starting_weights: Mapping[str, Tensor] | None = None
    controls: Sequence[Branch] = CONTROLS
    num_replicates: int = 1
    initialise_fn: Callable[[nn.Module], object] | None = None
    seed: int = 0
    keeping: Keeping = field(default_factory=Keeping)
    others: Others = "zero"
    super_weights: Mapping[str, Sequence[int]] = field(default_factory=dict)

    def run(self, model: nn.Module, mask: Mask, dataloader: Iterable[Any], measurement: Measurement) -> dict[str, Any]:
        """Returns the trainings as rows that claims are made from; the model comes back bit for bit.

        Args:
            model: Trained in place, once for each branch and replicate.
            mask: The ticket's.
            dataloader: What trained networks are measured on.
            measurement: How.

        Returns:
            `trainings`, see `TrainingRow`, level 0 the dense network and level 1 the ticket with its controls;
            `looks`, `num_epochs`, `num_replicates`, `starting_sha256`, `split` ("test", or "train" when the training
            data is what was measured on), `plan`, `environments`, `unidentified`, `run_folder`.

        Raises:
            ValueError: When a mask is held on the model, the starting weights do not fit, a control cannot be drawn, a
                trained network's loss is not finite, or the run folder is of something else.
        """
        self._check(model)
        run_folder = self.keeping.run_folder
        with restoring(model):
            if self.starting_weights is not None:
                _load(model, self.starting_weights)
            if self.others == "frozen":
                mask = _cover(model, mask)
            subject = CallerSubject(
                model,
                dataloader if self.train_dataloader is None else self.train_dataloader,
                self.trainer_fn,
                list(mask),
                self.num_epochs,
                None if self.train_dataloader is None else dataloader,
                measurement,
                self.initialise_fn,
                ticket=mask,
                seed=self.seed,
                has_one_start=True,
            )
            plan = plan_retraining(
                subject,
                self.num_epochs,
                self.num_replicates,
                self.seed,
                self.controls,
                others=self.others,
                super_weights=self.super_weights,
            )
            made_by = RETRAINING_FROM_PYTHON if self.others == "zero" else CHANGES_FROM_PYTHON
            with self.keeping.running(subject, plan, made_by) as (_, results):
                return {
                    "trainings": results["trainings"],
                    "looks": results["looks"],
                    "num_epochs": self.num_epochs,
                    "num_replicates": self.num_replicates,
                    "starting_sha256": subject.describe()["initial_sha256"],
                    "split": "train" if self.train_dataloader is None else "test",
                    "plan": results["plan"],
                    "environments": results["environments"],
                    "unidentified": results["unidentified"],
                    "run_folder": None if run_folder is None else str(run_folder),
                }

    def _check(self, model: nn.Module) -> None:
        refuse_sharded(model, "tickets that are trained again")
        if find_held_mask(model) is not None:
            raise ValueError(
                "the model must hold no mask, because its dense network is trained too; call remove_mask first"
            )
        if self.train_dataloader is not None:
            check_restartable(self.train_dataloader)
        if self.initialise_fn is None and FRESH & set(self.controls):
            check_reinitialisable(model)


def plan_retraining(
    subject: Subject,
    num_steps: int,
    num_replicates: int,
    seed: int,
    controls: Sequence[Branch] = CONTROLS,
    *,
    others: Others = "zero",
    super_weights: Mapping[str, Sequence[int]] = MappingProxyType({}),
) -> ExperimentPlan:
    """Returns the experiment that trains a given ticket beside the dense network and its controls.

    Args:
        subject: Has the ticket.
        num_steps: The budget of every branch.
        num_replicates: Repetitions.
        seed: Every use of chance derives its own seed from it.
        controls: What is trained beside it.
        others: As in `Retraining`.
        super_weights: Likewise.
    """
    if subject.ticket is None:
        raise ValueError("the subject must have a ticket to be trained again, but has none")
    return ExperimentPlan(
        subject=subject.describe(),
        schedule=PruningSchedule(),
        num_levels=1,
        num_steps=num_steps,
        control_levels=(1,) if controls else (),
        num_replicates=num_replicates,
        seed=seed,
        controls=tuple(controls),
        ticket_sha256=subject.ticket.digest,
        others=others,
        super_weights={name: list(positions) for name, positions in super_weights.items()},
    )


def _cover(model: nn.Module, mask: Mask) -> Mask:
    """Returns a mask that names all parameters of a model, and keeps nothing of those that it did not name."""
    named, _ = fit_mask(model, mask)
    known = {id(parameter) for parameter in named.values()}
    others = {clean_name(name): p for name, p in unwrap(model).named_parameters() if id(p) not in known}
    nothing = {name: torch.zeros(num_bytes(p.numel()), dtype=torch.uint8) for name, p in others.items()}
    shapes = {**mask.shapes, **{name: p.shape for name, p in others.items()}}
    return Mask({**mask.bits, **nothing}, shapes, mask.provenance)


def _load(model: nn.Module, start: Mapping[str, Tensor]) -> None:
    try:
        load_clean_state(model, start)
    except ValueError as error:
        raise ValueError(
            f"starting_weights must be a state of this model, but {error} pass what model.state_dict() gave before "
            "training"
        ) from error
