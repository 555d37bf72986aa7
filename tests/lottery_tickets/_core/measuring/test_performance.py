"""Loss, accuracy and perplexity against what transformers and plain torch count."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lottery_tickets._core.measuring.performance import Measurement, Performance, PerformanceFigures, measure
from tests.models import make_language_model, make_mlp


def make_figures(loss: float | None = 1.0) -> PerformanceFigures:
    return {"loss": loss, "accuracy": None, "perplexity": None, "num_predictions": 1}


@torch.no_grad()
def test_pairs_of_unequal_batches_are_weighted_by_their_samples() -> None:
    model = make_mlp()
    batches = [(torch.randn(n, 5).double(), torch.randint(3, (n,))) for n in (7, 2, 1)]
    found = measure(model, batches, Measurement())
    inputs, targets = torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches])
    logits = model(inputs)
    assert found.figures["loss"] == pytest.approx(float(nn.functional.cross_entropy(logits, targets)), rel=1e-12)
    assert found.figures["accuracy"] == pytest.approx(float((logits.argmax(1) == targets).double().mean()))
    assert found.figures["perplexity"] == pytest.approx(math.exp(found.figures["loss"] or 0))
    assert (found.figures["num_predictions"], found.metric, found.higher_is_better) == (10, "accuracy", True)
    assert found.value == found.figures["accuracy"]


@pytest.mark.parametrize("kind", ["Llama", "GPT2"])
@torch.no_grad()
def test_causal_language_models_are_counted_by_predicted_tokens(kind: str) -> None:
    model = make_language_model(kind).double().eval()
    first, second = torch.randint(23, (3, 7)), torch.randint(23, (2, 5))
    labels = first.clone()
    labels[0, :4] = -100
    batches = [{"input_ids": first, "labels": labels}, {"input_ids": second}]
    found = measure(model, batches, Measurement())
    losses, right = [], []
    for ids, wanted in ((first, labels), (second, second)):
        logits = model(input_ids=ids).logits[:, :-1].double()
        shifted = wanted[:, 1:]
        losses.append(nn.functional.cross_entropy(logits.flatten(0, 1), shifted.flatten(), reduction="none"))
        right.append((logits.argmax(-1) == shifted)[shifted != -100])
    num = int((labels[:, 1:] != -100).sum()) + 8
    # transformers casts logits to float32 for the loss.
    assert found.figures["loss"] == pytest.approx(float(torch.cat(losses).sum()) / num, rel=1e-6)
    assert found.figures["accuracy"] == pytest.approx(float(torch.cat(right).double().mean()))
    assert (found.figures["num_predictions"], found.metric, found.higher_is_better) == (num, "perplexity", False)


def test_other_transformers_are_counted_as_they_count_themselves() -> None:
    ids = torch.randint(23, (5, 6))
    classes = torch.randint(2, (5,))
    found = measure(make_language_model("BERT, classes"), [{"input_ids": ids, "labels": classes}],
                    Measurement())  # fmt: skip
    assert (found.metric, found.figures["num_predictions"]) == ("accuracy", 5)
    labels = torch.where(torch.rand(5, 6) < 0.5, ids, -100)
    labels[0, 0] = ids[0, 0]
    found = measure(make_language_model("BERT"), [{"input_ids": ids, "labels": labels}], Measurement())
    assert (found.metric, found.figures["num_predictions"]) == ("perplexity", int((labels != -100).sum()))


def test_a_batch_without_a_label_counts_for_nothing() -> None:
    model = make_language_model("Llama").float()
    ids = torch.randint(23, (3, 7))
    empty = {"input_ids": ids, "labels": torch.full((3, 7), -100)}
    assert measure(model, [{"input_ids": ids}, empty], Measurement()) == measure(
        model, [{"input_ids": ids}], Measurement()
    )
    with pytest.raises(ValueError, match="must hold at least one label, but all are to be ignored"):
        measure(model, [empty], Measurement())


@torch.no_grad()
def test_segmentation_is_counted_by_place() -> None:
    model = nn.Conv2d(1, 3, 1)
    batch = (torch.randn(2, 1, 4, 4), torch.randint(3, (2, 4, 4)))
    found = measure(model, [batch], Measurement())
    right = (model(batch[0]).argmax(1) == batch[1]).double().mean()
    assert (found.metric, found.figures["num_predictions"]) == ("accuracy", 32)
    assert found.value == pytest.approx(float(right))


@torch.no_grad()
def test_a_loss_of_the_callers_has_an_accuracy_only_where_it_classifies_once() -> None:
    model = make_mlp(torch.float32)
    batches = [(torch.randn(4, 5), torch.randint(3, (4,))), (torch.randn(2, 5), torch.randint(3, (2,)))]

    def squares(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        output: Tensor = model(batch[0])
        return output.square().mean()

    found = measure(model, batches, Measurement(squares))
    assert (found.metric, found.figures["accuracy"], found.figures["perplexity"]) == ("loss", None, None)
    assert found.figures["num_predictions"] == 6
    expected = (4 * squares(model, batches[0]) + 2 * squares(model, batches[1])) / 6
    assert found.value == pytest.approx(float(expected), rel=1e-5)

    def smooth(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return nn.functional.cross_entropy(model(batch[0]), batch[1], label_smoothing=0.1)

    assert measure(model, batches, Measurement(smooth)).metric == "accuracy"

    def twice(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return smooth(model, batch) + smooth(model, batch)

    assert measure(model, batches, Measurement(twice)).metric == "loss"
    with pytest.raises(ValueError, match="accuracy must have predicted classes to be counted"):
        measure(model, batches, Measurement(squares, "accuracy"))
    with pytest.raises(ValueError, match="perplexity must have predicted classes to be counted"):
        measure(model, batches, Measurement(squares, "perplexity"))


def test_a_loss_that_is_not_finite_is_none_and_keeps_its_metric() -> None:
    model = make_mlp(torch.float32)
    batch = (torch.full((4, 5), torch.nan), torch.randint(3, (4,)))
    found = measure(model, [batch], Measurement())
    assert found == Performance({**make_figures(None), "num_predictions": 4}, "accuracy", None, higher_is_better=True)
    huge = (torch.full((4, 5), 1e30), torch.zeros(4, dtype=torch.int64))
    linear = nn.Linear(5, 3)
    with torch.no_grad():
        linear.weight.copy_(torch.tensor([[-1.0] * 5, [1.0] * 5, [0.0] * 5]))
    far = measure(linear, [huge], Measurement(metric="perplexity"))
    assert far.figures["loss"] is not None  # finite, but its exponential is not
    assert (far.value, far.figures["accuracy"]) == (None, 0.0)


def test_a_metric_of_the_callers_sees_the_model_and_all_data() -> None:
    batches = [(torch.randn(4, 5), torch.randint(3, (4,)))] * 2

    def metric(model: nn.Module, data: Any) -> float:  # noqa: ANN401 - the loader
        assert not model.training
        assert data is batches
        return 7.0

    found = measure(make_mlp(torch.float32), batches, Measurement(metric=metric, higher_is_better=False))
    assert (found.metric, found.value, found.higher_is_better) == ("metric", 7.0, False)
    assert measure(make_mlp(torch.float32), batches, Measurement(metric=lambda *_: torch.nan)).value is None


@pytest.mark.parametrize(
    ("value", "baseline", "higher", "retention"),
    [
        (0.8, 0.4, True, 2.0),
        (4.0, 2.0, False, 0.5),
        (None, 2.0, True, 0.0),
        (None, None, True, None),
        (0.0, 0.5, True, 0.0),
        (0.0, 0.5, False, None),
        (0.5, 0.0, True, None),
        (-1.0, 2.0, False, None),
    ],
)
def test_retention(value: float | None, baseline: float | None, *, higher: bool, retention: float | None) -> None:
    first, second = (Performance(make_figures(), "m", v, higher) for v in (value, baseline))
    assert first.retain(second) == retention


def test_bad_metrics() -> None:
    with pytest.raises(
        ValueError, match="metric must be one of auto, accuracy, perplexity, loss or a function, got 'f1'"
    ):
        Measurement(metric="f1")
    with pytest.raises(TypeError, match=r"metric must be one of .* or a function, got 3"):
        Measurement(metric=3)
