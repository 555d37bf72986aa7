"""The default trainer of methods that watch a training: light in memory, and exact when it goes on after a stop."""

import contextlib
import logging
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, Protocol, TypedDict, final

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lottery_tickets._core.batches.resuming import ResumableBatches
from lottery_tickets._core.batches.samples import count_samples, move_batch, split_batch
from lottery_tickets._core.checks import check_count
from lottery_tickets._core.determinism import seeded
from lottery_tickets._core.names import clean_name, unwrap
from lottery_tickets._core.objective import LossFunction, compute_loss
from lottery_tickets._core.reading import Form, check_form
from lottery_tickets._core.sharding.data_parallel import find_data_parallel, find_together
from lottery_tickets._core.sharding.dtensors import is_sharded, see_local
from lottery_tickets._core.sharding.together import ALONE, Together
from lottery_tickets._core.training.accumulated import AccumulatedAdamW
from lottery_tickets._core.training.in_backward import InBackwardSGD
from lottery_tickets._core.training.settings import TrainerSettings
from lottery_tickets._core.training.steps_done import count_steps

FEWEST_TO_JUDGE = 10  # batches; a share of fewer says little
# What may differ between the trainer that saved a state and the one that goes on.
FREE_SETTINGS = frozenset({"nonfinite_limit"})
STATE_FORM: Final[Form] = {"settings": {...: (float, bool, str, None, list, tuple)}, "batches": dict, "optimizer": dict}

logger = logging.getLogger(__name__)


class StretchReport(TypedDict):
    """What one stretch of training did: numbers that JSON can hold.

    `num_batches` of this stretch; `num_samples` in them, None where batches hold no tensors; `num_steps` and
    `num_epochs` that the trainer has done since it began; `mean_loss` over the batches with a finite loss;
    `first_loss` of the first batch, None where it was not finite; `num_nonfinite_losses`, batches that were skipped for
    a loss that is not finite (of a split batch, from that piece on); `learning_rate`.
    """

    num_batches: int
    num_samples: int | None
    num_steps: int
    num_epochs: int
    mean_loss: float
    first_loss: float | None
    num_nonfinite_losses: int
    learning_rate: float


class _Stepper(Protocol):
    """What turns the losses of a batch's pieces into steps."""

    def hooked(self) -> contextlib.AbstractContextManager[None]: ...
    def backward(self, loss: Tensor, share: float) -> None: ...
    def finish_batch(self) -> None: ...
    def drop_batch(self) -> None: ...
    def state(self) -> dict[str, Any]: ...
    def load_state(self, state: Mapping[str, Any], /) -> None: ...


