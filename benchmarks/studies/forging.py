"""How a careful forger alters a run folder: any file, and then every hash anew."""

import contextlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lottery_tickets import Mask
from lottery_tickets._core.files import hash_file, read_json, write_json
from lottery_tickets._core.folders import HASH, MARKER, load_state, save_state, write_hashed
from lottery_tickets.experiments.folder import MASK, RECORD, RESULTS, WEIGHTS, ExperimentFolder
from lottery_tickets.experiments.layers import LAYERS, count_layers
from lottery_tickets.experiments.plan import Training
from lottery_tickets.experiments.results import collect_results
from lottery_tickets.experiments.verification.trainings import TrainingChecks

State = dict[str, Tensor]


def seal(run: Path, *, under_plan: bool = False, recounted: bool = True) -> None:
    """Makes every hash fit again.

    Args:
        run: The run folder.
        under_plan: Whether the records also say that they were made under the plan that is there now.
        recounted: Whether the records also count each layer as the files now have it.
    """
    folder = ExperimentFolder.read(run)
    for training in folder.plan.list_all_trainings():
        record = read_json(run / training.path / RECORD)
        entries = sorted(path for path in (run / training.path).iterdir() if path.name != RECORD)
        made = {"recipe_sha256": folder.plan.recipe_sha256} if under_plan else {}
        made |= {LAYERS: recount_layers(folder, training, record[LAYERS])} if recounted and LAYERS in record else {}
        seal_record(run, training, {**record, **made, "files": {path.name: hash_file(path) for path in entries}})
    write_json(run / RESULTS, collect_results(folder))


def recount_layers(folder: ExperimentFolder, training: Training, counted: Any) -> Any:  # noqa: ANN401 - JSON
    """Returns the counts of a record's layers by the files; as they were where the files do not fit one another."""
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError, RuntimeError):
        mask, end = folder.load_mask(training), folder.load_weights(training)
        start = TrainingChecks(folder, training).load_start(mask)
        found = count_layers(mask, end if start is None else start, end)
        kept = {} if start is not None else {name: {"num_moved": row["num_moved"]} for name, row in counted.items()}
        return {name: {**row, **kept.get(name, {})} for name, row in found.items()}
    return counted


def seal_record(run: Path, training: Training, record: dict[str, Any]) -> None:
    """Writes a record with its hash."""
    write_hashed(run / training.path / RECORD, {name: value for name, value in record.items() if name != HASH})


def change_record(run: Path, training: Training, /, **changes: Any) -> None:  # noqa: ANN401 - facts of many types
    """Replaces facts of a record."""
    seal_record(run, training, {**read_json(run / training.path / RECORD), **changes})


def change_history(run: Path, training: Training, change: Callable[[dict[str, Any]], object]) -> None:
    """Changes the history in a record, in place."""
    history = read_json(run / training.path / RECORD)["history"]
    change(history)
    change_record(run, training, history=history)


def change_marker(run: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Changes what a run was begun with, in place."""
    stored = read_json(run / MARKER)
    del stored[HASH]
    change(stored)
    write_hashed(run / MARKER, stored)


def change_plan(run: Path, **changes: Any) -> None:  # noqa: ANN401 - settings of many types
    """Replaces settings of the plan."""
    change_marker(run, lambda stored: stored["settings"].update(changes))


def change_state(run: Path, training: Training, file: str, change: Callable[[State], object]) -> None:
    """Changes a stored state, in place."""
    state = load_state(run / training.path / file)
    change(state)
    save_state(run / training.path / file, state)


def load_mask(run: Path, training: Training) -> Mask:
    """Returns the mask of a training."""
    return Mask.load(run / training.path / MASK)


def change_mask(run: Path, training: Training, change: Callable[[Tensor, Tensor], object]) -> None:
    """Changes the first layer's mask, given it and that of the training one level up."""
    mask, parent = load_mask(run, training), load_mask(run, training.parent)
    tensors = dict(mask)
    name = next(iter(mask))
    change(tensors[name], parent[name])
    changed = Mask.from_tensors(tensors, mask.provenance)
    changed.save(run / training.path / MASK)
    change_record(run, training, num_kept=changed.num_kept)


def change_provenance(run: Path, training: Training, **changes: Any) -> None:  # noqa: ANN401 - facts of many types
    """Changes what a mask says of how it was made."""
    mask = load_mask(run, training)
    Mask(mask.bits, mask.shapes, {**mask.provenance, **changes}).save(run / training.path / MASK)


def keep_one_more(kept: Tensor, allowed: Tensor) -> None:
    """For `change_mask`."""
    kept[tuple((~kept & allowed).nonzero()[0])] = True


def keep_one_that_was_pruned_before(kept: Tensor, allowed: Tensor) -> None:
    """For `change_mask`; the count stays."""
    kept[tuple(kept.nonzero()[0])] = False
    kept[tuple((~allowed).nonzero()[0])] = True


def keep_another_survivor(kept: Tensor, allowed: Tensor) -> None:
    """For `change_mask`; the count stays."""
    place = tuple((~kept & allowed).nonzero()[0])
    kept[tuple(kept.nonzero()[0])] = False
    kept[place] = True


def revive(run: Path, training: Training) -> None:
    """Makes a pruned weight of the first layer almost zero."""
    mask = load_mask(run, training)
    name = next(iter(mask))
    pruned = tuple((~mask[name]).nonzero()[0])
    change_state(run, training, WEIGHTS, lambda state: state[name].__setitem__(pruned, torch.tensor(1e-30)))


def swap(run: Path, a: Path | str, b: Path | str) -> None:
    """Swaps two entries of a run."""
    aside = run / "aside"
    (run / a).rename(aside)
    (run / b).rename(run / a)
    aside.rename(run / b)


def replace(run: Path, training: Training, other: Path) -> None:
    """Puts the files of another training in place of those of this one, whose record then speaks of this one."""
    kept = read_json(run / training.path / RECORD)
    shutil.rmtree(run / training.path)
    shutil.copytree(other, run / training.path)
    mine = {name: kept[name] for name in ("training", "recipe_sha256", "environment", "seeds")}
    change_record(run, training, **mine)
