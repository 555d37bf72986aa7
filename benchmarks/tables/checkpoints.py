"""The tables of the page on checkpoints."""

from typing import Any

from benchmarks.common import read_results
from benchmarks.tables.parts import Tables, make_table

GIGA = 1e9
WORDS = {
    "read": "reading the files, through the cache",
    "read past the cache": "reading the files, past it",
    "mask": "exact global mask, 50 %",
    "mask, second read": "the same, where the sample misleads",
    "statistics": "statistics by layer",
    "copy": "copying the files, through the cache",
    "copy past the cache": "copying the files, past it",
    "apply": "pruned checkpoint",
}
GOALS = {"mask": ("reading", 1.5), "mask, second read": ("reading", 2.5), "apply": ("copying", 1.5)}


def tabulate_large() -> str:
    """Seconds, ratios and peak memory of each step on a checkpoint larger than memory."""
    figures = read_results("checkpoints")
    rows = [("", "seconds", "over reading or copying once", "goal", "peak memory, GB")]
    for step, words in WORDS.items():
        found = [one for one in figures["steps"] if one["step"] == step]
        ratio = next((f"{r:.2f}" for name, r in figures["ratios"].items() if name.startswith(f"{step} over")), "")
        goal = f"{GOALS[step][1]:g}" if step in GOALS else ""
        rows.append((words, f"{min(one['seconds'] for one in found):.1f}", ratio, goal, show_peak(found)))
    table = make_table(*rows)
    after = figures["after_three_kills"]
    same = "the bits are" if figures["bits_after_kills_are_those_without"] else "THE BITS ARE NOT"
    memory, repeats = figures["machine"]["memory_bytes"] / GIGA, figures["repeats"]
    runs = "one run of each" if repeats == 1 else f"least of {repeats} where there are several"
    return (
        f"{table}\n\n{figures['num_bytes'] / GIGA:.1f} GB on a machine with {memory:.0f} GB of memory, {runs}; "
        f"opening the checkpoint is counted. Mask and copy killed three "
        f"times on the way and then let end, the copy in {after[1]['seconds']:.1f} s more: {same} those without."
    )


def show_peak(found: list[dict[str, Any]]) -> str:
    """Returns the peak memory of several runs."""
    return f"{max(one['peak_resident_bytes'] for one in found) / GIGA:.1f}"


TABLES: Tables = {"checkpoints": tabulate_large}
