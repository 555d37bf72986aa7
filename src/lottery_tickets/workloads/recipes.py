"""Training recipes: how the lottery-ticket papers train and prune each network.

All numbers are those of Frankle & Carbin 2019 (arXiv 1803.03635), figure 2 and appendices G to I, unless a comment says
otherwise. Change some with `dataclasses.replace(recipe, num_steps=8000)`.
"""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from types import MappingProxyType
from typing import Any, Literal

PRUNING_SCOPES = ("layer", "global")
OPTIMIZER_NAMES = ("adam", "sgd")

# The dense LeNet-300-100 has its 98 % on the digits after 300 steps. Longer training lets the controls catch up: at 4 %
# of the weights a reinitialised ticket is 1.8 points below dense after 500 steps, 0.6 after 1,500 (docs/diary.md).
DIGITS_NUM_STEPS = 600
DIGITS_EVALUATION_INTERVAL = 50


@dataclass(frozen=True)
class Recipe:
    """How one network is trained, and what share of its surviving weights each round prunes.

    Attributes:
        optimizer: One of `OPTIMIZER_NAMES`.
        optimizer_arguments: What the optimizer is given under torch's names, `lr` among it; torch's defaults otherwise.
        batch_size: Images in a step.
        num_steps: Steps in one training, the `iterations` of the papers.
        evaluation_interval: Steps from one evaluation on validation and test set to the next.
        lr_milestones: When the learning rate drops, as fractions of `num_steps`, ascending.
        lr_decay: The factor by which it drops.
        warmup_steps: Steps over which the learning rate first rises linearly from 0.
        scope: What magnitudes are compared within: "layer" or "global".
        prune_rates: For each glob pattern of parameter names the share of survivors to prune in a round. The first
            pattern that matches counts, so their order matters. Under scope "global" all parameters of one rate are
            compared together.
    """

    optimizer: str
    optimizer_arguments: Mapping[str, float]
    batch_size: int
    num_steps: int
    evaluation_interval: int
    prune_rates: Mapping[str, float]
    scope: Literal["layer", "global"]
    lr_milestones: tuple[float, ...] = ()
    lr_decay: float = 0.1
    warmup_steps: int = 0

    def __post_init__(self) -> None:
        """Checks every field.

        Raises:
            ValueError: A field is outside its range.
        """
        _check(self.optimizer in OPTIMIZER_NAMES, "optimizer", f"be one of {OPTIMIZER_NAMES}", self.optimizer)
        lr = self.optimizer_arguments.get("lr", 0.0)
        _check(lr > 0, "optimizer_arguments", "hold a positive lr", dict(self.optimizer_arguments))
        for name in ("batch_size", "num_steps", "evaluation_interval"):
            _check(getattr(self, name) >= 1, name, "be at least 1", getattr(self, name))
        in_order = (0.0, *self.lr_milestones, 1.0)
        ascending = all(earlier < later for earlier, later in pairwise(in_order))
        _check(ascending, "lr_milestones", "ascend strictly between 0 and 1", self.lr_milestones)
        _check(0 < self.lr_decay <= 1, "lr_decay", "lie above 0 and at most at 1", self.lr_decay)
        in_range = 0 <= self.warmup_steps <= self.num_steps
        _check(in_range, "warmup_steps", f"lie between 0 and num_steps = {self.num_steps}", self.warmup_steps)
        _check(self.scope in PRUNING_SCOPES, "scope", f"be one of {PRUNING_SCOPES}", self.scope)
        for pattern, rate in self.prune_rates.items():
            _check(0 <= rate < 1, f"prune_rates[{pattern!r}]", "lie in [0, 1)", rate)

    def to_dict(self) -> dict[str, Any]:
        """Returns a JSON-able dict; `prune_rates` is a list of pairs, for the order of its patterns matters.

        >>> Recipe.from_dict(paper_recipe("conv-6").to_dict()) == paper_recipe("conv-6")
        True
        """
        plain = {field.name: getattr(self, field.name) for field in fields(self)}
        return plain | {
            "optimizer_arguments": dict(self.optimizer_arguments),
            "prune_rates": [list(pair) for pair in self.prune_rates.items()],
            "lr_milestones": list(self.lr_milestones),
        }

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> "Recipe":
        """Returns the recipe that `to_dict` made a dict of.

        Args:
            plain: The dict, perhaps read back from JSON.

        Raises:
            ValueError: A key is missing or unknown, or a field is outside its range.
        """
        names = {field.name for field in fields(cls)}
        if set(plain) != names:
            raise ValueError(
                f"a recipe must have the keys {sorted(names)}, but lacks {sorted(names - set(plain))} and has "
                f"{sorted(set(plain) - names)} besides; was it written by another version?"
            )
        rates: Sequence[tuple[str, float]] = plain["prune_rates"]
        return cls(**{**plain, "prune_rates": dict(rates), "lr_milestones": tuple(plain["lr_milestones"])})


