"""Files that were changed at random are read, or refused as documented, in one line; and the study can tell."""

import gzip
import io
import json
import random
import time
import zipfile
from collections import Counter
from pathlib import Path

import pytest
import torch
from benchmarks.studies.fuzzing.kinds import KINDS
from benchmarks.studies.fuzzing.mutators import BYTES, edit_json, list_changes
from benchmarks.studies.fuzzing.outcomes import FileKind, Outcomes, TooSlowError, bounded, fuzz, fuzz_command
from benchmarks.studies.fuzzing.sealing import seal

from lottery_tickets import Mask, load_ticket
from lottery_tickets._core.folders import read_hashed, write_hashed

NUM_FILES = 25
NUM_COMMANDS = 3
FEW = 10
SLOWEST = {
    "run folder, verified",
    "run folder, compared",
    "run folder, gone on with",
    "early-bird folder",
    "connectivity folder",
    "text",
} | {
    "earlier results",
    "analysis, gone on with",
    "landscape, gone on with",
}


def is_sound(found: Outcomes) -> bool:
    return not found.undocumented and not found.unclear


@pytest.mark.parametrize("name", KINDS)
def test_a_changed_file_is_read_or_refused_as_documented(name: str, tmp_path: Path) -> None:
    found = fuzz(KINDS[name], tmp_path / "fuzzed", FEW if name in SLOWEST else NUM_FILES, seed=2)
    assert is_sound(found), found.examples
    assert found.refused or name.endswith("verified"), "changes must matter"


@pytest.mark.parametrize("name", [kind.name for kind in KINDS.values() if kind.command])
def test_a_command_says_in_one_line_what_is_wrong_with_a_changed_file(name: str, tmp_path: Path) -> None:
    found = fuzz_command(KINDS[name], tmp_path / "fuzzed", NUM_COMMANDS, seed=3)
    assert is_sound(found), found.examples


# ------------------------------------------------------------------------------------------------ the study itself


def read_badly(place: Path) -> object:
    """Has a fault for each thing that the study counts.

    Raises:
        ValueError: When the file is short.
    """
    content = (place / "file").read_bytes()
    if len(content) < 50:
        raise ValueError("too short" if len(content) % 2 else f"{place / 'file'} is too\nshort")
    if len(content) > 150:
        raise LookupError(len(content))
    return content


def test_what_is_undocumented_and_what_is_unclear_is_counted(tmp_path: Path) -> None:
    def make(place: Path) -> list[Path]:
        (place / "file").write_bytes(bytes(range(100)))
        return [place / "file"]

    kind = FileKind("bad", make, read_badly, (read_badly,))
    assert kind.documented == (ValueError,)
    found = fuzz(kind, tmp_path / "place", 100)
    assert found.read + found.refused + sum(found.undocumented.values()) == 100
    assert found.undocumented["LookupError"] > 0
    assert found.undocumented.keys() <= {"LookupError", "FileNotFoundError", "IsADirectoryError"}
    assert found.unclear == Counter({"ValueError": found.refused})
    assert found.to_json() == fuzz(kind, tmp_path / "place", 100).to_json()
    assert found.to_json() != fuzz(kind, tmp_path / "place", 100, seed=1).to_json()


def test_what_is_read_as_something_else_is_counted(tmp_path: Path) -> None:
    def make(place: Path) -> list[Path]:
        write_hashed(place / "file.json", {"number": 3})
        return [place / "file.json"]

    def read_on(place: Path) -> object:
        """Raises:
        OSError: When there is no file.
        """
        return (place / "file.json").read_bytes()

    found = fuzz(FileKind("any", make, read_on, (read_on,), compares=True), tmp_path / "place", 100)
    assert found.undocumented["read as something else"] > 30
    assert found.undocumented.total() < found.read, "hashes that are made anew are those of another file"
    hashed = FileKind("hashed", make, lambda place: read_hashed(place / "file.json"), (read_hashed,), compares=True)
    assert not fuzz(hashed, tmp_path / "place", 100).undocumented["read as something else"]


def test_a_file_that_takes_too_long_or_too_much_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.studies.fuzzing.outcomes.MOST_SECONDS", 0.05)
    with pytest.raises(TooSlowError, match=r"more than 0\.05 s"), bounded():
        time.sleep(60)
    with pytest.raises(MemoryError, match=r"^$"), bounded():
        bytearray(1 << 40)


def test_changes_suit_the_format() -> None:
    chance = random.Random(0)  # noqa: S311 - no secret
    buffer = io.BytesIO()
    torch.save({"w": torch.ones(2)}, buffer)
    tensors = (20).to_bytes(8, "little") + b'{"__metadata__": {}}'
    contents = {"zip": buffer.getvalue(), "gzip": gzip.compress(b"text"), "json": b'{"a": [1, {"b": "{\\"c\\": 2}"}]}'}
    for content in (*contents.values(), tensors):
        changes = set(list_changes(content))
        assert changes > set(BYTES)
        for change in sorted(changes, key=lambda change: change.__name__):
            assert len({change(content, chance) for _ in range(20)}) > 1
    assert list_changes(b"text") == list(BYTES)
    edited = {edit_json(contents["json"], chance) for _ in range(300)}
    assert any(b'\\"c\\"' in content and content != contents["json"] for content in edited), "JSON within JSON"
    whole = 0
    for _ in range(50):
        changed = next(c for c in list_changes(contents["zip"]) if c not in BYTES)(contents["zip"], chance)
        with zipfile.ZipFile(io.BytesIO(changed)) as archive:
            whole += archive.testzip() is None
    assert whole == 50, "members that were changed have checksums that fit"


def test_hashes_are_made_anew(tmp_path: Path) -> None:
    write_hashed(tmp_path / "looks.json", {"num_replicates": [1]})
    Mask.from_tensors({"w": torch.eye(4)}).save(tmp_path / "mask.safetensors")
    changed = json.loads((tmp_path / "looks.json").read_text()) | {"num_replicates": [2]}
    (tmp_path / "looks.json").write_text(json.dumps(changed))
    content = bytearray((tmp_path / "mask.safetensors").read_bytes())
    content[-1] ^= 1
    (tmp_path / "mask.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match="digest"):
        Mask.load(tmp_path / "mask.safetensors")
    assert seal(tmp_path)
    assert read_hashed(tmp_path / "looks.json") == {"num_replicates": [2]}
    assert Mask.load(tmp_path / "mask.safetensors").num_kept in {3, 5}
    assert not seal(tmp_path / "nowhere")


def test_hashes_of_a_ticket_are_made_anew(tmp_path: Path) -> None:
    path, kind = tmp_path / "ticket.safetensors", KINDS["ticket"]
    kind.make(tmp_path)
    before = path.read_bytes()
    changed = bytearray(before.replace(b"matching", b"watching"))
    for place in (8 + int.from_bytes(before[:8], "little"), -1):  # theta_k comes first, then the bits of the mask
        changed[place] ^= 1
    path.write_bytes(changed)
    with pytest.raises(ValueError, match=r"hash|digest"):
        kind.read(tmp_path)
    assert seal(tmp_path)
    found = load_ticket(path)
    assert found.claims is not None
    assert found.claims["verdict"] == "watching"
    assert not any(one.encode() in before for one in (found.state_sha256, found.mask.digest))
