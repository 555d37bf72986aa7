"""Who trains in an early-bird run: the default trainer, or the caller's function; both train to a position."""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sized
from dataclasses import asdict
from typing import Any, Protocol, final

import torch
from torch import nn

from lottery_tickets._core.batches.samples import move_batch, split_batch
from lottery_tickets._core.checks import check_count, check_restartable
from lottery_tickets._core.determinism import derive_seed, seeded
from lottery_tickets._core.measuring.running import evaluating
from lottery_tickets._core.objective import LossFunction, compute_loss
from lottery_tickets._core.reading import check_form
from lottery_tickets._core.training.light_training import LightTrainer
from lottery_tickets._core.training.settings import TrainerSettings
from lottery_tickets._core.training.trainer_function import TrainerFunction, train_epochs
from lottery_tickets.early_bird.watcher import TrainingFacts

logger = logging.getLogger(__name__)


class Trainer(Protocol):
    """Trains the model of a run."""

    @property
    def position(self) -> int:
        """How far training is, in epochs or steps, whichever the run counts."""

    @property
    def num_steps(self) -> int | None:
        """Batches so far, None when unknown."""

    def train_to(self, stop: int) -> TrainingFacts:
        """Trains to a position and returns what is known of the stretch."""

    def describe(self) -> dict[str, Any]:
        """Returns what decides the result, JSON-able."""

    def state(self) -> dict[str, Any]:
        """Returns what `load_state` needs beside the model's weights."""

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Goes on from a state."""


@final
class DefaultTrainer:
    """Our own trainer, see `LightTrainer`.

    Args:
        model: Trained in place.
        dataloader: Iterated anew each epoch.
        settings: How to train.
        by_step: Whether positions count steps; if not, epochs.
        loss_fn: See `LightTrainer`.
        seed: See `LightTrainer`.
    """

    def __init__(
        self,
        model: nn.Module,
        dataloader: Iterable[Any],
        settings: TrainerSettings,
        *,
        by_step: bool,
        loss_fn: LossFunction | None,
        seed: int,
    ) -> None:
        self._light = LightTrainer(model, dataloader, settings, loss_fn=loss_fn, seed=seed)
        self._by_step = by_step
        self._epoch_steps = _count_batches(dataloader)

    @property
    def position(self) -> int:
        """See `Trainer`."""
        return self._light.num_steps if self._by_step else self._light.num_epochs

    @property
    def num_steps(self) -> int:
        """See `Trainer`."""
        return self._light.num_steps

    def train_to(self, stop: int) -> TrainingFacts:
        """See `Trainer`."""
        train = self._light.train_steps if self._by_step else self._light.train_epochs
        stretch = train(stop - self.position)
        epoch: float = self._light.num_epochs
        if self._by_step and self._epoch_steps:
            epoch = self._light.num_steps / self._epoch_steps
        return {
            "epoch": epoch,
            "loss": stretch["mean_loss"],
            "start_loss": stretch["first_loss"],
            "learning_rate": stretch["learning_rate"],
            "num_batches": stretch["num_batches"],
            "num_nonfinite_losses": stretch["num_nonfinite_losses"],
        }

    def describe(self) -> dict[str, Any]:
        """See `Trainer`."""
        return {
            "trainer": self._light.describe(),
            "counts": "steps" if self._by_step else "epochs",
            "batches_an_epoch": self._epoch_steps,
            **asdict(self._light.settings),
            "seed": self._light.seed,
        }

    def state(self) -> dict[str, Any]:
        """See `Trainer`."""
        return self._light.state()

    def load_state(self, state: Mapping[str, Any]) -> None:
        """See `Trainer`."""
        self._light.load_state(state)


@final
class CallersTrainer:
    """A caller's function; the loss is that of the first batch each time, in evaluation mode.

    Args:
        model: Trained in place; takes over the weights of a model that the function returns.
        dataloader: Handed to the function, its batches split where they are too large.
        trainer_fn: Called as `trainer_fn(model, dataloader, epochs=n)` under seeded global generators.
        max_batch_size: Samples a batch that it is handed; None for those of the loader.
        loss_fn: What the recorded loss is computed by.
        seed: Of the global generators.
    """

    def __init__(
        self,
        model: nn.Module,
        dataloader: Iterable[Any],
        trainer_fn: TrainerFunction,
        *,
        max_batch_size: int | None,
        loss_fn: LossFunction | None,
        seed: int,
    ) -> None:
        check_restartable(dataloader)
        self._model, self._trainer_fn, self._seed = model, trainer_fn, seed
        self._dataloader = dataloader if max_batch_size is None else SplitBatches(dataloader, max_batch_size)
        self._name = getattr(trainer_fn, "__qualname__", type(trainer_fn).__qualname__)
        self._probe = _Probe(model, self._dataloader, loss_fn, seed)
        self._position = 0
        logger.info("trained by %s", self._name)

    @property
    def position(self) -> int:
        """See `Trainer`."""
        return self._position

    @property
    def num_steps(self) -> None:
        """See `Trainer`."""
        return None

    def train_to(self, stop: int) -> TrainingFacts:
        """See `Trainer`."""
        start_loss = self._probe.measure() if self._position == 0 else None
        with seeded(derive_seed(self._seed, "epoch", self._position)):
            train_epochs(self._trainer_fn, self._model, self._dataloader, stop - self._position)
        self._position = stop
        loss = self._probe.measure()
        logger.info("epoch %d: loss of one batch %s", stop, "unknown" if loss is None else f"{loss:.4f}")
        return {"epoch": stop, "loss": loss, "start_loss": start_loss}

    def describe(self) -> dict[str, Any]:
        """See `Trainer`."""
        length = _count_batches(self._dataloader)
        return {"trainer": self._name, "counts": "epochs", "batches_an_epoch": length, "seed": self._seed}

    def state(self) -> dict[str, Any]:
        """See `Trainer`."""
        return {"position": self._position}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """See `Trainer`."""
        check_form(state, {"position": int}, "the saved trainer")
        self._position = state["position"]


def _count_batches(dataloader: Iterable[Any]) -> int | None:
    return len(dataloader) if isinstance(dataloader, Sized) else None


@final
class SplitBatches:
    """The batches of a data loader, larger ones cut into pieces of nearly equal size.

    Args:
        dataloader: Iterated anew each time.
        max_batch_size: Samples a piece.
    """

    def __init__(self, dataloader: Iterable[Any], max_batch_size: int) -> None:
        self.dataloader = dataloader
        self.max_batch_size = check_count("max_batch_size", max_batch_size, "an integer of at least 1, or None")

    def __iter__(self) -> Iterator[Any]:
        for batch in self.dataloader:
            yield from (piece for piece, _ in split_batch(batch, self.max_batch_size))


@final
class _Probe:
    """The loss of the first batch; None, logged once, when the model cannot be run on it."""

    def __init__(self, model: nn.Module, dataloader: Iterable[Any], loss_fn: LossFunction | None, seed: int) -> None:
        self._model, self._dataloader, self._loss_fn, self._seed = model, dataloader, loss_fn, seed
        self._batch: Any = None
        self._usable = True

    def measure(self) -> float | None:
        """Returns the loss."""
        if not self._usable:
            return None
        with seeded(derive_seed(self._seed, "probe")), evaluating(self._model):
            try:
                if self._batch is None:
                    self._batch = next(iter(self._dataloader))
                device = next(iter(self._model.parameters())).device
                with torch.no_grad():  # inside, because leaving inference mode turns gradients on
                    return float(compute_loss(self._model, move_batch(self._batch, device), self._loss_fn))
            except (TypeError, ValueError, RuntimeError, StopIteration) as error:
                logger.info("the loss is not recorded, because a batch of the dataloader gives none: %s", error)
                self._usable = False
                return None
