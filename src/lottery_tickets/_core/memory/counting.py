"""The bytes of tensors that are alive, counted as torch hands tensors out; of tensors without values too."""

import weakref
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, Final, final

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

HELD: Final = "held"


@final
class StorageCounter(TorchDispatchMode):
    """Within the block counts the bytes of storages that are alive, those made in it and those it is told of.

    Memory that a kernel takes and lets go inside is not seen.

    Args:
        held: Tensors that are there before.

    Attributes:
        label: What storages that are made from now on are counted as.
        alive: The bytes that are alive, by label.
        peak: The same at the moment when they were the most.
        largest_elements: Of the largest tensor that was made.
    """

    def __init__(self, held: Iterable[Tensor] = ()) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # torch's
        self.label = HELD
        self.alive: Counter[str] = Counter()
        self.peak: Counter[str] = Counter()
        self.largest_elements = 1
        self._total = self._peak_total = 0
        self._labels: dict[int, str] = {}
        for tensor in held:
            self.add(tensor)

    @property
    def peak_bytes(self) -> int:
        """The most that were alive at once, what was held before among them."""
        return self._peak_total

    @property
    def bytes_alive(self) -> int:
        """Those that are alive."""
        return self._total

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:  # noqa: ANN401 - whatever func returns
        result = func(*args, **(kwargs or {}))
        for leaf in (result,) if isinstance(result, Tensor) else tree_leaves(result):
            if isinstance(leaf, Tensor):
                self.add(leaf)
        return result

    def add(self, tensor: Tensor) -> None:
        """Counts the tensor's storage, unless it is counted already."""
        storage = tensor.untyped_storage()
        key, num_bytes = storage._cdata, storage.nbytes()  # noqa: SLF001 - its address, which torch's own trackers use
        if key in self._labels:
            return
        self._labels[key] = self.label
        self.alive[self.label] += num_bytes
        self._total += num_bytes
        self.largest_elements = max(self.largest_elements, tensor.numel())
        if self._total > self._peak_total:
            self._peak_total, self.peak = self._total, self.alive.copy()
        weakref.finalize(storage, self._remove, key, num_bytes)

    def count_as(self, tensor: Tensor, label: str) -> None:
        """Counts a tensor's storage, which is counted already, as something else."""
        storage = tensor.untyped_storage()
        key = storage._cdata  # noqa: SLF001 - as above
        self.alive[self._labels[key]] -= storage.nbytes()
        self.alive[label] += storage.nbytes()
        self._labels[key] = label

    def _remove(self, key: int, num_bytes: int) -> None:
        self.alive[self._labels.pop(key)] -= num_bytes
        self._total -= num_bytes
