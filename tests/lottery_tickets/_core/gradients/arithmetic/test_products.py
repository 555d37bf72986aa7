"""Products of one pair of matrices a sample: the same numbers, whichever library computes them."""

from collections.abc import Callable

import pytest
import torch
from llvmlite import binding
from torch import Tensor, nn

from lottery_tickets._core.gradients.arithmetic import products
from lottery_tickets._core.gradients.arithmetic.products import (
    FEW_COLUMNS,
    MANY_ELEMENTS,
    MIN_PRODUCTS_OF_INTEL,
    SOME_COLUMNS,
    fill_mixed,
    is_intel,
    multiply,
    prefers_single_samples,
)
from lottery_tickets._core.gradients.options import ScoringOptions
from lottery_tickets._core.gradients.values import SQUARE
from tests.lottery_tickets._core.gradients.cases import draw, draw_classes, loop_over_samples, run_stream

needs_onednn = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(),
    reason="this torch has no oneDNN, so there is one way only",
)


@pytest.fixture
def num_onednn_calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one entry with each product that is one sample's alone; small products are computed like large ones."""
    calls: list[int] = []
    monkeypatch.setattr(products, "is_intel", lambda: False)
    for name in ("MIN_MULTIPLICATIONS", "TURNING", "MIN_COLUMNS_WHEN_TURNING"):
        monkeypatch.setattr(products, name, 1)
    monkeypatch.setattr(products, "MIN_COLUMNS", 4)
    plain = torch.ops.mkldnn._linear_pointwise

    def count(inputs: Tensor, weight: Tensor, *arguments: object) -> Tensor:
        calls.append(1)
        assert weight.is_contiguous() or weight.t().is_contiguous()  # oneDNN takes others too, 2,000 times as slowly
        product: Tensor = plain(inputs, weight, *arguments)
        return product

    monkeypatch.setattr(products, "_find_onednn", lambda: count)
    return calls


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "as it is": lambda matrices: matrices,
    "transposed": lambda matrices: matrices.mT.contiguous().mT,
    "cut from larger ones": lambda matrices: nn.functional.pad(matrices, (1, 2, 3, 1))[:, 3:-1, 1:-2],
    "transposed, cut": lambda matrices: nn.functional.pad(matrices.mT, (1, 2, 3, 1))[:, 3:-1, 1:-2].mT,
}


@needs_onednn
@pytest.mark.parametrize("shape", [(3, 5, 7), (64, 16, 40), (33, 1, 65), (1, 9, 4), (6, 9, 1), (4, 20, 3)])
@pytest.mark.parametrize("left_layout", LAYOUTS)
@pytest.mark.parametrize("right_layout", LAYOUTS)
def test_products_are_those_of_bmm_whatever_the_layout(
    shape: tuple[int, int, int], left_layout: str, right_layout: str, num_onednn_calls: list[int]
) -> None:
    rows, inner, columns = shape
    left, right = draw(1, rows, inner), draw(1, inner, columns)
    (product,) = multiply(LAYOUTS[left_layout](left.float()), LAYOUTS[right_layout](right.float()), 1)
    assert num_onednn_calls
    torch.testing.assert_close(product.double(), torch.bmm(left, right), rtol=0, atol=1e-5)


