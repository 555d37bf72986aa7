"""A workload by name: a data set, a model that fits it and the recipe to train and prune it by."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import torch
from torch import nn

from lottery_tickets.workloads.data import ImageData, load_digits_data, load_fashion_mnist, load_mnist_format
from lottery_tickets.workloads.models import build_model
from lottery_tickets.workloads.recipes import Recipe, digits_recipe, paper_recipe

DATA_NAMES = ("digits", "fashion-mnist", "mnist-format")
"""The data sets `load_workload` knows."""

_SHAPES: Final = {"digits": ((1, 8, 8), 10), "fashion-mnist": ((1, 28, 28), 10)}


@dataclass(frozen=True, eq=False)
class Workload:
    """Something to prune.

    Attributes:
        name: The data and the model, such as "digits/lenet-300-100".
        data: Images in three splits.
        model_name: One of `MODEL_NAMES`.
        recipe: How to train and prune.
    """

    name: str
    data: ImageData
    model_name: str
    recipe: Recipe

    def build_model(self, generator: torch.Generator) -> nn.Module:
        """Returns a freshly initialised model that fits the data; the same generator state gives the same bits.

        Args:
            generator: A CPU generator, from which all weights are drawn.

        Raises:
            ValueError: The images are too small for the model, or the generator is not on the CPU.
        """
        return build_model(
            self.model_name,
            input_shape=self.data.input_shape,
            num_classes=self.data.num_classes,
            generator=generator,
        )


class WorkloadShape(NamedTuple):
    """What is known of a workload before its data is read.

    Attributes:
        input_shape: Channels, height and width of one image.
        num_classes: How many classes there are.
        recipe: How to train and prune.
    """

    input_shape: tuple[int, int, int]
    num_classes: int
    recipe: Recipe


def describe_workload(data: str, model: str) -> WorkloadShape:
    """Returns the shapes of a workload and its recipe, without reading its data, which need not be there.

    Args:
        data: "digits" or "fashion-mnist"; images in a folder of the caller's have any shape.
        model: One of `MODEL_NAMES`.

    Raises:
        ValueError: A name is unknown.

    Examples:
        >>> describe_workload("digits", "lenet-300-100")[:2]
        ((1, 8, 8), 10)
    """
    if data not in _SHAPES:
        raise ValueError(f"data must be one of {', '.join(_SHAPES)}, got {data!r}; choose one of these")
    return WorkloadShape(*_SHAPES[data], _find_recipe(data, model))


def _find_recipe(data: str, model: str) -> Recipe:
    return digits_recipe(model) if data == "digits" else paper_recipe(model)


def load_workload(data: str, model: str, *, folder: str | Path | None = None) -> Workload:
    """Returns the workload of a data set and a model, with the paper's recipe (shortened for the digits).

    Args:
        data: One of `DATA_NAMES`.
        model: One of `MODEL_NAMES`.
        folder: Where the IDX files of "mnist-format" (required) or "fashion-mnist" (by default the place of the Debian
            package) are.

    Raises:
        ValueError: A name is unknown, or a folder is missing or given where none is read.
        FileNotFoundError: The folder lacks a file; the message says which, and how to get it.
        ModuleNotFoundError: The digits need scikit-learn, which is not installed.

    Examples:
        >>> workload = load_workload("digits", "lenet-300-100")
        >>> workload.name, workload.data.input_shape, workload.recipe.batch_size
        ('digits/lenet-300-100', (1, 8, 8), 60)
    """
    if data not in DATA_NAMES:
        raise ValueError(f"data must be one of {', '.join(DATA_NAMES)}, got {data!r}; choose one of these")
    recipe = _find_recipe(data, model)
    return Workload(name=f"{data}/{model}", data=_load_data(data, folder), model_name=model, recipe=recipe)


def _load_data(name: str, folder: str | Path | None) -> ImageData:
    """Returns the data set of a known name."""
    if name == "digits":
        if folder is not None:
            raise ValueError(f"digits come with scikit-learn, so folder must be None, got {folder}; leave it out")
        return load_digits_data()
    if name == "fashion-mnist":
        return load_fashion_mnist(folder)
    if folder is None:
        raise ValueError("mnist-format needs a folder that holds the four IDX files, got None; give folder=")
    return load_mnist_format(folder)
