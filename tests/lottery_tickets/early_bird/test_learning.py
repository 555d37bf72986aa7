"""What is learnt, by which weights: where the gap comes from when a head, a body, noise or memory makes it."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from lottery_tickets import Probe
from lottery_tickets._core.prunable_weights import find_channel_scales, find_prunable_weights
from lottery_tickets._core.states import copy_state
from lottery_tickets._core.weights import Weights
from lottery_tickets.early_bird import learning
from lottery_tickets.early_bird.learning import Learning, LearningFigures
from lottery_tickets.early_bird.probe import Measure
from tests.lottery_tickets.early_bird.digits import make_held_out
from tests.models import TrainedNorms, load_digits, make_lenet
from tests.traces import take_traces

Batches = list[tuple[Tensor, Tensor]]
Change = Callable[[nn.Module], None]


def train(model: nn.Module, *, change: Change = lambda _: None, targets: Tensor | None = None) -> None:
    """Trains LeNet on digits; `change` may exchange gradients before each step."""
    data = load_digits().data
    labels = data.train_targets if targets is None else targets
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    generator = torch.Generator().manual_seed(0)
    for _ in range(100):
        places = torch.randint(len(labels), (60,), generator=generator)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(data.train_inputs[places]), labels[places]).backward()
        change(model)
        optimizer.step()


def make_noise(model: nn.Module) -> None:
    for name, parameter in model.named_parameters():
        if name.startswith("fc") and name.endswith("weight"):
            parameter.grad = 0.1 * torch.randn_like(parameter)


def freeze_body(model: nn.Module) -> None:
    for name, parameter in model.named_parameters():
        if name.startswith("fc"):
            parameter.grad = None


def look(
    train_it: Callable[[nn.Module], None], *, held_out: bool = True, probe: Batches | None = None
) -> tuple[LearningFigures, nn.Module]:
    """Returns what is found after a training, with weights put back."""
    torch.manual_seed(0)
    model = make_lenet()
    weights = find_prunable_weights(model)
    start = weights.with_values(copy_state(model))
    watched = Learning(Measure(Probe(probe or make_held_out(), held_out=held_out), model, 0), model, weights, 0)
    train_it(model)
    before = take_traces(model)
    found = put_all_back(watched, model, weights, start)
    assert take_traces(model) == before
    return found, model


def put_all_back(watched: Learning, model: nn.Module, weights: Weights, start: Weights) -> LearningFigures:
    found = watched.look(model, weights, start)
    return {**found, "parts": [watched.put_back(model, weights, start, part) for part in found["parts"]]}


def list_p(found: LearningFigures, name: str) -> list[float]:
    return [part[name] for part in found["parts"]]  # type: ignore[literal-required] # one of two


def test_all_layers_of_a_network_that_learns_carry_the_gap() -> None:
    found, _ = look(train)
    assert [part["num_weights"] for part in found["parts"]] == [19200, 30000, 1000]
    assert found["gap"] > 1  # type: ignore[operator] # a figure
    assert max(found["gap_p"], found["rise_p"]) < 1e-9  # type: ignore[type-var, operator] # figures
    assert max(list_p(found, "along_p")) < 1e-9
    assert max(list_p(found, "closing_p")) < 1e-9
    assert found["worse_p"] > 0.99  # type: ignore[operator] # a figure


def test_a_head_that_learns_on_a_noisy_body_is_seen_although_the_gap_closes_without_the_body() -> None:
    """The head has fitted the body as it is, so putting it back closes the gap: that alone would not tell."""
    found, _ = look(lambda model: train(model, change=make_noise))
    assert found["gap_p"] < 1e-9  # type: ignore[operator] # a figure
    assert max(list_p(found, "closing_p")) < 1e-3
    body, more, head = list_p(found, "along_p")
    assert min(body, more) > 1e-3
    assert head < 1e-9


def test_a_head_that_learns_on_a_frozen_body_is_seen() -> None:
    found, _ = look(lambda model: train(model, change=freeze_body))
    assert found["gap_p"] < 1e-9  # type: ignore[operator] # a figure
    assert list_p(found, "closing_p")[:2] == list_p(found, "along_p")[:2] == [1.0, 1.0]
    assert max(list_p(found, "closing_p")[2], list_p(found, "along_p")[2]) < 1e-9


def test_memorised_targets_are_told_from_learnt_ones_before_training_begins() -> None:
    data = load_digits().data
    targets = torch.randint(10, data.train_targets.shape, generator=torch.Generator().manual_seed(1))

    def memorise(model: nn.Module) -> None:
        for _ in range(4):
            train(model, targets=targets)

    batches = list(zip(data.train_inputs.split(60), targets.split(60), strict=True))
    found, _ = look(memorise, held_out=False, probe=batches)
    assert found["gap_p"] < 1e-9  # type: ignore[operator] # a figure
    assert found["learnable_p"] > 1e-3  # type: ignore[operator] # a figure
    batches = list(zip(data.train_inputs.split(60), data.train_targets.split(60), strict=True))
    found, _ = look(train, held_out=False, probe=batches)
    assert found["learnable_p"] < 1e-6  # type: ignore[operator] # a figure
    assert look(train)[0]["learnable_p"] is None


@pytest.mark.parametrize("scale", [0.2, 3.0])
def test_growing_as_a_whole_is_no_movement(scale: float) -> None:
    def grow(model: nn.Module) -> None:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(scale)

    found, _ = look(grow)
    assert min(list_p(found, "along_p") + list_p(found, "closing_p")) > 1e-3


def test_scales_of_batch_norm_are_followed_too() -> None:
    training = TrainedNorms(0.1)
    weights = find_channel_scales(training.model)
    start = weights.with_values(copy_state(training.model))
    data = load_digits().data
    probe = Probe((data.test_inputs.flatten(1), data.test_targets))
    watched = Learning(Measure(probe, training.model, 0), training.model, weights, 0)
    for _ in range(3):
        training.train_epoch()
    found = put_all_back(watched, training.model, weights, start)
    assert [part["weights"] for part in found["parts"]] == [["1.weight", "4.weight"]]
    assert list_p(found, "along_p")[0] < 1e-3
    assert list_p(found, "closing_p")[0] < 1e-3


def test_parts_are_whole_layers_not_too_many_and_not_too_small() -> None:
    def split(*sizes: int) -> list[list[str]]:
        return list(learning._split(Weights.from_tensors({str(n): torch.ones(s) for n, s in enumerate(sizes)})))

    assert split(5000, 5000, 1000) == [["0"], ["1"], ["2"]]
    assert split(5000, 5000, 999) == [["0"], ["1", "2"]]
    assert split(10, 10) == [["0", "1"]]
    assert split(999, 1, 1000) == [["0", "1"], ["2"]]
    many = split(*[2000] * 30)
    assert len(many) <= 4
    assert [name for part in many for name in part] == [str(n) for n in range(30)]


def test_of_large_models_a_sample_is_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learning, "NUM_SAMPLED", 6000)
    found, _ = look(train)
    assert max(list_p(found, "along_p")) < 1e-9
    places = learning._draw_places(find_prunable_weights(make_lenet()), 0)
    assert [len(one) for one in places.values()] == pytest.approx([2295, 3586, 1000], rel=0.1)
    assert all(len(one) == len(set(one.tolist())) for one in places.values())


def test_what_is_saved_is_gone_on_from() -> None:
    model = make_lenet()
    weights = find_prunable_weights(model)
    start = weights.with_values(copy_state(model))
    batches = make_held_out()
    watched = Learning(Measure(Probe(batches, held_out=False), model, 0), model, weights, 0)
    train(model)
    resumed = Learning(Measure(Probe(batches, held_out=False), model, 0), model, weights, 0)  # of other weights
    assert resumed.look(model, weights, start) != watched.look(model, weights, start)
    resumed.load_state(watched.state())
    assert resumed.look(model, weights, start) == watched.look(model, weights, start)
