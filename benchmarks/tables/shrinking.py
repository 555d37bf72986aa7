"""The tables of what networks that become smaller save, and what they lose."""

from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

from benchmarks.common import read_results
from benchmarks.tables.parts import Tables, make_table, show_interval

ALPHA: Final = 0.05
RIVAL_WORDS: Final = (
    ("above", "better"),
    ("below", "worse"),
    ("equivalent", "equal"),
    ("not_worse", "not worse"),
)


def tabulate_speed() -> str:
    """Times and FLOPs of smaller networks over those of the whole one, and their quality."""
    found = read_results("shrinking_speed")
    rows: list[tuple[str, ...]] = []
    for name, model in found["models"].items():
        rows += [(name, *_list_cells(label, row, model)) for label, row in model["rows"].items()]
    head = (
        "model", "what goes", "parameters", "FLOPs, inference", "time, inference", "FLOPs, step", "time, step",
        "quality, whole", "cut", f"after {found['recovery_steps']} steps",
    )  # fmt: skip
    measured = "; ".join(f"{name}: {model['measured']}" for name, model in found["models"].items())
    machine, repeats = found["machine"], sorted({model["repeats"] for model in found["models"].values()})
    return (
        f"{make_table(head, *rows)}\n\nShares are of the whole network. Quality is {measured}. The least of "
        f"{' to '.join(map(str, repeats))} times, in turns, on {machine['num_cpus']} cores with "
        f"{machine['num_torch_threads']} threads."
    )


def _list_cells(label: str, row: Mapping[str, Any], model: Mapping[str, Any]) -> tuple[str, ...]:
    dense = f"{model['dense']:.4g}"
    if "cannot" in row:
        return (label, *[""] * 5, dense, "cannot", "")
    shares = (row[key] for key in ("parameters", "inference_flops", "inference", "step_flops", "step"))
    recovered = "" if row["recovered"] is None else f"{row['recovered']:.4g}"
    return (label, *(f"{share:.2f}" for share in shares), dense, f"{row['quality']:.4g}", recovered)


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


def tabulate_channels() -> str:
    """Early-bird tickets of channels beside other ways to a smaller network, and to as much work."""
    found = read_results("early_bird_channels")
    rows = [
        (network, f"{row['share']:.0%}", way, *_list_figures(figures), _judge(row["rivals"].get(way)))
        for network, shares in found["networks"].items()
        for row in shares
        for way, figures in row["ways"].items()
    ]
    head = (
        "network", "channels gone", "way", "parameters", "accuracy, %", "minus dense, points", "FLOPs, of dense",
        "seconds, of dense", "early-bird beside it",
    )  # fmt: skip
    return (
        f"{make_table(head, *rows)}\n\nMeans with 95 % intervals over {found['replicates']} replicates; "
        f"{found['images']:,} images, {found['epochs']} epochs; equal: within {100 * found['margin']:g} points. "
        f"P values below {ALPHA:g}, corrected by Holm over the shares; a blank shows nothing. "
        f"{_tell_searches(found['networks'])}"
    )


def _list_figures(figures: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        f"{figures['parameters']['mean']:,.0f}",
        show_interval(figures["accuracy"]),
        show_interval(figures["minus_dense"], form="+.2f"),
        show_interval(figures["flops_of_dense"], scale=1),
        show_interval(figures["seconds_of_dense"], scale=1),
    )


def _judge(rival: Mapping[str, float] | None) -> str:
    """Returns what early-bird is beside a rival: the strongest that is shown."""
    return next((words for name, words in RIVAL_WORDS if rival is not None and rival[name] < ALPHA), "")


def _tell_searches(networks: Mapping[str, Any]) -> str:
    told = []
    for network, shares in networks.items():
        verdicts = Counter(verdict for row in shares for verdict in row["verdicts"])
        epochs = [epoch for row in shares for epoch in row["epochs"]]
        ends = ", ".join(f"{count} {verdict}" for verdict, count in verdicts.most_common())
        told.append(f"{network} {min(epochs):.0f} to {max(epochs):.0f} epochs ({ends})")
    return f"The search took {'; '.join(told)}."


TABLES: Tables = {
    "early-bird-channels": tabulate_channels,
    "shrinking-speed": tabulate_speed,
    "two-of-four": tabulate_two_of_four,
}
