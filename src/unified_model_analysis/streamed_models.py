"""Language models that commands run layer by layer, from the files of a checkpoint."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from unified_model_analysis.networks import draw_text, refuse_checkpoint, tell_use
from unified_model_analysis.options import NetworkOptions
from unified_model_analysis.stored_weights import open_weights

LARGEST_LOADED: Final = 0.4  # of the memory, as files: in float32 weights of 16 bits take twice as much

if TYPE_CHECKING:
    from lottery_tickets import Mask


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
