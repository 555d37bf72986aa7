"""Change masks trained alone: other weights stay bit for bit, controls have the counts, files are as of tickets."""

import copy
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lottery_tickets import Mask, compute_change_mask, compute_change_mask_quality
from lottery_tickets._core.states import copy_state
from lottery_tickets.experiments.folder import ExperimentFolder
from lottery_tickets.experiments.ticket import draw_ticket
from lottery_tickets.experiments.verification.checkpoints import find_moved
from lottery_tickets.experiments.verification.recorded_subjects import create_caller_subject
from lottery_tickets.experiments.verification.runs import verify_run
from lottery_tickets.masks import check_held, hold_mask, shuffle_mask
from lottery_tickets.masks.strata import MANTISSA_BITS, find_codes
from statistical_report_generator import StatisticalReportGenerator
from statistical_report_generator.claims import assess_claims
from statistical_report_generator.claims.findings import describe_claims
from statistical_report_generator.figures.experiment import draw_accuracy_over_density
from statistical_report_generator.inference.intervals import summarise_experiment

INPUTS = torch.randn(48, 6, generator=torch.Generator().manual_seed(0))
DATA = torch.utils.data.DataLoader(
    torch.utils.data.TensorDataset(INPUTS, (INPUTS[:, 0] > 0).long()), batch_size=8, shuffle=True
)
SUPER = {"0.weight": [(2, 1), (0, 0)]}


def make_model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.LayerNorm(16), nn.Linear(16, 2))


def train(
    model: nn.Module, dataloader: Iterable[Any], *, epochs: int, make: Callable[..., torch.optim.Optimizer]
) -> None:
    optimizer = make(model.parameters(), lr=0.05)
    for _ in range(epochs):
        for inputs, targets in dataloader:

            def compute_loss(inputs: Tensor = inputs, targets: Tensor = targets) -> Tensor:
                optimizer.zero_grad()
                loss = nn.functional.cross_entropy(model(inputs), targets)
                loss.backward()
                return loss

            optimizer.step(compute_loss)  # type: ignore[arg-type] # torch says float
            for parameter in model.parameters():
                parameter.data += 1e-4  # an average that is written back, or another optimizer


train_by_adamw = partial(train, make=partial(torch.optim.AdamW, weight_decay=0.1))


@pytest.fixture(scope="module")
def mask() -> Mask:
    bits = {
        name: torch.rand(p.shape, generator=torch.Generator().manual_seed(1)) < 0.3
        for name, p in make_model().named_parameters()
    }
    return Mask.from_tensors({name: bits[name] for name in ("0.weight", "2.weight")})


