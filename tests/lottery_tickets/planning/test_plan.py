"""What a plan foretells: laws that hold for any network, and real runs whose tensors are counted."""

import copy
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

from lottery_tickets import TrainerSettings, compute_fisher_importance, plan_memory
from lottery_tickets._core.memory.counting import StorageCounter
from lottery_tickets._core.memory.sizes import ANALYSES, ModelSizes
from lottery_tickets._core.memory.stand_in import StandIn
from lottery_tickets._core.training.light_training import LightTrainer
from lottery_tickets.planning.budget import Budget
from lottery_tickets.planning.phases import Asked, Foretold, Phase
from lottery_tickets.storage import save_weights

IMAGE = (torch.zeros(1, 3, 8, 8), torch.zeros(1, dtype=torch.int64))
GB = 10**9


def make_network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.1), nn.Flatten(), nn.Linear(512, 10)
    )


def make_config(**changes: Any) -> transformers.Qwen2Config:  # noqa: ANN401 - of the configuration
    sizes: dict[str, Any] = {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "vocab_size": 200, "max_position_embeddings": 64, "tie_word_embeddings": False,
    }  # fmt: skip
    return transformers.Qwen2Config(**(sizes | changes), architectures=["Qwen2ForCausalLM"])


def test_parts_add_up_and_every_analysis_is_foretold() -> None:
    found = plan_memory(make_network(), batch=IMAGE, batch_size=6)
    assert found["notes"] == []
    assert tuple(found["analyses"]) == ANALYSES
    for planned in found["analyses"].values():
        assert planned["is_complete"]
        assert sum(planned["parts"].values()) == planned["device_bytes"]
        assert sum(planned["host_parts"].values()) == planned["host_bytes"]
        assert all(num_bytes > 0 for num_bytes in (planned["parts"] | planned["host_parts"]).values())
        assert planned["parts"]["weights"] == found["weight_bytes"] == 4 * (216 + 8 + 16 + 5120 + 10)


def test_a_model_without_values_is_foretold_as_one_with_them_which_stays_as_it_is() -> None:
    model = make_network()
    before, generator = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    modes = [module.training for module in model.modules()]
    given = plan_memory(model, batch=IMAGE, batch_size=4, gpu_memory_gb=1)
    assert torch.equal(torch.get_rng_state(), generator)
    assert given == plan_memory(make_network().to("meta"), batch=IMAGE, batch_size=4, gpu_memory_gb=1)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(type(tensor.data) is Tensor and tensor.grad is None for tensor in model.parameters())
    assert modes == [module.training for module in model.modules()]


@pytest.mark.parametrize("analysis", ANALYSES)
def test_what_grows_with_the_batch_grows_in_proportion(analysis: Any) -> None:  # noqa: ANN401 - a name
    """And nothing else does: each further batch of 64 samples takes as much as the one before."""
    model, settings = make_network(), TrainerSettings(max_batch_size=512)  # so that a probe runs a whole batch
    replica, sizes, nowhere = StandIn(model, on_gpu=False), ModelSizes.of_model(model), Budget(None, on_gpu=False)
    totals = [
        max(map(nowhere.count, Foretold(replica, sizes, Asked(IMAGE, size, settings)).list_phases(analysis)))
        for size in (64, 128, 192)
    ]
    assert totals[2] - totals[1] == totals[1] - totals[0] > 64 * 8 * 64 * 4


@pytest.mark.parametrize("use_sgd", [True, False])
def test_a_training_step_takes_what_counting_a_real_one_finds(use_sgd: bool) -> None:
    model = transformers.Qwen2ForCausalLM(make_config()).train()
    settings = TrainerSettings(use_sgd=use_sgd)
    batch = {"input_ids": torch.randint(200, (4, 16))}
    trainer = LightTrainer(model, [batch], settings)
    trainer.train_steps(1)  # so that states exist
    optimizer: Any = getattr(trainer.stepper, "optimizer", None)
    states = [tensor for state in optimizer.state.values() for tensor in state.values()] if optimizer else []
    held = StorageCounter([*model.parameters(), *model.buffers(), *states])
    before = held.bytes_alive - sum(state.nbytes for state in states if state.ndim)
    with held:
        trainer.train_steps(1)
    name: Any = "early_bird_sgd" if use_sgd else "early_bird_adamw"
    foretold = find_step(model, name, settings)
    assert sum(foretold.values()) == pytest.approx(held.peak_bytes - before, rel=0.05)


def find_step(model: nn.Module, name: Any, settings: TrainerSettings) -> dict[str, int]:  # noqa: ANN401 - a name
    sizes = ModelSizes.of_model(model)
    asked = Asked({"input_ids": torch.zeros(1, 16, dtype=torch.int64)}, 4, settings)
    phases = Foretold(StandIn(model, on_gpu=False), sizes, asked).list_phases(name)
    return next(phase.device for phase in phases if phase.name == "a training step")


