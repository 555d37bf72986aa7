"""Forward and backward passes of a batch: all samples at once, or one sample with torch's own weight gradients."""

import contextlib
import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, final

import torch
from torch import Tensor, nn

from lottery_tickets._core.gradients import independence
from lottery_tickets._core.gradients.losses import Labels, LossCall, LossCalls
from lottery_tickets._core.gradients.places import Place, find_place
from lottery_tickets._core.gradients.rules import RULES
from lottery_tickets._core.gradients.tracking import NotSeparableError, Tracker
from lottery_tickets._core.gradients.uses import DirectUse, Use
from lottery_tickets._core.measuring.running import Slots, see_gathered
from lottery_tickets._core.objective import LossFunction, compute_loss
from lottery_tickets._core.sharding.dtensors import cut_like, gather, is_sharded, see_form
from lottery_tickets._core.weights import Weights

Receive = Callable[[Place, Sequence[Use]], object]


@dataclass(frozen=True)
class Objective:
    """What is differentiated.

    Attributes:
        loss_fn: The caller's loss; None for the model's own.
        labels: Those of the data ("empirical"), drawn from the model ("sampled"), or each class in turn ("exact").
        generator: What labels are drawn with.
        autocast: The dtype of mixed precision, None for none.
    """

    loss_fn: LossFunction | None
    labels: Labels
    generator: torch.Generator
    autocast: torch.dtype | None = None


FEWER_BITS: Final = ("tf32", "bf16", True)


def find_precisions() -> list[tuple[Any, str, Any]]:
    """Returns where torch says how a GPU computes in float32, and the value for all bits; torch 2.9 renamed them."""
    backends: Any = torch.backends
    if hasattr(backends.cudnn, "conv"):
        return [(place, "fp32_precision", "ieee") for place in (backends.cudnn.conv, backends.cuda.matmul)]
    return [(place, "allow_tf32", False) for place in (backends.cudnn, backends.cuda.matmul)]


