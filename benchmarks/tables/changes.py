"""The tables of the page on what training changed."""

from typing import Any

from benchmarks.common import read_results
from benchmarks.tables.parts import Tables, make_table, tabulate
from statistical_report_generator.tables import format_interval


def show_rate(rate: dict[str, Any]) -> str:
    """Returns a rate in percent with its exact interval."""
    return format_interval({**rate, "mean": rate["rate"]}, form=".1f")


def tabulate_false() -> str:
    """How often independent updates are beyond chance, by kind of update: by our verdict, and by coarser ones."""
    found = read_results("change_nulls")
    rows = [{"world": world, **rates} for world, rates in {**found["by_world"], "all": found["all"]}.items()]
    columns = {
        "updates": lambda row: row["world"],
        "pairs": lambda row: f"{row['value beyond']['of']:,}",
        "beyond chance, %": lambda row: show_rate(row["value beyond"]),
        "below chance, %": lambda row: show_rate(row["below"]),
        "as if weights were independent, %": lambda row: show_rate(row["independent"]),
        "by layer alone, %": lambda row: show_rate(row["layer beyond"]),
    }
    sizes = sorted({row["size"] for row in found["independent"]})
    note = (
        f"Pairs of independent updates of 131,072 weights in three layers, bfloat16 and float32, of {sizes[0]:g} to "
        f"{sizes[-1]:g} ulps of a weight of one standard deviation; percent of the pairs with the exact 95 % interval. "
        f"The stated error rate is {100 * found['error_rate']:g} % on either side. The last two columns are what tests "
        "with coarser chance say: coins in each exponent, and one density in each layer."
    )
    return f"{tabulate(rows, columns)}\n\n{note}"


def tabulate_power() -> str:
    """How often planted structure is found, by strength."""
    planted = read_results("change_nulls")["planted"]
    strengths = sorted({row["strength"] for row in planted})
    rows = []
    for world, size in dict.fromkeys((row["world"], row["size"]) for row in planted):
        cells = {row["strength"]: row for row in planted if (row["world"], row["size"]) == (world, size)}
        shown = (f"{100 * cells[k]['value beyond']['rate']:.0f} ({cells[k]['value ratio']:.3f})" for k in strengths)
        rows.append((f"{world}, {size:g} ulp", *shown))
    note = (
        f"Percent of {planted[0]['num']} pairs that are beyond chance, and the mean ratio, where 1 % of the weights, "
        "at random places, have updates so many times larger in both runs; bfloat16."
    )
    return f"{make_table(('updates', *(f'{k:g} times' for k in strengths)), *rows)}\n\n{note}"


def tabulate_blind() -> str:
    """What the verdict finds of shared rows, and of runs that go on from one hidden state."""
    found = read_results("change_nulls")
    named = {f"rows of one scale in both runs, spread {row['spread']:g}": row for row in found["shared_rows"]}
    named |= {f"one float32 state behind both, {row['size']:g} ulp": row for row in found["hidden"]}
    rows = [
        (name, f"{100 * row['value beyond']['rate']:.0f}", f"{row['value ratio']:.3f}") for name, row in named.items()
    ]
    return make_table(("updates", "beyond chance, %", "mean ratio"), *rows)


TABLES: Tables = {
    "change-nulls": tabulate_false,
    "change-power": tabulate_power,
    "change-blind": tabulate_blind,
}
