"""From a batch to a loss, for the three ways in which a model can be driven."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

LossFunction = Callable[[nn.Module, Any], Tensor]


def compute_loss(model: nn.Module, batch: Any, loss_fn: LossFunction | None = None) -> Tensor:  # noqa: ANN401 - see below
    """Returns the mean loss of one batch, a scalar tensor with its graph.

    Args:
        model: The model.
        batch: A dict (`model(**batch)` has a `.loss`; `labels` default to `input_ids`), or a pair `(inputs, targets)`,
            where `model(inputs)` gives logits and targets are class indices, or anything when `loss_fn` is given.
        loss_fn: Called as `loss_fn(model, batch)`; returns the scalar mean loss.

    Raises:
        TypeError: When the batch is none of the three, or the model refuses it.
        ValueError: When the model gives no loss or the loss is no scalar.
    """
    loss: Any
    if loss_fn is not None:
        loss = loss_fn(model, batch)
    elif isinstance(batch, Mapping):
        inputs = dict(batch)
        if "labels" not in inputs and "input_ids" in inputs:
            inputs["labels"] = inputs["input_ids"]
        loss = getattr(_call(model, **inputs), "loss", None)
    elif isinstance(batch, tuple | list) and len(batch) == 2:  # noqa: PLR2004 - a pair
        loss = nn.functional.cross_entropy(_logits_of(_call(model, batch[0])), _class_indices(batch[1]))
    else:
        raise TypeError(_three_ways(f"got a batch of type {type(batch).__name__}"))
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        got = f"shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
        raise ValueError(_three_ways(f"the loss is {got}, not one number"))
    return loss


def _call(model: nn.Module, *inputs: Any, **named: Any) -> Any:  # noqa: ANN401 - whatever a model takes and gives
    try:
        return model(*inputs, **named)
    except TypeError as error:
        got = f"a dict with the keys {sorted(named)}" if named else f"inputs of type {type(inputs[0]).__name__}"
        raise TypeError(_three_ways(f"the model refused {got}: {error}")) from error


def _logits_of(output: Any) -> Tensor:  # noqa: ANN401 - a tensor, or a Hugging Face output
    logits = getattr(output, "logits", output)
    if not isinstance(logits, Tensor):
        raise TypeError(
            _three_ways(f"the model returned {type(output).__name__}, which is neither logits nor has .logits")
        )
    return logits


def _class_indices(targets: Any) -> Tensor:  # noqa: ANN401 - checked here
    if not isinstance(targets, Tensor) or targets.is_floating_point():
        got = targets.dtype if isinstance(targets, Tensor) else type(targets).__name__
        raise TypeError(_three_ways(f"the targets of a pair are {got}, not class indices"))
    return targets


def _three_ways(problem: str) -> str:
    return (
        "a batch must be a dict for model(**batch) with a .loss, or a pair (inputs, class indices), or anything when "
        f"you pass loss_fn(model, batch) -> scalar mean loss; {problem}"
    )
