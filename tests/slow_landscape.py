"""A small landscape that takes its time, to be killed: `python -m tests.slow_landscape PATH SECONDS_A_POINT`."""

import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lottery_tickets import compute_loss_landscape
from lottery_tickets.landscape import surface
from lottery_tickets.landscape.surface import LandscapeResults


def measure_slowly(path: Path, seconds: float) -> LandscapeResults:
    """Measures 25 points and writes after each."""
    surface.SECONDS_BETWEEN_WRITES = 0.0  # type: ignore[misc] # for this test
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(generator=generator)
    data = [(torch.randn(8, 3, generator=generator), torch.arange(8) % 2)]

    def loss_fn(inner: nn.Module, batch: Any) -> Tensor:  # noqa: ANN401 - any batch
        time.sleep(seconds)
        return nn.functional.cross_entropy(inner(batch[0]), batch[1])

    return compute_loss_landscape(model, data, 5, loss_fn=loss_fn, path=path)


if __name__ == "__main__":
    measure_slowly(Path(sys.argv[1]), float(sys.argv[2]))
