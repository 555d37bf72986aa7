"""Results as rows of values, one a run or whatever else was measured once: what data frames are made of."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

Record = dict[str, Any]
Results = Mapping[str, Any]


def list_records(name: str, kind: str, results: Results) -> list[Record]:
    """Returns a record for each training, pair, check, point or layer of results; what is measured once is one record.

    Inner values are named "outer.inner"; lists, such as learning curves, are left out.

    Args:
        name: What the results are called; in each record as `results`, with the `kind`.
        kind: Of the results.
        results: As they were saved.

    Examples:
        >>> list_records("a", "experiment", {"trainings": [{"level": 1, "history": {"end": {"loss": 0.5}}}]})
        [{'results': 'a', 'kind': 'experiment', 'level': 1, 'history.end.loss': 0.5}]
    """
    rows = _LISTS.get(kind, _list_whole)(results)
    return [{"results": name, "kind": kind, **dict(_flatten(row))} for row in rows]


def _flatten(values: Results, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{name}.")
        elif not isinstance(value, (list, tuple)):
            yield f"{prefix}{name}", value


def _list_under(key: str) -> Callable[[Results], Iterable[Results]]:
    def list_rows(results: Results) -> Iterable[Results]:
        rows: Sequence[Results] = results[key]
        return rows

    return list_rows


def _list_whole(results: Results) -> Iterator[Results]:
    yield {name: value for name, value in results.items() if name not in {"schema", "provenance", "settings"}}


def _list_curves(results: Results) -> Iterator[Results]:
    for order, points in results["sparsity_curves"].items():
        yield from ({"order": order, **point} for point in points)


def _list_pairs(results: Results) -> Iterator[Results]:
    """Yields each pair of masks once."""
    matrix = results.get("matrix", results)
    names = matrix["names"]
    for row, first in enumerate(names):
        for column in range(row):
            figures = {name: matrix[f"{name}s" if name == "overlap" else name][row][column] for name in FIGURES}
            yield {"first": names[column], "second": first, **figures}


def _list_points(results: Results) -> Iterator[Results]:
    for y, losses in zip(results["y"], results["losses"], strict=True):
        yield from ({"x": x, "y": y, "loss": loss} for x, loss in zip(results["x"], losses, strict=True))


def _list_layers(results: Results) -> Iterator[Results]:
    for layer, sparsity in results["layer_sparsities"].items():
        threshold = results.get("thresholds", {}).get(layer)
        yield {"layer": layer, "sparsity": sparsity, "threshold": threshold}


def _list_scores(results: Results) -> Iterator[Results]:
    sparsities = results.get("layer_sparsities") or {}
    for layer, summary in results["importance"]["scores"].items():
        yield {"layer": layer, "sparsity": sparsities.get(layer), **summary}


def _list_overlaps(results: Results) -> Iterator[Results]:
    for layer, figures in results["layer_overlaps"].items():
        yield {"layer": layer, **figures}


FIGURES: Final = ("overlap", "expected", "adjusted")
_LISTS: Final[Mapping[str, Callable[[Results], Iterable[Results]]]] = {
    "experiment": _list_under("trainings"),
    "connectivity": _list_under("rows"),
    "lines": _list_under("pairs"),
    "strategies": _list_under("rows"),
    "early-bird": _list_under("checkpoints"),
    "analysis": _list_under("analyses"),
    "robustness": _list_curves,
    "overlap": _list_overlaps,
    "overlap-matrix": _list_pairs,
    "landscape": _list_points,
    "ticket": _list_layers,
    "importance": _list_scores,
}
