"""The tables of the page on claims."""

import itertools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from benchmarks.common import read_results
from benchmarks.tables.parts import Columns, Tables, make_table, tabulate
from statistical_report_generator.claims.assessment import assess_claims
from statistical_report_generator.tables import format_interval

WORLDS = {
    "normal": "normal",
    "normal, 539 images": "normal, tested on 539 images",
    "heavy-tailed": "heavy tails (t, 3 degrees of freedom)",
    "left-skewed, dense too": "left-skewed, dense network too",
    "right-skewed": "right-skewed, tickets alone",
    "left-skewed": "left-skewed, tickets alone",
    "rare collapses": "one ticket in ten collapses",
}


def list_false(verdict: str, world: str, **where: int) -> list[dict[str, Any]]:
    """Returns the rates of a false verdict in a world, of all scenarios in which it could be false."""
    return [
        row["false"][verdict]
        for row in read_results("claims_rates")["rates"]
        if row["world"] == world and verdict in row["false"] and all(row[key] == value for key, value in where.items())
    ]


def find_worst(rates: Iterable[Mapping[str, Any]]) -> str:
    """Returns the largest rate with its interval, such as "5.1 [4.8, 5.4]", in percent."""
    worst = max(rates, key=lambda rate: float(rate["rate"]))
    return format_interval({**worst, "mean": worst["rate"]}, form=".1f")


def tabulate_false_claims() -> str:
    """The worst rate of each false verdict over scenarios, levels and replicates, by kind of noise."""
    verdicts = ("matching", "not matching", "winning")
    rows = [
        (title, *(find_worst(list_false(verdict, world)) for verdict in verdicts)) for world, title in WORLDS.items()
    ]
    figures = read_results("claims_rates")
    normal = [rate for verdict in verdicts for rate in list_false(verdict, "normal")]
    above = sum(rate["low"] > figures["alpha"] for rate in normal)
    note = (
        f"Percent of {figures['num_simulations']:,} simulated experiments with a false verdict at any level, in the "
        "worst of all scenarios, 1, 5 or 15 levels, 3, 5, 10 or 20 replicates; exact 95 % interval of that cell. The "
        f"largest of many cells lies above its own truth by chance: of the {len(normal)} cells with normal noise, "
        f"{above} have an interval wholly above {100 * figures['alpha']:g} %; one in 40 would by chance, were all "
        "exactly there."
    )
    return f"{make_table(('noise', *(f'false {verdict}, %' for verdict in verdicts)), *rows)}\n\n{note}"


def tabulate_false_matching() -> str:
    """The worst rate of a false matching over scenarios, by noise and replicates, at 15 levels."""
    nums = sorted({row["num_replicates"] for row in read_results("claims_rates")["rates"]})
    rows = [
        (
            title,
            *(find_worst(list_false("matching", world, num_levels=15, num_replicates=num)) for num in nums),
        )
        for world, title in WORLDS.items()
    ]
    return make_table(("false matching at any of 15 levels, %", *(f"{num} replicates" for num in nums)), *rows)


def tabulate_power() -> str:
    """How often a ticket as good as dense is called matching, and how many replicates it takes."""
    figures = read_results("claims_rates")["power"]

    def show_matching(num: str) -> Callable[[Any], str]:
        return lambda row: f"{100 * row['matching'][num]:.0f}"

    columns: Columns = {
        "spread of ticket minus dense, points": lambda row: f"{100 * row['std']:.1f}",
        "levels": lambda row: str(row["num_levels"]),
        **{f"{num} replicates": show_matching(num) for num in figures[0]["matching"]},
        "replicates said to be needed (called matching then)": lambda row: (
            f"{row['replicates_needed']} ({100 * row['matching_at_replicates_needed']:.0f})"
        ),
    }
    return tabulate(figures, columns)


def tabulate_peeking() -> str:
    """How often a ticket on the margin is ever called matching, by when one looks."""
    columns: Columns = {
        "looks": lambda row: row["looks"],
        "number": lambda row: str(row["num_looks"]),
        "levels": lambda row: str(row["num_levels"]),
        "as if each were the only one, %": lambda row: find_worst([row["naive"]]),
        "with `num_looks`, %": lambda row: find_worst([row["planned"]]),
    }
    return tabulate(read_results("claims_rates")["peeking"], columns)


