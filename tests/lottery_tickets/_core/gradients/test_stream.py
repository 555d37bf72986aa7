"""The gradient stream: each sample clipped, the broken left out, and samples that are mixed found out."""

import copy
from collections.abc import Callable
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from lottery_tickets._core.gradients import stream as streams
from lottery_tickets._core.gradients.losses import Labels
from lottery_tickets._core.gradients.options import ScoringOptions
from lottery_tickets._core.gradients.stream import GradientStream
from lottery_tickets._core.gradients.values import SQUARE
from lottery_tickets._core.prunable_weights import find_prunable_weights
from tests.lottery_tickets._core.gradients.cases import (
    NOT_SEPARABLE,
    SEPARABLE,
    Mixing,
    TiedTwice,
    check_squares,
    draw,
    draw_classes,
    loop_over_samples,
    run_stream,
)


@pytest.mark.parametrize("case", ["mlp", "vgg", "tied, called twice", "detour"])
def test_clipping_acts_on_each_sample(case: str) -> None:
    model, batches = {**SEPARABLE, "detour": NOT_SEPARABLE["detour"][0]}[case]()
    names = [name for name, _ in model.double().named_parameters()]
    gradients = loop_over_samples(model, batches, names)
    norms = torch.stack([rows.flatten(1).square().sum(1) for rows in gradients.values()]).sum(0).sqrt()
    limit = float(norms.mean())
    stream = run_stream(model, batches, options=ScoringOptions(gradient_clip=limit))
    assert stream.num_clipped == int((norms > limit).sum()) > 0
    factors = (limit / norms).clamp(max=1)
    for name, mean in stream.compute_means(SQUARE).items():
        wanted = (gradients[name] * factors.view(-1, *[1] * (gradients[name].ndim - 1))).square().mean(0)
        torch.testing.assert_close(mean, wanted, rtol=1e-10, atol=1e-18)


def test_a_sample_without_finite_gradient_is_left_out_and_counted() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    inputs, targets = draw(20, 3), draw_classes(20, 2)
    good = run_stream(model, [(inputs[1:], targets[1:])]).compute_means(SQUARE)
    inputs[0, 1] = torch.nan
    for batches in ([(inputs, targets)], list(zip(inputs.split(1), targets.split(1), strict=True))):
        stream = run_stream(model, batches, options=ScoringOptions(nonfinite_limit=0.1))
        assert stream.num_bad == 1
        for name, mean in stream.compute_means(SQUARE).items():
            torch.testing.assert_close(mean, good[name], rtol=1e-12, atol=1e-20)


def test_too_many_samples_without_finite_gradient_are_an_error() -> None:
    inputs = draw(20, 3)
    inputs[:10] = torch.inf
    with pytest.raises(ValueError, match=r"at most 10\.00% of the samples may have gradients that are not finite"):
        run_stream(
            nn.Linear(3, 2).double(), [(inputs, draw_classes(20, 2))], options=ScoringOptions(nonfinite_limit=0.1)
        )


@pytest.mark.parametrize("large", [0, 1])
def test_sums_that_overflow_are_an_error_in_whichever_batch(large: int) -> None:
    """Gradients of 1e25 are finite, and their squares are not; what was looked through after a batch is not the end."""
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    batches = [(draw(4, 3).float(), draw_classes(4, 2)) for _ in range(2)]
    inputs, _ = batches[large]
    with torch.no_grad():  # the other class: a sample that is surely right has no gradient, however large its inputs
        batches[large] = (inputs * 1e25, model(inputs).argmin(1))
    with pytest.raises(ValueError, match=r"sum of gradient\^2 must be finite, but overflows for 'weight'"):
        run_stream(model, batches)


def test_a_sample_without_labels_has_no_loss_and_is_counted() -> None:
    model = TiedTwice().double()
    tokens, labels = torch.randint(11, (4, 7)), torch.randint(11, (4, 7))
    labels[2] = -100
    stream = run_stream(model, [(tokens, labels)], options=ScoringOptions(nonfinite_limit=0.5))
    assert stream.num_bad == 1
    kept = [0, 1, 3]
    expected = loop_over_samples(model, [(tokens[kept], labels[kept])], ["layer.weight"])["layer.weight"]
    torch.testing.assert_close(stream.compute_means(SQUARE)["layer.weight"], expected.square().mean(0))


