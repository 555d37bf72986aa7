"""`lottery-tickets export`, end to end."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from lottery_tickets import Mask, apply_mask, create_magnitude_mask, create_unit_mask, load_export, load_results
from lottery_tickets.storage import load_into, save_weights
from lottery_tickets.structured import ExportReport
from tests.models import make_lenet, save_tiny_llama
from tests.unified_model_analysis.test_cli import Output, refuse
from unified_model_analysis.cli import main


def test_a_workloads_network_is_exported_and_loaded(given: Path, tmp_path: Path, capsys: Output) -> None:
    model = make_lenet(0)
    mask = create_unit_mask(model, 0.5, units="neurons", example_inputs=torch.zeros(1, 1, 8, 8))
    mask.save(tmp_path / "mask")
    words = ["export", "--mask", str(tmp_path / "mask"), "--checkpoint", str(given / "first.safetensors")]
    results, out = tmp_path / "found.json", ""
    for form in ("shrunk", "packed"):
        place = ["--output", str(tmp_path / form), "--form", form, "--output-results", str(results), "--force"]
        assert main([*words, *place]) == 0
        out, err = capsys.readouterr()
        assert f"{form}, loaded again and equal bit for bit; outputs differ by " in out
        assert err.splitlines()[0].startswith(f"using lenet-300-100 with the weights of {given / 'first.safetensors'}")
        assert err.splitlines()[2].startswith(f"using the mask {tmp_path / 'mask'}, of sparsity ")
        assert load_results(results, kind=ExportReport)["form"] == form
    lines = [line.split() for line in out.splitlines()]
    assert ["parameters", "50,610", "17,810", "17,810"] in lines
    small: Any = load_export(make_lenet(1), tmp_path / "shrunk")
    images = torch.randn(4, 1, 8, 8)
    load_into(model, given / "first.safetensors")
    apply_mask(model, mask)
    with torch.no_grad():
        torch.testing.assert_close(small(images), model(images), rtol=0, atol=1e-5)
    assert sum(parameter.numel() for parameter in small.parameters()) == 17_810


def test_a_language_model_is_exported_with_its_tokenizer(tmp_path: Path, capsys: Output) -> None:
    folder = save_tiny_llama(tmp_path / "llama")
    (tmp_path / "text").write_text("the union is strong " * 20)
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(folder)
    create_unit_mask(model, 0.5, units="neurons").save(tmp_path / "mask")
    words = ["export", "--output", str(tmp_path / "small"), "--mask", str(tmp_path / "mask"), "--num-tokens=4"]
    words += ["--language-model", str(folder), "--text", str(tmp_path / "text")]
    assert main(words) == 0
    assert "small: shrunk, loaded again and equal bit for bit" in capsys.readouterr().out
    loaded: Any = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "small")
    assert loaded.config.intermediate_size == 6
    assert transformers.AutoTokenizer.from_pretrained(tmp_path / "small")("union strong")["input_ids"] == [2, 4]
    capsys.readouterr()
    assert "would be replaced" in refuse(words, capsys)
    assert "must be an export to be replaced" in refuse([*words, "--force", "--output", str(folder)], capsys)


def test_a_base_in_bfloat16_is_packed(tmp_path: Path, capsys: Output) -> None:
    folder = save_tiny_llama(tmp_path / "llama")
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    model.save_pretrained(folder)
    (tmp_path / "text").write_text("the union is strong " * 20)
    mask = create_unit_mask(model, 0.5, units="neurons")
    mask.save(tmp_path / "mask")
    words = ["export", "--output", str(tmp_path / "out"), "--mask", str(tmp_path / "mask"), "--num-tokens=4"]
    words += ["--language-model", str(folder), "--text", str(tmp_path / "text"), "--form", "packed"]
    assert main(words) == 0
    assert "out: packed, loaded again and equal bit for bit" in capsys.readouterr().out
    loaded = load_export(model, tmp_path / "out")
    apply_mask(model, mask)
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.bfloat16}
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in model.state_dict().items())


def test_what_it_lacks_is_said_in_one_line(given: Path, tmp_path: Path, capsys: Output) -> None:
    words = ["export", "--output", str(tmp_path / "out"), "--mask", str(given / "mask.safetensors")]
    weights = ["--checkpoint", str(given / "first.safetensors")]
    assert "--checkpoint must name the weights that are exported" in refuse(words, capsys)
    Mask.from_tensors({"0.weight": torch.ones(2, 2)}).save(tmp_path / "mask")
    other = ["export", "--output", str(tmp_path / "out"), "--mask", str(tmp_path / "mask"), *weights]
    assert "mask names '0.weight', but the model has no such parameter" in refuse(other, capsys)
    two_of_four = [*words, *weights, "--form", "semi_structured"]
    assert "must keep at most 2 of each 4 weights" in refuse(two_of_four, capsys)
    assert [path.name for path in tmp_path.iterdir()] == ["mask"]


@pytest.mark.parametrize("force", [[], ["--force"]])
def test_weights_are_never_replaced(force: list[str], given: Path, tmp_path: Path, capsys: Output) -> None:
    place = tmp_path / "weights"
    place.write_bytes((given / "first.safetensors").read_bytes())
    words = ["export", "--output", str(place), "--mask", str(given / "mask.safetensors"), *force]
    assert "replaced" in refuse([*words, "--checkpoint", str(given / "first.safetensors")], capsys)
    assert place.read_bytes() == (given / "first.safetensors").read_bytes()


@pytest.mark.parametrize("form", ["dense", "packed"])
def test_a_workloads_checkpoint_in_bfloat16_stays_so(form: str, tmp_path: Path, capsys: Output) -> None:
    model = make_lenet(0).bfloat16()
    save_weights(model.state_dict(), tmp_path / "weights.safetensors")
    create_magnitude_mask(model, 0.5).save(tmp_path / "mask")
    words = ["export", "--output", str(tmp_path / "out"), "--mask", str(tmp_path / "mask"), "--form", form]
    assert main([*words, "--checkpoint", str(tmp_path / "weights.safetensors")]) == 0
    assert f"out: {form}, loaded again and equal bit for bit" in capsys.readouterr().out
    loaded = load_export(make_lenet(0).bfloat16(), tmp_path / "out")
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.bfloat16}
