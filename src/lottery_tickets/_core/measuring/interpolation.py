"""Networks on the line between two states, measured without writing to the model."""

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from tqdm import tqdm

from lottery_tickets._core.batches.samples import move_batch
from lottery_tickets._core.measuring.performance import Measurement, Performance, measuring
from lottery_tickets._core.measuring.running import run_with
from lottery_tickets._core.names import clean_name, identify, unwrap
from lottery_tickets._core.objective import compute_loss

State = Mapping[str, Tensor]


@final
class Line:
    """The networks (1 - alpha) * first + alpha * second, for any alpha.

    Args:
        model: Computes with these states; its own weights take no part.
        first: The state at alpha 0, by the names of `model.state_dict()`. A tied weight needs one of its names.
        second: The state at alpha 1.

    Raises:
        ValueError: When a state does not fit the model, or holds NaN or infinity.
    """

    def __init__(self, model: nn.Module, first: State, second: State) -> None:
        self._model = model
        self._ends = _check_state(model, first, "first"), _check_state(model, second, "second")

    def mix(self, alpha: float) -> dict[str, Tensor]:
        """Returns the state at alpha, placed as the model's own: exact at the ends, integers as at the nearer end."""
        first, second = self._ends
        own = _list_state(self._model)
        return {name: _mix(first[name], second[name], alpha, own[name]) for name in own}

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

        Raises:
            TypeError: When a loader is an iterator, or the model refuses a batch.
            ValueError: When a loader is empty, or the metric has no meaning for the data.
        """
        data = dataloader if statistics_dataloader is None else statistics_dataloader

        def run(inner: nn.Module) -> Performance:
            _recompute_statistics(inner, data, measurement)
            return measurement(inner, dataloader)

        found = []
        for alpha in tqdm(alphas, unit="point", disable=not progress):
            with measuring(self._model, data, seed), measuring(self._model, dataloader, seed):
                found.append(run_with(self._model, self.mix(alpha), run))
        return found


def has_batch_norm(model: nn.Module) -> bool:
    """Returns whether a model has running statistics, which `Line` computes anew."""
    return bool(_find_norms(model))


def _mix(first: Tensor, second: Tensor, alpha: float, own: Tensor) -> Tensor:
    mixed = torch.empty_like(own.detach())  # on the model's device, and in its memory format, which decides its speed
    is_mixed = first.is_floating_point() or first.is_complex()
    if alpha == 0 or (not is_mixed and 2 * alpha <= 1):
        return mixed.copy_(first.detach())
    if alpha == 1 or not is_mixed:
        return mixed.copy_(second.detach())
    # torch.lerp computes narrow dtypes in float32 and rounds once.
    return mixed.copy_(torch.lerp(first.detach().to(own.device), second.detach().to(own.device), alpha))


def _list_state(model: nn.Module) -> dict[str, Tensor]:
    """Returns a model's own tensors by clean name, parameters as such."""
    return {clean_name(name): tensor for name, tensor in unwrap(model).state_dict(keep_vars=True).items()}


def _check_state(model: nn.Module, state: State, which: str) -> dict[str, Tensor]:
    """Returns a state by all names of the model."""
    own = _list_state(model)
    given = {clean_name(name): tensor for name, tensor in state.items()}
    if foreign := sorted(given.keys() - own.keys()):
        raise ValueError(f"the {which} state must be the model's, but holds {foreign[:5]}; was it saved from another?")
    by_memory: dict[object, Tensor] = {}  # files of tied weights often hold one of their names only
    for name, tensor in given.items():
        _check_tensor(tensor, own[name], f"the {which} state", name)
        same = by_memory.setdefault(identify(own[name]), tensor)
        if same is not tensor and not torch.equal(same.to(tensor.device), tensor):
            raise ValueError(
                f"the {which} state must hold one value for tied weights, but {name!r} differs from another name of "
                "the same weight; untie the model, or take a state of a tied one"
            )
    missing = [name for name, tensor in own.items() if identify(tensor) not in by_memory]
    if missing:
        raise ValueError(
            f"the {which} state must hold every tensor of the model, but lacks {missing[:5]}; save model.state_dict()"
        )
    return {name: given[name] if name in given else by_memory[identify(tensor)] for name, tensor in own.items()}


def _check_tensor(tensor: Tensor, own: Tensor, whose: str, name: str) -> None:
    if tensor.shape != own.shape or tensor.dtype != own.dtype:
        raise ValueError(
            f"{whose} must hold {name!r} as {own.dtype} of shape {tuple(own.shape)}, like the model, but has "
            f"{tensor.dtype} of shape {tuple(tensor.shape)}; was it saved from another model?"
        )
    if not bool(tensor.isfinite().all()):
        raise ValueError(f"{whose} must be finite, but {name!r} holds NaN or infinity; did it diverge?")


def _find_norms(model: nn.Module) -> list[_BatchNorm]:
    return [module for module in model.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]


def _recompute_statistics(model: nn.Module, batches: Iterable[Any], measurement: Measurement) -> None:
    """Sets the running statistics of batch norms to averages over batches: interpolated ones fit no network."""
    norms = _find_norms(model)
    if not norms:
        return
    tensor = next(model.parameters(), None)
    num_batches = 0
    with _averaging(norms):
        for num_batches, batch in enumerate(batches, start=1):  # noqa: B007 - counts the batches
            compute_loss(model, batch if tensor is None else move_batch(batch, tensor.device), measurement.loss_fn)
    if not num_batches:
        raise ValueError("batch-norm statistics need at least one batch, but got none; is the loader empty?")


@contextlib.contextmanager
def _averaging(norms: Sequence[_BatchNorm]) -> Iterator[None]:
    """Within the block batch norms average over the batches they see, from scratch."""
    momenta = [norm.momentum for norm in norms]
    try:
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # torch's way to ask for a plain average
            norm.train()
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            norm.eval()
