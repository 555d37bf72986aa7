"""Watches a forward pass: finds every use of the weights, and collects their per-sample gradients in the backward pass.

A function mode sees each torch function that is handed a weight or a view of one. Either a rule knows how the call's
output gradient becomes the weight's per-sample gradients, or the model is declared not separable. Nothing is guessed
from module types, so functional calls, tied weights and modules called twice are no special cases.
"""

import functools
import inspect
import math
import types
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, final

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from lottery_tickets._core.gradients.arithmetic.marks import mark
from lottery_tickets._core.gradients.independence import Independence, find_tensors
from lottery_tickets._core.gradients.losses import LOSSES, LossCalls
from lottery_tickets._core.gradients.places import PART, Part, Place, find_overlap, find_place, get_part
from lottery_tickets._core.gradients.shortcuts import SHORTCUTS, Back, may_shorten
from lottery_tickets._core.gradients.taps import Tap
from lottery_tickets._core.gradients.uses import Use
from lottery_tickets._core.sharding.dtensors import gather, is_sharded

ROWS: Final = "_lottery_rows"  # attribute of activations whose rows are not in the order of the samples
VIEWS: Final = frozenset({
    "t", "T", "mT", "transpose", "swapaxes", "permute", "movedim", "chunk", "split", "unbind", "narrow", "select",
    "view", "reshape", "squeeze", "unsqueeze", "flatten", "unflatten", "__getitem__",
})  # fmt: skip
CASTS: Final = frozenset({"to", "type", "float", "half", "bfloat16", "double", "contiguous", "clone", "requires_grad_"})
HARMLESS: Final = frozenset(
    {"detach", "data", "zeros_like", "ones_like", "empty_like", "new_zeros", "new_empty", "grad"}
)
ROW_WISE: Final = frozenset({
    "chunk", "split", "mul", "add", "sub", "to", "type_as", "float", "silu", "gelu", "relu", "sigmoid", "tanh",
    "clamp", "contiguous", "dropout", "masked_fill", "hardtanh", "softplus", "mish", "leaky_relu",
})  # fmt: skip


class NotSeparableError(Exception):
    """The gradients of a batch cannot be told apart by sample; the message says why."""


Collector = tuple[Place, Callable[..., Use]]
Rule = Callable[..., Any]
Repeat = Callable[[Tensor, Tensor], Tensor]


