"""The promise: every name, argument, default and result key that users rely on, of the parts that exist."""

import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import lottery_tickets
from lottery_tickets import Mask, compute_iterative_magnitude_pruning, compute_layerwise_magnitude_ticket
from statistical_report_generator import ReportConfig, StatisticalReportGenerator
from unified_model_analysis import UnifiedConfig, UnifiedModelAnalyzer

REQUIRED = inspect.Parameter.empty

# For each public function its promised arguments with their defaults. Further arguments must be keyword-only.
ARGUMENTS: dict[str, dict[str, Any]] = {
    "create_magnitude_mask": {"model": REQUIRED, "sparsity": REQUIRED, "scope": "global", "within": None},
    "create_random_mask": {"model_or_mask": REQUIRED, "sparsity": REQUIRED, "seed": REQUIRED},
    "shuffle_mask": {"mask": REQUIRED, "seed": REQUIRED},
    "compute_layerwise_magnitude_ticket": {"model": REQUIRED, "target_sparsity": 0.9, "use_global_ranking": True},
    "apply_mask": {"model": REQUIRED, "mask": REQUIRED},
    "remove_mask": {"model": REQUIRED},
    "compute_sparsity": {"model_or_mask": REQUIRED},
    "masked": {"model": REQUIRED, "mask": REQUIRED},
    "hold_mask": {"model": REQUIRED, "mask": REQUIRED},
    "check_held": {"model": REQUIRED},
    "compute_magnitude_importance": {"model": REQUIRED},
    "compute_gradient_importance": {"model": REQUIRED, "dataloader": REQUIRED, "num_samples": 1000},
    "compute_taylor_importance": {"model": REQUIRED, "dataloader": REQUIRED, "num_samples": 1000},
    "compute_fisher_importance": {
        "model": REQUIRED,
        "dataloader": REQUIRED,
        "num_samples": 1000,
        "chunk_size": None,
        "use_mixed_precision": True,
        "gradient_clip": None,
    },
    "compute_hybrid_importance": {"model": REQUIRED, "dataloader": REQUIRED, "weights": None},
    "create_importance_mask": {"importance": REQUIRED, "sparsity": REQUIRED},
    "compute_early_bird_tickets": {
        "model": REQUIRED,
        "dataloader": REQUIRED,
        "trainer_fn": None,
        "max_epochs": 50,
        "check_interval": 5,
        "target_sparsity": 0.5,
        "convergence_threshold": 0.95,
        "stability_window": 3,
        "use_magnitude_ranking": True,
        "max_batch_size": None,
        "learning_rate": 1e-4,
        "use_sgd": True,
    },
    "compute_lottery_ticket_quality": {"model": REQUIRED, "mask": REQUIRED, "dataloader": REQUIRED},
    "compute_pruning_robustness": {"model": REQUIRED, "batch": REQUIRED, "sparsity_levels": None},
    "compute_ticket_overlap": {"mask1": REQUIRED, "mask2": REQUIRED, "method": "jaccard"},
    "compute_change_mask": {"before": REQUIRED, "after": REQUIRED},
    "validate_pruning_correctness": {
        "model": REQUIRED,
        "mask": REQUIRED,
        "dataloader": REQUIRED,
        "original_performance": None,
    },
    "recommend_settings": {"model_or_num_params": REQUIRED, "gpu_memory_gb": None},
    "detect_early_bird_convergence": {"checkpoints": REQUIRED},
    "compute_loss_landscape": {"model": REQUIRED, "dataloader": REQUIRED, "grid_points": 25},
    "compute_linear_connectivity": {"model": REQUIRED, "dataloader": REQUIRED, "first": None, "second": None},
    "find_stable_rewinding_step": {"measure_instability": REQUIRED, "last_step": REQUIRED},
    "compute_histogram_quantile": {"tensor": REQUIRED, "q": REQUIRED, "bins": 1000},
    "ensure_deterministic_pruning": {"seed": 42},
    "save_results": {"results": REQUIRED, "path": REQUIRED},
    "load_results": {"path": REQUIRED},
    "save_ticket": {"path": REQUIRED, "mask": REQUIRED, "model_or_state": REQUIRED},
    "load_ticket": {"path": REQUIRED},
    "use_ticket": {"model": REQUIRED, "path": REQUIRED},
}


@pytest.mark.parametrize("name", ARGUMENTS)
def test_arguments_and_defaults(name: str) -> None:
    assert name in lottery_tickets.__all__
    parameters = inspect.signature(getattr(lottery_tickets, name)).parameters
    promised = ARGUMENTS[name]
    assert {n: parameters[n].default for n in promised} == promised
    further = [p for n, p in parameters.items() if n not in promised]
    by_place = {"num_samples", "rule"}  # of the hybrid score, as of the others; of early-bird detection
    assert [p.name for p in further if p.kind is not inspect.Parameter.KEYWORD_ONLY and p.name not in by_place] == []


def test_iterative_magnitude_pruning_takes_model_and_dataloader_by_position() -> None:
    parameters = inspect.signature(compute_iterative_magnitude_pruning).parameters
    assert list(parameters)[:3] == ["model", "dataloader", "target_sparsity"]
    assert {"trainer_fn", "train"} <= parameters.keys()


def test_every_function_that_takes_weights_takes_include_and_exclude() -> None:
    for name in ("create_magnitude_mask", "compute_layerwise_magnitude_ticket", "compute_iterative_magnitude_pruning",
                 "compute_sparsity", "create_random_mask"):  # fmt: skip
        parameters = inspect.signature(getattr(lottery_tickets, name)).parameters
        assert {"include", "exclude"} <= parameters.keys(), name


