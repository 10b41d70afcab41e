"""Tiny encoders of six types with heads of their own, as transformers saves them, and a tokenizer that frames texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedTokenizerFast

SHAPE: dict[str, Any] = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48,
    "max_position_embeddings": 96, "pad_token_id": 0, "num_labels": 2,
    "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
}  # fmt: skip
ENCODERS: dict[str, dict[str, Any]] = {
    "bert": {},
    "roberta": {},
    "deberta-v2": {"pooler_hidden_size": 32, "relative_attention": True, "position_biased_input": False,
                   "pos_att_type": ["c2p", "p2c"], "max_relative_positions": 16},
    "electra": {"embedding_size": 16},
    "distilbert": {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48, "dropout": 0.0, "attention_dropout": 0.0,
                   "seq_classif_dropout": 0.0},
    "modernbert": {"global_attn_every_n_layers": 2, "local_attention": 8, "cls_token_id": 1, "sep_token_id": 2,
                   "bos_token_id": 1, "eos_token_id": 2},
}  # fmt: skip
SPECIAL = ["<pad>", "[CLS]", "[SEP]"]


def framing_tokenizer(frames: bool = True) -> PreTrainedTokenizerFast:
    """Bytes as tokens, with [CLS] before a text and [SEP] behind it where it `frames`."""
    bytes_ = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate([*SPECIAL, *bytes_])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    if frames:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
        )
    names = {"pad_token": "<pad>", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names, model_max_length=512)


def tiny_encoder(model_type: str, labels: tuple[str, ...] = ("no", "yes"), seed: int = 0, **more: Any) -> Any:
    """A frozen random classifier whose weights are large enough for every part to matter."""
    settings = {**SHAPE, **ENCODERS[model_type], "vocab_size": 3 + 256, **more}
    config = AutoConfig.for_model(model_type, **settings)
    config.id2label, config.label2id = dict(enumerate(labels)), {name: number for number, name in enumerate(labels)}
    torch.manual_seed(seed)
    lm = AutoModelForSequenceClassification.from_config(config).eval().requires_grad_(False)
    for parameter in lm.parameters():
        parameter.add_(torch.randn_like(parameter) * (0.05 if parameter.dim() == 1 else 0.15))
    return lm


def save_encoder(model_type: str, folder: Path, frames: bool = True, **more: Any) -> None:
    """Model and tokenizer as transformers writes them."""
    tiny_encoder(model_type, **more).save_pretrained(folder)
    framing_tokenizer(frames).save_pretrained(folder)
