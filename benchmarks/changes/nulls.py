"""How often independent updates are said to share structure, and how often planted structure is found.

`OMP_NUM_THREADS=1 python -m benchmarks.changes.nulls` takes about ten minutes of one core and writes
`benchmarks/results/change_nulls.json`. Each pair has weights, updates and masks of its own; the verdicts are those of
`compute_ticket_overlap(..., given=...)`.
"""

import argparse
import itertools
import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from benchmarks.changes.updates import SHAPES, ULP, UPDATES, WEIGHT_STD, Floats, add, draw_update, draw_weights
from benchmarks.common import read_results, write_results
from benchmarks.studies.parts import compute_rate
from lottery_tickets import Mask, compute_change_mask, compute_ticket_overlap
from lottery_tickets.masks.nulls import ERROR_RATE

DTYPES: Final = {"bfloat16": torch.bfloat16, "float32": torch.float32}
SIZES: Final = (0.001, 0.01, 0.1, 1.0, 10.0)  # of an update, in ulps of a weight of one standard deviation
NULLS: Final = ("naive", "layer", "exponent", "value")
PLANTED: Final = 0.01  # share of weights whose update is larger in both runs
STRENGTHS: Final = (1.0, 2.0, 4.0, 10.0, 100.0)
LARGEST: Final = 0.99  # sparsity of the masks of largest changes

NOISES: Final = ("normal", "rank 4")

Pair = tuple[dict[str, Tensor], Mask, Mask]
Draw = Callable[[np.random.Generator], Pair]


def change(weights: dict[str, Tensor], draw: Callable[[], dict[str, Floats]], **options: Any) -> Pair:  # noqa: ANN401 - of `compute_change_mask`
    """Returns weights, and the masks of what two updates change."""
    first, second = (compute_change_mask(weights, add(weights, draw()), **options) for _ in range(2))
    return weights, first, second


def draw_pair(
    world: str, dtype: torch.dtype, size: float, options: Mapping[str, Any], generator: np.random.Generator
) -> Pair:
    """Returns a pair of independent updates."""
    weights = draw_weights(generator, dtype)
    return change(weights, lambda: draw_update(world, generator, size * ULP[dtype]), **options)


def draw_decayed(dtype: torch.dtype, size: float, generator: np.random.Generator) -> Pair:
    """Returns a pair whose updates also take the same share of each weight away: weight decay."""
    weights, step = draw_weights(generator, dtype), size * ULP[dtype]
    decay = {name: -step / WEIGHT_STD * weight.double().numpy() for name, weight in weights.items()}

    def draw() -> dict[str, Floats]:
        return {name: delta + decay[name] for name, delta in draw_update("normal", generator, step).items()}

    return change(weights, draw)


def draw_scaled(
    world: str,
    size: float,
    scale: Callable[[np.random.Generator, tuple[int, int]], Floats],
    generator: np.random.Generator,
) -> Pair:
    """Returns a pair in bfloat16 whose updates are scaled alike, weight by weight."""
    weights = draw_weights(generator, torch.bfloat16)
    scales = {name: scale(generator, shape) for name, shape in SHAPES.items()}

    def draw() -> dict[str, Floats]:
        drawn = draw_update(world, generator, size * ULP[torch.bfloat16])
        return {name: delta * scales[name] for name, delta in drawn.items()}

    return change(weights, draw)


def plant(strength: float, generator: np.random.Generator, shape: tuple[int, int]) -> Floats:
    """Returns scales in which some weights at random have a larger one."""
    return np.where(generator.random(shape) < PLANTED, strength, 1.0)


def scale_rows(spread: float, generator: np.random.Generator, shape: tuple[int, int]) -> Floats:
    """Returns scales, one a row."""
    scales: Floats = np.exp(spread * generator.standard_normal((shape[0], 1)))
    return scales


def draw_hidden(size: float, generator: np.random.Generator) -> Pair:
    """Returns a pair of runs that go on from one float32 state, and are looked at through its bfloat16 copies."""
    hidden = draw_weights(generator, torch.float32)
    seen = {name: weight.bfloat16() for name, weight in hidden.items()}
    masks = []
    for _ in range(2):
        after = add(hidden, draw_update("normal", generator, size * ULP[torch.bfloat16]))
        masks.append(compute_change_mask(seen, {name: weight.bfloat16() for name, weight in after.items()}))
    return seen, masks[0], masks[1]


def judge(pair: Pair) -> dict[str, Any]:
    """Returns the verdict under each null, and under the finest if the weights of a stratum were independent."""
    weights, first, second = pair
    given = compute_ticket_overlap(first, second, given=weights)["given"]
    found: dict[str, Any] = {"share": first.density, "independent": _is_beyond_if_independent(pair)}
    for name in NULLS:
        null = given["nulls"][name]
        found[name] = null["ratio"]
        found[f"{name} beyond"] = null["low"] is not None and null["low"] > 1
    found["below"] = given["verdict"] == "below chance"
    return found


