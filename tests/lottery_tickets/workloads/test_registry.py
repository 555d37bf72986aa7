"""Workloads by name."""

from pathlib import Path

import pytest
import torch

from lottery_tickets.workloads import DATA_NAMES, MODEL_NAMES, describe_workload, load_workload, paper_recipe
from lottery_tickets.workloads.data import FASHION_MNIST_FOLDER

from .files import small_mnist, write_mnist_folder


@pytest.mark.parametrize("model", MODEL_NAMES)
def test_every_model_learns_from_the_digits(model: str) -> None:
    workload = load_workload("digits", model)
    network = workload.build_model(torch.Generator().manual_seed(0))
    images, targets = workload.data.train_inputs[:20], workload.data.train_targets[:20]
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    losses = []
    for _ in range(3):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(network(images), targets)
        torch.autograd.backward(loss)
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_a_folder_in_the_format_of_mnist(tmp_path: Path) -> None:
    folder = write_mnist_folder(tmp_path, small_mnist(num_train=5050))
    workload = load_workload("mnist-format", "lenet-300-100", folder=folder)
    assert workload.name == "mnist-format/lenet-300-100"
    assert len(workload.data.validation_targets) == 5000
    assert workload.recipe == paper_recipe("lenet-300-100")
    assert workload.build_model(torch.Generator())(workload.data.train_inputs).shape == (50, 3)


@pytest.mark.parametrize(
    ("data", "model", "folder", "error", "match"),
    [
        ("cifar", "conv-2", None, ValueError, f"data must be one of {', '.join(DATA_NAMES)}, got 'cifar'"),
        ("digits", "vgg", None, ValueError, "model must be one of .*, got 'vgg'"),
        ("digits", "conv-2", ".", ValueError, "folder must be None, got ."),
        ("mnist-format", "conv-2", None, ValueError, "got None; give folder="),
        ("mnist-format", "conv-2", "/nowhere", FileNotFoundError, "/nowhere must hold the files"),
        ("fashion-mnist", "conv-2", "/nowhere", FileNotFoundError, "apt-get install dataset-fashion-mnist"),
    ],
)
def test_what_cannot_be_loaded_is_explained(
    data: str, model: str, folder: str | None, error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        load_workload(data, model, folder=folder)


@pytest.mark.parametrize("data", ["digits", "fashion-mnist"])
def test_what_is_known_before_the_data_is_read_is_so(data: str) -> None:
    if data == "fashion-mnist" and not FASHION_MNIST_FOLDER.is_dir():
        pytest.skip("Fashion-MNIST is not installed")
    described, loaded = describe_workload(data, "conv-2"), load_workload(data, "conv-2")
    assert described == (loaded.data.input_shape, loaded.data.num_classes, loaded.recipe)
    with pytest.raises(ValueError, match="data must be one of digits, fashion-mnist, got 'mnist-format'"):
        describe_workload("mnist-format", "conv-2")
