"""Squares of products of few terms, made without the products: beside the products themselves."""

from collections.abc import Callable

import numba
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from lottery_tickets import compute_fisher_importance
from lottery_tickets._core.gradients.arithmetic import squares, threads
from lottery_tickets._core.gradients.arithmetic.correlations import Window
from lottery_tickets._core.gradients.arithmetic.marks import mark
from lottery_tickets._core.gradients.arithmetic.squares import (
    LONG,
    LONG_FOR_INTEL,
    MOST_IN_CACHE,
    MOST_PRODUCTS,
    ROWS_TOGETHER,
    add_squares,
    has_few_terms,
    has_long_rows,
    mark_products,
)
from lottery_tickets._core.gradients.arithmetic.squaring_cpu import FASTMATH, LOOPS, WIDEST, add_squares_of_long
from lottery_tickets._core.gradients.uses import ConvolutionUse, ProductUse

DTYPES = (torch.float32, torch.float64, torch.bfloat16)


@given(
    shape=st.tuples(st.integers(1, 4), st.integers(1, 20), st.integers(2, 16), st.integers(1, 40)),
    dtype=st.sampled_from(DTYPES),
    seed=st.integers(0, 100),
)
def test_squares_and_marks_are_those_of_the_products(
    shape: tuple[int, int, int, int], dtype: torch.dtype, seed: int
) -> None:
    samples, rows, terms, columns = shape
    generator = torch.Generator().manual_seed(seed)
    left = torch.randn(samples, terms, rows, generator=generator).to(dtype).mT  # as convolutions have it
    right = torch.randn(samples, terms, columns, generator=generator).to(dtype)
    products = left.double() @ right.double()
    sums = torch.ones(rows, columns, dtype=torch.promote_types(dtype, torch.float32))

    add_squares(sums, left, right)

    torch.testing.assert_close(sums.double(), 1 + products.square().sum(0), rtol=1e-5, atol=1e-5)
    add_squares(sums, left, right, is_unfilled=True)
    torch.testing.assert_close(sums.double(), products.square().sum(0), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(mark_products(left, right).double(), mark(products), rtol=1e-5, atol=1e-4)


@given(
    shape=st.tuples(st.integers(1, 4), st.integers(1, 20), st.integers(17, 400), st.integers(1, 20)),
    dtype=st.sampled_from(DTYPES),
    seed=st.integers(0, 100),
)
def test_squares_of_long_rows_are_those_of_the_products(
    shape: tuple[int, int, int, int], dtype: torch.dtype, seed: int
) -> None:
    samples, rows, terms, columns = shape
    generator = torch.Generator().manual_seed(seed)
    left = torch.randn(samples, rows, terms, generator=generator).to(dtype)
    right = torch.randn(samples, columns, terms, generator=generator).to(dtype).mT
    expected = (left.double() @ right.double()).square().sum(0)
    sums = torch.ones(rows, columns, dtype=torch.promote_types(dtype, torch.float32))

    add_squares(sums, left, right)

    torch.testing.assert_close(sums.double(), 1 + expected, rtol=1e-5, atol=1e-3)
    add_squares(sums, left, right, is_unfilled=True)
    torch.testing.assert_close(sums.double(), expected, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("terms", [3, 11, 15, 301])
def test_bits_do_not_depend_on_the_number_of_threads(terms: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "LEAST_A_THREAD", 1)
    generator = torch.Generator().manual_seed(terms)
    left, right = torch.randn(2, 600, terms, generator=generator), torch.randn(2, terms, 500, generator=generator)
    found = []
    before = torch.get_num_threads()
    for num_threads in (1, 3):
        torch.set_num_threads(num_threads)
        try:
            sums = torch.zeros(600, 500)
            add_squares(sums, left, right)
        finally:
            torch.set_num_threads(before)
        found.append(sums)
    assert ROWS_TOGETHER < 600 * 500  # several blocks of rows
    assert torch.equal(*found)


@pytest.mark.parametrize("terms", [3, 9, 13, 300])
def test_a_sample_that_is_not_finite_stays_so(terms: int) -> None:
    left, right = torch.ones(1, 2, terms), torch.ones(1, terms, 2)
    left[0, 0, 0] = float("inf")
    right[0, 1, 1] = float("nan")
    sums = torch.zeros(2, 2)
    add_squares(sums, left, right)
    assert sums[0, 0] == float("inf")
    assert sums[:, 1].isnan().all()
    assert sums[1, 0] == terms**2


@pytest.mark.parametrize("loop", [loop.py_func for loop in (*LOOPS.values(), add_squares_of_long)])
def test_loops_ask_for_the_widest_vectors(loop: Callable[..., None]) -> None:
    anew = numba.njit(fastmath=FASTMATH, error_model="numpy")(loop)  # compiled here: from the cache it has no text
    matrices = numba.float32[:, :, ::1]
    anew.compile((matrices, matrices, numba.float32[:, ::1], numba.int64, numba.int64))
    [text] = anew.inspect_llvm().values()
    assert WIDEST in text


def test_few_terms_are_2_to_16() -> None:
    for terms, is_few in ((1, False), (2, True), (16, True), (17, False)):
        use = ProductUse(torch.zeros(3, terms, 4), torch.zeros(3, terms, 5))
        assert has_few_terms(use.left) == is_few
    with FakeTensorMode():  # as plans are made of
        assert not has_few_terms(torch.zeros(3, 5, 4))
    grouped = ConvolutionUse(
        torch.zeros(3, 4, 4), torch.zeros(3, 1, 2, 2, 4), Window((1, 1), (1, 1), (0, 0), (1, 1)), (2, 2), 2
    )
    assert not has_few_terms(grouped.left)


@pytest.mark.parametrize(("on_intel", "least"), [(False, LONG), (True, LONG_FOR_INTEL)])
def test_rows_are_long_from_some_number_of_terms_that_lie_together(
    on_intel: bool, least: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(squares, "is_intel", lambda: on_intel)

    def has_long(rows: int, terms: int, columns: int) -> bool:
        return has_long_rows(torch.zeros(2, rows, terms), torch.zeros(2, columns, terms).mT)

    assert has_long(4, least, 5)
    assert not has_long(4, least - 1, 5)
    assert has_long(MOST_PRODUCTS // 5, least, 5)
    assert not has_long(MOST_PRODUCTS // 5 + 1, least, 5)
    assert has_long(5, MOST_IN_CACHE // 5, 5)
    assert not has_long(5, MOST_IN_CACHE // 5 + 1, 5)
    rows = torch.zeros(2, 5, least)
    assert not has_long_rows(None, rows.mT)
    assert not has_long_rows(rows, torch.zeros(2, least, 5)), "the layout of language models"
    assert not has_long_rows(torch.zeros(2, least, 5).mT, rows.mT)
    assert not has_long_rows(rows.bfloat16(), rows.mT.bfloat16())
    assert not has_long_rows(rows.to("meta"), rows.mT.to("meta"))
    with FakeTensorMode():
        assert not has_long(4, least, 5)


@pytest.mark.parametrize("chunk_size", [None, 50])
@pytest.mark.parametrize("size", [2, 4, 16])
def test_fisher_of_small_and_large_maps_is_the_mean_of_squares_one_by_one(size: int, chunk_size: int | None) -> None:
    torch.manual_seed(size)
    model = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.ReLU(), nn.Conv2d(5, 6, 1), nn.Flatten(), nn.LazyLinear(4))
    images, targets = torch.randn(7, 3, size, size), torch.randint(4, (7,))
    model(images)
    found = compute_fisher_importance(model, [(images, targets)], 7, chunk_size=chunk_size)
    for name, parameter in model.named_parameters():
        if name not in found:
            continue
        gradients = [
            torch.autograd.grad(nn.functional.cross_entropy(model(images[i : i + 1]), targets[i : i + 1]), parameter)[0]
            for i in range(7)
        ]
        torch.testing.assert_close(found[name], torch.stack(gradients).square().mean(0))
