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
from functools import cache
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import Any

import matplotlib as mpl
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.common import describe_machine, write_results
from lottery_tickets import (
    Mask,
    compute_fisher_importance,
    compute_gradient_importance,
    compute_grasp_importance,
    compute_hybrid_importance,
    compute_snip_importance,
    compute_taylor_importance,
    compute_wanda_importance,
    create_importance_mask,
    create_magnitude_mask,
    create_random_mask,
    masked,
)
from lottery_tickets._core.determinism import derive_seed, make_generator
from lottery_tickets._core.files import read_json, read_tensors, write_json, write_tensors
from lottery_tickets._core.selection.scopes import find_collapsed
from lottery_tickets._core.measuring.evaluating import evaluate_tensors
from lottery_tickets.experiments.workload_subject import WorkloadSubject
from lottery_tickets.importance_scoring import FISHER, GRADIENTS, compute_magnitude_importance
from lottery_tickets.scores.gradient_scores import ScoringOptions, score_gradients
from lottery_tickets.scores.importance import Importance
from lottery_tickets.scores.ranks import compute_ranks
from lottery_tickets.workloads import (
    ImageData,
    Workload,
    create_token_batches,
    load_smollm2,
    load_speeches,
    load_workload,
)
from statistical_report_generator.inference.intervals import compute_t_interval

ROOT = Path(__file__).parents[2]
FIGURE = ROOT / "docs" / "figures" / "score-worth.svg"
SEED = 0
NUM_SCORING_IMAGES = 1000
SCORING_BATCH = 100
NUM_SCORING_TEXTS = 32
NUM_TEST_TEXTS = 8
NUM_TOKENS = 256
TEXTS_A_BATCH = 4
ALL = 2**30  # samples: all there are
LOST = 6.5  # nats; a language model this bad (a uniform guess has 10.8) is not pruned further
LANGUAGE_MODEL = "smollm2-135m"
DENSE = "dense"
MAGNITUDE = "magnitude"
Makers = Mapping[str, Callable[[float], Mask]]  # from a sparsity to a mask, by the name of the score


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


@dataclass(frozen=True, eq=False)
class Subject:
    """A trained model of one replicate.

    Attributes:
        model: In evaluation mode.
        batches: What scores are computed on.
        evaluate: Gives loss (nats) and accuracy of a model on the test split.
        seed: Of the random mask.
    """

    model: nn.Module
    batches: list[Any]
    evaluate: Callable[[nn.Module], tuple[float, float]]
    seed: int


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
        print(write_results("score_worth", payload))
    draw(payload["models"], folder / FIGURE.name if arguments.quick else FIGURE)


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
    subject, loaded = None, -1
    for part, replicate, source, scope in list_parts(plan, folder):
        if part.exists():
            continue
        if subject is None or loaded != replicate:
            subject, loaded = load_subject(plan, replicate, folder), replicate
        start = time.perf_counter()
        rows = list(measure_source(subject, plan, source, scope))
        seconds = time.perf_counter() - start
        write_json(part, {"machine": describe_machine(), "seconds": seconds, "rows": rows})
        print(f"{part.name}: {seconds:.0f} s", flush=True)


def measure_source(subject: Subject, plan: Plan, source: str, scope: str) -> Iterator[dict[str, Any]]:
    """Yields loss and accuracy for each score of a source and each sparsity; stops where a language model is lost."""
    if source == DENSE:
        loss, accuracy = subject.evaluate(subject.model)
        row = {"score": DENSE, "scope": scope, "sparsity": 0.0, "loss": loss, "accuracy": accuracy, "collapsed": 0}
        yield row | count_magnitudes(subject.model)
        return
    for score, make_mask in SOURCES[source](subject, scope).items():
        for sparsity in plan.sparsities:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # layer collapse, which is counted below
                mask = make_mask(sparsity)
            with masked(subject.model, mask) as model:
                loss, accuracy = subject.evaluate(model)
            collapsed = len(find_collapsed(mask.bits, mask.shapes))
            yield {
                "score": score,
                "scope": scope,
                "sparsity": sparsity,
                "loss": loss,
                "accuracy": accuracy,
                "collapsed": collapsed,
            }
            if plan.name == LANGUAGE_MODEL and loss > LOST:
                break


def count_magnitudes(model: nn.Module) -> dict[str, int]:
    """Returns how many weights can be pruned, and how many distinct magnitudes they have: few make many ties."""
    flat = torch.cat([score.flatten() for score in compute_magnitude_importance(model).values()])
    return {"num_weights": len(flat), "num_distinct_magnitudes": len(flat.unique())}


