"""Bases and adapters on the disk, as transformers and PEFT write them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

from tests.families import FAMILY_CONFIGS, LLAMA_SHAPE, N_CLASSES
from tests.running import installed
from twinlens.models.backbone import load_tokenizer

TOKENIZER = str(Path(__file__).resolve().parents[1] / "models" / "tiny")

needs_peft = pytest.mark.skipif(not installed("peft"), reason="needs PEFT (pip install -e '.[peft]')")


def write_base(folder: Path, family: str, causal: bool = False, n_labels: int = N_CLASSES, **overrides: Any) -> Path:
    """A random model of a family with the tokenizer of `tiny`, in safetensors."""
    settings = {**(LLAMA_SHAPE if family == "llama" else {}), **FAMILY_CONFIGS[family], **overrides}
    tokenizer = load_tokenizer(TOKENIZER)
    special = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    labels = {} if causal else {"num_labels": n_labels}
    config = AutoConfig.for_model(family, **{**settings, **special, **labels, "vocab_size": len(tokenizer)})
    torch.manual_seed(0)
    loader: Any = AutoModelForCausalLM if causal else AutoModelForSequenceClassification
    loader.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def write_adapter(folder: Path, base: Path, task: str = "SEQ_CLS", n_labels: int = N_CLASSES, **settings: Any) -> Any:
    """An adapter on a base, its weights random; LoRA on every linear layer unless `config` says otherwise.

    Returns:
        PEFT's own model, in eval mode.
    """
    import peft

    labels = {"num_labels": n_labels} if task == "SEQ_CLS" else {}
    loader: Any = AutoModelForSequenceClassification if task == "SEQ_CLS" else AutoModelForCausalLM
    lm = loader.from_pretrained(base, dtype=torch.float32, **labels)
    kind = settings.pop("config", peft.LoraConfig)
    if kind is peft.LoraConfig:
        gpt2 = lm.config.model_type == "gpt2"
        settings = {"r": 2, "lora_alpha": 4, "target_modules": "all-linear", "fan_in_fan_out": gpt2, **settings}
    adapted = peft.get_peft_model(lm, kind(task_type=task, **settings))
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    adapted.save_pretrained(folder)
    return adapted.eval()
