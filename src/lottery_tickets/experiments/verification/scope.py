"""What a verification establishes and what it leaves open, in words."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from lottery_tickets.experiments.folder import ExperimentFolder
from lottery_tickets.experiments.verification.checks import Check
from lottery_tickets.experiments.verification.remeasuring import TRAINED_AGAIN

SHOWN: Final = "shown by the files: settings, seeds, masks, counts, rewound weights, results and looks fit one another"
RECORDED: Final = (
    "not measured again: accuracies and losses are those that were recorded; --re-evaluate measures them",
    "not counted again: how many weights moved from starts that are not stored; --re-evaluate draws these and counts",
    "still open: whether the weights are trained ones, and whether fresh ones were drawn from their seeds",
)
MEASURED: Final = (
    "measured again: checkpoints have the figures that are recorded; fresh weights are those of their seeds, and as "
    "many moved as is recorded"
)
UNTRAINED: Final = (
    "still open: whether training took place as recorded, which only training again shows (--train-again)",
    "still open: weights that were forged together with their figures",
)


def describe_scope(run: str | Path, checks: Sequence[Check], *, is_measured: bool) -> list[str]:
    """Returns a line for each thing that checks which all hold establish, and for each that they cannot.

    Args:
        run: The run folder.
        checks: As `verify_run` returned them.
        is_measured: Whether the checkpoints were measured again.
    """
    lines = [SHOWN]
    folder = ExperimentFolder.read(Path(run))
    if not is_measured:
        lines += RECORDED
    else:
        num = sum(check.name == TRAINED_AGAIN and not check.note for check in checks)
        lines += [MEASURED, *_describe_trained(num, folder.plan.num_trainings)]
    environments = folder.list_environments()
    if len(environments) > 1:
        lines.append(f"made in {len(environments)} environments, so equal bits are not claimed")
    lines += folder.list_unidentified()
    return [*lines, *dict.fromkeys(check.note for check in checks if check.note)]


def _describe_trained(num: int, num_trainings: int) -> list[str]:
    if not num:
        return list(UNTRAINED)
    again = f"trained again: {num} of {num_trainings} trainings, drawn at random, end in the same bits"
    return [again] if num == num_trainings else [again, "still open: whether the others took place as recorded"]
