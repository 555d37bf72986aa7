"""The tables of what was measured on a GPU."""

from typing import Any

from benchmarks.common import TITLES, read_results
from benchmarks.tables.parts import Tables, make_table

NAMES = {**TITLES, "qwen2, tiny": "Qwen2, 2 layers", "qwen2, 0.5 B, bfloat16": "Qwen2, 0.5 B, bfloat16"}


def tabulate_equality() -> str:
    """How far what a GPU finds is from what a CPU finds."""
    heads = (
        "model",
        "bits of masks that differ",
        "of masks by scores",
        "scores",
        "losses of a landscape",
        "held after steps",
    )
    return make_table(heads, *(_compare(NAMES[name], row) for name, row in read_results("gpu")["equality"].items()))


def _compare(name: str, row: dict[str, Any]) -> tuple[str, ...]:
    bits = (sum(row[key].values()) for key in ("different_bits", "different_bits_by_score"))
    held = "yes" if row["held_after_a_step"] else "no"
    return (name, *map(str, bits), f"{max(row['scores'].values()):.0e}", f"{row['landscape']:.0e}", held)


def tabulate_costs() -> str:
    """What holding adds to a step, and what a check adds to 100 steps."""
    figures = read_results("gpu")
    holding = dict(figures["holding"])
    again = holding.pop("again")
    rows = [
        (
            f"holding a mask: {NAMES[name]}",
            f"{1e2 * row['seconds_of_10_steps']['bare']['least']:.2f} ms a step",
            f"{row['adds']['held']:.0%}; in another run {again[name]['held']:.0%}",
        )
        for name, row in holding.items()
    ]
    rows += [
        (
            f"a check in 100 steps: {row['name']}",
            f"{10 * row['training_seconds']:.2f} ms a step",
            f"{row['check_over_training']:.0%}, of it the probe {row['probe_over_training']:.0%}",
        )
        for row in figures["watching"]["rows"]
    ]
    return make_table(("what", "training alone", "adds"), *rows)


def tabulate_masks() -> str:
    """What a mask of many weights costs on a GPU."""
    figures = read_results("gpu")["masks"]
    rows = [
        (
            dtype.removeprefix("torch."),
            f"{1e3 * row['mask']['median']:.0f}",
            f"{row['over_read']:.0f}",
            f"{row['extra_bytes'] / 1e9:.2f}",
        )
        for dtype, row in figures.items()
        if dtype != "num_weights"
    ]
    return make_table(
        ("1.07 billion weights in", "magnitude mask, ms", "over one read", "memory of the device for it, GB"), *rows
    )


def tabulate_14b() -> str:
    """Early-bird at the shape of a model of 14 billion parameters."""
    figures = read_results("early_bird_14b")
    ours, plain = figures["early_bird"], figures["plain_sgd"]
    rows = [
        ("peak of the device, GB", f"{ours['peak_bytes'] / 1e9:.1f}", f"{plain['peak_bytes'] / 1e9:.1f}"),
        ("a step of 2 x 512 tokens, s", f"{ours['median_step_seconds']:.2f}", f"{plain['median_step_seconds']:.2f}"),
        ("start of a watch, s", f"{ours['start_seconds']:.0f}", ""),
        ("a check without a probe, s", f"{ours['check_seconds']:.0f}", ""),
        ("memory of the device for a check, GB", f"{ours['check_extra_bytes'] / 1e9:.1f}", ""),
    ]
    return make_table(("", "early-bird, SGD in the backward pass", "torch's fused SGD"), *rows)


def tabulate_loops() -> str:
    """What the loops in Triton take beside those of plain torch."""
    figures, rows = read_results("gpu")["kernels"], []
    names = {"count": "count", "classify": "compare and pack", "pack": "pack", "zero by bits": "zero by bits"}
    for dtype in ("float32", "bfloat16"):
        loops, masks = figures[f"loops, torch.{dtype}"], figures[f"masks, torch.{dtype}"]
        rows += [
            (f"{title}, {dtype}", *(f"{loops[f'{name}, {kind}']['over_read']:.1f}" for kind in ("torch", "triton")))
            for name, title in names.items()
        ]
        kinds = ("reference", "triton")
        rows.append((f"a whole mask, {dtype}", *(f"{masks[f'mask, {kind}']['over_read']:.0f}" for kind in kinds)))
    return make_table(("times of one read", "plain torch", "Triton"), *rows)


def tabulate_large() -> str:
    """Masks of 14.77 billion weights."""
    figures = read_results("gpu")["masks, 14.77 B"]
    seconds = figures["seconds"]
    rows = [
        (name.removeprefix("mask, "), f"{times['median']:.2f}", f"{times['median'] / seconds['read']['median']:.0f}")
        for name, times in seconds.items()
        if name.startswith("mask")
    ]
    staged = figures["page-locked"]
    rows.insert(
        1,
        (
            "global, by way of page-locked memory",
            f"{staged['mask, global']:.2f}",
            f"{staged['mask, global'] / staged['read']:.0f}",
        ),
    )
    rows += [("one read of the weights", f"{seconds['read']['median']:.3f}", "1")]
    rows += [("the bits to the CPU, page-locked", f"{staged['bits to the CPU']:.2f}", "")]
    return make_table(("14.77 billion bfloat16 weights", "s", "over one read"), *rows)


def tabulate_fisher() -> str:
    """What a Fisher diagonal costs in plain passes."""
    rows = [
        (
            name.replace("torch.", ""),
            f"{1e3 * row['seconds']['plain']['least']:.0f}",
            f"{row['first']:.2f}",
            f"{row['later']:.2f}",
            f"{row['extra_bytes'] / row['plain_extra_bytes']:.2f}",
        )
        for name, row in read_results("gpu")["fisher"].items()
    ]
    heads = (
        "a batch of",
        "a plain pass, ms",
        "first batch, in passes",
        "later ones",
        "memory beside the model, of a pass's",
    )
    return make_table(heads, *rows)


TABLES: Tables = {
    "gpu-equality": tabulate_equality,
    "gpu-costs": tabulate_costs,
    "gpu-masks": tabulate_masks,
    "gpu-14b": tabulate_14b,
    "gpu-fisher": tabulate_fisher,
    "gpu-large": tabulate_large,
    "gpu-loops": tabulate_loops,
}
