"""The tables of what scores are worth."""

from functools import partial
from typing import Any

from benchmarks.common import TITLES, read_results
from benchmarks.tables.parts import Tables, make_table

NEAR_DENSE = 0.02  # two points of accuracy


def read_rows(model: str) -> list[dict[str, Any]]:
    """Returns the rows of one model."""
    rows: list[dict[str, Any]] = read_results("score-worth")["models"][model]["rows"]
    return rows


def list_scores(model: str, scopes: tuple[str, ...]) -> dict[str, dict[float, dict[str, Any]]]:
    """Returns the rows of one model by the label of the score, then by sparsity."""
    found: dict[str, dict[float, dict[str, Any]]] = {}
    for row in read_rows(model):
        if row["scope"] in scopes and row["score"] != "dense":
            label = row["score"] + (", rows" if row["scope"] == "row" else "")
            found.setdefault(label, {})[row["sparsity"]] = row
    return found


def find_dense(model: str) -> dict[str, Any]:
    """Returns the row of a model that is not pruned."""
    return next(row for row in read_rows(model) if row["score"] == "dense")


def tabulate_worth(model: str, metric: str, *scopes: str) -> str:
    """Loss or accuracy of a model pruned by each score."""
    words, scale, form = {"accuracy": ("accuracy, %", 100.0, ".1f"), "loss": ("loss, nats", 1.0, ".2f")}[metric]
    sparsities = read_results("score-worth")["models"][model]["sparsities"]
    dense = format_half_width(find_dense(model)[metric], scale, form)
    head = (f"{words}; dense {dense}", *(f"{100 * sparsity:.0f} %" for sparsity in sparsities))
    rows = [
        (label, *(format_half_width(cells[s][metric], scale, form) if s in cells else "lost" for s in sparsities))
        for label, cells in list_scores(model, scopes).items()
    ]
    return make_table(head, *rows)


def format_half_width(interval: dict[str, Any], scale: float, form: str) -> str:
    """Returns a mean and half its interval's width, such as "89.3 ± 0.2"; the mean alone where there is no interval."""
    mean = f"{interval['mean'] * scale:{form}}"
    if interval["low"] is None:
        return mean
    return f"{mean} ± {(interval['high'] - interval['mean']) * scale:{form}}"


def tabulate_verdicts(model: str) -> str:
    """At which sparsities a score is better or worse than magnitude of the same scope, by paired intervals."""
    rows = []
    for label, cells in list_scores(model, ("global", "row")).items():
        if label.startswith("magnitude"):
            continue
        row = [label]
        for metric, sign in (("accuracy", 1), ("loss", -1)):
            differences = {s: cell[f"{metric}_minus_magnitude"] for s, cell in cells.items()}
            ends = {s: sorted((sign * d["low"], sign * d["high"])) for s, d in differences.items()}
            better = [s for s, (low, _) in ends.items() if low > 0]
            worse = [s for s, (_, high) in ends.items() if high < 0]
            row += [name_sparsities(better), name_sparsities(worse)]
        rows.append(tuple(row))
    heads = ("score", "accuracy better at", "accuracy worse at", "loss better at", "loss worse at")
    return make_table(heads, *rows)


def name_sparsities(sparsities: list[float]) -> str:
    """Returns sparsities such as "40, 60 %"."""
    return ", ".join(f"{100 * sparsity:.0f}" for sparsity in sparsities) + (" %" if sparsities else "")


def tabulate_reach() -> str:
    """The largest sparsity up to which each score stays near dense accuracy."""
    rows: dict[str, list[str]] = {}
    for number, model in enumerate(TITLES):
        dense = find_dense(model)["accuracy"]["mean"]
        for label, cells in list_scores(model, ("global", "row")).items():
            reached = "none"
            for sparsity, cell in cells.items():
                if cell["accuracy"]["mean"] < dense - NEAR_DENSE:
                    break
                reached = f"{100 * sparsity:.0f} %"
            rows.setdefault(label, [""] * len(TITLES))[number] = reached
    return make_table(("score", *TITLES.values()), *((label, *reached) for label, reached in rows.items()))


def tell_settings_of_worth() -> str:
    """What was measured, in sentences."""
    figures = read_results("score-worth")
    settings, models = figures["settings"], figures["models"]
    lines = []
    for model in ("lenet-300-100", "resnet-20"):
        facts = models[model]
        lines.append(
            f"- {TITLES[model]} on Fashion-MNIST: {facts['num_replicates']} replicates, each trained for "
            f"{facts['num_steps']:,} steps from its own seed; scored on {settings['num_scoring_images']:,} training "
            f"images of its own; judged on the first {facts['num_test_images']:,} test images."
        )
    facts = models["smollm2-135m"]
    lines.append(
        f"- SmolLM2-135M on State-of-the-Union speeches: {facts['num_replicates']} replicates, each scored on its own "
        f"{settings['num_scoring_texts']} sequences of {settings['num_tokens']} tokens from speeches before 2000; all "
        f"judged on the same {settings['num_test_texts']} sequences from later ones. Its {facts['num_weights']:,} "
        f"prunable weights have {facts['num_distinct_magnitudes']:,} distinct magnitudes. Once its loss is above "
        f"{settings['lost_above_nats']} nats in some replicate, sparser cells are *lost*."
    )
    return "\n".join(lines)


TABLES: Tables = {
    "score-worth-settings": tell_settings_of_worth,
    "score-worth-reach": tabulate_reach,
    "score-worth-lenet": partial(tabulate_worth, "lenet-300-100", "accuracy", "global", "row"),
    "score-worth-lenet-layer": partial(tabulate_worth, "lenet-300-100", "accuracy", "layer"),
    "score-worth-lenet-verdicts": partial(tabulate_verdicts, "lenet-300-100"),
    "score-worth-resnet": partial(tabulate_worth, "resnet-20", "accuracy", "global", "row"),
    "score-worth-resnet-verdicts": partial(tabulate_verdicts, "resnet-20"),
    "score-worth-language": partial(tabulate_worth, "smollm2-135m", "loss", "global", "row"),
    "score-worth-language-verdicts": partial(tabulate_verdicts, "smollm2-135m"),
}
