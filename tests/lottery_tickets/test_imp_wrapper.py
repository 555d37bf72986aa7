"""Iterative magnitude pruning as published, for any model and any trainer; and the simulation that claims nothing."""

import copy
import math
from collections.abc import Callable, Iterable
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lottery_tickets import Mask, compute_iterative_magnitude_pruning, compute_sparsity, hold_mask
from lottery_tickets._core.states import copy_state, hash_state
from lottery_tickets._core.training.trainer_function import TrainerFunction
from lottery_tickets.experiments.results import PruningResults
from lottery_tickets.imp_wrapper import AdamTrainer

INPUTS, TARGETS = torch.randn(24, 6, generator=torch.Generator().manual_seed(0)), torch.arange(24) % 3
DATA = [(INPUTS[i : i + 8], TARGETS[i : i + 8]) for i in range(0, 24, 8)]


def make_model(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 10), nn.Tanh(), nn.Linear(10, 3))


class Trainer:
    """Trains by SGD with momentum and decay, and notes the state each training starts from and ends in."""

    def __init__(self, answer: Callable[[nn.Module], nn.Module | None] = lambda _: None) -> None:
        self.answer = answer
        self.starts: list[dict[str, Tensor]] = []
        self.ends: list[dict[str, Tensor]] = []
        self.epochs: list[int] = []

    def __call__(self, model: nn.Module, dataloader: Iterable[Any], *, epochs: int) -> nn.Module | None:
        self.starts.append(copy_state(model))
        self.epochs.append(epochs)
        answer = self.answer(model)
        trained = answer if answer is not None and compute_sparsity(answer) == compute_sparsity(model) else model
        optimizer = torch.optim.SGD(trained.parameters(), 0.1, momentum=0.9, weight_decay=0.01)
        trained.train()
        for _ in range(epochs):
            for inputs, targets in dataloader:
                nn.functional.cross_entropy(trained(inputs), targets).backward()
                optimizer.step()
                optimizer.zero_grad()
        self.ends.append(copy_state(trained))
        return answer


def run(model: nn.Module, trainer: TrainerFunction, target: float = 0.6, **settings: Any) -> PruningResults:  # noqa: ANN401 - settings of many types
    defaults: dict[str, Any] = {"num_epochs": 2, "control_levels": "none", "prune_rates": 0.3}
    return compute_iterative_magnitude_pruning(model, DATA, target, trainer_fn=trainer, **{**defaults, **settings})


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def prune(state: dict[str, Tensor], mask: Mask) -> dict[str, Tensor]:
    return {name: torch.where(mask[name], t, 0.0) if name in mask else t for name, t in state.items()}


# ---------------------------------------------------------------------------------------------- the published procedure


def test_masks_are_nested_and_the_target_is_met_exactly() -> None:
    found = run(make_model(), Trainer(), 0.605)
    masks = found["masks"]
    assert masks[0].num_kept == masks[0].num_weights == 90
    assert [mask.num_kept for mask in masks] == [90, 63, 44, 90 - round(0.605 * 90)]
    assert all(later.is_subset(earlier) for earlier, later in pairwise(masks))
    assert found["final_mask"] == masks[-1]
    assert (found["simulated"], found["target_sparsity"], found["run_folder"]) == (False, 0.605, None)
    assert [row["density"] for row in found["trainings"]] == [mask.density for mask in masks]


def test_each_round_keeps_the_largest_trained_survivors() -> None:
    trainer = Trainer()
    masks = run(make_model(), trainer)["masks"]
    for end, before, after in zip(trainer.ends, masks, masks[1:], strict=False):
        magnitudes = torch.cat([end[name].abs()[before[name]] for name in before])
        kept = torch.cat([after[name][before[name]] for name in before])
        assert magnitudes[kept].min() >= magnitudes[~kept].max()


def test_lightning_rewinds_to_trained_weights_and_this_to_theta_0() -> None:
    """Lightning's ModelPruning: theta_0 shares storage, so the survivors' distance from it is 0, 1.35, 1.90, 2.13."""
    model = make_model()
    theta_0 = copy_state(model)
    trainer = Trainer()
    found = run(model, trainer, 0.75)
    assert len(trainer.starts) == len(found["masks"]) == 5
    distances = [
        max(float((start[name] - theta_0[name])[mask[name]].abs().max()) for name in mask)
        for start, mask in zip(trainer.starts, found["masks"], strict=True)
    ]
    assert distances == [0.0] * 5
    assert found["rewind_state"] is not None
    assert hash_state(found["rewind_state"]) == hash_state(theta_0)
    for start, mask in zip(trainer.starts, found["masks"], strict=True):
        assert hash_state(start) == hash_state(prune(theta_0, mask))
    assert not equal(trainer.ends[0], theta_0), "nothing was trained at all"


