"""From results to the parts of a report, one module a kind of analysis."""