@final
class LightTrainer:
    """Trains a model in place, a stretch at a time, and can go on from any stretch's end, bit for bit.

    A stretch leaves the modes of the model, its checkpointing and the caller's generators as they were, and no
    gradients (what was in `.grad` before is gone too). After an exception the weights may be amid a step.

    With SGD, each piece of a split batch is a step of its own with its share of the learning rate: the whole batch's
    step to first order in the learning rate. With AdamW, the pieces' gradients are summed: the whole batch's gradient,
    for a loss that is a mean over samples and a model without batch statistics.

    Processes that train one model each have a trainer, and as many batches, in as many pieces; losses are the means
    over them.

    Args:
        model: Its parameters with `requires_grad` are trained.
        dataloader: Batches for `compute_loss`; starts anew each epoch.
        settings: How.
        loss_fn: `loss_fn(model, batch)` -> scalar mean loss, for batches of other kinds.
        seed: Decides order, dropout and rounding.

    Raises:
        TypeError: When `dataloader` is an iterator.
        ValueError: When nothing can be trained, `norm_l1` has nothing to act on, or several processes that train the
            model would not take the same steps.
        ModuleNotFoundError: `adamw_bits=8` without bitsandbytes.
    """

    def __init__(
        self,
        model: nn.Module,
        dataloader: Iterable[Any],
        settings: TrainerSettings,
        *,
        loss_fn: LossFunction | None = None,
        seed: int = 42,
    ) -> None:
        self.model, self.settings = model, settings
        self.loss_fn, self.seed = loss_fn, seed
        self.batches = ResumableBatches(dataloader, seed)
        self.parameters = {clean_name(n): p for n, p in unwrap(model).named_parameters() if p.requires_grad}
        if not self.parameters:
            raise ValueError("the model must have parameters to train, but none requires a gradient; unfreeze some")
        self.together = find_together(model)
        if settings.use_sgd and self.together is not ALONE:
            _check_same_steps(model, self.parameters, settings, self.together)
        self.stepper = _make_stepper(self.parameters, _find_norms(model, self.parameters, settings), settings)
        logger.info("training %d tensors with %s", len(self.parameters), self.describe())

    @property
    def num_steps(self) -> int:
        """Batches done; one that is split counts once."""
        return self.batches.num_steps

    @property
    def num_epochs(self) -> int:
        """Epochs done. The end of an epoch is seen only when a batch after its last one is asked for."""
        return self.batches.num_epochs

    def train_epochs(self, num_epochs: int) -> StretchReport:
        """Trains to the end of so many epochs; what is left of a begun one counts as one.

        Raises:
            ValueError: When the data is empty, a batch cannot be split, or too many losses are not finite.
        """
        return self._train(num_epochs=check_count("num_epochs", num_epochs), num_steps=None)

    def train_steps(self, num_steps: int) -> StretchReport:
        """Trains on so many batches, going on in the middle of an epoch, and over its end.

        Raises:
            ValueError: As for `train_epochs`.
        """
        return self._train(num_epochs=None, num_steps=check_count("num_steps", num_steps))

    def state(self) -> dict[str, Any]:
        """Returns position and optimizer state, on the CPU, for `torch.load(weights_only=True)`; not the weights."""
        return {
            "settings": self._list_fixed_settings(),
            "batches": self.batches.state(),
            "optimizer": self.stepper.state(),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Goes on where `state()` was taken, given a model with the weights of that moment and the same data.

        Raises:
            ValueError: When the state is of another training.
        """
        check_form(state, STATE_FORM, "the saved trainer")
        own = self._list_fixed_settings()
        differing = {name: (state["settings"].get(name), own[name]) for name in own}
        differing = {name: pair for name, pair in differing.items() if pair[0] != pair[1]}
        if differing:
            raise ValueError(
                f"the state must be of a trainer with the same settings, but (saved, own) are {differing}; use the "
                "saved ones"
            )
        self.stepper.load_state(state["optimizer"])
        self.batches.load_state(state["batches"])

    def _list_fixed_settings(self) -> dict[str, Any]:
        settings = {name: value for name, value in asdict(self.settings).items() if name not in FREE_SETTINGS}
        return {**settings, "seed": self.seed}

    def describe(self) -> str:
        """Returns one line that says which optimizer is used, and what is done for memory."""
        settings = self.settings
        parts = [f"lr {settings.learning_rate:g}"]
        parts += [f"momentum {settings.momentum:g}"] if settings.momentum else []
        parts += [f"weight decay {settings.weight_decay:g}"] if settings.weight_decay else []
        parts += [f"L1 {settings.norm_l1:g} on batch-norm weights"] if settings.norm_l1 else []
        if settings.use_sgd and any(p.dtype == torch.bfloat16 for p in self.parameters.values()):
            parts.append(
                ("stochastic rounding" if settings.stochastic_rounding else "rounding to nearest") + " in bfloat16"
            )
        if settings.activation_checkpointing and _offers_checkpointing(unwrap(self.model)):
            parts.append("activation checkpointing")
        if settings.max_batch_size is not None:
            parts.append(f"at most {settings.max_batch_size} samples at once")
        name = "SGD inside the backward pass" if settings.use_sgd else f"AdamW with {settings.adamw_bits}-bit state"
        return ", ".join([name, *parts])

    def _train(self, *, num_epochs: int | None, num_steps: int | None) -> StretchReport:
        tally = _Tally()
        with self._prepared():
            for batch in self._take(num_epochs, num_steps):
                loss, num_samples = self._train_batch(batch)
                self.batches.count()
                tally.add(loss, num_samples)
                count_steps()
                self._check_losses(tally, is_over=False)
        self._check_losses(tally, is_over=True)
        logger.info(
            "step %d: trained on %d batches, mean loss %.4f, %d skipped for losses that are not finite",
            *(self.num_steps, tally.num_batches, tally.mean_loss, tally.num_nonfinite),
        )
        return {
            "num_batches": tally.num_batches,
            "num_samples": tally.num_samples,
            "num_steps": self.num_steps,
            "num_epochs": self.num_epochs,
            "mean_loss": tally.mean_loss,
            "first_loss": tally.first_loss,
            "num_nonfinite_losses": tally.num_nonfinite,
            "learning_rate": self.settings.learning_rate,
        }

    def _take(self, num_epochs: int | None, num_steps: int | None) -> Iterator[Any]:
        """Yields batches until so many epochs or batches are through; an epoch with no batch left does not count."""
        epochs = steps = 0
        while epochs != num_epochs:
            steps_before = steps
            for batch in self.batches.rest_of_epoch():
                yield batch
                steps += 1
                if steps == num_steps:
                    return
            epochs += steps > steps_before

    def _train_batch(self, batch: Any) -> tuple[float, int | None]:  # noqa: ANN401 - any batch
        """Returns the mean loss of a batch, or the loss that was not finite and ended it, and its number of samples."""
        moved = move_batch(batch, next(iter(self.parameters.values())).device)
        total = 0.0
        for piece, share in split_batch(moved, self.settings.max_batch_size):
            loss = compute_loss(self.model, piece, self.loss_fn)
            # The one wait for the device: a backward pass that steps cannot be taken back.
            value = self.together.average(loss.item())
            total += value * share
            if not math.isfinite(value):
                self.stepper.drop_batch()
                return value, count_samples(batch)
            self.stepper.backward(loss, share)
            del loss  # and with it the graph, before the next piece makes its own
        self.stepper.finish_batch()
        return total, count_samples(batch)

    def _check_losses(self, tally: "_Tally", *, is_over: bool) -> None:
        limit = self.settings.nonfinite_limit
        has_too_many = tally.num_batches >= FEWEST_TO_JUDGE and tally.num_nonfinite > limit * tally.num_batches
        if has_too_many or (is_over and tally.num_nonfinite == tally.num_batches):
            raise ValueError(
                f"at most {limit:.0%} of the losses may be NaN or infinite, but {tally.num_nonfinite} of "
                f"{tally.num_batches} are; lower the learning rate of {self.settings.learning_rate:g}, or look for "
                "broken batches"
            )

    @contextlib.contextmanager
    def _prepared(self) -> Iterator[None]:
        """Within the block the model trains; afterwards its modes and the global generators are as before."""
        modes = {module: module.training for module in self.model.modules()}
        self.model.train()
        self.model.zero_grad(set_to_none=True)
        try:
            with seeded(self.seed), checkpointing(self.model, self.settings), self.stepper.hooked():
                yield
        except BaseException:
            self.stepper.drop_batch()
            self.batches.drop()
            raise
        finally:
            self.model.zero_grad(set_to_none=True)
            for module, training in modes.items():
                module.training = training


@dataclass
class _Tally:
    """The losses of a stretch so far."""

    num_batches: int = 0
    num_nonfinite: int = 0
    num_samples: int | None = 0
    first_loss: float | None = None
    sum_of_losses: float = 0.0

    @property
    def mean_loss(self) -> float:
        return self.sum_of_losses / (self.num_batches - self.num_nonfinite)

    def add(self, loss: float, num_samples: int | None) -> None:
        is_finite = math.isfinite(loss)
        if is_finite:
            self.sum_of_losses += loss
            self.first_loss = loss if self.num_batches == 0 else self.first_loss
        self.num_nonfinite += not is_finite
        self.num_batches += 1
        self.num_samples = None if self.num_samples is None or num_samples is None else self.num_samples + num_samples


def _make_stepper(parameters: dict[str, nn.Parameter], norm_names: set[str], settings: TrainerSettings) -> _Stepper:
    common: dict[str, Any] = {
        "learning_rate": settings.learning_rate,
        "weight_decay": settings.weight_decay,
        "norm_l1": settings.norm_l1 or 0.0,
        "norm_names": norm_names,
    }
    if not settings.use_sgd:
        return AccumulatedAdamW(parameters, bits=settings.adamw_bits, **common)
    return InBackwardSGD(
        parameters, momentum=settings.momentum, stochastic_rounding=settings.stochastic_rounding, **common
    )


def _check_same_steps(
    model: nn.Module, parameters: Mapping[str, nn.Parameter], settings: TrainerSettings, together: Together
) -> None:
    """Raises a ValueError where processes that train one model would take other steps inside the backward pass."""
    if find_data_parallel(model) is not ALONE:
        raise ValueError(
            "a model under DistributedDataParallel must be trained by AdamW (use_sgd=False) or by a trainer_fn, but "
            "the default SGD steps before gradients are averaged; use one of these, or shard it by fully_shard"
        )
    rounded = [p for p in parameters.values() if p.dtype == torch.bfloat16 and settings.stochastic_rounding]
    sizes = together.gather(lambda: [see_local(parameter).numel() for parameter in rounded])
    if any(map(_has_copies, rounded)) and any(own != sizes[0] for own in sizes):
        raise ValueError(
            "copies of one bfloat16 weight must be rounded alike, but processes that have them have shards of other "
            "sizes, and so other random numbers; use stochastic_rounding=False, AdamW, or float32 weights"
        )


def _has_copies(parameter: Tensor) -> bool:
    return not is_sharded(parameter) or any(placement.is_replicate() for placement in parameter.placements)


def _find_norms(model: nn.Module, parameters: Mapping[str, nn.Parameter], settings: TrainerSettings) -> set[str]:
    """Returns the names of the batch-norm weights that `norm_l1` acts on."""
    if not settings.norm_l1:
        return set()
    weights = {id(module.weight) for module in model.modules() if isinstance(module, _BatchNorm)}
    names = {name for name, parameter in parameters.items() if id(parameter) in weights}
    if not names:
        raise ValueError("norm_l1 must be 0 for a model without batch-norm weights to train; leave it at 0")
    return names


def _offers_checkpointing(model: nn.Module) -> bool:
    return bool(getattr(model, "supports_gradient_checkpointing", False))


@contextlib.contextmanager
def checkpointing(model: nn.Module, settings: TrainerSettings) -> Iterator[None]:
    """Within the block the model recomputes activations, if it offers that; one that does so already is left alone."""
    inner: Any = unwrap(model)
    # transformers 5 calls it activation checkpointing, and warns of the names before.
    prefix = "activation" if hasattr(inner, "activation_checkpointing_enable") else "gradient"
    is_on = getattr(inner, f"is_{prefix}_checkpointing", True)
    if is_on or not settings.activation_checkpointing or not _offers_checkpointing(inner):
        yield
        return
    # Reentrant checkpointing can give a weight its gradient twice, which `InBackwardSGD` refuses.
    arguments = {f"{prefix}_checkpointing_kwargs": {"use_reentrant": False}}
    getattr(inner, f"{prefix}_checkpointing_enable")(**arguments)
    try:
        yield
    finally:
        getattr(inner, f"{prefix}_checkpointing_disable")()
