"""Which colour, marker and line belongs to what, so that one thing looks the same in every figure."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final, NamedTuple

from statistical_report_generator.figures import score_worth
from statistical_report_generator.figures.experiment import LABELS
from statistical_report_generator.figures.style import (
    BLACK,
    BLUE,
    GREEN,
    PURPLE,
    SKY_BLUE,
    STYLES,
    VERMILION,
)


class Look(NamedTuple):
    """How a line is drawn."""

    colour: str
    marker: str
    line: str = "-"


BRANCHES: Final[Mapping[str, Look]] = MappingProxyType(
    {"dense": Look(BLACK, "D", "--"), **{branch: Look(*look) for branch, look in zip(LABELS, STYLES, strict=True)}}
)
RUNS: Final = (
    *(Look(*look) for look in STYLES),
    Look(BLACK, "x"),
)
SCORES: Final[Mapping[str, Look]] = MappingProxyType(
    {name.lower(): Look(*look) for name, look in score_worth.STYLES.items()}
)
LINES: Final = ("-", "--", ":", "-.")
# Further scores, in colours that no score of its own has beside the same marker.
FURTHER: Final = (Look(GREEN, "o"), Look(BLUE, "s"), Look(VERMILION, "D"), Look(PURPLE, "^"), Look(SKY_BLUE, "v"))


def choose_runs(number: int) -> Look:
    """Returns how the run of that number looks; lines tell more than seven apart.

    Args:
        number: From 0.
    """
    look = RUNS[number % len(RUNS)]
    return look._replace(line=LINES[number // len(RUNS) % len(LINES)])


def choose_scores(names: Sequence[str]) -> dict[str, Look]:
    """Returns how each strategy looks: as in the figure of what scores are worth, where it has one there.

    Args:
        names: Of the strategies.
    """
    unknown = [name for name in names if name.lower() not in SCORES]
    looks = {name: SCORES[name.lower()] for name in names if name.lower() in SCORES}
    for number, name in enumerate(unknown):
        look = FURTHER[number % len(FURTHER)]
        looks[name] = look._replace(line=LINES[number // len(FURTHER) % len(LINES)])
    return looks