def test_mask_has_what_is_promised(tmp_path: Path) -> None:
    mask = Mask.from_tensors({"weight": torch.eye(4)})
    for name in ("sparsity", "density", "num_kept", "nbytes"):
        assert isinstance(getattr(mask, name), int | float)
    assert mask.layer_sparsity() == {"weight": 0.75}
    assert (mask & mask) == mask == (mask | mask) == ~~mask
    mask.save(tmp_path / "mask.safetensors")
    assert Mask.load(tmp_path / "mask.safetensors") == mask


def test_keys_of_the_layerwise_ticket() -> None:
    ticket = compute_layerwise_magnitude_ticket(nn.Linear(4, 4))
    assert {"mask", "actual_sparsity", "layer_sparsities", "thresholds", "collapsed_layers"} <= ticket.keys()


def test_a_simulation_says_so() -> None:
    data = [(torch.randn(4, 4), torch.randint(2, (4,)))]
    with pytest.warns(UserWarning, match="this is a simulation"):
        results = compute_iterative_magnitude_pruning(nn.Linear(4, 2), data, target_sparsity=0.5)
    assert results["simulated"] is True


@pytest.mark.parametrize("scope", ["global", "layer", "row", "erk", "lamp", "2:4"])
def test_every_promised_scope_exists(scope: str) -> None:
    mask = lottery_tickets.create_magnitude_mask(nn.Linear(8, 8), 0.5, scope=scope)
    assert mask.num_kept == 32


def test_importance_is_a_dict_of_float32_tensors_in_the_parameters_shapes() -> None:
    model, data = nn.Linear(4, 2), [(torch.randn(4, 4), torch.randint(2, (4,)))]
    weights = {"magnitude": 0.5, "fisher": 0.3, "taylor": 0.2}
    for scores in (
        lottery_tickets.compute_magnitude_importance(model),
        lottery_tickets.compute_gradient_importance(model, data, num_samples=4),
        lottery_tickets.compute_taylor_importance(model, data, num_samples=4),
        lottery_tickets.compute_fisher_importance(model, data, 4, None, True, 1.0),
        lottery_tickets.compute_hybrid_importance(model, data, weights=weights),
    ):
        assert isinstance(scores, dict)
        assert {name: (s.dtype, s.shape) for name, s in scores.items()} == {"weight": (torch.float32, (2, 4))}


@pytest.mark.parametrize("score", ["fisher", "gradient", "taylor", "hybrid", "snip", "grasp", "wanda"])
def test_scores_on_data_take_include_and_exclude(score: str) -> None:
    parameters = inspect.signature(getattr(lottery_tickets, f"compute_{score}_importance")).parameters
    assert {"include", "exclude", "loss_fn", "seed", "progress"} <= parameters.keys()


def test_no_public_function_hides_its_options() -> None:
    functions = [getattr(lottery_tickets, name) for name in lottery_tickets.__all__]
    kinds = {
        function.__name__: {parameter.kind for parameter in inspect.signature(function).parameters.values()}
        for function in functions
        if inspect.isfunction(function)
    }
    assert [name for name, found in kinds.items() if inspect.Parameter.VAR_KEYWORD in found] == []


def test_keys_of_what_measures_a_ticket() -> None:
    model, data = nn.Linear(8, 4), [(torch.randn(16, 8), torch.randint(4, (16,)))]
    mask = lottery_tickets.create_magnitude_mask(model, 0.5)
    quality = lottery_tickets.compute_lottery_ticket_quality(model, mask, data)
    assert {"performance_retention", "metric", "baseline_performance", "ticket_performance"} <= quality.keys()
    assert {"baseline_loss", "ticket_loss", "sparsity", "retrained"} <= quality.keys()
    robustness = lottery_tickets.compute_pruning_robustness(model, data[0], [0.5])
    assert {"baseline_loss", "sparsity_curves", "robustness_metrics", "masks"} <= robustness.keys()
    assert set(robustness["sparsity_curves"]) == {"magnitude", "random"}
    figures = {"winning_ticket_score", "optimal_sparsity", "critical_sparsity"}
    assert figures <= robustness["robustness_metrics"].keys()
    for method in ("jaccard", "dice", "overlap"):
        overlap = lottery_tickets.compute_ticket_overlap(mask, mask, method)
        assert {"overall_overlap", "layer_overlaps", "expected_overlap", "adjusted_overlap"} <= overlap.keys()
        assert (f"{overlap:.2%}", float(overlap)) == ("100.00%", 1.0)
    report = lottery_tickets.validate_pruning_correctness(model, mask, data, 0.5)
    assert isinstance(report["valid"], bool)
    settings = lottery_tickets.recommend_settings(model)
    assert {"batch_size", "fisher_samples", "chunk_size", "grid_points", "optimizer"} <= settings.keys()


def test_the_analyzer_and_the_report_generator_are_as_promised(tmp_path: Path) -> None:
    config = UnifiedConfig()
    config.generate_report, config.report_style = False, "technical"
    config.output_dir, config.analyses, config.progress = tmp_path / "analysis", ["ticket"], False
    data = [(torch.randn(8, 4), torch.arange(8) % 2)]
    found = UnifiedModelAnalyzer(config).analyze(nn.Linear(4, 2), data)
    assert found["analyses"][0]["status"] == "finished"
    generator = StatisticalReportGenerator(
        ReportConfig(output_dir=tmp_path / "reports", experiment_type="lottery_ticket_analysis")
    )
    generator.add_results(tmp_path / "analysis" / "ticket.json")
    generator.add_results(found["results"]["ticket"], name="a dict")
    pdf = generator.generate_report("name")
    assert pdf == tmp_path / "reports" / "name.pdf"
    assert pdf.with_suffix(".html").exists()
