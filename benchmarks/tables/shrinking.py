"""The tables of what networks that become smaller save, and what they lose."""

from benchmarks.common import read_results
from benchmarks.tables.parts import Tables, make_table


def tabulate_two_of_four() -> str:
    """Inference with 2:4 weights over that with dense ones, on a GPU."""
    figures = read_results("gpu")
    rows: list[tuple[str, ...]] = []
    for name, found in figures["2:4"].items():
        network, dtype = name.split(", torch.")
        held = found["held_bytes"]["2:4"] / found["held_bytes"]["dense"]
        times = (f"{one['over_dense']:.2f}" for one in found["tokens"].values())
        rows.append((network, dtype, *times, f"{held:.2f}", f"{found['difference']:.1e}"))
    tokens = (f"time, {int(number):,} tokens" for number in next(iter(figures["2:4"].values()))["tokens"])
    head = ("network", "dtype", *tokens, "memory", "outputs differ by")
    return (
        f"{make_table(head, *rows)}\n\nTime and memory over dense weights with the same zeros; medians, on an "
        f"{figures['devices']['2:4']['name']}."
    )


TABLES: Tables = {"two-of-four": tabulate_two_of_four}
