"""The light trainer beside plain loops: same steps, one gradient at a time, and the same bits after a stop."""

import copy
import io
import itertools
import json
import logging
import random
import sys
from collections.abc import Callable, Iterable, Iterator
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._pytree import tree_leaves
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, TensorDataset
from transformers import BatchEncoding, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from lottery_tickets import Mask, hold_mask, record_movement
from lottery_tickets._core.batches.resuming import count_samples, move_batch, split_batch
from lottery_tickets._core.determinism import derive_seed, seed_everything
from lottery_tickets._core.objective import compute_loss
from lottery_tickets._core.training import in_backward
from lottery_tickets._core.training.light_training import LightTrainer, TrainerSettings
from lottery_tickets._core.training.rounding import copy_rounded_
from tests.scored_models import make_convolutions, make_data, make_language_model, make_mlp, make_tokens, split

LR = 0.1
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "plain": {},
    "momentum": {"momentum": 0.9},
    "decay": {"weight_decay": 0.1},
    "momentum and decay": {"momentum": 0.9, "weight_decay": 0.1},
    "adamw": {"use_sgd": False, "weight_decay": 0.1},
}
each_optimizer = pytest.mark.parametrize("options", OPTIMIZERS.values(), ids=OPTIMIZERS)


def make_tied_llama() -> nn.Module:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"vocab_size": 23, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
    config = LlamaConfig(**sizes, num_attention_heads=4, attention_dropout=0.1, tie_word_embeddings=True)
    return LlamaForCausalLM(config)


class Twice(nn.Module):
    """Uses one weight twice."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.inner, self.head = nn.Linear(5, 5), nn.Linear(5, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.head(torch.tanh(self.inner(torch.tanh(self.inner(inputs)))))
        return outputs


MODELS: dict[str, Callable[[], nn.Module]] = {
    "mlp": lambda: make_mlp(torch.float32),
    "used twice": Twice,
    "convolutions": lambda: make_convolutions().float(),
    "tied llama": make_tied_llama,
    "gpt2": lambda: make_language_model("GPT2"),
}


def make_batches(kind: str) -> list[Any]:
    if kind in {"tied llama", "gpt2"}:
        tokens = make_tokens()
        return [{key: value[i : i + 2] for key, value in tokens.items()} for i in (0, 2, 4)]
    return list(split(make_data(torch.float32, (2, 4, 4) if kind == "convolutions" else (5,)), 4))


def copy_weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def assert_same(got: nn.Module, expected: nn.Module) -> None:
    for name, tensor in expected.state_dict().items():
        assert torch.equal(got.state_dict()[name], tensor), name


def train_by_hand(model: nn.Module, batches: list[Any], settings: TrainerSettings) -> None:
    """The plain loop: all gradients at once, torch's own optimizer, L1 by hand."""
    options: dict[str, Any] = {"lr": settings.learning_rate, "weight_decay": settings.weight_decay}
    optimizer: torch.optim.Optimizer = (
        torch.optim.SGD(model.parameters(), momentum=settings.momentum, **options)
        if settings.use_sgd
        else torch.optim.AdamW(model.parameters(), fused=True, **options)
    )
    model.train()
    if isinstance(model, PreTrainedModel):  # its gradients are the same, but summed in another order
        model.activation_checkpointing_enable({"use_reentrant": False})
    for step, batch in enumerate(batches):
        seed_everything(derive_seed(settings.seed, "step", step))
        optimizer.zero_grad()
        compute_loss(model, batch).backward()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                assert isinstance(module.weight.grad, Tensor)
                module.weight.grad += settings.norm_l1 * module.weight.detach().sign()
        optimizer.step()


# --------------------------------------------------------------------------------------------------------------- steps


@each_optimizer
@pytest.mark.parametrize("kind", MODELS)
def test_steps_equal_those_of_torch_bit_for_bit(kind: str, options: dict[str, Any]) -> None:
    """Over tied embeddings, transposed weights, a weight used twice, dropout, and checkpointing where there is any."""
    settings = TrainerSettings(learning_rate=LR, norm_l1=0.01 if kind == "convolutions" else 0.0, **options)
    model, batches = MODELS[kind](), make_batches(kind)
    by_hand, before = copy.deepcopy(model), copy_weights(model)
    LightTrainer(model, batches, settings).train_epochs(2)
    train_by_hand(by_hand, batches * 2, settings)
    assert_same(model, by_hand)
    assert any(not torch.equal(before[name], p) for name, p in model.named_parameters()), "nothing trained at all"


