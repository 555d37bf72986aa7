"""Whether what only measures leaves a trace: functions x models x loaders x modes, also where a model raises.

Each case takes the traces of the model, of the global generators and of all generators that the loader draws from,
before and after one call. Run `python -m benchmarks.studies.no_traces [OTHER]`; OTHER is the `src` of another checkout,
whose cases are counted beside ours. The counts go to benchmarks/results/no_traces.json.
"""

import copy
import itertools
import json
import os
import random
import subprocess
import sys
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, final

import numpy as np
import torch
from tests.traces import take_traces
from torch import Tensor, nn
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler, SubsetRandomSampler, TensorDataset

import lottery_tickets as lt
from benchmarks.common import ROOT, write_results
from lottery_tickets._core.measuring.performance import Measurement, measure

NUM_SAMPLES, BATCH = 6, 3
MODES: Final = ("training", "evaluation", "mixed, with gradients")
ROUNDS_OF_THREADS: Final = 40
RACES: Final = (
    ("landscape", "taylor"),
    ("performance", "fisher"),
    ("early-bird check", "early-bird, weights put back"),
)


@final
class Trap(nn.Module):
    """Passes its input on; raises at its second call where it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.is_set, self._num_calls = False, 0

    def forward(self, inputs: Tensor) -> Tensor:
        """Returns the inputs."""
        self._num_calls += 1  # for itself: public ones are put back
        if self.is_set and self._num_calls == 2:  # noqa: PLR2004 - the second
            raise OSError("the trap")
        return inputs

    def wait(self, num_calls: int = 1000) -> None:
        """Counts so many calls less from now on."""
        self._num_calls = -num_calls


@final
class Noting(nn.Module):
    """Notes in attributes what it has seen, as rotary embeddings note the longest sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.largest = 0.0

    def forward(self, inputs: Tensor) -> Tensor:
        """Returns the inputs."""
        self.largest = max(self.largest, inputs.abs().max().item())
        self.last = inputs.shape
        return inputs


@final
class Counting(nn.Module):
    """Writes to a buffer in each forward pass, in evaluation mode too: in place, or by putting a new tensor there."""

    calls: Tensor

    def __init__(self, *, in_place: bool) -> None:
        super().__init__()
        self.in_place = in_place
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, inputs: Tensor) -> Tensor:
        """Returns the inputs."""
        if self.in_place:
            self.calls.add_(1)
        else:
            self.calls = self.calls + 1
        return inputs


@final
class Noise(nn.Module):
    """Adds noise from torch's global generator, in evaluation mode too."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Returns the inputs with noise."""
        return inputs + 0.01 * torch.randn_like(inputs)


def build(*parts: nn.Module) -> nn.Module:
    """Returns a perceptron of 5 inputs and 3 classes, with parts in its middle and a trap at its end."""
    return nn.Sequential(nn.Linear(5, 4), *parts, nn.Tanh(), nn.Linear(4, 3), Trap())


def build_held() -> nn.Module:
    """Returns a perceptron that is held to a mask."""
    model = build()
    lt.hold_mask(model, lt.create_magnitude_mask(model, 0.3))
    return model


MODELS: Final[dict[str, Callable[[], nn.Module]]] = {
    "perceptron": build,
    "batch norm, dropout": lambda: build(nn.BatchNorm1d(4), nn.Dropout(0.5)),
    "counts in a buffer": lambda: build(Counting(in_place=True)),
    "counts in a new buffer": lambda: build(Counting(in_place=False)),
    "notes in attributes": lambda: build(Noting()),
    "draws noise": lambda: build(Noise()),
    "held": build_held,
}


@final
class Jittered(Dataset[tuple[Tensor, Tensor]]):
    """Samples moved by a number that `draw` gives."""

    def __init__(self, owner: Any, draw: Callable[[Any], float]) -> None:  # noqa: ANN401 - one of several generators
        self.owner, self.draw = owner, draw
        self.inputs, self.targets = torch.randn(NUM_SAMPLES, 5), torch.arange(NUM_SAMPLES) % 3

    def __len__(self) -> int:
        return NUM_SAMPLES

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.inputs[index] + self.draw(self.owner), self.targets[index]


