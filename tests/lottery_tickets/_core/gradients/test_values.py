"""Means and standard errors are those of the samples' values, of weights and of units."""

import pytest
import torch

from lottery_tickets._core.gradients.options import ScoringOptions
from lottery_tickets._core.gradients.stream import GradientStream
from lottery_tickets._core.gradients.values import GRADIENT, MAGNITUDE, SQUARE, UNIT_SQUARE, Value
from lottery_tickets._core.prunable_weights import find_prunable_weights
from tests.lottery_tickets._core.gradients.cases import NOT_SEPARABLE, SEPARABLE, loop_over_samples, run_stream


@pytest.mark.parametrize("value", [GRADIENT, MAGNITUDE, SQUARE], ids=lambda value: value.name)
@pytest.mark.parametrize("case", ["mlp", "vgg", "tied, called twice", "norms"])
def test_values_and_standard_errors_are_those_of_the_samples(case: str, value: Value) -> None:
    model, batches = SEPARABLE[case]()
    stream = run_stream(model.double(), batches, value, options=ScoringOptions(standard_errors=True))
    gradients = loop_over_samples(model, batches, list(stream.passes.weights))
    means, errors = stream.take(value)
    assert errors is not None
    for name, rows in gradients.items():
        values = value.of_block(rows, rows)
        torch.testing.assert_close(means[name], values.mean(0), rtol=1e-10, atol=1e-14)
        wanted = values.std(0) / len(values) ** 0.5
        # From the difference of two means, so only as exact as the root of float64's rounding.
        torch.testing.assert_close(errors[name], wanted, rtol=1e-6, atol=1e-8 * float(values.abs().max()))


@pytest.mark.parametrize("case", ["mlp", "vgg", "tied, called twice", "torch attention", "detour"])
def test_units_add_up_their_weights_before_the_square(case: str) -> None:
    model, batches = {**SEPARABLE, "detour": NOT_SEPARABLE["detour"][0]}[case]()
    weights = find_prunable_weights(model.double())
    stream = GradientStream(model, weights, [UNIT_SQUARE], ScoringOptions())
    stream.run(batches, 10**6)
    gradients = loop_over_samples(model, batches, list(weights))
    for name, mean in stream.compute_means(UNIT_SQUARE).items():
        units = (gradients[name] * weights[name].tensor).flatten(2).sum(2).square().mean(0).detach()
        torch.testing.assert_close(mean.flatten(1), units[:, None].expand_as(mean.flatten(1)), rtol=1e-10, atol=1e-18)
