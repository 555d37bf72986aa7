"""Is a model pruned the way its mask says? Each check with its verdict and its figures."""

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from numbers import Real
from pathlib import Path
from typing import Any, Final, final

import torch
from torch import Tensor, nn

from lottery_tickets._core.batches.samples import move_batch
from lottery_tickets._core.measuring.performance import (
    Measurement,
    MetricFunction,
    MetricName,
    Performance,
    measure,
    measuring,
)
from lottery_tickets._core.measuring.running import differentiate, run_with
from lottery_tickets._core.names import clean_name, unwrap
from lottery_tickets._core.objective import LossFunction, compute_loss
from lottery_tickets._core.prunable_weights import find_output_dims
from lottery_tickets._core.records import recorded
from lottery_tickets._core.sharding.dtensors import refuse_sharded
from lottery_tickets.masks.holding import masked
from lottery_tickets.masks.mask import Mask, as_mask

MISFIT: Final = "the mask does not fit the model, see shapes and binary"
Check = dict[str, Any]


@recorded("validation")
def validate_pruning_correctness(
    model: nn.Module,
    mask: Mapping[str, Tensor],
    dataloader: Iterable[Any],
    original_performance: float | None = None,
    *,
    original_weights: Mapping[str, Tensor] | None = None,
    tolerance: float = 0.05,
    loss_fn: LossFunction | None = None,
    metric: MetricName | MetricFunction = "auto",
    higher_is_better: bool = True,
    path: str | Path | None = None,  # noqa: ARG001 - @recorded writes there
) -> dict[str, Any]:
    """Returns whether a model is pruned as its mask says, check by check, and apart from that whether it does well.

    Two verdicts. `valid`: the model is what the mask says. `performs_well`: it does about as well as before, which a
    rightly pruned model need not. A model that is not pruned at all, as right after a mask was made, is looked at as
    the mask would prune it, and `applied` says so; one that is pruned in part is not valid. What is wrong is
    reported, not raised: a mask of another model fails "shapes", and what cannot be checked then says so. The model
    is left as it was.

    Args:
        model: The pruned model, or the model that is to be pruned.
        mask: By parameter name, True where a weight is kept.
        dataloader: What outputs, gradients and performance are looked at on; iterated anew for each.
        original_performance: The metric before pruning, such as `baseline_performance` of
            `compute_lottery_ticket_quality`; None leaves that check out.
        original_weights: The state before pruning, by the names of `model.state_dict()`; None leaves out the check
            whether anything else has changed. The model must not have been trained since.
        tolerance: The share of the original performance that may be lost, in [0, 1].
        loss_fn: `loss_fn(model, batch)` -> scalar mean loss, for batches of other kinds.
        metric: As in `compute_lottery_ticket_quality`.
        higher_is_better: Whether more is better, for a metric that is a function.
        path: A JSON file that the results also go to, or a folder for it; see `save_results`.

    Returns:
        `valid`, whether no check but that of the performance has failed; `performs_well`, whether that one has
        passed, None where it was not made; `applied`, whether the pruned weights are zeroed in the model itself:
        False when not one of them is zero, None when the mask does not fit. And one entry a check, with `passed`
        (None: not checked, and `reason` says why) and figures: `shapes` (names and shapes of the mask are the
        model's), `binary` (0 and 1 only), `zeros` (pruned weights are exactly zero, where the mask is applied),
        `unchanged` (kept weights, and all that the mask does not name, have the bits of `original_weights`),
        `no_dead_layer` (each layer keeps a weight; outputs that keep none are counted), `gradient_flow` (each layer's
        kept weights get a finite gradient that is not all zero, of the first batch), `finite_outputs` (losses and
        outputs hold no NaN or infinity), `performance` (at least 1 - tolerance of the original).

    Raises:
        TypeError: When `mask` is not a mapping of tensors, the model refuses a batch, or the loader is an iterator.
        ValueError: When the data is empty, or an argument is out of range.
        OSError: When `path` cannot be read or written.

    Examples:
        >>> from lottery_tickets import apply_mask, create_magnitude_mask
        >>> model, data = nn.Linear(8, 4), [(torch.randn(4, 8), torch.arange(4))]
        >>> mask = create_magnitude_mask(model, 0.5)
        >>> report = validate_pruning_correctness(model, mask, data)
        >>> report["valid"], report["performs_well"], report["applied"]
        (True, None, False)
        >>> apply_mask(model, mask)
        >>> report = validate_pruning_correctness(model, mask, data)
        >>> report["valid"], report["applied"], report["zeros"]["num_nonzero"]
        (True, True, 0)
    """
    if not 0 <= tolerance <= 1:
        raise ValueError(f"tolerance must lie in [0, 1], the share that may be lost, got {tolerance}")
    refuse_sharded(model, "checks of a pruned model")
    _check_mapping(mask)
    _check_original(original_performance)
    parameters = {clean_name(name): p for name, p in unwrap(model).named_parameters(remove_duplicate=False)}
    shapes, binary = _check_shapes(parameters, mask), _check_binary(mask)
    checked = as_mask(mask) if shapes["passed"] and binary["passed"] else None
    zeros = _leave_out(MISFIT) if checked is None else _check_zeros(parameters, checked)
    watch = _OutputWatch()
    with watch.on(model), contextlib.nullcontext() if zeros.get("applied", True) else masked(model, checked or {}):
        found = measure(model, dataloader, Measurement(loss_fn, metric, higher_is_better))
    checks: dict[str, Callable[[Mask], Check]] = {
        "unchanged": lambda checked: _check_unchanged(model, checked, original_weights),
        "no_dead_layer": lambda checked: _check_no_dead_layer(checked, find_output_dims(model)),
        "gradient_flow": lambda checked: _check_gradients(model, checked, dataloader, loss_fn),
    }
    report: dict[str, Check] = {
        "shapes": shapes,
        "binary": binary,
        "zeros": zeros,
        **{name: _leave_out(MISFIT) if checked is None else check(checked) for name, check in checks.items()},
        "finite_outputs": watch.judge(found),
    }
    performance = _check_performance(found, original_performance, tolerance)
    return {
        "valid": all(check["passed"] is not False for check in report.values()),
        "performs_well": performance["passed"],
        "applied": zeros.get("applied"),
        **report,
        "performance": performance,
    }


