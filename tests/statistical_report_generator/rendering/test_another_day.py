"""A report made on another day, in another year, is the same bytes."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.statistical_report_generator.rendering.reports import make_experiment

MAKE = """
import sys
from statistical_report_generator import ReportConfig, StatisticalReportGenerator
StatisticalReportGenerator(ReportConfig(output_dir=sys.argv[2])).add_results(sys.argv[1]).generate_report()
"""


@pytest.mark.skipif(shutil.which("faketime") is None, reason="needs Debian's package faketime")
def test_a_report_of_another_day_is_the_same_bytes(tmp_path: Path) -> None:
    results = tmp_path / "results.json"
    results.write_text(json.dumps(make_experiment()))
    for day, zone in (("2026-01-31 23:59:00", "UTC"), ("2031-07-04 12:00:00", "Pacific/Auckland")):
        command = ["faketime", day, sys.executable, "-c", MAKE, str(results), str(tmp_path / day[:4])]
        subprocess.run(command, check=True, env={**os.environ, "TZ": zone})
    here, there = (
        {path.name: path.read_bytes() for path in (tmp_path / year).rglob("*") if path.is_file()}
        for year in ("2026", "2031")
    )
    assert len(here) > 5
    assert here == there
