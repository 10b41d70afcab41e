"""Settings of a checkpoint's config.json, or of `model.architecture`: no code, no sizes beyond reason.

A configuration from anywhere can name kernels of a hub repository, which are downloaded and run as they are; quantised
weights, whose readers are packages of their own; and sizes whose mere names fill the memory.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import torch
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    MODEL_MAPPING,
    PretrainedConfig,
)

from twinlens.attribution.errors import UserError
from twinlens.models.checkpoint_files import first_words, readable, resolve

LARGEST_FILE = 8 * 1024**2
"""Bytes of a config.json; those of the largest models have some hundred thousand."""
BOUNDS = (
    (re.compile(r"(^|_)(n_layers?|layers?|num_blocks|depth)$"), 1024),
    (re.compile(r"(^|_)(num_labels|n_labels)$"), 100_000),
    (re.compile(r"(^|_)(positions?|position_embeddings|n_ctx|seq_len|seq_length)$"), 2**25),
    (re.compile(r"(^|_)(size|dim|embd|inner|d_model|d_ff|d_kv|heads?|experts|rank|groups|width)$"), 2**22),
)
"""What a number is called → the most it may be; the largest models known stay below a quarter of each."""
SUPPORTED_BY = {
    "sdpa": "_supports_sdpa",
    "flash_attention_2": "_supports_flash_attn",
    "flash_attention_3": "_supports_flash_attn",
    "flex_attention": "_supports_flex_attn",
}
"""Attention → what a class of transformers says of itself where it has it."""
ATTENTIONS = frozenset({"eager", *SUPPORTED_BY})
EXPERTS = frozenset({"eager", "batched_mm", "grouped_mm"})
CODE = {
    "use_kernels": "downloads kernels and runs them",
    "kernel_config": "downloads kernels and runs them",
    "allow_all_kernels": "downloads kernels and runs them",
    "quantization_config": "asks for quantised weights, which packages of their own read",
    "compression_config": "asks for compressed weights, which packages of their own read",
    "transformers_weights": "names other files of weights",
    "use_pretrained_backbone": "downloads another model",
    "use_timm_backbone": "downloads another model",
    "trust_remote_code": "runs code that comes with a checkpoint",
}
"""Settings that make transformers run, fetch or import something, and what they do."""


def check_checkpoint_settings(path: str) -> None:
    """Check the config.json of a folder or hub id before anything is built from it.

    Raises:
        UserError: it cannot be read, or see `check_settings`.
    """
    file = Path(resolve(path)) / "config.json"
    if file.is_file() and file.stat().st_size > LARGEST_FILE:
        raise UserError(
            f"model.path={path}: config.json has {file.stat().st_size} bytes; expected at most {LARGEST_FILE}: get the "
            "checkpoint from where you trust it."
        )
    with readable(path):
        settings: Any = PretrainedConfig.get_config_dict(resolve(path))[0]
    if not isinstance(settings, Mapping):
        raise UserError(
            f"model.path={path}: config.json holds {str(settings)[:80]}, expected a JSON object: copy or download the "
            "checkpoint again."
        )
    check_settings(
        settings, f"model.path={path}: config.json", "remove it, or get the checkpoint from where you trust it"
    )
    folder = Path(resolve(path))
    weights = [*folder.glob("*.safetensors"), *folder.glob("pytorch_model*.bin")] if folder.is_dir() else []
    stored = sum(file.stat().st_size for file in weights)
    least = least_parameters(settings)
    if stored and least > 4 * stored:
        raise UserError(
            f"model.path={path}: config.json describes at least {least} parameters, but its weights "
            f"{'' if weights[0].suffix == '.safetensors' else f'in {weights[0].name}, a pickle, '}are {stored} bytes; "
            "expected a configuration of these weights: copy or download the checkpoint again."
        )


def check_settings(settings: Mapping[str, Any], where: str, remedy: str) -> None:
    """Refuse settings that run or fetch something, and sizes beyond reason, at any depth.

    Args:
        settings: as in config.json.
        where: what they are called in a message.
        remedy: what to do.

    Raises:
        UserError: naming the setting.
    """
    for name, value in _settings(settings):
        key = name.rpartition(".")[2]
        if key in CODE and value not in (None, False, {}, ""):
            raise UserError(f"{where} sets {name}, which {CODE[key]}; expected whole weights and no code: {remedy}.")
        if key.lstrip("_").startswith(("attn_implementation", "experts_implementation")):
            known = ATTENTIONS if "attn" in key else EXPERTS
            for chosen in value.values() if isinstance(value, Mapping) else [value]:
                if chosen is not None and chosen not in known:
                    raise UserError(
                        f"{where} sets {name}={chosen!s:.80}, which may name kernels to download and run; expected one "
                        f"of {', '.join(sorted(known))}: {remedy}."
                    )
        bound = next((most for pattern, most in BOUNDS if pattern.search(key)), None)
        if bound is not None and isinstance(value, int | float) and not value <= bound:
            raise UserError(
                f"{where} sets {name}={value!s:.40}; expected at most {bound}, beyond every known model: {remedy}."
            )


@contextmanager
def buildable(settings: Mapping[str, Any]) -> Iterator[None]:
    """Check `model.architecture`, and turn what transformers raises for settings it cannot build into one sentence.

    Raises:
        UserError: see `check_architecture`; a model type that transformers does not know, or settings that do not fit.
    """
    check_architecture(settings)
    if not isinstance(settings.get("model_type"), str):
        raise UserError("model.architecture has no model_type; expected a decoder of transformers: write gpt_neox.")
    try:
        yield
    except (UserError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # each model type checks its settings in its own way
        raise UserError(
            f"model.architecture cannot be built ({first_words(error)}); expected settings of a decoder of "
            "transformers, as in conf/model/tiny.yaml: correct them."
        ) from error


def check_heads(config: PretrainedConfig, path: str | None) -> None:
    """Refuse heads that cannot share keys and values evenly, which only a forward would show.

    Args:
        path: of the checkpoint; None: `model.architecture`.

    Raises:
        UserError: naming both numbers.
    """
    settings = config.to_dict()
    heads, key_heads = settings.get("num_attention_heads"), settings.get("num_key_value_heads")
    if isinstance(heads, int) and isinstance(key_heads, int) and (key_heads < 1 or heads % key_heads):
        raise UserError(
            f"{_settings_of(path)} has num_attention_heads={heads} and num_key_value_heads={key_heads}"
            f"{'' if path else ' (as written there or by default)'}, which do not share their keys evenly; expected a "
            "divisor of the heads, or as many: correct num_key_value_heads."
        )


@contextmanager
def runnable(lm: Any, path: str | None) -> Iterator[None]:
    """Turn what a model's first forward over a few tokens raises into one sentence.

    Raises:
        UserError: naming the type and the first reason.
    """
    try:
        yield
    except (UserError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # settings that do not fit each other fail in as many ways as there are types
        raise UserError(
            f"{_settings_of(path)} describes a {lm.config.model_type} model that is built but cannot run over three "
            f"tokens ({first_words(error)}); expected settings that fit each other: correct them, or choose another "
            "model."
        ) from error


def _settings_of(path: str | None) -> str:
    return "model.architecture" if path is None else f"model.path={path}: config.json"


def check_attention(attention: str) -> None:
    """Refuse an attention implementation that is none of transformers' own.

    Raises:
        UserError: naming those that can be chosen.
    """
    if attention not in ATTENTIONS:
        raise UserError(
            f"model.attention={attention!s:.80} may name kernels to download and run; expected one of "
            f"{', '.join(sorted(ATTENTIONS))}: choose one of those."
        )


def attention_of(config: PretrainedConfig, attention: str) -> str:
    """The attention implementation to load with: what is asked for, or `eager` where transformers has no `sdpa` for a
    configuration's type (Gemma 2 caps its scores, GPT-OSS has sinks beside them, BLOOM and DeBERTa write theirs out).

    Raises:
        UserError: it is none of transformers' own, or one that it does not have for the type.
    """
    check_attention(attention)
    there = attentions_for(config)
    if attention in there:
        return attention
    if attention == "sdpa":
        return "eager"
    raise UserError(
        f"model.attention={attention} is not written for the type {config.model_type} in transformers; expected one of "
        f"{', '.join(there)}: set model.attention={'sdpa' if 'sdpa' in there else 'eager'}."
    )


def attentions_for(config: PretrainedConfig) -> tuple[str, ...]:
    """What transformers has for a configuration's type; everything, where the type's code comes with a checkpoint."""
    mappings = (MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING, MODEL_MAPPING)
    found: Any = next((kind for known in mappings if (kind := known.get(type(config), None)) is not None), None)
    kind = found[0] if isinstance(found, tuple) else found
    if kind is None:
        return tuple(sorted(ATTENTIONS))
    return tuple(name for name in sorted(ATTENTIONS) if name == "eager" or getattr(kind, SUPPORTED_BY[name], False))


def told_attention(config: PretrainedConfig, attention: str) -> str:
    """One line where another attention is read than was asked for; empty elsewhere."""
    chosen = attention_of(config, attention)
    if chosen == attention:
        return ""
    return f"attention: {chosen}, as transformers has no {attention} for {config.model_type}"


def check_architecture(settings: Mapping[str, Any]) -> None:
    """Check `model.architecture` before anything is built from it.

    Raises:
        UserError: see `check_settings`; or its parameters alone are more than this machine's memory.
    """
    where = "model.architecture"
    check_settings(settings, where, "remove or lower it")
    if torch.get_default_device().type == "meta":
        return  # shapes alone
    needed, there = 4 * least_parameters(settings), psutil.virtual_memory().total
    if needed > there:
        raise UserError(
            f"{where} describes at least {needed / 1024**3:.3g} GiB of parameters, and this machine has "
            f"{there / 1024**3:.3g} GiB of memory; expected a model that fits: lower its sizes."
        )


def least_parameters(settings: Mapping[str, Any]) -> int:
    """A lower bound of the parameters that a decoder's settings describe: embeddings and feed-forward matrices."""

    def first(*names: str, default: int = 0) -> int:
        found = (settings.get(name) for name in names)
        return next((int(value) for value in found if isinstance(value, int) and not isinstance(value, bool)), default)

    hidden = first("hidden_size", "n_embd", "d_model")
    layers = first("num_hidden_layers", "n_layer", "num_layers", "n_layers")
    inner = first("moe_intermediate_size", "intermediate_size", "ffn_dim", "n_inner", "d_ff", default=hidden)
    return layers * 2 * hidden * inner + first("vocab_size") * first("word_embed_proj_dim", default=hidden)


def _settings(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every setting with its dotted name, those of parts included."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            name = f"{path}.{key}" if path else str(key)
            yield name, item
            yield from _settings(item, name)
    elif isinstance(value, list):
        for item in value:
            if isinstance(item, Mapping):
                yield from _settings(item, path)


def told_unused(architecture: Mapping[str, Any] | None, checkpoint: PretrainedConfig, path: str) -> str:
    """What settings of a model from scratch say that the checkpoint has otherwise, which counts; empty: nothing."""
    found = []
    for name, value in (architecture or {}).items():
        own = getattr(checkpoint, name, None)
        if isinstance(value, bool | int | float | str) and own is not None and own != value:
            found.append(f"{name} {value} ({own})")
    if not found:
        return ""
    return (
        f"model.architecture is of a model from scratch and changes nothing here: model.path={path} has other values "
        f"of {', '.join(found)}; write model.path=null to start from scratch"
    )
