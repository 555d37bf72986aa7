"""A ticket travels in one file, and fits a model whole or changes nothing of it."""

import json
import resource
import struct
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lottery_tickets import (
    Mask,
    Ticket,
    check_held,
    create_magnitude_mask,
    hold_mask,
    load_ticket,
    save_ticket,
    tickets,
    use_ticket,
)
from lottery_tickets._core.states import copy_state, hash_state

CLAIMS = {"sentences": ["At 36.0 % of the weights: matching."], "margin": 0.005}
DTYPES = [
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool, torch.complex64),
]


class Tied(nn.Module):
    """A head that is the embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.body, self.head = nn.Embedding(100, 64), nn.Linear(64, 64), nn.Linear(64, 100, bias=False)
        self.head.weight = self.embedding.weight


def make_model(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3))
    model(torch.randn(5, 1, 8, 8))  # running statistics are other than at the start
    return model


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ticket.safetensors"


def save_example(path: Path, **changes: Any) -> Ticket:  # noqa: ANN401 - whatever a ticket may have
    model = make_model()
    mask = create_magnitude_mask(model, 0.7)
    save_ticket(path, mask, model, **{"step": 12, "provenance": {"method": "by hand", "seed": 3}, **changes})
    return load_ticket(path)


def bits_of(state: dict[str, Tensor]) -> str:
    return hash_state(state)


# ------------------------------------------------------------------------------------------------------------ the file


def test_a_file_gives_back_all_parts(path: Path) -> None:
    ticket = save_example(path, claims=CLAIMS)
    model = make_model()
    assert ticket.mask == create_magnitude_mask(model, 0.7)
    assert ticket.mask.provenance == create_magnitude_mask(model, 0.7).provenance
    assert list(ticket.state) == list(model.state_dict())
    assert bits_of(dict(ticket.state)) == bits_of(model.state_dict()) == ticket.state_sha256
    assert (ticket.step, ticket.provenance, ticket.claims) == (12, {"method": "by hand", "seed": 3}, CLAIMS)
    assert ticket.has_weights
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_every_dtype_comes_back_bit_for_bit(path: Path) -> None:
    """NaN payloads, negative zeros and numbers of no elements, too."""
    raw = torch.arange(256, dtype=torch.uint8).repeat(4)
    state = {str(dtype): raw.clone().view(dtype) if dtype != torch.bool else raw > 3 for dtype in DTYPES}
    state |= {"weight": torch.tensor([[float("nan"), -0.0]]), "none": torch.zeros(0, 3), "number": torch.tensor(3)}
    save_ticket(path, {"weight": torch.tensor([[1, 0]])}, state)
    found = load_ticket(path).state
    assert {name: (t.dtype, t.shape) for name, t in found.items()} == {n: (t.dtype, t.shape) for n, t in state.items()}
    assert bits_of(dict(found)) == bits_of(state)


def test_equal_tickets_give_equal_bytes_in_every_process(path: Path) -> None:
    save_example(path)
    other = path.with_name("other.safetensors")
    code = "import sys, pathlib; from tests.lottery_tickets.test_tickets import save_example as s; "
    code += "s(pathlib.Path(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", code, other], check=True, cwd=Path(__file__).parents[2])
    assert path.read_bytes() == other.read_bytes()
    load_ticket(path).save(other)
    assert path.read_bytes() == other.read_bytes()


def test_tied_weights_are_stored_once_and_are_one_again(path: Path) -> None:
    model = Tied()
    save_ticket(path, create_magnitude_mask(model, 0.5), model)
    size = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    assert path.stat().st_size < size + 4096
    state = load_ticket(path).state
    assert state["head.weight"].data_ptr() == state["embedding.weight"].data_ptr()
    assert list(state) == list(model.state_dict())
    other = Tied()
    use_ticket(other, path)
    assert other.head.weight is other.embedding.weight


def test_a_mask_may_be_read_from_a_ticket(path: Path) -> None:
    """So that whatever takes the file of a mask takes a ticket."""
    ticket = save_example(path)
    mask = Mask.load(path)
    assert mask == ticket.mask
    assert mask.provenance == ticket.mask.provenance


def write_with_holes(path: Path, num_weights: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Writes a ticket in whose file the weights are holes, which take no room on the disk and read as zeros."""
    held: dict[str, Any] = {}
    with monkeypatch.context() as patched:
        patched.setattr(
            tickets, "write_tensors", lambda _, tensors, metadata: held.update(tensors, __metadata__=metadata)
        )
        weight = torch.zeros(1, dtype=torch.bfloat16).expand(num_weights)
        state = {"weight": weight, "fc.weight": torch.ones(2, 2)}
        Ticket(Mask.from_tensors({"fc.weight": torch.eye(2)}), state, state_sha256="0" * 64).save(path)
    header: dict[str, Any] = {"__metadata__": held.pop("__metadata__")}
    begin = 0
    for name in sorted(held, key=lambda name: -held[name].nbytes):  # so that all lie where their dtypes may
        end = begin + held[name].numel() * held[name].element_size()
        kind = {torch.bfloat16: "BF16", torch.float32: "F32", torch.uint8: "U8"}[held[name].dtype]
        header[name] = {"dtype": kind, "shape": list(held[name].shape), "data_offsets": [begin, end]}
        begin = end
    described = json.dumps(header).encode()
    described += b" " * (-len(described) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(described)) + described)
        file.truncate(8 + len(described) + begin)
        place = header["mask.fc.weight"]["data_offsets"][0]
        file.seek(8 + len(described) + place)
        file.write(bytes([0b1001]))


