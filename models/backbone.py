"""Loading and saving: tokenizer, backbone and classification head, from the hub, a directory or from scratch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import safe_open
from torch import nn
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
from twinlens.models.adapter_files import adapter_of, base_path, naming_adapter
from twinlens.models.adapters import AdapterUse, save_weights, with_adapter, with_adapter_shapes
from twinlens.models.checkpoint_files import readable, refuse_missing_folder, require_safetensors, resolve
from twinlens.models.checkpoint_settings import buildable, check_attention, check_checkpoint_settings

HeadKind = Literal["linear", "mlp"]
HEAD_ENTRY = "twinlens_head"
"""Entry of config.json that says how the head is shaped; absent means transformers' own linear `score`."""


class MlpHead(nn.Sequential):
    """Linear – tanh – Linear over the hidden state, both with bias: [..., hidden] → [..., classes]."""

    def __init__(self, hidden_size: int, n_classes: int) -> None:
        super().__init__(nn.Linear(hidden_size, hidden_size), nn.Tanh(), nn.Linear(hidden_size, n_classes))


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
    with readable(path):
        return AutoConfig.from_pretrained(resolve(path), trust_remote_code=trust_remote_code)


def load_tokenizer(path: str, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """Fast tokenizer with a padding token that is no other token.

    A tokenizer without one, or one that pads with its end or unknown token, gets the unused id `<pad>`: reloaded
    classifiers find the answer position by comparing ids with it.

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
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id in others:
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
) -> PreTrainedModel:
    """A sequence classifier in float32 whose head is `score`: trained where the checkpoint has one, else new.

    New parameters are drawn from `seed` alone, so that the same call gives the same model.

    Raises:
        UserError: unreadable path, another architecture than `model_type`, no decoder with a `score` head, a
            checkpoint with missing weights or with a head of another shape.
    """
    torch.manual_seed(seed)
    lm: Any
    labels = {
        "num_labels": len(label_names),
        "id2label": dict(enumerate(label_names)),
        "label2id": {name: number for number, name in enumerate(label_names)},
    }
    if path is None:
        lm = _from_scratch(architecture, labels, len(tokenizer), attention)
        trained_head = None
    else:
        lm, trained_head = _from_checkpoint(path, model_type, labels, attention, trust_remote_code, adapter)
    if len(tokenizer) > lm.get_input_embeddings().num_embeddings:
        lm.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    lm.config.pad_token_id = tokenizer.pad_token_id  # only now: the id may lie beyond the checkpoint's vocabulary
    if trained_head == "mlp" or (trained_head is None and head == "mlp"):
        lm.score = MlpHead(lm.score.in_features, len(label_names))
        setattr(lm.config, HEAD_ENTRY, "mlp")
        if trained_head == "mlp" and path is not None:
            lm.score.load_state_dict(head_weights(Path(resolve(base_path(path)))))
    return lm


def architecture_of(
    path: str | None,
    architecture: Mapping[str, Any] | None,
    head: HeadKind,
    label_names: Sequence[str],
    vocabulary: int,
    attention: str,
    trust_remote_code: bool,
    adapter: AdapterUse = "keep",
) -> PreTrainedModel:
    """The classifier without values (on the meta device): shapes alone, no weight is read.

    Args:
        vocabulary: size of the tokenizer, for a model from scratch.

    Raises:
        UserError: the configuration cannot be read, or names no decoder with a `score` head.
    """
    labels = {"num_labels": len(label_names)}
    with torch.device("meta"):
        if path is None:
            lm: Any = _from_scratch(architecture, labels, vocabulary, attention)
        else:
            config = load_config(path, trust_remote_code)
            head = head_of(config) or head
            config.num_labels = len(label_names)
            with readable(path):
                lm = AutoModelForSequenceClassification.from_config(
                    config,
                    attn_implementation=attention_of(config, attention),
                    dtype=torch.float32,
                    trust_remote_code=trust_remote_code,
                )
                lm = adapted(lm, path, adapter, shapes_only=True)
        if not hasattr(lm, "score"):
            raise UserError(
                f"model.path={path} has no decoder with a `score` head on the last token; expected a causal model such "
                "as gpt2, opt, gpt_neox, bloom, llama, mistral, qwen2 or gemma."
            )
        if head == "mlp":
            lm.score = MlpHead(lm.score.in_features, len(label_names))
    return lm


def _from_scratch(
    architecture: Mapping[str, Any] | None, labels: dict[str, Any], vocabulary: int, attention: str
) -> PreTrainedModel:
    if architecture is None:
        raise UserError(
            "the model has neither model.path (a directory or hub id) nor model.architecture (settings to start from "
            "scratch); expected one of them: set model.path=DIR."
        )
    settings = {**architecture, **labels, "vocab_size": vocabulary}
    with buildable(settings):
        config = AutoConfig.for_model(settings.pop("model_type"), **settings)
        return AutoModelForSequenceClassification.from_config(
            config, attn_implementation=attention_of(config, attention), dtype=torch.float32
        )


def _from_checkpoint(
    path: str,
    model_type: str | None,
    labels: dict[str, Any],
    attention: str,
    trust_remote_code: bool,
    adapter: AdapterUse,
) -> tuple[PreTrainedModel, str | None]:
    """The loaded model, and the kind of its trained head (None: the checkpoint has no classification head)."""
    config = load_config(path, trust_remote_code)
    require_architecture(config, model_type, path)
    if not trust_remote_code:
        require_safetensors(base_path(path))
    trained_head = head_of(config)
    if trained_head is not None and config.num_labels != labels["num_labels"]:
        trained_head = None  # a head for another task: fine-tuning starts a new one
    before = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()  # a new head is meant, not worth a warning
    try:
        with readable(path):
            lm, info = AutoModelForSequenceClassification.from_pretrained(
                resolve(base_path(path)),
                dtype=torch.float32,
                attn_implementation=attention_of(config, attention),
                trust_remote_code=trust_remote_code,
                use_safetensors=None if trust_remote_code else True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
                **labels,
            )
    finally:
        transformers_logging.set_verbosity(before)
    if not hasattr(lm, "score"):
        raise UserError(
            f"model.path={path} is of type {config.model_type}, which has no decoder with a `score` head on the last "
            "token; expected a causal model such as gpt2, opt, gpt_neox, bloom, llama, mistral, qwen2 or gemma."
        )
    missing = sorted(name for name in info["missing_keys"] if not name.startswith("score."))
    if missing:
        raise UserError(
            f"the checkpoint {path} lacks {len(missing)} weights of a {config.model_type} model (first: {missing[0]}); "
            "expected a complete checkpoint of that architecture: check model.path."
        )
    return adapted(lm, path, adapter), trained_head


def adapted(lm: Any, path: str, use: AdapterUse, shapes_only: bool = False) -> Any:
    """The model with the adapter that lies in `path`, itself where none does.

    Raises:
        UserError: see `twinlens.models.adapters.with_adapter`.
    """
    adapter = adapter_of(path)
    if adapter is None:
        return lm
    with readable(path):
        return (with_adapter_shapes if shapes_only else with_adapter)(lm, adapter, use)


def require_architecture(config: PretrainedConfig, model_type: str | None, path: str) -> None:
    """Refuse a checkpoint of another architecture than the chosen model says."""
    if model_type is not None and config.model_type != model_type:
        raise UserError(
            f"model.path={path} holds a {config.model_type} checkpoint, but the chosen model expects {model_type}; "
            "choose model=local for a checkpoint of any architecture."
        )


def head_of(config: PretrainedConfig) -> HeadKind | None:
    """The kind of classification head a checkpoint was saved with, None where it has none."""
    names = config.architectures or []
    if not any("ForSequenceClassification" in name for name in names):
        return None
    return getattr(config, HEAD_ENTRY, "linear")


def require_trained_classifier(config: PretrainedConfig, path: str) -> list[str]:
    """Label names of a checkpoint that is used as it is (fit=false), in the order of its head.

    Raises:
        UserError: the checkpoint has no classification head.
    """
    if head_of(config) is None:
        raise UserError(
            f"fit=false uses the classifier in model.path={path} as it is, but its architecture "
            f"({', '.join(config.architectures or ['unknown'])}) has no classification head; expected "
            "…ForSequenceClassification: train it first (fit=true) or point model.path to a trained classifier."
        )
    names: Any = config.id2label
    return [names[number] for number in range(len(names))]


def save_classifier(lm: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Safetensors, configuration and tokenizer; a linear head loads with AutoModelForSequenceClassification.

    Kept adapters: see `twinlens.models.adapters.save_weights`.
    """
    save_weights(lm, folder)
    tokenizer.save_pretrained(folder)


def head_weights(folder: Path) -> dict[str, torch.Tensor]:
    """Weights under `score.` in a checkpoint's safetensors files, without that prefix."""
    weights = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "pt") as opened:
            for name in opened.keys():  # noqa: SIM118  (safe_open has no iteration of its own)
                if name.startswith("score."):
                    weights[name.removeprefix("score.")] = opened.get_tensor(name)
    return weights


def attention_of(config: PretrainedConfig, attention: str) -> str:
    """The attention implementation to load with.

    Raises:
        UserError: it is none of transformers' own.
    """
    check_attention(attention)
    return "eager" if config.model_type == "bloom" else attention  # BLOOM has its own attention only
