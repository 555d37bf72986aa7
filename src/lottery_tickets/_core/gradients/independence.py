"""Whether each sample of a batch goes its own way through a model: proved from the torch functions that are called.

A function that is known here makes an entry of its output of those entries of its inputs that have the same place in
the first dimension, and of constants. Where nothing else lies between a batch and its logits, no sample can depend on
another. Whatever is not known ends the proof: a function, a tensor from elsewhere, a change in place, a hook, a
question about how many samples there are. Then nothing is said, and a sample is run alone to find out.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, final

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import _get_current_function_mode  # there is no public way to ask
from torch.utils._python_dispatch import _get_current_dispatch_mode  # as above

MARK: Final = "_lottery_independent"  # attribute of activations: of which proof, and what they were then

Function = Callable[..., Any]
NUM_DIMS_OF_IMAGES: Final = 4


@final
class Independence:
    """A proof for one forward pass.

    Args:
        constants: Of the model: its parameters and buffers.
        inputs: Of the model, one entry a sample; an object of nobody else's.

    Attributes:
        holds: Whether nothing has ended it yet.
    """

    def __init__(self, constants: Iterable[Tensor], inputs: Tensor) -> None:
        self.holds = True
        self._constants = list(constants)  # held, as their ids could else be another's later
        self._versions = {id(tensor): tensor._version for tensor in self._constants}  # noqa: SLF001 - torch's write counter
        self._token = object()  # what an earlier pass has left somewhere is of no worth in this one
        self._has_loss = False
        self.mark(inputs)

    def follows(self, function: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Returns whether the result of a call may be marked, before the call; ends the proof where it must."""
        if not self.holds:
            return False
        tensors = find_tensors((*args, *kwargs.values()))
        known = [self._is_known(tensor) for tensor in tensors]
        if not any(known) or function in HARMLESS:
            return False
        test = FUNCTIONS.get(function) if _is_torchs_own() else None
        are_constant = all(is_known or self._is_constant(t) for is_known, t in zip(known, tensors, strict=True))
        self.holds = test is not None and are_constant and _passes(test, known, args, kwargs)
        return self.holds

    def mark(self, result: Any) -> Any:  # noqa: ANN401 - any result
        """Returns a tensor that holds one entry a sample, with a mark that says so."""
        if type(result) is Tensor:
            setattr(result, MARK, (self._token, *_describe(result)))
        return result

    def end(self, function: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Notes a loss, which must be the mean cross-entropy of one row of logits a sample."""
        logits = args[0] if args else None
        is_mean = function is functional.cross_entropy and kwargs.get("reduction", "mean") == "mean"
        has_rows = isinstance(logits, Tensor) and logits.ndim == 2 and self._is_known(logits)  # noqa: PLR2004 - rows and columns
        self.holds = self.holds and is_mean and has_rows and kwargs.get("weight") is None
        self._has_loss = True

    @property
    def is_proved(self) -> bool:
        """Whether it held up to the loss."""
        return self.holds and self._has_loss

    def _is_known(self, tensor: object) -> bool:
        token, *then = getattr(tensor, MARK, (None,))
        return token is self._token and isinstance(tensor, Tensor) and then == _describe(tensor)

    def _is_constant(self, tensor: Tensor) -> bool:
        return self._versions.get(id(tensor)) == tensor._version  # noqa: SLF001 - as above


def _is_torchs_own() -> bool:
    """Returns whether a function does what torch says: somebody's mode could change it, and hooks what it saves."""
    hooks: object = torch._C._autograd._top_saved_tensors_default_hooks(False)  # noqa: FBT003, SLF001 - there is no public way
    return hooks is None and _get_current_dispatch_mode() is None


def _describe(tensor: Tensor) -> list[object]:
    """Returns torch's count of writes to a tensor, and its node in the graph, which a custom function replaces."""
    return [tensor._version, tensor.grad_fn]  # noqa: SLF001 - as above


def begin(model: nn.Module, batch: Any, num_samples: int) -> tuple[Independence | None, Any]:  # noqa: ANN401 - any batch
    """Returns a proof that can begin for a pass of a model, None for batches of another kind; and what to run.

    Args:
        model: With the tensors that it will run with.
        batch: Of a pair (inputs, class indices) each has one entry a sample.
        num_samples: How many.
    """
    is_pair = isinstance(batch, (tuple, list)) and [type(item) for item in batch] == [Tensor, Tensor]
    if not is_pair or _get_current_function_mode() is not None:
        return None, batch
    inputs, targets = batch
    is_here = inputs.device.type == "cpu" and not inputs.requires_grad
    if not is_here or {inputs.shape[:1], targets.shape} != {torch.Size([num_samples])}:
        return None, batch
    kept = (slots for module in model.modules() for slots in (module._parameters, module._buffers))  # noqa: SLF001 - where a module looks itself
    constants = [tensor for slots in kept for tensor in slots.values() if tensor is not None]
    own = inputs.detach()  # because the caller's object is to stay as it is
    return Independence(constants, own), (own, targets)


def _passes(test: Callable[..., bool], known: list[bool], args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    try:
        return bool(test(known, *args, **kwargs))
    except TypeError:  # called in a way that the test does not know
        return False


def find_tensors(values: Iterable[Any]) -> list[Tensor]:
    """Returns the tensors among some values, and in their tuples and lists."""
    found: list[Tensor] = []  # not a generator, which takes twice as long, at every call of a torch function
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, (tuple, list)):
            found += find_tensors(value)
    return found


# What follows are tests of a call's arguments: `known` says which of its tensors hold one entry a sample; the others
# are constants.


def _is_alone(known: list[bool], *_: object, **__: object) -> bool:
    """Returns whether there is one tensor, of which a function takes element by element."""
    return known == [True]


def _is_pool(known: list[bool], images: Tensor, *_: object, **__: object) -> bool:
    return known == [True] and images.ndim == NUM_DIMS_OF_IMAGES


def _is_layer(known: list[bool], inputs: Tensor, weight: Tensor, *_: object, **__: object) -> bool:
    return known[0] and not any(known[1:]) and inputs.ndim >= weight.ndim


def _is_norm(known: list[bool], inputs: Tensor, *_: object, **__: object) -> bool:
    """Returns whether a norm is over what each sample has; one over groups of channels always is."""
    return known[0] and not any(known[1:]) and inputs.ndim > 1


def _is_layer_norm(
    known: list[bool], inputs: Tensor, normalized_shape: Sequence[int], *_: object, **__: object
) -> bool:
    return known[0] and not any(known[1:]) and len(normalized_shape) < inputs.ndim


def _has_statistics(
    known: list[bool],
    _inputs: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    *,
    training: object,
    **_: object,
) -> bool:
    """Returns whether a batch norm has running statistics, and takes them."""
    has_both = running_mean is not None and running_var is not None
    return known[0] and not any(known[1:]) and has_both and not training


def _drops_nothing(known: list[bool], *_: object, training: object, **__: object) -> bool:
    return known == [True] and not training


def _is_within(known: list[bool], inputs: Tensor, dim: object = None, *_: object, **named: object) -> bool:
    """Returns whether a mean is over other dimensions than the first."""
    dims = [number for number in (dim if isinstance(dim, (tuple, list)) else [dim]) if isinstance(number, int)]
    are_others = bool(dims) and all(number % inputs.ndim for number in dims)
    return known == [True] and are_others and set(named) <= {"keepdim"}


def _begins_later(known: list[bool], _inputs: Tensor, start_dim: int = 0, *_: object, **__: object) -> bool:
    return known == [True] and start_dim > 0


def _joins(known: list[bool], one: object, other: object) -> bool:
    """Returns whether two tensors have equally many dimensions, or one is a number."""
    dims = {item.ndim for item in (one, other) if isinstance(item, Tensor)}
    return all(known) and len(dims) == 1


_UNARY = (
    functional.relu, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_, functional.relu6, functional.hardtanh,
    functional.gelu, functional.silu, functional.leaky_relu, functional.elu, functional.hardswish,
    functional.hardsigmoid, functional.mish, torch.sigmoid, Tensor.sigmoid, torch.tanh, Tensor.tanh,
)  # fmt: skip
_JOINS = (torch.add, Tensor.add, Tensor.add_, torch.mul, Tensor.mul)
FUNCTIONS: Final[dict[Function, Callable[..., bool]]] = {
    **dict.fromkeys(_UNARY, _is_alone),
    **dict.fromkeys((functional.avg_pool2d, functional.adaptive_avg_pool2d, functional.max_pool2d), _is_pool),
    **dict.fromkeys((functional.conv1d, functional.conv2d, functional.conv3d, functional.linear), _is_layer),
    functional.batch_norm: _has_statistics,
    functional.group_norm: _is_norm,
    functional.layer_norm: _is_layer_norm,
    functional.dropout: _drops_nothing,
    **dict.fromkeys((torch.mean, Tensor.mean), _is_within),
    **dict.fromkeys((torch.flatten, Tensor.flatten), _begins_later),
    **dict.fromkeys(_JOINS, _joins),
}
"""By the torch function, what its arguments must be like."""
HARMLESS: Final[frozenset[Function]] = frozenset({
    Tensor.dim, Tensor.is_floating_point, *(getattr(Tensor, name).__get__ for name in ("ndim", "dtype", "device")),
})  # fmt: skip
"""Ask for what does not depend on the number of samples."""
