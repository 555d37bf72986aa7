"""What 2:4 weights gain on a GPU: inference of an exported model beside the dense one, by tokens of a batch.

A section of `python -m benchmarks.speed.gpu`. `export_model` proves the exported model equal to the masked one; how far
its outputs lie from the dense product of the same zeros is printed. The floor: half the multiplications, and nine
sixteenths of the bytes of the weights.
"""

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn

from lottery_tickets import apply_mask, create_magnitude_mask, export_model, load_export

WIDTHS: Final = {"0.5 B's MLP": (896, 4864), "14 B's MLP": (5120, 13_824)}
DTYPES: Final = (torch.float16, torch.bfloat16)
TOKENS: Final = (16, 512, 8192)
TakeTurns = Callable[[Mapping[str, Callable[[], object]], int], dict[str, dict[str, float]]]


def measure_two_of_four(device: torch.device, take_turns: TakeTurns) -> dict[str, Any]:
    """Returns for each network, dtype and number of tokens the time of 2:4 over that of dense weights.

    Args:
        device: A GPU.
        take_turns: Returns the least and the median seconds of calls.
    """
    found = {}
    for name, (width, hidden) in WIDTHS.items():
        for dtype in DTYPES:
            torch.manual_seed(0)
            layers = (nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))
            model = nn.Sequential(*layers).to(device, dtype).eval()
            found[f"{name}, {dtype}"] = compare(model, width, take_turns)
            print(name, dtype, found[f"{name}, {dtype}"], flush=True)
    return found


def compare(model: nn.Sequential, width: int, take_turns: TakeTurns) -> dict[str, Any]:
    """Returns what an export of a model says of itself, and times by number of tokens."""
    first = model.get_parameter("0.weight")
    mask = create_magnitude_mask(model, None, scope="2:4")
    inputs = torch.randn(512, width, device=first.device, dtype=first.dtype)
    batch = (inputs, torch.zeros(len(inputs), dtype=torch.int64, device=first.device))
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "two_of_four.safetensors"
        said = export_model(model, mask, place, batch, form="semi_structured")
        sparse = load_export(model, place)
    apply_mask(model, mask)
    with torch.no_grad():
        rows = {str(tokens): compare_speed(model, sparse, tokens, take_turns) for tokens in TOKENS}
    held = {name: sum(map(count_bytes, one.parameters())) for name, one in (("dense", model), ("2:4", sparse))}
    return {"difference": said["difference"], "held_bytes": held, "tokens": rows}


def compare_speed(dense: nn.Sequential, sparse: nn.Module, tokens: int, take_turns: TakeTurns) -> dict[str, Any]:
    """Returns times of both models for so many tokens, and how far their outputs lie from each other."""
    first = dense.get_parameter("0.weight")
    given = torch.randn(tokens, first.shape[1], device=first.device, dtype=first.dtype)
    turns: dict[str, Callable[[], object]] = {
        "dense": lambda: [dense(given) for _ in range(20)],
        "2:4": lambda: [sparse(given) for _ in range(20)],
    }
    seconds = take_turns(turns, 7)
    wanted, got = dense(given), sparse(given)
    return {
        "seconds_of_20": seconds,
        "over_dense": seconds["2:4"]["median"] / seconds["dense"]["median"],
        "largest_difference": float((wanted - got).abs().max() / wanted.abs().max()),
    }


def count_bytes(weight: Any) -> int:  # noqa: ANN401 - a tensor of any kind
    """Returns the bytes that a weight takes on the device, of a 2:4 one what it consists of."""
    names = weight.__tensor_flatten__()[0] if hasattr(weight, "packed") else ()
    parts = [getattr(weight, name) for name in names]
    return sum(part.nbytes for part in parts) if parts else int(weight.nbytes)
