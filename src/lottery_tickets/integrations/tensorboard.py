"""Figures of trainings as event files, which TensorBoard shows.

```text
with TensorBoardLogger("logs") as logger:
    compute_early_bird_tickets(model, data, logger=logger)
```
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Self, final

from lottery_tickets._core.checks import needing_extra

with needing_extra("tensorboard"):
    from torch.utils.tensorboard.writer import SummaryWriter


@final
class TensorBoardLogger:
    """Writes figures into event files; needs the extra "tensorboard".

    Args:
        folder: Where the files go; each logger adds one of its own.
    """

    def __init__(self, folder: str | Path) -> None:
        self._writer = SummaryWriter(str(folder))

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Writes figures by name, and flushes them.

        Args:
            values: Numbers by name; "/" groups them on the page.
            step: When they were taken.
        """
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self) -> None:
        """Closes the file."""
        self._writer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
