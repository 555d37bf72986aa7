"""Networks on the line between two states, measured without writing to the model."""

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, final

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from tqdm import tqdm

from lottery_tickets._core.objective import compute_loss
from lottery_tickets._core.parameters import clean_name, unwrap
from lottery_tickets._core.performance import Measurement, Performance, measuring
from lottery_tickets._core.resuming import move_batch
from lottery_tickets._core.running import run_with

State = Mapping[str, Tensor]
WIDEST: Final = torch.float32  # narrower dtypes are mixed in this one, and rounded once


@final
class Line:
    """The networks (1 - alpha) * first + alpha * second, for any alpha.

    Args:
        model: Computes with these states; its own weights take no part.
        first: The state at alpha 0, by the names of `model.state_dict()`.
        second: The state at alpha 1.

    Raises:
        ValueError: When a state does not fit the model, or holds NaN or infinity.
    """

    def __init__(self, model: nn.Module, first: State, second: State) -> None:
        self._model = model
        self._ends = _check_state(model, first, "first"), _check_state(model, second, "second")

    def mix(self, alpha: float) -> dict[str, Tensor]:
        """Returns the state at alpha, on the model's devices; the ends are exact, and integers are the first end's."""
        first, second = self._ends
        own = {clean_name(name): tensor for name, tensor in unwrap(self._model).state_dict().items()}
        return {name: _mix(first[name], second[name], alpha, own[name].device) for name in own}

    def measure(
        self,
        alphas: Sequence[float],
        dataloader: Iterable[Any],
        measurement: Measurement,
        *,
        statistics_dataloader: Iterable[Any] | None = None,
        progress: bool = False,
        seed: int = 0,
    ) -> list[Performance]:
        """Returns the performance at each alpha; the model comes back as it was.

        Args:
            alphas: Where to look; 0 is the first state, 1 the second.
            dataloader: What to measure on, iterated anew for each alpha.
            measurement: How.
            statistics_dataloader: What batch-norm statistics are computed anew from at each alpha, the ends
                included, as averages over its batches; those of `dataloader` when None. Networks without batch norm do
                not read it.
            progress: Whether to show a bar.
            seed: Of the global generators, the same for each alpha.
        """
        data = dataloader if statistics_dataloader is None else statistics_dataloader
        found = []
        for alpha in tqdm(alphas, unit="point", disable=not progress):
            mixed = self.mix(alpha)  # outside of `run`, so that it is let go before the next

            def run(inner: nn.Module) -> Performance:
                _recompute_statistics(inner, data, measurement)
                return measurement(inner, dataloader)

            with measuring(self._model, dataloader, seed):
                found.append(run_with(self._model, mixed, run))
        return found


def _mix(first: Tensor, second: Tensor, alpha: float, device: torch.device) -> Tensor:
    if alpha == 0 or not first.is_floating_point():
        return first.detach().to(device, copy=True)
    if alpha == 1:
        return second.detach().to(device, copy=True)
    wide = torch.promote_types(first.dtype, WIDEST)
    return torch.lerp(first.detach().to(device, wide), second.detach().to(device, wide), alpha).to(first.dtype)


def _check_state(model: nn.Module, state: State, which: str) -> dict[str, Tensor]:
    clean = {clean_name(name): tensor for name, tensor in state.items()}
    for raw_name, own in unwrap(model).state_dict().items():
        tensor = clean.get(clean_name(raw_name))
        got = "nothing" if tensor is None else f"{tensor.dtype} of shape {tuple(tensor.shape)}"
        if tensor is None or tensor.shape != own.shape or tensor.dtype != own.dtype:
            raise ValueError(
                f"the {which} state must hold {clean_name(raw_name)!r} as {own.dtype} of shape {tuple(own.shape)}, "
                f"like the model, but has {got}; was it saved from another model?"
            )
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise ValueError(
                f"the {which} state must be finite, but {raw_name!r} holds NaN or infinity; did it diverge?"
            )
    return clean


def _recompute_statistics(model: nn.Module, batches: Iterable[Any], measurement: Measurement) -> None:
    """Sets the running statistics of batch norms to averages over batches: interpolated ones fit no network."""
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    if not norms:
        return
    device = next(model.parameters()).device
    with _averaging(norms):
        num_batches = 0
        for num_batches, batch in enumerate(batches, start=1):  # noqa: B007 - counts the batches
            compute_loss(model, move_batch(batch, device), measurement.loss_fn)
    if not num_batches:
        raise ValueError("batch-norm statistics need at least one batch, but got none; is the loader empty?")


@contextlib.contextmanager
def _averaging(norms: Sequence[_BatchNorm]) -> Iterator[None]:
    """Within the block batch norms average over the batches they see, from scratch."""
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # torch's way to ask for a plain average
        norm.train()
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            norm.eval()
