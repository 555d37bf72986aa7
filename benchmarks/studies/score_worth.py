"""What each score is worth: loss and accuracy of trained networks pruned in one shot, without retraining.

LeNet-300-100 and ResNet-20 are trained on Fashion-MNIST by their recipes, for fewer steps; SmolLM2-135M comes trained.
Each replicate of the former is a training of its own, with its own draw of the training images that the scores are
computed on; each replicate of the latter is another draw of training texts. Masks are judged on the test split, under
`masked`. There are no random choices but those of the seeds.

`python -m benchmarks.studies.score_worth [MODEL ...]` computes what is missing in runs/score-worth, part by part, so
it goes on where it was stopped; the last part writes benchmarks/results/score_worth.json and
docs/figures/score-worth.svg. `--quick` is a smoke run of a minute, which leaves everything in runs/score-worth-quick.
"""

import argparse
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, final

import torch
from torch import Tensor, nn

from benchmarks.common import FIGURES, TITLES, describe_machine, write_results
from benchmarks.studies.parts import keep, sum_up
from benchmarks.studies.score_sources import MAGNITUDE, SOURCES, Subject, check_against_public
from lottery_tickets import masked
from lottery_tickets._core.determinism import derive_seed, make_generator
from lottery_tickets._core.files import read_json, write_json
from lottery_tickets._core.measuring.evaluating import evaluate_tensors
from lottery_tickets._core.measuring.performance import Measurement, measure
from lottery_tickets.experiments.folder import ExperimentFolder
from lottery_tickets.experiments.plan import ExperimentPlan, Training
from lottery_tickets.experiments.run import run_experiment
from lottery_tickets.experiments.schedules import PruningSchedule
from lottery_tickets.experiments.workload_subject import WorkloadSource
from lottery_tickets.importance_scoring import compute_magnitude_importance
from lottery_tickets.workloads import create_token_batches, load_smollm2, load_speeches, load_workload, paper_recipe
from statistical_report_generator.figures.score_worth import DENSE, draw_score_worth
from statistical_report_generator.figures.style import save_figure

SEED = 0
NUM_SCORING_IMAGES = 1000
SCORING_BATCH = 100
NUM_SCORING_TEXTS = 32
NUM_TEST_TEXTS = 8
NUM_TOKENS = 256
TEXTS_A_BATCH = 4
LOST = 6.5  # nats; a language model this bad (a uniform guess has 10.8) is not pruned further
LANGUAGE_MODEL = "smollm2-135m"
FIGURE = "score-worth.svg"
# Of the vertical axes, loss in nats and accuracy in %; some curves go on above, and some intervals outside.
LIMITS = {
    TITLES["lenet-300-100"]: {"loss": (0.3, 3.5), "accuracy": (0, 92)},
    TITLES["resnet-20"]: {"loss": (0.2, 3.5), "accuracy": (0, 95)},
    TITLES[LANGUAGE_MODEL]: {"loss": (3.0, 8.0), "accuracy": (0, 40)},
}


@final
@dataclass(frozen=True)
class Plan:
    """What is measured of one model.

    Attributes:
        name: The model's.
        num_replicates: How many trainings, or draws of text.
        sparsities: Ascending.
        comparisons: Pairs of a source of scores and a scope.
        num_steps: Training steps; 0 for a model that comes trained.
        num_test_images: The first so many of the test split.
    """

    name: str
    num_replicates: int
    sparsities: tuple[float, ...]
    comparisons: tuple[tuple[str, str], ...]
    num_steps: int = 0
    num_test_images: int = 10_000


IN_ROWS = (("magnitude", "row"), ("Wanda", "row"))
OF_IMAGES = (("weights", "global"), ("gradients", "global"), *IN_ROWS, ("GraSP", "global"))
PLANS: Mapping[str, Plan] = MappingProxyType(
    {
        plan.name: plan
        for plan in (
            Plan(
                name="lenet-300-100",
                num_replicates=4,
                sparsities=(0.2, 0.4, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98),
                comparisons=(*OF_IMAGES, ("weights", "layer"), ("gradients", "layer")),
                num_steps=3000,
            ),
            Plan(
                name="resnet-20",
                num_replicates=3,
                sparsities=(0.2, 0.4, 0.6, 0.7, 0.8, 0.9),
                comparisons=OF_IMAGES,
                num_steps=600,
                num_test_images=2000,
            ),
            Plan(
                name=LANGUAGE_MODEL,
                num_replicates=3,
                sparsities=(0.1, 0.2, 0.3, 0.4, 0.5),
                comparisons=(("magnitude", "global"), ("gradients", "global"), *IN_ROWS, ("random", "global")),
            ),
        )
    }
)
QUICK = replace(PLANS["lenet-300-100"], num_replicates=2, sparsities=(0.5, 0.9), num_steps=200)


