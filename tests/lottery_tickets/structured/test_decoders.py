"""Shrunk models of transformers compute what the masked ones compute, and are models of transformers again."""

import copy
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from lottery_tickets import create_unit_mask, masked, shrink
from lottery_tickets.structured import find_units
from lottery_tickets.structured.units import prune_units
from tests.lottery_tickets.structured.networks import draw_mask
from tests.models import make_language_model

TOLERANCE: Final = 1e-12  # relative, in float64
SIZES: Final = {"hidden_size": 24, "num_attention_heads": 6, "num_key_value_heads": 3, "num_hidden_layers": 3}
BIASES: Final = {"attention_bias": True, "mlp_bias": True}
SLIDING: Final = {"use_sliding_window": True, "sliding_window": 3, "max_window_layers": 1}
MODELS: Final[Mapping[str, tuple[str, Mapping[str, Any]]]] = {
    "Llama with biases": ("Llama", {**SIZES, **BIASES}),
    "tied Llama": ("tied Llama", SIZES),
    "Mistral": ("Mistral", {**SIZES, "sliding_window": 3}),
    "Qwen2": ("Qwen2", {**SIZES, **SLIDING}),
    "Qwen3": ("Qwen3", {**SIZES, **SLIDING, "attention_bias": True}),
    "Gemma": ("Gemma", {**SIZES, "head_dim": 6}),
    "GPT-2": ("GPT2", {"n_layer": 3}),
    "BERT": ("BERT", {"num_hidden_layers": 2}),
    "BERT, classes": ("BERT, classes", {}),
    "Mixtral": ("Mixtral", SIZES),
    "Qwen2-MoE": ("Qwen2-MoE", {**SIZES, "num_hidden_layers": 4, "decoder_sparse_step": 2, "mlp_only_layers": [3]}),
    "Qwen3-MoE": ("Qwen3-MoE", SIZES),
}
TOKENS: Final = torch.arange(12).view(2, 6) % 23


def list_options(name: str) -> dict[str, str]:
    """Returns how experts must be computed, which in groups take no float64."""
    return {"experts_implementation": "eager"} if name == "Mixtral" or "MoE" in name else {}


def make(name: str) -> Any:  # noqa: ANN401 - of transformers
    """Returns a model in float64 whose biases and scales are not trivial."""
    kind, options = MODELS[name]
    model = make_language_model(kind, **options, **list_options(name)).double().eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return model


def compute_logits(model: Any) -> Tensor:  # noqa: ANN401 - of transformers
    with torch.no_grad():
        logits: Tensor = model(input_ids=TOKENS).logits
    return logits


def is_close(one: Tensor, other: Tensor) -> bool:
    return float((one - other).abs().max()) <= TOLERANCE * float(other.abs().max())


@contextmanager
def closed(model: Any, mask: Mapping[str, Tensor]) -> Iterator[None]:  # noqa: ANN401 - of transformers
    """Within the block no token is sent to an expert whose row of the router is pruned: its entry is -inf."""

    def close(gone: Tensor, router: Any, inputs: tuple[Tensor], _outputs: object) -> tuple[Tensor, Tensor, Tensor]:  # noqa: ANN401 - as above
        logits = nn.functional.linear(inputs[0].reshape(-1, router.hidden_dim), router.weight)
        logits = logits.masked_fill(gone, -torch.inf)
        best, indices = logits.softmax(-1, dtype=torch.float32).topk(router.top_k, -1)
        if getattr(router, "norm_topk_prob", True):
            best = best / best.sum(-1, keepdim=True)
        return logits, best.to(logits.dtype), indices

    with ExitStack() as hooks:
        for name, kept in mask.items():
            if name.endswith("mlp.gate.weight") and kept.any():  # a layer that goes has no router either
                router, gone = model.get_submodule(name.removesuffix(".weight")), ~kept.any(1)
                hooks.callback(router.register_forward_hook(partial(close, gone)).remove)
        yield


