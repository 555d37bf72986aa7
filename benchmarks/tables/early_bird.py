"""The tables of the pages on early-bird tickets."""

from collections.abc import Mapping
from typing import Any

from benchmarks.common import TITLES, read_results
from benchmarks.tables.parts import Columns, Tables, make_table, show, show_interval, tabulate
from statistical_report_generator.tables import format_interval

STUDIES = {
    "lenet-300-100": TITLES["lenet-300-100"],
    "lenet-300-100-by-epoch": f"{TITLES['lenet-300-100']}, checks by epoch",
    "resnet-20": TITLES["resnet-20"],
}
METHOD_NAMES = {"magnitude_ranking": "rank correlation", "mask_distance": "mask distance"}
BRANCH_NAMES = {
    "early": "early ticket",
    "continued": "early, continued",
    "end": "ticket of the end",
    "shuffled": "shuffled mask",
    "random": "shuffled mask, fresh weights",
}


def tabulate_verdicts() -> str:
    """How often each rule calls a training converged, by kind of training, at half the weights removed."""
    figures = read_results("early_bird_verdicts")
    tables = {(table["method"], table["sparsity"]): table for table in figures["tables"]}
    heads = ("training", *(f"{METHOD_NAMES[m]}, {who}" for m in METHOD_NAMES for who in ("ours", "common")))
    names = list(tables["magnitude_ranking", 0.5]["by_name"])
    rows = [
        (name, *(_count(tables[m, 0.5]["by_name"][name][who]) for m in METHOD_NAMES for who in ("ours", "common")))
        for name in names
    ]
    titles = {
        "null": "**all without a ticket**",
        "null, real gradients": "**of these, with real gradients**",
        "emergence": "**all with one**",
    }
    for kind, title in titles.items():
        cells = (_rate(tables[m, 0.5][kind][who]) for m in METHOD_NAMES for who in ("ours", "common"))
        rows.append((title, *cells))
    all_ours = [table["null"]["ours"] for table in tables.values()]
    found = [table["emergence"]["ours"] for table in tables.values()]
    note = (
        f"Called converged, of the runs of each kind, at sparsity 0.5; the last rows with exact 95 % intervals. Over "
        f"both methods and sparsities 0.5 and 0.9, at most {max(rate['num_converged'] for rate in all_ours)} of "
        f"{all_ours[0]['num_runs']} trainings without one fool our rule, and at least "
        f"{min(rate['num_converged'] for rate in found)} of {found[0]['num_runs']} with one are found."
    )
    return f"{make_table(heads, *rows)}\n\n{note}"


def tabulate_probe() -> str:
    """What a check with a probe costs, of 100 steps of training."""
    columns: Columns = {
        "network": lambda row: row["name"],
        "batch": lambda row: str(row["batch_size"]),
        "probe": lambda row: str(row["num_samples"]),
        "100 steps, s": lambda row: f"{row['training_seconds']:.2f}",
        "check, %": lambda row: f"{100 * row['check_over_training']:.1f}",
        "of it the probe, %": lambda row: f"{100 * row['probe_over_training']:.1f}",
        "floor, %": lambda row: f"{100 * row['floor_over_training']:.1f}",
        "check that decides, %": lambda row: f"{100 * row['deciding_check_over_training']:.1f}",
        "with all parts put back, %": lambda row: f"{100 * row['worst_check_over_training']:.1f}",
        "start, %": lambda row: f"{100 * row['start_over_training']:.1f}",
    }
    figures = read_results("early_bird_probe")
    watches = " and ".join(
        f"{100 * watch['with_start_over_training']:.0f} % of {watch['num_steps']:,} steps on batches of "
        f"{watch['batch_size']}"
        for watch in figures["watches"]
    )
    note = (
        "All together, to watch LeNet-300-100 on Fashion-MNIST until its ticket has converged, start and what was put "
        f"back included, takes {watches}."
    )
    return f"{tabulate(figures['rows'], columns)}\n\n{note}"


def _count(verdicts: Mapping[str, int]) -> str:
    return f"{verdicts.get('converged', 0)} of {sum(verdicts.values())}"


def _rate(rate: Mapping[str, Any]) -> str:
    interval = f"[{100 * rate['low']:.1f}, {100 * rate['high']:.1f}] %"
    return f"{rate['num_converged']} of {rate['num_runs']}, {interval}"


def tabulate_emergence() -> str:
    """After which share of training each criterion says converged."""
    rows = []
    for name, title in STUDIES.items():
        figures = read_results(f"early-bird-{name}")
        for row in figures["summaries"]["emergences"]:
            num, share = figures["study"]["num_replicates"], show_interval(row["share_of_training"], form=".1f")
            cells = (f"{100 * row['sparsity']:.0f} %", f"{row['num_converged']} of {num}", share)
            rows.append((title, METHOD_NAMES[row["method"]], *cells))
    return make_table(("network", "criterion", "sparsity", "converged", "after % of training"), *rows)


def tabulate_accuracy() -> str:
    """Accuracies of retrained tickets and controls, with their distance from dense and from the shuffled mask."""
    rows = []
    notes = []
    for name, title in STUDIES.items():
        figures = read_results(f"early-bird-{name}")
        study = figures["study"]
        notes.append(
            f"{title}: {study['num_steps']:,} steps of {study['batch_size']} images at learning rate "
            f"{study['learning_rate']:g}, a check every {study['check_steps']}, {study['num_replicates']} replicates, "
            f"tested on {study.get('num_tested', 10_000):,} images; dense "
            f"{format_interval(figures['summaries']['dense'])} %. "
            f"{figures['note']}".rstrip()
        )
        for row in figures["summaries"]["accuracies"]:
            cells = (
                format_interval(row["accuracy"]),
                *(
                    format_interval(row[f"minus_{other}"], form="+.2f") if row["branch"] != other else ""
                    for other in ("dense", "end", "shuffled")
                ),
            )
            rows.append((title, f"{100 * row['sparsity']:.0f} %", BRANCH_NAMES[row["branch"]], *cells))
    heads = ("network", "sparsity", "branch", "accuracy, %", "minus dense", "minus the end's", "minus shuffled")
    return "\n\n".join([make_table(heads, *rows), "\n".join(f"- {note}" for note in notes)])


