"""Scores of weights, by the names and formulas that results give them: in words, with their papers."""

from typing import Final

# Names as commands give them, formulas as `Importance.report["score"]` has them.
MAGNITUDE: Final = ("their magnitude", ("han2015learning",))
FISHER: Final = ("the diagonal of the empirical Fisher information", ("kirkpatrick2017overcoming",))
SALIENCY: Final = (
    "half the diagonal of the empirical Fisher information times the squared weight",
    ("kirkpatrick2017overcoming",),
)
TAYLOR: Final = ("gradient times weight", ("molchanov2019importance",))
SNIP: Final = ("their connection sensitivity", ("lee2019snip",))
GRASP: Final = ("weight times Hessian times gradient", ("wang2020picking",))
SYNFLOW: Final = ("synaptic flow", ("tanaka2020pruning",))
WANDA: Final = ("magnitude times the norm of inputs", ("sun2024simple",))
MOVEMENT: Final = ("the sum of minus gradient times weight over training", ("sanh2020movement",))
SCORES: Final[dict[str, tuple[str, tuple[str, ...]]]] = {
    "magnitude": MAGNITUDE,
    "|w|": MAGNITUDE,
    "fisher": FISHER,
    "mean of gradient^2": FISHER,
    "saliency": SALIENCY,
    "0.5 * mean of gradient^2 * w^2": SALIENCY,
    "taylor": TAYLOR,
    "taylor-unit": TAYLOR,
    "mean of |gradient * w|": TAYLOR,
    "mean of (gradient * w)^2": TAYLOR,
    "mean of |sum over the unit of gradient * w|": TAYLOR,
    "mean of (sum over the unit of gradient * w)^2": TAYLOR,
    "snip": SNIP,
    "|w * mean of gradient| / sum over all weights": SNIP,
    "grasp": GRASP,
    "w * (Hessian @ gradient)": GRASP,
    "synflow": SYNFLOW,
    "synaptic flow": SYNFLOW,
    "wanda": WANDA,
    "|w| * norm of inputs": WANDA,
    "movement": MOVEMENT,
    "sum over steps of -gradient * w": MOVEMENT,
    "gradient": ("the magnitude of gradients", ()),
    "mean of |gradient|": ("the mean magnitude of gradients", ()),
    "|mean of gradient|": ("the magnitude of the mean gradient", ()),
    "random": ("chance", ()),
}


def find_score(name: str) -> tuple[str, tuple[str, ...]]:
    """Returns a score in words and the keys of its papers; one that is not known is called by its name.

    Args:
        name: Or formula, as results have it.

    Examples:
        >>> find_score("|w|")
        ('their magnitude', ('han2015learning',))
    """
    return SCORES.get(name, (name or "a score that the results do not name", ()))
