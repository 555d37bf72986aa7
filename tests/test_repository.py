"""Gates that no tool holds: sizes, reasons beside exceptions, and pages that agree with the code."""

import ast
import importlib
import inspect
import re
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from jaxtyping import TypeCheckError

import lottery_tickets
from tests.budget import BUDGET_SECONDS, LARGER, PROPERTY, Budget, list_over_budget

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src"
TESTS = ROOT / "tests"
MODULES = sorted(SOURCE.rglob("*.py"))
CHECKED = [
    *MODULES,
    *sorted(path for name in ("tests", "benchmarks", "examples") for path in (ROOT / name).rglob("*.py")),
]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
PYPROJECT = (ROOT / "pyproject.toml").read_text()
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60
MAX_MODULES = 20
MAX_DECISION_LINES = 40

noqa = re.compile(r"# noqa\b(?P<reasoned>: [A-Z]+\d+(, ?[A-Z]+\d+)* - \S.{3,})?")


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


# ---------------------------------------------------------------------------------------------------------------- code


def test_files_are_short() -> None:
    lengths = {relative(path): len(path.read_text().splitlines()) for path in [*MODULES, *TESTS.rglob("*.py")]}
    assert {path: length for path, length in lengths.items() if length > MAX_FILE_LINES} == {}


def function_lengths(path: Path) -> Iterator[tuple[str, int]]:
    """Yields each function of a file with its number of lines, its docstring left out."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0]
            documented = ast.get_docstring(node) is not None
            docstring = (first.end_lineno or first.lineno) - first.lineno + 1 if documented else 0
            yield (
                f"{relative(path)}:{node.lineno} {node.name}",
                (node.end_lineno or node.lineno) - node.lineno + 1 - docstring,
            )


def test_functions_are_short() -> None:
    lengths = dict(item for path in MODULES for item in function_lengths(path))
    assert {name: length for name, length in lengths.items() if length > MAX_FUNCTION_LINES} == {}


def test_folders_show_few_modules() -> None:
    folders = Counter(path.parent for path in CHECKED if path.name != "__init__.py")
    assert {relative(folder): number for folder, number in folders.items() if number > MAX_MODULES} == {}


def names_from_faces(path: Path) -> Iterator[str]:
    """Yields what a module imports from a folder that is no module in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            folder = SOURCE.joinpath(*node.module.split("."))
            if (folder / "__init__.py").exists():
                rooms = {room.stem for room in folder.iterdir()}
                yield from (
                    f"{relative(path)}: {node.module}.{name.name}" for name in node.names if name.name not in rooms
                )


def test_tickets_import_rooms_and_never_faces() -> None:
    """A face imports its rooms, so a room that imports a face begins a circle."""
    rooms = [path for path in (SOURCE / "lottery_tickets").rglob("*.py") if path.name != "__init__.py"]
    assert [name for path in rooms for name in names_from_faces(path)] == []


def test_tests_mirror_the_source() -> None:
    """Each folder of tests stands for a folder of modules, so that one finds the tests of a module without a search."""
    packages = {path.parent.name for path in SOURCE.glob("*/__init__.py")}
    folders = {path.parent.relative_to(TESTS) for path in TESTS.rglob("test_*.py")}
    mirrors = {folder for folder in folders if folder.parts and folder.parts[0] in packages}
    assert {folder.parts[0] for folder in mirrors} == packages
    assert [str(folder) for folder in mirrors if not (SOURCE / folder / "__init__.py").exists()] == []


def test_files_with_a_larger_budget_exist_and_say_why() -> None:
    assert [path for path in LARGER if not (ROOT / path).exists()] == []
    assert all(seconds > BUDGET_SECONDS and len(reason) > 10 for seconds, reason in LARGER.values())


@pytest.mark.parametrize("is_worker", [False, True])
@pytest.mark.parametrize("seconds", [1, 1000])
def test_a_run_in_which_a_file_is_over_its_budget_fails(seconds: float, is_worker: bool) -> None:
    path = next(iter(LARGER))
    report: Any = SimpleNamespace(when="teardown", nodeid=f"{path}::test", user_properties=[(PROPERTY, seconds)])
    session: Any = SimpleNamespace(exitstatus=0, config=SimpleNamespace(**{"workerinput": {}} if is_worker else {}))
    budget = Budget()
    budget.pytest_runtest_logreport(report)
    budget.pytest_sessionfinish(session)
    assert session.exitstatus == (seconds > LARGER[path][0] and not is_worker)
    assert [line.split()[0] for line in list_over_budget(budget.spent)] == [path] * (seconds > LARGER[path][0])


def test_a_slow_machine_may_take_longer_for_all_files_and_not_for_one() -> None:
    spent = {f"tests/test_{place}.py": 1.4 * BUDGET_SECONDS for place in range(40)}
    assert list_over_budget(spent) == []
    over = list_over_budget({**spent, "tests/test_slow.py": 4 * BUDGET_SECONDS})
    assert [line.split()[0] for line in over] == ["tests/test_slow.py"]


def test_nothing_is_a_stub() -> None:
    stubs = [
        f"{relative(path)}:{node.lineno}"
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Raise) and node.exc and "NotImplementedError" in ast.unparse(node.exc)
    ]
    assert stubs == []


