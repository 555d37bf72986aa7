"""A stand-in for a model: the same modules, whose weights have shapes and no values, so that it runs without memory."""

import copy
import itertools
import logging
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, final

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel

from lottery_tickets._core.batches.samples import count_samples, map_leaves
from lottery_tickets._core.memory.counting import StorageCounter
from lottery_tickets._core.names import clean_name, unwrap
from lottery_tickets._core.rates.work import WorkCounter

WEIGHTS = "weights"


@final
class StandIn:
    """A copy of a model whose parameters and buffers are torch's fake tensors: operations are run on shapes alone.

    The tensors say that they are on the CPU, or on a GPU where there is one, because that decides what torch computes
    by: on the meta device attention would hold all products of queries and keys, and by its kernels it does not.

    Args:
        model: On any device, the meta device too; is left as it is.
        on_gpu: Whether the tensors are to be on the GPU.

    Attributes:
        model: The copy.
        on_gpu: Whether it stands for a model on a GPU, also where there is none.
    """

    def __init__(self, model: nn.Module, *, on_gpu: bool) -> None:
        self.on_gpu = on_gpu
        self._mode = FakeTensorMode(allow_non_fake_inputs=True)
        self._device = "cuda" if on_gpu and torch.cuda.is_available() else "cpu"
        inner = unwrap(model)
        memo: dict[int, Any] = {}
        with self._mode:
            for parameter in inner.parameters():
                memo[id(parameter)] = nn.Parameter(self._imitate(parameter), requires_grad=parameter.requires_grad)
            for buffer in inner.buffers():
                memo[id(buffer)] = self._imitate(buffer)
        self.model: nn.Module = copy.deepcopy(inner, memo)

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        """By name; of a tied one the first."""
        return {clean_name(name): parameter for name, parameter in self.model.named_parameters()}

    def make_batch(self, example: Any, num_samples: int) -> Any:  # noqa: ANN401 - a batch of the same kind
        """Returns a batch of so many samples of the kind of another one.

        Args:
            example: What holds one entry for each of its samples in the first dimension.
            num_samples: 1 or more.
        """
        size = count_samples(example)

        def resize(leaf: Any) -> Any:  # noqa: ANN401 - whatever a batch holds
            if not isinstance(leaf, Tensor):
                return leaf
            shape = (num_samples, *leaf.shape[1:]) if leaf.ndim and len(leaf) == size else leaf.shape
            return torch.empty(shape, dtype=leaf.dtype, device=self._device)

        with self._mode:
            return map_leaves(example, resize)

    @contextmanager
    def counting(self, autocast: torch.dtype | None = None) -> Iterator[tuple[StorageCounter, WorkCounter]]:
        """Within the block the copy can be run; tensors and operations are counted, nothing of chance is used up.

        Args:
            autocast: The dtype of mixed precision that it is run under, None for none.
        """
        held = itertools.chain(self.model.parameters(), self.model.buffers())
        counter, computed = StorageCounter(), WorkCounter()
        counter.label = WEIGHTS
        for tensor in held:
            counter.add(tensor)
        told = logging.getLogger("torch._subclasses.fake_tensor")
        was_silent, told.disabled = told.disabled, True  # it prints where an operation failed, which the plan says
        try:
            is_held = self.on_gpu and autocast is None and _multiplies_out(self.model)
            attention = sdpa_kernel(SDPBackend.MATH) if is_held else nullcontext()
            with torch.random.fork_rng(devices=[]), self._mode, counter, computed, attention:
                yield counter, computed
        finally:
            told.disabled = was_silent

    def _imitate(self, tensor: Tensor) -> Tensor:
        return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=self._device)


def _multiplies_out(model: nn.Module) -> bool:
    """Returns whether attention holds all products of queries and keys on a GPU, of which fake tensors know nothing.

    torch has no fused kernel there for float64, nor for float32 with fewer heads of keys than of queries, as which
    transformers hands them on where no token is masked. Measured on an H100 with torch 2.11 and transformers 5.17.
    """
    dtype = next((parameter.dtype for parameter in model.parameters()), None)
    config = getattr(model, "config", None)
    num_heads = getattr(config, "num_attention_heads", None)
    are_fewer = getattr(config, "num_key_value_heads", None) not in {None, num_heads}
    return dtype == torch.float64 or (dtype == torch.float32 and are_fewer)
