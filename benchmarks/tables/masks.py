"""The tables of what making and holding a mask costs."""

from collections.abc import Callable

from benchmarks.common import read_results
from benchmarks.tables.parts import Columns, Tables, show, tabulate


def tabulate_holding() -> str:
    """What holding costs."""
    figures, goals = read_results("holding"), {"lenet-300-100": "10 %", "resnet-20": "5 %"}
    columns: dict[str, Callable[[str], str]] = {
        "model": str,
        "bare step, ms": lambda name: f"{1000 * figures[name]['median_seconds_a_step']['bare']:.2f}",
        "holding adds": lambda name: f"{figures[name]['cost_of_holding']:.1%}",
        "goal, at most": lambda name: goals[name],
        "our loop's speed, masked loop by hand = 100 %": lambda name: f"{figures[name]['speed_of_our_loop']:.0%}",
    }
    return tabulate(goals, columns)


def tabulate_selection() -> str:
    """How fast selection is beside its peers."""
    columns: Columns = {
        "sparsity": lambda case: f"{case['sparsity']}",
        "ours, ms": lambda case: f"{1000 * case['timings']['ours']['median_seconds']:.0f}",
        "torch prune / ours (goal 200)": lambda case: show(case["ratios"].get("torch_prune_over_ours"), ".0f"),
        "numpy partition / ours (goal 2)": lambda case: f"{case['ratios']['numpy_partition_over_ours']:.1f}",
        "ours / torch.sum (goal 4)": lambda case: f"{case['ratios']['ours_over_torch_sum']:.1f}",
        "bf16 / fp32 (goal 1)": lambda case: f"{case['ratios']['ours_bfloat16_over_ours']:.2f}",
        "extra memory (goal 5 %)": lambda case: f"{case['peak_extra_share_of_weights']:.1%}",
    }
    return tabulate(read_results("selection")["large"], columns)


TABLES: Tables = {
    "holding": tabulate_holding,
    "selection": tabulate_selection,
}
