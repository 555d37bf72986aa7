"""What is wrong with a file is said once, in one line, with its name."""

import copy
import os
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict

import pytest
import safetensors.torch
import torch
from torch import nn

from lottery_tickets import Mask, save_results
from lottery_tickets._core.files import make_folder, read_json, write_json
from lottery_tickets._core.reading import (
    Maybe,
    check_form,
    list_names,
    make_form,
    naming,
    read_text,
    read_torch,
    say_briefly,
)
from lottery_tickets._core.states import load_whole_state, pick
from lottery_tickets._core.tensor_files.whole import read_tensors
from lottery_tickets.storage import load_into, load_results, load_weights
from lottery_tickets.workloads import load_language_model, read_texts
from tests.models import save_tiny_llama

# ------------------------------------------------------------------------------------------------------- wrong files


def test_a_folder_a_device_and_an_empty_file_are_named(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    os.mkfifo(tmp_path / "pipe")
    for name, error, reason in (
        ("", IsADirectoryError, "is a folder; name a file in it"),
        ("empty", ValueError, "is empty; was it cut short"),
        ("pipe", ValueError, "is a device or a pipe"),
    ):
        for read in (read_json, read_tensors, load_weights, load_results, Mask.load):
            with pytest.raises(error, match=rf"{tmp_path / name} must be .*, but {reason}"):
                read(tmp_path / name)


def test_a_name_that_a_file_names_does_not_break_the_line(tmp_path: Path) -> None:
    save_results({"mask": Mask.from_tensors({"w": torch.eye(2)})}, tmp_path / "found.json")
    [mask] = tmp_path.glob("*.safetensors")
    content = (tmp_path / "found.json").read_text(encoding="utf-8")
    (tmp_path / "found.json").write_text(content.replace(mask.name, "a\\nb"), encoding="utf-8")
    with pytest.raises(FileNotFoundError, match=r"a\\nb' must be .*, but there is no such file") as caught:
        load_results(tmp_path / "found.json")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"NaN", b"no checkpoint at all", b"\x00" * 40, b"[1, 2]"])
def test_a_file_that_is_no_checkpoint_is_said_to_be_none(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "k.pt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"k\.pt must be .* but is no safetensors file and no torch file \(it begins"):
        load_weights(path)


def test_what_a_file_is_its_bytes_say_and_not_its_name(tmp_path: Path) -> None:
    state = {"w": torch.ones(2)}
    safetensors.torch.save_file(state, tmp_path / "model.pt")
    torch.save(state, tmp_path / "model.safetensors")
    for name in ("model.pt", "model.safetensors"):
        assert torch.equal(load_weights(tmp_path / name)["w"], state["w"])
    with pytest.raises(ValueError, match=r"model\.safetensors must be a whole safetensors file, but is a torch file"):
        Mask.load(tmp_path / "model.safetensors")


@pytest.mark.parametrize(
    "content",
    [b"\x80\x02a.", b"\x80\x02(l.", b"\x80\x02X\xff\xff\xff\x7fa.", b"\x80\x02\x8a\x01", b"PK\x03\x04"],
)
def test_whatever_torch_raises_is_one_error(tmp_path: Path, content: bytes) -> None:
    """torch itself raises IndexError, struct.error, KeyError, UnpicklingError and others here."""
    path = tmp_path / "model.pth"
    path.write_bytes(content)
    with pytest.raises(
        ValueError, match=r"model\.pth must be .* but reading it gave: \S.*; was it cut short or altered"
    ):
        load_weights(path)


def test_torchs_advice_to_run_the_code_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **_options: object) -> None:
        raise RuntimeError("Unsupported operand 71. Please file an issue and load with weights_only=False")

    torch.save({"w": torch.ones(1)}, tmp_path / "model.pt")
    monkeypatch.setattr(torch, "load", refuse)
    with pytest.raises(ValueError, match=r"reading it gave: Unsupported operand 71\.; was it cut short or altered\?$"):
        read_torch(tmp_path / "model.pt")


def test_what_cannot_be_read_as_asked_is_said(tmp_path: Path) -> None:
    safetensors.torch.save_file({"w": torch.ones(1)}, tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match=r"must be a torch file, but is a safetensors file; name another"):
        read_torch(tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match=r"'a\\x00b' must be a .*, but is no path \(embedded null byte\)"):
        load_weights("a\0b")


def test_a_torch_file_with_other_tensors_or_names_is_refused(tmp_path: Path) -> None:
    for state, reason in (
        ({3: torch.ones(1)}, "tensors under names, but has 3"),
        ({"w": torch.eye(2).to_sparse()}, "dense tensors with values, but w is none"),
    ):
        torch.save(state, tmp_path / "odd.pt")
        with pytest.raises(ValueError, match=rf"odd\.pt must hold {reason}"):
            load_weights(tmp_path / "odd.pt")


def test_a_header_that_declares_much_is_not_believed(tmp_path: Path) -> None:
    """2^40 numbers, in a file of some bytes."""
    header = b'{"w":{"dtype":"F32","shape":[1099511627776],"data_offsets":[0,4398046511104]}}'
    path = tmp_path / "w.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(16))
    with pytest.raises(ValueError, match=r"w\.safetensors must be a whole safetensors file, but reading it gave: "):
        load_weights(path)


# ----------------------------------------------------------------------------------------------------- another model


def test_weights_of_another_model_are_refused_in_one_line_and_the_model_stays(tmp_path: Path) -> None:
    model, other = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2)), nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 9))
    torch.save({"new": torch.ones(1), **dict(list(other.state_dict().items())[:2])}, tmp_path / "other.pt")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(ValueError, match=r"other\.pt must hold weights of the model") as caught:
        load_into(model, tmp_path / "other.pt")
    said = str(caught.value)
    assert "of the 4 tensors of Sequential these weights lack 2 (1.weight, 1.bias), have besides 1 (new)" in said
    assert "have of other shapes 2 (0.weight (5, 4) instead of (3, 4), 0.bias (5,) instead of (3,))" in said
    assert "\n" not in said
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_dtypes_are_converted_and_many_names_are_counted() -> None:
    model = nn.Linear(2, 2)
    load_whole_state(model, {"weight": torch.eye(2, dtype=torch.bfloat16), "bias": torch.ones(2).double()})
    assert model.weight.tolist() == [[1, 0], [0, 1]]
    assert list_names([f"w{number}" for number in range(9)]) == "w0, w1, w2 and 6 more"


