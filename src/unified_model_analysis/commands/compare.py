"""`lottery-tickets compare`: masks with each other beside chance; or run folders, by what can be claimed of them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import tyro

from unified_model_analysis.experiment_summary import tell_claims
from unified_model_analysis.held_results import check_place
from unified_model_analysis.options import MARGIN, list_settings

RESULTS: Final = "results.json"


@dataclass(frozen=True)
class Compare:
    """Compare tickets: how much masks have in common beyond chance, or what run folders support.

    Masks: the overlap of each pair, with what unrelated masks of the same layer densities would have. Run folders of
    `lottery-tickets imp`: for each level whether the ticket matches the dense network and beats its controls, with
    tests over replicates, corrected for the number of levels. See docs/evaluation.md and docs/claims.md.

    Example: `lottery-tickets compare a.mask b.mask --layers --output overlap.json`

    Attributes:
        paths: Mask files, or run folders; one kind at a time.
        method: Coefficient for masks.
        layers: Whether to show the layers of the first two masks.
        output: A JSON file to write.
        force: Replace a file that exists.
        moment: For run folders, when accuracy is taken: at the least validation loss, or after the last step; the first
            of both that all trainings have when not given.
        margin: For run folders, points of accuracy whose loss counts as none.
        looks: How often the findings are read in all while replicates are added, as planned before the first time;
            for run folders.
        test: For run folders, whether claims are on the mean, by t tests, or on the median, by sign tests.
    """

    paths: Annotated[tuple[Path, ...], tyro.conf.Positional]
    method: Literal["jaccard", "dice", "overlap"] = "jaccard"
    layers: bool = False
    output: Path | None = None
    force: bool = False
    moment: Literal["early_stop", "end"] | None = None
    margin: float = MARGIN
    looks: int = 1
    test: Literal["t", "sign"] = "t"

    def run(self) -> int:
        """Compares, shows and saves; returns the exit code."""
        from lottery_tickets.storage import Record

        if not self.paths:
            raise ValueError("there must be something to compare; name mask files or run folders")
        if missing := [str(path) for path in self.paths if not path.exists()]:
            raise ValueError(f"{missing[0]} must be a mask file or a run folder, but is not there; check the name")
        are_folders = [path.is_dir() for path in self.paths]
        if any(are_folders) and not all(are_folders):
            raise ValueError("compare takes mask files or run folders, not both; name one kind")
        if odd := [path for path in self.paths if path.is_dir() and not (path / RESULTS).is_file()]:
            raise ValueError(
                f"{odd[0]} must be a run folder, but has no {RESULTS}; name one that a run has finished in"
            )
        record = Record("claims" if all(are_folders) else "overlap-matrix", list_settings(self))
        if self.output is not None:
            check_place(self.output, force=self.force)
            record.find_file(self.output)
        results = self._claim() if all(are_folders) else self._overlap()
        if self.output is not None:
            record.save(results, self.output)
            print(f"results: {self.output}")
        return 0

    def _overlap(self) -> dict[str, Any]:
        from lottery_tickets import Mask, compute_overlap_matrix, compute_ticket_overlap

        if len(self.paths) == 1:
            raise ValueError(f"there must be two masks or more to compare, got {self.paths[0]} alone")
        masks = {str(path): Mask.load(path) for path in self.paths}
        if len(masks) < len(self.paths):
            raise ValueError("each mask must be named once; leave out the second mention")
        matrix = compute_overlap_matrix(masks, self.method)
        lines = list(_tabulate(matrix))
        results: dict[str, Any] = {"matrix": matrix}
        if self.layers:
            first, second = list(masks.values())[:2]
            pair = compute_ticket_overlap(first, second, self.method)
            results["layers"] = pair["layer_overlaps"]
            lines += list(_tabulate_layers(self.paths[:2], pair["layer_overlaps"]))
        print(*lines, sep="\n")
        return results

    def _claim(self) -> dict[str, Any]:
        from lottery_tickets.storage import load_results
        from statistical_report_generator.claims.assessment import assess_claims
        from statistical_report_generator.tables import POINTS

        found: dict[str, Any] = {}
        for folder in self.paths:
            settings: dict[str, Any] = {"moment": self.moment, "num_looks": self.looks, "test": self.test}
            results = load_results(folder / RESULTS)
            claims = assess_claims(results, margin=self.margin / POINTS, **settings)
            found[str(folder)] = claims
            print(f"{folder}:")
            tell_claims(results, claims)
        return found


def _tabulate(matrix: Any) -> Iterator[str]:  # noqa: ANN401 - an OverlapMatrix
    from statistical_report_generator.rows import format_rows

    numbers = [f"[{number}]" for number in range(1, len(matrix["names"]) + 1)]
    for number, name, density in zip(numbers, matrix["names"], matrix["densities"], strict=True):
        yield f"{number} {name}: {density:.2%} kept"
    for title, cells, form in (
        (f"{matrix['method']}:", "overlaps", ".2%"),
        ("expected by chance:", "expected", ".2%"),
        ("beyond chance, as a share of what is left to agree on (0 is chance, 1 is equal):", "adjusted", ".3f"),
    ):
        rows = [
            [number, *(_show(value, form) for value in row)] for number, row in zip(numbers, matrix[cells], strict=True)
        ]
        yield title
        yield format_rows([["", *numbers], *rows])


def _tabulate_layers(paths: Sequence[Path], layers: Any) -> Iterator[str]:  # noqa: ANN401 - by name OverlapFigures
    from statistical_report_generator.rows import format_rows

    yield f"layers of {paths[0]} and {paths[1]}:"
    headings = ("overlap", "expected", "beyond chance", "layer")
    forms = {"overlap": ".2%", "expected": ".2%", "adjusted": ".3f"}
    rows = [(*(_show(layer[figure], form) for figure, form in forms.items()), name) for name, layer in layers.items()]
    yield format_rows([headings, *rows], align=">>><")


def _show(value: float | None, form: str) -> str:
    return "-" if value is None else f"{value:{form}}"
