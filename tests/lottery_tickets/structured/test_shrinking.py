"""What shrinking gives: reports, errors, training as held, states, and shrinking again."""

import copy
import json
from pathlib import Path
from typing import Any, Final

import pytest
import torch
from torch import Tensor, nn

from lottery_tickets import (
    Mask,
    create_magnitude_mask,
    create_unit_mask,
    export_model,
    hold_mask,
    load_export,
    masked,
    shrink,
)
from tests.lottery_tickets.structured.networks import make_images, make_network
from tests.models import make_language_model, make_mlp

NO_DROPOUT: Final = {"attention_dropout": 0.0}


def train(model: nn.Module, images: Tensor) -> None:
    """Trains with what makes a step of its own: momentum, weight decay, batch norms that gather statistics."""
    optimizer = torch.optim.SGD(model.train().parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
    for step in range(8):
        loss = nn.functional.cross_entropy(model(images + step), torch.arange(len(images)) % 3)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@pytest.mark.parametrize(
    ("name", "units"),
    [("residual", "channels"), ("dense", "channels"), ("dense", "neurons"), ("depthwise", "channels"),
     ("gated", "channels"), ("transposed", "channels"), ("twice", "neurons"), ("perceptron", "neurons"),
     ("resnet", "channels")],
)  # fmt: skip
def test_a_shrunk_ticket_trains_to_the_weights_of_the_held_one(name: str, units: str) -> None:
    model, images = make_network(name), make_images(6)
    mask = create_unit_mask(model, 0.5, units=units, scope="global", example_inputs=images)
    shrunk = shrink(model, mask, example_inputs=images)
    hold_mask(model, mask)
    for one in (model, shrunk.model):
        train(one, images)
    held = shrunk.cut_state(model.state_dict())
    for key, tensor in shrunk.model.state_dict().items():
        torch.testing.assert_close(tensor, held[key], rtol=1e-9, atol=1e-11)  # sums of another order, over 8 steps


def tune(model: Any) -> None:  # noqa: ANN401 - of transformers
    tokens = torch.arange(12).view(2, 6)
    optimizer = torch.optim.SGD(model.train().parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
    for _ in range(4):
        model(input_ids=tokens, labels=tokens).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize(
    ("name", "units", "options"),
    [
        ("Qwen2", "neurons", NO_DROPOUT),
        ("Llama", "kv_groups", {"num_key_value_heads": 2, "attention_bias": True, **NO_DROPOUT}),
        ("tied Llama", "layers", {"num_hidden_layers": 3, "mlp_bias": True, **NO_DROPOUT}),
        ("GPT2", "neurons", {"embd_pdrop": 0.0, "attn_pdrop": 0.0, "resid_pdrop": 0.0}),
    ],
)
def test_a_shrunk_decoder_trains_to_the_weights_of_the_held_one(name: str, units: str, options: dict[str, Any]) -> None:
    model: Any = make_language_model(name, **options).double()
    mask = create_unit_mask(model, 0.5, units=units)
    shrunk = shrink(model, mask)
    hold_mask(model, mask)
    for one in (model, shrunk.model):
        tune(one)
    held = shrunk.cut_state(model.state_dict())
    for key, tensor in shrunk.model.state_dict().items():
        torch.testing.assert_close(tensor, held[key], rtol=1e-5, atol=1e-6)  # norms of transformers compute in float32


def test_any_mask_is_shrunk_where_it_emptied_units() -> None:
    model, images = make_network("perceptron"), make_images()
    with torch.no_grad():
        model.get_parameter("4.weight")[:, [0, 5]] = 0.0
        model.get_parameter("6.weight")[:, 3] = 0.0
    mask = create_magnitude_mask(model, 0.3)
    shrunk = shrink(model, mask, example_inputs=images)
    units = {name: (count["before"], count["after"]) for name, count in shrunk.report["units"].items()}
    assert units == {"1": (7, 5), "4": (6, 5)}
    assert shrunk.report["num_zeros"] == sum(int((tensor == 0).sum()) for tensor in shrunk.model.parameters()) > 0
    with masked(model, mask):
        torch.testing.assert_close(shrunk.model(images), model(images), rtol=0, atol=1e-12)


def test_an_emptied_layer_keeps_one_unit_that_is_zero() -> None:
    model, images = make_mlp(sizes=(128, 4, 3)), make_images().flatten(1)
    mask = {"2.weight": torch.zeros(3, 4, dtype=torch.bool)}
    shrunk = shrink(model, mask, example_inputs=images)
    assert shrunk.report["units"] == {"0": {"kind": "neurons", "before": 4, "after": 1, "unread": 1}}
    assert torch.equal(shrunk.model(images), model.get_parameter("2.bias").expand(3, 3))


def test_the_report_says_what_went() -> None:
    model, images = make_network("resnet").float(), make_images(1).float()
    mask = create_unit_mask(model, 0.5, example_inputs=images)
    report = shrink(model, mask, example_inputs=images).report
    assert json.loads(json.dumps(report)) == report
    before, after = report["before"], report["after"]
    assert before["num_parameters"] == sum(parameter.numel() for parameter in model.parameters())
    assert 0.2 < after["num_parameters"] / before["num_parameters"] < 0.3  # half of inputs and half of outputs
    assert before["flops"] is not None
    assert after["flops"] is not None
    assert 0.2 < after["flops"] / before["flops"] < 0.35
    assert after["num_bytes"] < before["num_bytes"]
    assert {count["before"] // count["after"] for count in report["units"].values()} == {2}


def test_no_memory_is_shared_and_nothing_of_the_model_changes() -> None:
    for model, inputs in ((make_network("dense"), make_images(1)), (make_language_model("tied Llama"), None)):
        before = copy.deepcopy(model.state_dict())
        next(model.parameters()).requires_grad_(False)
        numbers = torch.random.get_rng_state()
        units = "channels" if inputs is not None else "neurons"
        shrunk = shrink(model, create_unit_mask(model, 0.3, units=units, example_inputs=inputs), example_inputs=inputs)
        assert torch.equal(torch.random.get_rng_state(), numbers)
        for one in (model, shrunk.model):
            assert [parameter.requires_grad for parameter in one.parameters()].index(True) == 1
        with torch.no_grad():
            for tensor in shrunk.model.state_dict().values():
                tensor.zero_()
        assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_starting_weights_are_cut_as_the_model_is() -> None:
    trained, start, images = make_network("residual"), make_network("residual", seed=7), make_images(1)
    mask = create_unit_mask(trained, 0.4, example_inputs=images)
    shrunk = shrink(trained, mask, example_inputs=images)
    small = shrink(start, mask, example_inputs=images).model.state_dict()
    cut = shrunk.cut_state(start.state_dict())
    assert {name: tensor.shape for name, tensor in cut.items()} == {
        name: tensor.shape for name, tensor in small.items()
    }
    assert all(torch.equal(tensor, small[name]) for name, tensor in cut.items())
    shrunk.model.load_state_dict(cut)


def test_layers_that_go_are_left_out_of_states() -> None:
    model = make_language_model("tied Llama", num_hidden_layers=3)
    mask = create_unit_mask(model, 0.5, units="layers", scores={"model.layers": torch.tensor([2.0, 1.0, 3.0])})
    shrunk = shrink(model, mask)
    assert shrunk.report["units"]["model.layers"]["after"] == 1
    assert shrunk.report["units"]["model.layers.0.mlp"]["after"] == 0
    cut = shrunk.cut_state(model.state_dict())
    assert all(torch.equal(tensor, cut[name]) for name, tensor in shrunk.model.state_dict().items())
    assert torch.equal(
        cut["model.layers.0.mlp.up_proj.weight"], model.get_parameter("model.layers.2.mlp.up_proj.weight")
    )


def test_a_shrunk_network_is_shrunk_again_and_saved(tmp_path: Path) -> None:
    model, images = make_network("depthwise"), make_images()
    first = shrink(model, create_unit_mask(model, 0.3, example_inputs=images), example_inputs=images).model
    mask = create_unit_mask(first, 0.5, example_inputs=images)
    second = shrink(first, mask, example_inputs=images).model
    with masked(first, mask):
        torch.testing.assert_close(second(images), first(images), rtol=0, atol=1e-12)
    torch.save(second, tmp_path / "model.pt")
    loaded = torch.load(tmp_path / "model.pt", weights_only=False)
    assert torch.equal(loaded(images), second(images))
    mask.save(tmp_path / "mask.safetensors")
    assert Mask.load(tmp_path / "mask.safetensors").provenance["units"] == "channels"


@pytest.mark.parametrize("name", ["residual", "depthwise", "dense"])
def test_what_was_shrunk_saved_loaded_and_trained_is_shrunk_again(name: str, tmp_path: Path) -> None:
    model, images = make_network(name), make_images(6)
    batch = images, torch.arange(6) % 3
    mask = create_unit_mask(model, 0.3, example_inputs=images)
    export_model(model, mask, tmp_path / "small", batch)
    first = load_export(make_network(name, seed=3), tmp_path / "small")
    train(first, images)
    options: Any = {"scores": "taylor", "dataloader": [batch], "example_inputs": images}
    mask = create_unit_mask(first.eval(), 0.5, **options)
    second = shrink(first, mask, example_inputs=images)
    assert second.report["difference"] is not None
    assert second.report["difference"] <= 1e-12
    kept = {group: count["after"] for group, count in second.report["units"].items() if count["kind"] == "channels"}
    assert kept == mask.provenance["kept"]
    train(second.model, images)


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("Llama", ("neurons", "kv_groups", "layers")),
        ("Qwen3-MoE", ("experts", "layers")),
        ("Mixtral", ("kv_groups", "experts")),
        ("Qwen2-MoE", ("neurons", "experts")),
    ],
)
def test_a_decoder_loses_one_kind_after_the_other_and_trains_between(
    name: str, kinds: tuple[str, ...], tmp_path: Path
) -> None:
    sizes = {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "hidden_size": 16}
    experts = {"experts_implementation": "eager"} if name != "Llama" else {}
    model: Any = make_language_model(name, **sizes, **experts).double().eval()
    tokens = torch.arange(12).view(2, 6)
    for step, kind in enumerate(kinds):
        mask = create_unit_mask(model, 0.5, units=kind)
        shrunk = shrink(model, mask, uniform=True, example_inputs={"input_ids": tokens})
        difference = shrunk.report["difference"]
        assert (difference is None) == (kind == "experts"), (
            "a masked model still sends tokens to experts that are pruned"
        )
        assert difference is None or difference <= 1e-12
        shrunk.model.save_pretrained(tmp_path / str(step))  # type: ignore[operator] # of transformers
        before, model = model, type(model).from_pretrained(tmp_path / str(step), dtype=torch.float64, **experts)
        assert sum(map(torch.numel, model.parameters())) < sum(map(torch.numel, before.parameters()))
        tune(model)
        model.eval()


def test_a_mask_of_another_model_is_refused() -> None:
    model, images = make_network("perceptron"), make_images(1)
    with pytest.raises(ValueError, match=r"mask names 'conv\.weight', but the model has no such parameter"):
        shrink(model, {"conv.weight": torch.ones(2, 2)}, example_inputs=images)
    with pytest.raises(ValueError, match=r"mask for '1\.bias' has shape \(3,\), but the parameter has shape \(7,\)"):
        shrink(model, {"1.bias": torch.ones(3)}, example_inputs=images)


def test_what_is_held_and_compiled_is_shrunk_to_a_plain_model() -> None:
    model, images = make_network("dense"), make_images(1)
    mask = create_unit_mask(model, 0.4, example_inputs=images)
    hold_mask(model, mask)
    compiled: Any = torch.compile(model, backend="eager")
    shrunk = shrink(compiled, mask, example_inputs=images).model
    assert type(shrunk) is type(model)
    with torch.no_grad():
        shrunk.get_parameter("first.weight").fill_(1.0)  # nobody holds it to zero
    assert torch.equal(shrunk.get_parameter("first.weight"), torch.ones_like(shrunk.get_parameter("first.weight")))
    shrunk(images)
