"""Something to prune: data sets, models, language models and the papers' recipes."""

from lottery_tickets._core.notebooks import show_only
from lottery_tickets.workloads.data import (
    ImageData,
    create_image_batches,
    load_digits_data,
    load_fashion_mnist,
    load_mnist_format,
)
from lottery_tickets.workloads.idx import read_idx
from lottery_tickets.workloads.language import (
    TextData,
    Tokenizer,
    create_token_batches,
    load_language_model,
    load_minilm,
    load_smollm2,
    load_speeches,
    load_tokenizer,
    read_texts,
)
from lottery_tickets.workloads.models import (
    MODEL_NAMES,
    Conv2,
    Conv4,
    Conv6,
    LeNet300100,
    ResNet20,
    build_model,
    initialise_,
)
from lottery_tickets.workloads.recipes import Recipe, digits_recipe, paper_recipe
from lottery_tickets.workloads.registry import DATA_NAMES, Workload, WorkloadShape, describe_workload, load_workload

__all__ = [
    "DATA_NAMES",
    "MODEL_NAMES",
    "Conv2",
    "Conv4",
    "Conv6",
    "ImageData",
    "LeNet300100",
    "Recipe",
    "ResNet20",
    "TextData",
    "Tokenizer",
    "Workload",
    "WorkloadShape",
    "build_model",
    "create_image_batches",
    "create_token_batches",
    "describe_workload",
    "digits_recipe",
    "initialise_",
    "load_digits_data",
    "load_fashion_mnist",
    "load_language_model",
    "load_minilm",
    "load_mnist_format",
    "load_smollm2",
    "load_speeches",
    "load_tokenizer",
    "load_workload",
    "paper_recipe",
    "read_idx",
    "read_texts",
]
__dir__ = show_only(__all__)
