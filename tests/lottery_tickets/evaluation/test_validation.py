import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lottery_tickets import (
    Mask,
    apply_mask,
    create_magnitude_mask,
    hold_mask,
    load_results,
    save_results,
    validate_pruning_correctness,
)
from lottery_tickets._core.measuring.performance import Measurement, measure
from tests.models import make_convolutions, make_language_model, make_mlp

CHECKS = (
    "shapes", "binary", "zeros", "unchanged", "no_dead_layer", "gradient_flow", "finite_outputs", "performance",
)  # fmt: skip
Pairs = list[tuple[Tensor, Tensor]]


def make_data() -> Pairs:
    return [(torch.randn(8, 5), torch.randint(3, (8,))) for _ in range(2)]


def prune(model: nn.Module) -> tuple[Mask, dict[str, Tensor]]:
    original = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    mask = create_magnitude_mask(model, 0.5, scope="layer")
    apply_mask(model, mask)
    return mask, original


def failed(report: dict[str, Any]) -> set[str]:
    return {name for name in CHECKS if report[name]["passed"] is False}


def unchecked(report: dict[str, Any]) -> set[str]:
    return {name for name in CHECKS if report[name]["passed"] is None}


def test_a_rightly_pruned_model_passes_every_check(tmp_path: Any) -> None:  # noqa: ANN401 - a path
    model, data = make_mlp(torch.float32), make_data()
    mask, original = prune(model)
    performance = measure(model, data, Measurement()).value
    report = validate_pruning_correctness(model, mask, data, performance, original_weights=original)
    assert report["valid"]
    assert set(report) == {"valid", "performs_well", "applied", *CHECKS}
    assert report["performs_well"]
    assert report["applied"]
    assert not failed(report)
    assert not unchecked(report)
    assert report["zeros"]["num_pruned"] == mask.num_weights - mask.num_kept
    assert report["finite_outputs"]["num_outputs"] == 2 * 8 * 3
    assert report["performance"]["retention"] == 1
    save_results(report, tmp_path / "report.json")
    assert load_results(tmp_path / "report.json") == report


def test_what_was_not_given_is_not_checked_and_says_why() -> None:
    model, data = make_mlp(torch.float32), make_data()
    mask, _ = prune(model)
    report = validate_pruning_correctness(model, mask, data, None)
    assert report["valid"]
    assert unchecked(report) == {"unchanged", "performance"}
    assert "pass original_weights" in report["unchanged"]["reason"]
    assert "pass original_performance" in report["performance"]["reason"]


def test_weights_that_came_back_are_counted_by_layer() -> None:
    model, data = make_mlp(torch.float32), make_data()
    mask, original = prune(model)
    with torch.no_grad():
        model.get_parameter("2.weight").add_(1.0)
    report = validate_pruning_correctness(model, mask, data, None, original_weights=original)
    assert not report["valid"]
    assert failed(report) == {"zeros", "unchanged"}
    num_pruned = int((~mask["2.weight"]).sum())
    assert report["zeros"]["num_nonzero"] == num_pruned
    assert report["zeros"]["layers"] == {"2.weight": num_pruned}
    assert report["unchanged"]["tensors"] == {"2.weight": int(mask["2.weight"].sum())}


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -0.0, 5e-324])
def test_a_pruned_weight_of_any_other_value_is_not_zero_and_minus_zero_is(value: float) -> None:
    model, data = make_mlp(), [(x.double(), y) for x, y in make_data()]
    mask, _ = prune(model)
    place = (~mask["0.weight"]).nonzero()[0]
    with torch.no_grad():
        model.get_parameter("0.weight")[tuple(place)] = value
    report = validate_pruning_correctness(model, mask, data, None)
    assert report["zeros"]["num_nonzero"] == (value != 0)


def test_changes_beside_the_mask_are_found_in_biases_and_buffers() -> None:
    model = make_convolutions()
    data = [(torch.randn(8, 2, 4, 4).double(), torch.randint(3, (8,)))]
    mask, original = prune(model)
    with torch.no_grad():
        model.get_buffer("1.running_mean")[1] += 1e-3
        model.get_parameter("4.bias")[0] = 7
    report = validate_pruning_correctness(model, mask, data, None, original_weights=original)
    assert failed(report) == {"unchanged"}
    assert report["unchanged"]["tensors"] == {"1.running_mean": 1, "4.bias": 1}
    report = validate_pruning_correctness(model, mask, data, None, original_weights={"other": torch.ones(1)})
    assert report["unchanged"]["missing"] == sorted(original)


