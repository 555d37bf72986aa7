"""A caller's model and trainer as the subject of an experiment."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, final

from torch import nn

from lottery_tickets._core.determinism import seeded
from lottery_tickets._core.measuring.evaluating import evaluate_batches
from lottery_tickets._core.objective import LossFunction
from lottery_tickets._core.states import copy_state, hash_state
from lottery_tickets._core.training.trainer_function import TrainerFunction, train_epochs
from lottery_tickets._core.weights import Weights
from lottery_tickets.masks.controls import reinitialise_


@final
class CallerSubject:
    """A model whose present weights are theta_0 of the first replicate; a step is an epoch.

    One model object serves all trainings, so that a large one is held in memory once; the rest lies in the run folder.

    Args:
        model: Trained in place.
        dataloader: Handed to the trainer.
        trainer_fn: Called as `trainer_fn(model, dataloader, epochs=n)`.
        layers: Names of the parameters to prune.
        num_epochs: Epochs of a full training.
        own_seed: The initialisation seed that means "the weights the model came with".
        evaluation_dataloader: What results are measured on; the training data when None.
        loss_fn: See `compute_loss`.
        initialise_fn: Draws fresh weights in place from the global generators; by default each module's
            `reset_parameters`.
    """

    def __init__(
        self,
        model: nn.Module,
        dataloader: Iterable[Any],
        trainer_fn: TrainerFunction,
        *,
        layers: Sequence[str],
        num_epochs: int,
        own_seed: int,
        evaluation_dataloader: Iterable[Any] | None,
        loss_fn: LossFunction | None,
        initialise_fn: Callable[[nn.Module], object] | None,
    ) -> None:
        self.model, self.dataloader, self.trainer_fn, self.num_epochs = model, dataloader, trainer_fn, num_epochs
        self.layers = list(layers)
        self.own_seed, self.own_state = own_seed, copy_state(model)
        self.evaluation_dataloader, self.loss_fn, self.initialise_fn = evaluation_dataloader, loss_fn, initialise_fn

    def describe(self) -> Mapping[str, Any]:
        """Returns the hash of the starting weights, the layers, and the names of model and trainer."""
        trainer = getattr(self.trainer_fn, "__qualname__", type(self.trainer_fn).__qualname__)
        return {
            "model": type(self.model).__qualname__,
            "initial_sha256": hash_state(self.own_state),
            "layers": self.layers,
            "trainer": trainer,
            "num_epochs": self.num_epochs,
        }

    def build(self, seed: int) -> nn.Module:
        """Returns the model with its own weights, or with fresh ones when the seed is not its own."""
        self.model.load_state_dict(self.own_state)
        self.model.zero_grad(set_to_none=True)
        if seed != self.own_seed and self.initialise_fn is None:
            reinitialise_(self.model, seed)
        elif seed != self.own_seed and self.initialise_fn is not None:
            with seeded(seed):
                self.initialise_fn(self.model)
        return self.model

    def find_weights(self, model: nn.Module) -> Weights:
        """Returns the weights of the layers to prune."""
        return Weights.from_tensors(dict(model.named_parameters())).part(self.layers)

    def train(
        self, model: nn.Module, *, first_step: int, seed: int, rewind_step: int, keep_rewind_point: Callable[[], None]
    ) -> dict[str, Any]:
        """Calls the trainer under seeded global generators, in two stretches when theta_k lies between.

        Returns:
            `end`: the loss and, for classifiers, the accuracy on the evaluation data ("test_") or training data
            ("train_").
        """
        with seeded(seed):
            if first_step < rewind_step:
                train_epochs(self.trainer_fn, model, self.dataloader, rewind_step - first_step)
                keep_rewind_point()
                first_step = rewind_step
            train_epochs(self.trainer_fn, model, self.dataloader, self.num_epochs - first_step)
            data, split = (
                (self.evaluation_dataloader, "test")
                if self.evaluation_dataloader is not None
                else (self.dataloader, "train")
            )
            loss, accuracy = evaluate_batches(model, data, self.loss_fn)
        model.zero_grad(set_to_none=True)
        figures = {"step": self.num_epochs, f"{split}_loss": loss}
        return {"end": figures if accuracy is None else {**figures, f"{split}_accuracy": accuracy}}
