"""A probe: samples on which it is measured what a network owes to the pairing of inputs and targets."""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, final

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import SyncBatchNorm, _BatchNorm

from lottery_tickets._core.batches.samples import find_tensors, join_batches, move_batch, require_samples
from lottery_tickets._core.checks import check_count
from lottery_tickets._core.determinism import make_generator, seeded
from lottery_tickets._core.measuring.running import evaluating, run_with
from lottery_tickets._core.names import unwrap
from lottery_tickets._core.objective import LossFunction, compute_loss
from lottery_tickets._core.sharding.together import ALONE, Together
from lottery_tickets._core.states import hash_state
from lottery_tickets._core.weights import Weights
from lottery_tickets.early_bird.exchanges import Exchange, Targets, draw_batches, join_exchanges, make_exchange
from lottery_tickets.early_bird.sample_losses import LargestTensor, SampleLosses, tell_samples

NUM_WITNESSES: Final = 8  # samples that are run with exchanged targets too
NUM_CHUNKS: Final = 32  # where a loss does not tell samples apart; fair signs agree in all once in 4 billion times
LARGEST: Final = 1 << 20  # elements of a tensor up to which batches are run together: of more, a call costs little more
SAME: Final = 1e-3  # of a loss, within which two ways to compute it agree


@final
@dataclass(frozen=True)
class Probe:
    """Data on which a watch measures whether a network has learnt from its inputs.

    Attributes:
        batches: A data loader, a list of batches, or one batch; of two samples or more each.
        loss_fn: `loss_fn(model, batch)` -> scalar mean loss, for batches of other kinds.
        targets: Where the targets of a batch are: keys of a dict, places in a tuple. By default the second of a pair,
            and of a dict "labels" (or "label", "targets", "target", "y"), or else its "input_ids".
        held_out: Whether the samples are not trained on. On samples that are, memorising looks like learning, so the
            data must show too that it can be learnt: a step on one half must help on the other, at the start.
        num_samples: How many are taken; by default 8 times the size of a batch, but at least 64 and at most 256.
        max_batch_size: Samples that are run at a time; None for those of a batch, or of several as long as the network
            makes no tensor of more than 2^20 elements of them.

    Raises:
        ValueError: When `num_samples` or `max_batch_size` is out of range.
    """

    batches: Iterable[Any]
    loss_fn: LossFunction | None = None
    targets: Targets | None = None
    held_out: bool = True
    num_samples: int | None = None
    max_batch_size: int | None = None

    def __post_init__(self) -> None:
        """Checks the numbers."""
        for name in ("num_samples", "max_batch_size"):
            value = getattr(self, name)
            if value is not None and check_count(name, value) < 2:  # noqa: PLR2004 - a pair
                raise ValueError(f"{name} must be at least 2, because samples exchange their targets, got {value}")


@final
@dataclass(frozen=True)
class Outcome:
    """What a network does on a probe, by unit: a pair of samples, or a chunk of them where a loss does not tell them.

    Attributes:
        gaps: The loss with exchanged targets minus the loss, 1-D float64 on the CPU.
        losses: The loss.
    """

    gaps: Tensor
    losses: Tensor