def test_nncf_prunes_weights_that_come_back_and_this_does_not() -> None:
    """NNCF: 136 of 375 pruned weights are non-zero in round 2."""
    trainer = Trainer()
    found = run(make_model(), trainer)
    for end, mask in zip(trainer.ends, found["masks"], strict=True):
        assert sum(int((end[name] != 0)[~mask[name]].sum()) for name in mask) == 0


def test_open_lth_leaves_masked_weights_non_zero_after_a_step_and_this_does_not() -> None:
    """open_lth: 133,089 of 133,101 masked weights are non-zero after `step()`: it masks in the forward pass."""
    returned: list[int] = []

    def trainer(model: nn.Module, dataloader: Iterable[Any], *, epochs: int) -> None:
        pruned = {name: p.detach() == 0 for name, p in model.named_parameters() if p.dim() > 1}
        optimizer = torch.optim.AdamW(model.parameters(), 0.1, weight_decay=0.1)
        for _ in range(epochs):
            for inputs, targets in dataloader:
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(inputs), targets).backward()
                optimizer.step()
                found = [p.detach()[pruned[name]] for name, p in model.named_parameters() if name in pruned]
                returned.append(int(torch.cat(found).count_nonzero()))

    run(make_model(), trainer)
    assert len(returned) == 4 * 2 * 3
    assert sum(returned) == 0


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_open_lth_keeps_nothing_when_all_are_tied_and_this_keeps_the_count(value: float) -> None:
    """open_lth: prunes k + 1, and keeps 0 when all magnitudes are equal. Zeros can survive."""
    calls: list[int] = []

    def trainer(model: nn.Module, dataloader: Iterable[Any], *, epochs: int) -> None:
        del dataloader
        calls.append(epochs)
        with torch.no_grad():
            for parameter in model.parameters():
                ascending = torch.arange(1.0, parameter.numel() + 1).view(parameter.shape)
                parameter.copy_(ascending if len(calls) == 1 else torch.full_like(parameter, value))

    masks = run(make_model(), trainer)["masks"]
    assert [mask.num_kept for mask in masks] == [90, 63, 44, 36]
    assert all(later.is_subset(earlier) for earlier, later in pairwise(masks))


def test_the_model_ends_as_the_last_ticket_trained_and_is_free_again() -> None:
    model, trainer = make_model(), Trainer()
    parameters = list(model.parameters())
    found = run(model, trainer)
    assert equal(copy_state(model), trainer.ends[-1])
    assert compute_sparsity(model) == found["final_mask"].sparsity
    assert all(a is b for a, b in zip(parameters, model.parameters(), strict=True))
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not model._load_state_dict_post_hooks, "no mask is held any longer"


def test_theta_k_shares_no_storage_with_the_model() -> None:
    model = make_model()
    theta_0 = copy_state(model)
    found = run(model, Trainer())
    assert found["rewind_state"] is not None
    pointers = {tensor.untyped_storage().data_ptr() for tensor in model.state_dict().values()}
    assert pointers.isdisjoint(tensor.untyped_storage().data_ptr() for tensor in found["rewind_state"].values())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(9.0)
    assert equal(found["rewind_state"], theta_0)


def test_rewinding_to_a_later_epoch() -> None:
    trainer = Trainer()
    found = run(make_model(), trainer, num_epochs=3, rewind_epoch=1)
    assert trainer.epochs == [1, 2, 2, 2, 2], "the dense training stops at theta_1; tickets train the rest"
    theta_1 = trainer.ends[0]
    assert found["rewind_state"] is not None
    assert equal(found["rewind_state"], theta_1)
    assert equal(trainer.starts[1], theta_1)
    for start, mask in zip(trainer.starts[2:], found["masks"][1:], strict=True):
        assert equal(start, prune(theta_1, mask))


def test_learning_rate_rewinding_keeps_the_trained_weights() -> None:
    trainer = Trainer()
    found = run(make_model(), trainer, rewinding="learning_rate")
    for end, start, mask in zip(trainer.ends, trainer.starts[1:], found["masks"][1:], strict=False):
        assert equal(start, prune(end, mask))


