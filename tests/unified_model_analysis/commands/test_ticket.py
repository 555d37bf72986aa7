"""A finished run leaves a ticket, others are one command away, and `verify` knows whether they follow from the run."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from lottery_tickets import Ticket, load_ticket, save_ticket, use_ticket
from lottery_tickets._core.files import read_json, write_json
from lottery_tickets._core.states import hash_state
from lottery_tickets.experiments.folder import ExperimentFolder
from lottery_tickets.experiments.plan import Training
from lottery_tickets.experiments.steps import find_start
from tests.lottery_tickets.test_tickets import write_with_holes
from tests.models import make_lenet
from unified_model_analysis.cli import main

RUN = ("--levels=2", "--controls=2", "--replicates=2", "--steps=20", "--evaluate-every=20", "--workers=1")
Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "run"
    assert main(["imp", "--output", str(run), *RUN, "--margin=30"]) == 0
    return run


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def make(run: Path, *words: object) -> int:
    return main(["ticket", "make", str(run), f"--output={run.parent / 'ticket.safetensors'}", *map(str, words)])


def verify(run: Path, capsys: Capture) -> tuple[int, str]:
    capsys.readouterr()
    code = main(["verify", str(run)])
    return code, capsys.readouterr().out


def test_the_ticket_of_a_run_is_what_was_trained(run: Path, capsys: Capture) -> None:
    assert verify(run, capsys)[0] == 0
    ticket, folder = load_ticket(run / "ticket.safetensors"), ExperimentFolder.read(run)
    training = Training(0, ticket.provenance["level"], "ticket")
    assert ticket.mask == folder.load_mask(training)
    assert ticket.state_sha256 == hash_state(folder.load_rewind_point(training))
    model = make_lenet(5)
    use_ticket(model, ticket)
    start = find_start(folder, training, ticket.mask)
    assert start is not None
    assert hash_state(model.state_dict()) == hash_state(start) == folder.load_record(training)["start_sha256"]
    summary = json.loads((run / "summary.json").read_bytes())["claims"]
    level = summary["levels"][training.level - 1]
    assert ticket.claims is not None
    assert {name: ticket.claims[name] for name in ("verdict", "winning", "margin", "alpha")} == {
        "verdict": level["verdict"], "winning": level["winning"], "margin": 0.3, "alpha": 0.05,
    }  # fmt: skip
    assert (ticket.claims["num_replicates"], ticket.claims["date"]) == (2, None)
    assert ticket.claims["difference"]["mean"] == level["ticket_minus_dense"]["mean"]


def alter(run: Path, change: Callable[[Ticket], Ticket]) -> None:
    change(load_ticket(run / "ticket.safetensors")).save(run / "ticket.safetensors")


FORGED: dict[str, tuple[Callable[[Ticket], Ticket], str]] = {
    "another verdict": (
        lambda ticket: ticket.with_claims({**dict(ticket.claims or {}), "verdict": "winning"}),
        "its claims.verdict is another than the results give",
    ),
    "no claims": (
        lambda ticket: Ticket(ticket.mask, ticket.state, 0, ticket.provenance),
        "its claims is another than the results give",
    ),
    "another mask": (
        lambda ticket: Ticket(~ticket.mask, ticket.state, 0, ticket.provenance, ticket.claims),
        "its mask are not those that the trainings give",
    ),
    "another theta_k": (
        lambda ticket: Ticket(
            ticket.mask, {n: t + 1 for n, t in ticket.state.items()}, 0, ticket.provenance, ticket.claims
        ),
        "its theta_k are not those that the trainings give",
    ),
    "other seeds": (
        lambda ticket: ticket.with_provenance({"seeds": {}}), "its provenance are not those that the trainings give"
    ),
    "no level": (lambda ticket: ticket.with_provenance({"level": "2"}), "it says it is of level '2', replicate 0"),
}  # fmt: skip


@pytest.mark.parametrize("case", FORGED)
def test_a_ticket_that_does_not_follow_from_its_run_is_found(case: str, run: Path, capsys: Capture) -> None:
    change, words = FORGED[case]
    alter(run, change)
    code, said = verify(run, capsys)
    assert code == 1
    assert words in " ".join(said.split())


def test_a_ticket_that_the_summary_names_must_be_there(run: Path, capsys: Capture) -> None:
    (run / "ticket.safetensors").unlink()
    code, said = verify(run, capsys)
    assert code == 1
    assert "summary.json names it, but there is no such file; run the same command again" in " ".join(said.split())
    write_json(run / "summary.json", {**read_json(run / "summary.json"), "ticket": None})
    code, said = verify(run, capsys)
    assert (code, "it.ticket is another than the results give" in said) == (1, True)


def test_a_dense_network_alone_is_reported_without_a_ticket(tmp_path: Path, capsys: Capture) -> None:
    words = ("--levels=0", "--replicates=2", "--steps=2", "--evaluate-every=2", "--workers=1")
    assert main(["imp", "--output", str(tmp_path / "run"), *words]) == 0
    shown = capsys.readouterr().out
    assert "Nothing was pruned, so nothing can be said about tickets." in shown
    assert "margin" not in shown
    assert read_json(tmp_path / "run" / "summary.json")["ticket"] is None
    code, said = verify(tmp_path / "run", capsys)
    assert (code, "ticket.safetensors" in said) == (0, False)


def test_folders_of_before_have_no_ticket_and_get_one_when_they_are_shown_again(run: Path, capsys: Capture) -> None:
    before = (run / "ticket.safetensors").read_bytes()
    (run / "ticket.safetensors").unlink()
    summary = read_json(run / "summary.json")
    del summary["ticket"]
    write_json(run / "summary.json", summary)
    code, said = verify(run, capsys)
    assert (code, "summary.json says nothing of a ticket.safetensors" in " ".join(said.split())) == (0, True)
    assert main(["imp", "--output", str(run), *RUN, "--margin=30"]) == 0
    assert (run / "ticket.safetensors").read_bytes() == before
    (run / "other.safetensors").write_bytes(before)
    code, said = verify(run, capsys)
    assert (code, "['other.safetensors'] are not in the plan" in said) == (1, True)


def test_any_ticket_of_a_run_is_a_command_away(run: Path, capsys: Capture) -> None:
    capsys.readouterr()
    assert make(run, "--level=1", "--replicate=1") == 0
    said = " ".join(capsys.readouterr().out.split())
    ticket, training = load_ticket(run.parent / "ticket.safetensors"), Training(1, 1, "ticket")
    folder = ExperimentFolder.read(run)
    assert ticket.mask == folder.load_mask(training)
    assert ticket.state_sha256 == hash_state(folder.load_rewind_point(training))
    assert ticket.claims is not None
    assert ticket.claims["margin"] == 0.3, "the run's own, so that nothing is contradicted"
    assert ticket.claims["date"] == ticket.provenance["saved"]["date"]
    assert "a ticket of sparsity 0.1980 (40,260 of 50,200 weights kept). At 80.2 % of the weights:" in said
    assert "Of winning nothing can be said without all controls" in said
    assert "theta_k: k = 0; 6 tensors, 50,610 numbers (float32), 202,440 bytes" in said
    assert "theta_k not checked, because the weights were not read (--check)" in said
    assert "20.0000% removed fc1.weight (300, 64)" in said


def test_a_ticket_that_goes_on_from_trained_weights_has_these(tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = ("--levels=1", "--replicates=1", "--steps=20", "--evaluate-every=20", "--workers=1")
    assert (
        main(["imp", "--output", str(run), *words, "--rewinding=learning_rate", "--rewind-step=5", "--controls"]) == 0
    )
    folder = ExperimentFolder.read(run)
    ticket = load_ticket(run / "ticket.safetensors")
    assert ticket.state_sha256 == hash_state(folder.load_weights(Training(0, 0, "ticket")))
    assert (ticket.step, ticket.provenance["rewinding"]) == (5, "learning_rate")


def test_what_exists_is_not_overwritten_unasked(run: Path, capsys: Capture) -> None:
    output = run.parent / "ticket.safetensors"
    output.write_bytes(b"mine")
    assert make(run) == 2
    assert capsys.readouterr().err.endswith(
        "exists and would be replaced; name another place, or say so with --force\n"
    )
    assert output.read_bytes() == b"mine"
    assert make(run, "--force") == 0
    assert load_ticket(output).has_weights


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--level=3"], "the run has tickets at levels [1, 2], but none at 3; level 0 is the dense network"),
        (["--level=0"], "but none at 0; level 0 is the dense network"),
        (["--replicate=2"], "the run has replicates 0 to 1, but no 2; choose one of them"),
        (["--margin=0"], "margin must be positive, but is 0.0"),
    ],
)
def test_what_a_run_does_not_have_is_said(run: Path, words: list[str], said: str, capsys: Capture) -> None:
    capsys.readouterr()
    assert make(run, *words) == 2
    err = capsys.readouterr().err
    assert said in err
    assert len(err.splitlines()) == 1
    assert not (run.parent / "ticket.safetensors").exists()


def test_a_ticket_of_14_billion_weights_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    path = tmp_path / "large.safetensors"
    write_with_holes(path, 14_770_000_000, monkeypatch)
    assert main(["ticket", "show", str(path)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "2 of 4 weights kept). no claims: never trained beside its controls" in said
    assert "14,770,000,004 numbers (bfloat16, float32), 29,540,000,016 bytes" in said


def test_checking_reads_the_weights(tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "ticket.safetensors"
    model = make_lenet()
    save_ticket(path, {"fc1.weight": model.state_dict()["fc1.weight"] > 0}, model)
    assert main(["ticket", "show", str(path), "--check"]) == 0
    assert "theta_k checked: sha256" in " ".join(capsys.readouterr().out.split())
    content = bytearray(path.read_bytes())
    content[8 + int.from_bytes(content[:8], "little")] ^= 1  # of the first weight; the bits of the mask come last
    path.write_bytes(bytes(content))
    assert main(["ticket", "show", str(path)]) == 0
    assert main(["ticket", "show", str(path), "--check"]) == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "FAILED " in said
    assert "theta_k was altered" in said
    path.write_bytes(b"another thing")
    assert main(["ticket", "show", str(path), "--check"]) == 2
