"""What is checked in each process of scores of sharded models: they are those of one process that has all samples."""

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final, cast
from unittest.mock import patch

import pytest
import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor.parallel import SequenceParallel, parallelize_module
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from lottery_tickets import (
    ScoringOptions,
    compute_fisher_importance,
    compute_gradient_importance,
    compute_grasp_importance,
    compute_hybrid_importance,
    compute_snip_importance,
    compute_synflow_importance,
    compute_taylor_importance,
    compute_wanda_importance,
    create_importance_mask,
    create_magnitude_mask,
    hold_mask,
    record_movement,
)
from lottery_tickets._core.gradients.shares import Shares
from lottery_tickets.scores import ranks
from lottery_tickets.scores.importance import Importance
from tests.lottery_tickets._core.sharding.models import make_whole
from tests.lottery_tickets._core.sharding.scored import Idle, Odd, Picky, Tied, WithLoss
from tests.sharded import Stack, make_mesh, make_sharded

Batches = list[tuple[Tensor, Tensor]]
Score = Callable[[nn.Module, Any], Importance]

SCORES: Final[dict[str, Score]] = {
    "fisher": compute_fisher_importance,
    "exact": partial(compute_fisher_importance, kind="exact"),
    "clipped": partial(compute_fisher_importance, gradient_clip=0.5),
    "errors": partial(compute_fisher_importance, options=ScoringOptions(standard_errors=True, chunk_size=50)),
    "all parameters": partial(compute_fisher_importance, include="*"),
    "magnitudes": compute_gradient_importance,
    "gradients": partial(compute_gradient_importance, average="gradients"),
    "taylor": compute_taylor_importance,
    "units": partial(compute_taylor_importance, granularity="unit", norm="squared"),
    "snip": compute_snip_importance,
    "hybrid": compute_hybrid_importance,
    "hybrid in rows": partial(compute_hybrid_importance, rank_within="row"),
    "wanda": compute_wanda_importance,
    "grasp": compute_grasp_importance,
    "synflow": lambda model, _: compute_synflow_importance(model, (6,), 0.5, num_rounds=5),
}


def shard(model: nn.Module, *parts: nn.Module, **options: Any) -> nn.Module:  # noqa: ANN401 - those of torch
    """Returns a model under `fully_shard`, with some of its modules gathered by themselves."""
    for part in parts:
        fully_shard(part, mesh=make_mesh(torch.distributed.get_world_size()), **options)
    fully_shard(model, mesh=make_mesh(torch.distributed.get_world_size()), **options)
    return model


def draw_samples(num_samples: int = 23) -> tuple[Tensor, Tensor]:
    """Returns inputs and classes, the same in each process."""
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(num_samples, 6, dtype=torch.float64, generator=generator)
    return inputs, torch.randint(5, (num_samples,), generator=generator)