def tabulate_spacing() -> str:
    """Distance of the early ticket from that of the end, by the spacing of checks."""
    columns: Columns = {
        "checks": lambda row: row["check_steps"],
        "converged": lambda row: f"{row['num_converged']} of {row['num_runs']}",
        "after % of training": lambda row: show_interval(row.get("share_of_training"), form=".1f"),
        "distance to the end's, of chance": lambda row: show_interval(row.get("corrected_distance_to_end"), scale=1.0),
    }
    return tabulate(read_results("early_bird_spacing")["spacings"], columns)


def tabulate_language() -> str:
    """Verdicts on language models."""
    figures = read_results("early_bird_language")
    runs = [{**run, "last": run["checks"][-1]} for run in [*figures["scratch"], *figures["finetune"]]]
    columns: Columns = {
        "training": lambda run: run["name"],
        "seed": lambda run: str(run["replicate"]),
        "verdict": lambda run: run["verdict"],
        "at step": lambda run: show(run["step"], ".0f"),
        "common rule": lambda run: run["common_verdict"],
        "mask moved, of chance": lambda run: show(run["last"]["corrected_start_distance"], ".3f"),
        "weights moved, %": lambda run: show(run["last"]["share_moved"], ".1f", scale=100),
        "loss": lambda run: (
            "" if run["last"]["loss"] is None else f"{run['last']['start_loss']:.2f} to {run['last']['loss']:.2f}"
        ),
    }
    return tabulate(runs, columns)


def tabulate_optimizers() -> str:
    """Overlaps of the tickets of two optimizers."""
    rows = []
    for name, study in read_results("early_bird_optimizers")["studies"].items():
        for row in study["overlaps"]:
            cells = (
                format_interval(row["raw"], form=".1f"),
                f"{100 * row['raw_chance']['mean']:.1f}",
                format_interval(row["kept"], form=".1f"),
                f"{100 * row['kept_chance']['mean']:.1f}",
                format_interval(row["corrected"], scale=1.0),
            )
            rows.append((name, row["pair"], f"{100 * row['sparsity']:.0f} %", *cells))
    heads = ("network", "tickets of", "sparsity", "agree, %", "chance", "kept by both, %", "chance", "beyond chance")
    return make_table(heads, *rows)


def tabulate_memory() -> str:
    """Bytes a parameter of one training step."""
    figures = read_results("training_memory")
    ours = figures["trainings"]["ours"]["peak_bytes"]
    rows = []
    for name, training in figures["trainings"].items():
        parts = ("weight", "gradient", "optimizer", "peak")
        cells = (f"{training[f'{part}_bytes_per_parameter']:.2f}" for part in parts)
        over = f"{training['gradients_and_state_over_largest_parameter']:.2f}"
        rows.append((name, *cells, over, f"{training['peak_bytes'] / ours:.2f}"))
    heads = ("trainer", "weights", "gradients at once", "optimizer state", "peak of all tensors")
    return make_table((*heads, "gradients and state over the largest layer", "peak over ours"), *rows)


def tabulate_ranking() -> str:
    """Time and error of Spearman's correlation beside scipy."""
    columns: Columns = {
        "weights": lambda row: f"{row['num_weights'] / 1e6:.0f} M {row['dtype'].removeprefix('torch.')}",
        "scipy, s": lambda row: f"{min(row['scipy_seconds']):.1f}",
        "two snapshots and correlation, ms": lambda row: (
            f"{1000 * row['timings_after_the_last']['ours']['median_seconds']:.0f}"
        ),
        "scipy / ours (goal 50)": lambda row: f"{row['scipy_over_ours']:.0f}",
        "ours / one read of both": lambda row: f"{row['ours_over_read_both']:.1f}",
        "difference": lambda row: f"{row['error']:.0e}",
    }
    return tabulate(read_results("ranking")["compared"], columns)


def tell_check() -> str:
    """What a check costs beside a step."""
    figures = read_results("early_bird_check")
    seconds = {name: sorted(values)[len(values) // 2] for name, values in figures["seconds"].items()}
    ratio, reads = figures["check_over_step"], figures["check_over_two_reads"]
    return (
        f"A check of a model of {figures['num_parameters'] / 1e6:.0f} M parameters takes {seconds['check']:.2f} s, a "
        f"training step of it at {figures['batch'][0]} x {figures['batch'][1]} tokens {seconds['step']:.1f} s: "
        f"{ratio['median']:.3f} of a step ({ratio['least']:.3f} to {ratio['most']:.3f}), and {reads['median']:.0f} "
        "times reading weights and starting weights once."
    )


TABLES: Tables = {
    "early-bird-verdicts": tabulate_verdicts,
    "early-bird-probe": tabulate_probe,
    "early-bird-emergence": tabulate_emergence,
    "early-bird-accuracy": tabulate_accuracy,
    "early-bird-spacing": tabulate_spacing,
    "early-bird-language": tabulate_language,
    "early-bird-optimizers": tabulate_optimizers,
    "early-bird-memory": tabulate_memory,
    "early-bird-ranking": tabulate_ranking,
    "early-bird-check": tell_check,
}
