"""The tables of what making and holding a mask costs."""

from collections.abc import Callable

from benchmarks.common import read_results
from benchmarks.tables.parts import make_table


def tabulate_holding() -> str:
    """What holding costs."""
    figures = read_results("holding")
    rows = [
        (
            name,
            f"{1000 * figures[name]['median_seconds_a_step']['bare']:.2f}",
            f"{figures[name]['cost_of_holding']:.1%}",
            goal,
            f"{figures[name]['speed_of_our_loop']:.0%}",
        )
        for name, goal in (("lenet-300-100", "15 %"), ("resnet-20", "5 %"))
    ]
    heads = ("model", "bare step, ms", "holding adds", "goal, at most", "our loop's speed, masked loop by hand = 100 %")
    return make_table(heads, *rows)


def tabulate_selection() -> str:
    """How fast selection is beside its peers."""
    rows = []
    for case in read_results("selection")["large"]:
        ratios = case["ratios"]
        prune = ratios.get("torch_prune_over_ours")
        rows.append(
            (
                f"{case['sparsity']}",
                f"{1000 * case['timings']['ours']['median_seconds']:.0f}",
                "" if prune is None else f"{prune:.0f}",
                f"{ratios['numpy_partition_over_ours']:.1f}",
                f"{ratios['ours_over_torch_sum']:.1f}",
                f"{ratios['ours_bfloat16_over_ours']:.2f}",
                f"{case['peak_extra_share_of_weights']:.1%}",
            )
        )
    heads = (
        "sparsity", "ours, ms", "torch prune / ours (goal 200)", "numpy partition / ours (goal 2)",
        "ours / torch.sum (goal 4)", "bf16 / fp32 (goal 1)", "extra memory (goal 5 %)",
    )  # fmt: skip
    return make_table(heads, *rows)


TABLES: dict[str, Callable[[], str]] = {
    "holding": tabulate_holding,
    "selection": tabulate_selection,
}
