"""The type of what analyses of others found: any values, shown as a table."""

from statistical_report_generator.schemas.common import Result


class Values(Result):
    """Values by name, of any depth."""
