"""A search that stops goes on from its folder to the same bits, and refuses the folder of another."""

from pathlib import Path
from typing import Any

import pytest

from lottery_tickets import (
    EarlyBirdWatcher,
    compute_early_bird_tickets,
)
from lottery_tickets._core.states import copy_state, hash_state
from tests.lottery_tickets.early_bird.digits import find_digits, make_arguments, make_digits_loader, strip
from tests.models import make_lenet


class Interrupt(Exception):  # noqa: N818 - stands for KeyboardInterrupt
    """Comes in the middle of a run."""


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"use_sgd": False, "learning_rate": 1e-3, "momentum": 0.0},
        {"use_magnitude_ranking": False},
        {"check_steps": 13},
    ],
)
def test_an_interrupted_run_ends_with_the_same_bits(
    arguments: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, trained = find_digits(run_folder=tmp_path / "whole", convergence_threshold=0.999, **arguments)
    assert not (tmp_path / "whole" / "check-0001").exists()
    again, _ = find_digits(run_folder=tmp_path / "whole", convergence_threshold=0.999, **arguments)
    assert strip(again) == strip(whole)

    check, calls = EarlyBirdWatcher.check, []

    def fail(watcher: EarlyBirdWatcher, *positional: Any) -> Any:  # noqa: ANN401 - as check
        calls.append(1)
        if len(calls) == 4:
            raise Interrupt("the plug is pulled")
        return check(watcher, *positional)

    monkeypatch.setattr(EarlyBirdWatcher, "check", fail)
    model = make_lenet()
    arguments = {**arguments, "run_folder": tmp_path / "cut", "convergence_threshold": 0.999}
    settings = make_arguments(**arguments)
    with pytest.raises(Interrupt, match="the plug"):
        compute_early_bird_tickets(model, make_digits_loader(), **settings)
    assert hash_state(copy_state(model)) == hash_state(copy_state(make_lenet()))
    resumed = compute_early_bird_tickets(model, make_digits_loader(), **settings)
    assert strip(resumed) == strip(whole)
    assert hash_state(copy_state(model)) == hash_state(copy_state(trained))
    with pytest.raises(
        ValueError, match=r"must be the folder of this run, but it differs in learning_rate, trainer; take another"
    ):
        compute_early_bird_tickets(
            make_lenet(), make_digits_loader(), **make_arguments(**{**arguments, "learning_rate": 0.2})
        )


def test_a_run_that_has_converged_is_not_trained_on(tmp_path: Path) -> None:
    first, trained = find_digits(run_folder=tmp_path)
    assert first["converged"]
    again, model = find_digits(run_folder=tmp_path)
    assert strip(again) == strip(first)
    assert hash_state(copy_state(model)) == hash_state(copy_state(trained))


@pytest.mark.parametrize("name", ["model.safetensors", "watch.safetensors", "trainer.pt", "history.json"])
def test_a_run_that_was_cut_short_or_altered_is_refused(name: str, tmp_path: Path) -> None:
    settings = {"max_epochs": 1, "run_folder": tmp_path / "run"}
    find_digits(**settings)
    [path] = (tmp_path / "run").glob(f"check-*/{name}")
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ValueError, match=f"{name} must"):
        find_digits(**settings)
