"""What is checked in each process of sharded models: they do, gathered, what a plain model does."""

import copy
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

import lottery_tickets
from lottery_tickets import (
    apply_mask,
    check_held,
    compute_layerwise_magnitude_ticket,
    compute_linear_connectivity,
    compute_loss_landscape,
    compute_magnitude_importance,
    compute_pruning_robustness,
    compute_sparsity,
    compute_ticket_overlap,
    create_importance_mask,
    create_magnitude_mask,
    create_random_mask,
    create_unit_mask,
    hold_mask,
    masked,
    remove_mask,
    shuffle_mask,
    validate_pruning_correctness,
)
from lottery_tickets._core.selection import largest
from lottery_tickets.masks import Mask
from tests.sharded import Stack, make_sharded

KINDS = ("fsdp", "tensor", "both")
STEPS = 4


def make_whole(tensor: Any) -> Tensor:  # noqa: ANN401 - a DTensor or another
    """Returns a tensor whole."""
    whole: Tensor = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
    return whole


def gather(model: nn.Module) -> dict[str, Tensor]:
    """Returns the state of a model, whole."""
    return {name: make_whole(value) for name, value in model.state_dict().items()}


def draw_batch(step: int) -> tuple[Tensor, Tensor]:
    """Returns a batch, the same in each process."""
    generator = torch.Generator().manual_seed(step)
    return torch.randn(8, 6, generator=generator), torch.randint(5, (8,), generator=generator)


def check_masks(kind: str) -> list[str]:
    """Compares all that makes, compares and applies masks; returns the names that a mask has."""
    plain, sharded = Stack(), make_sharded(kind)
    expected, found = create_magnitude_mask(plain, 0.7), create_magnitude_mask(sharded, 0.7)
    assert found.gather() == expected
    assert found == expected  # and so is the comparison of the two
    assert (found.num_kept, found.layer_sparsity()) == (expected.num_kept, expected.layer_sparsity())
    assert found.shapes == expected.shapes
    local = sum(bits.numel() for bits in found.bits.values())
    assert local < expected.nbytes
    for name, kept in found.items():
        assert torch.equal(make_whole(kept), expected[name]), name
    sparser = create_magnitude_mask(sharded, 0.9, within=found)
    assert sparser.is_subset(found)
    assert (found & ~sparser).gather() == expected & ~create_magnitude_mask(plain, 0.9)
    overlap = compute_ticket_overlap(found, sparser)
    assert overlap == compute_ticket_overlap(expected, create_magnitude_mask(plain, 0.9))
    scores = {name: value - 0.01 for name, value in sharded.named_parameters() if name.endswith("up.weight")}
    plain_scores = {name: value - 0.01 for name, value in plain.named_parameters() if name.endswith("up.weight")}
    assert create_importance_mask(scores, 0.5).gather() == create_importance_mask(plain_scores, 0.5)
    tickets = [compute_layerwise_magnitude_ticket(model, 0.7) for model in (plain, sharded)]
    assert tickets[1]["thresholds"] == tickets[0]["thresholds"]
    magnitudes = [compute_magnitude_importance(model) for model in (plain, sharded)]
    assert create_importance_mask(magnitudes[1], 0.7).gather() == create_importance_mask(magnitudes[0], 0.7)
    for scope in ("global", "row", "erk"):
        random = create_random_mask(sharded, 0.6, seed=3, scope=scope)
        assert random.gather() == create_random_mask(plain, 0.6, seed=3, scope=scope)
    assert create_random_mask(found, 0.6, seed=3).gather() == create_random_mask(expected, 0.6, seed=3)
    assert shuffle_mask(found, 5).gather() == shuffle_mask(expected, 5)
    apply_mask(plain, expected)
    apply_mask(sharded, found)
    assert compute_sparsity(sharded) == compute_sparsity(plain)
    for name, value in gather(sharded).items():
        assert torch.equal(value, plain.state_dict()[name]), name
    return list(found)