def paper_recipe(model_name: str) -> Recipe:
    """Returns the recipe of Frankle & Carbin 2019 (1803.03635, figure 2) for a model.

    Two things to know about ResNet-20. The paper trains it on randomly flipped and shifted images, which is not done
    here. And at this learning rate, the usual one, the paper finds no tickets by rewinding to step 0: it lowers the
    rate to 0.01, or warms up to 0.03 over 20,000 steps (section 5). Rewinding to a later step (1903.01611) is the other
    way.

    Args:
        model_name: One of `MODEL_NAMES`.

    Raises:
        ValueError: The name is unknown.

    Examples:
        >>> paper_recipe("lenet-300-100").optimizer_arguments
        {'lr': 0.0012}
    """
    if model_name not in _PAPER_RECIPES:
        raise ValueError(f"model must be one of {', '.join(_PAPER_RECIPES)}, got {model_name!r}; choose one of these")
    return deepcopy(_PAPER_RECIPES[model_name])


def digits_recipe(model_name: str) -> Recipe:
    """Returns the paper's recipe for a model, shortened for 1,079 training images of 8 x 8.

    Args:
        model_name: One of `MODEL_NAMES`.

    Raises:
        ValueError: The name is unknown.

    Examples:
        >>> digits_recipe("lenet-300-100").num_steps
        600
    """
    return replace(paper_recipe(model_name), num_steps=DIGITS_NUM_STEPS, evaluation_interval=DIGITS_EVALUATION_INTERVAL)


def _check(holds: bool, name: str, rule: str, got: object) -> None:  # noqa: FBT001 - reads as a sentence at its calls
    """Raises a ValueError that says what a field must do, unless it holds."""
    if not holds:
        raise ValueError(f"{name} of a recipe must {rule}, got {got!r}; change it")


# "Connections to outputs are pruned at half of the rate of the rest of the network" (section 2).
_CONV_2_4_RATES = {"output.weight": 0.10, "convs.*": 0.10, "*": 0.20}
_CONV_6_RATES = {"output.weight": 0.10, "convs.*": 0.15, "*": 0.20}
# "We do not prune the 2560 parameters used to downsample residual connections or the 640 parameters in the
# fully-connected output layer" (appendix I).
_RESNET_RATES = {"output.weight": 0.0, "*.shortcut.*": 0.0, "*": 0.20}


def _adam_recipe(lr: float, num_steps: int, prune_rates: Mapping[str, float]) -> Recipe:
    """Returns what the networks without residual connections have in common."""
    return Recipe(
        optimizer="adam",
        optimizer_arguments={"lr": lr},
        batch_size=60,
        num_steps=num_steps,
        evaluation_interval=100,  # appendix G.1
        prune_rates=prune_rates,
        scope="layer",
    )


_PAPER_RECIPES: Mapping[str, Recipe] = MappingProxyType(
    {
        "lenet-300-100": _adam_recipe(1.2e-3, 50_000, {"output.weight": 0.10, "*": 0.20}),
        "conv-2": _adam_recipe(2e-4, 20_000, _CONV_2_4_RATES),
        "conv-4": _adam_recipe(3e-4, 25_000, _CONV_2_4_RATES),
        "conv-6": _adam_recipe(3e-4, 30_000, _CONV_6_RATES),
        "resnet-20": Recipe(
            optimizer="sgd",
            optimizer_arguments={"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-4},
            batch_size=128,
            num_steps=30_000,
            evaluation_interval=100,
            prune_rates=_RESNET_RATES,
            scope="global",  # section 5: deeper networks are pruned across all convolutions together
            lr_milestones=(20 / 30, 25 / 30),  # a tenth after 20,000 and again after 25,000 steps
        ),
    }
)
