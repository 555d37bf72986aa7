"""Claims with a stated error rate: is a ticket matching, does it win, how many more replicates would decide."""

from statistical_report_generator.claims.assessment import assess_claims, check_settings
from statistical_report_generator.claims.findings import describe_claims
from statistical_report_generator.claims.ticket import describe_ticket

__all__ = [
    "assess_claims",
    "check_settings",
    "describe_claims",
    "describe_ticket",
]
