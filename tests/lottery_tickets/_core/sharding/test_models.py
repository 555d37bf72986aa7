"""Models under FSDP2, tensor parallelism and both give, by their masks, what the plain model gives."""

from pathlib import Path

import pytest

from tests.lottery_tickets._core.sharding import models, watching
from tests.processes import Processes

pytestmark = pytest.mark.parametrize("kind", models.KINDS)


def test_masks_are_those_of_the_plain_model(four: Processes, kind: str) -> None:
    names = four.run(models.check_masks, kind)
    assert all(found == names[0] and len(found) == 5 for found in names)


def test_plain_masks_fit_sharded_models_and_sharded_masks_plain_ones(four: Processes, kind: str) -> None:
    four.run(models.check_plain_mask_on_sharded, kind)


@pytest.mark.parametrize(("optimizer", "clip"), [("SGD", True), ("AdamW", False)])
def test_a_held_model_trains_as_the_plain_one(four: Processes, kind: str, optimizer: str, clip: bool) -> None:
    four.run(models.check_holding, kind, optimizer, clip)


def test_gradients_are_zero_at_pruned_weights(four: Processes, kind: str) -> None:
    four.run(models.check_gradients_while_held, kind)


def test_writes_to_pruned_weights_are_undone(four: Processes, kind: str) -> None:
    four.run(models.check_writes_are_undone, kind)


def test_a_masked_model_computes_as_the_plain_one(four: Processes, kind: str) -> None:
    four.run(models.check_masked, kind)


def test_a_sharded_mask_is_written_once(four: Processes, kind: str, tmp_path: Path) -> None:
    four.run(models.check_files, kind, str(tmp_path))


def test_what_one_process_refuses_all_refuse(four: Processes, kind: str) -> None:
    answers = four.ask(models.refuse_one_weight, kind)
    assert all(not is_right and "must be finite to be ranked" in text for is_right, text in answers)


def test_a_watch_finds_what_that_of_the_plain_model_finds(four: Processes, kind: str) -> None:
    assert set(four.run(watching.check_watching, kind)) == {"converged"}


def test_a_watch_has_one_verdict_where_losses_differ(four: Processes, kind: str) -> None:
    """A loss that is not finite in one process skipped there what the others waited for."""
    found = four.run(watching.check_other_losses, kind)
    assert all(checks == found[0] for checks in found)
    assert found[0][0][:2] == (True, 2.5)
    assert [checks[0] for checks in found[0]] == [True, False]


def test_a_sharded_mask_is_not_pickled(four: Processes, kind: str) -> None:
    answers = four.ask(models.copy_sharded, kind)
    assert all("cannot be pickled, because each process has a part of it" in text for _, text in answers)


def test_what_needs_whole_weights_is_refused_in_words(four: Processes, kind: str) -> None:
    for said in four.run(models.list_refused, kind):
        assert len(said) == 5
        assert all("need whole weights, but the model is sharded (DTensor)" in words for words in said)
