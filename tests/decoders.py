"""Tiny random decoders of every type that transformers can build small, whatever they are called."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

LARGEST = 5_000_000
"""Parameters above which a type counts as one that its settings do not make small."""
SIZES: dict[str, Any] = {
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "word_embed_proj_dim"), 32),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "num_layers", "n_layers", "decoder_layers"), 3),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads", "decoder_attention_heads"), 4),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "n_inner", "d_ff", "ffn_hidden_size", "decoder_ffn_dim"), 48),
    **dict.fromkeys(("max_position_embeddings", "max_target_positions", "n_positions", "n_ctx"), 64),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts"), 4),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size"), 24),
    **dict.fromkeys(("qk_rope_head_dim", "qk_nope_head_dim", "rotary_dim"), 4),
    **dict.fromkeys(("head_dim", "v_head_dim", "q_lora_rank", "kv_lora_rank", "sliding_window"), 8),
    **dict.fromkeys(("n_group", "topk_group", "first_k_dense_replace"), 1),
    **dict.fromkeys(("mamba_chunk_size", "chunk_size"), 8),
    "num_key_value_heads": 2,
    "num_experts_per_tok": 2,
    "vocab_size": 97,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
OWN: dict[str, dict[str, Any]] = {
    "gpt_neo": {"attention_types": [[["global", "local", "global"], 1]], "window_size": 4},
}
"""Settings that a type needs beside its sizes, because they count its layers."""
TYPES = tuple(sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES))
"""Every type of the installed transformers that has a causal language model."""


def tiny_config(model_type: str, **overrides: Any) -> Any:
    """Its configuration with every size made small that it has a setting for."""
    usual = AutoConfig.for_model(model_type)
    fixed = {name for name in SIZES if isinstance(getattr(type(usual), name, None), property)}
    small = {name: value for name, value in SIZES.items() if hasattr(usual, name) and name not in fixed}
    if hasattr(usual, "kv_lora_rank"):  # keys that come from a shared latent vector are of every head
        small["num_key_value_heads"] = small.get("num_attention_heads", 4)
    return AutoConfig.for_model(model_type, **{**small, **OWN.get(model_type, {}), **overrides})


def tiny_decoder(model_type: str, seed: int = 0, **overrides: Any) -> Any | None:
    """A frozen random language model whose weights are large enough for every part to matter; None: none can be built.

    None as well for what is no causal decoder: a later token changes an earlier one's scores.
    """
    with contextlib.suppress(Exception):  # whatever keeps a type from being built small is its own affair
        config = tiny_config(model_type, **overrides)
        with torch.device("meta"):
            size = sum(weight.numel() for weight in AutoModelForCausalLM.from_config(config).parameters())
        if size > LARGEST:
            return None
        torch.manual_seed(seed)
        model: Any = AutoModelForCausalLM.from_config(config, experts_implementation="eager")
        model = model.eval().requires_grad_(False)
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * (0.1 if parameter.dim() == 1 else 0.25))
        ids = torch.arange(3, 12)[None]
        with torch.no_grad():
            change = model(input_ids=ids).logits[:, :6] - model(input_ids=ids[:, :6]).logits
        return model if float(change.abs().max()) < 1e-3 else None
    return None
