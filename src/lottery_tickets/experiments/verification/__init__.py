"""Re-checking a run: from its files, and by measuring its checkpoints again."""

from lottery_tickets.experiments.verification.checks import Check
from lottery_tickets.experiments.verification.runs import verify_run

__all__ = ["Check", "verify_run"]
