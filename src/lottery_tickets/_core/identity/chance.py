"""All generators that a data loader may draw from, under seeds for a while."""

import contextlib
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from lottery_tickets._core.determinism import derive_seed, seed_everything, seeded

MOST_NESTED: Final = 8  # a loader's data set's transform's list's transform's generator, and some more
MOST_ITEMS: Final = 1000  # a longer list holds data

_Generator = torch.Generator | np.random.Generator | np.random.RandomState | random.Random


@contextlib.contextmanager
def under_seeds(source: object, known: Sequence[torch.Generator] = ()) -> Iterator[Callable[[int], None]]:
    """Gives a function that seeds the global generators and those inside an object; afterwards all are as before.

    Args:
        source: A data loader. Generators are found in its attributes, in theirs, and so on, and in short lists.
        known: Generators that are seeded first.
    """
    found: list[_Generator] = [*known]
    _find_generators(source, found, {id(generator) for generator in known}, MOST_NESTED)

    def reseed(seed: int) -> None:
        seed_everything(seed)
        for number, generator in enumerate(found):
            _seed(generator, derive_seed(seed, "generator", number))

    with seeded(0):
        states = [_get_state(generator) for generator in found]
        try:
            yield reseed
        finally:
            for generator, state in zip(found, states, strict=True):
                _set_state(generator, state)


def _find_generators(source: object, found: list[_Generator], seen: set[int], levels: int) -> None:
    if not levels or id(source) in seen or isinstance(source, type | Tensor | np.ndarray):
        return
    seen.add(id(source))
    if isinstance(source, _Generator):
        found.append(source)
        return
    if isinstance(source, dict | list | tuple):
        items = list(source.values()) if isinstance(source, dict) else source
        if len(items) > MOST_ITEMS:
            return
    else:
        items = list(getattr(source, "__dict__", {}).values())
    for item in items:
        _find_generators(item, found, seen, levels - 1)


def _get_state(generator: _Generator) -> Any:  # noqa: ANN401 - of four kinds
    if isinstance(generator, np.random.Generator):
        return generator.bit_generator.state
    return generator.getstate() if isinstance(generator, random.Random) else generator.get_state()


def _set_state(generator: _Generator, state: Any) -> None:  # noqa: ANN401 - as `_get_state` returned it
    if isinstance(generator, np.random.Generator):
        generator.bit_generator.state = state
    elif isinstance(generator, random.Random):
        generator.setstate(state)
    else:
        generator.set_state(state)


def _seed(generator: _Generator, seed: int) -> None:
    if isinstance(generator, np.random.Generator):
        generator.bit_generator.state = type(generator.bit_generator)(seed).state
    elif isinstance(generator, torch.Generator):
        generator.manual_seed(seed)
    else:
        generator.seed(seed % 2**32)
