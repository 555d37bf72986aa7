"""Language models that are tiny and random, so that tests are fast: they know nothing."""

import importlib
from pathlib import Path
from typing import Any

from transformers import LlamaConfig, LlamaForCausalLM


def save_tiny_llama(path: Path) -> Path:
    """Saves a tiny Llama and a tokenizer with one token a word, as `save_pretrained` leaves them; returns the path."""
    tokenizers: Any = importlib.import_module("tokenizers")
    transformers: Any = importlib.import_module("transformers")
    config = LlamaConfig(
        vocab_size=16,
        hidden_size=8,
        intermediate_size=12,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).save_pretrained(path)
    words = {"[UNK]": 0, "the": 1, "union": 2, "is": 3, "strong": 4}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[UNK]"))  # noqa: S106 - a token, no password
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=4).save_pretrained(path)
    return path
