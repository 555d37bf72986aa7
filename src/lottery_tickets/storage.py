"""Results on disk: strict JSON, tensors as summaries, masks beside it as safetensors; and weights, whole."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor, nn

from lottery_tickets._core.encoding import MASK_KEY, STATE_KEY, Place, encode, summarise_tensor
from lottery_tickets._core.files import read_json
from lottery_tickets._core.folders import HASH, RunFolder, load_state, read_hashed, save_state
from lottery_tickets._core.notebooks import show_only
from lottery_tickets._core.reading import check_form, find_format, list_names, make_form, naming, read_torch, show
from lottery_tickets._core.records import Record, check_schema, write_results
from lottery_tickets._core.states import hash_state, load_whole_state
from lottery_tickets._core.tensor_files.whole import read_tensors, write_tensors
from lottery_tickets.masks.mask import Mask
from lottery_tickets.masks.mask_file import is_ticket
from lottery_tickets.tickets import Ticket

__all__ = [
    "Record",
    "RunFolder",
    "hash_state",
    "load_into",
    "load_results",
    "load_weights",
    "save_results",
    "save_weights",
    "summarise_tensor",
]
__dir__ = show_only(__all__)


@final
class KeptState(dict[str, Tensor]):
    """Weights to start from, which are saved with results whole, in a file beside them, and not as a summary."""

    def __repr__(self) -> str:
        return f"<state of {len(self):,} tensors>"

    def __eq__(self, other: object) -> bool:  # bit for bit: a dict would ask tensors, which answer for each weight
        return isinstance(other, KeptState) and hash_state(self) == hash_state(other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = None  # equal by content, like a dict


@encode.register
def _(state: KeptState, place: Place) -> dict[str, Any]:
    name = f"{place.stem}.{hash_state(state)[:16]}.state.safetensors"  # by content, as the files of masks
    place.files[name] = partial(save_state, state=state)
    return {STATE_KEY: name, "num_tensors": len(state)}


def save_results(results: Mapping[str, Any], path: str | Path) -> None:
    """Writes results as JSON, whole; masks go beside it, one file each.

    A tensor becomes its shape, dtype, mean, standard deviation, quantiles and a histogram, and one of two or more
    dimensions a heat map of at most 16 x 16 means: enough to draw it, not to get it back. `Importance` becomes its
    report with the summaries of its scores and of their standard errors. A `Mask` becomes the name of its file, which
    is named by its content, and `load_results` gives it back; so does the `rewind_state` of iterative magnitude pruning
    and the `starting_weights` of early-bird tickets, whole. Such files of earlier results of the same name stay.

    Args:
        results: Values that JSON knows, tensors, masks, and mappings and sequences of them.
        path: Where to; an existing file is replaced.

    Raises:
        ValueError: When a number is NaN or infinite, or a key is "mask_file" or "state_file"; the message says where.
        TypeError: When a value is of a type that cannot be written.
    """
    write_results(results, Path(path))


def load_results(path: str | Path, *, kind: type | None = None) -> dict[str, Any]:
    """Returns the results that `save_results` wrote, or a function that keeps them in a file, with masks and states.

    Args:
        path: Of the JSON file.
        kind: A TypedDict; the names and values that it has must be there. Anything may be when None.

    Raises:
        OSError: When there is no such file, or the file of a mask or a state is missing, or one cannot be read.
        ValueError: When the file is cut short, or not a JSON object, does not match the hash it carries, is of another
            kind, or when the file of a mask or a state does not fit.
    """
    source = Path(path)
    content = read_json(source)
    if isinstance(content, dict) and HASH in content:
        content = read_hashed(source)
    check_schema(content, source)
    if not isinstance(content, dict):
        raise ValueError(
            f"{source} must hold a JSON object, but holds a {type(content).__name__}; was it made by save_results?"
        )
    if kind is not None:
        check_form(content, make_form(kind), str(source))
    loaded: dict[str, Any] = _from_json(content, source)
    return loaded


def save_weights(weights: Mapping[str, Tensor], path: str | Path, *, metadata: Mapping[str, str] | None = None) -> None:
    """Writes tensors by name as a safetensors file, whole; returns nothing.

    Args:
        weights: Such as `model.state_dict()`, or scores; tensors that share memory are stored apart.
        path: Where to; an existing file is replaced.
        metadata: What else the file says of itself.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_weights(torch.nn.Linear(3, 2).state_dict(), f"{folder}/model.safetensors")
        ...     sorted(load_weights(f"{folder}/model.safetensors"))
        ['bias', 'weight']
    """
    write_tensors(Path(path), weights, metadata or {})


def load_weights(path: str | Path) -> dict[str, Tensor]:
    """Returns the tensors of a safetensors file, or of a torch file with a state dict, by name and on the CPU.

    Of a ticket's file these are theta_k.

    A torch file is read with `weights_only`, so none of its code runs. It may hold the state dict itself, or hold it
    under the key "state_dict"; values that are no tensors are left out.

    Args:
        path: Of the file; what it is, its first bytes say, not its name.

    Raises:
        OSError: When there is no such file, or it cannot be read.
        ValueError: When the file is cut short, altered or of another kind; the message names it.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     torch.save({"state_dict": {"weight": torch.ones(2)}, "epoch": 3}, f"{folder}/model.pt")
        ...     load_weights(f"{folder}/model.pt")
        {'weight': tensor([1., 1.])}
    """
    source, what = Path(path), "a safetensors file or a torch file with a state dict"
    if find_format(source, what) == "safetensors":
        tensors, metadata = read_tensors(source)
        return dict(Ticket.load(source).state) if is_ticket(metadata) else tensors
    content = read_torch(source, what)
    state = content.get("state_dict", content) if isinstance(content, dict) else content
    if not isinstance(state, dict):
        raise ValueError(
            f"{source} must hold a state dict, but holds a {type(state).__name__}; save model.state_dict()"
        )
    return _check_tensors({name: value for name, value in state.items() if isinstance(value, Tensor)}, source)


def load_into(model: nn.Module, path: str | Path) -> None:
    """Loads the weights of a file into a model, which it changes; returns nothing.

    Args:
        model: That the weights are of; dtypes are converted to its own.
        path: As for `load_weights`.

    Raises:
        OSError: As `load_weights`.
        ValueError: As `load_weights`, and when the weights are of another model: says what they lack, what they have
            besides, and what is of another shape. The model is then as it was.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_weights({"weight": torch.ones(1, 2), "bias": torch.zeros(1)}, f"{folder}/model.safetensors")
        ...     model = torch.nn.Linear(2, 1)
        ...     load_into(model, f"{folder}/model.safetensors")
        >>> model.weight.tolist()
        [[1.0, 1.0]]
    """
    weights = load_weights(path)
    with naming(path, "hold weights of the model"):
        load_whole_state(model, weights)


def _check_tensors(tensors: dict[Any, Tensor], source: Path) -> dict[str, Tensor]:
    """Returns what a torch file holds, where that can be used: plain tensors with memory, under names."""
    if odd := [show(name) for name in tensors if not isinstance(name, str)]:
        raise ValueError(f"{source} must hold tensors under names, but has {list_names(odd)}; save model.state_dict()")
    if odd := [name for name, tensor in tensors.items() if tensor.layout != torch.strided or tensor.is_meta]:
        raise ValueError(f"{source} must hold dense tensors with values, but {list_names(odd)} is none")
    return tensors


def _from_json(value: Any, source: Path) -> Any:  # noqa: ANN401 - any result
    if isinstance(value, dict) and MASK_KEY in value:
        return Mask.load(_find_beside(value, MASK_KEY, source))
    if isinstance(value, dict) and STATE_KEY in value:
        return KeptState(load_state(_find_beside(value, STATE_KEY, source)))
    if isinstance(value, dict):
        return {key: _from_json(item, source) for key, item in value.items()}
    if isinstance(value, list):
        return [_from_json(item, source) for item in value]
    return value


def _find_beside(value: Mapping[str, Any], key: str, source: Path) -> Path:
    name = value[key]
    if (
        not isinstance(name, str) or Path(name).name != name or name in {"", ".."}
    ):  # a foreign file must not send us elsewhere
        raise ValueError(f"{source}: each {key} must be the name of a file beside the results, but one is {show(name)}")
    return source.parent / name
