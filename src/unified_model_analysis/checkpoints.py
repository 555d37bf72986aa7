"""Weights from a file."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def load_checkpoint(path: Path) -> dict[str, "Tensor"]:
    """Returns the tensors of a .safetensors file, or of a torch file with a state dict (read with weights_only).

    Raises:
        ValueError: When the file is neither.
    """
    import pickle

    import torch

    from lottery_tickets._core.files import read_tensors

    if path.suffix == ".safetensors":
        return read_tensors(path)[0]
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, AttributeError, pickle.UnpicklingError) as error:
        reason = str(error).partition("\n")[0]  # torch goes on with advice to run the file's code
        raise ValueError(
            f"{path} must be a .safetensors file or a torch file with a state dict, but: {reason}"
        ) from error
    state = content.get("state_dict", content) if isinstance(content, dict) else content
    if not isinstance(state, dict):
        raise ValueError(f"{path} must hold a state dict, but holds a {type(state).__name__}; save model.state_dict()")
    return {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}