def tabulate_lenet_verdicts() -> str:
    """What can be claimed of the LeNet experiment, corrected for its levels."""
    trainings = {"trainings": read_results("fashion_lenet")["trainings"]}
    found = {moment: assess_claims(trainings, moment=moment)["levels"] for moment in ("early_stop", "end")}
    rows = []
    for early, end in zip(found["early_stop"], found["end"], strict=True):
        cells = [cell for level in (early, end) for cell in describe_verdict(level)]
        rows.append((f"{100 * early['density']:.1f} %", *cells))
    heads = ("weights", "minus dense, points, early stop", "verdict", "minus dense, points, end", "verdict")
    return make_table(heads, *rows)


def describe_verdict(level: Mapping[str, Any]) -> tuple[str, str]:
    """Returns the difference to dense and the verdict of a level."""
    verdict = level["verdict"]
    more = level["more_runs"]
    if verdict == "undecided" and more is not None:
        amount = f"{more['bound']} {more['num']}".strip()
        verdict += f", {amount} more run{'' if more['num'] == 1 else 's'}"
    if level["winning"] == "winning":
        verdict += ", winning"
    return format_interval(level["ticket_minus_dense"], form="+.2f"), verdict


TAILS = {
    "normal": "normal",
    "left-skewed": "left-skewed",
    "bad tail": "a heavy tail of bad ones",
    "rare collapses": "one in ten collapses",
}
TESTS = {"t": "t, on the mean", "sign": "sign, on the median"}


def tabulate_tails() -> str:
    """How often a ticket on the margin is called matching where tickets alone are skewed, by test."""
    rates = read_results("claims_tails")["rates"]
    nums = sorted({row["num_replicates"] for row in rates})
    rows = [
        (title, words, str(num_levels), *(show_tail(rates, world, test, num_levels, num) for num in nums))
        for world, title in TAILS.items()
        for test, words in TESTS.items()
        for num_levels in (1, 15)
    ]
    return make_table(("noise of tickets", "test", "levels", *(f"{num} replicates" for num in nums)), *rows)


def show_tail(rates: Iterable[Mapping[str, Any]], world: str, test: str, num_levels: int, num: int) -> str:
    """Returns the rate of one cell with its interval, in percent."""
    wanted = (world, test, num_levels, num)
    names = ("world", "test", "num_levels", "num_replicates")
    return find_worst([row["matching"] for row in rates if tuple(row[name] for name in names) == wanted])


def tabulate_warnings() -> str:
    """How often a replicate is said to stand apart, ever and when a matching is false; one level."""
    rates = [row for row in read_results("claims_tails")["rates"] if (row["test"], row["num_levels"]) == ("t", 1)]
    nums = sorted({row["num_replicates"] for row in rates})
    rows = []
    for world, title in TAILS.items():
        of_world = {row["num_replicates"]: row for row in rates if row["world"] == world}
        cells = [
            [f"{100 * of_world[num][name]['rate']:.0f}" for num in nums] for name in ("warned", "warned_when_matching")
        ]
        rows.append((title, *(" / ".join(pair) for pair in zip(*cells, strict=True))))
    return make_table(("noise of tickets, 1 level", *(f"{num} replicates" for num in nums)), *rows)


def tabulate_power_of_tests() -> str:
    """How often a ticket as good as dense is called matching at any level, by test."""
    figures = read_results("claims_tails")
    nums = sorted({row["num_replicates"] for row in figures["power"]})
    rows = []
    for test, num_levels in itertools.product(TESTS, (1, 15)):
        cells = [row for row in figures["power"] if (row["test"], row["num_levels"]) == (test, num_levels)]
        by_num = {row["num_replicates"]: row["matching"]["rate"] for row in cells}
        rows.append((TESTS[test], str(num_levels), *(f"{100 * by_num[num]:.0f}" for num in nums)))
    return make_table(("test", "levels", *(f"{num} replicates" for num in nums)), *rows)


TABLES: Tables = {
    "claims-false": tabulate_false_claims,
    "claims-false-matching": tabulate_false_matching,
    "claims-power": tabulate_power,
    "claims-peeking": tabulate_peeking,
    "claims-tails": tabulate_tails,
    "claims-warnings": tabulate_warnings,
    "claims-power-of-tests": tabulate_power_of_tests,
    "lenet-verdicts": tabulate_lenet_verdicts,
}
