"""Decoders that some methods or all of them refuse, each with what still works."""

from __future__ import annotations

from tests.bad_input_files import LOCAL, Entry, checkpoint, edited
from tests.running import SMALL_DEMO

IG = (*LOCAL, "method=ig", "evaluation=accuracy", *SMALL_DEMO[1:5])
HIDDEN = {"model_type": "jetmoe", "num_key_value_heads": 2, "num_local_experts": 4, "num_experts_per_tok": 2}
EXPERTS = {**HIDDEN, "model_type": "mixtral"}
STATES = {"model_type": "mamba", "hidden_size": 16, "state_size": 8, "num_hidden_layers": 2}
BOTH = {"model_type": "recurrent_gemma", "num_key_value_heads": 1, "lru_width": 16, "attention_window_size": 8}
SINKS = {"model_type": "bitnet", "num_key_value_heads": 2}


DECODERS: list[Entry] = [
    (
        "neurons of experts that no call shows",
        IG,
        (
            "experts in layer 0 of the jetmoe model cannot be read",
            "fused kernel",
            "use_kernels=False",
            "method=gradsim",
        ),
        checkpoint(edited(**HIDDEN)),
    ),
    (
        "what activates units of experts",
        (*LOCAL, "method=query_layers", "evaluation=accuracy", *SMALL_DEMO[1:5]),
        ("mixtral", "units of experts", "site=attn", "method=ig"),
        checkpoint(edited(**EXPERTS)),
    ),
    (
        "neurons of a state-space model",
        (*IG, "model.attention=eager"),
        ("'block = residual + attention + MLP' fails in layer 0", "mamba", "method=gradsim"),
        checkpoint(edited(**STATES)),
    ),
    (
        "attention neurons of a hybrid model",
        (*LOCAL, "method=logprob_increase", "method.logprob_increase.site=attn", *SMALL_DEMO[1:5]),
        ("recurrent_gemma", "attention weights", "method=ig", "method=gradsim"),
        checkpoint(edited(**BOTH)),
    ),
    (
        "neurons of a block that is no sum",
        (*LOCAL, "method=ig", "evaluation=accuracy", *SMALL_DEMO[1:5]),
        ("'block = residual + attention + MLP' fails in layer 0", "opt", "method=gradsim"),
        checkpoint(edited(model_type="opt", do_layer_norm_before=False, ffn_dim=64, word_embed_proj_dim=16)),
    ),
    (
        "attention neurons whose weights are not written out",
        (*LOCAL, "method=logprob_increase", "method.logprob_increase.site=attn", *SMALL_DEMO[1:5]),
        ("bitnet", "method=ig", "method=gradsim"),
        checkpoint(edited(**SINKS)),
    ),
    (
        "key heads that do not divide the heads",
        IG,
        ("num_attention_heads=4", "num_key_value_heads=3", "divisor"),
        checkpoint(edited(model_type="llama", num_key_value_heads=3)),
    ),
    (
        "key heads that do not divide the heads, by default",
        ("model.architecture.model_type=mixtral", *IG[2:]),
        ("num_attention_heads=4", "num_key_value_heads=8", "by default"),
        None,
    ),
    (
        "a type whose classifier has another head",
        IG,
        ("mbart", "no `score` head", "data=knowledge"),
        checkpoint(edited(model_type="mbart", d_model=16, decoder_layers=2, encoder_layers=2, vocab_size=2048)),
    ),
    (
        "a type without a classifier",
        IG,
        ("t5", "no `score` head"),
        checkpoint(edited(model_type="t5", d_model=16, num_layers=2, vocab_size=2048)),
    ),
]
