"""The architecture that a configuration asks for, without weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from twinlens.attribution.readouts import READOUTS
from twinlens.callbacks.passes.session import DataModule
from twinlens.models.backbone import architecture_of, load_config
from twinlens.models.causal import causal_architecture_of
from twinlens.models.choice import output_names
from twinlens.models.weight_types import weight_type


def configured_architecture(data: DataModule, model: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase) -> Any:
    """The configured model without values.

    Args:
        data: whose labels, choices or next tokens it scores.
        model: settings of the model.
        tokenizer: whose size a model from scratch has.

    Raises:
        UserError: see `twinlens.models.backbone.architecture_of`.
    """
    if READOUTS[data.readout].of_vocabulary:
        return causal_architecture_of(
            model["path"],
            model["architecture"],
            tokenizer,
            model["attention"],
            model["trust_remote_code"],
            model["adapter"],
            model.get("dtype", "float32"),
        )
    names = output_names(data.label_names, data.n_choices)
    return architecture_of(
        model["path"], model["architecture"], model["head"], names, len(tokenizer),
        model["attention"], model["trust_remote_code"], model["adapter"], model.get("dtype", "float32"),
    )  # fmt: skip


def configured_type(model: Mapping[str, Any]) -> torch.dtype:
    """The type in which the configured model's weights are read; of them only headers are looked at.

    Args:
        model: settings of the model.

    Raises:
        UserError: no such type, or a configuration that cannot be read.
    """
    path = model["path"]
    config = None if path is None else load_config(path, model["trust_remote_code"])
    return weight_type(model.get("dtype", "float32"), config, path)
