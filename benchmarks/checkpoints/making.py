"""A checkpoint of random weights in the shapes of Qwen2.5-14B, written shard by shard."""

import json
from pathlib import Path

import numpy as np
import torch

from lottery_tickets._core.tensor_files.headers import list_in_order, make_header

BYTES_PER_SHARD = 4 * 10**9
WEIGHTS_DRAWN = 1 << 24  # then they repeat, from places that are drawn
WEIGHTS_AT_ONCE = 1 << 23
CONFIG = {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "hidden_size": 5120,
    "intermediate_size": 13824,
    "num_attention_heads": 40,
    "num_key_value_heads": 8,
    "vocab_size": 152064,
    "tie_word_embeddings": False,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1e6,
    "max_position_embeddings": 32768,
    "torch_dtype": "bfloat16",
}


def list_shapes(num_layers: int) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of all tensors; with 48 layers these are the 14,770,033,664 parameters of Qwen2.5-14B."""
    width, inner, pairs, words = 5120, 13824, 1024, 152064
    layer = {
        "input_layernorm.weight": (width,),
        "mlp.down_proj.weight": (width, inner),
        "mlp.gate_proj.weight": (inner, width),
        "mlp.up_proj.weight": (inner, width),
        "post_attention_layernorm.weight": (width,),
        "self_attn.k_proj.bias": (pairs,),
        "self_attn.k_proj.weight": (pairs, width),
        "self_attn.o_proj.weight": (width, width),
        "self_attn.q_proj.bias": (width,),
        "self_attn.q_proj.weight": (width, width),
        "self_attn.v_proj.bias": (pairs,),
        "self_attn.v_proj.weight": (pairs, width),
    }
    layers = {f"model.layers.{i}.{name}": shape for i in range(num_layers) for name, shape in layer.items()}
    return {
        "model.embed_tokens.weight": (words, width),
        **layers,
        "model.norm.weight": (width,),
        "lm_head.weight": (words, width),
    }


def make_checkpoint(folder: Path, num_layers: int) -> int:
    """Writes the checkpoint, if it is not there; returns how many bytes its tensors have."""
    shapes = {name: torch.Size(shape) for name, shape in list_shapes(num_layers).items()}
    num_bytes = 2 * sum(shape.numel() for shape in shapes.values())
    index = folder / "model.safetensors.index.json"
    if index.exists() and json.loads(index.read_text())["metadata"]["total_size"] == num_bytes:
        return num_bytes
    folder.mkdir(parents=True, exist_ok=True)
    shards: list[dict[str, torch.Size]] = [{}]
    for name, shape in shapes.items():
        if 2 * (sum(s.numel() for s in shards[-1].values()) + shape.numel()) > BYTES_PER_SHARD and shards[-1]:
            shards.append({})
        shards[-1][name] = shape
    generator = np.random.default_rng(0)
    drawn = torch.from_numpy(generator.standard_normal(WEIGHTS_DRAWN, dtype=np.float32)).mul_(0.02).bfloat16()
    places: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        _write(folder / file, shard, drawn, generator)
        places |= dict.fromkeys(shard, file)
    (folder / "config.json").write_text(json.dumps({**CONFIG, "num_hidden_layers": num_layers}))
    index.write_text(json.dumps({"metadata": {"total_size": num_bytes}, "weight_map": places}))
    return num_bytes


def _write(path: Path, shapes: dict[str, torch.Size], drawn: torch.Tensor, generator: np.random.Generator) -> None:
    described = {name: (torch.bfloat16, shape) for name, shape in shapes.items()}
    words = drawn.view(torch.int16).numpy()
    with path.open("wb") as file:
        file.write(make_header(described, {"format": "pt"}))
        for name in list_in_order(described):
            left = shapes[name].numel()
            while left:
                number = min(left, WEIGHTS_AT_ONCE)
                place = int(generator.integers(0, WEIGHTS_DRAWN - number))
                file.write(words[place : place + number].data)
                left -= number
