"""The tables of the page on evaluation."""

from benchmarks.common import read_results
from benchmarks.tables.parts import Tables, make_table

MEGA = 1e6
JOBS = ("quality", "robustness")


def tabulate_memory() -> str:
    """Peak memory beyond a forward pass, ours and the plain implementation's, by two counts."""
    figures = read_results("measuring")
    sizes = figures["sizes"]
    rows = [
        (
            f"{job}, {count}",
            f"{figures[key]['extra_bytes'][f'ours {job}'] / MEGA:,.1f}",
            f"{figures[key]['extra_bytes'][f'plain {job}'] / MEGA:,.1f}",
            f"{100 * figures[key]['saved'][job]:.1f} %",
        )
        for key, count in (("tensors", "tensors alive"), ("resident", "resident memory"))
        for job in JOBS
    ]
    table = make_table(
        ("SmolLM2-135M, float32, 2 x 128 tokens of real text", "ours, MB", "copying the model, MB", "saved"), *rows
    )
    return (
        f"{table}\n\nMB beyond a plain forward pass. For scale: the weights have {sizes['weights_bytes'] / MEGA:,.0f} "
        f"MB, the largest layer {sizes['largest_layer_bytes'] / MEGA:.1f}, the packed mask "
        f"{sizes['mask_bytes'] / MEGA:.1f}. The losses differ by at most {figures['largest_difference_of_losses']:.0e} "
        "from those of pruned copies."
    )


def tabulate_time() -> str:
    """Robustness over its forward passes; overlap of two large masks."""
    figures = read_results("measuring")
    robustness, overlap = figures["robustness_time"], figures["overlap_time"]
    levels = robustness["num_levels"]
    seconds = overlap["timings"]["overlap"]["median_seconds"]
    first = f"robustness by magnitude, {levels} levels and the baseline, over {levels} forward passes"
    ratios = [
        (first, "magnitude_over_ten_forward_passes", "1.2"),
        (f"the same over the {levels + 1} forward passes it makes", "magnitude_over_its_forward_passes", ""),
        (f"both curves over the {2 * levels + 1} forward passes they make", "both_over_their_forward_passes", "1.2"),
    ]
    return make_table(
        ("what", "figure", "goal"),
        *((what, f"{robustness[ratio]:.2f}", goal) for what, ratio, goal in ratios),
        (f"overlap of two masks of {overlap['num_weights'] / 1e9:g} B weights, seconds", f"{seconds:.3f}", "1"),
        ("the same over reading both masks once", f"{overlap['over_reading_once']:.1f}", ""),
    )


def tabulate_traces() -> str:
    """How many cases leave a trace, now and before."""
    figures = read_results("no_traces")
    rows = []
    for label, words in (("this", "now"), ("before", "before")):
        found = figures[label]
        cases = f"{found['num_with_traces']:,} of {found['num_cases']:,}"
        rounds = f"{found['rounds_with_traces']} of {found['rounds_of_two_threads']}"
        rows.append((words, cases, f"{len(found['by_function'])} of {found['num_functions']}", rounds))
    return make_table(("", "cases that leave a trace", "functions that do", "rounds of two threads that do"), *rows)


TABLES: Tables = {
    "no-traces": tabulate_traces,
    "measuring-memory": tabulate_memory,
    "measuring-time": tabulate_time,
}