@final
class Passes:
    """Runs batches through a model whose parameters are never touched: copies of their handles are handed in instead.

    A handle shares the memory of its parameter, but neither its gradient nor its hooks; so `.grad` stays as it is.
    """

    def __init__(self, model: nn.Module, weights: Weights, objective: Objective) -> None:
        self.objective = objective
        self.model = model
        computed = see_gathered(model, weights.tensors)
        self._tensors = {name: _lay_out(tensor.detach()) for name, tensor in computed.items()}
        self.weights = {name: see_form(tensor) for name, tensor in self._tensors.items()}
        self.output_dims = weights.output_dims
        self._slots = Slots(model, weights)
        self._places: dict[str, list[Place]] | None = None
        self.device = next(iter(self.weights.values())).device
        self._is_in_full_precision = False

    @property
    def computes_roughly(self) -> bool:
        """Whether float32 is rounded to fewer bits meanwhile: by autocast, or on a GPU to TF32."""
        if self._is_in_full_precision:
            return False
        is_rounded = any(getattr(place, name) in FEWER_BITS for place, name, _ in find_precisions())
        return self.objective.autocast is not None or (self.device.type == "cuda" and is_rounded)

    @contextlib.contextmanager
    def in_full_precision(self) -> Iterator[None]:
        """Within the block float32 is computed with all its bits: without autocast, and without TF32 on a GPU."""
        objective, self.objective = self.objective, replace(self.objective, autocast=None)
        self._is_in_full_precision = True
        switches = [(place, name, getattr(place, name)) for place, name, _ in find_precisions()]
        for place, name, value in find_precisions():
            setattr(place, name, value)
        try:
            yield
        finally:
            for place, name, before in switches:
                setattr(place, name, before)
            self.objective, self._is_in_full_precision = objective, False

    def run_whole(self, batch: object, num_samples: int, *, proves: bool = False) -> "WholeBatch":
        """Returns a batch after its forward pass, its uses of the weights known.

        Args:
            batch: To run.
            num_samples: In it.
            proves: Whether to prove that no sample depends on another, where that is possible.

        Raises:
            NotSeparableError: When the gradients cannot be told apart by sample.
        """
        handles = {name: tensor.detach() for name, tensor in self._tensors.items()}
        tracker = Tracker(handles, num_samples, self._watch_losses(num_samples), RULES)
        generator = self.objective.generator
        state = generator.get_state()
        loss = self._forward(batch, handles, tracker, proves=proves and self.objective.loss_fn is None)
        call = tracker.losses.pop(loss)
        reason = tracker.find_reason()
        if reason is not None or call is None or call.counts is None:
            generator.set_state(state)  # the next pass draws the labels that this one has drawn
            raise NotSeparableError(reason or "the loss is not one mean that a loss function of torch returned")
        if not loss.requires_grad:
            raise _independent_of(self.weights)
        return WholeBatch(tracker, loss, call, self.objective.labels)

    def run_single(self, sample: object) -> "SingleSample":
        """Returns a batch of one sample after its forward pass."""
        handles = {name: tensor.detach().requires_grad_() for name, tensor in self._tensors.items()}
        tracker = Tracker({}, 1, self._watch_losses(1), {})  # without weights: only the loss is watched
        # With labels of the data nothing needs watching, which takes time at every call of a torch function.
        loss = self._forward(sample, handles, None if self.objective.labels == "empirical" else tracker)
        if not loss.requires_grad:
            raise _independent_of(self.weights)
        call = tracker.losses.pop(loss)
        if call is None and self.objective.labels != "empirical":
            raise ValueError(
                f"labels {self.objective.labels!r} need a loss that torch's cross_entropy returns, but this one is "
                "computed otherwise; use labels 'empirical'"
            )
        if self._places is None:
            self._places = {name: list(self._places_of(name)) for name in handles}
        return SingleSample(handles, self._places, loss, call, self.objective.labels)

    def _places_of(self, name: str) -> Iterator[Place]:
        """Yields the place of each matrix (outputs, inputs) of a weight: one, or as many as there are experts."""
        # On no device, because the memory of what FSDP gathers comes and goes.
        weight, output_dims = torch.empty_like(self.weights[name], device="meta"), self.output_dims[name]
        inner = [dim for dim in range(weight.ndim) if dim not in output_dims]
        ordered = weight.permute(*output_dims, *inner) if weight.ndim > 1 else weight
        for index in itertools.product(*(range(size) for size in ordered.shape[: len(output_dims) - 1])):
            yield find_place(name, weight, ordered[index] if index else ordered)

    def _watch_losses(self, num_samples: int) -> LossCalls:
        return LossCalls(num_samples, self.objective.labels, self.objective.generator)

    def _forward(
        self, batch: object, handles: Mapping[str, Tensor], tracker: Tracker | None, *, proves: bool = False
    ) -> Tensor:
        autocast = self.objective.autocast
        precision = torch.autocast(self.device.type, autocast) if autocast else contextlib.nullcontext()

        def run(model: nn.Module) -> Tensor:
            given = batch
            if tracker is not None and proves:
                tracker.independence, given = independence.begin(model, batch, tracker.num_samples)
            with (
                tracker or contextlib.nullcontext()
            ):  # not around the slots, whose own handling of the weights would be looked at too
                return compute_loss(model, given, self.objective.loss_fn)

        with torch.enable_grad(), precision:
            loss: Tensor = self._slots.run_with(handles, run, are_whole=True)
        return loss


@final
@dataclass(frozen=True)
class WholeBatch:
    """A batch after its forward pass, all samples at once."""

    tracker: Tracker
    loss: Tensor
    call: LossCall
    labels: Labels

    @property
    def num_places(self) -> Counter[str]:
        """Of each weight that was used, how many places."""
        return Counter(place.name for place in self.tracker.places)

    def run_backward(self, receive: Receive, scale: Tensor | None = None, *, keep_graph: bool = False) -> None:
        """Runs the backward pass and hands each weight's gradients to `receive`, each sample's times its scale."""
        self.tracker.receive = receive
        if self.labels == "exact":
            self.tracker.scale = scale
            _run_classes(self.call, self.tracker.finish_backward, keep_graph=keep_graph)
            return
        counts = self.call.counts
        num_samples = self.tracker.num_samples
        if counts is not None and bool((counts != counts[0]).any() | (counts[0] == 0)):
            # A sample's loss is the mean over its own terms; one that has none has no loss, 0 / 0.
            shares = counts.sum() / (counts * num_samples)
            shares = torch.where(counts > 0, shares, torch.nan).to(self.loss.device)
            scale = shares if scale is None else shares * scale
        self.tracker.scale = scale
        # Times the number of samples, by which the mean has divided the gradient of each.
        self.loss.backward(torch.full_like(self.loss, num_samples), retain_graph=keep_graph)
        self.tracker.finish_backward()