def _data() -> TensorDataset:
    return TensorDataset(torch.randn(NUM_SAMPLES, 5), torch.arange(NUM_SAMPLES) % 3)


def _sample_batches() -> DataLoader[Any]:
    sampler = SubsetRandomSampler(range(NUM_SAMPLES), generator=_own())
    return DataLoader(_data(), batch_sampler=BatchSampler(sampler, BATCH, drop_last=False))


def _own() -> torch.Generator:
    return torch.Generator().manual_seed(5)


LOADERS: Final[dict[str, Callable[[], Any]]] = {
    "list": lambda: list(DataLoader(_data(), BATCH)),
    "in order": lambda: DataLoader(_data(), BATCH),
    "shuffled": lambda: DataLoader(_data(), BATCH, shuffle=True),
    "in order, own generator": lambda: DataLoader(_data(), BATCH, generator=_own()),
    "shuffled, own generator": lambda: DataLoader(_data(), BATCH, shuffle=True, generator=_own()),
    "sampler's generator": lambda: DataLoader(_data(), BATCH, sampler=RandomSampler(_data(), generator=_own())),
    "batch sampler's generator": _sample_batches,
    "data set's torch generator": lambda: DataLoader(
        Jittered(_own(), lambda generator: float(torch.rand((), generator=generator))), BATCH
    ),
    "data set's numpy generator": lambda: DataLoader(
        Jittered(np.random.default_rng(0), lambda generator: float(generator.random())), BATCH
    ),
    "data set's Python generator": lambda: DataLoader(Jittered(random.Random(0), lambda owner: owner.random()), BATCH),  # noqa: S311 - augmentation, no secret
    "numpy's global generator": lambda: DataLoader(Jittered(None, lambda _: float(np.random.rand())), BATCH),  # noqa: NPY002 - callers' code may use it
}


def _scale(model: nn.Module, factor: float) -> dict[str, Tensor]:
    return {n: t * factor if t.is_floating_point() else t.clone() for n, t in model.state_dict().items()}


def _mask(model: nn.Module) -> lt.Mask:
    return lt.create_magnitude_mask(model, 0.5, scope="layer")


def _watch(model: nn.Module, data: Any) -> None:  # noqa: ANN401 - any loader
    trap = next(module for module in model.modules() if isinstance(module, Trap))
    trap.wait()  # for the check
    watcher = lt.EarlyBirdWatcher(model, check_steps=1, probe=lt.Probe(data, held_out=False))
    trap.wait(0)
    for step in (1, 2):
        watcher.observe(model, step)


def _put_back(model: nn.Module, data: Any) -> None:  # noqa: ANN401 - any loader
    """Puts all weights back to a start from which they have moved, as a check does where the verdict hangs on it."""
    from lottery_tickets._core.prunable_weights import find_prunable_weights  # noqa: PLC0415 - as below
    from lottery_tickets.early_bird import learning, probe  # noqa: PLC0415 - another checkout may have none

    weights = find_prunable_weights(model)
    start = weights.with_values({name: weight.tensor.detach().flip(0) for name, weight in weights.items()})
    watched = learning.Learning(probe.Measure(lt.Probe(data), model, 0), model, weights, 0)
    for part in watched.look(model, weights, start)["parts"]:
        watched.put_back(model, weights, start, part)


def _make_batches() -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [(torch.randn(BATCH, 5, generator=generator), torch.arange(BATCH)) for _ in range(4)]


def _find_tickets(model: nn.Module, probe: Any) -> None:  # noqa: ANN401 - any loader
    lt.compute_early_bird_tickets(model, _make_batches(), None, 2, 1, learning_rate=0.1, probe=probe)


def _train(model: nn.Module, probe: Any) -> None:  # noqa: ANN401 - any loader
    """Trains by Adam, with what noise and dropout draw from the global generator; watched where there is a probe."""
    optimizer = torch.optim.Adam(model.parameters())
    watcher = None if probe is None else lt.EarlyBirdWatcher(model, check_steps=1, probe=probe)
    for step, (inputs, targets) in enumerate(_make_batches(), start=1):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), targets).backward()
        optimizer.step()
        if watcher is not None:
            watcher.observe(model, step)


