"""Prefix of the answer token: keys, values and positions of everything before it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Prefix:
    """What the answer token of each sequence can see.

    Attributes:
        keys, values: per layer [batch, key heads, columns, head_dim], all columns of the full forward.
        visible: columns before the answer position, [batch, columns].
        distance: columns between each column and the answer position, [batch, columns].
        position_ids: position of the answer token, [batch, 1].
        alibi: bias of the columns [batch·heads, 1, columns] and of the answer position [batch·heads, 1, 1], or None.
    """

    keys: list[Tensor]
    values: list[Tensor]
    visible: Tensor
    distance: Tensor
    position_ids: Tensor
    alibi: tuple[Tensor, Tensor] | None


class PrefixCache:
    """A read-only cache: the prefix's columns followed by the rows' own."""

    def __init__(self, prefix: Prefix) -> None:
        self.prefix = prefix

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        keys, values = self.prefix.keys[layer_idx], self.prefix.values[layer_idx]
        return (
            torch.cat([keys.to(key_states.dtype), key_states], 2),
            torch.cat([values.to(value_states.dtype), value_states], 2),
        )
