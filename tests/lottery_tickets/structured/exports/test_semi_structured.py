"""2:4 without a GPU: what is refused, and that zeros have no sign. What a GPU computes is measured by nobody here."""

from pathlib import Path

import pytest
import torch
from torch import nn

from lottery_tickets import create_magnitude_mask, export_model, load_export
from lottery_tickets.storage import load_weights
from lottery_tickets.structured.exports import exporting, semi_structured


def make() -> tuple[nn.Module, tuple[torch.Tensor, torch.Tensor]]:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 2)), (torch.randn(2, 8), torch.tensor([0, 1]))


def test_a_mask_that_is_not_2_of_4_is_refused(tmp_path: Path) -> None:
    model, batch = make()
    for mask in (create_magnitude_mask(model, 0.4), create_magnitude_mask(model, None, scope="3:4")):
        with pytest.raises(
            ValueError, match=r"must keep at most 2 of each 4 weights along a row, but in '0\.weight' it"
        ):
            export_model(model, mask, tmp_path / "out", batch, form="semi_structured")
    odd = nn.Sequential(nn.Linear(6, 4))
    with pytest.raises(ValueError, match="rows are no multiple of 4; make it with scope='2:4'"):
        export_model(
            odd,
            {"0.weight": torch.zeros(4, 6)},
            tmp_path / "out",
            batch[0][:, :6],
            form="semi_structured",
            example_inputs=batch[0][:, :6],
        )
    convolution = nn.Sequential(nn.Conv2d(1, 4, 2))
    with pytest.raises(ValueError, match=r"2:4 is for weights of nn\.Linear, but '0\.weight' is of Conv2d"):
        semi_structured.check_semi_structured(convolution, create_magnitude_mask(convolution, 0.5))


def test_without_a_gpu_it_is_refused(tmp_path: Path) -> None:
    model, batch = make()
    mask = create_magnitude_mask(model, None, scope="2:4")
    with pytest.raises(
        ValueError, match="2:4 weights are multiplied on CUDA GPUs, but the model is on cpu; move it to"
    ):
        export_model(model, mask, tmp_path / "out", batch, form="semi_structured")
    assert list(tmp_path.iterdir()) == []


def test_zeros_have_no_sign_and_each_pruned_weight_is_compressed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, batch = make()
    mask = create_magnitude_mask(model, None, scope="2:4")
    weight = model.get_parameter("0.weight")
    weight.data[mask["0.weight"]] *= -torch.zeros(())  # kept weights that are 0.0 or -0.0
    seen: list[torch.Size] = []

    def compress(dense: torch.Tensor) -> torch.Tensor:
        assert not bool(torch.signbit(dense[dense == 0]).any())
        seen.append(dense.shape)
        return dense.clone()

    monkeypatch.setattr(exporting, "check_semi_structured", lambda *_: None)
    monkeypatch.setattr(semi_structured, "to_sparse_semi_structured", compress)
    export_model(model, mask, tmp_path / "out", batch, form="semi_structured")
    assert seen == [(4, 8), (2, 4)]
    load_export(model, tmp_path / "out")
    assert len(seen) == 4
    assert bool(torch.signbit(weight[weight == 0]).any())  # the model stays as it is
    assert not bool(torch.signbit(load_weights(tmp_path / "out")["0.weight"]).any())


def test_what_torch_refuses_is_said() -> None:
    model, _ = make()
    with pytest.raises(
        ValueError, match=r"'0\.weight' cannot be 2:4 here, because torch says: .*; take the form 'dense'"
    ):
        semi_structured.compress(model, ["0.weight"])
