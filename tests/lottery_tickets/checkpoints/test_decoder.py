"""One layer is in memory at a time, and what cannot be run layer by layer is refused instead of measured wrongly."""

import importlib.util
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutputWithPast
from transformers.models.llama.modeling_llama import LlamaModel

from lottery_tickets import CheckpointWeights, Mask, compute_performance, create_magnitude_mask
from lottery_tickets._core.objective import compute_loss
from lottery_tickets.checkpoints.decoder import StreamedDecoder
from lottery_tickets.workloads.framing import frame_language_model
from tests.lottery_tickets.checkpoints.decoders import load_decoder, make_batches, make_decoder, save_decoder

BATCHES = make_batches()


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_decoder(make_decoder("llama"), tmp_path_factory.mktemp("llama"))


@pytest.fixture
def copied(llama: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(llama, tmp_path / "model"))


def stream(folder: Path) -> float | None:
    return compute_performance(CheckpointWeights(folder), BATCHES)["loss"]


def list_loaded(model: nn.Module) -> list[str]:
    return [name for name, parameter in model.named_parameters() if not parameter.is_meta]


def test_one_layer_is_in_memory_beside_the_embeddings(llama: Path) -> None:
    decoder = StreamedDecoder(CheckpointWeights(llama), BATCHES, compute_loss)
    outside = ["model.embed_tokens.weight", "model.norm.weight"]
    seen: list[str] = []

    def look(model: nn.Module, batch: Any) -> object:  # noqa: ANN401 - any batch
        seen.append(str([name for name in list_loaded(model) if name not in outside and not name.startswith(layer)]))
        assert any(name.startswith(layer) for name in list_loaded(model))
        return compute_loss(model, batch)

    assert list_loaded(decoder.model) == outside
    for layer in decoder.walk():  # noqa: B007 - look reads it
        decoder.carry(look)
    assert seen == ["[]"] * len(decoder.layers) * len(BATCHES)
    assert list_loaded(decoder.model) == outside
    with decoder.at_the_end():
        assert list_loaded(decoder.model) == [*outside, "lm_head.weight"]


def test_each_tensor_is_read_once(llama: Path) -> None:
    weights = CheckpointWeights(llama)
    read: list[int] = []
    with weights.telling(read.append):
        compute_performance(weights, BATCHES)
    assert sum(read) == weights.num_bytes


@pytest.mark.parametrize("kind", ["llama", "gemma2", "gpt2", "opt", "gpt-oss"])
def test_buffers_have_the_values_that_transformers_gives_them(kind: str, tmp_path: Path) -> None:
    loaded = load_decoder(save_decoder(make_decoder(kind), tmp_path))
    state = torch.get_rng_state()
    framed = frame_language_model(tmp_path, None, torch.float32)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(parameter.is_meta for parameter in framed.parameters())
    wanted = dict(loaded.named_buffers())
    found = dict(framed.named_buffers())
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_a_caller_without_gradients_or_in_inference_mode_gets_the_same(llama: Path) -> None:
    wanted = stream(llama)
    with torch.inference_mode():
        assert stream(llama) == wanted
    with torch.no_grad():
        assert stream(llama) == wanted


# ------------------------------------------------------------------------------------------------ models that look back


@pytest.fixture
def change_forward(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[..., Any]], None]:
    def change(run_layers: Callable[..., Tensor]) -> None:
        def forward(self: Any, input_ids: Tensor, **_: object) -> BaseModelOutputWithPast:  # noqa: ANN401 - a LlamaModel
            hidden = self.embed_tokens(input_ids)
            positions = torch.arange(input_ids.shape[1])[None]
            rotary = self.rotary_emb(hidden, position_ids=positions)
            result = run_layers(self, hidden, {"position_embeddings": rotary, "position_ids": positions})
            return BaseModelOutputWithPast(last_hidden_state=self.norm(result))

        monkeypatch.setattr(LlamaModel, "forward", forward)

    return change


def run_plainly(model: Any, hidden: Tensor, options: dict[str, Any]) -> Tensor:  # noqa: ANN401 - a LlamaModel
    for layer in model.layers:
        hidden = layer(hidden, **options)
    return hidden


