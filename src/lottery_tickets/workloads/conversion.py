"""Which tensors in files a language model's tensors consist of, as transformers puts them together when it loads.

It renames some, and makes one of many: experts that files keep apart are one tensor in memory. Nothing of that is
written down here. Names come from its own rules; and what it does with the values of several tensors is seen by doing
it with small ones whose elements are numbered.
"""

import importlib
import importlib.util
from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any, Final

import torch
from torch import Tensor

from lottery_tickets._core.tensor_files.headers import Entry

LARGEST_DIMENSION: Final = 6  # of what is numbered; with 2, taking turns would look like doing nothing


def find_parts(
    model: Any,  # noqa: ANN401 - of transformers
    stored: Mapping[str, Entry],
) -> dict[str, tuple[str, ...]]:
    """Returns which stored tensors a model's tensors consist of, one behind the other in C order, by the model's names.

    What transformers makes in other ways, such as by turning, cutting or reshaping one, is left out; so is what the
    model does not have, and what consists of several dtypes. Before version 5 it made nothing of others: there, and of
    other models, names are the same.

    Args:
        model: On any device.
        stored: The tensors in its files by name.
    """
    state = model.state_dict()
    if not hasattr(model, "base_model_prefix") or importlib.util.find_spec("transformers.core_model_loading") is None:
        return {name: (name,) for name in stored if name in state}
    loading: Any = importlib.import_module("transformers.core_model_loading")
    rules = importlib.import_module("transformers.conversion_mapping").get_model_conversion_mapping(model)
    renamings = [rule for rule in rules if isinstance(rule, loading.WeightRenaming)]
    converters = [rule for rule in rules if isinstance(rule, loading.WeightConverter)]
    used: dict[str, list[tuple[str, str | None]]] = {}
    for place in sorted(stored, key=loading.dot_natural_key):
        name, pattern = loading.rename_source_key(place, renamings, converters, model.base_model_prefix, state)
        if name not in state:
            name, pattern = loading.rename_source_key(place, [], [], model.base_model_prefix, state)
        if name in state:
            used.setdefault(name, []).append((place, pattern))
    found: dict[str, tuple[str, ...]] = {}
    for name, sources in used.items():
        converter = next((one for one in converters if sources[0][1] in one.source_patterns), None)
        if converter is None:
            found[name] = (sources[0][0],)
            continue
        parts = _join(model, name, converter, sources, stored)
        if parts and _fit([stored[place] for place in parts], state[name]):
            found[name] = parts
    return found


def _join(
    model: Any,  # noqa: ANN401 - of transformers
    name: str,
    converter: Any,  # noqa: ANN401 - of transformers
    sources: list[tuple[str, str | None]],
    stored: Mapping[str, Entry],
) -> tuple[str, ...]:
    """Returns the order in which a conversion puts tensors one behind the other; none where it does something else."""
    converter, start = deepcopy(converter), 0
    numbers: dict[int, tuple[str, Tensor]] = {}  # by the first of them
    for place, pattern in sources:
        shape = torch.Size(min(size, LARGEST_DIMENSION) for size in stored[place].shape)
        numbers[start] = place, torch.arange(start, start + shape.numel())
        converter.add_tensor(name, place, pattern, numbers[start][1].view(shape))
        start += shape.numel()
    try:
        made = converter.convert(name, model=model, config=model.config)
    except Exception:  # noqa: BLE001 - whatever it is: such tensors are not put one behind the other
        return ()
    return _follow(made[name], numbers) if made.keys() == {name} else ()


def _follow(
    made: Any,  # noqa: ANN401 - a tensor, or a list of one
    numbers: Mapping[int, tuple[str, Tensor]],
) -> tuple[str, ...]:
    """Returns whose numbers follow each other in a tensor; none where one is missing, or out of its order."""
    rest = (made[0] if isinstance(made, list) else made).reshape(-1)
    parts: list[str] = []
    while len(rest):
        place, wanted = numbers.get(int(rest[0]), ("", rest[:0]))
        if not len(wanted) or not torch.equal(rest[: len(wanted)], wanted):
            return ()
        parts.append(place)
        rest = rest[len(wanted) :]
    return tuple(parts) if sorted(parts) == sorted(place for place, _ in numbers.values()) else ()


def _fit(parts: Sequence[Entry], whole: Tensor) -> bool:
    if len(parts) == 1:
        return parts[0].shape == whole.shape
    return len({part.dtype for part in parts}) == 1 and sum(part.size for part in parts) == whole.numel()