@pytest.mark.parametrize("name", MODELS)
@settings(max_examples=2, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_a_shrunk_model_computes_what_the_masked_one_does(name: str, seed: int) -> None:
    model = make(name)
    before = copy.deepcopy(model.state_dict())
    mask = draw_mask(model, find_units(model).groups.values(), seed)
    shrunk = shrink(model, mask, uniform=True)
    with masked(model, mask), closed(model, mask):
        assert is_close(compute_logits(shrunk.model), compute_logits(model))
    assert type(shrunk.model) is type(model)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    ("name", "units", "sparsity", "changed"),
    [
        ("Llama with biases", "neurons", 0.5, {"intermediate_size": 12}),
        ("Llama with biases", "kv_groups", 1 / 3, {"num_key_value_heads": 2, "num_attention_heads": 4, "head_dim": 4}),
        ("tied Llama", "layers", 0.4, {"num_hidden_layers": 2}),
        ("Qwen2", "kv_groups", 1 / 3, {"num_key_value_heads": 2, "num_attention_heads": 4, "head_dim": 4}),
        ("Qwen3", "layers", 0.4, {"num_hidden_layers": 2}),
        ("GPT-2", "neurons", 0.5, {"n_inner": 32}),
        ("BERT", "neurons", 0.5, {"intermediate_size": 12}),
        ("Mixtral", "experts", 0.5, {"num_local_experts": 2}),
        ("Qwen2-MoE", "layers", 0.5, {"num_hidden_layers": 2, "decoder_sparse_step": 1}),
    ],
)
def test_what_is_saved_is_loaded_and_generates(
    name: str, units: str, sparsity: float, changed: Mapping[str, int], tmp_path: Path
) -> None:
    model = make(name)
    if model.can_generate():
        model.generation_config.max_length = 17
    mask = create_unit_mask(model, sparsity, units=units)
    shrunk: Any = shrink(model, mask).model
    assert {key: getattr(shrunk.config, key) for key in changed} == changed
    shrunk.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path, dtype=torch.float64, **list_options(name))
    assert torch.equal(compute_logits(loaded), compute_logits(shrunk))
    assert loaded.config.tie_word_embeddings == model.config.tie_word_embeddings
    assert (shrunk.get_output_embeddings().weight is shrunk.get_input_embeddings().weight) == (
        model.config.tie_word_embeddings
    )
    if model.can_generate():
        assert shrunk.generation_config.max_length == 17
        told = {"max_new_tokens": 4, "do_sample": False, "pad_token_id": 0}
        with masked(model, mask), closed(model, mask):
            assert loaded.generate(TOKENS, **told).tolist() == model.generate(TOKENS, **told).tolist()


def test_example_inputs_give_the_difference_and_the_flops() -> None:
    model, inputs = make("Qwen3"), {"input_ids": TOKENS}
    for units in ("neurons", "kv_groups", "layers"):
        report = shrink(model, create_unit_mask(model, 1 / 3, units=units), example_inputs=inputs).report
        assert report["difference"] is not None
        assert report["difference"] <= TOLERANCE
        assert 0 < (report["after"]["flops"] or 0) < (report["before"]["flops"] or 0)
    experts = make("Mixtral")
    report = shrink(experts, create_unit_mask(experts, 0.5, units="experts"), example_inputs=inputs).report
    assert report["difference"] is None, "a masked model still sends tokens to experts that are pruned"


def test_layers_keep_what_their_place_says() -> None:
    model = make("Qwen2-MoE")
    assert [hasattr(layer.mlp, "experts") for layer in model.model.layers] == [False, True, False, False]
    assert make("Qwen3").config.layer_types == ["full_attention", "sliding_attention", "sliding_attention"]
    scores = {"model.layers": torch.tensor([1.0, 3.0, 2.0, 4.0])}
    mask = create_unit_mask(model, 0.5, units="layers", scores=scores)
    shrunk: Any = shrink(model, mask).model
    assert [hasattr(layer.mlp, "experts") for layer in shrunk.model.layers] == [True, False]
    mask = create_unit_mask(
        make("Qwen3"), 1 / 3, units="layers", scores={"model.layers": torch.tensor([3.0, 1.0, 2.0])}
    )
    sliding: Any = shrink(make("Qwen3"), mask).model
    assert sliding.config.layer_types == ["full_attention", "sliding_attention"]