@needs_onednn
def test_other_products_are_those_of_bmm(num_onednn_calls: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(torch.backends.mkldnn, "enabled", False)
        list(multiply(torch.ones(1, 4, 4), torch.ones(1, 4, 4), 1))
    for dtype, step in ((torch.float64, 1), (torch.bfloat16, 1), (torch.float32, 2)):
        left, right = (draw(3, 4, 4).to(dtype) for _ in range(2))
        assert torch.equal(torch.cat(list(multiply(left, right, step))), torch.bmm(left, right))
    assert not num_onednn_calls


@pytest.mark.parametrize(
    ("shape", "is_turned", "alone"),
    [
        ((64, 16, 64), False, False),  # too small
        ((1024, 1024, 31), False, True),  # narrow, so computed transposed
        ((1024, 512, 31), False, False),  # narrow, and most of the time would go to the transposed sum
        ((31, 1024, 1024), False, True),
        ((31, 2048, 31), False, False),
        ((64, 256, 64), False, True),
        ((64, 256, 64), True, False),  # the left matrix would be turned for few columns
        ((64, 128, 128), True, False),
        ((64, 256, 128), True, True),
    ],
)
@needs_onednn
def test_products_are_computed_alone_where_that_was_measured_faster(
    shape: tuple[int, int, int], is_turned: bool, alone: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, inner, columns = shape
    monkeypatch.setattr(products, "is_intel", lambda: False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    left = torch.ones(1, inner, rows).mT if is_turned else torch.ones(1, rows, inner)
    assert prefers_single_samples(left, rows, columns) == alone
    assert not prefers_single_samples(left.to("meta"), rows, columns)


def test_a_processor_is_told_by_what_llvm_calls_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, has_mkl, expected in (
        ("emeraldrapids", True, True),
        ("haswell", True, True),
        ("znver4", True, False),
        ("neoverse-n1", False, False),
    ):
        monkeypatch.setattr(binding, "get_host_cpu_name", lambda name=name: name)
        monkeypatch.setattr(torch.backends.mkl, "is_available", lambda has_mkl=has_mkl: has_mkl)
        is_intel.cache_clear()
        assert is_intel() == expected
    monkeypatch.undo()
    is_intel.cache_clear()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_on_intel_large_products_are_computed_alone(
    dtype: torch.dtype, layout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(products, "is_intel", lambda: True)
    columns = MIN_PRODUCTS_OF_INTEL // 256
    left, right = draw(3, 256, 2).to(dtype), draw(3, 2, columns).to(dtype)
    assert prefers_single_samples(left, 256, columns)
    assert not prefers_single_samples(left, 256, columns - 1)
    assert not prefers_single_samples(left.bfloat16(), 256, columns)
    assert not prefers_single_samples(left.to("meta"), 256, columns)
    calls: list[int] = []
    plain = torch.mm

    def count(one: Tensor, other: Tensor) -> Tensor:
        calls.append(1)
        return plain(one, other)

    monkeypatch.setattr(torch, "mm", count)
    found = torch.cat(list(multiply(LAYOUTS[layout](left), LAYOUTS[layout](right), 1)))
    assert len(calls) == 3
    torch.testing.assert_close(found, torch.bmm(left, right))


@pytest.mark.parametrize("columns", [1, FEW_COLUMNS - 1, FEW_COLUMNS, SOME_COLUMNS - 1, SOME_COLUMNS])
@pytest.mark.parametrize("is_large", [False, True])
@pytest.mark.parametrize("num_samples", [0, 1, 3])
def test_one_matrix_mixes_the_rows_of_each_sample(columns: int, is_large: bool, num_samples: int) -> None:
    matrix = draw(5, MANY_ELEMENTS // 5 + 1 if is_large else 4)
    for turned in (matrix, matrix.t().contiguous().t()):
        samples = draw(num_samples, matrix.shape[1], columns)
        mixed = torch.full((num_samples, 5, columns), float("nan"), dtype=torch.float64)
        fill_mixed(mixed, turned, samples)
        torch.testing.assert_close(mixed, turned @ samples)


class _Positions(nn.Module):
    """Convolutions as patches, as products and over groups, and linear layers over many positions and over one."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(4, 16, 3, padding=1), nn.Tanh(), nn.Conv2d(16, 20, 1), nn.Tanh(),
            nn.Conv2d(20, 20, 3, groups=2, padding=1), nn.Tanh(), nn.Flatten(2), nn.Linear(36, 20), nn.Tanh(),
            nn.Linear(20, 6), nn.Flatten(), nn.Linear(120, 5),
        )  # fmt: skip

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.layers(inputs)
        return outputs


@needs_onednn
@pytest.mark.parametrize("chunk_size", [None, 100])
def test_squares_by_onednn_are_those_of_a_loop_over_samples(
    chunk_size: int | None, num_onednn_calls: list[int]
) -> None:
    torch.manual_seed(0)
    model, batch = _Positions(), (torch.randn(6, 4, 6, 6), draw_classes(6))
    stream = run_stream(model, [batch], options=ScoringOptions(chunk_size=chunk_size))
    assert stream.reason is None
    assert len(num_onednn_calls) >= 6 * 4  # samples, and layers that are products
    exact = loop_over_samples(model.double(), [(batch[0].double(), batch[1])], list(stream.passes.weights))
    for name, mean in stream.compute_means(SQUARE).items():
        wanted = exact[name].square().mean(0)
        assert float((mean - wanted).abs().max()) <= 2e-5 * float(wanted.max()), name


def test_a_layer_larger_than_a_block_is_cut_by_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one convolution whose groups are the samples, where it computes the rows of a block alone."""
    monkeypatch.setattr("lottery_tickets._core.gradients.sums.CPU_BLOCK", 100)
    model = nn.Sequential(nn.Conv2d(2, 7, 3), nn.Tanh(), nn.Flatten(), nn.Linear(7 * 14 * 14, 5)).double()
    batch, sizes = (draw(3, 2, 16, 16), draw_classes(3)), list[int]()
    plain = torch.ops.aten.convolution_backward

    def record(gradients: Tensor, *arguments: object) -> object:
        sizes.append(gradients.shape[1])
        return plain(gradients, *arguments)

    monkeypatch.setattr(torch.ops.aten, "convolution_backward", record)
    stream = run_stream(model, [batch])
    assert set(sizes) == {5, 2}  # rows of one sample: 100 // (2 * 9) at a time, of 7
    for name, gradients in loop_over_samples(model, [batch], list(stream.passes.weights)).items():
        torch.testing.assert_close(stream.compute_means(SQUARE)[name], gradients.square().mean(0), rtol=1e-10, atol=0)