@pytest.mark.parametrize("num_equal", [2, 4])
@pytest.mark.parametrize("seen_first", [True, False])
def test_equal_samples_do_not_hide_that_samples_are_mixed(seen_first: bool, num_equal: int) -> None:
    """Two equal samples would look right even when they are mixed up, so they must not decide."""
    model, inputs, targets = Mixing().double(), draw(4, 6), draw_classes(4)
    inputs[:num_equal], targets[:num_equal] = inputs[0].clone(), targets[0].clone()
    batches = [(inputs, targets), (draw(4, 6), draw_classes(4))]
    check_squares(model, batches if seen_first else batches[::-1], "the model mixes samples")


def test_parameters_that_share_memory_are_one_weight() -> None:
    """Two Parameter objects over one storage: their gradients add up, as those of a parameter used twice do."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6, bias=False)).double()
    twin = copy.deepcopy(model)
    second, shared = cast("nn.Linear", model[2]), cast("nn.Linear", model[0])
    second.weight = nn.Parameter(shared.weight.data)
    cast("nn.Linear", twin[2]).weight = cast("nn.Linear", twin[0]).weight
    batches = [(draw(4, 6), draw_classes(4))]
    results = [GradientStream(m, find_prunable_weights(m), [SQUARE], ScoringOptions()) for m in (model, twin)]
    for stream in results:
        stream.run(batches, 10)
    got, wanted = (stream.compute_means(SQUARE) for stream in results)
    assert list(got) == list(wanted) == ["0.weight"]
    torch.testing.assert_close(got["0.weight"], wanted["0.weight"])


@pytest.mark.parametrize("sizes", [[4], [1, 1, 1, 1]])
def test_sparse_gradients_of_an_embedding_count_like_dense_ones(sizes: list[int]) -> None:
    model = nn.Sequential(nn.Embedding(11, 8), nn.Flatten(), nn.Linear(24, 5)).double()
    tokens, targets = torch.randint(11, (4, 3)), draw_classes(4)
    batches = list(zip(tokens.split(sizes), targets.split(sizes), strict=True))
    dense = run_stream(model, batches).compute_means(SQUARE)
    cast("nn.Embedding", model[0]).sparse = True
    for name, mean in run_stream(model, batches).compute_means(SQUARE).items():
        torch.testing.assert_close(mean, dense[name])


@pytest.mark.parametrize("labels", ["empirical", "exact"])
def test_one_batch_is_verified_while_it_is_added(labels: Labels) -> None:
    """Two forward passes: all samples, and one of them alone."""
    model, sizes = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 5)).double(), list[int]()
    model.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
    stream = GradientStream(model, find_prunable_weights(model), [SQUARE], ScoringOptions(), labels=labels)
    stream.run([(draw(16, 6), draw_classes(16))], 100)
    assert stream.reason is None
    assert sizes == [16, 1]


class _Coarse(nn.Module):
    """Rounds batches and single samples differently under autocast, as kernels for their sizes do in deep networks."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, inputs: Tensor) -> Tensor:
        is_rough = torch.is_autocast_enabled("cpu") and len(inputs) > 1
        output: Tensor = self.inner(inputs * 1.3 if is_rough else inputs)
        return output.float()


@pytest.mark.parametrize("labels", ["empirical", "sampled"])
def test_rounding_is_not_taken_for_mixing_and_does_not_hide_it(labels: Labels, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same in half precision is decided by a look in full precision."""
    monkeypatch.setattr(streams, "find_autocast", lambda _: torch.bfloat16)
    torch.manual_seed(
        93
    )  # a network whose samples change their norms by less than rounding could, where they are mixed
    batches = [(draw(8, 6).float(), draw_classes(8)) for _ in range(2)]
    apart = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 5))
    for inner, reason in ((apart, None), (_MixedOnce(1, WAYS_TO_MIX["the next"]), "the model mixes samples")):
        model = _Coarse(inner)
        found = GradientStream(model, find_prunable_weights(model), [SQUARE], ScoringOptions(), labels=labels)
        found.run(batches, 100)
        assert found.num_samples == 16
        assert (found.reason is None) if reason is None else (reason in str(found.reason))
        assert found.passes.objective.autocast is torch.bfloat16
        if reason is None and labels == "empirical":
            scaled, exact = nn.Sequential(Scaled(), inner), ScoringOptions(use_mixed_precision=False)
            expected = GradientStream(scaled, find_prunable_weights(scaled), [SQUARE], exact)
            expected.run(batches, 100)
            means = found.compute_means(SQUARE), expected.compute_means(SQUARE)
            for (name, mean), other in zip(means[0].items(), means[1].values(), strict=True):
                assert float((mean - other).norm() / other.norm()) < 0.05, name  # each sample is counted once


class Scaled(nn.Module):
    """What the batches were seen as."""

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs * 1.3


class _Chain(nn.Module):
    """Adds to each sample what the one before it was, a number without a gradient: only later samples are changed."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 5)

    def forward(self, inputs: Tensor) -> Tensor:
        before = torch.cat([torch.zeros_like(inputs[:1]), inputs[:-1]]).detach()
        output: Tensor = self.layer(inputs + before)
        return output


def test_samples_that_only_those_before_them_reach_are_found_out() -> None:
    check_squares(_Chain().double(), [(draw(6, 6), draw_classes(6))], "the model mixes samples")


class _MixedOnce(nn.Module):
    """Samples that meet in one place only.

    Args:
        where: The layer after which they do, of three.
        how: What reaches each sample from the others.
    """

    def __init__(self, where: int, how: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 5)])
        self.where, self.how = where, how

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = inputs
        for number, layer in enumerate(self.layers):
            hidden = torch.tanh(layer(hidden))
            if number == self.where:
                hidden = hidden + self.how(hidden)
        return hidden


