"""What a claim on a ticket consists of: plain dicts, JSON-able, without NaN."""

from typing import Literal, TypedDict

LevelVerdict = Literal["matching", "not matching", "undecided"]
ControlVerdict = Literal["beaten", "better", "equal", "undecided"]
WinningVerdict = Literal["winning", "not winning", "not shown"]


class PValues(TypedDict):
    """P values of one hypothesis at one level, alone and corrected by Holm's method; both 1 with too few replicates."""

    p_value: float
    adjusted_p_value: float


class PairedDifference(TypedDict):
    """A difference of the metric, paired by replicate.

    Attributes:
        mean: In units of the metric; None without a pair.
        low: Lower end of the 95 % Student t interval, not corrected; None with fewer than 2 pairs.
        high: Upper end.
        median: In units of the metric; None without a pair.
        std: Sample standard deviation of the differences; None with fewer than 2 pairs.
        num_replicates: Pairs.
        num_unpaired: Replicates left out because one of the two is missing.
        test: "t", on the mean; "sign", on the median, also where all differences are equal, so that there is no t;
            "none" with fewer than 2 pairs.
    """

    mean: float | None
    low: float | None
    high: float | None
    median: float | None
    std: float | None
    num_replicates: int
    num_unpaired: int
    test: Literal["t", "sign", "none"]


class MoreRuns(TypedDict):
    """How many further replicates would decide with a chance of 80 %, if mean and spread are as seen so far.

    `bound` is "" when `num` is that number, else it is "at least" or "more than" `num`.
    """

    num: int
    bound: Literal["", "at least", "more than"]


class Apart(TypedDict):
    """A replicate that stands apart from the others.

    Attributes:
        replicate: Which.
        difference: Ticket minus dense there.
        p_value: That one normal distribution gave all, by Grubbs' test, corrected over the levels by Holm's method.
    """

    replicate: int
    difference: float
    p_value: float


class DenseClaim(TypedDict):
    """A ticket against the dense network; see `AgainstDense` for what each test shows.

    Attributes:
        verdict: Whether it is matching.
        is_equivalent: Whether the difference is shown to be smaller than the margin on both sides.
        is_better: Whether the ticket is shown to be better than dense; it is matching then.
        is_worse: Whether the ticket is shown to be worse than dense, even if by less than the margin.
        ticket_minus_dense: The difference.
        apart: The replicate that stands apart from the others, whose tail a t test does not know of; None without.
        more_runs: None when decided.
    """

    verdict: LevelVerdict
    is_equivalent: bool
    is_better: bool
    is_worse: bool
    ticket_minus_dense: PairedDifference
    apart: Apart | None
    more_runs: MoreRuns | None
    not_worse: PValues
    not_better: PValues
    equivalent: PValues
    worse: PValues
    above: PValues
    below: PValues


class ControlClaim(TypedDict):
    """A ticket against one of its controls; see `AgainstControls` for what each test shows."""

    control: str
    verdict: ControlVerdict
    ticket_minus_control: PairedDifference
    beaten: PValues
    better: PValues
    equal: PValues


class WinningClaim(TypedDict):
    """Whether a ticket wins.

    Attributes:
        winning: None when a control is missing, for then nothing can be said.
        winning_reason: Why, in words.
        winning_test: That the ticket is matching and beats every control; None when a control is missing.
        missing_controls: Required controls that this level lacks.
        controls: The required controls that are there.
    """

    winning: WinningVerdict | None
    winning_reason: str
    winning_test: PValues | None
    missing_controls: list[str]
    controls: list[ControlClaim]


class LevelClaim(DenseClaim, WinningClaim):
    """What can be claimed of the ticket of one level: after `level` rounds of pruning, with this share of weights."""

    level: int
    density: float


class Claims(TypedDict):
    """Claims on all pruned levels of one experiment, with the settings they depend on; JSON-able.

    `num_looks` were planned, `looks_taken` counts this one and those before it. `alpha_per_look` is alpha over the
    larger of both: what adjusted p values are compared with. `alpha_spent` bounds the error of all looks so far.
    `test` says whether claims are on the mean ("t") or on the median ("sign"). `caveats` are sentences on what the run
    folder could not make sure of.
    """

    metric: str
    moment: str
    higher_is_better: bool
    margin: float
    alpha: float
    test: Literal["t", "sign"]
    num_looks: int
    looks_taken: int
    caveats: list[str]
    alpha_per_look: float
    alpha_spent: float
    required_controls: list[str]
    levels: list[LevelClaim]
