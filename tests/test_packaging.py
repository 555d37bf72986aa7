"""Wheel and sdist are built, installed into an environment that has never seen the package, and work there."""

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest
import safetensors.torch

import lottery_tickets
from tests.models import make_lenet

ROOT = Path(__file__).parent.parent
PACKAGES = ("lottery_tickets", "statistical_report_generator", "unified_model_analysis")


def run(*command: object, place: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    words = [str(word) for word in command]
    done = subprocess.run(words, cwd=place, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the sdist, and of the wheel that is built from it."""
    place = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", place, place=ROOT)
    [sdist] = place.glob("*.tar.gz")
    run("tar", "-xzf", sdist, place=place)
    [unpacked] = [path for path in place.iterdir() if path.is_dir()]
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", place, place=unpacked)
    return place


def test_the_wheel_holds_what_is_needed_and_nothing_else(built: Path) -> None:
    [wheel] = built.glob("*.whl")
    assert wheel.name.startswith(f"lottery_tickets-{lottery_tickets.__version__}-")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == set(PACKAGES)
    for package in PACKAGES:
        assert f"{package}/py.typed" in names
    ours = {
        str(path.relative_to(ROOT / "src")) for path in (ROOT / "src").rglob("*.py*") if "__pycache__" not in str(path)
    }
    assert ours <= set(names)


def test_it_is_installed_into_an_empty_environment_and_works(built: Path, tmp_path: Path) -> None:
    [wheel] = built.glob("*.whl")
    place = tmp_path / "environment"
    venv.create(place, with_pip=False, symlinks=True)
    python = place / "bin" / "python"
    [site] = place.glob("lib/python*/site-packages")
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index", wheel]
    run(*pip, place=tmp_path)
    # What it depends on is taken from here, because to install torch again takes minutes; the package is not.
    others = tmp_path / "others"
    others.mkdir()
    for path in Path(sysconfig.get_paths()["purelib"]).iterdir():
        if not path.name.startswith(("lottery_tickets", "_lottery_tickets", "__editable__")) and path.suffix != ".pth":
            (others / path.name).symlink_to(path)
    (site / "others.pth").write_text(f"{others}\n")
    where = run(python, "-c", "import lottery_tickets as l; print(l.__file__, l.__version__)", place=tmp_path).split()
    assert Path(where[0]).is_relative_to(place)
    assert where[1] == lottery_tickets.__version__
    shell = place / "bin" / "lottery-tickets"
    assert run(shell, "--version", place=tmp_path) == f"lottery-tickets {lottery_tickets.__version__}\n"
    safetensors.torch.save_file(make_lenet(0).state_dict(), tmp_path / "w.safetensors")
    shown = run(shell, "mask", "create", "w.safetensors", "--sparsity", "0.5", "--output", "m", place=tmp_path)
    assert "sparsity" in shown
