"""What a change mask is worth: its weights trained alone, all others as they were, beside random ones as many."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from operator import mul
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from lottery_tickets._core.checks import check_count
from lottery_tickets._core.loggers import Logger
from lottery_tickets._core.measuring.performance import Measurement, MetricFunction, MetricName
from lottery_tickets._core.objective import LossFunction
from lottery_tickets._core.records import recorded
from lottery_tickets._core.training.trainer_function import TrainerFunction
from lottery_tickets.experiments.elsewhere.tasks import Executor
from lottery_tickets.experiments.keeping import Keeping
from lottery_tickets.experiments.plan import FROZEN_CONTROLS, Branch
from lottery_tickets.experiments.retraining import Retraining
from lottery_tickets.masks.mask import Mask, as_mask

Positions = Sequence[Sequence[int]]


@recorded("experiment")
def compute_change_mask_quality(
    model: nn.Module,
    mask: Mapping[str, Tensor],
    dataloader: Iterable[Any],
    *,
    trainer_fn: TrainerFunction,
    num_epochs: int = 1,
    train_dataloader: Iterable[Any] | None = None,
    starting_weights: Mapping[str, Tensor] | None = None,
    controls: Sequence[Branch] | None = None,
    super_weights: Mapping[str, Positions] | None = None,
    num_replicates: int = 1,
    loss_fn: LossFunction | None = None,
    metric: MetricName | MetricFunction = "auto",
    higher_is_better: bool = True,
    seed: int = 42,
    run_folder: str | Path | None = None,
    accept_changed_environment: bool = False,
    trainer_id: str | None = None,
    data_id: str | None = None,
    progress: bool = False,
    logger: Logger | Iterable[Logger] | None = None,
    executor: Executor | None = None,
    path: str | Path | None = None,  # noqa: ARG001 - @recorded writes there
) -> dict[str, Any]:
    """Returns how well a model trains where a mask lets only some weights move, beside all weights and random ones.

    Does a change mask carry the result? From the weights before the training that it was found by, the weights of the
    mask are trained alone: every other parameter stays as it was, bit for bit, under any optimizer. Beside them are
    trained, on the same budget, all weights, and as many weights at random places: of each layer ("shuffled"), of each
    exponent in each layer ("exponents"), of each layer with given super weights among them ("super"). It is an
    experiment as of tickets: `statistical_report_generator.claims.assess_claims` says whether the mask matches the
    training of all weights and beats each control, with a stated error.

    Replicates differ in data order and in the draws of the controls, not in the mask: they speak of this one. A mask
    that was found on the training data has seen it, its controls have not; so measure on other data. Buffers, such as
    the running means of batch norms, are no weights, and follow the data in all trainings. The model is trained in
    place and comes back bit for bit.

    Args:
        model: With the weights before.
        mask: Those that changed, see `compute_change_mask`; True where a weight is trained.
        dataloader: What trained networks are measured on.
        trainer_fn: Called as `trainer_fn(model, dataloader, epochs=n)`; see `compute_lottery_ticket_quality`.
        num_epochs: What every branch is trained for.
        train_dataloader: What they are trained on; `dataloader` when None.
        starting_weights: The weights before, by the names of `model.state_dict()`; the present ones when None.
        controls: Of "shuffled", "exponents" and "super"; when None the first two, and "super" with `super_weights`.
        super_weights: By parameter name indices of weights that the control "super" always trains, such as
            `{"model.layers.2.mlp.down_proj.weight": [(3, 1024)]}`.
        num_replicates: Repetitions. Intervals and claims need at least 3.
        loss_fn: As in `compute_lottery_ticket_quality`, as are all that follow.
        metric: Likewise.
        higher_is_better: Likewise.
        seed: Likewise.
        run_folder: Likewise.
        accept_changed_environment: Likewise.
        trainer_id: Likewise.
        data_id: Likewise.
        progress: Likewise.
        logger: Likewise.
        executor: Likewise.
        path: Likewise.

    Returns:
        `trainings`, rows of all weights (level 0, branch "ticket"), of the mask (level 1, "ticket") and its controls;
        `plan`, `looks`, `num_epochs`, `num_replicates`, `starting_sha256`, `split`, `environments`, `unidentified`,
        `run_folder`. Densities are over all parameters, those too that the mask does not name.

    Raises:
        TypeError: As `compute_lottery_ticket_quality`.
        ValueError: When the mask does not fit the model, super weights are none of the mask's, or it keeps too few of
            their layer, or training cannot be done as asked.
        OSError: When `path`, or a file of `run_folder`, cannot be read or written.

    References:
        Yu et al., arXiv:2411.07191 (super weights).

    Examples:
        >>> import torch
        >>> model, data = nn.Linear(4, 3), [(torch.randn(8, 4), torch.randint(3, (8,)))]
        >>> def train(model, dataloader, *, epochs):
        ...     optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
        ...     for inputs, targets in list(dataloader) * epochs:
        ...         nn.functional.cross_entropy(model(inputs), targets).backward()
        ...         optimizer.step()
        >>> found = compute_change_mask_quality(model, {"weight": torch.eye(4)[:3] == 1}, data, trainer_fn=train)
        >>> [(row["branch"], row["num_kept"]) for row in found["trainings"]]
        [('ticket', 15), ('ticket', 3), ('shuffled', 3), ('exponents', 3)]
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"only a model can be trained, but this is a {type(model).__name__}; load it")
    checked = as_mask(mask)
    positions = {name: _flatten(checked, name, indices) for name, indices in (super_weights or {}).items()}
    retraining = Retraining(
        trainer_fn,
        check_count("num_epochs", num_epochs),
        train_dataloader,
        starting_weights,
        (FROZEN_CONTROLS if positions else FROZEN_CONTROLS[:2]) if controls is None else controls,
        check_count("num_replicates", num_replicates),
        seed=seed,
        keeping=Keeping(run_folder, accept_changed_environment, trainer_id, data_id, progress, logger, executor),
        others="frozen",
        super_weights=positions,
    )
    found = retraining.run(model, checked, dataloader, Measurement(loss_fn, metric, higher_is_better))
    return {"simulated": False, **found}


def _flatten(mask: Mask, name: str, indices: Positions) -> list[int]:
    """Returns flat positions, ascending, of weights that are given by their indices."""
    if name not in mask:
        raise ValueError(f"super weights must be of weights that the mask names, but {name!r} is none; see list(mask)")
    shape, num_kept = tuple(mask.shapes[name]), mask.count_kept()[name]
    strides = [1, *accumulate(reversed(shape[1:]), mul)][::-1]
    for index in indices:
        if len(index) != len(shape) or not all(0 <= place < size for place, size in zip(index, shape, strict=True)):
            raise ValueError(
                f"super weights of {name!r} must be indices within its shape {shape}, but one is {tuple(index)}"
            )
    flat = sorted({sum(map(mul, index, strides)) for index in indices})
    if len(flat) > num_kept:
        raise ValueError(
            f"the mask must keep as many weights of a layer as it has super weights, but keeps {num_kept} of {name!r}, "
            f"which has {len(flat)}; leave them out"
        )
    return flat