def test_controls_train_on_equal_budget_from_what_their_names_say() -> None:
    model, trainer = make_model(), Trainer()
    theta_0 = copy_state(model)
    found = run(model, trainer, control_levels=[1, 3])
    rows = [(row["level"], row["branch"]) for row in found["trainings"]]
    assert rows == [(0, "ticket")] + [
        (level, branch)
        for level in (1, 2, 3)
        for branch in (["ticket", "reinitialised", "shuffled", "random"] if level != 2 else ["ticket"])
    ]
    assert set(trainer.epochs) == {2}
    starts = dict(zip(rows, trainer.starts, strict=True))
    zeros = {row: {name: start[name] == 0 for name in found["final_mask"]} for row, start in starts.items()}
    for level in (1, 3):
        mask = found["masks"][level]
        assert Mask.from_tensors({n: ~z for n, z in zeros[level, "ticket"].items()}) == mask
        assert Mask.from_tensors({n: ~z for n, z in zeros[level, "reinitialised"].items()}) == mask
        for branch in ("shuffled", "random"):
            control = Mask.from_tensors({n: ~z for n, z in zeros[level, branch].items()})
            assert control.layer_sparsity() == mask.layer_sparsity()
            assert control != mask
            assert equal(prune(starts[level, branch], control), starts[level, branch])
        shuffled = Mask.from_tensors({n: ~z for n, z in zeros[level, "shuffled"].items()})
        assert equal(starts[level, "shuffled"], prune(theta_0, shuffled)), "the original weights at other places"
        assert not equal(prune(theta_0, mask), starts[level, "reinitialised"])
    assert not equal(starts[1, "reinitialised"], starts[3, "reinitialised"])


def test_replicates_start_from_weights_of_their_own() -> None:
    model, trainer = make_model(), Trainer()
    theta_0 = copy_state(model)
    found = run(model, trainer, num_replicates=3, control_levels="none")
    dense = [start for start, row in zip(trainer.starts, found["trainings"], strict=True) if row["level"] == 0]
    assert len(dense) == 3
    assert equal(dense[0], theta_0), "the first replicate is the caller's model"
    assert not equal(dense[1], dense[0])
    assert not equal(dense[1], dense[2])
    assert {row["replicate"] for row in found["trainings"]} == {0, 1, 2}


def test_fresh_weights_come_from_initialise_fn() -> None:
    def initialise(model: nn.Module) -> None:
        for parameter in model.parameters():
            nn.init.uniform_(parameter, 5.0, 6.0)

    trainer = Trainer()
    run(make_model(), trainer, num_replicates=2, initialise_fn=initialise)
    assert min(float(tensor.min()) for tensor in trainer.starts[4].values()) >= 5


def test_the_same_call_gives_the_same_bits() -> None:
    settings: dict[str, Any] = {"num_replicates": 2, "control_levels": "last", "seed": 7}
    runs = [(make_model(), Trainer()) for _ in range(2)]
    for model, trainer in runs:
        torch.manual_seed(torch.seed())  # the global generators must not matter
        run(model, trainer, **settings)
    assert all(equal(a, b) for a, b in zip(runs[0][1].ends, runs[1][1].ends, strict=True))


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
    assert found["trainings"] == expected["trainings"]
    assert equal(copy_state(model), copy_state(other))


def test_a_foreign_dense_model_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"the model it returned has non-zero weights at pruned places of \['0\.weight"
    ):
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
    assert set(found["trainings"][0]["history"]["end"]) == {"step", "train_loss", "train_accuracy"}


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

    Stopped.__qualname__ = "Trainer"  # the same trainer, to the run
    whole_model, model = make_model(), make_model()
    whole = run(whole_model, Trainer())
    theta_0 = copy_state(model)
    with pytest.raises(KeyboardInterrupt, match="in mid-training"):
        run(model, Stopped(), run_folder=tmp_path)
    assert not model._load_state_dict_post_hooks, "no mask is held any longer"
    assert equal(copy_state(model), theta_0), "so that the same call, on the same model, goes on"
    trainer = Trainer()
    found = run(model, trainer, run_folder=tmp_path)
    assert len(trainer.starts) == 2, "two of the four trainings were there"
    assert found["trainings"] == whole["trainings"]
    assert equal(copy_state(model), copy_state(whole_model))


CHANGES: dict[str, dict[str, Any]] = {
    "num_steps": {"num_epochs": 3},
    "seed": {"seed": 1},
    "target_sparsity": {"target": 0.61},
    "prune_rates": {"prune_rates": 0.31},
    "rewind_step": {"rewind_epoch": 1},
    "rewinding": {"rewinding": "learning_rate"},
    "initial_sha256": {"model": make_model(1)},
    "trainer": {"trainer": AdamTrainer(0.1)},
}