WAYS_TO_MIX: dict[str, Callable[[Tensor], Tensor]] = {
    "the largest": lambda hidden: hidden.amax(0),
    "the largest, without a gradient": lambda hidden: hidden.detach().amax(0),
    "the next": lambda hidden: hidden.roll(1, 0),
    "the scale": lambda hidden: hidden / hidden.std(),
}


@pytest.mark.parametrize("where", [0, 1, 2])
@pytest.mark.parametrize("way", WAYS_TO_MIX)
def test_samples_that_meet_in_one_place_are_found_out(where: int, way: str) -> None:
    torch.manual_seed(0)  # of one network in 170 mixing changes the sample that is tried by less than the tolerance
    model = _MixedOnce(where, WAYS_TO_MIX[way]).double()
    check_squares(model, [(draw(6, 6), draw_classes(6)), (draw(6, 6), draw_classes(6))], "the model mixes samples")


class _Signed(nn.Module):
    """Multiplies by the sign of the first sample, which changes no norm."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden: Tensor = self.linear(inputs)
        return hidden * hidden[0, 0].detach().sign()


def test_gradients_of_the_wrong_sign_are_found_out() -> None:
    model = _Signed().double()
    with torch.no_grad():
        model.linear.weight.fill_(1.0)
        model.linear.bias.zero_()
    inputs = torch.arange(1, 7).double()[:, None] * torch.ones(6).double()
    inputs[3] = -inputs[3]
    batch = (inputs, torch.full((6, 3), -1000.0).double())  # so far that the loss is linear

    def compute_loss(inner: nn.Module, given: tuple[Tensor, Tensor]) -> Tensor:
        return functional.l1_loss(inner(given[0]), given[1])

    check_squares(model, [batch, batch], "the model mixes samples", compute_loss)


LOSSES_OVER_BATCHES: dict[str, tuple[Callable[[nn.Module, Any], Tensor], str]] = {
    "divided by the batch's largest": (
        lambda model, batch: functional.cross_entropy(model(batch[0]), batch[1]) / model(batch[0]).detach().amax(),
        "not one mean",
    ),
    "of logits scaled by the batch": (
        lambda model, batch: functional.cross_entropy(model(batch[0]) / (1 + model(batch[0]).norm()), batch[1]),
        "the model mixes samples",
    ),
    "over pairs": (
        lambda model, batch: functional.mse_loss(model(batch[0]), model(batch[0]).flip(0).detach()),
        "the model mixes samples",
    ),
}


@pytest.mark.parametrize("case", LOSSES_OVER_BATCHES)
def test_losses_that_samples_share_are_found_out(case: str) -> None:
    loss_fn, reason = LOSSES_OVER_BATCHES[case]
    model = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 5)).double()
    check_squares(model, [(draw(6, 6), draw_classes(6))], reason, loss_fn)


@pytest.mark.parametrize("size", [2, 3, 8, 13])  # from mostly padding to more than a hundred positions
@pytest.mark.parametrize("stride", [1, 2])
def test_depthwise_and_pointwise_convolutions(size: int, stride: int) -> None:
    model = nn.Sequential(
        nn.Conv2d(4, 6, 1, stride), nn.Tanh(), nn.Conv2d(6, 6, 3, stride, 1, groups=6, bias=False), nn.Tanh(),
        nn.Conv2d(6, 5, 1, bias=False), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 5),
    )  # fmt: skip
    check_squares(
        model.double(), [(draw(5, 4, size, size), draw_classes(5)), (draw(3, 4, size, size), draw_classes(3))]
    )