# ------------------------------------------------------------------------------------------------------------ subjects


def load_subject(plan: Plan, replicate: int, folder: Path) -> Subject:
    """Returns the trained model of one replicate with its data."""
    if plan.name == LANGUAGE_MODEL:
        return load_language_subject(replicate)
    workload = load_fashion(plan.name)
    data = workload.data
    path = folder / f"{plan.name}-{replicate}.safetensors"
    model = workload.build_model(torch.Generator().manual_seed(0))
    if not path.exists():
        train(workload, plan.num_steps, replicate, path)
    state, metadata = read_tensors(path)
    assert metadata == {"num_steps": str(plan.num_steps)}, f"{path} is of another plan; delete it"
    model.load_state_dict(state)
    chosen = torch.randperm(
        len(data.train_inputs), generator=make_generator(SEED, "replicate", replicate, "scoring images")
    )[:NUM_SCORING_IMAGES]
    pairs = zip(
        data.train_inputs[chosen].split(SCORING_BATCH), data.train_targets[chosen].split(SCORING_BATCH), strict=True
    )
    subject = Subject(
        model=model.eval(),
        batches=list(pairs),
        evaluate=lambda model: evaluate_images(model, data, plan.num_test_images),
        seed=derive_seed(SEED, "replicate", replicate, "random mask"),
    )
    if plan.name == "lenet-300-100" and replicate == 0:
        check_against_public(subject)
    return subject


@cache
def load_fashion(model_name: str) -> Workload:
    """Returns the workload of a model on Fashion-MNIST."""
    return load_workload("fashion-mnist", model_name)


def train(workload: Workload, num_steps: int, replicate: int, path: Path) -> None:
    """Trains a model by its recipe, in fewer steps, and stores it."""
    recipe = replace(workload.recipe, num_steps=num_steps, evaluation_interval=num_steps)
    subject = WorkloadSubject(replace(workload, recipe=recipe))
    model = subject.build(derive_seed(SEED, "replicate", replicate, "initialisation"))
    order = derive_seed(SEED, "replicate", replicate, "order")
    subject.train(model, first_step=0, seed=order, rewind_step=-1, keep_rewind_point=lambda: None)
    write_tensors(path, model.state_dict(), {"num_steps": str(num_steps)})


@torch.no_grad()
def evaluate_images(model: nn.Module, data: ImageData, num_images: int) -> tuple[float, float]:
    """Returns loss and accuracy on the first test images."""
    return evaluate_tensors(model, data.test_inputs[:num_images], data.test_targets[:num_images])


def load_language_subject(replicate: int) -> Subject:
    """Returns SmolLM2 with the texts of one replicate."""
    model, tokenizer = load_language_model_once()
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


@cache
def load_language_model_once() -> tuple[nn.Module, Any]:
    """Returns SmolLM2 and its tokenizer."""
    return load_smollm2()


@torch.no_grad()
def evaluate_tokens(model: nn.Module, batches: Sequence[Mapping[str, Tensor]]) -> tuple[float, float]:
    """Returns mean loss and accuracy of the next token."""
    loss, correct, num_tokens = 0.0, 0, 0
    for batch in batches:
        logits = model(**batch).logits[:, :-1].flatten(0, 1)
        targets = batch["input_ids"][:, 1:].flatten()
        loss += float(functional.cross_entropy(logits, targets, reduction="sum"))
        correct += int((logits.argmax(-1) == targets).sum())
        num_tokens += len(targets)
    return loss / num_tokens, correct / num_tokens


# -------------------------------------------------------------------------------------------------------------- scores


def prepare_random(subject: Subject, scope: str) -> Makers:
    """A mask drawn at random."""
    return {"random": lambda sparsity: create_random_mask(subject.model, sparsity, subject.seed, scope=scope)}


def prepare_magnitude(subject: Subject, scope: str) -> Makers:
    """Magnitudes."""
    return {MAGNITUDE: lambda sparsity: create_magnitude_mask(subject.model, sparsity, scope=scope)}


def prepare_weights(subject: Subject, scope: str) -> Makers:
    """What needs no data."""
    return {**prepare_random(subject, scope), **prepare_magnitude(subject, scope)}


def prepare_gradients(subject: Subject, scope: str) -> Makers:
    """All scores made of gradients of single samples."""
    return {
        name: lambda sparsity, scores=scores: create_importance_mask(scores, sparsity, scope=scope)  # type: ignore[misc]  # a default binds the loop's value
        for name, scores in score_by_gradients(subject, scope).items()
    }