@final
@dataclass(frozen=True)
class SingleSample:
    """A sample after its forward pass, whose weight gradients torch computes."""

    handles: Mapping[str, Tensor]
    places: Mapping[str, Sequence[Place]]
    loss: Tensor
    call: LossCall | None
    labels: Labels

    @property
    def num_places(self) -> Counter[str]:
        """Of each weight, how many places."""
        return Counter({name: len(places) for name, places in self.places.items()})

    def run_backward(self, receive: Receive, scale: Tensor | None = None, *, keep_graph: bool = False) -> None:
        """Runs the backward pass and hands over each weight's gradient as soon as it is there; then frees it."""

        def make_hook(name: str) -> Callable[[Tensor], None]:
            def hand_over(handle: Tensor) -> None:
                gradient, handle.grad = handle.grad, None
                if gradient is not None:
                    gradient = _see_whole(handle, gradient)
                    gradient = gradient if scale is None else gradient * scale.to(gradient)
                    self._hand_over(name, gradient, receive)

            return hand_over

        hooks = [h.register_post_accumulate_grad_hook(make_hook(name)) for name, h in self.handles.items()]
        try:
            if self.labels == "exact" and self.call is not None:
                _run_classes(self.call, lambda: None, keep_graph=keep_graph)
            else:
                self.loss.backward(retain_graph=keep_graph)
        finally:
            for hook in hooks:
                hook.remove()

    def _hand_over(self, name: str, gradient: Tensor, receive: Receive) -> None:
        for place in self.places[name]:
            matrix = place.of(gradient)
            receive(place, [DirectUse(matrix.reshape(1, len(matrix), -1))])


def _run_classes(call: LossCall, finish: Callable[[], None], *, keep_graph: bool) -> None:
    """Runs a backward pass for each class c, of the loss at label c times the square root of c's probability."""
    logits = call.logits
    if logits is None:
        return
    if logits.ndim != 2 or (call.counts is not None and len(logits) != len(call.counts)):  # noqa: PLR2004 - samples, classes
        raise ValueError(
            "labels 'exact' need one prediction a sample, logits of shape (samples, classes), "
            f"got {tuple(logits.shape)}; use labels 'sampled'"
        )
    probabilities = gather(logits).softmax(-1)
    num_classes = logits.shape[1]
    for label in range(num_classes):
        gradient = probabilities.clone()
        gradient[:, label] -= 1  # the gradient of cross-entropy by its logits
        # The root, so that the squares over all classes add up to their expectation.
        gradient *= probabilities[:, label : label + 1].sqrt()
        logits.backward(cut_like(gradient, logits), retain_graph=keep_graph or label < num_classes - 1)
        finish()


def _see_whole(weight: Tensor, gradient: Tensor) -> Tensor:
    """Returns a gradient whole and dense, laid out as its weight, in whose strides places count."""
    if not gradient.is_sparse and not is_sharded(gradient):
        return gradient  # torch lays it out as the weight, which fills its memory
    values = gradient.to_dense() if gradient.is_sparse else gather(gradient)
    form = torch.empty_strided(weight.shape, weight.stride(), dtype=values.dtype, device=values.device)
    return form.copy_(values)


def _lay_out(weight: Tensor) -> Tensor:
    """Returns the weight, or a copy when its elements do not fill their memory, so that sums can be laid out alike."""
    return weight if torch.empty_like(weight).stride() == weight.stride() else weight.contiguous()


def _independent_of(weights: Mapping[str, Tensor]) -> ValueError:
    some = ", ".join(list(weights)[:5])
    return ValueError(
        f"the loss must depend on a chosen weight, but has no gradient for any of {some}; "
        "check include= and that the model does not run under no_grad"
    )
