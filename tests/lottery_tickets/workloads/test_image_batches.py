"""Batches of images keep each image with its class, and are a function of the generator."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lottery_tickets.utils import make_generator
from lottery_tickets.workloads import create_image_batches, load_digits_data

COUNTS = st.integers(1, 30)


@given(num_given=COUNTS, batch_size=COUNTS, num_images=st.none() | COUNTS, seed=st.none() | st.integers(0, 9))
@settings(max_examples=100, deadline=None)
def test_each_image_keeps_its_class_and_comes_once(
    num_given: int, batch_size: int, num_images: int | None, seed: int | None
) -> None:
    targets = torch.arange(num_given)
    inputs = targets[:, None, None, None] * torch.ones(1, 2, 2)
    generator = None if seed is None else make_generator(seed, "samples")
    batches = create_image_batches(inputs, targets, batch_size=batch_size, num_images=num_images, generator=generator)
    wanted = num_given if num_images is None else min(num_images, num_given)
    assert [len(part) for _, part in batches[:-1]] == [batch_size] * (-(-wanted // batch_size) - 1)
    found = torch.cat([part for _, part in batches])
    assert torch.equal(torch.cat([part for part, _ in batches])[:, 0, 0, 0], found.float())
    order = targets if seed is None else torch.randperm(num_given, generator=make_generator(seed, "samples"))
    assert torch.equal(found, order[:wanted])


@pytest.mark.parametrize("sizes", [{"batch_size": 0}, {"batch_size": 4, "num_images": 0}])
def test_numbers_below_one_are_refused(sizes: dict[str, int]) -> None:
    data = load_digits_data()
    with pytest.raises(ValueError, match=r"(batch_size|num_images) must be at least 1, got 0"):
        create_image_batches(data.test_inputs, data.test_targets, **sizes)  # type: ignore[arg-type] # no generator


def test_images_and_classes_of_two_splits_are_refused() -> None:
    data = load_digits_data()
    with pytest.raises(ValueError, match=r"as many targets as inputs, 539, got 1079; are they of one split\?"):
        create_image_batches(data.test_inputs, data.train_targets, batch_size=4)
