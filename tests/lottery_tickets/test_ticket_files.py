"""A ticket's file gives back the very same ticket, or is refused in one line that names it."""

import hashlib
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lottery_tickets import Mask, Ticket, load_ticket, save_ticket
from lottery_tickets._core.states import hash_state
from lottery_tickets._core.tensor_files.whole import read_tensors
from lottery_tickets.masks.mask_file import METADATA_KEY
from lottery_tickets.storage import load_weights
from tests.damaged_files import cut, flip_each_bit, flip_some

STATE = {"a.weight": torch.randn(3, 5), "a.bias": torch.ones(3), "steps": torch.tensor(7)}
TICKET = Ticket(
    Mask.from_tensors({"a.weight": torch.eye(3, 5)}, {"seed": 1}),
    {**STATE, "tied": STATE["a.weight"]},
    3,
    {"method": "by hand"},
    {"sentences": ["matching"], "alpha": 0.05},
)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("ticket") / "ticket.safetensors"
    TICKET.save(path)
    return path.read_bytes()


def is_same(ticket: Ticket) -> bool:
    parts = [(t.mask.digest, hash_state(t.state), t.step, t.provenance, t.claims) for t in (ticket, TICKET)]
    return parts[0] == parts[1]


def check_refused_or_same(content: bytes) -> bool:
    """Whether a file of this content is refused by a ValueError that names it; else it must hold the very same."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "altered.safetensors"
        path.write_bytes(content)
        try:
            loaded = load_ticket(path)
        except ValueError as error:
            assert str(path) in str(error), f"the message does not name the file: {error}"  # noqa: PT017 - other bytes load
            assert "\n" not in str(error)  # noqa: PT017 - as above
            return True
    assert is_same(loaded)
    return False


def test_a_truncated_file_is_refused_at_every_length(saved: bytes) -> None:
    assert all(map(check_refused_or_same, cut(saved)))


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_flipped_bytes_are_refused_or_harmless(saved: bytes, data: st.DataObject) -> None:
    check_refused_or_same(flip_some(saved, data))


def test_every_flipped_bit_of_the_tensors_is_refused(saved: bytes) -> None:
    assert all(map(check_refused_or_same, flip_each_bit(saved)))


Tensors = dict[str, Tensor]
Label = dict[str, Any]


def rewrite(path: Path, change: Callable[[Tensors, Label, Label], object], *, forge: bool = False) -> None:
    """Changes parts of a file; a forger also writes the hash of the description that belongs to it."""
    TICKET.save(path)
    tensors, metadata = read_tensors(path)
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    label = json.loads(metadata[METADATA_KEY])
    content = json.loads(label["content"])
    change(tensors, label, content)
    label["content"] = json.dumps(content)
    if forge:
        label["sha256"] = hashlib.sha256(label["content"].encode()).hexdigest()
    safetensors.torch.save_file(tensors, path, {METADATA_KEY: json.dumps(label)})


def swap_mask(tensors: Tensors, label: Label, _: Label) -> None:
    other = ~TICKET.mask
    label["mask"] = other.to_label()
    tensors.update({f"mask.{name}": bits for name, bits in other.bits.items()})


ALTERED: dict[str, tuple[Callable[[Tensors, Label, Label], object], str]] = {
    "a weight is gone": (lambda t, _l, _c: t.pop("state.a.bias"), "must hold a ticket, but: it lacks a.bias; was"),
    "what is tied is gone": (lambda t, _l, _c: t.pop("state.a.weight"), "it lacks a.weight, tied"),
    "the mask is gone": (lambda t, _l, _c: t.pop("mask.a.weight"), "must hold a mask, but its content does not fit"),
    "a part of others": (lambda t, _l, _c: t.update(x=torch.ones(1)), "it has x too many"),
    "a weight of others": (lambda t, _l, _c: t.update({"state.x": torch.ones(1)}), "it has x too many"),
    "another shape": (lambda t, _l, _c: t.update({"state.a.bias": torch.ones(2)}), "another dtype or shape"),
    "another dtype": (lambda t, _l, _c: t.update({"state.a.bias": torch.ones(3).half()}), "another dtype or shape"),
    "other values": (lambda t, _l, _c: t["state.a.bias"].zero_(), "must hold the weights that it has the hash of"),
    "another claim": (lambda _t, _l, c: c["claims"].update(alpha=0.01), "must match the hashes it carries"),
    "another step": (lambda _t, _l, c: c.update(step=4), "must match the hashes it carries"),
    "another provenance": (lambda _t, _l, c: c.update(provenance={}), "must match the hashes it carries"),
    "another mask that is whole": (swap_mask, "must match the hashes it carries"),
    "a later format": (lambda _t, la, _c: la.update(format="lottery-tickets ticket 2"), "knows .*ticket 1.; update"),
    "another file": (lambda _t, la, _c: la.update(format="x"), "some other safetensors file"),
}  # fmt: skip


@pytest.mark.parametrize("case", ALTERED)
def test_what_was_altered_is_named(case: str, tmp_path: Path) -> None:
    change, words = ALTERED[case]
    rewrite(tmp_path / "altered.safetensors", change)
    with pytest.raises(ValueError, match=rf"altered\.safetensors .*{words}"):
        load_ticket(tmp_path / "altered.safetensors")


FORGED: dict[str, Callable[[Tensors, Label, Label], object]] = {
    "step of text": lambda _t, _l, c: c.update(step="3"),
    "a negative step": lambda _t, _l, c: c.update(step=-3),
    "no step": lambda _t, _l, c: c.pop("step"),
    "provenance of text": lambda _t, _l, c: c.update(provenance="x"),
    "claims of text": lambda _t, _l, c: c.update(claims="winning"),
    "sentences of numbers": lambda _t, _l, c: c.update(claims={"sentences": [1]}),
    "state a list": lambda _t, _l, c: c.update(state=[]),
    "state of numbers": lambda _t, _l, c: c["state"].update({"a.bias": 3}),
    "ties a list": lambda _t, _l, c: c.update(ties=["tied"]),
    "ties to nothing": lambda _t, _l, c: c.update(ties={"tied": "x"}),
    "ties to another shape": lambda _t, _l, c: c.update(ties={"tied": "a.bias"}),
    "ties to a list": lambda _t, _l, c: c.update(ties={"tied": []}),
    "no hash": lambda _t, _l, c: c.update(state_sha256=""),
    "a hash of a number": lambda _t, _l, c: c.update(state_sha256=3),
    "a mask of another state": lambda _t, _l, c: c["state"].pop("a.weight"),
    "mask of text": lambda _t, la, _c: la.update(mask="x"),
}


@pytest.mark.parametrize("case", FORGED)
@pytest.mark.parametrize("weights", [True, False])
def test_descriptions_that_fit_their_hash_are_checked_too(case: str, tmp_path: Path, *, weights: bool) -> None:
    rewrite(tmp_path / "forged.safetensors", FORGED[case], forge=True)
    with pytest.raises(ValueError, match=r"forged\.safetensors must") as caught:
        load_ticket(tmp_path / "forged.safetensors", weights=weights)
    assert "\n" not in str(caught.value)


def test_names_of_others_do_not_break_the_line(tmp_path: Path) -> None:
    rewrite(tmp_path / "odd.safetensors", lambda tensors, _l, _c: tensors.update({"state.a\nb": torch.ones(1)}))
    with pytest.raises(ValueError, match=r"odd\.safetensors .*it has 'a\\nb' too many"):
        load_ticket(tmp_path / "odd.safetensors")


def test_a_mask_alone_is_told_what_to_do_with(tmp_path: Path) -> None:
    TICKET.mask.save(tmp_path / "mask.safetensors")
    with pytest.raises(
        ValueError, match=r"mask\.safetensors must be a ticket, but is a mask alone.* load it by Mask.load"
    ):
        load_ticket(tmp_path / "mask.safetensors")


def test_a_pickle_is_never_opened(tmp_path: Path) -> None:
    path = tmp_path / "ticket.safetensors"
    torch.save({"mask": TICKET.mask}, path)
    with pytest.raises(ValueError, match="must be a whole safetensors file"):
        load_ticket(path)
    safetensors.torch.save_file({"w": torch.ones(1)}, path)
    with pytest.raises(ValueError, match="some other safetensors file"):
        load_ticket(path)


def test_the_weights_of_a_ticket_may_be_read_as_those_of_any_file(tmp_path: Path) -> None:
    TICKET.save(tmp_path / "ticket.safetensors")
    assert hash_state(load_weights(tmp_path / "ticket.safetensors")) == TICKET.state_sha256


def test_a_saved_ticket_replaces_an_earlier_file_as_masks_do(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "ticket.safetensors"
    TICKET.save(path)
    save_ticket(path, TICKET.mask, STATE)
    assert load_ticket(path).claims is None
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
