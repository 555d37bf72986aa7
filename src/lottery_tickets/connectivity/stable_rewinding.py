"""From which step on training is stable to its own noise: a search by bisection over rewinding steps."""

import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from itertools import pairwise
from numbers import Real
from pathlib import Path
from typing import Any, Final, TypedDict

from torch import Tensor, nn

from lottery_tickets._core.checks import check_share
from lottery_tickets._core.folders import to_json_values
from lottery_tickets._core.identity.callers import identify_given
from lottery_tickets._core.kept_file import KeptFile
from lottery_tickets._core.measuring.performance import MetricFunction
from lottery_tickets._core.objective import LossFunction
from lottery_tickets._core.reading import check_form, list_names, show
from lottery_tickets._core.records import Record
from lottery_tickets._core.states import copy_state, hash_state
from lottery_tickets._core.training.trainer_function import TrainerFunction
from lottery_tickets.connectivity.lines import ConnectivityResults, compute_linear_connectivity
from lottery_tickets.experiments.elsewhere.tasks import Executor
from lottery_tickets.masks.mask import as_mask

MOST_DIGITS: Final = 15  # of a step


class InstabilityRise(TypedDict):
    """Two neighbouring evaluations of which the later step is less stable.

    Attributes:
        from_step: The earlier step.
        to_step: The later one.
        rise: By how much its instability is larger.
    """

    from_step: int
    to_step: int
    rise: float


class StableRewindingResults(TypedDict):
    """What a search found.

    Attributes:
        step: The earliest step from which training is stable; None when the last one is not stable either.
        evaluations: Instability by step, ascending; None where it was not finite, which counts as unstable.
        num_evaluations: How many there are.
        rises: Where the assumption that instability falls is seen violated; small ones are noise.
        threshold: Instability below which a step counts as stable.
        last_step: The last step that was allowed.
    """

    step: int | None
    evaluations: dict[int, float | None]
    num_evaluations: int
    rises: list[InstabilityRise]
    threshold: float
    last_step: int


def find_stable_rewinding_step(
    measure_instability: Callable[[int], float],
    last_step: int,
    *,
    threshold: float = 0.02,
    path: str | Path | None = None,
    subject: Mapping[str, Any] | None = None,
) -> StableRewindingResults:
    """Returns the earliest step k in [0, `last_step`] from which two trainings stay linearly connected.

    Frankle et al. 2020 (arXiv 1912.05671) scan a few steps; here a bisection needs at most ceil(log2(n)) + 2
    evaluations of n = `last_step` + 1 steps. It *assumes that instability falls as k grows*: the last step is looked
    at first, then step 0, then the middle of what is left. Where that does not hold, the step found is stable and the
    largest unstable one that was looked at lies before it, but an earlier stable step may be missed. Look at `rises`.

    Args:
        measure_instability: Called with a step, at most once for each; returns its instability (a mean over replicates
            is steadier than one pair).
        last_step: The last step to consider, at least 0.
        threshold: Instability below which a step is stable, in [0, 1].
        path: A JSON file that keeps the evaluations, written whole after each; the same call goes on from it.
        subject: What the evaluations are of, JSON-able; a file with those of another subject is refused.

    Returns:
        `step` (None when not even the last is stable), `evaluations`, `num_evaluations`, `rises`, `threshold` and
        `last_step`.

    Raises:
        TypeError: When an argument or an instability is not a number.
        OSError: When the file cannot be read or written.
        ValueError: When an argument is out of range, or the file is of another search or was altered.

    Examples:
        >>> found = find_stable_rewinding_step(lambda step: 0.3 / (1 + step), 100)
        >>> found["step"], found["num_evaluations"]
        (15, 9)
        >>> find_stable_rewinding_step(lambda step: 0.3, 100)["evaluations"]
        {100: 0.3}
    """
    check_share("threshold", threshold)
    if isinstance(last_step, bool) or not isinstance(last_step, int):
        raise TypeError(f"last_step must be an integer of at least 0, got {last_step!r}")
    if last_step < 0:
        raise ValueError(f"last_step must be an integer of at least 0, got {last_step!r}")
    if not callable(measure_instability):
        raise TypeError(f"measure_instability must be a function of a step, got {measure_instability!r}")
    file = (
        None
        if path is None
        else KeptFile(Path(path), Record("rewinding", {"last_step": last_step, "threshold": threshold}))
    )
    looked_at: dict[int, float | None] = {}
    with nullcontext(None) if file is None else file.opened() as stored:
        known = {} if stored is None else _read(stored, Path(str(path)), subject)

        def is_stable(step: int) -> bool:
            if step not in known:
                known[step] = _check_instability(measure_instability(step), step)
                if file is not None:
                    file.write({"subject": subject, "evaluations": {str(k): known[k] for k in sorted(known)}})
            looked_at[step] = value = known[step]
            return value is not None and value < threshold

        found = _bisect(is_stable, last_step)
    evaluations = {step: looked_at[step] for step in sorted(looked_at)}
    return {
        "step": found,
        "evaluations": evaluations,
        "num_evaluations": len(evaluations),
        "rises": _list_rises(evaluations),
        "threshold": threshold,
        "last_step": last_step,
    }


