from typing import Any

import pytest

from lottery_tickets.doctor import Finding, installation
from tests.unified_model_analysis.test_cli import Output
from unified_model_analysis.cli import main


def test_it_says_what_holds_what_failed_what_to_do_and_what_to_paste(
    monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    def fail() -> str:
        raise KeyError("bits")

    checks: list[Any] = [("memory", lambda: Finding("", "9 GB", advice="more would be better"), "")]
    monkeypatch.setattr(installation, "_list_checks", lambda: checks)
    assert main(["doctor"]) == 0
    told, pasted = capsys.readouterr().out.split("To paste into a report of a bug:")
    assert "ok      memory: 9 GB\n        note: more would be better\n1 of 1 checks hold" in told
    assert pasted == "\n\n```text\nmemory: 9 GB\n```\n"
    checks.append(("masks", fail, "install again"))
    assert main(["doctor"]) == 1
    told = capsys.readouterr().out
    assert "FAILED  masks: KeyError: 'bits'\n        what to do: install again\n1 of 2 checks hold\n" in told
    assert "memory: 9 GB\nFAILED masks: KeyError: 'bits'\n```\n" in told
