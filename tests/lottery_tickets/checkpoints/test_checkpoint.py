"""Weights in files against the same weights in memory: equal bits, wherever the files are cut."""

import hashlib
import importlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from lottery_tickets import (
    CheckpointWeights,
    Mask,
    apply_mask,
    compute_layerwise_magnitude_ticket,
    compute_sparsity,
    create_magnitude_mask,
    create_random_mask,
)
from lottery_tickets._core.selection import largest, one_pass, patterns
from lottery_tickets._core.tensor_files.shards import StoredWeight
from lottery_tickets._core.weights import Weights
from lottery_tickets.checkpoints import check_base, compute_layer_statistics, open_weights
from lottery_tickets.storage import save_weights
from tests.lottery_tickets.checkpoints.decoders import load_decoder, make_decoder, save_decoder
from tests.lottery_tickets.checkpoints.shards import save_sharded
from tests.models import make_language_model
from tests.strategies import FLOATS

SCOPES = ("global", "layer", "row", "erk", "lamp")


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks so small that a tensor has many, and a sample that guesses the bracket, and often wrongly."""
    monkeypatch.setattr(patterns, "WEIGHTS_PER_CHUNK", 16)
    monkeypatch.setattr(patterns, "WEIGHTS_PER_COPIED_CHUNK", 8)
    monkeypatch.setattr(patterns, "NEIGHBOURS_IN_FILES", 4)
    monkeypatch.setattr(largest, "SMALLEST_TO_SAMPLE", 1)
    monkeypatch.setattr(one_pass, "NUM_SAMPLED_IN_FILES", 24)
    monkeypatch.setattr(one_pass, "LARGEST_SHARE", 1)


@st.composite
def states(draw: st.DrawFn) -> dict[str, Tensor]:
    """Tensors of a model: matrices to prune, with many ties or none, and others between them."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    state: dict[str, Tensor] = {}
    for number in range(draw(st.integers(1, 4))):
        shape = draw(st.tuples(st.integers(1, 9), st.integers(1, 9)))
        values = torch.randn(shape, generator=generator)
        values = (values * 2).round() if draw(st.booleans()) else values
        state[f"layer{number}.weight"] = values.to(draw(st.sampled_from(FLOATS)))
        state[f"layer{number}.bias"] = torch.ones(draw(st.integers(0, 3)))
    state["embed.weight"] = torch.ones(3, 2, dtype=torch.int64)
    return state


