"""Random changes of a run folder: careless ones, and ones after which every hash is made anew."""

import json
import math
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, final

import torch
from torch import Tensor

from benchmarks.studies.forging import change_mask, change_provenance, change_record, seal, swap
from lottery_tickets import Mask
from lottery_tickets._core.files import read_json, write_json
from lottery_tickets._core.folders import HASH, load_state, save_state, write_hashed
from lottery_tickets.experiments.folder import MASK, RECORD, ExperimentFolder
from lottery_tickets.storage import load_weights

DERIVED: Final = (HASH, "files", "records", "recipe_sha256")  # hashes, which say nothing of their own
Place = tuple[str | int, ...]


@final
@dataclass(frozen=True)
class Mutation:
    """What was done to a run.

    Attributes:
        kind: The row of the table that it counts in.
        what: Where, and how.
    """

    kind: str
    what: str


def mutate(run: Path, chance: random.Random, report: Callable[[Path], object]) -> Mutation:
    """Changes a run in place, at random, and returns what was done.

    Args:
        run: The run folder, of which nobody else needs to know.
        chance: Draws the change.
        report: Makes summary and figure of the results again, where a forger would.
    """
    return chance.choice(KINDS)(run, chance, report)


# ----------------------------------------------------------------------------------------------------- hashes untouched


def _list_files(run: Path) -> list[Path]:
    return sorted(path for path in run.rglob("*") if path.is_file())


def _name(run: Path, path: Path) -> str:
    return str(path.relative_to(run))


def _damage_bytes(run: Path, chance: random.Random, _: object) -> Mutation:
    path = chance.choice([path for path in _list_files(run) if path.stat().st_size])
    content = bytearray(path.read_bytes())
    place, num = chance.randrange(len(content)), chance.choice([1, 1, 4, 64])
    how = chance.choice(["flipped", "cut", "inserted", "zeroed"])
    if how == "flipped":
        content[place] ^= 1 << chance.randrange(8)
    elif how == "cut":
        del content[place : place + num]
    elif how == "inserted":
        content[place:place] = chance.randbytes(num)
    else:
        content[place : place + num] = bytes(len(content[place : place + num]))
    path.write_bytes(content)
    return Mutation("bytes flipped, cut, inserted, zeroed", f"{how} at {place} of {_name(run, path)}")


def _move_files(run: Path, chance: random.Random, _: object) -> Mutation:
    files = [path for path in _list_files(run) if path.name != ".lock"]
    a, b = chance.sample(files, 2)
    how = chance.choice(["deleted", "duplicated", "swapped", "replaced"])
    if how == "deleted":
        a.unlink()
    elif how == "duplicated":
        shutil.copyfile(a, b.with_name(f"copy-of-{a.name}"))
    elif how == "swapped":
        swap(run, _name(run, a), _name(run, b))
    else:
        shutil.copyfile(a, b)
    return Mutation("files deleted, duplicated, swapped, replaced", f"{how} {_name(run, a)}, {_name(run, b)}")


def _edit_carelessly(run: Path, chance: random.Random, _: object) -> Mutation:
    path = chance.choice([path for path in _list_files(run) if path.suffix == ".json"])
    values = read_json(path)
    what = _edit(values, chance)
    write_json(path, values)
    return Mutation("JSON values edited", f"{_name(run, path)}: {what}")


# ----------------------------------------------------------------------------------------------------- hashes made anew


def _edit_and_seal(run: Path, chance: random.Random, report: Callable[[Path], object]) -> Mutation:
    path = chance.choice([path for path in _list_files(run) if path.suffix == ".json"])
    values = read_json(path)
    is_hashed = values.pop(HASH, None) is not None
    what = _edit(values, chance)
    write_hashed(path, values) if is_hashed else write_json(path, values)
    if is_hashed:
        _try(lambda: seal(run, under_plan=True, recounted=False))  # counting again would undo what was edited in them
    if path.name != "summary.json":
        _try(lambda: report(run))
    return Mutation("JSON values edited, hashes made anew", f"{_name(run, path)}: {what}")


def _edit_tensor(run: Path, chance: random.Random, report: Callable[[Path], object]) -> Mutation:
    path = chance.choice([path for path in _list_files(run) if path.suffix == ".safetensors" and path.name != MASK])
    state = load_state(path)
    name = chance.choice(sorted(state))
    how = chance.choice(sorted(TENSOR_EDITS))
    generator = torch.Generator().manual_seed(chance.randrange(1 << 30))
    TENSOR_EDITS[how](state[name].view(-1), generator)
    save_state(path, state)
    seal(run)
    report(run)
    return Mutation("tensors edited, hashes made anew", f"{how} {name} of {_name(run, path)}")


def _draw_place(values: Tensor, generator: torch.Generator, num: int = 1) -> Tensor:
    """Returns places of values that are not zero, which pruned weights are."""
    places = values.nonzero().flatten()
    return places[torch.randperm(len(places), generator=generator)[:num]]


def _add_noise(values: Tensor, generator: torch.Generator) -> None:
    noise = torch.randn(values.shape, generator=generator) * (values != 0)
    values.add_(0.1 * values.abs().mean() * noise)


def _swap_values(values: Tensor, generator: torch.Generator) -> None:
    places = _draw_place(values, generator, 2)
    values[places] = values[places.flip(0)]


