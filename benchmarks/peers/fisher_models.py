"""What Fisher diagonals are compared on: a tiny model of every kind, and three real ones.

Every function returns a `Case`: a model in eval mode, batches, and the loss function or None. The loss of a batch is
the mean over its samples; the loss of a language model's sample is the mean over its tokens. Weights and data are
functions of a fixed seed.
"""

import importlib
import math
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from benchmarks.common import load_language
from lottery_tickets._core.determinism import seeded
from lottery_tickets._core.objective import LossFunction
from lottery_tickets.workloads import (
    build_model,
    create_token_batches,
    load_fashion_mnist,
    load_minilm,
    load_speeches,
)

SEED = 0
NUM_SMALL_BATCHES = 2
SMALL_BATCH_SIZE = 5
NUM_TOKENS = 10
VOCABULARY = 64
NUM_EPOCHS_OF_HISTORY = 4


class Case(NamedTuple):
    """Something to compute the Fisher diagonal of: unpacks as model, batches, loss function."""

    model: nn.Module
    batches: list[Any]
    loss_fn: LossFunction | None


def to_float64(case: Case) -> Case:
    """Returns the case with its model, in place, and its floating-point inputs in float64."""

    def convert(tensor: Tensor) -> Tensor:
        return tensor.double() if tensor.is_floating_point() else tensor

    return Case(case.model.double(), [pytree.tree_map(convert, batch) for batch in case.batches], case.loss_fn)


