"""One collate for all datasets: dynamic padding, the row index kept in every batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor


class PaddingCollator:
    """Pads a batch to its longest sequence.

    Args:
        pad_token_id: id written where the mask is 0; any id serves, since the mask decides.
        padding_side: `right` or `left`.
    """

    def __init__(self, pad_token_id: int, padding_side: str = "right") -> None:
        self.pad_token_id = pad_token_id
        self.padding_side = padding_side

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """Collate rows with `index`, `label` and `input_ids`.

        Returns:
            `index` [batch], `input_ids` and `attention_mask` [batch, tokens], `labels` [batch], all int64; a label of
            -1 means unlabelled. Where `input_ids` of a row holds one list per choice, the two are
            [batch, choices, tokens], so that slicing dimension 0 always takes examples apart.
        """
        nested = isinstance(rows[0]["input_ids"][0], Sequence)
        sequences = [ids for row in rows for ids in row["input_ids"]] if nested else [row["input_ids"] for row in rows]
        input_ids, attention_mask = self._pad(sequences)
        shape = (len(rows), -1, input_ids.shape[1]) if nested else input_ids.shape
        return {
            "index": torch.tensor([row["index"] for row in rows], dtype=torch.int64),
            "input_ids": input_ids.view(shape),
            "attention_mask": attention_mask.view(shape),
            "labels": torch.tensor([row["label"] for row in rows], dtype=torch.int64),
        }

    def _pad(self, sequences: Sequence[Any]) -> tuple[Tensor, Tensor]:
        """Ids and mask, both [sequences, longest]."""
        longest = max(len(ids) for ids in sequences)
        input_ids = torch.full((len(sequences), longest), self.pad_token_id, dtype=torch.int64)
        attention_mask = torch.zeros((len(sequences), longest), dtype=torch.int64)
        for position, sequence in enumerate(sequences):
            ids = torch.as_tensor(sequence, dtype=torch.int64)
            where = slice(0, len(ids)) if self.padding_side == "right" else slice(longest - len(ids), longest)
            input_ids[position, where] = ids
            attention_mask[position, where] = 1
        return input_ids, attention_mask
