"""The architecture that a configuration asks for, without weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import PreTrainedTokenizerBase

from twinlens.attribution.readouts import READOUTS
from twinlens.callbacks.passes.session import DataModule
from twinlens.models.backbone import architecture_of
from twinlens.models.causal import causal_architecture_of
from twinlens.models.choice import output_names


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
        )
    names = output_names(data.label_names, data.n_choices)
    return architecture_of(
        model["path"], model["architecture"], model["head"], names, len(tokenizer),
        model["attention"], model["trust_remote_code"], model["adapter"],
    )  # fmt: skip
