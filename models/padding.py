"""Padding on the left, moved to the right for models in which it would change what the tokens are."""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from twinlens.attribution.protocols import Batch
from twinlens.models.forwards import backbone_arguments

_MOVES: WeakKeyDictionary[Any, bool] = WeakKeyDictionary()
"""Models that were tried, and whether padding on the left changes what follows it."""


def aligned(backbone: Any, batch: Batch) -> Batch:
    """A batch whose tokens begin in the first column, where the model's numbers depend on that; else as it is.

    Models that count positions from the first column, or carry a state through every token, are such ones. Nothing is
    tried for batches without padding on the left.
    """
    mask = batch["attention_mask"]
    if bool(mask[:, 0].all()) or not moved_by_padding(backbone):
        return batch
    order = torch.sort(mask.bool().long(), dim=1, descending=True, stable=True).indices
    return {**batch, **{name: batch[name].gather(1, order) for name in ("input_ids", "attention_mask")}}


def unaligned(backbone: Any, batch: Batch, hidden: Tensor) -> Tensor:
    """States [batch, tokens, width] of an aligned batch, in the columns that its tokens had before."""
    mask = batch["attention_mask"]
    if bool(mask[:, 0].all()) or not moved_by_padding(backbone):
        return hidden
    order = torch.sort(mask.bool().long(), dim=1, descending=True, stable=True).indices
    return torch.zeros_like(hidden).scatter(1, order[..., None].expand_as(hidden), hidden)


@torch.no_grad()
def moved_by_padding(backbone: Any) -> bool:
    """Whether a text's last state changes with padding on its left; tried once, best before anything is recorded."""
    if backbone not in _MOVES:
        device = next(backbone.parameters()).device
        ids = (3 + torch.arange(5, device=device)) % backbone.config.get_text_config().vocab_size
        padded = {"input_ids": torch.stack([ids, ids]), "attention_mask": torch.ones(2, 5, device=device).long()}
        padded["attention_mask"][1, :3] = 0
        short = {name: tensor[1:, 3:] for name, tensor in padded.items()}
        given = [backbone(**backbone_arguments(backbone, each), use_cache=False) for each in (padded, short)]
        if not hasattr(given[0], "last_hidden_state"):  # no decoder, which whoever reads hidden states refuses
            return False
        found, expected = (output.last_hidden_state[-1, -1] for output in given)
        tolerance = max(1e-4, 16 * torch.finfo(expected.dtype).eps)
        _MOVES[backbone] = not bool((found - expected).abs().max() <= tolerance * expected.abs().max())
    return _MOVES[backbone]
