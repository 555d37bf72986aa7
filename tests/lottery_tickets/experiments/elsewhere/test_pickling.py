"""What travels to a worker: memory that tensors share travels once, and all else as it is."""

import pickle

import pytest
import torch
from torch import Tensor, nn

from lottery_tickets.experiments.elsewhere.pickling import pickle_once


def test_rows_of_one_tensor_are_pickled_once_and_share_their_memory_again() -> None:
    images, targets = torch.randn(200, 50), torch.arange(200)
    samples = [(images[place], targets[place]) for place in range(200)]
    pickled = pickle_once(samples)
    assert len(pickled) < 2 * (images.nbytes + targets.nbytes)
    assert len(pickle.dumps(samples)) > 100 * len(pickled)
    found: list[tuple[Tensor, Tensor]] = pickle.loads(pickled)
    for (image, target), (expected, label) in zip(found, samples, strict=True):
        assert torch.equal(image, expected)
        assert torch.equal(target, label)
    assert len({image.untyped_storage().data_ptr() for image, _ in found}) == 1
    found[0][0].fill_(7)
    assert not found[1][0].eq(7).any()


def test_tensors_of_all_kinds_are_as_they_were() -> None:
    base = torch.arange(24.0)
    longer = base.numpy()
    tensors = {
        "beginning": torch.from_numpy(longer[:5]),  # its memory is shorter, at the same place
        "turned": base.view(4, 6).mT,
        "stepped": base[3::5],
        "spread": base[:3].view(3, 1).expand(3, 4),
        "as integers": base.view(torch.int32)[2:],
        "as long": torch.from_numpy(longer),
        "empty": torch.empty(0, 3),
        "empty too": torch.empty(2, 0, dtype=torch.int64),
        "number": torch.tensor(2.5, dtype=torch.bfloat16),
        "conjugated": torch.tensor([1 + 2j]).conj(),
        "sparse": torch.eye(3).to_sparse(),
        "with a gradient": torch.ones(2, requires_grad=True),
        "parameter": nn.Parameter(base[:2].clone()),
    }
    found: dict[str, Tensor] = pickle.loads(pickle_once(tensors))
    for name, tensor in tensors.items():
        assert type(found[name]) is type(tensor)
        assert found[name].requires_grad == tensor.requires_grad
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name].to_dense(), tensor.to_dense()), name
        if tensor.layout == torch.strided:
            assert found[name].stride() == tensor.stride()


def test_attributes_of_tensors_and_models_with_their_ties_travel() -> None:
    noted = torch.ones(2)
    noted.note = "mine"  # type: ignore[attr-defined] # what callers may do
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    found, copied = pickle.loads(pickle_once((noted, model)))
    assert found.note == "mine"
    assert copied[0].weight is copied[1].weight
    assert all(map(torch.equal, copied.state_dict().values(), model.state_dict().values()))


def test_functions_of_a_script_travel() -> None:
    factor = torch.tensor(3)
    assert pickle.loads(pickle_once(lambda number: number * factor))(2) == 6


def test_what_cannot_travel_is_an_error() -> None:
    with pytest.raises(TypeError, match="generator"):
        pickle_once(number for number in range(3))
