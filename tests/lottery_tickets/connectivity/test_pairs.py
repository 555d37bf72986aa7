"""A caller's pairs are kept in a run folder: interrupted, grown, told from others, and re-checked."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from lottery_tickets import (
    compute_linear_connectivity,
    compute_stable_rewinding_epoch,
    create_magnitude_mask,
    hold_mask,
    remove_mask,
)
from lottery_tickets.connectivity.lines import ConnectivityResults
from lottery_tickets.experiments.verification import create_caller_subject, describe_scope, verify_run
from tests.lottery_tickets.connectivity.networks import Model, describe_everything, make_loader, make_network, train
from tests.models import make_mlp


class Counting:
    """Trains, counts its calls, and is interrupted at one of them."""

    def __init__(self, interrupted_at: int | None = None) -> None:
        self.num_calls, self.interrupted_at = 0, interrupted_at

    def __call__(self, model: Model, dataloader: Iterable[Any], *, epochs: int) -> None:
        self.num_calls += 1
        if self.num_calls == self.interrupted_at:
            raise KeyboardInterrupt("as asked")
        train(model, dataloader, epochs=epochs)


def find(folder: Path | None, trainer: Counting, **settings: Any) -> ConnectivityResults:  # noqa: ANN401 - settings of many types
    defaults: dict[str, Any] = {"num_epochs": 3, "num_points": 3, "rewind_epoch": 1, "trainer_id": "mine"}
    return compute_linear_connectivity(
        make_network(), make_loader(3), trainer_fn=trainer, run_folder=folder, **{**defaults, **settings}
    )


@pytest.mark.parametrize("sparsity", [None, 0.5])
def test_an_interruption_loses_one_training_at_most(tmp_path: Path, sparsity: float | None) -> None:
    mask = None if sparsity is None else create_magnitude_mask(make_network(), sparsity)
    whole = find(None, Counting(), num_replicates=2, mask=mask)
    with pytest.raises(KeyboardInterrupt, match="as asked"):
        find(tmp_path, Counting(5), num_replicates=2, mask=mask)
    rest = Counting()
    assert find(tmp_path, rest, num_replicates=2, mask=mask) == whole
    assert rest.num_calls == 2
    assert find(tmp_path, Counting(1), num_replicates=2, mask=mask) == whole


def test_more_replicates_are_added_and_other_trainings_refused(tmp_path: Path) -> None:
    first, more = find(tmp_path, Counting()), Counting()
    grown = find(tmp_path, more, num_replicates=2)
    assert more.num_calls == 3
    assert grown["pairs"][0] == first["pairs"][0]
    for changes, told in (
        ({"trainer_id": "another"}, "trainer"),
        ({"rewind_epoch": 2}, "rewind_step is 1 there and 2 here"),
        ({"mask": create_magnitude_mask(make_network(), 0.5)}, "ticket_sha256"),
        ({"num_replicates": 1}, "num_replicates is 2 there and 1 here"),
    ):
        with pytest.raises(ValueError, match=told):
            find(tmp_path, Counting(1), **{"num_replicates": 2, **changes})


@pytest.mark.parametrize("sparsity", [None, 0.5])
def test_a_run_is_measured_and_trained_again(tmp_path: Path, sparsity: float | None) -> None:
    mask = None if sparsity is None else create_magnitude_mask(make_network(), sparsity)
    find(tmp_path, Counting(), num_replicates=2, mask=mask)
    subject = create_caller_subject(tmp_path, make_network(), make_loader(3), trainer_fn=Counting())
    checks = verify_run(tmp_path, subject, num_trained_again=99)
    assert not [check for check in checks if check.problem]
    assert "trained again: 6 of 6 trainings, drawn at random, end in the same bits" in describe_scope(
        tmp_path, checks, is_measured=True
    )
    other = create_caller_subject(tmp_path, make_network(1), make_loader(3), trainer_fn=Counting())
    assert [check for check in verify_run(tmp_path, other) if check.problem]


def test_a_mask_on_tied_weights_is_rewound_and_verified(tmp_path: Path) -> None:
    model = make_mlp(torch.float32, (4, 4, 4, 3), seed=0)
    model[2].weight = model[0].weight
    options: dict[str, Any] = {"num_epochs": 2, "num_points": 3, "rewind_epoch": 1, "trainer_id": "mine"}
    mask = create_magnitude_mask(model, 0.5)
    compute_linear_connectivity(model, make_loader(3), trainer_fn=train, mask=mask, run_folder=tmp_path, **options)
    assert not [check for check in verify_run(tmp_path) if check.problem]


def test_a_search_keeps_its_trainings_by_epoch(tmp_path: Path) -> None:
    model, loader, trainer = make_network(), make_loader(3), Counting()
    before = describe_everything(model, loader)
    options: dict[str, Any] = {"num_epochs": 3, "num_points": 3, "run_folder": tmp_path, "trainer_id": "mine"}
    found = compute_stable_rewinding_epoch(model, loader, trainer, threshold=0.0, **options)
    assert describe_everything(model, loader) == before
    assert {path.name for path in tmp_path.iterdir()} == {f"epoch-{epoch}" for epoch in found["evaluations"]}
    again = compute_stable_rewinding_epoch(model, loader, Counting(1), threshold=0.0, **options)
    assert again == found
    eager, num_before = (
        compute_stable_rewinding_epoch(model, loader, trainer, threshold=1.0, **options),
        trainer.num_calls,
    )
    assert eager["step"] == 0
    assert eager["evaluations"].keys() > found["evaluations"].keys()
    assert num_before == 3 + 2  # epoch 2 has a shared beginning, epoch 0 has none


def test_a_model_without_prunable_weights_has_pairs_too() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.BatchNorm1d(4))
    found = compute_linear_connectivity(model, make_loader(3), trainer_fn=train, num_epochs=1, num_points=3)
    assert found["pairs"][0]["start_sha256"]


def test_a_mask_that_is_held_is_refused() -> None:
    model = make_network()
    hold_mask(model, create_magnitude_mask(model, 0.5))
    with pytest.raises(ValueError, match="the model must hold no mask, because copies share dense epochs"):
        compute_linear_connectivity(model, make_loader(), trainer_fn=train, num_epochs=1)
    remove_mask(model)
    with pytest.raises(ValueError, match="train_dataloader, run_folder and executor; pass"):
        compute_linear_connectivity(model, make_loader(), *[dict(model.state_dict())] * 2, run_folder="somewhere")
