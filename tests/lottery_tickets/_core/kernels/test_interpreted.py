"""The loops in Triton give the bits of the reference, in Triton's interpreter."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.test_repository import ROOT


@pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed: `pip install triton`, of 700 MB")
def test_all_loops_give_the_bits_of_the_reference_in_the_interpreter() -> None:
    """In a process of its own: Triton asks once, as it is imported, whether it is to interpret."""
    inside = Path(__file__).with_name("interpreted_triton.py")
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", "-p", "no:cacheprovider", str(inside)]
    done = subprocess.run(
        words, env=os.environ | {"TRITON_INTERPRET": "1"}, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