def compute_stable_rewinding_epoch(
    model: nn.Module,
    dataloader: Iterable[Any],
    trainer_fn: TrainerFunction,
    *,
    num_epochs: int = 10,
    last_epoch: int | None = None,
    threshold: float = 0.02,
    path: str | Path | None = None,
    mask: Mapping[str, Tensor] | None = None,
    num_replicates: int = 1,
    train_dataloader: Iterable[Any] | None = None,
    statistics_dataloader: Iterable[Any] | None = None,
    num_points: int = 30,
    metric: MetricFunction | None = None,
    loss_fn: LossFunction | None = None,
    seed: int = 42,
    trainer_id: str | None = None,
    data_id: str | None = None,
    run_folder: str | Path | None = None,
    accept_changed_environment: bool = False,
    progress: bool = False,
    executor: Executor | None = None,
) -> StableRewindingResults:
    """Returns the earliest epoch from which training is stable, found by `find_stable_rewinding_step`.

    It *trains*: for each epoch k that the bisection looks at, copies of the model share k epochs, part, and go on to
    `num_epochs` (see `compute_linear_connectivity`). The model itself is as before.

    Args:
        model: What copies are made of; its present weights are those of epoch 0.
        dataloader: What errors are measured on and, without `train_dataloader`, trained on.
        trainer_fn: Called as `trainer_fn(model, dataloader, epochs=n)`.
        num_epochs: Epochs of a whole training.
        last_epoch: The last epoch to consider, less than `num_epochs`; `num_epochs` - 1 when None.
        threshold: Instability below which an epoch is stable, in [0, 1].
        path: A JSON file that keeps the evaluations; the same call goes on from it.
        mask: As for `compute_linear_connectivity`, like the arguments below.
        num_replicates: See there.
        train_dataloader: See there.
        statistics_dataloader: See there.
        num_points: See there.
        metric: See there.
        loss_fn: See there.
        seed: See there.
        trainer_id: A name for the trainer, where its code does not say what it does; a file is only gone on from with
            the trainer, the data and the architecture that it was begun with.
        data_id: A name for the data, where its samples cannot be compared.
        run_folder: Keeps every training, those of epoch k in its folder `epoch-k`: a search that is interrupted loses
            none, and a second search with another threshold trains nothing twice.
        accept_changed_environment: As for `compute_linear_connectivity`.
        progress: See there.
        executor: See there.

    Returns:
        As `find_stable_rewinding_step`; a step is an epoch.

    Raises:
        TypeError: As `compute_linear_connectivity`.
        OSError: As `compute_linear_connectivity`.
        ValueError: As `compute_linear_connectivity`, and when the data has no accuracy.
    """
    last = num_epochs - 1 if last_epoch is None else last_epoch
    if last >= num_epochs:
        raise ValueError(f"last_epoch must be less than num_epochs, {num_epochs}, got {last!r}")

    def measure(epoch: int) -> float:
        found = compute_linear_connectivity(
            model,
            dataloader,
            trainer_fn=trainer_fn,
            num_epochs=num_epochs,
            rewind_epoch=epoch,
            threshold=threshold,
            mask=mask,
            num_replicates=num_replicates,
            train_dataloader=train_dataloader,
            statistics_dataloader=statistics_dataloader,
            num_points=num_points,
            metric=metric,
            loss_fn=loss_fn,
            seed=seed,
            run_folder=None if run_folder is None else Path(run_folder) / f"epoch-{epoch}",
            accept_changed_environment=accept_changed_environment,
            trainer_id=trainer_id,
            data_id=data_id,
            progress=progress,
            executor=executor,
        )
        return _take_instability(found)

    given = {"num_replicates": num_replicates, "num_points": num_points, "seed": seed, "num_epochs": num_epochs}
    subject = {**given, **_describe(model, mask)}
    if path is not None:
        data, functions = (train_dataloader or dataloader, dataloader), {"loss_fn": loss_fn, "metric": metric}
        subject["identities"] = _identify(model, data, trainer_fn, functions, names=(trainer_id, data_id))
    return find_stable_rewinding_step(measure, last, threshold=threshold, path=path, subject=subject)


