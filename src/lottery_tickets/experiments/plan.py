"""What an experiment consists of: its settings, and the list of trainings that follows from them."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal, Self, final, get_args

from lottery_tickets._core.determinism import derive_seed
from lottery_tickets._core.folders import hash_json
from lottery_tickets._core.reading import Form, Maybe, check_form
from lottery_tickets.experiments.schedules import SCHEDULE_FORM, PruningSchedule
from lottery_tickets.masks.holding import Others

Branch = Literal["ticket", "reinitialised", "shuffled", "random", "exponents", "super", "copy", "shared"]
CONTROLS: Final[tuple[Branch, ...]] = ("reinitialised", "shuffled", "random")
FROZEN_CONTROLS: Final[tuple[Branch, ...]] = ("shuffled", "exponents", "super")  # where other weights are frozen
GROWING: Final = frozenset({"num_levels", "control_levels", "num_replicates", "controls", "copy_levels"})
MOST_LEVELS: Final = 1000
MOST_REPLICATES: Final = 10_000
PLAN_FORM: Final[Form] = {
    "subject": dict,
    "schedule": SCHEDULE_FORM,
    "control_levels": [int],
    "controls": [str],
    "num_levels": int,
    "num_steps": int,
    "num_replicates": Maybe(int),
    "copy_levels": Maybe([int]),
    "others": Maybe(str),
    "super_weights": Maybe({...: [int]}),
}
FRESH: Final = frozenset({"reinitialised", "random"})  # branches that start from a fresh initialisation


@final
@dataclass(frozen=True)
class ExperimentPlan:
    """The settings of an iterative-magnitude-pruning experiment; JSON-able, and all that a run folder is compared by.

    Attributes:
        subject: What is trained and how, as its `Subject` describes it.
        schedule: Shares removed a round.
        num_levels: Rounds of pruning after the dense training, level 0.
        num_steps: Steps (or epochs, with a caller's trainer) of a full training.
        rewind_step: k of theta_k; 0 rewinds to the initial weights.
        rewinding: "weights" sets survivors back to theta_k (Frankle & Carbin 1803.03635, 1903.01611); "learning_rate"
            keeps the trained weights and sets only the schedule back (Renda et al. 2003.02389).
        control_levels: Levels at which the controls are trained too.
        num_replicates: Independent repetitions.
        seed: Names the experiment; every use of chance derives its own seed from it.
        ticket_sha256: The digest of the mask of level 1, where it is given; None where tickets are found by pruning.
        data_order: "same" shows each level of a replicate the batches in the same order, "fresh" in another.
        controls: What is trained at the control levels.
        copy_levels: Levels at which the ticket is trained a second time, from the same weights, in another data order:
            a pair whose instability can be measured (Frankle et al., arXiv 1912.05671). Where there are any, the run is
            *parted*: theta_k comes from a training of its own, to step k, and all others start there anew, so that
            both copies are alike. Of a ticket that is given, only these levels are trained.
        others: What the weights are that a mask does not keep: "zero", or "frozen" at what they start from.
        super_weights: By name, flat positions of weights that the control "super" always keeps.
    """

    subject: Mapping[str, Any]
    schedule: PruningSchedule
    num_levels: int
    num_steps: int
    rewind_step: int = 0
    rewinding: Literal["weights", "learning_rate"] = "weights"
    control_levels: tuple[int, ...] = ()
    num_replicates: int = 1
    seed: int = 0
    data_order: Literal["same", "fresh"] = "same"
    controls: tuple[Branch, ...] = field(default=CONTROLS)
    ticket_sha256: str | None = None
    copy_levels: tuple[int, ...] = ()
    others: Others = "zero"
    super_weights: Mapping[str, Sequence[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("num_levels", "num_steps", "rewind_step", "num_replicates", "seed"):
            _check(type(getattr(self, name)) is int, name, "a whole number", getattr(self, name))
        _check(0 <= self.num_levels <= MOST_LEVELS, "num_levels", f"from 0 to {MOST_LEVELS}", self.num_levels)
        _check(self.num_steps >= 1, "num_steps", "at least 1", self.num_steps)
        _check(0 <= self.rewind_step < self.num_steps, "rewind_step", f"in [0, {self.num_steps})", self.rewind_step)
        _check(
            self.rewinding in ("weights", "learning_rate"), "rewinding", "'weights' or 'learning_rate'", self.rewinding
        )
        _check(self.data_order in ("same", "fresh"), "data_order", "'same' or 'fresh'", self.data_order)
        replicates = self.num_replicates
        _check(1 <= replicates <= MOST_REPLICATES, "num_replicates", f"from 1 to {MOST_REPLICATES}", replicates)
        given = self.ticket_sha256 is not None
        _check(not given or self.num_levels == 1, "num_levels", "1 where the ticket is given", self.num_levels)
        allowed_others = get_args(Others) if given and not self.is_parted else ("zero",)
        _check(self.others in allowed_others, "others", f"among {list(allowed_others)}", self.others)
        _check(
            bool(self.super_weights) or "super" not in self.controls,
            "super_weights",
            "some weights for the control 'super'",
            dict(self.super_weights),
        )
        controls = CONTROLS if self.others == "zero" else FROZEN_CONTROLS
        pruned, levels = range(1, self.num_levels + 1), range(self.num_levels + 1)
        for name, allowed, where in (
            ("controls", controls, f"among {list(controls)}"),
            ("control_levels", pruned, f"in {pruned}"),
            ("copy_levels", levels, f"in {levels}"),
        ):
            named = getattr(self, name)
            _check(
                set(named) <= set(allowed) and len(set(named)) == len(named), name, f"{where}, each once", list(named)
            )

    def to_dict(self) -> dict[str, Any]:
        """Returns the plan as JSON-able values; what few runs have is there where it is not the default."""
        values = asdict(self)
        rare = {"copy_levels": (), "others": "zero", "super_weights": {}}
        return {name: value for name, value in values.items() if name not in rare or value != rare[name]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Returns the plan that `to_dict` described, also after a trip through JSON.

        Raises:
            ValueError: When the values do not describe a plan.
        """
        check_form(values, PLAN_FORM, "the plan")
        try:
            schedule = PruningSchedule.from_dict(values["schedule"])
            tuples = {name: tuple(values[name]) for name in ("control_levels", "controls")}
            copies = tuple(values.get("copy_levels", ()))
            return cls(**{**values, **tuples, "copy_levels": copies, "schedule": schedule})
        except (KeyError, TypeError, AttributeError) as error:
            message = (
                f"the plan of an experiment must have the fields of ExperimentPlan, but: {error}; was the file altered?"
            )
            raise ValueError(message) from error

    @property
    def recipe_sha256(self) -> str:
        """The hash of what is the same for all trainings, however large the experiment grows."""
        fixed = {name: value for name, value in self.to_dict().items() if name not in GROWING}
        parted = {"is_parted": True} if self.is_parted else {}
        return hash_json({**fixed, **parted, "schedule": self.schedule.without_targets.to_dict()})

    @property
    def is_parted(self) -> bool:
        """Whether tickets are trained in pairs."""
        return bool(self.copy_levels)

    @property
    def trains_given_ticket(self) -> bool:
        """Whether there is a given ticket, and a training of it."""
        return self.ticket_sha256 is not None and 1 in self._list_levels()

    @property
    def num_trainings(self) -> int:
        """How many trainings there are in all."""
        in_pairs = len(self.copy_levels) + self.is_parted
        return self.num_replicates * (
            len(self._list_levels()) + in_pairs + len(self.control_levels) * len(self.controls)
        )

    def list_trainings(self, replicate: int) -> list["Training"]:
        """Returns the trainings of one replicate, each after those it starts from."""
        branches: list[tuple[int, Branch]] = [(0, "shared")] if self.is_parted else []
        for level in self._list_levels():
            branches.append((level, "ticket"))
            branches += [(level, "copy")] if level in self.copy_levels else []
            branches += [(level, control) for control in self.controls if level in self.control_levels]
        return [Training(replicate, level, branch) for level, branch in branches]

    def _list_levels(self) -> list[int]:
        """Returns the levels at which something is trained."""
        if self.is_parted and self.ticket_sha256 is not None:
            return sorted({*self.copy_levels, *self.control_levels})
        return list(range(self.num_levels + 1))

    def find_origin(self, replicate: int) -> "Training":
        """Returns the training of a replicate that starts from theta_0 and gives theta_k, which others start from."""
        return Training(replicate, 0, "shared" if self.is_parted else "ticket")

    def find_first(self, replicate: int) -> "Training":
        """Returns the first whole training of a replicate: two replicates whose first ends alike are one."""
        return Training(replicate, self._list_levels()[0], "ticket")

    def list_all_trainings(self) -> list["Training"]:
        """Returns the trainings of all replicates."""
        return [training for replicate in range(self.num_replicates) for training in self.list_trainings(replicate)]


@final
@dataclass(frozen=True)
class Training:
    """One training of an experiment: which replicate, how many rounds of pruning, the ticket or which control."""

    replicate: int
    level: int
    branch: Branch

    @property
    def path(self) -> str:
        """Its folder within the run folder."""
        return f"replicate-{self.replicate}/level-{self.level:02d}-{self.branch}"

    @property
    def name(self) -> str:
        """What it is called in sentences."""
        if self == self.dense:
            return "dense network"
        names = {"ticket": "ticket", "copy": "copy in another data order", "shared": "beginning that all share"}
        return names.get(self.branch, f"{self.branch} control")

    def derive_seeds(self, plan: ExperimentPlan) -> dict[str, int]:
        """Returns the seeds of its initialisation, its data order and its mask, each of its own."""
        replicate = ("replicate", self.replicate)
        own = (*replicate, "level", self.level, self.branch)
        order = own if plan.data_order == "fresh" else replicate
        if self.branch in ("copy", "shared"):
            order = (*order, self.branch)
        # Fresh weights have a seed of their own, so that one more control changes no other branch.
        start = own if self.branch in FRESH else replicate
        return {
            "initialisation": derive_seed(plan.seed, *start, "initialisation"),
            "data_order": derive_seed(plan.seed, *order, "data order"),
            "mask": derive_seed(plan.seed, *own, "mask"),
        }

    @property
    def ticket(self) -> "Training":
        """The ticket of its level, whose mask a control takes or scrambles."""
        return Training(self.replicate, self.level, "ticket")

    @property
    def dense(self) -> "Training":
        """The dense training of its replicate."""
        return Training(self.replicate, 0, "ticket")

    @property
    def parent(self) -> "Training":
        """The ticket one level up, whose trained weights are pruned."""
        return Training(self.replicate, self.level - 1, "ticket")

    def first_step(self, plan: ExperimentPlan) -> int:
        """Returns the steps its starting weights have already been trained for."""
        return 0 if self == plan.find_origin(self.replicate) or self.branch in FRESH else plan.rewind_step

    def last_step(self, plan: ExperimentPlan) -> int:
        """Returns the step it ends after."""
        return plan.rewind_step if self.branch == "shared" else plan.num_steps


def _check(holds: bool, name: str, allowed: str, got: object) -> None:  # noqa: FBT001 - reads as a sentence at its call
    if not holds:
        message = f"{name} must be {allowed}, but got {got!r}"
        raise ValueError(message)