def test_checkpointing_is_used_and_changes_last_bits_at_most() -> None:
    weights, calls = [], []
    for is_on in (True, False):
        model = make_tied_llama()
        model.get_submodule("model.layers.0.mlp").register_forward_pre_hook(lambda *_: calls.append(is_on))  # noqa: B023 - called here
        settings = TrainerSettings(learning_rate=LR, activation_checkpointing=is_on)
        LightTrainer(model, make_batches("tied llama"), settings).train_epochs(1)
        weights.append(model)
    pairs = zip(weights[0].parameters(), weights[1].parameters(), strict=True)
    assert all(torch.allclose(one, other, atol=1e-7) for one, other in pairs)
    assert (calls.count(True), calls.count(False)) == (6, 3)  # forward once more in the backward pass


def test_gradients_live_one_at_a_time() -> None:
    model = make_tied_llama()
    alive: list[tuple[int, int]] = []

    def record(parameter: Tensor) -> None:
        alive.append((parameter.numel(), sum(p.numel() for p in model.parameters() if p.grad is not None)))

    for parameter in model.parameters():
        parameter.register_post_accumulate_grad_hook(record)
    LightTrainer(model, make_batches("tied llama"), TrainerSettings(momentum=0.9)).train_steps(2)
    assert len(alive) == 2 * len(list(model.parameters()))
    assert [own for own, _ in alive] == [total for _, total in alive]


@each_optimizer
def test_no_gradient_and_no_hook_is_left_even_after_an_exception(options: dict[str, Any]) -> None:
    model = make_mlp(torch.float32)
    compute_loss(model, make_batches("mlp")[0]).backward()  # what was there before has no say
    num_calls = 0

    def fail_in_backward(model: nn.Module, batch: Any) -> Tensor:  # noqa: ANN401 - any batch
        nonlocal num_calls
        num_calls += 1
        loss = compute_loss(model, batch)
        if num_calls == 3:
            model.get_parameter("0.weight").register_hook(interrupt)
        return loss

    def interrupt(_: Tensor) -> None:
        raise KeyboardInterrupt("amid a step")

    trainer = LightTrainer(model, make_batches("mlp"), TrainerSettings(loss_fn=fail_in_backward, **options))
    trainer.train_steps(2)
    assert [p.grad for p in model.parameters()] == [None] * 6
    with pytest.raises(KeyboardInterrupt, match="amid a step"):
        trainer.train_steps(2)
    assert [p.grad for p in model.parameters()] == [None] * 6
    assert not any(p._post_accumulate_grad_hooks for p in model.parameters())
    assert trainer.num_steps == 2


def test_gradients_from_before_have_no_say() -> None:
    model, other = make_mlp(torch.float32), make_mlp(torch.float32)
    compute_loss(model, make_batches("mlp")[2]).backward()
    for trained in (model, other):
        LightTrainer(trained, make_batches("mlp"), TrainerSettings(learning_rate=LR)).train_steps(2)
    assert_same(model, other)


def test_a_weight_that_is_needed_after_its_step_is_an_error() -> None:
    """Here autograd does not know that the first product depends on the weight, and keeps it for later."""

    def read_detached(model: nn.Module, batch: Tensor) -> Tensor:
        weight = next(model.parameters())
        return (batch.clone().requires_grad_() @ weight.detach() @ weight).sum()

    trainer = LightTrainer(nn.Linear(3, 3), [torch.ones(2, 3)], TrainerSettings(loss_fn=read_detached))
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        trainer.train_steps(1)


def test_a_weight_that_would_step_twice_is_an_error() -> None:
    model = Twice()

    def reentrant(model: nn.Module, batch: Any) -> Tensor:  # noqa: ANN401 - any batch
        assert isinstance(model, Twice)
        outputs = batch[0].requires_grad_()
        for _ in range(2):
            outputs = checkpoint(model.inner, outputs, use_reentrant=True)
        return functional.cross_entropy(model.head(outputs), batch[1])

    trainer = LightTrainer(model, make_batches("mlp"), TrainerSettings(loss_fn=reentrant))
    with pytest.raises(RuntimeError, match="got it twice, as reentrant checkpointing does"):
        trainer.train_steps(1)


# ------------------------------------------------------------------------------------------- what else watches weights


@each_optimizer
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_held_mask_holds(options: dict[str, Any], dtype: torch.dtype) -> None:
    model = make_mlp(dtype)
    mask = Mask.from_tensors({n: torch.rand(p.shape) < 0.5 for n, p in model.named_parameters() if p.dim() > 1})
    hold_mask(model, mask)
    before = copy_weights(model)
    batches = split(make_data(dtype), 4)
    trainer = LightTrainer(model, batches, TrainerSettings(learning_rate=LR, max_batch_size=3, **options))
    trainer.train_epochs(2)
    for name, kept in mask.items():
        weight = model.get_parameter(name)
        assert bool((weight[~kept] == 0).all())
        assert not torch.equal(weight[kept], before[name][kept])
    states = trainer.state()["optimizer"]
    if "momentum" in options:
        assert all(bool((states[name][~kept] == 0).all()) for name, kept in mask.items())


