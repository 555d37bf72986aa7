"""Stochastic rounding of float32 to bfloat16: what is too small for one step counts over many."""

import torch
from torch import Tensor

DROPPED_BITS = 16  # float32 has this many more bits than bfloat16, and otherwise its layout
CHUNK = 2**22  # elements; bounds what a caller needs to hold in float32 at once
DEVICE_CHUNK = 2**25  # on a GPU, where each chunk costs a dozen launches
INT64_MIN = -(2**63)  # from here to no end `random_` draws all 64 bits


def copy_rounded_(target: Tensor, values: Tensor) -> None:
    """Copies float32 values into a bfloat16 tensor, each rounded up or down at random, right on average.

    A value between two neighbours of bfloat16 becomes the upper one with the probability of its share of the way up, so
    the mean over many draws is the value. What bfloat16 can hold stays exact, and so do infinities and NaN. Values
    beyond the largest finite one may round to infinity, as they do when rounded to nearest.

    Chance comes from the default generator of the device.

    Args:
        target: bfloat16, of any layout; written in place.
        values: float32, the same shape and device; overwritten with the rounded values.
    """
    noise = _draw_noise(values)
    undefined = values.isnan()  # the sum below may carry out of a NaN's bits
    # Sign and magnitude: adding to the bits moves away from zero, for either sign, and cutting moves towards it.
    bits = values.view(torch.int32)
    bits.add_(noise).bitwise_and_(-(1 << DROPPED_BITS))
    target.copy_(values.masked_fill_(undefined, torch.nan))


def _draw_noise(values: Tensor) -> Tensor:
    """Returns uniform integers in [0, 2^16) of the shape of `values`; one draw of 64 bits makes four."""
    words = torch.empty(-(-values.numel() // 4), dtype=torch.int64, device=values.device).random_(INT64_MIN, None)
    noise = words.view(torch.int16)[: values.numel()].to(torch.int32)
    return noise.bitwise_and_((1 << DROPPED_BITS) - 1).view(values.shape)