def _take_instability(found: ConnectivityResults) -> float:
    if found["instability"] is None:
        raise ValueError("the search needs an accuracy, but this loss tells none; pass metric=")
    return found["instability"]


def _describe(model: nn.Module, mask: Mapping[str, Tensor] | None) -> dict[str, Any]:
    return {
        "initial_sha256": hash_state(copy_state(model)),
        "mask": None if mask is None else as_mask(mask).digest,
    }


def _identify(
    model: nn.Module,
    data: tuple[Iterable[Any], Iterable[Any]],
    trainer_fn: TrainerFunction,
    functions: dict[str, Any],
    *,
    names: tuple[str | None, str | None],
) -> dict[str, str | None]:
    """Returns the digests of code and data by what they are called; None where they cannot be identified."""
    identities = identify_given(
        model=model,
        trainer_fn=trainer_fn,
        trainer_id=names[0],
        data=data[0],
        data_id=names[1],
        evaluation_data=data[1],
        functions=functions,
    )
    return {name: identity["digest"] for name, identity in identities.items()}


def _bisect(is_stable: Callable[[int], bool], last: int) -> int | None:
    """Returns the first stable step, given that all after a stable one are stable; None when the last is not."""
    if not is_stable(last):
        return None
    if last == 0 or is_stable(0):
        return 0
    unstable, stable = 0, last
    while stable - unstable > 1:
        middle = (unstable + stable) // 2
        if is_stable(middle):
            stable = middle
        else:
            unstable = middle
    return stable


def _check_instability(value: object, step: int) -> float | None:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"measure_instability must return a number, but returned {value!r} for step {step}")
    number = float(value)
    return number if math.isfinite(number) else None


def _list_rises(evaluations: Mapping[int, float | None]) -> list[InstabilityRise]:
    finite = [(step, value) for step, value in evaluations.items() if value is not None]
    return [
        {"from_step": earlier, "to_step": later, "rise": after - before}
        for (earlier, before), (later, after) in pairwise(finite)
        if after > before
    ]


def _read(stored: Mapping[str, Any], path: Path, subject: Mapping[str, Any] | None) -> dict[int, float | None]:
    """Returns the evaluations that a file keeps."""
    if "evaluations" not in stored:
        raise ValueError(f"{path} must be the file of a search, but has no evaluations; name another file")
    check_form(stored, {"evaluations": {...: (float, None)}}, str(path))
    if odd := [step for step in stored["evaluations"] if not step.isdecimal() or len(step) > MOST_DIGITS]:
        raise ValueError(f"{path} must hold evaluations by step, but has {list_names(odd)}; was it altered?")
    if stored.get("subject") != to_json_values(subject):
        raise ValueError(
            f"{path} must be continued with what it was begun with, but holds evaluations of "
            f"{show(stored.get('subject'))}, not of {show(subject)}; name another file"
        )
    return {
        int(step): None if value is None else _check_instability(value, int(step))
        for step, value in stored["evaluations"].items()
    }
