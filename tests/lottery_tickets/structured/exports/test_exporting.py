"""Each form written, loaded again, equal; what stands in the way of that, and what is left then."""

import errno
import json
from pathlib import Path
from typing import Any, Final, get_args

import pytest
import torch
from torch import Tensor, nn

from lottery_tickets import (
    Mask,
    apply_mask,
    create_unit_mask,
    export_model,
    hold_mask,
    load_export,
    load_results,
    masked,
    save_results,
    shrink,
)
from lottery_tickets._core.folders import write_hashed
from lottery_tickets._core.states import hash_state
from lottery_tickets._core.tensor_files.whole import write_tensors
from lottery_tickets.storage import load_into, load_weights, save_weights
from lottery_tickets.structured import ExportReport
from lottery_tickets.structured.exports import exporting, files
from lottery_tickets.structured.exports.exporting import Form
from tests.lottery_tickets.structured.exports.exported import make_images, make_llama, make_resnet, make_small

WEIGHTS: Final = "model.safetensors"


def list_names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def is_equal(first: nn.Module, second: nn.Module) -> bool:
    """Whether all tensors have the same names and bits, compared here one by one and not by a hash."""
    one, other = first.state_dict(), second.state_dict()
    return one.keys() == other.keys() and all(
        one[name].dtype == other[name].dtype and one[name].numpy().tobytes() == other[name].numpy().tobytes()
        for name in one
    )


@pytest.fixture(scope="module")
def resnet() -> tuple[nn.Module, Mask, tuple[Tensor, Tensor]]:
    model, batch = make_resnet().eval(), make_images()
    return model, create_unit_mask(model, 0.5, units="channels", example_inputs=batch[0][:1]), batch


@pytest.mark.parametrize("form", ["dense", "shrunk", "packed"])
def test_a_network_comes_back_as_the_pruned_one(
    resnet: tuple[nn.Module, Mask, tuple[Tensor, Tensor]], form: Form, tmp_path: Path
) -> None:
    model, mask, batch = resnet
    place, base = tmp_path / "out.safetensors", tmp_path / "base.safetensors"
    before = hash_state(model.state_dict())
    save_weights(model.state_dict(), base)
    report = export_model(model, mask, place, batch, form=form, base=base)
    assert hash_state(model.state_dict()) == before
    fresh = make_resnet(seed=0 if form == "packed" else 5)  # what is packed needs its base, and others any weights
    fresh_before = hash_state(fresh.state_dict())
    loaded = load_export(fresh.eval(), place)
    assert hash_state(fresh.state_dict()) == fresh_before
    pruned = shrink(model, mask, example_inputs=batch[0][:1]).model if form == "shrunk" else make_resnet().eval()
    if form != "shrunk":
        apply_mask(pruned, mask)
    assert is_equal(loaded, pruned)
    assert report["state_sha256"] == hash_state(pruned.state_dict())
    with torch.no_grad(), masked(model, mask):
        torch.testing.assert_close(loaded(batch[0]), model(batch[0]), rtol=0, atol=1e-5)
    _check_report(report, form, place)
    sizes = report["disk_bytes"]
    assert {"dense": 1, "shrunk": 0.3, "packed": 1 / 16}[form] == pytest.approx(
        sizes["export"] / sizes["dense"], abs=0.05
    )
    if form == "dense":  # an ordinary file of weights
        load_into(fresh, place)
        assert is_equal(fresh, pruned)


@pytest.mark.parametrize("form", ["dense", "shrunk", "packed"])
def test_a_language_model_comes_back_by_from_pretrained(form: Form, tmp_path: Path) -> None:
    model, mask, batch = make_llama(tmp_path / "base")
    place = tmp_path / "out"
    report = export_model(model, mask, place, batch, form=form, base=tmp_path / "base")
    pruned: Any = shrink(model, mask).model
    if form != "shrunk":
        pruned, _, _ = make_llama(tmp_path / "base")
        apply_mask(pruned, mask)
    assert is_equal(load_export(make_llama(tmp_path / "base")[0], place), pruned)
    _check_report(report, form, place)
    if form == "packed":
        assert Mask.load(place) == mask
        return
    loaded = type(model).from_pretrained(place)
    assert is_equal(loaded, pruned)
    assert loaded.config.intermediate_size == (6 if form == "shrunk" else 12)
    beside = {path.name: path.read_bytes() for path in (tmp_path / "base").glob("tokenizer*")}
    assert len(beside) == 2
    assert {name: (place / name).read_bytes() for name in beside} == beside


def _check_report(report: ExportReport, form: str, place: Path) -> None:
    weights = place / WEIGHTS if place.is_dir() else place
    assert report["disk_bytes"]["export"] == weights.stat().st_size
    assert report["form"] == form
    assert report["difference"] is not None
    assert report["difference"] < 1e-5
    assert report["seconds"]["dense"] > 0 < report["seconds"]["export"]
    assert (report["shrunk"] is not None) == (form == "shrunk")
    assert report["costs"]["shrunk"]["parameters"] < report["costs"]["dense"]["parameters"]
    results = place.with_name(f"{place.name}.json")
    save_results(report, results)
    assert load_results(results, kind=ExportReport) == json.loads(json.dumps(report))


def test_layers_that_differ_are_evened_out_or_refused(tmp_path: Path) -> None:
    model, _, batch = make_llama(tmp_path / "base")
    kept = torch.ones(8, 12, dtype=torch.bool)
    kept[:, :5] = False
    mask = {"model.layers.0.mlp.down_proj.weight": kept}
    with pytest.raises(ValueError, match="uniform is for the form 'shrunk'"):
        export_model(model, mask, tmp_path / "out", batch, form="dense", uniform=True)
    export_model(model, mask, tmp_path / "out", batch, uniform=True)
    assert type(model).from_pretrained(tmp_path / "out").config.intermediate_size == 7