@pytest.mark.parametrize("setting", CHANGES)
def test_a_run_folder_of_other_settings_is_refused(tmp_path: Path, setting: str) -> None:
    run(make_model(), Trainer(), run_folder=tmp_path)
    with pytest.raises(ValueError, match=rf"must be continued with the settings .*{setting}"):
        run(**{"model": make_model(), "trainer": Trainer(), "run_folder": tmp_path, **CHANGES[setting]})


def test_a_run_folder_of_another_learning_rate_is_refused(tmp_path: Path) -> None:
    run(make_model(), AdamTrainer(0.1), run_folder=tmp_path)
    with pytest.raises(ValueError, match=r"must be continued with the settings .*trainer"):
        run(make_model(), AdamTrainer(0.2), run_folder=tmp_path)


# ----------------------------------------------------------------------------------------------------------- simulation


def simulate(model: nn.Module, data: Iterable[Any] = DATA) -> PruningResults:
    with pytest.warns(UserWarning, match="no ticket has been trained") as caught:
        found = compute_iterative_magnitude_pruning(model, data, 0.6, prune_rates=0.3)
    assert len(caught) == 1
    assert caught[0].filename == __file__, "the warning points at the caller"
    return found


def test_a_simulation_says_so_and_sweeps_the_same_densities() -> None:
    model = make_model()
    found = simulate(model)
    assert (found["simulated"], found["rewind_state"], found["run_folder"]) == (True, None, None)
    assert [mask.num_kept for mask in found["masks"]] == [90, 63, 44, 36]
    assert {row["branch"] for row in found["trainings"]} == {"simulated"}
    weights = torch.cat([dict(model.named_parameters())[name].flatten() for name in found["final_mask"]])
    kept = torch.cat([mask.flatten() for mask in found["final_mask"].values()])
    assert weights[kept].abs().min() >= weights[~kept].abs().max()
    pruned = copy.deepcopy(model)
    hold_mask(pruned, found["final_mask"])
    loss = nn.functional.cross_entropy(pruned(INPUTS), TARGETS)
    assert found["trainings"][-1]["history"]["end"]["loss"] == pytest.approx(loss.item())


@pytest.mark.parametrize("raises", [False, True])
@pytest.mark.parametrize("training", [True, False])
def test_a_simulation_leaves_every_bit_of_model_and_generators(training: bool, raises: bool) -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 3)).train(training)
    model[1].eval()
    model(INPUTS).sum().backward()
    state, gradients = copy_state(model), [p.grad.clone() for p in model.parameters() if p.grad is not None]
    modes = [module.training for module in model.modules()]
    hooks = [len(module._forward_hooks) + len(module._load_state_dict_post_hooks) for module in model.modules()]
    dataset = torch.utils.data.TensorDataset(INPUTS, TARGETS)
    loader: Any = torch.utils.data.DataLoader(dataset, batch_size=7, shuffle=True)  # it draws from the global generator
    generator = torch.get_rng_state()
    if raises:
        with pytest.raises(TypeError, match="a batch must be"):
            simulate(model, [*loader, "not a batch"])
    else:
        simulate(model, loader)
        assert torch.equal(torch.get_rng_state(), generator)
    assert equal(copy_state(model), state)
    assert all(torch.equal(a, p.grad) for a, p in zip(gradients, model.parameters(), strict=True) if p.grad is not None)
    assert [module.training for module in model.modules()] == modes
    after = [len(module._forward_hooks) + len(module._load_state_dict_post_hooks) for module in model.modules()]
    assert after == hooks


# ------------------------------------------------------------------------------------------------------ wrong arguments


class Scaled(nn.Linear):
    """A module around a parameter that nobody draws anew."""

    def __init__(self, num_inputs: int, num_outputs: int) -> None:
        super().__init__(num_inputs, num_outputs)
        self.scales = nn.ParameterList([torch.ones(num_outputs)])

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the name that Linear gives it
        output: Tensor = super().forward(input) * self.scales[0]
        return output


THREE_WAYS = (
    r"a dict for model\(\*\*batch\) with a \.loss, or a pair \(inputs, class indices\), or .* loss_fn\(model, batch\)"
)

