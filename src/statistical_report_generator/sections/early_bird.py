"""The sections on an early-bird run: has the ticket settled, did the network learn, what may be wrong with it."""

from typing import Final

from statistical_report_generator.document import (
    Block,
    EarlyBirdWord,
    Figure,
    Points,
    Section,
    Table,
    Verdicts,
)
from statistical_report_generator.figures.early_bird import draw_early_bird
from statistical_report_generator.schemas.early_bird import EarlyBird, EarlyBirdCheck
from statistical_report_generator.sections.making import describe_making, list_unknown
from statistical_report_generator.sections.words import MOST_ROWS, count, form, list_names, make_table, percent
from statistical_report_generator.sources import Source

WORDS: Final[dict[str, EarlyBirdWord]] = {
    "converged": "converged",
    "still changing": "still changing",
    "trivially stable": "trivially stable",
    "stable, learning not shown": "learning not shown",
    "diverged": "diverged",
}
HEADINGS: Final = (
    *("epoch", "step", "rank correlation", "mask distance, share of chance", "from the start, share of chance"),
    *("movement, share of the norm", "weights moved, %", "loss", "gap", "z", "stable"),
)
LITTLE_MOVED: Final = 0.1  # of the weights; fresh weights in float32 nearly all move
FEW_CHECKS: Final = 4


def describe_early_bird(source: Source) -> list[Section]:
    """Returns the sections on one early-bird run.

    Args:
        source: What `compute_early_bird_tickets`, its command or its watchers saved.
    """
    found: EarlyBird = source.results
    checks = found["checkpoints"]
    blocks: list[Block] = [Verdicts(((WORDS[found["verdict"]], _answer(found)),)), _draw(source, found)]
    means = [Points(tuple(found["findings"]))] if found.get("findings") else []
    return [
        Section("What was found", [*blocks, *means]),
        Section("Check by check", [_tabulate(source, checks)]),
        describe_making(source, {"method": found["method"], **(found.get("settings") or {})}),
        Section("Threats to validity", [Points(tuple(_list_threats(source, found)))]),
    ]


def _answer(found: EarlyBird) -> str:
    sparsity, num = percent(found["target_sparsity"], ".3g"), len(found["checkpoints"])
    when = f"at epoch {form(found['convergence_epoch'])}" if found["convergence_epoch"] is not None else "not converged"
    reason = found.get("reason", "")
    return f"The ticket of sparsity {sparsity} %, after {num:,} checks: {when}{f'; {reason}' if reason else ''}."


def _draw(source: Source, found: EarlyBird) -> Figure:
    last = found["checkpoints"][-1]
    return Figure(
        name=f"{source.slug}-early-bird",
        caption="Above, rank correlation of all magnitudes; below it, distances of masks as a share of what unrelated "
        "masks have; the movement of the weights; the loss. One training, one point a check, without intervals.",
        alternative=f"At the last of {len(found['checkpoints']):,} checks the rank correlation with the check before "
        f"is {form(last['correlation'], '.4f')} and the mask is {form(last['corrected_start_distance'], '.4f')} of "
        f"chance away from that of the start; the verdict is {found['verdict']}.",
        draw=lambda: draw_early_bird(found),
    )


def _tabulate(source: Source, checks: list[EarlyBirdCheck]) -> Table:
    shown = checks[-MOST_ROWS:]
    rows = [
        (
            form(check["epoch"]),
            count(check.get("step")),
            form(check["correlation"], ".4f"),
            form(check["corrected_distance"], ".4f"),
            form(check["corrected_start_distance"], ".4f"),
            form(check["movement"], ".4g"),
            percent(check.get("share_moved"), ".2f", ""),
            form(check["loss"], ".4g", ""),
            form(check.get("gap"), ".3g", ""),
            form(check.get("gap_z"), ".1f", ""),
            "yes" if check["stable"] else "no",
        )
        for check in shown
    ]
    caption = (
        "Correlations are with the check before. The gap is what exchanging targets between samples adds to the loss "
        "on a probe, z its signed ranks in standard deviations."
    )
    left_out = f"The last {MOST_ROWS} of {len(checks):,} checks." if len(shown) < len(checks) else ""
    return make_table(f"{source.slug}-checks", caption, HEADINGS, rows, words=(10,), left_out=left_out)


def _list_threats(source: Source, found: EarlyBird) -> list[str]:
    checks = found["checkpoints"]
    return [
        *_doubt_verdict(found),
        *_doubt_movement(found),
        *_doubt_probe(checks),
        *_doubt_training(checks),
        "This is one training with one seed: another may settle at another time, on another mask.",
        "A mask that has settled is no winning ticket: nothing was trained from it here, and no control beside it.",
        *list_unknown(source),
    ]


def _doubt_verdict(found: EarlyBird) -> list[str]:
    return {
        "converged": [],
        "still changing": ["The ticket had not settled at the last check; one drawn later may differ."],
        "trivially stable": [
            (
                "Trivially stable: the weights have hardly moved from where they started, and weights that do not move "
                "give a stable mask whatever they are."
            )
        ],
        "stable, learning not shown": [
            (
                "Learning is not shown: the mask is stable, but nothing measured says that the network learns from its "
                "inputs, and noise can settle too."
            )
        ],
        "diverged": ["The training diverged: weights or losses are not finite, and the mask means nothing."],
    }[found["verdict"]]


def _doubt_movement(found: EarlyBird) -> list[str]:
    share = found["checkpoints"][-1].get("share_moved")
    if share is None:
        return ["It is not recorded how many of the weights moved: steps that bfloat16 rounds away would not be seen."]
    if share >= LITTLE_MOVED:
        return []
    rounding = found.get("settings", {}).get("stochastic_rounding")
    words = " Stochastic rounding was off." if rounding is False else ""
    return [
        (
            f"Only {percent(share, '.3g')} % of the weights have moved at all: steps that are smaller than the number "
            f"format resolves leave a weight where it is, as in bfloat16.{words}"
        )
    ]


def _doubt_probe(checks: list[EarlyBirdCheck]) -> list[str]:
    if all(check.get("gap") is None for check in checks):
        return ["There was no probe: whether the network learns from its inputs was not measured."]
    if checks[-1].get("held_out") is False:
        return ["The probe is of samples that are trained on, so what it shows may be learnt by heart."]
    return []


def _doubt_training(checks: list[EarlyBirdCheck]) -> list[str]:
    threats = []
    if len(checks) < FEW_CHECKS:
        threats.append(f"Only {len(checks)} {'check' if len(checks) == 1 else 'checks'}: a trend is not seen.")
    if skipped := sum(check.get("num_nonfinite_losses", 0) for check in checks):
        threats.append(f"{count(skipped)} batches were skipped because their loss was not finite.")
    layers = checks[-1].get("layers", {})
    emptied = [name for name, layer in layers.items() if isinstance(layer, dict) and layer.get("density") == 0]
    if emptied:
        threats.append(f"Layer collapse: the mask keeps nothing of {list_names(emptied)}.")
    return threats
