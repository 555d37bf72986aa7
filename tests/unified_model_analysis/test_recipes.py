"""Options that stand in a TOML file."""

from pathlib import Path

import pytest
import safetensors.torch
import torch

from lottery_tickets import Mask
from tests.unified_model_analysis.test_cli import Output, refuse
from unified_model_analysis.cli import main
from unified_model_analysis.recipes import expand_recipe


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    safetensors.torch.save_file({"0.weight": torch.randn(16, 8), "2.weight": torch.randn(4, 16)}, path)
    return path


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "imp.toml"
    path.write_text(
        'levels = 3\nlearning_rate = 0.1\ndata = "digits"\ncontrols = [1, 3]\naccept_changed_environment = true\n'
        "include = []\nrobustness = false\nseed = -1\n"
    )
    return path


@pytest.mark.parametrize("words", [["--recipe", "{}"], ["--recipe={}"]])
def test_what_is_given_beside_a_recipe_comes_after_it(words: list[str], recipe: Path) -> None:
    given = [word.format(recipe) for word in words]
    assert expand_recipe(["mask", "create", "w.pt", "--levels", "5", *given, "--output", "x"]) == [
        *("mask", "create", "w.pt"),
        *("--levels=3", "--learning-rate=0.1", "--data=digits", "--controls", "1", "3", "--accept-changed-environment"),
        *("--include", "--no-robustness", "--seed=-1"),
        *("--levels", "5", "--output", "x"),
    ]


def test_a_command_takes_its_options_from_a_recipe_and_words_win(
    checkpoint: Path, tmp_path: Path, capsys: Output
) -> None:
    (tmp_path / "mask.toml").write_text('sparsity = 0.25\nscope = "layer"\nforce = true\ninclude = ["2.*", "0.*"]\n')
    words = [
        "mask",
        "create",
        str(checkpoint),
        "--output",
        str(tmp_path / "m"),
        "--recipe",
        str(tmp_path / "mask.toml"),
    ]
    assert main(words) == 0
    assert Mask.load(tmp_path / "m").sparsity == pytest.approx(0.25, abs=0.01)
    assert main([*words, "--sparsity", "0.75"]) == 0
    assert Mask.load(tmp_path / "m").sparsity == pytest.approx(0.75, abs=0.01)
    assert capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("levels = ", "must be TOML"),
        ("[imp]\nlevels = 3", "must hold options of the command: .* got a table for imp"),
        ("levels = [[1]]", r"got \[\[1\]\] for levels"),
        ("levels = 1979-05-27", "for levels"),
        ("\xff", "must be TOML"),
    ],
)
def test_what_is_no_recipe_is_said(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "r.toml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=said):
        expand_recipe(["imp", "--recipe", str(path)])


def test_a_recipe_that_is_not_there_or_not_named_or_named_twice(tmp_path: Path, capsys: Output) -> None:
    missing = tmp_path / "missing.toml"
    assert f"No such file or directory at {missing}" in refuse(["imp", "--recipe", missing], capsys)
    assert "--recipe must name one TOML file" in refuse(["imp", "--recipe"], capsys)
    assert "--recipe must name one TOML file" in refuse(["imp", f"--recipe={missing}", "--recipe", missing], capsys)


def test_an_option_that_no_command_has_is_refused(tmp_path: Path, capsys: Output) -> None:
    (tmp_path / "r.toml").write_text("sparsty = 0.5\n")
    with pytest.raises(SystemExit, match="2"):
        main(["score", "--output", "x.json", "--recipe", str(tmp_path / "r.toml")])
    assert "sparsty" in capsys.readouterr().err
