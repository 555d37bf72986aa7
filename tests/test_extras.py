"""Each extra installs all that the code behind it imports, and where a library is missing the extra is named."""

import ast
import importlib
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any, Final

import pytest

from lottery_tickets.workloads import load_digits_data, load_smollm2
from tests.test_repository import ROOT
from unified_model_analysis.cli import main

SOURCE: Final = ROOT / "src"
PROJECT: Final = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS: Final = PROJECT["optional-dependencies"]
OWN: Final = ("lottery_tickets", "statistical_report_generator", "unified_model_analysis")

# Which extra is behind which code; all else needs what is always installed, and no more.
BEHIND: Final = {
    "lottery_tickets/experiments/elsewhere/pickling.py": "cluster",
    "lottery_tickets/integrations/dask.py": "cluster",
    "lottery_tickets/integrations/lightning.py": "lightning",
    "lottery_tickets/integrations/slurm.py": "cluster",
    "lottery_tickets/integrations/tensorboard.py": "tensorboard",
    "lottery_tickets/integrations/transformers.py": "transformers",
    "lottery_tickets/integrations/wandb.py": "wandb",
    "lottery_tickets/structured/dependencies.py": "shrink",
    "lottery_tickets/workloads/conversion.py": "transformers",
    "lottery_tickets/workloads/data.py": "demo",
    "lottery_tickets/workloads/framing.py": "transformers",
    "lottery_tickets/workloads/language.py": "transformers",
    "statistical_report_generator": "report",
}
IMPORTING: Final = {"importlib.import_module", "import_transformers"}
# In a file, a module that its extra does not have, and why.
ALSO: Final = {
    **{
        (f"lottery_tickets/_core/kernels/{name}.py", "triton"): "comes with torch's builds for GPUs, else torch works"
        for name in ("ranking_triton", "selecting_triton", "blocks_triton", "zeroing_triton")
    },
    ("lottery_tickets/_core/training/accumulated.py", "bitsandbytes"): "for GPUs alone, and the error names it",
    ("lottery_tickets/integrations/lightning.py", "pytorch_lightning"): "the older name of lightning, in its place",
    ("statistical_report_generator/generator.py", "pandas"): "has an extra of its own, because one method needs it",
    ("unified_model_analysis/experiment_summary.py", "matplotlib"): "looked for before any work, with its extra",
}


def list_distributions(requirements: list[str]) -> set[str]:
    """Returns the names of distributions, with those of extras that are named in their place."""
    found = set()
    for requirement in requirements:
        name, extra = re.match(r"([\w.-]+)(?:\[([\w-]+)\])?", requirement).groups()  # type: ignore[union-attr] # always
        found |= list_distributions(EXTRAS[extra]) if name == PROJECT["name"] else {normalise(name)}
    return found


