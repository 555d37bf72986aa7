"""One short call of each command that writes, for tests that hold all of them to the same."""

import json
from pathlib import Path
from typing import Any, Final

import safetensors.torch

from lottery_tickets import create_magnitude_mask
from tests.models import make_lenet

TIMES: Final = {"seconds", "started", "wall_seconds", "content_sha256"}  # the last is of all the others
SHORT: Final = ("--steps", "12", "--replicates", "2")
COMMANDS: Final[dict[str, tuple[str, ...]]] = {
    "imp": ("imp", "--output", "OUT", "--levels=1", "--evaluate-every=12", "--workers=1", *SHORT),
    "early-bird": (
        "early-bird",
        "--output",
        "OUT",
        "--check-interval=1",
        "--epochs=2",
        "--checkpoint=IN/first.safetensors",
    ),
    "connectivity, trained": (
        *("connectivity", "--output", "OUT", "--rewind-steps", "0", "1", "--search", "--grid-points=3", "--workers=1"),
        *SHORT,
    ),
    "connectivity, given": (
        *("connectivity", "--output", "OUT", "--checkpoints", "IN/first.safetensors", "IN/second.safetensors"),
        "--grid-points=3",
    ),
    "landscape": (
        "landscape",
        "--output",
        "OUT",
        "--grid-points=3",
        "--batches=1",
        "--checkpoint=IN/first.safetensors",
    ),
    "evaluate": (
        *("evaluate", "--output", "OUT/found.json", "--mask=IN/mask.safetensors", "--checkpoint=IN/second.safetensors"),
        *("--start=IN/first.safetensors", "--workers=1", *SHORT),
    ),
    "export": (
        *(
            "export",
            "--output",
            "OUT/small.safetensors",
            "--mask=IN/mask.safetensors",
            "--output-results=OUT/found.json",
        ),
        "--checkpoint=IN/first.safetensors",
    ),
    "score": (
        *("score", "--output", "OUT/found.json", "--method=fisher", "--num-samples=20"),
        *("--output-mask=OUT/mask.safetensors", "--output-scores=OUT/scores.safetensors"),
    ),
    "diff": (
        *("diff", "IN/first.safetensors", "IN/second.safetensors", "IN/third.safetensors"),
        *("--output", "OUT/found.json"),
    ),
    "mask": ("mask", "create", "IN/first.safetensors", "--output", "OUT/mask.safetensors", "--sparsity=0.5"),
}
OF_FILES: Final = ("evaluate", "export", "score", "diff", "mask")  # which replace none without --force
HOLDING: Final = ("imp", "early-bird", "connectivity, trained", "connectivity, given", "landscape")


def save_inputs(folder: Path) -> None:
    """Writes the networks and the mask that the commands are given."""
    folder.mkdir()
    for seed, name in enumerate(("first", "second", "third")):
        safetensors.torch.save_file(make_lenet(seed).state_dict(), folder / f"{name}.safetensors")
    create_magnitude_mask(make_lenet(0), 0.8).save(folder / "mask.safetensors")


def make_words(name: str, given: Path, out: Path) -> list[str]:
    """Returns a command's words, with its places."""
    return [word.replace("OUT", str(out)).replace("IN/", f"{given}/") for word in COMMANDS[name]]


def read_files(folder: Path) -> dict[str, bytes]:
    """Returns all files below a folder, by path."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def leave_out_times(value: Any) -> Any:  # noqa: ANN401 - JSON is anything
    """Returns JSON without when and for how long."""
    if isinstance(value, dict):
        return {name: leave_out_times(item) for name, item in value.items() if name not in TIMES}
    return [leave_out_times(item) for item in value] if isinstance(value, list) else value


def forget_times(files: dict[str, bytes]) -> dict[str, Any]:
    """Returns files as they are, of JSON the values without times."""
    return {
        name: leave_out_times(json.loads(content)) if name.endswith(".json") else content
        for name, content in files.items()
    }
