"""How many weights survive each round of iterative pruning, exactly."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatchcase
from typing import Any, Final, Literal, Self, final

from lottery_tickets._core.reading import Form

MAX_LEVELS: Final = 1000
SCHEDULE_FORM: Final[Form] = {
    "prune_rates": [[(str, float)]],
    "scope": str,
    "target_sparsity": (float, None),
    "passed_targets": [float],
}
Scope = Literal["global", "layer"]


@final
@dataclass(frozen=True)
class LayerGroup:
    """Layers whose weights are ranked together and lose the same share of survivors in every round.

    Attributes:
        names: Parameter names.
        prune_rate: Share of the survivors removed a round, in [0, 1).
    """

    names: tuple[str, ...]
    prune_rate: float


@final
@dataclass(frozen=True)
class PruningSchedule:
    """Shares of survivors removed each round, by layer; the counts that follow are whole numbers and exact.

    Attributes:
        prune_rates: Pairs of a glob pattern for parameter names and the share of survivors removed a round, in [0,
            1). The first pattern that matches a name decides.
        scope: "global" ranks all layers of one rate together, "layer" ranks each layer by itself.
        target_sparsity: When given, the last level removes exactly round(target_sparsity * n) weights, by pruning
            less in its round than the rates say.
        passed_targets: Targets that a run had before it was asked for a sparser one, ascending; a level meets each of
            them exactly too, and the rounds go on from there.

    Raises:
        ValueError: When a rate, the scope or the target is out of range.
    """

    prune_rates: tuple[tuple[str, float], ...] = (("*", 0.2),)
    scope: Scope = "global"
    target_sparsity: float | None = None
    passed_targets: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        for pattern, rate in self.prune_rates:
            if not 0 <= rate < 1:
                message = f"the prune rate of {pattern!r} must lie in [0, 1), but got {rate}; 0.2 is usual"
                raise ValueError(message)
        if self.scope not in ("global", "layer"):
            message = f"the scope of a schedule must be 'global' or 'layer', but got {self.scope!r}"
            raise ValueError(message)
        if self.target_sparsity is not None and not 0 <= self.target_sparsity < 1:
            message = f"target_sparsity is the fraction removed and must lie in [0, 1), but got {self.target_sparsity}"
            raise ValueError(message)

    def to_dict(self) -> dict[str, Any]:
        """Returns the schedule as JSON-able values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Returns the schedule that `to_dict` described, also after a trip through JSON."""
        rates = tuple((str(pattern), float(rate)) for pattern, rate in values["prune_rates"])
        return cls(**{**values, "prune_rates": rates, "passed_targets": tuple(values["passed_targets"])})

    @property
    def without_targets(self) -> Self:
        """The same rates, without an end."""
        return replace(self, target_sparsity=None, passed_targets=())

    def going_on_from(self, before: Self) -> Self:
        """Returns this schedule for a run that has pruned by another one, whose targets stay.

        Raises:
            ValueError: When the other target is sparser.
        """
        if before.target_sparsity is None or self.target_sparsity is None or self == before:
            return self
        if self.target_sparsity < before.target_sparsity:
            raise ValueError(f"target_sparsity is {before.target_sparsity} there and {self.target_sparsity} here")
        if self.target_sparsity == before.target_sparsity:
            return replace(self, passed_targets=before.passed_targets)
        return replace(self, passed_targets=(*before.passed_targets, before.target_sparsity))

    def find_groups(self, names: Sequence[str]) -> list[LayerGroup]:
        """Returns the layers that are ranked together, in order of their first layer.

        Raises:
            ValueError: When a layer matches no pattern.
        """
        rates = {name: self._find_rate(name) for name in names}
        if self.scope == "layer":
            return [LayerGroup((name,), rate) for name, rate in rates.items()]
        return [LayerGroup(tuple(n for n in names if rates[n] == rate), rate) for rate in dict.fromkeys(rates.values())]

    def count_kept(self, sizes: Mapping[str, int], level: int) -> dict[LayerGroup, int]:
        """Returns how many weights of each group survive `level` rounds; level 0 is dense.

        Args:
            sizes: Number of weights of each layer.
            level: How many rounds.
        """
        return next(itertools.islice(self._prune_on(sizes), level, None))

    def find_last_level(self, sizes: Mapping[str, int]) -> int:
        """Returns the level at which `target_sparsity` is reached.

        Raises:
            ValueError: When no target is given or the rates never reach it.
        """
        goals = self._list_goals(sizes)
        if not goals:
            message = "a schedule must have a target_sparsity to have a last level; pass one or the number of levels"
            raise ValueError(message)
        before = -1
        for level, kept in enumerate(itertools.islice(self._prune_on(sizes), MAX_LEVELS)):
            num_kept = sum(kept.values())
            if num_kept <= goals[-1]:
                return level
            if num_kept == before:
                break  # the rates round to no weight at all
            before = num_kept
        message = f"the prune rates {self.prune_rates} never reach sparsity {self.target_sparsity}; raise a rate"
        raise ValueError(message)

    def _prune_on(self, sizes: Mapping[str, int]) -> Iterator[dict[LayerGroup, int]]:
        """Yields how many weights of each group are left, level after level, for ever."""
        kept = {group: sum(sizes[name] for name in group.names) for group in self.find_groups(list(sizes))}
        goals = self._list_goals(sizes)
        while True:
            yield kept
            total = sum(kept.values())
            if goals and total <= goals[-1]:
                continue
            pruned = {group: count - round(group.prune_rate * count) for group, count in kept.items()}
            missed = [goal for goal in goals if sum(pruned.values()) < goal < total]
            kept = _give_back(kept, pruned, missed[0]) if missed else pruned

    def _find_rate(self, name: str) -> float:
        for pattern, rate in self.prune_rates:
            if fnmatchcase(name, pattern):
                return rate
        message = (
            f"every layer must match a pattern of prune_rates, but {name!r} matches none; end them with ('*', rate)"
        )
        raise ValueError(message)

    def _list_goals(self, sizes: Mapping[str, int]) -> list[int]:
        """Returns how many weights are kept at the targets, most first; none without a target."""
        total = sum(sizes.values())
        targets = [] if self.target_sparsity is None else [*self.passed_targets, self.target_sparsity]
        return [total - round(target * total) for target in targets]


def _give_back(before: Mapping[LayerGroup, int], after: Mapping[LayerGroup, int], goal: int) -> dict[LayerGroup, int]:
    """Lets each group keep back the same share of what the round would have removed, so that `goal` are kept in all."""
    removed = {group: before[group] - after[group] for group in before}
    to_remove, total_removed = sum(before.values()) - goal, sum(removed.values())
    shares = {group: count * to_remove // total_removed for group, count in removed.items()}
    remainders = {group: count * to_remove % total_removed for group, count in removed.items()}
    left = to_remove - sum(shares.values())
    for group in sorted(remainders, key=lambda g: -remainders[g])[:left]:
        shares[group] += 1
    return {group: before[group] - shares[group] for group in before}
