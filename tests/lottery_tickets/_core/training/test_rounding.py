"""Stochastic rounding to bfloat16: right on average, and never off by more than a unit."""

import torch

from lottery_tickets._core.training.rounding import copy_rounded_


def test_rounding_is_right_on_average_and_never_off_by_a_unit() -> None:
    values = torch.tensor([1.0 + 2**-9, 1.0 + 2**-12, -3.3, 1e-30, 0.02, 65.7]).repeat(2)
    values[6:] *= -1
    rounded = torch.empty(40_000, 12, dtype=torch.bfloat16)
    copy_rounded_(rounded, values.expand(40_000, 12).clone())
    down = (values.view(torch.int32) & -65536).view(torch.float32)
    unit = ((down.view(torch.int32) + 65536).view(torch.float32) - down).abs()
    up = down + unit * values.sign()
    assert bool(((rounded == down) | (rounded == up)).all())
    error = (rounded.double().mean(0) - values.double()) / unit
    assert float(error.abs().max()) < 4.5 * 0.5 / 200  # a share p of N draws has a deviation of at most 0.5 / sqrt(N)
    assert torch.allclose(rounded.double().mean(0)[:6], -rounded.double().mean(0)[6:], rtol=1e-2)


def test_rounding_uses_every_bit() -> None:
    """2^-15 of a unit above 1 rounds up in 2^-15 of the draws, wherever in the 64 bits of a draw it falls."""
    values = torch.full((2**24,), 1.0 + 2**-22)
    rounded = torch.empty(2**24, dtype=torch.bfloat16)
    copy_rounded_(rounded, values)
    counts = (rounded > 1).view(-1, 4).sum(0)
    assert bool(((counts - 128).abs() < 5 * 128**0.5).all()), counts


def test_what_bfloat16_holds_stays() -> None:
    exact = torch.randn(999).bfloat16()
    exact[:4] = torch.tensor([torch.inf, -torch.inf, 0.0, -0.0])
    rounded = torch.empty_like(exact)
    copy_rounded_(rounded, exact.float())
    assert torch.equal(rounded.view(torch.int16), exact.view(torch.int16))


def test_nan_stays_nan_whatever_its_bits() -> None:
    bits = torch.tensor([0x7FFFFFFF, 0x7F800001, -1, 0x7FC00000], dtype=torch.int32).repeat(100)
    rounded = torch.empty(400, dtype=torch.bfloat16)
    copy_rounded_(rounded, bits.view(torch.float32))
    assert bool(rounded.isnan().all())


def test_rounding_any_layout_and_count() -> None:
    values = torch.randn(5, 7, 3)
    target = torch.empty(3, 7, 5, dtype=torch.bfloat16).transpose(0, 2)
    copy_rounded_(target, values.clone())
    assert torch.allclose(target.float(), values, rtol=2**-7)
