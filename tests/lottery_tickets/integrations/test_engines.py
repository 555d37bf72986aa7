"""Engines by their names: what is taken, and what is refused in words before anything begins."""

from pathlib import Path

import pytest

from lottery_tickets.integrations.engines import _read_options, check_executor, opened_executor
from unified_model_analysis.cli import main


@pytest.mark.parametrize("named", ["dask", "dask://", "dask://host", "mpi://host:1", "slurm", ""])
def test_a_name_of_no_engine_is_refused(named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["imp", "--output", str(tmp_path / "run"), "--executor", named]) == 2
    assert "--executor must be dask://HOST:PORT, dask://local or slurm:NAME=VALUE" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_an_engine_has_workers_of_its_own() -> None:
    check_executor("dask://local", 2)
    for named in ("dask://host:8786", "slurm:"):
        check_executor(named, None)
        with pytest.raises(ValueError, match="the engine has workers of its own"):
            check_executor(named, 2)


def test_options_of_slurm_may_have_commas_and_numbers_are_numbers() -> None:
    assert _read_options("partition=short,time=60,exclude=n1,n2") == {
        "partition": "short",
        "time": 60,
        "exclude": "n1,n2",
    }
    assert _read_options("") == {}
    with pytest.raises(ValueError, match="options of slurm: must be NAME=VALUE, got 'fast'"):
        check_executor("slurm:fast", None)


def test_without_a_name_there_is_no_engine(tmp_path: Path) -> None:
    with opened_executor(None, None, tmp_path) as executor:
        assert executor is None


def test_a_machine_without_slurm_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with (
        pytest.raises(FileNotFoundError, match="there is no sbatch, srun, squeue; use a machine of its cluster"),
        opened_executor("slurm:", None, tmp_path),
    ):
        pass


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["connectivity", "--checkpoints", "a", "b"], "two checkpoints, which are only measured"),
        (["evaluate", "--checkpoint", "a"], "what is not trained; --start trains"),
        (["analyze", "--checkpoint", "a"], "what is not trained; --train trains"),
    ],
)
def test_what_trains_nothing_takes_no_engine(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, "--output", str(tmp_path / "out"), "--executor", "dask://local"]) == 2
    assert said in capsys.readouterr().err
