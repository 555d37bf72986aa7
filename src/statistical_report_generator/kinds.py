"""The kinds of results there are: how each is told, what it must hold, how it is described. The one table of them."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Annotated, Any, Final, final

from pydantic import AfterValidator, TypeAdapter

from statistical_report_generator.document import Section
from statistical_report_generator.schemas.analysis import Analysis, check_analysis
from statistical_report_generator.schemas.changes import Changes
from statistical_report_generator.schemas.checking import check_results, render_schema, show_name, to_plain
from statistical_report_generator.schemas.costs import Costs
from statistical_report_generator.schemas.early_bird import EarlyBird
from statistical_report_generator.schemas.experiments import Connectivity, Experiment, Lines
from statistical_report_generator.schemas.landscape import Landscape, check_landscape
from statistical_report_generator.schemas.masks import (
    Importance,
    Overlap,
    OverlapMatrix,
    Ticket,
    check_matrix,
    check_ticket,
)
from statistical_report_generator.schemas.performance import (
    Evaluation,
    ModelPerformance,
    Quality,
    Robustness,
    Strategies,
    Validation,
    check_validation,
)
from statistical_report_generator.schemas.table import Values
from statistical_report_generator.sections.analysis import describe_analysis
from statistical_report_generator.sections.connectivity import describe_connectivity
from statistical_report_generator.sections.costs import describe_costs
from statistical_report_generator.sections.early_bird import describe_early_bird
from statistical_report_generator.sections.experiment import ExperimentOptions, describe_experiment
from statistical_report_generator.sections.importance import describe_importance
from statistical_report_generator.sections.landscape import describe_landscape
from statistical_report_generator.sections.lines import describe_lines
from statistical_report_generator.sections.masks.changes import describe_changes
from statistical_report_generator.sections.masks.overlap import describe_overlap, describe_overlap_matrix
from statistical_report_generator.sections.masks.ticket import describe_ticket
from statistical_report_generator.sections.quality import describe_performance, describe_quality
from statistical_report_generator.sections.robustness import describe_robustness
from statistical_report_generator.sections.strategies import describe_strategies
from statistical_report_generator.sections.validation import describe_validation
from statistical_report_generator.sections.values import describe_values
from statistical_report_generator.sources import Source

SCHEMA: Final = re.compile(r"lottery-tickets ([a-z-]{1,40}) ([0-9]{1,9})")

Description = Callable[[Source, ExperimentOptions], list[Section]]


@final
@dataclass(frozen=True)
class Kind:
    """One kind of results.

    Attributes:
        version: Of its schema that is known; older ones can be read too.
        type: What they hold.
        told_by: Keys that no other kind has all of, for results without a schema; any one of them where `any_of`.
        describe: Makes sections of them.
        any_of: See `told_by`.
    """

    version: int
    type: Any
    told_by: frozenset[str]
    describe: Description
    any_of: bool = False


def _without_options(describe: Callable[[Source], list[Section]]) -> Description:
    return lambda source, _: describe(source)


def _never(source: Source) -> list[Section]:
    raise TypeError(f"an evaluation is described by its parts, but {source.name} came whole")


# Keys are looked for in this order: an evaluation has a quality, and a quality may have trainings inside.
KINDS: Final[Mapping[str, Kind]] = MappingProxyType(
    {
        "experiment": Kind(2, Experiment, frozenset({"trainings"}), describe_experiment),
        "connectivity": Kind(
            1, Connectivity, frozenset({"rows", "settings", "searches"}), _without_options(describe_connectivity)
        ),
        "lines": Kind(1, Lines, frozenset({"pairs", "settings"}), _without_options(describe_lines)),
        "early-bird": Kind(
            1, EarlyBird, frozenset({"checkpoints", "verdict", "method"}), _without_options(describe_early_bird)
        ),
        "landscape": Kind(
            1,
            Annotated[Landscape, AfterValidator(check_landscape)],
            frozenset({"mode", "x", "y", "losses", "centre"}),
            _without_options(describe_landscape),
        ),
        "importance": Kind(1, Importance, frozenset({"importance"}), _without_options(describe_importance)),
        "ticket": Kind(
            1,
            Annotated[Ticket, AfterValidator(check_ticket)],
            frozenset({"layer_sparsities", "actual_sparsity", "collapsed_layers"}),
            _without_options(describe_ticket),
        ),
        "quality": Kind(1, Quality, frozenset({"performance_retention", "metric"}), _without_options(describe_quality)),
        "performance": Kind(
            1,
            ModelPerformance,
            frozenset({"performance", "metric", "num_predictions"}),
            _without_options(describe_performance),
        ),
        "robustness": Kind(
            1, Robustness, frozenset({"sparsity_curves", "robustness_metrics"}), _without_options(describe_robustness)
        ),
        "validation": Kind(
            1,
            Annotated[Validation, AfterValidator(check_validation)],
            frozenset({"valid"}),
            _without_options(describe_validation),
        ),
        "overlap": Kind(
            1, Overlap, frozenset({"overall_overlap", "expected_overlap"}), _without_options(describe_overlap)
        ),
        "overlap-matrix": Kind(
            1,
            Annotated[OverlapMatrix, AfterValidator(check_matrix)],
            frozenset({"names", "overlaps", "expected"}),
            _without_options(describe_overlap_matrix),
        ),
        "changes": Kind(1, Changes, frozenset({"updates", "overlaps"}), _without_options(describe_changes)),
        "strategies": Kind(
            1, Strategies, frozenset({"rows", "metric", "baseline"}), _without_options(describe_strategies)
        ),
        "costs": Kind(1, Costs, frozenset({"dense", "weights", "num_samples"}), _without_options(describe_costs)),
        "analysis": Kind(
            1,
            Annotated[Analysis, AfterValidator(check_analysis)],
            frozenset({"model", "analyses"}),
            _without_options(describe_analysis),
        ),
        "table": Kind(1, Values, frozenset({"schema", "table"}), _without_options(describe_values)),
        "evaluation": Kind(
            1,
            Evaluation,
            frozenset({"performance", "quality", "validation", "robustness", "retrained"}),
            _without_options(_never),
            any_of=True,
        ),
    }
)


def describe(source: Source, options: ExperimentOptions) -> list[Section]:
    """Returns the sections on results of any kind.

    Args:
        source: The results.
        options: How experiments are judged.

    Raises:
        ValueError: When they lack what is said of them.
    """
    try:
        return KINDS[source.kind].describe(source, options)
    except ValueError as error:  # of what claims are made of
        raise ValueError(f"{source.name}: {error}") from error
    except (KeyError, TypeError, IndexError, AttributeError, ArithmeticError) as error:
        raise ValueError(
            f"{source.name} must hold whole results, but lacks or garbles {error}; was it edited?"
        ) from error


def recognise(results: Mapping[str, Any], where: str) -> tuple[str, Any]:
    """Returns the kind of results, and the results, checked to be of its type.

    Args:
        results: From a file, or as a function returned them.
        where: What messages call them.

    Raises:
        ValueError: When they are of no kind, of a future version, or not whole.
    """
    plain = to_plain(dict(results), where)
    if isinstance(plain.get("matrix"), dict):  # as the command compare writes it
        plain = {**plain, **plain["matrix"]}
        del plain["matrix"]
    kind = _read_schema(plain["schema"], where) if "schema" in plain else _find_kind(plain)
    if kind is None:
        names = ", ".join(map(show_name, sorted(plain)[:8]))
        raise ValueError(
            f"{where} must hold results of one of {', '.join(KINDS)}, but has {names or 'nothing'}; give a run folder, "
            "or a file that save_results or a command wrote"
        )
    return kind, check_results(find_adapter(kind), plain, where, kind)


def _find_kind(plain: Mapping[str, Any]) -> str | None:
    for name, kind in KINDS.items():
        if kind.any_of and kind.told_by & plain.keys():
            return name
        if not kind.any_of and kind.told_by <= plain.keys():
            return name
    return None


def _read_schema(schema: object, where: str) -> str:
    match = SCHEMA.fullmatch(schema) if isinstance(schema, str) else None
    if match is None:
        raise ValueError(
            f"{where} must be of a schema such as 'lottery-tickets experiment 2', but is of {str(schema)[:80]!r}; was "
            "it made by something else?"
        )
    name, version = match[1], int(match[2])
    if name not in KINDS or version > KINDS[name].version:
        known = f"{name} up to {KINDS[name].version}" if name in KINDS else f"one of {', '.join(KINDS)}"
        raise ValueError(f"{where} is of schema {schema!r}, but this version knows {known}; update lottery-tickets")
    if not version:
        raise ValueError(f"{where} is of schema {schema!r}, but versions begin with 1; was it edited?")
    return name


@cache
def find_adapter(kind: str) -> TypeAdapter[Any]:
    """Returns what checks results of a kind.

    Args:
        kind: A name of `KINDS`.
    """
    return TypeAdapter(KINDS[kind].type)


def list_schemas() -> dict[str, str]:
    """Returns by file name the JSON Schema document of each kind, as they are kept in docs/schemas."""
    return {
        f"{name}-{kind.version}.json": render_schema(find_adapter(name), name, kind.version)
        for name, kind in KINDS.items()
    }
