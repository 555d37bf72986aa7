"""Checkpoints of tensors for tests: in one file or in several with an index, as hubs have them."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

INDEX = "model.safetensors.index.json"


def save_sharded(tensors: Mapping[str, Tensor], folder: Path, files: Sequence[int]) -> Path:
    """Saves tensors in the files with these numbers, one for each tensor, with an index; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    names = {tensor: f"model-{number:05d}.safetensors" for tensor, number in zip(tensors, files, strict=True)}
    for name in set(names.values()):
        part = {key: value.contiguous().clone() for key, value in tensors.items() if names[key] == name}
        save_file(part, folder / name, {"format": "pt"})
    (folder / INDEX).write_text(json.dumps({"metadata": {"total_size": 0}, "weight_map": names}))
    return folder
