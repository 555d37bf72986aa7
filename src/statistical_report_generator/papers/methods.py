"""How results were made, in the words of a paper: told from what they say of their settings, and nothing else."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, final

from statistical_report_generator.papers.references import REFERENCES
from statistical_report_generator.papers.scores import find_score
from statistical_report_generator.tables import POINTS

Results = Mapping[str, Any]
LARGEST: Final = 1e15  # number that is told; JSON may hold any
MOST_LETTERS: Final = 80  # of a word of the results
CONTROLS: Final = {
    "reinitialised": ("the same mask with weights drawn anew", ("frankle2019lottery",)),
    "shuffled": ("the mask shuffled within each layer", ("su2020sanity", "frankle2021pruning")),
    "random": ("a random mask of the same layer densities with weights drawn anew", ("su2020sanity",)),
    "exponents": ("the mask shuffled among the weights of each exponent in each layer", ()),
    "super": ("the mask shuffled within each layer, which keeps the super weights that were named", ()),
}
WORKLOADS: Final = {
    "fashion-mnist": "xiao2017fashion",
    "resnet-20": "he2016deep",
    "lenet-300-100": "frankle2019lottery",
}


@final
@dataclass(frozen=True)
class Statement:
    """A sentence of the methods.

    Attributes:
        words: Without the point at its end.
        cites: Keys of the papers that it goes back to.
    """

    words: str
    cites: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Returns the sentence with its citations in words."""
        cited = "; ".join(REFERENCES[key].cited for key in self.cites)
        return f"{self.words} ({cited})." if cited else f"{self.words}."


@final
@dataclass(frozen=True)
class Judging:
    """How experiments are judged.

    Attributes:
        margin: The loss that counts as none, in units of the metric.
        test: "t" or "sign".
        moment: "early_stop" or "end"; None when the first that all trainings have is taken.
    """

    margin: float
    test: str
    moment: str | None


def describe_methods(kinds: Sequence[tuple[str, Results]], judging: Judging) -> list[Statement]:
    """Returns the methods that results used, each sentence once.

    Args:
        kinds: The kind of each results, and the results; what they do not say of themselves is left out.
        judging: How experiments are judged.
    """
    found: dict[Statement, None] = {}
    for kind, results in kinds:
        found |= dict.fromkeys(_DESCRIPTIONS.get(kind, _describe_nothing)(results))
    if any(kind == "experiment" and not results.get("simulated") for kind, results in kinds):
        found |= dict.fromkeys(_describe_claims(judging))
    return list(found)


def list_cited(statements: Iterable[Statement]) -> list[str]:
    """Returns the keys of the papers that statements go back to, each once, in order."""
    return sorted({key for statement in statements for key in statement.cites})


def _describe_nothing(_: Results) -> Iterator[Statement]:
    yield from ()


def _describe_experiment(results: Results) -> Iterator[Statement]:
    if results.get("simulated"):
        yield Statement("Masks were made from the weights as they were, and nothing was trained")
        return
    plan = _look(results, "plan")
    subject, schedule = _look(plan, "subject"), _look(plan, "schedule")
    recipe = _look(subject, "recipe")
    name = _read_word(subject, "workload")
    yield from _describe_training(name, recipe)
    yield from _describe_pruning(plan, schedule)
    for control in _read_list(plan, "controls"):
        if control in CONTROLS:
            words, cites = CONTROLS[control]
            yield Statement(f"Tickets were compared with {words}, trained as they are", cites)
    num, seed = _read_number(plan, "num_replicates"), _read_number(plan, "seed")
    if num is not None:
        seeds = "" if seed is None else f", which all derive from the seed {seed}"
        yield Statement(
            f"All of it was repeated {num} times, with other seeds for initialisation and data order{seeds}"
        )


