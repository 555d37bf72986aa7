"""Any model, any trainer: what it may return, and what a run folder knows of it."""

import copy
import math
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lottery_tickets import compute_iterative_magnitude_pruning, compute_sparsity, load_results
from lottery_tickets._core.states import copy_state
from lottery_tickets.experiments import caller_subject
from lottery_tickets.experiments.adam_trainer import AdamTrainer
from statistical_report_generator.claims.assessment import assess_claims
from statistical_report_generator.claims.findings import describe_claims
from tests.lottery_tickets.experiments.callers import DATA, INPUTS, TARGETS, Trainer, equal, make_model, run

# ---------------------------------------------------------------------------------------------- the published procedure


def test_fresh_weights_come_from_initialise_fn() -> None:
    def initialise(model: nn.Module) -> None:
        for parameter in model.parameters():
            nn.init.uniform_(parameter, 5.0, 6.0)

    trainer = Trainer()
    run(make_model(), trainer, num_replicates=2, initialise_fn=initialise)
    assert min(float(tensor.min()) for tensor in trainer.starts[4].values()) >= 5


# --------------------------------------------------------------------------------------------------------- any trainer


ANSWERS: dict[str, Callable[[nn.Module], nn.Module | None]] = {
    "None": lambda _: None,
    "the model": lambda model: model,
    "a deep copy": copy.deepcopy,
}


@pytest.mark.parametrize("answer", ANSWERS)
def test_trainers_may_train_in_place_or_return_a_model(answer: str) -> None:
    trainer, plain = Trainer(ANSWERS[answer]), Trainer()
    model, other = make_model(), make_model()
    found, expected = run(model, trainer), run(other, plain)
    assert all(equal(a, b) for a, b in zip(trainer.ends, plain.ends, strict=True))
    assert found["masks"] == expected["masks"]
    ends = [[row["history"]["end"] for row in results["trainings"]] for results in (found, expected)]
    assert ends[0] == ends[1]
    assert equal(copy_state(model), copy_state(other))


def test_a_foreign_dense_model_is_refused() -> None:
    with pytest.raises(ValueError, match=r"the model it returned has other weights at pruned places of \['0\.weight"):
        run(make_model(), Trainer(lambda _: make_model(1)))


def test_a_model_of_another_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="trainer_fn must return the model it is given"):
        run(make_model(), Trainer(lambda _: nn.Linear(6, 3)))


def test_a_compiled_model_may_come_back() -> None:
    model = make_model()
    found = run(model, Trainer(lambda m: torch.compile(m, backend="eager")))  # type: ignore[arg-type, return-value]
    assert compute_sparsity(model) == found["final_mask"].sparsity


def test_our_own_trainer_trains() -> None:
    model = make_model()
    settings: dict[str, Any] = {"num_epochs": 20, "learning_rate": 0.05, "control_levels": "none"}
    found = compute_iterative_magnitude_pruning(model, DATA, 0.3, train=True, **settings)
    dense = found["trainings"][0]["history"]["end"]
    assert dense["train_loss"] < 0.5 < math.log(3)
    assert dense["train_accuracy"] > 0.8
    assert dense["step"] == 20


def test_results_are_measured_on_the_evaluation_data() -> None:
    others = [(INPUTS, (TARGETS + 1) % 3)]
    model = make_model()
    found = run(model, AdamTrainer(0.05), evaluation_dataloader=others, num_epochs=10)
    end = found["trainings"][-1]["history"]["end"]
    model.eval()
    assert end["test_loss"] == pytest.approx(nn.functional.cross_entropy(model(INPUTS), others[0][1]).item())
    assert end["test_accuracy"] == pytest.approx(float((model(INPUTS).argmax(1) == others[0][1]).float().mean()))


