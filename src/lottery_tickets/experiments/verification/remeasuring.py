"""Measuring every checkpoint of a run again, and drawing its fresh weights again."""

import math
from collections.abc import Mapping
from functools import partial
from typing import Any, Final, final

from torch import Tensor, nn

from lottery_tickets._core.environment import describe_environment
from lottery_tickets._core.folders import MARKER, find_differences, load_state, read_hashed, to_json_values
from lottery_tickets._core.identity.identities import compare_identities
from lottery_tickets._core.states import copy_clean_state, hash_state, load_clean_state
from lottery_tickets.experiments import steps
from lottery_tickets.experiments.caller_subject import CallerSubject
from lottery_tickets.experiments.engine import compute_training
from lottery_tickets.experiments.folder import MASK, ExperimentFolder, stops_early
from lottery_tickets.experiments.layers import LAYERS, find_odd_layers
from lottery_tickets.experiments.plan import FRESH, Training
from lottery_tickets.experiments.subjects import Subject
from lottery_tickets.experiments.verification.checks import Check, run_check

TOLERANCE: Final = 1e-3  # of the larger of the value and 1, where another environment rounds otherwise
DEVICE: Final = "device"
TRAINED_AGAIN: Final = "trained again it ends in the same bits"


def check_subject(folder: ExperimentFolder, subject: Subject) -> Check:
    """Returns whether a subject is the one that a run was made with; it may compute on another device.

    Args:
        folder: The folder of the run.
        subject: What computes.
    """
    return run_check("what measures is what was trained", MARKER, partial(_find_foreign_subject, folder, subject))


def _find_foreign_subject(folder: ExperimentFolder, subject: Subject) -> str:
    found, given = (dict(values) for values in (folder.list_plan()["subject"], to_json_values(subject.describe())))
    found.pop(DEVICE, None), given.pop(DEVICE, None)
    if odd := sorted(find_differences(found, given)):
        return f"{'; '.join(odd)}; give the data and the model, with its starting weights, that the run was begun with"
    digest = None if subject.ticket is None else subject.ticket.digest
    if digest != folder.plan.ticket_sha256 and folder.plan.trains_given_ticket:
        return "the ticket that was given is another one"
    return _find_foreign_code(folder, subject) if isinstance(subject, CallerSubject) else ""


def _find_foreign_code(folder: ExperimentFolder, subject: CallerSubject) -> str:
    """Compares the caller's code and data with what is recorded of them; what the caller has named is not compared."""
    recorded = read_hashed(folder.path / MARKER).get("identities", {})
    found = subject.identify()
    for name in sorted(recorded):
        identity = recorded[name]
        if identity["kind"] == "given":
            continue
        is_other = name not in found or compare_identities(identity, found[name]) == "different"
        is_as_far = not is_other and identity.get("num_read") == found[name].get("num_read")
        if is_other or (is_as_far and identity["digest"] == found[name]["digest"] and identity != found[name]):
            here = repr(found[name]["says"]) if name in found else "nothing"
            return f"{name} is recorded as {identity['says']!r}, but here is {here}"
    missing = sorted(found.keys() - recorded.keys())
    return f"of {', '.join(missing)} nothing is recorded" if missing else ""


