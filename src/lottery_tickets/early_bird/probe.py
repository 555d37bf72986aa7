"""A probe: samples on which it is measured what a network owes to the pairing of inputs and targets."""

import contextlib
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, final

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import SyncBatchNorm, _BatchNorm
from torch.overrides import TorchFunctionMode

from lottery_tickets._core.batches.samples import find_tensors, move_batch, require_samples
from lottery_tickets._core.checks import check_count
from lottery_tickets._core.determinism import make_generator, seeded
from lottery_tickets._core.gradients.losses import LOSSES
from lottery_tickets._core.measuring.performance import CLASSIFIERS
from lottery_tickets._core.measuring.running import evaluating, run_with
from lottery_tickets._core.names import unwrap
from lottery_tickets._core.objective import LossFunction, compute_loss
from lottery_tickets._core.states import hash_state
from lottery_tickets._core.weights import Weights
from lottery_tickets.early_bird.exchanges import Exchange, Targets, draw_batches, make_exchange

NUM_CHUNKS: Final = 32  # where a loss does not tell samples apart; fair signs agree in all once in 4 billion times
TOLERANCE: Final = 0.02  # of a loss, within which it is the mean of its samples; bfloat16 rounds to 0.4 %


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
        max_batch_size: Samples that are run at a time; None for those of a batch.

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

    Raises:
        TypeError: When the model refuses a batch, or the loader is an iterator.
        ValueError: When the targets are not known, or there are too few samples.
    """

    def __init__(self, probe: Probe, model: nn.Module, seed: int) -> None:
        self.probe, self._seed = probe, seed
        batches = draw_batches(probe.batches, probe.num_samples, seed)
        orders = make_generator(seed, "probe", "pairs")
        whole = [
            make_exchange(batch, probe.targets, torch.randperm(require_samples(batch), generator=orders))
            for batch in batches
        ]
        self.num_samples = sum(exchange.num_samples for exchange in whole)
        halved = 2 * -(-self.num_samples // 4) if len(whole) == 1 else self.num_samples  # two pieces at least
        size = min(probe.max_batch_size or halved, halved)
        pieces = [piece for exchange in whole for piece in exchange.cut(max(2, size // 2 * 2))]
        with _looking(model, seed), torch.no_grad():
            self.tells_samples = run_with(
                model, {}, lambda inner: all(self._tell(inner, piece.own) is not None for piece in pieces[:1])
            )
        if not self.tells_samples:
            size = max(2, 2 * -(-self.num_samples // (2 * NUM_CHUNKS)))
            pieces = [chunk for piece in pieces for chunk in piece.cut(size)]
        self.pieces = pieces

    def describe(self) -> dict[str, Any]:
        """Returns what the probe is, JSON-able, with the hash of its samples in their pairs."""
        tensors = {f"{n}.{m}": t for n, piece in enumerate(self.pieces) for m, t in enumerate(find_tensors(piece.own))}
        return {
            "held_out": self.probe.held_out,
            "num_samples": self.num_samples,
            "tells_samples": self.tells_samples,
            "sha256": hash_state(tensors),
        }

    def take_units(self, least: int) -> list[Exchange]:
        """Returns the first pieces of the probe, so many that they have that many units, or all of them."""
        taken: list[Exchange] = []
        for piece in self.pieces:
            if least > 0:
                taken.append(piece)
                least -= piece.num_samples // 2 if self.tells_samples else 1
        return taken

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
        own, exchanged = (self._measure(model, batch) for batch in (piece.own, piece.exchanged))
        return exchanged - own, own

    def _measure(self, model: nn.Module, batch: Any) -> Tensor:  # noqa: ANN401 - any batch
        if not self.tells_samples:
            return compute_loss(model, _move(batch, model), self.probe.loss_fn).detach().view(1).double()
        told = self._tell(model, batch)
        if told is None:
            raise ValueError("the loss of a probe must tell its samples apart for all batches, as it did for the first")
        return told.view(-1, 2).mean(1)

    def _tell(self, model: nn.Module, batch: Any) -> Tensor | None:  # noqa: ANN401 - any batch
        """Returns the loss of each sample; None where the loss is not the mean of one loss function over them."""
        with _Listener(require_samples(batch)) as listener:
            loss = compute_loss(model, _move(batch, model), self.probe.loss_fn)
        if listener.num_calls != 1 or listener.terms is None or listener.counts is None:
            return None
        terms, counts = listener.terms, listener.counts.to(listener.terms.device)
        mean = terms.sum() / counts.sum()
        is_mean = (loss - mean).abs() <= TOLERANCE * mean.abs() or not mean.isfinite()
        return torch.where(counts > 0, terms / counts.clamp_min(1), 0.0) if is_mean else None


@final
class _Listener(TorchFunctionMode):
    """Computes the loss of each sample beside the one loss function that a forward pass calls."""

    def __init__(self, num_samples: int) -> None:
        super().__init__()
        self._num_samples = num_samples
        self.num_calls = 0
        self.terms: Tensor | None = None
        self.counts: Tensor | None = None

    def __torch_function__(
        self, func: Callable[..., Any], types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:  # noqa: ANN401 - whatever func returns
        if func in LOSSES:
            self.num_calls += 1
            bound = inspect.signature(func).bind(*args, **(kwargs or {}))
            bound.apply_defaults()
            self.counts = LOSSES[func](bound.arguments, self._num_samples)
            if self.counts is not None:
                bound.arguments["reduction"] = "none"
                terms = func(*bound.args, **bound.kwargs).double()
                if terms.numel() % self._num_samples == 0:
                    by_sample = terms.reshape(self._num_samples, -1)
                    self.terms = by_sample.sum(1)
                    if func not in CLASSIFIERS:  # these average over all elements
                        self.counts = torch.full((self._num_samples,), by_sample.shape[1], dtype=torch.float64)
        return func(*args, **(kwargs or {}))


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