class Language(nn.Module):
    """A model that is driven by dicts and knows its own loss."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.body = nn.Embedding(5, 8), nn.Linear(8, 8)
        self.head = nn.Linear(8, 5, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, input_ids: Tensor, labels: Tensor) -> SimpleNamespace:
        logits = self.head(self.body(self.embedding(input_ids)).tanh())
        return SimpleNamespace(loss=nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten()))


def test_dict_batches_and_tied_weights() -> None:
    model = Language()
    data = [{"input_ids": torch.arange(12).view(2, 6) % 5}]
    settings: dict[str, Any] = {"num_epochs": 2, "num_replicates": 2}
    found = compute_iterative_magnitude_pruning(model, data, 0.5, train=True, **settings)
    assert list(found["final_mask"]) == ["body.weight"]
    assert model.head.weight is model.embedding.weight
    assert found["rewind_state"] is not None
    assert found["rewind_state"].keys() == model.state_dict().keys()
    figures = {"step", "train_loss", "train_accuracy", "train_perplexity", "metric"}
    assert set(found["trainings"][0]["history"]["end"]) == figures


def test_any_batch_with_a_loss_function() -> None:
    def loss_fn(model: nn.Module, batch: str) -> Tensor:
        output: Tensor = model(torch.full((1, 6), float(len(batch))))
        return output.square().mean()

    settings: dict[str, Any] = {"loss_fn": loss_fn, "num_epochs": 1}
    found = compute_iterative_magnitude_pruning(make_model(), ["a", "bb"], 0.5, train=True, **settings)
    assert found["final_mask"].num_kept == 45


def test_models_with_batch_norm_and_convolutions() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3))
    theta_0 = copy_state(model)
    data = [(torch.randn(8, 1, 4, 4), torch.randint(3, (8,)))]
    settings: dict[str, Any] = {"num_epochs": 2, "num_replicates": 2}
    found = compute_iterative_magnitude_pruning(model, data, 0.5, train=True, **settings)
    assert list(found["final_mask"]) == ["0.weight", "4.weight"]
    assert found["rewind_state"] is not None
    assert equal(found["rewind_state"], theta_0), "running statistics and batch counts are rewound too"


# -------------------------------------------------------------------------------------------------------------- history


def make_loader() -> DataLoader[Any]:
    return DataLoader(TensorDataset(INPUTS, TARGETS), batch_size=8, shuffle=True)


class Follower(Trainer):
    """Notes after each epoch what the loss on the test data is."""

    def __init__(self) -> None:
        super().__init__()
        self.losses: list[float] = []

    def __call__(self, model: nn.Module, dataloader: Iterable[Any], *, epochs: int) -> None:
        assert isinstance(dataloader, DataLoader)
        assert len(dataloader) == 3
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        for _ in range(epochs):
            for inputs, targets in dataloader:
                assert model.training
                nn.functional.cross_entropy(model(inputs), targets).backward()
                optimizer.step()
                optimizer.zero_grad()
            with torch.no_grad():
                self.losses.append(float(nn.functional.cross_entropy(model(INPUTS), (TARGETS + 1) % 3)))


def test_the_history_is_by_epoch_and_has_the_callers_metric() -> None:
    def count_ones(model: nn.Module, batches: Iterable[Any]) -> float:
        return sum(float((model(inputs).argmax(1) == 1).sum()) for inputs, _ in batches)

    follower = Follower()
    settings: dict[str, Any] = {"num_epochs": 4, "rewind_epoch": 1, "prune_rates": 0.3, "control_levels": "none"}
    found = compute_iterative_magnitude_pruning(
        make_model(), make_loader(), 0.3, trainer_fn=follower, evaluation_dataloader=[(INPUTS, (TARGETS + 1) % 3)],
        metric=count_ones,
        **settings,
    )  # fmt: skip
    histories = [row["history"] for row in found["trainings"]]
    assert [history["curve"]["step"] for history in histories] == [[1, 2, 3, 4], [2, 3, 4]]
    losses = [loss for history in histories for loss in history["curve"]["test_loss"]]
    assert losses == pytest.approx(follower.losses)
    for history in histories:
        assert {name: values[-1] for name, values in history["curve"].items()} == history["end"]
        assert history["end"]["metric"] == int(history["end"]["metric"])


def test_following_a_trainer_changes_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    def train() -> dict[str, Tensor]:
        model = nn.Sequential(make_model(), nn.Dropout(0.5))
        compute_iterative_magnitude_pruning(model, make_loader(), 0.5, train=True, num_epochs=3)
        return copy_state(model)

    watched = train()
    monkeypatch.setattr(caller_subject, "watch_passes", lambda dataloader, _: dataloader)
    assert equal(train(), watched)


def test_a_loss_that_is_not_finite_for_a_while_does_not_end_a_training_that_recovers() -> None:
    def trainer(model: nn.Module, dataloader: Iterable[Any], *, epochs: int) -> None:
        start = copy_state(model)
        for epoch in range(epochs):
            assert len(list(dataloader)) == 3
            model.load_state_dict({name: tensor * (math.inf if epoch == 0 else 1) for name, tensor in start.items()})

    [dense, *_] = run(make_model(), trainer, num_epochs=3)["trainings"]
    assert dense["history"]["curve"]["step"] == [1, 2, 3]
    assert "train_loss" not in dense["history"]["curve"]
    assert math.isfinite(dense["history"]["end"]["train_loss"])


def test_a_trainer_that_goes_over_its_data_twice_an_epoch_has_no_history_by_epoch() -> None:
    def trainer(model: nn.Module, dataloader: Iterable[Any], *, epochs: int) -> None:
        Trainer()(model, dataloader, epochs=epochs)
        assert len(list(dataloader)) == 3

    found = run(make_model(), trainer)
    assert {tuple(row["history"]["curve"]["step"]) for row in found["trainings"]} == {(2,)}


# ---------------------------------------------------------------------------------------------------------- run folders


def test_a_run_folder_keeps_every_training_and_the_same_call_computes_nothing_again(tmp_path: Path) -> None:
    trainers = [Trainer(), Trainer()]
    settings: dict[str, Any] = {"run_folder": tmp_path / "run", "control_levels": [2], "num_replicates": 2}
    results = [run(make_model(), trainer, **settings) for trainer in trainers]
    assert [len(trainer.starts) for trainer in trainers] == [14, 0]
    assert results[0]["trainings"] == results[1]["trainings"]
    assert results[0]["masks"] == results[1]["masks"]
    assert results[0]["run_folder"] == str(tmp_path / "run")


def test_an_interrupted_run_goes_on_where_it_stopped_and_ends_the_same(tmp_path: Path) -> None:
    class Stopped(Trainer):
        def __call__(self, model: nn.Module, dataloader: Iterable[Any], *, epochs: int) -> nn.Module | None:
            if len(self.starts) == 2:
                super().__call__(model, dataloader, epochs=1)
                raise KeyboardInterrupt("in mid-training")
            return super().__call__(model, dataloader, epochs=epochs)

    whole_model, model = make_model(), make_model()
    whole = run(whole_model, Trainer())
    theta_0 = copy_state(model)
    with pytest.raises(KeyboardInterrupt, match="in mid-training"):
        run(model, Stopped(), run_folder=tmp_path, trainer_id="SGD")
    assert not model._load_state_dict_post_hooks, "no mask is held any longer"
    assert equal(copy_state(model), theta_0), "so that the same call, on the same model, goes on"
    trainer = Trainer()
    found = run(model, trainer, run_folder=tmp_path, trainer_id="SGD")
    assert len(trainer.starts) == 2, "two of the four trainings were there"
    assert found["trainings"] == whole["trainings"]
    assert equal(copy_state(model), copy_state(whole_model))


CHANGES: dict[str, dict[str, Any]] = {
    "num_steps": {"num_epochs": 3},
    "seed": {"seed": 1},
    "prune_rates": {"prune_rates": 0.31},
    "rewind_step": {"rewind_epoch": 1},
    "rewinding": {"rewinding": "learning_rate"},
    "initial_sha256": {"model": make_model(1)},
}


@pytest.mark.parametrize("setting", CHANGES)
def test_a_run_folder_of_other_settings_is_refused(tmp_path: Path, setting: str) -> None:
    run(make_model(), Trainer(), run_folder=tmp_path)
    with pytest.raises(ValueError, match=rf"must be continued with what it was begun with.*{setting}"):
        run(**{"model": make_model(), "trainer": Trainer(), "run_folder": tmp_path, **CHANGES[setting]})


def train_another_way(model: nn.Module, dataloader: Iterable[Any], *, epochs: int) -> None:
    Trainer()(model, dataloader, epochs=epochs + 0)


OTHERS: dict[str, tuple[str, dict[str, Any]]] = {
    "another learning rate": ("trainer_fn", {"trainer": AdamTrainer(0.2)}),
    "another body of the trainer": ("trainer_fn", {"trainer": train_another_way}),
    "another metric": ("metric", {"metric": lambda *_: 0.5}),
    "other evaluation data": ("evaluation data", {"evaluation_dataloader": [(INPUTS, (TARGETS + 2) % 3)]}),
}


@pytest.mark.parametrize("case", OTHERS)
def test_other_code_and_data_are_refused_by_name(tmp_path: Path, case: str) -> None:
    """Each of these once returned the old results within a hundredth of a second."""
    name, changes = OTHERS[case]
    settings: dict[str, Any] = {
        "trainer": AdamTrainer(0.1),
        "metric": lambda *_: 0.25,
        "evaluation_dataloader": [(INPUTS, TARGETS)],
        "run_folder": tmp_path,
    }
    run(make_model(), **settings)
    run(make_model(), **settings)
    with pytest.raises(ValueError, match=f"the code and data it was begun with, but another {name} is given"):
        run(make_model(), **{**settings, **changes})


def test_other_training_data_and_another_forward_are_refused(tmp_path: Path) -> None:
    class Shifted(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            shifted: Tensor = nn.Sequential.__call__(nn.Sequential(*self), x) + 1.0
            return shifted

    def find(model: nn.Module, data: list[tuple[Tensor, Tensor]], **options: Any) -> Any:  # noqa: ANN401 - results
        settings: dict[str, Any] = {"num_epochs": 1, "control_levels": "none", "run_folder": tmp_path, **options}
        return compute_iterative_magnitude_pruning(model, data, 0.2, train=True, **settings)

    find(make_model(), DATA)
    find(make_model(), DATA[::-1])  # the same samples
    with pytest.raises(ValueError, match="another data is given"):
        find(make_model(), [*DATA[1:], (INPUTS[:8] + 1e-3, TARGETS[:8])])
    shifted = Shifted(*make_model())
    with pytest.raises(ValueError, match=r"differ: subject\.model is 'Sequential' there|another model is given"):
        find(shifted, DATA)


def test_what_cannot_be_identified_is_recorded_and_told(tmp_path: Path) -> None:
    class Noisy:
        def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
            for inputs, targets in DATA:
                yield inputs + os.urandom(1)[0], targets

    settings: dict[str, Any] = {"num_epochs": 1, "control_levels": "none", "num_replicates": 2}
    for _ in range(2):
        compute_iterative_magnitude_pruning(make_model(), Noisy(), 0.2, train=True, run_folder=tmp_path, **settings)
    [said] = load_results(tmp_path / "results.json")["unidentified"]
    assert "could not be identified" in said
    assert "data_id" in said
    claims = assess_claims(load_results(tmp_path / "results.json"), metric="train_accuracy", moment="end")
    assert claims["caveats"] == [f"{said[0].upper()}{said[1:]}."]
    assert claims["caveats"][0] in describe_claims(claims)


def test_batches_follow_the_model_to_its_device() -> None:
    model = nn.Linear(4, 2, device="meta")
    AdamTrainer(0.1)(model, [(torch.ones(3, 4), torch.zeros(3, dtype=torch.int64))], epochs=1)
    assert model.weight.grad is None, "the steps were made"