def test_nan_where_nan_was_is_no_change_and_nan_where_it_was_not_is_one() -> None:
    model, data = make_mlp(torch.float32), make_data()
    model.register_buffer("unset", torch.tensor([torch.nan, 1.0]))
    mask, original = prune(model)
    report = validate_pruning_correctness(model, mask, data, None, original_weights=original)
    assert report["unchanged"]["passed"]
    model.get_buffer("unset")[1] = torch.nan
    report = validate_pruning_correctness(model, mask, data, None, original_weights=original)
    assert report["unchanged"]["tensors"] == {"unset": 1}


def test_dead_layers_and_outputs() -> None:
    model, data = make_mlp(torch.float32), make_data()
    mask = Mask.from_tensors(
        {
            "0.weight": torch.ones(7, 5),
            "2.weight": torch.zeros(6, 7),
            "4.weight": torch.tensor([[1.0] * 6, [0.0] * 6, [1.0, 0, 0, 0, 0, 0]]),
        }
    )
    apply_mask(model, mask)
    report = validate_pruning_correctness(model, mask, data, None)
    assert failed(report) == {"no_dead_layer", "gradient_flow"}
    assert report["no_dead_layer"]["dead_layers"] == ["2.weight"]
    assert report["no_dead_layer"]["dead_outputs"] == {"2.weight": 6, "4.weight": 1}
    # Nothing passes the dead layer: not to it, nor to what lies before it.
    assert report["gradient_flow"]["without_gradient"] == ["0.weight", "2.weight"]


def test_outputs_are_counted_where_a_layer_has_them() -> None:
    model = nn.Sequential(nn.ConvTranspose2d(3, 4, 1), nn.Flatten(), nn.Linear(4, 2))
    kept = torch.ones(3, 4, 1, 1)
    kept[:, 1] = 0  # an output of a transposed convolution, whose first dimension numbers the inputs
    mask = Mask.from_tensors({"0.weight": kept})
    apply_mask(model, mask)
    report = validate_pruning_correctness(model, mask, [(torch.randn(5, 3, 1, 1), torch.tensor([0, 1, 0, 1, 0]))], None)
    assert report["no_dead_layer"]["dead_outputs"] == {"0.weight": 1}


def test_gradients_are_those_of_the_kept_weights() -> None:
    model, data = make_mlp(), [(x.double(), y) for x, y in make_data()]
    mask, _ = prune(model)
    hold_mask(model, mask)  # its hooks must not be needed, nor called
    twin = copy.deepcopy(make_mlp())
    twin.load_state_dict(model.state_dict())
    nn.functional.cross_entropy(twin(data[0][0]), data[0][1]).backward()
    report = validate_pruning_correctness(model, mask, data, None)
    for name in mask:
        gradient = twin.get_parameter(name).grad
        assert gradient is not None
        assert report["gradient_flow"]["largest"][name] == pytest.approx(float(gradient[mask[name]].abs().max()))
    assert all(parameter.grad is None for parameter in model.parameters())


def test_frozen_weights_have_gradients_too() -> None:
    model, data = make_mlp(torch.float32), make_data()
    mask, _ = prune(model)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    assert validate_pruning_correctness(model, mask, data, None)["gradient_flow"]["passed"]


def test_outputs_that_are_not_finite() -> None:
    model = nn.Sequential(make_mlp(torch.float32), nn.Threshold(-1e9, 0.0))
    data = make_data()
    mask, _ = prune(model)
    with torch.no_grad():
        model.get_parameter("0.4.bias")[0] = torch.nan
    report = validate_pruning_correctness(model, mask, data, None)
    assert failed(report) == {"finite_outputs", "gradient_flow"}
    assert report["finite_outputs"] == {"passed": False, "loss": None, "num_outputs": 48, "num_nonfinite": 16}


def test_performance_within_and_beyond_tolerance() -> None:
    model, data = make_mlp(torch.float32), make_data()
    mask, _ = prune(model)
    now = measure(model, data, Measurement()).value
    assert now is not None
    assert validate_pruning_correctness(model, mask, data, now / 0.96)["performance"]["passed"]
    report = validate_pruning_correctness(model, mask, data, now / 0.9)
    assert failed(report) == {"performance"}
    assert (report["valid"], report["performs_well"]) == (True, False)
    assert report["performance"]["retention"] == pytest.approx(0.9)
    assert validate_pruning_correctness(model, mask, data, now / 0.9, tolerance=0.2)["performs_well"]
    # For a loss less is better.
    loss = measure(model, data, Measurement(metric="loss")).value
    assert loss is not None
    assert not validate_pruning_correctness(model, mask, data, loss / 1.2, metric="loss")["performs_well"]
    assert validate_pruning_correctness(model, mask, data, loss * 1.2, metric="loss")["performs_well"]


