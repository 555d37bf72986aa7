"""Whatever says how sparse a mask is says what is left, where the costs of the network are in the report."""

import copy
from typing import Any

import pytest
import torch
from torch import nn

import lottery_tickets as lt
from statistical_report_generator import StatisticalReportGenerator
from statistical_report_generator.document import Table
from tests.statistical_report_generator.every_kind import COSTS, KINDS, LAYERS

HEADINGS = ("parameters", "bytes, packed", "FLOPs of a step, zeros skipped")
# Half of 80 and of 24 weights, with 8 biases; 320 + 32 + 96 bytes less half, with 10 + 3 for the bits.
HALF = {"fc1.weight": 0.5, "fc2.weight": 0.5}
LEFT_BY_HALF = ["60", "253", "232"]


def list_tables(*results: Any) -> list[Table]:  # noqa: ANN401 - results of any kind
    generator = StatisticalReportGenerator()
    for number, one in enumerate(results):
        generator.add_results(one, str(number))
    return generator.describe().list_tables()


def find_added(*results: Any) -> list[Table]:  # noqa: ANN401 - as above
    return [table for table in list_tables(*results) if set(HEADINGS) <= set(table.headings)]


def make_sparse(kind: str) -> dict[str, Any]:
    """Returns results of a kind, all of whose masks remove half of each layer of the network that costs are of."""
    results = copy.deepcopy(KINDS[kind])
    match kind:
        case "robustness":
            for points in results["sparsity_curves"].values():
                points[:] = [{**point, "layer_sparsities": HALF} for point in points]
        case "strategies":
            results["rows"] = [{**row, "layer_sparsities": HALF} for row in results["rows"]]
        case "overlap-matrix":
            results["layer_sparsities"] = [HALF] * len(results["names"])
        case "experiment":
            layers = {"fc1.weight": (80, 40), "fc2.weight": (24, 12)}
            for row in results["trainings"]:
                row["layers"] = {name: {"num_weights": all_, "num_kept": kept} for name, (all_, kept) in layers.items()}
        case "quality":
            results["layer_sparsities"] = HALF
    return results


@pytest.mark.parametrize("kind", ["robustness", "strategies", "overlap-matrix", "experiment", "quality"])
def test_tables_of_masks_say_what_is_left_of_the_network(kind: str) -> None:
    [table] = find_added(make_sparse(kind), COSTS)
    cells = [list(row[-3:]) for row in table.rows]
    first = 1 if kind in {"experiment", "quality"} else 0  # the dense network
    assert cells[first:] == [LEFT_BY_HALF] * (len(cells) - first)
    assert cells[:first] == [["112", "448", "464"]] * first
    assert "464 FLOPs, and PyTorch, which skips no zeros, computes them all" in table.caption


@pytest.mark.parametrize("kind", ["ticket", "importance"])
def test_tables_of_layers_say_what_is_left_of_each(kind: str) -> None:
    results = copy.deepcopy(KINDS[kind])
    results["layer_sparsities"] = LAYERS
    if kind == "ticket":
        results |= {"collapsed_layers": [], "thresholds": dict.fromkeys(LAYERS, 0.5)}
    [table] = find_added(results, COSTS)
    assert {row[0]: row[-3:] for row in table.rows} == {
        "fc1.weight": ("20", "90", "80"),
        "fc2.weight": ("18", "75", "108"),
    }


@pytest.mark.parametrize("kind", ["robustness", "strategies", "overlap-matrix", "experiment", "quality", "ticket"])
def test_without_the_costs_of_this_network_nothing_is_added(kind: str) -> None:
    results = make_sparse(kind)
    other = {**COSTS, "weights": {f"other.{name}": cost for name, cost in COSTS["weights"].items()}}
    plain = list_tables(results)
    for others in ((), (other,), (COSTS, {**COSTS, "num_samples": 2})):
        assert [table.rows for table in list_tables(results, *others)][: len(plain) - 1] == [
            table.rows for table in plain
        ][:-1], "of other networks, or of two, nobody knows which"
        assert find_added(results, *others) == []


def test_what_the_mask_does_not_say_is_left_empty() -> None:
    results = make_sparse("strategies")
    del results["rows"][1]["layer_sparsities"]
    [table] = find_added(results, COSTS)
    assert [row[-3:] == ("", "", "") for row in table.rows] == [False, True, False, False]


def test_columns_are_what_compute_costs_says_of_the_mask() -> None:
    """The law that both ends of the file keep: a mask by layer and a mask by weight cost the same."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(3 * 16, 4))
    batch = torch.randn(5, 1, 6, 6), torch.arange(5) % 4
    masks = {str(share): lt.create_magnitude_mask(model, share) for share in (0.25, 0.5, 0.9)}
    matrix = lt.compute_overlap_matrix(masks)
    [table] = find_added(matrix, lt.compute_costs(model, batch))
    for row, mask in zip(table.rows, masks.values(), strict=True):
        masked = lt.compute_costs(model, batch, mask)["masked"]
        figures = [int(cell.replace(",", "")) for cell in row[-3:]]
        assert figures[:2] == [masked["parameters"], masked["disk_bytes"]]
        assert figures[2] == pytest.approx(masked["step_flops"], abs=2), "each layer is rounded for itself"
