"""A landscape goes on from its file to the same end, and refuses the file of another."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lottery_tickets import compute_loss_landscape, load_results
from lottery_tickets.landscape import surface
from tests import slow_landscape
from tests.lottery_tickets.landscape.pairs import PAIRS
from tests.models import make_mlp


@pytest.mark.parametrize("mode", ["plane", "line"])
@pytest.mark.parametrize("num_done", [0, 1, 5, 9])
def test_an_interrupted_landscape_goes_on_to_the_same_end(tmp_path: Path, mode: str, num_done: int) -> None:
    end_state = {name: 2 * tensor for name, tensor in make_mlp().state_dict().items()}
    options: dict[str, Any] = {"grid_points": 9, "end_state": end_state} if mode == "line" else {"grid_points": 3}
    path, num_calls = tmp_path / "landscape.json", 0

    def count(model: nn.Module, batch: Any) -> Tensor:  # noqa: ANN401 - any batch
        nonlocal num_calls
        num_calls += 1
        if num_calls == num_stop:
            raise RuntimeError("stop")
        return nn.functional.cross_entropy(model(batch[0]), batch[1])

    num_stop = -1
    whole = compute_loss_landscape(make_mlp(), PAIRS, loss_fn=count, **options)
    num_calls, num_stop = 0, 3 * (1 + num_done) + 2
    if num_done < 9:
        with pytest.raises(RuntimeError, match="stop"):
            compute_loss_landscape(make_mlp(), PAIRS, loss_fn=count, path=path, **options)
    else:
        compute_loss_landscape(make_mlp(), PAIRS, loss_fn=count, path=str(path), **options)
    partial_results = load_results(path)
    assert partial_results["num_measured"] == num_done
    assert partial_results["num_nonfinite"] == 0
    flat = [loss for row in partial_results["losses"] for loss in row]
    assert flat == [loss for row in whole["losses"] for loss in row][:num_done] + [None] * (9 - num_done)
    num_calls, num_stop = 0, -1
    assert compute_loss_landscape(make_mlp(), PAIRS, loss_fn=count, path=path, **options) == whole
    assert num_calls == 3 * (1 + 9 - num_done)  # the centre is measured to know the data
    stored = load_results(path)
    assert stored.pop("schema") == "lottery-tickets landscape 1"
    assert stored.pop("provenance")["settings"] == stored["settings"]
    assert stored == whole
    assert list(tmp_path.iterdir()) == [path]


def test_a_killed_landscape_leaves_a_file_to_go_on_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(surface, "SECONDS_BETWEEN_WRITES", 0.0)
    path = tmp_path / "landscape.json"
    process = subprocess.Popen(
        [sys.executable, "-m", slow_landscape.__name__, str(path), "0.05"], cwd=Path(__file__).parents[3]
    )
    deadline = time.monotonic() + 120
    while (not path.exists() or load_results(path)["num_measured"] < 8) and time.monotonic() < deadline:
        time.sleep(0.005)  # each of these reads must find a whole file
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert 8 <= load_results(path)["num_measured"] < 25
    whole = slow_landscape.measure_slowly(tmp_path / "whole.json", 0)
    assert slow_landscape.measure_slowly(path, 0) == whole
    told, expected = load_results(path), load_results(tmp_path / "whole.json")
    assert {**told, "provenance": None} == {**expected, "provenance": None}


def make_other() -> nn.Sequential:
    model = make_mlp()
    with torch.no_grad():
        model.get_parameter("2.bias")[0] += 1e-9
    return model


DIFFERENT: dict[str, tuple[str, Callable[[], nn.Module], Sequence[Any], dict[str, Any]]] = {
    "seed": ("differs in seeds, seed;", make_mlp, PAIRS, {"seed": 1}),
    "span": ("differs in span, x, y;", make_mlp, PAIRS, {"span": 2}),
    "grid": ("differs in x, y;", make_mlp, PAIRS, {"grid_points": 5}),
    "weights": ("differs in model_sha256;", make_other, PAIRS, {}),
    "choice": ("differs in parameters;", make_mlp, PAIRS, {"include": "0"}),
    "mask": ("differs in mask_sha256;", make_mlp, PAIRS, {"mask": {"0.weight": torch.ones(7, 5)}}),
    "line": ("differs in mode", make_mlp, PAIRS, {"end_state": make_mlp().state_dict()}),
    "less data": ("must be a landscape on the same data, but .* over 12 .* over 10", make_mlp, PAIRS[:2], {}),
    "the same data twice": ("the same data, but .* over 12 .* over 24", make_mlp, [*PAIRS, *PAIRS], {}),
    "other data": ("must be a landscape on the same data", make_mlp, [(i + 1, t) for i, t in PAIRS], {}),
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_a_file_of_another_landscape_is_refused_and_kept(tmp_path: Path, name: str) -> None:
    message, make, data, options = DIFFERENT[name]
    path = tmp_path / "landscape.json"
    compute_loss_landscape(make_mlp(), PAIRS, 3, path=path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=message):
        compute_loss_landscape(make(), data, **{"grid_points": 3, "path": path, **options})
    assert path.read_bytes() == before


@pytest.mark.parametrize("text", ["", "[1, 2]", '{"mode": "plane"}', '{"losses": [[NaN]]}'])
def test_a_file_of_something_else_is_refused_and_kept(tmp_path: Path, text: str) -> None:
    path = tmp_path / "landscape.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"landscape\.json must be"):
        compute_loss_landscape(make_mlp(), PAIRS, 3, path=path)
    assert path.read_text(encoding="utf-8") == text


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError, match="must be a whole JSON file, but is a folder"):
        compute_loss_landscape(make_mlp(), PAIRS, 3, path=tmp_path)
