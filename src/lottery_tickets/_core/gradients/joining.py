"""Sums over samples that several processes have seen, each its own."""

from collections import Counter

from lottery_tickets._core.gradients.places import Place
from lottery_tickets._core.gradients.stream import GradientStream
from lottery_tickets._core.sharding.in_step import InStep


def join_sums_(stream: GradientStream, step: InStep) -> None:
    """Puts the sums and counts of all processes into each one's stream; the order of additions is torch's.

    Args:
        stream: That has run over the samples of this process.
        step: The processes.
    """
    if not stream.shares.is_shared:  # else each has its piece of sums over all
        for sums in (*stream.sums.values(), *stream.squares.values()):
            step.add_up_(f"the sums of {sums.value.name}", sums.totals.complete().values())
    counts = stream.num_samples, stream.num_batches, stream.num_clipped, stream.num_bad
    told = step.gather("the counts", (counts, stream.dropped))
    totals = [sum(numbers) for numbers in zip(*(counts for counts, _ in told), strict=True)]
    stream.num_samples, stream.num_batches, stream.num_clipped, stream.num_bad = totals
    stream.dropped = sum((dropped for _, dropped in told), Counter[Place]())
    stream.separation.reason = step.find_first(stream.reason)
