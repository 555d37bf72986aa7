"""Small decoders of many kinds, saved as hubs have them, and batches that are hard on them."""

from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn

SIZES: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
TOKENS = {name: value for name, value in SIZES.items() if name.endswith("token_id")}
FEW = SIZES | {"num_hidden_layers": 2}
GPT: dict[str, Any] = {"vocab_size": 64, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 64, **TOKENS}
WINDOW = 4
# What makes each hard: Qwen2 and Gemma2 take turns between windows and full attention, Gemma2 scales embeddings and
# logits, GPT-2 has Conv1D and positions, OPT projects outside of its layers, dynamic RoPE remembers lengths, Mamba has
# no attention, GPT-OSS experts that are stored as they are in memory. Mixtral's and Qwen2-MoE's are stored one by one,
# the latter beside a shared one; those of Granite have other names in files, as the head of GPT-NeoX has.
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", SIZES),
    "llama, tied": ("LlamaConfig", SIZES | {"tie_word_embeddings": True}),
    "llama, dynamic": (
        "LlamaConfig",
        SIZES
        | {
            "max_position_embeddings": 8,
            "rope_parameters": {"rope_type": "dynamic", "factor": 8.0, "rope_theta": 10000.0},
        },
    ),
    "qwen2": (
        "Qwen2Config",
        SIZES | {"use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 1},
    ),
    "mistral": ("MistralConfig", SIZES | {"sliding_window": WINDOW}),
    "gemma2": ("Gemma2Config", SIZES | {"head_dim": 8, "sliding_window": WINDOW, "query_pre_attn_scalar": 8}),
    "gpt2": ("GPT2Config", GPT),
    "codegen": ("CodeGenConfig", GPT | {"rotary_dim": 4}),
    "opt": ("OPTConfig", SIZES | {"ffn_dim": 48, "max_position_embeddings": 64, "word_embed_proj_dim": 16}),
    "gpt-oss": ("GptOssConfig", SIZES | {"head_dim": 8, "num_local_experts": 4, "sliding_window": WINDOW}),
    "mixtral": ("MixtralConfig", FEW | {"num_local_experts": 4, "sliding_window": WINDOW}),
    "qwen2-moe": (
        "Qwen2MoeConfig",
        FEW
        | {
            "num_experts": 5,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 16,
            "shared_expert_intermediate_size": 24,
            "decoder_sparse_step": 2,
        },
    ),
    "granite-moe": ("GraniteMoeConfig", FEW | {"num_local_experts": 4, "num_experts_per_tok": 2}),
    "gpt-neox": ("GPTNeoXConfig", FEW | {"rotary_pct": 0.5, "max_position_embeddings": 64}),
    "mamba": ("MambaConfig", SIZES | {"state_size": 4}),
}


def make_decoder(kind: str, dtype: torch.dtype = torch.float32, **others: Any) -> Any:  # noqa: ANN401 - of transformers
    """Returns a model of random weights, norms and biases included."""
    name, settings = CONFIGS[kind]
    config = getattr(transformers, name)(**settings | others)
    auto: Any = transformers.AutoModelForCausalLM
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = auto.from_config(config, dtype=dtype)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def save_decoder(model: Any, folder: Path) -> Path:  # noqa: ANN401 - of transformers
    """Saves a model in several files; returns the folder."""
    model.save_pretrained(folder, max_shard_size="20KB")
    return folder


def load_decoder(folder: Path) -> nn.Module:
    """Returns the model in memory, as transformers loads it, in the dtype that it was saved in."""
    model: nn.Module = transformers.AutoModelForCausalLM.from_pretrained(folder)
    return model


def make_batches() -> list[dict[str, Tensor]]:
    """Returns batches of different sizes and lengths, one padded on both sides, the longest in the middle."""
    generator = torch.Generator().manual_seed(1)
    shapes = ((2, 9), (3, 16), (1, 5), (3, 12))
    batches = [{"input_ids": torch.randint(3, 64, shape, generator=generator)} for shape in shapes]
    mask = torch.ones_like(batches[-1]["input_ids"])
    mask[0, :5], mask[1, 8:] = 0, 0
    labels = batches[-1]["input_ids"].masked_fill(mask == 0, -100)
    batches[-1] |= {"attention_mask": mask, "labels": labels}
    return batches
