"""Recipes: the paper's numbers, patterns in order, JSON and back."""

import dataclasses
import json
from typing import Any

import pytest
import torch
from torch import nn

from lottery_tickets.experiments.schedules import PruningSchedule
from lottery_tickets.workloads.models import MODEL_NAMES, build_model
from lottery_tickets.workloads.recipes import Recipe, digits_recipe, paper_recipe


def prunable_rates(name: str) -> dict[str, float]:
    generator = torch.Generator()
    model = build_model(name, input_shape=(3, 32, 32), num_classes=10, generator=generator)
    keys = [key for key, module in model.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    schedule = PruningSchedule(tuple(paper_recipe(name).prune_rates.items()), "layer")
    groups = schedule.find_groups([f"{key}.weight" for key in keys])
    return {key: group.prune_rate for key, group in zip(keys, groups, strict=True)}


@pytest.mark.parametrize(
    ("name", "optimizer", "lr", "batch_size", "num_steps"),
    [
        ("lenet-300-100", "adam", 1.2e-3, 60, 50_000),
        ("conv-2", "adam", 2e-4, 60, 20_000),
        ("conv-4", "adam", 3e-4, 60, 25_000),
        ("conv-6", "adam", 3e-4, 60, 30_000),
        ("resnet-20", "sgd", 0.1, 128, 30_000),
    ],
)
def test_training_is_the_papers(name: str, optimizer: str, lr: float, batch_size: int, num_steps: int) -> None:
    recipe = paper_recipe(name)
    assert (recipe.optimizer, recipe.optimizer_arguments["lr"]) == (optimizer, lr)
    assert (recipe.batch_size, recipe.num_steps, recipe.evaluation_interval) == (batch_size, num_steps, 100)
    assert recipe.scope == ("global" if name == "resnet-20" else "layer")


def test_resnet_drops_its_learning_rate_where_the_paper_does() -> None:
    recipe = paper_recipe("resnet-20")
    assert [round(fraction * recipe.num_steps) for fraction in recipe.lr_milestones] == [20_000, 25_000]
    assert recipe.optimizer_arguments == {"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-4}


@pytest.mark.parametrize(("name", "conv_rate"), [("conv-2", 0.10), ("conv-4", 0.10), ("conv-6", 0.15)])
def test_conv_nets_prune_each_kind_of_layer_at_its_rate(name: str, conv_rate: float) -> None:
    rates = prunable_rates(name)
    assert {rate for key, rate in rates.items() if key.startswith("convs")} == {conv_rate}
    assert {key: rate for key, rate in rates.items() if not key.startswith("convs")} == {
        "fc1": 0.20,
        "fc2": 0.20,
        "output": 0.10,
    }


def test_lenet_prunes_its_output_at_half_the_rate() -> None:
    assert prunable_rates("lenet-300-100") == {"fc1": 0.20, "fc2": 0.20, "output": 0.10}


def test_resnet_prunes_neither_output_nor_shortcuts() -> None:
    rates = prunable_rates("resnet-20")
    kept = {key for key, rate in rates.items() if rate == 0}
    assert kept == {"output", "stages.1.0.shortcut.0", "stages.2.0.shortcut.0"}
    assert {rate for key, rate in rates.items() if key not in kept} == {0.20}


@pytest.mark.parametrize("sort_keys", [False, True])
@pytest.mark.parametrize("name", MODEL_NAMES)
def test_json_and_back(name: str, sort_keys: bool) -> None:
    recipe = paper_recipe(name)
    back = Recipe.from_dict(json.loads(json.dumps(recipe.to_dict(), sort_keys=sort_keys, allow_nan=False)))
    assert back == recipe
    assert list(back.prune_rates) == list(recipe.prune_rates)  # the order matters, and dicts compare without it


def test_a_dict_of_another_version_is_refused() -> None:
    plain = paper_recipe("conv-2").to_dict()
    del plain["scope"]
    with pytest.raises(ValueError, match=r"lacks \['scope'\] and has \['extent'\] besides"):
        Recipe.from_dict(plain | {"extent": "layer"})


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"optimizer": "rmsprop"}, "optimizer of a recipe must be one of .*, got 'rmsprop'"),
        ({"optimizer_arguments": {}}, "hold a positive lr"),
        ({"optimizer_arguments": {"lr": float("nan")}}, "hold a positive lr"),
        ({"batch_size": 0}, "batch_size of a recipe must be at least 1, got 0"),
        ({"num_steps": 0}, "num_steps"),
        ({"evaluation_interval": -1}, "evaluation_interval"),
        ({"lr_milestones": (0.8, 0.5)}, "ascend strictly"),
        ({"lr_milestones": (1.0,)}, "ascend strictly"),
        ({"lr_decay": 0.0}, "lr_decay"),
        ({"warmup_steps": 20_001}, "between 0 and num_steps = 20000, got 20001"),
        ({"scope": "galactic"}, "scope"),
        ({"prune_rates": {"*": 1.0}}, r"prune_rates\['\*'\] of a recipe must lie in \[0, 1\), got 1.0"),
        ({"prune_rates": {"*": float("nan")}}, "got nan"),
    ],
)
def test_fields_out_of_range_are_refused(change: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        dataclasses.replace(paper_recipe("conv-2"), **change)


def test_changing_what_was_returned_changes_no_other_recipe() -> None:
    rates = paper_recipe("conv-2").prune_rates
    assert isinstance(rates, dict)
    rates.clear()
    assert paper_recipe("conv-2").prune_rates
    assert paper_recipe("conv-4").prune_rates


@pytest.mark.parametrize("recipe", [paper_recipe, digits_recipe])
def test_an_unknown_model_is_refused(recipe: Any) -> None:  # noqa: ANN401 - two functions of one type
    with pytest.raises(ValueError, match=r"one of lenet-300-100, .*, got 'vgg'"):
        recipe("vgg")


def test_the_digits_change_only_how_long() -> None:
    for name in MODEL_NAMES:
        paper, digits = paper_recipe(name), digits_recipe(name)
        steps, interval = digits.num_steps, digits.evaluation_interval
        assert dataclasses.replace(paper, num_steps=steps, evaluation_interval=interval) == digits
