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


def tell_random_mask() -> str:
    """What a random mask of many weights takes, in a sentence."""
    figures = read_results("random-mask")

    def find(step: str) -> dict[str, Any]:
        found: list[dict[str, Any]] = [one for one in figures["steps"] if one["step"] == step]
        return min(found, key=lambda one: float(one["seconds"]))

    ours, torch_rand, machine = find("mask"), find("torch.rand"), figures["machine"]
    return (
        f"Random mask of {figures['num_weights'] / GIGA:.1f} billion weights: {ours['seconds']:.0f} s "
        f"({ours['cpu_seconds']:.0f} s of processor time), where `torch.rand` alone, which draws one after the other, "
        f"takes {torch_rand['seconds']:.0f} s ({torch_rand['cpu_seconds']:.0f} s) for the same numbers; least of "
        f"{figures['repeats']} in turns, on {machine['num_cpus']} cores that other work used too (load "
        f"{machine['load_average'][0]:.0f})."
    )


TABLES: Tables = {"checkpoints": tabulate_large, "random-mask": tell_random_mask}
