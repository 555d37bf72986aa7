"""A ticket trained again from its starting weights, beside its controls on the same budget."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, final

from torch import Tensor, nn
from tqdm import tqdm

from lottery_tickets._core.batches.order import ordered_by
from lottery_tickets._core.checks import check_restartable
from lottery_tickets._core.determinism import derive_seed, seeded
from lottery_tickets._core.measuring.performance import Measurement, measure
from lottery_tickets._core.measuring.restoring import restoring
from lottery_tickets._core.states import copy_state, hash_state, load_clean_state
from lottery_tickets._core.training.trainer_function import TrainerFunction, train_epochs
from lottery_tickets.experiments.plan import CONTROLS, FRESH, Branch
from lottery_tickets.experiments.results import TrainingRow
from lottery_tickets.masks.controls import check_reinitialisable, reinitialise_, shuffle_mask
from lottery_tickets.masks.holding import find_held_mask, hold_mask, remove_mask
from lottery_tickets.masks.mask import Mask

RetrainedBranch = Literal["dense"] | Branch
SCRAMBLED: Final = frozenset({"shuffled", "random"})


@final
@dataclass(frozen=True)
class Retraining:
    """How a ticket is trained again.

    Attributes:
        trainer_fn: Called as `trainer_fn(model, dataloader, epochs=n)` under seeded global generators.
        num_epochs: The budget of every branch.
        train_dataloader: Handed to the trainer; the data that is measured on when None.
        starting_weights: theta_k, by the names of `model.state_dict()`; the model's present weights when None.
        controls: Of "reinitialised", "shuffled" and "random".
        num_replicates: Repetitions, each with its own data order and its own draws of the controls.
        initialise_fn: Draws fresh weights in place from the global generators; by default each module's
            `reset_parameters`.
        seed: Every use of chance derives its own seed from it.
        progress: Whether to show a bar.
    """

    trainer_fn: TrainerFunction
    num_epochs: int
    train_dataloader: Iterable[Any] | None = None
    starting_weights: Mapping[str, Tensor] | None = None
    controls: Sequence[RetrainedBranch] = CONTROLS
    num_replicates: int = 1
    initialise_fn: Callable[[nn.Module], object] | None = None
    seed: int = 0
    progress: bool = False

    def run(self, model: nn.Module, mask: Mask, dataloader: Iterable[Any], measurement: Measurement) -> dict[str, Any]:
        """Returns the trainings as rows that claims are made from; the model comes back bit for bit.

        Args:
            model: Trained in place, once for each branch and replicate.
            mask: The ticket's.
            dataloader: What trained networks are measured on.
            measurement: How.

        Returns:
            `trainings`, see `TrainingRow`, level 0 the dense network and level 1 the ticket with its controls;
            `num_epochs`, `num_replicates`, `starting_sha256`, `split` ("test", or "train" when the training data is
            what was measured on).

        Raises:
            ValueError: When a mask is held on the model, the starting weights do not fit, a control cannot be drawn, or
                a trained network's loss is not finite.
        """
        self._check(model)
        data = dataloader if self.train_dataloader is None else self.train_dataloader
        split = "train" if self.train_dataloader is None else "test"
        branches: list[RetrainedBranch] = ["dense", "ticket", *self.controls]
        rows: list[TrainingRow] = []
        with (
            restoring(model),
            tqdm(total=len(branches) * self.num_replicates, unit="training", disable=not self.progress) as bar,
        ):
            ends: set[str] = set()
            start = copy_state(model) if self.starting_weights is None else dict(self.starting_weights)
            for replicate in range(self.num_replicates):
                for branch in branches:
                    self._train(model, mask, start, data, branch=branch, replicate=replicate)
                    # Only the data seed tells its replicates apart, so equal ends mean that nothing draws from it.
                    if branch == "dense":
                        _check_new(ends, hash_state(copy_state(model)))
                    found = measure(model, dataloader, measurement, self.seed)
                    if found.figures["loss"] is None:
                        raise ValueError(
                            f"the {branch} network's loss must be finite after training, but is NaN or infinity; "
                            "lower the learning rate of trainer_fn"
                        )
                    known = {name: value for name, value in found.figures.items() if value is not None}
                    figures = {f"{split}_{name}": value for name, value in known.items()}
                    rows.append(
                        _make_row(branch, replicate, mask, {"step": self.num_epochs, **figures, "metric": found.value})
                    )
                    bar.update()
        return {
            "trainings": rows,
            "num_epochs": self.num_epochs,
            "num_replicates": self.num_replicates,
            "starting_sha256": hash_state(start),
            "split": split,
        }

    def _check(self, model: nn.Module) -> None:
        if find_held_mask(model) is not None:
            raise ValueError(
                "the model must hold no mask, because its dense network is trained too; call remove_mask first"
            )
        if self.train_dataloader is not None:
            check_restartable(self.train_dataloader)
        if self.initialise_fn is None and FRESH & set(self.controls):
            check_reinitialisable(model)

    def _train(
        self,
        model: nn.Module,
        mask: Mask,
        start: Mapping[str, Tensor],
        data: Iterable[Any],
        *,
        branch: RetrainedBranch,
        replicate: int,
    ) -> None:
        seeds = {use: derive_seed(self.seed, "retraining", replicate, use) for use in ("data order", *CONTROLS)}
        _load(model, start)
        if branch in FRESH:
            self._initialise(model, derive_seed(seeds[branch], "initialisation"))
        if branch != "dense":
            hold_mask(model, shuffle_mask(mask, seeds[branch]) if branch in SCRAMBLED else mask)
        try:
            with ordered_by(data, seeds["data order"]):
                train_epochs(self.trainer_fn, model, data, self.num_epochs)
        finally:
            remove_mask(model)
            model.zero_grad(set_to_none=True)

    def _initialise(self, model: nn.Module, seed: int) -> None:
        if self.initialise_fn is None:
            reinitialise_(model, seed)
            return
        with seeded(seed):
            self.initialise_fn(model)


def _check_new(ends: set[str], end: str) -> None:
    """Raises where a replicate repeats an earlier one bit for bit: it would be counted twice, and claims with it."""
    if end in ends:
        raise ValueError(
            "replicates must differ, but the dense network ended with the same bits twice; the training data must be "
            "shuffled by torch's generators, or num_replicates be 1"
        )
    ends.add(end)


def _load(model: nn.Module, start: Mapping[str, Tensor]) -> None:
    try:
        load_clean_state(model, start)
    except (KeyError, RuntimeError) as error:
        raise ValueError(
            f"starting_weights must be a state of this model, but: {error}; pass what model.state_dict() gave before "
            "training"
        ) from error


def _make_row(branch: RetrainedBranch, replicate: int, mask: Mask, figures: dict[str, Any]) -> TrainingRow:
    is_dense = branch == "dense"
    return {
        "replicate": replicate,
        "level": 0 if is_dense else 1,
        "branch": "ticket" if is_dense else branch,
        "num_weights": mask.num_weights,
        "num_kept": mask.num_weights if is_dense else mask.num_kept,
        "density": 1.0 if is_dense else mask.density,
        "history": {"end": figures},
    }