def test_a_ticket_of_14_billion_weights_is_described_without_reading_them(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_with_holes(path, 14_770_000_000, monkeypatch)
    before = resource.getrusage(resource.RUSAGE_SELF)
    ticket = load_ticket(path, weights=False)
    after = resource.getrusage(resource.RUSAGE_SELF)
    assert (ticket.mask.num_kept, ticket.state["weight"].shape, ticket.has_weights) == (2, (14_770_000_000,), False)
    assert Mask.load(path) == ticket.mask
    assert after.ru_maxrss - before.ru_maxrss < 64 * 1024, "kilobytes"
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1.0


def test_loading_takes_no_more_memory_than_the_file(path: Path) -> None:
    """A quarter of a gigabyte of theta_k, and none before it is used."""
    weight = torch.zeros(1).expand(1 << 20, 64)
    state = {"weight": weight.contiguous(), "fc.weight": torch.ones(2, 2)}
    save_ticket(path, {"fc.weight": torch.eye(2)}, state)
    del state, weight
    code = (
        "import resource, sys; from lottery_tickets import load_ticket\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "ticket = load_ticket(sys.argv[1], weights=False)\n"
        "shown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "assert ticket.state['weight'].shape == (1 << 20, 64), ticket\n"
        "load_ticket(sys.argv[1])\n"
        "print(shown - before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    said = subprocess.run([sys.executable, "-c", code, path], check=True, capture_output=True, text=True).stdout
    shown, loaded = (int(number) / 1024 for number in said.split())
    assert shown < 32, "megabytes, of 256"
    assert loaded < 256 + 64, "a second copy was made"


# ----------------------------------------------------------------------------------------------------------- the model


def test_a_ticket_is_loaded_and_held_in_one_call(path: Path) -> None:
    ticket, model = save_example(path), make_model(1)
    parameters = dict(model.named_parameters())
    assert bits_of(copy_state(model)) != ticket.state_sha256
    used = use_ticket(model, path)
    assert used.step == 12
    assert check_held(model) == ticket.mask
    assert all(parameter is parameters[name] for name, parameter in model.named_parameters())
    for name, value in model.state_dict().items():
        start = ticket.state[name]
        assert torch.equal(value, torch.where(ticket.mask[name], start, 0) if name in ticket.mask else start)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(torch.randn(4, 1, 8, 8)).square().sum().backward()
    optimizer.step()
    check_held(model)


def test_only_the_mask_is_held_where_weights_are_not_wanted(path: Path) -> None:
    ticket, model = save_example(path), make_model(1)
    before = copy_state(model)
    use_ticket(model, path, weights=False)
    assert check_held(model) == ticket.mask
    assert torch.equal(model.state_dict()["0.bias"], before["0.bias"])


def test_a_ticket_without_its_weights_is_not_taken_for_a_whole_one(path: Path) -> None:
    save_example(path)
    ticket, model = load_ticket(path, weights=False), make_model(1)
    before = bits_of(copy_state(model))
    with pytest.raises(ValueError, match=r"0.weight, 0.bias, 1.weight and 6 more are on the meta device"):
        use_ticket(model, ticket)
    with pytest.raises(ValueError, match=r"load the ticket with weights=True"):
        ticket.save(path)
    assert bits_of(copy_state(model)) == before
    use_ticket(model, ticket, weights=False)
    assert check_held(model) == load_ticket(path).mask


def test_a_model_that_is_held_to_another_mask_is_given_the_whole_of_theta_k(path: Path) -> None:
    """Where the old mask was held while loading, what it prunes and the ticket keeps would be zero."""
    ticket, model = save_example(path), make_model(1)
    hold_mask(model, ~ticket.mask)
    use_ticket(model, ticket)
    assert torch.equal(
        model.state_dict()["4.weight"], torch.where(ticket.mask["4.weight"], ticket.state["4.weight"], 0)
    )


@pytest.mark.parametrize(
    "wrap", [partial(torch.compile, backend="eager"), nn.DataParallel], ids=["compiled", "data parallel"]
)
def test_wrapped_models_have_the_names_of_what_is_inside(path: Path, wrap: Callable[[nn.Module], Any]) -> None:
    model = make_model(1)
    save_ticket(path, create_magnitude_mask(make_model(), 0.7), wrap(make_model()))
    assert list(load_ticket(path).state) == list(model.state_dict())
    use_ticket(wrap(model), path)
    assert check_held(model) == load_ticket(path).mask


def test_dtypes_are_cast_only_when_asked(path: Path) -> None:
    ticket, model = save_example(path), make_model(1).to(torch.bfloat16)
    before = bits_of(copy_state(model))
    with pytest.raises(ValueError, match=r"0.weight, 0.bias, 1.weight and 5 more differ: torch.float32 in the ticket"):
        use_ticket(model, path)
    assert bits_of(copy_state(model)) == before
    use_ticket(model, path, cast=True)
    kept = ticket.mask["4.weight"]
    assert torch.equal(model.state_dict()["4.weight"][kept], ticket.state["4.weight"].bfloat16()[kept])


def add_layer(model: nn.Sequential) -> None:
    model.append(nn.Linear(3, 3))


def remove_layer(model: nn.Sequential) -> None:
    del model[4]


def widen(model: nn.Sequential) -> None:
    model[4] = nn.Linear(4 * 36, 5)


def forget_values(model: nn.Sequential) -> None:
    model[4].to("meta")


def make_lazy(model: nn.Sequential) -> None:
    model[4] = nn.LazyLinear(3)


OTHERS: dict[Callable[[nn.Sequential], None], str] = {
    add_layer: r"the ticket lacks 5.weight, 5.bias; is the model",
    remove_layer: r"the model lacks 4.weight, 4.bias; is the model",
    widen: r"shapes differ of 4.weight \(\(3, 144\) there, \(5, 144\) in the model\), 4.bias",
    forget_values: r"the model has no values yet for 4.weight, 4.bias",
    make_lazy: r"the model has no values yet for 4.weight, 4.bias",
}


@pytest.mark.parametrize("change", OTHERS)
def test_what_does_not_fit_changes_nothing(path: Path, change: Callable[[nn.Sequential], None]) -> None:
    save_example(path)
    model = make_model(1)
    change(model)
    held = create_magnitude_mask(model[0], 0.5)
    hold_mask(model[0], held)
    before = copy_state(model[:4])
    with pytest.raises(ValueError, match=OTHERS[change]) as caught:
        use_ticket(model, path)
    assert "\n" not in str(caught.value)
    assert bits_of(copy_state(model[:4])) == bits_of(before)
    assert check_held(model[0]) == held


# ----------------------------------------------------------------------------------------------------- what it may hold


def test_a_ticket_shows_itself_in_a_few_words(path: Path) -> None:
    ticket = save_example(path, provenance={"<b>": "&"})
    kept = ticket.mask.num_kept
    assert repr(ticket) == (
        f"Ticket(9 tensors at step 12, {kept} of 468 weights kept, sparsity 0.7009, "
        "no claims: never trained beside its controls)"
    )
    assert "<td>&lt;b&gt;</td><td>&amp;</td>" in ticket._repr_html_()
    assert "At 36.0 % of the weights: matching." in repr(save_example(path, claims=CLAIMS))


STATE = {"weight": torch.ones(2, 2)}
MASK = {"weight": torch.eye(2)}
WRONG: dict[str, tuple[type[Exception], str, dict[str, Any]]] = {
    "no state": (TypeError, "theta_k must be a mapping of tensors by name, but got list", {"state": [1]}),
    "no tensor": (TypeError, "'a' maps str to int", {"state": {**STATE, "a": 1}}),
    "no values": (ValueError, "but a are on the meta device", {"state": {**STATE, "a": torch.ones(2, device="meta")}}),
    "sparse": (ValueError, "'a' is torch.sparse_coo", {"state": {**STATE, "a": torch.eye(2).to_sparse()}}),
    "no mask": (TypeError, "a mask must be a mapping", {"mask": 3}),
    "mask of another": (ValueError, "every weight of the mask, but lacks 'w'", {"mask": {"w": MASK["weight"]}}),
    "other shape": (ValueError, r"\(2, 2\) in theta_k and \(3, 3\) in the mask", {"mask": {"weight": torch.eye(3)}}),
    "negative step": (ValueError, "whole number from 0 on, but got -1", {"step": -1}),
    "step of two kinds": (ValueError, "whole number from 0 on, but got True", {"step": True}),
    "NaN": (ValueError, "JSON", {"provenance": {"loss": float("nan")}}),
    "tensor in provenance": (TypeError, "must be JSON values, but hold a Tensor", {"provenance": {"a": torch.ones(1)}}),
    "claims without sentences": (ValueError, "claims must have 'sentences'", {"claims": {"verdict": "winning"}}),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_wrong_parts_are_refused_in_words_and_nothing_is_lost(name: str, path: Path) -> None:
    kind, words, changes = WRONG[name]
    save_ticket(path, MASK, STATE)
    before = path.read_bytes()
    arguments: dict[str, Any] = {"mask": MASK, "state": STATE, **changes}
    with pytest.raises(kind, match=words):
        save_ticket(path, arguments.pop("mask"), arguments.pop("state"), **arguments)
    assert path.read_bytes() == before


def test_the_first_argument_of_use_ticket_is_the_model(path: Path) -> None:
    wrong: Any = path
    with pytest.raises(TypeError, match=r"must be a torch.nn.Module, got PosixPath"):
        use_ticket(wrong, make_model())  # type: ignore[arg-type] # as somebody might
