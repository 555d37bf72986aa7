"""What tables are made of."""


def make_table(*rows: tuple[str, ...]) -> str:
    """Returns a Markdown table; the first row is its head."""
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + " --- |" * len(rows[0]), *lines[1:]])
