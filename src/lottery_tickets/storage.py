"""Results on disk: strict JSON, tensors as summaries, masks beside it as safetensors; and weights, whole."""

import math
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from lottery_tickets._core.files import read_json, read_tensors, write_json, write_tensors
from lottery_tickets._core.folders import HASH, RunFolder, read_hashed
from lottery_tickets.masks.mask import Mask
from lottery_tickets.scores.importance import Importance

__all__ = ["RunFolder", "load_results", "load_weights", "save_results", "save_weights", "summarise_tensor"]

QUANTILES: Final = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)
NUM_BINS: Final = 50
HEAT_MAP_SIDE: Final = 16
MASK_KEY: Final = "mask_file"


def save_results(results: Mapping[str, Any], path: str | Path) -> None:
    """Writes results as JSON, whole; masks go beside it, one file each.

    A tensor becomes its shape, dtype, mean, standard deviation, quantiles and a histogram, and one of two or more
    dimensions a heat map of at most 16 x 16 means: enough to draw it, not to get it back. `Importance` becomes its
    report with the summaries of its scores and of their standard errors. A `Mask` becomes the name of its file, which
    is named by its content, and `load_results` gives it back. Mask files of earlier results of the same name stay.

    Args:
        results: Values that JSON knows, tensors, masks, and mappings and sequences of them.
        path: Where to; an existing file is replaced.

    Raises:
        ValueError: When a number is NaN or infinite, or a key is "mask_file"; the message says where.
        TypeError: When a value is of a type that cannot be written.
    """
    target = Path(path)
    masks: dict[str, Mask] = {}
    content = _to_json(results, "", target.stem, masks)
    # Masks first, so that results never name a file that is not there yet.
    for name, mask in masks.items():
        mask.save(target.parent / name)
    write_json(target, content)


def load_results(path: str | Path) -> dict[str, Any]:
    """Returns the results that `save_results` wrote, or a function that keeps them in a file, with their masks.

    Raises:
        ValueError: When the file is missing, cut short, or not a JSON object, does not match the hash it carries, or
            when a mask file does not fit.
    """
    source = Path(path)
    content = read_json(source)
    if isinstance(content, dict) and HASH in content:
        content = read_hashed(source)
    if not isinstance(content, dict):
        raise ValueError(
            f"{source} must hold a JSON object, but holds a {type(content).__name__}; was it made by save_results?"
        )
    loaded: dict[str, Any] = _from_json(content, source.parent)
    return loaded


def save_weights(weights: Mapping[str, Tensor], path: str | Path, *, metadata: Mapping[str, str] | None = None) -> None:
    """Writes tensors by name as a safetensors file, whole; returns nothing.

    Args:
        weights: Such as `model.state_dict()`, or scores; tensors that share memory are stored apart.
        path: Where to; an existing file is replaced.
        metadata: What else the file says of itself.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_weights(nn.Linear(3, 2).state_dict(), f"{folder}/model.safetensors")
        ...     sorted(load_weights(f"{folder}/model.safetensors"))
        ['bias', 'weight']
    """
    write_tensors(Path(path), weights, metadata or {})


def load_weights(path: str | Path) -> dict[str, Tensor]:
    """Returns the tensors of a safetensors file, or of a torch file with a state dict, by name and on the CPU.

    A torch file is read with `weights_only`, so none of its code runs. It may hold the state dict itself, or hold it
    under the key "state_dict"; values that are no tensors are left out.

    Args:
        path: Ends in ".safetensors"; any other name is taken for a torch file.

    Raises:
        ValueError: When the file is missing, cut short, altered or of another kind; the message names it.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     torch.save({"state_dict": {"weight": torch.ones(2)}, "epoch": 3}, f"{folder}/model.pt")
        ...     load_weights(f"{folder}/model.pt")
        {'weight': tensor([1., 1.])}
    """
    source = Path(path)
    if source.suffix == ".safetensors":
        return read_tensors(source)[0]
    try:
        content = torch.load(source, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, AttributeError, pickle.UnpicklingError) as error:
        reason = str(error).partition("\n")[0]  # torch goes on with advice to run the file's code
        raise ValueError(
            f"{source} must be a .safetensors file or a torch file with a state dict, but: {reason}"
        ) from error
    state = content.get("state_dict", content) if isinstance(content, dict) else content
    if not isinstance(state, dict):
        raise ValueError(
            f"{source} must hold a state dict, but holds a {type(state).__name__}; save model.state_dict()"
        )
    return {name: value for name, value in state.items() if isinstance(value, Tensor)}


