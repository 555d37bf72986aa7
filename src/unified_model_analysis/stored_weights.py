"""Checkpoints that commands are given: opened, and how far they have been read."""

import contextlib
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from unified_model_analysis.networks import tell_use

SECONDS_UNSEEN: Final = 1.0  # before a bar appears
SLACK: Final = 1.01  # of one pass: samples are read beside it

if TYPE_CHECKING:
    from torch import Tensor, nn

    from lottery_tickets.checkpoints import CheckpointWeights

    AnyWeights = nn.Module | Mapping[str, Tensor] | CheckpointWeights


def open_weights(path: Path) -> "Mapping[str, Tensor] | CheckpointWeights":
    """Returns the weights in a file, a folder or a hub's cache, and says what they are; see `checkpoints.open_weights`.

    Raises:
        OSError: When there is no such file, or it cannot be read.
        ValueError: When it is cut short, altered or of another kind.
    """
    from lottery_tickets import checkpoints

    weights = checkpoints.open_weights(path)
    if isinstance(weights, checkpoints.CheckpointWeights):
        tell_use(f"the checkpoint {weights}; which weights count is told by {weights.choice}")
    return weights


def find_num_bytes(weights: "AnyWeights", include: list[str] | None, exclude: list[str] | None) -> int:
    """Returns how many bytes the prunable weights of a checkpoint take; 0 for weights in memory."""
    from lottery_tickets.checkpoints import CheckpointWeights

    if not isinstance(weights, CheckpointWeights):
        return 0
    return sum(weight.size * weight.dtype.itemsize for weight in weights.find_prunable(include, exclude).values())


@contextlib.contextmanager
def showing_bytes(weights: "AnyWeights", num_bytes: int) -> Iterator[None]:
    """Within the block a bar shows how much of a checkpoint was read, and the time left; of weights in memory nothing.

    Args:
        weights: That are read.
        num_bytes: Of one pass; where more is read, another pass is on its way.
    """
    from tqdm import tqdm

    from lottery_tickets.checkpoints import CheckpointWeights

    if not isinstance(weights, CheckpointWeights):
        yield
        return
    lock, total = threading.Lock(), num_bytes
    with tqdm(total=total, unit="B", unit_scale=True, delay=SECONDS_UNSEEN) as bar:

        def tell(number: int) -> None:
            nonlocal total
            with lock:
                if bar.n + number > SLACK * total:
                    bar.total = total = total + num_bytes
                bar.update(number)

        with weights.telling(tell):
            yield


def name_briefly(base: Mapping[str, Any]) -> str:
    """Returns which base a mask names."""
    revision = f", revision {base['revision']}" if base.get("revision") else ""
    return f"{base.get('model')}{revision}, {len(base.get('sha256', ()))} tensors by their hashes"
