"""A table as CSV."""

import csv
import io

from statistical_report_generator.document import Table


def render_csv(table: Table) -> str:
    """Returns a table as CSV (RFC 4180), its headings first.

    Args:
        table: Of the report.
    """
    text = io.StringIO()
    csv.writer(text).writerows([table.headings, *table.rows])
    return text.getvalue()