def main() -> None:
    """Computes the parts that are missing; when none is, writes results and figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=list(PLANS), help=f"of {', '.join(PLANS)}; all by default")
    parser.add_argument("--quick", action="store_true", help="a smoke run on LeNet-300-100")
    arguments = parser.parse_args()
    plans = [QUICK] if arguments.quick else list(PLANS.values())
    folder = Path("runs/score-worth-quick" if arguments.quick else "runs/score-worth")
    for plan in plans:
        if plan.name in arguments.models:
            compute_parts(plan, folder)
    missing = [str(part) for plan in plans for part, *_ in list_parts(plan, folder) if not part.exists()]
    if missing:
        print("no results yet, for there is no", ", ".join(missing))
        return
    payload = assemble(plans, folder)
    if arguments.quick:
        write_json(folder / "score_worth.json", payload)
    else:
        print(write_results("score-worth", payload))
    panels = {TITLES[name]: found["rows"] for name, found in payload["models"].items()}
    save_figure(draw_score_worth(panels, LIMITS), (folder if arguments.quick else FIGURES) / FIGURE)


# --------------------------------------------------------------------------------------------------------------- parts


def list_parts(plan: Plan, folder: Path) -> Iterator[tuple[Path, int, str, str]]:
    """Yields the file, the replicate, the source and the scope of each part."""
    for replicate in range(plan.num_replicates):
        for source, scope in ((DENSE, "global"), *plan.comparisons):
            if replicate == 0 or not is_constant(plan, source):
                yield folder / f"{plan.name}-{replicate}-{source}-{scope}.json", replicate, source, scope


def is_constant(plan: Plan, source: str) -> bool:
    """Returns whether a source gives the same masks in each replicate, which are therefore measured once."""
    return plan.num_steps == 0 and source in {DENSE, MAGNITUDE}


def compute_parts(plan: Plan, folder: Path) -> None:
    """Computes what is missing of one model."""
    load = lru_cache(maxsize=1)(partial(load_subject, plan, folder))
    for part, replicate, source, scope in list_parts(plan, folder):
        keep(part, partial(compute_part, plan, load, replicate, source, scope))


def compute_part(plan: Plan, load: Callable[[int], Subject], replicate: int, source: str, scope: str) -> dict[str, Any]:
    """Returns the rows of one part, with the machine and the seconds it took."""
    subject = load(replicate)
    start = time.perf_counter()
    rows = list(measure_source(subject, plan, source, scope))
    seconds = time.perf_counter() - start
    print(f"{plan.name}, replicate {replicate}, {source}, {scope}: {seconds:.0f} s", flush=True)
    return {"machine": describe_machine(), "seconds": seconds, "rows": rows}


def measure_source(subject: Subject, plan: Plan, source: str, scope: str) -> Iterator[dict[str, Any]]:
    """Yields loss and accuracy for each score of a source and each sparsity; stops where a language model is lost."""

    def describe(score: str, sparsity: float, figures: tuple[float, float], num_collapsed: int) -> dict[str, Any]:
        row = {"score": score, "scope": scope, "sparsity": sparsity}
        return row | {"loss": figures[0], "accuracy": figures[1], "collapsed": num_collapsed}

    if source == DENSE:
        yield describe(DENSE, 0.0, subject.evaluate(subject.model), 0) | count_magnitudes(subject.model)
        return
    for score, make_mask in SOURCES[source](subject, scope).items():
        for sparsity in plan.sparsities:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # layer collapse, which is counted below
                mask = make_mask(sparsity)
            with masked(subject.model, mask) as model:
                loss, accuracy = subject.evaluate(model)
            yield describe(score, sparsity, (loss, accuracy), len(mask.collapsed_layers))
            if plan.name == LANGUAGE_MODEL and loss > LOST:
                break


def count_magnitudes(model: nn.Module) -> dict[str, int]:
    """Returns how many weights can be pruned, and how many distinct magnitudes they have: few make many ties."""
    flat = torch.cat([score.flatten() for score in compute_magnitude_importance(model).values()])
    return {"num_weights": len(flat), "num_distinct_magnitudes": len(flat.unique())}


# ------------------------------------------------------------------------------------------------------------ subjects


def load_subject(plan: Plan, folder: Path, replicate: int) -> Subject:
    """Returns the trained model of one replicate with its data."""
    if plan.name == LANGUAGE_MODEL:
        return load_language_subject(replicate)
    workload = load_workload("fashion-mnist", plan.name)
    model = workload.build_model(torch.Generator().manual_seed(0))
    model.load_state_dict(train_networks(plan, folder).load_weights(Training(replicate, 0, "ticket")))
    inputs, targets = workload.data.train_inputs, workload.data.train_targets
    generator = make_generator(SEED, "replicate", replicate, "scoring images")
    chosen = torch.randperm(len(inputs), generator=generator)[:NUM_SCORING_IMAGES].split(SCORING_BATCH)
    tests = [split[: plan.num_test_images] for split in (workload.data.test_inputs, workload.data.test_targets)]
    subject = Subject(
        model=model.eval(),
        batches=[(inputs[places], targets[places]) for places in chosen],
        evaluate=lambda model: evaluate_tensors(model, *tests),
        seed=derive_seed(SEED, "replicate", replicate, "random mask"),
    )
    if plan.name == "lenet-300-100" and replicate == 0:
        check_against_public(subject)
    return subject


def train_networks(plan: Plan, folder: Path) -> ExperimentFolder:
    """Returns the experiment that trains all replicates by the recipe, in fewer steps; what is there is not trained."""
    name = plan.name
    recipe = replace(paper_recipe(name), num_steps=plan.num_steps, evaluation_interval=plan.num_steps)
    source = WorkloadSource("fashion-mnist", name, recipe=recipe)
    schedule = PruningSchedule(tuple(recipe.prune_rates.items()), recipe.scope)
    trainings = ExperimentPlan(source().describe(), schedule, 0, plan.num_steps, num_replicates=plan.num_replicates)
    run = ExperimentFolder(folder / f"{name}-trainings", trainings, made_by=__name__)
    run_experiment(run, source)
    return run


def load_language_subject(replicate: int) -> Subject:
    """Returns SmolLM2 with the texts of one replicate."""
    model, tokenizer = load_smollm2()
    speeches = load_speeches()
    shape = {"batch_size": TEXTS_A_BATCH, "num_tokens": NUM_TOKENS}
    num_batches = NUM_SCORING_TEXTS // TEXTS_A_BATCH
    seed = derive_seed(SEED, "replicate", replicate, "scoring texts")
    batches = create_token_batches(speeches.train, tokenizer, **shape, num_batches=num_batches, seed=seed)
    num_tests = NUM_TEST_TEXTS // TEXTS_A_BATCH
    tests = create_token_batches(speeches.test, tokenizer, **shape, num_batches=num_tests, seed=SEED)
    return Subject(
        model=model,
        batches=list(batches),
        evaluate=lambda model: evaluate_tokens(model, tests),
        seed=derive_seed(SEED, "replicate", replicate, "random mask"),
    )


def evaluate_tokens(model: nn.Module, batches: Sequence[Mapping[str, Tensor]]) -> tuple[float, float]:
    """Returns mean loss and accuracy of the next token."""
    figures = measure(model, batches, Measurement()).figures
    assert figures["loss"] is not None
    assert figures["accuracy"] is not None
    return figures["loss"], figures["accuracy"]


# ------------------------------------------------------------------------------------------------------------- results


def assemble(plans: Sequence[Plan], folder: Path) -> dict[str, Any]:
    """Returns all figures with their intervals over replicates."""
    settings = {
        "num_scoring_images": NUM_SCORING_IMAGES,
        "num_scoring_texts": NUM_SCORING_TEXTS,
        "num_test_texts": NUM_TEST_TEXTS,
        "num_tokens": NUM_TOKENS,
        "lost_above_nats": LOST,
    }
    return {"settings": settings, "models": {plan.name: assemble_model(plan, folder) for plan in plans}}


def assemble_model(plan: Plan, folder: Path) -> dict[str, Any]:
    """Returns the figures of one model: each cell with its replicates, their interval and that of the differences."""
    parts = {part: read_json(part) for part, *_ in list_parts(plan, folder)}
    cells: dict[tuple[str, str, float], dict[int, dict[str, Any]]] = {}
    for part, replicate, *_ in list_parts(plan, folder):
        for found in parts[part]["rows"]:
            cells.setdefault((found["score"], found["scope"], found["sparsity"]), {})[replicate] = found
    dense = cells[DENSE, "global", 0.0][0]
    rows = []
    for (score, scope, sparsity), replicates in cells.items():
        constant = is_constant(plan, score)
        if len(replicates) < plan.num_replicates and not constant:
            continue  # lost in some replicates and not in others: no interval is comparable
        reference = cells.get((MAGNITUDE, scope, sparsity), {})
        row: dict[str, Any] = {"score": score, "scope": scope, "sparsity": sparsity}
        row["collapsed"] = [found["collapsed"] for found in replicates.values()]
        for metric in ("loss", "accuracy"):
            values = [found[metric] for found in replicates.values()]
            row[metric] = {"values": values, **sum_up(values)}
            if score not in {DENSE, MAGNITUDE} and reference:
                row[f"{metric}_minus_magnitude"] = sum_up(pair(replicates, reference, metric))
        rows.append(row)
    return {
        **asdict(plan),
        "commits": sorted({part["machine"]["commit"] for part in parts.values()}),
        "seconds": sum(part["seconds"] for part in parts.values()),
        "num_weights": dense["num_weights"],
        "num_distinct_magnitudes": dense["num_distinct_magnitudes"],
        "rows": rows,
    }


def pair(
    replicates: Mapping[int, Mapping[str, Any]], reference: Mapping[int, Mapping[str, Any]], metric: str
) -> list[float]:
    """Returns the differences to the same replicate's reference; a reference that is constant has replicate 0 only."""
    return [row[metric] - reference.get(replicate, reference[0])[metric] for replicate, row in replicates.items()]


if __name__ == "__main__":
    main()