def test_movement_is_recorded() -> None:
    model, batches = make_mlp(torch.float32), make_batches("mlp")
    twin = copy.deepcopy(model)
    with record_movement(model) as movement:
        LightTrainer(model, batches, TrainerSettings(learning_rate=LR)).train_epochs(1)
    optimizer = torch.optim.SGD(twin.parameters(), LR)
    with record_movement(twin) as expected:
        for batch in batches:
            optimizer.zero_grad()
            compute_loss(twin, batch).backward()
            optimizer.step()
    scores = expected.importance()
    assert all(torch.equal(score, scores[name]) for name, score in movement.importance().items())


@each_optimizer
def test_frozen_parameters_stay(options: dict[str, Any]) -> None:
    model = make_mlp(torch.float32)
    model.get_parameter("2.weight").requires_grad = False
    before = copy_weights(model)
    LightTrainer(model, make_batches("mlp"), TrainerSettings(learning_rate=LR, **options)).train_epochs(1)
    unmoved = [name for name, p in model.named_parameters() if torch.equal(p, before[name])]
    assert unmoved == ["2.weight"]


def test_parameters_can_be_frozen_between_stretches() -> None:
    model = make_mlp(torch.float32)
    trainer = LightTrainer(model, make_batches("mlp"), TrainerSettings(learning_rate=LR))
    trainer.train_steps(1)
    before = copy_weights(model)
    model.get_parameter("2.weight").requires_grad = False
    trainer.train_steps(1)
    assert [name for name, p in model.named_parameters() if torch.equal(p, before[name])] == ["2.weight"]


# ------------------------------------------------------------------------------------------------------------ rounding


def test_rounding_is_right_on_average_and_never_off_by_a_unit() -> None:
    values = torch.tensor([1.0 + 2**-9, 1.0 + 2**-12, -3.3, 1e-30, 0.02, 65.7]).repeat(2)
    values[6:] *= -1
    rounded = torch.empty(40_000, 12, dtype=torch.bfloat16)
    copy_rounded_(rounded, values.expand(40_000, 12).clone())
    down = (values.view(torch.int32) & -65536).view(torch.float32)
    unit = ((down.view(torch.int32) + 65536).view(torch.float32) - down).abs()
    up = down + unit * values.sign()
    assert bool(((rounded == down) | (rounded == up)).all())
    error = (rounded.double().mean(0) - values.double()) / unit
    assert float(error.abs().max()) < 4.5 * 0.5 / 200  # a share p of N draws has a deviation of at most 0.5 / sqrt(N)
    assert torch.allclose(rounded.double().mean(0)[:6], -rounded.double().mean(0)[6:], rtol=1e-2)


def test_rounding_uses_every_bit() -> None:
    """2^-15 of a unit above 1 rounds up in 2^-15 of the draws, wherever in the 64 bits of a draw it falls."""
    values = torch.full((2**24,), 1.0 + 2**-22)
    rounded = torch.empty(2**24, dtype=torch.bfloat16)
    copy_rounded_(rounded, values)
    counts = (rounded > 1).view(-1, 4).sum(0)
    assert bool(((counts - 128).abs() < 5 * 128**0.5).all()), counts


def test_what_bfloat16_holds_stays() -> None:
    exact = torch.randn(999).bfloat16()
    exact[:4] = torch.tensor([torch.inf, -torch.inf, 0.0, -0.0])
    rounded = torch.empty_like(exact)
    copy_rounded_(rounded, exact.float())
    assert torch.equal(rounded.view(torch.int16), exact.view(torch.int16))


def test_nan_stays_nan_whatever_its_bits() -> None:
    bits = torch.tensor([0x7FFFFFFF, 0x7F800001, -1, 0x7FC00000], dtype=torch.int32).repeat(100)
    rounded = torch.empty(400, dtype=torch.bfloat16)
    copy_rounded_(rounded, bits.view(torch.float32))
    assert bool(rounded.isnan().all())


def test_rounding_any_layout_and_count() -> None:
    values = torch.randn(5, 7, 3)
    target = torch.empty(3, 7, 5, dtype=torch.bfloat16).transpose(0, 2)
    copy_rounded_(target, values.clone())
    assert torch.allclose(target.float(), values, rtol=2**-7)


