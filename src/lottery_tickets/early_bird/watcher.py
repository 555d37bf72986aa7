"""Watches a model while anyone trains it, and says when its early-bird ticket has converged."""

import logging
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, SupportsFloat, TypedDict, final

import torch
from torch import Tensor, nn

from lottery_tickets._core.loggers import Log, Logger
from lottery_tickets._core.names import clean_name, unwrap
from lottery_tickets._core.prunable_weights import Choices, find_channel_scales, find_prunable_weights
from lottery_tickets._core.selection.scope_names import check_sparsity
from lottery_tickets._core.states import copy_state, pick_at_most_one
from lottery_tickets._core.weights import Weights
from lottery_tickets.early_bird.check_times import CheckSteps, CheckTimes
from lottery_tickets.early_bird.convergence import ConvergenceRule, summarise_history
from lottery_tickets.early_bird.evidence import Evidence
from lottery_tickets.early_bird.history import EarlyBirdCheckpoint, Method, Verdict, average_losses
from lottery_tickets.early_bird.learning import Learning, without_probe
from lottery_tickets.early_bird.learning_rule import has_moved
from lottery_tickets.early_bird.probe import Measure, Probe
from lottery_tickets.early_bird.snapshots import Snapshot, take_snapshot
from lottery_tickets.early_bird.ticket import make_ticket
from lottery_tickets.masks.mask import Mask
from lottery_tickets.masks.selector import describe_mask
from lottery_tickets.storage import KeptState, Record, save_results

logger = logging.getLogger(__name__)

TICKET: Final = "ticket.safetensors"
EVIDENCE: Final = "evidence.json"
GENERATION: Final = 4  # of what checks measure: folders and saved watches of another are not gone on from


class EarlyBirdResults(TypedDict):
    """What `compute_early_bird_tickets` returns; explained there."""

    method: Method
    target_sparsity: float
    convergence_threshold: float
    converged: bool
    convergence_epoch: float | None
    verdict: Verdict
    reason: str
    checkpoints: list[EarlyBirdCheckpoint]
    final_rankings: dict[str, Tensor]
    final_mask: Mask
    starting_weights: dict[str, Tensor]
    settings: dict[str, Any]


class TrainingFacts(TypedDict, total=False):
    """What the trainer knows at a check; any of it may be left out."""

    epoch: float | None
    loss: SupportsFloat | None
    start_loss: float | None
    learning_rate: SupportsFloat | None
    num_batches: int | None
    num_nonfinite_losses: int


