"""Tiny random classifiers of every family, and batches with padding on either side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, PreTrainedModel

from twinlens.models.anatomy_check import build_anatomy
from twinlens.models.choice import ChoiceEngine, Choices
from twinlens.models.last_token import LastTokenEngine

FAMILY_CONFIGS: dict[str, dict] = {
    "gpt2": {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 64},
    "opt": {
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "ffn_dim": 48,
        "max_position_embeddings": 64,
        "word_embed_proj_dim": 32,
    },
    "gpt_neox": {
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "max_position_embeddings": 64,
    },
    "bloom": {"hidden_size": 32, "n_layer": 3, "n_head": 4},
    "llama": {"num_key_value_heads": 2},
    "mistral": {"num_key_value_heads": 2, "sliding_window": 4},
    "qwen2": {"num_key_value_heads": 2},
    "gemma": {"num_key_value_heads": 1, "head_dim": 16},
}
LLAMA_SHAPE = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
}
EXTRA_CONFIGS: dict[str, tuple[str, dict]] = {
    "gpt_neox_sequential": ("gpt_neox", {**FAMILY_CONFIGS["gpt_neox"], "use_parallel_residual": False}),
    "qwen2_sliding": (
        "qwen2",
        {"num_key_value_heads": 2, "use_sliding_window": True, "sliding_window": 3, "max_window_layers": 1},
    ),
    "opt_projected": ("opt", {**FAMILY_CONFIGS["opt"], "word_embed_proj_dim": 16}),
}
ALL_MODELS = [*FAMILY_CONFIGS, *EXTRA_CONFIGS]
VOCABULARY = 60
N_CLASSES = 3


def tiny_backbone(name: str, seed: int = 0, **overrides: object) -> PreTrainedModel:
    """A frozen random model in eval mode whose weights are large enough for every part to matter."""
    model_type, settings = EXTRA_CONFIGS.get(name, (name, FAMILY_CONFIGS.get(name, {})))
    if model_type in ("llama", "mistral", "qwen2", "gemma"):
        settings = {**LLAMA_SHAPE, **settings}
    config = AutoConfig.for_model(
        model_type,
        **{**settings, "vocab_size": VOCABULARY, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, **overrides},
    )
    torch.manual_seed(seed)
    model = AutoModel.from_config(config).eval().requires_grad_(False)
    for parameter in model.parameters():
        noise = 0.1 if parameter.dim() == 1 else 0.25
        parameter.add_(torch.randn_like(parameter) * noise)
    return model


def linear_head(backbone: PreTrainedModel, seed: int = 1) -> nn.Linear:
    """A frozen readout on the backbone's output width."""
    torch.manual_seed(seed)
    width = getattr(backbone.config, "word_embed_proj_dim", backbone.config.hidden_size)
    return nn.Linear(width, N_CLASSES, bias=False).requires_grad_(False)


def tiny_engine(name: str, **overrides: object) -> LastTokenEngine:
    """A verified engine over a tiny model of a family."""
    backbone = tiny_backbone(name, **overrides)
    return LastTokenEngine(build_anatomy(backbone), linear_head(backbone))


def choice_engine(name: str, choices: Choices = "predicted", n_choices: int = 3) -> ChoiceEngine:
    """A multiple-choice engine over a tiny model of a family."""
    backbone = tiny_backbone(name)
    head = nn.Linear(linear_head(backbone).in_features, 1, bias=False).requires_grad_(False)
    return ChoiceEngine(LastTokenEngine(build_anatomy(backbone), head), n_choices, choices)


def choice_batch(lengths: list[list[int]], padding: str = "right", seed: int = 2) -> dict[str, Tensor]:
    """Questions with choices of the given lengths, all padded to the longest: [batch, choices, tokens]."""
    flat = random_batch([length for question in lengths for length in question], padding, seed)
    shape = (len(lengths), len(lengths[0]))
    return {
        "index": torch.arange(len(lengths)),
        "input_ids": flat["input_ids"].unflatten(0, shape),
        "attention_mask": flat["attention_mask"].unflatten(0, shape),
        "labels": torch.arange(len(lengths)) % shape[1],
    }


def random_batch(lengths: list[int], padding: str = "right", seed: int = 2) -> dict[str, Tensor]:
    """Sequences of the given lengths, padded to the longest on one side with an id that also occurs as a token."""
    generator = torch.Generator().manual_seed(seed)
    width = max(lengths)
    ids = torch.zeros(len(lengths), width, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, length in enumerate(lengths):
        columns = slice(0, length) if padding == "right" else slice(width - length, width)
        ids[row, columns] = torch.randint(0, VOCABULARY, (length,), generator=generator)
        mask[row, columns] = 1
    return {
        "index": torch.arange(len(lengths)),
        "input_ids": ids,
        "attention_mask": mask,
        "labels": torch.arange(len(lengths)) % N_CLASSES,
    }


def save_classifier_of(name: str, folder: Path, labels: Sequence[str] = ("no", "yes"), **overrides: object) -> None:
    """Write a random classifier of a family as transformers does, without a tokenizer; its weights are large."""
    config = tiny_backbone(name, **overrides).config
    config.id2label = dict(enumerate(labels))
    config.label2id = {label: number for number, label in enumerate(labels)}
    torch.manual_seed(3)
    model = AutoModelForSequenceClassification.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * (0.1 if parameter.dim() == 1 else 0.25))
    model.save_pretrained(folder)
