"""Figures of trainings as a run of Weights & Biases.

```text
with WandbLogger("tickets") as logger:  # offline; `wandb sync` sends it
    compute_iterative_magnitude_pruning(model, data, 0.9, train=True, logger=logger)
```
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self, final

from lottery_tickets._core.checks import needing_extra

with needing_extra("wandb"):
    import wandb

STEP = "step"


@final
class WandbLogger:
    """Logs figures to a run of Weights & Biases; needs the extra "wandb".

    Trainings begin at step 0 again and again, which W&B's own step may not, so `step` is a figure like any other, and
    the axis of all others.

    Args:
        project: Its name.
        mode: "offline" writes a folder and sends nothing, "online" sends.
        folder: Where W&B keeps its folder `wandb`; the working folder when None.
        settings: Further ones of `wandb.init`, such as `name` or `config`.
    """

    def __init__(
        self,
        project: str,
        mode: Literal["offline", "online", "disabled"] = "offline",
        *,
        folder: str | Path | None = None,
        **settings: Any,  # noqa: ANN401 - of wandb
    ) -> None:
        self._run = wandb.init(project=project, mode=mode, dir=None if folder is None else str(folder), **settings)
        self._run.define_metric("*", step_metric=STEP)

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Logs figures by name.

        Args:
            values: Numbers by name; "/" groups them on the page.
            step: When they were taken.
        """
        self._run.log({**values, STEP: step})

    def close(self) -> None:
        """Ends the run."""
        self._run.finish()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
