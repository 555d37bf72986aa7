"""What a plan can be made for: a module, a configuration of transformers, a checkpoint; and the batches it takes."""

from pathlib import Path
from typing import Any, Final, NamedTuple

import torch
from torch import nn

from lottery_tickets._core.names import clean_name
from lottery_tickets.checkpoints.checkpoint import CheckpointWeights
from lottery_tickets.workloads.language import CONFIG, build_described, describe_model

NUM_TOKENS: Final = 1024


class Planned(NamedTuple):
    """A model that a plan is made for.

    Attributes:
        model: On any device.
        name: What it is called.
        config: Of transformers, where it has one.
    """

    model: nn.Module
    name: str
    config: Any


def find_model(given: Any, dtype: torch.dtype | None) -> Planned:  # noqa: ANN401 - checked here
    """Returns the model that is meant; of files it has shapes and no values.

    Args:
        given: A module, a configuration of transformers, a folder with `config.json`, or `CheckpointWeights`.
        dtype: That the weights are to have; None for the one they have, or are stored in.

    Raises:
        OSError: When there is no such folder, or it has no configuration.
        TypeError: When it is something else.
        ValueError: When the configuration is garbled, or transformers does not know it.
    """
    if isinstance(given, nn.Module):
        if dtype is not None:
            raise ValueError("dtype is for configurations and checkpoints, but a module's weights have one; cast it")
        return Planned(given, type(given).__name__, getattr(given, "config", None))
    if isinstance(given, CheckpointWeights):
        folder = given.layout.folder
        if folder is None:
            raise ValueError(
                f"a plan needs a folder with {CONFIG} beside the weights, but {given.model} is a file alone"
            )
        return find_model(folder, dtype)
    if isinstance(given, str | Path):
        return _describe(Path(given), dtype)
    if callable(getattr(given, "to_dict", None)) and getattr(given, "model_type", None):
        model = build_described(given)
        _cast(model, dtype or _read_dtype(given))
        return Planned(model, type(model).__name__, given)
    raise TypeError(
        "a plan is for a torch.nn.Module, a configuration of transformers, a folder with config.json or "
        f"CheckpointWeights, but got {type(given).__name__}"
    )


def make_example(planned: Planned, num_tokens: int | None) -> tuple[Any, int] | None:
    """Returns a batch of one sample for a model of transformers, with its tokens; None where the inputs are not known.

    Args:
        planned: The model.
        num_tokens: Of a sample; by default 1024, or as many as the model can read.
    """
    config = planned.config
    if getattr(config, "vocab_size", None) is None:
        return None
    length = num_tokens or min(NUM_TOKENS, getattr(config, "max_position_embeddings", None) or NUM_TOKENS)
    return {"input_ids": torch.empty(1, length, dtype=torch.int64, device="meta")}, length


def _describe(folder: Path, dtype: torch.dtype | None) -> Planned:
    if not (folder / CONFIG).is_file():
        raise FileNotFoundError(f"{folder} must be a folder with {CONFIG}, but there is none; name another")
    model = describe_model(folder)
    if model is None:
        raise ValueError(f"transformers must be installed and know the model of {folder / CONFIG}, but does not")
    config = getattr(model, "config", None)
    _cast(model, dtype or _read_dtype(config))
    if dtype is not None or not any(folder.glob("*.safetensors")):
        return Planned(model, folder.name, config)
    stored = {name: weight.dtype for name, weight in CheckpointWeights(folder).tensors.items()}
    for name, parameter in model.named_parameters():
        if parameter.is_floating_point() and stored.get(clean_name(name), parameter.dtype) != parameter.dtype:
            parameter.data = parameter.data.to(stored[clean_name(name)])
    return Planned(model, folder.name, config)


def _cast(model: nn.Module, dtype: torch.dtype) -> None:
    """Gives all weights a dtype; buffers, such as frequencies of positions, stay as they are."""
    for parameter in model.parameters():
        if parameter.is_floating_point():
            parameter.data = parameter.data.to(dtype)


def _read_dtype(config: Any) -> torch.dtype:  # noqa: ANN401 - of transformers
    """Returns the dtype that a configuration says, which is torch's default where it says none."""
    said = getattr(config, "dtype", None)
    found = getattr(torch, said, None) if isinstance(said, str) else said
    return found if isinstance(found, torch.dtype) else torch.get_default_dtype()