def test_a_held_model_is_exported_without_what_holds_it(tmp_path: Path) -> None:
    model, mask, batch = make_small()
    hold_mask(model, mask)
    export_model(model, mask, tmp_path / "out", batch, form="dense")
    loaded = load_export(model, tmp_path / "out")
    loaded.get_parameter("2.weight").data.fill_(1.0)
    assert bool((loaded.state_dict()["2.weight"] == 1).all())


@pytest.mark.parametrize("form", get_args(Form))
def test_a_mask_of_another_model_is_refused(form: Form, tmp_path: Path) -> None:
    model, _, batch = make_small()
    with pytest.raises(ValueError, match=r"mask for '2\.weight' has shape \(2, 2\), but the parameter has"):
        export_model(model, {"2.weight": torch.ones(2, 2)}, tmp_path / "out", batch, form=form)
    assert list_names(tmp_path) == []


def test_what_packed_needs_is_said(tmp_path: Path) -> None:
    model, mask, batch = make_small()
    with pytest.raises(ValueError, match="names the checkpoint that the model was loaded from; pass base"):
        export_model(model, mask, tmp_path / "out", batch, form="packed")
    save_weights({name: tensor + 1 for name, tensor in model.state_dict().items()}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=r"the mask is for other\.safetensors, but in Sequential .* are not the same"):
        export_model(model, mask, tmp_path / "out", batch, form="packed", base=tmp_path / "other.safetensors")
    assert list_names(tmp_path) == ["other.safetensors"]


def test_an_unknown_form_and_a_batch_without_inputs_are_refused(tmp_path: Path) -> None:
    model, mask, batch = make_small()
    unknown: Any = "onnx"
    with pytest.raises(ValueError, match="form must be one of 'dense', 'shrunk', 'semi_structured', 'packed', got 'o"):
        export_model(model, mask, tmp_path / "out", batch, form=unknown)
    with pytest.raises(ValueError, match="does not say which; pass example_inputs"):
        export_model(model, mask, tmp_path / "out", batch[0])


def test_what_exists_is_replaced_only_where_it_is_an_export_and_that_is_said(tmp_path: Path) -> None:
    model, mask, batch = make_small()
    llama, neurons, tokens = make_llama(tmp_path / "base")
    out, folder = tmp_path / "out", tmp_path / "folder"
    export_model(model, mask, out, batch, form="dense")
    export_model(llama, neurons, folder, tokens, form="dense")
    for place in (out, folder, tmp_path / "base"):
        with pytest.raises(ValueError, match=r"exists and would be replaced; name another place, or say replace=True"):
            export_model(model, mask, place, batch)
    export_model(model, mask, out, batch, replace=True)
    assert load_weights(out)["0.weight"].shape == (2, 4)
    export_model(llama, neurons, folder, tokens, replace=True)
    assert type(llama).from_pretrained(folder).config.intermediate_size == 6
    (folder / "notes.txt").write_text("mine")
    save_weights(model.state_dict(), tmp_path / "weights.safetensors")
    mask.save(tmp_path / "mask")
    (tmp_path / "empty").mkdir()
    before = list_names(tmp_path)
    for name in ("folder", "base", "weights.safetensors", "mask", "base/config.json", "empty"):
        with pytest.raises(ValueError, match="must be an export to be replaced, but is something else"):
            export_model(llama, neurons, tmp_path / name, tokens, replace=True)
    assert list_names(tmp_path) == before


@pytest.mark.parametrize("is_llama", [False, True])
def test_what_is_not_equal_never_appears(is_llama: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, mask, batch = make_llama(tmp_path / "base") if is_llama else make_small()
    before = list_names(tmp_path)

    def change(loaded: nn.Module, _: object = None) -> nn.Module:
        next(loaded.parameters()).data.view(-1)[0] += 1
        return loaded

    monkeypatch.setattr(exporting, "load_export", lambda *words: change(load_export(*words)))
    with pytest.raises(
        ValueError, match="must be the pruned model bit for bit, but is not, so that the export was del"
    ):
        export_model(model, mask, tmp_path / "out", batch)
    monkeypatch.setattr(exporting, "load_export", load_export)
    monkeypatch.setattr(exporting, "call", lambda one, inputs: one(**inputs) if is_llama else one(inputs) * id(one))
    monkeypatch.setattr(exporting, "compare_outputs", lambda *_: 0.01)
    with pytest.raises(ValueError, match=r"outputs differ by 0\.01 of the largest, and rounding allows 0\.00035"):
        export_model(model, mask, tmp_path / "out", batch)
    assert list_names(tmp_path) == before


@pytest.mark.parametrize(
    ("is_llama", "stopped"), [(True, KeyboardInterrupt()), (False, OSError(errno.ENOSPC, "No space left on device"))]
)
def test_a_write_that_is_stopped_leaves_nothing_new(
    is_llama: bool, stopped: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, mask, batch = make_llama(tmp_path / "base") if is_llama else make_small()
    export_model(model, mask, tmp_path / "out", batch)
    before = list_names(tmp_path)
    kept = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    write: Any = write_hashed if is_llama else write_tensors

    def stop(path: Path, *rest: object) -> None:
        write(path, *rest)
        raise stopped

    monkeypatch.setattr(files, write.__name__, stop)
    for replace, place in ((True, tmp_path / "out"), (False, tmp_path / "new")):
        with pytest.raises(type(stopped)):
            export_model(model, mask, place, batch, replace=replace)
    assert list_names(tmp_path) == before
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == kept