def look_back(model: Any, hidden: Tensor, options: dict[str, Any]) -> Tensor:  # noqa: ANN401 - as above
    outputs = [hidden]
    for layer in model.layers:
        outputs.append(layer(outputs[-1] + 0.5 * outputs[-2] if len(outputs) > 2 else outputs[-1], **options))
    return outputs[-1]


def average_all(model: Any, hidden: Tensor, options: dict[str, Any]) -> Tensor:  # noqa: ANN401 - as above
    outputs = [hidden]
    for layer in model.layers:
        outputs.append(layer(outputs[-1], **options))
    return torch.stack(outputs[1:]).mean(0)


def add_embeddings(model: Any, hidden: Tensor, options: dict[str, Any]) -> Tensor:  # noqa: ANN401 - as above
    embedded = hidden
    for number, layer in enumerate(model.layers):
        hidden = layer(hidden * (1 + number) + 0.1 * embedded, **options)
    return hidden


def share_a_dict(model: Any, hidden: Tensor, options: dict[str, Any]) -> Tensor:  # noqa: ANN401 - as above
    shared: dict[str, Tensor] = {}
    for layer in model.layers:
        hidden = layer(hidden, shared=shared, **options)
    return hidden


def loop_over_all(model: Any, hidden: Tensor, options: dict[str, Any]) -> Tensor:  # noqa: ANN401 - as above
    for _ in range(2):
        hidden = run_plainly(model, hidden, options)
    return hidden


def run_backwards(model: Any, hidden: Tensor, options: dict[str, Any]) -> Tensor:  # noqa: ANN401 - as above
    for layer in reversed(model.layers):
        hidden = layer(hidden, **options)
    return hidden


def leave_out_the_last(model: Any, hidden: Tensor, options: dict[str, Any]) -> Tensor:  # noqa: ANN401 - as above
    for layer in list(model.layers)[:-1]:
        hidden = layer(hidden, **options)
    return hidden


@pytest.mark.parametrize("run_layers", [run_plainly, add_embeddings])
def test_what_happens_between_layers_is_the_models_own(
    run_layers: Callable[..., Tensor], change_forward: Callable[..., None], llama: Path
) -> None:
    change_forward(run_layers)
    assert stream(llama) == compute_performance(load_decoder(llama), BATCHES)["loss"]


@pytest.mark.parametrize(
    ("run_layers", "message"),
    [
        (look_back, "must use of its layers' outputs only that of the layer before"),
        (average_all, "must use of its layers' outputs only that of the layer before"),
        (share_a_dict, "must be handed tensors and numbers to be streamed, but get a dict"),
        (loop_over_all, "must call its layers once each, in order"),
        (run_backwards, "must call its layers once each, in order"),
        (leave_out_the_last, "must call each of its layers to be streamed, but leaves out model.layers.2"),
    ],
)
def test_models_that_cannot_be_streamed_are_refused(
    run_layers: Callable[..., Tensor], message: str, change_forward: Callable[..., None], llama: Path
) -> None:
    change_forward(run_layers)
    with pytest.raises(ValueError, match=message):
        stream(llama)
    assert torch.is_grad_enabled()


def test_weights_that_are_not_numbers_are_no_looking_back(copied: Path) -> None:
    file = next(path for path in copied.glob("*.safetensors") if "model.layers.1.mlp.up_proj.weight" in load_file(path))
    tensors = load_file(file)
    tensors["model.layers.1.mlp.up_proj.weight"][0, 0] = torch.nan
    save_file(tensors, file, {"format": "pt"})
    found = compute_performance(CheckpointWeights(copied), BATCHES)
    assert found == compute_performance(load_decoder(copied), BATCHES)
    assert (found["loss"], found["performance"]) == (None, None)


# ----------------------------------------------------------------------------------------------------- files, libraries


def test_files_that_change_meanwhile_are_noticed(copied: Path) -> None:
    decoder = StreamedDecoder(CheckpointWeights(copied), BATCHES, compute_loss)

    def walk() -> None:
        for number, _ in enumerate(decoder.walk()):
            decoder.carry()
            if number == 0:
                for file in copied.glob("*.safetensors"):
                    file.touch()

    with pytest.raises(ValueError, match="must stay as it is while it is read, but has changed"):
        walk()


