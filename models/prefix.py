"""Prefix of the answer token: keys, values and positions of everything before it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from twinlens.models.anatomy import Anatomy, BlockInputs, at_positions, position_ids_from_mask


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


def prefix_of(anatomy: Anatomy, cache: DynamicCache, mask: Tensor, positions: Tensor, dtype: torch.dtype) -> Prefix:
    """What the answer tokens of a batch can see, of a full forward.

    Args:
        cache: of the forward.
        mask: its attention mask, [batch, columns].
        positions: column of each answer token, [batch].
        dtype: of the forward's numbers.
    """
    layers: list[Any] = cache.layers
    columns = torch.arange(mask.shape[1], device=mask.device)
    distance = positions[:, None] - columns
    alibi = anatomy.alibi(mask, dtype)
    if alibi is not None:
        heads = len(alibi) // len(mask)
        own = at_positions(alibi.transpose(1, 2), positions.repeat_interleave(heads))[:, None]
        bias: tuple[Tensor, Tensor] | None = (alibi, own)
    else:
        bias = None
    return Prefix(
        keys=[layer.keys for layer in layers],
        values=[layer.values for layer in layers],
        visible=mask.bool() & (distance > 0),
        distance=distance,
        position_ids=at_positions(position_ids_from_mask(mask), positions)[:, None],
        alibi=bias,
    )


def block_inputs(anatomy: Anatomy, prefix: Prefix, layer: int, hidden: Tensor) -> BlockInputs:
    """Mask, positions and cache for rows [batch, rows, hidden] that all stand at the answer position."""
    batch, rows = hidden.shape[:2]
    window = anatomy.window(layer)
    visible = prefix.visible if window is None else prefix.visible & (prefix.distance < window)
    lowest = torch.finfo(hidden.dtype).min
    mask = hidden.new_full((batch, 1, rows, visible.shape[1] + rows), lowest)
    mask[..., : visible.shape[1]].masked_fill_(visible[:, None, None], 0.0)
    mask[..., visible.shape[1] :].diagonal(dim1=-2, dim2=-1).zero_()
    positions = prefix.position_ids.expand(-1, rows)
    alibi = None
    if prefix.alibi is not None:
        columns, own = prefix.alibi
        alibi = torch.cat([columns, own.expand(-1, -1, rows)], -1)
    return BlockInputs(
        mask=mask,
        position_ids=positions,
        rotary=anatomy.rotary(hidden, positions),
        alibi=alibi,
        cache=PrefixCache(prefix),
    )