@final
class Remeasurement:
    """What a training left, measured again; its files must be such that all checks of them hold.

    Args:
        folder: The folder of its run.
        subject: What computes, see `check_subject`.
        training: Which training.
    """

    def __init__(self, folder: ExperimentFolder, subject: Subject, training: Training) -> None:
        self.folder, self.subject, self.training = folder, subject, training

    def run(self) -> list[Check]:
        """Returns the checks."""
        record = self.folder.load_record(self.training)
        moments = {"end": self.folder.load_weights}
        if "early_stop" in record["history"]:
            is_early = stops_early(record["history"])
            moments["early_stop"] = self.folder.load_early_stop if is_early else self.folder.load_weights
        note, where = self._describe_difference(record["environment"]), self.training.path
        note = note and f"measured {note}: equal within {TOLERANCE}, not to the bit"
        return [
            run_check("its start follows from model and seed", where, partial(self._find_foreign_start, record)),
            *(
                run_check(
                    f"its figures at {moment} are those of its weights",
                    where,
                    lambda load=load, recorded=record["history"][moment]: self._find_other_figures(  # type: ignore[misc] # bound
                        load(self.training), recorded, is_exact=not note
                    ),
                    note,
                )
                for moment, load in moments.items()
            ),
        ]

    def train_again(self) -> Check:
        """Returns whether the training, computed again, ends in the same bits; not computed in another environment."""
        where = self.training.path
        difference = self._describe_difference(self.folder.load_record(self.training)["environment"])
        if difference:
            return Check(TRAINED_AGAIN, where, note=f"not trained again {difference}: other bits would show nothing")
        return run_check(TRAINED_AGAIN, where, self._find_other_training)

    def _build(self) -> nn.Module:
        seed = self.training.derive_seeds(self.folder.plan)["initialisation"]
        is_fresh = self.training.branch in FRESH
        return self.subject.build(seed, replicate=self.training.replicate, is_fresh=is_fresh)

    def _find_foreign_start(self, record: Mapping[str, Any]) -> str:
        model, mask = self._build(), self.folder.load_mask(self.training)
        shapes = self.subject.find_weights(model).shapes
        if {name: tuple(shape) for name, shape in shapes.items()} != {n: tuple(s) for n, s in mask.shapes.items()}:
            return "its mask is not of the weights that are pruned of the model"
        is_origin = self.training == self.folder.plan.find_origin(self.training.replicate)
        if not is_origin and self.training.branch not in FRESH:
            return ""  # it was rewound to weights that are stored, and that is checked from the files
        start = copy_clean_state(model)
        steps.prune_state_(start, mask)
        if hash_state(start) == record["start_sha256"]:
            end = self.folder.load_weights(self.training)
            return find_odd_layers(record[LAYERS], mask, start, end) if LAYERS in record else ""
        hint = self._describe_difference(record["environment"])
        return "model and seed give other weights than it started from" + (f"; {hint}" if hint else "")

    def _find_other_figures(self, state: Mapping[str, Tensor], recorded: Mapping[str, Any], *, is_exact: bool) -> str:
        model = self._build()
        load_clean_state(model, state)
        found = self.subject.evaluate(model)
        expected = {name: value for name, value in recorded.items() if name != "step"}
        if found.keys() != expected.keys():
            return f"measured are {sorted(found)}, recorded are {sorted(expected)}"
        tolerance = 0.0 if is_exact else TOLERANCE
        odd = [
            f"{name} is {value}, recorded is {expected[name]}"
            for name, value in found.items()
            if not math.isclose(value, expected[name], rel_tol=tolerance, abs_tol=tolerance)
        ]
        return "; ".join(odd)

    def _find_other_training(self) -> str:
        trained = compute_training(self.folder, self.subject, self.training)
        record = self.folder.load_record(self.training)
        facts = to_json_values(dict(trained.facts))
        odd = [name for name, fact in facts.items() if name in record and record[name] != fact]
        odd += [MASK] if trained.mask.digest != self.folder.load_mask(self.training).digest else []
        for name, state in trained.states.items():
            stored = load_state(self.folder.place(self.training) / name)
            odd += [name] if hash_state(state) != hash_state(stored) else []
        return f"{odd} come out otherwise" if odd else ""

    def _describe_difference(self, recorded: Mapping[str, Any]) -> str:
        """Returns in words how this environment is not that of the record; nothing where it is."""
        here = {
            **describe_environment(of_threads="num_threads" in recorded),
            DEVICE: self.subject.describe().get(DEVICE),
        }
        there = {**recorded, DEVICE: self.folder.plan.subject.get(DEVICE)}
        odd = sorted(find_differences(there, here))
        return f"where {'; '.join(odd)}" if odd else ""