@final
class EarlyBirdWatcher:
    """Watches a model while anyone trains it, and records what shows whether its early-bird ticket has converged.

    Call `observe(model, step)` after each step. Between checks it compares two integers; at a check it ranks all
    magnitudes, compares them and their mask with those of the check before and of the start, measures the network on a
    probe, and judges. It only reads. Without a probe no ticket is called converged: that a network learns from its
    inputs cannot be told from weights or from a loss.

    Memory on the CPU: the starting weights in their own dtype, 2 bytes a weight for ranks (of up to 4 M weights
    those at the start too; of less than 1 M weights 16 more for each of both), and a bit a weight for each mask (the
    start's, the last one's; with "mask_distance" those of the queue).

    Args:
        model: Its weights now are the starting weights, theta_0, which are kept.
        target_sparsity: Of the ticket, in [0, 1].
        rule: When it counts as converged; see `detect_early_bird_convergence`.
        check_steps: Checks after every so many steps, at these steps, or "log": at steps 1, 2, 3, 4, 6, 8, 12, 16, ...
        scope: What magnitudes are compared within for the mask, as in `create_magnitude_mask`.
        channels: Whether to rank the scales of batch norm instead of weights: each stands for a channel (You et al.).
            The mask is over these scales.
        include: Replaces the default choice of weights: names, glob patterns or module types.
        exclude: Removes from the choice.
        seed: Of the sample of weights whose movement is followed, and of the probe's samples and pairs.
        probe: A `Probe`, or its batches, which are then taken for held out: a loader, a list of batches, or one batch.
        logger: Told the figures of each check, see `compute_early_bird_tickets`.

    Raises:
        TypeError: When `model` is not a module, or refuses a batch of the probe.
        ValueError: When an argument is out of range, there is nothing to prune, or it is not known what the targets of
            the probe are.

    Examples:
        >>> model = nn.Linear(64, 64)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=1e-6)
        >>> held_out = (torch.randn(64, 64), torch.randint(64, (64,)))
        >>> watcher = EarlyBirdWatcher(model, check_steps=10, probe=held_out)
        >>> for step in range(1, 31):
        ...     loss = model(torch.randn(8, 64)).square().mean()
        ...     loss.backward()
        ...     optimizer.step()
        ...     optimizer.zero_grad()
        ...     checkpoint = watcher.observe(model, step, loss=loss.detach())
        >>> watcher.verdict, len(watcher.checkpoints)
        ('trivially stable', 3)
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        target_sparsity: float = 0.5,
        rule: ConvergenceRule | None = None,
        check_steps: CheckSteps = 100,
        scope: str = "global",
        channels: bool = False,
        include: Choices | None = None,
        exclude: Choices | None = None,
        seed: int = 42,
        probe: Probe | Iterable[Any] | None = None,
        logger: Logger | Iterable[Logger] | None = None,
    ) -> None:
        if not isinstance(model, nn.Module):
            raise TypeError(f"the model must be a torch.nn.Module, which can be trained, got {type(model).__name__}")
        self.target_sparsity = check_sparsity(target_sparsity, scope)
        self.rule = rule if rule is not None else ConvergenceRule()
        self.scope, self.channels, self.include, self.exclude = scope, channels, include, exclude
        self.checkpoints: list[EarlyBirdCheckpoint] = []
        self.starting_weights = {clean_name(name): value for name, value in copy_state(unwrap(model)).items()}
        self._evidence = Evidence(
            self._find(model),
            sparsity=self.target_sparsity,
            scope=scope,
            queue_length=self.rule.queue_length,
        )
        self._seed = seed
        self._log = Log(logger)
        self._learning: Learning | None = None
        if probe is not None:
            self.take_probe(model, probe)
        self._start_loss: SupportsFloat | None = None
        self._ticket: Mapping[str, Tensor] | None = None
        self._times = CheckTimes(check_steps)
        self._next_check = self._times.after(0)

    @property
    def has_probe(self) -> bool:
        """Whether checks measure on a probe."""
        return self._learning is not None

    def take_probe(self, model: nn.Module, probe: Probe | Iterable[Any]) -> None:
        """Measures on a probe from now on; to be called while the model has its starting weights.

        Args:
            model: As it was given, before the first step.
            probe: A `Probe`, or its batches.

        Raises:
            TypeError: When the model refuses a batch.
            ValueError: When a check was made, or it is not known what the targets are.
        """
        if self.checkpoints:
            raise ValueError("a probe must be given before the first check, because the start is measured on it too")
        probe = probe if isinstance(probe, Probe) else Probe(probe)
        weights = self._find(model)
        self._learning = Learning(Measure(probe, model, self._seed, weights.together), model, weights, self._seed)

    @property
    def verdict(self) -> Verdict:
        """What can be said so far; "still changing" before the first check."""
        return summarise_history(self.checkpoints)["verdict"] if self.checkpoints else "still changing"

    @property
    def converged(self) -> bool:
        """Whether a check has found the ticket converged."""
        return self._ticket is not None

    @property
    def should_stop(self) -> bool:
        """Whether training on is of no use for the ticket: it has converged, or the weights are not finite."""
        return self.converged or (bool(self.checkpoints) and not self.checkpoints[-1]["finite"])

    def observe(
        self,
        model: nn.Module,
        step: int,
        *,
        epoch: float | None = None,
        loss: SupportsFloat | None = None,
        learning_rate: SupportsFloat | None = None,
    ) -> EarlyBirdCheckpoint | None:
        """Returns the check made after a step, or None when none is due; a due one that was passed over is made now.

        Args:
            model: The model as it is after the step; it may be wrapped by torch.compile or data parallelism.
            step: Steps so far.
            epoch: Epochs so far; the number of the step when not given.
            loss: Of this step, a number or a tensor, which is read at checks only. The first one that is given stands
                for the loss at the start.
            learning_rate: At this step.
        """
        if self._start_loss is None and loss is not None:
            self._start_loss = loss.detach().clone() if isinstance(loss, Tensor) else loss
        if self._next_check is None or step < self._next_check:
            return None
        self._next_check = self._times.after(step)
        training: TrainingFacts = {"epoch": epoch, "loss": loss, "learning_rate": learning_rate}
        return self.check(model, step, training)

    @torch.no_grad()
    def check(self, model: nn.Module, step: int | None, training: TrainingFacts) -> EarlyBirdCheckpoint:
        """Returns a check made now, whether it is due or not.

        Args:
            model: The model as it is.
            step: Steps so far, None when unknown; then an epoch must be given.
            training: What is known of the training.
        """
        began = time.perf_counter()
        weights = self._find(model)
        if self._start_loss is None:
            self._start_loss = training.get("start_loss")
        losses = _to_float(training.get("loss")), _to_float(self._start_loss)
        loss, start_loss = map(average_losses, zip(*weights.together.gather(lambda: losses), strict=True))
        snapshot = _take_snapshot(weights) if loss is None or math.isfinite(loss) else None
        finite = snapshot is not None
        start = weights.with_values(self.starting_weights)
        learning = without_probe()
        if snapshot is not None:
            figures = self._evidence.add(weights, start, snapshot)
            if self._learning is not None:
                learning = self._learning.look(model, weights, start)
        else:
            figures = self._evidence.describe_nonfinite()
        epoch = training.get("epoch")
        checkpoint: dict[str, Any] = {
            "epoch": (step or 0) if epoch is None else epoch,
            "step": step,
            "finite": finite,
            **figures,
            **learning,
            "loss": loss if finite else None,
            "start_loss": start_loss if start_loss is not None and math.isfinite(start_loss) else None,
            "learning_rate": _to_float(training.get("learning_rate")),
            "num_batches": training.get("num_batches"),
            "num_nonfinite_losses": training.get("num_nonfinite_losses", 0),
        }
        if self._learning is not None and finite:
            self._put_back(self._learning, checkpoint, model, weights, start)
        judged = {**checkpoint, **self.rule.judge([*self.checkpoints, checkpoint])}
        judged["seconds"] = time.perf_counter() - began
        ordered: EarlyBirdCheckpoint = {name: judged[name] for name in EarlyBirdCheckpoint.__annotations__}  # type: ignore[assignment] # these are all keys
        self.checkpoints.append(ordered)
        if ordered["verdict"] == "converged" and self._ticket is None:
            self._ticket = self._evidence.mask
        self._log.tell({"early-bird": ordered}, round(ordered["epoch"]) if step is None else step)
        return ordered

    def _put_back(
        self, learning: Learning, checkpoint: dict[str, Any], model: nn.Module, weights: Weights, start: Weights
    ) -> None:
        """Puts parts back, the one dear measurement: the largest first, and only while the verdict hangs on them."""
        history, parts = [*self.checkpoints, checkpoint], checkpoint["parts"]
        moved = has_moved(history, self.rule.error_rate)
        for place in sorted(range(len(parts)), key=lambda place: -parts[place]["num_weights"]):
            hoped = [{**part, "closing_p": 0.0} if part["closing_p"] is None else part for part in parts]
            with_hope = self.rule.judge([*self.checkpoints, {**checkpoint, "parts": hoped}])["verdict"]
            if with_hope != "converged" or self.rule.judge(history)["verdict"] == "converged":
                return
            if moved[place]:
                parts[place] = learning.put_back(model, weights, start, parts[place])

    def draw_ticket(self, *, last: bool = False) -> Mask:
        """Returns the mask of the check that found it converged; of the last check when none has.

        Args:
            last: Whether to return that of the last check in any case.

        Warns:
            UserWarning: When a layer loses all its weights.
        """
        bits = self._evidence.mask if last or self._ticket is None else self._ticket
        provenance = {"method": "early-bird", **self.describe(), "verdict": self.verdict}
        return describe_mask(bits, Weights.from_tensors(self.starting_weights).part(bits), provenance)

    def describe(self) -> dict[str, Any]:
        """Returns the settings, JSON-able."""
        return {
            "sparsity": self.target_sparsity,
            "scope": self.scope,
            "channels": self.channels,
            "rule": asdict(self.rule),
            "weights": list(self._evidence.sizes),
            "evidence": GENERATION,
            "probe": None if self._learning is None else self._learning.measure.describe(),
        }

    def results(self) -> EarlyBirdResults:
        """Returns what has been found so far, as `compute_early_bird_tickets` does.

        Raises:
            ValueError: When no check was made.
        """
        if not self.checkpoints:
            raise ValueError(
                "there must be a check before there are results, but none was made; "
                f"the next is at step {self._next_check}"
            )
        outcome = summarise_history(self.checkpoints)
        return {
            "method": self.rule.method,
            "target_sparsity": self.target_sparsity,
            "convergence_threshold": self.rule.convergence_threshold,
            "converged": outcome["converged"],
            "convergence_epoch": outcome["convergence_epoch"],
            "verdict": outcome["verdict"],
            "reason": outcome["reason"],
            "checkpoints": list(self.checkpoints),
            "final_rankings": self._evidence.rank_shares(),
            "final_mask": self.draw_ticket(),
            "starting_weights": KeptState(self.starting_weights),
            "settings": self.describe(),
        }

    def save(self, folder: str | Path) -> None:
        """Writes the ticket with theta_0, see `use_ticket`, and all evidence: `ticket.safetensors`, `evidence.json`.

        Raises:
            ValueError: When no check was made.
        """
        found = self.results()
        folder = Path(folder)
        make_ticket(found).save(folder / TICKET)
        left_out = {"starting_weights", "final_rankings"}
        record = Record("early-bird", found["settings"])
        kept = {name: value for name, value in found.items() if name not in left_out}
        save_results(record.stamp(kept), folder / EVIDENCE)

    def state(self) -> dict[str, Tensor]:
        """Returns the tensors that `load_state` needs beside `checkpoints`; the starting weights are not among them."""
        ticket = {f"ticket.{name}": bits for name, bits in (self._ticket or {}).items()}
        loss = [] if self._start_loss is None else [float(self._start_loss)]
        learning = {} if self._learning is None else self._learning.state()
        return {**self._evidence.state(), **learning, **ticket, "start_loss": torch.tensor(loss, dtype=torch.float64)}

    def load_state(self, state: Mapping[str, Tensor], checkpoints: Sequence[EarlyBirdCheckpoint], step: int) -> None:
        """Goes on from a state, in a watcher made of the same starting weights with the same settings.

        Args:
            state: As `state` returned it.
            checkpoints: Those made until then.
            step: Steps made until then.

        Raises:
            ValueError: When the state is of another watch.
        """
        self._evidence.load_state(state)
        if self._learning is not None:
            self._learning.load_state(state)
        self.checkpoints = list(checkpoints)
        ticket = {name.removeprefix("ticket."): bits for name, bits in state.items() if name.startswith("ticket.")}
        if ticket:
            self._evidence.check_mask(ticket)
        self._ticket = ticket or None
        self._start_loss = pick_at_most_one(state, "start_loss")
        self._next_check = self._times.after(step)

    def _find(self, model: nn.Module) -> Weights:
        find = find_channel_scales if self.channels else find_prunable_weights
        return find(model, include=self.include, exclude=self.exclude)


def try_probe(watcher: EarlyBirdWatcher, model: nn.Module, probe: Probe) -> None:
    """Gives a watcher a probe that nobody asked for; where a model cannot be run on it, logs why and leaves it."""
    try:
        watcher.take_probe(model, probe)
    except (AttributeError, IndexError, KeyError, NotImplementedError, RuntimeError, TypeError, ValueError) as error:
        logger.info("learning is not measured, because the data makes no probe; give probe= samples: %s", error)


def _to_float(value: SupportsFloat | None) -> float | None:
    return None if value is None else float(value)


def _take_snapshot(weights: Weights) -> Snapshot | None:
    """Returns a snapshot; None where a weight is not finite."""
    try:
        return take_snapshot(weights)
    except ValueError:
        return None
