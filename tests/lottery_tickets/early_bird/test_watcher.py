"""The watcher only reads, and hands out the ticket of the check that found it."""

from pathlib import Path

import pytest
import torch
from torch import nn

from lottery_tickets import (
    EarlyBirdWatcher,
    Mask,
    create_magnitude_mask,
    load_results,
    load_ticket,
)
from lottery_tickets._core.prunable_weights import find_prunable_weights
from lottery_tickets._core.states import copy_state, hash_state
from tests.lottery_tickets.early_bird.digits import make_digits_loader, make_held_out
from tests.models import make_lenet


def test_the_watcher_only_reads() -> None:
    weights = []
    for watches in (True, False):
        model = make_lenet()
        watcher = EarlyBirdWatcher(model, check_steps=2, probe=make_held_out()) if watches else None
        optimizer = torch.optim.Adam(model.parameters(), 1e-3)
        torch.manual_seed(0)
        for step, (inputs, targets) in enumerate(make_digits_loader(), start=1):
            loss = nn.functional.cross_entropy(model(inputs), targets)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            if watcher is not None:
                assert (watcher.observe(model, step, loss=loss.detach()) is None) == (step % 2 == 1)
        weights.append(hash_state(copy_state(model)))
    assert weights[0] == weights[1]


def test_weights_are_put_back_only_while_the_verdict_hangs_on_them_and_it_is_that_of_all() -> None:
    model = make_lenet()
    watcher = EarlyBirdWatcher(model, check_steps=18, probe=make_held_out())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    found = []
    for step, (inputs, targets) in enumerate([batch for _ in range(9) for batch in make_digits_loader()], start=1):
        nn.functional.cross_entropy(model(inputs), targets).backward()
        optimizer.step()
        optimizer.zero_grad()
        checkpoint = watcher.observe(model, step)
        if checkpoint is None:
            continue
        measured = [part["closing_p"] is not None for part in checkpoint["parts"]]
        # The second layer has 60 % of the weights, and half of them is enough.
        assert measured == [False, checkpoint["verdict"] == "converged", False]
        assert [part["num_weights"] for part in checkpoint["parts"]] == [19200, 30000, 1000]
        found.append(checkpoint)
        weights = find_prunable_weights(model)
        learning, start = watcher._learning, weights.with_values(watcher.starting_weights)
        assert learning is not None
        parts = [learning.put_back(model, weights, start, part) for part in checkpoint["parts"]]
        in_full = watcher.rule.judge([*found[:-1], {**checkpoint, "parts": parts}])
        assert in_full["verdict"] == checkpoint["verdict"]
    assert "at least 60% of the ranked weights close it" in found[-1]["reason"]


def test_the_watcher_saves_ticket_and_evidence(tmp_path: Path) -> None:
    model = make_lenet()
    watcher = EarlyBirdWatcher(model, check_steps=1)
    with pytest.raises(ValueError, match="must be a check before there are results"):
        watcher.results()
    watcher.observe(model, 1)
    watcher.save(tmp_path)
    ticket = load_ticket(tmp_path / "ticket.safetensors")
    assert ticket.mask == watcher.draw_ticket() == Mask.load(tmp_path / "ticket.safetensors")
    assert ticket.state_sha256 == hash_state(watcher.starting_weights)
    assert (ticket.step, ticket.claims) == (0, None)
    assert ticket.provenance["verdict"] == watcher.verdict
    assert load_results(tmp_path / "evidence.json")["verdict"] == "still changing"


def test_the_ticket_is_that_of_the_check_that_found_it_converged() -> None:
    model = make_lenet()
    watcher = EarlyBirdWatcher(model, check_steps=18, probe=make_held_out())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    drawn = None
    for step, (inputs, targets) in enumerate([batch for _ in range(9) for batch in make_digits_loader()], start=1):
        loss = nn.functional.cross_entropy(model(inputs), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        watcher.observe(model, step, loss=loss.detach())
        if watcher.converged and drawn is None:
            drawn = create_magnitude_mask(model, 0.5)
    assert drawn is not None
    assert watcher.draw_ticket() == drawn == watcher.results()["final_mask"]
    assert watcher.draw_ticket(last=True) == create_magnitude_mask(model, 0.5) != drawn
