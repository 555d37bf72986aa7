"""The k-th largest of integers that are only counted; selection and quantiles test it against sorting."""

import numpy as np
import pytest
from numpy.typing import NDArray

from lottery_tickets._core.thresholds import Bracket, find_kth_largest


def test_counts_that_contradict_each_other_are_an_error() -> None:
    def count(bracket: Bracket) -> tuple[int, NDArray[np.int64]]:
        return 0, np.zeros(bracket.num_bins, np.int64)  # as if no integer were left

    with pytest.raises(RuntimeError, match="the counts of all passes must agree"):
        find_kth_largest(count, 1, least=0, greatest=255, num_bins=4, guess=(10, 20))
