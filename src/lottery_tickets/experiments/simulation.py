"""What iterative magnitude pruning would remove if training changed nothing: a look at sizes, no evidence."""

from collections.abc import Iterable
from typing import Any

from torch import nn
from tqdm import tqdm

from lottery_tickets._core.checks import warn_caller
from lottery_tickets._core.measuring.evaluating import evaluate_batches
from lottery_tickets._core.measuring.performance import average_figures, measuring
from lottery_tickets._core.objective import LossFunction
from lottery_tickets._core.sharding.data_parallel import find_together
from lottery_tickets._core.sharding.together import Together
from lottery_tickets._core.weights import Weights
from lottery_tickets.experiments.layers import count_kept
from lottery_tickets.experiments.pruning_results import PruningResults
from lottery_tickets.experiments.results import TrainingRow
from lottery_tickets.experiments.schedules import PruningSchedule
from lottery_tickets.experiments.steps import prune_survivors
from lottery_tickets.masks.holding import masked
from lottery_tickets.masks.mask import Mask


def simulate_rounds(
    model: nn.Module,
    weights: Weights,
    dataloader: Iterable[Any],
    schedule: PruningSchedule,
    num_levels: int,
    *,
    loss_fn: LossFunction | None,
    seed: int,
    progress: bool,
) -> PruningResults:
    """Returns the masks of all levels, drawn from the present magnitudes, and the loss under each.

    Args:
        model: Comes back as it was.
        weights: Those to prune.
        dataloader: What the losses are measured on.
        schedule: How many survive a level.
        num_levels: The last level.
        loss_fn: See `compute_loss`.
        seed: Of a loader that shuffles, equal at each level, whether it draws from the global generators or its own.
        progress: Whether to show a bar.

    Warns:
        UserWarning: Always, that nothing has been trained.
    """
    warn_caller(
        "this is a simulation: no ticket has been trained, and none may be claimed; pass trainer_fn or train=True for "
        "iterative magnitude pruning"
    )
    masks = [Mask.keeping_all(weights.whole_shapes).placed(weights.shards)]
    for level in range(1, num_levels + 1):
        masks.append(prune_survivors(weights, masks[-1], schedule, level))
    together = find_together(model)
    levels = tqdm(masks, unit="level", disable=not progress or together.place > 0)
    rows = [_measure(model, dataloader, loss_fn, level, mask, together, seed=seed) for level, mask in enumerate(levels)]
    return PruningResults(
        simulated=True,
        target_sparsity=schedule.target_sparsity or 0.0,
        masks=masks,
        final_mask=masks[-1],
        rewind_state=None,
        trainings=rows,
        run_folder=None,
    )


def _measure(  # noqa: PLR0917 - called once, above
    model: nn.Module,
    dataloader: Iterable[Any],
    loss_fn: LossFunction | None,
    level: int,
    mask: Mask,
    together: Together,
    *,
    seed: int,
) -> TrainingRow:
    with measuring(model, dataloader, seed), masked(model, mask):
        loss, accuracy = evaluate_batches(model, dataloader, loss_fn)
    here = {"loss": loss} if accuracy is None else {"loss": loss, "accuracy": accuracy}
    return {
        "replicate": 0,
        "level": level,
        "branch": "simulated",
        "num_weights": mask.num_weights,
        "num_kept": mask.num_kept,
        "density": mask.density,
        "layers": count_kept(mask),
        "history": {"end": average_figures(together.gather(lambda: here))},
    }
