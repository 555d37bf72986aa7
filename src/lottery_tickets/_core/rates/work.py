"""What is computed, by kind and size, counted as torch runs operations; on tensors without values too."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Self, final

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

PRODUCT: Final = "product"  # of matrices, attention too; FLOPs
CONVOLUTION: Final = "convolution"  # FLOPs
CONVOLUTION_BACKWARD: Final = "convolution, backward"  # FLOPs, of both gradients
MEMORY: Final = "memory"  # all other operations; bytes that are read and written
SELECTION: Final = "selection"  # weights a mask is drawn for
CALLING: Final = "calling"  # calls, for what Python and autograd take beside them
MOVING: Final = "moving"  # weights that are moved along two random directions
NO_DTYPE: Final = ""
WITHOUT_WORK: Final = ("aten::empty", "aten::new_empty")  # memory that nothing is written to
LOOKING_UP: Final = ("aten::embedding", "aten::index", "aten::index_select", "aten::gather")  # read only some rows
PRODUCTS_OF_ATTENTION: Final = {"forward": 2, "backward": 5}
FLOPS_EACH: Final = 2  # a multiplication and an addition


class Operation(NamedTuple):
    """One call.

    Attributes:
        kind: One of those above.
        dtype: Of what is multiplied, by torch's name; empty where it does not count.
        size: Of the call, in the unit of its kind.
    """

    kind: str
    dtype: str
    size: int


@final
@dataclass(frozen=True)
class Work:
    """Operations, with how often each is called."""

    calls: Mapping[Operation, float] = field(default_factory=dict)

    @classmethod
    def of(cls, kind: str, sizes: Iterable[int]) -> Self:
        """Returns one call for each size, of a kind without a dtype; empty ones take no time."""
        calls = Counter(Operation(kind, NO_DTYPE, size) for size in sizes if size)
        return cls({call: float(times) for call, times in calls.items()})

    def __add__(self, other: "Work") -> "Work":
        """Returns both, one after the other."""
        keys = dict.fromkeys((*self.calls, *other.calls))
        return Work({key: self.calls.get(key, 0) + other.calls.get(key, 0) for key in keys})

    @property
    def num_calls(self) -> float:
        """Of all kinds."""
        return sum(self.calls.values())


@final
class WorkCounter(TorchDispatchMode):
    """Within the block counts what is computed; what an operation does is told by its name and the shapes it is given.

    FLOPs are torch's own (`torch.utils.flop_counter`), with those it leaves out: of attention and of linear layers on
    a CPU, and of products that are added in place.

    Attributes:
        times: How often what runs from now on counts.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # torch's
        self.times = 1.0
        self._calls: dict[Operation, float] = {}

    @property
    def work(self) -> Work:
        """What was counted."""
        return Work(dict(self._calls))

    @contextmanager
    def counting_for_more(self, times: float) -> Iterator[None]:
        """Within the block each operation counts for so many."""
        before, self.times = self.times, self.times * times
        try:
            yield
        finally:
            self.times = before

    def __torch_dispatch__(
        self, func: OpOverload, types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:  # noqa: ANN401 - whatever func returns
        result = func(*args, **(kwargs or {}))
        if (found := describe_call(func, args, kwargs or {}, result)) is not None:
            self._calls[found] = self._calls.get(found, 0) + self.times
        return result


def describe_call(
    func: OpOverload,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    result: Any,  # noqa: ANN401 - as above
) -> Operation | None:
    """Returns what a call computes; None where that is nothing."""
    written = find_tensors(result)
    if not written or func.name().startswith(WITHOUT_WORK):
        return None
    name = _name(func)
    count = COUNTED.get(name) or flop_registry.get(func.overloadpacket)
    if count is not None:
        kind = PRODUCT
        if "convolution" in name:
            kind = CONVOLUTION_BACKWARD if "backward" in name else CONVOLUTION
        return Operation(kind, name_dtype(written[0].dtype), int(count(*args, **kwargs, out_val=result)))
    num_bytes = _count_bytes(func, find_tensors((args, kwargs)), written)
    return Operation(MEMORY, NO_DTYPE, num_bytes) if num_bytes else None


def _name(func: OpOverload) -> str:
    return str(func.name()).split(".")[0]


def _count_bytes(func: OpOverload, read: list[Tensor], written: list[Tensor]) -> int:
    """Returns the bytes that are read and written; 0 of views."""
    given = {tensor.untyped_storage()._cdata for tensor in read}  # noqa: SLF001 - its address
    made = [tensor for tensor in written if tensor.untyped_storage()._cdata not in given]  # noqa: SLF001 - as above
    if func._schema.is_mutable:  # noqa: SLF001 - torch's, as its own counters use it
        made = written
    if not made:
        return 0
    num_made = sum(map(_measure, made))
    num_read = sum(map(_measure, read))
    return num_made + (min(num_made, num_read) if _name(func) in LOOKING_UP else num_read)


def _measure(tensor: Tensor) -> int:
    """Returns the bytes of a tensor, of what is repeated without being there once."""
    return min(tensor.nbytes, tensor.untyped_storage().nbytes())


def find_tensors(values: Any) -> list[Tensor]:  # noqa: ANN401 - of torch
    if isinstance(values, Tensor):  # most often, and a tree takes ten times as long
        return [values]
    if not isinstance(values, tuple | list):
        return []
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]


def _count_linear(inputs: Tensor, weight: Tensor, *_: object, **__: object) -> int:
    return FLOPS_EACH * inputs.numel() * weight.shape[0]


def _count_in_place(_: Tensor, left: Tensor, right: Tensor, **__: object) -> int:
    return FLOPS_EACH * left.numel() * right.shape[-1]


def _count_attention(queries: Tensor, keys: Tensor, *_: object, **__: object) -> int:
    *rows, width = queries.shape
    return FLOPS_EACH * PRODUCTS_OF_ATTENTION["forward"] * math.prod(rows) * keys.shape[-2] * width


def _count_attention_backward(_: Tensor, queries: Tensor, keys: Tensor, *__: object, **___: object) -> int:
    *rows, width = queries.shape
    return FLOPS_EACH * PRODUCTS_OF_ATTENTION["backward"] * math.prod(rows) * keys.shape[-2] * width


COUNTED: Final[Mapping[str, Callable[..., int]]] = {
    "mkldnn::_linear_pointwise": _count_linear,
    "aten::addmm_": _count_in_place,
    "aten::baddbmm_": _count_in_place,
    "aten::_scaled_dot_product_flash_attention_for_cpu": _count_attention,
    "aten::_scaled_dot_product_flash_attention_for_cpu_backward": _count_attention_backward,
}


def name_dtype(dtype: torch.dtype) -> str:
    """Returns torch's name of a dtype, without torch's own.

    Examples:
        >>> name_dtype(torch.bfloat16)
        'bfloat16'
    """
    return str(dtype).removeprefix("torch.")