def test_a_saved_tensor_must_be_like_the_own_one() -> None:
    with pytest.raises(ValueError, match=r"must hold w as torch\.float32 of shape \(2,\), but does not"):
        pick({}, "w", torch.ones(2))
    with pytest.raises(ValueError, match=r"but holds torch\.int64 of shape \(2,\)"):
        pick({"w": torch.arange(2)}, "w", torch.ones(2))


# -------------------------------------------------------------------------------------------------------------- forms


class Inner(TypedDict):
    """For `make_form`."""

    name: str
    share: float | None
    kind: Literal["a", "b"]
    note: NotRequired[str]


class Outer(TypedDict):
    """For `make_form`."""

    parts: list[Inner]
    sizes: dict[str, int]
    pair: tuple[int, ...]
    rest: Any


WHOLE: dict[str, Any] = {
    "parts": [{"name": "n", "share": 1, "kind": "a"}],
    "sizes": {"w": 3},
    "pair": [1, 2],
    "rest": {"any": "thing"},
    "more": None,
}


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        (("parts", 0, "name"), 3, r"parts\[0\]\.name must be a text, but is 3"),
        (("parts", 0, "share"), "1", r"parts\[0\]\.share must be a number or null, but is '1'"),
        (("parts", 0, "share"), True, r"parts\[0\]\.share must be a number or null, but is True"),
        (("parts", 0, "note"), None, r"parts\[0\]\.note must be a text, but is None"),
        (("parts", 0), {"name": "n"}, r"parts\[0\]\.share must be there, but is missing"),
        (("parts",), {}, r"parts must be a list, but is \{\}"),
        (("sizes", "w"), 1.5, r"sizes\.w must be a whole number, but is 1\.5"),
        (
            ("sizes",),
            {"a\nb": "x" * 500},
            r"sizes\.'a\\nb' must be a whole number, but is 'x{79}\.\.\.; was it altered",
        ),
        (("pair", 1), [], r"pair\[1\] must be a whole number, but is \[\]"),
    ],
)
def test_a_value_of_another_form_is_said_with_its_place(place: tuple[Any, ...], value: object, words: str) -> None:
    changed = copy.deepcopy(WHOLE)
    inner: Any = changed
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    check_form(WHOLE, make_form(Outer), "f.json")
    with pytest.raises(ValueError, match=rf"^f\.json: {words}"):
        check_form(changed, make_form(Outer), "f.json")


def test_a_number_of_thousands_of_digits_is_not_shown() -> None:
    with pytest.raises(ValueError, match=r"^f: a must be a text, but is a int too long to show; was it altered\?$"):
        check_form({"a": 10**5000}, {"a": str}, "f")


