"""What is wrong with an installation or a machine is found and said, and nothing keeps the rest from being checked."""

import errno
import getpass
import platform
import shutil
from collections import namedtuple
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from lottery_tickets import (
    Ticket,
    as_mask,
    compute_iterative_magnitude_pruning,
    doctor,
    remove_mask,
    use_ticket,
)
from lottery_tickets._core import devices
from lottery_tickets.doctor import Finding, check_installation, describe_findings, installation, machine, small_ticket
from lottery_tickets.doctor.checking import DoctorError, examine

GB = 10**9
Usage = namedtuple("Usage", "total used free")  # noqa: PYI024 - as shutil.disk_usage returns


@pytest.mark.usefixtures("_small")
def test_this_installation_does_what_it_must_and_each_finding_is_told() -> None:
    told: list[Finding] = []
    findings = check_installation(told.append)
    assert told == findings
    assert [finding for finding in findings if finding.problem] == []
    names = [finding.name for finding in findings]
    assert len(names) == len(set(names))
    assert {"versions", "memory", "disk", "device cpu", "numba: selection", "masks on cpu", "a ticket on cpu"} <= set(
        names
    )
    assert f"torch {torch.__version__.split('+')[0]}" in findings[0].found


@pytest.mark.usefixtures("_small")
def test_whatever_a_check_raises_the_others_are_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(*_: object) -> None:
        raise ArithmeticError("a processor that cannot count")

    monkeypatch.setattr(installation, "list_kernel_checks", lambda _: [("broken", crash)])
    monkeypatch.setattr(installation, "look_at_memory", crash)
    findings = {finding.name: finding for finding in check_installation()}
    assert findings["broken"].problem == "ArithmeticError: a processor that cannot count"
    assert "do not trust masks" in findings["broken"].advice
    assert findings["memory"].problem
    assert not findings["a ticket on cpu"].problem


def test_packages_that_are_missing_or_too_old_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def old_version(name: str) -> str:
        if name == "numba":
            raise PackageNotFoundError
        return {"torch": "2.6.0+cu124", "wandb": "0.9"}.get(name, "9999.0")

    monkeypatch.setattr(machine, "version", old_version)
    with pytest.raises(DoctorError, match=r"numba is not installed; torch must be 2\.7 or later, but is 2\.6\.0"):
        machine.look_at_versions()
    assert machine.look_at_extras().advice == "wandb must be 0.18 or later, but is 0.9 for the extra wandb"


def test_little_memory_and_a_full_disk_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "find_free_bytes", lambda: GB // 2)
    with pytest.raises(DoctorError, match=r"0\.5 GB are available"):
        machine.look_at_memory()
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10 * GB, 9 * GB, GB // 2))
    with pytest.raises(DoctorError, match=r"0\.5 GB free in this folder") as raised:
        machine.look_at_disk(Path())
    assert "TMPDIR" in raised.value.advice


@pytest.mark.parametrize(
    ("threads", "processors", "advice"),
    [
        (1, 8, "torch uses 1 of 8 processors; unset OMP_NUM_THREADS"),
        (4, 8, ""),
        (1, 1, ""),
        (16, 8, "export OMP_NUM_THREADS=8"),
    ],
)
def test_threads_that_do_not_fit_the_processors_are_no_failure_but_noted(
    threads: int, processors: int, advice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr(machine, "_count_processors", lambda: processors)
    finding = machine.look_at_processor()
    assert not finding.problem
    assert advice in finding.advice
    assert bool(finding.advice) == bool(advice)


def test_a_device_that_multiplies_wrong_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    multiply = torch.Tensor.matmul

    def round_first(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        """As TF32 does."""
        return multiply(one.bfloat16().to(one.dtype) if one.dtype == torch.float32 else one, other)

    monkeypatch.setattr(torch.Tensor, "__matmul__", round_first)
    with pytest.raises(DoctorError, match="a float32 product on cpu is off by"):
        machine.look_at_device("cpu")


def test_a_folder_that_is_full_or_may_not_be_written_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(small_ticket, "save_ticket", refuse)
    finding = examine("a ticket", lambda: small_ticket.check_small_ticket("cpu"))
    assert finding.problem == "No space left on device while a ticket was kept in a temporary folder"
    assert "export TMPDIR" in finding.advice


def test_a_ticket_that_is_wrong_anywhere_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def check() -> str:
        return examine("a ticket", lambda: small_ticket.check_small_ticket("cpu")).problem

    def keep_none(*arguments: Any, **options: Any) -> Any:  # noqa: ANN401 - as the function
        results = compute_iterative_magnitude_pruning(*arguments, **options)
        return {**results, "final_mask": as_mask({name: bits & False for name, bits in results["final_mask"].items()})}

    def rewind_elsewhere(*arguments: Any, **options: Any) -> Any:  # noqa: ANN401 - as the function
        results = compute_iterative_magnitude_pruning(*arguments, **options)
        state = results["rewind_state"] or {}
        return {**results, "rewind_state": {name: value + 1e-7 for name, value in state.items()}}

    def let_go(model: nn.Module, ticket: Ticket) -> Ticket:
        used = use_ticket(model, ticket)
        remove_mask(model)
        return used

    for name, wrong, problem in (
        ("compute_iterative_magnitude_pruning", keep_none, "another number of weights"),
        ("compute_iterative_magnitude_pruning", rewind_elsewhere, "not the start, bit for bit"),
        ("use_ticket", let_go, "must be held to a mask"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(small_ticket, name, wrong)
            assert problem in check()
    assert check() == ""


def test_what_is_pasted_names_neither_user_nor_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "ada-home")
    monkeypatch.setattr(getpass, "getuser", lambda: "ada")
    monkeypatch.setattr(platform, "node", lambda: "tower.lan")
    said = f"no file {tmp_path / 'ada-home' / 'x'}, nor /data/ada/y on tower.lan; adaptive stays"
    text = describe_findings([Finding("disk", "", said), Finding("memory", "8 GB")])
    assert text == "FAILED disk: no file ~/x, nor /data/USER/y on HOST; adaptive stays\nmemory: 8 GB"

    def nobody() -> str:
        raise KeyError("uid not found")

    monkeypatch.setattr(getpass, "getuser", nobody)
    assert describe_findings([Finding("memory", "8 GB")]) == "memory: 8 GB"


def test_free_memory_is_the_system_s_within_the_container_s(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    system = devices.find_free_bytes()
    assert system is not None
    assert GB // 10 < system < 10**15
    (tmp_path / "meminfo").write_text("MemTotal: 8000 kB\nMemAvailable:    4000 kB\n")
    files = [tmp_path / name for name in ("max", "current", "stat")]
    monkeypatch.setattr(devices, "MEMORY", tmp_path / "meminfo")
    monkeypatch.setattr(devices, "CONTAINERS", (tuple(files),))
    assert devices.find_free_bytes() == 4_096_000
    for limit, free in (("max", 4_096_000), ("3000000", 1_500_000), ("9000000", 4_096_000), ("1", 0)):
        for file, text in zip(files, (limit, "2000000", "anon 7\ninactive_file 500000\n"), strict=True):
            file.write_text(text)
        assert devices.find_free_bytes() == free
    monkeypatch.setattr(devices, "MEMORY", tmp_path / "none")
    (tmp_path / "max").unlink()
    assert devices.find_free_bytes() is None


def test_the_face_shows_what_users_call() -> None:
    assert dir(doctor) == ["Finding", "check_installation", "describe_findings"]
