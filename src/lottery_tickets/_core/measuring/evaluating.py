"""The loss and the accuracy of a model over data, as trainings report them."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from lottery_tickets._core.measuring.performance import Measurement
from lottery_tickets._core.objective import LossFunction

EVALUATION_BATCH = 1000  # samples; bounds the memory of activations


def evaluate_tensors(model: nn.Module, inputs: Tensor, targets: Tensor) -> tuple[float, float]:
    """Returns mean cross-entropy (nats) and accuracy (in [0, 1]) of a classifier over tensors in memory."""
    pairs = zip(inputs.split(EVALUATION_BATCH), targets.split(EVALUATION_BATCH), strict=True)
    loss, accuracy = evaluate_batches(model, pairs)
    if accuracy is None:
        message = "a classifier must be evaluated on class indices"
        raise TypeError(message)
    return loss, accuracy


@torch.no_grad()
def evaluate_batches(
    model: nn.Module, batches: Iterable[Any], loss_fn: LossFunction | None = None
) -> tuple[float, float | None]:
    """Returns the mean loss and, where batches compute one cross-entropy, the accuracy.

    The model is evaluated in evaluation mode and comes back in the modes it had.

    Raises:
        ValueError: When there is no batch, or the loss is not finite.
    """
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        figures = Measurement(loss_fn)(model, batches).figures
    finally:
        for module, training in modes.items():
            module.training = training
    loss = figures["loss"]
    if loss is None:
        raise ValueError("the loss must be finite, but evaluation gave NaN or infinity; lower the learning rate")
    return loss, figures["accuracy"]
