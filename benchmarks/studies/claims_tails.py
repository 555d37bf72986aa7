"""How often claims are false where some tickets train badly and the dense network does not: t tests beside sign tests.

A t test makes a claim on the mean, so the truth it is held against is a mean exactly on the margin; a sign test makes
one on the median, and is held against a median exactly there. `OMP_NUM_THREADS=1 python -m
benchmarks.studies.claims_tails` takes a minute and writes `benchmarks/results/claims_tails.json`.
"""

import itertools
import math
from typing import Any, Final

import numpy as np

from benchmarks.common import write_results
from benchmarks.studies.claims_rates import (
    BATCH,
    NUM_SIMULATIONS,
    Booleans,
    Floats,
    Truth,
    World,
    draw_collapses,
    draw_left_skewed,
    draw_normal,
    measure_rate,
    simulate,
)
from statistical_report_generator.claims.assessment import ALPHA, MARGIN
from statistical_report_generator.inference.equivalence import (
    Test,
    adjust_holm,
    compute_p_apart,
    summarise_differences,
)
from statistical_report_generator.inference.verdicts import compare_with_dense

LEVELS: Final = (1, 15)
REPLICATES: Final = (5, 10, 20, 40)
STD: Final = 0.002  # of ticket minus dense, in the table of power
MANY: Final = 1_000_000  # draws that a median is taken of


def draw_bad_tail(generator: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    """Returns noise of mean 0 and variance 1 with a heavy tail of bad trainings: minus a log-normal of sigma 1."""
    noise: Floats = -(generator.lognormal(0.0, 1.0, shape) - np.exp(0.5)) / np.sqrt((math.e - 1) * math.e)
    return noise


WORLDS: Final = {
    "normal": World(draw_normal),
    "left-skewed": World(draw_left_skewed, dense_has_noise=False),
    "bad tail": World(draw_bad_tail, dense_has_noise=False, num_images=None),
    "rare collapses": World(draw_collapses, noise_std=0.01, dense_has_noise=False),
}


def find_median(world: World) -> float:
    """Returns the median of ticket minus dense where their means are equal."""
    if world.dense_has_noise:
        return 0.0  # the difference of two that are alike is symmetric
    generator = np.random.default_rng(7)
    dense, tickets, _ = simulate(world, Truth(np.zeros(1), {}), 1, generator=generator, num_experiments=MANY)
    return float(np.median(tickets - dense))


def measure_cell(world: World, distance: float, test: Test, num_levels: int, num_replicates: int) -> dict[str, Any]:
    """Returns how often any level is called matching, and how often a replicate is said to stand apart, then and ever.

    Args:
        world: What accuracies are made of.
        distance: True mean of ticket minus dense.
        test: That decides.
        num_levels: Tickets of an experiment.
        num_replicates: Of each.
    """
    generator = np.random.default_rng([num_levels, num_replicates])
    truth, found = Truth(np.full(num_levels, distance), {}), []
    for start in range(0, NUM_SIMULATIONS, BATCH):
        num = min(BATCH, NUM_SIMULATIONS - start)
        dense, tickets, _ = simulate(world, truth, num_replicates, generator=generator, num_experiments=num)
        differences = summarise_differences(tickets, dense)
        matching = compare_with_dense(differences, MARGIN, test).not_worse.holds(ALPHA)
        is_apart = adjust_holm(compute_p_apart(differences)[0]) <= ALPHA
        found.append(np.stack([matching.any(axis=1), is_apart.any(axis=1)], axis=1))
    matching, is_apart = np.concatenate(found).T
    return {
        "test": test,
        "num_levels": num_levels,
        "num_replicates": num_replicates,
        "matching": measure_rate(matching),
        "warned": measure_rate(is_apart),
        "warned_when_matching": _measure_share(is_apart, matching),
    }


def _measure_share(events: Booleans, among: Booleans) -> dict[str, Any] | None:
    return measure_rate(events[among]) if among.any() else None


def main() -> None:
    """Simulates all and writes."""
    rows: list[dict[str, Any]] = []
    tests: tuple[Test, ...] = ("t", "sign")
    for name, world in WORLDS.items():
        median = find_median(world)
        for test, num_levels, num_replicates in itertools.product(tests, LEVELS, REPLICATES):
            distance = -MARGIN - (median if test == "sign" else 0.0)
            rows.append({"world": name, **measure_cell(world, distance, test, num_levels, num_replicates)})
            print(name, test, num_levels, num_replicates, rows[-1]["matching"]["rate"], flush=True)
    steady = World(draw_normal, noise_std=STD / np.sqrt(2), num_images=None)
    power = [
        measure_cell(steady, 0.0, test, num_levels, num_replicates)
        for test, num_levels, num_replicates in itertools.product(tests, LEVELS, REPLICATES)
    ]
    payload = {"alpha": ALPHA, "margin": MARGIN, "num_simulations": NUM_SIMULATIONS, "std": STD}
    print(write_results("claims_tails", {**payload, "rates": rows, "power": power}))


if __name__ == "__main__":
    main()
