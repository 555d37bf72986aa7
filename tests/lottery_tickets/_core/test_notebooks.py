"""What a notebook shows of a mask and of scores is small, true, and never markup of its own."""

import html.parser

import torch

from lottery_tickets import Mask, compute_fisher_importance, create_magnitude_mask
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
        assert attrs in ([], [("colspan", "4")], [("colspan", "3")])
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