def _to_json(value: Any, where: str, stem: str, masks: dict[str, Mask]) -> Any:  # noqa: ANN401 - any result
    if isinstance(value, Importance):
        value = _describe(value)
    if isinstance(value, Mask):
        # Named by content: a save that is cut off cannot leave older results pointing at newer masks.
        name = f"{stem}.{value.digest[:16]}.mask.safetensors"
        masks[name] = value
        return {MASK_KEY: name, "sparsity": value.sparsity}
    if isinstance(value, Mapping):
        if MASK_KEY in value:  # it would come back as a mask, or not at all
            place = where or "the top level"
            raise ValueError(f"results must not use the key {MASK_KEY!r}, which names a mask's file, but {place} does")
        return {str(key): _to_json(item, f"{where}/{key}", stem, masks) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_to_json(item, f"{where}/{i}", stem, masks) for i, item in enumerate(value)]
    if isinstance(value, Tensor):
        return _to_json(summarise_tensor(value), where, stem, masks)
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(
            f"results must hold finite numbers, but {where or 'the value'} is {value}; leave it out or say None"
        )
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"results must hold JSON values, tensors and masks, but {where} is a {type(value).__name__}")


def _describe(importance: Importance) -> dict[str, Any]:
    parts: dict[str, Any] = {"report": importance.report, "scores": dict(importance)}
    errors = importance.standard_errors
    return parts if errors is None else parts | {"standard_errors": errors}


def _from_json(value: Any, folder: Path) -> Any:  # noqa: ANN401 - any result
    if isinstance(value, dict) and MASK_KEY in value:
        name = value[MASK_KEY]
        if not isinstance(name, str) or Path(name).name != name:  # a foreign file must not send us elsewhere
            raise ValueError(f"{MASK_KEY} must be the name of a file beside the results, but is {name!r}")
        return Mask.load(folder / name)
    if isinstance(value, dict):
        return {key: _from_json(item, folder) for key, item in value.items()}
    if isinstance(value, list):
        return [_from_json(item, folder) for item in value]
    return value


def summarise_tensor(tensor: Tensor) -> dict[str, Any]:
    """Returns a tensor's shape, dtype and, when it has elements, mean, deviation, quantiles, histogram and heat map.

    Raises:
        ValueError: When it holds NaN or infinity.
    """
    summary: dict[str, Any] = {"shape": list(tensor.shape), "dtype": str(tensor.dtype).removeprefix("torch.")}
    if tensor.numel() == 0:
        return summary
    values = tensor.detach().cpu().double().flatten().sort().values
    if not bool(values.isfinite().all()):
        raise ValueError(
            f"a tensor in results must be finite, but one of shape {tuple(tensor.shape)} holds NaN or infinity"
        )
    positions = [round(q * (len(values) - 1)) for q in QUANTILES]
    counts, edges = torch.histogram(values, bins=NUM_BINS)
    if tensor.ndim > 1:
        summary["heat_map"] = _draw_heat_map(tensor)
    return summary | {
        "mean": float(values.mean()),
        "std": float(values.std(correction=0)),
        "quantiles": {str(q): float(values[i]) for q, i in zip(QUANTILES, positions, strict=True)},
        "histogram": {"edges": edges.tolist(), "counts": [int(count) for count in counts]},
    }


def _draw_heat_map(tensor: Tensor) -> list[list[float]]:
    """Returns the means of blocks of a matrix (first dimension, all others), at most 16 x 16 of about equal size."""
    matrix = tensor.detach().cpu().float().flatten(1)
    side = (min(HEAT_MAP_SIDE, matrix.shape[0]), min(HEAT_MAP_SIDE, matrix.shape[1]))
    means: list[list[float]] = nn.functional.adaptive_avg_pool2d(matrix[None], side)[0].tolist()
    return means
