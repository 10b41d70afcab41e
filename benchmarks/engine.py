"""Cost of the last-token engine beyond the work that it cannot avoid.

Integrated gradients of all layers at m steps need R = layers · m variant rows of the answer token; those of layer l run
through the blocks above l alone, so that on average each runs through half of them. The floor is therefore one
forward over the input without gradients, and one forward and backward over R/2 single-token rows through all blocks,
with respect to activations alone: no attention to the input, no edits, no quadrature.
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import AutoConfig, PretrainedConfig

from benchmarks.ig import Subject
from benchmarks.pairs import Timed, timed

FAMILIES: dict[str, dict[str, object]] = {
    "gpt2": {},
    "opt": {"word_embed_proj_dim": "hidden_size", "ffn_dim": "intermediate_size"},
    "gpt_neox": {},
    "bloom": {},
    "llama": {},
    "mistral": {"num_key_value_heads": 2, "sliding_window": 64},
    "qwen2": {"num_key_value_heads": 2},
    "gemma": {"num_key_value_heads": 1, "head_dim": 64},
}
"""What each family adds to the common shape; a text names the value of the shape that it stands for."""


def config_of(family: str, smoke: bool) -> PretrainedConfig:
    """A model of a family with 6 layers of width 512 and a small vocabulary, whose embedding is no part of the work."""
    layers, width = (2, 64) if smoke else (6, 512)
    shape = {
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": width // 64 if not smoke else 2,
        "intermediate_size": 4 * width,
    }
    own = {
        name: shape.get(value, value) if isinstance(value, str) else value for name, value in FAMILIES[family].items()
    }
    return AutoConfig.for_model(
        family, **{**shape, "vocab_size": 1000, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, **own}
    )


def floor(subject: Subject) -> Timed[None]:
    """The forward over the input and the forward and backward over R/2 rows."""
    rows = max(1, subject.n_layers * subject.n_steps // 2)
    return timed(lambda: _run(subject, rows))


def _run(subject: Subject, rows: int) -> None:
    with torch.no_grad():
        prefix: Tensor = subject.backbone(subject.input_ids, use_cache=False).last_hidden_state
        embedded = prefix[:, -1:].expand(rows, -1, -1).contiguous()
    embedded.requires_grad_(True)
    last = subject.backbone(inputs_embeds=embedded, use_cache=False).last_hidden_state
    torch.autograd.grad(subject.head(last[:, -1]).softmax(-1)[:, 0].sum(), embedded)
