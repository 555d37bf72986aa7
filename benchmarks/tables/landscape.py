"""The tables of the page on loss landscapes."""

import statistics
from collections.abc import Callable

from benchmarks.common import read_results
from benchmarks.tables.parts import Tables, make_table, show, tabulate

MEGABYTE = 2**20
NAMES = {
    "forward": "forward passes alone",
    "ours": "ours",
    "ours, drawn again": "ours, directions drawn for each use",
    "plain": "plain: directions stored, a copy written",
}


def tabulate_memory() -> str:
    """Peak memory of a landscape beside the plain way, beyond the model."""
    figures = read_results("landscape")["memory"]

    def show_mebibytes(key: str) -> Callable[[str], str]:
        return lambda name: show(figures[key].get(name), ",.0f", scale=1 / MEGABYTE)

    columns = {
        "way": lambda name: NAMES[name],
        "peak of all tensors but the model, MiB": show_mebibytes("peak_bytes"),
        "beyond a forward pass, MiB": show_mebibytes("beyond_forward_bytes"),
        "the same, resident memory": show_mebibytes("resident_beyond_forward_bytes"),
        "seconds, while counted": lambda name: f"{figures['seconds_while_counted'][name]:.0f}",
    }
    largest, weights = (figures[key] / MEGABYTE for key in ("largest_parameter_bytes", "weight_bytes"))
    note = (
        f"{figures['model']} ({weights:,.0f} MiB of weights, the largest {largest:,.0f} MiB), "
        f"{figures['grid_points']} x {figures['grid_points']} points on {figures['batch'][0]} x {figures['batch'][1]} "
        f"tokens. Beyond a forward pass ours takes {figures['beyond_forward_over_largest_parameter']:.2f} of the "
        f"largest weight (goal: at most 1) and {figures['beyond_forward_less_than_plain']:.1%} less than the plain way "
        f"(goal {figures['goal_less_than_plain']:.0%}; {figures['resident_beyond_forward_less_than_plain']:.1%} by "
        f"resident memory); with activations counted too, {figures['less_than_plain']:.1%} less. All losses are equal."
    )
    return f"{tabulate(figures['peak_bytes'], columns)}\n\n{note}"


def tabulate_time() -> str:
    """Time of a landscape over that of its forward passes."""
    figures = read_results("landscape")["time"]
    rows = [
        (NAMES[name], f"{statistics.median(figures['seconds'][name]):.0f}", f"{ratio:.2f}")
        for name, ratio in figures["over_floor"].items()
    ]
    side = figures["grid_points"]
    note = (
        f"{figures['model']}, {side} x {side} points on {figures['num_images']:,} images, one thread, medians of "
        f"{len(figures['seconds']['ours'])} turns on a machine that others used too. {figures['num_equal_points']} of "
        f"{side * side} losses are equal to the plain way's, to the last bit."
    )
    return f"{make_table(('way', 'seconds', 'over the floor'), *rows)}\n\n{note}"


TABLES: Tables = {
    "landscape-memory": tabulate_memory,
    "landscape-time": tabulate_time,
}
