"""Positions and arguments of forwards, the same whatever side the padding stands on."""

from __future__ import annotations

from functools import cache
from inspect import signature
from typing import Any

import torch
from torch import Tensor

from twinlens.models.encoders import positions_passed


def position_ids_from_mask(attention_mask: Tensor) -> Tensor:
    """Position of every token counted over the tokens alone, so that padding on either side changes nothing."""
    return (attention_mask.long().cumsum(-1) - 1).clamp(min=0)


def answer_positions(attention_mask: Tensor) -> Tensor:
    """Column of the last non-padding token of each sequence, [batch].

    Taken from the mask, never from the padding id: an id that also occurs as a real token would move the position.
    """
    columns = torch.arange(attention_mask.shape[1], device=attention_mask.device)
    return (columns * attention_mask.long()).argmax(-1)


def first_positions(attention_mask: Tensor) -> Tensor:
    """Column of the first non-padding token of each sequence, [batch]: an encoder's classification token."""
    return attention_mask.long().argmax(-1)


def at_positions(values: Tensor, positions: Tensor) -> Tensor:
    """`values` [batch, tokens, …] at one position per sequence → [batch, …]."""
    return values[torch.arange(len(values), device=values.device), positions]


def backbone_arguments(backbone: Any, batch: Any) -> dict[str, Tensor]:
    """Keyword arguments of a full forward, with positions that do not depend on the padding side.

    Models that take no positions (ALiBi) read them off the mask.
    """
    arguments = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
    kind: Any = type(backbone)
    if _takes_positions(kind) and not positions_passed(backbone):
        arguments["position_ids"] = position_ids_from_mask(batch["attention_mask"])
    return arguments


@cache
def _takes_positions(backbone_class: Any) -> bool:
    return "position_ids" in signature(backbone_class.forward).parameters


def first(args: tuple, kwargs: dict) -> Tensor:
    """The hidden states a block was called with, positionally or by name."""
    return args[0] if args else kwargs["hidden_states"]