@final
class Measure:
    """Measures networks on a probe and leaves no trace: modes, buffers, gradients and generators are as before.

    Networks are in evaluation mode, but batch norm uses the statistics of the batch: those that it averages lag
    behind, and fit no network whose weights were put back. Under the null that targets do not depend on inputs, each
    gap has either sign with equal chance, whatever the network: the test of them is exact.

    Args:
        probe: The data.
        model: Any network that the data is for; decides whether the loss tells samples apart.
        seed: Of the sample and of the pairs.
        together: The processes that share the model, each of which measures it.

    Raises:
        TypeError: When the model refuses a batch, or the loader is an iterator.
        ValueError: When the targets are not known, there are too few samples, or processes have others.
    """

    def __init__(self, probe: Probe, model: nn.Module, seed: int, together: Together = ALONE) -> None:
        self.probe, self._seed = probe, seed
        whole = _draw_same(probe, seed, together)
        self.num_samples = sum(exchange.num_samples for exchange in whole)
        half = 2 * -(-self.num_samples // 4)  # so that there are two pieces at least
        most = half if len(whole) == 1 else self.num_samples
        size = min(probe.max_batch_size or most, most)
        pieces = [piece for exchange in whole for piece in exchange.cut(max(2, size // 2 * 2))]
        with _looking(model, seed), torch.no_grad(), LargestTensor() as largest:
            self.tells_samples = run_with(
                model, {}, lambda inner: all(self._try_to_tell(inner, piece.own) is not None for piece in pieces[:1])
            )
        if not self.tells_samples:
            size = max(2, 2 * -(-self.num_samples // (2 * NUM_CHUNKS)))
            pieces = [chunk for piece in pieces for chunk in piece.cut(size)]
        chunks = (chunk for piece in pieces for chunk in piece.cut(NUM_WITNESSES) if self.tells_samples)
        self._witness = next((chunk for chunk in chunks if chunk.differs), None)
        if self.tells_samples and probe.max_batch_size is None:
            joined = join_exchanges(pieces, min(half, LARGEST * pieces[0].num_samples // largest.num_elements))
            pieces = joined if self._can_run(model, joined[0]) else pieces
        self.pieces = pieces
        self._exchanges_in_loss = self.tells_samples

    def _can_run(self, model: nn.Module, joined: Exchange) -> bool:
        """Returns whether a network runs more samples than its batches have: one may hold a state for each of them."""
        try:
            with _looking(model, self._seed), torch.no_grad():
                return run_with(model, {}, lambda inner: self._try_to_tell(inner, joined.own)) is not None
        except Exception:  # noqa: BLE001 - whatever a network raises that is made for batches of one size
            return False

    def describe(self) -> dict[str, Any]:
        """Returns what the probe is, JSON-able, with the hash of its samples in their pairs."""
        return {
            "held_out": self.probe.held_out,
            "num_samples": self.num_samples,
            "tells_samples": self.tells_samples,
            "sha256": _hash(self.pieces),
        }

    def __call__(
        self,
        model: nn.Module,
        replaced: Mapping[str, Tensor] | None = None,
        pieces: Sequence[Exchange] | None = None,
    ) -> Outcome:
        """Returns what a model does on the probe.

        Args:
            model: Any network that the probe is for.
            replaced: What stands for some of its weights, by name.
            pieces: A part of the probe; all by default.
        """

        def run(inner: nn.Module) -> list[tuple[Tensor, Tensor]]:
            if self._witness is not None and pieces is None and not replaced:
                self._watch(inner, self._witness)
            return [self._compare(inner, piece) for piece in (self.pieces if pieces is None else pieces)]

        with _looking(model, self._seed), torch.no_grad():
            found = run_with(model, replaced or {}, run)
        gaps, losses = (torch.cat(parts).to("cpu", torch.float64) for parts in zip(*found, strict=True))
        return Outcome(gaps, losses)

    def differentiate(
        self,
        model: nn.Module,
        weights: Weights,
        take: Callable[[str, Tensor], None],
        pieces: Sequence[Exchange] | None = None,
        *,
        of_gap: bool = False,
    ) -> None:
        """Computes the gradient of the mean loss, or gap, in parts that add up; each is handed on and freed.

        Args:
            model: The network.
            weights: What is differentiated by.
            take: Given the name of a weight and a part of its gradient.
            pieces: A part of the probe; all by default.
            of_gap: Whether to differentiate the gap.
        """
        chosen = self.pieces if pieces is None else pieces
        num_samples = sum(piece.num_samples for piece in chosen)
        handles = {name: weight.tensor.detach().requires_grad_() for name, weight in weights.items()}

        def run(inner: nn.Module) -> None:
            for piece in chosen:
                for batch, sign in [(piece.own, -1), (piece.exchanged, 1)] if of_gap else [(piece.own, 1)]:
                    loss = compute_loss(inner, _move(batch, inner), self.probe.loss_fn)
                    (loss * (sign * piece.num_samples / num_samples)).backward()

        for name, handle in handles.items():
            handle.register_post_accumulate_grad_hook(_make_hook(name, take))
        with _looking(model, self._seed), torch.enable_grad():
            run_with(model, handles, run)

    def _compare(self, model: nn.Module, piece: Exchange) -> tuple[Tensor, Tensor]:
        """Returns gaps and losses of one piece."""
        if not self.tells_samples:
            own, exchanged = (
                compute_loss(model, _move(batch, model), self.probe.loss_fn).detach().view(1).double()
                for batch in (piece.own, piece.exchanged)
            )
            return exchanged - own, own
        told = self._tell(model, piece.own)
        exchanged = told.exchanged if self._exchanges_in_loss else self._tell(model, piece.exchanged).own
        return _average_pairs(told.own, exchanged)

    def _watch(self, model: nn.Module, piece: Exchange) -> None:
        """Runs one piece both ways; where these agree, all are run once.

        Exchanged targets are enough for the loss function, unless the network sees targets too, as a decoder does that
        is fed with them, or gives other outputs each time.
        """
        both = join_batches((piece.own, piece.exchanged))
        if both is None:
            told, exchanged = self._tell(model, piece.own).exchanged, self._tell(model, piece.exchanged).own
        else:  # at once, because that is cheaper
            together = self._tell(model, both)
            told, exchanged = together.exchanged[: piece.num_samples], together.own[piece.num_samples :]
        apart = (told - exchanged).abs() > SAME * exchanged.abs() + SAME**2
        self._exchanges_in_loss = not bool(apart.any())

    def _tell(self, model: nn.Module, batch: Any) -> SampleLosses:  # noqa: ANN401 - any batch
        told = self._try_to_tell(model, batch)
        if told is None:
            raise ValueError("the loss of a probe must tell its samples apart for all batches, as it did for the first")
        return told

    def _try_to_tell(self, model: nn.Module, batch: Any) -> SampleLosses | None:  # noqa: ANN401 - any batch
        return tell_samples(
            lambda: compute_loss(model, _move(batch, model), self.probe.loss_fn), require_samples(batch)
        )


def _draw_same(probe: Probe, seed: int, together: Together) -> list[Exchange]:
    """Returns the samples of a probe in their pairs, a batch after the other, once all processes have the same."""
    orders, drawn = make_generator(seed, "probe", "pairs"), list[Exchange]()

    def draw() -> str:
        for batch in draw_batches(probe.batches, probe.num_samples, seed):
            order = torch.randperm(require_samples(batch), generator=orders)
            drawn.append(make_exchange(batch, probe.targets, order))
        return "" if together is ALONE else _hash(drawn)

    if len(set(together.gather(draw))) > 1:
        raise ValueError(
            "all processes that share the model must have the same probe, but its samples differ; give each the same "
            "batches, and no sampler that shares them out"
        )
    return drawn


def _hash(pieces: Sequence[Exchange]) -> str:
    return hash_state({f"{n}.{m}": t for n, one in enumerate(pieces) for m, t in enumerate(find_tensors(one.own))})


def _average_pairs(own: Tensor, exchanged: Tensor) -> tuple[Tensor, Tensor]:
    losses, others = (side.view(-1, 2).mean(1) for side in (own, exchanged))
    return others - losses, losses


def _make_hook(name: str, take: Callable[[str, Tensor], None]) -> Callable[[Tensor], None]:
    def hand_on(handle: Tensor) -> None:
        if handle.grad is not None:
            take(name, handle.grad)
        handle.grad = None

    return hand_on


def _move(batch: Any, model: nn.Module) -> Any:  # noqa: ANN401 - any batch
    parameter = next(model.parameters(), None)
    return batch if parameter is None else move_batch(batch, parameter.device)


@contextlib.contextmanager
def _looking(model: nn.Module, seed: int) -> Iterator[None]:
    """Within the block a model can be run in evaluation mode, with batch norms of the batch; it leaves no trace."""
    with seeded(seed), evaluating(model):
        for module in unwrap(model).modules():
            if isinstance(module, _BatchNorm) and not isinstance(module, SyncBatchNorm):  # that one waits for others
                module.train()
        yield