def normalise(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def list_imports(path: Path) -> Iterator[str]:
    """Yields the modules that a file imports, also by `import_module("name")` and what asks whether one is there."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield str(node.module)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in IMPORTING:
            yield from (one.value for one in node.args if isinstance(one, ast.Constant) and isinstance(one.value, str))


def find_top(module: str) -> str:
    """Returns the package that must be installed; torch imports tensorboard for us."""
    return "tensorboard" if module.startswith("torch.utils.tensorboard") else module.split(".", maxsplit=1)[0]


def list_needs() -> Iterator[tuple[str, str]]:
    """Yields each file with each package that it imports and that is neither ours nor Python's."""
    for path in sorted(SOURCE.rglob("*.py")):
        file = str(path.relative_to(SOURCE))
        for top in sorted({find_top(module) for module in list_imports(path)}):
            if top not in sys.stdlib_module_names and top not in OWN and top != "_typeshed":
                yield file, top


def test_each_extra_installs_what_its_code_imports() -> None:
    base, providers = list_distributions(PROJECT["dependencies"]), packages_distributions()
    lacking = []
    for file, top in list_needs():
        extra = next((extra for place, extra in BEHIND.items() if file == place or file.startswith(f"{place}/")), None)
        installed = base | (list_distributions(EXTRAS[extra]) if extra else set())
        if not {normalise(name) for name in providers.get(top, [top])} & installed and (file, top) not in ALSO:
            lacking.append((file, top, extra))
    assert lacking == []


def test_what_is_excepted_is_there() -> None:
    needs = set(list_needs())
    assert [place for place in ALSO if place not in needs] == []
    assert set(BEHIND.values()) | {"pandas", "dev"} == EXTRAS.keys()


@pytest.mark.parametrize(
    ("module", "missing", "extra"),
    [
        ("lottery_tickets.integrations.dask", ["distributed"], "cluster"),
        ("lottery_tickets.integrations.slurm", ["submitit"], "cluster"),
        ("lottery_tickets.integrations.lightning", ["lightning.pytorch", "pytorch_lightning"], "lightning"),
        ("lottery_tickets.integrations.tensorboard", ["tensorboard"], "tensorboard"),
        ("lottery_tickets.integrations.transformers", ["transformers"], "transformers"),
        ("lottery_tickets.integrations.wandb", ["wandb"], "wandb"),
    ],
)
def test_a_door_whose_library_is_missing_names_the_extra(
    module: str, missing: list[str], extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, module, raising=False)
    for name in [name for name in sys.modules if name.startswith("torch.utils.tensorboard")]:
        monkeypatch.delitem(sys.modules, name)
    for name in missing:
        monkeypatch.setitem(sys.modules, name, None)  # what Python takes for missing
    with pytest.raises(ModuleNotFoundError, match=re.escape(f"pip install 'lottery-tickets[{extra}]'")):
        importlib.import_module(module)


def hide(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Has Python find no module of this name, whoever looks for it."""
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda other, *more: None if other == name else find(other, *more))
    monkeypatch.setitem(sys.modules, name, None)  # what Python takes for missing


def test_workloads_and_reports_name_their_extras(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, call, extra in (
        ("sklearn.datasets", load_digits_data, "demo"),
        ("gguf", load_smollm2, "transformers"),
    ):
        with monkeypatch.context() as hidden:
            hide(hidden, name)
            with pytest.raises(ModuleNotFoundError, match=re.escape(f"pip install 'lottery-tickets[{extra}]'")):
                call()
    for name, words in (
        ("typst", ["demo", "--output", str(tmp_path / "demo")]),
        ("scipy", ["imp", "--output", str(tmp_path / "imp")]),
        ("tensorboard", ["imp", "--output", str(tmp_path / "imp"), "--tensorboard", str(tmp_path / "logs")]),
        ("wandb", ["early-bird", "--output", str(tmp_path / "bird"), "--wandb", "project"]),
    ):
        with monkeypatch.context() as hidden:
            hide(hidden, name)
            for module in ("lottery_tickets.integrations.wandb", "lottery_tickets.integrations.tensorboard"):
                hidden.delitem(sys.modules, module, raising=False)
            for module in [module for module in sys.modules if module.startswith("torch.utils.tensorboard")]:
                hidden.delitem(sys.modules, module)
            assert main(words) == 2
            assert "pip install 'lottery-tickets[" in capsys.readouterr().err
    assert not list(tmp_path.glob("*/run.json"))


def test_reports_in_python_name_their_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    import statistical_report_generator as reports  # noqa: PLC0415 - what is tested is how it loads

    def fail(_: str) -> Any:  # noqa: ANN401 - never returns
        raise ModuleNotFoundError("No module named 'typst'", name="typst")

    monkeypatch.setattr(reports, "_load", fail)
    monkeypatch.delitem(vars(reports), "plot_results", raising=False)
    with pytest.raises(ModuleNotFoundError, match=r"reports need typst.*lottery-tickets\[report\]"):
        _ = reports.plot_results
