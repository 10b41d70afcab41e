"""Opening what a run reads: data, tokenizer and, for a classifier used as it is, its labels. Reads no weights."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from twinlens.attribution.errors import UserError
from twinlens.attribution.readouts import READOUTS
from twinlens.models.adapter_files import adapter_of, base_path
from twinlens.models.adapters import require_usable
from twinlens.models.backbone import load_config, load_tokenizer, require_architecture, require_trained_classifier
from twinlens.models.checkpoint_files import require_safetensors
from twinlens.models.choice import scores_choices


def open_inputs(config: Any, build: Callable[..., Any]) -> tuple[Any, PreTrainedTokenizerBase]:
    """The prepared data and the model's tokenizer.

    Args:
        config: the run's configuration.
        build: makes the object of a configuration node.

    Raises:
        UserError: bad data, an unreadable checkpoint, or labels of a trained classifier that do not match the data.
            Where the data ask for the next token, any causal language model can be used as it is.
    """
    model = config.model
    data = build(config.data)
    trained, of_choices = None, False
    if model.path is not None:
        checkpoint = load_config(model.path, model.trust_remote_code)
        require_architecture(checkpoint, model.model_type, model.path)
        adapter = adapter_of(model.path)
        if adapter is not None:
            require_usable(adapter, model.adapter)
        if not (model.trust_remote_code or config.plan):  # a plan reads no weights
            require_safetensors(base_path(model.path))
        if not config.fit and not READOUTS[data.readout].of_vocabulary:
            trained = require_trained_classifier(checkpoint, model.path)
        of_choices = scores_choices(checkpoint)
    elif not config.fit:
        raise UserError(
            f"fit=false uses a trained {READOUTS[data.readout].model} as it is, but model={model.name} starts from "
            "scratch; expected model.path: set model=local model.path=DIR."
        )
    if trained is not None and not of_choices and config.data.get("label_names", ()) is None:
        data = build(config.data, label_names=trained)
    tokenizer = load_tokenizer(model.tokenizer_path or model.path, model.trust_remote_code)
    data.prepare(tokenizer)
    if trained is not None:
        require_matching_readout(of_choices, trained, data.n_choices, data.label_names, model.path)
        if not of_choices:
            require_matching_labels(trained, data.label_names, model.path)
    return data, tokenizer


def model_node(model: Any, readout: str) -> Any:
    """The model's configuration for the readout of the data: the node itself, which describes a classifier, or for
    a vocabulary the same checkpoint and recipe as a language model, which brings its own head.

    Args:
        model: the configuration's node.
        readout: of the data, see `data.base`.
    """
    target = READOUTS[readout].target
    return {**{k: v for k, v in model.items() if k != "head"}, "_target_": target} if target else model


def require_matching_readout(
    of_choices: bool, checkpoint: Sequence[str], n_choices: int | None, data: Sequence[str], path: str
) -> None:
    """Refuse a multiple-choice model (fit=false) on classification data and the reverse.

    A model of one score per sequence serves any number of choices.

    Raises:
        UserError: naming both sides.
    """
    if of_choices and n_choices is None:
        raise UserError(
            f"the classifier in model.path={path} gives one score per sequence, as multiple choice needs it, but the "
            f"data have the labels {_listed(data)}; expected a classifier of these labels: choose multiple-choice "
            "data, or train it on these (fit=true)."
        )
    if n_choices is not None and not of_choices:
        raise UserError(
            f"the classifier in model.path={path} has the labels {_listed(checkpoint)}, but the data are multiple "
            f"choice with {n_choices} choices; expected a model of one score per sequence: choose data with these "
            "labels, or train it on these (fit=true)."
        )


def require_matching_labels(checkpoint: Sequence[str], data: Sequence[str], path: str) -> None:
    """Refuse a classifier (fit=false) whose classes are not those of the data, in the same order.

    A checkpoint that never named its classes (LABEL_0, LABEL_1 …) is taken at its number of classes.

    Raises:
        UserError: naming both lists.
    """
    unnamed = all(re.fullmatch(r"LABEL_\d+", name) for name in checkpoint)
    if list(checkpoint) == list(data) or (unnamed and len(checkpoint) == len(data)):
        return
    hint = (
        "give them in the checkpoint's order with data.label_names"
        if sorted(checkpoint) == sorted(data)
        else "choose the data the classifier was trained for, or train it on these (fit=true)"
    )
    raise UserError(
        f"the classifier in model.path={path} has the labels {_listed(checkpoint)}, but the data have "
        f"{_listed(data)}; expected the same labels in the same order: {hint}."
    )


def _listed(names: Sequence[str]) -> str:
    return "[" + ", ".join(names) + "]"