def test_a_mask_of_another_model_and_one_that_is_not_binary_are_reported() -> None:
    model, data = make_mlp(torch.float32), make_data()
    report = validate_pruning_correctness(model, {"0.weight": torch.ones(2, 2), "conv": torch.ones(1)}, data, None)
    assert failed(report) == {"shapes"}
    assert unchecked(report) >= {"zeros", "no_dead_layer", "gradient_flow"}
    assert report["shapes"]["unknown"] == ["conv"]
    assert report["shapes"]["differing"] == {"0.weight": {"mask": [2, 2], "parameter": [7, 5]}}
    report = validate_pruning_correctness(model, {"0.weight": torch.full((7, 5), 0.5)}, data, None)
    assert failed(report) == {"binary"}
    assert report["binary"]["num_other_values"] == {"0.weight": 35}
    assert not validate_pruning_correctness(model, {}, data, None)["valid"]


@pytest.mark.parametrize("kind", ["Llama", "GPT2", "Mixtral"])
def test_language_models(kind: str) -> None:
    options = {"experts_implementation": "eager"} if kind == "Mixtral" else {}
    model = make_language_model(kind, **options).float()
    mask, original = prune(model)
    data = [{"input_ids": torch.randint(23, (4, 8))}]
    report = validate_pruning_correctness(model, mask, data, 23.0, original_weights=original, tolerance=0.5)
    assert report["valid"], failed(report)
    assert report["finite_outputs"]["num_outputs"] == 4 * 8 * 23


def test_bad_input() -> None:
    model, data = make_mlp(torch.float32), make_data()
    with pytest.raises(TypeError, match="a mask must be a mapping from parameter names to tensors, but got int"):
        validate_pruning_correctness(model, 3, data, None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"tolerance must lie in \[0, 1\], the share that may be lost, got 5"):
        validate_pruning_correctness(model, prune(model)[0], data, None, tolerance=5)
    with pytest.raises(TypeError, match=r"original_performance must be a number or None, got '0\.9'"):
        validate_pruning_correctness(model, prune(model)[0], data, "0.9")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="original_performance must be finite, got nan"):
        validate_pruning_correctness(model, prune(model)[0], data, float("nan"))


def test_an_output_that_is_not_finite_fails_even_where_the_loss_does_not_see_it() -> None:
    model, data = make_mlp(torch.float32), make_data()
    mask, _ = prune(model)
    with torch.no_grad():
        model.get_parameter("4.bias")[2] = torch.nan

    def loss_fn(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        output: Tensor = model(batch[0])
        return output[:, :2].square().mean()

    report = validate_pruning_correctness(model, mask, data, None, loss_fn=loss_fn)
    assert report["finite_outputs"]["loss"] is not None
    assert "finite_outputs" in failed(report)
    assert report["finite_outputs"]["num_nonfinite"] == 16


def test_a_mask_that_was_made_and_not_applied_is_valid_and_measured_as_it_would_prune() -> None:
    """As its users write it: no apply_mask between the mask and its validation, no original performance."""
    model, data = make_mlp(torch.float32), make_data()
    mask = create_magnitude_mask(model, 0.5)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    report = validate_pruning_correctness(model, mask, data)
    assert (report["valid"], report["applied"], report["performs_well"]) == (True, False, None)
    assert report["zeros"]["num_nonzero"] == report["zeros"]["num_pruned"]
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    apply_mask(model, mask)
    applied = validate_pruning_correctness(model, mask, data)
    assert applied["applied"]
    assert report["performance"]["value"] == applied["performance"]["value"]
    assert report["finite_outputs"] == applied["finite_outputs"]
    assert report["gradient_flow"] == applied["gradient_flow"]


@pytest.mark.parametrize("num_zeroed", [1, -1])
def test_a_model_that_is_pruned_in_part_is_not_valid(num_zeroed: int) -> None:
    model, data = make_mlp(torch.float32), make_data()
    mask = create_magnitude_mask(model, 0.5, scope="layer")
    weight, places = model.get_parameter("0.weight"), (~mask["0.weight"]).nonzero()
    with torch.no_grad():
        for row, column in places[:num_zeroed].tolist():
            weight[row, column] = 0
    report = validate_pruning_correctness(model, mask, data)
    assert (report["valid"], report["applied"]) == (False, True)
    assert failed(report) == {"zeros"}


def test_a_mask_that_prunes_nothing_is_applied() -> None:
    model, data = make_mlp(torch.float32), make_data()
    report = validate_pruning_correctness(model, {"0.weight": torch.ones(7, 5)}, data)
    assert (report["valid"], report["applied"]) == (True, True)