def _describe_training(name: str | None, recipe: Results) -> Iterator[Statement]:
    if name is not None:
        yield Statement(
            f"Networks were trained on {name}",
            tuple(sorted(WORKLOADS[part] for part in name.split("/") if part in WORKLOADS)),
        )
    optimizer, size, steps = (
        _read_word(recipe, "optimizer"),
        _read_number(recipe, "batch_size"),
        _read_number(recipe, "num_steps"),
    )
    if optimizer is not None:
        arguments = [f"{key} {value}" for key, value in sorted(_look(recipe, "optimizer_arguments").items())]
        settings = [
            *map(_shorten, arguments),
            *([f"batches of {size}"] if size else []),
            *([f"{steps} steps"] if steps else []),
        ]
        yield Statement(f"The optimizer was {optimizer}{f' with {_join(settings)}' if settings else ''}")


def _describe_pruning(plan: Results, schedule: Results) -> Iterator[Statement]:
    levels, step = _read_number(plan, "num_levels"), _read_number(plan, "rewind_step")
    cites = ["frankle2019lottery"]
    if plan.get("rewinding") == "learning_rate":
        after, cites = "the learning rate was rewound and the weights were not", [*cites, "renda2020comparing"]
    elif step:
        after, cites = (
            f"those that were left went back to their values at step {step}",
            [*cites, "frankle2019stabilizing"],
        )
    else:
        after = "those that were left went back to their values at the start"
    rounds = "" if levels is None else f" in {levels} rounds"
    yield Statement(
        f"Tickets were found by iterative magnitude pruning{rounds}: in each the network was trained, the weights of "
        f"least magnitude were removed{_tell_rates(schedule)}, and {after}",
        tuple(cites),
    )
    yield from _describe_scope(_read_word(schedule, "scope"))


def _tell_rates(schedule: Results) -> str:
    rates = schedule.get("prune_rates")
    pairs = [pair for pair in rates if isinstance(pair, list) and len(pair) == 2] if isinstance(rates, list) else []  # noqa: PLR2004 - a pair
    told = [
        f"{POINTS * rate:g} % of {_tell_part(str(name), is_alone=len(pairs) == 1)}"
        for name, rate in pairs
        if _is_number(rate)
    ]
    return f" ({_join(told)})" if told else ""


def _tell_part(name: str, *, is_alone: bool) -> str:
    if name != "*":
        return _shorten(name)
    return "those left" if is_alone else "all others"


def _describe_scope(scope: str | None) -> Iterator[Statement]:
    found: dict[str, tuple[str, tuple[str, ...]]] = {
        "global": ("Weights of all layers were compared with each other", ()),
        "layer": ("Weights were compared within each layer", ()),
        "row": ("Weights were compared within each output", ("sun2024simple",)),
        "erk": ("Densities of layers followed the Erdős-Rényi kernel", ("evci2020rigging",)),
        "lamp": ("Densities of layers were adapted by LAMP", ("lee2021layer",)),
    }
    if scope in found:
        yield Statement(*found[scope])


def _describe_claims(judging: Judging) -> Iterator[Statement]:
    moment = {"early_stop": "at the least validation loss", "end": "after the last step"}.get(judging.moment or "")
    if moment is not None:
        yield Statement(
            f"Performance was taken {moment}", ("frankle2019lottery",) if judging.moment == "early_stop" else ()
        )
    kind = "sign tests of the median" if judging.test == "sign" else "t tests"
    yield Statement(
        f"A ticket is called matching when it is not worse than the dense network by {judging.margin:g} or more (in "
        f"units of the metric), by one-sided {kind} on differences paired by replicate",
        ("frankle2020linear", "schuirmann1987comparison"),
    )
    yield Statement(
        "It is called winning when it is matching and better than every control, all shown at once, and undecided when "
        "neither is shown",
        ("berger1982multiparameter",),
    )
    yield Statement("P values are corrected for the number of levels by Holm's method", ("holm1979simple",))
    yield Statement("Intervals are 95 % Student t intervals over replicates")


def _describe_connectivity(results: Results) -> Iterator[Statement]:
    threshold = _read_number(_look(results, "settings"), "threshold")
    limit = "" if threshold is None else f", and stable below {POINTS * threshold:g} points"
    yield Statement(
        "Instability is the largest error on the line between two networks that were trained from one state in other "
        f"orders of the data, minus the mean of both errors{limit}",
        ("frankle2020linear",),
    )