@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_small_steps_count_in_bfloat16(momentum: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounded to nearest the weights do not move; rounded at random they move as they should, on average."""
    monkeypatch.setattr(in_backward, "CHUNK", 1000)  # so that there are many
    inputs = torch.ones(1, 100).bfloat16()
    steps = {}
    for is_random in (False, True):
        model = nn.Linear(100, 300, bias=False).bfloat16()
        nn.init.constant_(model.weight, 1.0)
        settings = TrainerSettings(
            learning_rate=1e-4, momentum=momentum, stochastic_rounding=is_random, loss_fn=lambda m, x: m(x).sum()
        )
        LightTrainer(model, [inputs], settings).train_epochs(10)
        steps[is_random] = 1 - model.weight.detach().double()
    assert not steps[False].any()
    expected = 1e-3 if not momentum else 1e-4 * sum(2 - 2.0**-k for k in range(10))
    spread = (expected * 2**-8) ** 0.5 / 30_000**0.5  # of a mean of draws from steps of 2^-8
    assert float(steps[True].mean()) == pytest.approx(expected, abs=4 * spread)
    assert bool((steps[True] % 2**-8 == 0).all())


@pytest.mark.parametrize("shape", [(), (7,), (6, 2, 3, 3)])
def test_any_shape_and_layout_is_stepped_in_chunks(shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(in_backward, "CHUNK", 20)
    weight = nn.Parameter(torch.randn(shape).bfloat16())
    if len(shape) == 4:
        weight = nn.Parameter(weight.detach().to(memory_format=torch.channels_last))
    before = weight.detach().double()
    optimizer = in_backward.PartialSGD([weight], learning_rate=1.0, momentum=0.9, stochastic_rounding=True)
    for _ in range(2):
        weight.grad = torch.ones_like(weight)
        optimizer.step()
    assert torch.allclose(weight.detach().double(), before - 1 - 1.9, atol=0.05)


# ------------------------------------------------------------------------------------------------------------- pieces


def train_pieces(learning_rate: float, max_batch_size: int | None, options: dict[str, Any]) -> Tensor:
    """Returns the weights after two batches of 12 and 7 samples, of which the largest pieces are as given."""
    model, data = make_mlp(), make_data()
    batches = [data, (data[0][:7], data[1][:7])]
    settings = TrainerSettings(learning_rate=learning_rate, max_batch_size=max_batch_size, **options)
    LightTrainer(model, batches, settings).train_epochs(1)
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_adamw_accumulates_the_gradient_of_the_whole_batch() -> None:
    whole = train_pieces(LR, None, OPTIMIZERS["adamw"])
    assert torch.allclose(train_pieces(LR, 5, OPTIMIZERS["adamw"]), whole, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", ["plain", "momentum", "decay", "momentum and decay"])
def test_pieces_are_one_step_to_first_order(name: str) -> None:
    """What they differ in shrinks with the square of the learning rate."""
    errors = [
        float((train_pieces(lr, 5, OPTIMIZERS[name]) - train_pieces(lr, None, OPTIMIZERS[name])).norm())
        for lr in (2e-3, 1e-3)
    ]
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.05)


def test_every_sample_is_seen_once() -> None:
    seen: list[list[int]] = []

    def record(model: nn.Module, batch: dict[str, Any]) -> Tensor:
        seen.append(batch["x"][0].flatten().long().tolist())
        assert batch["scale"] == 2.0
        assert batch["table"].shape == (3, 3)
        assert batch["mask"] is None
        loss: Tensor = model(batch["x"][0]).mean()
        return loss

    numbers = torch.arange(11.0)[:, None]
    batch = {"x": (numbers, numbers), "scale": 2.0, "table": torch.ones(3, 3), "mask": None}
    settings = TrainerSettings(learning_rate=1e-6, max_batch_size=4, loss_fn=record)
    model = nn.Linear(1, 1)
    with torch.no_grad():
        expected = float(model(numbers).mean())
    report = LightTrainer(model, [batch], settings).train_epochs(1)
    assert [len(piece) for piece in seen] == [3, 4, 4]
    assert list(itertools.chain(*seen)) == list(range(11))
    assert (report["num_batches"], report["num_samples"], report["num_steps"]) == (1, 11, 1)
    assert report["mean_loss"] == pytest.approx(expected, abs=1e-3)


class Pair(NamedTuple):
    inputs: Tensor
    names: Any


def test_batches_keep_their_types_when_split() -> None:
    (first, share), _ = split_batch(Pair(torch.arange(5), [torch.arange(5), 3]), 3)
    assert isinstance(first, Pair)
    assert (first.inputs.tolist(), first.names[0].tolist(), first.names[1], share) == ([0, 1], [0, 1], 3, 0.4)
    assert split_batch("text", None) == [("text", 1.0)]
    assert count_samples({"a": torch.ones(2), "input_ids": torch.ones(3)}) == 3
    assert count_samples("text") is None


@pytest.mark.parametrize(
    ("batch", "match"),
    [
        ("text", "must hold tensors for max_batch_size to split it, but got str"),
        ({"x": torch.ones(4), "name": "text"}, "can split a batch of tensors, .* but this one holds a str"),
        ((torch.ones(4), ["a", "b", "c", "d"]), "holds a list with one item for each of its 4 samples"),
        ((torch.ones(3), [{"boxes": torch.ones(i, 4)} for i in (1, 2, 5)]), "holds a list with one item for each"),
    ],
)
def test_what_cannot_be_split_is_an_error(batch: Any, match: str) -> None:  # noqa: ANN401 - any batch
    with pytest.raises(ValueError, match=match):
        split_batch(batch, 2)


def test_batches_move_to_the_device() -> None:
    meta = torch.device("meta")
    batch = {"x": [torch.ones(2), 3], "y": Pair(torch.ones(2), "name")}
    moved = move_batch(batch, meta)
    assert (moved["x"][0].device, moved["x"][1], moved["y"].inputs.device, moved["y"].names) == (meta, 3, meta, "name")
    assert move_batch(batch, torch.device("cpu")) is batch
    assert move_batch(BatchEncoding({"input_ids": torch.ones(2)}), meta).input_ids.device == meta


# ---------------------------------------------------------------------------------------------------- losses and limits


def make_losses(values: list[float]) -> tuple[nn.Module, list[Tensor], Callable[[nn.Module, Tensor], Tensor]]:
    return (
        nn.Linear(1, 1, bias=False),
        [torch.tensor([value]) for value in values],
        lambda m, x: (m(x[:, None]) * 0 + x).mean(),
    )


@each_optimizer
def test_losses_that_are_not_finite_are_counted_and_skipped(options: dict[str, Any]) -> None:
    values = [float("nan"), 2.0, 4.0, float("inf"), 6.0]
    model, batches, loss_fn = make_losses(values)
    settings = TrainerSettings(loss_fn=loss_fn, nonfinite_limit=0.1, max_batch_size=1, **options)
    trainer = LightTrainer(model, batches, settings)
    report = trainer.train_epochs(1)
    assert report == {
        "num_batches": 5,
        "num_samples": 5,
        "num_steps": 5,
        "num_epochs": 1,
        "mean_loss": 4.0,
        "first_loss": None,
        "num_nonfinite_losses": 2,
        "learning_rate": 1e-4,
    }
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert bool(torch.isfinite(next(model.parameters())).all())


def test_a_batch_with_a_broken_piece_is_not_stepped_by_adamw_and_no_further_by_sgd() -> None:
    for use_sgd in (False, True):
        model = nn.Linear(1, 1, bias=False)
        with torch.no_grad():
            model.get_parameter("weight").fill_(1.0)
        batches = [torch.tensor([-100.0, float("nan"), 3.0]), torch.tensor([5.0, 5.0, 5.0])]
        settings = TrainerSettings(
            loss_fn=lambda m, x: (m(x[:, None]) + x).mean(), use_sgd=use_sgd, max_batch_size=1, learning_rate=0.3
        )
        trainer = LightTrainer(model, batches, settings)
        trainer.train_steps(2)
        weight = model.weight.item()
        assert weight == pytest.approx(1 - 0.1 * (-100.0 + 15.0) if use_sgd else 1 - 0.3, rel=1e-5)


@pytest.mark.parametrize(("num_bad", "limit"), [(2, 0.1), (1, 0.0), (5, 0.4)])
def test_too_many_are_an_error(num_bad: int, limit: float) -> None:
    model, batches, loss_fn = make_losses([1.0] * (10 - num_bad) + [float("nan")] * num_bad + [1.0] * 90)
    trainer = LightTrainer(model, batches, TrainerSettings(loss_fn=loss_fn, nonfinite_limit=limit))
    with pytest.raises(ValueError, match=rf"at most {limit:.0%} .* but {num_bad} of 10 are; lower the learning rate"):
        trainer.train_epochs(1)
    at_limit = TrainerSettings(loss_fn=loss_fn, nonfinite_limit=num_bad / 10)
    assert LightTrainer(model, batches, at_limit).train_epochs(1)["num_nonfinite_losses"] == num_bad


def test_a_stretch_without_a_finite_loss_is_an_error() -> None:
    model, batches, loss_fn = make_losses([float("nan")] * 3)
    trainer = LightTrainer(model, batches, TrainerSettings(loss_fn=loss_fn, nonfinite_limit=1.0))
    with pytest.raises(ValueError, match="3 of 3 are"):
        trainer.train_epochs(1)


# ---------------------------------------------------------------------------------------------------------- going on


def make_dropout_model(dtype: torch.dtype) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), nn.Dropout(0.3), nn.Linear(8, 3)).to(dtype)


class Eager:
    """Draws the order when an epoch starts, not when its first batch is asked for."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.data = make_data(dtype)

    def __iter__(self) -> Iterator[Any]:
        order = torch.randperm(12)
        return iter([(self.data[0][chosen], self.data[1][chosen]) for chosen in order.split(3)])


def make_loader(dtype: torch.dtype, kind: str = "shuffling") -> Iterable[Any]:
    if kind == "eager":
        return Eager(dtype)
    generator = torch.Generator().manual_seed(7) if kind == "own generator" else None
    return DataLoader(TensorDataset(*make_data(dtype)), batch_size=3, shuffle=True, generator=generator)


def save_and_load(state: dict[str, Any]) -> dict[str, Any]:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    loaded: dict[str, Any] = torch.load(file, weights_only=True)
    return loaded


@each_optimizer
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    ("first", "kind"), [(2, "shuffling"), (4, "shuffling"), (6, "own generator"), (8, "own generator"), (7, "eager")]
)
def test_going_on_is_bit_identical(dtype: torch.dtype, first: int, options: dict[str, Any], kind: str) -> None:
    """In the middle of an epoch of four batches and at its end, with shuffling, dropout and stochastic rounding."""
    settings = TrainerSettings(learning_rate=0.01, max_batch_size=2, **options)
    straight = make_dropout_model(dtype)
    LightTrainer(straight, make_loader(dtype, kind), settings).train_steps(9)
    stopped = make_dropout_model(dtype)
    trainer = LightTrainer(stopped, make_loader(dtype, kind), settings)
    trainer.train_steps(first)
    state, weights = save_and_load(trainer.state()), copy_weights(stopped)
    trainer.train_steps(9 - first)  # goes on itself
    assert_same(stopped, straight)
    resumed = make_dropout_model(dtype)
    resumed.load_state_dict(weights)
    torch.manual_seed(99)  # has no say
    other = LightTrainer(resumed, make_loader(dtype, kind), settings)
    other.load_state(state)
    assert other.num_steps == first
    report = other.train_steps(9 - first)
    assert_same(resumed, straight)
    assert (report["num_steps"], report["num_batches"], report["num_epochs"]) == (9, 9 - first, 2)


