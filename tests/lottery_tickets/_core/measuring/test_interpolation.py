"""The networks between two states are those that loading the mixed state would give; the model is never written to."""

import copy
from collections.abc import Iterable, Mapping
from typing import Any, Final

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import update_bn
from torch.utils.data import DataLoader, TensorDataset

from lottery_tickets._core.measuring.interpolation import Line, has_batch_norm
from lottery_tickets._core.measuring.performance import Measurement
from lottery_tickets._core.states import copy_state, hash_state
from tests.data import make_data, make_tokens, split, split_tokens
from tests.models import make_convolutions, make_language_model, make_mlp

ALPHAS: Final = (0.0, 0.3, 0.5, 1.0)


def perturb(model: nn.Module, seed: int, scale: float = 0.5) -> dict[str, Tensor]:
    """Returns a state near the model's own."""
    generator = torch.Generator().manual_seed(seed)
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in other.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.add_((scale * noise).to(parameter.dtype))
    return copy_state(other)


def measure_plainly(
    model: nn.Module, first: Mapping[str, Tensor], second: Mapping[str, Tensor], alpha: float, data: Iterable[Any]
) -> tuple[float, float]:
    """Returns loss and accuracy of a copy that has the mixed state loaded; statistics by torch's own function."""
    mixed = copy.deepcopy(model)
    mixed.load_state_dict(
        {
            name: torch.lerp(first[name].double(), second[name].double(), alpha).to(first[name].dtype)
            if first[name].is_floating_point()
            else first[name]
            for name in first
        }
    )
    pairs = list(data)
    if isinstance(pairs[0], tuple):
        update_bn(pairs, mixed)
    mixed.eval()
    losses, right, total = 0.0, 0, 0
    with torch.no_grad():
        for batch in pairs:
            if isinstance(batch, tuple):
                logits, targets = mixed(batch[0]), batch[1]
            else:
                logits, targets = (
                    mixed(batch["input_ids"]).logits[:, :-1].flatten(0, 1),
                    batch["labels"][:, 1:].flatten(),
                )
            counted = targets != -100
            losses += float(functional.cross_entropy(logits[counted], targets[counted], reduction="sum"))
            right += int((logits.argmax(-1)[counted] == targets[counted]).sum())
            total += int(counted.sum())
    return losses / total, right / total


def check(model: nn.Module, data: list[Any], rel: float = 1e-6) -> None:
    """Compares a line with the plain loop, and holds that the model is bit for bit as it was."""
    first, second = perturb(model, 1), perturb(model, 2)
    before, modes = hash_state(copy_state(model)), [module.training for module in model.modules()]
    found = Line(model, first, second).measure(ALPHAS, data, Measurement())
    assert hash_state(copy_state(model)) == before
    assert [module.training for module in model.modules()] == modes
    assert all(parameter.grad is None for parameter in model.parameters())
    for alpha, performance in zip(ALPHAS, found, strict=True):
        loss, accuracy = measure_plainly(model, first, second, alpha, data)
        assert performance.figures["loss"] == pytest.approx(loss, rel=rel)
        assert performance.figures["accuracy"] == pytest.approx(accuracy, abs=1e-12)


def test_a_plain_network_is_that_of_the_mixed_state() -> None:
    check(make_mlp(), split(make_data(), 5))


def test_batch_norm_has_statistics_of_its_own_at_each_point() -> None:
    model, data = make_convolutions(), split(make_data(shape=(2, 4, 4)), 4)
    assert has_batch_norm(model)
    assert not has_batch_norm(make_mlp())
    check(model, data)


def test_interpolated_statistics_would_give_another_figure() -> None:
    """Or the test above would hold nothing."""
    model, data = make_convolutions(), split(make_data(shape=(2, 4, 4)), 4)
    first, second = perturb(model, 1), perturb(model, 2)
    found = Line(model, first, second).measure([0.5], data, Measurement())[0]
    stale = copy.deepcopy(model).eval()
    stale.load_state_dict(Line(model, first, second).mix(0.5))
    with torch.no_grad():
        loss = sum(float(functional.cross_entropy(stale(x), y)) * len(y) for x, y in data) / 12
    assert found.figures["loss"] != pytest.approx(loss, rel=1e-3)