WRONG: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "target 1": ({"target": 1.0}, ValueError, r"target_sparsity .* must lie in \[0, 1\), but got 1.0"),
    "target NaN": ({"target": math.nan}, ValueError, "target_sparsity .* got nan"),
    "rate 1": ({"prune_rates": 1.0}, ValueError, "prune rate .* got 1.0"),
    "rate 0": ({"prune_rates": 0.0}, ValueError, "never reach sparsity 0.6"),
    "rates match nothing": ({"prune_rates": {"x": 0.5}}, ValueError, "every layer must match a pattern"),
    "scope": ({"scope": "row"}, ValueError, "'global' or 'layer', but got 'row'"),
    "no epochs": ({"num_epochs": 0}, ValueError, "must be at least 1, but got 0"),
    "rewind beyond the end": ({"rewind_epoch": 2}, ValueError, r"must be in \[0, 2\), but got 2"),
    "rewinding": ({"rewinding": "none"}, ValueError, "must be 'weights' or 'learning_rate', but got 'none'"),
    "control at 0": ({"control_levels": [0]}, ValueError, r"control_levels must be in range\(1, 4\), but got \[0\]"),
    "control at 9": ({"control_levels": [9]}, ValueError, r"control_levels must be in range\(1, 4\), but got \[9\]"),
    "control at first": ({"control_levels": "first"}, ValueError, "must be 'last', 'none' or numbers .* got 'first'"),
    "no replicates": ({"num_replicates": 0}, ValueError, "num_replicates must be at least 1, but got 0"),
    "empty data": ({"data": []}, ValueError, "must hold at least one batch"),
    "a batch of one tensor": ({"data": [INPUTS]}, TypeError, THREE_WAYS),
    "a batch of three": ({"data": [(INPUTS, TARGETS, 1)]}, TypeError, THREE_WAYS),
    "targets no classes": ({"data": [(INPUTS, INPUTS)]}, TypeError, f"{THREE_WAYS}.* targets .* torch.float32"),
    "a dict without loss": ({"data": [{"input": INPUTS}]}, ValueError, f"{THREE_WAYS}.* loss is NoneType"),
    "a loss of many": ({"loss_fn": lambda model, batch: model(batch[0])}, ValueError, f"{THREE_WAYS}.* loss is shape"),
    "nothing to prune": ({"model": nn.Sequential(nn.Flatten())}, ValueError, "prun"),
    "no way to draw weights": (
        {"model": Scaled(6, 3), "num_replicates": 2},
        ValueError,
        "initialise_fn",
    ),
}


TRAINED_ONLY = {"num_epochs", "rewind_epoch", "rewinding", "control_levels", "num_replicates"}
CASES = [(case, True) for case in WRONG] + [(case, False) for case in WRONG if not TRAINED_ONLY & WRONG[case][0].keys()]


@pytest.mark.filterwarnings("ignore:this is a simulation")
@pytest.mark.parametrize(("case", "trains"), CASES)
def test_wrong_arguments_are_refused(case: str, trains: bool) -> None:
    changes, error, message = WRONG[case]
    arguments: dict[str, Any] = {
        "model": make_model(),
        "data": DATA,
        "target": 0.6,
        "num_epochs": 2,
        "prune_rates": 0.3,
    }
    model, data, target, *_ = {**arguments, **changes}.values()
    settings = {
        name: value for name, value in {**arguments, **changes}.items() if name not in ("model", "data", "target")
    }
    with pytest.raises(error, match=message):
        compute_iterative_magnitude_pruning(model, data, target, train=trains, **settings)


def test_an_iterator_is_no_dataloader() -> None:
    """From the second epoch on it would train on nothing, in silence."""
    batches = iter([(torch.randn(4, 4), torch.randint(2, (4,)))])
    with pytest.raises(TypeError, match="dataloader must start anew each epoch, but a list_iterator is used up"):
        compute_iterative_magnitude_pruning(nn.Linear(4, 2), batches, 0.5, train=True, num_epochs=1)


def test_training_on_an_empty_dataloader_is_refused_also_beside_evaluation_data() -> None:
    evaluation = [(torch.randn(4, 4), torch.randint(2, (4,)))]
    with pytest.raises(ValueError, match="must hold at least one batch each epoch, but gave none"):
        compute_iterative_magnitude_pruning(
            nn.Linear(4, 2), [], 0.5, train=True, num_epochs=1, evaluation_dataloader=evaluation
        )


@pytest.mark.parametrize("batch", [{"x": torch.randn(4, 4)}, (None, torch.tensor([0]))], ids=["dict", "pair"])
def test_a_batch_the_model_refuses_is_named_with_the_three_ways(batch: object) -> None:
    with pytest.raises(TypeError, match=r"a batch must be a dict .* the model refused"):
        compute_iterative_magnitude_pruning(nn.Linear(4, 2), [batch], 0.5, train=True, num_epochs=1)
