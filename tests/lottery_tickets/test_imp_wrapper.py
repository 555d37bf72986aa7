"""Iterative magnitude pruning as published; and the simulation that claims nothing."""

import copy
import math
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lottery_tickets import Mask, compute_iterative_magnitude_pruning, compute_sparsity, hold_mask
from lottery_tickets._core.states import copy_state, hash_state
from lottery_tickets.experiments.pruning_results import PruningResults
from tests.lottery_tickets.experiments.callers import DATA, INPUTS, TARGETS, Trainer, equal, make_model, run


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


def test_the_same_call_gives_the_same_bits() -> None:
    settings: dict[str, Any] = {"num_replicates": 2, "control_levels": "last", "seed": 7}
    runs = [(make_model(), Trainer()) for _ in range(2)]
    for model, trainer in runs:
        torch.manual_seed(torch.seed())  # the global generators must not matter
        run(model, trainer, **settings)
    assert all(equal(a, b) for a, b in zip(runs[0][1].ends, runs[1][1].ends, strict=True))


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
    "control at 0": ({"control_levels": [0]}, ValueError, r"control_levels .* range\(1, 4\), .* but got \[0\]"),
    "control at 9": ({"control_levels": [9]}, ValueError, r"control_levels .* range\(1, 4\), .* but got \[9\]"),
    "control at first": ({"control_levels": "first"}, ValueError, "must be 'last', 'none' or numbers .* got 'first'"),
    "no replicates": ({"num_replicates": 0}, ValueError, "num_replicates must be from 1 to 10000, but got 0"),
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