def _first(data: Any) -> Any:  # noqa: ANN401 - any loader
    """Returns the first batch of a copy of a loader, which no generator of ours is drawn from."""
    with torch.random.fork_rng():
        state = np.random.get_state()  # noqa: NPY002 - callers' code may use it
        batch = next(iter(copy.deepcopy(data)))
        np.random.set_state(state)  # noqa: NPY002 - as above
    return batch


FUNCTIONS: Final[dict[str, Callable[[nn.Module, Any], object]]] = {
    "performance": lambda model, data: measure(model, data, Measurement()),
    "quality": lambda model, data: lt.compute_lottery_ticket_quality(model, _mask(model), data),
    "robustness": lambda model, data: lt.compute_pruning_robustness(model, _first(data), [0.5]),
    "validation": lambda model, data: lt.validate_pruning_correctness(model, _mask(model), data, 1.0),
    "landscape": lambda model, data: lt.compute_loss_landscape(model, data, 2),
    "line": lambda model, data: lt.compute_loss_landscape(model, data, 2, end_state=_scale(model, 2.0)),
    "connectivity": lambda model, data: lt.compute_linear_connectivity(
        model, data, model.state_dict(), _scale(model, 1.1), num_points=3
    ),
    "simulation": lambda model, data: lt.compute_iterative_magnitude_pruning(model, data, target_sparsity=0.5),
    "fisher": lambda model, data: lt.compute_fisher_importance(model, data, NUM_SAMPLES),
    "gradient": lambda model, data: lt.compute_gradient_importance(model, data, num_samples=NUM_SAMPLES),
    "taylor": lambda model, data: lt.compute_taylor_importance(model, data, num_samples=NUM_SAMPLES),
    "hybrid": lambda model, data: lt.compute_hybrid_importance(model, data, num_samples=NUM_SAMPLES),
    "snip": lambda model, data: lt.compute_snip_importance(model, data, num_samples=NUM_SAMPLES),
    "grasp": lambda model, data: lt.compute_grasp_importance(model, data, num_samples=NUM_SAMPLES),
    "wanda": lambda model, data: lt.compute_wanda_importance(model, data, num_samples=NUM_SAMPLES),
    "early-bird check": lambda model, data: lt.EarlyBirdWatcher(model, check_steps=1, probe=data).observe(model, 1),
    "early-bird, probe trained on": _watch,
    "early-bird, weights put back": _put_back,
}
# Those that train. What they leave must be the same without a probe and with one.
TRAININGS: Final[dict[str, Callable[[nn.Module, Any], object]]] = {
    "early-bird tickets": _find_tickets,
    "watched loop": _train,
}


