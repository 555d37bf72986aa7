"""What every test shares: fenced examples of the documentation, types and shapes checked at run time, seeds."""

import gc
import os
import signal
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any, TypeVar

import jaxtyping
import pytest
from beartype import beartype
from beartype.roar import BeartypeDecorHintException
from hypothesis import settings
from sybil import Document, Example, Region, Sybil
from sybil.parsers.markdown import PythonCodeBlockParser

SOURCE = Path(__file__).parent / "src"
PACKAGE = SOURCE / "lottery_tickets"
# Behind a face, but with errors of their own for people, or made for the classes of other libraries.
EDGES = ("experiments.", "integrations.", "masks.checked", "masks.selector", "scores.gradient_scores", "scores.mixing")

pytest_plugins = ["tests.budget"]

settings.register_profile("untimed", deadline=None)  # a busy machine must not fail a run
settings.load_profile("untimed")

# Without doctests. Triton may not be there, and asks as it is imported whether it is to interpret: a test that has it
# interpret starts a process of its own, which collects its tests from such a file.
collect_ignore_glob = [] if os.environ.get("TRITON_INTERPRET") == "1" else ["*_triton.py"]

# Small models train fastest on one thread, and to the same bits on any machine; more threads than cores wait for one
# another. A test that is about threads asks for `three_threads`. Read when torch is first imported, here or in a
# process that a test starts.
os.environ["OMP_NUM_THREADS"] = "1"

# A shell that starts `make test` in the background has it ignore Ctrl-C, and so all that it starts; tests press it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

Decorated = TypeVar("Decorated", bound=Callable[..., Any])


def find_name(path: Path) -> str:
    """Returns the name that a file is imported by."""
    return ".".join(path.relative_to(SOURCE).with_suffix("").parts)


def read_face(face: Path) -> str:
    """Returns the imports of a face; a face that loads lazily has them in a stub, relative."""
    return face.read_text().replace("from .", f"from {find_name(face.parent)}.")


def list_mechanisms() -> list[str]:
    """Returns the modules in folders that no face hands a name on from, but the edges, kernels and loops.

    A face is the `__init__` of a folder. What it hands on checks its arguments itself, with errors for people. Numba
    compiles functions, not their checked wrappers.
    """
    faces = "".join(map(read_face, PACKAGE.rglob("__init__.py*")))
    names = [find_name(path) for path in PACKAGE.rglob("*/*.py") if path.name != "__init__.py"]
    left_out = tuple(f"{PACKAGE.name}.{place}" for place in (*EDGES, "_core.kernels."))
    names = [name for name in names if not name.startswith(left_out) and not name.endswith("_cpu")]
    return [name for name in names if f"from {name} import" not in faces]


def check_calls(function: Decorated) -> Decorated:
    """Returns the function with its calls checked; an annotation that only mypy can check leaves it as it is."""
    try:
        return beartype(function)
    except BeartypeDecorHintException:  # a Protocol that is not runtime_checkable; Self outside of its class
        return function


def leave_inner_functions(decorator: Callable[..., Any]) -> Callable[..., Any]:
    """Returns jaxtyping's decorator, but for functions inside of functions, which are made anew with each call.

    To make their checks takes a millisecond a time, longer than most of them run.
    """

    def make(**options: Any) -> Callable[[Any], Any]:  # noqa: ANN401 - as the decorator's
        check = decorator(**options)
        return lambda made: made if "<locals>" in getattr(made, "__qualname__", "") else check(made)

    return make


# Arguments are checked once, at the public edge, with errors for people; below it, in the tests, each call is checked
# against its annotation. The hook must be in place before the package is imported; what it adds to each function is
# `@jaxtyping.jaxtyped(typechecker=...)`.
jaxtyping.jaxtyped = leave_inner_functions(jaxtyping.jaxtyped)  # type: ignore[assignment] # of fewer signatures
jaxtyping.install_import_hook(list_mechanisms(), f"{__name__}.check_calls")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Looks for garbage neither while modules are imported nor, later, in what they left, which stays to the end.

    It took a quarter of the time in which tests are collected, and a second of each look through all there is.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.fixture
def in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs in an empty folder, for examples that write files."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(autouse=True)
def _seed_torch(request: pytest.FixtureRequest) -> Iterator[None]:
    """Seeds torch as pytest-randomly seeds random and numpy, and puts its global state back."""
    import torch  # noqa: PLC0415 - after the import hook, and not at all for `pytest --help`

    seed = request.config.getoption("randomly_seed", default=0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed if isinstance(seed, int) else 0)
        yield


@pytest.fixture(autouse=True)
def _own_rates(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keeps rates, which plans read and the doctor writes, apart from those of whoever runs the tests."""
    from lottery_tickets._core.rates import kept  # noqa: PLC0415 - after the import hook

    place = tmp_path_factory.getbasetemp() / "rates" / kept.NAME
    place.unlink(missing_ok=True)
    monkeypatch.setattr(kept, "find_place", lambda: place)


@pytest.fixture
def three_threads() -> Iterator[None]:
    """Lets torch, and with it the kernels, use more than one thread."""
    import torch  # noqa: PLC0415 - as above

    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def parse_page(document: Document) -> Iterator[Region]:
    """Yields one example for a page: its fences share names, so they are neither shuffled nor spread over workers."""
    fences = list(PythonCodeBlockParser()(document))
    if fences:
        yield Region(fences[0].start, fences[-1].end, parsed=fences, evaluator=evaluate_page)


def evaluate_page(page: Example) -> None:
    """Runs the fences of a page from top to bottom."""
    for fence in page.parsed:
        line = page.document.text.count("\n", 0, fence.start) + 1
        Example(page.document, line, 1, fence, page.namespace).evaluate()


pytest_collect_file = Sybil(
    parsers=[parse_page], patterns=["README.md", "docs/*.md", "docs/*/*.md"], fixtures=["in_empty_folder"]
).pytest()
