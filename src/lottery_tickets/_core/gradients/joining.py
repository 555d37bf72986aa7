"""Sums over samples that several processes have seen, each its own."""

from collections import Counter

from lottery_tickets._core.gradients.places import Place
from lottery_tickets._core.gradients.stream import GradientStream
from lottery_tickets._core.sharding.together import Processes, Together


def join_sums_(stream: GradientStream, together: Together) -> None:
    """Puts the sums and counts of all processes into each one's stream; the order of additions is torch's.

    Args:
        stream: That has run over the samples of this process.
        together: The processes.
    """
    if not isinstance(together, Processes):
        return
    for sums in (*stream.sums.values(), *stream.squares.values()):
        for total in sums.totals.complete().values():
            together.add_up_(total)
    counts = stream.num_samples, stream.num_batches, stream.num_clipped, stream.num_bad
    told = together.gather(lambda: (counts, stream.dropped, stream.reason))
    totals = [sum(numbers) for numbers in zip(*(counts for counts, _, _ in told), strict=True)]
    stream.num_samples, stream.num_batches, stream.num_clipped, stream.num_bad = totals
    stream.dropped = sum((dropped for _, dropped, _ in told), Counter[Place]())
    stream.reason = next((reason for _, _, reason in told if reason is not None), None)
