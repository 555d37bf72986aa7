"""Weights in files of any kind: read block by block where that is possible, else loaded."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from lottery_tickets._core.reading import check_file, find_format
from lottery_tickets._core.tensor_files.headers import GGUF, read_header
from lottery_tickets.checkpoints.checkpoint import CheckpointWeights
from lottery_tickets.masks.mask_file import is_ticket
from lottery_tickets.storage import load_weights


def open_weights(path: str | Path) -> CheckpointWeights | Mapping[str, Tensor]:
    """Returns the weights of a checkpoint, unread; or those of a torch file, and theta_k of a ticket, loaded.

    Args:
        path: As for `CheckpointWeights`, or as for `load_weights`.

    Raises:
        OSError: When there is no such file, or it cannot be read.
        ValueError: When it is cut short, altered or of another kind.
    """
    place = Path(path)
    if place.exists() and not place.is_dir() and _has_to_be_loaded(place):
        return load_weights(place)
    return CheckpointWeights(place)


def _has_to_be_loaded(path: Path) -> bool:
    check_file(path, "a file with weights")
    with path.open("rb") as file:
        head = file.read(len(GGUF))
    if head == GGUF:
        return False  # CheckpointWeights says what it is
    return find_format(path, "a file with weights") == "torch" or is_ticket(read_header(path).metadata)
