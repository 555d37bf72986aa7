"""The tables of language models: streamed decoders, and perplexity over sparsity."""

from collections.abc import Mapping
from typing import Any

from benchmarks.common import read_results
from benchmarks.studies.parts import sum_up
from benchmarks.tables.parts import Tables, make_table, show_interval

GIB = 2**30
PAIRS = (  # of which the losses are compared, replicate by replicate
    ("Wanda, row", "magnitude, row"),
    ("Wanda, 2:4", "magnitude, 2:4"),
    ("saliency, global", "magnitude, global"),
    ("saliency, global", "Wanda, row"),
    ("magnitude, layer", "magnitude, global"),
    ("magnitude, row", "magnitude, global"),
)


def tabulate_streaming() -> str:
    """What running a checkpoint layer by layer costs."""
    figures = read_results("streaming")
    rows = [("", "time", "processor time", "peak memory beyond the libraries")]
    for what, ratios in figures["ratios"].items():
        streamed = figures["steps"][f"{what}, streamed"]
        rows.append(
            (
                f"SmolLM2-135M, {what}: streamed / in memory",
                f"{ratios['min_seconds']:.2f}",
                f"{ratios['min_cpu_seconds']:.2f}",
                f"{ratios['peak_extra_bytes']:.2f} ({streamed['peak_extra_bytes'] / GIB:.2f} GiB)",
            )
        )
    if large := figures.get("large"):
        steps = large["steps"]
        streamed = steps["perplexity, streamed"]
        reading = min(steps["read"]["seconds"], steps["read past the cache"]["seconds"])
        rows.append(
            (
                f"{large['model_bytes'] / 1e9:.1f} GB in bfloat16, perplexity: streamed / reading the files once",
                f"{streamed['seconds'] / reading:.2f} ({streamed['seconds']:.0f} s)",
                f"{streamed['cpu_seconds']:.0f} s",
                f"{streamed['peak_extra_bytes'] / GIB:.2f} GiB",
            )
        )
    load, num_cpus = figures["machine"]["load_average"][0], figures["machine"]["num_cpus"]
    return (
        f"{make_table(*rows)}\n\nSmolLM2: least of {figures['steps']['perplexity, streamed']['repeats']} in turns, the "
        f"other once; on {num_cpus} cores that other work used too (load {load:.0f})."
    )


def tabulate_perplexity() -> str:
    """Perplexity by score and scope, over sparsity."""
    figures = read_results("perplexity")
    sparsities: list[float] = figures["settings"]["sparsities"]
    dense = next(row for row in figures["rows"] if row["score"] == "dense")
    head = f"dense {_show(dense['perplexity'])}"
    rows = [
        (label, *("" if ":" in label and s != 0.5 else _show_cell(cells.get(s)) for s in sparsities))  # noqa: PLR2004 - 2:4 is 50 %
        for label, cells in _list_scores(figures["rows"]).items()
    ]
    return make_table((head, *(f"{100 * sparsity:.0f} %" for sparsity in sparsities)), *rows)


def tabulate_perplexity_verdicts() -> str:
    """Where one score's loss is less or more than another's, by intervals of paired differences."""
    found = _list_scores(read_results("perplexity")["rows"])
    rows = []
    for first, second in PAIRS:
        ends = {
            sparsity: sum_up([one - other for one, other in zip(*values, strict=True)])
            for sparsity, cell in found[first].items()
            if sparsity in found[second]
            for values in [(cell["loss"]["values"], found[second][sparsity]["loss"]["values"])]
        }
        less = [f"{100 * sparsity:.0f}" for sparsity, interval in ends.items() if interval["high"] < 0]
        more = [f"{100 * sparsity:.0f}" for sparsity, interval in ends.items() if interval["low"] > 0]
        open_ones = [f"{100 * s:.0f}" for s, interval in ends.items() if interval["low"] <= 0 <= interval["high"]]
        rows.append((f"{first} against {second}", *(", ".join(listed) for listed in (less, more, open_ones))))
    return make_table(("", "lower at, %", "higher at, %", "undecided at, %"), *rows)


def tell_perplexity_settings() -> str:
    """What was measured, in a sentence."""
    figures = read_results("perplexity")
    settings = figures["settings"]
    return (
        f"SmolLM2-135M on State-of-the-Union speeches: {settings['num_replicates']} replicates. Each draws "
        f"{settings['num_calibration_texts']} texts of speeches before 2000, on which scores are computed, and "
        f"{settings['num_test_texts']} texts of later ones, on which perplexity is measured; all have "
        f"{settings['num_tokens']} tokens. A score that loses more than {settings['lost_above_nats']:.1f} nats in some "
        f"replicate is not pruned further (*lost*). {figures['seconds'] / 60:.0f} minutes on "
        f"{figures['machine']['num_cpus']} cores."
    )


def _list_scores(rows: list[dict[str, Any]]) -> dict[str, dict[float, dict[str, Any]]]:
    found: dict[str, dict[float, dict[str, Any]]] = {}
    for row in rows:
        if row["score"] != "dense":
            found.setdefault(f"{row['score']}, {row['scope']}", {})[row["sparsity"]] = row
    return found


def _show_cell(row: Mapping[str, Any] | None) -> str:
    return "lost" if row is None else _show(row["perplexity"])


def _show(interval: Mapping[str, Any]) -> str:
    return show_interval(interval, scale=1.0, form=".0f" if interval["mean"] >= 100 else ".1f")  # noqa: PLR2004 - three digits


TABLES: Tables = {
    "streaming": tabulate_streaming,
    "perplexity": tabulate_perplexity,
    "perplexity-verdicts": tabulate_perplexity_verdicts,
    "perplexity-settings": tell_perplexity_settings,
}