def check_plain_mask_on_sharded(kind: str) -> None:
    """A mask that was made in one process prunes a sharded model, and the reverse."""
    plain, sharded = Stack(), make_sharded(kind)
    mask = create_magnitude_mask(plain, 0.5)
    apply_mask(sharded, mask)
    other = create_magnitude_mask(sharded, 0.8)
    apply_mask(plain, mask)
    for name, value in gather(sharded).items():
        assert torch.equal(value, plain.state_dict()[name]), name
    apply_mask(plain, other)
    assert compute_sparsity(plain) == other.sparsity


def clip_gradients(model: nn.Module, most: float) -> float:
    """Scales gradients down to a norm; returns the norm that they had. torch's own takes no mixture of DTensors."""
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    norm = float(torch.stack([make_whole(g).double().square().sum() for g in gradients]).sum().sqrt())
    for gradient in gradients:
        gradient.mul_(min(1.0, most / norm))
    return norm


def train(model: nn.Module, optimizer: torch.optim.Optimizer, *, clip: bool) -> list[float]:
    """Trains a few steps on batches that all processes share; returns the losses."""
    losses = []
    for step in range(STEPS):
        inputs, targets = draw_batch(step)
        inputs = inputs.to(next(model.parameters()).dtype)
        loss = functional.cross_entropy(model(inputs), targets)
        loss.backward()
        if clip:
            clip_gradients(model, 0.5)
        optimizer.step()
        optimizer.zero_grad(set_to_none=bool(step % 2))
        losses.append(float(loss.detach()))
    return losses


def check_holding(kind: str, optimizer: str, clip: bool) -> None:
    """A held sharded model trains as the held plain one does, and stays pruned."""
    plain, sharded = Stack().double(), make_sharded(kind, dtype=torch.float64)
    mask = create_magnitude_mask(plain, 0.7)
    options: dict[str, Any] = {"lr": 0.1, **({"momentum": 0.9} if optimizer == "SGD" else {})}
    losses = []
    for model in (plain, sharded):
        hold_mask(model, mask)
        stepper = getattr(torch.optim, optimizer)(model.parameters(), **options)
        losses.append(train(model, stepper, clip=clip))
        assert check_held(model) == mask
    # Gradients of shards add up in another order: the rounding of float64 over four steps, and much below a leak.
    torch.testing.assert_close(torch.tensor(losses[0]), torch.tensor(losses[1]), rtol=1e-9, atol=1e-9)
    whole, own = gather(sharded), plain.state_dict()
    for name, value in whole.items():
        torch.testing.assert_close(value, own[name], rtol=1e-9, atol=1e-9)
    for name, kept in mask.items():
        assert not whole[name][~kept].any()
    remove_mask(sharded)
    train(sharded, torch.optim.SGD(sharded.parameters(), lr=0.1), clip=False)
    assert any(gather(sharded)[name][~kept].any() for name, kept in mask.items())


def check_gradients_while_held(kind: str) -> None:
    """After a backward pass the gradients are zero at pruned weights, so that their norm is the plain one's."""
    plain, sharded = Stack(), make_sharded(kind)
    mask = create_magnitude_mask(plain, 0.7)
    norms = []
    for model in (plain, sharded):
        hold_mask(model, mask)
        inputs, targets = draw_batch(0)
        functional.cross_entropy(model(inputs), targets).backward()
        norms.append(clip_gradients(model, 1e9))
    assert abs(norms[0] - norms[1]) < 1e-5


def check_writes_are_undone(kind: str) -> None:
    """What is written to a pruned weight between steps is zero in the next forward pass, also without gradients."""
    plain, sharded = Stack(), make_sharded(kind)
    mask = create_magnitude_mask(plain, 0.7)
    inputs, _ = draw_batch(0)
    outputs = []
    for model in (plain, sharded):
        hold_mask(model, mask)
        with torch.no_grad():
            for _ in range(2):  # the outermost module has gathered its parameters when it is called again
                model(inputs)
            modules: list[Any] = list(model.modules())
            for module in modules:
                if hasattr(module, "reshard"):
                    module.reshard()
            for parameter in model.parameters():
                parameter.add_(1.0)
            outputs.append(model(inputs))
    torch.testing.assert_close(outputs[0], make_whole(outputs[1]))


