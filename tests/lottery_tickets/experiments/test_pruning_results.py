"""What iterative magnitude pruning returns can say what it shows, and write its tickets."""

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lottery_tickets import compute_iterative_magnitude_pruning, load_results, load_ticket, reinitialise_, use_ticket
from lottery_tickets._core.states import copy_state, hash_state, view_clean_state
from lottery_tickets.experiments.verification.runs import verify_run
from statistical_report_generator.claims import assess_claims
from tests.lottery_tickets.experiments.callers import DATA, Trainer, equal, make_model, run


def test_claims_are_made_at_a_moment_and_on_a_metric_that_are_there() -> None:
    """A trainer of one's own has no early stop, and without data apart no test accuracy: both were the defaults."""
    model = make_model()
    found = run(model, Trainer(), 0.3, num_replicates=2)
    assert {moment for row in found["trainings"] for moment in row["history"]} == {"curve", "end"}
    claims = found.claims()
    assert (claims["metric"], claims["moment"]) == ("train_accuracy", "end")
    assert claims == assess_claims(found)
    assert [level["level"] for level in claims["levels"]] == [1]
    assert found.claims(metric="train_loss")["higher_is_better"] is False
    with pytest.raises(ValueError, match="must have 'test_accuracy' at one of"):
        found.claims(metric="test_accuracy")


def test_claims_know_of_earlier_looks_and_of_what_could_not_be_identified(tmp_path: Path) -> None:
    kept: dict[str, Any] = {"run_folder": tmp_path / "run", "trainer_id": "sgd"}
    run(make_model(), Trainer(), 0.3, num_replicates=2, **kept)
    found = run(make_model(), Trainer(), 0.3, num_replicates=3, **kept)
    assert found.claims()["looks_taken"] == 2
    assert found.claims() == assess_claims(load_results(tmp_path / "run" / "results.json"))


@pytest.mark.parametrize("kept", [True, False])
def test_tickets_are_saved_with_what_they_were_trained_from(tmp_path: Path, *, kept: bool) -> None:
    model, trainer = make_model(), Trainer()
    theta_0 = copy_state(model)
    folder: dict[str, Any] = {"run_folder": tmp_path / "run", "trainer_id": "sgd"} if kept else {}
    found = run(model, trainer, num_replicates=2, rewind_epoch=1, **folder)
    found.save_ticket(tmp_path / "ticket.safetensors", 2, margin=0.01)
    ticket = load_ticket(tmp_path / "ticket.safetensors")
    assert ticket.mask == found["masks"][2]
    assert found["rewind_state"] is not None
    assert ticket.state_sha256 == hash_state(found["rewind_state"]) != hash_state(theta_0)
    assert (ticket.step, ticket.provenance["level"]) == (1, 2)
    use_ticket(model, tmp_path / "ticket.safetensors")
    assert hash_state(model.state_dict()) == hash_state(trainer.starts[3]), (
        "as the second level was begun: dense is two stretches"
    )
    assert ticket.claims is not None
    level = found.claims(margin=0.01)["levels"][1]
    assert (ticket.claims["verdict"], ticket.claims["margin"]) == (level["verdict"], 0.01)
    assert ticket.claims["missing_controls"] == ["reinitialised", "shuffled", "random"]
    assert found.ticket().mask == found["final_mask"]


def test_with_and_without_a_run_folder_the_ticket_is_the_same(tmp_path: Path) -> None:
    tickets = [
        run(make_model(), Trainer(), 0.3, num_replicates=2, **folder).ticket()
        for folder in ({}, {"run_folder": tmp_path / "run", "trainer_id": "sgd"})
    ]
    assert tickets[0].mask.digest == tickets[1].mask.digest
    assert tickets[0].state_sha256 == tickets[1].state_sha256
    assert tickets[0].claims == tickets[1].claims
    assert tickets[0].provenance == tickets[1].provenance