def test_any_of_several_forms_will_do_and_the_nearest_is_named() -> None:
    form = {"a": Maybe(({"b": int}, [str], None))}
    for value in ({}, {"a": None}, {"a": {"b": 1}}, {"a": ["x"]}):
        check_form(value, form, "f")
    with pytest.raises(ValueError, match=r"f: a\.b must be a whole number, but is 'x'"):
        check_form({"a": {"b": "x"}}, form, "f")
    with pytest.raises(ValueError, match=r"f: a must be an object or a list or null, but is 3"):
        check_form({"a": 3}, form, "f")


# --------------------------------------------------------------------------------------------- words, texts, folders


def test_what_others_say_is_cut_to_a_line() -> None:
    assert say_briefly(RuntimeError("Error(s) in loading:\n\tMissing key(s): w\n\tmore")) == (
        "Error(s) in loading: Missing key(s): w"
    )
    assert say_briefly(IndexError()) == "IndexError"
    with pytest.raises(ValueError, match=r"^f must be whole, but it is not$"), naming("f", "be whole"):
        raise ValueError("it is not")


def test_a_text_that_is_no_utf_8_is_named(tmp_path: Path) -> None:
    (tmp_path / "latin.txt").write_bytes("straße".encode("latin-1"))
    (tmp_path / "good.txt").write_text("straße", encoding="utf-8")
    assert read_texts([tmp_path / "good.txt"]) == ["straße"]
    with pytest.raises(ValueError, match=r"latin\.txt must be a text in UTF-8, but the byte 0xdf at 4 is not"):
        read_text(tmp_path / "latin.txt")
    with pytest.raises(FileNotFoundError, match=r"none\.txt must be a text file, but there is no such file"):
        read_texts([tmp_path / "good.txt", tmp_path / "none.txt"])


def test_a_file_where_a_folder_must_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file" / "deep" / "deeper" / "mask.safetensors", tmp_path / "file" / "mask.safetensors"):
        for write in (Mask.from_tensors({"w": torch.eye(2)}).save, lambda path: save_results({"a": 1}, path)):
            with pytest.raises(NotADirectoryError, match=rf"'{tmp_path / 'file'}'$"):
                write(path)
    with pytest.raises(NotADirectoryError, match=r"file'$"):
        make_folder(tmp_path / "file")


def test_what_is_nested_too_deeply_is_neither_read_nor_written(tmp_path: Path) -> None:
    value: Any = 1
    for _ in range(99):
        value = [value]
    write_json(tmp_path / "a.json", value)
    assert read_json(tmp_path / "a.json") == value
    for deep in ([[value]], {"a": {"b": value}}):
        with pytest.raises(ValueError, match="nested too deeply, more than 100 times"):
            write_json(tmp_path / "b.json", deep)
    (tmp_path / "b.json").write_text("[" * 102 + "]" * 102, encoding="utf-8")
    with pytest.raises(ValueError, match=r"b\.json must be a whole JSON file, but .* nested too deeply"):
        read_json(tmp_path / "b.json")


# ---------------------------------------------------------------------------------------------------- language models


@pytest.mark.parametrize(
    ("name", "old", "new", "words"),
    [
        (
            "config.json",
            '"num_hidden_layers": 1',
            '"num_hidden_layers": 2000000',
            "num_hidden_layers must be at most 1000",
        ),
        (
            "config.json",
            '"num_hidden_layers": 1',
            '"num_hidden_layers": 2',
            "must hold all weights of LlamaForCausalLM",
        ),
        ("config.json", '"hidden_size": 8', '"hidden_size": "8"', "must hold the configuration and weights"),
        ("config.json", "{", "", "must hold the configuration of a language model"),
        ("tokenizer.json", "{", "", "must hold the tokenizer of a language model"),
    ],
)
def test_a_language_model_of_garbled_files_is_refused(
    tmp_path: Path, name: str, old: str, new: str, words: str
) -> None:
    folder = save_tiny_llama(tmp_path / "model")
    content = (folder / name).read_text(encoding="utf-8")
    assert old in content
    (folder / name).write_text(content.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(ValueError, match=words) as caught:
        load_language_model(folder)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_code_of_a_language_model_is_never_asked_for(tmp_path: Path) -> None:
    folder = save_tiny_llama(tmp_path / "model")
    config = (folder / "config.json").read_text(encoding="utf-8").replace('"llama"', '"of_ones_own"')
    auto = '{"auto_map": {"AutoConfig": "code.Config", "AutoModelForCausalLM": "code.Model"}, '
    (folder / "config.json").write_text(auto + config.lstrip("{\n "), encoding="utf-8")
    with pytest.raises(ValueError, match="must hold the configuration and weights"):
        load_language_model(folder)
