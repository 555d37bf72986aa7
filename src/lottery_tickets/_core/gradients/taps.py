"""The node of autograd's graph at which the gradient of a call with a weight is seen."""

from collections.abc import Callable
from typing import Any, final

import torch
from torch import Tensor

from lottery_tickets._core.gradients.shortcuts import Back


@final
class Tap(torch.autograd.Function):
    """The identity, with a function that is called with the gradient and what was saved; or a step back to a source."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - torch's protocol
        output: Tensor,
        source: Tensor,  # noqa: ARG004 - it needs a gradient, so the output does
        collect: Callable[..., None],
        back: Back | None,
        *saved: Tensor,
    ) -> Tensor:
        ctx.mark_dirty(output)  # autograd has to know that the output is the input itself, not a copy
        ctx.save_for_backward(*saved)
        ctx.collect, ctx.back, ctx.num_saved = collect, back, len(saved)
        return output

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401 - as above
        ctx.collect(gradient, *ctx.saved_tensors)
        passed = (gradient, None) if ctx.back is None else (None, ctx.back(gradient))
        return *passed, None, None, *[None] * ctx.num_saved
