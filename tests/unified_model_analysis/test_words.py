"""One word for one thing, over all commands: an option of one name has one meaning, one kind of value, one default."""

import dataclasses
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin, get_type_hints

import docstring_parser
import pytest

from lottery_tickets import ConvergenceRule, ScoringOptions, TrainerSettings
from unified_model_analysis import cli
from unified_model_analysis.options import MARGIN, SEED

# One meaning, one word: what the help of each command that has the option says of it.
MEANINGS: Final = {
    "accept_changed_environment": "other versions or on another machine",
    "analyses": "Names of the analyses to",
    "batch_size": "amples a batch",
    "batches": "atches",
    "checkpoint": ".safetensors",
    "data": "Data set",
    "device": "Where to",
    "dtype": "Of the weights",
    "epochs": "Epochs",
    "executor": "An engine that trains",
    "exclude": "Glob patterns of parameter names to leave",
    "folder": "IDX files",
    "force": "Replace",
    "grid_points": "Points",
    "include": "Glob patterns of parameter names to",
    "language_model": "save_pretrained",
    "layers": "Whether to show",
    "learning_rate": "when not given",
    "looks": "How often the findings are read in all while replicates are added, as planned before the first time",
    "margin": "accuracy whose loss counts as none",
    "mask": "mask",
    "method": "",  # of what the command does
    "model": "Network",
    "moment": "accuracy is taken",
    "num_samples": "Samples",
    "num_tokens": "Tokens a sequence",
    "output": "",  # a file or a folder, as the command says
    "replicates": "need at least 3",
    "run_folder": "",  # of which commands
    "scope": '"global", "layer", "row", "erk", "lamp", or N:M such as "2:4"',
    "seed": "",  # of what is drawn
    "source": '"module:function"',
    "sparsities": "parsities",
    "sparsity": "Fraction removed",
    "start": "tarting weights",
    "steps": "Training steps",
    "style": '"summary"',
    "tensorboard": "TensorBoard",
    "test": "laims are on the mean, by t tests, or on the median, by sign tests",
    "text": "Text files for the language model",
    "threshold": "stable",
    "wandb": "Weights & Biases",
    "workers": "Processes that share the replicates",
}

# Where one default cannot be meant, and why.
OTHER_DEFAULTS: Final = {
    "dtype": "early-bird trains in float32 where nothing is said; a plan is for the weights' own",
    "epochs": "early-bird stops by itself, so that its epochs are a limit; analyze trains a short while",
    "grid_points": "a plane has points in two directions, a line has them in one",
    "method": "each command has its own",
    "output": "each command has its own folder",
}

# Two names that differ by a word for a count or a limit would be one thing twice; these are two things.
TWO_THINGS: Final = {"max_batch_size": "splits the batches that batch_size makes"}


def list_commands() -> Iterator[tuple[str, Any]]:
    """Yields the words of each command with its class."""
    for item in get_args(cli.Command):
        options, marker = get_args(item)
        hints = get_type_hints(options, include_extras=True)
        actions = get_args(get_args(hints["action"])[0]) if "action" in hints else ()
        yield from ((f"{marker.name} {get_args(one)[1].name}", get_args(one)[0]) for one in actions)
        if not actions:
            yield marker.name, options


def read_help(options: Any, name: str) -> str:  # noqa: ANN401 - a command
    """Returns the help of an option, as the nearest class says it; of one of the library's what that says."""
    for described in (*options.__mro__, ConvergenceRule, ScoringOptions, TrainerSettings):
        texts = {line.arg_name: line.description for line in docstring_parser.parse(described.__doc__ or "").params}
        if name in texts:
            return " ".join((texts[name] or "").split())
    metadata = get_args(get_type_hints(options, include_extras=True)[name])
    return str(getattr(metadata[-1], "help", ""))


def list_kinds(hint: Any) -> set[Any]:  # noqa: ANN401 - an annotation
    """Returns of what kind single values are: `int | None` and `tuple[int, ...]` are both of int."""
    if get_origin(hint) is Annotated:
        return list_kinds(get_args(hint)[0])
    if get_origin(hint) is Literal:
        return {str}
    if get_origin(hint) in {types.UnionType, Union, tuple}:
        return set().union(*map(list_kinds, get_args(hint)))
    return {hint} - {type(None), ...}


OPTIONS: Final[Mapping[str, dict[str, Any]]] = {
    name: {command: options for command, options in list_commands() if name in options.__dataclass_fields__}
    for name in sorted({field.name for _, options in list_commands() for field in dataclasses.fields(options)})
}
SHARED: Final = [name for name, commands in OPTIONS.items() if len(commands) > 1]


def test_all_commands_are_looked_at() -> None:
    assert {"imp", "mask create", "ticket show"} < dict(list_commands()).keys()
    assert set(SHARED) == MEANINGS.keys()


@pytest.mark.parametrize("name", SHARED)
def test_an_option_of_one_name_has_one_meaning(name: str) -> None:
    helps = {command: read_help(options, name) for command, options in OPTIONS[name].items()}
    assert {command: said for command, said in helps.items() if not said or MEANINGS[name] not in said} == {}


@pytest.mark.parametrize("name", SHARED)
def test_an_option_of_one_name_has_one_kind_of_value(name: str) -> None:
    kinds = {
        command: list_kinds(get_type_hints(options, include_extras=True)[name])
        for command, options in OPTIONS[name].items()
    }
    numbers = {command: {kind for kind in found if kind is not str} or found for command, found in kinds.items()}
    assert len(set(map(frozenset, numbers.values()))) == 1, kinds


@pytest.mark.parametrize("name", [name for name in SHARED if name not in OTHER_DEFAULTS])
def test_an_option_of_one_name_has_one_default(name: str) -> None:
    fields = {command: options.__dataclass_fields__[name] for command, options in OPTIONS[name].items()}
    defaults = {command: field.default for command, field in fields.items()}
    given = {value for value in defaults.values() if value not in {None, dataclasses.MISSING, ()}}
    assert len(given) <= 1, defaults


def test_defaults_that_differ_do_differ() -> None:
    for name in OTHER_DEFAULTS:
        assert len({options.__dataclass_fields__[name].default for options in OPTIONS[name].values()}) > 1


def test_seed_and_margin_are_those_of_the_library() -> None:
    for name, value in (("seed", SEED), ("margin", MARGIN)):
        defaults = {options.__dataclass_fields__[name].default for options in OPTIONS[name].values()}
        assert defaults - {None} == {value}
    assert (SEED, MARGIN) == (42, 0.2)


def test_no_two_names_differ_by_a_word_for_a_count_or_a_limit() -> None:
    plain = {name.removeprefix("max_").removeprefix("num_"): name for name in OPTIONS if name not in TWO_THINGS}
    assert [name for name in OPTIONS if name not in TWO_THINGS and name not in plain.values()] == []
    assert [name for name in TWO_THINGS if name not in OPTIONS] == []


def test_pages_name_no_option_that_no_command_has() -> None:
    names = [name.replace("_", "-") for name in OPTIONS]
    flags = {f"--{no}{name}" for name in names for no in ("", "no-")} | {"--from", "--recipe", "--version", "--help"}
    for page in (Path("README.md"), *Path("docs").rglob("*.md")):
        for line in page.read_text(encoding="utf-8").splitlines():
            _, _, words = line.partition("lottery-tickets ")
            used = {word.strip("`|,.;").partition("=")[0] for word in words.split() if word.startswith("--")}
            assert used <= flags, (page, line)
