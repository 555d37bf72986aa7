"""Data of the tests of landscapes."""

from tests.data import make_data, split

PAIRS = split(make_data(), 5)  # batches of 5, 5 and 2
