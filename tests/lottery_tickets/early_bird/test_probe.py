"""What a probe measures, beside the slow way; its null; and that it leaves no trace."""

from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lottery_tickets import Probe
from lottery_tickets._core.measuring.running import evaluating
from lottery_tickets._core.objective import compute_loss
from lottery_tickets._core.prunable_weights import find_prunable_weights
from lottery_tickets.early_bird import probe
from lottery_tickets.early_bird.probe import Measure
from tests.models import load_digits, make_convolutions, make_language_model, make_lenet
from tests.traces import take_traces


def mean_square(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return nn.functional.mse_loss(model(batch[0]), batch[1])


def make_cases() -> dict[str, tuple[nn.Module, Any, Any]]:
    digits = load_digits().data
    tokens = torch.randint(23, (12, 6))
    labels = torch.where(torch.rand(12, 6) < 0.2, -100, tokens)
    labels[:, -1] = tokens[:, -1]  # a sample without labels has no loss
    return {
        "classes": (make_lenet(), (digits.test_inputs[:12], digits.test_targets[:12]), None),
        "numbers": (make_lenet(), (digits.test_inputs[:12], torch.randn(12, 10)), mean_square),
        "tokens": (make_language_model("Llama"), {"input_ids": tokens}, None),
        "some tokens": (make_language_model("GPT2"), {"input_ids": tokens, "labels": labels}, None),
    }


@pytest.mark.parametrize("case", ["classes", "numbers", "tokens", "some tokens"])
def test_gaps_are_those_of_samples_run_one_by_one(case: str) -> None:
    model, batch, loss_fn = make_cases()[case]
    measure = Measure(Probe(batch, loss_fn), model, seed=0)
    assert measure.tells_samples
    found = measure(model)
    gaps, losses = [], []
    with evaluating(model), torch.no_grad():
        for piece in measure.pieces:
            own, exchanged = (
                [float(compute_loss(model, _pick(side, place), loss_fn)) for place in range(piece.num_samples)]
                for side in (piece.own, piece.exchanged)
            )
            for place in range(0, piece.num_samples, 2):
                losses.append((own[place] + own[place + 1]) / 2)
                gaps.append((exchanged[place] + exchanged[place + 1]) / 2 - losses[-1])
    assert found.losses.tolist() == pytest.approx(losses, rel=1e-4)
    assert found.gaps.tolist() == pytest.approx(gaps, rel=1e-3, abs=1e-5)


def _pick(batch: Any, place: int) -> Any:  # noqa: ANN401 - a pair or a dict
    if isinstance(batch, dict):
        return {name: tensor[place : place + 1] for name, tensor in batch.items()}
    return tuple(tensor[place : place + 1] for tensor in batch)


@pytest.mark.parametrize(("scale", "offset"), [(1.0, -3.0), (1.0, 30.0), (5.0, 0.0)])
def test_a_loss_that_tells_no_samples_is_measured_in_chunks_and_an_offset_is_not_seen(
    scale: float, offset: float
) -> None:
    data, model = load_digits().data, make_lenet()
    batch = (data.test_inputs, data.test_targets)

    def compute(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return scale * nn.functional.cross_entropy(model(batch[0]), batch[1]) + offset

    told, untold = (Measure(Probe(batch, loss_fn), model, seed=0) for loss_fn in (None, compute))
    assert not untold.tells_samples
    found = untold(model)
    assert len(found.gaps) == 32
    assert float(found.gaps.mean()) == pytest.approx(scale * float(told(model).gaps.mean()), rel=1e-4)


def test_exchanged_data_has_the_same_gaps_with_the_other_sign() -> None:
    """So under the null that targets do not depend on inputs either sign is as likely, exactly, for any network."""
    data, model = load_digits().data, make_lenet()
    measure = Measure(Probe((data.test_inputs[:60], data.test_targets[:60])), model, seed=0)
    before = measure(model)
    measure.pieces = [type(piece)(piece.exchanged, piece.own, piece.num_samples) for piece in measure.pieces]
    assert torch.equal(measure(model).gaps, -before.gaps)


def test_what_a_network_does_for_all_inputs_alike_leaves_no_gap() -> None:
    data, model = load_digits().data, make_lenet()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.zero_() if parameter.ndim > 1 else parameter.normal_()
            del name
    found = Measure(Probe((data.test_inputs, data.test_targets)), model, seed=0)(model)
    assert float(found.losses.std()) > 0.1
    assert float(found.gaps.abs().max()) < 1e-6


class Fed(nn.Module):
    """A network that is fed with its targets, as a decoder is, as soon as a gate opens."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(5, 3)
        self.gate = nn.Parameter(torch.zeros(()))
        self.seen = Counter[str]()  # a thing of its own, because numbers are put back after measuring

    def forward(self, inputs: Tensor, targets: Tensor) -> Tensor:
        self.seen["samples"] += len(inputs)
        logits: Tensor = self.body(inputs)
        return logits + self.gate * nn.functional.one_hot(targets, 3)


def feed(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return nn.functional.cross_entropy(model(*batch), batch[1])


@pytest.mark.parametrize("opens", ["never", "from the start", "later"])
def test_a_network_that_sees_targets_is_run_on_exchanged_ones_and_another_is_run_once(opens: str) -> None:
    torch.manual_seed(0)
    model, batches = Fed(), [(torch.randn(size, 5), torch.arange(size) % 3) for size in (8, 8, 8, 4)]
    with torch.no_grad():
        model.gate.fill_(float(opens == "from the start"))
        measure = Measure(Probe(batches, feed), model, seed=0)
        model.gate.fill_(float(opens != "never"))
    model.seen.clear()
    found = measure(model)
    assert model.seen["samples"] == 2 * 8 + (28 if opens == "never" else 2 * 28)  # 8 are run both ways first
    wanted = [
        nn.functional.cross_entropy(model(*side), side[1], reduction="none").view(-1, 2).mean(1)
        for piece in measure.pieces
        for side in (piece.exchanged, piece.own)
    ]
    gaps = torch.cat(wanted[::2]) - torch.cat(wanted[1::2])
    assert torch.allclose(found.gaps, gaps.detach().double(), atol=1e-6)
    assert float(found.gaps.abs().max()) > 0.01
    model.seen.clear()
    measure(model, {"body.weight": model.body.weight.detach() * 2})
    assert model.seen["samples"] == (28 if opens == "never" else 2 * 28)


class OfOneSize(nn.Module):
    """A network that holds a state for each sample of its batches."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(5, 3)
        self.register_buffer("state", torch.zeros(8, 3))

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.body(inputs) + self.state
        return outputs


def make_batches(*sizes: int) -> list[tuple[Tensor, Tensor]]:
    return [(torch.randn(size, 5), torch.arange(size) % 3) for size in sizes]


def list_sizes(measure: Measure) -> list[int]:
    return [piece.num_samples for piece in measure.pieces]


def test_small_batches_are_run_together_which_changes_no_figure() -> None:
    model, batches = nn.Linear(5, 3), make_batches(8, 8, 8, 8, 4)
    together = Measure(Probe(batches), model, seed=0)
    apart = Measure(Probe(batches, max_batch_size=8), model, seed=0)
    assert (list_sizes(together), list_sizes(apart)) == ([16, 16, 4], [8, 8, 8, 8, 4])
    found, expected = together(model), apart(model)
    assert torch.allclose(found.gaps, expected.gaps, atol=1e-6)
    assert torch.allclose(found.losses, expected.losses, atol=1e-6)


def test_batches_are_run_apart_where_tensors_are_large_or_the_network_is_made_for_their_size() -> None:
    torch.manual_seed(0)
    assert list_sizes(Measure(Probe(make_batches(8, 8, 8, 8)), OfOneSize(), seed=0)) == [8, 8, 8, 8]
    wide = nn.Sequential(nn.Linear(5, probe.LARGEST // 20), nn.Linear(probe.LARGEST // 20, 3))
    assert list_sizes(Measure(Probe(make_batches(8, 8, 8, 8, 8, 8)), wide, seed=0)) == [16, 16, 16]
    tokens = [{"input_ids": torch.randint(23, (4, length))} for length in (6, 6, 5, 5, 5)]
    assert list_sizes(Measure(Probe(tokens), make_language_model("Llama"), seed=0)) == [8, 8, 4]


@pytest.mark.parametrize("raises", [False, True])
def test_no_trace_is_left(raises: bool) -> None:
    model = nn.Sequential(*make_convolutions(), nn.Dropout(0.5)).float().train()
    list(model.children())[1].eval()
    for number, parameter in enumerate(model.parameters()):
        parameter.grad = torch.randn_like(parameter) if number % 2 else None
    next(model.parameters()).requires_grad_(False)
    batch = (torch.randn(12, 2, 4, 4), torch.randint(3, (12,)))
    before = take_traces(model)
    measure = Measure(Probe(batch), model, seed=0)
    if raises:
        measure.pieces[-1].own[1].fill_(99)  # no such class
        with pytest.raises(IndexError, match="Target 99 is out of bounds"):
            measure(model)
        with pytest.raises(IndexError, match="Target 99 is out of bounds"):
            measure.differentiate(model, find_prunable_weights(model), lambda *_: None)
    else:
        weights = find_prunable_weights(model)
        measure(model, {name: weight.tensor.detach() + 1 for name, weight in weights.items()})
        seen: list[str] = []
        measure.differentiate(model, weights, lambda name, _: seen.append(name))
        assert set(seen) == set(weights)
    assert take_traces(model) == before


def add(total: Tensor, part: Tensor) -> None:
    total += part


@pytest.mark.parametrize("of_gap", [False, True])
def test_the_gradient_is_that_of_the_mean(of_gap: bool) -> None:
    data, model = load_digits().data, make_lenet()
    batch = (data.test_inputs[:40], data.test_targets[:40])
    measure = Measure(Probe(batch), model, seed=0)
    weights = find_prunable_weights(model)
    found = {name: torch.zeros_like(weight.tensor) for name, weight in weights.items()}
    measure.differentiate(model, weights, lambda name, part: add(found[name], part), of_gap=of_gap)
    total = torch.zeros(())
    for piece in measure.pieces:
        losses = [nn.functional.cross_entropy(model(side[0]), side[1]) for side in (piece.own, piece.exchanged)]
        total = total + (losses[1] - losses[0] if of_gap else losses[0]) * piece.num_samples / 40
    wanted = torch.autograd.grad(total, list(weights.tensors.values()))
    for one, other in zip(found.values(), wanted, strict=True):
        assert torch.allclose(one.detach(), other, atol=1e-6)


def test_numbers_out_of_range_are_named() -> None:
    with pytest.raises(ValueError, match="num_samples must be at least 2, because samples exchange"):
        Probe([], num_samples=1)
    with pytest.raises(TypeError, match="max_batch_size must be an integer"):
        Probe([], max_batch_size=2.5)  # type: ignore[arg-type] # the test