def prepare_wanda(subject: Subject, scope: str) -> Makers:
    """Weights times the norms of their inputs."""
    scores = compute_wanda_importance(subject.model, subject.batches, num_samples=ALL)
    return {"Wanda": lambda sparsity: create_importance_mask(scores, sparsity, scope=scope)}


def prepare_grasp(subject: Subject, scope: str) -> Makers:
    """What keeps the gradient's norm; beside it the same scores without their sign, which are no method of a paper."""
    scores = compute_grasp_importance(subject.model, subject.batches, num_samples=ALL)
    sizes = derive(scores, "|w * (Hessian @ gradient)|", lambda name: scores[name].abs())
    return {
        "GraSP": lambda sparsity: create_importance_mask(scores, sparsity, scope=scope),
        "GraSP, unsigned": lambda sparsity: create_importance_mask(sizes, sparsity, scope=scope),
    }


def score_by_gradients(subject: Subject, scope: str) -> dict[str, Importance]:
    """Returns six scores from one pass over the data, which the public functions would make six times."""
    options = ScoringOptions(num_samples=ALL, chunk_size=None, use_mixed_precision=False, gradient_clip=None)
    formulas = [FISHER, GRADIENTS["magnitudes"], GRADIENTS["gradients"]]
    fisher, gradient, mean = score_gradients(subject.model, subject.batches, formulas, options)
    magnitude = compute_magnitude_importance(subject.model)
    taylor = derive(gradient, "mean of |gradient * w|", lambda name: gradient[name] * magnitude[name])
    saliency = derive(fisher, "saliency", lambda name: fisher[name] * (0.5 * magnitude[name].square()))
    mixed = {name: torch.zeros_like(score) for name, score in fisher.items()}
    for part in (magnitude, fisher, taylor):
        for name, ranks in compute_ranks(part, scope, part.output_dims).items():
            mixed[name].add_(ranks, alpha=1 / 3)
    hybrid = derive(fisher, "hybrid", mixed.__getitem__)
    sensitivity = derive(mean, "|mean gradient * w|", lambda name: mean[name] * magnitude[name])
    return {
        "gradient": gradient,
        "Taylor": taylor,
        "Fisher": fisher,
        "saliency": saliency,
        "hybrid": hybrid,
        "SNIP": sensitivity,
    }


def derive(importance: Importance, name: str, score: Callable[[str], Tensor]) -> Importance:
    """Returns other scores of the same weights."""
    scores = {weight: score(weight) for weight in importance}
    return Importance(scores, {**importance.report, "score": name}, output_dims=importance.output_dims)


def check_against_public(subject: Subject) -> None:
    """Asserts that the public functions give the same scores, bit for bit."""
    model, batches = subject.model, subject.batches
    ours = score_by_gradients(subject, "global")
    public = {
        "gradient": compute_gradient_importance(model, batches),
        "Taylor": compute_taylor_importance(model, batches),
        "Fisher": compute_fisher_importance(model, batches),
        "saliency": compute_fisher_importance(model, batches, saliency=True),
        "hybrid": compute_hybrid_importance(model, batches),
    }
    for score, importance in public.items():
        assert all(torch.equal(ours[score][name], values) for name, values in importance.items()), score
    snip = compute_snip_importance(model, batches)  # ours are not divided by their sum
    total = sum(float(values.sum(dtype=torch.float64)) for values in ours["SNIP"].values())
    for name, values in snip.items():
        torch.testing.assert_close(ours["SNIP"][name] / total, values, rtol=1e-5, atol=0)


SOURCES: Mapping[str, Callable[[Subject, str], Makers]] = MappingProxyType(
    {
        "random": prepare_random,
        "magnitude": prepare_magnitude,
        "weights": prepare_weights,
        "gradients": prepare_gradients,
        "Wanda": prepare_wanda,
        "GraSP": prepare_grasp,
    }
)


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
            row[metric] = {"values": values, **asdict(compute_t_interval(values))}
            if score not in {DENSE, MAGNITUDE} and reference:
                row[f"{metric}_minus_magnitude"] = asdict(compute_t_interval(pair(replicates, reference, metric)))
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


# -------------------------------------------------------------------------------------------------------------- figure

