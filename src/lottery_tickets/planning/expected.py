"""How long an analysis takes: one step of it at the rates of this machine, times its steps."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, final

import torch

from lottery_tickets._core.memory.sizes import Analysis
from lottery_tickets._core.rates.kept import ADVICE, DeviceRates, NoRateError, Rates, read_rates
from lottery_tickets._core.rates.work import MOVING, SELECTION, Work
from lottery_tickets.evaluation.robustness import CURVES, SPARSITY_LEVELS
from lottery_tickets.planning.phases import Phase
from lottery_tickets.planning.settings import RecommendedSettings

MEASURED: Final = "measured on this machine"
DONE_BY_CPU: Final = (SELECTION, MOVING)  # whatever the device; what it draws is the same on each


@final
@dataclass(frozen=True)
class Expected:
    """How long an analysis takes.

    Attributes:
        step: What one step of it is.
        step_seconds: Of one; None where no rate was measured.
        num_steps: Of the whole; None where that is not known.
    """

    step: str = ""
    step_seconds: float | None = None
    num_steps: int | None = None

    @property
    def seconds(self) -> float | None:
        """Of the whole; None where one of both is not known."""
        if self.step_seconds is None or self.num_steps is None:
            return None
        return self.step_seconds * self.num_steps


@final
class Foreteller:
    """Tells how long phases take, at the rates that were measured on this machine.

    Args:
        device: Where the model is taken to be: "cpu", or "cuda"; None where this machine has no such device.
        settings: Whose Fisher samples and grid points are meant.
        num_steps: Of a training.

    Attributes:
        basis: What expected times rest on, in words, or why there are none.
    """

    def __init__(self, device: str | None, settings: RecommendedSettings, num_steps: int | None) -> None:
        self._settings, self._num_steps = settings, num_steps
        rates, reason = read_rates()
        self._rates = None if device is None else _choose(rates, device)
        if device is None:
            reason = "not measured, because this machine has no GPU"
        elif self._rates is None and not reason:
            reason = f"not measured on this GPU: {ADVICE} again"
        self.basis = reason or MEASURED

    def expect(self, analysis: Analysis, phases: Sequence[Phase]) -> Expected:
        """Returns how long an analysis takes, by the one of its phases that it repeats."""
        found = next((phase for phase in phases if phase.work is not None), None)
        if found is None:
            return Expected()
        seconds = self._foretell(found.work or Work())
        return Expected(found.name, seconds, self._count_steps(analysis, found.num_samples))

    def _foretell(self, work: Work) -> float | None:
        if self._rates is None:
            return None
        try:
            return self._rates.foretell(work)
        except NoRateError as error:
            self.basis = f"not measured everywhere: {error}"
            return None

    def _count_steps(self, analysis: Analysis, num_samples: int) -> int | None:
        if analysis == "fisher":
            return -(-self._settings["fisher_samples"] // num_samples)
        if analysis == "robustness":
            return len(CURVES) * len(SPARSITY_LEVELS) + 1
        if analysis == "landscape":
            return self._settings["grid_points"] ** 2 + 1
        return None if analysis == "quality" else self._num_steps


def _choose(rates: Rates, device: str) -> DeviceRates | None:
    """Returns the rates of a device, with those of the CPU for what is done there whatever the device."""
    if device == "cpu":
        return rates.get("cpu")
    found = rates.get("cuda:0")
    if found is None or found.name != torch.cuda.get_device_name(0):
        return None
    own = rates["cpu"].points if "cpu" in rates else {}
    return DeviceRates(found.name, {**found.points, **{kind: own[kind] for kind in DONE_BY_CPU if kind in own}})