@pytest.mark.filterwarnings("ignore:layer collapse")
@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("scope", SCOPES)
@given(state=states(), data=st.data())
@settings(max_examples=15, deadline=None)
def test_masks_are_those_of_the_weights_in_memory(
    scope: str, state: dict[str, Tensor], data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    files = data.draw(st.lists(st.integers(0, 2), min_size=len(state), max_size=len(state)))
    checkpoint = CheckpointWeights(save_sharded(state, tmp_path_factory.mktemp("sharded"), files))
    in_order = dict(sorted(state.items()))  # as the file of one checkpoint is read
    sparsity = data.draw(st.floats(0, 1))
    expected = create_magnitude_mask(in_order, sparsity, scope=scope)
    assert list(expected) == list(create_magnitude_mask(checkpoint, sparsity, scope=scope))
    assert create_magnitude_mask(checkpoint, sparsity, scope=scope) == expected
    within = create_magnitude_mask(in_order, sparsity / 2, scope=scope)
    if sparsity > 0.5 and scope == "global":
        both = [create_magnitude_mask(source, sparsity, within=within) for source in (in_order, checkpoint)]
        assert both[0] == both[1]
    assert compute_layer_statistics(checkpoint) == compute_layer_statistics(in_order)
    zeros = sum(int((tensor == 0).sum()) for name, tensor in state.items() if name in expected)
    assert compute_sparsity(checkpoint) == zeros / expected.num_weights


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize(("offs", "num_reads"), [((400, 0), 2), ((-400, 0), 2), ((400, 9000), 4), ((0, 0), 3)])
def test_a_bracket_that_misses_costs_a_second_read_and_says_so(
    offs: tuple[int, int],
    num_reads: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    state = {"weight": torch.randn(40, 40).half()}
    if not any(offs):  # so many ties that the bracket is no narrower than all weights
        state["weight"] = state["weight"].sign()
        monkeypatch.setattr(one_pass, "LARGEST_SHARE", 16)
    checkpoint = CheckpointWeights(save_sharded(state, tmp_path, [0]))
    read: list[int] = []
    caplog.set_level(logging.INFO)
    guess = one_pass.guess_bracket

    def guess_off(magnitudes: Any, num_kept: int, *deviations: float) -> tuple[int, int]:  # noqa: ANN401 - handed on
        lo, hi = guess(magnitudes, num_kept, *deviations)
        moved = offs[1] if deviations else offs[0]
        return lo + moved, hi + moved

    monkeypatch.setattr(largest, "guess_bracket", guess_off)
    monkeypatch.setattr(one_pass, "NUM_SAMPLED_IN_FILES", 400)
    with checkpoint.telling(read.append):
        assert create_magnitude_mask(checkpoint, 0.5) == create_magnitude_mask(state, 0.5)
    assert "read again" in caplog.text
    num_bytes = state["weight"].numel() * 2
    assert (num_reads - 1) * num_bytes < sum(read) < (num_reads + 0.9) * num_bytes


@pytest.mark.parametrize("kind", ["Llama", "tied Llama", "Qwen2", "GPT2", "BERT"])
def test_the_modules_of_the_configuration_say_what_is_pruned(kind: str, tmp_path: Path) -> None:
    model: Any = make_language_model(kind).to(torch.bfloat16)
    model.save_pretrained(tmp_path, max_shard_size="4KB")
    checkpoint = CheckpointWeights(tmp_path)
    assert type(model).__name__ in checkpoint.choice
    assert len(checkpoint.layout.shards) > 1
    for scope in (*SCOPES, "2:4"):
        found = create_magnitude_mask(checkpoint, 0.5, scope=scope)
        expected = create_magnitude_mask(model, 0.5, scope=scope)
        assert list(found) == list(expected)
        assert found == expected
    assert create_random_mask(checkpoint, 0.3, seed=1) == create_random_mask(model, 0.3, seed=1)
    assert compute_layer_statistics(checkpoint) == compute_layer_statistics(model)
    chosen: Any = {"include": [nn.Linear] if kind != "GPT2" else ["*c_fc*"], "exclude": "*1*"}
    assert create_magnitude_mask(checkpoint, 0.5, **chosen) == create_magnitude_mask(model, 0.5, **chosen)


@pytest.mark.parametrize("kind", ["mixtral", "qwen2-moe", "granite-moe", "gpt-neox", "gpt-oss"])
def test_weights_that_are_renamed_or_joined_in_memory_are_those_of_the_model(kind: str, tmp_path: Path) -> None:
    model = load_decoder(save_decoder(make_decoder(kind, torch.bfloat16), tmp_path / "base"))
    checkpoint = CheckpointWeights(tmp_path / "base")
    for scope in (*SCOPES, "2:4"):
        found = create_magnitude_mask(checkpoint, 0.5, scope=scope)
        assert found == create_magnitude_mask(model, 0.5, scope=scope)
        assert list(found) == list(create_magnitude_mask(model, 0.5, scope=scope))
    assert create_random_mask(checkpoint, 0.3, seed=1) == create_random_mask(model, 0.3, seed=1)
    assert compute_layer_statistics(checkpoint) == compute_layer_statistics(model)
    ticket = checkpoint.name_base(create_magnitude_mask(checkpoint, 0.4))
    check_base(model, ticket)
    apply_mask(checkpoint, ticket, output=tmp_path / "pruned")
    assert compute_sparsity(CheckpointWeights(tmp_path / "pruned")) == ticket.sparsity
    apply_mask(model, ticket)
    pruned = load_decoder(tmp_path / "pruned").state_dict()
    assert all(torch.equal(tensor, pruned[name]) for name, tensor in model.state_dict().items())


def test_masks_by_the_names_of_the_files_are_applied_too(tmp_path: Path) -> None:
    save_decoder(make_decoder("mixtral"), tmp_path / "base")
    checkpoint = CheckpointWeights(tmp_path / "base")
    name = "model.layers.0.block_sparse_moe.experts.1.w2.weight"
    mask = checkpoint.name_base(Mask.from_tensors({name: torch.rand(checkpoint.shapes[name]) < 0.5}))
    mask.provenance["base"]["sha256"] = {  # as names were noted once
        name: hashlib.sha256(StoredWeight(name, [checkpoint.entries[name]]).read(0, 48 * 32).numpy().data).hexdigest()
    }
    apply_mask(checkpoint, mask, output=tmp_path / "pruned")
    pruned = CheckpointWeights(tmp_path / "pruned")
    kept = StoredWeight(name, [pruned.entries[name]]).read(0, 48 * 32) != 0
    assert torch.equal(kept.view(32, 48), mask[name])


def test_without_a_configuration_that_transformers_knows_names_decide(tmp_path: Path) -> None:
    save_weights({"fc.weight": torch.randn(4, 4), "norm.weight": torch.randn(2, 2)}, tmp_path / "model.safetensors")
    for config in (None, '{"model_type": "mine"}', '{"architectures": ["Odd"]}'):
        if config is not None:
            (tmp_path / "config.json").write_text(config)
        checkpoint = CheckpointWeights(tmp_path)
        assert checkpoint.choice == "their names"
        assert list(create_magnitude_mask(checkpoint, 0.5)) == ["fc.weight"]


def test_a_configuration_of_another_model_is_refused(tmp_path: Path) -> None:
    make_language_model("Llama", hidden_size=32, intermediate_size=24).save_pretrained(tmp_path)  # type: ignore[operator] # of transformers
    config = (tmp_path / "config.json").read_text()
    make_language_model("Llama").save_pretrained(tmp_path)  # type: ignore[operator] # of transformers
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(ValueError, match="are configuration and weights of one model"):
        create_magnitude_mask(CheckpointWeights(tmp_path), 0.5)


def test_tickets_and_torch_files_are_loaded_and_safetensors_are_not(tmp_path: Path) -> None:
    state = {"fc.weight": torch.randn(4, 4)}
    torch.save(state, tmp_path / "a.pt")
    save_weights(state, tmp_path / "a.safetensors")
    opened = [open_weights(tmp_path / name) for name in ("a.pt", "a.safetensors")]
    assert [type(weights) for weights in opened] == [dict, CheckpointWeights]
    assert create_magnitude_mask(opened[0], 0.5) == create_magnitude_mask(opened[1], 0.5)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused_by_name_and_counted(value: float, tmp_path: Path) -> None:
    weights = torch.randn(8, 8)
    weights[3, 3] = value
    save_weights({"fc.weight": weights}, tmp_path / "a.safetensors")
    checkpoint = CheckpointWeights(tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match=r"'fc\.weight' must be finite"):
        create_magnitude_mask(checkpoint, 0.5)
    assert compute_layer_statistics(checkpoint)["fc.weight"]["num_not_finite"] == 1


def test_nobody_trains_what_lies_in_files(tmp_path: Path) -> None:
    save_weights({"fc.weight": torch.randn(4, 4)}, tmp_path / "a.safetensors")
    weights = CheckpointWeights(tmp_path / "a.safetensors").find_prunable()
    with pytest.raises(TypeError, match="cannot be trained or differentiated; load the model"):
        _ = weights["fc.weight"].tensor


def change_bytes(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-8])


@pytest.mark.parametrize("change", [change_bytes, cut_short])
@pytest.mark.parametrize(
    "use",
    [
        lambda weights: create_magnitude_mask(weights, 0.5),
        compute_sparsity,
        compute_layer_statistics,
        lambda weights: compute_layerwise_magnitude_ticket(weights, 0.5),
        lambda weights: weights.name_base(Mask.keeping_all({"fc.weight": (64, 64)})),
    ],
)
def test_a_file_that_changes_while_it_is_used_is_noticed(
    use: Callable[[CheckpointWeights], object], change: Callable[[Path], None], tmp_path: Path
) -> None:
    path = tmp_path / "a.safetensors"
    save_weights({"fc.weight": torch.randn(64, 64)}, path)
    checkpoint = CheckpointWeights(path)
    use(checkpoint)
    change(path)
    with pytest.raises(ValueError, match="must stay as it is while it is read, but has changed"):
        use(checkpoint)


def test_blocks_in_another_order_of_dimensions_are_those_of_the_tensor(tmp_path: Path) -> None:
    for shape, order in (
        ((6, 5), (1, 0)),
        ((3, 4, 5), (0, 2, 1)),
        ((2, 3, 4, 5), (0, 2, 3, 1)),
        ((4, 3, 2), (1, 2, 0)),
    ):
        tensor = torch.arange(torch.Size(shape).numel()).float().view(shape)
        save_weights({"a.weight": tensor}, tmp_path / "a.safetensors")
        stored = CheckpointWeights(tmp_path / "a.safetensors").find_prunable()["a.weight"]
        kept = Weights.from_tensors({"a.weight": tensor})["a.weight"]
        for start in range(0, tensor.numel(), 7):
            stop = min(start + 11, tensor.numel())
            assert torch.equal(stored.read(start, stop, order), kept.read(start, stop, order))


@given(sizes=st.lists(st.integers(0, 9), min_size=1, max_size=6), data=st.data())
@settings(max_examples=30, deadline=None)
def test_a_weight_of_many_parts_is_read_as_the_whole(
    sizes: list[int], data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("parts")
    rows = torch.arange(4 * sum(sizes)).float().view(sum(sizes), 2, 2)
    names = [f"{number}.weight" for number in range(len(sizes))]
    save_weights(dict(zip(names, rows.split(sizes), strict=True)), folder / "a.safetensors")
    entries = CheckpointWeights(folder / "a.safetensors").entries
    stored = StoredWeight("a", [entries[name] for name in names], shape=rows.shape)
    start, stop = sorted(data.draw(st.tuples(*[st.integers(0, rows.numel())] * 2)))
    assert torch.equal(stored.read(start, stop), rows.view(-1)[start:stop])
    assert torch.equal(stored.read(start, stop, (0, 2, 1)), rows.transpose(1, 2).reshape(-1)[start:stop])
    chosen = data.draw(st.sets(st.integers(0, max(rows.numel() - 1, 0))) if rows.numel() else st.just(set[int]()))
    positions = np.array(sorted(chosen), np.int64)
    assert torch.equal(stored.pick(positions), rows.view(-1)[positions])
    assert b"".join(block.tobytes() for block in stored.walk()) == rows.numpy().tobytes()


def test_large_files_are_read_past_the_cache_and_give_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = importlib.import_module("lottery_tickets.checkpoints.layout")
    state = {"a.weight": torch.randn(300, 70), "b.weight": torch.randn(33, 7).double()}
    save_sharded(state, tmp_path, [0, 1])
    usual = create_magnitude_mask(CheckpointWeights(tmp_path), 0.5)
    monkeypatch.setattr(layout, "LARGE", 0.0)
    checkpoint = CheckpointWeights(tmp_path)
    assert all(shard.is_large for shard in checkpoint.layout.shards.values())
    assert create_magnitude_mask(checkpoint, 0.5) == usual