def check_masked(kind: str) -> None:
    """Within `masked` a sharded model computes as the plain one does, and is as before afterwards."""
    plain, sharded = Stack(), make_sharded(kind)
    mask, (inputs, targets) = create_magnitude_mask(plain, 0.7), draw_batch(0)
    before = gather(sharded)
    with torch.no_grad():
        dense = sharded(inputs)
    outputs, gradients = [], []
    for model in (plain, sharded):
        with masked(model, mask):
            result = model(inputs)
            functional.cross_entropy(result, targets).backward()
            outputs.append(result.detach())
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
        model.zero_grad()
    torch.testing.assert_close(outputs[0], outputs[1])
    for name, gradient in gradients[1].items():
        whole = make_whole(gradient)
        torch.testing.assert_close(whole, gradients[0][name])
    for name, value in gather(sharded).items():
        assert torch.equal(value, before[name]), name
    with torch.no_grad():
        assert torch.equal(sharded(inputs), dense)


def check_files(kind: str, folder: str) -> None:
    """A sharded mask is written once, and is the plain one when it is loaded."""
    mask = create_magnitude_mask(make_sharded(kind), 0.7)
    path = Path(folder) / f"{kind}.safetensors"
    mask.save(path)
    assert Mask.load(path) == create_magnitude_mask(Stack(), 0.7)
    assert Mask.load(path).digest == mask.digest


def refuse_one_weight(kind: str) -> None:
    """One process has a weight that is not finite; all must say so."""
    model = make_sharded(kind)
    if torch.distributed.get_rank() == torch.distributed.get_world_size() - 1:
        for name, parameter in model.named_parameters():
            local = parameter.to_local() if hasattr(parameter, "to_local") else parameter
            if name.startswith("blocks.1.up"):
                local.detach().fill_(torch.nan)
    create_magnitude_mask(model, 0.5)


def copy_sharded(kind: str) -> Any:  # noqa: ANN401 - whatever comes
    """A deepcopy of a sharded mask cannot be, and says why."""
    return copy.deepcopy(create_magnitude_mask(make_sharded(kind), 0.5))


def die_on_the_way(place: int, folder: str) -> None:
    """One process ends while a mask is made; the others must say so, and no file is left."""
    model = make_sharded("fsdp")
    if torch.distributed.get_rank() == place:
        with patch.object(largest, "_count_here", lambda *_: os.kill(os.getpid(), signal.SIGKILL)):
            create_magnitude_mask(model, 0.5)
    create_magnitude_mask(model, 0.5).save(Path(folder) / "mask.safetensors")


def check_scores(score: str) -> None:
    """Scores under data parallelism are those of one process that sees all samples."""
    model, compute = Stack(), getattr(lottery_tickets, score)
    samples = [draw_batch(step) for step in range(6)]
    rank, world = torch.distributed.get_rank(), torch.distributed.get_world_size()
    inputs, targets = (torch.cat([batch[side] for batch in samples]) for side in (0, 1))
    own = [
        (inputs[rank::world][start : start + 5], targets[rank::world][start : start + 5]) for start in range(0, 48, 5)
    ]
    parallel = DistributedDataParallel(model)
    found = compute(parallel, [batch for batch in own if len(batch[0])], num_samples=30)
    expected = compute(model, [(inputs[:30], targets[:30])], num_samples=30)
    assert found.report["num_samples"] == expected.report["num_samples"] == 30
    for name, scores in expected.items():
        # float32 sums in another order
        torch.testing.assert_close(found[name], scores, rtol=1e-4, atol=1e-6 * float(scores.abs().max()))
    assert all(parameter.grad is None for parameter in model.parameters())


def list_refused(kind: str) -> list[str]:
    """Returns what is said by what needs whole weights, of a sharded model."""
    model, data = make_sharded(kind), [draw_batch(0)]
    mask = create_magnitude_mask(Stack(), 0.5)
    calls: list[Callable[[], Any]] = [
        lambda: create_unit_mask(model, 0.5, example_inputs=draw_batch(0)[0]),
        lambda: compute_pruning_robustness(model, data),
        lambda: compute_loss_landscape(model, data),
        lambda: validate_pruning_correctness(model, mask, data),
        lambda: compute_linear_connectivity(model, data, trainer_fn=lambda *_, **__: None, num_epochs=1),
    ]
    said = []
    for call in calls:
        try:
            call()
        except ValueError as error:
            said.append(str(error))
    return said
