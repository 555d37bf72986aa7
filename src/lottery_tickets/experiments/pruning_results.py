"""What iterative magnitude pruning returns: a dict that can tell what it shows, and write its tickets."""

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, final, overload

from torch import Tensor

from lottery_tickets._core.notebooks import Results
from lottery_tickets.experiments.folder import ExperimentFolder
from lottery_tickets.experiments.plan import ExperimentPlan
from lottery_tickets.experiments.results import TrainingRow
from lottery_tickets.experiments.ticket import (
    SAVED,
    describe_saving,
    draw_ticket,
    find_ticket,
    hash_records,
    make_ticket,
)
from lottery_tickets.masks.mask import Mask
from lottery_tickets.tickets import Ticket

# Tickets know no statistics: who has them is asked by name, as other packages are (docs/decisions/0016).
CLAIMS: Final = "statistical_report_generator.claims"


@final
class PruningResults(Results):
    """What `compute_iterative_magnitude_pruning` returns: a dict, with the keys that are named there."""

    if TYPE_CHECKING:

        @overload
        def __getitem__(self, key: Literal["simulated"], /) -> bool: ...
        @overload
        def __getitem__(self, key: Literal["target_sparsity"], /) -> float: ...
        @overload
        def __getitem__(self, key: Literal["masks"], /) -> list[Mask]: ...
        @overload
        def __getitem__(self, key: Literal["final_mask"], /) -> Mask: ...
        @overload
        def __getitem__(self, key: Literal["rewind_state"], /) -> dict[str, Tensor] | None: ...
        @overload
        def __getitem__(self, key: Literal["trainings"], /) -> list[TrainingRow]: ...
        @overload
        def __getitem__(self, key: Literal["run_folder"], /) -> str | None: ...
        @overload
        def __getitem__(self, key: str, /) -> Any: ...  # noqa: ANN401 - of any dict
        def __getitem__(self, key: str, /) -> Any: ...

    def claims(self, **settings: Any) -> Mapping[str, Any]:  # noqa: ANN401 - those of assess_claims
        """Returns what these trainings show of each level's ticket, with a stated error: is it matching, does it win?

        Args:
            settings: As of `statistical_report_generator.claims.assess_claims`: `margin`, `alpha`, `metric` and others.
                By default tickets are compared by the first metric, at the first moment, that all trainings have.

        Raises:
            ModuleNotFoundError: When the extra "report" is not installed.
            ValueError: When nothing was trained, or a setting is out of range.
        """
        claims: Mapping[str, Any] = _import_claims().assess_claims(self, **settings)
        return claims

    def ticket(self, level: int | None = None, **settings: Any) -> Ticket:  # noqa: ANN401 - those of assess_claims
        """Returns the ticket of a level of the first replicate, with the weights it was trained from and its claims.

        Args:
            level: Rounds of pruning, from 1; the last when None.
            settings: Of its claims, see `claims`.

        Raises:
            ModuleNotFoundError: As `claims`.
            ValueError: When nothing was trained, there is no such level, or the ticket went on from the weights of the
                level before ("learning_rate" rewinding) and these were not kept in a run folder.
        """
        if self["simulated"]:
            raise ValueError(
                "a simulation has trained no ticket, so there is none to save; pass trainer_fn or train=True"
            )
        number = len(self["masks"]) - 1 if level is None else level
        plan = ExperimentPlan.from_dict(self["plan"])
        training = find_ticket(plan, number, 0)
        said = {"records_sha256": hash_records(self), "date": describe_saving()["date"]}
        claims = _import_claims().describe_ticket(self.claims(**settings), number, **said)
        if self["run_folder"] is not None:
            return draw_ticket(ExperimentFolder.read(Path(self["run_folder"])), number, claims=claims)
        if self["final_mask"].shards is not None:
            raise ValueError(
                "a ticket of a sharded model must come from its run folder, where it is whole, but none was kept; pass "
                "run_folder="
            )
        if plan.rewinding == "learning_rate":
            raise ValueError(
                "with rewinding='learning_rate' a ticket starts from the weights of the level before, which were not "
                "kept; pass run_folder="
            )
        return make_ticket(self, training, self["masks"][number], self["rewind_state"] or {}, claims)

    def save_ticket(self, path: str | Path, level: int | None = None, **settings: Any) -> None:  # noqa: ANN401 - as `ticket`
        """Writes the ticket of a level as one file; see `ticket`, and `use_ticket`, which loads it.

        Args:
            path: Where to; an existing file is replaced.
            level: Rounds of pruning, from 1; the last when None.
            settings: Of its claims, see `claims`.
        """
        ticket = self.ticket(level, **settings)
        ticket.with_provenance({SAVED: describe_saving()}).save(path)


def _import_claims() -> Any:  # noqa: ANN401 - a module
    try:
        return importlib.import_module(CLAIMS)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"claims need {error.name}; install it by: pip install 'lottery-tickets[report]'", name=error.name
        ) from error