@pytest.mark.parametrize("name", ["momentum", "adamw"])
def test_a_state_does_not_change_later(name: str) -> None:
    settings = TrainerSettings(learning_rate=LR, **OPTIMIZERS[name])
    trainer = LightTrainer(make_mlp(torch.float32), make_batches("mlp"), settings)
    trainer.train_steps(1)
    state = trainer.state()
    copied = copy.deepcopy(state)
    trainer.train_steps(2)
    pairs = zip(tree_leaves(copied), tree_leaves(state), strict=True)
    assert all(torch.equal(*pair) if isinstance(pair[0], Tensor) else pair[0] == pair[1] for pair in pairs)


def test_the_order_is_shuffled_anew_each_epoch_and_a_function_of_the_seed() -> None:
    orders: list[list[float]] = []
    for seed in (0, 0, 1):
        seen: list[float] = []

        def record(model: nn.Module, batch: list[Tensor]) -> Tensor:
            seen.extend(batch[0].tolist())  # noqa: B023 - called here
            loss: Tensor = model(batch[0][:, None]).mean()
            return loss

        loader = DataLoader(TensorDataset(torch.arange(8.0)), batch_size=2, shuffle=True)
        LightTrainer(nn.Linear(1, 1), loader, TrainerSettings(seed=seed, loss_fn=record)).train_epochs(2)
        assert sorted(seen[:8]) == sorted(seen[8:]) == list(range(8))
        assert seen[:8] != seen[8:]
        orders.append(seen)
    assert orders[0] == orders[1] != orders[2]


