"""Pickles what an executor runs: functions of scripts and notebooks too, and memory that tensors share once.

A data set is often a list of rows of one tensor. torch pickles the memory of each row whole, which is that of all rows.
"""

import io
from typing import Any

import torch
from torch import Tensor

from lottery_tickets._core.checks import needing_extra


def pickle_once(task: object) -> bytes:
    """Returns a pickle, in which tensors that share memory share it, and which makes them share it again.

    Args:
        task: Whatever cloudpickle can pickle.

    Raises:
        ModuleNotFoundError: Without cloudpickle, which engines have.
        Exception: Of whatever cannot be pickled.
    """
    with needing_extra("cluster"):
        import cloudpickle  # noqa: PLC0415 - only where an executor runs something
    wholes: dict[tuple[int, int], Tensor] = {}  # by the memory that they are all bytes of

    class Pickler(cloudpickle.Pickler):  # type: ignore[misc] # a module without types
        def reducer_override(self, thing: Any) -> Any:  # noqa: ANN401 - pickle's protocol
            if type(thing) is not Tensor or not _is_plain(thing):
                return super().reducer_override(thing)
            storage = thing.untyped_storage()
            key = storage.data_ptr(), storage.nbytes()
            if thing is wholes.get(key):
                return super().reducer_override(thing)
            whole = wholes.setdefault(key, torch.empty(0, dtype=torch.uint8).set_(storage))
            return _view, (whole, thing.dtype, thing.storage_offset(), tuple(thing.shape), thing.stride())

    file = io.BytesIO()
    Pickler(file).dump(task)
    return file.getvalue()


def _is_plain(tensor: Tensor) -> bool:
    """Returns whether a tensor is no more than values in the CPU's memory."""
    is_dense = tensor.layout == torch.strided and tensor.device.type == "cpu" and not tensor.is_quantized
    return is_dense and not (tensor.requires_grad or tensor.is_conj() or tensor.is_neg() or vars(tensor))


def _view(whole: Tensor, dtype: torch.dtype, offset: int, shape: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
    return torch.empty(0, dtype=dtype).set_(whole.untyped_storage(), offset, shape, stride)
