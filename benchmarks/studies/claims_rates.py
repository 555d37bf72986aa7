"""How often claims are false, and how often they are made, on simulated experiments whose truth is known.

`OMP_NUM_THREADS=1 python -m benchmarks.studies.claims_rates` takes some minutes on one core and writes
`benchmarks/results/claims_rates.json`. The verdicts are those of `inference.verdicts`, which `assess_claims` uses;
tests/statistical_report_generator/claims/test_assessment.py holds that both agree.
"""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, final

import numpy as np
import numpy.typing as npt

from benchmarks.common import write_results
from benchmarks.studies.parts import compute_rate
from statistical_report_generator.claims.assessment import ALPHA, CONTROLS_TO_BEAT, MARGIN
from statistical_report_generator.inference.equivalence import count_replicates, summarise_differences
from statistical_report_generator.inference.verdicts import compare_with_controls, compare_with_dense

Floats = npt.NDArray[np.float64]
Booleans = npt.NDArray[np.bool_]
Verdicts = dict[str, Booleans]  # what is claimed, (experiments, levels), by the name of the verdict
Noise = Callable[[np.random.Generator, tuple[int, ...]], Floats]

NUM_SIMULATIONS: Final = 20_000
BATCH: Final = 4_000  # simulations in memory at once
LEVELS: Final = (1, 5, 15)
REPLICATES: Final = (3, 5, 10, 20)
SHARED_STD: Final = 0.003  # of what a replicate's branches have in common
FAR: Final = 0.02  # a difference nobody overlooks
COLLAPSING: Final = 0.1  # share of trainings


