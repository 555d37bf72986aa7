"""The table of streamed decoders."""

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


TABLES: Tables = {"streaming": tabulate_streaming}