def _replace_value(values: Tensor, generator: torch.Generator) -> None:
    values[_draw_place(values, generator)] = torch.randn(1, generator=generator)


TENSOR_EDITS: Final[dict[str, Callable[[Tensor, torch.Generator], object]]] = {
    "times 1.5": lambda values, _: values.mul_(1.5),
    "zeroed": lambda values, _: values.zero_(),
    "negated": lambda values, _: values.neg_(),
    "noise on": _add_noise,
    "two values swapped in": _swap_values,
    "one value replaced in": _replace_value,
    "NaN in": lambda values, generator: values.index_fill_(0, _draw_place(values, generator), torch.nan),
}


def _edit_mask(run: Path, chance: random.Random, report: Callable[[Path], object]) -> Mutation:
    trainings = [t for t in ExperimentFolder.read(run).plan.list_all_trainings() if t.level]
    training, how = chance.choice(trainings), chance.choice(["more", "fewer", "others", "provenance"])

    def change(kept: Tensor, _: Tensor) -> None:
        inside, outside = (chance.choice(places.nonzero().tolist()) for places in (kept, ~kept))
        if how != "more":
            kept[tuple(inside)] = False
        if how != "fewer":
            kept[tuple(outside)] = True

    if how == "provenance":
        change_provenance(run, training, **{chance.choice(["method", "level", "torch"]): "other"})
    else:
        change_mask(run, training, change)
    seal(run)
    report(run)
    return Mutation("masks edited, hashes made anew", f"{how} of {training.path}")


def _swap_trainings(run: Path, chance: random.Random, report: Callable[[Path], object]) -> Mutation:
    plan = ExperimentFolder.read(run).plan
    a, b = chance.sample(plan.list_all_trainings(), 2)
    records = {training: read_json(run / training.path / RECORD) for training in (a, b)}
    swap(run, a.path, b.path)
    for training in (a, b):
        own = {name: records[training][name] for name in ("training", "seeds")}
        change_record(run, training, **own)
    _try(lambda: seal(run))
    _try(lambda: report(run))
    return Mutation("trainings swapped, hashes made anew", f"{a.path} and {b.path}")


KINDS: Final = (_damage_bytes, _move_files, _edit_carelessly, _edit_and_seal, _edit_tensor, _edit_mask, _swap_trainings)


def _try(act: Callable[[], object]) -> None:
    """Lets a forger fail, where the folder is no longer one that can be read."""
    try:
        act()
    except (ValueError, LookupError, TypeError, AttributeError, OSError, ArithmeticError, RuntimeError):
        return


# ---------------------------------------------------------------------------------------------------------- JSON values


def _edit(values: Any, chance: random.Random) -> str:  # noqa: ANN401 - JSON
    """Changes one value of JSON in place; returns where and how."""
    place = chance.choice([place for place in _list_places(values) if place and place[0] not in DERIVED])
    parent = values
    for key in place[:-1]:
        parent = parent[key]
    before = parent[place[-1]]
    if chance.random() < 0.15:  # noqa: PLR2004 - the share of values that go
        del parent[place[-1]]
        return f"{_show(place)} deleted"
    parent[place[-1]] = _change(before, chance)
    return f"{_show(place)} {json.dumps(before)[:40]} -> {json.dumps(parent[place[-1]])[:40]}"


def _show(place: Place) -> str:
    return ".".join(map(str, place))


def _list_places(value: Any, place: Place = ()) -> Iterator[Place]:  # noqa: ANN401 - JSON
    if place:
        yield place
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _list_places(item, (*place, key))
    if isinstance(value, list):
        for number, item in enumerate(value):
            yield from _list_places(item, (*place, number))


def _change(value: Any, chance: random.Random) -> Any:  # noqa: ANN401 - JSON
    if isinstance(value, bool) or value is None:
        return not value
    if isinstance(value, int):
        return value + chance.choice([-1, 1, 10, 10**8])
    if isinstance(value, float):
        return chance.choice([value * 1.01 + 1e-3, value / 2 + 1e-3, 0.97, math.nextafter(value, 2.0), -value - 1.0])
    if isinstance(value, str):
        return chance.choice([value[:-1], value + "x", "", value[::-1] + "y"])
    if isinstance(value, list):
        return chance.choice([value[1:], [*value, *value[-1:]], value[::-1]]) or [0]
    return {**value, "more": 1}


# ----------------------------------------------------------------------------------------------------- what is harmless


def read_content(run: Path) -> dict[str, Any]:
    """Returns what the files of a run say, hashes left out: equal contents are the same run, however it is written."""
    return {_name(run, path): _read(path) for path in sorted(run.rglob("*"))}


def _read(path: Path) -> Any:  # noqa: ANN401 - anything
    if path.is_dir():
        return "a folder"
    try:
        if path.suffix == ".json":
            found = read_json(path)
            return json.dumps({name: value for name, value in found.items() if name not in DERIVED}, sort_keys=True)
        if path.name == MASK:
            mask = Mask.load(path)
            return mask.digest
        if path.suffix == ".safetensors":
            return sorted((name, str(t.dtype), t.numpy().tobytes()) for name, t in load_weights(path).items())
    except (ValueError, AttributeError):
        pass
    return path.read_bytes()
