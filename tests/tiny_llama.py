"""The shape of a small Llama with shared key heads, for language models in tests."""

from __future__ import annotations

LLAMA = {
    "model_type": "llama",
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 32,
    "initializer_range": 0.3,
}
