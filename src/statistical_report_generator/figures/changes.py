"""Which weights changed, by their exponent; and which several trainings changed, beside what chance gives."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, Final, final

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from statistical_report_generator.figures.palette import choose_runs
from statistical_report_generator.figures.style import add_mark, create_figure, draw_grid, draw_level
from statistical_report_generator.figures.words import show_words, tell_apart
from statistical_report_generator.tables import POINTS

MOST_DRAWN: Final = 6  # trainings, and pairs of them

ZEROS: Final = -127  # the exponent of zeros and of what is below 2^-126
AWAY: Final = 2  # as far are zeros drawn from the least other exponent

Row = Mapping[str, Any]


@final
@dataclass(frozen=True)
class _Scale:
    """Where exponents are drawn: where they are, but for zeros, which would take all the room.

    Attributes:
        least: The least exponent but that of zeros.
        most: The largest.
        has_zeros: Whether there are zeros.
    """

    least: int
    most: int
    has_zeros: bool

    @classmethod
    def of(cls, rows: Iterable[Row]) -> "_Scale":
        """Returns the scale on which all rows that have weights are drawn."""
        drawn = {row["exponent"] for row in rows if row["num_weights"]}
        others = drawn - {ZEROS} or {0}
        return cls(min(others), max(others), ZEROS in drawn)

    def place(self, exponent: int) -> int:
        """Returns where an exponent is drawn."""
        return self.least - AWAY if exponent == ZEROS else exponent

    def mark(self, axes: Axes) -> None:
        """Puts exponents below the axis, and their name below the zeros."""
        ticks = [int(tick) for tick in MaxNLocator(8, integer=True).tick_values(self.least, self.most)]
        named = {tick: str(tick) for tick in ticks if self.least <= tick <= self.most}
        zeros = {self.place(ZEROS): "zeros"} if self.has_zeros else {}
        axes.set_xticks(list(zeros | named), list((zeros | named).values()))


def draw_changes(
    updates: Mapping[str, Mapping[str, Any]], pairs: Sequence[Mapping[str, Any]], title: str = ""
) -> Figure:
    """Returns the figure of the share of weights that changed, over the exponent of the weight before.

    Beside it, where there are pairs of trainings, the share that both changed: points, with what is expected of
    independent changes as lines, given exponent and value, and where nothing is given.

    Args:
        updates: By name what each training changed; read is `overall`. The first six are drawn.
        pairs: As `compute_changes` returns in `overlaps`; the first six are drawn.
        title: Stands above.

    Raises:
        ValueError: When there is no training.
    """
    if not updates:
        raise ValueError("there must be at least one training to be drawn, got none")
    figure = create_figure(10 if pairs else 6, 4.4)
    panels = figure.subplots(1, 2 if pairs else 1, sharey=True, squeeze=False)[0]
    shown = dict(islice(updates.items(), MOST_DRAWN))
    drawn_rows = [update["overall"]["by_exponent"] for update in shown.values()]
    drawn_rows += [pair["by_exponent"] for pair in pairs[:MOST_DRAWN]]
    scale = _Scale.of(chain.from_iterable(drawn_rows))
    for number, (label, update) in enumerate(zip(tell_apart(list(shown), 30), shown.values(), strict=True)):
        look = choose_runs(number)
        drawn = _draw_shares(panels[0], scale, update["overall"]["by_exponent"], "num_changed", label)
        panels[0].plot(*drawn, color=look.colour, marker=look.marker, linestyle=look.line, markersize=4, label=label)
    for number, pair in enumerate(pairs[:MOST_DRAWN]):
        _draw_pair(panels[1], scale, pair, number)
    for axes, words in zip(panels, ("changed", "changed by both"), strict=False):
        axes.set_yscale("symlog", linthresh=1e-4)
        axes.set_ylim(0, 2 * POINTS)
        axes.set_title(words, fontsize="medium")
        axes.set_xlabel("exponent of the weight before (2^k)")
        scale.mark(axes)
        draw_grid(axes)
        axes.legend(frameon=False, fontsize="small")
    panels[0].set_ylabel("share of the weights, %")
    figure.suptitle(show_words(title, 60), fontsize="medium")
    return figure


def _draw_pair(axes: Axes, scale: _Scale, pair: Mapping[str, Any], number: int) -> None:
    look, rows = choose_runs(number), pair["by_exponent"]
    names = " and ".join(tell_apart([pair["first"], pair["second"]], 20))
    found = _draw_shares(axes, scale, rows, "num_both", f"{names}, found")
    axes.plot(*found, color=look.colour, marker=look.marker, linestyle="", markersize=5, label=f"{names}, found")
    expected = _draw_shares(axes, scale, rows, "expected_both", f"{names}, expected")
    axes.plot(*expected, color=look.colour, linewidth=1.2, label="expected, given exponent and value")
    num_weights = sum(row["num_weights"] for row in rows)
    naive = pair["nulls"].get("naive")
    if number == 0 and naive is not None and num_weights:
        draw_level(axes, POINTS * naive["expected_both"] / num_weights, "expected, nothing given")


def _draw_shares(axes: Axes, scale: _Scale, rows: Sequence[Row], key: str, label: str) -> tuple[list[int], list[float]]:
    """Returns where exponents are drawn and shares in percent, each with a mark that says its number."""
    known = [row for row in rows if row["num_weights"]]
    shares = [POINTS * row[key] / row["num_weights"] for row in known]
    for row, share in zip(known, shares, strict=True):
        words = "zeros" if row["exponent"] == ZEROS else f"2^{row['exponent']}"
        add_mark(
            axes, scale.place(row["exponent"]), share, f"{label}: {share:.4g} % of {row['num_weights']:,} of {words}"
        )
    return [scale.place(row["exponent"]) for row in known], shares
