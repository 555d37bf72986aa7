"""Checkpoints that commands are given: opened, run layer by layer, and how far they have been read."""

import contextlib
import os
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from unified_model_analysis.networks import draw_text, refuse_checkpoint, tell_use
from unified_model_analysis.options import NetworkOptions

SECONDS_UNSEEN: Final = 1.0  # before a bar appears
SLACK: Final = 1.01  # of one pass: samples are read beside it
LARGEST_LOADED: Final = 0.4  # of the memory, as files: in float32 weights of 16 bits take twice as much

if TYPE_CHECKING:
    from torch import Tensor, nn

    from lottery_tickets import Mask
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


def is_too_large(options: NetworkOptions) -> bool:
    """Returns whether the files of a language model are too large for its weights to be loaded."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    files = Path(options.language_model or "").glob("*.safetensors") if options.language_model else ()
    return sum(file.stat().st_size for file in files) > LARGEST_LOADED * memory


def measure_streamed(
    options: NetworkOptions, mask: "Mask | None", *, device: str, batch_size: int, num_batches: int, seed: int
) -> dict[str, Any]:
    """Returns what a language model does on text: `performance` as it is, or `quality` under a mask.

    The weights are converted to float32, so the figures are those of the model that is loaded.

    Args:
        options: Name a language model's folder, and no checkpoint.
        mask: Its mask; None for none.
        device: Where layers are run.
        batch_size: Sequences a batch.
        num_batches: Batches.
        seed: Decides which sequences are drawn.

    Raises:
        ValueError: When the model cannot be run layer by layer, or there is too little text.
        OSError: When a file cannot be read.
    """
    import torch

    from lottery_tickets import CheckpointWeights, compute_lottery_ticket_quality, compute_performance, compute_sparsity
    from lottery_tickets.workloads import load_tokenizer

    refuse_checkpoint(options)
    folder = Path(str(options.language_model))
    weights = open_weights(folder)
    if not isinstance(weights, CheckpointWeights):
        raise ValueError(
            f"{folder} must be a checkpoint of safetensors files to be streamed; save it by save_pretrained"
        )
    batches = draw_text(
        options, load_tokenizer(folder), batch_size=batch_size, num_batches=num_batches, seed=seed, split="test"
    )
    tell_use("one layer at a time, in float32; robustness and validation are left out, which want the model in memory")
    run: Mapping[str, Any] = {"dtype": torch.float32, "device": device, "seed": seed}
    if mask is not None:
        return {"quality": compute_lottery_ticket_quality(weights, mask, batches, **run)}
    found = compute_performance(weights, batches, **run, progress=True)
    return {"performance": {**found, "sparsity": compute_sparsity(weights)}}