def test_an_interrupted_batch_is_done_again() -> None:
    straight, interrupted = make_dropout_model(torch.float32), make_dropout_model(torch.float32)
    LightTrainer(straight, make_loader(torch.float32), TrainerSettings(learning_rate=LR)).train_steps(4)
    is_armed = True

    def fail_once(model: nn.Module, batch: Any) -> Tensor:  # noqa: ANN401 - any batch
        nonlocal is_armed
        if trainer.num_steps == 2 and is_armed:
            is_armed = False
            raise KeyboardInterrupt("once")
        return compute_loss(model, batch)

    settings = TrainerSettings(learning_rate=LR, loss_fn=fail_once)
    trainer = LightTrainer(interrupted, make_loader(torch.float32), settings)
    with pytest.raises(KeyboardInterrupt, match="once"):
        trainer.train_steps(4)
    trainer.train_steps(2)
    assert_same(interrupted, straight)


def test_epochs_and_steps() -> None:
    trainer = LightTrainer(make_mlp(torch.float32), make_batches("mlp"), TrainerSettings())
    assert trainer.train_epochs(2)["num_batches"] == 6
    assert (trainer.num_steps, trainer.num_epochs) == (6, 2)
    assert trainer.train_steps(2)["num_batches"] == 2
    assert trainer.train_epochs(1)["num_batches"] == 1, "the rest of the epoch"
    assert trainer.train_steps(3)["num_batches"] == 3
    assert (trainer.num_steps, trainer.num_epochs) == (12, 3), "the end of the fourth has not been seen"
    assert trainer.train_epochs(1)["num_batches"] == 3, "a whole one, as nothing was left of the fourth"
    assert (trainer.num_steps, trainer.num_epochs) == (15, 5)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"seed": 1}, r"\(saved, own\) are {'seed': \(42, 1\)}"),
        ({"use_sgd": False}, "use_sgd"),
        ({"learning_rate": 1.0}, "learning_rate"),
    ],
)
def test_a_state_of_other_settings_is_an_error(change: dict[str, Any], match: str) -> None:
    state = LightTrainer(make_mlp(torch.float32), make_batches("mlp"), TrainerSettings()).state()
    other = LightTrainer(make_mlp(torch.float32), make_batches("mlp"), TrainerSettings(**change))
    with pytest.raises(ValueError, match=match):
        other.load_state(state)


