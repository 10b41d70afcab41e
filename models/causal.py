"""Loading and saving causal language models with their own readout, the vocabulary."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from twinlens.attribution.errors import UserError
from twinlens.models.adapter_files import PREFIX, adapter_of, base_path
from twinlens.models.adapters import AdapterUse, save_weights
from twinlens.models.backbone import adapted, config_from_scratch, load_config, require_architecture
from twinlens.models.checkpoint_files import readable, weights_place
from twinlens.models.checkpoint_settings import attention_of, buildable, runnable
from twinlens.models.given_models import given_twin, is_given
from twinlens.models.loaded_weights import Origin, fitting_weights
from twinlens.models.padding import moved_by_padding
from twinlens.models.weight_types import weight_type


def load_language_model(
    path: str | None,
    architecture: Mapping[str, Any] | None,
    model_type: str | None,
    tokenizer: PreTrainedTokenizerBase,
    seed: int,
    attention: str,
    trust_remote_code: bool,
    adapter: AdapterUse = "keep",
    dtype: str = "float32",
) -> tuple[PreTrainedModel, Origin]:
    """A causal language model as it was trained, or a new one drawn from `seed` alone; weights of the type that
    `model.dtype` says.

    The vocabulary is never enlarged, unlike a classifier's: a row for a padding token that the model does not know
    would take part in the softmax. Padding is masked, so that any known id serves for it.

    Returns:
        The model, and where its weights come from.

    Raises:
        UserError: unreadable path, another architecture than `model_type`, no causal language model, a checkpoint with
            weights that do not fit, or a tokenizer with ids that the model does not have.
    """
    torch.manual_seed(seed)
    lm: Any
    if path is None:
        lm, origin = _from_scratch(architecture, tokenizer, attention, dtype), Origin()
    else:
        lm, origin = _from_checkpoint(path, model_type, attention, trust_remote_code, adapter, dtype)
    require_known_tokens(lm, tokenizer, path)
    with runnable(lm, path):
        moved_by_padding(lm.base_model)
    return lm, origin


def causal_architecture_of(
    path: str | None,
    architecture: Mapping[str, Any] | None,
    tokenizer: PreTrainedTokenizerBase,
    attention: str,
    trust_remote_code: bool,
    adapter: AdapterUse = "keep",
    dtype: str = "float32",
) -> PreTrainedModel:
    """The language model without values (on the meta device): shapes and types alone, no weight is read.

    Raises:
        UserError: the configuration cannot be read, or names no causal language model.
    """
    with torch.device("meta"):
        if path is None:
            return _from_scratch(architecture, tokenizer, attention, dtype)
        config = load_config(path, trust_remote_code)
        _refuse_other_heads(config, path)
        with readable(path):
            lm: Any = AutoModelForCausalLM.from_config(
                config,
                attn_implementation=attention_of(config, attention),
                dtype=weight_type(dtype, config, path),
                trust_remote_code=trust_remote_code,
            )
        return adapted(lm, path, adapter, shapes_only=True)


def save_language_model(lm: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Safetensors, configuration and tokenizer; loads with AutoModelForCausalLM.

    Kept adapters: see `twinlens.models.adapters.save_weights`.
    """
    save_weights(lm, folder)
    tokenizer.save_pretrained(folder)


def require_known_tokens(lm: Any, tokenizer: PreTrainedTokenizerBase, path: str | None) -> None:
    """Refuse a tokenizer with tokens, other than that for padding, that the model has no embedding for.

    Raises:
        UserError: naming both sizes.
    """
    known = lm.get_input_embeddings().num_embeddings
    largest = max(number for number in tokenizer.get_vocab().values() if number != tokenizer.pad_token_id)
    if largest >= known:
        raise UserError(
            f"the tokenizer of model.path={path} has the token id {largest}, but the model knows {known} tokens; "
            "expected the tokenizer that the model was trained with: set model.tokenizer_path."
        )


def _from_scratch(
    architecture: Mapping[str, Any] | None, tokenizer: PreTrainedTokenizerBase, attention: str, dtype: str
) -> PreTrainedModel:
    special = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    config = config_from_scratch(architecture, **special, vocab_size=len(tokenizer))
    with buildable(config.to_dict()):
        return AutoModelForCausalLM.from_config(
            config, attn_implementation=attention_of(config, attention), dtype=weight_type(dtype, None, None)
        )


def _from_checkpoint(
    path: str, model_type: str | None, attention: str, trust_remote_code: bool, adapter: AdapterUse, dtype: str
) -> tuple[PreTrainedModel, Origin]:
    config = load_config(path, trust_remote_code)
    require_architecture(config, model_type, path)
    _refuse_other_heads(config, path)
    if is_given(path):
        return given_twin(path, attention_of(config, attention), weight_type(dtype, config, path)), Origin()
    place, safetensors, read = weights_place(base_path(path), trust_remote_code)
    with readable(path):
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            place,
            dtype=weight_type(dtype, config, path),
            attn_implementation=attention_of(config, attention),
            trust_remote_code=trust_remote_code,
            use_safetensors=safetensors,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
        )
    lm, info = loaded
    found = adapter_of(path)
    brought = () if found is None else {name.removeprefix(PREFIX) for name in found.shapes}
    origin = replace(fitting_weights(info, lm, path, as_it_is=True, brought=brought), read=read)
    return adapted(lm, path, adapter), origin


def _refuse_other_heads(config: PretrainedConfig, path: str) -> None:
    names = config.architectures or []
    if any("ForSequenceClassification" in name for name in names):
        raise UserError(
            f"model.path={path} holds a classifier ({', '.join(names)}), but these data ask a language model for its "
            "next token; expected a causal language model: set model.path to one."
        )
