"""The tables of what trainings changed, and of how often masks are said to share structure."""

from collections.abc import Iterable, Mapping, Sequence
from statistics import mean
from typing import Any, Final

from benchmarks.changes.parts import LARGEST
from benchmarks.common import read_results
from benchmarks.tables.parts import Tables, make_table, show_interval, tabulate
from statistical_report_generator.tables import format_interval

NULLS: Final = ("naive", "layer", "exponent", "value")
HEAD: Final = (
    "training", "weights", "in the mask, %", "of it hidden by bfloat16, %", "naive", "by layer", "by exponent",
    "by value", "verdict",
)  # fmt: skip
POINTS: Final = 100
WORDS: Final = {
    "read both": "both read once, through the system's cache",
    "read both past the cache": "both read once, past it",
    "statistics": "`compute_change_statistics`",
    "mask": "`compute_change_mask`",
    "largest changes": "`compute_change_mask` of the largest changes",
    "diff": "`compute_changes`, as `diff` does",
    "diff of two": "the same of two trainings",
    "save difference": "`save_difference`",
}
LARGEST_SHARE: Final = 1 - LARGEST


def tabulate_smollm() -> str:
    """What fine-tuning SmolLM2 changed, by optimizer and view, and what three trainings share beside each null."""
    found = read_results("changes_smollm")
    parts, settings = found["parts"], found["settings"]
    named = [(name.partition(": "), part) for name, part in parts.items() if "pairs" in part]
    rows = [_list_view(optimizer, view, part) for (optimizer, _, view), part in named]
    trainings = {name.split(": ")[0]: part for name, part in parts.items() if "test_losses" in part}
    losses = "; ".join(
        f"by {name} from {part['test_loss_before']:.2f} to {mean(part['test_losses']):.2f}"
        for name, part in trainings.items()
    )
    return (
        f"{make_table(HEAD, *rows)}\n\nMeans over three seeds and their three pairs; {settings['num_steps']} steps of "
        f"{settings['batch_size']} x {settings['num_tokens']} tokens on an H100. The loss on other speeches went "
        f"{losses}. Ratios are of what two trainings share to what is expected."
    )


def tabulate_reinforce() -> str:
    """What reinforcement learning and examples changed of a small transformer, and what trainings share."""
    found = read_results("changes_reinforce")
    rows = [_list_view(way, view, part) for way, views in found["found"].items() for view, part in views.items()]
    right = "; ".join(
        f"by {way} from {POINTS * one['before']:.0f} % to {POINTS * mean(one['after']):.0f} %"
        for way, one in found["trainings"].items()
    )
    return (
        f"{make_table(HEAD, *rows)}\n\n{found['parameters']:,} parameters; {found['steps']} steps of AdamW at "
        f"{found['rate']:g}. Right answers to new sums went {right}. *both* is one training of each."
    )


def tabulate_controls() -> str:
    """How well the changed weights of a small transformer train alone, beside controls."""
    return _list_controls(read_results("changes_reinforce")["controls"], "right answers, %", "points")


def tabulate_smollm_controls() -> str:
    """How well the changed weights of SmolLM2 train alone, beside controls."""
    parts = read_results("changes_smollm")["parts"]
    found = {name.split(": ")[0]: part for name, part in parts.items() if "branches" in part}
    return _list_controls(found, "test loss", "nats", scale=1, form=".3f")


def _list_controls(
    found: Mapping[str, Any], measured: str, unit: str, *, scale: float = POINTS, form: str = ".2f"
) -> str:
    rows = [
        (
            way,
            "all weights" if branch["level"] == 0 else str(branch["branch"]),
            f"{POINTS * branch['density']:.1f}",
            show_interval(branch["value"], scale=scale, form=form),
            show_interval(branch["minus_dense"], scale=scale, form=f"+{form}"),
        )
        for way, control in found.items()
        for branch in control["branches"]
    ]
    verdicts = "; ".join(f"{way}: {_show_claim(control['claims'])}" for way, control in found.items())
    head = ("training", "trained are", "weights, %", measured, f"minus all weights, {unit}")
    return f"{make_table(head, *rows)}\n\nMeans of five replicates with 95 % intervals. {verdicts}."


def _show_claim(claims: Mapping[str, Any]) -> str:
    [level] = claims["levels"]
    return f"{level['verdict']}; {level['winning']}, {level['winning_reason']}"


def _list_view(training: str, view: str, part: Mapping[str, Any]) -> tuple[str, ...]:
    is_largest = "largest" in view
    overall = [update["overall"] for update in part["updates"].values()]
    hidden = [one["share_hidden"] for one in overall]
    ratios = (_show_ratio(pair["nulls"][null]["ratio"] for pair in part["pairs"]) for null in NULLS)
    return (
        training,
        view,
        f"{POINTS * (LARGEST_SHARE if is_largest else mean(one['share_changed'] for one in overall)):.1f}",
        "" if is_largest or None in hidden else f"{POINTS * mean(hidden):.1f}",
        *ratios,
        _show_verdicts([str(pair["verdict"]) for pair in part["pairs"]]),
    )


