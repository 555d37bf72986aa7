"""The analyses that are there by themselves."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch

from lottery_tickets import (
    TrainerSettings,
    compare_pruning_strategies,
    compute_costs,
    compute_early_bird_tickets,
    compute_iterative_magnitude_pruning,
    compute_layerwise_magnitude_ticket,
    compute_loss_landscape,
    compute_lottery_ticket_quality,
    compute_overlap_matrix,
    compute_pruning_robustness,
    create_random_mask,
    reinitialise_,
)
from unified_model_analysis.registry import Analysis
from unified_model_analysis.subject import STRATEGIES, Subject

BACKWARD: Final = 3  # forward passes that a forward and a backward pass take
SCORING: Final = 1.4  # forward and backward passes that scores on data take, docs/which-score.md
NUM_SCORED: Final = 2  # of the strategies: those that need data
NUM_LEVELS: Final = 10  # that robustness looks at
NUM_TRAININGS: Final = 8  # about, of a replicate: levels of a fifth each, and three controls
NUM_REPLICATES: Final = 3  # of iterative pruning; the fewest with intervals
LARGE: Final = ("starting_weights", "final_rankings")  # as large as the model: not kept in the file


def _measure_robustness(subject: Subject, _: Path) -> Mapping[str, Any]:
    config = subject.config
    return compute_pruning_robustness(
        subject.model, subject.batches[0], loss_fn=config.loss_fn, seed=config.seed, progress=config.progress
    )


def _conclude_robustness(found: Mapping[str, Any]) -> str:
    metrics, curves = found["robustness_metrics"], found["sparsity_curves"]
    best, critical = metrics["optimal_sparsity"], metrics["critical_sparsity"]
    half = f"half is lost at {critical:.0%}" if critical is not None else "half is never lost"
    last = curves["magnitude"][-1]["sparsity"]
    kept = f"losing 5 % of the performance ({found['metric']})"
    return f"{best:.0%} of the weights can go without {kept}; {half} (looked up to {last:.0%})"


def _compare_strategies(subject: Subject, _: Path) -> Mapping[str, Any]:
    config = subject.config
    makers = {name: lambda name=name: subject.score(name) for name in STRATEGIES}
    return compare_pruning_strategies(
        subject.model,
        subject.batches,
        makers,
        sparsity_levels=list(config.sparsity_levels),
        loss_fn=config.loss_fn,
        seed=config.seed,
        progress=config.progress,
    )


def _conclude_strategies(found: Mapping[str, Any]) -> str:
    rows = [row for row in found["rows"] if row["retention"] is not None]
    if not rows:
        return "no share of the performance can be told"
    levels = sorted({row["sparsity"] for row in rows})
    middle = levels[len(levels) // 2]
    there = sorted((row for row in rows if row["sparsity"] == middle), key=lambda row: -row["retention"])
    shown = ", ".join(f"{row['strategy']} {row['retention']:.0%}" for row in there)
    return f"at sparsity {middle:.0%}, not retrained, of the performance ({found['metric']}) are left: {shown}"


def _score_saliency(subject: Subject, _: Path) -> Mapping[str, Any]:
    mask = subject.draw_mask("saliency")
    return {
        "importance": subject.score("saliency"),
        "sparsity": subject.settings["target_sparsity"],
        "scope": "global",
        "layer_sparsities": mask.layer_sparsity(),
    }


def _conclude_saliency(found: Mapping[str, Any]) -> str:
    shares = found["layer_sparsities"]
    low, high = min(shares, key=shares.__getitem__), max(shares, key=shares.__getitem__)
    return (
        f"at sparsity {found['sparsity']:.0%} {low} loses least, {shares[low]:.1%}, and {high} most, {shares[high]:.1%}"
    )


def _draw_ticket(subject: Subject, _: Path) -> Mapping[str, Any]:
    return compute_layerwise_magnitude_ticket(subject.model, subject.settings["target_sparsity"])


def _conclude_ticket(found: Mapping[str, Any]) -> str:
    collapsed = found["collapsed_layers"]
    empty = f"{len(collapsed)} layers keep nothing: {', '.join(collapsed[:3])}" if collapsed else "no layer is emptied"
    return f"{found['actual_sparsity']:.2%} of the weights are removed by magnitude; {empty}"


def _measure_quality(subject: Subject, _: Path) -> Mapping[str, Any]:
    config = subject.config
    mask = subject.draw_mask("magnitude")
    return compute_lottery_ticket_quality(
        subject.model, mask, subject.batches, loss_fn=config.loss_fn, seed=config.seed
    )


def _conclude_quality(found: Mapping[str, Any]) -> str:
    kept, metric = found["performance_retention"], found["metric"]
    left = "no share can be told" if kept is None else f"{kept:.1%} of the performance ({metric}) is left"
    return f"pruned by magnitude to sparsity {found['sparsity']:.0%}, not retrained, {left}"


def _count_costs(subject: Subject, _: Path) -> Mapping[str, Any]:
    return compute_costs(
        subject.model, subject.batches[0], subject.draw_mask("magnitude"), loss_fn=subject.config.loss_fn
    )


def _conclude_costs(found: Mapping[str, Any]) -> str:
    dense, left = found["dense"], found["masked"]["step_flops"] / found["dense"]["step_flops"]
    return (
        f"{dense['parameters']:,} parameters; {dense['step_flops']:.3g} FLOPs a step over {found['num_samples']} "
        f"samples, of which the magnitude mask leaves {left:.0%}, though PyTorch computes all"
    )


def _compare_masks(subject: Subject, _: Path) -> Mapping[str, Any]:
    masks = {name: subject.draw_mask(name) for name in STRATEGIES}
    masks["random"] = create_random_mask(masks["magnitude"], subject.settings["target_sparsity"], subject.config.seed)
    return compute_overlap_matrix(masks)


def _conclude_masks(found: Mapping[str, Any]) -> str:
    names, adjusted = found["names"], found["adjusted"]
    pairs = [
        (adjusted[row][column], names[row], names[column])
        for row in range(len(names))
        for column in range(row)
        if adjusted[row][column] is not None
    ]
    if not pairs:
        return "chance alone explains all overlaps"
    value, second, first = max(pairs)
    return f"{first} and {second} agree most: {value:.0%} of what is left beyond chance"


def _measure_landscape(subject: Subject, folder: Path) -> Mapping[str, Any]:
    config = subject.config
    return compute_loss_landscape(
        subject.model,
        subject.batches[:1],
        subject.settings["grid_points"],
        loss_fn=config.loss_fn,
        seed=config.seed,
        path=folder / "landscape.points.json",
        progress=config.progress,
    )


def _conclude_landscape(found: Mapping[str, Any]) -> str:
    losses = [loss for row in found["losses"] for loss in row if loss is not None]
    centre = found["centre"]["loss"]
    if not losses or centre is None:
        return "no loss is finite"
    rises = [rise for rise in found["sharpness"] if rise["mean_rise"] is not None]
    rise = f"; at {rises[0]['radius']:.0%} of the span it rises by {rises[0]['mean_rise']:.3g}" if rises else ""
    return f"loss {centre:.4g} at the model, {min(losses):.4g} to {max(losses):.4g} around it{rise}"


def _search_early_bird(subject: Subject, folder: Path) -> Mapping[str, Any]:
    config, settings = subject.config, subject.settings
    found = compute_early_bird_tickets(
        subject.model,
        subject.dataloader,
        max_epochs=config.num_epochs,
        check_interval=1,
        target_sparsity=settings["target_sparsity"],
        training=TrainerSettings(
            settings["learning_rate"], settings["optimizer"] == "sgd", max_batch_size=settings["max_batch_size"]
        ),
        loss_fn=config.loss_fn,
        seed=config.seed,
        run_folder=folder / "early-bird.run",
        progress=config.progress,
    )
    return {name: value for name, value in found.items() if name not in LARGE}


def _conclude_early_bird(found: Mapping[str, Any]) -> str:
    return f"{found['verdict']}: {found['reason']}"


def _prune_iteratively(subject: Subject, folder: Path) -> Mapping[str, Any]:
    config, settings = subject.config, subject.settings
    rate: dict[str, Any] = {} if config.learning_rate is None else {"learning_rate": config.learning_rate}
    _draw_fresh_weights(subject)  # so that all replicates begin alike
    found = compute_iterative_magnitude_pruning(
        subject.model,
        subject.dataloader,
        settings["target_sparsity"],
        train=True,
        num_epochs=config.num_epochs,
        num_replicates=NUM_REPLICATES,
        loss_fn=config.loss_fn,
        initialise_fn=config.initialise_fn,
        seed=config.seed,
        run_folder=folder / "pruning.run",
        progress=config.progress,
        executor=config.executor,
        **rate,
    )
    return {name: value for name, value in found.items() if name not in {"masks", "rewind_state", "run_folder"}}


def _draw_fresh_weights(subject: Subject) -> None:
    config = subject.config
    if config.initialise_fn is None:
        reinitialise_(subject.model, config.seed)
        return
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        config.initialise_fn(subject.model)


def _conclude_pruning(found: Mapping[str, Any]) -> str:
    levels = max(row["level"] for row in found["trainings"])
    kept = min(row["density"] for row in found["trainings"])
    return f"{levels} rounds down to {kept:.1%} of the weights, beside their controls; the report says what they show"


def _count_training_passes(subject: Subject, trainings: float) -> float:
    length = getattr(subject.dataloader, "__len__", None)
    batches = length() if length is not None else len(subject.batches)
    return BACKWARD * trainings * subject.config.num_epochs * batches


ANALYSES: Final = (
    Analysis(
        "robustness",
        "how much pruning the weights bear, by magnitude and at random",
        _measure_robustness,
        lambda _: 1 + 2 * NUM_LEVELS,
        "robustness",
        _conclude_robustness,
    ),
    Analysis(
        "ticket",
        "what magnitude pruning removes, by layer",
        _draw_ticket,
        lambda _: 1,
        "ticket",
        _conclude_ticket,
    ),
    Analysis(
        "importance",
        "what removing each weight costs, to second order (Fisher saliency)",
        _score_saliency,
        lambda subject: SCORING * BACKWARD * subject.num_scoring_batches,
        "importance",
        _conclude_saliency,
    ),
    Analysis(
        "strategies",
        "performance pruned by several scores, beside random masks",
        _compare_strategies,
        lambda subject: (
            SCORING * BACKWARD * subject.num_scoring_batches
            + (len(STRATEGIES) + 1) * len(subject.config.sparsity_levels) * len(subject.batches)
        ),
        "strategies",
        _conclude_strategies,
    ),
    Analysis(
        "quality",
        "what the model is worth under its magnitude mask",
        _measure_quality,
        lambda subject: 2 * len(subject.batches),
        "quality",
        _conclude_quality,
    ),
    Analysis(
        "costs",
        "parameters, bytes and FLOPs, as the model is and under its magnitude mask",
        _count_costs,
        lambda _: BACKWARD,
        "costs",
        _conclude_costs,
    ),
    Analysis(
        "overlap",
        "whether scores agree on which weights to keep, beside chance",
        _compare_masks,
        lambda subject: 1 if subject.keeps_scores else NUM_SCORED * SCORING * BACKWARD * subject.num_scoring_batches,
        "overlap-matrix",
        _conclude_masks,
    ),
    Analysis(
        "landscape",
        "the loss around the model, on a plane of random directions",
        _measure_landscape,
        lambda subject: subject.settings["grid_points"] ** 2 + 1,
        "landscape",
        _conclude_landscape,
    ),
    Analysis(
        "early-bird",
        "when the ticket stands while the model trains on",
        _search_early_bird,
        lambda subject: _count_training_passes(subject, 1),
        "early-bird",
        _conclude_early_bird,
        trains=True,
    ),
    Analysis(
        "pruning",
        "iterative magnitude pruning from fresh weights, beside its controls",
        _prune_iteratively,
        lambda subject: _count_training_passes(subject, NUM_REPLICATES * NUM_TRAININGS),
        "experiment",
        _conclude_pruning,
        trains=True,
    ),
)