def test_statistics_come_from_their_own_data() -> None:
    model, data = make_convolutions(), split(make_data(shape=(2, 4, 4)), 4)
    first, second = perturb(model, 1), perturb(model, 2)
    others = [(3 * x, y) for x, y in data]
    line = Line(model, first, second)
    found = line.measure([0.5], data, Measurement(), statistics_dataloader=others)[0]
    mixed = copy.deepcopy(model)
    mixed.load_state_dict(line.mix(0.5))
    update_bn(others, mixed)
    mixed.eval()
    with torch.no_grad():
        loss = sum(float(functional.cross_entropy(mixed(x), y)) * len(y) for x, y in data) / 12
    assert found.figures["loss"] == pytest.approx(loss, rel=1e-9)


def test_momentum_and_modes_of_batch_norm_come_back() -> None:
    model, data = make_convolutions().eval(), split(make_data(shape=(2, 4, 4)), 4)
    norm = model[1]
    assert isinstance(norm, nn.BatchNorm2d)

    def fail(_model: nn.Module, _batch: object) -> Tensor:
        raise RuntimeError("the loss fails")

    before = hash_state(copy_state(model))
    for loss_fn in (None, fail):
        try:
            Line(model, copy_state(model), perturb(model, 1)).measure(ALPHAS, data, Measurement(loss_fn))
        except RuntimeError as error:
            assert str(error) == "the loss fails"  # noqa: PT017 - the other case must not raise
        assert norm.momentum == 0.1
        assert not norm.training
        assert hash_state(copy_state(model)) == before


@pytest.mark.parametrize("kind", ["GPT2", "Llama"])
def test_language_models_tied_or_not(kind: str) -> None:
    check(make_language_model(kind).double(), split_tokens(make_tokens(), 4))


def test_a_tied_weight_needs_one_of_its_names() -> None:
    model = make_language_model("GPT2")
    first, second = perturb(model, 1), perturb(model, 2)
    line = Line(model, first, second)
    del first["lm_head.weight"], second["transformer.wte.weight"]  # as files of tied weights have it
    halves = Line(model, first, second)
    assert hash_state(halves.mix(0.3)) == hash_state(line.mix(0.3))
    second["transformer.wte.weight"] = first["transformer.wte.weight"]
    with pytest.raises(ValueError, match="one value for tied weights"):
        Line(model, first, second)


def test_recurrent_networks_read_the_mixed_weights() -> None:
    """They keep a list of their weights beside the parameters."""
    torch.manual_seed(0)
    model = nn.LSTM(3, 4)
    batch = torch.randn(5, 2, 3)
    zeros = {name: torch.zeros_like(tensor) for name, tensor in model.state_dict().items()}
    measurement = Measurement(lambda inner, x: inner(x)[0].abs().sum())
    start, end = Line(model, zeros, copy_state(model)).measure([0.0, 1.0], [batch], measurement)
    assert start.figures["loss"] == 0
    assert end.figures["loss"] == pytest.approx(float(model(batch)[0].detach().abs().sum()))


def test_bfloat16_is_mixed_in_float32_and_rounded_once() -> None:
    model = make_mlp(torch.bfloat16)
    first, second = perturb(model, 1), perturb(model, 2)
    mixed = Line(model, first, second).mix(0.3)
    for name, tensor in mixed.items():
        want = (first[name].double() + 0.3 * (second[name].double() - first[name].double())).bfloat16()
        assert tensor.dtype == torch.bfloat16
        torch.testing.assert_close(tensor, want, rtol=2**-8, atol=1e-5)  # float32's rounding may tip the last bit
        assert float((tensor == want).double().mean()) > 0.9
    check(model, split(make_data(torch.bfloat16), 5), rel=2e-2)