def _show_ratio(ratios: Iterable[float]) -> str:
    return f"{mean(ratios):.2f}"


def _show_verdicts(verdicts: Sequence[str]) -> str:
    return ", ".join(f"{verdicts.count(verdict)} {verdict}" for verdict in dict.fromkeys(verdicts))


def show_rate(rate: dict[str, Any]) -> str:
    """Returns a rate in percent with its exact interval."""
    return format_interval({**rate, "mean": rate["rate"]}, form=".1f")


def tabulate_false() -> str:
    """How often independent updates are beyond chance, by kind of update: by our verdict, and by coarser ones."""
    found = read_results("change_nulls")
    rows = [{"world": world, **rates} for world, rates in {**found["by_world"], "all": found["all"]}.items()]
    columns = {
        "updates": lambda row: row["world"],
        "pairs": lambda row: f"{row['value beyond']['of']:,}",
        "beyond chance, %": lambda row: show_rate(row["value beyond"]),
        "below chance, %": lambda row: show_rate(row["below"]),
        "as if weights were independent, %": lambda row: show_rate(row["independent"]),
        "by layer alone, %": lambda row: show_rate(row["layer beyond"]),
    }
    sizes = sorted({row["size"] for row in found["independent"]})
    note = (
        f"Pairs of independent updates of 131,072 weights in three layers, bfloat16 and float32, of {sizes[0]:g} to "
        f"{sizes[-1]:g} ulps of a weight of one standard deviation; percent of the pairs with the exact 95 % interval. "
        f"The stated error rate is {100 * found['error_rate']:g} % on either side. The last two columns are what tests "
        "with coarser chance say: coins in each exponent, and one density in each layer."
    )
    return f"{tabulate(rows, columns)}\n\n{note}"


def tabulate_power() -> str:
    """How often planted structure is found, by strength."""
    planted = read_results("change_nulls")["planted"]
    strengths = sorted({row["strength"] for row in planted})
    rows = []
    for world, size in dict.fromkeys((row["world"], row["size"]) for row in planted):
        cells = {row["strength"]: row for row in planted if (row["world"], row["size"]) == (world, size)}
        shown = (f"{100 * cells[k]['value beyond']['rate']:.0f} ({cells[k]['value ratio']:.3f})" for k in strengths)
        rows.append((f"{world}, {size:g} ulp", *shown))
    note = (
        f"Percent of {planted[0]['num']} pairs that are beyond chance, and the mean ratio, where 1 % of the weights, "
        "at random places, have updates so many times larger in both runs; bfloat16."
    )
    return f"{make_table(('updates', *(f'{k:g} times' for k in strengths)), *rows)}\n\n{note}"


def tabulate_blind() -> str:
    """What the verdict finds of shared rows, and of runs that go on from one hidden state."""
    found = read_results("change_nulls")
    named = {f"rows of one scale in both runs, spread {row['spread']:g}": row for row in found["shared_rows"]}
    named |= {f"one float32 state behind both, {row['size']:g} ulp": row for row in found["hidden"]}
    rows = [
        (name, f"{100 * row['value beyond']['rate']:.0f}", f"{row['value ratio']:.3f}") for name, row in named.items()
    ]
    return make_table(("updates", "beyond chance, %", "mean ratio"), *rows)


def tabulate_large() -> str:
    """How long changes of two checkpoints that are larger than memory take, beside reading both."""
    found = read_results("diff_large")
    rows = [
        (WORDS[step["step"]], f"{step['seconds']:.0f}", _show_over(found, step["step"]), f"{peak / 1e9:.2f}")
        for step in found["steps"]
        for peak in [step["peak_resident_bytes"]]
    ]
    machine, size = found["machine"], found["num_bytes"] / 1e9
    table = make_table(("", "s", "over reading both", "peak memory, GB"), *rows)
    return (
        f"{table}\n\nTwo checkpoints of {size:.1f} GB each, one weight in a hundred of which differs; "
        f"{machine['num_cpus']} CPUs, memory of {machine['memory_bytes'] / 1e9:.0f} GB, an empty cache before each."
    )


def _show_over(found: Mapping[str, Any], step: str) -> str:
    ratio = found["over_reading_both"].get(step)
    return "" if ratio is None else f"{ratio:.2f}"


TABLES: Tables = {
    "change-nulls": tabulate_false,
    "change-power": tabulate_power,
    "change-blind": tabulate_blind,
    "changes-smollm": tabulate_smollm,
    "changes-smollm-controls": tabulate_smollm_controls,
    "changes-reinforce": tabulate_reinforce,
    "changes-controls": tabulate_controls,
    "changes-large": tabulate_large,
}