def test_scores_take_what_counting_a_real_run_finds() -> None:
    model = transformers.Qwen2ForCausalLM(make_config(num_hidden_layers=4))
    batches = [{"input_ids": torch.randint(200, (16, 32))} for _ in range(2)]
    compute_fisher_importance(model, batches)
    with StorageCounter([*model.parameters(), *model.buffers()]) as counter:
        compute_fisher_importance(model, batches)
    planned = plan_memory(model, batch_size=16, num_tokens=32, analyses=["fisher"])["analyses"]["fisher"]
    assert planned["device_bytes"] == pytest.approx(counter.peak_bytes, rel=0.05)


def test_attention_holds_no_products_of_queries_and_keys() -> None:
    """As its kernels compute: what a longer sample takes grows in proportion, not with its square."""
    config = make_config(max_position_embeddings=4096, num_hidden_layers=1)
    totals = [
        plan_memory(config, batch_size=1, num_tokens=length, analyses=["fisher"])["analyses"]["fisher"]["device_bytes"]
        for length in (512, 1024, 1536)
    ]
    assert totals[2] - totals[1] == pytest.approx(totals[1] - totals[0], rel=0.01)


def test_a_configuration_a_folder_and_a_checkpoint_are_one_model(tmp_path: Any) -> None:  # noqa: ANN401 - a path
    config = make_config(dtype="bfloat16")
    config.save_pretrained(tmp_path)
    options: dict[str, Any] = {"batch_size": 2, "num_tokens": 8, "gpu_memory_gb": 1, "analyses": ["fisher", "imp"]}
    found = plan_memory(config, **options)
    assert found["num_tokens"] == 8
    assert found["weight_bytes"] == 2 * found["num_params"]
    assert {**plan_memory(tmp_path, **options), "model": found["model"]} == found
    wide = transformers.Qwen2ForCausalLM(make_config())
    save_weights(wide.state_dict(), tmp_path / "model.safetensors")  # whose dtypes count, and not the configuration's
    of_folder = plan_memory(str(tmp_path), **options)
    assert of_folder["weight_bytes"] == 4 * found["num_params"]
    assert {**plan_memory(wide, **options), "model": of_folder["model"]} == of_folder
    assert plan_memory(tmp_path, **options, dtype=torch.float16)["weight_bytes"] == found["weight_bytes"]


def test_what_does_not_fit_is_said_with_the_batch_that_does() -> None:
    model = make_network()
    large = plan_memory(model, batch=IMAGE, batch_size=1000, gpu_memory_gb=0.005)
    planned = large["analyses"]["fisher"]
    assert planned["fits"] is False
    most = planned["largest_batch_size"]
    assert most is not None
    assert 0 < most < 1000
    for size, fits in ((most, True), (most + 2, False)):
        again = plan_memory(model, batch=IMAGE, batch_size=size, gpu_memory_gb=0.005, analyses=["fisher"])
        assert again["analyses"]["fisher"]["fits"] is fits
    assert large["settings"]["batch_size"] <= most
    none = plan_memory(model, batch=IMAGE, batch_size=10, gpu_memory_gb=0.00003)
    assert none["analyses"]["early_bird_adamw"]["largest_batch_size"] == 0
    assert none["settings"]["optimizer"] == "sgd"


def test_beside_a_gpu_what_lies_on_the_cpu_is_not_counted_against_it() -> None:
    options: dict[str, Any] = {"batch": IMAGE, "batch_size": 4, "analyses": ["early_bird_sgd"]}
    gpu = plan_memory(make_network(), **options, gpu_memory_gb=1)["analyses"]["early_bird_sgd"]
    assert gpu["host_bytes"] > 4 * 5000  # starting weights
    assert "starting weights" not in gpu["parts"]
    phase = Phase("", {"a": 3}, {"b": 4})
    assert [Budget(None, on_gpu).count(phase) for on_gpu in (True, False)] == [3, 7]


def test_a_model_that_looks_at_values_is_foretold_without_activations_and_says_why() -> None:
    class Looking(nn.Linear):
        def forward(self, inputs: Tensor) -> Tensor:
            return super().forward(inputs) * (2.0 if float(inputs.sum()) > 0 else 1.0)

    batch = (torch.zeros(1, 4), torch.zeros(1, dtype=torch.int64))
    found = plan_memory(Looking(4, 3), batch=batch, batch_size=2, gpu_memory_gb=1)
    [note] = found["notes"]
    assert "Looking cannot be run without values" in note
    assert not any(planned["is_complete"] for planned in found["analyses"].values())
    assert found["analyses"]["fisher"]["parts"] == {"weights": 60, "sums of scores": 48}
    assert found["analyses"]["fisher"]["fits"] is True
    [note] = plan_memory(nn.Linear(4, 3))["notes"]
    assert "give batch=" in note


def test_what_can_not_be_planned_is_refused() -> None:
    with pytest.raises(TypeError, match=r"a plan is for a torch\.nn.Module, a configuration of transformers"):
        plan_memory(7)
    with pytest.raises(ValueError, match="analyses must be some of early_bird_sgd"):
        plan_memory(make_network(), analyses=["all"])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="gpu_memory_gb must be a positive number"):
        plan_memory(make_network(), gpu_memory_gb=0)
    with pytest.raises(FileNotFoundError, match=r"must be a folder with config\.json"):
        plan_memory("no such folder")
    with pytest.raises(ValueError, match="batch_size must be"):
        plan_memory(make_network(), batch=IMAGE, batch_size=-1)
