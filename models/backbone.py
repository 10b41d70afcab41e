"""Loading and saving: tokenizer, backbone and classification head, from the hub, a directory or from scratch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from twinlens.attribution.errors import UserError
from twinlens.models.adapter_files import PREFIX, adapter_of, base_path, naming_adapter
from twinlens.models.adapters import AdapterUse, save_weights, with_adapter, with_adapter_shapes, with_new_lora
from twinlens.models.checkpoint_files import readable, refuse_missing_folder, resolve, weights_place
from twinlens.models.checkpoint_settings import (
    attention_of,
    buildable,
    check_checkpoint_settings,
    check_heads,
    runnable,
)
from twinlens.models.class_labels import refuse_unreadable_labels
from twinlens.models.given_models import given_twin, is_given
from twinlens.models.heads import HEAD_ENTRY, HeadKind, head_of, load_head
from twinlens.models.loaded_weights import HEAD, Origin, fitting_weights, of_head, with_padding
from twinlens.models.own_form import INPUT_ENTRY, reading_with
from twinlens.models.own_heads import mend_buffers, put_mlp_head, require_score, serve_type
from twinlens.models.padding import moved_by_padding
from twinlens.models.readouts import require_plain_readout
from twinlens.models.weight_types import reading_head_in_float32, weight_type, with_float32_head


def load_config(path: str, trust_remote_code: bool = False) -> PretrainedConfig:
    """The checkpoint's configuration; reads no weights. An adapter's is its base's, with the head that it brings.

    Raises:
        UserError: the directory or hub id cannot be read.
    """
    adapter = adapter_of(path)
    if adapter is not None:
        with naming_adapter(adapter):
            config = load_config(adapter.base, trust_remote_code)
        if adapter.n_outputs is not None:
            config.architectures = [f"{config.model_type}ForSequenceClassification"]
            if adapter.n_outputs != config.num_labels:
                config.num_labels = adapter.n_outputs
        return config
    refuse_missing_folder(path)
    check_checkpoint_settings(path)
    refuse_unreadable_labels(path)
    with readable(path):
        config = AutoConfig.from_pretrained(resolve(path), trust_remote_code=trust_remote_code)
    check_heads(config, path)
    return config


def load_tokenizer(path: str, trust_remote_code: bool = False, as_it_is: bool = False) -> PreTrainedTokenizerBase:
    """Fast tokenizer with a padding token that is no other token.

    A tokenizer without one, or one that pads with its end or unknown token, gets the unused id `<pad>`: reloaded
    classifiers find the answer position by comparing ids with it.

    Args:
        path: directory or hub id.
        trust_remote_code: run code from there.
        as_it_is: leave its padding token alone, as the model is not trained.

    Raises:
        UserError: the directory or hub id cannot be read, or has no fast tokenizer.
    """
    adapter = adapter_of(path)
    if adapter is not None and not (adapter.folder / "tokenizer.json").is_file():
        path = adapter.base
    refuse_missing_folder(path)
    with readable(path):
        tokenizer = AutoTokenizer.from_pretrained(resolve(path), trust_remote_code=trust_remote_code)
    if not tokenizer.is_fast:
        raise UserError(f"model.path={path}: its tokenizer has no fast version (tokenizer.json); expected one: add it.")
    others = {tokenizer.eos_token_id, tokenizer.bos_token_id, tokenizer.unk_token_id}
    if not as_it_is and (tokenizer.pad_token_id is None or tokenizer.pad_token_id in others):
        tokenizer.add_special_tokens({"pad_token": "<pad>"})
    return tokenizer


def load_classifier(
    path: str | None,
    architecture: Mapping[str, Any] | None,
    model_type: str | None,
    head: HeadKind,
    label_names: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    seed: int,
    attention: str,
    trust_remote_code: bool,
    adapter: AdapterUse = "keep",
    as_it_is: bool = False,
    dtype: str = "float32",
) -> tuple[PreTrainedModel, Origin]:
    """A sequence classifier whose head is `score`: trained where the checkpoint has one, else new.

    New parameters are drawn from `seed` alone, so that the same call gives the same model.

    Args:
        as_it_is: the checkpoint is a trained classifier that stays as it is: nothing is new, its vocabulary and the id
            that it takes for padding are its own.
        dtype: of the weights, a word of `model.dtype`; a decoder's head is float32 whatever they are.

    Returns:
        The model, and where its weights come from.

    Raises:
        UserError: unreadable path, another architecture than `model_type`, no decoder with a `score` head, a
            checkpoint with weights that do not fit, see `loaded_weights.py`, or a readout with a scale or a cap.
    """
    torch.manual_seed(seed)
    lm: Any
    labels = {
        "num_labels": len(label_names),
        "id2label": dict(enumerate(label_names)),
        "label2id": {name: number for number, name in enumerate(label_names)},
        "problem_type": None,  # whatever the checkpoint's was, cross-entropy over classes or choices trains it here
    }
    if path is None:
        lm = _from_scratch(architecture, labels, len(tokenizer), attention, dtype)
        trained_head, origin = None, Origin()
    else:
        lm, trained_head, origin = _from_checkpoint(
            path, model_type, labels, attention, trust_remote_code, adapter, as_it_is, dtype
        )
    padding = () if as_it_is else with_padding(lm, tokenizer)
    if trained_head == "mlp" or (trained_head is None and head == "mlp"):
        put_mlp_head(lm, len(label_names), path)
        setattr(lm.config, HEAD_ENTRY, "mlp")
        if trained_head == "mlp" and path is not None:
            load_head(lm.score, path)
        else:
            shapes = ((name, list(weight.shape)) for name, weight in lm.score.state_dict().items())
            origin = replace(origin, new=tuple(f"{HEAD}{name} {shape}" for name, shape in shapes))
    with_float32_head(lm, next(lm.base_model.parameters()).dtype)
    with runnable(lm, path):
        require_plain_readout(lm, lm.score, path)
        moved_by_padding(lm.base_model)
    return lm, replace(origin, new=(*origin.new, *padding))


def architecture_of(
    path: str | None,
    architecture: Mapping[str, Any] | None,
    head: HeadKind,
    label_names: Sequence[str],
    vocabulary: int,
    attention: str,
    trust_remote_code: bool,
    adapter: AdapterUse = "keep",
    dtype: str = "float32",
) -> PreTrainedModel:
    """The classifier without values (on the meta device): shapes and types alone, no weight is read.

    Args:
        vocabulary: size of the tokenizer, for a model from scratch.
        dtype: of the weights, a word of `model.dtype`.

    Raises:
        UserError: the configuration cannot be read, or names no decoder with a `score` head.
    """
    labels = {"num_labels": len(label_names)}
    with torch.device("meta"):
        if path is None:
            lm: Any = _from_scratch(architecture, labels, vocabulary, attention, dtype)
        else:
            config = load_config(path, trust_remote_code)
            head = head_of(config) or head
            config.num_labels = len(label_names)
            serve_type(config)
            with readable(path):
                lm = AutoModelForSequenceClassification.from_config(
                    config,
                    attn_implementation=attention_of(config, attention),
                    dtype=weight_type(dtype, config, path),
                    trust_remote_code=trust_remote_code,
                )
                require_score(lm, path)
                lm = adapted(lm, path, adapter, shapes_only=True)
        if head == "mlp":
            put_mlp_head(lm, len(label_names), path)
        with_float32_head(lm, next(lm.base_model.parameters()).dtype)
    return lm


def config_from_scratch(architecture: Mapping[str, Any] | None, **more: Any) -> PretrainedConfig:
    """The configuration of a model from scratch.

    Args:
        architecture: its settings, with `model_type`.
        more: settings beside these.

    Raises:
        UserError: there are no settings.
    """
    if architecture is None:
        raise UserError(
            "the model has neither model.path (a directory or hub id) nor model.architecture (settings to start from "
            "scratch); expected one of them: set model.path=DIR."
        )
    settings = {**architecture, **more}
    with buildable(settings):
        config = AutoConfig.for_model(settings.pop("model_type"), **settings)
        check_heads(config, None)
    return config


def _from_scratch(
    architecture: Mapping[str, Any] | None, labels: dict[str, Any], vocabulary: int, attention: str, dtype: str
) -> PreTrainedModel:
    config = config_from_scratch(architecture, **labels, vocab_size=vocabulary)
    serve_type(config)
    with buildable(config.to_dict()):
        lm = AutoModelForSequenceClassification.from_config(
            config, attn_implementation=attention_of(config, attention), dtype=weight_type(dtype, None, None)
        )
    require_score(lm, None)
    return lm


def _from_checkpoint(
    path: str,
    model_type: str | None,
    labels: dict[str, Any],
    attention: str,
    trust_remote_code: bool,
    adapter: AdapterUse,
    as_it_is: bool,
    dtype: str,
) -> tuple[PreTrainedModel, str | None, Origin]:
    """The loaded model, the kind of its trained head (None: it has none), and where its weights come from."""
    config = load_config(path, trust_remote_code)
    require_architecture(config, model_type, path)
    serve_type(config)
    if is_given(path):
        lm = given_twin(path, attention_of(config, attention), weight_type(dtype, config, path))
        require_score(lm, path)
        return lm, "linear", Origin()
    place, safetensors, read = weights_place(base_path(path), trust_remote_code)
    trained_head = head_of(config)
    if trained_head is not None and config.num_labels != labels["num_labels"]:
        trained_head = None  # a head for another task: fine-tuning starts a new one
    before = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()  # a new head is meant, not worth a warning
    try:
        read_in = weight_type(dtype, config, path)
        with readable(path), reading_head_in_float32(config, read_in):
            lm, info = AutoModelForSequenceClassification.from_pretrained(
                place,
                dtype=read_in,
                attn_implementation=attention_of(config, attention),
                trust_remote_code=trust_remote_code,
                use_safetensors=safetensors,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
                **labels,
            )
    finally:
        transformers_logging.set_verbosity(before)
    require_score(lm, path)
    mend_buffers(lm)
    if trained_head == "mlp":  # transformers knows no such head; it is loaded by its own names
        info = {kind: {name for name in names if not of_head(name)} for kind, names in info.items()}
    found = adapter_of(path)
    brought = () if found is None else {name.removeprefix(PREFIX) for name in found.shapes}
    origin = replace(fitting_weights(info, lm, path, as_it_is, brought), read=read)
    return adapted(lm, path, adapter), trained_head, origin


def adapted(lm: Any, path: str, use: AdapterUse, shapes_only: bool = False) -> Any:
    """The model with the adapter that lies in `path`; where none does, with a new one (`lora`) or itself.

    Raises:
        UserError: see `twinlens.models.adapters.with_adapter`.
    """
    adapter = adapter_of(path)
    if adapter is None:
        return with_new_lora(lm, path, shapes_only) if use == "lora" else lm
    with readable(path):
        return (with_adapter_shapes if shapes_only else with_adapter)(lm, adapter, use)


def require_architecture(config: PretrainedConfig, model_type: str | None, path: str) -> None:
    """Refuse a checkpoint of another architecture than the chosen model says."""
    if model_type is not None and config.model_type != model_type:
        raise UserError(
            f"model.path={path} holds a {config.model_type} checkpoint, but the chosen model expects {model_type}; "
            "choose model=local for a checkpoint of any architecture."
        )


def save_classifier(
    lm: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path, reads: Mapping[str, Any] | None = None
) -> None:
    """Safetensors, configuration and tokenizer; a linear head loads with AutoModelForSequenceClassification.

    Kept adapters: see `twinlens.models.adapters.save_weights`.

    Args:
        reads: the form of input that it was trained with, see `own_form.py`; None: it stays as it was loaded.
    """
    if reads is not None:
        setattr(lm.config, INPUT_ENTRY, {name: reads[name] for name in ("template", "max_length")})
        tokenizer = reading_with(tokenizer, reads["bos"])
    save_weights(lm, folder)
    tokenizer.save_pretrained(folder)
