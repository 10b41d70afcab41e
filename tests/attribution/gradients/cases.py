"""Tiny classifiers in float64 whose every linear layer is differentiated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from tests.families import linear_head, tiny_backbone
from twinlens.attribution.protocols import LinearLayer
from twinlens.models.forwards import answer_positions, at_positions, position_ids_from_mask
from twinlens.models.linear_layers import linear_layers

FAMILIES = ["gpt2", "opt", "gpt_neox", "llama", "qwen2"]


@dataclass(frozen=True)
class Case:
    """A model and what it differentiates."""

    module: nn.ModuleDict
    layers: list[LinearLayer]

    def scores(self, batch: Mapping[str, Tensor]) -> Tensor:
        """[examples, classes]."""
        mask = batch["attention_mask"]
        hidden = self.module["backbone"](
            input_ids=batch["input_ids"],
            attention_mask=mask,
            position_ids=position_ids_from_mask(mask),
            use_cache=False,
        ).last_hidden_state
        return self.module["head"](at_positions(hidden, answer_positions(mask)))

    def loss(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Summed cross-entropy."""
        return cross_entropy(self.scores(batch), batch["labels"], reduction="sum")


def case(family: str, params: str = "all", dtype: torch.dtype = torch.float64) -> Case:
    """A family's tiny model with a linear head; biases are drawn too."""
    backbone = tiny_backbone(family).to(dtype)
    head = linear_head(backbone).to(dtype)
    module = nn.ModuleDict({"backbone": backbone, "head": head})
    return Case(module, linear_layers(module, head, params))
