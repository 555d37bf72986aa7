"""The tables of what making and holding a mask costs."""

from collections.abc import Callable
from typing import Any

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


def tabulate_sharded_masks() -> str:
    """What a mask of sharded weights takes, beside that of one process."""
    cases = read_results("sharded-masks")["masks"]
    alone = {(c["dtype"], c["num_weights"]): c["processes"][0] for c in cases if not c["ranks"]}

    def compare(case: dict[str, Any]) -> str:
        slowest = max(process["seconds"] for process in case["processes"])
        return f"{slowest / alone[case['dtype'], case['num_weights']]['seconds']:.2f}"

    columns: Columns = {
        "weights": lambda case: f"{case['num_weights'] / 1e6:.0f} M {case['dtype']}",
        "processes": lambda case: str(case["ranks"]),
        "time, of one process": compare,
        "messages": lambda case: f"{case['processes'][0]['messages_a_mask']:.0f}",
        "sent by a process, kB": lambda case: f"{case['processes'][0]['bytes_a_mask'] / 1e3:.0f}",
        "peak extra memory, of the shard": lambda case: (
            f"{max(process['peak_bytes'] / process['shard_bytes'] for process in case['processes']):.1%}"
        ),
    }
    return tabulate([case for case in cases if case["ranks"]], columns)


def tabulate_sharded_holding() -> str:
    """What holding costs under `fully_shard`."""

    def share(case: dict[str, Any]) -> str:
        return f"{max(process['held'] / process['free'] for process in case['processes']) - 1:.1%}"

    columns: Columns = {
        "processes under fully_shard": lambda case: str(case["ranks"]),
        "bare step, ms": lambda case: f"{1000 * case['processes'][0]['free']:.0f}",
        "holding adds": share,
    }
    return tabulate(read_results("sharded-masks")["holding"], columns)


def tabulate_sharded_states() -> str:
    """What memory it takes to store and read the state of a sharded model."""

    def show_peak(case: dict[str, Any], what: str, processes: slice) -> str:
        return f"{max(one[what] / one['tensor_bytes'] for one in case['processes'][processes]):.1f}"

    columns: Columns = {
        "processes": lambda case: str(case["ranks"]),
        "stored, in tensors": lambda case: show_peak(case, "stored_peak_bytes", slice(None)),
        "read, in tensors": lambda case: show_peak(case, "read_peak_bytes", slice(1, None)),
        "read by the first, which maps the file": lambda case: show_peak(case, "read_peak_bytes", slice(1)),
    }
    return tabulate(read_results("sharded-states")["states"], columns)


TABLES: Tables = {
    "holding": tabulate_holding,
    "selection": tabulate_selection,
    "sharded-holding": tabulate_sharded_holding,
    "sharded-masks": tabulate_sharded_masks,
    "sharded-states": tabulate_sharded_states,
}
