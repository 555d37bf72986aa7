"""Perplexity of SmolLM2-135M over sparsity, pruned in one shot by several scores, without retraining.

Each replicate is a draw of calibration texts, which scores are computed on, and one of test texts, which perplexity is
measured on; all sequences are of one length. Scores are compared on the same texts of each replicate.

`PYTHONPATH=src python -m benchmarks.checkpoints.perplexity_study` computes what is missing in runs/perplexity, part by
part, so it goes on where it was stopped; the last part writes benchmarks/results/perplexity.json and
docs/figures/perplexity.svg.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Final, final

from torch import Tensor, nn

from benchmarks.checkpoints.perplexity_figure import draw_perplexity
from benchmarks.common import FIGURES, describe_machine, write_results
from benchmarks.studies.parts import keep, sum_up
from lottery_tickets import (
    Mask,
    compute_fisher_importance,
    compute_wanda_importance,
    create_importance_mask,
    create_magnitude_mask,
    masked,
)
from lottery_tickets._core.determinism import derive_seed
from lottery_tickets._core.files import read_json
from lottery_tickets._core.measuring.performance import Measurement, measure
from lottery_tickets.scores.importance import Importance
from lottery_tickets.workloads import create_token_batches, load_smollm2, load_speeches
from statistical_report_generator.figures.style import save_figure

SEED: Final = 0
NUM_REPLICATES: Final = 3
NUM_CALIBRATION_TEXTS: Final = 16
NUM_TEST_TEXTS: Final = 4
NUM_TOKENS: Final = 256  # a text
TEXTS_A_BATCH: Final = 4
SPARSITIES: Final = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
LOST: Final = math.log(2000.0)  # nats; a model this bad is not pruned further
DENSE: Final = "dense"
METHODS: Final = (
    ("Wanda", "row"),
    ("Wanda", "2:4"),
    ("magnitude", "global"),
    ("magnitude", "layer"),
    ("magnitude", "row"),
    ("magnitude", "2:4"),
    ("saliency", "global"),
)
FOLDER: Final = Path("runs/perplexity")
Batches = list[dict[str, Tensor]]


@final
@dataclass
class Subject:
    """The model with the texts of one replicate.

    Attributes:
        model: The same in each.
        calibration: Texts that scores are computed on, of speeches before 2000.
        tests: Texts of later ones.
        scores: Those that are computed, by name.
    """

    model: nn.Module
    calibration: Batches
    tests: Batches
    scores: dict[str, Importance] = field(default_factory=dict)

    def make_mask(self, score: str, scope: str, sparsity: float) -> Mask:
        """Returns the mask of a score in a scope."""
        if score == "magnitude":
            return self._make_magnitude_mask(scope, sparsity)
        if score not in self.scores:
            number = NUM_CALIBRATION_TEXTS
            self.scores = {}  # one at a time: each has a float32 a weight
            self.scores[score] = (
                compute_wanda_importance(self.model, self.calibration, number)
                if score == "Wanda"
                else compute_fisher_importance(self.model, self.calibration, number, saliency=True)
            )
        return create_importance_mask(self.scores[score], sparsity, scope=scope)

    def _make_magnitude_mask(self, scope: str, sparsity: float) -> Mask:
        """Returns the mask, which is the same in each replicate and is kept."""
        file = FOLDER / "masks" / f"{scope.replace(':', '-of-')}-{sparsity}.mask"
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            create_magnitude_mask(self.model, sparsity, scope=scope).save(file)
        return Mask.load(file)


def main() -> None:
    """Computes the parts that are missing; then writes results and figure."""
    load = lru_cache(maxsize=1)(load_subject)
    for part, replicate, score, scope in list_parts():
        keep(part, partial(compute_part, load, replicate, score, scope))
    payload = assemble()
    print(write_results("perplexity", payload))
    save_figure(draw_perplexity(payload["rows"]), FIGURES / "perplexity.svg")


def list_parts() -> Iterator[tuple[Path, int, str, str]]:
    """Yields the file, the replicate, the score and the scope of each part."""
    for replicate in range(NUM_REPLICATES):
        for score, scope in ((DENSE, "none"), *METHODS):
            yield FOLDER / f"{replicate}-{score}-{scope.replace(':', '-of-')}.json", replicate, score, scope


def load_subject(replicate: int) -> Subject:
    """Returns the model with the texts of a replicate."""
    model, tokenizer = load_smollm2()
    speeches = load_speeches()

    def draw(texts: tuple[str, ...], number: int, use: str) -> Batches:
        seed = derive_seed(SEED, "replicate", replicate, use)
        shape = {"batch_size": TEXTS_A_BATCH, "num_tokens": NUM_TOKENS, "num_batches": number // TEXTS_A_BATCH}
        return create_token_batches(texts, tokenizer, **shape, seed=seed)

    return Subject(
        model,
        draw(speeches.train, NUM_CALIBRATION_TEXTS, "calibration texts"),
        draw(speeches.test, NUM_TEST_TEXTS, "test texts"),
    )


def compute_part(load: Callable[[int], Subject], replicate: int, score: str, scope: str) -> dict[str, Any]:
    """Returns the loss at each sparsity, up to where the model is lost."""
    subject = load(replicate)
    start, rows = time.perf_counter(), []
    for sparsity in (0.0,) if score == DENSE else (0.5,) if ":" in scope else SPARSITIES:
        loss = measure_loss(subject, None if score == DENSE else subject.make_mask(score, scope, sparsity))
        rows.append({"sparsity": sparsity, "loss": loss})
        print(f"{time.strftime('%H:%M:%S')} {replicate}, {score}, {scope}, {sparsity}: {loss:.3f} nats", flush=True)
        if loss > LOST:
            break
    return {"machine": describe_machine(), "seconds": time.perf_counter() - start, "rows": rows}


def measure_loss(subject: Subject, mask: Mask | None) -> float:
    """Returns the mean loss of the next token, under a mask where there is one."""
    if mask is None:
        loss = measure(subject.model, subject.tests, Measurement()).figures["loss"]
    else:
        with masked(subject.model, mask) as model:
            loss = measure(model, subject.tests, Measurement()).figures["loss"]
    assert loss is not None
    return loss


def assemble() -> dict[str, Any]:
    """Returns all losses with their intervals over replicates, as they are and beside the dense model's."""
    cells: dict[tuple[str, str, float], list[float]] = {}
    parts = [(read_json(part), score, scope) for part, _, score, scope in list_parts()]
    for part, score, scope in parts:
        for row in part["rows"]:
            cells.setdefault((score, scope, row["sparsity"]), []).append(row["loss"])
    dense = cells[DENSE, "none", 0.0]
    return {
        "settings": {
            "num_replicates": NUM_REPLICATES,
            "num_calibration_texts": NUM_CALIBRATION_TEXTS,
            "num_test_texts": NUM_TEST_TEXTS,
            "num_tokens": NUM_TOKENS,
            "sparsities": SPARSITIES,
            "lost_above_nats": LOST,
            "seed": SEED,
        },
        "commits": sorted({part["machine"]["commit"] for part, *_ in parts}),
        "seconds": sum(part["seconds"] for part, *_ in parts),
        "rows": [describe_cell(key, losses, dense) for key, losses in cells.items() if len(losses) == NUM_REPLICATES],
    }


def describe_cell(key: tuple[str, str, float], losses: list[float], dense: list[float]) -> Mapping[str, Any]:
    """Returns a row of the results: perplexities are of mean losses, and their intervals too."""
    score, scope, sparsity = key
    loss = sum_up(losses)
    row = {"score": score, "scope": scope, "sparsity": sparsity, "loss": {"values": losses, **loss}}
    row["perplexity"] = exponentiate(loss)
    if score != DENSE:
        rise = sum_up([one - other for one, other in zip(losses, dense, strict=True)])
        row["ratio_to_dense"] = exponentiate(rise)
    return row


def exponentiate(interval: Mapping[str, Any]) -> dict[str, Any]:
    """Returns an interval of nats as one of perplexities, or of their ratios."""
    ends = {name: None if interval[name] is None else math.exp(interval[name]) for name in ("mean", "low", "high")}
    return {**interval, **ends}


if __name__ == "__main__":
    main()
