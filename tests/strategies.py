"""What hypothesis draws: lists of score tensors of all dtypes, shapes and strides, with and without ties."""

from typing import Final

import torch
from hypothesis import strategies as st
from torch import Tensor

FLOATS: Final = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2)
SHAPES: Final = st.lists(st.integers(0, 13), max_size=3).map(tuple)
SPARSITIES: Final = st.one_of(st.sampled_from([0.0, 0.5, 0.9, 1.0]), st.floats(0, 1))


@st.composite
def score_tensors(draw: st.DrawFn, dtype: torch.dtype | None = None) -> Tensor:
    """A tensor of finite floats: normal, tied, sparse or over many orders of magnitude; sometimes not contiguous."""
    shape = draw(SHAPES)
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    values = torch.randn(shape, generator=generator, dtype=torch.float64)
    match draw(st.sampled_from(["normal", "tied", "sparse", "wide", "constant"])):
        case "tied":
            values = (values * 2).round() / 2
        case "sparse":
            values = values * (torch.rand(shape, generator=generator) < 0.2)
        case "wide":
            values = values.sign() * (8 * values).clamp(-8, 5).exp2()
        case "constant":
            values = torch.full(shape, -0.5, dtype=torch.float64)
    values = values.to(draw(st.sampled_from(FLOATS)) if dtype is None else dtype)
    if values.ndim > 1 and draw(st.booleans()):
        values = values.transpose(0, -1)
    return values


@st.composite
def score_lists(draw: st.DrawFn) -> list[Tensor]:
    """Up to four tensors, of one dtype or of several."""
    dtype = draw(st.one_of(st.none(), st.sampled_from(FLOATS)))
    return draw(st.lists(score_tensors(dtype), max_size=4))