def take_own(samples: tuple[Tensor, Tensor], size: int = 5, reader: tuple[int, int] | None = None) -> Batches:
    """Returns the batches of this process: the last one has more, and a smaller last batch.

    Args:
        samples: Of all.
        size: Of a batch.
        reader: Which of how many it is that see other samples; all do by default.
    """
    rank, world = reader or (torch.distributed.get_rank(), torch.distributed.get_world_size())
    num_samples = len(samples[0])
    edges = [num_samples * place // (world + 1) for place in range(world)] + [num_samples]
    inputs, targets = (side[edges[rank] : edges[rank + 1]] for side in samples)
    return cut((inputs, targets), size)


def cut(samples: tuple[Tensor, Tensor], size: int) -> Batches:
    """Returns samples as batches."""
    return list(zip(*(side.split(size) for side in samples), strict=True))


def name(batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
    """Returns a batch as the arguments of a model."""
    return {"inputs": batch[0], "labels": batch[1]}


def compare(found: Importance, expected: Importance, tolerance: float = 0.0) -> None:
    """Compares scores, and what is told of them; float64 sums in another order give the same float32 numbers."""
    told = ("num_samples", "num_nonfinite_samples", "num_clipped_samples", "computed", "score", "num_idle_weights")
    assert [found.report.get(key) for key in told] == [expected.report.get(key) for key in told]
    pairs: list[tuple[Any, Tensor]] = [(found[name], expected[name]) for name in expected]
    pairs += [(error, (expected.standard_errors or {})[name]) for name, error in (found.standard_errors or {}).items()]
    for own, other in pairs:
        assert own.shape == other.shape
        whole = make_whole(own)
        torch.testing.assert_close(whole, other, rtol=tolerance, atol=tolerance * float(other.abs().max()))
    if not tolerance:
        assert create_importance_mask(found, 0.6).gather() == create_importance_mask(expected, 0.6)


def check(sharded: nn.Module, plain: nn.Module, compute: Score, samples: tuple[Tensor, Tensor]) -> Importance:
    """Compares the scores of a sharded model with those of one process; returns them."""
    found = compute(sharded, take_own(samples))
    compare(found, compute(plain, cut(samples, 4)))
    return found


@contextlib.contextmanager
def holding_one_weight() -> Iterator[None]:
    """Checks that no process holds the sums of more than one weight whole."""
    close = Shares._close

    def check_first(shares: Shares, *args: Any) -> None:  # noqa: ANN401 - handed on
        assert len(shares._whole) <= 1
        close(shares, *args)

    with patch.object(Shares, "_close", check_first):
        yield


def check_scores(names: Iterable[str], **options: Any) -> None:  # noqa: ANN401 - those of torch
    """Scores of a sharded model, which is as before afterwards."""
    plain, sharded = Stack().double(), Stack().double()
    for model in (plain, sharded):
        model.get_parameter("blocks.0.up.weight").requires_grad_(False)
    shard(sharded, *sharded.blocks, **options)
    with holding_one_weight():
        for name in names:
            found = check(sharded, plain, SCORES[name], draw_samples())
            assert all(score.to_local().numel() < score.numel() for score in cast(Any, found).values())
    check_as_before(sharded, plain)


def check_settling() -> None:
    """As many samples are read as one process reads of them; a process that has fewer goes on with the others."""
    rank, world = torch.distributed.get_rank(), torch.distributed.get_world_size()
    options = ScoringOptions(target_sparsity=0.5, tolerance=0.05)
    settled = partial(compute_fisher_importance, num_samples="auto", options=options)
    inputs, targets = draw_samples(300)
    plain, sharded = Stack().double(), Stack().double()
    parallel = DistributedDataParallel(Stack().double())
    shard(sharded, *sharded.blocks)
    for num_samples in (300, 100):
        expected = settled(plain, cut((inputs[:num_samples], targets[:num_samples]), 30))
        own = cut((inputs[:num_samples][rank::world], targets[:num_samples][rank::world]), 20)
        for model in (sharded, parallel):
            found = settled(model, own)
            compare(found, expected)
            for key in ("settling", "settled"):
                assert found.report[key] == expected.report[key]
        assert expected.report["settled"] is (num_samples == 300)
    uneven = cut((inputs[:40], targets[:40]), 20) if rank else cut((inputs[40:], targets[40:]), 20)
    assert settled(sharded, uneven).report["num_samples"] == 300


def check_few_scores() -> None:
    """Some scores, of modules that keep what they have gathered until the backward pass."""
    check_scores(["fisher", "hybrid in rows", "wanda"], reshard_after_forward=False)


def check_as_before(sharded: nn.Module, plain: nn.Module) -> None:
    """No gradient is left, the weights are those of the plain model, and both train alike."""
    inputs, targets = draw_samples(8)
    assert all(parameter.grad is None for parameter in sharded.parameters())
    for model in (plain, sharded):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        functional.cross_entropy(model(inputs), targets).backward()
        optimizer.step()
    for name, own in plain.named_parameters():
        other = sharded.get_parameter(name)
        assert own.requires_grad == other.requires_grad
        torch.testing.assert_close(make_whole(other), own.detach())


def check_kinds() -> None:
    """Models whose parts are gathered otherwise: all at once, without an outermost one, held, tied, with their loss."""
    samples = draw_samples()
    check(shard(Stack().double()), Stack().double(), compute_fisher_importance, samples)
    plain, layers = Stack().double(), Stack().double()
    for part in (*layers.blocks, layers.head):
        fully_shard(part, mesh=make_mesh(torch.distributed.get_world_size()))
    mask = create_magnitude_mask(plain, 0.5)
    for model in (plain, layers):
        hold_mask(model, mask)
    check(layers, plain, compute_fisher_importance, samples)
    check_as_before(layers, plain)
    idle = Idle().double()
    shard(idle, idle.get_submodule("blocks.1.up"), *idle.blocks)
    for compute in (compute_fisher_importance, SCORES["units"]):
        check(idle, Idle().double(), compute, samples)
    words = torch.randint(9, (23, 4), generator=torch.Generator().manual_seed(2))
    fisher_of_all = partial(compute_fisher_importance, include="*")
    check(shard(Tied().double()), Tied().double(), fisher_of_all, (words, words[:, 0]))
    plain, sharded = WithLoss().double(), WithLoss().double()
    found = compute_fisher_importance(shard(sharded, *sharded.blocks), [name(batch) for batch in take_own(samples)])
    compare(found, compute_fisher_importance(plain, cut(samples, 4)))


def check_other_torch() -> None:
    """A version of torch that lets nobody announce what FSDP gathers is refused in words."""
    model, method = shard(Stack()), FSDPModule.reset_iter_state
    del FSDPModule.reset_iter_state
    try:
        with pytest.raises(RuntimeError, match=r"need torch 2\.13 or later, whose processes"):
            compute_fisher_importance(model, [])
    finally:
        FSDPModule.reset_iter_state = method  # type: ignore[method-assign] # as it was


def check_accumulated() -> None:
    """Gradients that wait to be reduced, because more are to come, wait on."""
    plain, sharded = Stack().double(), Stack().double()
    for part in (*sharded.blocks, sharded):
        fully_shard(part, mesh=make_mesh(torch.distributed.get_world_size()))
    (inputs, targets), root = draw_samples(), cast(FSDPModule, sharded)
    for is_last in (False, True):
        root.set_requires_gradient_sync(is_last)
        for model in (plain, sharded):
            functional.cross_entropy(model(inputs), targets).backward()
        root.set_requires_gradient_sync(True)
        check(sharded, plain, compute_fisher_importance, (inputs, targets))
        assert all((parameter.grad is not None) is is_last for parameter in sharded.parameters())
    for name, parameter in plain.named_parameters():
        gradient: Any = sharded.get_parameter(name).grad
        torch.testing.assert_close(gradient.full_tensor(), parameter.grad)


def check_plain_weights() -> None:
    """Weights that each process has whole, in a model of which others are sharded."""
    plain, sharded = Stack().double(), Stack().double()
    fully_shard(sharded.blocks[0], mesh=make_mesh(torch.distributed.get_world_size()))
    scores: list[Any] = [compute_fisher_importance, compute_wanda_importance]
    for compute in scores:
        for include in (None, "head"):
            found = compute(sharded, take_own(draw_samples()), include=include)
            expected = compute(plain, cut(draw_samples(), 4), include=include)
            for name, score in expected.items():
                assert torch.equal(make_whole(found[name]), score)


def check_odd() -> None:
    """A model without a rule is run one sample at a time by all processes, however many each has."""
    clipped = partial(compute_fisher_importance, gradient_clip=0.3)
    by_unit = partial(compute_taylor_importance, granularity="unit")
    plain, sharded = Odd().double(), Odd().double()
    shard(sharded, sharded.second)
    for compute in (compute_fisher_importance, clipped, by_unit):
        found = check(sharded, plain, compute, draw_samples())
        assert "tanh, for which there is no rule" in str(found.report["reason"])
    check_as_before(sharded, plain)


def check_bad_samples() -> None:
    """A sample whose gradient is not finite is left out, where it lies, and counted everywhere."""
    samples = draw_samples()
    samples[0][[6, 20]] = (
        torch.inf
    )  # the first is in a batch that is run again for nothing, where there are two processes
    fisher = partial(compute_fisher_importance, options=ScoringOptions(nonfinite_limit=0.09))
    for kind in (Stack, Odd):
        plain, sharded = kind().double(), kind().double()
        found = check(shard(sharded), plain, fisher, samples)
        assert found.report["num_nonfinite_samples"] == 2
        with pytest.raises(ValueError, match="but 2 of 23 have"):
            compute_fisher_importance(sharded, take_own(samples))
        check_as_before(sharded, plain)


def check_small_batches() -> None:
    """Batches of one sample each, and of equal samples, are run whole too."""
    inputs, targets = draw_samples(9)
    sharded = Stack().double()
    shard(sharded, *sharded.blocks)
    for data, size in (((inputs, targets), 1), ((inputs[:1].expand(9, 6), targets[:1].expand(9)), 3)):
        found = compute_fisher_importance(sharded, take_own(data, size))
        compare(found, compute_fisher_importance(Stack().double(), cut(data, 4)))
        assert found.report["computed"] == "whole batches"


def check_low_precision() -> None:
    """Under a policy of FSDP scores are those of the model as it computes, here in bfloat16; a second time the same."""
    inputs, targets = draw_samples()
    sharded = Stack()
    shard(sharded, *sharded.blocks, mp_policy=MixedPrecisionPolicy(param_dtype=torch.bfloat16))
    found, again = (compute_fisher_importance(sharded, take_own((inputs.float(), targets))) for _ in range(2))
    assert all(torch.equal(make_whole(again[name]), make_whole(score)) for name, score in found.items())
    plain = compute_fisher_importance(Stack().bfloat16(), cut((inputs.bfloat16(), targets), 4))
    assert found.report["precision"] == plain.report["precision"] == "bfloat16"
    compare(found, plain, tolerance=0.02)  # bfloat16 has 8 bits


def check_many_ranks() -> None:
    """Of many scores ranks are found by counting, over all processes."""
    with patch.object(ranks, "CHUNK", 100):
        check_scores(["hybrid"])


def check_files(folder: str) -> None:
    """What a file tells of sharded scores is what it tells of whole ones."""
    plain, sharded = Stack().double(), Stack().double()
    files = [Path(folder) / f"{name}.json" for name in ("plain", "sharded")]
    compute_fisher_importance(plain, cut(draw_samples(), 4), path=files[0])
    compute_fisher_importance(shard(sharded), take_own(draw_samples()), path=files[1])
    told = [json.loads(file.read_text())["importance"]["scores"] for file in files]
    assert told[0] == told[1]


def check_copies() -> None:
    """Where shards are copied over a further dimension of the mesh, each process sees samples of its own too."""
    sharded = Stack().double()
    for part in (*sharded.blocks, sharded):
        fully_shard(part, mesh=make_mesh(2, 2))
    for name in ("snip", "hybrid", "wanda"):
        check(sharded, Stack().double(), SCORES[name], draw_samples())


def check_movement(kind: str) -> None:
    """Movement is recorded of what lies here."""
    inputs, targets = draw_samples(8)
    found = []
    for model in (Stack().double(), make_sharded(kind, dtype=torch.float64)):
        with record_movement(model, include="*") as movement:
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            for _ in range(3):
                optimizer.zero_grad()
                functional.cross_entropy(model(inputs), targets).backward()
                optimizer.step()
        found.append(movement.importance())
    assert found[0].report == found[1].report
    for name, score in found[0].items():
        torch.testing.assert_close(make_whole(found[1][name]), score)
    assert create_importance_mask(found[1], 0.5).gather() == create_importance_mask(found[0], 0.5)


def check_partial_movement() -> None:
    """Gradients that are parts of sums, as those of norms under sequence parallelism are, are summed first."""
    inputs, found = torch.randn(2, 8, 4, generator=torch.Generator().manual_seed(0)), []
    for is_sharded in (False, True):
        model = nn.Sequential(nn.LayerNorm(4))
        if is_sharded:
            mesh = make_mesh(torch.distributed.get_world_size())
            parallelize_module(model, mesh, {"0": SequenceParallel()})
        with record_movement(model, include="*") as movement:
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            for _ in range(2):
                local = inputs.chunk(torch.distributed.get_world_size(), 1)[torch.distributed.get_rank()]
                model(local if is_sharded else inputs).square().sum().backward()
                optimizer.step()
                optimizer.zero_grad()
        found.append(movement.importance())
    for name, score in found[0].items():
        torch.testing.assert_close(make_whole(found[1][name]), score)


def read_until(batches: Batches, place: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields batches; in one process the second cannot be read."""
    for number, batch in enumerate(batches):
        if number and torch.distributed.get_rank() == place:
            raise OSError("the disk is gone")
        yield batch


def list_errors(skips: bool) -> list[str]:
    """Returns what is said in each process where one of them fails; afterwards the model is scored as ever."""
    samples, rank, last = draw_samples(), torch.distributed.get_rank(), torch.distributed.get_world_size() - 1
    plain, sharded = Picky(skips=skips).double(), Picky(skips=skips).double()
    shard(sharded, *sharded.blocks)
    own = take_own(samples)
    strange = own if rank < last else [*own[:1], (own[0][0] + 100, own[0][1])]
    calls: list[Callable[[], Any]] = [
        lambda: compute_fisher_importance(sharded, strange),
        lambda: compute_wanda_importance(sharded, strange),
        lambda: compute_fisher_importance(sharded, read_until(own, last)),
        lambda: compute_fisher_importance(sharded, own if rank else []),
        lambda: compute_fisher_importance(sharded, own, num_samples=1),
    ]
    said = []
    for call in calls:
        with pytest.raises((OSError, ArithmeticError, ValueError, RuntimeError)) as caught:
            call()
        said.append(f"{caught.type.__name__}: {caught.value}")
    check(sharded, plain, compute_fisher_importance, samples)
    check_as_before(sharded, plain)
    return said