@pytest.fixture(scope="module")
def found(mask: Mask, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return compute_change_mask_quality(
        make_model(),
        mask,
        DATA,
        trainer_fn=train_by_adamw,
        super_weights=SUPER,
        num_replicates=3,
        run_folder=tmp_path_factory.mktemp("runs") / "changes",
    )


def list_trained(found: dict[str, Any]) -> dict[str, tuple[Mask, dict[str, Tensor]]]:
    """Returns by branch the mask and the weights of the pruned level, first replicate."""
    folder = ExperimentFolder.read(Path(found["run_folder"]))
    trainings = [training for training in folder.plan.list_trainings(0) if training.level]
    return {training.branch: (folder.load_mask(training), folder.load_weights(training)) for training in trainings}


def test_all_other_weights_stay_bit_for_bit(found: dict[str, Any], mask: Mask) -> None:
    before = copy_state(make_model())
    trained = list_trained(found)
    assert list(trained) == ["ticket", "shuffled", "exponents", "super"]
    for kept, after in trained.values():
        changed = compute_change_mask(before, after, include=list(before))
        assert set(before) == set(kept)
        assert changed.is_subset(kept)
        assert changed.num_kept > 0.9 * kept.num_kept
        assert {name: num for name, num in kept.count_kept().items() if num} == mask.count_kept()
    assert all(torch.equal(trained["ticket"][0][name], mask[name]) for name in mask)


def test_controls_are_other_weights_of_the_same_strata(found: dict[str, Any], mask: Mask) -> None:
    before, trained = copy_state(make_model()), list_trained(found)
    for name in mask:
        exponents = find_codes(before[name].flatten()) >> MANTISSA_BITS
        counts = {
            branch: torch.from_numpy(exponents)[kept[name].flatten()].bincount(minlength=256)
            for branch, (kept, _) in trained.items()
        }
        assert torch.equal(counts["exponents"], counts["ticket"])
        assert not torch.equal(counts["shuffled"], counts["ticket"])
        assert not torch.equal(trained["exponents"][0][name], mask[name])
    assert all(trained["super"][0]["0.weight"][index] for index in SUPER["0.weight"])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize(
    "make", [partial(torch.optim.SGD, momentum=0.9), torch.optim.Rprop, torch.optim.Adamax, torch.optim.LBFGS]
)
def test_any_optimizer_leaves_frozen_weights_as_they_are(
    make: Callable[..., torch.optim.Optimizer], dtype: torch.dtype, mask: Mask
) -> None:
    model = make_model().to(dtype)
    mask = Mask.from_tensors({**mask, "0.weight": mask["0.weight"] & (torch.arange(6) > 1)})
    model.get_parameter("0.weight").data[:, 1] = -0.0
    before = copy_state(model)
    hold_mask(model, mask, others="frozen")
    train(model, [(inputs.to(dtype), targets) for inputs, targets in DATA], epochs=1, make=make)
    after = model.state_dict()
    for name in mask:
        assert torch.equal(before[name][~mask[name]].view(torch.uint8), after[name][~mask[name]].view(torch.uint8))
        assert not torch.equal(before[name], after[name])
        gradient = model.get_parameter(name).grad
        assert gradient is not None
        assert not gradient[~mask[name]].any()


def test_frozen_weights_come_back_in_copies_and_after_loading(mask: Mask) -> None:
    model = make_model()
    before = copy_state(model)
    hold_mask(model, mask, others="frozen")
    copied = copy.deepcopy(model)
    for held in (model, copied):
        held.load_state_dict({name: tensor + 1 for name, tensor in before.items()})
        check_held(held)
        assert torch.equal(held.get_parameter("0.weight"), before["0.weight"] + mask["0.weight"])
        held.get_parameter("0.weight").data.zero_()
        with pytest.raises(RuntimeError, match=r"must be as they were frozen, but 6. of 6. in '0.weight' are not"):
            check_held(held)
    with pytest.raises(ValueError, match="others must be one of zero, frozen, got 'fixed'"):
        hold_mask(model, mask, others="fixed")  # type: ignore[arg-type] # a word that is not allowed


def test_claims_ask_for_the_controls_of_change_masks(found: dict[str, Any]) -> None:
    claims = assess_claims(found)
    [level] = claims["levels"]
    assert claims["required_controls"] == ["shuffled", "exponents", "super"]
    assert [control["control"] for control in level["controls"]] == claims["required_controls"]
    assert level["winning"] is not None
    said = "\n".join(describe_claims(claims))
    assert "as many weights of each layer and exponent, at random" in said
    assert "winning ticket" not in said  # a mask of changes carries a result or does not
    assert "All weights outside of the mask stayed as they were before" in said


def test_a_report_shows_the_experiment(found: dict[str, Any], tmp_path: Path) -> None:
    generator = StatisticalReportGenerator().add_results(Path(found["run_folder"]), "changes")
    said = repr(generator.describe())
    assert "All weights outside of the mask stayed as they were before" in said
    assert "the mask shuffled among the weights of each exponent in each layer" in repr(generator.describe_methods())
    summaries = summarise_experiment(found, metric="train_accuracy", moment="end")
    draw_accuracy_over_density(summaries, "changes").savefig(tmp_path / "figure.svg")
    assert "shuffled, super weights kept" in (tmp_path / "figure.svg").read_text()


def test_the_run_is_verified_and_gone_on_with(found: dict[str, Any], mask: Mask) -> None:
    run = Path(found["run_folder"])
    subject = create_caller_subject(run, make_model(), DATA, trainer_fn=train_by_adamw)
    checks = verify_run(run, subject, num_trained_again=2)
    assert not [check for check in checks if check.problem]
    assert "its frozen weights are those it started from" in {check.name for check in checks}
    folder = ExperimentFolder.read(run)
    with pytest.raises(ValueError, match=r"other weights must be zero, but those of this run are frozen"):
        draw_ticket(folder, 1)
    training = folder.plan.list_trainings(0)[1]
    state = folder.load_weights(training)
    state["0.weight"][~mask["0.weight"]] += 1
    again = find_moved(state, folder.load_rewind_point(training), folder.load_mask(training))
    assert "frozen weights of '0.weight' are not those" in again


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"super_weights": {"1.weight": [(0,)]}}, "but '1.weight' is none"),
        ({"super_weights": {"0.weight": [(0, 6)]}}, r"indices within its shape \(16, 6\), but one is \(0, 6\)"),
        ({"super_weights": {"2.weight": [(0, n) for n in range(16)]}}, "as it has super weights, but keeps"),
        ({"controls": ["super"]}, "super_weights must be some weights for the control 'super'"),
        ({"controls": ["random"]}, "controls must be among"),
    ],
)
def test_what_cannot_be_is_said(options: dict[str, Any], problem: str, mask: Mask) -> None:
    with pytest.raises(ValueError, match=problem):
        compute_change_mask_quality(make_model(), mask, DATA, trainer_fn=train_by_adamw, **options)