def test_every_public_name_says_what_it_returns() -> None:
    package = importlib.import_module("lottery_tickets")
    assert package.__all__, "lottery_tickets.__all__ must name the public names"
    silent = []
    for name in package.__all__:
        value = getattr(package, name)
        documentation = inspect.getdoc(value) or ""
        needed = r"\b([Rr]eturns|[Yy]ields|Raises)\b" if inspect.isfunction(value) else r"\S"
        if not re.search(needed, documentation):
            silent.append(name)
    assert silent == []


# ------------------------------------------------------------------------------------------- reasons beside exceptions


def ignored_rules() -> list[str]:
    """Returns the lines of pyproject.toml that name ignored ruff rules."""
    section = PYPROJECT.split("[tool.ruff.lint]")[1].split("[tool.ruff.lint.flake8-pytest-style]")[0]
    return [line for line in section.splitlines() if re.match(r'\s+"[A-Z]+\d*"', line)]


def test_every_ignored_rule_has_a_reason() -> None:
    lint = tomllib.loads(PYPROJECT)["tool"]["ruff"]["lint"]
    num_ignored = len(lint["ignore"]) + sum(len(rules) for rules in lint["per-file-ignores"].values())
    lines = ignored_rules()
    assert len(lines) == num_ignored, "each ignored rule stands on a line of its own"
    assert [line for line in lines if not re.search(r"# .{10,}", line)] == []


def test_every_exception_in_the_code_has_a_reason() -> None:
    """Which is `# noqa: S101 - why`; mypy itself asks that `type: ignore` names its error."""
    bare = [
        f"{relative(path)}:{number}"
        for path in CHECKED
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        for found in noqa.finditer(line)
        if not found["reasoned"] and path != Path(__file__)
    ]
    assert bare == []


def test_mechanisms_are_checked_against_their_annotations() -> None:
    bits = importlib.import_module("lottery_tickets._core.bits")
    with pytest.raises(TypeCheckError, match="num_weights"):
        bits.num_bytes("seven")


# ---------------------------------------------------------------------------------------------------- pages that agree


def charted() -> dict[Path, bool]:
    """Returns what the tree in ARCHITECTURE.md names, each with whether it is a folder whose content is not listed."""
    tree = (ROOT / "ARCHITECTURE.md").read_text().split("```text\n")[1].split("```")[0]
    name = r"[\w/]+(?:\.py|/)"
    paths: dict[Path, bool] = {}
    parents: list[tuple[int, Path]] = []
    for line in tree.splitlines():
        found = re.match(rf"( *)({name}(?:[ |]+{name})*)", line)
        if not found:
            continue
        indent = len(found[1])
        parents = [(depth, path) for depth, path in parents if depth < indent]
        parent = parents[-1][1] if parents else ROOT
        paths.update({parent: False} if parents else {})
        for entry in re.findall(name, found[2]):
            paths[parent / entry] = entry.endswith("/")
        parents.append((indent, parent / entry))
    return paths


def test_architecture_names_every_module() -> None:
    paths = charted()
    assert paths
    modules = [path for path in MODULES if path.name != "__init__.py"]
    open_modules = [path for path in modules if not any(paths.get(parent) for parent in path.parents)]
    assert [relative(path) for path in open_modules if path not in paths] == []


def test_architecture_names_nothing_else() -> None:
    assert [relative(path) for path in charted() if not path.exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())
    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_decisions_are_short_and_numbered_without_gaps() -> None:
    decisions = sorted((ROOT / "docs" / "decisions").glob("*.md"))
    assert [int(path.name[:4]) for path in decisions] == list(range(1, len(decisions) + 1))
    assert [path.name for path in decisions if len(path.read_text().splitlines()) >= MAX_DECISION_LINES] == []


def test_one_version_everywhere() -> None:
    version = lottery_tickets.__version__
    assert tomllib.loads(PYPROJECT)["tool"]["hatch"]["version"]["path"] == "src/lottery_tickets/__init__.py"
    changelog = re.search(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    citation = re.search(r"^version: (.+)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    assert changelog
    assert citation
    assert changelog[1] == citation[1] == version


def test_every_dependency_is_pinned_for_development() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    pins = [re.fullmatch(r"([\w.-]+)==[\w.]+", line) for line in lines]
    assert all(pins), "constraints.txt holds lines such as torch==2.13.0, without local version parts"
    pinned = {re.sub("[._]", "-", pin[1]).lower() for pin in pins if pin}
    project = tomllib.loads(PYPROJECT)["project"]
    requirements = [
        *project["dependencies"],
        *(r for extra in project["optional-dependencies"].values() for r in extra),
    ]
    names = {re.split(r"[\[><=~!]", requirement)[0].lower() for requirement in requirements}
    assert names - {project["name"]} - pinned == set()


def documented_commands() -> list[str]:
    """Returns the subcommands that the shell examples of the pages call."""
    examples = [example for page in PAGES for example in re.findall(r"```bash\n(.*?)```", page.read_text(), re.DOTALL)]
    return sorted(
        {command for example in examples for command in re.findall(r"^lottery-tickets ([\w-]+)", example, re.MULTILINE)}
    )


@pytest.mark.parametrize("command", documented_commands())
def test_every_documented_command_explains_itself(command: str) -> None:
    run = subprocess.run(
        [sys.executable, "-c", "from unified_model_analysis.cli import main; main()", command, "--help"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert command in run.stdout