def test_a_state_of_other_data_or_of_another_model_is_an_error() -> None:
    settings = TrainerSettings(
        momentum=0.9, loss_fn=lambda model, _: torch.stack([p.sum() for p in model.parameters()]).sum()
    )
    trainer = LightTrainer(make_mlp(torch.float32), make_batches("mlp"), settings)
    trainer.train_steps(2)
    state = trainer.state()
    with pytest.raises(ValueError, match=r"momentum of '0\.weight' has shape .* but the model has shape"):
        LightTrainer(nn.Sequential(nn.Linear(2, 2)), [1], settings).load_state(state)
    with pytest.raises(ValueError, match=r"momentum of '2\.weight' .* but the model has no such trainable parameter"):
        LightTrainer(make_mlp(torch.float32)[:2], [1], settings).load_state(state)
    other_loader = LightTrainer(make_mlp(torch.float32), make_loader(torch.float32, "own generator"), settings)
    with pytest.raises(ValueError, match=r"must have 0 generators of its own, .* but has 1"):
        other_loader.load_state(state)
    short = LightTrainer(make_mlp(torch.float32), make_batches("mlp")[:1], settings)
    short.load_state(state)
    with pytest.raises(ValueError, match="must give the 2 batches that were done of this epoch, but gave 1"):
        short.train_steps(1)


# -------------------------------------------------------------------------------------------------- the caller's things


@each_optimizer
def test_modes_checkpointing_and_generators_come_back(options: dict[str, Any]) -> None:
    model = make_tied_llama()
    model.eval()
    model.get_submodule("model.layers.1").train()
    modes = {name: module.training for name, module in model.named_modules()}
    seed_everything(3)
    expected = (torch.rand(1), np.random.rand(), random.random())  # noqa: NPY002, S311 - the global ones
    seen: list[bool] = []

    def record(model: nn.Module, batch: Any) -> Tensor:  # noqa: ANN401 - any batch
        seen.extend(module.training for module in model.modules())
        seen.append(bool(model.is_activation_checkpointing))
        if len(seen) > 3 * len(modes):
            raise KeyboardInterrupt("stop")
        return compute_loss(model, batch)

    trainer = LightTrainer(model, make_batches("tied llama"), TrainerSettings(loss_fn=record, **options))
    for stretch in range(2):
        seed_everything(3)
        if stretch:
            with pytest.raises(KeyboardInterrupt, match="stop"):
                trainer.train_steps(3)
        else:
            trainer.train_steps(1)
        assert (torch.rand(1), np.random.rand(), random.random()) == expected  # noqa: NPY002, S311 - as above
        assert {name: module.training for name, module in model.named_modules()} == modes
        assert not model.is_activation_checkpointing
    assert all(seen)


def test_checkpointing_that_was_on_stays_on() -> None:
    model: Any = make_tied_llama()
    model.activation_checkpointing_enable({"use_reentrant": False})
    LightTrainer(model, make_batches("tied llama"), TrainerSettings()).train_steps(1)
    assert model.is_activation_checkpointing is True


