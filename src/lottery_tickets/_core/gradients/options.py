"""How scores of gradients are computed: the one place where their options stand."""

import math
from dataclasses import dataclass
from typing import Literal, final

from lottery_tickets._core.checks import check_count, check_number, check_share
from lottery_tickets._core.selection.scope_names import check_sparsity

Offload = Literal["cpu"]


@final
@dataclass(frozen=True)
class ScoringOptions:
    """How a score of gradients is computed. `gradient_clip` and mixed precision change scores, the others do not.

    Attributes:
        chunk_size: The most per-sample gradients in memory at once, counted in elements; None for what suits the device
            (on a GPU never less than one sample of the largest layer).
        use_mixed_precision: Whether float32 models on a GPU that computes in bfloat16 run under autocast; sums are
            float32 all the same. Without such a GPU nothing changes.
        gradient_clip: The largest norm of a sample's gradient over the chosen weights; longer ones are scaled down
            before anything else, and counted. Costs a second backward pass.
        offload: "cpu" keeps the scores in CPU memory while a GPU computes.
        standard_errors: Whether to compute the standard error of each score; needs a second sum a weight.
        target_sparsity: With num_samples="auto", the sparsity at which the ranking has to settle.
        scope: With "auto", the scope of that ranking.
        tolerance: With "auto", the share of the kept weights that a doubling of the samples may still change.
        nonfinite_limit: The share of samples that may have gradients that are not finite; they are left out and
            counted.

    Raises:
        TypeError: When an option that must be a number is not one.
        ValueError: When an option is out of range.
    """

    chunk_size: int | None = None
    use_mixed_precision: bool = True
    gradient_clip: float | None = None
    offload: Offload | None = None
    standard_errors: bool = False
    target_sparsity: float | None = None
    scope: str = "global"
    tolerance: float = 0.02
    nonfinite_limit: float = 0.01

    def __post_init__(self) -> None:
        if self.chunk_size is not None:
            check_count("chunk_size", self.chunk_size, "an integer of at least 1, or None")
        if self.gradient_clip is not None:
            check_number("gradient_clip", self.gradient_clip, "above 0, or None", lambda value: 0 < value < math.inf)
        if self.offload not in {None, "cpu"}:
            raise ValueError(f"offload must be None or 'cpu', got {self.offload!r}")
        if self.target_sparsity is not None:
            check_sparsity(self.target_sparsity, self.scope)
        check_share("tolerance", self.tolerance)
        check_share("nonfinite_limit", self.nonfinite_limit)