def test_ends_are_exact_and_equal_ends_stay_where_they_are() -> None:
    model = make_convolutions().bfloat16()
    first, second = perturb(model, 1), perturb(model, 2)
    line = Line(model, first, second)
    assert hash_state(line.mix(0.0)) == hash_state(first)
    assert hash_state(line.mix(1.0)) == hash_state(second)
    flat = Line(model, first, first)
    assert {hash_state(flat.mix(point / 29)) for point in range(30)} == {hash_state(first)}


def test_mixed_weights_lie_in_memory_as_the_models_do() -> None:
    model = make_convolutions()
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload] # which torch's types lack
    state = {name: tensor.contiguous() for name, tensor in copy_state(model).items()}  # as files have it
    for alpha in (0.0, 0.3, 1.0):
        assert Line(model, state, state).mix(alpha)["0.weight"].is_contiguous(memory_format=torch.channels_last)


def test_integers_are_the_nearer_ends() -> None:
    model = make_convolutions()
    first, second = perturb(model, 1), perturb(model, 2)
    name = "1.num_batches_tracked"
    first[name], second[name] = torch.tensor(3), torch.tensor(7)
    line = Line(model, first, second)
    assert [int(line.mix(alpha)[name]) for alpha in (0.0, 0.4, 0.6, 1.0)] == [3, 3, 7, 7]


def test_shuffling_loaders_come_back_to_where_they_were() -> None:
    model = make_convolutions()
    dataset = TensorDataset(*make_data(shape=(2, 4, 4)))
    generators = [torch.Generator().manual_seed(seed) for seed in (1, 2)]
    data, own = (DataLoader(dataset, batch_size=5, shuffle=True, generator=generator) for generator in generators)
    states = [generator.get_state() for generator in generators]
    here = torch.get_rng_state()
    found = Line(model, perturb(model, 1), perturb(model, 1)).measure(
        [0.0, 0.5, 1.0], data, Measurement(), statistics_dataloader=own
    )
    for generator, state in zip(generators, states, strict=True):
        assert torch.equal(generator.get_state(), state)
    assert torch.equal(torch.get_rng_state(), here)
    assert len({performance.figures["loss"] for performance in found}) == 1  # each point saw the same batches


def test_wrong_states_are_refused() -> None:
    model = make_mlp()
    good = copy_state(model)
    with pytest.raises(ValueError, match=r"second state must hold '0.weight' as torch.float64 of shape \(7, 5\)"):
        Line(model, good, {**good, "0.weight": good["0.weight"].T})
    with pytest.raises(ValueError, match=r"must hold '0\.weight' as torch\.float64"):
        Line(model, good, {**good, "0.weight": good["0.weight"].float()})
    with pytest.raises(ValueError, match=r"first state must hold every tensor of the model, but lacks \['4.bias'\]"):
        Line(model, {name: tensor for name, tensor in good.items() if name != "4.bias"}, good)
    with pytest.raises(ValueError, match=r"first state must be the model's, but holds \['6.bias'\]"):
        Line(model, {**good, "6.bias": torch.ones(1)}, good)
    with pytest.raises(ValueError, match="holds NaN or infinity; did it diverge"):
        Line(model, good, {**good, "0.bias": good["0.bias"] * torch.nan})


def test_wrong_loaders_are_refused() -> None:
    model, data = make_convolutions(), split(make_data(shape=(2, 4, 4)), 4)
    line = Line(model, copy_state(model), copy_state(model))
    with pytest.raises(TypeError, match="is used up after one"):
        line.measure(ALPHAS, data, Measurement(), statistics_dataloader=iter(data))
    with pytest.raises(ValueError, match="statistics need at least one batch"):
        line.measure(ALPHAS, data, Measurement(), statistics_dataloader=[])
    with pytest.raises(ValueError, match="must hold at least one batch"):
        Line(make_mlp(), copy_state(make_mlp()), copy_state(make_mlp())).measure(ALPHAS, [], Measurement())
