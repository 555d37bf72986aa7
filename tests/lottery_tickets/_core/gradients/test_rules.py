"""However a model uses its weights, whole batches give what a loop over single samples gives."""

import pytest
import torch
from benchmarks.peers.fisher_models import KeepDouble
from torch import Tensor

from lottery_tickets._core.gradients.values import SQUARE
from tests.lottery_tickets._core.gradients.cases import (
    NOT_SEPARABLE,
    SEPARABLE,
    check_squares,
    loop_over_samples,
    run_stream,
)
from tests.models import make_language_model


@pytest.mark.parametrize("case", SEPARABLE)
def test_whole_batches_give_what_single_samples_give(case: str) -> None:
    model, batches = SEPARABLE[case]()
    check_squares(model.double(), batches)


@pytest.mark.parametrize("case", NOT_SEPARABLE)
def test_what_cannot_be_taken_apart_is_run_one_by_one_and_says_why(case: str) -> None:
    make, reason = NOT_SEPARABLE[case]
    model, batches = make()
    check_squares(model.double(), batches, reason)


LANGUAGE = {
    "llama": ("tied Llama", {}),
    "qwen2": ("Qwen2", {}),
    "gpt2": ("GPT2", {}),
    "bert": ("BERT", {}),
    "mixtral": ("Mixtral", {"experts_implementation": "eager"}),
}


def make_text(num_samples: int = 4) -> dict[str, Tensor]:
    tokens = torch.randint(23, (num_samples, 9))
    labels = tokens.clone()
    labels[0, 6:] = -100  # samples of different lengths: the mean over the batch is not the mean of the means
    return {"input_ids": tokens, "labels": labels, "attention_mask": torch.ones_like(tokens)}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", LANGUAGE)
def test_language_models_give_what_single_samples_give(name: str) -> None:
    torch.manual_seed(0)
    kind, options = LANGUAGE[name]
    model = make_language_model(kind, **options).double()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.data.normal_(0, 0.15)
    with KeepDouble():
        check_squares(model, [make_text(4), make_text(3)])


def test_experts_by_grouped_products_give_what_single_samples_give() -> None:
    torch.manual_seed(0)
    model = make_language_model("Mixtral", experts_implementation="grouped_mm")
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.data.normal_(0, 0.3)
    batches = [make_text()]
    stream = run_stream(model, batches)
    assert stream.reason is None
    expected = loop_over_samples(model, batches, list(stream.passes.weights))
    for name, mean in stream.compute_means(SQUARE).items():  # float32: torch has no grouped product of float64
        torch.testing.assert_close(mean, expected[name].square().mean(0), rtol=1e-3, atol=1e-8)
