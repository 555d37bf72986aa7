"""Masks and watches in checkpoints of torch.distributed: saved by so many processes, loaded by others."""

import io
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from lottery_tickets import create_magnitude_mask
from lottery_tickets._core.sharding.fingerprints import compute_fingerprints
from lottery_tickets.integrations.distributed_checkpoint import LABEL, MaskState
from tests.lottery_tickets._core.sharding import watching
from tests.processes import started


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """What one process finds that was never stopped."""
    folder = tmp_path_factory.mktemp("plain")
    with started(1, folder) as one:
        one.run(watching.save_checkpoint, "", str(folder / "saved"))
        found: list[tuple[Any, Any]] = one.run(watching.go_on, "", str(folder / "saved"))
    return found[0]


@pytest.mark.parametrize(
    ("saving", "loading"),
    [
        ((4, "both"), (2, "fsdp")),
        pytest.param((2, "fsdp"), (1, ""), marks=pytest.mark.long),
        pytest.param((1, ""), (4, "both"), marks=pytest.mark.long),
    ],
)
def test_a_run_goes_on_with_other_processes(
    saving: tuple[int, str], loading: tuple[int, str], tmp_path: Path, expected: tuple[Any, Any]
) -> None:
    for name in ("before", "after", "saved"):
        (tmp_path / name).mkdir()
    with started(saving[0], tmp_path / "before") as before:
        before.run(watching.save_checkpoint, saving[1], str(tmp_path / "saved"))
    with started(loading[0], tmp_path / "after") as after:
        found = after.run(watching.go_on, loading[1], str(tmp_path / "saved"))
    for checkpoints, ticket in found:
        watching.compare_figures(checkpoints, expected[0])
        assert all(torch.equal(ticket[name], expected[1][name]) for name in expected[1])


def test_a_mask_of_other_weights_is_refused() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    state = MaskState(model, create_magnitude_mask(model, 0.5, exclude="1")).state_dict()
    with pytest.raises(ValueError, match=r"differ in \['1.weight'\]; give include="):
        MaskState(model).load_state_dict({**MaskState(model).state_dict(), LABEL: state[LABEL]})


def test_one_altered_bit_is_found() -> None:
    model = nn.Linear(8, 8)
    mask = create_magnitude_mask(model, 0.5)
    state = pickle.loads(pickle.dumps(MaskState(model, mask).state_dict()))
    loaded = MaskState(model)
    loaded.load_state_dict(state)
    assert loaded.mask == mask
    state["kept"]["weight"][0, 0] ^= True
    with pytest.raises(ValueError, match=r"fingerprints of \['weight'\] differ"):
        loaded.load_state_dict(state)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64, torch.bool, torch.int16])
def test_fingerprints_tell_values_places_and_signs_apart(dtype: torch.dtype) -> None:
    values = torch.tensor([0, 1, 0, 1, 1]).to(dtype)
    others = [values.roll(1), values.flip(0), 1 - values.to(torch.float64)]
    prints = [compute_fingerprints({"a": other.to(dtype)})["a"] for other in (values, *others)]
    assert len(set(prints)) == len(prints)
    if dtype.is_floating_point:
        assert compute_fingerprints({"a": -values})["a"] not in prints
    stored = io.BytesIO()
    torch.save(values, stored)
    stored.seek(0)
    assert compute_fingerprints({"a": torch.load(stored)})["a"] == prints[0]
    assert json.loads(json.dumps(prints)) == prints
