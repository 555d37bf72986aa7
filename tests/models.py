"""The one table of models for all tests: small, so that tests are fast, and untrained, so that they know nothing.

A test that needs a model of its own, for what only that one shows, makes it beside itself.
"""

import functools
import importlib
import itertools
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from lottery_tickets.workloads import Workload, load_workload

MLP_WEIGHTS: Final = ["0.weight", "2.weight", "4.weight"]

# --------------------------------------------------------------------------------------------------------- perceptrons


def make_mlp(
    dtype: torch.dtype = torch.float64,
    sizes: tuple[int, ...] = (5, 7, 6, 3),
    *,
    seed: int = 0,
    activation: type[nn.Module] = nn.Tanh,
) -> nn.Sequential:
    """Returns linear layers of these sizes with an activation between each two."""
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for num_inputs, num_outputs in itertools.pairwise(sizes):
        layers += [nn.Linear(num_inputs, num_outputs), activation()]
    return nn.Sequential(*layers[:-1]).to(dtype)


def make_dropout_mlp(
    dtype: torch.dtype = torch.float32, sizes: tuple[int, int, int] = (5, 8, 3), *, seed: int | None = 0
) -> nn.Sequential:
    """Returns two linear layers with dropout between; with no seed, as torch's generator stands."""
    if seed is not None:
        torch.manual_seed(seed)
    layers = nn.Linear(sizes[0], sizes[1]), nn.Tanh(), nn.Dropout(0.5), nn.Linear(sizes[1], sizes[2])
    return nn.Sequential(*layers).to(dtype)


def make_norm_mlp() -> nn.Sequential:
    """Batch norm and dropout, both of which compute otherwise while a model trains."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 9), nn.BatchNorm1d(9), nn.ReLU(), nn.Dropout(0.5), nn.Linear(9, 3)).double()


class UsedTwice(nn.Module):
    """One layer called twice, and a head."""

    def __init__(self, num_inputs: int = 5, num_outputs: int = 3) -> None:
        super().__init__()
        self.inner, self.head = nn.Linear(num_inputs, num_inputs), nn.Linear(num_inputs, num_outputs)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.head(torch.tanh(self.inner(torch.tanh(self.inner(inputs)))))
        return outputs


class Shared(nn.Module):
    """As `UsedTwice`, but of two layers that share weight and bias."""

    def __init__(self, num_inputs: int = 5, num_outputs: int = 3) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(num_inputs, num_inputs), nn.Linear(num_inputs, num_inputs)
        self.second.weight, self.second.bias = self.first.weight, self.first.bias
        self.head = nn.Linear(num_inputs, num_outputs)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.head(torch.tanh(self.second(torch.tanh(self.first(inputs)))))
        return outputs


# -------------------------------------------------------------------------------------------------------------- images


def make_convolutions() -> nn.Sequential:
    """Convolution, batch norm whose statistics are not trivial, and a linear layer."""
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(4)
    model = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), norm, nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)).double()
    with torch.no_grad():
        for tensor in (*norm.parameters(), norm.running_mean, norm.running_var):
            assert tensor is not None
            tensor.add_(0.3 * torch.rand_like(tensor))
    return model


def make_flat_convolutions() -> nn.Sequential:
    """Returns a convolution and a batch norm over six numbers, drawn as torch's generator stands."""
    return nn.Sequential(
        nn.Unflatten(1, (1, 2, 3)), nn.Conv2d(1, 4, 2, padding=1), nn.BatchNorm2d(4), nn.Tanh(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 4),
    )  # fmt: skip


@functools.cache
def load_digits() -> Workload:
    return load_workload("digits", "lenet-300-100")


def make_lenet(seed: int = 0) -> nn.Module:
    """Returns LeNet-300-100 for the digits."""
    return load_digits().build_model(torch.Generator().manual_seed(seed))


class TrainedNorms:
    """A multilayer perceptron with batch norms on digits; SGD with momentum."""

    def __init__(self, learning_rate: float) -> None:
        data = load_digits().data
        self.inputs, self.targets = data.train_inputs.flatten(1), data.train_targets
        generator = torch.Generator().manual_seed(0)
        self.model = nn.Sequential(
            nn.Linear(64, 60), nn.BatchNorm1d(60), nn.ReLU(), nn.Linear(60, 40), nn.BatchNorm1d(40), nn.ReLU(),
            nn.Linear(40, 10),
        )  # fmt: skip
        with torch.no_grad():
            for parameter in self.model.parameters():
                if parameter.ndim > 1:
                    nn.init.xavier_normal_(parameter, generator=generator)
                elif parameter is not self.model[1].weight and parameter is not self.model[4].weight:
                    parameter.zero_()
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=learning_rate, momentum=0.9)
        self.order = torch.Generator().manual_seed(1)

    def train_epoch(self) -> float:
        loss: Tensor = torch.zeros(())
        for batch in torch.randperm(len(self.inputs), generator=self.order).split(60):
            loss = nn.functional.cross_entropy(self.model(self.inputs[batch]), self.targets[batch])
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
        return float(loss.detach())


# ----------------------------------------------------------------------------------------------------- language models


def make_language_model(kind: str, **options: Any) -> nn.Module:  # noqa: ANN401 - as the configurations of transformers
    """Returns a model of transformers over 23 tokens, with dropout in its attention; options change its sizes."""
    transformers: Any = importlib.import_module("transformers")  # slow, and not for every test
    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "vocab_size": 23, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4,
        "pad_token_id": None,
    }  # fmt: skip
    grouped = {**sizes, "num_key_value_heads": 2, "attention_dropout": 0.1}
    experts = {**grouped, "num_local_experts": 4, "num_experts_per_tok": 2}
    many = {**grouped, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 10}
    small = {"vocab_size": 23, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 16}
    name, settings = {
        "Llama": ("LlamaForCausalLM", grouped),
        "tied Llama": ("LlamaForCausalLM", {**grouped, "tie_word_embeddings": True}),
        "Qwen2": ("Qwen2ForCausalLM", grouped),
        "Qwen3": ("Qwen3ForCausalLM", {**grouped, "head_dim": 4}),
        "Mistral": ("MistralForCausalLM", grouped),
        "Gemma": ("GemmaForCausalLM", {**grouped, "head_dim": 4}),
        "Mixtral": ("MixtralForCausalLM", experts),
        "Qwen2-MoE": ("Qwen2MoeForCausalLM", {**many, "shared_expert_intermediate_size": 12}),
        "Qwen3-MoE": ("Qwen3MoeForCausalLM", {**many, "head_dim": 4}),
        "GPT2": ("GPT2LMHeadModel", small),
        "BERT": ("BertForMaskedLM", sizes),
        "BERT, classes": ("BertForSequenceClassification", sizes),
    }[kind]
    model_class = getattr(transformers, name)
    model: nn.Module = model_class(model_class.config_class(**{**settings, **options}))
    return model


def save_tiny_llama(path: Path) -> Path:
    """Saves a tiny Llama and a tokenizer with one token a word, as `save_pretrained` leaves them; returns the path."""
    tokenizers: Any = importlib.import_module("tokenizers")
    transformers: Any = importlib.import_module("transformers")
    sizes = {"vocab_size": 16, "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 1}
    model: Any = make_language_model("tied Llama", **sizes)
    model.save_pretrained(path)
    words = {"[UNK]": 0, "the": 1, "union": 2, "is": 3, "strong": 4}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[UNK]"))  # noqa: S106 - a token, no password
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=4).save_pretrained(path)
    return path
