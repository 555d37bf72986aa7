"""What a report consists of, before anybody decides how it looks: plain data, no markup."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal, final

from matplotlib.figure import Figure as Drawing

MARK: Final = "made by lottery-tickets report"  # stands in every page, so that one is told from files of others
ExperimentWord = Literal["winning", "matching", "not matching", "undecided", "simulated"]
ConnectivityWord = Literal["stable", "unstable", "undecided"]
EarlyBirdWord = Literal["converged", "still changing", "trivially stable", "learning not shown", "diverged"]
MaskWord = Literal["settled", "not settled", "whole", "collapsed", "beyond chance", "at chance", "below chance"]
PrunedWord = Literal["valid", "not valid", "post-hoc"]  # post-hoc: as it is, pruned and not trained again
AnalysisWord = Literal["finished", "failed", "interrupted", "waiting"]
VerdictWord = ExperimentWord | ConnectivityWord | EarlyBirdWord | MaskWord | PrunedWord | AnalysisWord


@final
@dataclass(frozen=True)
class Text:
    """A paragraph.

    Attributes:
        words: As they are; a renderer escapes them.
    """

    words: str


@final
@dataclass(frozen=True)
class Points:
    """A list of sentences.

    Attributes:
        items: Each a sentence or more.
    """

    items: tuple[str, ...]


@final
@dataclass(frozen=True)
class Verdicts:
    """What was found, one claim a line.

    Attributes:
        items: The verdict in a word, and the sentence with its interval.
    """

    items: tuple[tuple[VerdictWord, str], ...]


@final
@dataclass(frozen=True)
class Table:
    """Cells in rows.

    Attributes:
        name: Of its file; unique in a report.
        caption: What it shows.
        headings: Of the columns, with units.
        rows: As many cells each as there are headings.
        numeric: Which columns are numbers, to be aligned right; the others are words.
    """

    name: str
    caption: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        """Checks that each row fits.

        Raises:
            ValueError: When one does not.
        """
        if odd := [row for row in self.rows if len(row) != len(self.headings)]:
            raise ValueError(f"each row must have a cell for each of {self.headings}, but one is {odd[0]}")


@final
@dataclass(frozen=True, eq=False)
class Figure:
    """A drawing with what it shows in words.

    Attributes:
        name: Of its files; unique in a report.
        caption: Below it: unit, number of runs, what bars are.
        alternative: What it shows, in a sentence, for those who do not see it.
        draw: Makes the drawing, by matplotlib; called where it is shown.
    """

    name: str
    caption: str
    alternative: str
    draw: Callable[[], Drawing]


Block = Text | Points | Verdicts | Table | Figure


@final
@dataclass(frozen=True, eq=False)
class Section:
    """A part of a report under a heading.

    Attributes:
        title: The heading.
        blocks: What follows it.
        technical: Whether only those who check need it: a summary leaves it out.
        filed: Whether only its tables are kept, as files: it is on no page.
        leads: Whether it answers, and so stands before all that do not, whatever results they are of.
    """

    title: str
    blocks: Sequence[Block]
    technical: bool = False
    leads: bool = False
    filed: bool = False


@final
@dataclass(frozen=True, eq=False)
class Document:
    """A whole report.

    Attributes:
        title: Stands above.
        sections: In reading order: what was found comes first.
    """

    title: str
    sections: Sequence[Section]

    def list_blocks(self) -> Iterator[Block]:
        """Yields all blocks in reading order."""
        for section in self.sections:
            yield from section.blocks

    def list_figures(self) -> list[Figure]:
        """Returns the figures in reading order."""
        return [block for block in self.list_blocks() if isinstance(block, Figure)]

    def list_tables(self) -> list[Table]:
        """Returns the tables in reading order."""
        return [block for block in self.list_blocks() if isinstance(block, Table)]