def test_a_model_that_was_trained_elsewhere_is_refused_where_it_moved_frozen_weights(mask: Mask) -> None:
    def train_another(model: nn.Module, dataloader: Iterable[Any], *, epochs: int) -> nn.Module:
        other = make_model()
        other.load_state_dict(model.state_dict())
        train_by_adamw(other, dataloader, epochs=epochs)
        return other

    with pytest.raises(ValueError, match=r"returned has other weights at pruned places of \['0\.weight"):
        compute_change_mask_quality(make_model(), mask, DATA, trainer_fn=train_another)


def test_masks_are_shuffled_within_exponents_or_around_some_weights(mask: Mask) -> None:
    with pytest.raises(ValueError, match="not both"):
        shuffle_mask(mask, 0, given=make_model(), keeping={"0.weight": [0]})
    with pytest.raises(ValueError, match=r"must be among the 96 of '0.weight'"):
        shuffle_mask(mask, 0, keeping={"0.weight": [96]})
    assert shuffle_mask(mask, 0, given=make_model()) == shuffle_mask(mask, 0, given=make_model().state_dict())
    assert shuffle_mask(mask, 0, keeping={"0.weight": [95, 3]})["0.weight"].flatten()[[3, 95]].all()


@pytest.mark.parametrize("name", ["2.weight", "1.weight"])  # files list the first of them first, and models too
@pytest.mark.parametrize("with_ties_last", [False, True])
def test_a_tied_weight_has_the_name_of_the_mask(name: str, with_ties_last: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(6, 6))
    tied = nn.Linear(6, 6), nn.Linear(6, 6)
    for layer in tied:
        layer.weight = weight
    model = nn.Sequential(nn.Linear(6, 6), *tied, nn.Linear(6, 2))
    kept = Mask.from_tensors({name: torch.rand(6, 6) < 0.5})
    state = dict(sorted(model.state_dict().items(), reverse=with_ties_last))
    shuffled = shuffle_mask(kept, 0, given=state)
    assert shuffled == shuffle_mask(kept, 0, given=model)
    assert shuffled == shuffle_mask(kept, 0, given={name: weight})
    found = compute_change_mask_quality(
        model, kept, DATA, trainer_fn=train_by_adamw, super_weights={name: [(0, 1)]}, run_folder=tmp_path / "run"
    )
    assert all(mask[name].sum() == kept.num_kept for mask, _ in list_trained(found).values())
    subject = create_caller_subject(tmp_path / "run", model, DATA, trainer_fn=train_by_adamw)
    assert not [check for check in verify_run(tmp_path / "run", subject, num_trained_again=1) if check.problem]