def _is_beyond_if_independent(pair: Pair) -> bool:
    """Returns whether a normal test on strata of exponents finds more shared than expected."""
    weights, first, second = pair
    excess = variance = 0.0
    for name, weight in weights.items():
        exponents = torch.frexp(weight.float())[1].numpy().ravel() + 200
        kept = [mask[name].numpy().ravel() for mask in (first, second)]
        n, a, b, both = (
            np.bincount(exponents[where], minlength=512)
            for where in (np.full(len(exponents), fill_value=True), *kept, kept[0] & kept[1])
        )
        share_a, share_b = a / np.maximum(n, 1), b / np.maximum(n, 1)
        excess += float((both - n * share_a * share_b).sum())
        factors = share_a * (1 - share_a) * share_b * (1 - share_b)
        variance += float((n * factors * n / np.maximum(n - 1, 1)).sum())
    return variance > 0 and excess / math.sqrt(variance) > 2.326  # noqa: PLR2004 - one in a hundred


def measure(draw: Draw, seed: list[int], num: int) -> dict[str, Any]:
    """Returns how often so many pairs get each verdict, with the exact 95 % interval, and their mean ratios."""
    found = [judge(draw(np.random.default_rng([*seed, number]))) for number in range(num)]
    row: dict[str, Any] = {"num": num, "share": sum(one["share"] for one in found) / num}
    for name in NULLS:
        ratios = [one[name] for one in found if one[name] is not None]
        row[f"{name} ratio"] = sum(ratios) / len(ratios) if ratios else None
    for event in (*(f"{name} beyond" for name in NULLS), "below", "independent"):
        events = sum(one[event] for one in found)
        row[event] = {"num": events, "of": num, **compute_rate(events, num)}
    return row


def measure_independent(num: int) -> list[dict[str, Any]]:
    """Returns the rates of pairs of independent updates, in which every verdict of shared structure is false."""
    settings: list[tuple[str, str, float, Draw]] = []
    for dtype, size in itertools.product(DTYPES, SIZES):
        settings += [(world, dtype, size, partial(draw_pair, world, DTYPES[dtype], size, {})) for world in UPDATES]
        settings.append(("weight decay", dtype, size, partial(draw_decayed, DTYPES[dtype], size)))
    for dtype, by, world in itertools.product(DTYPES, ("delta", "relative"), NOISES):
        draw = partial(draw_pair, world, DTYPES[dtype], 1.0, {"by": by, "sparsity": LARGEST})
        settings.append((f"{world}, largest 1 % by {by}", dtype, 1.0, draw))
    return [
        {"world": world, "dtype": dtype, "size": size, **measure(draw, [0, number], num)}
        for number, (world, dtype, size, draw) in enumerate(settings)
    ]


def measure_structure(num: int) -> dict[str, list[dict[str, Any]]]:
    """Returns how often structure is found: planted weights by strength, shared rows, and what one cannot see."""
    planted = [
        {"world": world, "size": size, "strength": strength,
         **measure(partial(draw_scaled, world, size, partial(plant, strength)), [1, number], num)}
        for number, (world, size, strength) in enumerate(itertools.product(NOISES, (0.01, 0.1, 1.0), STRENGTHS))
    ]  # fmt: skip
    rows = [
        {"size": 0.1, "spread": spread,
         **measure(partial(draw_scaled, "normal", 0.1, partial(scale_rows, spread)), [2, number], num)}
        for number, spread in enumerate((0.1, 0.25, 0.5, 1.0))
    ]  # fmt: skip
    hidden = [
        {"size": size, **measure(partial(draw_hidden, size), [3, number], num)}
        for number, size in enumerate((0.01, 0.1, 1.0))
    ]
    return {"planted": planted, "shared_rows": rows, "hidden": hidden}


def pool(rows: list[dict[str, Any]], key: str) -> dict[str, Any]:
    """Returns how often an event happened over all rows."""
    num, of = (sum(row[key][part] for row in rows) for part in ("num", "of"))
    return {"num": num, "of": of, **compute_rate(num, of)}


def main() -> None:
    """Measures, writes the results, shows the rates by world."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=80, help="of independent updates, in each setting")
    parser.add_argument("--planted", type=int, default=50, help="pairs of each structure")
    parser.add_argument("--structure", action="store_true", help="measured alone; the rest of the file stays")
    options = parser.parse_args()
    independent = (
        read_results("change_nulls")["independent"] if options.structure else measure_independent(options.pairs)
    )
    by_world = {
        world: {key: pool([row for row in independent if row["world"] == world], key)
                for key in ("value beyond", "below", "exponent beyond", "layer beyond", "naive beyond", "independent")}
        for world in dict.fromkeys(row["world"] for row in independent)
    }  # fmt: skip
    found: Mapping[str, Any] = {
        "error_rate": ERROR_RATE,
        "independent": independent,
        "by_world": by_world,
        "all": {key: pool(independent, key) for key in next(iter(by_world.values()))},
        **measure_structure(options.planted),
    }
    for world, rates in {**by_world, "all": found["all"]}.items():
        print(f"{world}:", ", ".join(f"{key} {rate['num']} of {rate['of']}" for key, rate in rates.items()))
    for row in (*found["planted"], *found["shared_rows"], *found["hidden"]):
        named = {name: row[name] for name in ("world", "strength", "spread", "size") if name in row}
        print(named, f"found {row['value beyond']['num']} of {row['num']}, ratio {row['value ratio']}")
    print(write_results("change_nulls", found))


if __name__ == "__main__":
    main()