def test_the_older_names_of_checkpointing_are_known() -> None:
    class Older(nn.Linear):
        supports_gradient_checkpointing = True
        is_gradient_checkpointing = False
        calls: list[Any]

        def gradient_checkpointing_enable(self, gradient_checkpointing_kwargs: dict[str, Any]) -> None:
            self.calls = [gradient_checkpointing_kwargs]

        def gradient_checkpointing_disable(self) -> None:
            self.calls.append("off")

    model = Older(5, 3)
    LightTrainer(model, make_batches("mlp"), TrainerSettings()).train_steps(1)
    assert model.calls == [{"use_reentrant": False}, "off"]


def test_what_cannot_be_trained_on_is_an_error() -> None:
    batches = make_batches("mlp")
    with pytest.raises(TypeError, match="must start anew each epoch, but a list_iterator is used up after one"):
        LightTrainer(make_mlp(torch.float32), iter(batches), TrainerSettings())
    with pytest.raises(ValueError, match="at least one batch each epoch, but gave none"):
        LightTrainer(make_mlp(torch.float32), [], TrainerSettings()).train_epochs(1)

    class Once:
        left = batches

        def __iter__(self) -> Iterator[Any]:
            while self.left:
                yield self.left[0]
                self.left = self.left[1:]

    with pytest.raises(ValueError, match="at least one batch each epoch, but gave none"):
        LightTrainer(make_mlp(torch.float32), Once(), TrainerSettings()).train_epochs(2)
    with pytest.raises(ValueError, match="norm_l1 must be 0 for a model without batch-norm weights"):
        LightTrainer(make_mlp(torch.float32), batches, TrainerSettings(norm_l1=0.1))
    with pytest.raises(ValueError, match="none requires a gradient"):
        LightTrainer(make_mlp(torch.float32).requires_grad_(requires_grad=False), batches, TrainerSettings())
    with pytest.raises(ValueError, match="num_steps must be an integer of at least 1, got 0"):
        LightTrainer(make_mlp(torch.float32), batches, TrainerSettings()).train_steps(0)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"learning_rate": -0.1}, "learning_rate must be at least 0, got -0.1"),
        ({"learning_rate": float("nan")}, "learning_rate must be at least 0, got nan"),
        ({"momentum": 1.0}, r"momentum must be in \[0, 1\), got 1.0"),
        ({"momentum": 0.9, "use_sgd": False}, "momentum must be 0 for AdamW"),
        ({"weight_decay": -1.0}, "weight_decay must be at least 0"),
        ({"norm_l1": -1.0}, "norm_l1 must be at least 0"),
        ({"nonfinite_limit": 1.5}, r"nonfinite_limit must be in \[0, 1\]"),
        ({"max_batch_size": 0}, "max_batch_size must be an integer of at least 1 or None, got 0"),
    ],
)
def test_settings_out_of_range_are_errors(options: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        TrainerSettings(**options)


def test_adamw_of_8_bits_is_that_of_bitsandbytes(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = TrainerSettings(use_sgd=False, adamw_bits=8, learning_rate=LR)
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(ModuleNotFoundError, match=r"adamw_bits=8 needs bitsandbytes, .*pip install bitsandbytes"):
        LightTrainer(make_mlp(torch.float32), make_batches("mlp"), settings)
    stand_in: Any = ModuleType("bitsandbytes")
    stand_in.optim = ModuleType("optim")
    stand_in.optim.AdamW8bit = torch.optim.Adagrad
    monkeypatch.setitem(sys.modules, "bitsandbytes", stand_in)
    model, expected = make_mlp(torch.float32), make_mlp(torch.float32)
    LightTrainer(model, make_batches("mlp"), settings).train_steps(1)
    optimizer = torch.optim.Adagrad(expected.parameters(), LR)
    compute_loss(expected, make_batches("mlp")[0]).backward()
    optimizer.step()
    assert_same(model, expected)


def test_what_is_used_is_said(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> None:
    settings = TrainerSettings(momentum=0.9, weight_decay=0.1, max_batch_size=2, progress=True)
    with caplog.at_level(logging.INFO):
        trainer = LightTrainer(make_tied_llama().bfloat16(), make_batches("tied llama"), settings)
        trainer.train_epochs(1)
    assert trainer.describe() == (
        "SGD inside the backward pass, lr 0.0001, momentum 0.9, weight decay 0.1, stochastic rounding in bfloat16, "
        "activation checkpointing, at most 2 samples at once"
    )
    assert trainer.describe() in caplog.messages[0]
    assert "step 3: trained on 3 batches, mean loss 3." in caplog.messages[-1]
    assert "0 skipped" in caplog.messages[-1]
    assert "3/3" in capfd.readouterr().err
    assert LightTrainer(make_mlp(torch.float32), [1], TrainerSettings(use_sgd=False)).describe() == (
        "AdamW with 32-bit state, lr 0.0001"
    )