def _describe_early_bird(results: Results) -> Iterator[Statement]:
    sparsity = _read_number(results, "target_sparsity")
    what = "" if sparsity is None else f" of sparsity {sparsity:g}"
    if results.get("method") == "mask_distance":
        compared = "the distance between the masks of successive checks"
    else:
        compared = "the rank correlation of the magnitudes at successive checks"
    yield Statement(f"An early-bird ticket{what} was drawn when {compared} had settled", ("you2020drawing",))
    yield Statement("A ticket that had not moved from the mask of the starting weights was not counted as settled")


def _describe_landscape(results: Results) -> Iterator[Statement]:
    if results.get("mode") == "line":
        yield Statement(
            "The loss was measured on the line to another state of the network", ("goodfellow2015qualitatively",)
        )
        return
    yield Statement(
        "The loss was measured on a plane of two random directions, normalised by filter", ("li2018visualizing",)
    )


def _describe_importance(results: Results) -> Iterator[Statement]:
    report = _look(_look(results, "importance"), "report")
    words, cites = find_score(_read_word(report, "score") or "")
    num = _read_number(report, "num_samples")
    yield Statement(f"Weights were scored by {words}{f', over {num} samples' if num else ''}", cites)
    yield from _describe_scope(_read_word(results, "scope"))


def _describe_ticket(results: Results) -> Iterator[Statement]:
    if "thresholds" in results:
        yield Statement("The mask keeps the weights of largest magnitude", ("han2015learning",))


def _describe_quality(results: Results) -> Iterator[Statement]:
    metric = _read_word(results, "metric")
    yield Statement(
        f"Retention is the {metric or 'performance'} of the pruned network, not trained again, over that of the whole"
    )


def _describe_robustness(_: Results) -> Iterator[Statement]:
    yield Statement(
        "The network was pruned to growing sparsities by magnitude and at random, and not trained again",
        ("han2015learning",),
    )


def _describe_strategies(results: Results) -> Iterator[Statement]:
    rows = results.get("rows")
    names = (
        {str(row.get("strategy")) for row in rows if isinstance(row, Mapping)} if isinstance(rows, Sequence) else set()
    )
    for name in sorted(names):
        words, cites = find_score(name)
        yield Statement(f"The network was pruned by {words}, and not trained again", cites)


def _describe_overlap(results: Results) -> Iterator[Statement]:
    method = _read_word(results, "method") or "jaccard"
    yield Statement(
        f"The overlap of two masks is the {method} coefficient of the weights that they keep, beside that of "
        "independent masks with the same densities in each layer"
    )


def _describe_costs(_: Results) -> Iterator[Statement]:
    yield Statement(
        "FLOPs are those of products of matrices, attention and convolutions, 2 for a multiplication with its "
        "addition, counted from shapes"
    )


_DESCRIPTIONS: Final[Mapping[str, Callable[[Results], Iterator[Statement]]]] = {
    "experiment": _describe_experiment,
    "connectivity": _describe_connectivity,
    "lines": _describe_connectivity,
    "early-bird": _describe_early_bird,
    "landscape": _describe_landscape,
    "importance": _describe_importance,
    "ticket": _describe_ticket,
    "quality": _describe_quality,
    "robustness": _describe_robustness,
    "strategies": _describe_strategies,
    "overlap": _describe_overlap,
    "overlap-matrix": _describe_overlap,
    "costs": _describe_costs,
}


def _look(values: Results, name: str) -> Results:
    found = values.get(name)
    return found if isinstance(found, Mapping) else {}


def _read_list(values: Results, name: str) -> list[str]:
    found = values.get(name)
    return [str(item) for item in found] if isinstance(found, list) else []


def _read_word(values: Results, name: str) -> str | None:
    found = values.get(name)
    return _shorten(found) if isinstance(found, str) and found else None


def _read_number(values: Results, name: str) -> float | int | None:
    found = values.get(name)
    return found if _is_number(found) else None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < LARGEST


def _shorten(words: str) -> str:
    return words if len(words) <= MOST_LETTERS else f"{words[: MOST_LETTERS - 1]}…"


def _join(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