def test_a_layer_goes_when_all_that_it_adds_is_pruned_biases_too() -> None:
    model = make("Llama with biases")
    outputs = [f"model.layers.1.{name}" for name in ("self_attn.o_proj", "mlp.down_proj")]
    weights = {f"{name}.weight": torch.zeros_like(model.get_parameter(f"{name}.weight")) for name in outputs}
    biases = {f"{name}.bias": torch.zeros_like(model.get_parameter(f"{name}.bias")) for name in outputs}
    for mask, num_layers in ((weights, 3), ({**weights, **biases}, 2)):
        shrunk: Any = shrink(model, mask, uniform=True).model
        assert shrunk.config.num_hidden_layers == num_layers
        with masked(model, mask):
            assert is_close(compute_logits(shrunk), compute_logits(model))


def test_widths_that_differ_are_refused_or_evened_out_upwards() -> None:
    model = make("Llama with biases")
    mask = create_unit_mask(model, {f"model.layers.{i}.mlp": n for i, n in enumerate([3, 9, 5])}, units="neurons")
    with pytest.raises(ValueError, match=r"intermediate_size .* is one number for all layers, but 3 units stay in"):
        shrink(model, mask)
    shrunk = shrink(model, mask, uniform=True)
    assert [count["after"] for count in shrunk.report["units"].values() if count["kind"] == "neurons"] == [9, 9, 9]
    assert [count["unread"] for count in shrunk.report["units"].values() if count["kind"] == "neurons"] == [6, 0, 4]
    with masked(model, mask):
        assert is_close(compute_logits(shrunk.model), compute_logits(model))


def test_what_a_configuration_cannot_say_is_refused() -> None:
    with pytest.raises(ValueError, match=r"must have units of the kind 'kv_groups' .*no size of a head"):
        create_unit_mask(make("GPT-2"), 0.5, units="kv_groups")
    with pytest.raises(ValueError, match=r"must have units of the kind 'layers' .*norms stand behind the sums"):
        create_unit_mask(make("BERT"), 0.5, units="layers")
    scaled = make_language_model("GPT2", scale_attn_by_inverse_layer_idx=True)
    with pytest.raises(ValueError, match="scaled by the place of the layer"):
        create_unit_mask(scaled, 0.5, units="layers")
    model = make_language_model("Llama", hidden_size=16, num_attention_heads=4, num_key_value_heads=4)
    mask = create_unit_mask(model, 0.25, units="kv_groups")
    with pytest.raises(ValueError, match=r"LlamaConfig refuses num_key_value_heads=3"):
        shrink(model, mask)


def test_an_architecture_that_is_not_in_the_table_is_refused() -> None:
    model = make("Llama with biases")
    model.config.model_type = "another"
    with pytest.raises(ValueError, match=r"must be one of llama, .* got 'another'"):
        find_units(model)


def test_experts_are_not_evened_out_nor_spared() -> None:
    model = make("Mixtral")
    groups = [group for group in find_units(model).groups.values() if group.kind == "experts"]
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    for counts, message in (
        ([4, 2, 2], "as many experts must stay in each layer"),
        ([1, 1, 1], "at least 2 experts of"),
    ):
        kept = {g.name: torch.arange(4) < count for g, count in zip(groups, counts, strict=True)}
        with pytest.raises(ValueError, match=message):
            shrink(model, prune_units(groups, kept, shapes), uniform=True)


def test_as_many_experts_stay_as_a_token_is_sent_to() -> None:
    with pytest.raises(ValueError, match=r"removes 3 of 4 units, but at most 2 can go"):
        create_unit_mask(make("Mixtral"), 0.75, units="experts")
