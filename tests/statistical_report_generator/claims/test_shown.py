"""Claims are a dict like any other, and show themselves in a notebook, every word escaped."""

import html
import json
import re

from statistical_report_generator.claims import assess_claims
from tests.statistical_report_generator.rendering.reports import make_experiment


def test_claims_show_a_row_a_level() -> None:
    claims = assess_claims(make_experiment())
    cells = [html.unescape(cell) for cell in re.findall(r"<t[dh]>(.*?)</t[dh]>", claims._repr_html_())]  # type: ignore[attr-defined] # beyond what `Claims` is
    assert cells[:4] == ["weights remaining, %", "against dense", "difference", "winning"]
    assert cells[4:8] == ["80.0", "not matching", "-2.00 [-2.02, -1.98] points", "not said: controls are missing"]
    assert cells[8:10] == ["64.0", "matching"]
    assert cells[11] == "winning"
    assert repr(claims) == "Claims(2 levels: 1 not matching, 1 matching, 1 winning)"
    assert json.loads(json.dumps(claims)) == claims
    assert isinstance(claims, dict)


def test_words_are_escaped() -> None:
    results = make_experiment()
    for row in results["trainings"]:
        row["history"]["early_stop"]["<b>"] = 0.5 + row["replicate"] / 100
    page = assess_claims(results, metric="<b>")._repr_html_()  # type: ignore[attr-defined] # as above
    assert "<b>" not in page
    assert "&lt;b&gt;, early_stop, margin 0.002" in page