def test_missing_tensors_are_named(copied: Path) -> None:
    model = make_decoder("llama", num_hidden_layers=2)
    save_decoder(model, copied.parent / "short")
    shutil.copy(copied / "config.json", copied.parent / "short" / "config.json")
    with pytest.raises(ValueError, match=r"lacks 9 \(model.layers.2.self_attn.q_proj.weight"):
        stream(copied.parent / "short")


@pytest.mark.parametrize("says", ["GPT2Model", "GPT2LMHeadModel"])
def test_files_of_a_base_model_lack_the_prefix_of_its_names(says: str, tmp_path: Path) -> None:
    save_decoder(make_decoder("gpt2").transformer, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"architectures": [says]}))
    weights, model = CheckpointWeights(tmp_path), load_decoder(tmp_path)
    assert "h.0.attn.c_attn.weight" in weights.shapes
    assert compute_performance(weights, BATCHES) == compute_performance(model, BATCHES)
    mask = create_magnitude_mask(weights, 0.5, scope="row")
    prefix = "transformer." if says == "GPT2Model" else ""
    named = Mask.from_tensors({prefix + name: kept for name, kept in mask.items()})
    assert named == create_magnitude_mask(model, 0.5, scope="row")
    assert compute_performance(weights, BATCHES, mask=mask) == compute_performance(model, BATCHES, mask=named)


@pytest.mark.parametrize("name", ["experts.2.w3.weight", "experts.0.w2.weight"])
def test_an_expert_that_is_missing_is_noticed(name: str, tmp_path: Path) -> None:
    make_decoder("mixtral").save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors[f"model.layers.1.block_sparse_moe.{name}"]
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"lacks 1 \(model\.layers\.1\.mlp\.experts\.(gate_up|down)_proj\); are files"):
        stream(tmp_path)


def test_experts_are_pruned_by_the_names_of_the_files_too(tmp_path: Path) -> None:
    save_decoder(make_decoder("mixtral"), tmp_path)
    weights, model = CheckpointWeights(tmp_path), load_decoder(tmp_path)
    expert = Mask.from_tensors({"model.layers.1.block_sparse_moe.experts.2.w3.weight": torch.eye(48, 32) == 0})
    with torch.no_grad():
        model.get_parameter("model.layers.1.mlp.experts.gate_up_proj")[2, 48:].mul_(torch.eye(48, 32) == 0)
    assert compute_performance(weights, BATCHES, mask=expert) == compute_performance(model, BATCHES)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hidden_size": 48}, "must have the shape"),
        ({"model_type": "t5", "architectures": ["T5Model"]}, "configuration of a language model"),
        ({"num_hidden_layers": 10**9}, "must be at most 1000"),
    ],
)
def test_configurations_of_others_are_refused(settings: dict[str, Any], message: str, copied: Path) -> None:
    weights = CheckpointWeights(copied)
    config = json.loads((copied / "config.json").read_text())
    (copied / "config.json").write_text(json.dumps(config | settings))
    with pytest.raises(ValueError, match=message):
        compute_performance(weights, BATCHES)


def test_tied_weights_that_differ_are_refused(copied: Path) -> None:
    config = json.loads((copied / "config.json").read_text())
    (copied / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": True}))
    with pytest.raises(ValueError, match="must be equal, because the configuration ties them, but differ"):
        stream(copied)


def test_no_configuration_and_no_transformers_are_said_in_words(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = CheckpointWeights(copied)
    find_spec = importlib.util.find_spec
    with monkeypatch.context() as patch:
        patch.setattr("importlib.util.find_spec", lambda name: None if name == "transformers" else find_spec(name))
        patch.delitem(sys.modules, "transformers")
        with pytest.raises(ModuleNotFoundError, match=r"pip install 'lottery-tickets\[transformers\]'"):
            compute_performance(weights, BATCHES)
    (copied / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"must hold config.json"):
        compute_performance(weights, BATCHES)
