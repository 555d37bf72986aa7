"""What hypothesis draws for masks, and when two are the same."""

from collections.abc import Mapping

import torch
from hypothesis import strategies as st
from torch import Tensor

SHAPES = st.lists(st.integers(0, 5), max_size=3).map(tuple)


@st.composite
def make_tensors(draw: st.DrawFn, num_masks: int = 1) -> list[dict[str, Tensor]]:
    """Draws mappings of boolean tensors with the same names and shapes."""
    shapes = draw(st.dictionaries(st.text("ab.é", min_size=1, max_size=4), SHAPES, max_size=3))
    masks = []
    for _ in range(num_masks):
        seed = draw(st.integers(0, 2**32))
        density = draw(st.sampled_from([0.0, 0.3, 0.7, 1.0]))
        generator = torch.Generator().manual_seed(seed)
        masks.append({name: torch.rand(shape, generator=generator) < density for name, shape in shapes.items()})
    return masks


def equal(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> bool:
    """Whether two mappings hold the same tensors under the same names in the same order."""
    return list(found) == list(expected) and all(torch.equal(found[name], expected[name]) for name in expected)


# ------------------------------------------------------------------------------------------------------ wrong arguments


def bits(*values: int) -> Tensor:
    return torch.tensor(values, dtype=torch.uint8)
