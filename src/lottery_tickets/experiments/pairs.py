"""Pairs of copies of a workload's network, trained from one step on in two data orders, kept in a folder."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, final

from torch import Tensor, nn

from lottery_tickets._core.determinism import derive_seed
from lottery_tickets._core.environment import describe_environment
from lottery_tickets._core.folders import RunFolder, load_state, save_state
from lottery_tickets._core.states import copy_state, hash_state
from lottery_tickets.experiments.steps import prune_state_
from lottery_tickets.experiments.workload_subject import WorkloadSubject
from lottery_tickets.masks.holding import hold_mask
from lottery_tickets.masks.mask import Mask

COPIES: Final = ("first", "second")
KIND: Final = "pairs of trainings"
MADE_BY: Final = "lottery-tickets connectivity"
DENSE: Final = "dense"
SUBNETWORK: Final = "subnetwork"


@final
@dataclass(frozen=True, eq=False)
class TrainedPairs:
    """Trains what is missing and reads what is there: a training is never done twice, and each file appears whole.

    Every file is a function of the settings, whatever else has been trained before.

    Attributes:
        folder: Where the trainings are kept.
        subject: The workload and its recipe.
        seed: Each replicate derives its own from it.
        start: Weights at step 0 for all replicates; fresh ones for each when None.
        mask: What a subnetwork is held to.
        accept_changed_environment: Whether to go on where another environment began.
    """

    folder: Path
    subject: WorkloadSubject
    seed: int
    start: Mapping[str, Tensor] | None
    mask: Mask | None
    accept_changed_environment: bool = False

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Holds the folder for this process.

        Raises:
            ValueError: When it is in use, or was begun with other settings.
        """
        settings = {
            "subject": dict(self.subject.describe()),
            "seed": self.seed,
            "start_sha256": None if self.start is None else hash_state(self.start),
            "mask": None if self.mask is None else self.mask.digest,
        }
        with RunFolder(self.folder, KIND, MADE_BY).opened(
            settings, describe_environment(), accept_changed_environment=self.accept_changed_environment
        ):
            yield

    def find_ends(self, replicate: int, step: int, network: str) -> list[dict[str, Tensor]]:
        """Returns the states at the end of both copies, trained where they are not there yet.

        Args:
            replicate: Which replicate.
            step: The rewinding step k at which the copies part.
            network: `DENSE` or `SUBNETWORK`.
        """
        ends = []
        for name in COPIES:
            path = self._place(replicate) / f"step-{step}-{network}-{name}.safetensors"
            if not path.exists():
                start, model = self._find_start(replicate, step), self._build(replicate)
                if network == SUBNETWORK and self.mask is not None:
                    prune_state_(start, self.mask)
                    hold_mask(model, self.mask)
                model.load_state_dict(start)
                self._train(model, replicate, name, first_step=step)
                save_state(path, copy_state(model))
            ends.append(load_state(path))
        return ends

    def _find_start(self, replicate: int, step: int) -> dict[str, Tensor]:
        """Returns the weights after k steps, which both copies and all networks share."""
        path = self._place(replicate) / f"step-{step}-shared.safetensors"
        if not path.exists():
            model = self._build(replicate)
            if step:
                self._train(model, replicate, "shared", last_step=step)
            save_state(path, copy_state(model))
        return load_state(path)

    def _build(self, replicate: int) -> nn.Module:

        model = self.subject.build(derive_seed(self.seed, "replicate", replicate, "initialisation"))
        if self.start is not None:
            model.load_state_dict(self.start)
        return model

    def _train(self, model: nn.Module, replicate: int, use: str, **steps: Any) -> None:  # noqa: ANN401 - numbers of steps

        seed = derive_seed(self.seed, "replicate", replicate, use)
        bounds = {"first_step": 0, **steps}
        self.subject.train(model, seed=seed, rewind_step=0, keep_rewind_point=lambda: None, **bounds)

    def _place(self, replicate: int) -> Path:
        return self.folder / f"replicate-{replicate}"
