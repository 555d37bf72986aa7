"""What a caller's function does, by its compiled code and by the values that it reads."""

import enum
import functools
import io
import logging
import math
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lottery_tickets._core.identity.code import identify_callable
from lottery_tickets._core.identity.identities import compare_identities

TRAIN = """
import enum, functools, logging, torch
from torch import Tensor, nn
RATE = 0.1
SHAPE = (3, "relu")
OPTIONS = {"decay": 0.01}
log = logging.getLogger(__name__)
history = []
counts = {"calls": 0}
class Kind(enum.Enum):
    FAST = 1
class Schedule:
    def at(self, step):
        return RATE / (step + 1)
def step(weight, schedule=Schedule()):
    return helper(weight) if weight > 100 else weight - schedule.at(0)
def helper(weight):
    return step(weight / 2)
@torch.no_grad()
def evaluate(model):
    return 1
def make(factor, table):
    def train(model, loader, epochs=1, *, scale=2.0):
        history.append(epochs)
        counts["calls"] += 1
        log.info("starts")
        try:
            for _ in range(epochs):
                step(factor * scale)
        except ValueError:
            return table, SHAPE, OPTIONS, Kind.FAST
        evaluate(model)
        return lambda x: x + 1
    return train
train = make(3, {"a": [1, 2.5, None]})
"""


def load(source: str) -> ModuleType:
    module = ModuleType("theirs")
    exec(compile(source, "theirs.py", "exec"), vars(module))  # noqa: S102 - the functions under test
    return module


def digest(function: Callable[..., object]) -> str:
    identity = identify_callable(function)
    assert identity["complete"], identity["says"]
    assert identity["digest"] is not None
    return identity["digest"]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("range(epochs)", "range(epochs + 1)"),
        ("x + 1", "x + 2"),
        ("except ValueError", "except KeyError"),
        ("RATE = 0.1", "RATE = 0.2"),
        ('"relu"', '"gelu"'),
        ('"decay": 0.01', '"decay": 0.1'),
        ("FAST = 1", "FAST = 2"),
        ("weight / 2", "weight / 3"),
        ("(step + 1)", "(step + 2)"),
        ("return 1", "return 2"),
        ("scale=2.0", "scale=3.0"),
        ("epochs=1", "epochs=2"),
        ("make(3,", "make(4,"),
        ("2.5, None", "2.5, 0"),
        ("loader, epochs", "batches, epochs"),
        ("evaluate(model)\n        return", "evaluate(loader)\n        return"),
    ],
)
def test_what_changes_the_run_changes_the_identity(before: str, after: str) -> None:
    assert TRAIN.count(before) == 1
    assert digest(load(TRAIN).train) != digest(load(TRAIN.replace(before, after)).train)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("    def train(", "    # what follows trains\n\n\n    def train("),
        ("history.append(epochs)", '"""Trains."""\n        history.append(epochs)'),
        ("return helper(weight) if weight", "return helper(\n        weight\n    ) if weight"),
        ("history = []", "history = [1, 2]"),
        ('{"calls": 0}', '{"calls": 7}'),
        ("RATE = 0.1", "unread = 3\nRATE = 0.1"),
        ("for _ in", "for epoch in"),
        ('"""\n', '"""\n'),
        ("        log.info", "\n        # a word\n        log.info"),
        ("def helper(weight):", 'def helper(weight):\n    "Halves."'),
        ("class Schedule:", 'class Schedule:\n    "Falls."'),
        ('{"a": [1, 2.5, None]}', '{\n  "a": [1, 2.5,\n    None]}'),
    ],
)
def test_what_changes_nothing_leaves_the_identity(before: str, after: str) -> None:
    assert digest(load(TRAIN).train) == digest(load(TRAIN.replace(before, after)).train)


def test_a_run_leaves_no_trace_in_the_identity() -> None:
    module = load(TRAIN)
    before = digest(module.train)
    for _ in range(300):  # so that the interpreter specialises the code
        module.train(None, None)
    assert len(module.history) == 300
    assert digest(module.train) == before


def test_code_nested_in_a_class_of_a_function_may_move() -> None:
    source = 'def train():\n    class Step:\n        "Steps."\n        size = 1\n    return Step'
    assert digest(load(source).train) == digest(load("\n\n# moved\n" + source.replace("Steps", "Goes")).train)
    assert digest(load(source).train) != digest(load(source.replace("= 1", "= 2")).train)


@dataclass
class Settings:
    rate: float
    layers: tuple[int, ...] = (1, 2)


class Trainer:
    def __init__(self, rate: float) -> None:
        self.settings, self.weight, self.calls, self.losses = Settings(rate), torch.ones(3), 0, list[float]()

    def __call__(self, number: int) -> float:
        self.calls += 1
        self.note(self.settings.rate)
        return self.settings.rate + number

    def note(self, loss: float) -> None:
        self.losses.append(loss)

    def train(self, number: int) -> float:
        return self(number)

    def change(self, weight: Tensor) -> None:
        self.weight = weight


class Mode(enum.Enum):
    FAST = "fast"
    SLOW = "slow"


def train(model: object, *options: object, **settings: object) -> object:
    return model, options, settings


def test_a_callable_object_is_its_class_and_its_attributes() -> None:
    trainer = Trainer(0.1)
    before = digest(trainer)
    assert before == digest(Trainer(0.1)) != digest(Trainer(0.2))
    trainer(3)
    assert digest(trainer) == before  # the number of calls and the losses are records
    trainer.weight[1] = 2
    assert digest(trainer) != before


