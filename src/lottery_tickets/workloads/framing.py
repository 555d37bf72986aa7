"""Language models but for their weights, for those who load weights themselves."""

from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from lottery_tickets._core.reading import list_names
from lottery_tickets.workloads.language import CONFIG, check_num_layers, import_transformers, reading


def frame_language_model(folder: str | Path, dtype: torch.dtype | None, stored: torch.dtype) -> nn.Module:
    """Returns the causal language model that a folder's `config.json` describes, in eval mode, but for its weights.

    Parameters, and buffers that files hold, are on the meta device. Other buffers, such as the frequencies of rotary
    embeddings, have the values that `from_pretrained` computes.

    Args:
        folder: Holds `config.json`.
        dtype: Of the weights; None for that of the configuration.
        stored: Their dtype where neither says one.

    Raises:
        OSError: There is no `config.json`.
        ValueError: The configuration is garbled, or not of a model that can be framed.
        ModuleNotFoundError: The `transformers` extra is not installed.
    """
    folder = Path(folder)
    if not (folder / CONFIG).is_file():
        raise FileNotFoundError(
            f"{folder} must hold config.json, as save_pretrained writes it, for its weights to be run, but has none; "
            "put it beside them"
        )
    transformers = import_transformers("transformers")
    check_num_layers(folder)
    with reading(folder, "configuration"):
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        chosen = dtype or config.dtype or stored
        with torch.device("meta"):
            model = transformers.AutoModelForCausalLM.from_config(config, dtype=chosen, trust_remote_code=False)
    _check_framed(model, chosen)
    _compute_buffers(model)
    return cast("nn.Module", model.eval())


def _check_framed(model: Any, dtype: torch.dtype) -> None:  # noqa: ANN401 - of transformers, which is not imported here
    """Raises where a model computes otherwise than from its weights in one dtype and the layer before."""
    kind, config = type(model).__name__, model.config.get_text_config()
    kept = {"_keep_in_fp32_modules_strict"} if dtype == torch.bfloat16 else set()
    kept |= {"_keep_in_fp32_modules_strict", "_keep_in_fp32_modules"} if dtype == torch.float16 else set()
    if parts := sorted({part for name in kept for part in getattr(model, name, None) or ()}):
        raise ValueError(
            f"{kind} keeps {list_names(parts)} in float32 when its other weights are {dtype}, which cannot be streamed;"
            " pass dtype=torch.float32"
        )
    if not hasattr(model, "named_non_persistent_buffers"):
        raise ValueError("streaming a model needs transformers 5 or later; run: pip install -U transformers")
    if getattr(config, "is_encoder_decoder", False):
        raise ValueError(f"{kind} must be a decoder to be streamed, but has an encoder too; load it into memory")
    if getattr(config, "output_router_logits", False):
        raise ValueError(
            f"{kind} adds to its loss what the routers of all layers say (output_router_logits in config.json), which "
            "cannot be streamed; switch that off there"
        )


def _compute_buffers(model: Any) -> None:  # noqa: ANN401 - as above
    """Gives buffers that no file holds their values, by the code that `from_pretrained` runs."""
    buffers = dict(model.named_non_persistent_buffers())
    for name, buffer in buffers.items():
        parent, _, key = name.rpartition(".")
        value = torch.empty_like(buffer, device="cpu")
        model.get_submodule(parent).register_buffer(
            key, value.fill_(torch.nan) if value.is_floating_point() else value, persistent=False
        )
    with torch.random.fork_rng(devices=[]):
        model.initialize_weights()  # of parameters on the meta device it makes nothing
    missed = [name for name, buffer in model.named_non_persistent_buffers() if bool(buffer.isnan().any())]
    if missed:
        raise ValueError(
            f"{type(model).__name__} must say how {list_names(missed)} are computed, which no file holds, but "
            "transformers does not; load it into memory"
        )