@final
class Tracker(TorchFunctionMode):
    """The uses of some weights in one forward pass of a batch.

    Attributes:
        num_samples: In the batch.
        receive: Called with a place and all its uses when its gradients are complete.
        scale: Factor of each sample's gradient, shape (samples,); None for 1.
        drops_bad: Whether to look for samples whose gradient is not finite, and leave them out.
        dropped: For each place the number of samples that were left out.
        bad_samples: Which samples those are.
        is_second: Whether the samples are the second dimension, as inside multi_head_attention_forward.
        independence: The proof that no sample depends on another; None where none is asked for.
        watched: The number of a sample whose weight gradients are found torch's way too; None for none.
        alone: Their marks, by weight.
        shortens: Whether backward steps of our own are taken.
    """

    def __init__(
        self, weights: Mapping[str, Tensor], num_samples: int, losses: LossCalls, rules: Mapping[str, Rule]
    ) -> None:
        super().__init__()
        self.weights, self.num_samples, self.losses, self.rules = weights, num_samples, losses, rules
        self.receive: Callable[[Place, Sequence[Use]], object] | None = None
        self.scale: Tensor | None = None
        self.drops_bad = True
        self.dropped: Counter[Place] = Counter()
        self.bad_samples = torch.zeros(num_samples, dtype=torch.bool)
        self.is_second = False
        self.independence: Independence | None = None
        self.watched: int | None = None
        self.alone: dict[str, Tensor] = {}
        self.shortens = may_shorten()
        self._can_repeat = True  # all weight gradients torch's way
        self._reason: str | None = None
        self._has_rows = False  # whether rows of any activations are in another order
        self._counts: Counter[Place] = Counter()
        self._pending: dict[Place, list[Use]] = defaultdict(list)
        self._anchor = torch.empty(0, requires_grad=True)
        self.forms = {
            name: torch.empty_strided(weight.shape, weight.stride(), device="meta") for name, weight in weights.items()
        }
        for name, weight in weights.items():
            setattr(weight, PART, Part(name, self.forms[name]))

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 - whatever torch functions return
        kwargs = kwargs or {}
        if func in LOSSES:
            if self.independence is not None:
                self.independence.end(func, args, kwargs)
            return self.losses.call(func, args, kwargs)
        if not self.weights or self._reason is not None:
            return func(*args, **kwargs)
        try:
            if self.independence is not None and self.independence.follows(func, args, kwargs):
                return self.independence.mark(self._watch(func, args, kwargs))
            return self._watch(func, args, kwargs)
        except NotSeparableError as error:
            # Told at the end: processes that share the weights come there together.
            self._reason = str(error)
            return func(*args, **kwargs)

    def _watch(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:  # noqa: ANN401 - as above
        parts = _find_parts((*args, *kwargs.values()))
        name = _name_of(func)
        # A use under no_grad adds nothing to a gradient.
        if not parts or not torch.is_grad_enabled():
            shortcut = SHORTCUTS.get(func) if self.shortens and torch.is_grad_enabled() else None
            result = func(*args, **kwargs) if shortcut is None else shortcut(func, *args, **kwargs)
            return self._carry_rows(name, args, result)
        if name in self.rules:
            return self._apply_rule(name, func, args, kwargs)
        if name in VIEWS | CASTS:
            return _follow(name, func, args, kwargs, parts)
        result = func(*args, **kwargs)
        if name in HARMLESS or not any(tensor.is_floating_point() for tensor in find_tensors((result,))):
            return result
        raise NotSeparableError(f"{parts[0].name!r} is used by {name}, for which there is no rule")

    def tap(
        self,
        output: Tensor,
        saved: Sequence[Tensor],
        collectors: Sequence[Collector],
        back: Back | None = None,
        repeat: Repeat | None = None,
    ) -> Tensor:
        """Returns the output, such that the collectors' uses are made when its gradient is known.

        Args:
            output: Of the call, fresh.
            saved: What the uses are made from, beside the gradient of the output; the input of the call first.
            collectors: For each weight its place, and a function of the gradient and `saved` that makes its use.
            back: The backward step to that input, of an output that is in no graph yet.
            repeat: Computes torch's gradient of the only weight, from some samples' gradient of the output and inputs.
        """
        self._can_repeat &= repeat is not None and len(collectors) == 1
        self._counts.update(place for place, _ in collectors)

        def collect(*tensors: Tensor) -> None:
            wholes = [gather(tensor) if is_sharded(tensor) else tensor for tensor in tensors]
            for place, make in collectors:
                self._collect(place, make(*wholes))
                if self.watched is not None and repeat is not None:
                    self._repeat(place.name, repeat, wholes)

        if not collectors and back is None:
            return output
        source = self._anchor if back is None else saved[0]
        tapped: Tensor = Tap.apply(output, source, collect, back, *(t.detach() for t in saved))  # type: ignore[no-untyped-call]  # torch's
        return tapped

    def find_place(self, weight: Tensor, view: Callable[[Tensor], Tensor] = lambda tensor: tensor) -> Place | None:
        """Returns where a weight lies, seen through a further view; None when it is not tracked."""
        part = get_part(weight)
        return None if part is None else find_place(part.name, self.forms[part.name], view(part.view))

    def find_layout(self, inputs: Tensor) -> Callable[[Tensor], Tensor]:
        """Returns the function that sorts (..., columns) into (samples, positions, columns), for rows as in `inputs`.

        Raises:
            NotSeparableError: When rows and samples cannot be matched.
        """
        num_samples, rows = self.num_samples, getattr(inputs, ROWS, None)
        if rows is not None:
            return lambda tensor: pad_rows(tensor, rows, num_samples)
        num_rows = inputs.shape[:-1].numel()
        if inputs.ndim < 2 or (num_rows if self.is_second else len(inputs)) % num_samples:  # noqa: PLR2004 - rows, columns
            raise NotSeparableError(
                f"a layer's input of shape {tuple(inputs.shape)} is not divided by {num_samples} samples"
            )
        if self.is_second:
            return lambda tensor: tensor.reshape(-1, num_samples, tensor.shape[-1]).transpose(0, 1)
        return lambda tensor: tensor.reshape(num_samples, -1, tensor.shape[-1])

    @property
    def places(self) -> Iterable[Place]:
        """All that were used."""
        return self._counts.keys()

    @property
    def is_proved(self) -> bool:
        """Whether no sample can depend on another, and each weight's gradient has a second way to it."""
        is_single = len({place.name for place in self._counts}) == self._counts.total()
        return self.independence is not None and self.independence.is_proved and self._can_repeat and is_single

    def find_reason(self) -> str | None:
        """Returns why gradients cannot be told apart: a use without a rule, elements in two views; None if they can."""
        name = find_overlap(self._counts)
        if self._reason is None and name is not None:
            return f"parts of {name!r} that are used overlap"
        return self._reason

    def finish_backward(self) -> None:
        """Hands over what is left: places of which some use has no gradient."""
        for place in list(self._pending):
            self._hand_over(place)

    def _apply_rule(self, name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:  # noqa: ANN401 - as above
        rule = self.rules[name]
        plain = getattr(rule, "__func__", rule)  # not the method, with which its object would be remembered
        misfit = _find_misfit(plain, (2 if plain is rule else 3) + len(args), tuple(kwargs))
        if misfit is not None:
            raise NotSeparableError(f"{name} is called with arguments that its rule does not know: {misfit}")
        return rule(self, func, *args, **kwargs)

    def _repeat(self, name: str, repeat: Repeat, tensors: Sequence[Tensor]) -> None:
        gradient, inputs = (tensor.unflatten(0, (self.num_samples, -1))[self.watched] for tensor in tensors)
        found = repeat(gradient, inputs).unsqueeze(0)
        marks = mark(found if self.scale is None else found * self.scale[self.watched])
        self.alone[name] = self.alone[name] + marks if name in self.alone else marks  # of several classes

    def _collect(self, place: Place, use: Use) -> None:
        pending = self._pending[place]
        pending.append(use)
        if len(pending) == self._counts[place]:
            self._hand_over(place)

    def _hand_over(self, place: Place) -> None:
        uses: Sequence[Use] = self._pending.pop(place)
        if self.scale is not None:
            scale = self.scale.to(uses[0].gradients)
            uses = [replace(use, gradients=use.gradients * _unsqueeze_like(scale, use.gradients)) for use in uses]
        if self.drops_bad and not all(map(_may_be_finite, uses)):
            uses = self._drop_bad_samples(place, uses)
        if self.receive is not None:
            self.receive(place, uses)

    def _drop_bad_samples(self, place: Place, uses: Sequence[Use]) -> Sequence[Use]:
        good = torch.ones(self.num_samples, dtype=torch.bool, device=uses[0].gradients.device)
        for use in uses:
            for tensor in _numbers_of(use):
                good &= tensor.flatten(1).isfinite().all(1)
        self.dropped[place] += int((~good).sum())
        self.bad_samples |= ~good.cpu()
        return [
            replace(
                use,
                **{key: _zero_samples(value, good) for key, value in vars(use).items() if isinstance(value, Tensor)},
            )
            for use in uses
        ]

    def _carry_rows(self, name: str, args: tuple[Any, ...], result: Any) -> Any:  # noqa: ANN401 - any result
        """Returns the result, marked with the sample of each row where rows were picked, as routing to experts does."""
        if name in {"__getitem__", "index_select"} and isinstance(result, Tensor) and result.is_floating_point():
            index = args[-1]
            if isinstance(index, Tensor) and index.ndim == 1 and index.dtype == torch.long:
                rows = getattr(args[0], ROWS, None)
                if rows is None and len(args[0]) % self.num_samples == 0:
                    rows = torch.arange(len(args[0]), device=index.device) // (len(args[0]) // self.num_samples)
                if rows is not None:
                    self._has_rows = True
                    setattr(result, ROWS, rows[index])
        elif self._has_rows and name in ROW_WISE:
            for tensor in find_tensors(args):
                copy_rows(tensor, result)
        return result


def copy_rows(source: Tensor, result: Any) -> None:  # noqa: ANN401 - any result
    """Marks results of as many rows with the same samples."""
    rows = getattr(source, ROWS, None)
    if rows is not None:
        for tensor in find_tensors((result,)):
            if tensor.ndim and len(tensor) == len(rows):
                setattr(tensor, ROWS, rows)


def pad_rows(tensor: Tensor, rows: Tensor, num_samples: int) -> Tensor:
    """Returns (rows, columns) as (samples, positions, columns), where `rows` says whose each is; zeros fill up."""
    order = rows.argsort(stable=True)
    counts = rows.bincount(minlength=num_samples)
    starts = counts.cumsum(0) - counts
    ordered = rows[order]
    position = torch.arange(len(rows), device=rows.device) - starts[ordered]
    padded = tensor.new_zeros(num_samples, max(1, int(counts.max())), tensor.shape[-1])
    padded[ordered, position] = tensor[order]
    return padded


def open_function(function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a torch function written in Python such that a mode sees the functions within it."""
    plain = function
    while hasattr(plain, "__wrapped__"):
        plain = plain.__wrapped__
    if not isinstance(plain, types.FunctionType):
        raise NotSeparableError(f"{_name_of(function)} cannot be looked into")
    # By these a torch function asks whether to hand the whole call to a mode instead of running its body.
    names = {
        **plain.__globals__,
        "has_torch_function": _never,
        "has_torch_function_unary": _never,
        "has_torch_function_variadic": _never,
    }
    opened = types.FunctionType(plain.__code__, names, plain.__name__, plain.__defaults__, plain.__closure__)
    opened.__kwdefaults__ = plain.__kwdefaults__
    return opened


def _never(*_: object) -> bool:
    return False


def _follow(
    name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], parts: list[Part]
) -> Any:  # noqa: ANN401 - a tensor or several
    """Returns the view or cast of a weight, which is known as a part of it from now on."""
    part, result = parts[0], func(*args, **kwargs)
    if len(parts) > 1 or get_part(args[0]) is None:
        raise NotSeparableError(f"{part.name!r} is used by {name} in a way for which there is no rule")
    views = func(part.view, *args[1:], **kwargs) if name in VIEWS else part.view
    storage = part.view.untyped_storage()._cdata  # noqa: SLF001 - without values there is no address
    for tensor, view in zip(find_tensors((result,)), find_tensors((views,)), strict=True):
        if view.untyped_storage()._cdata != storage:  # noqa: SLF001 - as above
            raise NotSeparableError(f"{part.name!r} is copied by {name} in a way for which there is no rule")
        setattr(tensor, PART, Part(part.name, view))
    return result


@functools.lru_cache(maxsize=1024)  # because a look at the signature takes longer than many a rule
def _find_misfit(rule: Rule, num_positional: int, names: tuple[str, ...]) -> str | None:
    """Returns why a rule cannot be called with so many arguments and these named ones, None when it can."""
    try:
        inspect.signature(rule).bind(*[None] * num_positional, **dict.fromkeys(names))
    except TypeError as error:
        return str(error)
    return None


@functools.lru_cache(maxsize=1024)
def _name_of(function: Callable[..., Any]) -> str:
    name: str = getattr(function, "__name__", str(function))
    return str(getattr(function, "__self__", function).__name__) if name == "__get__" else name


def _find_parts(values: Iterable[Any]) -> list[Part]:
    found: list[Part] = []
    for value in values:
        if isinstance(value, Tensor):
            part = getattr(value, PART, None)
            if part is not None:
                found.append(part)
        elif isinstance(value, (tuple, list)):
            found += _find_parts(value)
    return found


def _may_be_finite(use: Use) -> bool:
    """Returns False where a number is not finite, which is cheap to find, and where their sum is too large."""
    return all(math.isfinite(tensor.sum().item()) for tensor in _numbers_of(use))


def _numbers_of(use: Use) -> list[Tensor]:
    return [value for value in vars(use).values() if isinstance(value, Tensor) and value.is_floating_point()]


def _unsqueeze_like(scale: Tensor, tensor: Tensor) -> Tensor:
    return scale.view(-1, *[1] * (tensor.ndim - 1))


def _zero_samples(tensor: Tensor, good: Tensor) -> Tensor:
    return (
        torch.where(_unsqueeze_like(good, tensor), tensor, torch.zeros_like(tensor))
        if tensor.is_floating_point()
        else tensor
    )
