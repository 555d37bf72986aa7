"""What a notebook shows of a mask and of scores is small, true, and never markup of its own."""

import html.parser
import json
import pickle

import torch

from lottery_tickets import Mask, compute_fisher_importance, compute_ticket_overlap, create_magnitude_mask
from lottery_tickets._core.notebooks import Results
from lottery_tickets.importance_scoring import compute_magnitude_importance
from tests.models import make_mlp


class Cells(html.parser.HTMLParser):
    """Collects the texts of a table's cells."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.texts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        assert attrs in ([], [("colspan", "4")], [("colspan", "3")], [("colspan", "2")])
        self.tags.add(tag)

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_a_mask_is_a_table_of_its_layers() -> None:
    mask = create_magnitude_mask(make_mlp(), 0.5)
    cells = Cells(mask._repr_html_())
    assert cells.tags == {"table", "caption", "tr", "th", "td"}
    assert cells.texts[:5] == [repr(mask), "parameter", "shape", "kept", "sparsity"]
    kept = int(mask["0.weight"].sum())
    assert cells.texts[5:9] == ["0.weight", "7x5", str(kept), f"{1 - kept / 35:.4f}"]


def test_ten_thousand_layers_with_hostile_names_stay_small() -> None:
    names = [f'<script>alert("{number}")</script>' for number in range(10_000)]
    mask = Mask.keeping_all(dict.fromkeys(names, (2, 2)))
    page = mask._repr_html_()
    assert len(page) < 5_000
    cells = Cells(page)
    assert cells.tags == {"table", "caption", "tr", "th", "td"}
    assert names[0] in cells.texts
    assert cells.texts[-1] == "and 9,980 more"


def test_scores_are_a_line_and_not_a_dump() -> None:
    data = [(torch.randn(8, 5, dtype=torch.float64), torch.arange(8) % 3)]
    found = compute_fisher_importance(make_mlp(), data)
    assert repr(found) == (
        f"Importance(3 parameters, 95 scores, score {found.report['score']!r}, num_samples 8, "
        f"labels {found.report['labels']!r})"
    )
    assert Cells(found._repr_html_()).texts[4:7] == ["0.weight", "7x5", "35"]
    assert repr(compute_magnitude_importance(make_mlp())).startswith("Importance(3 parameters, 95 scores")


def test_results_show_a_summary_whatever_they_hold() -> None:
    results = Results(
        verdict="converged",
        mask=create_magnitude_mask(make_mlp(), 0.5),
        rankings={"fc": torch.arange(10_000)},
        scores=torch.ones(2, 3),
        loss=1 / 3,
        missing=None,
        words="x" * 10_000,
        **{"<b>": ["&"] * 500},
    )
    shown = repr(results)
    assert len(shown) < 500
    for words in (
        "Results(verdict='converged', mask=Mask(",
        "rankings=<dict of 1>",
        "<tensor of 2x3>",
        "loss=0.333333",
    ):
        assert words in shown
    texts = Cells(results._repr_html_()).texts
    assert texts[texts.index("<b>") + 1] == "<list of 500>"
    assert json.loads(json.dumps(Results(a=1))) == {"a": 1} == Results(a=1)
    many = Results({f"key {number}": number for number in range(1000)})
    assert repr(many).endswith("and 980 more)")


def test_an_overlap_shows_its_layers_beside_chance() -> None:
    first, second = (
        {"fc": torch.tensor(bits).bool(), "<i>": torch.tensor([True])} for bits in ([1, 1, 0, 0], [1, 0, 1, 0])
    )
    overlap = compute_ticket_overlap(first, second)
    texts = Cells(overlap._repr_html_()).texts
    assert texts[0] == "Overlap of two tickets: 50.00%"
    assert texts[1:5] == ["layer", "jaccard overlap", "by chance", "beyond chance"]
    rows = [texts[place : place + 4] for place in range(5, len(texts), 4)]
    expected = f"{overlap['expected_overlap']:.2%}"
    assert rows[0] == ["all", "50.00%", expected, f"{overlap['adjusted_overlap']:.2%}"]
    assert rows[1] == ["fc", "33.33%", "33.33%", "0.00%"]
    assert rows[2] == ["<i>", "100.00%", "100.00%"]  # chance alone gives 1, so the last cell is empty
    assert repr(overlap).startswith("TicketOverlap(overall_overlap=0.5, expected_overlap=")
    assert pickle.loads(pickle.dumps(overlap)) == overlap
