"""`lottery-tickets evaluate` and `compare`: masks on networks, tickets trained again, masks beside each other."""

from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import nn

from lottery_tickets import (
    CheckpointWeights,
    Mask,
    apply_mask,
    compute_costs,
    compute_ticket_overlap,
    create_magnitude_mask,
    load_results,
    shuffle_mask,
)
from lottery_tickets._core.measuring.evaluating import evaluate_tensors
from lottery_tickets.workloads import Workload
from tests.models import load_digits, save_tiny_llama
from tests.unified_model_analysis.test_cli import Output, refuse
from unified_model_analysis.cli import main


@pytest.fixture(scope="module")
def workload() -> Workload:
    return load_digits()


@pytest.fixture(scope="module")
def trained(workload: Workload, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with starting and trained weights, and a mask of 80 %."""
    folder = tmp_path_factory.mktemp("trained")
    network = workload.build_model(torch.Generator().manual_seed(0))
    safetensors.torch.save_file(network.state_dict(), folder / "start.safetensors")
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(workload.data.train_inputs), workload.data.train_targets).backward()
        optimizer.step()
    safetensors.torch.save_file(network.state_dict(), folder / "trained.safetensors")
    create_magnitude_mask(network, 0.8, scope="layer").save(folder / "mask.safetensors")
    return folder


def evaluate(folder: Path, *options: object) -> dict[str, Any]:
    assert main(["evaluate", "--output", str(folder / "results.json"), *map(str, options)]) == 0
    return load_results(folder / "results.json")


def test_a_mask_is_measured_and_validated(trained: Path, workload: Workload, tmp_path: Path, capsys: Output) -> None:
    results = evaluate(
        tmp_path, "--mask", trained / "mask.safetensors", "--checkpoint", trained / "trained.safetensors",
        "--sparsities", 0.5, 0.9,
    )  # fmt: skip
    shown = capsys.readouterr().out
    network = workload.build_model(torch.Generator())
    network.load_state_dict(safetensors.torch.load_file(trained / "trained.safetensors"))
    test = workload.data.test_inputs, workload.data.test_targets
    _, before = evaluate_tensors(network, *test)
    apply_mask(network, Mask.load(trained / "mask.safetensors"))
    _, after = evaluate_tensors(network, *test)
    quality = results["quality"]
    assert (quality["baseline_performance"], quality["ticket_performance"]) == (before, after)
    assert quality["retrained"] is None
    assert f"post-hoc (not retrained) at sparsity 80.00%: accuracy {before:.4g} -> {after:.4g}" in shown
    assert all(results["validation"][name]["passed"] for name in ("shapes", "binary", "zeros", "unchanged"))
    assert [point["sparsity"] for point in results["robustness"]["sparsity_curves"]["random"]] == [0.5, 0.9]
    assert "robustness of the network as it is (post-hoc), retention of accuracy:" in shown
    assert "claims" not in results
    assert "winning" not in shown
    assert "mean gain over random masks (nothing trained): " in shown
    assert "winning_ticket_score" in results["robustness"]["robustness_metrics"]


def test_costs_are_told_and_stand_beside_sparsities_in_a_report(trained: Path, tmp_path: Path, capsys: Output) -> None:
    given = ("--mask", trained / "mask.safetensors", "--checkpoint", trained / "trained.safetensors", "--costs")
    results = evaluate(tmp_path, *given, "--sparsities", 0.5, "--batch-size", 60)
    network = load_digits().build_model(torch.Generator())
    batch = torch.zeros(60, 1, 8, 8), torch.zeros(60, dtype=torch.int64)
    costs = compute_costs(network, batch, Mask.load(trained / "mask.safetensors"))
    assert results["costs"] == costs
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    figures = [f"{costs[form]['step_flops']:,}" for form in ("dense", "masked", "shrunk")]
    assert ["FLOPs", "of", "a", "training", "step", *figures] in lines
    assert main(["report", str(tmp_path / "results.json"), "--output", str(tmp_path / "out")]) == 0
    tables = (tmp_path / "out" / "report-files").glob("*.csv")
    cells = {table.stem.partition("-")[2]: table.read_text() for table in tables}
    half = costs["dense"]["step_flops"] // 2
    assert f'"{half:,}"' in cells["sparsities"], "the weights that are multiplied by are all pruned by half"
    assert f"{costs['masked']['parameters']:,}" in cells["quality"]


def test_a_dense_network_is_measured_alone(trained: Path, workload: Workload, tmp_path: Path, capsys: Output) -> None:
    results = evaluate(tmp_path, "--checkpoint", trained / "trained.safetensors", "--no-robustness")
    network = workload.build_model(torch.Generator())
    network.load_state_dict(safetensors.torch.load_file(trained / "trained.safetensors"))
    loss, accuracy = evaluate_tensors(network, workload.data.test_inputs, workload.data.test_targets)
    found = results["performance"]
    assert (found["metric"], found["performance"], found["num_predictions"]) == ("accuracy", accuracy, 539)
    assert found["loss"] == pytest.approx(loss)
    said = f"dense, without a mask: accuracy {accuracy:.4g}, loss {found['loss']:.4g}, over 539 predictions"
    assert capsys.readouterr().out.splitlines()[0] == said
    assert not {"quality", "validation", "robustness"} & results.keys()
    words = ["report", str(tmp_path / "results.json"), "--output", str(tmp_path / "reports")]
    assert main(words) == 0
    apply_mask(network, create_magnitude_mask(network, 0.5))
    safetensors.torch.save_file(network.state_dict(), tmp_path / "pruned.safetensors")
    evaluate(tmp_path, "--checkpoint", tmp_path / "pruned.safetensors", "--no-robustness", "--force")
    assert "with 50.0% zeros among its prunable weights, without a mask: accuracy " in capsys.readouterr().out
    assert "As it is, the network has accuracy" in (tmp_path / "reports" / "report.html").read_text(encoding="utf-8")


def test_a_ticket_is_trained_again_beside_its_controls(trained: Path, tmp_path: Path, capsys: Output) -> None:
    results = evaluate(
        tmp_path, "--mask", trained / "mask.safetensors", "--checkpoint", trained / "trained.safetensors",
        "--start", trained / "start.safetensors", "--steps", 30, "--replicates", 2, "--no-robustness",
    )  # fmt: skip
    assert (results["quality"]["kind"], results["quality"]["retrained"]["kind"]) == (
        "post-hoc and retrained",
        "retrained",
    )
    rows = results["quality"]["retrained"]["trainings"]
    assert len(rows) == 2 * 5
    # Other data orders: the same branch does not end alike in both replicates.
    ends = [row["history"]["end"]["test_loss"] for row in rows if row["branch"] == "ticket" and row["level"] == 1]
    assert len(set(ends)) == 2
    shown = capsys.readouterr().out
    assert "trained again beside its controls:" in shown
    assert results["claims"]["findings"][0] in shown
    assert "robustness" not in results
    run = tmp_path / "results-trainings"
    assert main(["verify", str(run), "--re-evaluate"]) == 0
    capsys.readouterr()
    assert "made by lottery-tickets evaluate --start; go on with that" in refuse(["imp", "--output", str(run)], capsys)


def test_a_language_model_is_measured_on_text(tmp_path: Path, capsys: Output) -> None:
    folder = save_tiny_llama(tmp_path / "model")
    text = tmp_path / "text.txt"
    text.write_text("the union is strong " * 200, encoding="utf-8")
    results = evaluate(
        tmp_path, "--language-model", folder, "--text", text, "--num-tokens", 4, "--batches", 2, "--batch-size", 2,
        "--sparsities", 0.5,
    )  # fmt: skip
    assert results["robustness"]["metric"] == results["performance"]["metric"] == "perplexity"
    shown = capsys.readouterr().out
    assert "retention of perplexity" in shown
    assert f"dense, without a mask: perplexity {results['performance']['perplexity']:.4g}, loss " in shown


def test_a_streamed_language_model_has_the_figures_of_a_loaded_one(
    tmp_path: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save_tiny_llama(tmp_path / "model")
    text = tmp_path / "text.txt"
    text.write_text("the union is strong " * 200, encoding="utf-8")
    options = ("--language-model", folder, "--text", text, "--num-tokens", 4, "--batches", 2, "--no-robustness")
    loaded = evaluate(tmp_path, *options)
    streamed = evaluate(tmp_path, *options, "--stream", "--force")
    assert streamed["performance"] == loaded["performance"]
    assert "one layer at a time, in float32" in capsys.readouterr().err
    with monkeypatch.context() as patch:
        patch.setattr("unified_model_analysis.stored_weights.LARGEST_LOADED", 0.0)
        assert evaluate(tmp_path, *options, "--force")["performance"] == loaded["performance"]
    assert "one layer at a time, in float32" in capsys.readouterr().err
    mask = tmp_path / "a.mask"
    create_magnitude_mask(CheckpointWeights(folder), 0.5).save(mask)
    pruned = evaluate(tmp_path, *options, "--mask", mask, "--force")
    streamed = evaluate(tmp_path, *options, "--mask", mask, "--stream", "--force")
    assert streamed["quality"] == pruned["quality"]
    assert "post-hoc (not retrained) at sparsity 50.00%: perplexity" in capsys.readouterr().out


def test_what_evaluate_refuses(trained: Path, tmp_path: Path, capsys: Output) -> None:
    mask, weights = trained / "mask.safetensors", trained / "trained.safetensors"
    where = tmp_path / "results.json"
    assert "--checkpoint must name the trained weights" in refuse(["evaluate", "--output", str(where)], capsys)
    assert "name its folder by --language-model" in refuse(["evaluate", "--output", str(where), "--stream"], capsys)
    streamed = ["evaluate", "--output", str(where), "--stream", "--language-model", str(where), "--costs"]
    assert "--costs cannot be said of a language model that is run layer by layer" in refuse(streamed, capsys)
    assert "--start trains a ticket of a workload or of a network of --from again; give its --mask" in refuse(
        ["evaluate", "--output", str(where), "--checkpoint", str(weights), "--start", str(weights)], capsys
    )
    assert "must be a mask that Mask.save wrote" in refuse(
        ["evaluate", "--output", str(where), "--checkpoint", str(weights), "--mask", str(weights)], capsys
    )
    assert "device must be one that computes" in refuse(
        ["evaluate", "--output", str(where), "--checkpoint", str(weights), "--mask", str(mask), "--device", "meta"],
        capsys,
    )
    assert not where.exists()


def test_masks_are_compared_beside_chance(trained: Path, tmp_path: Path, capsys: Output) -> None:
    mask = Mask.load(trained / "mask.safetensors")
    paths = [tmp_path / name for name in ("a", "b", "c")]
    for path, one in zip(paths, (mask, mask, shuffle_mask(mask, 0)), strict=True):
        one.save(path)
    words = ["compare", *map(str, paths), "--layers", "--output", str(tmp_path / "out.json")]
    assert main(words) == 0
    shown = capsys.readouterr().out
    results = load_results(tmp_path / "out.json")
    found = compute_ticket_overlap(mask, Mask.load(paths[2]))
    assert results["matrix"]["overlaps"][0] == [1.0, 1.0, float(found)]
    assert f"{found['expected_overlap']:9.2%}" in shown
    assert [line.split()[-1] for line in shown.splitlines()[-4:-1]] == ["fc1.weight", "fc2.weight", "output.weight"]


def test_run_folders_are_compared_by_their_claims(tmp_path: Path, capsys: Output) -> None:
    run = tmp_path / "run"
    imp = ["imp", "--output", str(run), "--steps", "20", "--levels", "1", "--replicates", "2", "--workers", "1"]
    assert main([*imp, "--evaluate-every", "20"]) == 0
    capsys.readouterr()
    assert main(["compare", str(run), "--output", str(tmp_path / "claims.json")]) == 0
    shown = capsys.readouterr().out
    assert f"{run}:" in shown
    assert "the margin is 0.2 points" in shown
    assert len(load_results(tmp_path / "claims.json")[str(run)]["levels"]) == 1


def test_what_compare_refuses(trained: Path, tmp_path: Path, capsys: Output) -> None:
    mask = str(trained / "mask.safetensors")
    assert "there must be two masks or more" in refuse(["compare", mask], capsys)
    assert "each mask must be named once" in refuse(["compare", mask, mask], capsys)
    assert "there must be something to compare" in refuse(["compare"], capsys)
    assert "not both; name one kind" in refuse(["compare", mask, str(tmp_path)], capsys)
    assert f"{tmp_path / 'none'} must be a mask file or a run folder, but is not there" in refuse(
        ["compare", mask, str(tmp_path / "none")], capsys
    )
    assert "must be a run folder, but has no results.json" in refuse(["compare", str(tmp_path)], capsys)