def test_a_method_is_its_function_and_its_object() -> None:
    assert digest(Trainer(0.1).train) == digest(Trainer(0.1).train)
    assert digest(Trainer(0.1).train) != digest(Trainer(0.2).train)
    assert digest(Trainer(0.1).train) != digest(Trainer(0.1))


OTHERS: list[Any] = [
    0, 1, True, 1.0, 1j, -0.0, 0.0, math.nan, "1", b"1", None, ..., (1,), (1, 2), ((1,), 2), (1, (2,)), {1, 2}, {1: 2},
    {"1": 2}, {2: 1}, Mode.FAST, Mode.SLOW, Mode, torch.float32, torch.bfloat16, torch.device("cpu"), torch, math, len,
    min, str, Settings, Settings(1), Settings(2), Trainer, torch.zeros(2), torch.zeros(2, dtype=torch.int32),
    torch.zeros(1, 2), torch.ones(2), np.zeros(2), np.zeros(2, np.float32), np.float64(1), np.array(["a", None]), train,
    torch.relu, nn.functional.relu, nn.ReLU(), nn.Linear(2, 1), nn.Dropout(0.1), nn.Dropout(0.2), [].append, range(3),
    range(4), Path("a"), Path("b"), logging.getLogger("a"), logging.getLogger("b"), functools.partial(train, 1),
    functools.partial(train, 2), functools.partial(train, model=1), object(), torch.Generator().manual_seed(1),
    torch.Generator().manual_seed(2), lambda: 1, lambda: 2, functools.lru_cache(train), slice(1, 2), os.sep * 3,
]  # fmt: skip


def test_every_other_argument_of_a_partial_is_another_function() -> None:
    digests = [digest(functools.partial(train, value)) for value in OTHERS]
    assert len(set(digests)) == len(OTHERS)
    assert digests == [digest(functools.partial(train, value)) for value in OTHERS]


def test_the_order_of_keywords_does_not_matter() -> None:
    assert digest(functools.partial(train, a=1, b=2)) == digest(functools.partial(train, b=2, a=1))


def test_a_module_of_torch_is_its_architecture_and_its_weights() -> None:
    loss = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0]))
    assert digest(loss) == digest(nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0])))
    assert digest(loss) != digest(nn.CrossEntropyLoss(weight=torch.tensor([1.0, 3.0])))
    assert digest(loss) != digest(nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0]), label_smoothing=0.1))


def test_values_that_hold_themselves_come_to_an_end() -> None:
    items: list[Any] = [1]
    items.append(items)
    nested: list[Any] = []
    for _ in range(1000):
        nested = [nested]
    digest(functools.partial(train, items))
    identity = identify_callable(functools.partial(train, nested))
    assert not identity["complete"]
    assert "is nested more than 60 levels deep; pass trainer_id=" in identity["says"]


def test_what_cannot_be_identified_is_said() -> None:
    writer = io.StringIO()
    writers = (item for item in [writer])

    def train_and_write() -> object:
        return writers

    identity = identify_callable(train_and_write, what="loss_fn", argument="loss_id")
    assert identity["says"].endswith(
        "could be identified only in part: 'writers' is a builtins.generator; pass loss_id="
    )
    assert not identity["complete"]
    assert "0x" not in identity["says"]
    assert compare_identities(identity, identify_callable(train_and_write)) == "same"


@pytest.mark.parametrize("decorator", ["torch.no_grad()", "functools.cache", "numba.njit", "keep"])
def test_a_decorated_function_is_told_by_what_it_wraps(decorator: str) -> None:
    source = f"""
import functools, numba, torch
def keep(function):
    @functools.wraps(function)
    def call(*values):
        return function(*values)
    return call
@{decorator}
def train(weight):
    return weight + 1
"""
    assert digest(load(source).train) == digest(load(source).train)
    assert digest(load(source).train) != digest(load(source.replace("+ 1", "+ 2")).train)


def test_lines_without_code_and_what_is_tried_are_told_apart() -> None:
    def digest_of(*lines: str) -> str:
        return digest(load("\n    ".join(("def train(step, other):", *lines))).train)

    assert digest_of("while True: step()") == digest_of("while True:", "    step()")
    last = "finally:", "    step(1)"
    assert digest_of("try:", "    step()", "    other()", *last) != digest_of("step()", "try:", "    other()", *last)


def test_the_own_module_that_is_read_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    def digest_with(source: str) -> str:
        helpers = load(source)
        monkeypatch.setitem(sys.modules, "theirs", helpers)
        module = load("import theirs\ndef train():\n    return theirs.step(1)")
        return digest(module.train)

    source = "def step(x):\n    return x\ndef other(x):\n    return x"
    assert digest_with(source) == digest_with(source.replace("def other(x):\n    return x", ""))
    assert digest_with(source) != digest_with(source.replace("return x\ndef", "return 2 * x\ndef"))


def test_a_name_that_is_given_replaces_all() -> None:
    first = identify_callable(lambda: 1, "mine")
    assert first == identify_callable(lambda: 2, "mine")
    assert first["says"] == "trainer_fn is named 'mine' by the caller"
    assert compare_identities(first, identify_callable(lambda: 1, "other")) == "different"
    assert compare_identities(first, identify_callable(lambda: 1)) == "unknown"


def test_another_process_finds_the_same(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        TRAIN
        + textwrap.dedent("""
            from lottery_tickets._core.identity.code import identify_callable
            names = {"b", "a", "c", "d"}
            print(identify_callable(functools.partial(train, names, {1, 2.5}, Schedule()))["digest"])
        """)
    )
    found = set()
    for seed in ("0", "1"):
        command = [sys.executable, *(("-c", script.read_text()) if seed == "0" else (str(script),))]
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        found.add(run.stdout)
    assert len(found) == 1