def test_a_ticket_that_goes_on_from_trained_weights_needs_the_run(tmp_path: Path) -> None:
    trainer = Trainer()
    found = run(make_model(), trainer, rewinding="learning_rate")
    with pytest.raises(ValueError, match=r"which were not kept; pass run_folder="):
        found.ticket()
    found = run(make_model(), trainer, rewinding="learning_rate", run_folder=tmp_path / "run", trainer_id="sgd")
    assert hash_state(found.ticket(1).state) == hash_state(trainer.ends[0])


def test_a_simulation_has_no_ticket_and_shows_nothing(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="this is a simulation"):
        found = compute_iterative_magnitude_pruning(make_model(), DATA, 0.5)
    with pytest.raises(ValueError, match="a simulation trains no ticket"):
        found.claims()
    with pytest.raises(ValueError, match="a simulation has trained no ticket, so there is none to save"):
        found.save_ticket(tmp_path / "ticket.safetensors")


def test_claims_without_statistics_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    found = run(make_model(), Trainer(), 0.3)
    for name in [name for name in sys.modules if name.startswith("statistical_report_generator")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "scipy", None)
    with pytest.raises(ModuleNotFoundError, match=r"claims need scipy.*; install it by: pip install 'lottery-tickets"):
        found.claims()


class Inside(nn.Module):
    """A part of it is compiled."""

    def __init__(self) -> None:
        super().__init__()
        self.body = compile_eagerly(make_model())

    def forward(self, inputs: Tensor) -> Any:  # noqa: ANN401 - of a compiled part
        return self.body(inputs)


compile_eagerly: Callable[[nn.Module], Any] = partial(torch.compile, backend="eager")
WRAPPED: dict[str, tuple[str, Callable[[], Any]]] = {
    "compiled": ("", lambda: compile_eagerly(make_model())),
    "compiled inside": ("body.", Inside),
    "data parallel": ("", lambda: nn.DataParallel(make_model())),
}


@pytest.mark.parametrize("name", WRAPPED)
@pytest.mark.parametrize("rewinding", ["weights", "learning_rate"])
def test_a_wrapped_model_ends_as_the_one_inside(name: str, rewinding: str, tmp_path: Path) -> None:
    """It ended with KeyError('0.weight'), where the layers of the first training were counted."""
    prefix, make = WRAPPED[name]
    settings: dict[str, Any] = {"rewinding": rewinding, "rewind_epoch": 1, "control_levels": [1], "num_replicates": 2}
    plain, wrapped = make_model(), make()
    expected = run(plain, Trainer(), 0.3, **settings)
    found = run(wrapped, Trainer(), 0.3, run_folder=tmp_path / "run", trainer_id="sgd", **settings)
    assert [row["history"] for row in found["trainings"]] == [row["history"] for row in expected["trainings"]]
    assert found["final_mask"] == {f"{prefix}{layer}": kept for layer, kept in expected["final_mask"].items()}
    assert found["rewind_state"] is not None
    assert expected["rewind_state"] is not None
    assert equal(found["rewind_state"], {f"{prefix}{n}": tensor for n, tensor in expected["rewind_state"].items()})
    assert hash_state(view_clean_state(wrapped)) == hash_state(
        {f"{prefix}{n}": tensor for n, tensor in plain.state_dict().items()}
    )
    assert [check for check in verify_run(tmp_path / "run") if check.problem] == []
    use_ticket(wrapped, found.ticket())


def test_a_compiled_layer_is_drawn_anew_once() -> None:
    plain, wrapped = nn.Linear(3, 2), compile_eagerly(nn.Linear(3, 2))
    for model in (plain, wrapped):
        reinitialise_(model, 1)
    assert torch.equal(wrapped.weight, plain.weight)


def test_results_give_theta_k_back_whole(tmp_path: Path) -> None:
    """They gave a histogram of each weight."""
    model = make_model()
    theta_0 = copy_state(model)
    run(model, Trainer(), 0.3, path=tmp_path / "found.json")
    assert hash_state(load_results(tmp_path / "found.json")["rewind_state"]) == hash_state(theta_0)
