"""The tables of streamed decoders, and of perplexity over sparsity."""

from collections.abc import Mapping
from typing import Any

from benchmarks.common import read_results
from benchmarks.tables.parts import Tables, make_table

GIB = 2**30


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
    """Perplexity by score and sparsity, with half the width of its interval."""
    figures = read_results("perplexity")
    cells: dict[tuple[str, str], dict[float, Mapping[str, Any]]] = {}
    for row in figures["rows"]:
        cells.setdefault((row["score"], row["scope"]), {})[row["sparsity"]] = row
    dense = cells.pop(("dense", "none"))[0.0]
    sparsities = figures["settings"]["sparsities"]
    head = (f"dense {dense['perplexity']['mean']:.1f}; times dense", *(f"{100 * s:.0f} %" for s in sparsities))
    rows = [
        (f"{score}, {scope}", *(show_cell(found.get(sparsity), scope) for sparsity in sparsities))
        for (score, scope), found in cells.items()
    ]
    return make_table(head, *rows)


def show_cell(row: Mapping[str, Any] | None, scope: str) -> str:
    """Returns how many times dense perplexity a cell is, with the interval; "lost" where it was not measured."""
    if row is None:
        return "" if ":" in scope else "lost"
    ratio = row["ratio_to_dense"]
    return f"{ratio['mean']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f})"


def tell_settings_of_perplexity() -> str:
    """What was measured, in a sentence."""
    settings = read_results("perplexity")["settings"]
    return (
        f"{settings['num_replicates']} replicates, each with its own draw of {settings['num_calibration_texts']} "
        f"sequences to compute scores on, of speeches before 2000, and of {settings['num_test_texts']} sequences to "
        f"measure perplexity on, of later ones; {settings['num_tokens']} tokens each."
    )


TABLES: Tables = {
    "streaming": tabulate_streaming,
    "perplexity": tabulate_perplexity,
    "perplexity-settings": tell_settings_of_perplexity,
}