def _check_mapping(mask: object) -> None:
    if not isinstance(mask, Mapping) or not all(isinstance(tensor, Tensor) for tensor in mask.values()):
        raise TypeError(f"a mask must be a mapping from parameter names to tensors, but got {type(mask).__name__}")


def _check_original(value: object) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"original_performance must be a number or None, got {value!r}; pass the metric before pruning")
    if not math.isfinite(value):
        raise ValueError(f"original_performance must be finite, got {value}; measure the model before pruning")


def _leave_out(reason: str) -> Check:
    return {"passed": None, "reason": reason}


def _check_shapes(parameters: Mapping[str, Tensor], mask: Mapping[str, Tensor]) -> Check:
    unknown = sorted(mask.keys() - parameters.keys())
    differing = {
        name: {"mask": list(tensor.shape), "parameter": list(parameters[name].shape)}
        for name, tensor in mask.items()
        if name in parameters and tensor.shape != parameters[name].shape
    }
    return {
        "passed": bool(mask) and not unknown and not differing,
        "num_parameters": len(mask),
        "unknown": unknown,
        "differing": differing,
    }


def _check_binary(mask: Mapping[str, Tensor]) -> Check:
    counts = {} if isinstance(mask, Mask) else {name: _count_other(tensor) for name, tensor in mask.items()}
    odd = {name: count for name, count in counts.items() if count}
    return {"passed": not odd, "num_other_values": odd}


def _count_other(tensor: Tensor) -> int:
    return 0 if tensor.dtype == torch.bool else int(((tensor != 0) & (tensor != 1)).sum())


def _check_zeros(parameters: Mapping[str, Tensor], mask: Mask) -> Check:
    """Looks at one layer at a time; a model of which not one pruned weight is zero has not been pruned at all."""
    nonzero = {name: int((parameters[name].detach().cpu()[~mask[name]] != 0).sum()) for name in mask}
    num_pruned = mask.num_weights - mask.num_kept
    applied = not num_pruned or sum(nonzero.values()) < num_pruned
    return {
        "passed": not applied or not any(nonzero.values()),
        "applied": applied,
        "num_pruned": num_pruned,
        "num_nonzero": sum(nonzero.values()),
        "layers": {name: count for name, count in nonzero.items() if count},
        "sparsity": mask.sparsity,
        "layer_sparsities": mask.layer_sparsity(),
    }


def _check_unchanged(model: nn.Module, mask: Mask, original: Mapping[str, Tensor] | None) -> Check:
    if original is None:
        return _leave_out("pass original_weights, the state before pruning, to have kept weights compared")
    before = {clean_name(name): tensor for name, tensor in original.items()}
    now = {clean_name(name): tensor for name, tensor in unwrap(model).state_dict().items()}
    missing = sorted(name for name in now if name not in before or before[name].shape != now[name].shape)
    changed = {name: _count_changed(now[name], before[name], mask.get(name)) for name in now if name not in missing}
    return {
        "passed": not missing and not any(changed.values()),
        "num_changed": sum(changed.values()),
        "tensors": {name: count for name, count in changed.items() if count},
        "missing": missing,
    }