def draw_normal(generator: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    """Returns standard normal noise."""
    return generator.standard_normal(shape)


def draw_left_skewed(generator: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    """Returns noise of mean 0 and variance 1 with a long tail of bad trainings: 1 minus an exponential."""
    return 1 - generator.standard_exponential(shape)


def draw_right_skewed(generator: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    """Returns noise of mean 0 and variance 1 with a long tail of good trainings."""
    return generator.standard_exponential(shape) - 1


def draw_heavy_tailed(generator: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    """Returns noise of mean 0 and variance 1: Student's t with 3 degrees of freedom, scaled."""
    noise: Floats = generator.standard_t(3, shape) / np.sqrt(3)
    return noise


def draw_collapses(generator: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    """Returns noise of mean 0 and variance 1: one training in ten is 3.3 standard deviations below the others."""
    noise: Floats = (COLLAPSING - (generator.random(shape) < COLLAPSING)) / np.sqrt(COLLAPSING * (1 - COLLAPSING))
    return noise


@final
@dataclass(frozen=True)
class World:
    """What an accuracy is made of: a mean, what a replicate's branches share, noise of its own, images it is tested on.

    Attributes:
        noise: Of a branch, mean 0 and variance 1.
        noise_std: Its standard deviation, a fraction.
        dense_has_noise: Whether the dense network has it too; else tickets and controls alone vary, so that the skew
            of the noise does not cancel in differences.
        accuracy: Of the dense network, the mean.
        num_images: Of the test set, drawn anew for each training; None tests without error.
        shared_std: Standard deviation of what the branches of a replicate share.
    """

    noise: Noise
    noise_std: float = 0.005
    dense_has_noise: bool = True
    accuracy: float = 0.9
    num_images: int | None = 10_000
    shared_std: float = SHARED_STD

    def draw(
        self,
        generator: np.random.Generator,
        shape: tuple[int, ...],
        shared: Floats,
        distance: Floats | float,
        *,
        has_noise: bool,
    ) -> Floats:
        """Returns accuracies of trainings.

        Args:
            generator: Where chance comes from.
            shape: (experiments, levels, replicates).
            shared: What the branches of a replicate share, (experiments, 1, replicates).
            distance: True mean minus the dense network's, broadcast to the shape.
            has_noise: Whether this branch has noise of its own.
        """
        accuracies = np.broadcast_to(self.accuracy + shared + distance, shape)
        if has_noise:
            accuracies = accuracies + self.noise_std * self.noise(generator, shape)
        if self.num_images is None:
            return np.array(accuracies)
        return generator.binomial(self.num_images, np.clip(accuracies, 0, 1)) / self.num_images


WORLDS: Final[Mapping[str, World]] = {
    "normal": World(draw_normal),
    "normal, 539 images": World(draw_normal, accuracy=0.95, num_images=539),
    "heavy-tailed": World(draw_heavy_tailed),
    "left-skewed, dense too": World(draw_left_skewed),
    "right-skewed": World(draw_right_skewed, dense_has_noise=False),
    "left-skewed": World(draw_left_skewed, dense_has_noise=False),
    "rare collapses": World(draw_collapses, noise_std=0.01, dense_has_noise=False),
}


@final
@dataclass(frozen=True)
class Truth:
    """The true differences by level.

    Attributes:
        ticket: Ticket minus dense.
        controls: Control minus ticket, by control; none when no control is trained.
    """

    ticket: Floats
    controls: Mapping[str, Floats]


def simulate(
    world: World, truth: Truth, num_replicates: int, *, generator: np.random.Generator, num_experiments: int
) -> tuple[Floats, Floats, dict[str, Floats]]:
    """Returns accuracies of the dense network, the tickets and the controls: (experiments, levels, replicates)."""
    shape = (num_experiments, len(truth.ticket), num_replicates)
    one_level = (num_experiments, 1, num_replicates)
    shared = world.shared_std * generator.standard_normal(one_level)
    dense = world.draw(generator, one_level, shared, 0.0, has_noise=world.dense_has_noise)
    distance = truth.ticket[:, None]
    tickets = world.draw(generator, shape, shared, distance, has_noise=True)
    controls = {
        name: world.draw(generator, shape, shared, distance + minus_ticket[:, None], has_noise=True)
        for name, minus_ticket in truth.controls.items()
    }
    return dense, tickets, controls


def claim(dense: Floats, tickets: Floats, controls: Mapping[str, Floats], alpha: float = ALPHA) -> Verdicts:
    """Returns the library's verdicts on many experiments at once."""
    tests = compare_with_dense(summarise_differences(tickets, dense), MARGIN)
    matching = tests.not_worse.holds(alpha)
    winning = np.zeros_like(matching)
    if controls:
        against = {name: summarise_differences(tickets, values) for name, values in controls.items()}
        winning = compare_with_controls(against, tests.not_worse.p_value, MARGIN).winning.holds(alpha) & matching
    return {"matching": matching, "not matching": tests.worse.holds(alpha), "winning": winning}


def run_cell(world: World, truth: Truth, num_replicates: int, seed: list[int], num_simulations: int) -> Verdicts:
    """Returns the verdicts on as many simulated experiments as asked for, in batches."""
    generator = np.random.default_rng(seed)
    batches = []
    for start in range(0, num_simulations, BATCH):
        num = min(BATCH, num_simulations - start)
        batches.append(claim(*simulate(world, truth, num_replicates, generator=generator, num_experiments=num)))
    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}


@final
@dataclass(frozen=True)
class Scenario:
    """A truth, and by verdict at which levels it would be false."""

    truth: Truth
    false_at: Mapping[str, Booleans]


def make_scenarios(num_levels: int) -> dict[str, Scenario]:
    """Returns the scenarios by name; those of two kinds of levels need two levels."""
    every, half = np.ones(num_levels, dtype=bool), np.arange(num_levels) % 2 == 0
    zeros = np.zeros(num_levels)
    equal, far_below = (dict.fromkeys(CONTROLS_TO_BEAT, value) for value in (zeros, zeros - FAR))
    one = CONTROLS_TO_BEAT[0]
    found = {
        "all on the margin": Scenario(Truth(zeros - MARGIN, {}), {"matching": every, "not matching": every}),
        "equal to dense": Scenario(Truth(zeros, {}), {"not matching": every}),
        "one point below": Scenario(Truth(zeros - 0.01, {}), {"matching": every}),
        "all controls equal": Scenario(Truth(zeros + FAR, equal), {"winning": every}),
        "one control equal": Scenario(Truth(zeros + FAR, {**far_below, one: zeros}), {"winning": every}),
    }
    if num_levels > 1:
        ticket, mixed = np.where(half, -MARGIN, FAR), {**far_below, one: np.where(half, -FAR, 0.0)}
        found["half on the margin"] = Scenario(Truth(ticket, {}), {"matching": half, "not matching": every})
        found["half on the margin, half one control equal"] = Scenario(Truth(ticket, mixed), {"winning": every})
    return found


def measure_rate(events: Booleans) -> dict[str, Any]:
    """Returns how often events happen, with the exact 95 % interval."""
    num = int(events.sum())
    return {"num": num, "of": events.size, **compute_rate(num, events.size)}


def measure_cell(world: World, scenario: Scenario, num_replicates: int, seed: list[int], num: int) -> dict[str, Any]:
    """Returns the family-wise rates of false verdicts, and the share of levels that get each verdict."""
    claimed = run_cell(world, scenario.truth, num_replicates, seed, num)
    false = {name: np.any(claimed[name] & levels, axis=1) for name, levels in scenario.false_at.items()}
    return {
        "num_levels": len(scenario.truth.ticket),
        "num_replicates": num_replicates,
        "false": {name: measure_rate(events) for name, events in false.items()},
        "share_of_levels": {name: float(found.mean()) for name, found in claimed.items()},
    }


def measure_rates(num_simulations: int) -> list[dict[str, Any]]:
    """Returns the rates of every world, scenario, number of levels and number of replicates."""
    rows: list[dict[str, Any]] = []
    for world_number, (world_name, world) in enumerate(WORLDS.items()):
        for num_levels, num_replicates in itertools.product(LEVELS, REPLICATES):
            for number, (name, scenario) in enumerate(make_scenarios(num_levels).items()):
                seed = [world_number, num_levels, number, num_replicates]
                cell = measure_cell(world, scenario, num_replicates, seed, num_simulations)
                rows.append({"world": world_name, "scenario": name, **cell})
        print(world_name, "done", flush=True)
    return rows


def measure_power(num_simulations: int) -> list[dict[str, Any]]:
    """Returns how often a ticket as good as dense is called matching, and called winning 1 point above its controls."""
    rows = []
    for number, std in enumerate((0.001, 0.002, 0.004, 0.008)):
        world = World(draw_normal, noise_std=std / np.sqrt(2), num_images=None)
        for num_levels in LEVELS:
            zeros = np.zeros(num_levels)
            truth = Truth(zeros, dict.fromkeys(CONTROLS_TO_BEAT, zeros - 0.01))
            needed = count_replicates(MARGIN, std, alpha=ALPHA / num_levels, power=0.8, most=1000)
            assert needed is not None
            found = {
                num: run_cell(world, truth, num, [100 + number, num_levels, num], num_simulations)
                for num in (*REPLICATES, needed)
            }
            rows.append(
                {
                    "std": std,
                    "num_levels": num_levels,
                    "matching": {str(num): float(found[num]["matching"].mean()) for num in REPLICATES},
                    "winning": {str(num): float(found[num]["winning"].mean()) for num in REPLICATES},
                    "replicates_needed": needed,
                    "matching_at_replicates_needed": float(found[needed]["matching"].mean()),
                }
            )
    return rows


def measure_peeking(num_simulations: int) -> list[dict[str, Any]]:
    """Returns how often a ticket on the margin is ever called matching when replicates are added until it is."""
    rows = []
    plans = {
        "after each from 3 to 20": tuple(range(3, 21)),
        "after 5, 10, 15 and 20": (5, 10, 15, 20),
        "after 20": (20,),
    }
    for num_levels in (1, 15):
        generator = np.random.default_rng([200, num_levels])
        truth = Truth(np.full(num_levels, -MARGIN), {})
        ever: dict[tuple[str, str], list[Booleans]] = {
            (plan, way): [] for plan in plans for way in ("naive", "planned")
        }
        for start in range(0, num_simulations, BATCH):
            num = min(BATCH, num_simulations - start)
            dense, tickets, _ = simulate(WORLDS["normal"], truth, 20, generator=generator, num_experiments=num)
            for plan, looks in plans.items():
                for way, alpha in (("naive", ALPHA), ("planned", ALPHA / len(looks))):
                    found = [claim(dense[..., :n], tickets[..., :n], {}, alpha)["matching"].any(axis=1) for n in looks]
                    ever[plan, way].append(np.any(found, axis=0))
        rows += [
            {
                "looks": plan,
                "num_looks": len(looks),
                "num_levels": num_levels,
                **{way: measure_rate(np.concatenate(ever[plan, way])) for way in ("naive", "planned")},
            }
            for plan, looks in plans.items()
        ]
    return rows


def main() -> None:
    """Simulates all and writes."""
    rates = measure_rates(NUM_SIMULATIONS)
    for row in rates:
        for name, rate in row["false"].items():
            if rate["low"] > ALPHA:
                where = (row["world"], row["scenario"], row["num_levels"], row["num_replicates"])
                print(f"false {name} above {ALPHA}: {rate['rate']:.4f}", *where, sep=", ")
    payload = {
        "alpha": ALPHA,
        "margin": MARGIN,
        "num_simulations": NUM_SIMULATIONS,
        "rates": rates,
        "power": measure_power(NUM_SIMULATIONS),
        "peeking": measure_peeking(NUM_SIMULATIONS),
    }
    print(write_results("claims_rates", payload))


if __name__ == "__main__":
    main()