class KeepDouble(TorchFunctionMode):
    """Keeps float64 where transformers casts to float32, so that two ways of computing can be told apart to 1e-10."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401 - torch's protocol
        """Calls the function, but for casts of float64 to float32, which give back what they are given."""
        name, kwargs = getattr(func, "__name__", ""), dict(kwargs or {})
        if name in {"to", "float"} and args[0].dtype == torch.float64:
            dtypes = [value for value in (*args[1:], *kwargs.values()) if isinstance(value, torch.dtype)]
            if name == "float" or dtypes == [torch.float32]:
                return args[0]
        if name == "softmax":
            kwargs.pop("dtype", None)
        return func(*args, **kwargs)


# ---------------------------------------------------------------------------------------------------------- tiny models


def mlp() -> Case:
    """Returns a perceptron of three layers (690 weights) on random inputs."""
    with seeded(SEED):
        model = nn.Sequential(nn.Linear(12, 20), nn.Tanh(), nn.Linear(20, 18), nn.ReLU(), nn.Linear(18, 5))
        return Case(model.eval(), _image_batches((12,), num_classes=5), None)


def cnn(*, batch_norm: bool = False, groups: int = 1) -> Case:
    """Returns a network of three convolutions, the second strided, perhaps with batch norm in eval mode.

    Args:
        batch_norm: Whether batch norm follows each convolution, with statistics of random images.
        groups: Into how many groups the channels of the second convolution are divided, 1 or 2.
    """
    with seeded(SEED):
        layers: list[nn.Module] = []
        for channels, out_channels, stride, num_groups in ((2, 4, 1, 1), (4, 6, 2, groups), (6, 6, 1, 1)):
            layers.append(nn.Conv2d(channels, out_channels, 3, stride=stride, padding=1, groups=num_groups))
            layers += [nn.BatchNorm2d(out_channels)] if batch_norm else []
            layers.append(nn.ReLU())
        model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, 5))
        with torch.no_grad():
            model(torch.randn(64, 2, 8, 8))
        return Case(model.eval(), _image_batches((2, 8, 8), num_classes=5), None)


def tiny_transformer(kind: str, *, experts: str = "eager") -> Case:
    """Returns a transformer of two layers with random weights, on random tokens.

    Args:
        kind: "llama" and "qwen2" have 4 query and 2 key-value heads; "mixtral" besides 4 experts, of which each token
            takes 2; "gpt2" has `Conv1D` modules; "bert" is an encoder that classifies its sequence into 3 classes.
        experts: How experts are computed: "eager" (a loop over experts), "batched_mm" (a copy of its experts' weights
            for each token), or "grouped_mm", which is the default of `transformers` and knows no float64.
    """
    transformers: Any = importlib.import_module("transformers")
    shared = {"vocab_size": VOCABULARY, "initializer_range": 0.2}
    llama = shared | {
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 32,
    }
    bert = {key: value for key, value in llama.items() if key != "num_key_value_heads"}
    with seeded(SEED):
        if kind == "llama":
            model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**llama))
        elif kind == "qwen2":
            model = transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**llama))
        elif kind == "mixtral":
            routing = {"num_local_experts": 4, "num_experts_per_tok": 2}
            model = transformers.MixtralForCausalLM(transformers.MixtralConfig(**llama, **routing))
            model.set_experts_implementation(experts)
        elif kind == "gpt2":
            sizes = {"n_embd": 16, "n_layer": 2, "n_head": 4, "n_positions": 32}
            ends = {"bos_token_id": 0, "eos_token_id": 0}
            model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**shared, **sizes, **ends))
        else:
            model = transformers.BertForSequenceClassification(transformers.BertConfig(**bert, num_labels=3))
        shape = (SMALL_BATCH_SIZE, NUM_TOKENS)
        batches = [{"input_ids": torch.randint(VOCABULARY, shape)} for _ in range(NUM_SMALL_BATCHES)]
        if kind == "bert":
            batches = [{**batch, "labels": torch.randint(3, (SMALL_BATCH_SIZE,))} for batch in batches]
    return Case(model.eval(), batches, None)


def _image_batches(shape: tuple[int, ...], *, num_classes: int) -> list[tuple[Tensor, Tensor]]:
    """Returns batches of random inputs and classes."""
    size = SMALL_BATCH_SIZE
    return [(torch.randn(size, *shape), torch.randint(num_classes, (size,))) for _ in range(NUM_SMALL_BATCHES)]


# ---------------------------------------------------------------------------------------------------------- real models


def resnet20(*, batch_size: int = 64, num_batches: int = 1) -> Case:
    """Returns an untrained ResNet-20 on Fashion-MNIST; its batch norm has the statistics of other images.

    Args:
        batch_size: Images a batch.
        num_batches: How many batches, the first ones of the training split.
    """
    data = load_fashion_mnist()
    generator = torch.Generator().manual_seed(SEED)
    model = build_model("resnet-20", input_shape=data.input_shape, num_classes=data.num_classes, generator=generator)
    with torch.no_grad():
        for inputs in data.validation_inputs[:1280].split(128):
            model(inputs)
    inputs = data.train_inputs[: batch_size * num_batches].split(batch_size)
    targets = data.train_targets[: batch_size * num_batches].split(batch_size)
    return Case(model.eval(), list(zip(inputs, targets, strict=True)), None)


def minilm(*, batch_size: int = 16, num_tokens: int = 128, num_batches: int = 1) -> Case:
    """Returns all-MiniLM-L6-v2, asked from which quarter of American history a passage of a speech is.

    The encoder has no head. The loss is the cross-entropy of a fixed random linear map of the mean of its outputs, to 4
    classes; the map is no part of the model. The pooler, which this loss does not use, is taken off.

    Args:
        batch_size: Passages a batch, a multiple of 4; each quarter has as many.
        num_tokens: Tokens a passage.
        num_batches: How many batches.
    """
    model, tokenizer = load_minilm()
    model.pooler = None  # type: ignore[assignment] # BertModel takes None for no pooler
    texts = load_speeches().train
    quarter = len(texts) // NUM_EPOCHS_OF_HISTORY
    share = {"batch_size": batch_size // NUM_EPOCHS_OF_HISTORY, "num_tokens": num_tokens, "num_batches": num_batches}
    by_epoch = [
        create_token_batches(texts[epoch * quarter : (epoch + 1) * quarter], tokenizer, **share, seed=SEED)
        for epoch in range(NUM_EPOCHS_OF_HISTORY)
    ]
    labels = torch.arange(NUM_EPOCHS_OF_HISTORY).repeat_interleave(share["batch_size"])
    batches = [
        {"input_ids": torch.cat([batch["input_ids"] for batch in parts]), "labels": labels}
        for parts in zip(*by_epoch, strict=True)
    ]
    width = 384
    probe = torch.randn(width, NUM_EPOCHS_OF_HISTORY, generator=torch.Generator().manual_seed(SEED)) / math.sqrt(width)

    def loss_of_probe(encoder: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        hidden: Tensor = encoder(input_ids=batch["input_ids"]).last_hidden_state
        return functional.cross_entropy(hidden.mean(dim=1) @ probe.to(hidden.dtype), batch["labels"])

    return Case(model, batches, loss_of_probe)


def smollm2(*, batch_size: int = 4, num_tokens: int = 256, num_batches: int = 1) -> Case:
    """Returns SmolLM2-135M-Instruct on passages of the State-of-the-Union speeches before 2000.

    Args:
        batch_size: Passages a batch.
        num_tokens: Tokens a passage.
        num_batches: How many batches.
    """
    model, batches = load_language(batch_size=batch_size, num_tokens=num_tokens, num_batches=num_batches)
    return Case(model, list[Any](batches), None)


SMALL_CASES: Mapping[str, Callable[[], Case]] = MappingProxyType(
    {
        "mlp": mlp,
        "cnn": cnn,
        "cnn with batch norm": partial(cnn, batch_norm=True),
        "cnn with groups": partial(cnn, groups=2),
        **{kind: partial(tiny_transformer, kind) for kind in ("llama", "qwen2", "gpt2", "bert", "mixtral")},
        "mixtral, batched": partial(tiny_transformer, "mixtral", experts="batched_mm"),
    }
)
"""Models of a few thousand weights, for exact comparisons in float64."""

LARGE_CASES: Mapping[str, Callable[[], Case]] = MappingProxyType(
    {
        "resnet-20, 64 images": resnet20,
        "minilm, 16 x 128 tokens": minilm,
        "smollm2, 4 x 256 tokens": smollm2,
        "smollm2, 16 x 64 tokens": partial(smollm2, batch_size=16, num_tokens=64),
        "smollm2, 1 x 1024 tokens": partial(smollm2, batch_size=1, num_tokens=1024),
    }
)
"""Real models with real inputs, for times and memory."""
