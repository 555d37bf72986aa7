"""An early-bird ticket: of whole channels where these were ranked; and as a file that travels, with theta_0."""

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn

from lottery_tickets._core.batches.order import ordered_by
from lottery_tickets._core.batches.samples import move_batch, take_samples
from lottery_tickets._core.determinism import derive_seed
from lottery_tickets._core.environment import describe_environment
from lottery_tickets.masks.mask import Mask
from lottery_tickets.structured.calling import find_inputs
from lottery_tickets.structured.unit_masks import create_unit_mask
from lottery_tickets.tickets import Ticket

logger = logging.getLogger(__name__)


def make_ticket(found: Mapping[str, Any]) -> Ticket:
    """Returns the ticket of an early-bird run; it has no claims, because nothing was trained beside controls.

    Args:
        found: What `compute_early_bird_tickets` or a watcher returned.
    """
    mask = found["final_mask"]
    told = {name: found[name] for name in ("verdict", "reason", "convergence_epoch", "settings")}
    provenance = {
        "method": "early-bird",
        "sparsity": mask.sparsity,
        **told,
        "environment": describe_environment(of_threads=True),
    }
    return Ticket(mask, found["starting_weights"], 0, provenance)


def draw_channels(
    model: nn.Module, scales: Mask, dataloader: Iterable[Any], *, sparsity: float, scope: str, seed: int
) -> Mask:
    """Returns the mask of whole channels, which can be shrunk; that of their scales alone where it cannot be drawn.

    Args:
        model: At the check that the ticket is of.
        scales: The mask that the verdict is about.
        dataloader: Whose first sample the model is called with, to find its channels; left as it is.
        sparsity: The share of channels that goes.
        scope: "global" or "layer".
        seed: Of the loader's order.
    """
    try:
        with ordered_by(dataloader, derive_seed(seed, "example")):
            inputs = find_inputs(next(iter(dataloader)))
        mask = create_unit_mask(
            model,
            sparsity,
            units="channels",
            scores="batch_norm_scale",
            scope=scope,
            example_inputs=move_batch(take_samples(inputs, 0, 1), next(model.parameters()).device),
        )
    except (ModuleNotFoundError, TypeError, ValueError) as error:
        logger.warning("the ticket is a mask of scales of batch norm, not of whole channels: %s", error)
        return scales
    mask.provenance = {**scales.provenance, **mask.provenance, "method": scales.provenance["method"]}
    return mask