def _count_changed(now: Tensor, before: Tensor, kept: Tensor | None) -> int:
    """Returns how many values differ, of those that are kept; NaN where NaN was is no change."""
    a, b = now.detach().cpu(), before.detach().cpu().to(now.dtype)
    differs = (a != b) & ~(a.isnan() & b.isnan())
    return int((differs if kept is None else differs & kept).sum())


def _check_no_dead_layer(mask: Mask, output_dims: Mapping[str, tuple[int, ...]]) -> Check:
    dead = mask.collapsed_layers
    dead_outputs = {
        name: _count_dead(mask[name], output_dims.get(name, (0,))) for name in mask if mask.shapes[name].numel()
    }
    return {
        "passed": not dead,
        "dead_layers": dead,
        "num_dead_outputs": sum(dead_outputs.values()),
        "dead_outputs": {name: count for name, count in dead_outputs.items() if count},
    }


def _count_dead(kept: Tensor, output_dims: tuple[int, ...]) -> int:
    """Returns how many outputs keep none of their weights."""
    inputs = [dim for dim in range(kept.ndim) if dim not in output_dims]
    return int((~(kept.any(inputs) if inputs else kept)).sum())


def _check_gradients(model: nn.Module, mask: Mask, dataloader: Iterable[Any], loss_fn: LossFunction | None) -> Check:
    """Differentiates the first batch's loss by handles in place of the weights, so that no .grad is written."""
    own = {clean_name(name): p for name, p in unwrap(model).named_parameters(remove_duplicate=False)}
    # Pruned, which copies nothing where the mask is applied already.
    handles = {name: _prune(own[name].detach(), mask[name]).requires_grad_() for name in mask}
    with measuring(model, dataloader), torch.enable_grad():
        batch = move_batch(next(iter(dataloader)), next(iter(own.values())).device)
        loss = run_with(model, handles, lambda inner: compute_loss(inner, batch, loss_fn))
        gradients = differentiate(loss, handles) if loss.requires_grad else {}
    largest = {
        name: float(gradients[name].abs().cpu()[mask[name]].max()) if name in gradients and mask[name].any() else 0.0
        for name in mask
    }
    nonfinite = sorted(name for name, value in largest.items() if not math.isfinite(value))
    still = sorted(name for name, value in largest.items() if value == 0)
    return {
        "passed": not nonfinite and not still,
        "without_gradient": still,
        "nonfinite": nonfinite,
        "largest": {name: value for name, value in largest.items() if math.isfinite(value)},
    }


def _prune(weight: Tensor, kept: Tensor) -> Tensor:
    pruned = ~kept.to(weight.device)
    return weight.masked_fill(pruned, 0) if bool((weight[pruned] != 0).any()) else weight


def _check_performance(found: Performance, original: float | None, tolerance: float) -> Check:
    figures = {"metric": found.metric, "value": found.value, "original": original, "tolerance": tolerance}
    if original is None:
        return {**_leave_out("pass original_performance, the metric before pruning"), **figures}
    # Of the baseline only the value is known, and only the value counts.
    baseline = Performance(found.figures, found.metric, float(original), found.higher_is_better)
    retention = found.retain(baseline)
    if retention is None:
        return {**_leave_out("the ratio of two values that are not positive has no meaning"), **figures}
    return {"passed": retention >= 1 - tolerance, "retention": retention, **figures}


@final
class _OutputWatch:
    """Counts what a model puts out, and what of it is not finite."""

    def __init__(self) -> None:
        self.num_outputs = self.num_nonfinite = 0

    @contextlib.contextmanager
    def on(self, model: nn.Module) -> Iterator[None]:
        """Within the block each call of the model is looked at."""
        handle = unwrap(model).register_forward_hook(self._look)
        try:
            yield
        finally:
            handle.remove()

    def judge(self, found: Performance) -> Check:
        """Returns the check of outputs and loss."""
        loss = found.figures["loss"]
        passed = loss is not None and not self.num_nonfinite
        return {
            "passed": passed,
            "loss": loss,
            "num_outputs": self.num_outputs,
            "num_nonfinite": self.num_nonfinite,
        }

    def _look(self, _module: nn.Module, _inputs: object, output: object) -> None:
        logits = getattr(output, "logits", output)
        if isinstance(logits, Tensor) and logits.is_floating_point():
            self.num_outputs += logits.numel()
            self.num_nonfinite += int((~logits.isfinite()).sum())
