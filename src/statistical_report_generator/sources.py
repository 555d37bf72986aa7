"""Results that a report is made of, recognised and checked; what files and links about them are called."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Self, final

MOST_LETTERS: Final = 40


@final
@dataclass(frozen=True)
class Verification:
    """What re-checking a run found, just before its report was made.

    Attributes:
        num_checks: That were made.
        problems: Of those that failed, in sentences.
        command: That makes them again.
    """

    num_checks: int
    problems: tuple[str, ...]
    command: str


@final
@dataclass(frozen=True)
class Source:
    """Results that a report is made of.

    Attributes:
        name: What the report calls them.
        kind: Of analysis, a name of `kinds.KINDS`.
        results: As they were saved; of the type of their kind, which they were checked to be.
        folder: The run folder, where they lie in one.
        slug: What files and links about them begin with.
        verification: None where nobody re-checked them.
        costs: All results of the kind "costs" that are in the report.
    """

    name: str
    kind: str
    results: Any
    folder: Path | None = None
    slug: str = ""
    verification: Verification | None = None
    costs: tuple[Any, ...] = ()

    def __post_init__(self) -> None:
        """Gives them a slug by their name when they have none."""
        if not self.slug:
            object.__setattr__(self, "slug", make_slug(self.name))

    def part(self, kind: str, results: Any) -> Self:  # noqa: ANN401 - of the kind's type
        """Returns a part of these results as results of their own, under the same name and from the same place.

        Args:
            kind: Of the part.
            results: The part, already checked.
        """
        return replace(self, kind=kind, results={"provenance": self.results.get("provenance"), **results})


def make_slug(name: str) -> str:
    """Returns a name for files and links, whatever the results are called.

    Args:
        name: Of the results.
    """
    letters = (letter if letter.isascii() and letter.isalnum() else "-" for letter in name[:MOST_LETTERS])
    return "".join(letters).strip("-") or "run"
