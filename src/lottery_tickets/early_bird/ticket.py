"""An early-bird ticket as a file that travels: the mask, theta_0, and how both were found."""

from collections.abc import Mapping
from typing import Any

from lottery_tickets._core.environment import describe_environment
from lottery_tickets.tickets import Ticket


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
