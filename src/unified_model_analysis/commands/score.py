"""`lottery-tickets score`: the importance of each weight of a network, its summary, and a mask from it."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from lottery_tickets import ScoringOptions
from unified_model_analysis.held_results import check_place
from unified_model_analysis.networks import LoadedNetwork, load_images, load_own, load_text
from unified_model_analysis.options import ComputationOptions, FileOutput, NetworkOptions, list_settings, take_help

if TYPE_CHECKING:
    from lottery_tickets import Importance, Mask

Method = Literal[
    "fisher", "saliency", "taylor", "taylor-unit", "gradient", "hybrid", "magnitude", "snip", "grasp", "wanda"
]

METHODS: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "fisher": ("compute_fisher_importance", {}),
    "saliency": ("compute_fisher_importance", {"saliency": True}),
    "taylor": ("compute_taylor_importance", {}),
    "taylor-unit": ("compute_taylor_importance", {"granularity": "unit"}),
    "gradient": ("compute_gradient_importance", {}),
    "hybrid": ("compute_hybrid_importance", {}),
    "snip": ("compute_snip_importance", {}),
    "grasp": ("compute_grasp_importance", {}),
    "wanda": ("compute_wanda_importance", {}),
}
GRADIENT_OPTIONS: Final = ("chunk_size", "gradient_clip", "standard_errors")
UNKNOWN_TO: Final = {"grasp": GRADIENT_OPTIONS, "wanda": GRADIENT_OPTIONS, "hybrid": ("standard_errors",)}
NUM_IMAGES: Final = 64  # a batch
NUM_SEQUENCES: Final = 8  # a batch


@dataclass(frozen=True)
class Score(ComputationOptions, NetworkOptions, FileOutput):
    """Score the weights of a network on data, show them by layer, and make a mask of the largest scores.

    The network is one of the workloads, with the weights of a checkpoint, or a language model with text. Which score
    answers which question: docs/which-score.md.

    Example: `lottery-tickets score --output scores.json --checkpoint trained.safetensors --num-samples 100
    --output-mask b.mask`

    Attributes:
        output: The JSON file to write, a summary: report, quantiles, histograms and heat maps by layer.
        method: "saliency" is 0.5 * F * w^2, what removing a weight costs; "fisher" is F alone.
        num_samples: Samples at most; "auto" doubles them until the ranking at --sparsity has settled.
        sparsity: Fraction removed by the mask.
        scope: What is compared with what: "global", "layer", "row", "erk", "lamp", or N:M such as "2:4".
        output_mask: Where the mask goes, .safetensors.
        output_scores: Where the scores themselves go, a .safetensors file of float32 tensors.
        num_tokens: Tokens a sequence; a sequence is a sample.
        batch_size: Samples a batch, 64 images or 8 sequences when not given; changes speed and memory, not the scores.
        include: Glob patterns of parameter names to score instead of the default choice.
        exclude: Glob patterns of parameter names to leave out.
        seed: Of fresh weights, and of labels and batches that are drawn.
    """

    method: Method = "saliency"
    num_samples: int | Literal["auto"] = 1000
    sparsity: float = 0.5
    scope: str = "global"
    output_mask: Path | None = None
    output_scores: Path | None = None
    batch_size: int | None = None
    chunk_size: Annotated[int | None, take_help(ScoringOptions, "chunk_size")] = ScoringOptions.chunk_size
    gradient_clip: Annotated[float | None, take_help(ScoringOptions, "gradient_clip")] = ScoringOptions.gradient_clip
    standard_errors: Annotated[bool, take_help(ScoringOptions, "standard_errors")] = ScoringOptions.standard_errors
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def run(self) -> int:
        """Scores, saves and shows; returns the exit code."""
        from lottery_tickets import create_importance_mask
        from lottery_tickets.storage import Record, save_weights
        from lottery_tickets.utils import check_count, check_device

        check_device(self.device)
        record = Record("importance", list_settings(self))
        for path in (self.output, self.output_mask, self.output_scores):
            if path is not None:
                check_place(path, force=self.force)
        record.find_file(self.output)
        if self.batch_size is not None:
            check_count("--batch-size", self.batch_size)
        loaded = self._load()
        importance = self._score(loaded)
        mask = create_importance_mask(importance, self.sparsity, scope=self.scope)
        found = {"sparsity": self.sparsity, "scope": self.scope, "layer_sparsities": mask.layer_sparsity()}
        record.save({"network": loaded.name, "importance": importance, **found}, self.output)
        if self.output_scores is not None:
            save_weights(importance, self.output_scores, metadata={"score": importance.report["score"]})
        if self.output_mask is not None:
            mask.save(self.output_mask)
        self._show(importance, mask)
        return 0

    def _score(self, loaded: LoadedNetwork) -> "Importance":
        import lottery_tickets as lt

        network = loaded.network.to(self.device)
        chosen: dict[str, Any] = {"include": list(self.include) or None, "exclude": list(self.exclude) or None}
        if self.method == "magnitude":
            return lt.compute_magnitude_importance(network, **chosen)
        name, options = METHODS[self.method]
        options = {**options, **chosen, "num_samples": self.num_samples, "seed": self.seed, "progress": True}
        options["loss_fn"] = loaded.loss_fn
        unknown = UNKNOWN_TO.get(self.method, ())
        self._refuse(f"method {self.method!r}", *unknown)
        if self.num_samples == "auto" and unknown == GRADIENT_OPTIONS:
            raise ValueError(f"--num-samples must be a number for method {self.method!r}, got 'auto'")
        if self.method == "hybrid":
            options["rank_within"] = self.scope if self.scope in {"layer", "row"} else "global"
        if unknown != GRADIENT_OPTIONS:
            options["options"] = ScoringOptions(
                chunk_size=self.chunk_size,
                gradient_clip=self.gradient_clip,
                standard_errors=self.standard_errors,
                target_sparsity=self.sparsity,
                scope=self.scope,
            )
        importance: Importance = getattr(lt, name)(network, loaded.batches, **options)
        return importance

    def _refuse(self, what: str, *options: str) -> None:
        given = [f"--{name.replace('_', '-')}" for name in options if getattr(self, name) != getattr(Score, name)]
        if given:
            raise ValueError(f"{what} does not know {', '.join(given)}; leave it out or choose another method")

    def _load(self) -> LoadedNetwork:
        if self.source is not None:
            return load_own(self)
        if not self.language_model:
            return load_images(self, batch_size=self.batch_size or NUM_IMAGES, seed=self.seed)
        if self.num_samples == "auto":
            raise ValueError("--num-samples must be a number for a language model, to cut the text; got 'auto'")
        size = self.batch_size or NUM_SEQUENCES
        return load_text(self, batch_size=size, num_batches=-(-self.num_samples // size), seed=self.seed)

    def _show(self, importance: "Importance", mask: "Mask") -> None:
        print(f"{self.output}: {importance.report['score']}")
        for key, value in importance.report.items():
            if key not in {"score", "settling"} and value is not None:
                print(f"  {key}: {value}")
        print(f"mask at sparsity {self.sparsity:g}, scope {self.scope}: {mask.num_kept} of {mask.num_weights} kept")
        print(_tabulate(importance, mask))


def _tabulate(importance: "Importance", mask: "Mask") -> str:
    from statistical_report_generator.rows import format_rows

    errors = importance.standard_errors
    rows = [("mean score", "largest", "removed", "weights")]
    for name, sparsity in mask.layer_sparsity().items():
        score = importance[name]
        spread = "" if errors is None else f", largest standard error {float(errors[name].max()):.2e}"
        figures = f"{float(score.mean()):.3e}", f"{float(score.max()):.3e}", f"{sparsity:.2%}"
        rows.append((*figures, f"{name} {tuple(score.shape)}{spread}"))
    return format_rows(rows, align=">>><")
