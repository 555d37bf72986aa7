"""Re-checking a run: from its files, and by measuring its checkpoints again."""

from lottery_tickets.experiments.verification.checks import Check
from lottery_tickets.experiments.verification.recorded_subjects import create_caller_subject, create_workload_subject
from lottery_tickets.experiments.verification.runs import verify_run
from lottery_tickets.experiments.verification.scope import describe_scope

__all__ = ["Check", "create_caller_subject", "create_workload_subject", "describe_scope", "verify_run"]