@final
@dataclass(frozen=True)
class Case:
    """One call.

    Attributes:
        function: A key of `FUNCTIONS` or `TRAININGS`.
        model: A key of `MODELS`.
        loader: A key of `LOADERS`.
        mode: One of `MODES`.
        raises: Whether the model raises at its second forward pass.
    """

    function: str
    model: str
    loader: str
    mode: str
    raises: bool

    def find_traces(self) -> list[str]:
        """Returns what one call leaves behind, by kind; empty where all is as before."""
        if self.function in TRAININGS:
            train = TRAININGS[self.function]
            before, after = (
                _drop_identities(self._call(function)[1]) for function in (lambda model, _: train(model, None), train)
            )
        else:
            before, after = self._call(FUNCTIONS[self.function])
        return [kind for kind, value in after.items() if value != before[kind]]

    def _call(self, function: Callable[[nn.Module, Any], object]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Returns all that is there before a call and after it."""
        torch.manual_seed(0)
        model, loader = MODELS[self.model](), LOADERS[self.loader]()
        model.train(self.mode != "evaluation")
        if self.mode == "mixed, with gradients":
            model[0].eval()  # type: ignore[index] # a Sequential
            for parameter in model.parameters():
                parameter.grad = torch.ones_like(parameter)
        next(module for module in model.modules() if isinstance(module, Trap)).is_set = self.raises
        before = _take(model, loader)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                function(model, loader)
        except OSError as error:
            if str(error) != "the trap":
                raise
        return before, _take(model, loader)


def _drop_identities(traces: dict[str, Any]) -> dict[str, Any]:
    """Returns what two runs can share: bits, but no addresses."""
    return {**traces, "identities": None, "gradients": {name: bits for name, (_, bits) in traces["gradients"].items()}}


def list_cases() -> Iterator[Case]:
    """Yields all cases; those of early-bird tickets only where this checkout has probes."""
    has_probe = hasattr(lt, "Probe")
    functions = [name for name in FUNCTIONS if has_probe or "early-bird" not in name]
    for values in itertools.product(functions, MODELS, LOADERS, MODES, (False, True)):
        yield Case(*values)
    for values in itertools.product(TRAININGS if has_probe else (), MODELS, LOADERS, MODES):
        yield Case(*values, raises=False)


def _take(model: nn.Module, loader: Any) -> dict[str, Any]:  # noqa: ANN401 - any loader
    sampler, batch_sampler = getattr(loader, "sampler", None), getattr(loader, "batch_sampler", None)
    owners = (loader, sampler, getattr(batch_sampler, "sampler", None))
    own = [getattr(owner, "generator", None) for owner in owners]
    inside = getattr(getattr(loader, "dataset", None), "owner", None)
    generators = [generator for generator in (*own, inside) if isinstance(generator, torch.Generator)]
    states = {
        # Checks of annotations, as in the tests, draw from Python's own generator.
        "python": None if "beartype" in sys.modules else random.getstate(),
        "numpy, inside": str(inside.bit_generator.state) if isinstance(inside, np.random.Generator) else "",
        "python, inside": inside.getstate() if isinstance(inside, random.Random) else "",
    }
    return {**take_traces(model, *generators), **states}


def race(num_rounds: int = ROUNDS_OF_THREADS) -> int:
    """Returns in how many rounds the global generators are not as before after two threads measured at once."""
    num_changed = 0
    for number in range(num_rounds):
        torch.manual_seed(number)
        np.random.seed(number)  # noqa: NPY002 - callers' code may use it
        models, loader = [MODELS["draws noise"](), MODELS["batch norm, dropout"]()], LOADERS["shuffled"]()
        before = _take(models[0], loader)
        names = RACES[number % (len(RACES) if hasattr(lt, "Probe") else 2)]
        threads = [
            threading.Thread(target=FUNCTIONS[name], args=(model, loader))
            for name, model in zip(names, models, strict=True)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        num_changed += _take(models[0], loader) != before
    return num_changed


def count_traces() -> dict[str, Any]:
    """Returns the counts over all cases, and over the rounds of two threads."""
    found = {case: case.find_traces() for case in list_cases()}
    left = {case: kinds for case, kinds in found.items() if kinds}
    return {
        "num_cases": len(found),
        "num_with_traces": len(left),
        "by_function": Counter(case.function for case in left),
        "by_kind": Counter(kind for kinds in left.values() for kind in kinds),
        "num_functions": len({case.function for case in found}),
        "rounds_of_two_threads": ROUNDS_OF_THREADS,
        "rounds_with_traces": race(),
    }


def main() -> None:
    """Counts in this checkout, and in another where one is named, and writes the figures."""
    torch.set_num_threads(1)
    if sys.argv[1:] == ["--print"]:
        print(json.dumps(count_traces()))
        return
    figures = {"this": count_traces()}
    if sys.argv[1:]:
        environment = {**os.environ, "PYTHONPATH": f"{Path(sys.argv[1]).resolve()}:{ROOT}"}
        command = [sys.executable, "-m", "benchmarks.studies.no_traces", "--print"]
        found = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)  # noqa: S603 - ours
        figures["before"] = json.loads(found.stdout.splitlines()[-1])
    for label, here in figures.items():
        rounds = f"{here['rounds_with_traces']} of {here['rounds_of_two_threads']} rounds of two threads"
        print(f"{label}: {here['num_with_traces']} of {here['num_cases']} cases leave a trace; {rounds}")
    write_results("no-traces", figures)


if __name__ == "__main__":
    main()