# The colours of Okabe and Ito, and two more; markers tell them apart in grey.
STYLES = MappingProxyType(
    {
        "magnitude": ("#000000", "o"),
        "random": ("#999999", "x"),
        "gradient": ("#E69F00", "s"),
        "Fisher": ("#D55E00", "v"),
        "Taylor": ("#56B4E9", "^"),
        "saliency": ("#009E73", "D"),
        "hybrid": ("#0072B2", "P"),
        "SNIP": ("#CC79A7", "<"),
        "GraSP": ("#8C6D1F", ">"),
        "GraSP, unsigned": ("#B8A000", "h"),
        "Wanda": ("#882255", "*"),
    }
)
TITLES = MappingProxyType(
    {
        "lenet-300-100": "LeNet-300-100",
        "resnet-20": "ResNet-20",
        LANGUAGE_MODEL: "SmolLM2-135M",
    }
)
# Between which losses, in nats, and accuracies, in %, curves are drawn; some go on above, and some intervals outside.
LOSSES = MappingProxyType({"lenet-300-100": (0.3, 3.5), "resnet-20": (0.2, 3.5), LANGUAGE_MODEL: (3.0, 8.0)})
ACCURACIES = MappingProxyType({"lenet-300-100": (0, 92), "resnet-20": (0, 95), LANGUAGE_MODEL: (0, 40)})


def draw(models: Mapping[str, Any], path: Path) -> None:
    """Draws accuracy (above) and loss (below) over sparsity, a column for each model."""
    figure = Figure(figsize=(4.4 * len(models), 7.6), layout="constrained")
    grid = figure.subplots(2, len(models), squeeze=False)
    for column, (name, found) in enumerate(models.items()):
        for axes, metric in zip(grid[:, column], ("accuracy", "loss"), strict=True):
            draw_panel(axes, found["rows"], metric, (ACCURACIES if metric == "accuracy" else LOSSES)[name])
        grid[0, column].set_title(TITLES[name])
    by_label: dict[str, Any] = {}
    for axes in chain.from_iterable(grid):
        by_label.update({str(label): line for line, label in zip(*axes.get_legend_handles_labels(), strict=True)})
    figure.legend(by_label.values(), by_label.keys(), loc="outside lower center", ncols=6, frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context({"svg.hashsalt": "score-worth"}):  # the same bytes each time
        FigureCanvasSVG(figure).print_svg(path, metadata={"Date": None})


def draw_panel(axes: Axes, rows: Sequence[Mapping[str, Any]], metric: str, limits: tuple[float, float]) -> None:
    """Draws one metric of one model."""
    scale = 100 if metric == "accuracy" else 1
    dense = next(row for row in rows if row["score"] == DENSE)
    axes.axhline(scale * dense[metric]["mean"], color="0.4", linewidth=1, linestyle="--", label="dense")
    for score, (colour, marker) in STYLES.items():
        for scope, linestyle in (("global", "-"), ("row", ":")):
            chosen = [row for row in rows if (row["score"], row["scope"]) == (score, scope)]
            if chosen:
                draw_score(axes, chosen, metric, scale, colour=colour, marker=marker, linestyle=linestyle)
    sparsities = sorted({row["sparsity"] for row in rows} - {0.0})
    axes.set_xscale("log")
    axes.invert_xaxis()
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks([1 - sparsity for sparsity in sparsities], [f"{100 * sparsity:.0f}" for sparsity in sparsities])
    axes.set_xlabel("sparsity, %")
    axes.set_ylim(limits)
    axes.grid(visible=True, axis="y", color="0.92")
    if metric == "accuracy":
        axes.set_ylabel("test accuracy, %")
    else:
        axes.set_yscale("log")
        for setter in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
            setter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.set_ylabel("test loss, nats")


def draw_score(
    axes: Axes,
    rows: Sequence[Mapping[str, Any]],
    metric: str,
    scale: float,
    *,
    colour: str,
    marker: str,
    linestyle: str,
) -> None:
    """Draws one score's curve with its intervals."""
    cells = [row[metric] for row in rows]
    errors = [[scale * (c["mean"] - c["low"]) if c["low"] is not None else 0.0 for c in cells]]
    errors.append([scale * (c["high"] - c["mean"]) if c["high"] is not None else 0.0 for c in cells])
    label = rows[0]["score"] + (", rows" if rows[0]["scope"] == "row" else "")
    axes.errorbar(
        [1 - row["sparsity"] for row in rows],
        [scale * cell["mean"] for cell in cells],
        yerr=errors,
        color=colour,
        marker=marker,
        markersize=4,
        linewidth=1.2,
        linestyle=linestyle,
        capsize=2,
        label=label,
    )


if __name__ == "__main__":
    main()
